//! An owner's services. What is another owner's does not exist here: it is answered with 404 like an unknown id.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use bytes::Bytes;
use http::Response;
use http::StatusCode;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::account;
use crate::api::account::Done;
use crate::api::input;
use crate::api::input::Fields;
use crate::api::moment;
use crate::api::moment::iso;
use crate::api::owner::SignedIn;
use crate::api::problem::Problem;
use crate::api::problem::json as answer;
use crate::api::text;
use crate::api::unsupported;
use crate::api::users;
use crate::api::users::User;
use crate::domain::ids::ConnectionId;
use crate::sys::random;
use crate::wire::control_plane::ErrorBody;

/// Longest name, in characters.
pub const MAX_NAME: usize = 100;
/// Longest domain, in characters.
const MAX_DOMAIN: usize = 255;
/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 500;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, remove))
}

/// A service as its owner sees it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ServiceView {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// What approvals and connections call it; unique per owner.
    pub slug: String,
    /// Where it lives.
    pub domain: String,
    /// A sentence about it.
    pub description: String,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// Always absent: nothing is written to a chain here.
    registration_tx_hash: Option<String>,
    /// Keys that are not revoked.
    pub active_key_count: i64,
}

/// All services of an owner, oldest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ServiceList {
    services: Vec<ServiceView>,
}

/// A service to be made.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct ServiceBody {
    /// 1 to 100 characters.
    name: String,
    /// `^[a-z0-9][a-z0-9-]{1,62}[a-z0-9]$`.
    slug: String,
    /// 1 to 255 characters.
    domain: String,
    /// 1 to 500 characters.
    description: String,
}

/// What is to be changed of a service.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct ServiceChange {
    /// 1 to 100 characters.
    name: Option<String>,
    /// 1 to 255 characters.
    domain: Option<String>,
    /// 1 to 500 characters.
    description: Option<String>,
}

/// Id and slug of a service that is its owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedService {
    /// Its id.
    pub id: String,
    /// Its slug.
    pub slug: String,
}

/// The service of an id, where it is this owner's; else 404.
pub fn owned(db: &Connection, owner: &User, id: &str) -> Result<OwnedService, Problem> {
    let sql = "SELECT id, slug FROM services WHERE id = ?1 AND owner_user_id = ?2";
    let row = |row: &Row<'_>| Ok(OwnedService { id: row.get(0)?, slug: row.get(1)? });
    let found = db.prepare_cached(sql)?.query_row([id, &owner.id], row).optional()?;
    found.ok_or_else(Problem::not_found)
}

const VIEW: &str = "SELECT s.id, s.name, s.slug, s.domain, s.description, s.created_at_ms, s.updated_at_ms,
        (SELECT count(*) FROM service_api_keys k WHERE k.service_id = s.id AND k.revoked_at_ms IS NULL)
     FROM services s";

fn view(row: &Row<'_>) -> Result<ServiceView, rusqlite::Error> {
    Ok(ServiceView {
        id: row.get(0)?,
        name: row.get(1)?,
        slug: row.get(2)?,
        domain: row.get(3)?,
        description: row.get(4)?,
        created_at: iso(row.get(5)?),
        updated_at: iso(row.get(6)?),
        registration_tx_hash: None,
        active_key_count: row.get(7)?,
    })
}

fn read_view(db: &Connection, owner: &User, id: &str) -> Result<ServiceView, Problem> {
    let sql = format!("{VIEW} WHERE s.id = ?1 AND s.owner_user_id = ?2");
    db.prepare_cached(&sql)?.query_row([id, &owner.id], view).optional()?.ok_or_else(Problem::not_found)
}

/// The owner's services.
#[utoipa::path(get, path = "/v1/services", tag = "services", security(("owner" = [])), responses(
    (status = 200, body = ServiceList),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
))]
async fn list(State(api): State<Arc<Api>>, owner: SignedIn) -> Result<Response<Body>, Problem> {
    Ok(answer(StatusCode::OK, &ServiceList { services: all(&api, owner).await? }))
}

/// All services of an owner, oldest first.
pub async fn all(api: &Api, owner: SignedIn) -> Result<Vec<ServiceView>, Problem> {
    let read = move |db: &Connection| {
        // As many as one account may have, which is little.
        let sql = format!("{VIEW} WHERE s.owner_user_id = ?1 ORDER BY s.created_at_ms, s.id");
        let mut statement = db.prepare_cached(&sql)?;
        let rows = statement.query_map([&owner.user.id], view)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    api.db.read(read).await
}

/// Makes a service.
#[utoipa::path(post, path = "/v1/services", tag = "services", security(("owner" = [])), request_body = ServiceBody,
    responses(
    (status = 201, body = ServiceView),
    (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "SERVICE_LIMIT_REACHED", body = ErrorBody),
    (status = 409, description = "CONFLICT: the slug is taken", body = ErrorBody),
    (status = 501, description = "NOT_IMPLEMENTED: a webhook was asked for", body = ErrorBody),
))]
async fn create(State(api): State<Arc<Api>>, owner: SignedIn, body: Bytes) -> Result<Response<Body>, Problem> {
    let object = input::object(&body)?;
    if object.get("webhook").is_some_and(|webhook| !webhook.is_null()) {
        return Err(unsupported::problem("webhooks"));
    }
    Ok(answer(StatusCode::CREATED, &make(&api, owner, &object).await?))
}

/// Makes a service of the members `name`, `slug`, `domain` and `description`.
pub async fn make(api: &Api, owner: SignedIn, object: &Map<String, Value>) -> Result<ServiceView, Problem> {
    let mut fields = Fields::of(object);
    let name = text::line(&mut fields, "name", 1, MAX_NAME);
    let slug = text::line(&mut fields, "slug", 3, 64);
    if !slug.is_empty()
        && let Err(error) = ConnectionId::parse(&slug)
    {
        fields.refuse("slug", error.to_string());
    }
    let domain = text::line(&mut fields, "domain", 1, MAX_DOMAIN);
    let description = text::line(&mut fields, "description", 1, MAX_DESCRIPTION);
    fields.finish()?;
    let (most, now_ms) = (api.limits.max_services_per_account, moment::now_ms(api.clock));
    let spare = format!("svc_{}", random::hex::<8>()?);
    let insert = move |db: &rusqlite::Transaction<'_>| {
        let user = users::find(db, &owner.user.id)?.ok_or_else(account::gone)?;
        let sql = "SELECT 1 FROM services WHERE owner_user_id = ?1 AND slug = ?2";
        if db.prepare_cached(sql)?.exists([&user.id, &slug])? {
            let text = "you have a service of this slug already";
            return Err(Problem::new(StatusCode::CONFLICT, "CONFLICT", text));
        }
        let sql = "SELECT count(*) FROM services WHERE owner_user_id = ?1";
        let count: i64 = db.prepare_cached(sql)?.query_row([&user.id], |row| row.get(0))?;
        if count >= i64::from(most) {
            let text = format!("an account has at most {most} services; remove one first");
            let problem = Problem::new(StatusCode::FORBIDDEN, "SERVICE_LIMIT_REACHED", text);
            return Err(problem.details(json!({"service_limit": most, "services": count})));
        }
        let id = free_id(db, &user, &slug, spare)?;
        let sql = "INSERT INTO services (id, owner_user_id, name, slug, domain, description, created_at_ms,
                                         updated_at_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)";
        db.prepare_cached(sql)?.execute(params![id, user.id, name, slug, domain, description, now_ms])?;
        read_view(db, &user, &id)
    };
    api.db.write(insert).await
}

/// `svc_local_<slug>`, where no other owner has or had it; ids are of all owners together, slugs of each.
fn free_id(db: &Connection, owner: &User, slug: &str, spare: String) -> Result<String, rusqlite::Error> {
    let local = format!("svc_local_{slug}");
    let sql = "SELECT 1 FROM local_service_ids WHERE id = ?1 AND owner_user_id <> ?2";
    let taken = db.prepare_cached(sql)?.exists([&local, &owner.id])?;
    Ok(if taken { spare } else { local })
}

/// One service.
#[utoipa::path(get, path = "/v1/services/{id}", tag = "services", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the service")), responses(
    (status = 200, body = ServiceView),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
))]
async fn show(State(api): State<Arc<Api>>, owner: SignedIn, Path(id): Path<String>) -> Result<Response<Body>, Problem> {
    Ok(answer(StatusCode::OK, &find(&api, owner, id).await?))
}

/// The service of an id, where it is this owner's; else 404.
pub async fn find(api: &Api, owner: SignedIn, id: String) -> Result<ServiceView, Problem> {
    api.db.read(move |db| read_view(db, &owner.user, &id)).await
}

/// Changes name, domain or description; the slug stays, because approvals and connections call the service by it.
#[utoipa::path(patch, path = "/v1/services/{id}", tag = "services", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the service")), request_body = ServiceChange, responses(
    (status = 200, body = Done),
    (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
))]
async fn change(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let object = input::object(&body)?;
    let mut fields = Fields::of(&object);
    let name = text::optional_line(&mut fields, &object, "name", 1, MAX_NAME);
    let domain = text::optional_line(&mut fields, &object, "domain", 1, MAX_DOMAIN);
    let description = text::optional_line(&mut fields, &object, "description", 1, MAX_DESCRIPTION);
    fields.finish()?;
    let now_ms = moment::now_ms(api.clock);
    let update = move |db: &rusqlite::Transaction<'_>| {
        let service = owned(db, &owner.user, &id)?;
        let sql = "UPDATE services SET name = coalesce(?2, name), domain = coalesce(?3, domain),
                                       description = coalesce(?4, description), updated_at_ms = ?5
                   WHERE id = ?1";
        db.prepare_cached(sql)?.execute(params![service.id, name, domain, description, now_ms])?;
        Ok(())
    };
    api.db.write(update).await?;
    Ok(answer(StatusCode::OK, &Done { success: true }))
}

/// Removes a service with its keys, claims and usage; readers of its feed are told that its claims have ended.
#[utoipa::path(delete, path = "/v1/services/{id}", tag = "services", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the service")), responses(
    (status = 200, body = Done),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
))]
async fn remove(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
) -> Result<Response<Body>, Problem> {
    delete(&api, owner, id).await?;
    Ok(answer(StatusCode::OK, &Done { success: true }))
}

/// Deletes an owner's service with its keys, claims and usage; 404 where there is none of this id.
pub async fn delete(api: &Api, owner: SignedIn, id: String) -> Result<(), Problem> {
    let delete = move |db: &rusqlite::Transaction<'_>| {
        let service = owned(db, &owner.user, &id)?;
        db.prepare_cached("DELETE FROM usage_events WHERE service_id = ?1")?.execute([&service.id])?;
        // Keys and claims go with it; the triggers on claims write down what has ended.
        db.prepare_cached("DELETE FROM services WHERE id = ?1")?.execute([&service.id])?;
        Ok(())
    };
    api.db.write(delete).await
}
