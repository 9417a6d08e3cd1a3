//! JSON of the audit, as the admin API shows it.

use serde::Deserialize;
use serde::Serialize;

use crate::domain::audit::Recorded;

/// The query of `GET /api/admin/audit`; texts, so that each mistake can be named.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct AuditQuery {
    /// Most entries, 1 to 500; by default 100.
    pub limit: Option<String>,
    /// Only entries older than the one of this id.
    pub before: Option<String>,
    /// Only those of this connection.
    pub connection: Option<String>,
    /// Only those of this sort, e.g. `connection.rotate`.
    pub action: Option<String>,
}

/// `GET /api/admin/audit`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Audit)]
pub struct AuditBody {
    /// Newest first.
    pub entries: Vec<AuditEntryBody>,
    /// The value of `before` that shows what comes next; absent where there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_before: Option<u64>,
}

/// One change. Members that are empty are left out.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditEntryBody {
    /// Counts up.
    id: u64,
    /// RFC 3339.
    at: String,
    /// What sort of change, e.g. `connection.rotate`.
    #[schema(example = "connection.rotate")]
    action: String,
    /// The connection or variable it was about.
    #[serde(skip_serializing_if = "String::is_empty")]
    target: String,
    /// What let the caller in: `token`, `loopback`, `certificate`, `config` or `command`.
    via: String,
    /// The name of the caller: under `via` `certificate` that of the certificate, else the one it gave itself, which nothing
    /// proves.
    #[serde(skip_serializing_if = "String::is_empty")]
    actor: String,
    /// The caller's address.
    #[serde(skip_serializing_if = "String::is_empty")]
    address: String,
    /// The `X-Request-Id` of the answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    request_id: String,
    /// Names of what changed and the like; never a value. `relayed` is the pairing session that relayed the request; `secret`
    /// is `sealed` where every secret in it came sealed to this gateway, and `plain` where a relayed one came in clear.
    #[schema(value_type = Object)]
    detail: serde_json::Value,
}

impl AuditEntryBody {
    /// Writes an entry down.
    pub fn encode(entry: Recorded) -> Self {
        Self {
            id: entry.id,
            at: entry.at.rfc3339(),
            action: entry.action,
            target: entry.target,
            via: entry.via,
            actor: entry.actor,
            address: entry.address,
            request_id: entry.request_id,
            detail: entry.detail,
        }
    }
}
