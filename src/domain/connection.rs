//! A connection: one provider, how to reach it, and the credential to inject. An invalid one cannot be built.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::HeaderValue;
use http::Uri;
use zeroize::Zeroizing;

use crate::domain::ids::ConnectionId;
use crate::domain::route;
use crate::domain::secret::Secret;
use crate::domain::time::UnixSeconds;

/// Time to the provider's response headers where a connection says nothing.
pub const DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);
/// Length of a whole stream where a connection says nothing.
pub const DEFAULT_MAX_STREAM: Duration = Duration::from_secs(3600);
/// How many list entries (methods, paths, headers) one connection may carry.
pub const MAX_LIST_ENTRIES: usize = 64;
/// Longest text field, in bytes.
pub const MAX_TEXT_BYTES: usize = 2048;
/// Why a connection cannot be used whose secrets went with a lost master key.
pub const SECRETS_LOST: &str = "its secrets were lost with the master key and must be given again";

/// Where and in which form the credential is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// A header (default `Authorization`), default prefix `Bearer `.
    Bearer,
    /// A header of any name, no default prefix.
    HeaderKey,
    /// A query parameter (default `api_key`).
    QueryParam,
    /// `Authorization: Basic base64(user:password)`; the secret is `user:password` (RFC 7617).
    Basic,
}

impl AuthMode {
    /// Reads the name used in JSON: `bearer`, `header_key`, `query_param`, `basic`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "bearer" => Some(Self::Bearer),
            "header_key" => Some(Self::HeaderKey),
            "query_param" => Some(Self::QueryParam),
            "basic" => Some(Self::Basic),
            _ => None,
        }
    }

    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::HeaderKey => "header_key",
            Self::QueryParam => "query_param",
            Self::Basic => "basic",
        }
    }

    /// Header or parameter name where none is given.
    pub const fn default_target(self) -> &'static str {
        match self {
            Self::Bearer | Self::HeaderKey | Self::Basic => "Authorization",
            Self::QueryParam => "api_key",
        }
    }

    /// Prefix where none is given.
    pub const fn default_prefix(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer ",
            Self::Basic => "Basic ",
            Self::HeaderKey | Self::QueryParam => "",
        }
    }
}

/// What the provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Plain HTTP requests, forwarded as they are.
    Http,
    /// A Model Context Protocol server; its runtime is not part of the proxy path.
    Mcp,
}

impl Protocol {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mcp => "mcp",
        }
    }
}

/// Everything about a connection but its secret, as its owner wrote it and we checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Slug; also the service name of its approvals.
    pub id: ConnectionId,
    /// For people.
    pub name: String,
    /// What the provider speaks.
    pub protocol: Protocol,
    /// Where it is: scheme, authority, base path.
    pub upstream: Upstream,
    /// Put between the base path and the rest; empty or `/…` without a trailing slash.
    pub path_prefix: String,
    /// How the credential is injected.
    pub auth_mode: AuthMode,
    /// Header or parameter that carries it.
    pub auth_target: String,
    /// Text before the secret in the injected value.
    pub auth_prefix: String,
    /// Disabled connections answer 400.
    pub active: bool,
    /// Whether the provider may live on a private address (RFC 1918, RFC 4193, RFC 6598).
    pub allow_private: bool,
    /// Upper-case methods; empty = all.
    pub allowed_methods: Vec<String>,
    /// Prefixes of the remainder, each beginning with `/`; empty = all.
    pub allowed_paths: Vec<String>,
    /// Protocols a request may upgrade to; only `websocket` is known.
    pub upgrades: Vec<String>,
    /// To the provider's response headers.
    pub response_timeout: Duration,
    /// The whole stream.
    pub max_stream: Duration,
    /// Added to every request to the provider; names are lower case. Not for secrets.
    pub extra_headers: BTreeMap<String, String>,
    /// Whether the provider's `set-cookie` reaches the agent.
    pub allow_set_cookie: bool,
    /// Whether `traceparent` and `tracestate` reach the provider.
    pub forward_trace: bool,
    /// When the secret should have been replaced.
    pub next_rotation_due_at: Option<UnixSeconds>,
    /// Counts the secrets this connection has had, from 1.
    pub secret_version: u64,
}

/// The address of a provider, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host and, where it is not the default, port: the `:authority` sent upstream. Lower case.
    pub authority: String,
    /// Empty, or `/…` without a trailing slash, as written.
    pub base_path: String,
}

/// Why a connection's settings or secret were not accepted. The texts are for its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConnection {
    /// The base address is not an absolute http or https URL without user, query and fragment.
    #[error("base_url must be an absolute http:// or https:// URL without user, query or fragment: {0}")]
    BaseUrl(&'static str),
    /// A header name or parameter name that HTTP does not allow, or that is ours.
    #[error("{field}: {reason}")]
    Field {
        /// Which field, by its JSON name.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The secret cannot be written into a header.
    #[error("the secret contains characters that an HTTP header cannot carry")]
    SecretCharacters,
    /// The secret is empty once its prefix is gone.
    #[error("the secret is empty")]
    SecretEmpty,
}

impl Upstream {
    /// Takes a base address apart. The port must be 1 to 65535, dot segments in the path are refused.
    pub fn parse(base_url: &str) -> Result<Self, InvalidConnection> {
        let text = base_url.trim();
        if text.len() > MAX_TEXT_BYTES {
            return Err(InvalidConnection::BaseUrl("too long"));
        }
        if text.contains(['#', '\\']) || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(InvalidConnection::BaseUrl("forbidden character"));
        }
        let uri: Uri = text.parse().map_err(|_| InvalidConnection::BaseUrl("not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(InvalidConnection::BaseUrl("scheme")),
        };
        let authority = uri.authority().ok_or(InvalidConnection::BaseUrl("host"))?;
        if authority.as_str().contains('@') {
            return Err(InvalidConnection::BaseUrl("user information"));
        }
        if uri.query().is_some() {
            return Err(InvalidConnection::BaseUrl("query"));
        }
        let host = authority.host();
        if host.is_empty() || host.ends_with('.') && host.len() == 1 {
            return Err(InvalidConnection::BaseUrl("host"));
        }
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => None,
            Some(rest) => match rest.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
                Some(port) if port > 0 => Some(port),
                Some(_) | None => return Err(InvalidConnection::BaseUrl("port")),
            },
            None => return Err(InvalidConnection::BaseUrl("host")),
        };
        let path = uri.path().trim_end_matches('/');
        if path.split('/').any(|segment| matches!(segment, "." | "..")) || path.to_ascii_lowercase().contains("%2e") {
            return Err(InvalidConnection::BaseUrl("dot segment in the path"));
        }
        let default_port = if tls { 443 } else { 80 };
        let host = host.to_ascii_lowercase();
        Ok(Self {
            tls,
            authority: match port {
                Some(port) if port != default_port => format!("{host}:{port}"),
                Some(_) | None => host,
            },
            base_path: path.to_owned(),
        })
    }

    /// The address as one text, without a trailing slash.
    pub fn base_url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.base_path)
    }

    /// Host without port and without the brackets of an IPv6 literal.
    pub fn host(&self) -> &str {
        let without_port = match self.authority.rfind(':') {
            Some(at) if !self.authority.ends_with(']') => self.authority.get(..at).unwrap_or_default(),
            Some(_) | None => &self.authority,
        };
        without_port.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, given or implied.
    pub fn port(&self) -> u16 {
        let implied = if self.tls { 443 } else { 80 };
        self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(implied)
    }
}

/// What is injected, made once when a connection is loaded and not per request.
#[derive(Debug)]
pub enum Credential {
    /// A header and its whole value.
    Header {
        /// Lower-case name.
        name: HeaderName,
        /// Prefix and secret.
        value: Secret,
    },
    /// A query parameter: percent-encoded text ready to be appended.
    Query {
        /// The decoded name.
        name: String,
        /// `name=value`, both percent-encoded.
        pair: Secret,
    },
}

/// A connection that can be used: settings with the credential that belongs to them.
#[derive(Debug)]
pub struct Connection {
    /// What its owner wrote.
    pub settings: ConnectionSettings,
    /// The credential; `Err` holds why it cannot be used (never the secret).
    pub credential: Result<Credential, String>,
}

impl Connection {
    /// Joins settings and secret. A secret that cannot be injected leaves a connection that answers
    /// 400, so that one bad record does not hold up the others.
    pub fn new(settings: ConnectionSettings, secret: Result<&Secret, String>) -> Arc<Self> {
        let credential =
            secret.and_then(|secret| Credential::build(&settings, secret).map_err(|error| error.to_string()));
        Arc::new(Self { settings, credential })
    }
}

impl Credential {
    /// Builds what is injected: the secret is trimmed, loses the configured prefix and then `Bearer `
    /// where they stand before a blank, and gets the configured prefix in front.
    pub fn build(settings: &ConnectionSettings, secret: &Secret) -> Result<Self, InvalidConnection> {
        let bare = strip_prefix(strip_prefix(secret.expose().trim(), &settings.auth_prefix), "Bearer");
        if bare.is_empty() {
            return Err(InvalidConnection::SecretEmpty);
        }
        let value = match settings.auth_mode {
            AuthMode::Bearer | AuthMode::HeaderKey | AuthMode::QueryParam => format!("{}{bare}", settings.auth_prefix),
            // Somebody may paste the encoded pair; a colon tells the two apart, base64 has none.
            AuthMode::Basic if bare.contains(':') => format!("{}{}", settings.auth_prefix, STANDARD.encode(bare)),
            AuthMode::Basic => format!("{}{bare}", settings.auth_prefix),
        };
        match settings.auth_mode {
            AuthMode::Bearer | AuthMode::HeaderKey | AuthMode::Basic => {
                if HeaderValue::from_str(&value).is_err() {
                    return Err(InvalidConnection::SecretCharacters);
                }
                let name = HeaderName::try_from(settings.auth_target.as_str()).map_err(|error| {
                    InvalidConnection::Field { field: "auth_header_name", reason: error.to_string() }
                })?;
                Ok(Self::Header { name, value: Secret::new(value) })
            }
            AuthMode::QueryParam => {
                let pair = format!("{}={}", encode_query(&settings.auth_target), encode_query(&value));
                Ok(Self::Query { name: settings.auth_target.clone(), pair: Secret::new(pair) })
            }
        }
    }
}

impl Credential {
    /// What may not be repeated to anybody: the secret without its prefix, and the parts of a user and password.
    pub fn unspeakable(&self, settings: &ConnectionSettings) -> Vec<Secret> {
        let value = match self {
            Self::Header { value, .. } => value.duplicate(),
            Self::Query { pair, .. } => {
                let encoded = pair.expose().split_once('=').map_or("", |(_, value)| value);
                let mut decoded = Zeroizing::new(Vec::with_capacity(encoded.len()));
                route::decode(encoded.as_bytes(), &mut decoded);
                Secret::new(String::from_utf8_lossy(&decoded).into_owned())
            }
        };
        let bare = value.expose().strip_prefix(&settings.auth_prefix).unwrap_or(value.expose());
        let mut all = vec![Secret::new(bare.to_owned())];
        if settings.auth_mode == AuthMode::Basic
            && let Ok(pair) = STANDARD.decode(bare).map(Zeroizing::new)
            && let Ok(pair) = std::str::from_utf8(&pair)
        {
            all.push(Secret::new(pair.to_owned()));
            all.extend(pair.split_once(':').map(|(_, password)| Secret::new(password.to_owned())));
        }
        all.retain(|secret| !secret.is_empty());
        all
    }
}

/// Removes `prefix` (blanks around it ignored, case ignored) where a space or tab follows it, or
/// where it is the whole text. A prefix glued to the token stays: it may be part of it.
fn strip_prefix<'a>(text: &'a str, prefix: &str) -> &'a str {
    let prefix = prefix.trim();
    let Some((head, rest)) = text.split_at_checked(prefix.len()) else { return text };
    if prefix.is_empty() || !head.eq_ignore_ascii_case(prefix) {
        return text;
    }
    if rest.is_empty() {
        return "";
    }
    if rest.starts_with([' ', '\t']) { rest.trim() } else { text }
}

/// Percent-encodes all but the unreserved characters of RFC 3986 section 2.3.
fn encode_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
