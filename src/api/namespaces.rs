//! What a namespace's own agents may know of it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use rusqlite::Connection;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::feed;
use crate::api::moment::iso;
use crate::api::problem::Problem;
use crate::api::problem::json;
use crate::api::signed::Signed;
use crate::api::users;
use crate::wire::control_plane::ErrorBody;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// A namespace that has an owner.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct NamespaceView {
    /// `did:sigilum:<namespace>`.
    did: String,
    namespace: String,
    /// The owner's user id.
    owner: String,
    created_at: String,
    /// `true`.
    active: bool,
    /// Approved claims, over all services.
    active_claims: i64,
}

/// The signer's own namespace.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}", tag = "namespaces", security(("signature" = [])),
    params(("namespace" = String, Path, description = "The signer's namespace")), responses(
    (status = 200, body = NamespaceView),
    (status = 401, description = "SIGNATURE_*", body = ErrorBody),
    (status = 403, description = "SIGNATURE_NAMESPACE_MISMATCH", body = ErrorBody),
    (status = 404, description = "NOT_FOUND: nobody owns it", body = ErrorBody),
))]
async fn show(
    State(api): State<Arc<Api>>,
    Signed(signer): Signed,
    Path(namespace): Path<String>,
) -> Result<Response<Body>, Problem> {
    // The guard has compared them already; this holds should the paths it knows ever differ from the route's.
    if signer.caller.namespace.as_str() != namespace {
        return Err(Problem::forbidden("the signer's namespace is another"));
    }
    feed::end_what_is_over(&api).await?;
    let read = move |db: &Connection| {
        let user = users::find_by_namespace(db, &namespace)?.ok_or_else(Problem::not_found)?;
        let sql = "SELECT count(*) FROM authorizations WHERE namespace = ?1 AND status = 'approved'";
        let active_claims = db.prepare_cached(sql)?.query_row([&namespace], |row| row.get(0))?;
        Ok(NamespaceView {
            did: signer.caller.namespace.did(),
            namespace,
            owner: user.id,
            created_at: iso(user.created_at_ms),
            active: true,
            active_claims,
        })
    };
    let mut response = json(StatusCode::OK, &api.db.read(read).await?);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=300"));
    Ok(response)
}
