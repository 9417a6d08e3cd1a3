//! `GET /v1/namespaces/claims`: the approved claims of a service, page by page, newest approval first.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse as _;
use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::params;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::input::Page;
use crate::api::input::Query;
use crate::api::ledger;
use crate::api::moment;
use crate::api::problem::Problem;
use crate::api::problem::json;
use crate::api::service_key::Keyed;
use crate::api::service_key::KeyedService;
use crate::api::signed::Signed;
use crate::wire::control_plane::CURSOR_HEADER;
use crate::wire::control_plane::ErrorBody;
use crate::wire::control_plane::FeedClaim;
use crate::wire::control_plane::FeedPage;
use crate::wire::control_plane::MAX_PAGE;

/// Rows of a page where the client does not say.
const DEFAULT_PAGE: u64 = 500;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(approved))
}

/// The approved claims of a service, of all namespaces
#[utoipa::path(
    get,
    path = "/v1/namespaces/claims",
    tag = "claims",
    params(
        ("service" = String, Query, description = "Slug of the key's service"),
        ("limit" = Option<u64>, Query, description = "Rows, at most 2000; 500 where absent"),
        ("offset" = Option<u64>, Query, description = "Rows to pass over"),
    ),
    responses(
        (status = 200, description = "One page; `sigilum-claims-cursor` says where the list stands it was cut from", body = FeedPage),
        (status = 304, description = "Nothing has changed since the `If-None-Match` given"),
        (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
        (status = 401, description = "SIGNATURE_*, UNAUTHORIZED", body = ErrorBody),
        (status = 403, description = "FORBIDDEN: the key is of another service", body = ErrorBody),
        (status = 409, description = "SIGNATURE_NONCE_REPLAY", body = ErrorBody),
    )
)]
async fn approved(
    State(api): State<Arc<Api>>,
    _: Signed,
    Keyed(service): Keyed,
    query: Query,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let page = query.page(DEFAULT_PAGE, u64::from(MAX_PAGE))?;
    check_service(&query, &service)?;
    end_what_is_over(&api).await?;
    let epoch = api.db.epoch().to_owned();
    let known = headers.get(header::IF_NONE_MATCH).cloned();
    let work = move |db: &Connection| {
        let cursor = format!("{epoch}.{}", last_change(db, &service.service_id)?.unwrap_or(0));
        let tag = format!("\"{cursor}.{}\"", page.limit);
        let unchanged = page.offset == 0 && known.is_some_and(|known| matches(&known, &tag));
        let body = if unchanged { None } else { Some(read(db, &service, page)?) };
        Ok((cursor, tag, body))
    };
    let (cursor, tag, body) = api.db.read(work).await?;
    let mut response = match body {
        Some(body) => json(StatusCode::OK, &body),
        None => StatusCode::NOT_MODIFIED.into_response(),
    };
    // Whoever reads page by page sees on each whether the list has moved meanwhile.
    let mut values = vec![(http::HeaderName::from_static(CURSOR_HEADER), cursor)];
    if page.offset == 0 {
        values.push((header::ETAG, tag));
        values.push((header::CACHE_CONTROL, "private, no-cache".to_owned()));
    }
    for (name, value) in values {
        // Hex, digits, points, quotes: always a header's value.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// The service a query asks about must be the key's.
pub(super) fn check_service(query: &Query, service: &KeyedService) -> Result<(), Problem> {
    match query.find("service") {
        Some(slug) if slug == service.slug => Ok(()),
        Some(_) => Err(Problem::forbidden("the service key is of another service")),
        None => Err(Problem::invalid("service", "must be the slug of the key's service")),
    }
}

/// Ends approvals whose time is over, so that nobody reads them as approved.
pub(super) async fn end_what_is_over(api: &Api) -> Result<(), Problem> {
    let now_ms = moment::now_ms(api.clock);
    if api.db.read(move |db| Ok(ledger::has_expired(db, now_ms)?)).await? {
        api.db.write(move |db| Ok(ledger::expire_approved(db, now_ms)?)).await?;
    }
    Ok(())
}

/// Number of the last change of a service's claims, 0 where there was none; `None` where the service is no more.
pub(super) fn last_change(db: &Connection, service_id: &str) -> Result<Option<i64>, rusqlite::Error> {
    let mut statement = db.prepare_cached("SELECT last_change FROM services WHERE id = ?1")?;
    statement.query_row([service_id], |row| row.get(0)).optional()
}

/// Whether `If-None-Match` (RFC 9110 section 13.1.2) names the tag; it compares weakly.
fn matches(known: &HeaderValue, tag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

fn read(db: &Connection, service: &KeyedService, page: Page) -> Result<FeedPage, rusqlite::Error> {
    // Counting a hundred thousand rows for each page would take longer than reading one.
    let mut counted = db.prepare_cached("SELECT approved FROM services WHERE id = ?1")?;
    let total: i64 = counted.query_row([&service.service_id], |row| row.get(0)).optional()?.unwrap_or(0);
    let sql = "SELECT claim_id, namespace, public_key, subject, agent_id, agent_name, approved_at_ms, expires_at_ms
               FROM authorizations WHERE service_id = ?1 AND status = 'approved'
               ORDER BY approved_at_ms DESC, claim_id DESC LIMIT ?2 OFFSET ?3";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![service.service_id, page.sql_limit(), page.sql_offset()])?;
    let mut claims = Vec::new();
    while let Some(row) = rows.next()? {
        claims.push(FeedClaim {
            claim_id: row.get(0)?,
            namespace: row.get(1)?,
            public_key: row.get(2)?,
            service: service.slug.clone(),
            subject: row.get(3)?,
            agent_id: row.get(4)?,
            agent_name: row.get(5)?,
            approved_at: row.get::<_, Option<i64>>(6)?.map(moment::iso),
            expires_at: row.get::<_, Option<i64>>(7)?.map(moment::iso),
        });
    }
    Ok(FeedPage { pagination: page.position(claims.len(), total), claims })
}
