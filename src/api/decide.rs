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
use rusqlite::params;
use serde::Serialize;
use serde_json::Map;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::input;
use crate::api::input::Fields;
use crate::api::limits::Limits;
use crate::api::moment;
use crate::api::moment::iso;
use crate::api::namespace_claims;
use crate::api::namespace_claims::ClaimView;
use crate::api::openapi::Refusal;
use crate::api::owner::SignedIn;
use crate::api::problem::Problem;
use crate::api::problem::json as answer;
use crate::api::text;

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
struct Approved {
    claim_id: String,
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
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = Refusal),
    (status = 403, description = "FORBIDDEN: of another owner's namespace", body = Refusal),
    (status = 404, description = "NOT_FOUND", body = Refusal),
))]
async fn show(State(api): State<Arc<Api>>, owner: SignedIn, Path(id): Path<String>) -> Result<Response<Body>, Problem> {
    let claim = api.db.read(move |db| decidable(db, &owner, &id)).await?;
    let whole = WholeClaim { claim, approval_tx_hash: None, revocation_tx_hash: None };
    Ok(answer(StatusCode::OK, &whole))
}

/// Approves a pending claim. For one that is approved already, a body with an end sets that end anew.
#[utoipa::path(post, path = "/v1/claims/{id}/approve", tag = "claims", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the claim")), request_body = Option<ExpiryBody>, responses(
    (status = 200, body = Approved),
    (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = Refusal),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = Refusal),
    (status = 403, description = "FORBIDDEN, SERVICE_LIMIT_REACHED", body = Refusal),
    (status = 404, description = "NOT_FOUND: unknown or not pending", body = Refusal),
    (status = 409, description = "AGENT_LIMIT_REACHED", body = Refusal),
))]
async fn approve(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let now_ms = moment::now_ms(api.clock);
    let expires_at_ms = expiry(&body, now_ms)?;
    let limits = api.limits.clone();
    let work = move |db: &rusqlite::Transaction<'_>| {
        let claim = decidable(db, &owner, &id)?;
        match claim.status.as_str() {
            "pending" => check_room(db, &claim, &limits)?,
            "approved" if expires_at_ms.is_some() => {}
            other => return Err(wrong_state("pending", other)),
        }
        // One that was approved before keeps its place in the feed.
        let sql = "UPDATE authorizations SET status = 'approved', expires_at_ms = ?3, ended_at_ms = NULL,
                       approved_at_ms = CASE status WHEN 'approved' THEN approved_at_ms ELSE ?2 END
                   WHERE claim_id = ?1";
        db.prepare_cached(sql)?.execute(params![claim.claim_id, now_ms, expires_at_ms])?;
        Ok(Approved {
            agents_approved: approved_keys(db, &claim)?,
            agents_limit: limits.max_agents_per_service,
            claim_id: claim.claim_id,
            status: "approved",
            expires_at: expires_at_ms.map(iso),
            blockchain_tx_status: CHAIN_STATUS,
        })
    };
    Ok(answer(StatusCode::OK, &api.db.write(work).await?))
}

/// Reads when an approval shall end; a missing body says never.
fn expiry(body: &[u8], now_ms: i64) -> Result<Option<i64>, Problem> {
    let object = if body.iter().all(u8::is_ascii_whitespace) { Map::new() } else { input::object(body)? };
    let mut fields = Fields::of(&object);
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
    let current = approved_keys(db, claim)?;
    if current >= i64::from(limits.max_agents_per_service) {
        let most = limits.max_agents_per_service;
        let text = format!("{most} agents are approved for this service already; revoke one first");
        let problem = Problem::new(StatusCode::CONFLICT, "AGENT_LIMIT_REACHED", text);
        return Err(problem.details(json!({"agent_limit": most, "current": current})));
    }
    if current > 0 {
        return Ok(());
    }
    let sql = "SELECT count(DISTINCT service_id) FROM authorizations WHERE namespace = ?1 AND status = 'approved'";
    let connected: i64 = db.prepare_cached(sql)?.query_row([&claim.namespace], |row| row.get(0))?;
    if connected >= i64::from(limits.max_services_per_namespace) {
        let most = limits.max_services_per_namespace;
        let text = format!("agents of this namespace are approved for {most} services already; revoke some first");
        let problem = Problem::new(StatusCode::FORBIDDEN, "SERVICE_LIMIT_REACHED", text);
        return Err(problem.details(json!({"service_limit": most, "services_connected": connected})));
    }
    Ok(())
}

fn approved_keys(db: &Connection, claim: &ClaimView) -> Result<i64, rusqlite::Error> {
    let sql = "SELECT count(*) FROM authorizations WHERE service_id = ?1 AND namespace = ?2 AND status = 'approved'";
    db.prepare_cached(sql)?.query_row([&claim.service_id, &claim.namespace], |row| row.get(0))
}

/// Ends a claim that is in the state `from`.
async fn end(api: &Api, owner: SignedIn, id: String, from: &'static str, to: &'static str) -> Result<String, Problem> {
    let now_ms = moment::now_ms(api.clock);
    let work = move |db: &rusqlite::Transaction<'_>| {
        let claim = decidable(db, &owner, &id)?;
        if claim.status != from {
            return Err(wrong_state(from, &claim.status));
        }
        let sql = "UPDATE authorizations SET status = ?2, ended_at_ms = ?3 WHERE claim_id = ?1";
        db.prepare_cached(sql)?.execute(params![claim.claim_id, to, now_ms])?;
        Ok(claim.claim_id)
    };
    api.db.write(work).await
}

/// Rejects a pending claim.
#[utoipa::path(post, path = "/v1/claims/{id}/reject", tag = "claims", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the claim")), responses(
    (status = 200, body = Rejected),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = Refusal),
    (status = 403, description = "FORBIDDEN: of another owner's namespace", body = Refusal),
    (status = 404, description = "NOT_FOUND: unknown or not pending", body = Refusal),
))]
async fn reject(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
) -> Result<Response<Body>, Problem> {
    let claim_id = end(&api, owner, id, "pending", "rejected").await?;
    Ok(answer(StatusCode::OK, &Rejected { claim_id, status: "rejected" }))
}

/// Revokes an approved claim.
#[utoipa::path(post, path = "/v1/claims/{id}/revoke", tag = "claims", security(("owner" = [])),
    params(("id" = String, Path, description = "Id of the claim")), responses(
    (status = 200, body = Revoked),
    (status = 401, description = "UNAUTHORIZED, TOKEN_EXPIRED, USER_NOT_FOUND", body = Refusal),
    (status = 403, description = "FORBIDDEN: of another owner's namespace", body = Refusal),
    (status = 404, description = "NOT_FOUND: unknown or not approved", body = Refusal),
))]
async fn revoke(
    State(api): State<Arc<Api>>,
    owner: SignedIn,
    Path(id): Path<String>,
) -> Result<Response<Body>, Problem> {
    let claim_id = end(&api, owner, id, "approved", "revoked").await?;
    let body = Revoked { claim_id, status: "revoked", blockchain_tx_status: CHAIN_STATUS };
    Ok(answer(StatusCode::OK, &body))
}
