//! Ed25519 (RFC 8032), strict: small-order keys and R, and S outside of [0, L), are refused.

use std::fmt;

use ed25519_dalek::Signature;

use crate::domain::decision::SignatureFault;
use crate::domain::ids::PublicKey;

/// A public key that is a point of the curve, kept decompressed: worth holding for keys that come again.
#[derive(Clone)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Decompresses the key. `KeyHeaderInvalid` where the bytes are no point, or one of small order,
    /// for which anybody can make signatures.
    pub fn new(key: &PublicKey) -> Result<Self, SignatureFault> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes());
        let key = key.map_err(|_| SignatureFault::KeyHeaderInvalid)?;
        if key.is_weak() { Err(SignatureFault::KeyHeaderInvalid) } else { Ok(Self(key)) }
    }

    /// `VerificationFailed` unless `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureFault> {
        let signature = Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).map_err(|_| SignatureFault::VerificationFailed)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        PublicKey::new(self.0.to_bytes()).fmt(formatter)
    }
}

/// Verifies once, for a key that is not held as a [`VerifyingKey`].
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureFault> {
    VerifyingKey::new(key)?.verify(message, signature)
}
