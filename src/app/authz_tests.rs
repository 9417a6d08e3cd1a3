use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use envoy_types::pb::envoy::config::core::v3::HeaderMap;
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Request as Attributes;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::app::authz_health::AuthzDoor;
use crate::app::authz_health::AuthzHealth;
use crate::config::fleet::Reach;
use crate::config::fleet::Workload;
use crate::domain::ids::Namespace;
use crate::domain::snapshot::Settings;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;
use crate::identity::Identity;
use crate::identity::Outgoing;
use crate::state::Change;
use crate::state::PublishedState;
use crate::state::Publisher;
use crate::wire::state;
use crate::wire::state::proto;

const START: u64 = 1_700_000_000;
const TIMEOUT: Duration = Duration::from_secs(20);

/// A wall clock that moves when told to.
#[derive(Debug, Clone, Default)]
struct TestClock(Arc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    seconds: AtomicU64,
    /// How far the monotonic clock is behind, in seconds: what the wall clock has leapt.
    leapt: AtomicU64,
    /// Files of other processes that go by this clock.
    followers: std::sync::Mutex<Vec<PathBuf>>,
}

impl TestClock {
    fn at(seconds: u64) -> Self {
        let clock = Self::default();
        clock.set(seconds);
        clock
    }

    /// Time passes; with clocks that follow second by second, so that whoever looks at two of them meanwhile finds none wrong.
    fn set(&self, seconds: u64) {
        let followers = self.0.followers.lock().unwrap();
        let next = self.0.seconds.load(Ordering::Relaxed) + 1;
        for now in if followers.is_empty() { seconds } else { next.min(seconds) }..=seconds {
            self.0.seconds.store(now, Ordering::Relaxed);
            for file in followers.iter() {
                turn(file, now);
            }
        }
    }

    /// No time passes, but the wall clock of this one shows another.
    fn leap(&self, seconds: u64) {
        let before = self.0.seconds.swap(seconds, Ordering::Relaxed);
        self.0.leapt.fetch_add(seconds.wrapping_sub(before), Ordering::Relaxed);
    }

    fn follow(&self, file: &Path) {
        turn(file, self.seconds().0);
        self.0.followers.lock().unwrap().push(file.to_owned());
    }

    fn seconds(&self) -> UnixSeconds {
        self.now().seconds()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let seconds = self.0.seconds.load(Ordering::Relaxed);
        let passed = seconds.wrapping_sub(self.0.leapt.load(Ordering::Relaxed));
        Now { wall: UnixMillis(seconds * 1000), monotonic: MonotonicMillis((1 << 40) + passed * 1000) }
    }
}

/// Sets the clock of a process that goes by a file.
fn turn(file: &Path, seconds: u64) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all(&seconds.to_ne_bytes()).unwrap();
}

fn connection(id: &str, secret: &str) -> proto::Connection {
    proto::Connection {
        id: id.to_owned(),
        protocol: "http".to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_mode: proto::AuthMode::Bearer.into(),
        auth_prefix: "Bearer ".to_owned(),
        secret: secret.to_owned(),
        active: true,
        ..proto::Connection::default()
    }
}

fn identity() -> Identity {
    Identity::from_seed(Namespace::parse("acme").unwrap(), &[9; 32], UnixSeconds(START - 1000))
}

fn approvals() -> proto::ServiceApprovals {
    let identity = identity();
    let namespace = Namespace::parse("acme").unwrap();
    proto::ServiceApprovals {
        service: "svc-one".to_owned(),
        source: proto::ApprovalSource::Declared.into(),
        grants: vec![state::encode_grant(&namespace, &identity.public_key(), None)],
        age_ms: None,
    }
}

fn published() -> PublishedState {
    PublishedState {
        epoch: "epoch-1".to_owned(),
        version: 1,
        settings: state::encode_settings(&Settings::default()),
        connections: vec![connection("svc-one", "canary-one")],
        approvals: vec![approvals()],
        ..PublishedState::default()
    }
}

/// An admin that publishes on a socket, as long as it lives.
struct Admin {
    publisher: Publisher,
    tasks: Tasks,
}

impl Admin {
    fn serve(folder: &Path, state: PublishedState) -> Self {
        let path = folder.join("state.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let publisher = Publisher::new(state);
        let mut tasks = Tasks::default();
        let server = publisher.clone();
        tasks.spawn("state", |stop| server.serve_unix(listener, supervision::unsupervised_peers(), stop));
        Self { publisher, tasks }
    }

    async fn end(self) {
        self.tasks.stop_handle().stop();
        self.tasks.supervise(TIMEOUT).await;
    }
}

/// An authz that serves, as long as it lives.
struct Gateway {
    stop: StopHandle,
    tasks: Tasks,
    clock: TestClock,
    folder: PathBuf,
}

fn config(folder: &Path) -> AuthzConfig {
    AuthzConfig {
        listen: Listen::Unix(folder.join("authz.sock")),
        state: StateFrom::Unix(folder.join("state.sock")),
        run_dir: folder.join("run"),
        supervised: false,
        cleaner: None,
        replay_capacity: 2_000_000,
        shared_replay: None,
        max_body_bytes: 2 << 20,
        decisions: Level::Off,
        drain_pause: Duration::ZERO,
        grace: Duration::from_secs(5),
    }
}

fn clock() -> TestClock {
    TestClock::at(START)
}

impl Gateway {
    async fn start(folder: &Path) -> Self {
        Self::start_with(folder, config(folder), clock()).await
    }

    async fn start_with(folder: &Path, config: AuthzConfig, clock: TestClock) -> Self {
        Self::start_for(folder, config, clock, supervision::unsupervised_peers()).await
    }

    async fn start_for(
        folder: &Path,
        config: AuthzConfig,
        clock: TestClock,
        peers: watch::Receiver<Option<PeerRule>>,
    ) -> Self {
        let bound = build(config, clock.clone(), peers).await.unwrap();
        let inner = Tasks::default();
        let stop = inner.stop_handle();
        let mut tasks = Tasks::default();
        tasks.spawn("authz", |_| async move {
            assert_eq!(bound.run(inner).await, Ended::Stopped);
        });
        Self { stop, tasks, clock, folder: folder.to_owned() }
    }

    /// Returns when everything has ended, and fails where it did not end well.
    async fn end(self) {
        self.stop.stop();
        assert_ne!(self.tasks.supervise(TIMEOUT).await, Ended::Forced);
    }

    async fn channel(&self) -> Channel {
        channel(self.folder.join("authz.sock")).await.unwrap()
    }

    /// After a first start without a journal: a time from which on nothing is refused for its age.
    fn settle(&self) {
        self.clock.set(START + 10);
    }
}

async fn channel(path: PathBuf) -> Result<Channel, tonic::transport::Error> {
    let connect = move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    };
    Endpoint::from_static("http://authz.invalid").connect_with_connector(service_fn(connect)).await
}

/// The one thing of `tower` these tests need.
fn service_fn<F>(make: F) -> ServiceFn<F> {
    ServiceFn(make)
}

#[derive(Clone)]
struct ServiceFn<F>(F);

impl<F, T, R> tonic::codegen::Service<T> for ServiceFn<F>
where
    F: FnMut(T) -> R,
    R: Future<Output = std::io::Result<TokioIo<UnixStream>>>,
{
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = R;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: T) -> R {
        (self.0)(request)
    }
}

async fn health(channel: &Channel) -> i32 {
    let request = HealthCheckRequest { service: "envoy.service.auth.v3.Authorization".to_owned() };
    HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status
}

/// Waits until authz says to Envoy that it decides.
async fn serving(channel: &Channel) {
    until_health(channel, ENVOYS, SERVING).await;
}

/// Time passes until it is ready. Since when it has its connections it is told by the clock of admin, which no test sets.
async fn until_ready(gateway: &Gateway) {
    let (door, clock) = (AuthzDoor::unix(&gateway.folder.join("authz.sock")), &gateway.clock);
    let becoming = async {
        while door.health(TIMEOUT).await.unwrap().health != AuthzHealth::Serving {
            clock.set(clock.seconds().0 + 1);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, becoming).await.expect("it is never ready");
}

/// What Envoy asks for.
const ENVOYS: &str = "envoy.service.auth.v3.Authorization";
const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// Waits until the health of a service is this; that of the whole server has no name.
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

/// A check as our Envoy sends it.
fn check(target: &str, body: &[u8], signed: &[(&str, String)]) -> CheckRequest {
    let mut headers = vec![
        (":authority", "127.0.0.1:38000".to_owned()),
        (":path", target.to_owned()),
        (":method", "POST".to_owned()),
        ("x-forwarded-proto", "http".to_owned()),
        ("x-request-id", "req-1".to_owned()),
        ("content-length", body.len().to_string()),
    ];
    headers.extend(signed.iter().map(|(name, value)| (*name, value.clone())));
    let headers = headers.into_iter().map(|(name, value)| HeaderValue {
        key: name.to_owned(),
        value: String::new(),
        raw_value: value.into_bytes(),
    });
    let http = HttpRequest {
        protocol: "HTTP/1.1".to_owned(),
        raw_body: body.to_vec(),
        header_map: Some(HeaderMap { headers: headers.collect() }),
        ..HttpRequest::default()
    };
    let request = Some(Attributes { time: None, http: Some(http) });
    CheckRequest { attributes: Some(AttributeContext { request, ..AttributeContext::default() }) }
}

fn signed(target: &str, body: &[u8], nonce: &str, created: UnixSeconds) -> CheckRequest {
    let identity = identity();
    let outgoing = Outgoing {
        method: "POST",
        url: &format!("http://127.0.0.1:38000{target}"),
        body,
        subject: None,
        agent_id: None,
        created,
        nonce,
    };
    check(target, body, &identity.signer().sign(&outgoing).unwrap())
}

async fn ask(channel: &Channel, stage: &'static str, check: CheckRequest) -> CheckResponse {
    let mut request = tonic::Request::new(check);
    request.metadata_mut().insert("x-sigilum-stage", stage.parse().unwrap());
    AuthorizationClient::new(channel.clone())
        .max_encoding_message_size(16 << 20)
        .check(request)
        .await
        .unwrap()
        .into_inner()
}

/// The code of a refusal, or what authorization an allowed request gets.
fn outcome(response: &CheckResponse) -> String {
    match response.http_response.as_ref().unwrap() {
        HttpResponse::DeniedResponse(denied) => {
            let header = denied.headers.iter().filter_map(|option| option.header.as_ref());
            let code = header.into_iter().find(|header| header.key == "x-sigilum-code");
            code.map_or_else(|| denied.status.as_ref().unwrap().code.to_string(), |header| header.value.clone())
        }
        HttpResponse::OkResponse(ok) => {
            let header = ok.headers.iter().filter_map(|option| option.header.as_ref());
            let header = header.into_iter().find(|header| header.key == "authorization");
            header.map_or_else(|| "go on".to_owned(), |header| header.value.clone())
        }
        HttpResponse::ErrorResponse(_) => "error".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_is_allowed_once_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let admin = Admin::serve(folder.path(), published());
    let gateway = Gateway::start(folder.path()).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    let target = "/proxy/svc-one/v1/ping";
    let early = signed(target, b"ping", "n-0", gateway.clock.seconds());
    assert_eq!(outcome(&ask(&channel, "body", early).await), "REPLAY_WINDOW_STARTING");
    gateway.settle();
    let now = gateway.clock.seconds();
    let request = signed(target, b"ping", "n-1", now);
    assert_eq!(outcome(&ask(&channel, "head", request.clone()).await), "go on");
    assert_eq!(outcome(&ask(&channel, "body", request.clone()).await), "Bearer canary-one");
    assert_eq!(outcome(&ask(&channel, "body", request.clone()).await), "AUTH_REPLAY_DETECTED");
    assert_eq!(outcome(&ask(&channel, "body", check(target, b"ping", &[])).await), "AUTH_SIGNATURE_INVALID");
    assert_eq!(outcome(&ask(&channel, "head", check(target, b"ping", &[])).await), "AUTH_SIGNATURE_INVALID");
    assert_eq!(outcome(&ask(&channel, "other", request).await), "AUTHZ_UNAVAILABLE");
    assert_eq!(outcome(&ask(&channel, "body", CheckRequest::default()).await), "AUTHZ_UNAVAILABLE");
    let large = vec![b'x'; 2 << 20];
    assert_eq!(outcome(&ask(&channel, "body", signed(target, &large, "n-2", now)).await), "Bearer canary-one");
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_state_nothing_is_served_and_health_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path()).await;
    let channel = gateway.channel().await;
    gateway.settle();
    assert_eq!(health(&channel).await, 2);
    let target = "/proxy/svc-one/";
    let now = gateway.clock.seconds();
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-1", now)).await), "NOT_READY");
    // Admin comes later, and goes again: what it said stays in force.
    let admin = Admin::serve(folder.path(), published());
    serving(&channel).await;
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-2", now)).await), "Bearer canary-one");
    admin.end().await;
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-3", now)).await), "Bearer canary-one");
    assert_eq!(health(&channel).await, 1);
    gateway.end().await;
}

/// Waits until the one authz of this admin has applied what is published.
async fn applied(publisher: &Publisher) {
    let wait = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        while !publisher.peers().iter().any(|peer| peer.current) {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_and_reports_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let admin = Admin::serve(folder.path(), published());
    let gateway = Gateway::start(folder.path()).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    gateway.settle();
    let now = gateway.clock.seconds();
    let target = "/proxy/svc-one/";
    admin.publisher.publish(2, Change::Upsert(Box::new(connection("svc-one", "canary-two"))));
    applied(&admin.publisher).await;
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-1", now)).await), "Bearer canary-two");
    admin.publisher.publish(3, Change::ReplaceApprovals(proto::ServiceApprovals { grants: Vec::new(), ..approvals() }));
    applied(&admin.publisher).await;
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-2", now)).await), "AUTH_CLAIM_REQUIRED");
    admin.publisher.publish(
        4,
        Change::AddApprovals(vec![proto::Approval {
            service: "svc-one".to_owned(),
            source: proto::ApprovalSource::Declared.into(),
            grant: approvals().grants.pop(),
        }]),
    );
    admin.publisher.publish(5, Change::Delete("svc-one".to_owned()));
    applied(&admin.publisher).await;
    // The code-less 404: approved for a name that no connection has.
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-3", now)).await), "404");
    // A restarted admin with the same store: its state counts at once, also at the same version.
    admin.end().await;
    let admin = Admin::serve(folder.path(), PublishedState { version: 5, ..published() });
    applied(&admin.publisher).await;
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-4", now)).await), "Bearer canary-one");
    let report = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            let report = admin.publisher.reports().pop().unwrap_or_default();
            if report.allowed == 2 {
                return report;
            }
        }
    };
    let report = tokio::time::timeout(TIMEOUT, report).await.unwrap();
    assert_eq!(report.denied["AUTH_CLAIM_REQUIRED"], 1);
    assert_eq!(report.denied["CONNECTION_UNKNOWN"], 1);
    assert!(report.ready && report.replay_entries == 2 && report.started_at_ms == START * 1000);
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authz_follows_a_store_that_was_put_back_to_an_earlier_state() {
    let folder = tempfile::tempdir().unwrap();
    let run = |incarnation: &str, version| {
        let incarnation = incarnation.to_owned();
        Admin::serve(folder.path(), PublishedState { incarnation, version, ..published() })
    };
    let admin = run("one", 16);
    let gateway = Gateway::start(folder.path()).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    gateway.settle();
    let now = gateway.clock.seconds();
    let target = "/proxy/svc-one/";
    admin.publisher.publish(17, Change::Upsert(Box::new(connection("svc-one", "canary-two"))));
    applied(&admin.publisher).await;
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-1", now)).await), "Bearer canary-two");
    admin.end().await;
    // A copy of version 9: what was done since is undone here too, or the two would disagree for good.
    let admin = run("two", 9);
    applied(&admin.publisher).await;
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-2", now)).await), "Bearer canary-one");
    admin.publisher.publish(10, Change::Delete("svc-one".to_owned()));
    admin.end().await;
    // Put back once more, and changed until its version is beyond what the authz may have been sent.
    let admin = run("three", 9);
    applied(&admin.publisher).await;
    admin.publisher.publish(10, Change::Delete("svc-one".to_owned()));
    applied(&admin.publisher).await;
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-3", now)).await), "404");
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_is_used_once_also_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let admin = Admin::serve(folder.path(), published());
    let gateway = Gateway::start(folder.path()).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    gateway.settle();
    let clock = gateway.clock.clone();
    let request = signed("/proxy/svc-one/", b"x", "n-1", clock.seconds());
    assert_eq!(outcome(&ask(&channel, "body", request.clone()).await), "Bearer canary-one");
    gateway.end().await;
    let gateway = Gateway::start_with(folder.path(), config(folder.path()), clock).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    assert_eq!(outcome(&ask(&channel, "body", request).await), "AUTH_REPLAY_DETECTED");
    let next = signed("/proxy/svc-one/", b"x", "n-2", gateway.clock.seconds());
    assert_eq!(outcome(&ask(&channel, "body", next).await), "Bearer canary-one");
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_refuses_and_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let admin = Admin::serve(folder.path(), published());
    // One key may hold a quarter.
    let small = AuthzConfig { replay_capacity: 4, ..config(folder.path()) };
    let gateway = Gateway::start_with(folder.path(), small, clock()).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    gateway.settle();
    let request = |nonce| signed("/proxy/svc-one/", b"x", nonce, gateway.clock.seconds());
    assert_eq!(outcome(&ask(&channel, "body", request("n-1")).await), "Bearer canary-one");
    assert_eq!(outcome(&ask(&channel, "body", request("n-2")).await), "REPLAY_WINDOW_FULL");
    assert_eq!(outcome(&ask(&channel, "body", request("n-1")).await), "AUTH_REPLAY_DETECTED");
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_process_that_was_named_may_connect() {
    let folder = tempfile::tempdir().unwrap();
    let (rule, peers) = watch::channel(None);
    let gateway = Gateway::start_for(folder.path(), config(folder.path()), clock(), peers).await;
    let path = folder.path().join("authz.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let own = PeerRule::same_user();
    let pid = i32::try_from(std::process::id()).unwrap();
    let refused = [None, Some(PeerRule { pid: Some(pid + 1), ..own }), Some(PeerRule { uid: own.uid + 1, ..own })];
    for named in refused {
        rule.send_replace(named);
        let request = HealthCheckRequest { service: String::new() };
        let answer = match channel(path.clone()).await {
            Ok(channel) => HealthClient::new(channel).check(request).await.map_err(|_| ()),
            Err(_) => Err(()),
        };
        assert!(answer.is_err(), "{named:?}");
    }
    rule.send_replace(Some(PeerRule { pid: Some(pid), ..own }));
    assert_eq!(health(&channel(path).await.unwrap()).await, 2);
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_do_not_share_a_run_folder_or_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path()).await;
    let second = build(config(folder.path()), clock(), supervision::unsupervised_peers()).await;
    assert!(matches!(second, Err(AuthzError::Lock(LockError::Held { .. }))), "{second:?}");
    let elsewhere = AuthzConfig { run_dir: folder.path().join("other"), ..config(folder.path()) };
    let second = build(elsewhere, clock(), supervision::unsupervised_peers()).await;
    assert!(matches!(second, Err(AuthzError::Socket(SocketError::InUse(_)))), "{second:?}");
    let long = AuthzConfig { state: StateFrom::Unix(PathBuf::from("x".repeat(108))), ..config(folder.path()) };
    let second = build(long, clock(), supervision::unsupervised_peers()).await.unwrap_err();
    assert!(second.to_string().contains("108 bytes"), "{second}");
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_withdraws_health_first_and_ends_what_is_idle() {
    let folder = tempfile::tempdir().unwrap();
    let admin = Admin::serve(folder.path(), published());
    let paused = AuthzConfig { drain_pause: Duration::from_millis(300), ..config(folder.path()) };
    let gateway = Gateway::start_with(folder.path(), paused, clock()).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    gateway.settle();
    until_health(&channel, "", SERVING).await;
    let request = HealthCheckRequest { service: String::new() };
    let mut statuses = HealthClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
    assert_eq!(statuses.message().await.unwrap().unwrap().status, 1);
    gateway.stop.stop();
    let withdrawn = tokio::time::timeout(TIMEOUT, statuses.message()).await.unwrap().unwrap();
    assert_eq!(withdrawn.unwrap().status, 2);
    // Within the pause checks are decided still.
    let late = signed("/proxy/svc-one/", b"x", "n-1", gateway.clock.seconds());
    assert_eq!(outcome(&ask(&channel, "body", late).await), "Bearer canary-one");
    drop(statuses);
    let path = folder.path().join("authz.sock");
    gateway.end().await;
    assert!(UnixStream::connect(path).await.is_err());
    admin.end().await;
}

/// A gateway of namespace `acme` that registers its own and has approved nobody.
fn registering(settings: Settings) -> PublishedState {
    PublishedState { settings: state::encode_settings(&settings), approvals: Vec::new(), ..published() }
}

fn ours() -> Settings {
    Settings { auto_register: true, gateway_namespace: "acme".to_owned(), ..Settings::default() }
}

/// The Markdown of a refusal.
fn text(response: &CheckResponse) -> &str {
    match response.http_response.as_ref().unwrap() {
        HttpResponse::DeniedResponse(denied) => &denied.body,
        HttpResponse::OkResponse(_) | HttpResponse::ErrorResponse(_) => "",
    }
}

fn recorded(status: &str) -> proto::Registered {
    proto::Registered {
        result: proto::RegisterResult::Recorded.into(),
        http_status: 201,
        claim_id: "cl_1".to_owned(),
        claim_status: status.to_owned(),
        ..proto::Registered::default()
    }
}

/// What the one authz of this admin has refused with `code`, once that is so many.
async fn refused(publisher: &Publisher, code: &str, wanted: u64) {
    let wait = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while publisher.reports().pop().and_then(|report| report.denied.get(code).copied()) != Some(wanted) {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_caller_is_registered_told_and_let_in_once_approved() {
    let folder = tempfile::tempdir().unwrap();
    let admin = Admin::serve(folder.path(), registering(ours()));
    let mut registrations = admin.publisher.registrations();
    let gateway = Gateway::start(folder.path()).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    gateway.settle();
    let now = gateway.clock.seconds();
    let target = "/proxy/svc-one/";
    // At the head stage already: that is where a request with a body is refused.
    let asking = ask(&channel, "head", signed(target, b"x", "n-1", now));
    let answering = async {
        let proto::Register { service, namespace, public_key, subject, agent_id, .. } = {
            let registration = tokio::time::timeout(TIMEOUT, registrations.recv()).await.unwrap().unwrap();
            registration.answer.send(recorded("pending")).unwrap();
            registration.register
        };
        assert_eq!((service.as_str(), namespace.as_str(), subject.as_str()), ("svc-one", "acme", "acme"));
        assert_eq!((public_key.as_slice(), agent_id.as_str()), (&identity().public_key().as_bytes()[..], ""));
    };
    let (response, ()) = tokio::join!(asking, answering);
    assert_eq!(outcome(&response), "AUTH_CLAIM_REQUIRED");
    for line in [
        "- Auto-registration mode: `enabled` (gateway)\n",
        "- Claim submit result: `recorded`\n",
        "- Claim API status: `201`\n",
        "- Claim ID: `cl_1`\n",
        "- Claim state: `pending`\n",
    ] {
        assert!(text(&response).contains(line), "{line}");
    }
    // It polls, and is told the same; nothing is submitted anew.
    let again = ask(&channel, "body", signed(target, b"x", "n-2", now)).await;
    assert!(text(&again).contains("- Claim ID: `cl_1`\n"));
    assert!(registrations.try_recv().is_err());
    refused(&admin.publisher, "AUTH_CLAIM_REQUIRED", 2).await;
    admin.publisher.publish(2, Change::ReplaceApprovals(approvals()));
    applied(&admin.publisher).await;
    assert_eq!(outcome(&ask(&channel, "body", signed(target, b"x", "n-3", now)).await), "Bearer canary-one");
    gateway.end().await;
    admin.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_registered_for_others_or_for_what_is_not_there() {
    let target = "/proxy/svc-one/";
    for (settings, target, said) in [
        (Settings { gateway_namespace: "other".to_owned(), ..ours() }, target, Some("`failed-before-response`")),
        (
            Settings { gateway_namespace: "other".to_owned(), ..ours() },
            "/proxy/absent/",
            Some("`failed-before-response`"),
        ),
        (Settings { gateway_namespace: String::new(), ..ours() }, target, Some("`failed-before-response`")),
        (ours(), "/proxy/absent/", None),
        (Settings { auto_register: false, ..ours() }, target, None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mode = if settings.auto_register { "`enabled` (gateway)" } else { "`disabled`" };
        let admin = Admin::serve(folder.path(), registering(settings));
        let mut registrations = admin.publisher.registrations();
        let gateway = Gateway::start(folder.path()).await;
        let channel = gateway.channel().await;
        serving(&channel).await;
        gateway.settle();
        let response = ask(&channel, "body", signed(target, b"x", "n-1", gateway.clock.seconds())).await;
        assert_eq!(outcome(&response), "AUTH_CLAIM_REQUIRED");
        assert!(text(&response).contains(&format!("- Auto-registration mode: {mode}\n")), "{}", text(&response));
        let result = text(&response).lines().find_map(|line| line.strip_prefix("- Claim submit result: "));
        assert_eq!(result, said);
        let step = text(&response).contains("`GATEWAY_SIGILUM_NAMESPACE`");
        assert_eq!(step, said.is_some(), "{}", text(&response));
        // Not approved, but also not genuine: no word of registrations at all.
        let unsigned = ask(&channel, "body", check(target, b"x", &[])).await;
        assert_eq!(outcome(&unsigned), "AUTH_SIGNATURE_INVALID");
        assert!(registrations.try_recv().is_err());
        gateway.end().await;
        admin.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_takes_long_delays_only_its_own_refusal_and_not_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let state = PublishedState {
        connections: vec![connection("svc-one", "canary-one"), connection("svc-two", "canary-two")],
        approvals: vec![approvals()],
        settings: state::encode_settings(&ours()),
        ..published()
    };
    let admin = Admin::serve(folder.path(), state);
    let mut registrations = admin.publisher.registrations();
    let gateway = Gateway::start(folder.path()).await;
    let channel = gateway.channel().await;
    serving(&channel).await;
    gateway.settle();
    let now = gateway.clock.seconds();
    // One client leaves while it waits: it was refused all the same.
    let mut leaving = Box::pin(ask(&channel, "body", signed("/proxy/svc-two/", b"x", "n-1", now)));
    let held = tokio::select! {
        registration = registrations.recv() => registration.unwrap(),
        _ = &mut leaving => panic!("answered before it was registered"),
    };
    drop(leaving);
    refused(&admin.publisher, "AUTH_CLAIM_REQUIRED", 1).await;
    // Another is told nothing of it in time; what is approved does not wait.
    let waiting = ask(&channel, "body", signed("/proxy/svc-two/", b"x", "n-2", now));
    let others = async {
        for number in 0..20 {
            let request = signed("/proxy/svc-one/", b"x", &format!("o-{number}"), now);
            assert_eq!(outcome(&ask(&channel, "body", request).await), "Bearer canary-one");
        }
    };
    let (untold, ()) = tokio::join!(waiting, others);
    assert!(text(&untold).contains("- Auto-registration mode: `enabled` (gateway)\n\n"), "{}", text(&untold));
    assert!(registrations.try_recv().is_err(), "one is under way");
    // Too many registrations: said so, and counted as that.
    held.answer
        .send(proto::Registered { result: proto::RegisterResult::RateLimited.into(), ..proto::Registered::default() })
        .unwrap();
    let limited = async {
        let mut number = 0;
        loop {
            let request = signed("/proxy/svc-two/", b"x", &format!("l-{number}"), now);
            let response = ask(&channel, "body", request).await;
            number += 1;
            if outcome(&response) == "AUTH_CLAIM_SUBMIT_RATE_LIMITED" {
                return response;
            }
        }
    };
    let limited = tokio::time::timeout(TIMEOUT, limited).await.unwrap();
    assert!(text(&limited).starts_with('{'), "{}", text(&limited));
    refused(&admin.publisher, "AUTH_CLAIM_SUBMIT_RATE_LIMITED", 1).await;
    gateway.end().await;
    admin.end().await;
}

/// A certificate authority, and certificates with one name each.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key), folder }
    }

    fn issue(&self, name: &str) -> TlsFiles {
        self.issue_for(name, UnixSeconds(1_000_000_000), UnixSeconds(4_000_000_000))
    }

    /// One that holds from the first of these moments to the second.
    fn issue_for(&self, name: &str, from: UnixSeconds, until: UnixSeconds) -> TlsFiles {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![if name.starts_with("spiffe:") {
            rcgen::SanType::URI(name.try_into().unwrap())
        } else {
            rcgen::SanType::DnsName(name.try_into().unwrap())
        }];
        let at = |moment: UnixSeconds| time::OffsetDateTime::from_unix_timestamp(moment.0.cast_signed()).unwrap();
        (params.not_before, params.not_after) = (at(from), at(until));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str, text: String| {
            let path = self.folder.join(format!("{}.{kind}", name.replace(['/', ':'], "-")));
            files::write_private(&path, text.as_bytes()).unwrap();
            path
        };
        TlsFiles {
            certificate: file("crt", certificate.pem()),
            key: file("key", key.serialize_pem()),
            authorities: file("ca", self.certificate.pem()),
        }
    }
}

async fn over_tls(address: SocketAddr, files: &TlsFiles, server: &str) -> Result<i32, String> {
    let tls = ClientTls::load(files, server).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = tls.connector().connect(tls.server(), stream).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    let mut tasks = Tasks::default();
    tasks.spawn("client", |_| async move { drop(connection.await) });
    // An empty message: five bytes of gRPC framing and nothing.
    let request = http::Request::post("http://authz/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5])))
        .unwrap();
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(i32::from(response.status().as_u16()))
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_wants_a_certificate_with_a_name_on_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let plain = AuthzConfig { listen: Listen::Tcp { address, tls: None }, ..config(folder.path()) };
    let refused = build(plain, clock(), supervision::unsupervised_peers()).await;
    assert!(matches!(refused, Err(AuthzError::PlainTcp(_))), "{refused:?}");
    let tcp = StateFrom::Tcp { address: "127.0.0.1:1".to_owned(), tls: None };
    let plain = AuthzConfig { state: tcp, ..config(folder.path()) };
    let refused = build(plain, clock(), supervision::unsupervised_peers()).await;
    assert!(matches!(refused, Err(AuthzError::PlainState(_))), "{refused:?}");
    let nobody = Listen::Tcp { address, tls: Some((ours.issue("authz.test"), Vec::new())) };
    let refused =
        build(AuthzConfig { listen: nobody, ..config(folder.path()) }, clock(), supervision::unsupervised_peers())
            .await;
    assert!(matches!(refused, Err(AuthzError::Tls(TlsError::NoNames))), "{refused:?}");

    let names = vec!["envoy.test".to_owned(), "spiffe://acme/envoy".to_owned()];
    let listen = Listen::Tcp { address, tls: Some((ours.issue("authz.test"), names)) };
    let bound = build(AuthzConfig { listen, ..config(folder.path()) }, clock(), supervision::unsupervised_peers())
        .await
        .unwrap();
    let address = bound.address().unwrap();
    let tasks = Tasks::default();
    let stop = tasks.stop_handle();
    let mut outer = Tasks::default();
    outer.spawn("authz", |_| async move { assert_eq!(bound.run(tasks).await, Ended::Stopped) });

    assert_eq!(over_tls(address, &ours.issue("envoy.test"), "authz.test").await, Ok(200));
    assert_eq!(over_tls(address, &ours.issue("spiffe://acme/envoy"), "authz.test").await, Ok(200));
    over_tls(address, &ours.issue("agent.test"), "authz.test").await.unwrap_err();
    over_tls(address, &ours.issue("envoy.test"), "admin.test").await.unwrap_err();
    let stranger = TlsFiles { authorities: ours.issue("x.test").authorities, ..theirs.issue("envoy.test") };
    over_tls(address, &stranger, "authz.test").await.unwrap_err();
    // Plain HTTP/2 on the same port.
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await;
    if let Ok(channel) = plain {
        HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await.unwrap_err();
    }
    stop.stop();
    outer.supervise(TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_stream_speaks_mutual_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let publisher = Publisher::new(published());
    let sans = vec!["authz.test".to_owned()];
    publisher.set_workloads(vec![Workload { name: "all".to_owned(), sans, reach: Reach::Everything }]);
    let server = publisher.clone();
    let tls = ServerTls::load(&ours.issue("admin.test"), &["authz.test".to_owned()]).unwrap();
    let mut admin = Tasks::default();
    admin.spawn("state", |stop| server.serve_tls(listener, tls, stop));
    let tls = Some((ours.issue("authz.test"), "admin.test".to_owned()));
    let remote = AuthzConfig { state: StateFrom::Tcp { address, tls }, ..config(folder.path()) };
    let gateway = Gateway::start_with(folder.path(), remote, clock()).await;
    serving(&gateway.channel().await).await;
    applied(&publisher).await;
    gateway.end().await;
    admin.stop_handle().stop();
    admin.supervise(TIMEOUT).await;
}

#[test]
fn pods_are_told_apart_by_their_names() {
    let named = |host: Option<&str>, process| node_name(host.map(str::to_owned), process);
    assert_eq!(named(Some("data-plane-7f-x2"), 1).unwrap(), "data-plane-7f-x2");
    // Two on one machine, which has a name all the same.
    assert_eq!(named(Some("edge"), 4711).unwrap(), "edge-4711");
    assert_eq!(named(None, 4711), None);
}

#[path = "authz_replicas_tests.rs"]
mod replicas;

#[path = "authz_fleet_tests.rs"]
mod fleet;
