//! Decisions on claims: the owner of the claim's namespace, and nobody else, approves, rejects and revokes.
//!
//! Each is one transaction: what a decision depends on cannot change before it is written, so that no limit is
//! passed by two decisions at once. The triggers on claims write down what readers of the feed must be told.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use bytes::Bytes;
use http::Response;
use http::StatusCode;
use rusqlite::Connection;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::feed;
use crate::api::input;
use crate::api::input::Fields;
use crate::api::ledger;
use crate::api::ledger::Status;
use crate::api::limits::Limits;
use crate::api::moment;
use crate::api::moment::iso;
use crate::api::namespace_claims;
use crate::api::namespace_claims::ClaimView;
use crate::api::owner::SignedIn;
use crate::api::problem::Problem;
use crate::api::problem::json as answer;
use crate::api::text;
use crate::wire::control_plane::ErrorBody;

/// Longest time an approval may be given for, in seconds: ten years. Without an end it needs no number.
const MAX_EXPIRY_SECONDS: i64 = 10 * 366 * 24 * 3600;
/// What clients of the hosted API expect to read where a decision is taken; no chain is written to here.
const CHAIN_STATUS: &str = "queued";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(approve)).routes(routes!(reject)).routes(routes!(revoke))
}

/// A claim with everything that is kept of it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct WholeClaim {
    #[serde(flatten)]
    claim: ClaimView,
    /// Always absent: nothing is written to a chain here.
    approval_tx_hash: Option<String>,
    /// Always absent: nothing is written to a chain here.
    revocation_tx_hash: Option<String>,
}

/// When an approval shall end by itself; at most one of the two.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read member by member")]
struct ExpiryBody {
    /// RFC 3339, in the future.
    expires_at: Option<String>,
    /// From now on; at most ten years.
    expires_in_seconds: Option<u64>,
}

/// An approved claim.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Approved {
    /// Which one.
    pub claim_id: String,
    /// `approved`.
    status: &'static str,
    /// Approved keys of the namespace for the service, with this one.
    agents_approved: i64,
    /// How many there may be.
    agents_limit: u32,
    /// When the approval ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// `queued`, as the hosted API has it; nothing is written to a chain here.
    blockchain_tx_status: &'static str,
}

/// A rejected claim.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Rejected {
    claim_id: String,
    /// `rejected`.
    status: &'static str,
}

/// A revoked claim.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Revoked {
    claim_id: String,
    /// `revoked`.
    status: &'static str,
    /// `queued`, as the hosted API has it; nothing is written to a chain here.
    blockchain_tx_status: &'static str,
}

/// The claim of an id, where its namespace is the owner's: 404 and 403 else.
fn decidable(db: &Connection, owner: &SignedIn, claim_id: &str) -> Result<ClaimView, Problem> {
    let claim = namespace_claims::find(db, claim_id)?.ok_or_else(Problem::not_found)?;
    owner.check_owns(&claim.namespace)?;
    Ok(claim)
}

/// 404: the claim is there, but not in the state the decision needs.
fn wrong_state(needed: &str, status: &str) -> Problem {
    let text = format!("no {needed} claim of this id: it is {status}");
    Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", text).details(json!({"status": status}))
}

/// One claim.
#[utoipa::path(get, path = "/v1/claims/{id}", tag = "claims", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the claim")), responses(
    (status = 200, body = WholeClaim),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: of another owner's namespace", body = ErrorBody),
    (status = 404, description = "NOT_FOUND", body = ErrorBody),
))]
async fn show(State(api): State<Arc<Api>>, owner: SignedIn, Path(id): Path<String>) -> Result<Response<Body>, Problem> {
    feed::end_what_is_over(&api).await?;
    let claim = api.db.read(move |db| decidable(db, &owner, &id)).await?;
    let whole = WholeClaim { claim, approval_tx_hash: None, revocation_tx_hash: None };
    Ok(answer(StatusCode::OK, &whole))
}

/// Approves a pending claim. For one that is approved already, a body with an end sets that end anew.
#[utoipa::path(post, path = "/v1/claims/{id}/approve", tag = "claims", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the claim")), request_body = Option<ExpiryBody>, responses(
    (status = 200, body = Approved),
    (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN, SERVICE_LIMIT_REACHED", body = ErrorBody),
    (status = 404, description = "NOT_FOUND: unknown or not pending", body = ErrorBody),
    (status = 409, description = "AGENT_LIMIT_REACHED", body = ErrorBody),
))]
async fn approve(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let object = if body.iter().all(u8::is_ascii_whitespace) { Map::new() } else { input::object(&body)? };
    Ok(answer(StatusCode::OK, &approve_claim(&api, owner, id, &object).await?))
}

/// Approves a claim; the members say when that shall end.
pub async fn approve_claim(
    api: &Api,
    owner: SignedIn,
    id: String,
    object: &Map<String, Value>,
) -> Result<Approved, Problem> {
    let now_ms = moment::now_ms(api.clock);
    let expires_at_ms = expiry(object, now_ms)?;
    let limits = api.limits.clone();
    let work = move |db: &rusqlite::Transaction<'_>| {
        // What has ended by itself makes room.
        ledger::expire_approved(db, now_ms)?;
        let claim = decidable(db, &owner, &id)?;
        match (claim.status.as_str(), expires_at_ms) {
            ("pending", _) => {
                check_room(db, &claim, &limits)?;
                ledger::approve(db, &claim.claim_id, now_ms, expires_at_ms)?;
            }
            ("approved", Some(at_ms)) => ledger::set_end(db, &claim.claim_id, at_ms)?,
            (other, _) => return Err(wrong_state("pending", other)),
        }
        Ok(Approved {
            agents_approved: ledger::taken(db, &claim.service_id, &claim.namespace)?.agents,
            agents_limit: limits.max_agents_per_service,
            claim_id: claim.claim_id,
            status: Status::Approved.text(),
            expires_at: expires_at_ms.map(iso),
            blockchain_tx_status: CHAIN_STATUS,
        })
    };
    api.db.write(work).await
}

/// Reads when an approval shall end; without members never.
fn expiry(object: &Map<String, Value>, now_ms: i64) -> Result<Option<i64>, Problem> {
    let mut fields = Fields::of(object);
    let seconds = fields.optional_number("expires_in_seconds", 1, MAX_EXPIRY_SECONDS);
    let mut ends = seconds.map(|seconds| now_ms.saturating_add(seconds.saturating_mul(1000)));
    if let Some(value) = object.get("expires_at").filter(|value| !value.is_null()) {
        if seconds.is_some() {
            fields.refuse("expires_at", "cannot be given together with expires_in_seconds");
        }
        let latest = now_ms.saturating_add(MAX_EXPIRY_SECONDS.saturating_mul(1000));
        match value.as_str().and_then(text::instant).filter(|at| (now_ms.saturating_add(1)..=latest).contains(at)) {
            Some(at) => ends = Some(at),
            None => fields.refuse("expires_at", "must be an RFC 3339 time in the future, at most ten years away"),
        }
    }
    fields.finish()?;
    Ok(ends)
}

/// Whether the namespace may have one more approved key for the claim's service.
fn check_room(db: &Connection, claim: &ClaimView, limits: &Limits) -> Result<(), Problem> {
    let taken = ledger::taken(db, &claim.service_id, &claim.namespace)?;
    let (agents, services) = (limits.max_agents_per_service, limits.max_services_per_namespace);
    if taken.agents >= i64::from(agents) {
        let text = format!("{agents} agents are approved for this service already; revoke one first");
        let problem = Problem::new(StatusCode::CONFLICT, "AGENT_LIMIT_REACHED", text);
        return Err(problem.details(json!({"agent_limit": agents, "current": taken.agents})));
    }
    if !taken.connected && taken.services >= i64::from(services) {
        let text = format!("agents of this namespace are approved for {services} services already; revoke some first");
        let problem = Problem::new(StatusCode::FORBIDDEN, "SERVICE_LIMIT_REACHED", text);
        return Err(problem.details(json!({"service_limit": services, "services_connected": taken.services})));
    }
    Ok(())
}

/// How a claim is ended by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A pending one is rejected.
    Reject,
    /// An approved one is revoked.
    Revoke,
}

/// Ends a claim; its id.
pub async fn end(api: &Api, owner: SignedIn, id: String, ending: Ending) -> Result<String, Problem> {
    let (from, into) = match ending {
        Ending::Reject => (Status::Pending, Status::Rejected),
        Ending::Revoke => (Status::Approved, Status::Revoked),
    };
    let now_ms = moment::now_ms(api.clock);
    let work = move |db: &rusqlite::Transaction<'_>| {
        let claim = decidable(db, &owner, &id)?;
        if ledger::end(db, &claim.claim_id, from, into, now_ms)? {
            return Ok(claim.claim_id);
        }
        Err(wrong_state(from.text(), &claim.status))
    };
    api.db.write(work).await
}

/// Rejects a pending claim.
#[utoipa::path(post, path = "/v1/claims/{id}/reject", tag = "claims", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the claim")), responses(
    (status = 200, body = Rejected),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: of another owner's namespace", body = ErrorBody),
    (status = 404, description = "NOT_FOUND: unknown or not pending", body = ErrorBody),
))]
async fn reject(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
) -> Result<Response<Body>, Problem> {
    let claim_id = end(&api, owner, id, Ending::Reject).await?;
    Ok(answer(StatusCode::OK, &Rejected { claim_id, status: Status::Rejected.text() }))
}

/// Revokes an approved claim.
#[utoipa::path(post, path = "/v1/claims/{id}/revoke", tag = "claims", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the claim")), responses(
    (status = 200, body = Revoked),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = ErrorBody),
    (status = 403, description = "FORBIDDEN: of another owner's namespace", body = ErrorBody),
    (status = 404, description = "NOT_FOUND: unknown or not approved", body = ErrorBody),
))]
async fn revoke(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
) -> Result<Response<Body>, Problem> {
    let claim_id = end(&api, owner, id, Ending::Revoke).await?;
    let body = Revoked { claim_id, status: Status::Revoked.text(), blockchain_tx_status: CHAIN_STATUS };
    Ok(answer(StatusCode::OK, &body))
}
