//! The API over real sockets: every refusal by its code, claims from submission to end, two owners of one slug.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "test code may panic"
)]

#[path = "api_claims_tests.rs"]
mod claims;
#[path = "api_feed_tests.rs"]
mod feed;
#[path = "api_signed_tests.rs"]
mod signed;

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;
use rusqlite::params;
use serde_json::Value;
use sha2::Digest as _;
use sha2::Sha256;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle as Task;

use super::*;
use crate::api::db::Db;
use crate::api::moment;
use crate::sys::random;

/// Long enough for a busy machine, short enough to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running API on an ephemeral port with a folder of its own.
struct Server {
    folder: TempDir,
    address: SocketAddr,
    stop: StopHandle,
    running: Option<Task<Ended>>,
    db: Option<Db>,
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code of an error.
    fn code(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }

    fn text(&self, pointer: &str) -> String {
        let json = self.json();
        json.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}: {json}")).to_owned()
    }
}

fn config(folder: &Path) -> ApiConfig {
    ApiConfig {
        addresses: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        data_dir: folder.to_owned(),
        allowed_origins: vec!["http://localhost:3000".to_owned()],
        public_urls: Vec::new(),
        allow_remote: false,
        jwt_secret: None,
        environment: "test".to_owned(),
        seed: None,
        limits: Limits::default(),
        grace: Duration::from_secs(10),
    }
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, change).await
    }

    async fn start_in(folder: TempDir, change: impl FnOnce(&mut ApiConfig)) -> Self {
        let mut config = config(folder.path());
        change(&mut config);
        let bound = build(config).await.unwrap();
        let (address, stop, db) = (bound.addresses()[0], bound.stop_handle(), bound.api.db.clone());
        let running = tokio::spawn(bound.run());
        Self { folder, address, stop, running: Some(running), db: Some(db) }
    }

    /// Stops and gives the folder back.
    async fn end(mut self) -> TempDir {
        drop(self.db.take());
        self.stop.stop();
        let ended = tokio::time::timeout(PATIENCE, self.running.take().unwrap()).await.unwrap().unwrap();
        assert_eq!(ended, Ended::Stopped);
        self.folder
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    async fn sql(&self, sql: &'static str, values: Vec<String>) {
        let work = move |db: &rusqlite::Transaction<'_>| {
            db.execute(sql, rusqlite::params_from_iter(values))?;
            Ok(())
        };
        self.db().write(work).await.unwrap();
    }

    async fn number(&self, sql: &'static str) -> i64 {
        self.db().read(move |db| Ok(db.query_row(sql, [], |row| row.get(0))?)).await.unwrap()
    }

    /// An owner with a namespace.
    async fn owner(&self, namespace: &str) {
        let sql = "INSERT INTO users (id, email, namespace, created_at_ms, updated_at_ms)
                   VALUES ('user_' || ?1, ?1 || '@test', ?1, 0, 0)";
        self.sql(sql, vec![namespace.to_owned()]).await;
    }

    async fn policy(&self, namespace: &str, policy: &str) {
        let sql = "UPDATE users SET settings = ?2 WHERE namespace = ?1";
        self.sql(sql, vec![namespace.to_owned(), format!("{{\"policy\":{policy}}}")]).await;
    }

    /// A service of an owner with a key.
    async fn service(&self, namespace: &str, slug: &str) -> Service {
        let id = format!("svc_{}", random::hex::<8>().unwrap());
        let key = format!("sk_live_{}", random::hex::<24>().unwrap());
        let (namespace, slug, made) = (namespace.to_owned(), slug.to_owned(), Service { id, key });
        let Service { id, key } = made.clone();
        self.db()
            .write(move |db| {
                db.execute(
                    "INSERT INTO services (id, owner_user_id, name, slug, domain, description, created_at_ms,
                         updated_at_ms) VALUES (?1, 'user_' || ?2, ?3, ?3, 'd', 'd', 0, 0)",
                    params![id, namespace, slug],
                )?;
                db.execute(
                    "INSERT INTO service_api_keys (id, service_id, name, key_prefix, key_hash, created_at_ms)
                     VALUES ('key_' || ?1, ?1, 'n', '...', ?2, 0)",
                    params![id, key_hash(&key)],
                )?;
                Ok(())
            })
            .await
            .unwrap();
        made
    }

    /// Sends one request on a connection of its own.
    async fn send(&self, method: &str, target: &str, headers: &[(String, String)], body: &[u8]) -> Reply {
        let mut head = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            write!(head, "host: {}\r\n", self.address).unwrap();
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if !body.is_empty() || method == "POST" {
            write!(head, "content-length: {}\r\n", body.len()).unwrap();
        }
        head.push_str("\r\n");
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    async fn raw(&self, bytes: &[u8]) -> Reply {
        let work = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // The server may answer and close before it has read everything.
            let _ = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        };
        let answer = tokio::time::timeout(PATIENCE, work).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    async fn get(&self, target: &str, agent: &Agent, service: Option<&Service>) -> Reply {
        let mut headers = agent.sign(&Draft::new("GET", &self.url(target)));
        headers.extend(service.map(Service::bearer));
        self.send("GET", target, &headers, b"").await
    }

    async fn post(&self, target: &str, agent: &Agent, service: Option<&Service>, body: &str) -> Reply {
        let mut headers = agent.sign(&Draft::new("POST", &self.url(target)).body(body));
        headers.extend(service.map(Service::bearer));
        self.send("POST", target, &headers, body.as_bytes()).await
    }

    /// Submits a claim for the agent's own key.
    async fn claim(&self, agent: &Agent, service: &Service, slug: &str) -> Reply {
        self.post("/v1/claims", agent, Some(service), &agent.submission(slug)).await
    }

    /// Approves a claim the way the owner's decision does.
    async fn approve(&self, claim_id: &str, expires_at_ms: Option<i64>) {
        let (claim_id, now_ms) = (claim_id.to_owned(), now_ms());
        let work = move |db: &rusqlite::Transaction<'_>| {
            Ok(crate::api::ledger::approve(db, &claim_id, now_ms, expires_at_ms)?)
        };
        assert!(self.db().write(work).await.unwrap());
    }

    async fn end_claim(&self, claim_id: &str, from: Status, into: Status) {
        let (claim_id, now_ms) = (claim_id.to_owned(), now_ms());
        let work =
            move |db: &rusqlite::Transaction<'_>| Ok(crate::api::ledger::end(db, &claim_id, from, into, now_ms)?);
        assert!(self.db().write(work).await.unwrap());
    }

    /// Submits and approves.
    async fn approved(&self, agent: &Agent, service: &Service, slug: &str) -> String {
        let reply = self.claim(agent, service, slug).await;
        assert_eq!((reply.status, reply.text("/status").as_str()), (201, "pending"), "{reply:?}");
        let claim_id = reply.text("/claim_id");
        self.approve(&claim_id, None).await;
        claim_id
    }
}

use crate::api::ledger::Status;

fn now_ms() -> i64 {
    moment::now_ms(SystemClock)
}

#[derive(Debug, Clone)]
struct Service {
    id: String,
    key: String,
}

impl Service {
    fn bearer(&self) -> (String, String) {
        ("authorization".to_owned(), format!("Bearer {}", self.key))
    }
}

/// What is about to be signed.
#[derive(Debug, Clone)]
struct Draft {
    method: String,
    url: String,
    subject: String,
    body: Vec<u8>,
    created: u64,
    nonce: String,
    agent_id: Option<String>,
}

impl Draft {
    fn new(method: &str, url: &str) -> Self {
        Self {
            method: method.to_owned(),
            url: url.to_owned(),
            subject: "customer-1".to_owned(),
            body: Vec::new(),
            created: SystemClock.now().seconds().0,
            nonce: random::uuid().unwrap(),
            agent_id: None,
        }
    }

    fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }
}

/// Somebody with a key, who signs by the letter of the profile with `ed25519-dalek` alone.
#[derive(Debug, Clone)]
struct Agent {
    key: SigningKey,
    namespace: String,
}

impl Agent {
    fn new(namespace: &str) -> Self {
        Self { key: SigningKey::from_bytes(&random::bytes::<32>().unwrap()), namespace: namespace.to_owned() }
    }

    fn public_key(&self) -> String {
        format!("ed25519:{}", STANDARD.encode(self.key.verifying_key().to_bytes()))
    }

    fn key_id(&self) -> String {
        let digest = Sha256::digest(self.key.verifying_key().to_bytes());
        let print: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("did:sigilum:{}#ed25519-{print}", self.namespace)
    }

    fn certificate(&self) -> String {
        let (namespace, key, key_id) = (&self.namespace, self.public_key(), self.key_id());
        let payload = format!(
            "sigilum-certificate-v1\nnamespace:{namespace}\ndid:did:sigilum:{namespace}\nkey-id:{key_id}\n\
             public-key:{key}\nissued-at:2026-01-01T00:00:00Z\nexpires-at:"
        );
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(payload.as_bytes()).to_bytes());
        URL_SAFE_NO_PAD.encode(format!(
            "{{\"version\":1,\"namespace\":\"{namespace}\",\"did\":\"did:sigilum:{namespace}\",\"keyId\":\"{key_id}\",\
             \"publicKey\":\"{key}\",\"issuedAt\":\"2026-01-01T00:00:00Z\",\"expiresAt\":null,\
             \"proof\":{{\"alg\":\"ed25519\",\"sig\":\"{signature}\"}}}}"
        ))
    }

    fn sign(&self, draft: &Draft) -> Vec<(String, String)> {
        let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(&draft.body)));
        let mut fields = vec![("@method", draft.method.to_lowercase()), ("@target-uri", draft.url.clone())];
        if !draft.body.is_empty() {
            fields.push(("content-digest", digest));
        }
        fields.push(("sigilum-namespace", self.namespace.clone()));
        fields.push(("sigilum-subject", draft.subject.clone()));
        fields.extend(draft.agent_id.clone().map(|id| ("sigilum-agent-id", id)));
        fields.push(("sigilum-agent-key", self.public_key()));
        fields.push(("sigilum-agent-cert", self.certificate()));
        let names: Vec<String> = fields.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let params = format!(
            "({});created={};keyid=\"{}\";alg=\"ed25519\";nonce=\"{}\"",
            names.join(" "),
            draft.created,
            self.key_id(),
            draft.nonce
        );
        let mut lines: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        lines.push(format!("\"@signature-params\": {params}"));
        let signature = STANDARD.encode(self.key.sign(lines.join("\n").as_bytes()).to_bytes());
        let mut headers = vec![
            ("signature-input".to_owned(), format!("sig1={params}")),
            ("signature".to_owned(), format!("sig1=:{signature}:")),
        ];
        let shown = fields.into_iter().filter(|(name, _)| !name.starts_with('@'));
        headers.extend(shown.map(|(name, value)| (name.to_owned(), value)));
        headers
    }

    /// The body of a claim for this agent's own key.
    fn submission(&self, slug: &str) -> String {
        serde_json::json!({
            "agent_ip": "192.0.2.9", "namespace": self.namespace, "nonce": random::uuid().unwrap(),
            "public_key": self.public_key(), "service": slug, "subject": "customer-1",
        })
        .to_string()
    }
}

/// Polls until `check` says so.
async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let work = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn health_is_open_and_unknown_things_are_said() {
    let server = Server::start().await;
    let health = server.send("GET", "/health", &[("host".to_owned(), "probe.internal".to_owned())], b"").await;
    assert_eq!((health.status, health.text("/status").as_str()), (200, "ok"));
    assert!(health.text("/timestamp").ends_with('Z'));
    assert_eq!(server.send("GET", "/nothing", &[], b"").await.code(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(server.send("DELETE", "/health", &[], b"").await.code(), (405, "METHOD_NOT_ALLOWED".to_owned()));
    let large = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(server.send("POST", "/nothing", &[], &large).await.code(), (413, "REQUEST_BODY_TOO_LARGE".to_owned()));
    let signed = server.get("/v1/nothing", &Agent::new("alice"), None).await;
    assert_eq!(signed.code(), (404, "NOT_FOUND".to_owned()));
    server.end().await;
}

#[tokio::test]
async fn a_request_id_is_echoed_where_it_is_one_word_and_json_is_laid_out_on_request() {
    let server = Server::start().await;
    let with = |id: &str| vec![("x-request-id".to_owned(), id.to_owned())];
    let own = server.send("GET", "/health", &with("abc-123"), b"").await;
    assert_eq!(own.header("x-request-id"), Some("abc-123"));
    for id in ["two words", "", &"a".repeat(129)] {
        let given = server.send("GET", "/health", &with(id), b"").await;
        assert_eq!(given.header("x-request-id").map(str::len), Some(36), "{id}");
    }
    let pretty = server.send("GET", "/health?pretty", &[], b"").await;
    assert!(pretty.body.starts_with("{\n  \"status\": \"ok\""), "{}", pretty.body);
    assert!(!server.send("GET", "/health", &[], b"").await.body.contains('\n'));
    server.end().await;
}

#[tokio::test]
async fn folder_and_address_are_judged_before_anything_is_served() {
    let server = Server::start().await;
    let folder = server.folder.path().to_owned();
    assert!(matches!(build(config(&folder)).await, Err(ApiError::Db(DbError::Locked(_)))));
    let secret = std::fs::read_to_string(folder.join(JWT_SECRET_FILE)).unwrap();
    assert_eq!(secret.trim().len(), 96);
    let other = tempfile::tempdir().unwrap();
    let taken = ApiConfig { addresses: vec![server.address], ..config(other.path()) };
    assert!(matches!(build(taken).await, Err(ApiError::Bind(_))));
    let open = || vec![(Ipv4Addr::UNSPECIFIED, 0).into()];
    let remote = ApiConfig { addresses: open(), ..config(other.path()) };
    assert!(matches!(build(remote).await, Err(ApiError::Remote(_))));
    let half = ApiConfig { addresses: open(), allow_remote: true, ..config(other.path()) };
    assert!(matches!(build(half).await, Err(ApiError::Remote(_))));
    let short = Some(Secret::new("x".repeat(31)));
    let guessed = ApiConfig { addresses: open(), allow_remote: true, jwt_secret: short, ..config(other.path()) };
    assert!(matches!(build(guessed).await, Err(ApiError::Guessable(_))));
    let folder = server.end().await;
    // What was minted stays.
    let again = build(config(folder.path())).await.unwrap();
    assert_eq!(again.jwt_secret().expose(), secret.trim());
}
