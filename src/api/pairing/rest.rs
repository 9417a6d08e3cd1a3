//! `/v1/gateway/pairing/{start,status,command,end}`: an owner's pair sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http::StatusCode;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::account::Done;
use crate::api::input;
use crate::api::input::Fields;
use crate::api::input::Query;
use crate::api::moment::iso;
use crate::api::owner;
use crate::api::owner::SignedIn;
use crate::api::pairing::connect;
use crate::api::pairing::sessions::Order;
use crate::api::pairing::sessions::Standing;
use crate::api::problem::Problem;
use crate::api::problem::json as answer;
use crate::domain::secret::Secret;
use crate::wire::control_plane::ErrorBody;
use crate::wire::pairing::Relayed;

/// Where commands are sent; they may take longer than other requests, see [`MAX_TIMEOUT`].
pub const COMMAND_PATH: &str = "/v1/gateway/pairing/command";
/// How long the answer to a command may take at most.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// Shortest and longest time of a new session, and that of one that names none, in seconds.
const TTL: (i64, i64, i64) = (30, 3600, 600);
/// Shortest and longest wait for an answer, and that of a command that names none, in milliseconds.
const TIMEOUT: (i64, i64, i64) = (1000, 60_000, 15_000);
/// Methods of commands.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
/// Longest path of a command, in characters.
const MAX_PATH: usize = 2048;
/// Most headers of a command.
const MAX_HEADERS: usize = 64;
/// Longest id of a session, in characters.
const MAX_ID: usize = 256;

/// The routes of the module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(status))
        .routes(routes!(command))
        .routes(routes!(end))
        .merge(connect::routes())
}

/// A session to be started.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct StartBody {
    /// Your own.
    namespace: Option<String>,
    /// Seconds until it ends unless a bridge joins, 30 to 3600; default 600.
    ttl_seconds: Option<i64>,
}

/// A session that was started.
#[derive(Serialize, utoipa::ToSchema)]
struct StartView<'a> {
    session_id: &'a str,
    namespace: &'a str,
    /// What the bridge must know; shown this once.
    pair_code: &'a str,
    /// ISO 8601 with milliseconds.
    expires_at: String,
    /// Where the bridge connects; without the pair code, which goes in a header.
    ws_url: String,
}

/// How a session stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct StatusView {
    /// Whether a bridge is there now.
    connected: bool,
    namespace: String,
    /// Unix milliseconds; where it has ended, when that was.
    expires_at: i64,
    /// Unix milliseconds.
    last_connected_at: Option<i64>,
    /// `expired`, `wrong_codes` (too many were tried before a bridge had joined) or `by_owner`.
    ended: Option<&'static str>,
}

/// Something to be asked of a gateway.
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct CommandBody {
    session_id: String,
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    method: String,
    /// Of the gateway's admin API; begins with `/`.
    path: String,
    /// At most 64; the bridge lets some through.
    headers: Option<BTreeMap<String, String>>,
    /// The request's body as text.
    body: Option<String>,
    /// How long the answer may take, 1000 to 60000; default 15000.
    timeout_ms: Option<i64>,
}

/// Which session.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct EndBody {
    session_id: String,
}

/// Starts a pair session
///
/// A body that is absent or no JSON object counts as an empty one.
#[utoipa::path(post, path = "/v1/gateway/pairing/start", tag = "pairing", security(("owner" = [])),
    request_body = Option<StartBody>, responses(
    (status = 200, body = StartView),
    (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: not your namespace; PAIRING_LIMIT_REACHED", body = ErrorBody),
))]
async fn start(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let object = input::object(&body).unwrap_or_default();
    let mut fields = Fields::of(&object);
    let namespace = fields.optional_text("namespace", MAX_ID);
    let (least, most, usual) = TTL;
    let ttl = fields.optional_number("ttl_seconds", least, most).unwrap_or(usual);
    fields.finish()?;
    if let Some(namespace) = namespace {
        owner.check_owns(&namespace)?;
    }
    let started = api.pairings.start(&owner.user, Duration::from_secs(ttl.unsigned_abs())).await?;
    // The origin's scheme is http or https; that of a WebSocket is ws or wss.
    let origin = owner::origin(&api, &headers).replacen("http", "ws", 1);
    let (path, id, namespace) = (connect::PATH, &started.session_id, &started.namespace);
    let view = StartView {
        session_id: id,
        namespace,
        pair_code: started.pair_code.expose(),
        expires_at: iso(started.expires_at_ms),
        ws_url: format!("{origin}{path}?session_id={id}&namespace={namespace}"),
    };
    Ok(answer(StatusCode::OK, &view))
}

/// How a pair session stands
#[utoipa::path(get, path = "/v1/gateway/pairing/status", tag = "pairing", security(("owner" = [])),
    params(("session_id" = String, Query, description = "Id of the pair session")), responses(
    (status = 200, body = StatusView),
    (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: not your session", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
))]
async fn status(State(api): State<Arc<Api>>, owner: SignedIn, query: Query) -> Result<Response<Body>, Problem> {
    let id = query.find("session_id").ok_or_else(|| Problem::invalid("session_id", "must be an id of a session"))?;
    let Standing { connected, namespace, expires_at_ms, last_connected_at_ms, ended, .. } =
        api.pairings.standing(&owner.user, id).await?;
    let view = StatusView {
        connected,
        namespace,
        expires_at: expires_at_ms,
        last_connected_at: last_connected_at_ms,
        ended: ended.map(super::Ended::text),
    };
    Ok(answer(StatusCode::OK, &view))
}

/// Asks something of the paired gateway's admin API
///
/// Which paths a gateway takes from here, its bridge decides. What is relayed is neither stored nor logged here. The answer has
/// 200 also where that of the gateway is an error.
#[utoipa::path(post, path = "/v1/gateway/pairing/command", tag = "pairing", security(("owner" = [])),
    request_body = CommandBody, responses(
    (status = 200, body = Relayed),
    (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: not your session", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
    (status = 410, description = "GATEWAY_RELAY_FAILED: the session is over", body = ErrorBody),
    (status = 429, description = "RATE_LIMITED: 32 commands wait for their answers", body = ErrorBody),
    (status = 502, description = "GATEWAY_RELAY_FAILED: not sent, or the answer was too large", body = ErrorBody),
    (status = 503, description = "GATEWAY_NOT_CONNECTED", body = ErrorBody),
    (status = 504, description = "GATEWAY_RELAY_FAILED: no answer in time, or the gateway left", body = ErrorBody),
))]
async fn command(State(api): State<Arc<Api>>, owner: SignedIn, body: Bytes) -> Result<Response<Body>, Problem> {
    let order = order(input::object(&body)?)?;
    Ok(answer(StatusCode::OK, &api.pairings.command(&owner.user, order).await?))
}

/// Ends a pair session: its bridge is cut off and cannot come back
#[utoipa::path(post, path = "/v1/gateway/pairing/end", tag = "pairing", security(("owner" = [])),
    request_body = EndBody, responses(
    (status = 200, body = Done),
    (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: not your session", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
))]
async fn end(State(api): State<Arc<Api>>, owner: SignedIn, body: Bytes) -> Result<Response<Body>, Problem> {
    let object = input::object(&body)?;
    let mut fields = Fields::of(&object);
    let session_id = fields.text("session_id", 1, MAX_ID);
    fields.finish()?;
    api.pairings.end(&owner.user, &session_id).await?;
    Ok(answer(StatusCode::OK, &Done { success: true }))
}

/// Reads a command.
fn order(mut object: Map<String, Value>) -> Result<Order, Problem> {
    // Taken out first: it may hold a secret and is not copied again.
    let body = object.remove("body");
    let mut fields = Fields::of(&object);
    let session_id = fields.text("session_id", 1, MAX_ID);
    let method = fields.text("method", 1, 10);
    if !method.is_empty() && !METHODS.contains(&method.as_str()) {
        fields.refuse("method", format!("must be one of {}", METHODS.join(", ")));
    }
    let path = fields.text("path", 1, MAX_PATH);
    if !path.is_empty() && !path.starts_with('/') {
        fields.refuse("path", "must begin with /");
    }
    let headers = match object.get("headers") {
        None | Some(Value::Null) => Some(BTreeMap::new()),
        Some(value) => headers(value),
    };
    let headers = headers.unwrap_or_else(|| {
        fields.refuse("headers", format!("must be an object of at most {MAX_HEADERS} texts"));
        BTreeMap::new()
    });
    let body = match body {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(Secret::new(text)),
        Some(_) => {
            fields.refuse("body", "must be a text or null");
            None
        }
    };
    let (least, most, usual) = TIMEOUT;
    let timeout_ms = fields.optional_number("timeout_ms", least, most).unwrap_or(usual);
    fields.finish()?;
    let timeout = Duration::from_millis(timeout_ms.unsigned_abs());
    Ok(Order { session_id, method, path, headers, body, timeout })
}

fn headers(value: &Value) -> Option<BTreeMap<String, String>> {
    let object = value.as_object().filter(|object| object.len() <= MAX_HEADERS)?;
    object.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
#[path = "rest_tests.rs"]
mod tests;
