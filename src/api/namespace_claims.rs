//! The claims of a namespace, over all services, as its owner sees them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::named_params;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::feed;
use crate::api::input::Page;
use crate::api::input::Query;
use crate::api::ledger::Status;
use crate::api::moment::iso;
use crate::api::owner::SignedIn;
use crate::api::problem::Problem;
use crate::api::problem::json;
use crate::domain::ids::Namespace;
use crate::wire::control_plane::ErrorBody;
use crate::wire::control_plane::Pagination;

/// What a status may be, for whoever gave another one.
const STATUSES: &str = "must be pending, approved, rejected, revoked or expired";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A claim as the owner of its namespace sees it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ClaimView {
    /// `cl_` and 24 hex digits.
    pub claim_id: String,
    /// The agent's namespace: whose owner decides.
    pub namespace: String,
    /// Slug of the service.
    pub service: String,
    /// Id of the service; two owners may have services of one slug.
    pub service_id: String,
    /// Namespace of the service's owner.
    pub service_owner: String,
    /// `ed25519:` and base64.
    pub public_key: String,
    /// The agent's address as the submitter gave it.
    pub agent_ip: String,
    /// Who it acts for.
    pub subject: Option<String>,
    /// Which agent of the namespace.
    pub agent_id: Option<String>,
    /// Its name for people.
    pub agent_name: Option<String>,
    /// `pending`, `approved`, `rejected`, `revoked` or `expired`.
    pub status: String,
    /// When it was submitted.
    pub created_at: String,
    /// When it was approved.
    pub approved_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
    /// When the approval ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// When the key was last used at the service, as far as gateways have said; absent where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// `rejected` or `revoked`: what the owner said when this key asked the last time before; absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier_status: Option<String>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier_ended_at: Option<String>,
}

/// Claims, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ClaimList {
    /// Those of this page.
    pub claims: Vec<ClaimView>,
    /// How this page lies in the whole.
    pub pagination: Pagination,
}

/// Which claims; by default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimFilter {
    /// Only of this status.
    pub status: Option<Status>,
    /// Only of services of this slug.
    pub service: Option<String>,
}

const VIEW: &str = "SELECT a.claim_id, a.namespace, s.slug, s.id, u.namespace, a.public_key, a.agent_ip, a.subject,
        a.agent_id, a.agent_name, a.status, a.created_at_ms, a.approved_at_ms, a.ended_at_ms, a.expires_at_ms,
        (SELECT max(e.created_at_ms) FROM usage_events e
         WHERE e.namespace = a.namespace AND e.public_key = a.public_key AND e.service_id = a.service_id),
        a.earlier_status, a.earlier_ended_at_ms
     FROM authorizations a JOIN services s ON s.id = a.service_id JOIN users u ON u.id = s.owner_user_id";

fn view(row: &Row<'_>) -> Result<ClaimView, rusqlite::Error> {
    let status: String = row.get(10)?;
    let ended_at: Option<i64> = row.get(13)?;
    Ok(ClaimView {
        claim_id: row.get(0)?,
        namespace: row.get(1)?,
        service: row.get(2)?,
        service_id: row.get(3)?,
        // The test seed's services have an owner nobody can be.
        service_owner: row.get(4)?,
        public_key: row.get(5)?,
        agent_ip: row.get(6)?,
        subject: row.get(7)?,
        agent_id: row.get(8)?,
        agent_name: row.get(9)?,
        created_at: iso(row.get(11)?),
        approved_at: row.get::<_, Option<i64>>(12)?.map(iso),
        revoked_at: ended_at.filter(|_| status == "revoked").map(iso),
        expires_at: row.get::<_, Option<i64>>(14)?.map(iso),
        last_used_at: row.get::<_, Option<i64>>(15)?.map(iso),
        earlier_status: row.get(16)?,
        earlier_ended_at: row.get::<_, Option<i64>>(17)?.map(iso),
        status,
    })
}

/// The claim of an id, whosever it is.
pub fn find(db: &Connection, claim_id: &str) -> Result<Option<ClaimView>, rusqlite::Error> {
    let sql = format!("{VIEW} WHERE a.claim_id = ?1");
    db.prepare_cached(&sql)?.query_row([claim_id], view).optional()
}

/// The namespace of a path, where it is the owner's: 400 `VALIDATION_ERROR` or 403 `FORBIDDEN` else.
pub fn own_namespace(owner: &SignedIn, raw: &str) -> Result<Namespace, Problem> {
    let namespace = Namespace::parse(raw).map_err(|error| Problem::invalid("namespace", error.to_string()))?;
    owner.check_owns(namespace.as_str())?;
    Ok(namespace)
}

/// The claims of the owner's namespace.
#[utoipa::path(get, path = "/v1/namespaces/{namespace}/claims", tag = "claims", security(("owner" = [])), params(
    ("namespace" = String, Path, description = "The owner's namespace"),
    ("status" = Option<String>, Query, description = "pending, approved, rejected, revoked or expired"),
    ("service" = Option<String>, Query, description = "Slug of a service"),
    ("limit" = Option<u64>, Query, description = "1 to 200, default 50"),
    ("offset" = Option<u64>, Query, description = "Rows to pass over"),
), responses(
    (status = 200, body = ClaimList),
    (status = 400, description = "VALIDATION_ERROR", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: another owner's namespace", body = ErrorBody),
    (status = 503, description = "DB_UNAVAILABLE", body = ErrorBody),
))]
async fn list(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(namespace): Path<String>,
    query: Query,
) -> Result<Response<Body>, Problem> {
    let namespace = own_namespace(&owner, &namespace)?;
    let page = query.page(50, 200)?;
    let status = match query.find("status").map(|text| Status::parse(text).ok_or(STATUSES)) {
        None => None,
        Some(Ok(status)) => Some(status),
        Some(Err(message)) => return Err(Problem::invalid("status", message)),
    };
    let filter = ClaimFilter { status, service: query.find("service").map(str::to_owned) };
    Ok(json(StatusCode::OK, &claims(&api, &namespace, filter, page).await?))
}

/// The claims of a namespace, newest first.
pub async fn claims(api: &Api, namespace: &Namespace, filter: ClaimFilter, page: Page) -> Result<ClaimList, Problem> {
    feed::end_what_is_over(api).await?;
    let (namespace, status, service) = (namespace.clone(), filter.status.map(Status::text), filter.service);
    let read = move |db: &Connection| {
        // Named only where it is asked for: then the index gives the order too.
        let by_status = if status.is_some() { "AND a.status = :status" } else { "AND :status IS NULL" };
        let filter = format!("WHERE a.namespace = :namespace {by_status} AND (:service IS NULL OR s.slug = :service)");
        let sql = format!("SELECT count(*) FROM authorizations a JOIN services s ON s.id = a.service_id {filter}");
        let wanted = named_params! {":namespace": namespace.as_str(), ":status": status, ":service": service};
        let total = db.prepare_cached(&sql)?.query_row(wanted, |row| row.get(0))?;
        let order = "ORDER BY a.created_at_ms DESC, a.claim_id DESC LIMIT :limit OFFSET :offset";
        let mut statement = db.prepare_cached(&format!("{VIEW} {filter} {order}"))?;
        let wanted = named_params! {":namespace": namespace.as_str(), ":status": status, ":service": service,
        ":limit": page.sql_limit(), ":offset": page.sql_offset()};
        let claims = statement.query_map(wanted, view)?.collect::<Result<Vec<_>, _>>()?;
        Ok(ClaimList { pagination: page.position(claims.len(), total), claims })
    };
    api.db.read(read).await
}

/// How many claims of a namespace have which status.
pub async fn counts(api: &Api, namespace: &Namespace) -> Result<ClaimCounts, Problem> {
    feed::end_what_is_over(api).await?;
    let namespace = namespace.clone();
    let read = move |db: &Connection| {
        let sql = "SELECT status, count(*) FROM authorizations WHERE namespace = ?1 GROUP BY status";
        let mut statement = db.prepare_cached(sql)?;
        let mut rows = statement.query([namespace.as_str()])?;
        let mut counts = ClaimCounts::default();
        while let Some(row) = rows.next()? {
            let (status, count): (String, i64) = (row.get(0)?, row.get(1)?);
            if let Some(status) = Status::parse(&status) {
                counts.0.push((status, u64::try_from(count).unwrap_or(0)));
            }
        }
        Ok(counts)
    };
    api.db.read(read).await
}

/// How many claims there are of each status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimCounts(Vec<(Status, u64)>);

impl ClaimCounts {
    /// Claims of this status.
    pub fn of(&self, status: Status) -> u64 {
        self.0.iter().find(|(known, _)| *known == status).map_or(0, |(_, count)| *count)
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}
