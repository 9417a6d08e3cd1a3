//! JSON of the key that others seal secrets to.

use serde::Serialize;

use crate::domain::sealing;
use crate::domain::sealing::SealingPublicKey;

/// `GET /sealing-key`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SealingKey)]
pub struct SealingKeyBody {
    /// Key encapsulation, as RFC 9180 calls it.
    #[schema(example = "DHKEM(X25519, HKDF-SHA256)")]
    kem: &'static str,
    /// Key derivation.
    #[schema(example = "HKDF-SHA256")]
    kdf: &'static str,
    /// Encryption.
    #[schema(example = "AES-256-GCM")]
    aead: &'static str,
    /// 32 bytes as base64url without padding.
    public_key: String,
    /// The first 16 bytes of its SHA-256: eight groups of four hex digits.
    #[schema(example = "9fd2-1fdc-e897-1c86-0bad-d32e-f0dd-e737")]
    fingerprint: String,
}

impl SealingKeyBody {
    /// Writes a key down.
    pub fn encode(key: &SealingPublicKey) -> Self {
        Self {
            kem: sealing::KEM,
            kdf: sealing::KDF,
            aead: sealing::AEAD,
            public_key: key.text(),
            fingerprint: key.fingerprint(),
        }
    }
}

/// `POST /sealing-key/rotate`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SealingKeyReplaced)]
pub struct SealingKeyReplacedBody {
    /// The key from now on.
    pub key: SealingKeyBody,
    /// Fingerprint of the key before; absent where there was none that opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}
