//! The logs of a running gateway through its admin API, for commands.

use http::HeaderName;
use http::Method;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

use crate::app::json_api::ApiError;
use crate::app::json_api::JsonApi;
use crate::domain::log_line::LogFilter;
use crate::domain::log_line::LogStream;
use crate::domain::secret::Secret;
use crate::sys::tls::trust::ServerTrust;
use crate::telemetry::log_reader::Page;
use crate::telemetry::log_reader::PageSize;
use crate::telemetry::log_reader::Start;
use crate::telemetry::segments::Position;

/// The header of the admin token.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-sigilum-admin-token");

/// What the admin process answers.
#[derive(Debug, Deserialize)]
struct Answer {
    cursor: String,
    size: u64,
    lines: Vec<Map<String, Value>>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    more: bool,
}

/// The logs behind a running admin process.
pub struct LogsApi {
    api: JsonApi,
}

impl LogsApi {
    /// The one at this address; without a token only where the gateway trusts its own machine.
    pub fn new(base: &str, token: Option<&Secret>, trust: &ServerTrust) -> Result<Self, ApiError> {
        let api = JsonApi::trusting(base, trust)?;
        let api = match token {
            Some(token) => api.with_secret(TOKEN_HEADER, token)?,
            None => api,
        };
        Ok(Self { api })
    }

    /// One page, as [`crate::telemetry::log_reader::read`] makes it there. What is too old is not left out.
    pub async fn page(
        &self,
        stream: LogStream,
        start: &Start,
        size: PageSize,
        filter: &LogFilter,
    ) -> Result<Page, ApiError> {
        let mut url = self.api.url(&["api", "v1", "logs"]);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("stream", stream.name());
            query.append_pair("limit", &size.lines.to_string()).append_pair("max_bytes", &size.bytes.to_string());
            match start {
                Start::Newest => {}
                Start::Oldest => drop(query.append_pair("cursor", "oldest")),
                Start::After(position) => drop(query.append_pair("cursor", &position.encode())),
            }
            if !filter.ids.is_empty() {
                query.append_pair("request_id", &filter.ids.join(","));
            }
            if let Some(connection) = &filter.connection {
                query.append_pair("connection", connection);
            }
        }
        let answer = self.api.call(Method::GET, url, None).await?;
        let body: Answer = self.api.read(answer)?;
        let next = Position::parse(&body.cursor).ok_or_else(|| self.api.unexpected(200, "its cursor is another"))?;
        Ok(Page {
            lines: body.lines,
            next,
            size: body.size,
            truncated: body.truncated,
            reset: body.reset,
            more: body.more,
        })
    }
}
