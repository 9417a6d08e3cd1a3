//! The gateway's reader of approvals against our own control plane: real sockets, real databases.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "test code may panic, and its tasks end with the test"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use rusqlite::Connection;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::app::admin;
use crate::app::admin::AdminConfig;
use crate::app::admin::ClaimsSetup;
use crate::app::admin::KeyPlaces;
use crate::app::admin::LegacyPlaces;
use crate::app::admin::STATE_SOCKET;
use crate::app::api;
use crate::app::api::ApiConfig;
use crate::app::api::Limits;
use crate::claims::client::ApiClient;
use crate::claims::client::Call;
use crate::config::parts::AccessMode;
use crate::config::parts::UsageOptions;
use crate::domain::approval::Approval;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::secret::Secret;
use crate::domain::snapshot::Settings;
use crate::domain::snapshot::Snapshot;
use crate::identity::Home;
use crate::state::StateSource;
use crate::state::Subscriber;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::tasks::Ended;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::stop_pair;
use crate::wire::control_plane::BINDING_HEADER;
use crate::wire::control_plane::CLAIMS_PATH;
use crate::wire::control_plane::ClaimAnswer;
use crate::wire::control_plane::NAMESPACE_ONLY;
use crate::wire::state::proto;

const PATIENCE: Duration = Duration::from_secs(120);
const ADMIN_TOKEN: &str = "test-admin-token-0123456789";
/// How long claims hold in these tests.
const HOLD_MS: u64 = 3000;

/// A control plane, which can be stopped and started again on its port.
struct ControlPlane {
    folder: TempDir,
    address: SocketAddr,
    token: Secret,
    running: Option<(StopHandle, JoinHandle<Ended>)>,
}

fn acme() -> Namespace {
    Namespace::parse("acme").unwrap()
}

impl ControlPlane {
    async fn start() -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let (folder, token) = (tempfile::tempdir().unwrap(), Secret::new(String::new()));
        let mut made = Self { folder, address: any, token, running: None };
        made.go().await;
        made
    }

    async fn go(&mut self) {
        let config = ApiConfig {
            addresses: vec![self.address],
            data_dir: self.folder.path().to_owned(),
            allowed_origins: Vec::new(),
            public_urls: Vec::new(),
            allow_remote: false,
            jwt_secret: None,
            environment: "test".to_owned(),
            seed: None,
            limits: Limits { max_agents_per_service: 100, ..Limits::default() },
            grace: Duration::from_secs(10),
        };
        let bound = api::build(config).await.unwrap();
        self.address = bound.addresses()[0];
        self.token = api::issue_local_token(bound.jwt_secret(), &acme(), None, Duration::from_secs(600)).unwrap();
        self.running = Some((bound.stop_handle(), tokio::spawn(bound.run())));
    }

    async fn stop(&mut self) {
        let (stop, running) = self.running.take().unwrap();
        stop.stop();
        tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// As the owner of `acme`.
    async fn post(&self, path: &str, body: Value) -> Value {
        let client = crate::sys::http::client(false).unwrap();
        let request = client.post(format!("{}{path}", self.url())).body(body.to_string());
        let request = request.header("authorization", format!("Bearer {}", self.token.expose()));
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The id and the key of a new service.
    async fn service(&self, slug: &str) -> (String, Secret) {
        let body = json!({"name": slug, "slug": slug, "domain": "example.com", "description": "a service"});
        let id = self.post("/v1/services", body).await["id"].as_str().unwrap().to_owned();
        let key = self.post(&format!("/v1/services/{id}/keys"), json!({})).await;
        (id, Secret::new(key["key"].as_str().unwrap().to_owned()))
    }

    fn database(&self) -> Connection {
        let database = Connection::open(self.folder.path().join(api::DATABASE_FILE)).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database
    }
}

/// An admin that asks this API, and an authz that follows it.
struct Gateway {
    folder: TempDir,
    address: SocketAddr,
    stop: StopHandle,
    running: JoinHandle<Ended>,
    current: Arc<ArcSwapOption<Snapshot>>,
    _authz: (StopHandle, JoinHandle<()>),
}

impl Gateway {
    async fn start(api: &str, key: &Secret, refresh: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("service-api-key-linear"), key.expose()).unwrap();
        Home::new(folder.path()).create(&acme(), SystemClock.now().seconds()).unwrap();
        let config = AdminConfig {
            file: None,
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            service_catalog: folder.path().join("service-catalog.json"),
            keys: Arc::new(KeyPlaces::new([], vec![folder.path().to_owned()])),
            data_dir: folder.path().join("data"),
            state_socket: None,
            run_dir: folder.path().join("run"),
            master_key: Secret::new("01".repeat(32)).into(),
            legacy: LegacyPlaces::default(),
            fleet: crate::app::state_door::Fleet::default(),
            bind_mode: "loopback",
            port_sources: ["default"; 2],
            access_mode: AccessMode::Token,
            token: Some(Secret::new(ADMIN_TOKEN.to_owned())),
            password: None,
            metrics_token: None,
            proxy: None,
            allowed_origins: None,
            allowed_hosts: vec![],
            tls: None,
            settings: Settings { claims_hold: Duration::from_millis(HOLD_MS), ..Settings::default() },
            approvals: Vec::new(),
            kept_secret_versions: 5,
            own_ports: Vec::new(),
            ingress: Vec::new(),
            supervised: false,
            grace: Duration::from_secs(10),
            claims: Some(ClaimsSetup {
                api_url: api.to_owned(),
                every_service: true,
                namespace: acme(),
                home: folder.path().to_owned(),
                refresh,
                max_approvals: 1_000_000,
                registrations_per_minute: 30,
                usage: UsageOptions { enabled: false, max_backlog_bytes: 1 << 30 },
            }),
        };
        let bound = admin::build(config).await.unwrap();
        let (address, stop) = (bound.addresses()[0], bound.stop_handle());
        let running = tokio::spawn(bound.run());
        let subscriber = Subscriber::new();
        let current = subscriber.current();
        let (authz_stop, stopped) = stop_pair();
        let source = StateSource::Unix(folder.path().join("run").join(STATE_SOCKET));
        let report = || proto::Report { ready: true, ..proto::Report::default() };
        let task = tokio::spawn(subscriber.run(
            source,
            "test authz".to_owned(),
            tokio::sync::watch::channel(Some(String::new())).1,
            SystemClock,
            report,
            stopped,
        ));
        let made = Self { folder, address, stop, running, current, _authz: (authz_stop, task) };
        made.connect("linear").await;
        made
    }

    /// Makes a connection through the admin API.
    async fn connect(&self, id: &str) {
        let body =
            json!({"id": id, "base_url": "https://api.example.com", "auth_secret_key": "k", "secrets": {"k": "v"}});
        let client = crate::sys::http::client(false).unwrap();
        let request = client.post(format!("http://{}/api/admin/connections", self.address)).body(body.to_string());
        let request = request.header("x-sigilum-admin-token", ADMIN_TOKEN).header("content-type", "application/json");
        assert_eq!(request.send().await.unwrap().status().as_u16(), 201);
    }

    fn judge(&self, namespace: &str, key: &PublicKey) -> Option<Approval> {
        let snapshot = self.current.load_full()?;
        let hold = u64::try_from(snapshot.settings.claims_hold.as_millis()).unwrap();
        Some(snapshot.approvals.judge(key, namespace, "linear", SystemClock.now(), hold))
    }

    /// How long it took.
    async fn until(&self, what: &str, namespace: &str, key: &PublicKey, wanted: Approval) -> Duration {
        let began = Instant::now();
        while self.judge(namespace, key) != Some(wanted) {
            assert!(began.elapsed() < PATIENCE, "{what}: {:?}", self.judge(namespace, key));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        began.elapsed()
    }

    async fn end(self) {
        self.stop.stop();
        assert_eq!(tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap(), Ended::Stopped);
    }
}

/// Submits a key of the gateway's namespace for approval; returns the claim's id.
async fn submit(api: &str, home: &Path, service_key: &Secret, key: &PublicKey) -> String {
    let opened = Home::new(home).load(&acme(), SystemClock.now().seconds()).unwrap();
    let client = ApiClient::new(api, Arc::new(opened.identity)).unwrap();
    let body = json!({"agent_ip": "127.0.0.1", "namespace": "acme", "nonce": crate::sys::random::uuid().unwrap(),
        "public_key": key.text(), "service": "linear"})
    .to_string();
    let call = Call {
        method: &http::Method::POST,
        body: body.as_bytes(),
        headers: &[(BINDING_HEADER, NAMESPACE_ONLY)],
        ..Call::get(CLAIMS_PATH, service_key, 64 * 1024)
    };
    let answer = client.send(call).await.unwrap();
    let claim: ClaimAnswer = answer.json().unwrap();
    assert_eq!(claim.status, "pending", "{claim:?}");
    claim.claim_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approvals_and_revocations_of_our_api_are_enforced_at_once_and_an_outage_is_survived() {
    let mut plane = ControlPlane::start().await;
    let (_, key) = plane.service("linear").await;
    // A poll would come too late for what is asserted here: it is the stream that tells.
    let gateway = Gateway::start(&plane.url(), &key, Duration::from_secs(30)).await;
    gateway.until("the empty list", "acme", &PublicKey::new([7; 32]), Approval::Missing).await;
    for agent in (0..5).map(|number| PublicKey::new([number; 32])) {
        let claim = submit(&plane.url(), gateway.folder.path(), &key, &agent).await;
        plane.post(&format!("/v1/claims/{claim}/approve"), json!({})).await;
        let took = gateway.until("approved", "acme", &agent, Approval::Approved).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        plane.post(&format!("/v1/claims/{claim}/revoke"), json!({})).await;
        let took = gateway.until("revoked", "acme", &agent, Approval::Missing).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let agent = PublicKey::new([9; 32]);
    let claim = submit(&plane.url(), gateway.folder.path(), &key, &agent).await;
    plane.post(&format!("/v1/claims/{claim}/approve"), json!({})).await;
    gateway.until("approved", "acme", &agent, Approval::Approved).await;
    // Signs of life keep it fresh for longer than it would hold by itself.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(HOLD_MS + 1500) {
        assert_eq!(gateway.judge("acme", &agent), Some(Approval::Approved));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // An outage: goes on, then nobody can say, then recovers.
    plane.stop().await;
    assert_eq!(gateway.judge("acme", &agent), Some(Approval::Approved), "what is fresh is not lost with the API");
    gateway.until("stale", "acme", &agent, Approval::Stale).await;
    plane.go().await;
    gateway.until("recovered", "acme", &agent, Approval::Approved).await;
    plane.post(&format!("/v1/claims/{claim}/revoke"), json!({})).await;
    gateway.until("revoked after it", "acme", &agent, Approval::Missing).await;
    gateway.end().await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_approvals_arrive_complete_while_rows_change() {
    const COUNT: u32 = 100_000;
    let mut plane = ControlPlane::start().await;
    let (id, key) = plane.service("linear").await;
    plane.stop().await;
    let public_key = |number: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PublicKey::new(bytes)
    };
    let insert =
        "INSERT INTO authorizations (service_id, namespace, public_key, claim_id, status, agent_ip, created_at_ms,
        approved_at_ms) VALUES (?1, ?2, ?3, ?4, 'approved', '127.0.0.1', 1, ?5)";
    let mut database = plane.database();
    let filling = database.transaction().unwrap();
    {
        let mut statement = filling.prepare(insert).unwrap();
        for number in 0..COUNT {
            let namespace = format!("team-{}", number % 50);
            let values = (&id, namespace, public_key(number).text(), format!("cl_{number:024x}"), number);
            statement.execute(values).unwrap();
        }
    }
    filling.commit().unwrap();
    plane.go().await;
    let gateway = Gateway::start(&plane.url(), &key, Duration::from_secs(5)).await;
    // Some go and others come while it is read.
    let changing = tokio::task::spawn_blocking(move || {
        for number in 0..200_u32 {
            let gone = public_key(number * 500).text();
            database.execute("UPDATE authorizations SET status = 'revoked' WHERE public_key = ?1", [&gone]).unwrap();
            let fresh = (&id, "late", public_key(COUNT + number).text(), format!("cl_n{number:023x}"), COUNT + number);
            database.execute(insert, fresh).unwrap();
        }
    });
    let last = public_key(COUNT - 1);
    gateway.until("the list", &format!("team-{}", (COUNT - 1) % 50), &last, Approval::Approved).await;
    changing.await.unwrap();
    gateway.until("the last that came", "late", &public_key(COUNT + 199), Approval::Approved).await;
    gateway
        .until("the last that went", &format!("team-{}", 199 * 500 % 50), &public_key(199 * 500), Approval::Missing)
        .await;
    let mut wrong = Vec::new();
    for number in 0..COUNT {
        let wanted = if number % 500 == 0 { Approval::Missing } else { Approval::Approved };
        if gateway.judge(&format!("team-{}", number % 50), &public_key(number)) != Some(wanted) {
            wrong.push(number);
        }
    }
    assert!(wrong.is_empty(), "{} of them, e.g. {:?}", wrong.len(), wrong.first());
    assert_eq!(gateway.current.load_full().unwrap().approvals.len(), COUNT as usize);
    gateway.end().await;
    plane.stop().await;
}
