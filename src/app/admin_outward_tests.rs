//! The admin process and a control plane, over real sockets: what goes out, and what is kept for when it cannot.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code may panic, and its tasks end with the test"
)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::http::StatusCode;
use axum::http::Uri;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::app::api;
use crate::app::api::ApiConfig;
use crate::app::api::Limits;
use crate::domain::ids::PublicKey;
use crate::identity::Home;
use crate::state::StateSource;
use crate::state::Subscriber;
use crate::sys::http;
use crate::sys::tasks::stop_pair;
use crate::telemetry::segments;
use crate::wire::state::proto;

const TOKEN: &str = "test-admin-token-0123456789";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct ControlPlane {
    events: Mutex<BTreeSet<String>>,
    claims: Mutex<Vec<Value>>,
    down: AtomicBool,
}

impl ControlPlane {
    fn answer(&self, path: &str, body: &str) -> (StatusCode, String) {
        if self.down.load(Ordering::Relaxed) {
            return (StatusCode::SERVICE_UNAVAILABLE, json!({"error": "down"}).to_string());
        }
        let said = match path {
            "/v1/usage/events/batch" => {
                let body: Value = serde_json::from_str(body).unwrap();
                let ids: Vec<_> =
                    body["events"].as_array().unwrap().iter().map(|event| event["event_id"].clone()).collect();
                let mut events = self.events.lock().unwrap();
                let new = ids.iter().filter(|id| events.insert(id.as_str().unwrap().to_owned())).count();
                json!({"accepted": new, "duplicate": ids.len() - new, "refused": []})
            }
            "/v1/claims" => {
                self.claims.lock().unwrap().push(serde_json::from_str(body).unwrap());
                json!({"claim_id": "cl_1", "status": "pending", "service": "linear", "message": "waits"})
            }
            _ => json!({"claims": [], "pagination": {"limit": 2000, "offset": 0, "total": 0, "has_more": false}}),
        };
        (StatusCode::OK, said.to_string())
    }
}

async fn control_plane() -> (Arc<ControlPlane>, String) {
    let plane: Arc<ControlPlane> = Arc::default();
    let answers = Arc::clone(&plane);
    let router = Router::new().fallback(move |uri: Uri, body: String| async move { answers.answer(uri.path(), &body) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (plane, address)
}

fn config(folder: &Path, api_url: &str, usage: bool) -> AdminConfig {
    let namespace = Namespace::parse("acme").unwrap();
    let home = folder.join("home");
    Home::new(home.clone()).create(&namespace, SystemClock.now().seconds()).unwrap();
    std::fs::write(home.join("service-api-key-linear"), "key-1").unwrap();
    AdminConfig {
        file: None,
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        service_catalog: folder.join("service-catalog.json"),
        keys: Arc::new(KeyPlaces::new([], vec![home.clone()])),
        data_dir: folder.join("data"),
        state_socket: None,
        run_dir: folder.join("run"),
        master_key: Secret::new("01".repeat(32)).into(),
        legacy: LegacyPlaces::default(),
        fleet: crate::app::state_door::Fleet::default(),
        bind_mode: "loopback",
        port_sources: ["default"; 2],
        access_mode: AccessMode::Token,
        token: Some(Secret::new(TOKEN.to_owned())),
        password: None,
        metrics_token: None,
        proxy: None,
        allowed_origins: None,
        allowed_hosts: vec![],
        tls: None,
        settings: Settings { auto_register: true, gateway_namespace: "acme".to_owned(), ..Settings::default() },
        approvals: Vec::new(),
        kept_secret_versions: 5,
        own_ports: Vec::new(),
        ingress: Vec::new(),
        supervised: false,
        grace: Duration::from_secs(10),
        claims: Some(ClaimsSetup {
            api_url: api_url.to_owned(),
            every_service: false,
            namespace,
            home,
            refresh: Duration::from_secs(10),
            max_approvals: 1000,
            registrations_per_minute: 30,
            usage: UsageOptions { enabled: usage, max_backlog_bytes: 1 << 30 },
        }),
    }
}

struct Running {
    stop: StopHandle,
    task: tokio::task::JoinHandle<Ended>,
}

impl Running {
    async fn start(config: AdminConfig) -> Self {
        let bound = build(config).await.unwrap();
        Self { stop: bound.stop_handle(), task: tokio::spawn(bound.run()) }
    }

    async fn stop(self) {
        self.stop.stop();
        assert_eq!(tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap(), Ended::Stopped);
    }
}

fn log(folder: &TempDir, numbers: std::ops::Range<usize>) {
    let path = folder.path().join("run/access.log");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    for number in numbers {
        let line = json!({
            "decision_id": format!("event-{number}"), "connection": "linear", "path": "/x", "namespace": "acme",
            "subject": "alice", "public_key": PublicKey::new([7; 32]).text(), "method": "GET", "status": 200,
        });
        writeln!(file, "{line}").unwrap();
    }
}

async fn until(what: impl Fn() -> bool) {
    let work = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap();
}

#[tokio::test]
async fn usage_is_reported_through_restarts_and_an_outage_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let (plane, address) = control_plane().await;
    let stored = || plane.events.lock().unwrap().len();
    let running = Running::start(config(folder.path(), &address, true)).await;
    log(&folder, 0..50);
    until(|| stored() == 50).await;
    plane.down.store(true, Ordering::Relaxed);
    log(&folder, 50..80);
    running.stop().await;
    // Envoy goes on without admin, and somebody rotates the log meanwhile.
    log(&folder, 80..100);
    let run = folder.path().join("run");
    segments::put_aside(&run.join("access.log"), &[]).unwrap();
    log(&folder, 100..120);
    plane.down.store(false, Ordering::Relaxed);
    let running = Running::start(config(folder.path(), &address, true)).await;
    until(|| stored() == 120).await;
    running.stop().await;
    // Switched off, it says nothing, and forgets.
    let running = Running::start(config(folder.path(), &address, false)).await;
    log(&folder, 120..130);
    assert!(!usage::position_file(&run).exists());
    running.stop().await;
    let running = Running::start(config(folder.path(), &address, true)).await;
    log(&folder, 130..131);
    until(|| stored() == 121).await;
    running.stop().await;
    assert!(plane.events.lock().unwrap().contains("event-130"));
}

#[tokio::test]
async fn a_registration_comes_over_the_state_stream_and_its_answer_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (plane, address) = control_plane().await;
    let running = Running::start(config(folder.path(), &address, true)).await;
    let answer = register(&folder).await;
    assert_eq!((answer.result(), answer.claim_id.as_str()), (proto::RegisterResult::Recorded, "cl_1"));
    let claims = plane.claims.lock().unwrap().clone();
    assert_eq!((claims.len(), claims[0]["public_key"].as_str()), (1, Some(PublicKey::new([9; 32]).text().as_str())));
    running.stop().await;
}

/// An authz that follows this admin, asks for one registration and leaves.
async fn register(folder: &TempDir) -> proto::Registered {
    let subscriber = Subscriber::new();
    let (link, current) = (subscriber.registrar(), subscriber.current());
    let (stop, stopped) = stop_pair();
    let source = StateSource::Unix(folder.path().join("run").join(STATE_SOCKET));
    let following = tokio::spawn(subscriber.run(
        source,
        "test authz".to_owned(),
        tokio::sync::watch::channel(Some(String::new())).1,
        SystemClock,
        proto::Report::default,
        stopped,
    ));
    until(|| current.load().is_some()).await;
    assert!(current.load_full().unwrap().settings.auto_register);
    let asked = proto::Register {
        service: "linear".to_owned(),
        namespace: "acme".to_owned(),
        public_key: vec![9; 32],
        subject: "alice".to_owned(),
        ..proto::Register::default()
    };
    let answer = link.register(asked).await.unwrap();
    stop.stop();
    following.await.unwrap();
    answer
}

/// The owner's side of the local control plane.
struct Owner {
    http: reqwest::Client,
    address: String,
    token: Secret,
}

impl Owner {
    async fn ask(&self, path: &str, body: Option<&Value>) -> Value {
        let url = format!("{}{path}", self.address);
        let request = match body {
            Some(body) => self.http.post(url).header("content-type", "application/json").body(body.to_string()),
            None => self.http.get(url),
        };
        let answer = request.bearer_auth(self.token.expose()).send().await.unwrap();
        let text = answer.text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// Both ends are ours: what is sent is what is taken, one by one and together.
#[tokio::test]
async fn the_local_control_plane_takes_what_this_admin_sends() {
    let folder = tempfile::tempdir().unwrap();
    let plane = api::build(ApiConfig {
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        data_dir: folder.path().join("api"),
        allowed_origins: Vec::new(),
        public_urls: Vec::new(),
        allow_remote: false,
        jwt_secret: None,
        environment: "local".to_owned(),
        seed: None,
        limits: Limits::default(),
        grace: Duration::from_secs(10),
    })
    .await
    .unwrap();
    let address = format!("http://{}", plane.addresses()[0]);
    let namespace = Namespace::parse("acme").unwrap();
    let token = api::issue_local_token(plane.jwt_secret(), &namespace, None, Duration::from_secs(600)).unwrap();
    let owner = Owner { http: http::client(false).unwrap(), address: address.clone(), token };
    let (stop_plane, serving) = (plane.stop_handle(), tokio::spawn(plane.run()));
    let service = json!({"name": "Linear", "slug": "linear", "domain": "linear.app", "description": "Issues"});
    let service = owner.ask("/v1/services", Some(&service)).await;
    let id = service["id"].as_str().unwrap_or_else(|| unreachable!("{service}"));
    let key = owner.ask(&format!("/v1/services/{id}/keys"), Some(&json!({"name": "gateway"}))).await;

    let start = async || {
        let config = config(folder.path(), &address, true);
        std::fs::write(folder.path().join("home/service-api-key-linear"), key["key"].as_str().unwrap()).unwrap();
        Running::start(config).await
    };
    let running = start().await;
    let answer = register(&folder).await;
    assert_eq!((answer.result(), answer.claim_status.as_str()), (proto::RegisterResult::Recorded, "pending"));
    let again = register(&folder).await;
    assert_eq!((again.result(), again.claim_id), (proto::RegisterResult::Recorded, answer.claim_id.clone()));
    let claims = owner.ask("/v1/namespaces/acme/claims", None).await;
    assert_eq!(claims["claims"][0]["claim_id"], answer.claim_id.as_str());
    assert_eq!(claims["claims"][0]["subject"], "alice");

    log(&folder, 0..1300);
    let counted = async || owner.ask("/v1/namespaces/acme/usage", None).await["summary"]["total_events"].as_u64();
    let work = async {
        while counted().await != Some(1300) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap();
    // A position that is lost has everything sent again, and nothing counted again.
    running.stop().await;
    let position = usage::position_file(&folder.path().join("run"));
    std::fs::write(&position, "").unwrap();
    let running = start().await;
    let end = std::fs::metadata(folder.path().join("run/access.log")).unwrap().len();
    until(|| {
        let text = std::fs::read_to_string(&position).unwrap();
        serde_json::from_str::<Value>(&text).is_ok_and(|position| position["offset"] == end)
    })
    .await;
    running.stop().await;
    assert_eq!(counted().await, Some(1300));
    stop_plane.stop();
    assert_eq!(tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap(), Ended::Stopped);
}
