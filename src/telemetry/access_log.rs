//! What is read of a line of Envoy's access log: one JSON object per request.

use serde::Deserialize;
use serde::Deserializer;

/// What is read of a line. Numbers may come as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AccessEntry {
    /// When the request began: RFC 3339 with milliseconds and `Z`.
    #[serde(deserialize_with = "text")]
    pub timestamp: String,
    /// Envoy's id of the request.
    #[serde(deserialize_with = "text")]
    pub request_id: String,
    /// Id of the decision; absent where none was made.
    #[serde(deserialize_with = "text")]
    pub decision_id: String,
    /// Connection id.
    #[serde(deserialize_with = "text")]
    pub connection: String,
    /// The agent's request target without query, at most 1024 bytes.
    #[serde(deserialize_with = "text")]
    pub path: String,
    /// The agent's namespace; this and the next four are there where the signature was verified.
    #[serde(deserialize_with = "text")]
    pub namespace: String,
    /// Who the agent acted for, at most 1024 bytes.
    #[serde(deserialize_with = "text")]
    pub subject: String,
    /// Fingerprint of the agent's key: 16 hex digits.
    #[serde(deserialize_with = "text")]
    pub agent_key: String,
    /// The agent's key, `ed25519:` and base64.
    #[serde(deserialize_with = "text")]
    pub public_key: String,
    /// Which agent of the namespace, at most 1024 bytes; absent where none was signed.
    #[serde(deserialize_with = "text")]
    pub agent_id: String,
    /// As sent.
    #[serde(deserialize_with = "text")]
    pub method: String,
    /// Why it was refused by authz; absent on requests let through.
    #[serde(deserialize_with = "text")]
    pub reason: String,
    /// `x-sigilum-code` of the answer.
    #[serde(deserialize_with = "text")]
    pub code: String,
    /// HTTP status; 0 where the client left before there was one.
    #[serde(deserialize_with = "number")]
    pub status: u64,
    /// Milliseconds from the first byte of the request to the last of the response.
    #[serde(deserialize_with = "number")]
    pub duration_ms: u64,
    /// Bytes of the response body.
    #[serde(deserialize_with = "number")]
    pub bytes_sent: u64,
    /// The client, as counted by trusted hops, without port.
    #[serde(deserialize_with = "text")]
    pub client_address: String,
}

impl AccessEntry {
    /// Reads one line.
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Whether authz let the request through.
    pub fn was_forwarded(&self) -> bool {
        self.reason.is_empty() && !self.connection.is_empty() && !self.decision_id.is_empty()
    }
}

/// Text, or anything else as nothing: a member of another type is not worth losing a line for.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => String::new(),
    })
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Number(number) => number.as_u64().unwrap_or_default(),
        serde_json::Value::String(text) => text.parse().unwrap_or_default(),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => 0,
    })
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
