//! Records as they lie in the database: JSON with its own names, so that a renamed field in `domain` does not
//! change what is on disk. Members this version does not know are an error of a newer writer and never occur,
//! because a new member comes with a schema step.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::domain::connection::AuthMode;
use crate::domain::connection::ConnectionSettings;
use crate::domain::connection::Protocol;
use crate::domain::connection::Upstream;
use crate::domain::ids::ConnectionId;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::McpSettings;
use crate::domain::record::Secrets;
use crate::domain::record::ToolPolicy;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::engine::ConnectionRow;
use crate::store::seal::DigestKey;

/// The `record` column.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRecord {
    name: String,
    protocol: String,
    base_url: String,
    path_prefix: String,
    auth_mode: String,
    auth_target: String,
    auth_prefix: String,
    auth_secret_key: Option<String>,
    credential_keys: Vec<String>,
    active: bool,
    allow_private: bool,
    allowed_methods: Vec<String>,
    allowed_paths: Vec<String>,
    upgrades: Vec<String>,
    response_timeout_ms: u64,
    max_stream_seconds: u64,
    extra_headers: BTreeMap<String, String>,
    allow_set_cookie: bool,
    forward_trace: bool,
    rotation_interval_days: u32,
    mcp: Option<StoredMcp>,
    created_at_ms: u64,
    updated_at_ms: u64,
    last_rotated_at_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMcp {
    endpoint: String,
    policy: StoredPolicy,
    subjects: BTreeMap<String, StoredPolicy>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPolicy {
    allow: Vec<String>,
    deny: Vec<String>,
    max_tools: Option<u32>,
}

/// Bytes of a mark.
const MARK_BYTES: usize = 32;

/// The mark of a row: an HMAC under a key that comes of the master key. Without it whoever can write the file, or a backup
/// of it, could send a secret elsewhere by its connection's base URL, which lies in clear.
pub fn mark(id: &str, record: &str, secret_version: i64, key: &DigestKey) -> [u8; MARK_BYTES] {
    key.digest(&["connection", id, &secret_version.to_string(), record])
}

/// A record as a row.
pub fn encode(record: &ConnectionRecord, key: &DigestKey) -> Result<ConnectionRow, StoreError> {
    let settings = &record.settings;
    let stored = StoredRecord {
        name: settings.name.clone(),
        protocol: settings.protocol.name().to_owned(),
        base_url: settings.upstream.base_url(),
        path_prefix: settings.path_prefix.clone(),
        auth_mode: settings.auth_mode.name().to_owned(),
        auth_target: settings.auth_target.clone(),
        auth_prefix: settings.auth_prefix.clone(),
        auth_secret_key: record.auth_secret_key.clone(),
        credential_keys: record.credential_keys.clone(),
        active: settings.active,
        allow_private: settings.allow_private,
        allowed_methods: settings.allowed_methods.clone(),
        allowed_paths: settings.allowed_paths.clone(),
        upgrades: settings.upgrades.clone(),
        response_timeout_ms: u64::try_from(settings.response_timeout.as_millis()).unwrap_or(u64::MAX),
        max_stream_seconds: settings.max_stream.as_secs(),
        extra_headers: settings.extra_headers.clone(),
        allow_set_cookie: settings.allow_set_cookie,
        forward_trace: settings.forward_trace,
        rotation_interval_days: record.rotation_interval_days,
        mcp: record.mcp.as_ref().map(|mcp| StoredMcp {
            endpoint: mcp.endpoint.clone(),
            policy: encode_policy(&mcp.policy),
            subjects: mcp.subjects.iter().map(|(name, policy)| (name.clone(), encode_policy(policy))).collect(),
        }),
        created_at_ms: record.created_at.0,
        updated_at_ms: record.updated_at.0,
        last_rotated_at_ms: record.last_rotated_at.map(|at| at.0),
    };
    let unreadable = |detail: String| StoreError::Record { id: settings.id.as_str().to_owned(), detail };
    let id = settings.id.as_str().to_owned();
    let text = serde_json::to_string(&stored).map_err(|error| unreadable(error.to_string()))?;
    let secret_version = i64::try_from(settings.secret_version).map_err(|error| unreadable(error.to_string()))?;
    let mark = mark(&id, &text, secret_version, key).to_vec();
    Ok(ConnectionRow { id, record: text, secret_version, mark, lost: record.secrets_lost })
}

/// A row as a record. A row that somebody edited is an error, not a setting.
pub fn decode(row: &ConnectionRow, key: &DigestKey) -> Result<ConnectionRecord, StoreError> {
    let unreadable = |detail: String| StoreError::Record { id: row.id.clone(), detail };
    // Nobody who edits a file can measure how long this takes.
    if row.mark != mark(&row.id, &row.record, row.secret_version, key) {
        return Err(unreadable("it was changed without the master key".to_owned()));
    }
    let stored: StoredRecord = serde_json::from_str(&row.record).map_err(|error| unreadable(error.to_string()))?;
    let settings = ConnectionSettings {
        id: ConnectionId::parse(&row.id).map_err(|error| unreadable(error.to_string()))?,
        name: stored.name,
        protocol: match stored.protocol.as_str() {
            "http" => Protocol::Http,
            "mcp" => Protocol::Mcp,
            _ => return Err(unreadable("protocol".to_owned())),
        },
        upstream: Upstream::parse(&stored.base_url).map_err(|error| unreadable(error.to_string()))?,
        path_prefix: stored.path_prefix,
        auth_mode: AuthMode::parse(&stored.auth_mode).ok_or_else(|| unreadable("auth_mode".to_owned()))?,
        auth_target: stored.auth_target,
        auth_prefix: stored.auth_prefix,
        active: stored.active,
        allow_private: stored.allow_private,
        allowed_methods: stored.allowed_methods,
        allowed_paths: stored.allowed_paths,
        upgrades: stored.upgrades,
        response_timeout: Duration::from_millis(stored.response_timeout_ms),
        max_stream: Duration::from_secs(stored.max_stream_seconds),
        extra_headers: stored.extra_headers,
        allow_set_cookie: stored.allow_set_cookie,
        forward_trace: stored.forward_trace,
        next_rotation_due_at: None,
        secret_version: u64::try_from(row.secret_version).map_err(|error| unreadable(error.to_string()))?,
    };
    let mut record = ConnectionRecord {
        settings,
        auth_secret_key: stored.auth_secret_key,
        credential_keys: stored.credential_keys,
        rotation_interval_days: stored.rotation_interval_days,
        mcp: stored.mcp.map(|mcp| McpSettings {
            endpoint: mcp.endpoint,
            policy: decode_policy(mcp.policy),
            subjects: mcp.subjects.into_iter().map(|(name, policy)| (name, decode_policy(policy))).collect(),
        }),
        created_at: UnixMillis(stored.created_at_ms),
        updated_at: UnixMillis(stored.updated_at_ms),
        last_rotated_at: stored.last_rotated_at_ms.map(UnixMillis),
        secrets_lost: row.lost,
    };
    record.settings.next_rotation_due_at = record.rotation_due();
    Ok(record)
}

/// Members of the admin API in which two rows of one connection differ, the time of the change left out.
pub fn changed(old: &ConnectionRow, new: &ConnectionRow) -> Vec<String> {
    let flat = |row: &ConnectionRow| {
        let mut members = Vec::new();
        flatten("", serde_json::from_str(&row.record).unwrap_or_default(), &mut members);
        members
    };
    let old = flat(old);
    let differing = flat(new).into_iter().filter(|member| !old.contains(member));
    differing.map(|(name, _)| name).filter(|name| name != "updated_at_ms").collect()
}

/// The members of a record under their names in the admin API.
fn flatten(within: &str, value: serde_json::Value, members: &mut Vec<(String, serde_json::Value)>) {
    match (within, value) {
        ("" | "mcp" | "mcp.policy", serde_json::Value::Object(all)) => {
            for (name, value) in all {
                let path = if within.is_empty() { name } else { format!("{within}.{name}") };
                flatten(&path, value, members);
            }
        }
        (path, value) => {
            let name = match path {
                "active" => "status",
                "auth_target" => "auth_header_name",
                "mcp.endpoint" => "mcp_endpoint",
                "mcp.policy.allow" => "mcp_tool_allowlist",
                "mcp.policy.deny" => "mcp_tool_denylist",
                "mcp.policy.max_tools" => "mcp_max_tools_exposed",
                "mcp.subjects" => "mcp_subject_tool_policies",
                same => same,
            };
            members.push((name.to_owned(), value));
        }
    }
}

fn encode_policy(policy: &ToolPolicy) -> StoredPolicy {
    StoredPolicy { allow: policy.allow.clone(), deny: policy.deny.clone(), max_tools: policy.max_tools }
}

fn decode_policy(policy: StoredPolicy) -> ToolPolicy {
    ToolPolicy { allow: policy.allow, deny: policy.deny, max_tools: policy.max_tools }
}

/// Secrets as the plaintext of a seal: each name and value with its length in front (big-endian, 32 bits).
/// Not JSON: its escaping would leave copies of secrets in buffers nobody wipes.
pub fn encode_secrets(secrets: &Secrets) -> Zeroizing<Vec<u8>> {
    let length = secrets.iter().map(|(name, secret)| 8 + name.len() + secret.expose().len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    for (name, secret) in secrets {
        for text in [name.as_str(), secret.expose()] {
            out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// The other direction; `None` where the bytes are not what [`encode_secrets`] makes.
pub fn decode_secrets(mut bytes: &[u8]) -> Option<Secrets> {
    fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        *bytes = rest;
        std::str::from_utf8(text).ok()
    }
    let mut secrets = Secrets::new();
    while !bytes.is_empty() {
        let name = text(&mut bytes)?.to_owned();
        let value = Secret::new(text(&mut bytes)?.to_owned());
        secrets.insert(name, value);
    }
    Some(secrets)
}
