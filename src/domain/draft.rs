//! What an owner asks for, before it is checked: made from a create body or from a record and a patch, so
//! that both obey the same rules.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use http::Method;

use crate::domain::address::AddressPolicy;
use crate::domain::address::check_host;
use crate::domain::connection::AuthMode;
use crate::domain::connection::ConnectionSettings;
use crate::domain::connection::DEFAULT_MAX_STREAM;
use crate::domain::connection::DEFAULT_RESPONSE_TIMEOUT;
use crate::domain::connection::InvalidConnection;
use crate::domain::connection::MAX_LIST_ENTRIES;
use crate::domain::connection::MAX_TEXT_BYTES;
use crate::domain::connection::Protocol;
use crate::domain::connection::Upstream;
use crate::domain::ids::ConnectionId;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::McpSettings;
use crate::domain::record::ToolPolicy;

/// The members of connections of protocol `mcp`, by their names in the admin API, in the catalog and in `gateway.yaml`.
pub const MCP_MEMBERS: [&str; 6] = [
    "mcp_transport",
    "mcp_endpoint",
    "mcp_tool_allowlist",
    "mcp_tool_denylist",
    "mcp_max_tools_exposed",
    "mcp_subject_tool_policies",
];

/// Longest display name, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Longest prefix or parameter name, in bytes.
const MAX_AUTH_TEXT_BYTES: usize = 256;
/// Longest time to response headers an owner may ask for.
pub const MAX_RESPONSE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Longest stream an owner may ask for: a week.
pub const MAX_STREAM: Duration = Duration::from_secs(7 * 86_400);
/// Longest rotation interval, in days: a century.
pub const MAX_ROTATION_DAYS: i64 = 36_500;

/// Headers that belong to the connection itself, to us or to Envoy: nobody else sets them upstream.
const RESERVED_HEADERS: [&str; 19] = [
    "host",
    "connection",
    "keep-alive",
    "content-length",
    "content-encoding",
    "content-type",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-connection",
    "proxy-authenticate",
    "forwarded",
    "via",
    "signature",
    "signature-input",
    "content-digest",
    "x-request-id",
];
/// The same, by prefix.
const RESERVED_PREFIXES: [&str; 4] = ["x-envoy-", "x-sigilum-", "sigilum-", "x-forwarded-"];

/// Unchecked fields of a connection. Texts are as the owner wrote them; `None` = the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the JSON member of the same name (admin API)")]
pub struct Draft {
    pub id: String,
    pub name: String,
    pub protocol: String,
    pub base_url: String,
    pub path_prefix: String,
    pub auth_mode: String,
    pub auth_header_name: Option<String>,
    pub auth_prefix: Option<String>,
    pub auth_secret_key: String,
    pub disabled: bool,
    pub allow_private: bool,
    pub allowed_methods: Vec<String>,
    pub allowed_paths: Vec<String>,
    pub upgrades: Vec<String>,
    pub response_timeout_ms: Option<u64>,
    pub max_stream_seconds: Option<u64>,
    pub extra_headers: BTreeMap<String, String>,
    pub allow_set_cookie: bool,
    pub forward_trace: bool,
    pub rotation_interval_days: i64,
    pub mcp_transport: String,
    pub mcp_endpoint: String,
    pub mcp_policy: ToolPolicy,
    pub mcp_subjects: BTreeMap<String, ToolPolicy>,
}

/// A draft that obeys the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedDraft {
    /// With secret version 1 and no rotation due; whoever stores it sets both.
    pub settings: ConnectionSettings,
    /// Which secret is to be injected.
    pub auth_secret_key: Option<String>,
    /// Days; 0 = no rotation.
    pub rotation_interval_days: u32,
    /// MCP connections only.
    pub mcp: Option<McpSettings>,
}

impl Draft {
    /// The draft that checks to this very record.
    pub fn from_record(record: &ConnectionRecord) -> Self {
        let settings = &record.settings;
        let mcp = record.mcp.clone().unwrap_or_default();
        Self {
            id: settings.id.as_str().to_owned(),
            name: settings.name.clone(),
            protocol: settings.protocol.name().to_owned(),
            base_url: settings.upstream.base_url(),
            path_prefix: settings.path_prefix.clone(),
            auth_mode: settings.auth_mode.name().to_owned(),
            auth_header_name: Some(settings.auth_target.clone()),
            auth_prefix: Some(settings.auth_prefix.clone()),
            auth_secret_key: record.auth_secret_key.clone().unwrap_or_default(),
            disabled: !settings.active,
            allow_private: settings.allow_private,
            allowed_methods: settings.allowed_methods.clone(),
            allowed_paths: settings.allowed_paths.clone(),
            upgrades: settings.upgrades.clone(),
            response_timeout_ms: u64::try_from(settings.response_timeout.as_millis()).ok(),
            max_stream_seconds: Some(settings.max_stream.as_secs()),
            extra_headers: settings.extra_headers.clone(),
            allow_set_cookie: settings.allow_set_cookie,
            forward_trace: settings.forward_trace,
            rotation_interval_days: i64::from(record.rotation_interval_days),
            mcp_transport: String::new(),
            mcp_endpoint: mcp.endpoint,
            mcp_policy: mcp.policy,
            mcp_subjects: mcp.subjects,
        }
    }

    /// Checks every field. `policy` says which upstream addresses are allowed; the connection's own
    /// `allow_private` adds to it.
    pub fn check(self, policy: &AddressPolicy) -> Result<CheckedDraft, InvalidConnection> {
        let id = match self.id.trim() {
            "" => slug_of(&self.name),
            given => given.to_owned(),
        };
        let id = ConnectionId::parse(&id).map_err(|error| invalid("id", error.to_string()))?;
        let name = match self.name.trim() {
            "" => id.as_str().to_owned(),
            given => given.to_owned(),
        };
        check_text("name", &name, MAX_NAME_BYTES)?;
        let protocol = match self.protocol.trim().to_ascii_lowercase().as_str() {
            "" | "http" => Protocol::Http,
            "mcp" => Protocol::Mcp,
            _ => return Err(invalid("protocol", "must be http or mcp")),
        };
        let policy = AddressPolicy { allow_private: policy.allow_private || self.allow_private, ..policy.clone() };
        let upstream = check_upstream("base_url", &self.base_url, &policy)?;
        let auth_mode = match self.auth_mode.as_str() {
            "" => AuthMode::Bearer,
            given => AuthMode::parse(given)
                .ok_or_else(|| invalid("auth_mode", "must be bearer, header_key, query_param or basic"))?,
        };
        let auth_target = check_target(auth_mode, self.auth_header_name.as_deref())?;
        let auth_prefix = match self.auth_prefix.as_deref() {
            None | Some("") => auth_mode.default_prefix().to_owned(),
            Some(given) => given.to_owned(),
        };
        check_text("auth_prefix", &auth_prefix, MAX_AUTH_TEXT_BYTES)?;
        let auth_secret_key = Some(self.auth_secret_key.trim().to_owned()).filter(|key| !key.is_empty());
        if protocol == Protocol::Http && auth_secret_key.is_none() {
            return Err(invalid("auth_secret_key", "is required: it names the secret to inject"));
        }
        let rotation_interval_days = u32::try_from(self.rotation_interval_days)
            .ok()
            .filter(|_| self.rotation_interval_days <= MAX_ROTATION_DAYS)
            .ok_or_else(|| invalid("rotation_interval_days", format!("must be 0 to {MAX_ROTATION_DAYS}")))?;
        let mcp = self.check_mcp(protocol, &policy)?;
        let settings = ConnectionSettings {
            id,
            name,
            protocol,
            upstream,
            path_prefix: check_prefix(&self.path_prefix)?,
            auth_mode,
            extra_headers: check_headers(self.extra_headers, auth_mode, &auth_target)?,
            auth_target,
            auth_prefix,
            active: !self.disabled,
            allow_private: self.allow_private,
            allowed_methods: check_methods(self.allowed_methods)?,
            allowed_paths: check_paths(self.allowed_paths)?,
            upgrades: check_upgrades(self.upgrades)?,
            response_timeout: within(
                "response_timeout_ms",
                self.response_timeout_ms.map(Duration::from_millis),
                DEFAULT_RESPONSE_TIMEOUT,
                MAX_RESPONSE_TIMEOUT,
            )?,
            max_stream: within(
                "max_stream_seconds",
                self.max_stream_seconds.map(Duration::from_secs),
                DEFAULT_MAX_STREAM,
                MAX_STREAM,
            )?,
            allow_set_cookie: self.allow_set_cookie,
            forward_trace: self.forward_trace,
            next_rotation_due_at: None,
            secret_version: 1,
        };
        Ok(CheckedDraft { settings, auth_secret_key, rotation_interval_days, mcp })
    }

    fn check_mcp(&self, protocol: Protocol, policy: &AddressPolicy) -> Result<Option<McpSettings>, InvalidConnection> {
        if protocol == Protocol::Http {
            let unused = self.mcp_transport.is_empty()
                && self.mcp_endpoint.is_empty()
                && self.mcp_policy == ToolPolicy::default()
                && self.mcp_subjects.is_empty();
            return if unused { Ok(None) } else { Err(invalid("mcp_*", "belongs to connections of protocol mcp")) };
        }
        if !matches!(self.mcp_transport.trim(), "" | "streamable_http") {
            return Err(invalid("mcp_transport", "must be streamable_http"));
        }
        let endpoint = check_endpoint(&self.mcp_endpoint, policy)?;
        if self.mcp_subjects.len() > MAX_LIST_ENTRIES {
            return Err(invalid("mcp_subject_tool_policies", too_many()));
        }
        let mut subjects = BTreeMap::new();
        for (subject, tools) in &self.mcp_subjects {
            let subject = subject.trim();
            if subject.is_empty() {
                return Err(invalid("mcp_subject_tool_policies", "a subject is blank"));
            }
            check_text("mcp_subject_tool_policies", subject, MAX_NAME_BYTES)?;
            subjects.insert(subject.to_owned(), check_tools(tools)?);
        }
        Ok(Some(McpSettings { endpoint, policy: check_tools(&self.mcp_policy)?, subjects }))
    }
}

fn invalid(field: &'static str, reason: impl Into<String>) -> InvalidConnection {
    InvalidConnection::Field { field, reason: reason.into() }
}

fn too_many() -> String {
    format!("has more than {MAX_LIST_ENTRIES} entries")
}

/// Lower case; runs of anything but `a-z0-9` become one `-`; edges trimmed.
fn slug_of(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for character in name.chars().flat_map(char::to_lowercase) {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            slug.push(character);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_matches('-').to_owned()
}

fn check_text(field: &'static str, text: &str, limit: usize) -> Result<(), InvalidConnection> {
    if text.len() > limit {
        return Err(invalid(field, format!("has more than {limit} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "contains control characters"));
    }
    Ok(())
}

fn check_upstream(field: &'static str, url: &str, policy: &AddressPolicy) -> Result<Upstream, InvalidConnection> {
    let upstream = Upstream::parse(url)?;
    check_host(upstream.host(), upstream.port(), policy)
        .map_err(|refused| invalid(field, format!("{} {refused}", upstream.host())))?;
    Ok(upstream)
}

/// An absolute URL, whose query belongs to the server, or a path with or without one.
fn check_endpoint(given: &str, policy: &AddressPolicy) -> Result<String, InvalidConnection> {
    const FIELD: &str = "mcp_endpoint";
    let given = given.trim();
    check_text(FIELD, given, MAX_TEXT_BYTES)?;
    let (place, query) = given.split_at(given.find('?').unwrap_or(given.len()));
    if query.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(invalid(FIELD, "may hold visible ASCII characters only, and no #"));
    }
    if place.contains("://") {
        check_upstream(FIELD, place, policy).map_err(|error| match error {
            InvalidConnection::BaseUrl(reason) => invalid(FIELD, format!("is no absolute URL: {reason}")),
            error @ (InvalidConnection::Field { .. }
            | InvalidConnection::SecretCharacters
            | InvalidConnection::SecretEmpty) => error,
        })?;
        return Ok(format!("{}{query}", place.trim_end_matches('/')));
    }
    let bare = place.trim_matches('/');
    check_path(FIELD, bare)?;
    Ok(format!("/{bare}{query}"))
}

fn check_target(mode: AuthMode, given: Option<&str>) -> Result<String, InvalidConnection> {
    const FIELD: &str = "auth_header_name";
    let target = match given.map(str::trim) {
        None | Some("") => mode.default_target(),
        Some(given) => given,
    };
    check_text(FIELD, target, MAX_AUTH_TEXT_BYTES)?;
    if mode != AuthMode::QueryParam {
        check_header_name(FIELD, target)?;
    }
    Ok(target.to_owned())
}

/// Whether a header belongs to the connection itself, to us or to Envoy.
pub fn is_reserved(name: &HeaderName) -> bool {
    RESERVED_HEADERS.contains(&name.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// The name in lower case, where it is one that may be set upstream.
fn check_header_name(field: &'static str, name: &str) -> Result<String, InvalidConnection> {
    let name = HeaderName::try_from(name).map_err(|_| invalid(field, "is not a header name"))?;
    if is_reserved(&name) {
        return Err(invalid(field, format!("{name} is set by the gateway and cannot be chosen")));
    }
    Ok(name.as_str().to_owned())
}

fn check_headers(
    headers: BTreeMap<String, String>,
    mode: AuthMode,
    auth_target: &str,
) -> Result<BTreeMap<String, String>, InvalidConnection> {
    const FIELD: &str = "extra_headers";
    if headers.len() > MAX_LIST_ENTRIES {
        return Err(invalid(FIELD, too_many()));
    }
    let mut checked = BTreeMap::new();
    for (name, value) in headers {
        let name = check_header_name(FIELD, name.trim())?;
        let credential = mode != AuthMode::QueryParam && name.eq_ignore_ascii_case(auth_target);
        if credential || matches!(name.as_str(), "authorization" | "proxy-authorization" | "cookie") {
            return Err(invalid(FIELD, format!("{name} carries a credential; put it into secrets")));
        }
        check_text(FIELD, &value, MAX_TEXT_BYTES)?;
        if HeaderValue::from_str(&value).is_err() || !value.is_ascii() {
            return Err(invalid(FIELD, format!("the value of {name} cannot be carried by a header")));
        }
        if checked.insert(name.clone(), value.trim().to_owned()).is_some() {
            return Err(invalid(FIELD, format!("{name} occurs twice")));
        }
    }
    Ok(checked)
}

/// Whether a path, as written, stays where it points: no dot segments, escapes of them, queries or blanks.
fn check_path(field: &'static str, path: &str) -> Result<(), InvalidConnection> {
    check_text(field, path, MAX_TEXT_BYTES)?;
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains(['?', '#', '\\']) {
        return Err(invalid(field, "may hold visible ASCII characters only, and none of ? # \\"));
    }
    let lower = path.to_ascii_lowercase();
    let dots = lower.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")));
    if dots || ["%2e", "%5c", "%00"].iter().any(|escape| lower.contains(escape)) {
        return Err(invalid(field, "must not contain dot segments or their escapes"));
    }
    Ok(())
}

fn check_prefix(prefix: &str) -> Result<String, InvalidConnection> {
    let bare = prefix.trim().trim_matches('/');
    check_path("path_prefix", bare)?;
    Ok(if bare.is_empty() { String::new() } else { format!("/{bare}") })
}

fn check_paths(paths: Vec<String>) -> Result<Vec<String>, InvalidConnection> {
    const FIELD: &str = "allowed_paths";
    if paths.len() > MAX_LIST_ENTRIES {
        return Err(invalid(FIELD, too_many()));
    }
    for path in &paths {
        check_path(FIELD, path)?;
        if !path.starts_with('/') {
            return Err(invalid(FIELD, "each must begin with /"));
        }
    }
    Ok(paths)
}

fn check_methods(methods: Vec<String>) -> Result<Vec<String>, InvalidConnection> {
    const FIELD: &str = "allowed_methods";
    if methods.len() > MAX_LIST_ENTRIES {
        return Err(invalid(FIELD, too_many()));
    }
    let mut checked = Vec::with_capacity(methods.len());
    for method in methods {
        let method = method.trim().to_ascii_uppercase();
        if method.len() > 32 || Method::from_bytes(method.as_bytes()).is_err() {
            return Err(invalid(FIELD, "holds something that is not a method"));
        }
        if matches!(method.as_str(), "CONNECT" | "TRACE") {
            return Err(invalid(FIELD, format!("{method} is never forwarded")));
        }
        if !checked.contains(&method) {
            checked.push(method);
        }
    }
    Ok(checked)
}

fn check_upgrades(upgrades: Vec<String>) -> Result<Vec<String>, InvalidConnection> {
    let mut checked: Vec<String> = upgrades.iter().map(|upgrade| upgrade.trim().to_ascii_lowercase()).collect();
    checked.dedup();
    if checked.iter().any(|upgrade| upgrade != "websocket") {
        return Err(invalid("upgrades", "only websocket is known"));
    }
    Ok(checked)
}

fn within(
    field: &'static str,
    given: Option<Duration>,
    default: Duration,
    most: Duration,
) -> Result<Duration, InvalidConnection> {
    let chosen = given.unwrap_or(default);
    if chosen.is_zero() || chosen > most {
        return Err(invalid(field, "is out of range"));
    }
    Ok(chosen)
}

fn check_tools(policy: &ToolPolicy) -> Result<ToolPolicy, InvalidConnection> {
    Ok(ToolPolicy { allow: clean_list(&policy.allow)?, deny: clean_list(&policy.deny)?, max_tools: policy.max_tools })
}

/// Trimmed, without blanks and doubles, sorted.
fn clean_list(list: &[String]) -> Result<Vec<String>, InvalidConnection> {
    const FIELD: &str = "mcp tool list";
    if list.len() > MAX_LIST_ENTRIES {
        return Err(invalid(FIELD, too_many()));
    }
    let mut clean = Vec::with_capacity(list.len());
    for entry in list.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty()) {
        check_text(FIELD, entry, MAX_NAME_BYTES)?;
        clean.push(entry.to_owned());
    }
    clean.sort();
    clean.dedup();
    Ok(clean)
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
