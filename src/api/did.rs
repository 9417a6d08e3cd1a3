//! DIDs over HTTP: the document alone, and the result of resolving it. Open to everybody.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use rusqlite::Connection;
use rusqlite::params;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::did_document;
use crate::api::did_document::Subject;
use crate::api::moment;
use crate::api::moment::iso;
use crate::api::owner::origin;
use crate::api::problem::Problem;
use crate::api::problem::json;
use crate::api::users;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::wire::control_plane::ErrorBody;

/// Most keys and most services of a document: ten times what limits allow a namespace to have.
const MAX_ENTRIES: i64 = 1000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(document)).routes(routes!(resolve))
}

/// What is known of a namespace; `None` where nobody ever had it.
fn subject(db: &Connection, namespace: Namespace, now_ms: i64) -> Result<Option<Subject>, rusqlite::Error> {
    let name = namespace.as_str();
    let sql = "SELECT count(*), max(max(coalesce(approved_at_ms, 0), coalesce(ended_at_ms, 0)))
               FROM authorizations WHERE namespace = ?1";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?));
    let (claims, updated) = db.prepare_cached(sql)?.query_row([name], row)?;
    let user = users::find_by_namespace(db, name)?;
    if user.is_none() && claims == 0 && !users::was_left(db, &namespace)? {
        return Ok(None);
    }
    let valid = "namespace = ?1 AND status = 'approved' AND (expires_at_ms IS NULL OR expires_at_ms > ?2)";
    let sql = format!(
        "SELECT public_key FROM authorizations WHERE {valid}
         GROUP BY public_key ORDER BY max(approved_at_ms) DESC, public_key LIMIT ?3"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let keys = statement.query_map(params![name, now_ms, MAX_ENTRIES], |row| row.get::<_, String>(0))?;
    let keys = keys.collect::<Result<Vec<_>, _>>()?.iter().filter_map(|key| PublicKey::parse(key).ok()).collect();
    let sql = format!(
        "SELECT DISTINCT slug FROM services
         WHERE id IN (SELECT service_id FROM authorizations WHERE {valid}) ORDER BY slug LIMIT ?3"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let services = statement.query_map(params![name, now_ms, MAX_ENTRIES], |row| row.get(0))?;
    let services = services.collect::<Result<Vec<_>, _>>()?;
    let updated = updated.filter(|at| *at > 0).map(iso);
    Ok(Some(Subject { keys, services, created: user.map(|user| iso(user.created_at_ms)), updated, namespace }))
}

async fn look_up(api: &Api, namespace: Namespace) -> Result<Option<Subject>, Problem> {
    let now_ms = moment::now_ms(api.clock);
    api.db.read(move |db| Ok(subject(db, namespace, now_ms)?)).await
}

fn typed(status: StatusCode, body: &Value, content_type: &'static str) -> Response<Body> {
    let mut response = json(status, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if status == StatusCode::OK {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    }
    response
}

/// The DID document of a namespace: its approved keys and where to verify them.
#[utoipa::path(get, path = "/.well-known/did/{did}", tag = "did",
    params(("did" = String, Path, description = "did:sigilum:<namespace>")), responses(
    (status = 200, description = "The document", body = Object, content_type = "application/did+ld+json"),
    (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
    (status = 503, description = "DB_UNAVAILABLE", body = ErrorBody),
))]
async fn document(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Path(did): Path<String>,
) -> Result<Response<Body>, Problem> {
    let namespace =
        did_document::parse_did(&did).ok_or_else(|| Problem::invalid("did", "must be did:sigilum: and a namespace"))?;
    let subject = look_up(&api, namespace).await?.ok_or_else(Problem::not_found)?;
    let body = did_document::document(&subject, &origin(&api, &headers));
    Ok(typed(StatusCode::OK, &body, did_document::DOCUMENT_TYPE))
}

/// The result of resolving a DID.
#[utoipa::path(get, path = "/1.0/identifiers/{did}", tag = "did",
    params(("did" = String, Path, description = "did:sigilum:<namespace>")), responses(
    (status = 200, description = "The result", body = Object, content_type = "application/ld+json"),
    (status = 400, description = "invalidDid", body = Object, content_type = "application/ld+json"),
    (status = 404, description = "notFound", body = Object, content_type = "application/ld+json"),
    (status = 500, description = "internalError", body = Object, content_type = "application/ld+json"),
))]
async fn resolve(State(api): State<Arc<Api>>, headers: HeaderMap, Path(did): Path<String>) -> Response<Body> {
    let refused = |status, error| typed(status, &did_document::resolution_error(error), did_document::RESOLUTION_TYPE);
    let Some(namespace) = did_document::parse_did(&did) else {
        return refused(StatusCode::BAD_REQUEST, "invalidDid");
    };
    match look_up(&api, namespace).await {
        Ok(Some(subject)) => {
            let body = did_document::resolution(&subject, &origin(&api, &headers));
            typed(StatusCode::OK, &body, did_document::RESOLUTION_TYPE)
        }
        Ok(None) => refused(StatusCode::NOT_FOUND, "notFound"),
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "internalError"),
    }
}
