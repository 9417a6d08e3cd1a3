//! JSON of the admin API: what clients send, and a connection as they read it.
//!
//! Members this version does not know are ignored. Values of secrets are only ever read, never written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use utoipa::openapi::Object;
use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::Schema;
use utoipa::openapi::Type;
use utoipa::openapi::schema::SchemaType;

use crate::domain::connection::DEFAULT_MAX_STREAM;
use crate::domain::connection::DEFAULT_RESPONSE_TIMEOUT;
use crate::domain::draft::Draft;
use crate::domain::probe::LastTest;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::Secrets;
use crate::domain::record::ToolPolicy;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::wire::probe::verdict;

/// Why a body was not understood. The text names a place in the body and never a value of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    /// No body where one is needed.
    #[error("the request body is empty")]
    Empty,
    /// Not JSON, or a member of another type.
    #[error("the request body is not the JSON that is expected here (line {line}, column {column})")]
    Json {
        /// 1-based.
        line: usize,
        /// 1-based.
        column: usize,
    },
}

/// Reads a body. The parser's own message is dropped: it may quote the value it stumbled on.
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, InvalidBody> {
    match body.trim_ascii_start().first() {
        None => return Err(InvalidBody::Empty),
        Some(b'{') => {}
        // The parser would fill a struct from an array too.
        Some(_) => return Err(InvalidBody::Json { line: 1, column: 1 }),
    }
    serde_json::from_slice(body)
        .map_err(|error| InvalidBody::Json { line: error.line(), column: error.column().max(1) })
}

/// A member that may be `null`, which is its default.
pub fn nullable<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Named secrets. Each is moved into its type as it is read.
#[derive(Debug, Default)]
struct SecretsBody(Secrets);

impl<'de> Deserialize<'de> for SecretsBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text(Secret);
        impl<'de> Deserialize<'de> for Text {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Secret::new).map(Self)
            }
        }
        let texts = Option::<BTreeMap<String, Text>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(Self(texts.into_iter().map(|(name, Text(secret))| (name, secret)).collect()))
    }
}

fn secrets_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::Object, Type::Null]))
        .additional_properties(Some(Schema::from(Object::with_type(Type::String))))
        .write_only(Some(true))
        .description(Some(
            "By name; each as it is, or as `sealed:v1:…`, sealed to the gateway's key. Written only: no answer ever holds a value.",
        ))
        .build()
}

/// `POST /connections`. A member that is absent or `null` takes its default.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = ConnectionCreate)]
pub struct CreateBody {
    /// Slug, 3 to 64 characters; by default made from the name.
    #[schema(example = "linear")]
    id: Option<String>,
    /// For people; by default the id.
    #[schema(example = "Linear")]
    name: Option<String>,
    /// `http` (default) or `mcp`.
    protocol: Option<String>,
    /// Absolute `http://` or `https://` URL without user, query and fragment. Required.
    #[schema(example = "https://api.linear.app")]
    base_url: Option<String>,
    /// Put between the base path and the rest of a request.
    #[schema(example = "/v1")]
    path_prefix: Option<String>,
    /// `bearer` (default), `header_key`, `query_param` or `basic`.
    #[schema(example = "header_key")]
    auth_mode: Option<String>,
    /// Header or query parameter that carries the credential; by default `Authorization`, for `query_param` `api_key`.
    auth_header_name: Option<String>,
    /// Before the secret; by default `Bearer ` for `bearer`, `Basic ` for `basic`, nothing otherwise.
    auth_prefix: Option<String>,
    /// Which of the secrets is injected. Required for protocol `http`.
    #[schema(example = "api_key")]
    auth_secret_key: Option<String>,
    #[schema(schema_with = secrets_schema)]
    secrets: Option<SecretsBody>,
    /// Days a secret is meant to live; 0 = no rotation. At most 36500.
    rotation_interval_days: Option<i64>,
    /// `active` (default) or `disabled`.
    status: Option<String>,
    /// `streamable_http`; protocol `mcp` only, as all members of this prefix.
    mcp_transport: Option<String>,
    /// An absolute URL, or a path below `base_url`; by default `/`.
    mcp_endpoint: Option<String>,
    /// Only these tools; empty = all.
    mcp_tool_allowlist: Option<Vec<String>>,
    /// Never these tools.
    mcp_tool_denylist: Option<Vec<String>>,
    /// At most this many tools.
    mcp_max_tools_exposed: Option<u32>,
    /// Tool policies by subject.
    mcp_subject_tool_policies: Option<BTreeMap<String, PolicyBody>>,
    /// Whether the provider may live on a private address.
    allow_private: Option<bool>,
    /// Methods agents may use; empty = all.
    allowed_methods: Option<Vec<String>>,
    /// Prefixes of the paths agents may ask for, each beginning with `/`; empty = all.
    allowed_paths: Option<Vec<String>>,
    /// `websocket`, or nothing.
    upgrades: Option<Vec<String>>,
    /// To the provider's response headers; by default 120000.
    response_timeout_ms: Option<u64>,
    /// The whole answer; by default 3600.
    max_stream_seconds: Option<u64>,
    /// Added to every request to the provider. Not for secrets.
    extra_headers: Option<BTreeMap<String, String>>,
    /// Whether the provider's `set-cookie` reaches the agent.
    allow_set_cookie: Option<bool>,
    /// Whether `traceparent` and `tracestate` reach the provider.
    forward_trace: Option<bool>,
}

impl CreateBody {
    /// The draft and its secrets; `None` where `status` is neither `active` nor `disabled`.
    pub fn into_draft(self) -> Option<(Draft, Secrets)> {
        let draft = Draft {
            id: self.id.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            protocol: self.protocol.unwrap_or_default(),
            base_url: self.base_url.unwrap_or_default(),
            path_prefix: self.path_prefix.unwrap_or_default(),
            auth_mode: self.auth_mode.unwrap_or_default(),
            auth_header_name: self.auth_header_name,
            auth_prefix: self.auth_prefix,
            auth_secret_key: self.auth_secret_key.unwrap_or_default(),
            disabled: is_disabled(self.status.as_deref().unwrap_or_default())?,
            allow_private: self.allow_private.unwrap_or_default(),
            allowed_methods: self.allowed_methods.unwrap_or_default(),
            allowed_paths: self.allowed_paths.unwrap_or_default(),
            upgrades: self.upgrades.unwrap_or_default(),
            response_timeout_ms: self.response_timeout_ms,
            max_stream_seconds: self.max_stream_seconds,
            extra_headers: self.extra_headers.unwrap_or_default(),
            allow_set_cookie: self.allow_set_cookie.unwrap_or_default(),
            forward_trace: self.forward_trace.unwrap_or_default(),
            rotation_interval_days: self.rotation_interval_days.unwrap_or_default(),
            mcp_transport: self.mcp_transport.unwrap_or_default(),
            mcp_endpoint: self.mcp_endpoint.unwrap_or_default(),
            mcp_policy: ToolPolicy {
                allow: self.mcp_tool_allowlist.unwrap_or_default(),
                deny: self.mcp_tool_denylist.unwrap_or_default(),
                max_tools: limit(self.mcp_max_tools_exposed),
            },
            mcp_subjects: decode_policies(self.mcp_subject_tool_policies.unwrap_or_default()),
        };
        Some((draft, self.secrets.unwrap_or_default().0))
    }
}

/// `POST /connections/{id}/rotate`.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = ConnectionRotate)]
pub struct RotateBody {
    #[schema(schema_with = secrets_schema)]
    secrets: Option<SecretsBody>,
    /// Who, by their own word.
    rotated_by: Option<String>,
    /// Why, by their own word.
    rotation_reason: Option<String>,
}

impl RotateBody {
    /// Secrets, who and why.
    pub fn into_parts(self) -> (Secrets, String, String) {
        (
            self.secrets.unwrap_or_default().0,
            self.rotated_by.unwrap_or_default(),
            self.rotation_reason.unwrap_or_default(),
        )
    }
}

/// A tool policy, in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ToolPolicy)]
pub struct PolicyBody {
    /// Only these; empty = all.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub allowlist: Vec<String>,
    /// Never these.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub denylist: Vec<String>,
    /// At most this many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tools_exposed: Option<u32>,
}

/// What was discovered of an MCP server; nothing yet, as discovery is not part of this API.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Discovery)]
struct DiscoveryBody {}

/// A connection as clients read it. Absent times are left out; members beyond the seed's are left out while
/// they have their default.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Connection)]
pub struct ConnectionBody {
    /// Slug; also the service name of its approvals.
    id: String,
    /// For people.
    name: String,
    /// `http` or `mcp`.
    protocol: &'static str,
    /// Without a trailing slash.
    base_url: String,
    /// Begins with `/`, no trailing slash.
    #[serde(skip_serializing_if = "String::is_empty")]
    path_prefix: String,
    /// `bearer`, `header_key`, `query_param` or `basic`.
    auth_mode: &'static str,
    /// Header or query parameter that carries the credential.
    auth_header_name: String,
    /// Before the secret; may be empty.
    auth_prefix: String,
    /// Which of the secrets is injected.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_secret_key: Option<String>,
    /// Names of the secrets, sorted. Values are never answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    credential_keys: Vec<String>,
    /// `streamable_http`; protocol `mcp` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp_transport: Option<&'static str>,
    /// An absolute URL, or a path below `base_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp_endpoint: Option<String>,
    /// For every subject; always there.
    mcp_tool_policy: PolicyBody,
    /// By subject.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mcp_subject_tool_policies: BTreeMap<String, PolicyBody>,
    /// What was discovered of an MCP server; always there.
    mcp_discovery: DiscoveryBody,
    /// `active` or `disabled`.
    status: &'static str,
    /// RFC 3339 with milliseconds, as all times.
    created_at: String,
    /// When anything about it last changed.
    updated_at: String,
    /// When it was last tested; absent where it never was, as the next three.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_tested_at: Option<String>,
    /// `pass` or `fail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_test_status: Option<&'static str>,
    /// Of the provider's answer; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_test_http_status: Option<u16>,
    /// Why it failed, at most 240 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_test_error: Option<String>,
    /// When an agent last used it, as of a few seconds ago; absent where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<String>,
    /// When its secrets last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_rotated_at: Option<String>,
    /// When its secret should be replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation_due_at: Option<String>,
    /// Days a secret is meant to live.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_interval_days: Option<u32>,
    /// Counts the secrets, from 1.
    secret_version: u64,
    /// `lost` where the values are gone with the master key and must be given again; else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_status: Option<&'static str>,
    /// Why the secret cannot be injected, e.g. a credential variable that is not defined; absent where it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_error: Option<String>,
    /// Whether the configuration file declares it: then it is changed there. Absent = no.
    #[serde(skip_serializing_if = "is_false")]
    declared: bool,
    /// Whether the provider may live on a private address.
    #[serde(skip_serializing_if = "is_false")]
    allow_private: bool,
    /// Methods agents may use; absent = all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_methods: Vec<String>,
    /// Prefixes of the paths agents may ask for; absent = all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_paths: Vec<String>,
    /// `websocket`; absent = none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    upgrades: Vec<String>,
    /// To the provider's response headers; absent = 120000.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_timeout_ms: Option<u64>,
    /// The whole answer; absent = 3600.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_stream_seconds: Option<u64>,
    /// Added to every request to the provider.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra_headers: BTreeMap<String, String>,
    /// Whether the provider's `set-cookie` reaches the agent.
    #[serde(skip_serializing_if = "is_false")]
    allow_set_cookie: bool,
    /// Whether `traceparent` and `tracestate` reach the provider.
    #[serde(skip_serializing_if = "is_false")]
    forward_trace: bool,
}

impl ConnectionBody {
    /// Writes a record down.
    pub fn encode(record: ConnectionRecord) -> Self {
        let settings = record.settings;
        let mcp = record.mcp;
        let timeout = (settings.response_timeout != DEFAULT_RESPONSE_TIMEOUT)
            .then(|| u64::try_from(settings.response_timeout.as_millis()).unwrap_or(u64::MAX));
        let stream = (settings.max_stream != DEFAULT_MAX_STREAM).then_some(settings.max_stream.as_secs());
        Self {
            id: settings.id.as_str().to_owned(),
            name: settings.name,
            protocol: settings.protocol.name(),
            base_url: settings.upstream.base_url(),
            path_prefix: settings.path_prefix,
            auth_mode: settings.auth_mode.name(),
            auth_header_name: settings.auth_target,
            auth_prefix: settings.auth_prefix,
            auth_secret_key: record.auth_secret_key,
            credential_keys: record.credential_keys,
            mcp_transport: mcp.as_ref().map(|_| "streamable_http"),
            mcp_endpoint: mcp.as_ref().map(|mcp| mcp.endpoint.clone()),
            mcp_tool_policy: mcp.as_ref().map(|mcp| encode_policy(&mcp.policy)).unwrap_or_default(),
            mcp_subject_tool_policies: mcp
                .map(|mcp| mcp.subjects.iter().map(|(name, policy)| (name.clone(), encode_policy(policy))).collect())
                .unwrap_or_default(),
            mcp_discovery: DiscoveryBody {},
            status: if settings.active { "active" } else { "disabled" },
            created_at: record.created_at.rfc3339(),
            updated_at: record.updated_at.rfc3339(),
            last_tested_at: None,
            last_test_status: None,
            last_test_http_status: None,
            last_test_error: None,
            last_used_at: None,
            last_rotated_at: record.last_rotated_at.map(UnixMillis::rfc3339),
            next_rotation_due_at: settings.next_rotation_due_at.map(|due| due.rfc3339()),
            rotation_interval_days: Some(record.rotation_interval_days).filter(|days| *days > 0),
            secret_version: settings.secret_version,
            secret_status: record.secrets_lost.then_some("lost"),
            secret_error: None,
            declared: false,
            allow_private: settings.allow_private,
            allowed_methods: settings.allowed_methods,
            allowed_paths: settings.allowed_paths,
            upgrades: settings.upgrades,
            response_timeout_ms: timeout,
            max_stream_seconds: stream,
            extra_headers: settings.extra_headers,
            allow_set_cookie: settings.allow_set_cookie,
            forward_trace: settings.forward_trace,
        }
    }
}

impl ConnectionBody {
    /// The same with how it stands: whether it is declared, why its secret cannot be injected, and when it was used.
    #[must_use]
    pub fn standing(self, declared: bool, secret_error: Option<String>, last_used_at: Option<UnixMillis>) -> Self {
        Self { declared, secret_error, last_used_at: last_used_at.map(UnixMillis::rfc3339), ..self }
    }

    /// The same with what came of its last test, if it ever was tested.
    #[must_use]
    pub fn tested(mut self, last: Option<LastTest>) -> Self {
        if let Some(LastTest { at, outcome }) = last {
            self.last_tested_at = Some(at.rfc3339());
            self.last_test_status = Some(verdict(outcome.passed));
            self.last_test_http_status = Some(outcome.http_status).filter(|status| *status > 0);
            self.last_test_error = Some(outcome.error).filter(|error| !error.is_empty());
        }
        self
    }
}

/// `GET /connections`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ConnectionList)]
pub struct ConnectionListBody {
    /// By id.
    pub connections: Vec<ConnectionBody>,
}

pub(super) fn is_disabled(status: &str) -> Option<bool> {
    match status.trim() {
        "" | "active" => Some(false),
        "disabled" => Some(true),
        _ => None,
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// 0 is no limit, as in the seed.
pub(super) fn limit(most: Option<u32>) -> Option<u32> {
    most.filter(|most| *most > 0)
}

fn encode_policy(policy: &ToolPolicy) -> PolicyBody {
    PolicyBody { allowlist: policy.allow.clone(), denylist: policy.deny.clone(), max_tools_exposed: policy.max_tools }
}

pub(super) fn decode_policies(bodies: BTreeMap<String, PolicyBody>) -> BTreeMap<String, ToolPolicy> {
    let decode = |body: PolicyBody| ToolPolicy {
        allow: body.allowlist,
        deny: body.denylist,
        max_tools: limit(body.max_tools_exposed),
    };
    bodies.into_iter().map(|(name, body)| (name, decode(body))).collect()
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
