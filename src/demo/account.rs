//! The routes both demo services offer: a ping, a balance, a transfer. They keep nothing.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use serde_json::Value;
use serde_json::json;

/// `POST /v1/ping`, `GET /v1/balance`, `POST /v1/transfer`.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/v1/ping", post(ping))
        .route("/v1/balance", get(|| async { Json(json!({"account": "demo", "currency": "USD", "balance": 1000})) }))
        .route("/v1/transfer", post(transfer))
}

/// `{"error": …}`.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}

/// Reads its body to the end, as the other routes do: an answer before that closes the connection
/// under whoever is still sending.
async fn ping(_body: Bytes) -> Json<&'static str> {
    Json("pong")
}

/// Accepts any JSON object, and says what it asked for.
async fn transfer(body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(Value::Object(mut answer)) => {
            answer.insert("status".to_owned(), json!("accepted"));
            Json(Value::Object(answer)).into_response()
        }
        Ok(_) | Err(_) => {
            refusal(StatusCode::BAD_REQUEST, "expected an object such as {\"to\": \"bob\", \"amount\": 5}")
        }
    }
}
