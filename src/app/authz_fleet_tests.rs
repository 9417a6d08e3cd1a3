//! Authz on another host than admin: what its workload is sent, certificates that are replaced, and an admin that is away.

use super::*;
use crate::app::authz_health::AuthzDoor;
use crate::app::authz_health::AuthzHealth;
use crate::app::authz_health::AuthzTold;
use crate::authz::FED;
use crate::config::fleet::Reach;
use crate::config::fleet::Workload;
use crate::domain::ids::ConnectionId;
use crate::domain::validity::Validity;
use crate::sys::clock::SystemClock;
use crate::sys::tls::trust::ServerTrust;

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

/// Waits until the health of a service is this.
async fn until_health(channel: &Channel, service: &str, wanted: i32) {
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut statuses = HealthClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
    let wait = async {
        while let Some(status) = statuses.message().await.unwrap() {
            if status.status == wanted {
                return;
            }
        }
        panic!("health ended");
    };
    tokio::time::timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{service} is never {wanted}"));
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const UNAPPROVED: &str = "AUTH_CLAIM_REQUIRED";

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
    for channel in [&first, &second, &third] {
        serving(channel).await;
    }
    clock.set(START + 10);
    until(&first, &clock, "svc-one", "Bearer canary-one").await;
    until(&first, &clock, "svc-two", UNAPPROVED).await;
    until(&second, &clock, "svc-two", "Bearer canary-two").await;
    until(&second, &clock, "svc-one", UNAPPROVED).await;
    until(&third, &clock, "svc-one", UNAPPROVED).await;
    // One connection moves to the other, and later none is left.
    admin.publisher.set_workloads(vec![workload("billing", &["svc-two"]), workload("mail", &[])]);
    until(&first, &clock, "svc-two", "Bearer canary-two").await;
    until(&first, &clock, "svc-one", UNAPPROVED).await;
    until(&second, &clock, "svc-two", UNAPPROVED).await;
    admin.publisher.set_workloads(Vec::new());
    until(&first, &clock, "svc-two", UNAPPROVED).await;
    for gateway in [billing, mail, stranger] {
        gateway.end().await;
    }
    admin.end().await;
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
    clock.set(START + 10);
    until(&channel, &clock, "svc-two", "Bearer canary-two").await;
    let (publisher, address) = admin.end().await;
    until_health(&channel, FED, NOT_SERVING).await;
    until_health(&channel, "envoy.service.auth.v3.Authorization", SERVING).await;
    let door = AuthzDoor::unix(&gateway.folder.join("authz.sock"));
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
    clock.set(START + 10);
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
    let door = AuthzDoor::unix(&gateway.folder.join("authz.sock"));
    let certificate = Some(Validity { from, until: end });
    assert_eq!(door.health(TIMEOUT).await.unwrap(), AuthzTold { health: AuthzHealth::Serving, certificate });
    let seen = admin.publisher.peers().pop().unwrap();
    assert!(seen.certificate == certificate && seen.node.starts_with("authz.test ("), "{seen:?}");
    assert!(admin.publisher.cut_off().is_empty());

    until_health(&channel, FED, NOT_SERVING).await;
    assert_eq!(door.health(TIMEOUT).await.unwrap(), AuthzTold { health: AuthzHealth::Cut, certificate });
    assert!(end.0 < now().0, "not before its end");
    clock.set(START + 10);
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
