//! What the control plane may have this gateway's admin API do. Everything that is not named here is refused before a
//! request is made of it.
//!
//! A path is compared as it was sent, byte by byte, and sent on as it was compared: nothing is decoded, joined or
//! cleaned up in between, so there is no second reading of it.

use std::collections::BTreeMap;

use crate::domain::secret::Secret;

/// What is answered to everything else, with status 400.
pub const UNSUPPORTED: &str = "Unsupported relay path or method";

/// Longest path, in bytes: the longest prefix and two names of records.
const MAX_PATH_BYTES: usize = 512;
/// Longest value of a header that is passed on, in bytes.
const MAX_HEADER_BYTES: usize = 1024;
/// Headers of a command that are passed on as they are.
const PASSED_HEADERS: [&str; 3] = ["accept", "content-type", "x-request-id"];
/// Headers of a command that may hold a token of the gateway, which whoever sends the command has of its own. A request shows
/// it like everybody; that it was relayed is said of it all the same.
const TOKEN_HEADERS: [&str; 2] = ["authorization", "x-sigilum-admin-token"];
/// Longest value of such a header, in bytes: the longest token that is compared, and the name of its scheme.
const MAX_TOKEN_BYTES: usize = 4096 + 16;
/// What a body is where nobody says.
const JSON: &str = "application/json";

/// Methods of relayed requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Creates, or does something.
    Post,
    /// Puts something in a place.
    Put,
    /// Changes parts.
    Patch,
    /// Deletes.
    Delete,
}

impl Verb {
    /// As it stands in a request line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];
        all.into_iter().find(|verb| verb.name().eq_ignore_ascii_case(text))
    }
}

/// Method and path of a request that may be relayed; only [`Allowed::judge`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    verb: Verb,
    path: String,
}

impl Allowed {
    /// Judges a request. `None`: it is not on the list.
    pub fn judge(method: &str, path: &str) -> Option<Self> {
        if path.len() > MAX_PATH_BYTES {
            return None;
        }
        let verb = Verb::parse(method)?;
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        verbs(&segments).contains(&verb).then(|| Self { verb, path: path.to_owned() })
    }

    /// The method.
    pub const fn verb(&self) -> Verb {
        self.verb
    }

    /// The path: begins with `/`, and is of letters, digits, `.`, `_`, `-` and `/` alone.
    pub fn path(&self) -> &str {
        &self.path
    }
}

fn verbs(segments: &[&str]) -> &'static [Verb] {
    use Verb::Delete;
    use Verb::Get;
    use Verb::Patch;
    use Verb::Post;
    use Verb::Put;
    match segments {
        ["health"] => &[Get],
        ["api", "admin", rest @ ..] => match rest {
            ["connections" | "credential-variables"] => &[Get, Post],
            ["connections", id] if is_name(id) => &[Get, Patch, Delete],
            ["connections", id, "rotate" | "test" | "discover"] if is_name(id) => &[Post],
            ["connections", id, "agents"] if is_name(id) => &[Get],
            ["credential-variables", key] if is_name(key) => &[Delete],
            ["openclaw", "legacy-keys"] | ["sealing-key"] | ["refusals"] => &[Get],
            ["openclaw", "legacy-keys", "import" | "purge"] => &[Post],
            ["service-catalog"] => &[Get, Put],
            ["service-api-keys", id] if is_slug(id) => &[Get, Put],
            _ => &[],
        },
        _ => &[],
    }
}

/// The name of a record in a path. `.` and `..` are none: they mean another path.
fn is_name(text: &str) -> bool {
    let clean = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    clean && !matches!(text, "" | "." | "..")
}

fn is_slug(text: &str) -> bool {
    let clean = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    clean && !text.is_empty()
}

/// The headers of a command that are passed on, without white space at their ends; `has_body` where one is sent. What
/// could not stand in a header is dropped.
pub fn headers(given: &BTreeMap<String, String>, has_body: bool) -> Vec<(&'static str, String)> {
    let found = PASSED_HEADERS
        .into_iter()
        .filter_map(|name| clean(given, name, MAX_HEADER_BYTES).map(|value| (name, value.to_owned())));
    let mut passed: Vec<_> = found.filter(|(name, _)| has_body || *name != "content-type").collect();
    if has_body && !passed.iter().any(|(name, _)| *name == "content-type") {
        passed.push(("content-type", JSON.to_owned()));
    }
    passed
}

/// The tokens that a command brings, by the header they stand in.
pub fn tokens(given: &BTreeMap<String, String>) -> Vec<(&'static str, Secret)> {
    let found = TOKEN_HEADERS.into_iter().filter_map(|name| Some((name, clean(given, name, MAX_TOKEN_BYTES)?)));
    found.map(|(name, value)| (name, Secret::new(value.to_owned()))).collect()
}

/// A header's value without white space at its ends, where it is there and can stand in a header.
fn clean<'a>(given: &'a BTreeMap<String, String>, name: &str, longest: usize) -> Option<&'a str> {
    let (_, value) = given.iter().find(|(given, _)| given.eq_ignore_ascii_case(name))?;
    let value = value.trim();
    let clean = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    (clean && !value.is_empty() && value.len() <= longest).then_some(value)
}

#[cfg(test)]
#[path = "allow_tests.rs"]
mod tests;
