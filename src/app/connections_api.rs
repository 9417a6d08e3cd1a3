//! Connections and credential variables through the admin API of a running gateway, for commands.

use http::HeaderName;
use http::Method;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

pub use crate::app::json_api::ApiError;
use crate::app::json_api::JsonApi;
use crate::domain::secret::Secret;
use crate::sys::tls::trust::ServerTrust;

/// The header of the admin token.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-sigilum-admin-token");

/// The admin API of a gateway.
pub struct ConnectionsApi {
    api: JsonApi,
}

impl ConnectionsApi {
    /// The one at this address; without a token only where the gateway trusts its own machine, or the certificate
    /// that is shown.
    pub fn new(base: &str, token: Option<&Secret>, trust: &ServerTrust) -> Result<Self, ApiError> {
        let api = JsonApi::trusting(base, trust)?;
        Ok(Self {
            api: match token {
                Some(token) => api.with_secret(TOKEN_HEADER, token)?,
                None => api,
            },
        })
    }

    /// All connections, as the gateway shows them.
    pub async fn list(&self) -> Result<Vec<Value>, ApiError> {
        self.rows(&["connections"], "connections").await
    }

    /// How it stands with each of them.
    pub async fn standing(&self) -> Result<Vec<Value>, ApiError> {
        let mut answer = self.api.call(Method::GET, self.api.url(&["api", "v1", "connections"]), None).await?;
        match answer.get_mut("connections").map(Value::take) {
            Some(Value::Array(rows)) => Ok(rows),
            Some(_) | None => Err(self.api.unexpected(200, "there is no list of connections in it")),
        }
    }

    /// One connection; `None` where there is none of this id.
    pub async fn find(&self, id: &str) -> Result<Option<Value>, ApiError> {
        match self.api.call(Method::GET, self.connection(id, &[]), None).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.status() == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates one.
    pub async fn create(&self, input: &Value) -> Result<Value, ApiError> {
        self.api.call(Method::POST, self.url(&["connections"]), Some(input)).await
    }

    /// Changes what a patch may change.
    pub async fn patch(&self, id: &str, changes: &Value) -> Result<Value, ApiError> {
        self.api.call(Method::PATCH, self.connection(id, &[]), Some(changes)).await
    }

    /// Deletes one with its secrets; `false` where it was gone already.
    pub async fn delete(&self, id: &str) -> Result<bool, ApiError> {
        Ok(self.gone(self.connection(id, &[])).await?.is_some())
    }

    /// Puts new values in place of secrets; `by` and `reason` go to the gateway's record.
    pub async fn rotate(
        &self,
        id: &str,
        secrets: &[(&str, &Secret)],
        by: &str,
        reason: &str,
    ) -> Result<Value, ApiError> {
        let secrets: Map<_, _> =
            secrets.iter().map(|(name, secret)| ((*name).to_owned(), Value::from(secret.expose()))).collect();
        let body = json!({ "secrets": secrets, "rotated_by": by, "rotation_reason": reason });
        self.api.call(Method::POST, self.connection(id, &["rotate"]), Some(&body)).await
    }

    /// Lets the gateway try one against its provider: `{status, http_status, error?}`, also where it fails.
    pub async fn test(&self, id: &str, how: &Value) -> Result<Value, ApiError> {
        let is_result = |body: &Value| body.get("status").is_some_and(|status| status == "pass" || status == "fail");
        self.api.call_where(Method::POST, self.connection(id, &["test"]), Some(how), is_result).await
    }

    /// The templates of well-known services.
    pub async fn catalog(&self) -> Result<Vec<Value>, ApiError> {
        self.rows(&["service-catalog"], "services").await
    }

    /// All credential variables, without their values.
    pub async fn variables(&self) -> Result<Vec<Value>, ApiError> {
        self.rows(&["credential-variables"], "variables").await
    }

    /// Gives one a value.
    pub async fn set_variable(&self, key: &str, value: &Secret) -> Result<Value, ApiError> {
        let body = json!({ "key": key, "value": value.expose() });
        self.api.call(Method::POST, self.url(&["credential-variables"]), Some(&body)).await
    }

    /// Deletes one, with `force` also where connections refer to it: what the gateway says of it; `None` where it was
    /// gone already.
    pub async fn delete_variable(&self, key: &str, force: bool) -> Result<Option<Value>, ApiError> {
        let mut url = self.url(&["credential-variables", key]);
        if force {
            url.set_query(Some("force=true"));
        }
        self.gone(url).await
    }

    /// Has the gateway resolve its references to secrets again; `dry_run`: without using what it finds.
    pub async fn reload_secrets(&self, dry_run: bool) -> Result<Value, ApiError> {
        let mut url = self.url(&["secrets", "reload"]);
        if dry_run {
            url.set_query(Some("dry_run=true"));
        }
        self.api.patient().call(Method::POST, url, None).await
    }

    /// How it stands with them.
    pub async fn secrets_status(&self) -> Result<Value, ApiError> {
        self.api.call(Method::GET, self.url(&["secrets", "status"]), None).await
    }

    /// Has the gateway take no new requests for so many seconds: `{leaseId, expiresAt, inFlight?}`.
    pub async fn drain(&self, lease_seconds: u64) -> Result<Value, ApiError> {
        let body = json!({ "leaseSeconds": lease_seconds });
        self.api.call(Method::POST, self.service(&["drain"]), Some(&body)).await
    }

    /// Whether it takes new requests, and what is in flight.
    pub async fn drain_status(&self) -> Result<Value, ApiError> {
        self.api.call(Method::GET, self.service(&["drain"]), None).await
    }

    /// Ends a lease of a drain.
    pub async fn undrain(&self, lease: &str) -> Result<Value, ApiError> {
        self.api.call(Method::DELETE, self.service(&["drain", lease]), None).await
    }

    /// Ends all of them.
    pub async fn undrain_all(&self) -> Result<Value, ApiError> {
        self.api.call(Method::DELETE, self.service(&["drain"]), None).await
    }

    fn service(&self, rest: &[&str]) -> reqwest::Url {
        self.api.url(&[&["api", "v1"], rest].concat())
    }

    async fn gone(&self, url: reqwest::Url) -> Result<Option<Value>, ApiError> {
        match self.api.call(Method::DELETE, url, None).await {
            Ok(said) => Ok(Some(said)),
            Err(error) if error.status() == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn rows(&self, path: &[&str], member: &str) -> Result<Vec<Value>, ApiError> {
        let mut answer = self.api.call(Method::GET, self.url(path), None).await?;
        if let Some(Value::Array(rows)) = answer.get_mut(member).map(Value::take) {
            Ok(rows)
        } else {
            Err(self.api.unexpected(200, &format!("there is no list of {member} in it")))
        }
    }

    fn connection(&self, id: &str, rest: &[&str]) -> reqwest::Url {
        self.url(&[&["connections", id], rest].concat())
    }

    fn url(&self, rest: &[&str]) -> reqwest::Url {
        self.api.url(&[&["api", "admin"], rest].concat())
    }
}
