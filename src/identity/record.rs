//! `identity.json`: reading it with every check, writing it as the Go SDK does.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::domain::signature::Certificate;
use crate::domain::signature::CertificateBody;
use crate::domain::signature::check_unique_members;
use crate::domain::time::UnixSeconds;
use crate::identity::error::IdentityError;
use crate::identity::key::Identity;

/// PKCS#8 (RFC 5958) of an Ed25519 seed (RFC 8410 section 7) up to the seed: what Java may have written.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Room for a record while it is written: a buffer that grows leaves copies of the seed behind.
const RECORD_BYTES: usize = 8192;

/// The record as read. Unknown members are tolerated.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordBody {
    version: u64,
    namespace: String,
    did: String,
    key_id: String,
    public_key: String,
    #[serde(deserialize_with = "secret")]
    private_key: Secret,
    certificate: CertificateBody,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    updated_at: String,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// The record as written; the members' order is the Go SDK's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewRecordBody<'a> {
    version: u64,
    namespace: &'a str,
    did: &'a str,
    key_id: &'a str,
    public_key: &'a str,
    private_key: &'a str,
    certificate: &'a CertificateBody,
    created_at: &'a str,
    updated_at: &'a str,
}

impl Identity {
    /// Reads and validates the text of a record. `path` is for the errors only; `namespace` is the one
    /// asked for; a certificate that has expired by `now` is refused.
    pub fn parse(json: &str, path: &Path, namespace: &Namespace, now: UnixSeconds) -> Result<Self, IdentityError> {
        let body = read(json).map_err(|error| malformed(path, &error))?;
        validate(body, namespace, now).map_err(|problem| IdentityError::Invalid { path: path.to_owned(), problem })
    }
}

fn read(json: &str) -> Result<RecordBody, serde_json::Error> {
    check_unique_members(json.as_bytes())?;
    serde_json::from_str(json)
}

/// Place and kind only: the text of a JSON error may quote the value, and the value may be the seed.
fn malformed(path: &Path, error: &serde_json::Error) -> IdentityError {
    let problem = match error.classify() {
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "JSON syntax",
        serde_json::error::Category::Data => "a member is missing, repeated or of the wrong type",
        serde_json::error::Category::Eof => "the file ends too early",
    };
    IdentityError::Malformed { path: path.to_owned(), problem, line: error.line(), column: error.column() }
}

fn validate(body: RecordBody, namespace: &Namespace, now: UnixSeconds) -> Result<Identity, &'static str> {
    if body.version != 1 {
        return Err("version is not 1");
    }
    if body.namespace != namespace.as_str() {
        return Err("namespace is not the one of the folder");
    }
    if body.did != namespace.did() {
        return Err("did is not did:sigilum:<namespace>");
    }
    let signing = signing_key(&body.private_key).ok_or("privateKey is not base64 of a 32-byte Ed25519 seed")?;
    let certificate = Certificate::from_body(&body.certificate).map_err(|_| "certificate contradicts itself")?;
    let key = *certificate.key();
    if key.as_bytes() != signing.verifying_key().as_bytes() || body.public_key != key.text() {
        return Err("publicKey, privateKey and certificate are not of one key");
    }
    if body.key_id != key.key_id(namespace) {
        return Err("keyId is not <did>#ed25519-<fingerprint of the key>");
    }
    if body.certificate.namespace != body.namespace {
        return Err("certificate names another namespace");
    }
    let certificate = certificate.verify().map_err(|_| "the certificate's signature does not verify")?;
    certificate.check_time(now).map_err(|_| "the certificate has expired")?;
    Ok(Identity {
        namespace: namespace.clone(),
        signing,
        certificate: body.certificate,
        created_at: body.created_at,
        updated_at: body.updated_at,
    })
}

/// A seed, or PKCS#8 around one.
fn signing_key(text: &Secret) -> Option<SigningKey> {
    let bytes = Zeroizing::new(STANDARD.decode(text.expose()).ok()?);
    let seed = bytes.strip_prefix(&PKCS8_PREFIX).unwrap_or(&bytes);
    seed.try_into().ok().map(SigningKey::from_bytes)
}

/// The file's content: two spaces of indentation, one line feed at the end.
pub(in crate::identity) fn encode(identity: &Identity) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let private_key = Zeroizing::new(STANDARD.encode(Zeroizing::new(identity.signing.to_bytes())));
    let certificate = &identity.certificate;
    let body = NewRecordBody {
        version: 1,
        namespace: &certificate.namespace,
        did: &certificate.did,
        key_id: &certificate.key_id,
        public_key: &certificate.public_key,
        private_key: &private_key,
        certificate,
        created_at: &identity.created_at,
        updated_at: &identity.updated_at,
    };
    let mut out = Zeroizing::new(Vec::with_capacity(RECORD_BYTES));
    serde_json::to_writer_pretty(&mut *out, &body)?;
    out.push(b'\n');
    Ok(out)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
