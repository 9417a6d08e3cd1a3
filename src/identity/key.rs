//! An identity in memory: a namespace, its key pair, its certificate.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::signature::CertificateBody;
use crate::domain::signature::ProofBody;
use crate::domain::time::UnixSeconds;
use crate::identity::signer::Signer;
use crate::sys::random;
use crate::sys::random::RandomError;

/// A validated identity. The seed is wiped on drop; `Debug` shows the key id only.
pub struct Identity {
    pub(in crate::identity) namespace: Namespace,
    pub(in crate::identity) signing: SigningKey,
    pub(in crate::identity) certificate: CertificateBody,
    pub(in crate::identity) created_at: String,
    pub(in crate::identity) updated_at: String,
}

impl Identity {
    /// A new key with a certificate issued `now`, in memory only; [`crate::identity::Home::create`] keeps one.
    pub fn generate(namespace: Namespace, now: UnixSeconds) -> Result<Self, RandomError> {
        let seed = Zeroizing::new(random::bytes::<32>()?);
        Ok(Self::from_seed(namespace, &seed, now))
    }

    /// The identity of a known seed (RFC 8032 section 5.1.5), with a certificate issued `now`.
    pub fn from_seed(namespace: Namespace, seed: &[u8; 32], now: UnixSeconds) -> Self {
        let signing = SigningKey::from_bytes(seed);
        let key = PublicKey::new(signing.verifying_key().to_bytes());
        let issued_at = now.rfc3339();
        let mut certificate = CertificateBody {
            version: 1,
            did: namespace.did(),
            key_id: key.key_id(&namespace),
            public_key: key.text(),
            namespace: namespace.as_str().to_owned(),
            issued_at: issued_at.clone(),
            expires_at: None,
            proof: ProofBody { alg: "ed25519".to_owned(), sig: String::new() },
        };
        let proof = signing.sign(certificate.payload().as_bytes());
        certificate.proof.sig = URL_SAFE_NO_PAD.encode(proof.to_bytes());
        Self { namespace, signing, certificate, created_at: issued_at.clone(), updated_at: issued_at }
    }

    /// Whose it is.
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// `did:sigilum:<namespace>`.
    pub fn did(&self) -> &str {
        &self.certificate.did
    }

    /// `<did>#ed25519-<fingerprint>`.
    pub fn key_id(&self) -> &str {
        &self.certificate.key_id
    }

    /// The public key, what an owner approves.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::new(self.signing.verifying_key().to_bytes())
    }

    /// The certificate as it stands in the record.
    pub const fn certificate(&self) -> &CertificateBody {
        &self.certificate
    }

    /// RFC 3339, as it stands in the record; empty where the record has none.
    pub fn created_at(&self) -> &str {
        &self.created_at
    }

    /// Ready to sign any number of requests.
    pub fn signer(&self) -> Signer<'_> {
        Signer::new(self)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Identity").field(&self.certificate.key_id).finish()
    }
}
