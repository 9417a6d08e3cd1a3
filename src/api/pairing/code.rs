//! Pair codes: eight characters people can read out, kept as a keyed hash.
//!
//! The key is the secret of the owner tokens, which is not in the database: 40 bits are soon tried through by whoever
//! holds a plain hash of them. Where that secret changes, pairings end, as owner tokens do.

use ring::hmac;

use crate::domain::secret::Secret;
use crate::sys::random;
use crate::sys::random::RandomError;

/// 32 characters; none that is taken for another.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Says what is hashed, so that no other use of the key gives the same.
const PURPOSE: &str = "sigilum pair code v1";
/// Longest text that is taken for a code, in bytes.
pub(super) const MAX_BYTES: usize = 64;

/// Makes and checks hashes.
#[derive(Debug)]
pub(super) struct CodeKey(hmac::Key);

impl CodeKey {
    pub(super) fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()))
    }

    /// The hash of a session's code, 32 bytes.
    pub(super) fn hash(&self, session: &str, code: &Secret) -> Vec<u8> {
        hmac::sign(&self.0, message(session, code).expose().as_bytes()).as_ref().to_vec()
    }

    /// Whether this is the code; takes as long where it is nearly so.
    pub(super) fn matches(&self, session: &str, code: &Secret, hash: &[u8]) -> bool {
        hmac::verify(&self.0, message(session, code).expose().as_bytes(), hash).is_ok()
    }
}

fn message(session: &str, code: &Secret) -> Secret {
    Secret::new(format!("{PURPOSE}\n{session}\n{}", code.expose()))
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
        let hash = key.hash("one", &code);
        assert!(key.matches("one", &code, &hash));
        assert!(!key.matches("two", &code, &hash));
        assert!(!key.matches("one", &Secret::new("abcdefgh".to_owned()), &hash));
        assert!(!key.matches("one", &Secret::new(String::new()), &hash));
        assert!(!CodeKey::new(&Secret::new("l".repeat(32))).matches("one", &code, &hash));
    }
}
