//! Names that are valid because they were parsed: namespace, connection id, public key.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::hex;

/// Shortest slug, in bytes.
pub const MIN_SLUG_BYTES: usize = 3;
/// Longest slug, in bytes.
pub const MAX_SLUG_BYTES: usize = 64;

/// Why a name was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Not between 3 and 64 bytes.
    #[error("must have 3 to 64 characters")]
    Length,
    /// Something other than `a-z`, `0-9` and `-`, or a `-` at either end.
    #[error("may contain only a-z, 0-9 and '-', and must begin and end with a letter or digit")]
    Character,
    /// Not `ed25519:` and 32 bytes of padded base64.
    #[error("must be 'ed25519:' followed by 32 bytes of base64")]
    PublicKey,
}

/// Whether `raw` matches `^[a-z0-9][a-z0-9-]{1,62}[a-z0-9]$`.
fn check_slug(raw: &str) -> Result<(), InvalidId> {
    if raw.len() < MIN_SLUG_BYTES || raw.len() > MAX_SLUG_BYTES {
        return Err(InvalidId::Length);
    }
    let clean = raw.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !clean || raw.starts_with('-') || raw.ends_with('-') {
        return Err(InvalidId::Character);
    }
    Ok(())
}

/// A namespace: the owner's name, `^[a-z0-9][a-z0-9-]{1,62}[a-z0-9]$`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Accepts the exact form only; what a signed header carries is never rewritten.
    pub fn parse(raw: &str) -> Result<Self, InvalidId> {
        check_slug(raw).map(|()| Self(Arc::from(raw)))
    }

    /// Whether [`Namespace::parse`] would accept it; for lists that are not kept as namespaces.
    pub fn is_valid(raw: &str) -> bool {
        check_slug(raw).is_ok()
    }

    /// Trims and lower-cases first, as every SDK does with what a person typed.
    pub fn normalise(raw: &str) -> Result<Self, InvalidId> {
        Self::parse(&raw.trim().to_lowercase())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `did:sigilum:<namespace>`.
    pub fn did(&self) -> String {
        format!("did:sigilum:{}", self.0)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The id of a connection, which is also the service slug of its approvals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(Arc<str>);

impl ConnectionId {
    /// Accepts `^[a-z0-9][a-z0-9-]{1,62}[a-z0-9]$`.
    pub fn parse(raw: &str) -> Result<Self, InvalidId> {
        check_slug(raw).map(|()| Self(Arc::from(raw)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Borrow<str> for ConnectionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A raw Ed25519 public key (RFC 8032). Whether it is a point of the curve shows at verification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Prefix of the text form.
    pub const PREFIX: &'static str = "ed25519:";

    /// Takes raw bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads `ed25519:` + padded standard base64 of 32 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let encoded = text.strip_prefix(Self::PREFIX).ok_or(InvalidId::PublicKey)?;
        // 32 bytes are 44 characters; checked first so that nothing long is decoded.
        if encoded.len() != 44 {
            return Err(InvalidId::PublicKey);
        }
        let mut bytes = [0_u8; 33];
        match STANDARD.decode_slice(encoded, &mut bytes) {
            Ok(32) => {}
            Ok(_) | Err(_) => return Err(InvalidId::PublicKey),
        }
        let (key, _) = bytes.split_first_chunk::<32>().ok_or(InvalidId::PublicKey)?;
        Ok(Self(*key))
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `ed25519:` + padded standard base64.
    pub fn text(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(self.0))
    }

    /// Lower-case hex of the first 8 bytes of SHA-256 of the key: 16 characters, public.
    pub fn fingerprint(&self) -> String {
        hex::begin(&Sha256::digest(self.0), 8)
    }

    /// `did:sigilum:<namespace>#ed25519-<fingerprint>`.
    pub fn key_id(&self, namespace: &Namespace) -> String {
        format!("{}#ed25519-{}", namespace.did(), self.fingerprint())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn slugs_have_three_to_sixty_four_characters_and_clean_ends() {
        for good in ["abc", "a-b", "0a9", &"a".repeat(64)] {
            assert_eq!(ConnectionId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "ab", &"a".repeat(65), "-ab", "ab-", "Abc", "a_b", "a/b", "a b", "äbc"] {
            assert!(ConnectionId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_golden_key_has_the_golden_fingerprint() {
        let key = PublicKey::parse("ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=").unwrap();
        let namespace = Namespace::parse("fixture-alice").unwrap();
        assert_eq!(key.key_id(&namespace), "did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a");
        assert_eq!(PublicKey::parse(&key.text()), Ok(key));
    }

    #[test]
    fn keys_of_another_length_or_alphabet_are_refused() {
        for bad in [
            "",
            "ed25519:",
            "J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=",
            "ed25519:J07dj_co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=",
            "ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0kA",
            "ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k",
        ] {
            assert_eq!(PublicKey::parse(bad), Err(InvalidId::PublicKey), "{bad}");
        }
    }
}
