//! Keys of an owner's services: made or brought along, shown once, stored as a hash, revoked for good.

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
use crate::api::account::Done;
use crate::api::input;
use crate::api::input::Fields;
use crate::api::input::Page;
use crate::api::input::Query;
use crate::api::moment;
use crate::api::moment::iso;
use crate::api::owner::SignedIn;
use crate::api::problem::Problem;
use crate::api::problem::json as answer;
use crate::api::service_key::KEY_DIGITS;
use crate::api::service_key::KEY_PREFIX;
use crate::api::service_key::key_hash;
use crate::api::services::MAX_NAME;
use crate::api::services::OwnedService;
use crate::api::services::owned;
use crate::api::text;
use crate::api::users::User;
use crate::domain::secret::Secret;
use crate::sys::random;
use crate::wire::control_plane::ErrorBody;
use crate::wire::control_plane::Pagination;

/// Random bytes of a key; it is written as twice as many hex digits.
const KEY_BYTES: usize = 24;
/// Name of a key that was given none.
const DEFAULT_NAME: &str = "Default";
/// Hex digits of its hash in a key's id.
const ID_DIGITS: usize = 12;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke)).routes(routes!(mark_gateway))
}

/// A key as its owner sees it: without the key.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// `...` and the last four characters.
    pub key_prefix: String,
    /// When a request last carried it.
    pub last_used_at: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// Set on the one key that a gateway uses.
    pub gateway_registered_at: Option<String>,
}

/// Keys that are not revoked, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct KeyList {
    /// Those of this page.
    pub keys: Vec<KeyView>,
    /// How this page lies in the whole.
    pub pagination: Pagination,
}

/// A key to be made.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct KeyBody {
    /// 1 to 100 characters.
    name: Option<String>,
    /// A key that was made elsewhere: `sk_live_` and 48 lower-case hex digits. Without it one is made here.
    key: Option<String>,
}

/// A key that was made or brought along.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct MadeKey {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The key itself, shown this once; absent where it was brought along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `...` and the last four characters.
    pub key_prefix: String,
    /// What is to be done with it.
    pub message: &'static str,
}

/// Which key is marked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Marked {
    success: bool,
    key_id: String,
}

/// The keys of a service that are not revoked.
#[utoipa::path(get, path = "/v1/services/{id}/keys", tag = "services", security(("owner" = [])), params(
    ("id" = String, Path, description = "Id of the service"),
    ("limit" = Option<u64>, Query, description = "1 to 200, default 50"),
    ("offset" = Option<u64>, Query, description = "Rows to pass over"),
), responses(
    (status = 200, body = KeyList),
    (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
))]
async fn list(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response<Body>, Problem> {
    let page = query.page(50, 200)?;
    Ok(answer(StatusCode::OK, &active_keys(&api, owner, id, page).await?))
}

/// The keys of an owner's service that are not revoked, newest first.
pub async fn active_keys(api: &Api, owner: SignedIn, id: String, page: Page) -> Result<KeyList, Problem> {
    let read = move |db: &Connection| {
        let service = owned(db, &owner.user, &id)?;
        let total = active(db, &service)?;
        let sql = "SELECT id, name, key_prefix, last_used_at_ms, created_at_ms, gateway_registered_at_ms
                   FROM service_api_keys WHERE service_id = ?1 AND revoked_at_ms IS NULL
                   ORDER BY created_at_ms DESC, id LIMIT ?2 OFFSET ?3";
        let mut statement = db.prepare_cached(sql)?;
        let rows = statement.query_map(params![service.id, page.sql_limit(), page.sql_offset()], view)?;
        let keys = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(KeyList { pagination: page.position(keys.len(), total), keys })
    };
    api.db.read(read).await
}

fn view(row: &Row<'_>) -> Result<KeyView, rusqlite::Error> {
    Ok(KeyView {
        id: row.get(0)?,
        name: row.get(1)?,
        key_prefix: row.get(2)?,
        last_used_at: row.get::<_, Option<i64>>(3)?.map(iso),
        created_at: iso(row.get(4)?),
        gateway_registered_at: row.get::<_, Option<i64>>(5)?.map(iso),
    })
}

fn active(db: &Connection, service: &OwnedService) -> Result<i64, rusqlite::Error> {
    let sql = "SELECT count(*) FROM service_api_keys WHERE service_id = ?1 AND revoked_at_ms IS NULL";
    db.prepare_cached(sql)?.query_row([&service.id], |row| row.get(0))
}

/// Makes a key and shows it this once, or takes one over that was made elsewhere. Bringing the same key again
/// changes nothing; a revoked one is never taken back.
#[utoipa::path(post, path = "/v1/services/{id}/keys", tag = "services", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the service")), request_body = KeyBody, responses(
    (status = 201, body = MadeKey),
    (status = 200, description = "The service has this key already", body = MadeKey),
    (status = 400, description = "KEY_LIMIT_REACHED, VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
    (status = 409, description = "CONFLICT: the key was revoked or is another service's", body = ErrorBody),
))]
async fn create(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let object = if body.iter().all(u8::is_ascii_whitespace) { Map::new() } else { input::object(&body)? };
    let (status, made) = make(&api, owner, id, &object).await?;
    Ok(answer(status, &made))
}

/// Makes a key of a service, or takes the one over that the member `key` brings along; `name` is its name. 201 where
/// it is new, 200 where the service has it already.
pub async fn make(
    api: &Api,
    owner: SignedIn,
    id: String,
    object: &Map<String, Value>,
) -> Result<(StatusCode, MadeKey), Problem> {
    let mut fields = Fields::of(object);
    let name = object.get("name").filter(|name| !name.is_null()).map(|_| text::line(&mut fields, "name", 1, MAX_NAME));
    let brought = object.get("key").filter(|key| !key.is_null()).map(|_| fields.text("key", 1, MAX_NAME));
    if brought.as_deref().is_some_and(|key| !key.is_empty() && !is_key(key)) {
        fields.refuse("key", "must be sk_live_ and 48 lower-case hex digits");
    }
    fields.finish()?;
    let is_brought = brought.is_some();
    let key = Secret::new(match brought {
        Some(key) => key,
        None => format!("{KEY_PREFIX}{}", random::hex::<KEY_BYTES>()?),
    });
    let wanted = NewKey {
        hash: key_hash(key.expose()),
        prefix: format!("...{}", key.expose().get(KEY_PREFIX.len() + KEY_DIGITS - 4..).unwrap_or_default()),
        name: name.unwrap_or_else(|| DEFAULT_NAME.to_owned()),
        spare_id: format!("key_{}", random::hex::<8>()?),
        most: api.limits.max_keys_per_service,
        now_ms: moment::now_ms(api.clock),
    };
    let (status, made) = api.db.write(move |db| insert(db, &owner.user, &id, wanted)).await?;
    let message = match (status, is_brought) {
        (StatusCode::OK, _) => "the service has this key already",
        (_, true) => "the key is valid now",
        (_, false) => "keep the key now: it is not shown again",
    };
    let shown = (!is_brought).then(|| key.expose().to_owned());
    let made = MadeKey { id: made.id, name: made.name, key: shown, key_prefix: made.key_prefix, message };
    Ok((status, made))
}

fn is_key(text: &str) -> bool {
    text.strip_prefix(KEY_PREFIX).is_some_and(|digits| {
        digits.len() == KEY_DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// A key about to be stored; the key itself is not in it.
struct NewKey {
    hash: String,
    prefix: String,
    name: String,
    spare_id: String,
    most: u32,
    now_ms: i64,
}

fn insert(db: &Connection, owner: &User, service_id: &str, new: NewKey) -> Result<(StatusCode, KeyView), Problem> {
    let service = owned(db, owner, service_id)?;
    let columns = "id, name, key_prefix, last_used_at_ms, created_at_ms, gateway_registered_at_ms";
    let sql = format!("SELECT {columns}, service_id, revoked_at_ms FROM service_api_keys WHERE key_hash = ?1");
    let known = |row: &Row<'_>| Ok((view(row)?, row.get::<_, String>(6)?, row.get::<_, Option<i64>>(7)?));
    match db.prepare_cached(&sql)?.query_row([&new.hash], known).optional()? {
        Some((key, of, None)) if of == service.id => return Ok((StatusCode::OK, key)),
        Some((_, of, Some(_))) if of == service.id => {
            let text = "this key was revoked and stays so; make another one";
            return Err(Problem::new(StatusCode::CONFLICT, "CONFLICT", text));
        }
        Some(_) => {
            let text = "this key is in use for another service; make another one";
            return Err(Problem::new(StatusCode::CONFLICT, "CONFLICT", text));
        }
        None => {}
    }
    let count = active(db, &service)?;
    if count >= i64::from(new.most) {
        let text = format!("a service has at most {} keys; revoke one first", new.most);
        let problem = Problem::new(StatusCode::BAD_REQUEST, "KEY_LIMIT_REACHED", text);
        return Err(problem.details(json!({"key_limit": new.most, "active_keys": count})));
    }
    let local = format!("key_local_{}_{}", service.slug, new.hash.get(..ID_DIGITS).unwrap_or_default());
    let taken = db.prepare_cached("SELECT 1 FROM service_api_keys WHERE id = ?1")?.exists([&local])?;
    let id = if taken { new.spare_id } else { local };
    let sql = "INSERT INTO service_api_keys (id, service_id, name, key_prefix, key_hash, created_at_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    db.prepare_cached(sql)?.execute(params![id, service.id, new.name, new.prefix, new.hash, new.now_ms])?;
    let sql = format!("SELECT {columns} FROM service_api_keys WHERE id = ?1");
    Ok((StatusCode::CREATED, db.prepare_cached(&sql)?.query_row([&id], view)?))
}

/// Revokes a key; whoever uses it is refused from now on.
#[utoipa::path(delete, path = "/v1/services/{id}/keys/{key_id}", tag = "services", security(("owner" = [])), params(
    ("id" = String, Path, description = "Id of the service"),
    ("key_id" = String, Path, description = "Id of the key"),
), responses(
    (status = 200, body = Done),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
))]
async fn revoke(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path((id, key_id)): Path<(String, String)>,
) -> Result<Response<Body>, Problem> {
    end(&api, owner, id, key_id).await?;
    Ok(answer(StatusCode::OK, &Done { success: true }))
}

/// Revokes a key of an owner's service; 404 where there is none of these ids.
pub async fn end(api: &Api, owner: SignedIn, id: String, key_id: String) -> Result<(), Problem> {
    let now_ms = moment::now_ms(api.clock);
    let update = move |db: &rusqlite::Transaction<'_>| {
        let service = owned(db, &owner.user, &id)?;
        let sql = "UPDATE service_api_keys SET revoked_at_ms = ?3, gateway_registered_at_ms = NULL
                   WHERE id = ?1 AND service_id = ?2 AND revoked_at_ms IS NULL";
        let revoked = db.prepare_cached(sql)?.execute(params![key_id, service.id, now_ms])?;
        if revoked == 1 { Ok(()) } else { Err(Problem::not_found()) }
    };
    api.db.write(update).await
}

/// Marks the one key of a service that a gateway uses.
#[utoipa::path(post, path = "/v1/services/{id}/keys/{key_id}/mark-gateway", tag = "services",
    security(("owner" = [])), params(
    ("id" = String, Path, description = "Id of the service"),
    ("key_id" = String, Path, description = "Id of the key"),
), responses(
    (status = 200, body = Marked),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
))]
async fn mark_gateway(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path((id, key_id)): Path<(String, String)>,
) -> Result<Response<Body>, Problem> {
    let key_id = mark(&api, owner, id, key_id).await?;
    Ok(answer(StatusCode::OK, &Marked { success: true, key_id }))
}

/// Marks the one key of an owner's service that a gateway uses; its id. 404 where there is none of these ids.
pub async fn mark(api: &Api, owner: SignedIn, id: String, key_id: String) -> Result<String, Problem> {
    let now_ms = moment::now_ms(api.clock);
    let update = move |db: &rusqlite::Transaction<'_>| {
        let service = owned(db, &owner.user, &id)?;
        let sql = "UPDATE service_api_keys SET gateway_registered_at_ms = ?3
                   WHERE id = ?1 AND service_id = ?2 AND revoked_at_ms IS NULL";
        if db.prepare_cached(sql)?.execute(params![key_id, service.id, now_ms])? == 0 {
            return Err(Problem::not_found());
        }
        let sql = "UPDATE service_api_keys SET gateway_registered_at_ms = NULL WHERE service_id = ?2 AND id <> ?1";
        db.prepare_cached(sql)?.execute([&key_id, &service.id])?;
        Ok(key_id)
    };
    api.db.write(update).await
}
