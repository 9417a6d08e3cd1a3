//! Routes as one table, and what every request passes: an id, bounds in size and time, and where the path needs
//! one, a signature.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::middleware::Next;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use serde_json::Value;
use tokio::task::JoinSet;
use utoipa_axum::router::OpenApiRouter;

use crate::api::Api;
use crate::api::account;
use crate::api::changes;
use crate::api::claims;
use crate::api::cors;
use crate::api::decide;
use crate::api::did;
use crate::api::feed;
use crate::api::health;
use crate::api::namespace_claims;
use crate::api::namespaces;
use crate::api::openapi;
use crate::api::pairing;
use crate::api::problem::Problem;
use crate::api::seed;
use crate::api::service_keys;
use crate::api::services;
use crate::api::signed;
use crate::api::unsupported;
use crate::api::usage_events;
use crate::api::usage_summary;
use crate::api::verify;
use crate::sys::http_server::Peer;
use crate::sys::random;

/// How long a request may take until its answer begins.
const REQUEST_PATIENCE: Duration = Duration::from_secs(20);
/// Largest answer that is laid out for people, in bytes.
const MAX_PRETTY_BYTES: usize = 16 * 1024 * 1024;
/// Longest request id that is taken over, in characters.
const MAX_REQUEST_ID: usize = 128;
/// Header that repeats a request's id.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Every route, with its description.
pub fn table() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .merge(health::routes())
        .merge(account::routes())
        .merge(services::routes())
        .merge(service_keys::routes())
        .merge(namespaces::routes())
        .merge(namespace_claims::routes())
        .merge(decide::routes())
        .merge(usage_summary::routes())
        .merge(did::routes())
        .merge(seed::routes())
        .merge(openapi::routes())
        .merge(pairing::routes())
        .merge(unsupported::routes())
        .merge(claims::routes())
        .merge(feed::routes())
        .merge(changes::routes())
        .merge(verify::routes())
        .merge(usage_events::routes())
}

/// The whole face, with pages for people beside it: what every request passes, they pass too.
pub fn router(api: Arc<Api>, pages: Router<Arc<Api>>) -> Router {
    let (router, _) = table().split_for_parts();
    router
        .merge(pages)
        .method_not_allowed_fallback(async || Problem::of_status(StatusCode::METHOD_NOT_ALLOWED))
        .fallback(async || Problem::not_found())
        .layer(from_fn_with_state(Arc::clone(&api), signed::guard))
        .layer(from_fn_with_state(Arc::clone(&api), attend))
        .with_state(api)
}

/// A request's id, for handlers that log.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// What every request passes: an id, a time limit, containment of panics, headers of the answer.
async fn attend(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response<Body> {
    let id = request_id(request.headers());
    let page = request.headers().get(header::ORIGIN).is_some().then(|| request.headers().clone());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let pretty = request.uri().query().is_some_and(wants_pretty);
    let client = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string()).unwrap_or_default();
    request.extensions_mut().insert(RequestId(id.clone()));
    let response = if cors::is_preflight(&method, request.headers()) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        // A task of its own: a panic ends it and not the connection; dropped with us when the client leaves.
        let mut task = JoinSet::new();
        task.spawn(next.run(request));
        match tokio::time::timeout(patience(&path), task.join_next()).await {
            Ok(Some(Ok(response))) => response,
            Ok(Some(Err(_)) | None) => {
                tracing::error!(request_id = %id, "a handler panicked");
                Problem::internal().into_response()
            }
            Err(_) => {
                let text = "the request took too long";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "TIMEOUT", text).into_response()
            }
        }
    };
    let mut response = with_envelope(response);
    if pretty {
        response = laid_out(response).await;
    }
    let status = response.status().as_u16();
    tracing::debug!(request_id = %id, %client, %method, path, status, environment = %api.environment, "API request");
    let headers = response.headers_mut();
    api.origins.decorate(page.as_ref().unwrap_or(&HeaderMap::new()), headers);
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID_HEADER, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// How long a request to a path may take until its answer begins.
fn patience(path: &str) -> Duration {
    match path {
        // How long to wait for the gateway is for who asks, within its bounds.
        pairing::COMMAND_PATH => REQUEST_PATIENCE.saturating_add(pairing::MAX_TIMEOUT),
        _ => REQUEST_PATIENCE,
    }
}

/// The client's own id where it is one word of visible ASCII, else one of ours.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    match given.filter(usable) {
        Some(id) => id.to_owned(),
        None => random::uuid().unwrap_or_else(|_| "unknown".to_owned()),
    }
}

/// `?pretty`, unless it says no.
fn wants_pretty(query: &str) -> bool {
    query.split('&').any(|piece| {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        name == "pretty" && !matches!(value, "0" | "false")
    })
}

/// Errors of the framework itself (a path that is no UTF-8, say) have no envelope yet.
fn with_envelope(response: Response<Body>) -> Response<Body> {
    let status = response.status();
    let typed = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let enveloped = typed.is_some_and(|text| text.starts_with("application/") || text.starts_with("text/html"));
    if !(status.is_client_error() || status.is_server_error()) || enveloped {
        return response;
    }
    let mut problem = Problem::of_status(status).into_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow.clone());
    }
    problem
}

/// The same answer with line breaks and indentation, where it is JSON.
async fn laid_out(response: Response<Body>) -> Response<Body> {
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|value| value != "application/json") {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = Limited::new(body, MAX_PRETTY_BYTES).collect().await else {
        return Problem::internal().into_response();
    };
    let body = body.to_bytes();
    let Ok(value) = serde_json::from_slice::<Value>(&body) else {
        return Response::from_parts(parts, Body::from(body));
    };
    let mut text = serde_json::to_vec_pretty(&value).unwrap_or_default();
    text.push(b'\n');
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(text))
}
