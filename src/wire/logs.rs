//! JSON of the logs, as the admin API shows them.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

/// The query of `GET /api/v1/logs`; texts, so that each mistake can be named.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct LogsQuery {
    /// Whose lines: `access`, `decision`, `authz`, `envoy`, `admin`, `audit`, `pair` or `api`; by default `admin`.
    pub stream: Option<String>,
    /// Only lines behind this place, which is the `cursor` of another answer; `oldest`: from the oldest line on. By default the
    /// last lines.
    pub cursor: Option<String>,
    /// Most lines, 1 to 5000; by default 200.
    pub limit: Option<String>,
    /// Most bytes of lines, 1 to 1000000; by default 250000. A longer line is cut.
    pub max_bytes: Option<String>,
    /// Only lines with one of these ids of requests or decisions; at most 8, with commas between them.
    pub request_id: Option<String>,
    /// Only lines about this connection.
    pub connection: Option<String>,
}

/// `GET /api/v1/logs`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Logs)]
pub struct LogsBody {
    /// The file that is being written, on the gateway's machine.
    pub file: String,
    /// Where the next answer begins.
    pub cursor: String,
    /// Length of that file in bytes.
    pub size: u64,
    /// The lines, oldest first; each an object with `timestamp`, `level` and `message` or what stands for them.
    #[schema(value_type = Vec<Object>)]
    pub lines: Vec<Map<String, Value>>,
    /// A line was cut, or older ones were left out for want of room.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The place behind `cursor` is gone, because the file was truncated, replaced or removed; it is read anew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// There may be more already: ask again with the new cursor, also where there are no lines here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}
