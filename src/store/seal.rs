//! The one place with symmetric cryptography: a random data key per record, wrapped by the master key.
//!
//! Both layers are AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces. Their associated data names the kind,
//! record, field and version, each with its length in front, so that no sealed value opens anywhere else.
//! A data key seals one value; the master key only ever encrypts data keys, so 2^32 values are far away.

use std::num::NonZeroU32;

use aes_gcm::Aes256Gcm;
use aes_gcm::KeyInit as _;
use aes_gcm::aead::Aead as _;
use aes_gcm::aead::Payload;
use zeroize::Zeroizing;

use crate::domain::hex;
use crate::domain::secret::Secret;
use crate::sys::random;
use crate::sys::random::RandomError;

/// First byte of everything sealed: the format below.
const FORMAT: u8 = 1;
/// Bytes of the store's salt.
pub const SALT_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = KEY_BYTES + TAG_BYTES;
/// Rounds for master keys that a person may have chosen: OWASP's figure for PBKDF2-HMAC-SHA256. Unit tests open
/// many stores, and the number is no part of what they hold.
const PASSPHRASE_ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(if cfg!(test) { 999 } else { 599_999 });

/// Why something could not be sealed or opened. Says nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The master key is blank.
    #[error("the master key is blank")]
    BlankKey,
    /// Not something this version sealed.
    #[error("unknown format")]
    Format,
    /// Sealed under another master key.
    #[error("sealed under another master key")]
    OtherKey,
    /// Changed, or taken from another place.
    #[error("changed, or moved from another place")]
    Broken,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Where a sealed value belongs. The kind keeps different sorts of record apart even when their names coincide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Sort of record, e.g. `connection`.
    pub kind: &'a str,
    /// Which record.
    pub record: &'a str,
    /// Which part of it.
    pub field: &'a str,
    /// Which version of that part.
    pub version: u64,
}

impl Place<'_> {
    /// Unambiguous bytes: every part has its length in front. `layer` tells wrapping and sealing apart.
    fn associated_data(&self, layer: &str, key_id: &[u8; KEY_ID_BYTES]) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for part in [
            b"sigilum-store",
            layer.as_bytes(),
            key_id,
            self.kind.as_bytes(),
            self.record.as_bytes(),
            self.field.as_bytes(),
        ] {
            out.extend_from_slice(&(part.len() as u64).to_be_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&self.version.to_be_bytes());
        out
    }
}

/// The key that wraps data keys, derived from the configured text and the store's salt.
pub struct MasterKey {
    wrapping: Zeroizing<[u8; KEY_BYTES]>,
    id: [u8; KEY_ID_BYTES],
    records: DigestKey,
}

impl MasterKey {
    /// Derives the key. Blanks around the text do not count. Exactly 64 hex digits are 32 random bytes and go
    /// through HKDF-SHA256 (RFC 5869) alone; any other text may be a passphrase and goes through
    /// PBKDF2-HMAC-SHA256 (RFC 8018) first. Takes a quarter of a second then.
    pub fn derive(text: &Secret, salt: &[u8; SALT_BYTES]) -> Result<Self, SealError> {
        let text = text.expose().trim();
        if text.is_empty() {
            return Err(SealError::BlankKey);
        }
        let material = decode_hex(text).unwrap_or_else(|| {
            let mut stretched = Zeroizing::new([0_u8; KEY_BYTES]);
            let algorithm = ring::pbkdf2::PBKDF2_HMAC_SHA256;
            ring::pbkdf2::derive(algorithm, PASSPHRASE_ROUNDS, salt, text.as_bytes(), stretched.as_mut_slice());
            stretched
        });
        let pseudorandom = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, salt).extract(material.as_slice());
        let mut wrapping = Zeroizing::new([0_u8; KEY_BYTES]);
        let mut id = [0_u8; KEY_ID_BYTES];
        expand(&pseudorandom, b"sigilum-store wrapping key v1", wrapping.as_mut_slice())?;
        expand(&pseudorandom, b"sigilum-store key id v1", &mut id)?;
        let mut records = Zeroizing::new([0_u8; KEY_BYTES]);
        expand(&pseudorandom, b"sigilum-store record key v1", records.as_mut_slice())?;
        Ok(Self { wrapping, id, records: DigestKey::new(records.as_slice()) })
    }

    /// The key of the marks of what lies in clear, so that only who has the master key can change it.
    pub const fn records(&self) -> &DigestKey {
        &self.records
    }

    /// Tells keys apart; says nothing of the key itself. 16 hex digits.
    pub fn id(&self) -> String {
        hex::text(&self.id)
    }

    /// Seals `plaintext` for one place.
    pub fn seal(&self, place: Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let data_key = Zeroizing::new(random::bytes::<KEY_BYTES>()?);
        let nonce = random::bytes::<NONCE_BYTES>()?;
        // The data key is random and used once, so the value's own layer need not name the master key: a new
        // master key re-wraps the data key and leaves the value alone.
        let aad = place.associated_data("value", &[0; KEY_ID_BYTES]);
        let sealed = cipher(&data_key)
            .encrypt((&nonce).into(), Payload { msg: plaintext, aad: &aad })
            .map_err(|_| SealError::Broken)?;
        let mut out = self.wrap(place, &data_key, NONCE_BYTES + sealed.len())?;
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// What `sealed` becomes under another master key: the data key wrapped anew, the value as it is. Both are opened
    /// first, so that nothing is carried along that could not be read.
    pub fn rewrap(&self, place: Place<'_>, sealed: &[u8], next: &Self) -> Result<Vec<u8>, SealError> {
        let (data_key, value) = self.unwrap(place, sealed)?;
        open_value(place, &data_key, value)?;
        let mut out = next.wrap(place, &data_key, value.len())?;
        out.extend_from_slice(value);
        Ok(out)
    }

    /// Format, key id and wrapped data key: what stands before a value of `more` bytes.
    fn wrap(&self, place: Place<'_>, data_key: &[u8; KEY_BYTES], more: usize) -> Result<Vec<u8>, SealError> {
        let nonce = random::bytes::<NONCE_BYTES>()?;
        let aad = place.associated_data("wrap", &self.id);
        let wrapped = cipher(&self.wrapping)
            .encrypt((&nonce).into(), Payload { msg: data_key.as_slice(), aad: &aad })
            .map_err(|_| SealError::Broken)?;
        let mut out = Vec::with_capacity(1 + KEY_ID_BYTES + NONCE_BYTES + WRAPPED_BYTES + more);
        out.push(FORMAT);
        for part in [self.id.as_slice(), &nonce, &wrapped] {
            out.extend_from_slice(part);
        }
        Ok(out)
    }

    /// Opens what [`MasterKey::seal`] made for the same place.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (data_key, value) = self.unwrap(place, sealed)?;
        open_value(place, &data_key, value)
    }

    /// The data key of a sealed value, and the value's own nonce and ciphertext.
    fn unwrap<'a>(
        &self,
        place: Place<'_>,
        sealed: &'a [u8],
    ) -> Result<(Zeroizing<[u8; KEY_BYTES]>, &'a [u8]), SealError> {
        let (&format, rest) = sealed.split_first().ok_or(SealError::Format)?;
        if format != FORMAT {
            return Err(SealError::Format);
        }
        let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealError::Format)?;
        let (wrap_nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Format)?;
        let (wrapped, value) = rest.split_first_chunk::<WRAPPED_BYTES>().ok_or(SealError::Format)?;
        if *id != self.id {
            return Err(SealError::OtherKey);
        }
        let wrap_aad = place.associated_data("wrap", &self.id);
        let data_key = cipher(&self.wrapping)
            .decrypt(wrap_nonce.into(), Payload { msg: wrapped, aad: &wrap_aad })
            .map(Zeroizing::new)
            .map_err(|_| SealError::Broken)?;
        let data_key = data_key.as_slice().try_into().map(Zeroizing::new).map_err(|_| SealError::Broken)?;
        Ok((data_key, value))
    }
}

fn open_value(place: Place<'_>, data_key: &[u8; KEY_BYTES], value: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, value) = value.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Format)?;
    let aad = place.associated_data("value", &[0; KEY_ID_BYTES]);
    cipher(data_key)
        .decrypt(nonce.into(), Payload { msg: value, aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| SealError::Broken)
}

/// A key of digests by which values are known again and cannot be guessed at.
pub struct DigestKey(ring::hmac::Key);

impl DigestKey {
    /// HMAC-SHA256 under these bytes.
    pub fn new(key: &[u8]) -> Self {
        Self(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key))
    }

    /// The first `N` bytes, at most 32, of the digest of these parts, each with its length in front.
    pub fn digest<const N: usize>(&self, parts: &[&str]) -> [u8; N] {
        let mut context = ring::hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut out = [0; N];
        for (out, byte) in out.iter_mut().zip(context.sign().as_ref()) {
            *out = *byte;
        }
        out
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DigestKey(..)")
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MasterKey(..)")
    }
}

fn cipher(key: &[u8; KEY_BYTES]) -> Aes256Gcm {
    Aes256Gcm::new(key.into())
}

fn expand(pseudorandom: &ring::hkdf::Prk, purpose: &[u8], out: &mut [u8]) -> Result<(), SealError> {
    struct Length(usize);
    impl ring::hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    pseudorandom.expand(&[purpose], Length(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| SealError::Broken)
}

/// The 32 bytes of exactly 64 hex digits.
fn decode_hex(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = Zeroizing::new([0_u8; KEY_BYTES]);
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
