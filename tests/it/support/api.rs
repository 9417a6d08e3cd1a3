//! The local control plane as its users run it: the real `sigilum api` with a folder and a port of its own, and
//! the owner's side of it. Tokens and signatures are made here, apart from the product's own makers.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;
use tempfile::TempDir;

use super::agent::Agent;
use super::agent::now;
use super::agent::random_hex;
use super::client;
use super::client::Body;
use super::client::Request;
use super::client::Response;
use super::gateway::LIMIT;
use super::gateway::Running;
use super::gateway::binary;
use super::gateway::free_port;
use super::process::wait_until;

/// HMAC with SHA-256 (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    let key = if key.len() > 64 { Sha256::digest(key).to_vec() } else { key.to_vec() };
    block[..key.len()].copy_from_slice(&key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

/// An HS256 token (RFC 7519) of the local owner of `namespace`, good from now for `seconds`, which may be negative.
pub fn owner_token(secret: &str, namespace: &str, seconds: i64) -> String {
    let issued = i64::try_from(now()).unwrap() + seconds.min(0) - 60;
    let claims = json!({
        "sub": format!("user_local_{namespace}"),
        "email": format!("{namespace}@local.sigilum"),
        "namespace": namespace,
        "iss": "sigilum-api",
        "aud": "sigilum-dashboard",
        "iat": issued,
        "exp": i64::try_from(now()).unwrap() + seconds,
    });
    let head = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "typ": "JWT" }).to_string());
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac(secret.as_bytes(), signed.as_bytes())))
}

/// A service at the control plane, and a key of it.
#[derive(Debug, Clone)]
pub struct Service {
    pub id: String,
    pub slug: String,
    pub key: String,
}

/// A running control plane; gone when dropped.
pub struct Api {
    folder: TempDir,
    pub address: SocketAddr,
    environment: Vec<(String, String)>,
    running: Mutex<Option<Running>>,
}

impl Api {
    /// With room for the agents of a test.
    pub fn start() -> Self {
        Self::start_with(&[("MAX_AGENTS_PER_SERVICE", "1000")])
    }

    /// With more in its environment.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let api = Self {
            folder: tempfile::Builder::new().prefix("sa").rand_bytes(6).tempdir_in("/tmp").unwrap(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            running: Mutex::new(None),
        };
        api.go();
        api
    }

    /// A command with the home and the folder of this API.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("API_DATA_DIR", self.folder.path().join("data"))
            .env("API_PORT", self.address.port().to_string())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it, again on the same port.
    pub fn go(&self) {
        let started = Running::spawn_in(self.command(&["api"]), Some(self.folder.path()));
        *self.running.lock().unwrap() = Some(started);
        let health = Request::new("GET", &self.address.to_string(), "/health");
        wait_until("the API answers", LIMIT, || {
            let mut running = self.running.lock().unwrap();
            let running = running.as_mut().unwrap();
            let ended = running.ended();
            assert!(ended.is_none(), "the API ended with {ended:?}: {}", running.said());
            client::try_send(self.address, &health).is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Ends it at once.
    pub fn kill(&self) {
        let mut running = self.running.lock().unwrap().take().unwrap();
        running.signal(Signal::KILL);
        running.wait(LIMIT);
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.running.lock().unwrap().as_ref().unwrap().pid()
    }

    /// Its log so far.
    pub fn said(&self) -> String {
        self.running.lock().unwrap().as_ref().unwrap().said()
    }

    /// Home and data.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What signs its owner tokens.
    pub fn jwt_secret(&self) -> String {
        fs::read_to_string(self.folder.path().join("data/jwt-secret")).unwrap().trim().to_owned()
    }

    /// A token of the owner of a namespace.
    pub fn token(&self, namespace: &str) -> String {
        owner_token(&self.jwt_secret(), namespace, 600)
    }

    /// A request with a bearer token.
    pub fn ask(&self, token: &str, method: &str, target: &str, body: Option<&Value>) -> Response {
        let mut request =
            Request::new(method, &self.address.to_string(), target).header("authorization", &format!("Bearer {token}"));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .with_body(Body::Sized(body.to_string().into_bytes()));
        }
        client::send(self.address, &request)
    }

    /// A request of the owner of a namespace that must succeed.
    pub fn owner(&self, namespace: &str, method: &str, target: &str, body: Option<&Value>) -> Value {
        let answer = self.ask(&self.token(namespace), method, target, body);
        assert!((200..300).contains(&answer.status), "{method} {target}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// A request signed by an agent, with a service key where there is one.
    pub fn signed(&self, agent: &Agent, key: Option<&str>, method: &str, target: &str, body: &[u8]) -> Response {
        let request = agent.prepare(method, &self.address.to_string(), target).body(body).sign();
        let request = request.header("content-type", "application/json");
        client::send(
            self.address,
            &match key {
                Some(key) => request.header("authorization", &format!("Bearer {key}")),
                None => request,
            },
        )
    }

    /// Makes a service of an owner, and a key of it.
    pub fn service(&self, namespace: &str, slug: &str) -> Service {
        let body = json!({ "name": slug, "slug": slug, "domain": "example.com", "description": "of a test" });
        let id = self.owner(namespace, "POST", "/v1/services", Some(&body))["id"].as_str().unwrap().to_owned();
        let key = self.owner(namespace, "POST", &format!("/v1/services/{id}/keys"), Some(&json!({})));
        Service { id, slug: slug.to_owned(), key: key["key"].as_str().unwrap().to_owned() }
    }

    /// Submits an agent's own claim; its id. The agent's namespace gets its owner where it has none.
    pub fn submit(&self, agent: &Agent, service: &Service) -> String {
        self.owner(&agent.namespace, "GET", "/v1/auth/me", None);
        let body = json!({
            "namespace": agent.namespace, "public_key": agent.public_key, "service": service.slug,
            "agent_ip": "127.0.0.1", "nonce": random_hex(16),
        });
        let answer = self.signed(agent, Some(&service.key), "POST", "/v1/claims", body.to_string().as_bytes());
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["claim_id"].as_str().unwrap().to_owned()
    }

    /// `approve`, `reject` or `revoke` a claim of a namespace, as its owner.
    pub fn decide(&self, namespace: &str, claim: &str, what: &str) {
        self.owner(namespace, "POST", &format!("/v1/claims/{claim}/{what}"), Some(&json!({})));
    }

    /// Submits and approves; the claim's id.
    pub fn approve(&self, agent: &Agent, service: &Service) -> String {
        let claim = self.submit(agent, service);
        self.decide(&agent.namespace, &claim, "approve");
        claim
    }

    /// The claims of a namespace as its owner sees them.
    pub fn claims(&self, namespace: &str) -> Vec<Value> {
        let claims = self.owner(namespace, "GET", &format!("/v1/namespaces/{namespace}/claims?limit=200"), None);
        claims["claims"].as_array().unwrap().clone()
    }

    /// How many usage events a namespace has.
    pub fn usage(&self, namespace: &str) -> u64 {
        let usage = self.owner(namespace, "GET", &format!("/v1/namespaces/{namespace}/usage"), None);
        usage["summary"]["total_events"].as_u64().unwrap()
    }
}
