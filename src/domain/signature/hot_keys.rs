//! Faster verification for the few keys that most requests come from.
//!
//! The equation is that of `verify_strict`; only how the multiples of the key and of the base point
//! are found differs (see `manual::verification` for the measurements). Results are the same for
//! every input; a table is a cache and never a decision.

use std::fmt;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::Scalar;
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::traits::Identity as _;
use sha2::Digest as _;
use sha2::Sha512;

use crate::domain::decision::SignatureFault;
use crate::domain::ids::PublicKey;
use crate::domain::signature::certificate::VerifiedCertificate;
use crate::domain::signature::comb::Comb;

/// How many keys may have a table: 82 kB each, so at most 5.2 MB.
const SLOTS: usize = 64;

/// Successes of a key, not interrupted by as many of another of the same slot, before its table is made.
/// A table costs what it saves in about six verifications.
const USES_BEFORE_TABLE: u32 = 16;

/// How much a slot's lead may grow: a key that stops coming is displaced after as many others.
const MAX_SCORE: u32 = 64;

/// Multiples of the base point B (RFC 8032 section 5.1), shared by all keys: 655 kB, made at first use.
static BASE: LazyLock<Comb<8>> = LazyLock::new(|| Comb::new(ED25519_BASEPOINT_POINT));

/// Tables for the keys in most use. Bounded: 64 tables, one per slot; a key competes only with those of
/// its own slot, and the one that comes more often keeps it.
pub struct HotKeys {
    slots: Box<[Mutex<Slot>]>,
}

#[derive(Default)]
struct Slot {
    key: Option<PublicKey>,
    score: u32,
    table: Option<Arc<KeyTable>>,
}

impl Default for HotKeys {
    fn default() -> Self {
        Self::new()
    }
}

impl HotKeys {
    /// No tables yet.
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::default()).collect() }
    }

    /// Verifies a request's signature with the certificate's key, strictly: the same verdict as
    /// [`VerifiedCertificate::verify_signature`], sooner where the key is in much use.
    pub fn verify(
        &self,
        certificate: &VerifiedCertificate,
        base: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), SignatureFault> {
        let key = certificate.key();
        match self.held(key) {
            Some(table) => table.verify(base, signature),
            None => certificate.verify_signature(base, signature),
        }?;
        self.count(key);
        Ok(())
    }

    /// Bytes held in tables of keys.
    pub fn memory_bytes(&self) -> usize {
        let held = |slot: &Mutex<Slot>| slot.lock().unwrap_or_else(PoisonError::into_inner).table.is_some();
        self.slots.iter().filter(|slot| held(slot)).count().saturating_mul(Comb::<4>::BYTES)
    }

    /// The key's table, if it has one.
    fn held(&self, key: &PublicKey) -> Option<Arc<KeyTable>> {
        let slot = self.slot(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        slot.table.clone().filter(|_| slot.key == Some(*key))
    }

    /// Counts a success of the key, and makes its table when it is due. Successes only: public keys
    /// are public, and a forger must not choose whose tables are made or displaced.
    fn count(&self, key: &PublicKey) {
        let Some(slot) = self.slot(key) else { return };
        {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if slot.key != Some(*key) {
                slot.score = slot.score.saturating_sub(1);
                if slot.score == 0 {
                    *slot = Slot { key: Some(*key), score: 1, table: None };
                }
                return;
            }
            slot.score = slot.score.saturating_add(1).min(MAX_SCORE);
            if slot.table.is_some() || slot.score != USES_BEFORE_TABLE {
                return;
            }
        }
        // Made without the lock. The score passes the threshold once, so one caller makes it; the
        // others verify without a table meanwhile.
        let Some(table) = KeyTable::new(key).map(Arc::new) else { return };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.key == Some(*key) {
            slot.table = Some(table);
        }
    }

    fn slot(&self, key: &PublicKey) -> Option<&Mutex<Slot>> {
        // Keys are points of a curve: their first byte is evenly spread.
        let [first, ..] = key.as_bytes();
        self.slots.get(usize::from(*first) % SLOTS)
    }
}

impl fmt::Debug for HotKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HotKeys").field("memory_bytes", &self.memory_bytes()).finish()
    }
}

/// Multiples of the negative of one public key.
struct KeyTable {
    compressed: [u8; 32],
    negative: Comb<4>,
}

impl KeyTable {
    /// `None` where the bytes are no point, or one of small order.
    fn new(key: &PublicKey) -> Option<Self> {
        let point = CompressedEdwardsY(*key.as_bytes()).decompress().filter(|point| !point.is_small_order())?;
        Some(Self { compressed: *key.as_bytes(), negative: Comb::new(-point) })
    }

    /// RFC 8032 section 5.1.7 without cofactor: R = `S`B − `k`A with k = SHA-512(R, A, M). S must be
    /// reduced and R not of small order. R is compared as bytes, so a non-canonical R never matches.
    fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureFault> {
        self.holds(message, signature).filter(|holds| *holds).map(drop).ok_or(SignatureFault::VerificationFailed)
    }

    fn holds(&self, message: &[u8], signature: &[u8; 64]) -> Option<bool> {
        let (commitment, scalar) = signature.split_first_chunk::<32>()?;
        let scalar = Option::<Scalar>::from(Scalar::from_canonical_bytes(scalar.try_into().ok()?))?;
        let hash = Sha512::new().chain_update(commitment).chain_update(self.compressed).chain_update(message);
        let challenge = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        let sum = BASE.add_multiple(EdwardsPoint::identity(), &scalar);
        let expected = self.negative.add_multiple(sum, &challenge);
        Some(expected.compress().as_bytes() == commitment && !expected.is_small_order())
    }
}

#[cfg(test)]
#[path = "hot_keys_tests.rs"]
mod tests;
