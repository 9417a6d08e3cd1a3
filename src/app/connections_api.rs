//! Connections through the admin API of a running gateway, for commands.

use http::HeaderName;
use http::Method;
use serde_json::Value;
use serde_json::json;

pub use crate::app::json_api::ApiError;
use crate::app::json_api::JsonApi;
use crate::domain::secret::Secret;

/// The header of the admin token.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-sigilum-admin-token");

/// The admin API of a gateway.
pub struct ConnectionsApi {
    api: JsonApi,
}

impl ConnectionsApi {
    /// The one at this address; without a token only where the gateway trusts its own machine.
    pub fn new(base: &str, token: Option<&Secret>) -> Result<Self, ApiError> {
        let api = JsonApi::new(base)?;
        Ok(Self {
            api: match token {
                Some(token) => api.with_secret(TOKEN_HEADER, token)?,
                None => api,
            },
        })
    }

    /// All connections, as the gateway shows them.
    pub async fn list(&self) -> Result<Vec<Value>, ApiError> {
        let mut answer = self.api.call(Method::GET, self.url(&[]), None).await?;
        if let Some(Value::Array(rows)) = answer.get_mut("connections").map(Value::take) {
            Ok(rows)
        } else {
            Err(self.api.unexpected(200, "there is no list of connections in it"))
        }
    }

    /// One connection; `None` where there is none of this id.
    pub async fn find(&self, id: &str) -> Result<Option<Value>, ApiError> {
        match self.api.call(Method::GET, self.url(&[id]), None).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.status() == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates one.
    pub async fn create(&self, input: &Value) -> Result<Value, ApiError> {
        self.api.call(Method::POST, self.url(&[]), Some(input)).await
    }

    /// Changes what a patch may change.
    pub async fn patch(&self, id: &str, changes: &Value) -> Result<Value, ApiError> {
        self.api.call(Method::PATCH, self.url(&[id]), Some(changes)).await
    }

    /// Deletes one with its secrets; that it is gone already is no error.
    pub async fn delete(&self, id: &str) -> Result<(), ApiError> {
        match self.api.call(Method::DELETE, self.url(&[id]), None).await {
            Ok(_) => Ok(()),
            Err(error) if error.status() == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Puts a new value in place of a secret; `by` and `reason` go to the gateway's record.
    pub async fn rotate(&self, id: &str, secret: (&str, &Secret), by: &str, reason: &str) -> Result<Value, ApiError> {
        let body = json!({
            "secrets": { secret.0: secret.1.expose() },
            "rotated_by": by,
            "rotation_reason": reason,
        });
        self.api.call(Method::POST, self.url(&[id, "rotate"]), Some(&body)).await
    }

    fn url(&self, rest: &[&str]) -> reqwest::Url {
        let mut path = vec!["api", "admin", "connections"];
        path.extend(rest);
        self.api.url(&path)
    }
}
