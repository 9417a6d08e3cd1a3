//! `GET /health`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::moment;
use crate::api::problem::json;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(health))
}

/// Answer of `GET /health`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
    /// Now.
    timestamp: String,
}

/// Whether the API answers.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = Health)))]
async fn health(State(api): State<Arc<Api>>) -> Response<Body> {
    json(StatusCode::OK, &Health { status: "ok", timestamp: moment::iso(moment::now_ms(api.clock)) })
}
