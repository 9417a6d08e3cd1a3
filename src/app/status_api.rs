//! Status and readiness of a gateway through its admin API, for commands.

use std::time::Duration;

use http::HeaderName;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

pub use crate::app::json_api::ApiError;
use crate::app::json_api::JsonApi;
use crate::domain::secret::Secret;
use crate::sys::tls::trust::ServerTrust;

/// The header of the admin token.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-sigilum-admin-token");

/// Longest text of metrics that is read, in bytes.
const MAX_METRICS: usize = 4 * 1024 * 1024;

/// The admin API of a gateway.
#[derive(Clone)]
pub struct StatusApi {
    api: JsonApi,
}

/// Whether a gateway is ready, and what it told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Readiness<T> {
    /// Whether it is.
    pub ready: bool,
    /// The details; `None`: it tells them to others only.
    pub details: Option<T>,
    /// The whole answer.
    pub body: Value,
}

#[derive(Deserialize)]
struct Ready {
    ready: bool,
}

impl StatusApi {
    /// The one at this address, which has `patience` for each answer. Without a token only what everybody is told.
    pub fn new(base: &str, token: Option<&Secret>, trust: &ServerTrust, patience: Duration) -> Result<Self, ApiError> {
        let api = JsonApi::trusting(base, trust)?.within(patience);
        Ok(Self {
            api: match token {
                Some(token) => api.with_secret(TOKEN_HEADER, token)?,
                None => api,
            },
        })
    }

    /// `GET /health/live`: whether the process answers at all.
    pub async fn alive(&self) -> Result<(), ApiError> {
        self.api.call(Method::GET, self.api.url(&["health", "live"]), None).await.map(drop)
    }

    /// `GET /api/v1/status`, as the type the caller reads.
    pub async fn status<T: serde::de::DeserializeOwned>(&self) -> Result<T, ApiError> {
        let told = self.api.call(Method::GET, self.api.url(&["api", "v1", "status"]), None).await?;
        self.api.read(told)
    }

    /// `GET /metrics`: the whole text (Prometheus), up to 4 MiB.
    pub async fn metrics(&self) -> Result<String, ApiError> {
        let mut answer = self.api.open(Method::GET, self.api.url(&["metrics"])).await?;
        let mut text = Vec::new();
        while let Some(chunk) = self.api.next(&mut answer).await? {
            if text.len().saturating_add(chunk.len()) > MAX_METRICS {
                return Err(self.api.unexpected(answer.status().as_u16(), "it is too large"));
            }
            text.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// `GET /health/ready`, also where it is not ready; `fresh`: as it is now.
    pub async fn readiness<T: serde::de::DeserializeOwned>(&self, fresh: bool) -> Result<Readiness<T>, ApiError> {
        let mut url = self.api.url(&["health", "ready"]);
        if fresh {
            url.set_query(Some("fresh=true"));
        }
        let is_answer = |body: &Value| body.get("ready").is_some();
        let body = self.api.call_where(Method::GET, url, None, is_answer).await?;
        let Ready { ready } = self.api.read(body.clone())?;
        let told = body.get("conditions").is_some();
        let details = told.then(|| self.api.read(body.clone())).transpose()?;
        Ok(Readiness { ready, details, body })
    }
}
