//! JSON of the service API keys: what the gateway authenticates with at the Sigilum API.

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

use crate::domain::secret::Secret;

/// Characters of a key that are shown.
const SHOWN: usize = 8;
/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 4096;

/// `PUT /service-api-keys/{id}`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = ServiceKeySet)]
pub struct KeyBody {
    /// As it is, or as `sealed:v1:…`, sealed to the gateway's key. Written only: no answer ever holds it.
    #[serde(default, deserialize_with = "secret")]
    #[schema(value_type = String, write_only, required)]
    key: Option<Secret>,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
}

impl KeyBody {
    /// The key as it was given, which [`check_key`] has to see yet.
    pub fn into_given(self) -> Result<Secret, &'static str> {
        self.key.ok_or("key: is missing")
    }
}

/// The key without blanks around it; `Err` says what is wrong.
pub fn check_key(key: &Secret) -> Result<Secret, &'static str> {
    let bare = key.expose().trim();
    if bare.is_empty() {
        return Err("key: is empty");
    }
    if bare.len() > MAX_KEY_BYTES {
        return Err("key: has more than 4096 bytes");
    }
    if !bare.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("key: may hold visible ASCII characters only");
    }
    Ok(Secret::new(bare.to_owned()))
}

/// Answer to a `PUT`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServiceKeyWritten)]
pub struct KeyWrittenBody {
    /// The service.
    pub connection_id: String,
    /// Always `true`.
    pub written: bool,
}

/// Answer to a `GET`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServiceKey)]
pub struct KeyStatusBody {
    /// The service.
    pub connection_id: String,
    /// Whether the gateway has a key for it.
    pub has_key: bool,
    /// Its first characters and `...`; empty where there is none.
    pub key_prefix: String,
    /// Whose key it is; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_source: Option<KeySource>,
    /// What came of the last asking whom the owner approved for the service.
    pub api_standing: ApiStanding,
}

/// Whose a key is that was found for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ServiceKeySource)]
pub enum KeySource {
    /// The service's own.
    Service,
    /// That of every service without one of its own: the API takes it for the one service it belongs to.
    Shared,
}

/// What came of the last asking with a service's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ServiceKeyStanding)]
pub enum ApiStanding {
    /// The API answered.
    Confirmed,
    /// It refused the key.
    Refused,
    /// There was no answer, or none that could be used.
    Failed,
    /// Nobody has asked yet, or the API is not asked for this service.
    Unknown,
}

/// What is shown of a key: its first eight characters, of a short one the first half.
pub fn prefix(key: &Secret) -> String {
    let count = key.expose().chars().count();
    let shown = if count <= SHOWN { count / 2 } else { SHOWN };
    format!("{}...", key.expose().chars().take(shown).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_never_shows_most_of_a_key() {
        for (key, shown) in [
            ("sk_live_0123456789", "sk_live_..."),
            ("123456789", "12345678..."),
            ("12345678", "1234..."),
            ("abc", "a..."),
            ("a", "..."),
        ] {
            assert_eq!(prefix(&Secret::new(key.to_owned())), shown);
        }
    }
}
