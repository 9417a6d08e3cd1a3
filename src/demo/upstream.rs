//! The demo API over HTTP.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::response::Sse;
use axum::response::sse::Event;
use axum::routing::any;
use axum::routing::get;
use futures_util::Stream;
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;

use crate::demo::account;
use crate::demo::account::refusal;
use crate::demo::echo::Echo;
use crate::domain::secret::Secret;
use crate::sys::tasks::Stop;

/// The header that must carry the key.
pub const KEY_HEADER: &str = "X-Demo-Service-Gateway-Key";
/// Time between two events of `/v1/stream`.
const EVENT_INTERVAL: Duration = Duration::from_millis(200);
/// Events of one stream where the caller does not say (`?count=`).
const DEFAULT_EVENTS: u32 = 10;
/// Longest stream anybody may ask for.
const MAX_EVENTS: u32 = 10_000;
/// Largest body that is taken in, as large as the gateway can be set to let through.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// How long open answers have to end at a stop.
const GRACE: Duration = Duration::from_secs(2);

/// The demo upstream could not go on.
#[derive(Debug, thiserror::Error)]
#[error("the demo upstream stopped: {0}")]
pub struct DemoError(#[from] io::Error);

struct Demo {
    key: Secret,
    stop: Stop,
}

/// Serves the demo API on `listener` until the stop; every `/v1` route wants `key` in [`KEY_HEADER`].
pub async fn run(listener: TcpListener, key: Secret, stop: Stop) -> Result<(), DemoError> {
    let demo = Arc::new(Demo { key, stop: stop.clone() });
    let mut called = stop.clone();
    let server = axum::serve(listener, router(demo)).with_graceful_shutdown(async move { called.wait().await });
    let mut called = stop;
    let overdue = async move {
        called.wait().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = async { server.await } => Ok(ended?),
        () = overdue => Ok(()),
    }
}

fn router(demo: Arc<Demo>) -> Router {
    let guarded = Router::new()
        .merge(account::routes())
        // What a test of a connection asks for that names no path.
        .route("/", get(alive))
        .route("/v1/echo", any(echo))
        .route("/v1/echo/", any(echo))
        .route("/v1/echo/{*rest}", any(echo))
        .route("/v1/stream", get(events))
        .route("/v1/status/{code}", any(status))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "Not found") })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&demo), guard));
    Router::new().route("/health", get(alive)).merge(guarded).with_state(demo)
}

/// Lets a request through only with exactly one key, and the right one.
async fn guard(State(demo): State<Arc<Demo>>, request: Request, next: Next) -> Response {
    let mut keys = request.headers().get_all(KEY_HEADER).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if demo.key.matches(key.as_bytes()) => next.run(request).await,
        _ => refusal(StatusCode::UNAUTHORIZED, "Unauthorized"),
    }
}

async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Echo> {
    Json(Echo::of(&method, &uri, &headers, &body))
}

/// Answers with the status of the path: a final one, since informational ones end no request.
async fn status(Path(code): Path<u16>, _body: Bytes) -> Response {
    match StatusCode::from_u16(code) {
        Ok(status) if (200..=599).contains(&code) => {
            let bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
            if bare { status.into_response() } else { (status, Json(json!({"status": code}))).into_response() }
        }
        Ok(_) | Err(_) => refusal(StatusCode::BAD_REQUEST, "the status must be 200 to 599"),
    }
}

#[derive(Debug, Deserialize)]
struct Wanted {
    count: Option<u32>,
}

/// Server-sent events: the first at once, then one per interval, ending early at the stop.
async fn events(
    State(demo): State<Arc<Demo>>,
    Query(wanted): Query<Wanted>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let count = wanted.count.unwrap_or(DEFAULT_EVENTS).min(MAX_EVENTS);
    Sse::new(stream::unfold((0_u32, demo.stop.clone()), move |(sequence, mut stop)| async move {
        if sequence >= count {
            return None;
        }
        if sequence > 0 {
            tokio::select! {
                () = stop.wait() => return None,
                () = tokio::time::sleep(EVENT_INTERVAL) => {}
            }
        }
        let event = Event::default().id(sequence.to_string()).data(format!("{{\"sequence\":{sequence}}}"));
        Some((Ok(event), (sequence.saturating_add(1), stop)))
    }))
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
