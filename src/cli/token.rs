//! What an owner's token (a JWT, RFC 7519) says about itself, unverified: enough to explain an expired one
//! and to know whose it is before the API is asked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::domain::secret::Secret;
use crate::domain::time::UnixSeconds;

/// Longest token, in bytes: it has to fit into a header.
pub(crate) const MAX_BYTES: u64 = 8 * 1024;

/// The claims that matter to a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    /// Whose token it is.
    pub(crate) namespace: String,
    /// Whose it is, as a user id.
    sub: String,
    /// Not after this second.
    exp: Option<u64>,
}

impl Said {
    /// Reads the middle part; `None` where this is no JWT.
    pub(crate) fn by(token: &Secret) -> Option<Self> {
        let mut parts = token.expose().split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
        serde_json::from_slice(&payload).ok()
    }

    /// Whether the API of a machine made it for that machine's own owner.
    pub(crate) fn is_local(&self) -> bool {
        self.sub.starts_with("user_local_")
    }

    /// When it ended, where that is before `now`.
    pub(crate) fn expired(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        self.exp.map(UnixSeconds).filter(|exp| *exp <= now)
    }
}

/// A token as it was typed, read or found: without white space at its ends; `None` where nothing is left.
pub(crate) fn tidy(text: &str) -> Option<Secret> {
    let text = text.trim();
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> Secret {
        Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload)))
    }

    #[test]
    fn namespace_and_end_are_read_and_nothing_else_is_a_token() {
        let said = Said::by(&token(r#"{"sub":"u","namespace":"acme","exp":1000}"#));
        let ends = |now| said.as_ref().and_then(|said| said.expired(UnixSeconds(now)));
        assert_eq!(said.as_ref().map(|said| said.namespace.as_str()), Some("acme"));
        assert!(said.as_ref().is_some_and(|said| !said.is_local()));
        assert_eq!((ends(999), ends(1000)), (None, Some(UnixSeconds(1000))));
        for bad in ["", "a.b", "a.b.c", "a.e30.c.d", "a.!!.c"] {
            assert_eq!(Said::by(&Secret::new(bad.to_owned())), None, "{bad}");
        }
    }

    #[test]
    fn line_ends_are_no_part_of_a_token() {
        assert_eq!(tidy(" a.b.c\r\n"), Some(Secret::new("a.b.c".to_owned())));
        assert_eq!(tidy("\n"), None);
    }
}
