//! Routes of connections, health and metrics, each with its description: from a request to the work and back.
//!
//! Refusals that every guarded route can answer with are described once, in `openapi`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use http::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::connections;
use crate::admin::health;
use crate::admin::input::Asked;
use crate::admin::input::Id;
use crate::admin::input::Name;
use crate::admin::input::Shared;
use crate::admin::input::Who;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::metrics;
use crate::admin::router;
use crate::wire::admin::ConnectionBody;
use crate::wire::admin::ConnectionListBody;
use crate::wire::admin::CreateBody;
use crate::wire::admin::RotateBody;
use crate::wire::envelope::ErrorBody;
use crate::wire::health::HealthBody;
use crate::wire::health::NotReadyBody;
use crate::wire::health::ReadyBody;
use crate::wire::health::ReadyQuery;
use crate::wire::patch::PatchBody;

/// Routes open to everybody.
pub fn open() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(alive))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(started))
        .routes(routes!(healthz))
        .routes(routes!(ready_short))
        .routes(routes!(readyz))
}

/// Routes behind the access rule.
pub fn guarded() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(metrics))
        .routes(routes!(list, create))
        .routes(routes!(read, patch, delete))
        .routes(routes!(rotate))
}

/// Whether the process answers.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "health", security(()), responses(
    (status = 200, description = "It answers", body = HealthBody),
))]
async fn alive(Extension(id): Id) -> Response<Body> {
    finish(&id, health::alive("health"))
}

/// Whether the process answers, for orchestrators that ask for liveness.
#[utoipa::path(get, path = "/health/live", operation_id = "liveness", tag = "health", security(()), responses(
    (status = 200, description = "It answers", body = HealthBody),
))]
async fn live(Extension(id): Id) -> Response<Body> {
    finish(&id, health::alive("liveness"))
}

/// Whether requests of agents are decided, as was found out within the last half second. Who presents the admin token is
/// told every condition, with `fresh` as it is now.
#[utoipa::path(get, path = "/health/ready", operation_id = "readiness", tag = "health", params(ReadyQuery),
    security((), ("admin_token" = []), ("bearer" = [])), responses(
    (status = 200, description = "Ready", body = ReadyBody),
    (status = 503, description = "`NOT_READY`, or `GATEWAY_DRAINING` where nothing else is wrong; with the token the sentence \
        says why, and `conditions`, `failures` and `advisories` stand beside it", body = NotReadyBody),
))]
async fn ready(State(admin): Shared, Extension(id): Id, query: Asked<ReadyQuery>, request: Request) -> Response<Body> {
    router::look_for_new_secret(&admin).await;
    let details = router::may_know(&admin, &id, &request);
    let fresh = query.is_ok_and(|Query(query)| query.is_fresh());
    finish(&id, health::ready(&admin, details, fresh).await)
}

/// The same as `/health`, under the name Kubernetes' own parts use.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "health", security(()), responses(
    (status = 200, description = "It answers", body = HealthBody),
))]
async fn healthz(Extension(id): Id) -> Response<Body> {
    finish(&id, health::alive("health"))
}

/// The same as `/health/ready`.
#[utoipa::path(get, path = "/ready", operation_id = "readyShort", tag = "health", params(ReadyQuery),
    security((), ("admin_token" = []), ("bearer" = [])), responses(
    (status = 200, description = "Ready", body = ReadyBody),
    (status = 503, description = "`NOT_READY`", body = NotReadyBody),
))]
async fn ready_short(admin: Shared, id: Id, query: Asked<ReadyQuery>, request: Request) -> Response<Body> {
    ready(admin, id, query, request).await
}

/// The same as `/health/ready`, under the name Kubernetes' own parts use.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health", params(ReadyQuery),
    security((), ("admin_token" = []), ("bearer" = [])), responses(
    (status = 200, description = "Ready", body = ReadyBody),
    (status = 503, description = "`NOT_READY`", body = NotReadyBody),
))]
async fn readyz(admin: Shared, id: Id, query: Asked<ReadyQuery>, request: Request) -> Response<Body> {
    ready(admin, id, query, request).await
}

/// Whether Envoy may be started: the store answers, and an authz process has what is published and would decide.
#[utoipa::path(get, path = "/health/startup", operation_id = "startup", tag = "health", security(()), responses(
    (status = 200, description = "It may", body = HealthBody),
    (status = 503, description = "`NOT_READY`", body = NotReadyBody),
))]
async fn started(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    finish(&id, health::started(&admin))
}

/// What is counted, in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "health", responses(
    (status = 200, description = "Metrics", body = String, content_type = "text/plain"),
))]
async fn metrics(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    finish(&id, metrics::show(&admin).await)
}

/// Every connection, by id.
#[utoipa::path(get, path = "/api/admin/connections", operation_id = "listConnections", tag = "connections", responses(
    (status = 200, description = "Sorted by id", body = ConnectionListBody),
))]
async fn list(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    finish(&id, connections::list(&admin).await)
}

/// A new connection with its secrets.
#[utoipa::path(post, path = "/api/admin/connections", operation_id = "createConnection", tag = "connections",
    request_body = CreateBody, responses(
    (status = 201, description = "Made, and published to authz", body = ConnectionBody),
    (status = 400, description = "The sentence names the member and what is wrong with it; `SEALED_SECRET_INVALID`: a sealed \
        secret does not open", body = ErrorBody),
    (status = 409, description = "There is one of that id, or there are as many as one gateway holds; \
        `CONNECTION_DECLARED`: the configuration file declares it", body = ErrorBody),
))]
async fn create(State(admin): Shared, Extension(id): Id, Extension(asker): Who, request: Request) -> Response<Body> {
    let work = async { connections::create(&admin, asker, &json_body(request).await?).await };
    finish(&id, work.await)
}

/// One connection.
#[utoipa::path(get, path = "/api/admin/connections/{id}", operation_id = "getConnection", tag = "connections",
    params(("id" = String, Path, description = "Slug of the connection")), responses(
    (status = 200, description = "The connection", body = ConnectionBody),
    (status = 404, description = "No connection of that id", body = ErrorBody),
))]
async fn read(State(admin): Shared, Extension(id): Id, name: Name) -> Response<Body> {
    let work = async { connections::get(&admin, name.connection()?).await };
    finish(&id, work.await)
}

/// Changes what the body names; everything else, the secrets too, stays.
#[utoipa::path(patch, path = "/api/admin/connections/{id}", operation_id = "updateConnection", tag = "connections",
    params(("id" = String, Path, description = "Slug of the connection")), request_body = PatchBody, responses(
    (status = 200, description = "Changed, and published to authz", body = ConnectionBody),
    (status = 400, description = "The sentence names the member and what is wrong with it", body = ErrorBody),
    (status = 404, description = "No connection of that id", body = ErrorBody),
    (status = 409, description = "`CONNECTION_DECLARED`: the configuration file declares it", body = ErrorBody),
))]
async fn patch(
    State(admin): Shared,
    Extension(id): Id,
    Extension(asker): Who,
    name: Name,
    request: Request,
) -> Response<Body> {
    let work = async { connections::patch(&admin, asker, name.connection()?, &json_body(request).await?).await };
    finish(&id, work.await)
}

/// Removes a connection and every version of its secrets.
#[utoipa::path(delete, path = "/api/admin/connections/{id}", operation_id = "deleteConnection", tag = "connections",
    params(("id" = String, Path, description = "Slug of the connection")), responses(
    (status = 204, description = "Gone"),
    (status = 404, description = "No connection of that id", body = ErrorBody),
    (status = 409, description = "`CONNECTION_DECLARED`: the configuration file declares it", body = ErrorBody),
))]
async fn delete(State(admin): Shared, Extension(id): Id, Extension(asker): Who, name: Name) -> Response<Body> {
    let work = async { connections::delete(&admin, asker, name.connection()?).await };
    finish(&id, work.await)
}

/// Merges new secrets into those of a connection, as a new version.
#[utoipa::path(post, path = "/api/admin/connections/{id}/rotate", operation_id = "rotateConnection",
    tag = "connections", params(("id" = String, Path, description = "Slug of the connection")),
    request_body = RotateBody, responses(
    (status = 200, description = "Rotated, and published to authz", body = ConnectionBody),
    (status = 400, description = "Nothing would change, or a secret is not valid; `SEALED_SECRET_INVALID`: a sealed secret does \
        not open", body = ErrorBody),
    (status = 404, description = "No connection of that id", body = ErrorBody),
    (status = 409, description = "`CONNECTION_DECLARED`: the configuration file declares it", body = ErrorBody),
))]
pub(super) async fn rotate(
    State(admin): Shared,
    Extension(id): Id,
    Extension(asker): Who,
    name: Name,
    request: Request,
) -> Response<Body> {
    let work = async { connections::rotate(&admin, asker, name.connection()?, &json_body(request).await?).await };
    finish(&id, work.await)
}
