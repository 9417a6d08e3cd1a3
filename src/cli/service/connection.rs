//! What a service's connection should be, and the steps from what it is to that. Nothing is ever deleted on the
//! way: a step that is refused leaves what was there.

use clap::ValueEnum;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::app::connections_api::ConnectionsApi;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::domain::ids::ConnectionId;
use crate::domain::secret::Secret;

/// Who changed a secret, for the gateway's record.
pub(super) const ROTATED_BY: &str = "sigilum-service-cli";

/// How the secret travels to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum AuthMode {
    /// `Authorization: Bearer …`.
    Bearer,
    /// A header of its own.
    HeaderKey,
    /// A query parameter.
    QueryParam,
    /// `Authorization: Basic …`; the secret is `user:password`.
    Basic,
}

impl AuthMode {
    /// The name on the wire.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::HeaderKey => "header_key",
            Self::QueryParam => "query_param",
            Self::Basic => "basic",
        }
    }

    /// The secret's name where nobody names it.
    pub(super) const fn secret_key(self) -> &'static str {
        match self {
            Self::Bearer | Self::Basic => "access_token",
            Self::HeaderKey => "upstream_key",
            Self::QueryParam => "api_key",
        }
    }

    /// The header or parameter where nobody names it.
    pub(super) fn header(self, slug: &ConnectionId) -> String {
        match self {
            Self::Bearer | Self::Basic => "Authorization".to_owned(),
            Self::HeaderKey => format!("X-{slug}-Key"),
            Self::QueryParam => "api_key".to_owned(),
        }
    }

    /// What stands before the secret where nobody says.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer ",
            Self::Basic => "Basic ",
            Self::HeaderKey | Self::QueryParam => "",
        }
    }
}

/// A connection as it should be.
pub(super) struct Wanted<'a> {
    /// The service's slug.
    pub(super) id: &'a ConnectionId,
    /// Name for people.
    pub(super) name: &'a str,
    /// Where the provider is.
    pub(super) base_url: &'a str,
    /// How the secret travels.
    pub(super) mode: AuthMode,
    /// Header or parameter.
    pub(super) header: &'a str,
    /// What stands before the secret.
    pub(super) prefix: &'a str,
    /// The secret's name.
    pub(super) secret_key: &'a str,
    /// Whether it may be reached at a private address; only ever switched on here.
    pub(super) allow_private: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It is new.
    Created,
    /// It was there and is another now.
    Changed,
    /// It was so already.
    Unchanged,
}

impl Done {
    /// For people and programs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Brings the connection there. `found` is what is there now; without `secret` the one it has is kept.
pub(super) async fn bring(
    api: &ConnectionsApi,
    wanted: &Wanted<'_>,
    found: Option<&Value>,
    secret: Option<&Secret>,
) -> Result<Done, CliError> {
    let id = wanted.id.as_str();
    let Some(found) = found else {
        let Some(secret) = secret else { return Err(no_secret(wanted)) };
        let input = json!({
            "id": id,
            "name": wanted.name,
            "protocol": "http",
            "base_url": wanted.base_url,
            "auth_mode": wanted.mode.name(),
            "auth_header_name": wanted.header,
            "auth_prefix": wanted.prefix,
            "auth_secret_key": wanted.secret_key,
            "allow_private": wanted.allow_private,
            "secrets": { wanted.secret_key: secret.expose() },
        });
        api.create(&input).await.map_err(|error| gateway_api::failed(&error))?;
        return Ok(Done::Created);
    };
    let mut done = Done::Unchanged;
    let held = found.get("credential_keys").and_then(Value::as_array);
    let is_held = held.is_some_and(|keys| keys.iter().any(|key| key.as_str() == Some(wanted.secret_key)));
    // First the secret: until the rest is changed the old way is used with the old name.
    if let Some(secret) = secret {
        if rotate(api, id, (wanted.secret_key, secret), "service-add").await? {
            done = Done::Changed;
        }
    } else if !is_held {
        return Err(no_secret(wanted));
    }
    let changes = changes(wanted, found);
    if !changes.is_empty() {
        api.patch(id, &Value::Object(changes)).await.map_err(|error| gateway_api::failed(&error))?;
        done = Done::Changed;
    }
    Ok(done)
}

/// Puts a secret in place; whether it is another one than before.
pub(super) async fn rotate(
    api: &ConnectionsApi,
    id: &str,
    secret: (&str, &Secret),
    reason: &str,
) -> Result<bool, CliError> {
    match api.rotate(id, &[secret], ROTATED_BY, reason).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == "SECRET_UNCHANGED" => Ok(false),
        Err(error) => Err(gateway_api::failed(&error)),
    }
}

/// The patch that is needed; empty where nothing differs.
fn changes(wanted: &Wanted<'_>, found: &Value) -> Map<String, Value> {
    let is = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut changes = Map::new();
    let mut set = |name: &str, wanted: &str, same: bool| {
        if !same {
            // An empty text leaves a member as it is; a blank brings the mode's own prefix back, which is empty then.
            let value = Value::from(if wanted.is_empty() { " " } else { wanted });
            changes.insert(name.to_owned(), value);
        }
    };
    let url = |text: &str| text.trim_end_matches('/').to_owned();
    set("name", wanted.name, is("name") == wanted.name);
    set("base_url", wanted.base_url, url(is("base_url")) == url(wanted.base_url));
    let same_mode = is("auth_mode") == wanted.mode.name();
    set("auth_mode", wanted.mode.name(), same_mode);
    // Another mode brings other defaults, so both are said again.
    set("auth_header_name", wanted.header, same_mode && is("auth_header_name").eq_ignore_ascii_case(wanted.header));
    set("auth_prefix", wanted.prefix, same_mode && is("auth_prefix") == wanted.prefix);
    set("auth_secret_key", wanted.secret_key, is("auth_secret_key") == wanted.secret_key);
    set("status", "active", is("status") == "active");
    if wanted.allow_private && found.get("allow_private") != Some(&Value::Bool(true)) {
        changes.insert("allow_private".to_owned(), Value::Bool(true));
    }
    changes
}

fn no_secret(wanted: &Wanted<'_>) -> CliError {
    let message = format!("the connection {} has no secret named {}", wanted.id, wanted.secret_key);
    CliError::new(Outcome::Failed, message)
        .hint("give it with --upstream-secret-env, --upstream-secret-file or --upstream-secret-stdin")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn only_what_differs_is_changed() {
        let id = ConnectionId::parse("my-svc").unwrap();
        let mut wanted = Wanted {
            id: &id,
            name: "My",
            base_url: "https://api.example.com/",
            mode: AuthMode::HeaderKey,
            header: "X-my-svc-Key",
            prefix: "",
            secret_key: "upstream_key",
            allow_private: false,
        };
        let found = json!({
            "name": "My", "base_url": "https://api.example.com", "auth_mode": "header_key", "auth_prefix": "",
            "auth_header_name": "x-my-svc-key", "auth_secret_key": "upstream_key", "status": "active",
        });
        assert!(changes(&wanted, &found).is_empty());
        wanted.mode = AuthMode::Bearer;
        wanted.prefix = "Bearer ";
        wanted.header = "Authorization";
        let expected = json!({ "auth_mode": "bearer", "auth_header_name": "Authorization", "auth_prefix": "Bearer " });
        assert_eq!(Value::Object(changes(&wanted, &found)), expected);
        wanted.mode = AuthMode::QueryParam;
        wanted.prefix = "";
        wanted.allow_private = true;
        let changed = Value::Object(changes(&wanted, &found));
        assert_eq!(changed.get("auth_prefix"), Some(&Value::from(" ")));
        assert_eq!(changed.get("allow_private"), Some(&Value::Bool(true)));
    }
}
