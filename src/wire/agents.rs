//! JSON of who used a connection.

use serde::Serialize;

/// `GET /connections/{id}/agents`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AgentList)]
pub struct AgentListBody {
    /// The last one first.
    pub agents: Vec<AgentBody>,
}

/// One agent's last request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Agent)]
pub struct AgentBody {
    /// Its namespace.
    pub namespace: String,
    /// Its key: `ed25519:` and base64.
    pub public_key: String,
    /// Who it acted for; absent where it named nobody.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// When its last forwarded request began; RFC 3339.
    pub last_used_at: String,
    /// HTTP status of the answer; 0 where the agent left before there was one.
    pub status: u16,
}
