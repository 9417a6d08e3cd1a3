//! Signs outgoing requests with an identity.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;

use crate::domain::signature::ComponentSet;
use crate::domain::signature::SignatureParams;
use crate::domain::signature::SignedHeaders;
use crate::domain::signature::TargetUri;
use crate::domain::signature::content_digest;
use crate::domain::signature::write_base;
use crate::domain::signature::write_params;
use crate::domain::time::UnixSeconds;
use crate::identity::key::Identity;

/// A request about to be sent. Time and nonce are arguments, so that a signature can be repeated.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// As sent, e.g. `POST`.
    pub method: &'a str,
    /// The absolute URI exactly as it goes on the wire (scheme, authority, request target); a fragment is
    /// not sent and not signed.
    pub url: &'a str,
    /// The whole body; empty = none.
    pub body: &'a [u8],
    /// The principal acted for; `None` or blank = the namespace.
    pub subject: Option<&'a str>,
    /// `sigilum-agent-id`; `None` or blank = not sent.
    pub agent_id: Option<&'a str>,
    /// When.
    pub created: UnixSeconds,
    /// Used once; a UUID by convention.
    pub nonce: &'a str,
}

/// Why a request cannot be signed so that anybody could verify it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The method is empty or holds something that is no token (RFC 9110 section 5.6.2).
    #[error("the method is no HTTP method")]
    Method,
    /// The URL is not absolute, or holds blanks, control characters or non-ASCII: percent-encode them.
    #[error("the URL must be absolute and percent-encoded")]
    Url,
    /// The subject or agent id holds control characters.
    #[error("subject and agent id must be free of control characters")]
    Identity,
    /// The nonce is blank, or holds quotes or control characters.
    #[error("the nonce must be neither blank nor hold quotes")]
    Nonce,
}

/// A key with everything that is the same for all its requests.
pub struct Signer<'a> {
    key: &'a SigningKey,
    key_id: &'a str,
    namespace: &'a str,
    public_key: &'a str,
    certificate: String,
}

impl<'a> Signer<'a> {
    pub(in crate::identity) fn new(identity: &'a Identity) -> Self {
        Self {
            key: &identity.signing,
            key_id: &identity.certificate.key_id,
            namespace: identity.namespace.as_str(),
            public_key: &identity.certificate.public_key,
            certificate: identity.certificate.header(),
        }
    }

    /// The headers to add, names in lower case: set A or B, with an agent id C or D.
    pub fn sign(&self, request: &Outgoing<'_>) -> Result<Vec<(&'static str, String)>, SignError> {
        let uri = sendable(request)?;
        let subject = trimmed(request.subject).unwrap_or(self.namespace);
        let agent_id = trimmed(request.agent_id);
        let digest = (!request.body.is_empty()).then(|| content_digest(request.body));
        let digest = digest.as_ref().and_then(|digest| std::str::from_utf8(digest).ok());
        let headers = SignedHeaders {
            namespace: Some(self.namespace),
            subject: Some(subject),
            agent_id,
            agent_key: Some(self.public_key),
            agent_cert: Some(&self.certificate),
            content_digest: digest,
            ..SignedHeaders::default()
        };
        let params = SignatureParams {
            components: ComponentSet::of(digest.is_some(), agent_id.is_some()),
            created: request.created,
            key_id: self.key_id,
            nonce: request.nonce,
            signature: [0; 64],
        };
        let mut base = Vec::with_capacity(2048);
        let uri = TargetUri::whole(uri.as_bytes());
        write_base(&mut base, request.method.as_bytes(), &uri, &headers, &params).map_err(|_| SignError::Url)?;
        let signature = self.key.sign(&base).to_bytes();
        let mut input = b"sig1=".to_vec();
        write_params(&mut input, &params);
        let mut signed = vec![
            ("signature-input", String::from_utf8_lossy(&input).into_owned()),
            ("signature", format!("sig1=:{}:", STANDARD.encode(signature))),
            ("sigilum-namespace", self.namespace.to_owned()),
            ("sigilum-subject", subject.to_owned()),
        ];
        signed.extend(agent_id.map(|id| ("sigilum-agent-id", id.to_owned())));
        signed.push(("sigilum-agent-key", self.public_key.to_owned()));
        signed.push(("sigilum-agent-cert", self.certificate.clone()));
        signed.extend(digest.map(|digest| ("content-digest", digest.to_owned())));
        Ok(signed)
    }
}

fn trimmed(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// Refuses what no verifier would accept; returns the URI without its fragment.
fn sendable<'a>(request: &Outgoing<'a>) -> Result<&'a str, SignError> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if request.method.is_empty() || !request.method.bytes().all(token) {
        return Err(SignError::Method);
    }
    let uri = request.url.split('#').next().unwrap_or_default();
    let authority = uri.split_once("://").map(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    if authority != Some(true) || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SignError::Url);
    }
    if request.subject.into_iter().chain(request.agent_id).any(|text| text.chars().any(char::is_control)) {
        return Err(SignError::Identity);
    }
    let nonce = request.nonce;
    if nonce.trim().is_empty() || nonce.contains('"') || nonce.chars().any(char::is_control) {
        return Err(SignError::Nonce);
    }
    Ok(uri)
}

#[cfg(test)]
#[path = "signer_tests.rs"]
mod tests;
