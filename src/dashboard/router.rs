//! Every page and what it answers to.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::middleware::from_fn;
use axum::routing::get;
use axum::routing::post;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use crate::api::Api;
use crate::dashboard::assets;
use crate::dashboard::claims;
use crate::dashboard::connections;
use crate::dashboard::gateway;
use crate::dashboard::handover;
use crate::dashboard::overview;
use crate::dashboard::pairing;
use crate::dashboard::services;
use crate::dashboard::session;
use crate::dashboard::usage;

/// Only what this program serves, and nothing inline. Images may be data: small marks in the style sheet.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);
/// Nothing of an address leaves for elsewhere. Not `no-referrer`: with that, browsers send our own forms with
/// `Origin: null` (Fetch standard, "append a request Origin header"), and they could not be told from a stranger's.
const REFERRERS: HeaderValue = HeaderValue::from_static("same-origin");
/// Nothing of the machine is needed.
const PERMISSIONS: HeaderValue = HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=()");

/// Every page.
pub fn pages() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/sign-in", get(session::show).post(session::begin))
        .route("/sign-out", post(session::end))
        .route("/claims", get(claims::list))
        .route("/claims/news", get(claims::news))
        .route("/claims/{id}/approve", post(claims::approve))
        .route("/claims/{id}/reject", post(claims::reject))
        .route("/claims/{id}/revoke", post(claims::revoke))
        .route("/services", get(services::list).post(services::create))
        .route("/services/{id}", get(services::show))
        .route("/services/{id}/delete", post(services::delete))
        .route("/services/{id}/keys", post(services::make_key))
        .route("/services/{id}/keys/{key}/revoke", post(services::revoke_key))
        .route("/gateway", get(gateway::show))
        .route("/gateway/pairing", post(pairing::start))
        .route("/gateway/pairing/state", get(pairing::state))
        .route("/gateway/pairing/end", post(pairing::end))
        .route("/gateway/pairing/name", post(pairing::rename))
        .route("/gateway/connections/new", get(connections::offer).post(connections::create))
        .route("/gateway/connections/{id}", get(connections::show))
        .route("/gateway/connections/{id}/service", post(handover::hand_over))
        .route("/gateway/connections/{id}/test", post(connections::test))
        .route("/gateway/connections/{id}/rotate", post(connections::rotate))
        .route("/gateway/connections/{id}/status", post(connections::set_status))
        .route("/gateway/connections/{id}/delete", post(connections::delete))
        .route("/usage", get(usage::show))
        .route("/assets/{version}/{name}", get(assets::serve))
        .layer(from_fn(guarded))
}

/// Puts the headers of a page on whatever is answered, errors included.
async fn guarded(request: Request, next: Next) -> http::Response<axum::body::Body> {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, REFERRERS);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(HeaderName::from_static("permissions-policy"), PERMISSIONS);
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
