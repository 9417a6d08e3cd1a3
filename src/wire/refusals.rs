//! JSON of the requests of agents that were refused.

use serde::Serialize;

/// `GET /refusals`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Refusals)]
pub struct RefusalsBody {
    /// Since when is counted: the start of the admin process, RFC 3339 as all times. What was refused while it was away is
    /// counted when it is back.
    pub since: String,
    /// How many in all.
    pub total: u64,
    /// By code, most frequent first.
    pub reasons: Vec<RefusalReasonBody>,
    /// The last ones, newest first, at most 200.
    pub recent: Vec<RefusalBody>,
}

/// How often requests were refused for one reason.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RefusalReason)]
pub struct RefusalReasonBody {
    /// As agents see it; `OTHER` for what this version has no room to tell apart.
    #[schema(example = "AUTH_CLAIM_REQUIRED")]
    pub code: String,
    /// Since `since`.
    pub count: u64,
    /// In this hour and the 23 before.
    pub last_24h: u64,
    /// When the last one was.
    pub last_at: String,
}

/// One refusal. Members that are not known are left out.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Refusal)]
pub struct RefusalBody {
    /// When the request began.
    pub at: String,
    /// As the agent saw it.
    #[schema(example = "AUTH_CLAIM_REQUIRED")]
    pub code: String,
    /// HTTP status; 0 where the client left before there was one.
    pub status: u16,
    /// Id of the connection that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Fingerprint of the agent's namespace, as in the decision log: `sha256:` and 12 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Fingerprint of the agent's key: 16 hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_key: Option<String>,
}
