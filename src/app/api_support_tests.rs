//! A control plane on a socket of its own, and a client that sends exactly what it is given.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "test code may panic; not every test file uses everything"
)]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::api::token;
use crate::api::token::Owner;
use crate::app::api::ApiConfig;
use crate::app::api::DATABASE_FILE;
use crate::app::api::Limits;
use crate::app::api::build;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::domain::time::UnixSeconds;
use crate::identity::Identity;
use crate::identity::Outgoing;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::random;
use crate::sys::tasks::Ended;
use crate::sys::tasks::StopHandle;

pub(super) const JWT_SECRET: &str = "a secret of the tests with more than 32 bytes";
pub(super) const SEED_TOKEN: &str = "a seed token of the tests";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running control plane with an empty database.
pub(super) struct ControlPlane {
    pub(super) address: SocketAddr,
    pub(super) folder: tempfile::TempDir,
    stop: StopHandle,
    running: JoinHandle<Ended>,
}

pub(super) fn config(folder: &std::path::Path) -> ApiConfig {
    let mut limits = Limits::default();
    // Whoever tests refusals wants them at once.
    limits.pairing.held = Duration::ZERO;
    ApiConfig {
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        data_dir: folder.to_owned(),
        allowed_origins: vec!["http://localhost:3000".to_owned()],
        public_urls: vec!["https://api.example.com".to_owned()],
        allow_remote: false,
        jwt_secret: Some(Secret::new(JWT_SECRET.to_owned())),
        environment: "test".to_owned(),
        seed: Some(Secret::new(SEED_TOKEN.to_owned())),
        limits,
        grace: Duration::from_secs(5),
    }
}

impl ControlPlane {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        let bound = build(config).await.unwrap();
        let (address, stop) = (bound.addresses()[0], bound.stop_handle());
        #[expect(clippy::disallowed_methods, reason = "the test is its owner")]
        let running = tokio::spawn(bound.run());
        Self { address, folder, stop, running }
    }

    pub(super) async fn stop(self) {
        self.stop.stop();
        assert_eq!(self.running.await.unwrap(), Ended::Stopped);
    }

    /// Tells it to stop, as [`ControlPlane::stop`] does, and does not wait.
    pub(super) async fn stop_ref(&self) {
        self.stop.stop();
    }

    /// A look at, or a change of, the database beside the process.
    pub(super) fn sql<T>(&self, work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>) -> T {
        let db = rusqlite::Connection::open(self.folder.path().join(DATABASE_FILE)).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        work(&db).unwrap()
    }

    /// What lies in its folder: names and contents.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.is_file());
        files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
    }

    pub(super) fn ask(&self, method: &str, target: &str) -> Ask {
        Ask {
            address: self.address,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("host".to_owned(), self.address.to_string())],
            body: Vec::new(),
            upgrade: false,
        }
    }

    /// A request with the token of the local owner of a namespace.
    pub(super) fn owner(&self, namespace: &str, method: &str, target: &str) -> Ask {
        self.ask(method, target).bearer(&local_token(namespace))
    }

    /// Makes a service of an owner; its id.
    pub(super) async fn service(&self, namespace: &str, slug: &str) -> String {
        let body = json!({"name": slug, "slug": slug, "domain": "localhost", "description": "a service"});
        let made = self.owner(namespace, "POST", "/v1/services").json(&body).send().await.expect(201);
        made["id"].as_str().unwrap().to_owned()
    }

    /// Makes a key of a service.
    pub(super) async fn key(&self, namespace: &str, service: &str) -> String {
        let target = format!("/v1/services/{service}/keys");
        let made = self.owner(namespace, "POST", &target).send().await.expect(201);
        made["key"].as_str().unwrap().to_owned()
    }

    /// Submits the claim of an agent; the claim's id.
    pub(super) async fn claim(&self, agent: &Identity, service: &str, key: &str) -> String {
        let body = json!({"namespace": agent.namespace().as_str(), "public_key": agent.public_key().text(),
            "service": service, "agent_ip": "127.0.0.1", "nonce": random::uuid().unwrap()});
        let asked = self.ask("POST", "/v1/claims").bearer(key).json(&body).signed(agent);
        let made = asked.send().await.expect(201);
        assert_eq!(made["status"], "pending");
        made["claim_id"].as_str().unwrap().to_owned()
    }
}

/// A key of a namespace.
pub(super) fn agent(namespace: &str) -> Identity {
    Identity::generate(Namespace::parse(namespace).unwrap(), SystemClock.now().seconds()).unwrap()
}

/// A token of any user, issued `at` seconds after now.
pub(super) fn token_of(sub: &str, namespace: &str, at: i64) -> String {
    let owner = Owner {
        sub: sub.to_owned(),
        email: "somebody@example.com".to_owned(),
        namespace: Namespace::parse(namespace).unwrap(),
    };
    let now = UnixSeconds(SystemClock.now().seconds().0.checked_add_signed(at).unwrap());
    let secret = Secret::new(JWT_SECRET.to_owned());
    token::issue(&secret, &owner, Duration::from_secs(60), now).unwrap().expose().to_owned()
}

pub(super) fn local_token(namespace: &str) -> String {
    token_of(&format!("user_local_{namespace}"), namespace, 0)
}

/// One request.
#[derive(Clone)]
pub(super) struct Ask {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    upgrade: bool,
}

impl Ask {
    /// Asks for a WebSocket; for those who will be refused.
    pub(super) fn upgrade(mut self) -> Self {
        self.upgrade = true;
        self
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.headers[0].1);
        self
    }

    pub(super) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(super) fn cookie(self, token: &str) -> Self {
        self.header("cookie", &format!("sigilum_token={token}"))
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").raw(body.to_string().as_bytes())
    }

    pub(super) fn raw(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// Signs what is there so far.
    pub(super) fn signed(mut self, agent: &Identity) -> Self {
        let url = format!("http://{}{}", self.headers[0].1, self.target);
        let nonce = random::uuid().unwrap();
        let outgoing = Outgoing {
            method: &self.method,
            url: &url,
            body: &self.body,
            subject: None,
            agent_id: None,
            created: SystemClock.now().seconds(),
            nonce: &nonce,
        };
        let headers = agent.signer().sign(&outgoing).unwrap();
        self.headers.extend(headers.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self
    }

    pub(super) async fn send(self) -> Answer {
        let connection = if self.upgrade {
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
        } else {
            "connection: close"
        };
        let mut out = format!("{} {} HTTP/1.1\r\n{connection}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() {
            out.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        let mut out = format!("{out}\r\n").into_bytes();
        out.extend_from_slice(&self.body);
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // Where the answer comes before the body is read, writing may fail and reading succeed.
            let _ = stream.write_all(&out).await;
            let mut answer = Vec::new();
            // Who asks for an upgrade cannot ask for the end of the connection.
            while !(self.upgrade && is_whole(&answer)) {
                if stream.read_buf(&mut answer).await? == 0 {
                    break;
                }
            }
            Ok::<_, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.unwrap().unwrap();
        Answer::parse(&answer, &format!("{} {}", self.method, self.target))
    }
}

/// Whether an answer with a length is complete.
fn is_whole(answer: &[u8]) -> bool {
    let Some((head, body)) = std::str::from_utf8(answer).ok().and_then(|text| text.split_once("\r\n\r\n")) else {
        return false;
    };
    head.lines()
        .any(|line| line.strip_prefix("content-length: ").is_some_and(|length| length.parse() == Ok(body.len())))
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    asked: String,
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    fn parse(bytes: &[u8], asked: &str) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{asked}: no answer: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Self { asked: asked.to_owned(), status, headers, body: body.to_owned() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn value(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {}", self.asked, self.body))
    }

    /// The body, where the status is this.
    #[track_caller]
    pub(super) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.body);
        self.value()
    }

    /// That it is this refusal, in the one form they all have; its details.
    #[track_caller]
    pub(super) fn refused(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["code"], code, "{}: {}", self.asked, self.body);
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{}", self.body);
        body["details"].clone()
    }

    /// The fields a `VALIDATION_ERROR` names.
    #[track_caller]
    pub(super) fn invalid(&self) -> Vec<String> {
        let details = self.refused(400, "VALIDATION_ERROR");
        let fields = details.as_array().unwrap().iter();
        fields.map(|violation| violation["field"].as_str().unwrap().to_owned()).collect()
    }
}
