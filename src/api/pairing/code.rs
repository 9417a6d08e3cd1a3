//! What opens a session to a bridge: pair codes, eight characters people can read out, and reconnect secrets, 32 random
//! bytes for the bridge alone. Both are kept as keyed hashes.
//!
//! The key is the secret of the owner tokens, which is not in the database: 40 bits are soon tried through by whoever
//! holds a plain hash of them. Where that secret changes, pairings end, as owner tokens do.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::domain::secret::Secret;
use crate::sys::random;
use crate::sys::random::RandomError;

/// 32 characters; none that is taken for another.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Longest text that is taken for a code, in bytes.
pub(super) const MAX_BYTES: usize = 64;

/// What is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A pair code.
    Code,
    /// A reconnect secret.
    Reconnect,
}

impl Kind {
    /// Stands in what is hashed, so that no other use of the key gives the same.
    const fn purpose(self) -> &'static str {
        match self {
            Self::Code => "sigilum pair code v1",
            Self::Reconnect => "sigilum pair reconnect secret v1",
        }
    }
}

/// Makes and checks hashes.
#[derive(Debug)]
pub(super) struct CodeKey(hmac::Key);

impl CodeKey {
    pub(super) fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()))
    }

    /// The hash of what opens a session, 32 bytes.
    pub(super) fn hash(&self, kind: Kind, session: &str, secret: &Secret) -> Vec<u8> {
        hmac::sign(&self.0, message(kind, session, secret).expose().as_bytes()).as_ref().to_vec()
    }

    /// Whether this opens the session; takes as long where it nearly does.
    pub(super) fn matches(&self, kind: Kind, session: &str, secret: &Secret, hash: &[u8]) -> bool {
        hmac::verify(&self.0, message(kind, session, secret).expose().as_bytes(), hash).is_ok()
    }
}

fn message(kind: Kind, session: &str, secret: &Secret) -> Secret {
    Secret::new(format!("{}\n{session}\n{}", kind.purpose(), secret.expose()))
}

/// A reconnect secret for a bridge that has joined.
pub(super) fn reconnect() -> Result<Secret, RandomError> {
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(random::bytes::<32>()?)))
}

/// A code for a new session.
pub(super) fn new() -> Result<Secret, RandomError> {
    let letter = |byte: u8| ALPHABET.get(usize::from(byte % 32)).copied().map_or('A', char::from);
    Ok(Secret::new(random::bytes::<8>()?.into_iter().map(letter).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn codes_are_eight_clear_characters() {
        let codes: Vec<_> = (0..200).map(|_| new().unwrap()).collect();
        assert!(codes.iter().all(|code| code.expose().len() == 8));
        let used: std::collections::BTreeSet<u8> = codes.iter().flat_map(|code| code.expose().bytes()).collect();
        // 1,600 draws miss one of 32 with less than 1 in 10^20.
        assert_eq!(used, ALPHABET.iter().copied().collect());
    }

    #[test]
    fn a_hash_is_of_one_code_one_session_and_one_key() {
        let key = CodeKey::new(&Secret::new("k".repeat(32)));
        let code = Secret::new("ABCDEFGH".to_owned());
        let hash = key.hash(Kind::Code, "one", &code);
        assert!(key.matches(Kind::Code, "one", &code, &hash));
        assert!(!key.matches(Kind::Code, "two", &code, &hash));
        assert!(!key.matches(Kind::Reconnect, "one", &code, &hash));
        assert!(!key.matches(Kind::Code, "one", &Secret::new("abcdefgh".to_owned()), &hash));
        assert!(!key.matches(Kind::Code, "one", &Secret::new(String::new()), &hash));
        assert!(!CodeKey::new(&Secret::new("l".repeat(32))).matches(Kind::Code, "one", &code, &hash));
    }

    #[test]
    fn a_reconnect_secret_has_the_form_that_bridges_take() {
        let (one, other) = (reconnect().unwrap(), reconnect().unwrap());
        assert_eq!(crate::wire::pairing::reconnect_secret(one.expose().as_bytes()).unwrap(), one);
        assert_ne!(one, other);
    }
}
