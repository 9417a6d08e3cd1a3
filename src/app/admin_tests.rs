#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test code may panic"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle as Task;

use super::*;
use crate::claims::fake_api;
use crate::claims::fake_api::FakeApi;
use crate::domain::approval::Approval;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::PublicKey;
use crate::domain::snapshot::Snapshot;
use crate::identity::Home;
use crate::state::StateSource;
use crate::state::Subscriber;
use crate::sys::tasks::Stop;

const TOKEN: &str = "test-admin-token-0123456789";
const MASTER_KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const CANARY: &str = "canary-5be1f0e7c2";
/// Long enough for a busy machine, short enough to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running admin process on ephemeral ports with a data folder of its own.
struct Gateway {
    folder: TempDir,
    address: SocketAddr,
    stop: StopHandle,
    running: Option<Task<Ended>>,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The `code` member, empty where there is none.
    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn config(folder: &Path) -> AdminConfig {
    AdminConfig {
        file: None,
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        data_dir: folder.join("data"),
        service_catalog: folder.join("data/service-catalog.json"),
        keys: Arc::new(KeyPlaces::new([], vec![folder.join("home")])),
        state_socket: None,
        run_dir: folder.join("run"),
        master_key: Secret::new(MASTER_KEY.to_owned()).into(),
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
        settings: Settings { allow_loopback: true, ..Settings::default() },
        approvals: vec![DeclaredApproval {
            namespace: Namespace::parse("alice").unwrap(),
            public_key: PublicKey::new([9; 32]),
            service: ConnectionId::parse("linear").unwrap(),
            expires_at: None,
        }],
        kept_secret_versions: 5,
        own_ports: vec![38000],
        ingress: vec![([127, 0, 0, 1], 38000).into()],
        supervised: false,
        grace: Duration::from_secs(10),
        claims: None,
    }
}

/// A condition of readiness; `Null` where it is not told.
fn condition(told: &serde_json::Value, kind: &str) -> serde_json::Value {
    let all = told["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

impl Gateway {
    /// Readiness as those are told who have the token.
    async fn ready(&self) -> Answer {
        self.ask("GET", "/health/ready", "").await
    }

    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut AdminConfig)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    async fn start_in(folder: TempDir, change: impl FnOnce(&mut AdminConfig)) -> Self {
        let mut config = config(folder.path());
        change(&mut config);
        let bound = build(config).await.unwrap();
        let (address, stop) = (bound.addresses()[0], bound.stop_handle());
        Self { folder, address, stop, running: Some(tokio::spawn(bound.run())) }
    }

    async fn end(mut self) -> (TempDir, Ended) {
        self.stop.stop();
        let ended = tokio::time::timeout(PATIENCE, self.running.take().unwrap()).await.unwrap().unwrap();
        (self.folder, ended)
    }

    /// Sends exactly these bytes and reads to the end of the connection.
    async fn raw(&self, request: &[u8]) -> Answer {
        let work = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // The other end may answer and close before it has read everything.
            let _ = stream.write_all(request).await;
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let text = tokio::time::timeout(PATIENCE, work).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The status alone; `None` where the other end closed without an answer.
    async fn raw_status(&self, request: &[u8]) -> Option<u16> {
        let work = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let _ = stream.write_all(request).await;
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            String::from_utf8_lossy(&bytes).split(' ').nth(1).and_then(|status| status.parse().ok())
        };
        tokio::time::timeout(PATIENCE, work).await.unwrap()
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            text.push_str(&format!("host: {}\r\n", self.address));
        }
        if !body.is_empty() {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            text.push_str("content-type: application/json\r\n");
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.raw(text.as_bytes()).await
    }

    /// With the token.
    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, &[("x-sigilum-admin-token", TOKEN)], body).await
    }

    /// An authz that follows this admin, until its stop is called.
    fn authz(&self) -> Follower {
        let subscriber = Subscriber::new();
        let current = subscriber.current();
        let (stop, stopped) = stop_pair();
        let source = StateSource::Unix(self.folder.path().join("run").join(STATE_SOCKET));
        let reported = Arc::new(Mutex::new((1, 2)));
        let report = Arc::clone(&reported);
        let report = move || {
            let (started, replayed) = *report.lock().unwrap();
            feed::report(started, &[("AUTH_REPLAY_DETECTED", replayed)])
        };
        let task = tokio::spawn(subscriber.run(
            source,
            "test authz".to_owned(),
            tokio::sync::watch::channel(Some(String::new())).1,
            SystemClock,
            report,
            stopped,
        ));
        Follower { current, stop, task }
    }
}

fn stop_pair() -> (StopHandle, Stop) {
    let tasks = Tasks::default();
    (tasks.stop_handle(), tasks.stop_signal())
}

struct Follower {
    current: Arc<arc_swap::ArcSwapOption<Snapshot>>,
    stop: StopHandle,
    task: Task<()>,
}

impl Follower {
    async fn until(&self, what: impl Fn(&Snapshot) -> bool) {
        let reached = || self.current.load().as_ref().is_some_and(|snapshot| what(snapshot));
        wait_until(async || reached()).await;
    }

    async fn end(self) {
        self.stop.stop();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

/// Asks again until it is so; the pause only keeps the asking cheap.
async fn wait_until(mut what: impl AsyncFnMut() -> bool) {
    let work = async {
        while !what().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("it did not come about");
}

fn connection(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","base_url":"https://api.example.com/v1","auth_secret_key":"key","secrets":{{"key":"{CANARY}","other":"o"}}}}"#
    )
}

const CONNECTIONS: &str = "/api/admin/connections";

#[tokio::test]
async fn a_connection_is_made_read_changed_rotated_and_deleted() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.ask("GET", CONNECTIONS, "").await.body, "{\"connections\":[]}\n");

    let made = gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.header("content-type"), Some("application/json"));
    let made = made.json();
    assert_eq!(made["credential_keys"], serde_json::json!(["key", "other"]));
    assert_eq!((&made["secret_version"], &made["status"]), (&1.into(), &"active".into()));
    assert!(made.get("last_tested_at").is_none() && made.get("allowed_methods").is_none());

    let read = gateway.ask("GET", "/api/admin/connections/linear", "").await;
    assert_eq!((read.status, read.json()), (200, made));

    let patch =
        r#"{"base_url":"https://other.example","status":"disabled","allowed_methods":["get"],"secrets":{"key":"x"}}"#;
    let changed = gateway.ask("PATCH", "/api/admin/connections/linear", patch).await;
    assert_eq!(changed.status, 200);
    let changed = changed.json();
    assert_eq!((&changed["base_url"], &changed["status"]), (&"https://other.example".into(), &"disabled".into()));
    assert_eq!(changed["allowed_methods"], serde_json::json!(["GET"]));
    assert_eq!(changed["secret_version"], 1);

    let rotated = gateway
        .ask(
            "POST",
            "/api/admin/connections/linear/rotate",
            r#"{"secrets":{"key":"new","third":"t"},"rotated_by":"me","rotation_reason":"leak"}"#,
        )
        .await;
    assert_eq!(rotated.status, 200);
    let rotated = rotated.json();
    assert_eq!(rotated["secret_version"], 2);
    assert_eq!(rotated["credential_keys"], serde_json::json!(["key", "other", "third"]));

    let list = gateway.ask("GET", CONNECTIONS, "").await.json();
    assert_eq!(list["connections"], serde_json::json!([rotated]));
    let gone = gateway.ask("DELETE", "/api/admin/connections/linear", "").await;
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    assert_eq!(gateway.ask("GET", "/api/admin/connections/linear", "").await.status, 404);
    assert_eq!(gateway.ask("DELETE", "/api/admin/connections/linear", "").await.status, 404);
    assert_eq!(gateway.end().await.1, Ended::Stopped);
}

const VARIABLES: &str = "/api/admin/credential-variables";

#[tokio::test]
async fn a_variable_is_set_used_and_deleted() {
    let gateway = Gateway::start().await;
    let body = format!(r#"{{"key":"SLACK_TOKEN","value":" {CANARY} ","created_by_subject":"alice"}}"#);
    let made = gateway.ask("POST", VARIABLES, &body).await;
    assert_eq!(made.status, 200, "{made:?}");
    let made = made.json();
    assert_eq!((&made["key"], &made["created_by_subject"]), (&"SLACK_TOKEN".into(), &"alice".into()));
    // The header counts before the body, and the first one before all later.
    let mallory = [("x-sigilum-admin-token", TOKEN), ("sigilum-subject", "mallory")];
    assert_eq!(gateway.send("POST", VARIABLES, &mallory, &body).await.json()["created_by_subject"], "alice");
    let other = gateway.send("POST", VARIABLES, &mallory, r#"{"key":"OTHER","value":"x"}"#).await;
    assert_eq!(other.json()["created_by_subject"], "mallory");

    let uses = connection("slack").replace(CANARY, "{{ SLACK_TOKEN }}");
    assert_eq!(gateway.ask("POST", CONNECTIONS, &uses).await.status, 201);
    let list = gateway.ask("GET", VARIABLES, "").await;
    assert!(!list.body.contains(CANARY), "{list:?}");
    let shown = |list: &serde_json::Value| {
        let list = list["variables"].as_array().unwrap();
        list.iter().map(|one| (one["key"].to_string(), one["used_by"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(shown(&list.json()), [("\"OTHER\"".to_owned(), 0), ("\"SLACK_TOKEN\"".to_owned(), 1)]);

    let path = format!("{VARIABLES}/SLACK_TOKEN");
    let refused = gateway.ask("DELETE", &path, "").await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "VARIABLE_IN_USE"));
    let refused = refused.json();
    assert_eq!((&refused["used_by"], &refused["connections"]), (&1.into(), &serde_json::json!(["slack"])));
    let gone = gateway.ask("DELETE", &format!("{path}?force=true"), "").await;
    let expected = serde_json::json!({ "deleted": true, "key": "SLACK_TOKEN", "unusable": ["slack"] });
    assert_eq!((gone.status, gone.json()), (200, expected));
    let read = gateway.ask("GET", "/api/admin/connections/slack", "").await.json();
    assert!(read["secret_error"].as_str().unwrap().contains("SLACK_TOKEN"), "{read}");
    assert_eq!(gateway.ask("DELETE", &path, "").await.status, 404);
    for (body, status, code, word) in [
        (r#"{"key":"K","value":"x"}"#, 400, "", "key"),
        (r#"{"key":"KEY"}"#, 400, "", "value"),
        (r#"{"key":"KEY","value":"{{OTHER}}"}"#, 400, "VARIABLE_CYCLE", "KEY"),
        (r#"{"key":7,"value":"x"}"#, 400, "", "JSON"),
    ] {
        let refused = gateway.ask("POST", VARIABLES, body).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{refused:?}");
        assert!(refused.body.contains(word), "{refused:?}");
    }
    let missing = gateway.ask("POST", CONNECTIONS, &connection("mail").replace(CANARY, "{{NOWHERE}}")).await;
    assert_eq!((missing.status, missing.code().as_str()), (400, "VARIABLE_NOT_FOUND"));
    assert!(missing.body.contains("NOWHERE"));
}

#[tokio::test]
async fn another_value_of_a_variable_reaches_all_its_connections_at_once() {
    let gateway = Gateway::start().await;
    gateway.ask("POST", VARIABLES, r#"{"key":"TOKEN","value":"v0"}"#).await;
    for number in 0..20 {
        let body = connection(&format!("uses-{number}")).replace(CANARY, "{{TOKEN}}");
        assert_eq!(gateway.ask("POST", CONNECTIONS, &body).await.status, 201);
    }
    let authz = gateway.authz();
    let injected = |snapshot: &Snapshot| -> Vec<String> {
        let credentials = snapshot.connections.values().map(|connection| match &connection.credential {
            Ok(crate::domain::connection::Credential::Header { value, .. }) => value.expose().to_owned(),
            other => panic!("{other:?}"),
        });
        credentials.collect()
    };
    authz.until(|snapshot| snapshot.connections.len() == 20).await;
    for round in 1..=10 {
        let wanted = format!("Bearer v{round}");
        let body = format!(r#"{{"key":"TOKEN","value":"v{round}"}}"#);
        assert_eq!(gateway.ask("POST", VARIABLES, &body).await.status, 200);
        authz
            .until(|snapshot| {
                let all = injected(snapshot);
                assert!(all.iter().all(|one| *one == all[0]), "a mixed set: {all:?}");
                all[0] == wanted
            })
            .await;
    }
    authz.end().await;
}

#[tokio::test]
async fn who_used_a_connection_is_known_and_survives_a_restart() {
    let gateway = Gateway::start().await;
    gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    let key = PublicKey::new([9; 32]).text();
    let line = |connection: &str, reason: &str, status: u16| {
        serde_json::json!({
            "timestamp": "2026-02-20T18:04:26.123Z", "decision_id": "d", "connection": connection, "reason": reason,
            "namespace": "alice", "subject": "alice", "public_key": key, "status": status,
        })
        .to_string()
    };
    let lines = [line("linear", "", 200), line("linear", "AUTH_REPLAY_DETECTED", 403), line("gone", "", 200)];
    std::fs::write(gateway.folder.path().join("run/access.log"), lines.join("\n") + "\n").unwrap();
    let agents = "/api/admin/connections/linear/agents";
    assert_eq!(gateway.ask("GET", agents, "").await.json(), serde_json::json!({ "agents": [] }));
    // A stop writes down what was gathered.
    let gateway = Gateway::start_in(gateway.end().await.0, |_| {}).await;
    let expected = serde_json::json!({ "agents": [{
        "namespace": "alice", "public_key": key, "subject": "alice", "last_used_at": "2026-02-20T18:04:26Z", "status": 200,
    }] });
    assert_eq!(gateway.ask("GET", agents, "").await.json(), expected);
    let read = gateway.ask("GET", "/api/admin/connections/linear", "").await.json();
    assert_eq!(read["last_used_at"], "2026-02-20T18:04:26Z");
    assert_eq!(gateway.ask("GET", "/api/admin/connections/gone/agents", "").await.status, 404);
}

#[tokio::test]
async fn the_audit_says_who_changed_what_and_no_value() {
    let gateway = Gateway::start().await;
    let made = gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    gateway.ask("PATCH", "/api/admin/connections/linear", r#"{"name":"L","base_url":"https://o.example"}"#).await;
    let rotation = format!(r#"{{"secrets":{{"key":"{CANARY}-2"}},"rotated_by":"ops","rotation_reason":"leaked"}}"#);
    gateway.ask("POST", "/api/admin/connections/linear/rotate", &rotation).await;
    let subject = [("x-sigilum-admin-token", TOKEN), ("sigilum-subject", "mallory")];
    gateway.send("DELETE", "/api/admin/connections/linear", &subject, "").await;
    // What failed changed nothing.
    gateway.ask("DELETE", "/api/admin/connections/linear", "").await;

    let answer = gateway.ask("GET", "/api/admin/audit", "").await;
    assert!(!answer.body.contains(CANARY), "{answer:?}");
    let entries = answer.json()["entries"].as_array().unwrap().clone();
    let told: Vec<_> = entries.iter().map(|entry| (entry["id"].as_u64().unwrap(), &entry["action"])).collect();
    let words = ["connection.delete", "connection.rotate", "connection.update", "connection.create"].map(Into::into);
    assert_eq!(told, (1..=4).rev().zip(&words).collect::<Vec<_>>());
    assert!(entries.iter().all(|entry| entry["target"] == "linear" && entry["via"] == "token"));
    assert!(entries.iter().all(|entry| entry["address"] == "127.0.0.1"), "{entries:?}");
    assert_eq!(entries[0]["actor"], "mallory");
    let rotated = serde_json::json!({ "secrets": ["key"], "reason": "leaked", "secret_version": 2 });
    assert_eq!((&entries[1]["actor"], &entries[1]["detail"]), (&"ops".into(), &rotated));
    assert_eq!(entries[2]["detail"], serde_json::json!({ "changed": ["name", "base_url"] }));
    assert_eq!(entries[3]["request_id"].as_str(), made.header("x-request-id"));
    assert!(entries[3].get("actor").is_none());

    let page = gateway.ask("GET", "/api/admin/audit?limit=1&before=4", "").await.json();
    assert_eq!((&page["entries"][0]["id"], &page["next_before"]), (&3.into(), &3.into()));
    let page = gateway.ask("GET", "/api/admin/audit?connection=linear&action=connection.create", "").await.json();
    assert_eq!((page["entries"].as_array().unwrap().len(), page.get("next_before")), (1, None));
    for bad in ["limit=0", "limit=501", "limit=x", "before=-1", "action=nothing", "limit=1&limit=2"] {
        assert_eq!(gateway.ask("GET", &format!("/api/admin/audit?{bad}"), "").await.status, 400, "{bad}");
    }
    let lines = std::fs::read_to_string(gateway.folder.path().join("data/logs/audit.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 4);
    assert!(lines.lines().last().unwrap().contains("mallory") && !lines.contains(CANARY));
}

#[tokio::test]
async fn the_audit_names_what_was_changed_as_the_api_does() {
    let gateway = Gateway::start().await;
    gateway.ask("POST", CONNECTIONS, &connection("web")).await;
    let tools = r#"{"id":"tools","protocol":"mcp","base_url":"https://mcp.example.com"}"#;
    assert_eq!(gateway.ask("POST", CONNECTIONS, tools).await.status, 201);
    for (id, patch) in [
        ("web", r#"{"status":"disabled"}"#),
        ("web", r#"{"base_url":"https://other.example.com"}"#),
        ("web", r#"{"path_prefix":"/v2"}"#),
        ("web", r#"{"auth_header_name":"x-key"}"#),
        ("web", r#"{"auth_prefix":"Key "}"#),
        ("web", r#"{"auth_secret_key":"other"}"#),
        ("web", r#"{"rotation_interval_days":3}"#),
        ("web", r#"{"response_timeout_ms":5000}"#),
        ("web", r#"{"max_stream_seconds":7}"#),
        ("web", r#"{"allowed_methods":["GET"]}"#),
        ("web", r#"{"extra_headers":{"x-a":"b"}}"#),
        ("tools", r#"{"mcp_endpoint":"/mcp"}"#),
        ("tools", r#"{"mcp_tool_allowlist":["a"]}"#),
        ("tools", r#"{"mcp_tool_denylist":["b"]}"#),
        ("tools", r#"{"mcp_max_tools_exposed":2}"#),
        ("tools", r#"{"mcp_subject_tool_policies":{"alice":{"allowlist":["a"]}}}"#),
        ("tools", r#"{"mcp_endpoint":"/mcp","status":"disabled","mcp_max_tools_exposed":3}"#),
    ] {
        let before = gateway.ask("GET", &format!("{CONNECTIONS}/{id}"), "").await.json();
        let answer = gateway.ask("PATCH", &format!("{CONNECTIONS}/{id}"), patch).await;
        assert_eq!(answer.status, 200, "{patch}: {answer:?}");
        let entry = gateway.ask("GET", "/api/admin/audit?limit=1", "").await.json()["entries"][0].clone();
        let mut changed: Vec<_> =
            entry["detail"]["changed"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        changed.sort_unstable();
        let asked: serde_json::Value = serde_json::from_str(patch).unwrap();
        let asked = asked.as_object().unwrap();
        let mut wanted: Vec<_> = asked
            .iter()
            .filter(|(name, value)| before[name.as_str()] != **value)
            .map(|(name, _)| name.as_str())
            .collect();
        wanted.sort_unstable();
        assert_eq!(changed, wanted, "{patch}");
    }
}

#[tokio::test]
async fn mistakes_are_refused_by_name() {
    let gateway = Gateway::start().await;
    gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    let with = |member: &str| connection("other-one").replacen('{', &format!("{{{member},"), 1);
    for (method, path, body, status, word) in [
        ("POST", CONNECTIONS, connection("linear"), 409, "exists"),
        ("POST", CONNECTIONS, connection("a/secret/1"), 400, "id: "),
        ("POST", CONNECTIONS, connection("UPPER"), 400, "id: "),
        ("POST", CONNECTIONS, connection("ab"), 400, "id: "),
        ("POST", CONNECTIONS, String::new(), 400, "empty"),
        ("POST", CONNECTIONS, " ".to_owned(), 400, "empty"),
        ("POST", CONNECTIONS, "[]".to_owned(), 400, "JSON"),
        ("POST", CONNECTIONS, "{\"id\":".to_owned(), 400, "line 1"),
        ("POST", CONNECTIONS, with(r#""protocol":"ftp""#), 400, "protocol"),
        ("POST", CONNECTIONS, with(r#""auth_mode":"magic""#), 400, "auth_mode"),
        ("POST", CONNECTIONS, with(r#""status":"paused""#), 400, "status"),
        ("POST", CONNECTIONS, with(r#""mcp_endpoint":"/x""#), 400, "mcp"),
        ("POST", CONNECTIONS, with(r#""rotation_interval_days":-1"#), 400, "rotation_interval_days"),
        ("POST", CONNECTIONS, connection("abc").replace("\"key\":\"", "\"k2\":\""), 400, "auth_secret_key"),
        ("POST", CONNECTIONS, connection("abc").replace(CANARY, "a\\nb"), 400, "header cannot carry"),
        ("PATCH", "/api/admin/connections/linear", r#"{"auth_secret_key":"nope"}"#.to_owned(), 400, "auth_secret_key"),
        ("PATCH", "/api/admin/connections/linear", r#"{"base_url":"http://10.1.2.3"}"#.to_owned(), 400, "private"),
        ("PATCH", "/api/admin/connections/linear", r#"{"status":"paused"}"#.to_owned(), 400, "status"),
        ("PATCH", "/api/admin/connections/nobody", "{}".to_owned(), 404, "not found"),
        ("POST", "/api/admin/connections/linear/rotate", "{}".to_owned(), 400, "no secret"),
        ("POST", "/api/admin/connections/linear/rotate", r#"{"secrets":{"other":"o"}}"#.to_owned(), 400, "no secret"),
        ("POST", "/api/admin/connections/nobody/rotate", r#"{"secrets":{"a":"b"}}"#.to_owned(), 404, "not found"),
        ("GET", "/api/admin/connections/..%2Fx", String::new(), 404, "not found"),
        ("GET", "/api/admin/connections/%FF%FE", String::new(), 404, "not found"),
    ] {
        let answer = gateway.ask(method, path, &body).await;
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(answer.status == status && error.contains(word), "{method} {path} {body}: {answer:?}");
        assert!(!answer.body.contains(CANARY), "{answer:?}");
    }
}

#[tokio::test]
async fn upstream_addresses_are_judged_when_saved() {
    let gateway = Gateway::start_with(|config| config.own_ports = vec![38000]).await;
    let own = format!("http://127.0.0.1:{}", gateway.address.port());
    for (number, (url, status)) in [
        ("http://127.0.0.1:11100", 201),
        ("http://localhost:11100", 201),
        (own.as_str(), 400),
        ("http://localhost:38000", 400),
        ("http://10.0.0.1", 400),
        ("http://169.254.169.254/latest/meta-data", 400),
        ("http://metadata.google.internal", 400),
        ("http://[::ffff:127.0.0.1]", 400),
        ("http://0x7f000001", 400),
        ("http://0.0.0.0", 400),
        ("gopher://example.com", 400),
    ]
    .into_iter()
    .enumerate()
    {
        let body = connection(&format!("conn-{number}")).replace("https://api.example.com/v1", url);
        assert_eq!(gateway.ask("POST", CONNECTIONS, &body).await.status, status, "{url}");
    }
    let private = connection("private").replacen('{', r#"{"allow_private":true,"#, 1);
    let private = private.replace("https://api.example.com/v1", "http://10.0.0.1");
    assert_eq!(gateway.ask("POST", CONNECTIONS, &private).await.status, 201);
}

#[tokio::test]
async fn without_the_token_nothing_is_answered() {
    let gateway = Gateway::start().await;
    for (method, path) in [
        ("GET", CONNECTIONS),
        ("POST", CONNECTIONS),
        ("GET", "/api/admin/connections/linear"),
        ("DELETE", "/api/admin/connections/linear"),
        ("POST", "/api/admin/connections/linear/rotate"),
        ("POST", "/api/admin/connections/linear/test"),
        ("PUT", CONNECTIONS),
        ("GET", "/api/admin"),
        ("GET", "/api/admin/whatever/else"),
        ("GET", "/metrics"),
    ] {
        for headers in [&[][..], &[("host", "localhost")], &[("authorization", "Bearer wrong-token")]] {
            let answer = gateway.send(method, path, headers, "").await;
            assert!(answer.status == 403 && answer.code() == "ADMIN_TOKEN_REQUIRED", "{method} {path}: {answer:?}");
        }
    }
    let bearer = gateway.send("GET", CONNECTIONS, &[("authorization", &format!("bearer {TOKEN}"))], "").await;
    assert_eq!(bearer.status, 200);
}

#[tokio::test]
async fn the_compatibility_modes_count_direct_loopback_clients_only() {
    let hybrid = Gateway::start_with(|config| config.access_mode = AccessMode::Hybrid).await;
    assert_eq!(hybrid.send("GET", CONNECTIONS, &[], "").await.status, 200);
    for headers in
        [&[("x-forwarded-for", "127.0.0.1")][..], &[("host", "evil.example")], &[("forwarded", "for=127.0.0.1")]]
    {
        let answer = hybrid.send("GET", CONNECTIONS, headers, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "ADMIN_TOKEN_OR_LOOPBACK_REQUIRED"), "{headers:?}");
    }
    let loopback = Gateway::start_with(|config| config.access_mode = AccessMode::None).await;
    let proxied = [("x-forwarded-for", "127.0.0.1"), ("x-sigilum-admin-token", TOKEN)];
    let answer = loopback.send("GET", CONNECTIONS, &proxied, "").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "ADMIN_LOOPBACK_REQUIRED"));
    assert_eq!(loopback.send("GET", CONNECTIONS, &[], "").await.status, 200);
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let gateway = Gateway::start_with(|config| config.access_mode = AccessMode::Hybrid).await;
    let evil = gateway.send("POST", CONNECTIONS, &[("origin", "https://evil.example")], &connection("linear")).await;
    assert_eq!((evil.status, evil.code().as_str()), (403, "ADMIN_ORIGIN_REFUSED"));
    assert!(evil.header("access-control-allow-origin").is_none());
    // What a page can send without asking first.
    let simple = gateway.send("POST", CONNECTIONS, &[("content-type", "text/plain")], &connection("linear")).await;
    assert_eq!(simple.status, 415);
    assert_eq!(gateway.ask("GET", CONNECTIONS, "").await.body, "{\"connections\":[]}\n");

    let own = format!("http://localhost:{}", gateway.address.port());
    let ours = gateway.send("POST", CONNECTIONS, &[("origin", &own)], &connection("linear")).await;
    assert_eq!((ours.status, ours.header("access-control-allow-origin")), (201, Some(own.as_str())));
    let preflight = gateway.send("OPTIONS", CONNECTIONS, &[("origin", &own)], "").await;
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("X-Sigilum-Admin-Token"));
}

#[tokio::test]
async fn paths_and_methods_outside_the_table_are_said_to_be() {
    let gateway = Gateway::start().await;
    for (method, path, status, code) in [
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/proxy/linear/x", 404, "NOT_FOUND"),
        ("GET", "/api/admin", 404, "NOT_FOUND"),
        ("GET", "/api/admin/whatever", 404, "NOT_FOUND"),
        ("GET", "/api/admin/connections/linear/whatever", 404, "NOT_FOUND"),
        ("GET", "/api/admin/connections/linear/test", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api/admin/connections/linear/whatever/more", 404, "NOT_FOUND"),
        ("GET", "/api/admin/connections/linear/rotate/more", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api/admin/service-catalog", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/api/admin/service-api-keys/linear", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/admin/credential-variables", 200, ""),
        ("PUT", CONNECTIONS, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/health", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/admin/connections/linear/rotate", 405, "METHOD_NOT_ALLOWED"),
        ("TRACE", "/metrics", 405, "METHOD_NOT_ALLOWED"),
    ] {
        let answer = gateway.ask(method, path, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path}");
        assert!(status != 405 || answer.header("allow").is_some(), "{answer:?}");
    }
}

#[tokio::test]
async fn errors_wear_the_envelope_and_repeat_the_id() {
    let gateway = Gateway::start().await;
    let answer = gateway.send("GET", "/nowhere", &[], "").await;
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert_eq!(id.len(), 36);
    assert_eq!(
        (answer.header("x-sigilum-code"), answer.header("cache-control")),
        (Some("NOT_FOUND"), Some("no-store"))
    );
    let members: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(members, ["error", "code", "request_id", "timestamp", "docs_url"]);
    assert_eq!(answer.json()["request_id"], id.as_str());
    assert!(answer.body.ends_with('\n'));
}

#[tokio::test]
async fn a_request_id_that_is_one_word_is_the_id() {
    let gateway = Gateway::start().await;
    let longest = "i".repeat(128);
    for (given, shown) in [("abc-123", "abc-123"), (" a~!\"b\t", "a~!\"b"), (longest.as_str(), longest.as_str())] {
        for path in ["/health", "/nowhere", CONNECTIONS] {
            let answer = gateway.send("GET", path, &[("x-request-id", given)], "").await;
            assert_eq!(answer.header("x-request-id"), Some(shown), "{path} {given}");
        }
        let refused = gateway.send("GET", CONNECTIONS, &[("x-request-id", given)], "").await;
        assert_eq!(refused.json()["request_id"], shown);
    }
    for given in ["", " ", "two words", "\u{e9}", &"i".repeat(129)] {
        let answer = gateway.send("GET", "/health", &[("x-request-id", given)], "").await;
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36), "{given}");
    }
    let twice = [("x-request-id", "a"), ("x-request-id", "a")];
    let answer = gateway.send("GET", "/health", &twice, "").await;
    assert_eq!(answer.header("x-request-id").map(str::len), Some(36));
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_by_length_and_by_count() {
    let gateway = Gateway::start().await;
    let head = format!(
        "POST {CONNECTIONS} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-sigilum-admin-token: {TOKEN}\r\n\
         content-type: application/json\r\n"
    );
    let announced = gateway.raw(format!("{head}content-length: 2097153\r\n\r\n").as_bytes()).await;
    assert_eq!((announced.status, announced.code().as_str()), (413, "REQUEST_BODY_TOO_LARGE"));
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x0010_0000));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}1\r\n \r\n0\r\n\r\n");
    let counted = gateway.raw(chunked.as_bytes()).await;
    assert_eq!((counted.status, counted.code().as_str()), (413, "REQUEST_BODY_TOO_LARGE"));
    let stranger = format!(
        "POST {CONNECTIONS} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2097153\r\n\r\n"
    );
    assert_eq!(gateway.raw(stranger.as_bytes()).await.code(), "ADMIN_TOKEN_REQUIRED");
    let largest = format!("{{\"id\":\"linear\"}}{}", " ".repeat(MAX_BODY - 15));
    assert_eq!(gateway.ask("POST", CONNECTIONS, &largest).await.status, 400);
}

const MAX_BODY: usize = crate::admin::input::MAX_BODY_BYTES;

#[tokio::test]
async fn a_head_of_a_megabyte_is_refused() {
    let gateway = Gateway::start().await;
    let head = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(gateway.raw_status(head.as_bytes()).await.is_none_or(|status| status == 431));
    assert_eq!(gateway.send("GET", "/health", &[], "").await.status, 200);
}

/// An Envoy as far as its admin interface goes: says what it was asked, answers 200 with `body`.
fn envoy_admin(run_dir: &Path, body: &'static str) -> (Arc<Mutex<Vec<String>>>, Task<()>) {
    let listener = UnixListener::bind(run_dir.join(launch::ADMIN_SOCKET)).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let length = stream.read(&mut bytes).await.unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            seen.lock().unwrap().push(text.lines().next().unwrap_or_default().to_owned());
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (asked, serving)
}

#[tokio::test]
async fn open_requests_are_read_from_envoy() {
    let gateway = Gateway::start().await;
    let (asked, serving) = envoy_admin(&gateway.folder.path().join("run"), "http.ingress.downstream_rq_active: 3\n");
    let text = gateway.ask("GET", "/metrics", "").await.body;
    assert!(text.contains("sigilum_gateway_requests_in_flight 3\n"), "{text}");
    assert!(text.contains("sigilum_gateway_envoy_up 1\n"), "{text}");
    // It is asked for other things as well.
    assert!(asked.lock().unwrap().iter().any(|line| line.starts_with("GET /stats?filter=")));
    serving.abort();
}

#[tokio::test]
async fn a_long_access_log_is_put_aside_and_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let log = run.join("access.log");
    let line = format!("{{\"path\":\"{}\"}}\n", "x".repeat(100_000));
    let lines = usize::try_from(crate::admin::meter::ROTATE_BYTES).unwrap() / line.len() + 1;
    std::fs::write(&log, line.repeat(lines)).unwrap();
    let socket = run.join(launch::ADMIN_SOCKET);
    let publisher = Publisher::new(crate::state::PublishedState::default());
    let metrics = Arc::new(Metrics::new().unwrap());
    let open = OpenStore::open(&run.join("data"), &Secret::new(MASTER_KEY.to_owned()), "test").unwrap();
    let (store, _) = open.start(Box::new(|_, _| {})).unwrap();
    let mut meter = Meter::new(publisher, Arc::clone(&metrics), store, run, &socket);
    let turns = async |meter: &mut Meter| {
        for _ in 0..4 {
            meter.turn(false).await;
        }
    };
    // Nobody there to open it anew: it stays in place.
    turns(&mut meter).await;
    assert!(log.exists() && !run.join("access.log.1").exists());
    let (asked, serving) = envoy_admin(run, "OK\n");
    meter.turn(false).await;
    assert!(!log.exists() && run.join("access.log.1").exists());
    assert_eq!(*asked.lock().unwrap(), ["POST /reopen_logs HTTP/1.1"]);
    // The new log is read from its start, and only once.
    std::fs::write(&log, "not json\n").unwrap();
    turns(&mut meter).await;
    assert!(metrics.render().unwrap().contains("sigilum_gateway_access_log_unreadable_total 1\n"));
    serving.abort();
}

#[tokio::test]
async fn ready_is_earned_by_an_authz_that_has_the_state() {
    let gateway = Gateway::start().await;
    assert_eq!(
        gateway.send("GET", "/health", &[], "").await.body,
        "{\"check\":\"health\",\"ok\":true,\"status\":\"ok\"}\n"
    );
    assert_eq!(
        gateway.send("GET", "/health/live", &[], "").await.body,
        "{\"check\":\"liveness\",\"ok\":true,\"status\":\"ok\"}\n"
    );
    let early = gateway.send("GET", "/health/ready", &[], "").await;
    assert_eq!((early.status, early.code().as_str()), (503, "NOT_READY"));
    assert_eq!(early.json()["ready"], false);
    wait_until(async || gateway.ready().await.json()["failures"] == serde_json::json!(["XdsInSync"])).await;
    let told = gateway.ready().await;
    assert_eq!((told.status, told.code().as_str()), (503, "NOT_READY"));
    assert!(told.json()["error"].as_str().unwrap().contains("no authz"));
    assert_eq!(gateway.send("GET", "/health/startup", &[], "").await.status, 503);

    let authz = gateway.authz();
    wait_until(async || gateway.send("GET", "/health/ready", &[], "").await.status == 200).await;
    let ready = gateway.send("GET", "/health/ready", &[], "").await;
    assert_eq!(ready.body, "{\"check\":\"readiness\",\"ok\":true,\"ready\":true,\"status\":\"ok\"}\n");
    assert_eq!(gateway.send("GET", "/health/startup", &[], "").await.status, 200);
    // Envoy is elsewhere: nobody can say how it stands with it, and that keeps nobody from being ready.
    let told = gateway.ready().await.json();
    for kind in ["EnvoyLive", "AuthzReachable"] {
        let condition = condition(&told, kind);
        assert_eq!(
            (&condition["status"], &condition["requirement"]),
            (&"Unknown".into(), &"advisory".into()),
            "{kind}"
        );
    }
    authz.end().await;
    wait_until(async || gateway.send("GET", "/health/ready", &[], "").await.status == 503).await;
}

#[tokio::test]
async fn authz_receives_the_state_and_every_change_of_it() {
    let gateway = Gateway::start().await;
    gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    let authz = gateway.authz();
    let has_secret = |snapshot: &Snapshot, id: &str, secret: &str| {
        let Some(connection) = snapshot.connection(id) else { return false };
        match connection.credential.as_ref().unwrap() {
            crate::domain::connection::Credential::Header { value, .. } => value.expose() == format!("Bearer {secret}"),
            crate::domain::connection::Credential::Query { .. } => false,
        }
    };
    authz.until(|snapshot| has_secret(snapshot, "linear", CANARY) && snapshot.approvals.len() == 1).await;
    gateway.ask("POST", CONNECTIONS, &connection("github")).await;
    authz.until(|snapshot| has_secret(snapshot, "github", CANARY)).await;
    gateway.ask("POST", "/api/admin/connections/github/rotate", r#"{"secrets":{"key":"new"}}"#).await;
    authz.until(|snapshot| has_secret(snapshot, "github", "new")).await;
    gateway.ask("PATCH", "/api/admin/connections/github", r#"{"status":"disabled"}"#).await;
    authz.until(|snapshot| snapshot.connection("github").is_some_and(|found| !found.settings.active)).await;
    gateway.ask("DELETE", "/api/admin/connections/github", "").await;
    authz.until(|snapshot| snapshot.connection("github").is_none()).await;
    assert!(authz.current.load_full().unwrap().settings.allow_loopback);
    authz.end().await;
}

#[tokio::test]
async fn metrics_carry_the_names_of_the_seed_and_no_secret() {
    let gateway = Gateway::start().await;
    gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    let line = r#"{"decision_id":"d","connection":"linear","status":502,"duration_ms":250,"path":"/x"}"#;
    std::fs::write(gateway.folder.path().join("run/access.log"), format!("{line}\nnot json\n")).unwrap();
    let authz = gateway.authz();
    let metrics = async || gateway.ask("GET", "/metrics", "").await;
    wait_until(async || {
        let text = metrics().await.body;
        text.contains("replay_detected_total 2") && text.contains("access_log_unreadable_total 1")
    })
    .await;
    let answer = metrics().await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "sigilum_gateway_auth_reject_total{reason=\"auth_replay_detected\"} 2",
        "sigilum_gateway_requests_in_flight 0",
        "sigilum_gateway_upstream_requests_total{outcome=\"error\",protocol=\"http\"} 1",
        "sigilum_gateway_upstream_latency_seconds_sum{outcome=\"error\",protocol=\"http\"} 0.25",
        "sigilum_gateway_upstream_error_total{class=\"http_502\"} 1",
        "sigilum_gateway_shutdown_drain_total{outcome=\"clean\"} 0",
        "sigilum_gateway_state_connections 1",
        "sigilum_gateway_authz_ready 1",
    ] {
        assert!(answer.body.lines().any(|found| found == line), "no {line} in\n{}", answer.body);
    }
    assert!(!answer.body.contains(CANARY));
    authz.end().await;
    // What was counted is not counted again by the next process.
    let (folder, _) = gateway.end().await;
    let gateway = Gateway::start_in(folder, |_| {}).await;
    let more = r#"{"decision_id":"e","connection":"linear","status":200,"duration_ms":1}"#;
    let log = gateway.folder.path().join("run/access.log");
    std::fs::OpenOptions::new()
        .append(true)
        .open(&log)
        .and_then(|mut file| {
            use std::io::Write as _;
            file.write_all(format!("{more}\n").as_bytes())
        })
        .unwrap();
    wait_until(async || {
        gateway.ask("GET", "/metrics", "").await.body.contains("outcome=\"success\",protocol=\"http\"} 1")
    })
    .await;
    let once_more = gateway.ask("GET", "/metrics", "").await.body;
    assert!(
        once_more.lines().any(|line| line == "sigilum_gateway_upstream_error_total{class=\"http_502\"} 0"),
        "{once_more}"
    );
}

#[tokio::test]
async fn the_canary_is_in_no_answer_and_in_no_file() {
    let gateway = Gateway::start().await;
    for (method, path, body) in [
        ("POST", CONNECTIONS, connection("linear")),
        ("POST", CONNECTIONS, connection("linear")),
        ("POST", CONNECTIONS, connection("linear").replace('}', "")),
        ("POST", CONNECTIONS, format!(r#"{{"id":"{CANARY}x","secrets":["{CANARY}"]}}"#)),
        ("POST", CONNECTIONS, connection("abc").replace(CANARY, &format!("{CANARY}\\u0000"))),
        ("GET", CONNECTIONS, String::new()),
        ("PATCH", "/api/admin/connections/linear", format!(r#"{{"secrets":{{"key":"{CANARY}"}}}}"#)),
        ("POST", "/api/admin/connections/linear/rotate", format!(r#"{{"secrets":{{"key":"{CANARY}-2"}}}}"#)),
        ("GET", "/metrics", String::new()),
    ] {
        let answer = gateway.ask(method, path, &body).await;
        assert!(!answer.body.contains(CANARY) && !answer.head.contains(CANARY), "{answer:?}");
    }
    let (folder, _) = gateway.end().await;
    let mut folders = vec![folder.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                files += 1;
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "{path:?}");
            }
        }
    }
    assert!(files >= 2);
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_holds_up_nobody() {
    let gateway = Gateway::start().await;
    let mut slow = TcpStream::connect(gateway.address).await.unwrap();
    slow.write_all(b"GET /health HT").await.unwrap();
    assert_eq!(gateway.send("GET", "/health", &[], "").await.status, 200);
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
}

#[tokio::test]
async fn requests_in_flight_are_finished_at_a_stop() {
    let gateway = Gateway::start().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let body = connection("linear");
    let head = format!(
        "POST {CONNECTIONS} HTTP/1.1\r\nhost: localhost\r\nx-sigilum-admin-token: {TOKEN}\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body: the request is being worked on.
    let mut seen = [0; 25];
    stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"HTTP/1.1 100 Continue\r\n\r\n");
    let address = gateway.address;
    gateway.stop.stop();
    wait_until(async || TcpStream::connect(address).await.is_err()).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let (folder, ended) = gateway.end().await;
    assert_eq!(ended, Ended::Stopped);
    // It was committed, and the lock is free again.
    let gateway = Gateway::start_in(folder, |_| {}).await;
    assert_eq!(gateway.ask("GET", "/api/admin/connections/linear", "").await.status, 200);
}

#[tokio::test]
async fn the_token_is_minted_once_and_used() {
    let gateway = Gateway::start_with(|config| config.token = None).await;
    let path = gateway.folder.path().join("data/admin-token");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&path).unwrap();
    let answer = gateway.send("GET", CONNECTIONS, &[("x-sigilum-admin-token", token.trim())], "").await;
    assert_eq!(answer.status, 200);
    let (folder, _) = gateway.end().await;
    let gateway = Gateway::start_in(folder, |config| config.token = None).await;
    let answer = gateway.send("GET", CONNECTIONS, &[("authorization", &format!("Bearer {}", token.trim()))], "").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_things_alone() {
    let gateway = Gateway::start().await;
    let second = build(config(gateway.folder.path())).await;
    let text = second.unwrap_err().to_string();
    assert!(text.contains("locked by pid") && text.contains("(admin)"), "{text}");

    let mut taken = config(tempfile::tempdir().unwrap().path());
    taken.addresses = vec![gateway.address];
    let text = build(taken).await.unwrap_err().to_string();
    assert!(text.contains(&gateway.address.to_string()), "{text}");

    let mut open = config(tempfile::tempdir().unwrap().path());
    open.access_mode = AccessMode::None;
    open.addresses = vec!["0.0.0.0:0".parse().unwrap()];
    assert!(matches!(build(open).await, Err(AdminError::Open(_))));

    let folder = tempfile::tempdir().unwrap();
    let mut long = config(folder.path());
    long.run_dir = folder.path().join("x".repeat(120));
    let text = build(long).await.unwrap_err().to_string();
    assert!(text.contains("107") && !folder.path().join("data").exists(), "{text}");

    gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    let (folder, _) = gateway.end().await;
    let mut wrong = config(folder.path());
    wrong.master_key = Secret::new("another".to_owned()).into();
    assert!(matches!(build(wrong).await, Err(AdminError::Store(StoreError::WrongMasterKey { .. }))));
    let gateway = Gateway::start_in(folder, |_| {}).await;
    assert_eq!(gateway.ask("GET", "/api/admin/connections/linear", "").await.status, 200);
}

#[tokio::test]
async fn a_state_subscriber_that_is_not_the_named_process_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sock");
    let publisher = Publisher::new(crate::state::PublishedState::default());
    let (stop, stopped) = stop_pair();
    // Some process that is not this one.
    let rule = crate::sys::peer::PeerRule { pid: Some(1), ..crate::sys::peer::PeerRule::same_user() };
    let (_peers, named) = watch::channel(Some(rule));
    let listener = bind_private(&path).await.unwrap();
    let serving = tokio::spawn(publisher.clone().serve_unix(listener, named, stopped));
    let mut stranger = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stranger.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.is_empty() && publisher.peers().is_empty());
    stop.stop();
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
}

/// Admin as a client of this API, with an identity and a service key in the folder of its test.
fn with_claims(config: &mut AdminConfig, api: &str, folder: &Path) {
    let (namespace, now) = (Namespace::parse("acme").unwrap(), SystemClock.now().seconds());
    Home::new(folder).create(&namespace, now).unwrap();
    config.settings.auto_register = true;
    config.keys = Arc::new(KeyPlaces::new([], vec![folder.to_owned()]));
    config.claims = Some(ClaimsSetup {
        api_url: api.to_owned(),
        every_service: true,
        namespace,
        home: folder.to_owned(),
        refresh: Duration::from_millis(300),
        max_approvals: 1000,
        registrations_per_minute: 30,
        usage: UsageOptions { enabled: false, max_backlog_bytes: 1 << 30 },
    });
}

fn judged(snapshot: &Snapshot, row: u32) -> Approval {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&row.to_be_bytes());
    let namespace = format!("team-{}", row % 7);
    // Ages count here only as known or not: a busy machine may stand still for long.
    snapshot.approvals.judge(&PublicKey::new(key), &namespace, "linear", SystemClock.now(), 600_000)
}

#[tokio::test]
async fn approvals_of_the_api_reach_authz_and_a_restart_of_admin_interrupts_nobody() {
    let rows = Arc::new(Mutex::new(vec![1, 2]));
    let down = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (listed, fails) = (Arc::clone(&rows), Arc::clone(&down));
    let api = FakeApi::start(move |asked| match fails.load(std::sync::atomic::Ordering::SeqCst) {
        true => fake_api::json("500 Internal Server Error", "", r#"{"error":"down"}"#),
        false => fake_api::json("200 OK", "", &fake_api::page(asked, &listed.lock().unwrap(), 2000)),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_owned();
    std::fs::write(home.join("service-api-key-linear"), "sk_test").unwrap();
    let gateway = Gateway::start_in(folder, |config| with_claims(config, &api.address, &home)).await;
    gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    let authz = gateway.authz();
    authz.until(|snapshot| judged(snapshot, 1) == Approval::Approved).await;
    let snapshot = authz.current.load_full().unwrap();
    assert!(snapshot.settings.auto_register && judged(&snapshot, 3) == Approval::Missing);
    *rows.lock().unwrap() = vec![2, 3];
    authz.until(|snapshot| judged(snapshot, 1) == Approval::Missing && judged(snapshot, 3) == Approval::Approved).await;

    let claims = async || {
        let ready = gateway.ready().await;
        let condition = condition(&ready.json(), "ClaimsFresh");
        (ready.status, condition["status"].as_str().unwrap_or_default().to_owned(), condition)
    };
    wait_until(async || matches!(claims().await, (200, status, _) if status == "True")).await;
    down.store(true, std::sync::atomic::Ordering::SeqCst);
    wait_until(async || matches!(claims().await, (200, status, _) if status == "False")).await;
    let (_, _, said) = claims().await;
    assert_eq!((&said["type"], &said["reason"]), (&"ClaimsFresh".into(), &"ClaimsStale".into()));
    assert!(!said["message"].as_str().unwrap().contains("linear"), "everybody may read it: {said}");
    let metrics = gateway.ask("GET", "/metrics", "").await.body;
    for line in ["claims_approvals 2\n", "claims_age_seconds{service=\"linear\"}", "refresh_total{result=\"failed\"}"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    // The API is down, and admin begins anew: what authz holds stays, and ages on.
    let (folder, _) = gateway.end().await;
    let epoch = authz.current.load_full().unwrap().version.epoch.clone();
    let gateway = Gateway::start_in(folder, |config| with_claims(config, &api.address, &home)).await;
    wait_until(async || gateway.send("GET", "/health/ready", &[], "").await.status == 200).await;
    gateway.ask("POST", CONNECTIONS, &connection("github")).await;
    authz.until(|snapshot| snapshot.connection("github").is_some()).await;
    let snapshot = authz.current.load_full().unwrap();
    assert_eq!((snapshot.version.epoch.as_str(), judged(&snapshot, 3)), (epoch.as_str(), Approval::Approved));
    *rows.lock().unwrap() = vec![2];
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    authz.until(|snapshot| judged(snapshot, 3) == Approval::Missing && judged(snapshot, 2) == Approval::Approved).await;
    authz.end().await;
    assert_eq!(gateway.end().await.1, Ended::Stopped);
}

#[tokio::test]
async fn agents_that_come_to_the_port_of_the_seed_are_told_where_envoy_is() {
    let gateway = Gateway::start().await;
    for (method, path) in [
        ("GET", "/proxy/linear/v1"),
        ("POST", "/proxy"),
        ("GET", "/proxy/"),
        ("GET", "/mcp/x/tools"),
        ("PUT", "/slack/a"),
    ] {
        let answer = gateway.send(method, path, &[], "").await;
        let told = answer.json()["error"].as_str().unwrap().to_owned();
        assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"), "{method} {path}");
        assert!(told.contains("Envoy on 127.0.0.1:38000"), "{method} {path}: {told}");
    }
    let other = gateway.send("GET", "/proxyx", &[], "").await;
    assert_eq!((other.status, other.json()["error"].as_str()), (404, Some("not found")));
}

#[tokio::test]
async fn strangers_do_not_keep_the_owner_out() {
    /// Asks on an open connection, and reads until it was answered `times` times in all.
    async fn ask(stream: &mut TcpStream, path: &str, said: &mut String, times: usize) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-sigilum-admin-token: {TOKEN}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        while said.matches("HTTP/1.1 200").count() < times {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "closed after {said}");
            said.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }
    let gateway = Gateway::start().await;
    let (mut owner, mut said) = (TcpStream::connect(gateway.address).await.unwrap(), String::new());
    ask(&mut owner, CONNECTIONS, &mut said, 1).await;
    let began = tokio::time::Instant::now();
    let mut strangers = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        let mut stranger = TcpStream::connect(gateway.address).await.unwrap();
        ask(&mut stranger, "/health/live", &mut String::new(), 1).await;
        strangers.push(stranger);
    }
    // None of them has waited until another one was idle for too long.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    ask(&mut owner, CONNECTIONS, &mut said, 2).await;
}

#[tokio::test]
async fn null_leaves_what_has_no_default_as_it_is() {
    let gateway = Gateway::start().await;
    let one = "/api/admin/connections/linear";
    gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    let before = gateway.ask("PATCH", one, r#"{"status":"disabled"}"#).await.json();
    let body = r#"{"status":null,"base_url":null,"auth_secret_key":null}"#;
    let answer = gateway.ask("PATCH", one, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let after = answer.json();
    for member in ["status", "base_url", "auth_secret_key"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    assert_eq!(after["status"], "disabled");
}

#[tokio::test]
async fn without_an_identity_only_declared_approvals_count() {
    let api = FakeApi::start(|_| fake_api::json("200 OK", "", "{}")).await;
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_owned();
    std::fs::write(home.join("service-api-key-linear"), "sk_test").unwrap();
    let gateway = Gateway::start_in(folder, |config| {
        with_claims(config, &api.address, &home);
        std::fs::remove_dir_all(home.join("identities")).unwrap();
    })
    .await;
    gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    let authz = gateway.authz();
    authz.until(|snapshot| snapshot.connection("linear").is_some()).await;
    let snapshot = authz.current.load_full().unwrap();
    assert!(!snapshot.settings.auto_register, "nobody can be submitted");
    assert_eq!(judged(&snapshot, 1), Approval::Missing);
    assert!(!home.join("identities").exists(), "none is made");
    wait_until(async || gateway.ready().await.status == 200).await;
    assert_eq!(condition(&gateway.ready().await.json(), "ClaimsFresh")["reason"], "NotAsked");
    authz.end().await;
    assert!(api.asked().is_empty());
    gateway.end().await;
}

#[path = "admin_access_tests.rs"]
mod access;

#[path = "admin_openapi_tests.rs"]
mod openapi;

#[path = "admin_face_tests.rs"]
mod face;

#[path = "admin_legacy_tests.rs"]
mod legacy;

#[path = "admin_sealing_tests.rs"]
mod sealing;

#[path = "admin_relay_tests.rs"]
mod relay;

#[path = "admin_health_tests.rs"]
mod health;
