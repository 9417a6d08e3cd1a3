//! What the gate's tests are made of: agents that sign by the letter of the profile, requests that can
//! be bent afterwards, and a state to judge them by. Signs with `ed25519-dalek` alone: nothing of the
//! code under test takes part.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;
use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::approval::Approvals;
use crate::domain::approval::Grant;
use crate::domain::approval::Source;
use crate::domain::connection::AuthMode;
use crate::domain::connection::Connection;
use crate::domain::connection::ConnectionSettings;
use crate::domain::connection::DEFAULT_MAX_STREAM;
use crate::domain::connection::DEFAULT_RESPONSE_TIMEOUT;
use crate::domain::connection::Protocol;
use crate::domain::connection::Upstream;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::PublicKey;
use crate::domain::request::BodyView;
use crate::domain::request::RequestView;
use crate::domain::secret::Secret;
use crate::domain::snapshot::Settings;
use crate::domain::snapshot::Snapshot;
use crate::domain::snapshot::StateVersion;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::UnixMillis;

/// When the tests take place, in Unix seconds.
pub(super) const NOW: u64 = 1_700_000_000;

/// That moment, `millis` later.
pub(super) fn later(millis: u64) -> Now {
    Now { wall: UnixMillis(NOW * 1000 + millis), monotonic: MonotonicMillis(millis) }
}

/// A request as a front would show it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) target: Vec<u8>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// `None`: announced and not shown.
    pub(super) body: Option<Vec<u8>>,
    pub(super) address: Option<IpAddr>,
    pub(super) assigned: Option<String>,
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        self.scheme.as_bytes()
    }
    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }
    fn target(&self) -> &[u8] {
        &self.target
    }
    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }
    fn body(&self) -> BodyView<'_> {
        self.body.as_deref().map_or(BodyView::Hidden, BodyView::Whole)
    }
    fn client_address(&self) -> Option<IpAddr> {
        self.address
    }
    fn assigned_connection(&self) -> Option<&str> {
        self.assigned.as_deref()
    }
}

impl Request {
    pub(super) fn header(&mut self, name: &str) -> &mut Vec<u8> {
        self.headers.iter_mut().find(|(held, _)| held == name).map(|(_, value)| value).unwrap()
    }

    pub(super) fn add(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    pub(super) fn from(mut self, address: &str) -> Self {
        self.address = Some(address.parse().unwrap());
        self
    }

    /// As the head stage sees it.
    pub(super) fn without_body(mut self) -> Self {
        self.body = None;
        self
    }

    /// Makes the signature another one.
    pub(super) fn forged(mut self) -> Self {
        let value = self.header("signature");
        let at = value.len() / 2;
        let byte = value.get_mut(at).unwrap();
        *byte = if *byte == b'A' { b'B' } else { b'A' };
        self
    }
}

/// What is about to be signed.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) method: String,
    pub(super) scheme: String,
    pub(super) authority: String,
    /// The origin as signed, where it is not scheme and authority as sent.
    pub(super) signed_origin: Option<String>,
    pub(super) target: String,
    pub(super) body: Vec<u8>,
    pub(super) created: u64,
    pub(super) nonce: String,
    pub(super) agent_id: Option<String>,
    /// The namespace header, where it is not the certificate's.
    pub(super) namespace: Option<String>,
}

impl Draft {
    pub(super) fn get(target: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            scheme: "http".to_owned(),
            authority: "127.0.0.1:38000".to_owned(),
            signed_origin: None,
            target: target.to_owned(),
            body: Vec::new(),
            created: NOW,
            nonce: "123e4567".to_owned(),
            agent_id: None,
            namespace: None,
        }
    }

    pub(super) fn post(target: &str, body: &str) -> Self {
        Self { method: "POST".to_owned(), body: body.as_bytes().to_vec(), ..Self::get(target) }
    }
}

/// Somebody with a key.
pub(super) struct Agent {
    key: SigningKey,
    pub(super) namespace: String,
    pub(super) expires_at: Option<String>,
}

impl Agent {
    pub(super) fn new(number: u32) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        Self { key: SigningKey::from_bytes(&seed), namespace: "alice".to_owned(), expires_at: None }
    }

    pub(super) fn public_key(&self) -> PublicKey {
        PublicKey::new(self.key.verifying_key().to_bytes())
    }

    fn key_text(&self) -> String {
        format!("ed25519:{}", STANDARD.encode(self.key.verifying_key().to_bytes()))
    }

    fn key_id(&self) -> String {
        let digest = Sha256::digest(self.key.verifying_key().to_bytes());
        let print: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("did:sigilum:{}#ed25519-{print}", self.namespace)
    }

    /// The certificate header. Unknown members are tolerated, so `extra` makes another header of the
    /// same certificate.
    pub(super) fn certificate(&self, extra: &str) -> String {
        let (namespace, key, key_id) = (&self.namespace, self.key_text(), self.key_id());
        let expires = self.expires_at.clone().unwrap_or_default();
        let payload = format!(
            "sigilum-certificate-v1\nnamespace:{namespace}\ndid:did:sigilum:{namespace}\nkey-id:{key_id}\n\
             public-key:{key}\nissued-at:2026-01-01T00:00:00Z\nexpires-at:{expires}"
        );
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(payload.as_bytes()).to_bytes());
        let expires = self.expires_at.as_ref().map_or("null".to_owned(), |at| format!("\"{at}\""));
        URL_SAFE_NO_PAD.encode(format!(
            "{{\"version\":1,\"namespace\":\"{namespace}\",\"did\":\"did:sigilum:{namespace}\",\"keyId\":\"{key_id}\",\
             \"publicKey\":\"{key}\",\"issuedAt\":\"2026-01-01T00:00:00Z\",\"expiresAt\":{expires},{extra}\
             \"proof\":{{\"alg\":\"ed25519\",\"sig\":\"{signature}\"}}}}"
        ))
    }

    pub(super) fn sign(&self, draft: &Draft) -> Request {
        self.sign_with(draft, &self.certificate(""))
    }

    pub(super) fn sign_with(&self, draft: &Draft, certificate: &str) -> Request {
        let namespace = draft.namespace.clone().unwrap_or_else(|| self.namespace.clone());
        let origin = draft.signed_origin.clone().unwrap_or_else(|| format!("{}://{}", draft.scheme, draft.authority));
        let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(&draft.body)));
        let mut fields =
            vec![("@method", draft.method.to_lowercase()), ("@target-uri", format!("{origin}{}", draft.target))];
        if !draft.body.is_empty() {
            fields.push(("content-digest", digest));
        }
        fields.push(("sigilum-namespace", namespace));
        fields.push(("sigilum-subject", "customer-1".to_owned()));
        if let Some(id) = &draft.agent_id {
            fields.push(("sigilum-agent-id", id.clone()));
        }
        fields.push(("sigilum-agent-key", self.key_text()));
        fields.push(("sigilum-agent-cert", certificate.to_owned()));
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
            (":method".to_owned(), draft.method.clone().into_bytes()),
            ("user-agent".to_owned(), b"test".to_vec()),
            ("signature-input".to_owned(), format!("sig1={params}").into_bytes()),
            ("signature".to_owned(), format!("sig1=:{signature}:").into_bytes()),
        ];
        let shown = fields.into_iter().filter(|(name, _)| !name.starts_with('@'));
        headers.extend(shown.map(|(name, value)| (name.to_owned(), value.into_bytes())));
        Request {
            method: draft.method.clone(),
            scheme: draft.scheme.clone(),
            authority: draft.authority.clone(),
            target: draft.target.clone().into_bytes(),
            headers,
            body: Some(draft.body.clone()),
            address: Some("192.0.2.1".parse().unwrap()),
            assigned: None,
        }
    }
}

/// A plain connection with a header credential.
pub(super) fn settings(id: &str) -> ConnectionSettings {
    ConnectionSettings {
        id: ConnectionId::parse(id).unwrap(),
        name: id.to_owned(),
        protocol: Protocol::Http,
        upstream: Upstream::parse("https://api.example.com/base").unwrap(),
        path_prefix: "/v1".to_owned(),
        auth_mode: AuthMode::Bearer,
        auth_target: "Authorization".to_owned(),
        auth_prefix: "Bearer ".to_owned(),
        active: true,
        allow_private: false,
        allowed_methods: Vec::new(),
        allowed_paths: Vec::new(),
        upgrades: Vec::new(),
        response_timeout: DEFAULT_RESPONSE_TIMEOUT,
        max_stream: DEFAULT_MAX_STREAM,
        extra_headers: BTreeMap::new(),
        allow_set_cookie: false,
        forward_trace: false,
        next_rotation_due_at: None,
        secret_version: 1,
    }
}

/// A state without connections and approvals.
pub(super) fn empty() -> Snapshot {
    Snapshot {
        version: StateVersion { epoch: "test".to_owned(), version: 1, ..StateVersion::default() },
        settings: Arc::new(Settings::default()),
        connections: Arc::default(),
        approvals: Approvals::default(),
        given: Arc::default(),
    }
}

/// Adds a connection whose secret is `s3cret`.
pub(super) fn connect(snapshot: &mut Snapshot, settings: ConnectionSettings) {
    let connection = Connection::new(settings, Ok(&Secret::new("s3cret".to_owned())));
    Arc::make_mut(&mut snapshot.connections).insert(connection.settings.id.clone(), connection);
}

/// Approves an agent for a service.
pub(super) fn approve(snapshot: &mut Snapshot, agent: &Agent, service: &str, source: Source) {
    let grant = Grant { service, namespace: agent.namespace.as_str(), source, expires_at: None };
    snapshot.approvals.add(agent.public_key(), grant);
}
