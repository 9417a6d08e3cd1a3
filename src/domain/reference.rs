//! References to secrets that live elsewhere: a source, a provider of it, and an id the provider knows.
//!
//! The grammar is the one other agent gateways use, so that existing providers work: `provider` is
//! `^[a-z][a-z0-9_-]{0,63}$`; the id of an `env` reference is `^[A-Z][A-Z0-9_]{0,127}$`, of a `file` reference `value`
//! (the whole file) or a JSON pointer (RFC 6901), of an `exec` reference `^[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}$` without
//! the segments `.` and `..`, of a `store` reference the key of a credential variable.

use std::fmt;

/// Longest JSON pointer, in bytes.
const MAX_POINTER_BYTES: usize = 1024;
/// Shortest and longest key of a credential variable, in bytes.
pub const VARIABLE_KEY_BYTES: std::ops::RangeInclusive<usize> = 2..=128;
/// The id of a `file` reference that means the whole file.
pub const WHOLE_FILE: &str = "value";
/// The provider where a reference names none.
pub const DEFAULT_PROVIDER: &str = "default";

/// Where a secret lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// A variable of the environment of the admin process.
    Env,
    /// A file, or a value in a JSON file.
    File,
    /// What a program prints.
    Exec,
    /// A credential variable of the sealed store.
    Store,
}

impl SourceKind {
    /// Reads the name used in the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "env" => Some(Self::Env),
            "file" => Some(Self::File),
            "exec" => Some(Self::Exec),
            "store" => Some(Self::Store),
            _ => None,
        }
    }

    /// The name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
            Self::Exec => "exec",
            Self::Store => "store",
        }
    }
}

/// Why a reference was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// Not a provider's name.
    #[error("a provider's name must match ^[a-z][a-z0-9_-]{{0,63}}$")]
    Provider,
    /// Not the name of an environment variable.
    #[error("the id of an env reference must match ^[A-Z][A-Z0-9_]{{0,127}}$")]
    Env,
    /// Neither `value` nor a JSON pointer.
    #[error(
        "the id of a file reference must be value (the whole file) or a JSON pointer such as /providers/openai/key"
    )]
    File,
    /// Not an id of an exec provider.
    #[error(
        "the id of an exec reference must match ^[A-Za-z0-9][A-Za-z0-9._:/#-]{{0,255}}$, without . and .. segments"
    )]
    Exec,
    /// Not the key of a credential variable.
    #[error("a variable's key must have 2 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'")]
    Variable,
}

/// A reference that obeys the grammar. Whether its provider exists is the configuration's to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRef {
    source: SourceKind,
    provider: String,
    id: String,
}

impl SecretRef {
    /// Checks provider and id by the rules of their source.
    pub fn new(source: SourceKind, provider: &str, id: &str) -> Result<Self, InvalidReference> {
        if !is_provider(provider) {
            return Err(InvalidReference::Provider);
        }
        match source {
            SourceKind::Env if !is_env(id) => return Err(InvalidReference::Env),
            SourceKind::File if id != WHOLE_FILE && !is_pointer(id) => return Err(InvalidReference::File),
            SourceKind::Exec if !is_exec(id) => return Err(InvalidReference::Exec),
            SourceKind::Store if !is_variable_key(id) => return Err(InvalidReference::Variable),
            SourceKind::Env | SourceKind::File | SourceKind::Exec | SourceKind::Store => {}
        }
        Ok(Self { source, provider: provider.to_owned(), id: id.to_owned() })
    }

    /// Reads the short forms of one text: `$NAME` and `${NAME}` are the environment's, `{{KEY}}` is a credential
    /// variable. `None`: the text has none of these forms.
    pub fn short(text: &str) -> Option<Result<Self, InvalidReference>> {
        if let Some(key) = variable_of(text) {
            return Some(Self::new(SourceKind::Store, DEFAULT_PROVIDER, key));
        }
        let rest = text.strip_prefix('$')?;
        let name = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(rest);
        Some(Self::new(SourceKind::Env, DEFAULT_PROVIDER, name))
    }

    /// Where it lives.
    pub const fn source(&self) -> SourceKind {
        self.source
    }

    /// Which provider of that source knows it.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// What the provider knows it by.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for SecretRef {
    /// `source:provider:id`; holds no secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.source.name(), self.provider, self.id)
    }
}

/// The key in `{{KEY}}`, where the whole text, trimmed, is that; blanks inside the braces do not count.
pub fn variable_of(text: &str) -> Option<&str> {
    let key = text.trim().strip_prefix("{{")?.strip_suffix("}}")?.trim();
    is_variable_key(key).then_some(key)
}

/// Whether `text` may name a credential variable: 2 to 128 of `A-Za-z0-9._-`.
pub fn is_variable_key(text: &str) -> bool {
    VARIABLE_KEY_BYTES.contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether `text` may name a provider.
pub fn is_provider(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    text.len() <= 64 && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase()) && text.bytes().all(rest)
}

fn is_env(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() <= 128 && text.bytes().next().is_some_and(|first| first.is_ascii_uppercase()) && text.bytes().all(rest)
}

/// RFC 6901: segments behind slashes, in which `~` stands only before `0` or `1`.
fn is_pointer(text: &str) -> bool {
    let mut letters = text.chars().peekable();
    let mut clean = true;
    while let Some(letter) = letters.next() {
        clean &= !letter.is_control() && (letter != '~' || matches!(letters.peek(), Some('0' | '1')));
    }
    clean && text.starts_with('/') && text.len() <= MAX_POINTER_BYTES
}

fn is_exec(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'#' | b'-');
    text.len() <= 256
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(rest)
        && !text.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_source_has_its_own_ids() {
        use SourceKind::*;
        for (source, id, good) in [
            (Env, "OPENAI_API_KEY", true),
            (Env, "openai", false),
            (Env, "1KEY", false),
            (Env, "", false),
            (File, "value", true),
            (File, "/a/b~1c/0", true),
            (File, "/", true),
            (File, "a/b", false),
            (File, "/a~2", false),
            (File, "/a~", false),
            (File, "/a\nb", false),
            (Exec, "vault/openai#key", true),
            (Exec, "a/../b", false),
            (Exec, "..", false),
            (Exec, "a b", false),
            (Exec, "-a", false),
            (Store, "KEY", true),
            (Store, "K", false),
            (Store, "a b", false),
        ] {
            assert_eq!(SecretRef::new(source, "default", id).is_ok(), good, "{source:?} {id:?}");
        }
        for (provider, good) in [("default", true), ("a_b-1", true), ("Vault", false), ("1a", false), ("", false)] {
            assert_eq!(SecretRef::new(Env, provider, "KEY").is_ok(), good, "{provider:?}");
        }
    }

    #[test]
    fn the_short_forms_mean_the_environment_and_the_store() {
        let text = |short: &str| SecretRef::short(short).map(|parsed| parsed.map(|found| found.to_string()));
        assert_eq!(text("$OPENAI"), Some(Ok("env:default:OPENAI".to_owned())));
        assert_eq!(text("${OPENAI}"), Some(Ok("env:default:OPENAI".to_owned())));
        assert_eq!(text(" {{ OPENAI }} "), Some(Ok("store:default:OPENAI".to_owned())));
        assert_eq!(text("sk-live"), None);
        assert_eq!(text("${openai}"), Some(Err(InvalidReference::Env)));
        assert_eq!(text("$"), Some(Err(InvalidReference::Env)));
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_short_and_free_of_control_characters(id in "\\PC{0,300}|[ -~]{0,300}", kind in 0..4_usize) {
            let kinds = [SourceKind::Env, SourceKind::File, SourceKind::Exec, SourceKind::Store];
            if let Some(Ok(found)) = kinds.get(kind).map(|kind| SecretRef::new(*kind, DEFAULT_PROVIDER, &id)) {
                prop_assert!(found.id().len() <= MAX_POINTER_BYTES && !found.id().chars().any(char::is_control));
            }
        }
    }
}
