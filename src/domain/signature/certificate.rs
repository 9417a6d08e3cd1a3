//! The agent certificate: a self-signed statement that a key speaks for a namespace.
//!
//! It binds nothing by itself, anybody can make one for any namespace; what counts is that the owner
//! of the namespace approved the key. What it says must still be consistent, and is checked here.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::decision::SignatureFault;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::signature::strict_json;
use crate::domain::signature::verify::VerifyingKey;
use crate::domain::time::UnixSeconds;

/// Longest `sigilum-agent-cert` that is decoded, in bytes. Honest ones have about 600.
pub const MAX_CERTIFICATE_HEADER_BYTES: usize = 16 * 1024;

/// First line of what is signed.
const PAYLOAD_TITLE: &str = "sigilum-certificate-v1";

/// The URL-safe alphabet (RFC 4648 section 5); some encoders pad, some do not.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The certificate as JSON, members in the order the Go SDK writes them. Unknown members are tolerated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateBody {
    /// 1.
    pub version: u64,
    /// Namespace the key speaks for.
    pub namespace: String,
    /// `did:sigilum:<namespace>`.
    pub did: String,
    /// `<did>#ed25519-<fingerprint>`.
    pub key_id: String,
    /// `ed25519:` + padded base64 of 32 bytes.
    pub public_key: String,
    /// RFC 3339; signed as text, never re-formatted.
    pub issued_at: String,
    /// RFC 3339, or `null`: open end.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// The signature over [`CertificateBody::payload`].
    pub proof: ProofBody,
}

/// The signature of a certificate, made with the key it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofBody {
    /// `ed25519`.
    pub alg: String,
    /// Unpadded URL-safe base64 of 64 bytes.
    pub sig: String,
}

impl CertificateBody {
    /// What is signed: seven lines joined with LF, none at the end, values verbatim.
    pub fn payload(&self) -> String {
        format!(
            "{PAYLOAD_TITLE}\nnamespace:{}\ndid:{}\nkey-id:{}\npublic-key:{}\nissued-at:{}\nexpires-at:{}",
            self.namespace,
            self.did,
            self.key_id,
            self.public_key,
            self.issued_at,
            self.expires_at.as_deref().unwrap_or_default(),
        )
    }

    /// Reads the value of `sigilum-agent-cert`; `CertHeaderInvalid` where it is not base64 of the JSON object.
    fn read(header: &str) -> Result<Self, SignatureFault> {
        if header.len() > MAX_CERTIFICATE_HEADER_BYTES {
            return Err(SignatureFault::CertHeaderInvalid);
        }
        let json = URL_SAFE.decode(header).map_err(|_| SignatureFault::CertHeaderInvalid)?;
        strict_json::check_unique_members(&json).map_err(|_| SignatureFault::CertHeaderInvalid)?;
        serde_json::from_slice(&json).map_err(|_| SignatureFault::CertHeaderInvalid)
    }

    /// The value of `sigilum-agent-cert`: compact JSON as unpadded URL-safe base64.
    pub fn header(&self) -> String {
        // Strings and numbers only: writing them as JSON cannot fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }
}

/// A certificate that is well-formed and consistent; its signature has not been looked at.
#[derive(Debug)]
pub struct Certificate {
    namespace: Namespace,
    key: PublicKey,
    key_id: String,
    expires_at: Option<UnixSeconds>,
    payload: String,
    signature: [u8; 64],
}

impl Certificate {
    /// Reads the header value. `CertHeaderInvalid` where it is not base64 of the JSON object,
    /// `CertInvalid` where the object contradicts itself.
    pub fn decode(header: &str) -> Result<Self, SignatureFault> {
        Self::from_body(&CertificateBody::read(header)?)
    }

    /// The same where the name of the algorithm, which no signature covers, may be written in capitals: so control planes
    /// read it, and gates do not.
    pub fn decode_any_case(header: &str) -> Result<Self, SignatureFault> {
        let mut body = CertificateBody::read(header)?;
        body.proof.alg.make_ascii_lowercase();
        Self::from_body(&body)
    }

    /// Checks the members against each other; `CertInvalid` where one is wrong.
    pub fn from_body(body: &CertificateBody) -> Result<Self, SignatureFault> {
        Self::consistent(body).ok_or(SignatureFault::CertInvalid)
    }

    fn consistent(body: &CertificateBody) -> Option<Self> {
        let namespace = Namespace::parse(&body.namespace).ok()?;
        let key = PublicKey::parse(&body.public_key).ok()?;
        let key_id = key.key_id(&namespace);
        let named = body.did == namespace.did() && body.key_id == key_id;
        // An empty text and `null` sign the same line.
        let expires_at = match body.expires_at.as_deref() {
            None | Some("") => None,
            Some(text) => Some(UnixSeconds::parse_rfc3339(text)?),
        };
        // A line feed in the one free value could pose as another line of the payload.
        let issued = !body.issued_at.is_empty() && !body.issued_at.chars().any(char::is_control);
        if body.version != 1 || body.proof.alg != "ed25519" || !named || !issued {
            return None;
        }
        let mut signature = [0_u8; 66];
        if URL_SAFE.decode_slice(&body.proof.sig, &mut signature).ok()? != 64 {
            return None;
        }
        let signature = *signature.first_chunk::<64>()?;
        Some(Self { namespace, key, key_id, expires_at, payload: body.payload(), signature })
    }

    /// The key it names, before anything is proven: to look up whether it is worth verifying.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Verifies that the named key signed it; one Ed25519 verification. `CertInvalid` otherwise.
    /// Its time is another question: [`VerifiedCertificate::check_time`].
    pub fn verify(self) -> Result<VerifiedCertificate, SignatureFault> {
        let verifier = VerifyingKey::new(&self.key).map_err(|_| SignatureFault::CertInvalid)?;
        let genuine = verifier.verify(self.payload.as_bytes(), &self.signature);
        genuine.map_err(|_| SignatureFault::CertInvalid)?;
        Ok(VerifiedCertificate(Arc::new(Verified {
            namespace: self.namespace,
            key: self.key,
            key_id: self.key_id,
            expires_at: self.expires_at,
            verifier,
        })))
    }
}

/// A certificate whose signature verified. Cheap to clone; made by [`Certificate::verify`] only.
#[derive(Debug, Clone)]
pub struct VerifiedCertificate(Arc<Verified>);

#[derive(Debug)]
struct Verified {
    namespace: Namespace,
    key: PublicKey,
    key_id: String,
    expires_at: Option<UnixSeconds>,
    verifier: VerifyingKey,
}

impl VerifiedCertificate {
    /// The namespace it names.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// The key it names, which signed it.
    pub fn key(&self) -> &PublicKey {
        &self.0.key
    }

    /// `did:sigilum:<namespace>#ed25519-<fingerprint>`.
    pub fn key_id(&self) -> &str {
        &self.0.key_id
    }

    /// Last second it is valid in; `None` = open end.
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.0.expires_at
    }

    /// `CertExpired` after its last second.
    pub fn check_time(&self, now: UnixSeconds) -> Result<(), SignatureFault> {
        match self.0.expires_at {
            Some(end) if now > end => Err(SignatureFault::CertExpired),
            Some(_) | None => Ok(()),
        }
    }

    /// Verifies a request's signature with the certificate's key, which is held ready for it:
    /// cheaper than [`crate::domain::signature::verify`]. `VerificationFailed` otherwise.
    pub fn verify_signature(&self, base: &[u8], signature: &[u8; 64]) -> Result<(), SignatureFault> {
        self.0.verifier.verify(base, signature)
    }
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
