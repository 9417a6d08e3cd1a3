//! A connection as its owner keeps it: what decisions need, and what only its administration needs.

use std::collections::BTreeMap;

use crate::domain::connection::ConnectionSettings;
use crate::domain::connection::Credential;
use crate::domain::connection::InvalidConnection;
use crate::domain::reference::variable_of;
use crate::domain::sealing::is_sealed;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;

/// Seconds in a day, as rotation intervals count them.
const DAY_SECONDS: u64 = 86_400;
/// How many secrets one connection may hold.
pub const MAX_SECRETS: usize = 32;
/// Longest name of a secret, in bytes.
pub const MAX_SECRET_NAME_BYTES: usize = 128;
/// Longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 16 * 1024;

/// The secrets of a connection by name, in clear.
pub type Secrets = BTreeMap<String, Secret>;

/// Everything about a connection but the values of its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// What a decision needs.
    pub settings: ConnectionSettings,
    /// Which secret is injected; `None` only on MCP connections without any.
    pub auth_secret_key: Option<String>,
    /// Names of the secrets, sorted.
    pub credential_keys: Vec<String>,
    /// Days a secret is meant to live; 0 = no rotation.
    pub rotation_interval_days: u32,
    /// MCP connections only.
    pub mcp: Option<McpSettings>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When anything about it last changed.
    pub updated_at: UnixMillis,
    /// When its secrets last changed.
    pub last_rotated_at: Option<UnixMillis>,
    /// Whether their values are gone for good, with the master key they were sealed with.
    pub secrets_lost: bool,
}

impl ConnectionRecord {
    /// Notes that its secrets are others since `now`.
    pub fn rotated(&mut self, now: UnixMillis) {
        self.updated_at = now;
        self.last_rotated_at = Some(now);
        self.settings.next_rotation_due_at = self.rotation_due();
    }

    /// When the secrets are due again, from the last rotation and the interval.
    pub fn rotation_due(&self) -> Option<UnixSeconds> {
        let rotated = self.last_rotated_at.unwrap_or(self.created_at).0 / 1000;
        let interval = u64::from(self.rotation_interval_days).saturating_mul(DAY_SECONDS);
        (interval > 0).then(|| UnixSeconds(rotated.saturating_add(interval)))
    }
}

/// How an MCP server is reached and which of its tools are shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct McpSettings {
    /// An absolute URL, or a path beginning with `/` below the base address.
    pub endpoint: String,
    /// For every subject.
    pub policy: ToolPolicy,
    /// By subject.
    pub subjects: BTreeMap<String, ToolPolicy>,
}

/// Which tools are shown. Lists are sorted and free of doubles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolPolicy {
    /// Only these; empty = all.
    pub allow: Vec<String>,
    /// Never these.
    pub deny: Vec<String>,
    /// At most this many; `None` = no limit.
    pub max_tools: Option<u32>,
}

/// Checks the secrets an owner handed in: names and values trimmed, empty values dropped.
pub fn check_secrets(given: Secrets) -> Result<Secrets, InvalidConnection> {
    let invalid = |reason: String| InvalidConnection::Field { field: "secrets", reason };
    let mut checked = Secrets::new();
    for (name, secret) in given {
        let name = name.trim();
        if name.is_empty() || name.len() > MAX_SECRET_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(invalid(format!("a name must have 1 to {MAX_SECRET_NAME_BYTES} printable characters")));
        }
        let text = secret.expose().trim();
        if text.len() > MAX_SECRET_BYTES {
            return Err(invalid(format!("{name} has more than {MAX_SECRET_BYTES} bytes")));
        }
        // Sent as it is it would reach the provider literally.
        if is_reference(text) && variable_of(text).is_none() {
            let text = "must hold the key of a credential variable between {{ and }}: 2 to 128 of A-Za-z0-9._-";
            return Err(invalid(format!("{name} {text}")));
        }
        // Whoever takes secrets opens sealed ones first.
        if is_sealed(text) {
            return Err(invalid(format!("{name} is sealed, which no secret is that is kept")));
        }
        if text.is_empty() {
            continue;
        }
        let text = Secret::new(text.to_owned());
        if checked.insert(name.to_owned(), text).is_some() {
            return Err(invalid(format!("{name} occurs twice")));
        }
    }
    if checked.len() > MAX_SECRETS {
        return Err(invalid(format!("more than {MAX_SECRETS}")));
    }
    Ok(checked)
}

/// Whether a value has the form of a reference to a credential variable, also one that names none.
pub fn is_reference(value: &str) -> bool {
    let text = value.trim();
    text.starts_with("{{") && text.ends_with("}}")
}

/// Whether the secret that `key` names is one of these.
pub fn check_named(key: Option<&str>, names: &[String]) -> Result<(), InvalidConnection> {
    let named = key.is_none_or(|key| names.iter().any(|name| name == key));
    if named { Ok(()) } else { Err(no_such_secret()) }
}

fn no_such_secret() -> InvalidConnection {
    InvalidConnection::Field { field: "auth_secret_key", reason: "names no secret of this connection".to_owned() }
}

/// Whether the secret that `key` names is there and can be injected the way `settings` say.
pub fn check_injection(
    settings: &ConnectionSettings,
    key: Option<&str>,
    secrets: &Secrets,
) -> Result<(), InvalidConnection> {
    let Some(key) = key else { return Ok(()) };
    let secret = secrets.get(key).ok_or_else(no_such_secret)?;
    Credential::build(settings, secret).map(drop)
}
