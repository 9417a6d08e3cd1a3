//! JSON of what concerns the store as a whole.

use serde::Serialize;

/// `POST /api/admin/store/rekey`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Rekeyed)]
pub struct RekeyedBody {
    /// Id of the master key before; 16 hex digits that say nothing of the key.
    pub old_key_id: String,
    /// Id of the master key in use.
    pub new_key_id: String,
    /// Sealed values that were wrapped anew.
    pub wrapped: u64,
    /// Old versions that did not open and are gone, by name.
    pub dropped: Vec<String>,
    /// The file that holds the new key, on the gateway's machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Whether `GATEWAY_MASTER_KEY` still names the old key and must be changed.
    pub pending: bool,
    /// Whether the write-ahead log was cut back; else the next start does it.
    pub log_cut_back: bool,
}

/// `GET /api/admin/store/check`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = StoreCheck)]
pub struct CheckedBody {
    /// Id of the master key in use; 16 hex digits that say nothing of the key.
    pub key_id: String,
    /// Connections.
    pub connections: u64,
    /// Sealed sets of secrets: every kept version of each connection.
    pub secret_sets: u64,
    /// Credential variables.
    pub variables: u64,
    /// Connections and variables whose values were lost with a master key and must be given again.
    pub lost: Vec<String>,
    /// What does not open or cannot be read; nothing where all is well.
    pub unreadable: Vec<String>,
}
