//! Authz on another host than admin: what its workload is sent, certificates that are replaced, and an admin that is away.

use super::*;
use crate::app::authz_health::AuthzTold;
use crate::authz::FED;
use crate::config::fleet::Reach;
use crate::config::fleet::Workload;
use crate::domain::decision::OTHER;
use crate::domain::ids::ConnectionId;
use crate::domain::validity::Validity;
use crate::sys::clock::SystemClock;
use crate::sys::grpc;
use crate::sys::tls::trust::ServerTrust;
use crate::wire::state::proto::state_request::Message;
use crate::wire::state::proto::state_service_client::StateServiceClient;

/// An admin that streams over mutual TLS, as long as it lives.
struct Remote {
    publisher: Publisher,
    address: SocketAddr,
    tls: ServerTls,
    tasks: Tasks,
}

impl Remote {
    async fn serve(files: &TlsFiles, state: PublishedState) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let publisher = Publisher::new(state);
        let tls = ServerTls::load_unnamed(files).unwrap();
        let mut remote = Self { publisher, address, tls, tasks: Tasks::default() };
        remote.serve_on(listener);
        remote
    }

    fn serve_on(&mut self, listener: TcpListener) {
        let (server, tls) = (self.publisher.clone(), self.tls.clone());
        self.tasks.spawn("state", |stop| server.serve_tls(listener, tls, stop));
        let tls = self.tls.clone();
        self.tasks.spawn("certificates", |stop| tls.follow(stop));
    }

    /// Nobody listens any more; what is published is kept for the next.
    async fn end(self) -> (Publisher, SocketAddr) {
        self.tasks.stop_handle().stop();
        self.tasks.supervise(TIMEOUT).await;
        (self.publisher, self.address)
    }
}

fn workload(name: &str, connections: &[&str]) -> Workload {
    let ids = connections.iter().map(|id| ConnectionId::parse(id).unwrap());
    Workload { name: name.to_owned(), sans: vec![format!("{name}.test")], reach: Reach::Only(ids.collect()) }
}

/// Two connections, each with the approval of the same agent.
fn two_connections() -> PublishedState {
    let second = proto::ServiceApprovals { service: "svc-two".to_owned(), ..approvals() };
    PublishedState {
        connections: vec![connection("svc-one", "canary-one"), connection("svc-two", "canary-two")],
        approvals: vec![approvals(), second],
        ..published()
    }
}

/// An authz with a certificate, and a folder, of its own.
async fn remote_authz(root: &Path, files: TlsFiles, address: SocketAddr, clock: &TestClock) -> Gateway {
    let folder = tempfile::tempdir_in(root).unwrap().keep();
    let state = StateFrom::Tcp { address: address.to_string(), tls: Some((files, "admin.test".to_owned())) };
    Gateway::start_with(&folder, AuthzConfig { state, ..config(&folder) }, clock.clone()).await
}

/// Asks with new requests until one gets this answer.
async fn until(channel: &Channel, clock: &TestClock, service: &str, wanted: &str) {
    let asking = async {
        let mut last = String::new();
        for number in 0_u64.. {
            let nonce = format!("until-{service}-{wanted}-{number}-{}", clock.seconds().0);
            let request = signed(&format!("/proxy/{service}/v1/ping"), b"", &nonce, clock.seconds());
            last = outcome(&ask(channel, "body", request).await);
            if last == wanted {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        last
    };
    tokio::time::timeout(TIMEOUT, asking).await.unwrap_or_else(|_| panic!("{service}: never {wanted}"));
}

const UNAPPROVED: &str = "AUTH_CLAIM_REQUIRED";
const NOT_READY: &str = "NOT_READY";

/// Says these words on a stream of one's own, as no authz of ours does, and hears until `enough`, or the end.
async fn stream(
    address: SocketAddr,
    files: &TlsFiles,
    words: Vec<Message>,
    enough: impl Fn(&proto::StateResponse) -> bool,
) -> (Vec<proto::StateResponse>, Option<tonic::Status>) {
    let source = StateSource::Tls(address.to_string(), ClientTls::load(files, "admin.test").unwrap());
    let channel = crate::state::connect(&source).await.unwrap();
    let words = words.into_iter().map(|message| proto::StateRequest { message: Some(message) });
    let words = tokio_stream::StreamExt::chain(tokio_stream::iter(words), tokio_stream::pending());
    let mut heard = Vec::new();
    let mut responses = match StateServiceClient::new(channel).stream(words).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return (heard, Some(status)),
    };
    loop {
        match tokio::time::timeout(TIMEOUT, responses.message()).await.unwrap() {
            Ok(Some(response)) => {
                let last = enough(&response);
                heard.push(response);
                if last {
                    return (heard, None);
                }
            }
            Ok(None) => return (heard, None),
            Err(status) => return (heard, Some(status)),
        }
    }
}

fn hello(window: &str) -> Message {
    Message::Hello(proto::Hello { replay_window: window.to_owned(), ..proto::Hello::default() })
}

/// Puts one set of files in the place of another.
fn replace(place: &TlsFiles, with: &TlsFiles) {
    for (place, with) in
        [(&place.certificate, &with.certificate), (&place.key, &with.key), (&place.authorities, &with.authorities)]
    {
        files::write_private(place, &std::fs::read(with).unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_decides_for_its_own_connections_alone_also_when_they_change() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    let admin = Remote::serve(&ours.issue("admin.test"), two_connections()).await;
    admin.publisher.set_workloads(vec![workload("billing", &["svc-one"]), workload("mail", &["svc-two"])]);
    let billing = remote_authz(root.path(), ours.issue("billing.test"), admin.address, &clock).await;
    let mail = remote_authz(root.path(), ours.issue("mail.test"), admin.address, &clock).await;
    let stranger = remote_authz(root.path(), ours.issue("stranger.test"), admin.address, &clock).await;
    let (first, second, third) = (billing.channel().await, mail.channel().await, stranger.channel().await);
    for channel in [&first, &second] {
        serving(channel).await;
    }
    clock.set(START + 20);
    until(&first, &clock, "svc-one", "Bearer canary-one").await;
    until(&first, &clock, "svc-two", UNAPPROVED).await;
    until(&second, &clock, "svc-two", "Bearer canary-two").await;
    until(&second, &clock, "svc-one", UNAPPROVED).await;
    until(&third, &clock, "svc-one", NOT_READY).await;
    // One connection moves to the other, and later none is left.
    admin.publisher.set_workloads(vec![workload("billing", &["svc-two"]), workload("mail", &[])]);
    // What was used at the other is not known here.
    until(&first, &clock, "svc-two", "REPLAY_WINDOW_STARTING").await;
    clock.set(START + 40);
    until(&first, &clock, "svc-two", "Bearer canary-two").await;
    until(&first, &clock, "svc-one", UNAPPROVED).await;
    until(&second, &clock, "svc-two", UNAPPROVED).await;
    // Whoever belongs to no workload any more keeps nothing.
    admin.publisher.set_workloads(Vec::new());
    until(&first, &clock, "svc-two", NOT_READY).await;
    for gateway in [billing, mail, stranger] {
        gateway.end().await;
    }
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_no_workload_names_is_sent_nothing_and_counts_nowhere() {
    use prost::Message as _;
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let header = proto::CollectorHeader { name: "x-collector".to_owned(), value: "canary-of-the-collector".to_owned() };
    let mut settings = state::encode_settings(&Settings::default());
    settings.traces = Some(proto::Collector { headers: vec![header], ..proto::Collector::default() });
    let admin = Remote::serve(&ours.issue("admin.test"), PublishedState { settings, ..two_connections() }).await;
    admin.publisher.set_workloads(vec![workload("billing", &[])]);
    let (billing, guest) = (ours.issue("billing.test"), ours.issue("guest.test"));
    // Whoever is named is sent it, without a connection too.
    let (heard, status) = stream(admin.address, &billing, vec![hello("local:b")], |_| true).await;
    let bytes = heard.iter().flat_map(proto::StateResponse::encode_to_vec).collect::<Vec<_>>();
    assert!(status.is_none() && bytes.windows(23).any(|window| window == b"canary-of-the-collector"));
    let report = proto::Report { ready: true, replay_store_failing: true, ..proto::Report::default() };
    let words = vec![hello("local:g"), Message::Report(report)];
    let (heard, status) = stream(admin.address, &guest, words, |_| false).await;
    assert!(heard.is_empty(), "{heard:?}");
    assert_eq!(status.unwrap().code(), tonic::Code::PermissionDenied);
    assert!(admin.publisher.reports().is_empty());
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_is_none_becomes_no_name_of_a_counter() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let admin = Remote::serve(&ours.issue("admin.test"), two_connections()).await;
    admin.publisher.set_workloads(vec![workload("billing", &["svc-one"])]);
    let denied = [("AUTH_REPLAY_DETECTED", 1), ("canary", 2), ("canary-two", 3)];
    let denied = denied.map(|(code, count)| (code.to_owned(), count)).into();
    let words = vec![hello("local:b"), Message::Report(proto::Report { denied, ..proto::Report::default() })];
    let billing = ours.issue("billing.test");
    let told = async {
        while admin.publisher.reports().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        admin.publisher.reports()
    };
    let told = tokio::select! {
        _ = stream(admin.address, &billing, words, |_| false) => panic!("it ended"),
        told = told => told,
    };
    let denied = [("AUTH_REPLAY_DETECTED", 1), (OTHER, 5)].map(|(code, count)| (code.to_owned(), count));
    assert_eq!(told[0].denied, denied.into());
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_one_connection_and_comes_first_does_not_stop_who_has_all() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    let admin = Remote::serve(&ours.issue("admin.test"), two_connections()).await;
    let all = Workload { reach: Reach::Everything, ..workload("all", &[]) };
    admin.publisher.set_workloads(vec![workload("billing", &["svc-one"]), all]);
    let billing = ours.issue("billing.test");
    let thief = stream(admin.address, &billing, vec![hello("local:thief")], |_| false);
    let honest = async {
        while admin.publisher.peers().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let gateway = remote_authz(root.path(), ours.issue("all.test"), admin.address, &clock).await;
        let channel = gateway.channel().await;
        serving(&channel).await;
        clock.set(START + 20);
        until(&channel, &clock, "svc-one", "Bearer canary-one").await;
        until(&channel, &clock, "svc-two", "Bearer canary-two").await;
        gateway
    };
    let ((heard, status), gateway) = tokio::join!(thief, honest);
    assert!(!heard.is_empty() && status.unwrap().code() == tonic::Code::FailedPrecondition);
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lost_its_state_is_not_ready_until_it_has_one_again() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    let admin = Remote::serve(&ours.issue("admin.test"), two_connections()).await;
    admin.publisher.set_workloads(vec![workload("billing", &["svc-one"])]);
    let gateway = remote_authz(root.path(), ours.issue("billing.test"), admin.address, &clock).await;
    let channel = gateway.channel().await;
    applied(&admin.publisher).await;
    clock.set(START + 20);
    until_health(&channel, "", SERVING).await;
    admin.publisher.set_workloads(Vec::new());
    for service in ["", ENVOYS] {
        until_health(&channel, service, NOT_SERVING).await;
    }
    // It holds nothing any more, and admin has just begun.
    clock.set(START + 40);
    let door = AuthzDoor::unix(&gateway.folder.join("authz.sock"));
    assert_eq!(door.health(TIMEOUT).await.unwrap().health, AuthzHealth::NotServing);
    admin.publisher.set_workloads(vec![workload("billing", &["svc-one"])]);
    // Somebody else may have decided in between: it waits for as long from when it is given them.
    until_ready(&gateway).await;
    for service in ["", ENVOYS] {
        until_health(&channel, service, SERVING).await;
    }
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_prove_nothing_make_room_for_one_that_does() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let publisher = Publisher::new(two_connections());
    publisher.set_workloads(vec![workload("billing", &["svc-one"])]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inbound = Inbound::Tls { listener, tls: ServerTls::load_unnamed(&ours.issue("admin.test")).unwrap() };
    let limits = grpc::Limits { connections: 2, ..grpc::Limits::default() };
    let mut tasks = Tasks::default();
    tasks.spawn("state", |stop| grpc::serve("state", inbound, grpc::one(publisher.service()), limits, stop));
    // Ten times as many as there are places, and each would have five seconds.
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let (heard, status) = stream(address, &ours.issue("billing.test"), vec![hello("local:b")], |_| true).await;
    assert!(!heard.is_empty(), "{status:?}");
    drop(idle);
    tasks.stop_handle().stop();
    tasks.supervise(TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_admin_declared_approvals_go_on_and_claims_for_their_time() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    let claims = proto::ServiceApprovals {
        service: "svc-two".to_owned(),
        source: proto::ApprovalSource::Claims.into(),
        age_ms: Some(0),
        ..approvals()
    };
    let mut settings = state::encode_settings(&Settings::default());
    settings.claims_hold_ms = 40_000;
    let state = PublishedState { approvals: vec![approvals(), claims], settings, ..two_connections() };
    let admin = Remote::serve(&ours.issue("admin.test"), state).await;
    admin.publisher.set_workloads(vec![workload("authz", &["svc-one", "svc-two"])]);
    let gateway = remote_authz(root.path(), ours.issue("authz.test"), admin.address, &clock).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    until_health(&channel, FED, SERVING).await;
    clock.set(START + 20);
    until(&channel, &clock, "svc-two", "Bearer canary-two").await;
    let (publisher, address) = admin.end().await;
    until_health(&channel, FED, NOT_SERVING).await;
    until_health(&channel, ENVOYS, SERVING).await;
    let door = AuthzDoor::unix(&gateway.folder.join("authz.sock"));
    until_health(&channel, "", SERVING).await;
    assert_eq!(door.health(TIMEOUT).await.unwrap().health, AuthzHealth::Cut);
    clock.set(START + 39);
    until(&channel, &clock, "svc-two", "Bearer canary-two").await;
    clock.set(START + 41);
    until(&channel, &clock, "svc-two", "AUTH_CLAIMS_LOOKUP_FAILED").await;
    until(&channel, &clock, "svc-one", "Bearer canary-one").await;
    // A successor of admin, with the same store.
    let publisher = {
        drop(publisher);
        Publisher::new(PublishedState { version: 2, ..two_connections() })
    };
    let listener = TcpListener::bind(address).await.unwrap();
    let tls = ServerTls::load_unnamed(&ours.issue("admin.test")).unwrap();
    publisher.set_workloads(vec![workload("authz", &["svc-one", "svc-two"])]);
    let mut back = Remote { publisher, address, tls, tasks: Tasks::default() };
    back.serve_on(listener);
    until_health(&channel, FED, SERVING).await;
    until(&channel, &clock, "svc-two", "Bearer canary-two").await;
    gateway.end().await;
    back.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_the_state_stream_are_replaced_while_it_runs() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(root.path(), "old"), Authority::new(root.path(), "new"));
    let clock = clock();
    let (admin_files, authz_files) = (old.issue("admin.test"), old.issue("authz.test"));
    let admin = Remote::serve(&admin_files, published()).await;
    admin.publisher.set_workloads(vec![workload("authz", &["svc-one"])]);
    let gateway = remote_authz(root.path(), authz_files.clone(), admin.address, &clock).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    until_health(&channel, FED, SERVING).await;
    // Half of a replacement: no key fits it yet, so it changes nothing.
    files::write_private(&admin_files.certificate, &std::fs::read(&new.issue("admin.test").certificate).unwrap())
        .unwrap();
    // The authority is withdrawn at admin: the stream ends, and what was received stays.
    replace(&admin_files, &new.issue("admin.test"));
    until_health(&channel, FED, NOT_SERVING).await;
    clock.set(START + 20);
    until(&channel, &clock, "svc-one", "Bearer canary-one").await;
    // With certificates of the new one it comes back, without a restart.
    replace(&authz_files, &new.issue("authz.test"));
    until_health(&channel, FED, SERVING).await;
    applied(&admin.publisher).await;
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_between_envoy_and_authz_are_replaced_and_withdrawn_while_it_runs() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(root.path(), "old"), Authority::new(root.path(), "new"));
    let authz_files = old.issue("authz.test");
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listen = Listen::Tcp { address, tls: Some((authz_files.clone(), vec!["envoy.test".to_owned()])) };
    let bound = build(AuthzConfig { listen, ..config(root.path()) }, clock(), supervision::unsupervised_peers()).await;
    let bound = bound.unwrap();
    let address = bound.address().unwrap();
    let (tasks, mut outer) = (Tasks::default(), Tasks::default());
    let stop = tasks.stop_handle();
    outer.spawn("authz", |_| async move { assert_eq!(bound.run(tasks).await, Ended::Stopped) });
    let envoy = old.issue("envoy.test");
    assert_eq!(over_tls(address, &envoy, "authz.test").await, Ok(200));
    // A connection of Envoy's that stays open.
    let tls = ClientTls::load(&envoy, "authz.test").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let held = tls.connector().connect(tls.server(), stream).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake::<_, _, http_body_util::Full<bytes::Bytes>>(
        hyper_util::rt::TokioExecutor::new(),
        TokioIo::new(held),
    )
    .await
    .unwrap();
    replace(&authz_files, &new.issue("authz.test"));
    // Its certificate comes from an authority that is gone.
    let ended = tokio::time::timeout(TIMEOUT, connection).await;
    assert!(ended.is_ok() && sender.is_closed());
    over_tls(address, &envoy, "authz.test").await.unwrap_err();
    assert_eq!(over_tls(address, &new.issue("envoy.test"), "authz.test").await, Ok(200));
    stop.stop();
    outer.supervise(TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_stops_the_start_and_is_named() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let files = ours.issue("authz.test");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["authz.test".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let certificate = params.signed_by(&key, &ours.issuer).unwrap();
    files::write_private(&files.certificate, certificate.pem().as_bytes()).unwrap();
    files::write_private(&files.key, key.serialize_pem().as_bytes()).unwrap();
    let state =
        StateFrom::Tcp { address: "127.0.0.1:1".to_owned(), tls: Some((files.clone(), "admin.test".to_owned())) };
    let refused = build(AuthzConfig { state, ..config(root.path()) }, clock(), supervision::unsupervised_peers()).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains(&files.certificate.display().to_string()), "{text}");
    assert!(text.contains("expired at 2002-01-01"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_certificate_is_told_anything_of_the_state() {
    use tokio::io::AsyncReadExt as _;
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let files = ours.issue("admin.test");
    let admin = Remote::serve(&files, published()).await;
    let trust = ServerTrust { authorities: Some(files.authorities), ..ServerTrust::default() };
    let mut config = trust.client_config().unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(admin.address).await.unwrap();
    // In TLS 1.3 the refusal comes after our own end has finished; an admin that speaks begins with its settings.
    let first = async {
        let mut stream = connector.connect("admin.test".try_into().unwrap(), stream).await?;
        stream.read_u8().await
    };
    tokio::time::timeout(TIMEOUT, first).await.unwrap().unwrap_err();
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authz_whose_certificate_ends_goes_on_and_both_ends_say_so_by_name() {
    let root = tempfile::tempdir().unwrap();
    let (ours, clock) = (Authority::new(root.path(), "ours"), clock());
    // Of its minute the last ten seconds: whoever renews should have by now.
    let now = || SystemClock.now().seconds();
    let (from, end) = (UnixSeconds(now().0 - 50), UnixSeconds(now().0 + 10));
    let files = ours.issue_for("authz.test", from, end);
    let admin = Remote::serve(&ours.issue("admin.test"), published()).await;
    admin.publisher.set_workloads(vec![workload("authz", &["svc-one"])]);
    let gateway = remote_authz(root.path(), files, admin.address, &clock).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    until_health(&channel, FED, SERVING).await;
    // It has no journal: what was signed before it began is refused, and until then it is not ready.
    clock.set(START + 20);
    until_health(&channel, "", SERVING).await;
    let door = AuthzDoor::unix(&gateway.folder.join("authz.sock"));
    let certificate = Some(Validity { from, until: end });
    assert_eq!(door.health(TIMEOUT).await.unwrap(), AuthzTold { health: AuthzHealth::Serving, certificate, why: None });
    let seen = admin.publisher.peers().pop().unwrap();
    assert!(seen.certificate == certificate && seen.node.starts_with("authz.test ("), "{seen:?}");
    assert!(admin.publisher.cut_off().is_empty());

    until_health(&channel, FED, NOT_SERVING).await;
    assert_eq!(door.health(TIMEOUT).await.unwrap(), AuthzTold { health: AuthzHealth::Cut, certificate, why: None });
    assert!(end.0 < now().0, "not before its end");
    until(&channel, &clock, "svc-one", "Bearer canary-one").await;
    until_health(&channel, "envoy.service.auth.v3.Authorization", SERVING).await;
    let cut_off = async {
        while admin.publisher.cut_off() != [(seen.node.clone(), Validity { from, until: end })] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, cut_off).await.unwrap();

    // The next certificate mends it, without a restart.
    ours.issue("authz.test");
    until_health(&channel, FED, SERVING).await;
    assert!(admin.publisher.cut_off().is_empty());
    gateway.end().await;
    admin.end().await;
}

#[path = "authz_failover_tests.rs"]
mod failover;
#[path = "authz_idle_tests.rs"]
mod idle;
