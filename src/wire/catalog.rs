//! The service catalog: templates from which pages and commands offer connections. It decides nothing.
//!
//! One form for the file, for what is sent and for what is answered. Unknown members are dropped.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::io::Write;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::domain::connection::AuthMode;
use crate::domain::environment;
use crate::wire::admin::PolicyBody;
use crate::wire::admin::limit;
use crate::wire::admin::nullable;

/// The templates of a new gateway.
const DEFAULTS: &str = include_str!("catalog.json");
/// Largest text of a catalog, as it is kept and answered, in bytes: some 500 templates of 8 KiB. Gateways neither keep nor answer
/// more; whoever reads a catalog needs to read no more.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Templates of one catalog.
const MAX_SERVICES: usize = 500;
/// Entries of one list or map in a template.
const MAX_ENTRIES: usize = 64;
/// Longest text of a template, in bytes.
const MAX_TEXT: usize = 8 * 1024;

/// Why a catalog was not accepted: where, and what is wrong there. No value of it is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidCatalog(String);

/// Every template.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ServiceCatalog)]
pub struct Catalog {
    /// By default `v1`.
    #[serde(default, deserialize_with = "nullable")]
    pub version: String,
    /// In the order they are shown.
    #[serde(default, deserialize_with = "nullable")]
    pub services: Vec<Template>,
}

/// What a connection to one provider is made from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ServiceTemplate)]
pub struct Template {
    /// Names the template; unique.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(example = "github")]
    pub key: String,
    /// For people; by default the key.
    #[serde(default, deserialize_with = "nullable")]
    pub label: String,
    /// For people.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Id of the connection that is made; unique.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(example = "github-proxy")]
    pub connection_id: String,
    /// `http` (default) or `mcp`.
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: String,
    /// Absolute.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(example = "https://api.github.com")]
    pub base_url: String,
    /// Absolute; for protocol `mcp` by default the base address.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mcp_base_url: String,
    /// As of a connection, like the members up to the tool policies.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub path_prefix: String,
    /// By default `bearer`.
    #[serde(default, deserialize_with = "nullable")]
    pub auth_mode: String,
    /// Absent = the mode's own.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub auth_header_name: String,
    /// Absent = the mode's own.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub auth_prefix: String,
    /// Key of the field whose value is injected; by default the first one's.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub auth_secret_key: String,
    /// `streamable_http`; a hint on protocol `http`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mcp_transport: String,
    /// An absolute URL or a path; a hint on protocol `http`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mcp_endpoint: String,
    /// Protocol `mcp` only, like the next three.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub mcp_tool_allowlist: Vec<String>,
    /// Never these tools.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub mcp_tool_denylist: Vec<String>,
    /// At most this many tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_max_tools_exposed: Option<u32>,
    /// Tool policies by subject.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp_subject_tool_policies: BTreeMap<String, PolicyBody>,
    /// Path of a first test; by default `/`.
    #[serde(default, deserialize_with = "nullable")]
    pub default_test_path: String,
    /// Method of a first test, in letters; by default `GET`.
    #[serde(default, deserialize_with = "nullable")]
    pub default_test_method: String,
    /// Headers of a first test.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub default_test_headers: BTreeMap<String, String>,
    /// Body of a first test: a text, or JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_test_body: Option<Value>,
    /// What an owner is asked for. Protocol `http` needs one.
    #[serde(default, deserialize_with = "nullable")]
    pub credential_fields: Vec<CredentialField>,
}

/// One secret or setting an owner is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CredentialField {
    /// Name in the connection's secrets.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(example = "api_token")]
    pub key: String,
    /// For people; by default the key.
    #[serde(default, deserialize_with = "nullable")]
    pub label: String,
    /// What such a value looks like.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub placeholder: String,
    /// Variable in which people usually keep it; commands read it there. `[A-Za-z_][A-Za-z0-9_]*`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub env_var: String,
    /// Whether it is hidden while it is typed.
    #[serde(default, deserialize_with = "nullable")]
    pub secret: bool,
    /// Whether there is no connection without it.
    #[serde(default, deserialize_with = "nullable")]
    pub required: bool,
    /// Where to get it.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub help: String,
}

impl Catalog {
    /// The text of [`Self::defaults`].
    pub const fn default_text() -> &'static str {
        DEFAULTS
    }

    /// The templates of a new gateway.
    pub fn defaults() -> Self {
        // A test reads the same text.
        serde_json::from_str(DEFAULTS).unwrap_or_default()
    }

    /// The catalog with every default filled in, where it obeys the rules.
    pub fn check(mut self) -> Result<Self, InvalidCatalog> {
        trim(&mut self.version);
        or(&mut self.version, "v1");
        check_text("version", &self.version)?;
        if self.services.len() > MAX_SERVICES {
            return Err(invalid("services", &format!("more than {MAX_SERVICES}")));
        }
        let (mut keys, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for (index, template) in self.services.iter_mut().enumerate() {
            let at = format!("services[{index}]");
            template.check(&at)?;
            if !keys.insert(template.key.clone()) {
                return Err(invalid(&format!("{at}.key"), "occurs twice"));
            }
            if !ids.insert(template.connection_id.clone()) {
                return Err(invalid(&format!("{at}.connection_id"), "occurs twice"));
            }
        }
        Ok(self)
    }

    /// Whether another catalog in its place would lead a connection, or what it sends, elsewhere: a template is gone, or one of
    /// the same key has another destination. A key that the defaults have has theirs, or the one it has here.
    pub fn leads_elsewhere(&self, next: &Self) -> bool {
        let find = |catalog: &Self, key: &str| catalog.services.iter().find(|held| held.key == key).cloned();
        let defaults = Self::defaults().check().unwrap_or_default();
        let gone = self.services.iter().any(|held| find(next, &held.key).is_none());
        gone || next.services.iter().any(|template| {
            let held = find(self, &template.key).or_else(|| find(&defaults, &template.key));
            held.is_some_and(|held| !held.sends_like(template))
        })
    }

    /// Whether another catalog in its place has a template that names a variable and is neither here as it is there, nor, where
    /// its key is not here, among the defaults so: whoever imports keys on a machine would be offered that variable's value
    /// for it.
    pub fn is_led_to_variables(&self, next: &Self) -> bool {
        let defaults = Self::defaults().check().unwrap_or_default();
        next.services.iter().filter(|template| template.names_variable()).any(|template| {
            let of_key = |catalog: &Self| catalog.services.iter().find(|held| held.key == template.key).cloned();
            of_key(self).or_else(|| of_key(&defaults)).as_ref() != Some(template)
        })
    }

    /// The text of the file and of an answer, ended by a line feed; refused where it has more than [`MAX_BYTES`]. Laid out a
    /// deeply nested body takes a hundred times what it came in, so no more than that is written of it either.
    pub fn text(&self) -> Result<String, InvalidCatalog> {
        let mut text = Bounded(Vec::new());
        // Texts, lists and maps of texts: writing them as JSON fails for want of room alone.
        let written = serde_json::to_writer_pretty(&mut text, self).is_ok() && text.write_all(b"\n").is_ok();
        let text = if written { String::from_utf8(text.0).ok() } else { None };
        text.ok_or_else(|| invalid("services", &format!("more than {MAX_BYTES} bytes when laid out")))
    }
}

/// Takes [`MAX_BYTES`] and no more.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > MAX_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Template {
    /// Whether connections of both send the same secret, from the same place, to the same place in the same way, and are tested by
    /// the same request.
    fn sends_like(&self, other: &Self) -> bool {
        fn of(template: &Template) -> [&str; 11] {
            [
                &template.protocol,
                &template.base_url,
                &template.mcp_base_url,
                &template.mcp_endpoint,
                &template.path_prefix,
                &template.auth_mode,
                &template.auth_header_name,
                &template.auth_prefix,
                &template.auth_secret_key,
                &template.default_test_path,
                &template.default_test_method,
            ]
        }
        of(self) == of(other)
            && self
                .credential_fields
                .iter()
                .map(CredentialField::source)
                .eq(other.credential_fields.iter().map(CredentialField::source))
            && self.default_test_headers == other.default_test_headers
            && self.default_test_body == other.default_test_body
    }

    fn names_variable(&self) -> bool {
        self.credential_fields.iter().any(|field| !field.env_var.is_empty())
    }

    fn check(&mut self, at: &str) -> Result<(), InvalidCatalog> {
        let place = |name: &str| format!("{at}.{name}");
        for (name, text) in self.texts() {
            trim(text);
            check_text(&place(name), text)?;
        }
        for (name, text) in [("key", &self.key), ("connection_id", &self.connection_id), ("base_url", &self.base_url)] {
            if text.is_empty() {
                return Err(invalid(&place(name), "is missing"));
            }
        }
        let key = self.key.clone();
        or(&mut self.label, &key);
        self.protocol.make_ascii_lowercase();
        or(&mut self.protocol, "http");
        or(&mut self.auth_mode, AuthMode::Bearer.name());
        or(&mut self.default_test_path, "/");
        self.default_test_method.make_ascii_uppercase();
        or(&mut self.default_test_method, "GET");
        if AuthMode::parse(&self.auth_mode).is_none() {
            return Err(invalid(&place("auth_mode"), "must be bearer, header_key, query_param or basic"));
        }
        for (name, url) in [("base_url", &self.base_url), ("mcp_base_url", &self.mcp_base_url)] {
            if !url.is_empty() && !is_absolute(url) {
                return Err(invalid(&place(name), "must be an absolute http:// or https:// URL"));
            }
        }
        if !matches!(self.mcp_transport.as_str(), "" | "streamable_http") {
            return Err(invalid(&place("mcp_transport"), "must be streamable_http"));
        }
        self.check_fields(at)?;
        self.check_test(at)?;
        match self.protocol.as_str() {
            "http" if self.credential_fields.is_empty() => {
                Err(invalid(&place("credential_fields"), "must hold at least one for protocol http"))
            }
            "http" => {
                // Tools of something that is no MCP server.
                self.mcp_tool_allowlist.clear();
                self.mcp_tool_denylist.clear();
                self.mcp_max_tools_exposed = None;
                self.mcp_subject_tool_policies.clear();
                Ok(())
            }
            "mcp" => {
                let base = self.base_url.clone();
                or(&mut self.mcp_base_url, &base);
                or(&mut self.mcp_transport, "streamable_http");
                or(&mut self.mcp_endpoint, "/");
                self.check_tools(at)
            }
            _ => Err(invalid(&place("protocol"), "must be http or mcp")),
        }
    }

    fn texts(&mut self) -> [(&'static str, &mut String); 15] {
        [
            ("key", &mut self.key),
            ("label", &mut self.label),
            ("description", &mut self.description),
            ("connection_id", &mut self.connection_id),
            ("protocol", &mut self.protocol),
            ("base_url", &mut self.base_url),
            ("mcp_base_url", &mut self.mcp_base_url),
            ("path_prefix", &mut self.path_prefix),
            ("auth_mode", &mut self.auth_mode),
            ("auth_header_name", &mut self.auth_header_name),
            ("auth_secret_key", &mut self.auth_secret_key),
            ("mcp_transport", &mut self.mcp_transport),
            ("mcp_endpoint", &mut self.mcp_endpoint),
            ("default_test_path", &mut self.default_test_path),
            ("default_test_method", &mut self.default_test_method),
        ]
    }

    fn check_fields(&mut self, at: &str) -> Result<(), InvalidCatalog> {
        if self.credential_fields.len() > MAX_ENTRIES {
            return Err(invalid(&format!("{at}.credential_fields"), &format!("more than {MAX_ENTRIES}")));
        }
        // A blank at its end belongs to a prefix.
        check_text(&format!("{at}.auth_prefix"), &self.auth_prefix)?;
        let mut keys = BTreeSet::new();
        for (index, field) in self.credential_fields.iter_mut().enumerate() {
            let at = format!("{at}.credential_fields[{index}]");
            for (name, text) in [
                ("key", &mut field.key),
                ("label", &mut field.label),
                ("placeholder", &mut field.placeholder),
                ("env_var", &mut field.env_var),
                ("help", &mut field.help),
            ] {
                trim(text);
                check_text(&format!("{at}.{name}"), text)?;
            }
            if field.key.is_empty() {
                return Err(invalid(&format!("{at}.key"), "is missing"));
            }
            if !keys.insert(field.key.clone()) {
                return Err(invalid(&format!("{at}.key"), "occurs twice"));
            }
            if !field.env_var.is_empty() && !environment::is_name(&field.env_var) {
                return Err(invalid(&format!("{at}.env_var"), "must be the name of a variable"));
            }
            or(&mut field.label, &field.key);
        }
        let first = self.credential_fields.first().map(|field| field.key.clone()).unwrap_or_default();
        or(&mut self.auth_secret_key, &first);
        if !self.auth_secret_key.is_empty() && !keys.contains(&self.auth_secret_key) {
            return Err(invalid(&format!("{at}.auth_secret_key"), "names no credential field"));
        }
        Ok(())
    }

    fn check_test(&mut self, at: &str) -> Result<(), InvalidCatalog> {
        // RFC 9110, 9.1: a token. Those in use have nothing but letters, and a shell takes them as they are.
        if !self.default_test_method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(invalid(&format!("{at}.default_test_method"), "must be a method of letters"));
        }
        let at = format!("{at}.default_test_headers");
        if self.default_test_headers.len() > MAX_ENTRIES {
            return Err(invalid(&at, &format!("more than {MAX_ENTRIES}")));
        }
        for (name, value) in &self.default_test_headers {
            check_text(&at, name)?;
            check_text(&at, value)?;
        }
        self.default_test_body.take_if(|body| body.is_null() || body == "");
        Ok(())
    }

    fn check_tools(&mut self, at: &str) -> Result<(), InvalidCatalog> {
        let mut policies = BTreeMap::new();
        for (subject, mut policy) in std::mem::take(&mut self.mcp_subject_tool_policies) {
            let place = format!("{at}.mcp_subject_tool_policies");
            let subject = subject.trim().to_owned();
            if subject.is_empty() {
                return Err(invalid(&place, "a subject is blank"));
            }
            check_text(&place, &subject)?;
            clean(&place, &mut policy.allowlist)?;
            clean(&place, &mut policy.denylist)?;
            policy.max_tools_exposed = limit(policy.max_tools_exposed);
            policies.insert(subject, policy);
        }
        if policies.len() > MAX_ENTRIES {
            return Err(invalid(&format!("{at}.mcp_subject_tool_policies"), &format!("more than {MAX_ENTRIES}")));
        }
        self.mcp_subject_tool_policies = policies;
        self.mcp_max_tools_exposed = limit(self.mcp_max_tools_exposed);
        clean(&format!("{at}.mcp_tool_allowlist"), &mut self.mcp_tool_allowlist)?;
        clean(&format!("{at}.mcp_tool_denylist"), &mut self.mcp_tool_denylist)
    }
}

impl CredentialField {
    /// What a command takes, from where, whether it must, and whether what is typed shows.
    fn source(&self) -> (&str, &str, bool, bool) {
        (&self.key, &self.env_var, self.required, self.secret)
    }
}

/// Trimmed, without blanks and doubles, sorted.
fn clean(place: &str, list: &mut Vec<String>) -> Result<(), InvalidCatalog> {
    list.iter_mut().for_each(trim);
    list.retain(|entry| !entry.is_empty());
    list.sort();
    list.dedup();
    if list.len() > MAX_ENTRIES {
        return Err(invalid(place, &format!("more than {MAX_ENTRIES}")));
    }
    list.iter().try_for_each(|entry| check_text(place, entry))
}

fn is_absolute(url: &str) -> bool {
    let lower = url.to_ascii_lowercase();
    let rest = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

fn check_text(place: &str, text: &str) -> Result<(), InvalidCatalog> {
    if text.len() > MAX_TEXT {
        return Err(invalid(place, &format!("has more than {MAX_TEXT} bytes")));
    }
    if text.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t')) {
        return Err(invalid(place, "contains control characters"));
    }
    Ok(())
}

fn trim(text: &mut String) {
    let trimmed = text.trim();
    if trimmed.len() < text.len() {
        *text = trimmed.to_owned();
    }
}

fn or(text: &mut String, default: &str) {
    if text.is_empty() {
        default.clone_into(text);
    }
}

fn invalid(place: &str, reason: &str) -> InvalidCatalog {
    InvalidCatalog(format!("{place}: {reason}"))
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
