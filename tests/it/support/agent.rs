//! An agent: makes its own key and certificate and signs requests. Written from the profile, apart
//! from the product's signer, so that a mistake in one does not hide in the other. Every part can be
//! chosen before signing, and changed after it.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;
use sha2::Digest as _;
use sha2::Sha256;

use super::client::Body;
use super::client::Request;

/// Seconds since 1970, now.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `length` random bytes in lower-case hex.
pub fn random_hex(length: usize) -> String {
    let mut bytes = vec![0_u8; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `sha-256=:…:` of a body, as `content-digest` carries it.
pub fn digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// A key with its self-signed certificate.
#[derive(Clone)]
pub struct Agent {
    pub namespace: String,
    pub key: SigningKey,
    /// `ed25519:` + base64.
    pub public_key: String,
    pub key_id: String,
    /// Value of `sigilum-agent-cert`.
    pub certificate: String,
}

/// The members of a certificate, to be changed by tests that want a bad one.
#[derive(Clone)]
pub struct CertificateParts {
    pub version: u64,
    pub namespace: String,
    pub did: String,
    pub key_id: String,
    pub public_key: String,
    pub issued_at: String,
    pub expires_at: Option<String>,
    pub alg: String,
}

impl CertificateParts {
    /// Signs the seven canonical lines with `key` and returns the header value.
    pub fn header(&self, key: &SigningKey) -> String {
        let lines = [
            "sigilum-certificate-v1".to_owned(),
            format!("namespace:{}", self.namespace),
            format!("did:{}", self.did),
            format!("key-id:{}", self.key_id),
            format!("public-key:{}", self.public_key),
            format!("issued-at:{}", self.issued_at),
            format!("expires-at:{}", self.expires_at.as_deref().unwrap_or_default()),
        ];
        let signature = key.sign(lines.join("\n").as_bytes());
        let json = serde_json::json!({
            "version": self.version,
            "namespace": self.namespace,
            "did": self.did,
            "keyId": self.key_id,
            "publicKey": self.public_key,
            "issuedAt": self.issued_at,
            "expiresAt": self.expires_at,
            "proof": { "alg": self.alg, "sig": URL_SAFE_NO_PAD.encode(signature.to_bytes()) },
        });
        URL_SAFE_NO_PAD.encode(json.to_string())
    }
}

impl Agent {
    /// A new key in `namespace`.
    pub fn new(namespace: &str) -> Self {
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).unwrap();
        Self::from_seed(namespace, &seed)
    }

    /// The agent of a known seed.
    pub fn from_seed(namespace: &str, seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let mut agent = Self {
            namespace: namespace.to_owned(),
            public_key: format!("ed25519:{}", STANDARD.encode(key.verifying_key().as_bytes())),
            key_id: String::new(),
            certificate: String::new(),
            key,
        };
        let fingerprint: String = Sha256::digest(agent.key.verifying_key().as_bytes())
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        agent.key_id = format!("did:sigilum:{namespace}#ed25519-{fingerprint}");
        agent.certificate = agent.certificate_parts().header(&agent.key);
        agent
    }

    /// What this agent's certificate says.
    pub fn certificate_parts(&self) -> CertificateParts {
        CertificateParts {
            version: 1,
            namespace: self.namespace.clone(),
            did: format!("did:sigilum:{}", self.namespace),
            key_id: self.key_id.clone(),
            public_key: self.public_key.clone(),
            issued_at: "2026-02-20T18:04:26Z".to_owned(),
            expires_at: None,
            alg: "ed25519".to_owned(),
        }
    }

    /// A request to be signed: `authority` is host and port as the client writes them.
    pub fn prepare(&self, method: &str, authority: &str, target: &str) -> Draft {
        Draft {
            agent: self.clone(),
            method: method.to_owned(),
            authority: authority.to_owned(),
            target: target.to_owned(),
            signed_uri: None,
            body: Vec::new(),
            subject: self.namespace.clone(),
            agent_id: None,
            created: now(),
            nonce: random_hex(16),
            components: None,
        }
    }

    /// A signed request without a body.
    pub fn get(&self, authority: &str, target: &str) -> Request {
        self.prepare("GET", authority, target).sign()
    }

    /// A signed request with a body.
    pub fn post(&self, authority: &str, target: &str, body: &[u8]) -> Request {
        self.prepare("POST", authority, target).body(body).sign()
    }
}

/// A request before it is signed. Public fields are the knobs.
#[derive(Clone)]
pub struct Draft {
    pub agent: Agent,
    pub method: String,
    pub authority: String,
    pub target: String,
    /// What is signed as `@target-uri`; otherwise `http://authority` + target.
    pub signed_uri: Option<String>,
    pub body: Vec<u8>,
    pub subject: String,
    pub agent_id: Option<String>,
    pub created: u64,
    pub nonce: String,
    /// The covered components, in order; otherwise set A to D, whichever applies.
    pub components: Option<Vec<String>>,
}

impl Draft {
    /// Sets the body.
    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// Applies any other change.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The components covered: one of the four sets of the profile unless the test says otherwise.
    fn components(&self) -> Vec<String> {
        if let Some(components) = &self.components {
            return components.clone();
        }
        let mut names = vec!["@method", "@target-uri"];
        if !self.body.is_empty() {
            names.push("content-digest");
        }
        names.extend(["sigilum-namespace", "sigilum-subject"]);
        if self.agent_id.is_some() {
            names.push("sigilum-agent-id");
        }
        names.extend(["sigilum-agent-key", "sigilum-agent-cert"]);
        names.into_iter().map(str::to_owned).collect()
    }

    /// Signs and builds the request.
    pub fn sign(self) -> Request {
        let mut headers: Vec<(String, String)> = Vec::new();
        if !self.body.is_empty() {
            headers.push(("content-digest".into(), digest(&self.body)));
        }
        headers.push(("sigilum-namespace".into(), self.agent.namespace.clone()));
        headers.push(("sigilum-subject".into(), self.subject.clone()));
        if let Some(id) = &self.agent_id {
            headers.push(("sigilum-agent-id".into(), id.clone()));
        }
        headers.push(("sigilum-agent-key".into(), self.agent.public_key.clone()));
        headers.push(("sigilum-agent-cert".into(), self.agent.certificate.clone()));

        let components = self.components();
        let list = components.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" ");
        let params = format!(
            "({list});created={};keyid=\"{}\";alg=\"ed25519\";nonce=\"{}\"",
            self.created, self.agent.key_id, self.nonce
        );
        let uri = self.signed_uri.clone().unwrap_or_else(|| format!("http://{}{}", self.authority, self.target));
        let mut base = String::new();
        for name in &components {
            let value = match name.as_str() {
                "@method" => self.method.to_lowercase(),
                "@target-uri" => uri.clone(),
                header => headers.iter().find(|(held, _)| held == header).map(|(_, v)| v.clone()).unwrap_or_default(),
            };
            base.push_str(&format!("\"{name}\": {value}\n"));
        }
        base.push_str(&format!("\"@signature-params\": {params}"));
        let signature = self.agent.key.sign(base.as_bytes());
        headers.push(("signature-input".into(), format!("sig1={params}")));
        headers.push(("signature".into(), format!("sig1=:{}:", STANDARD.encode(signature.to_bytes()))));
        headers.insert(0, ("host".into(), self.authority));
        let body = if self.body.is_empty() { Body::None } else { Body::Sized(self.body) };
        Request { method: self.method, target: self.target, headers, body }
    }
}
