//! `POST /v1/claims`: an agent's key asks for a service.
//!
//! Everything is judged and written in one transaction, so that limits hold whoever comes at the same time. A key
//! that was rejected or revoked may ask again, three times at once and once a minute in the long run; beyond that
//! the answer is the old one. A claim that is written anew begins its life anew, and where the key's last
//! claim was rejected or revoked, no policy approves the next one: the owner is asked.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http::StatusCode;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::input;
use crate::api::input::Fields;
use crate::api::ledger;
use crate::api::ledger::Claim;
use crate::api::ledger::Status;
use crate::api::limits::Limits;
use crate::api::moment;
use crate::api::nonces;
use crate::api::nonces::Nonce;
use crate::api::policy::Facts;
use crate::api::policy::Policy;
use crate::api::problem::Problem;
use crate::api::problem::json;
use crate::api::service_key::Keyed;
use crate::api::service_key::KeyedService;
use crate::api::signed::Signed;
use crate::api::signed::is_namespace_only;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::sys::http_server::Peer;
use crate::wire::control_plane::ClaimAnswer;
use crate::wire::control_plane::ClaimSubmission;
use crate::wire::control_plane::ErrorBody;

/// How often a rejected or revoked key may ask again within [`ASKED_MS`].
const ASKS: u8 = 3;
/// How long asking again counts.
const ASKED_MS: i64 = 3 * 60_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(submit))
}

/// Ask for approval of a key for a service
#[utoipa::path(
    post,
    path = "/v1/claims",
    tag = "claims",
    request_body = ClaimSubmission,
    responses(
        (status = 200, description = "The claim is known", body = ClaimAnswer),
        (status = 201, description = "The claim was written down: pending, approved or rejected", body = ClaimAnswer),
        (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
        (status = 401, description = "SIGNATURE_*, UNAUTHORIZED", body = ErrorBody),
        (status = 403, description = "SIGNATURE_NAMESPACE_MISMATCH, SIGNATURE_KEY_MISMATCH, FORBIDDEN", body = ErrorBody),
        (status = 404, description = "NOT_FOUND: nobody has this namespace", body = ErrorBody),
        (status = 409, description = "SIGNATURE_NONCE_REPLAY, NONCE_REPLAY", body = ErrorBody),
        (status = 429, description = "RATE_LIMITED", body = ErrorBody),
    )
)]
async fn submit(
    State(api): State<Arc<Api>>,
    Signed(verified): Signed,
    Keyed(service): Keyed,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let submission = read(&body, is_namespace_only(&headers))?;
    if submission.service != service.slug {
        return Err(Problem::forbidden("the service key is of another service"));
    }
    let itself = verified.caller.key.text() == submission.public_key;
    // An address counts where we saw it, or where a gateway of the namespace's own owner did.
    let own_service = submission.namespace == service.owner_namespace;
    let address = if itself { Some(peer.ip()) } else { submission.agent_ip.parse().ok().filter(|_| own_service) };
    let (limits, now_ms) = (api.limits.clone(), moment::now_ms(api.clock));
    let work = move |db: &rusqlite::Transaction<'_>| decide(db, &limits, &service, submission, address, now_ms);
    let (status, answer) = api.db.write(work).await?;
    Ok(json(status, &answer))
}

/// Reads a submission, or says everything that is wrong with it.
fn read(body: &[u8], namespace_only: bool) -> Result<ClaimSubmission, Problem> {
    let object = input::object(body)?;
    let mut fields = Fields::of(&object);
    let namespace = fields.text("namespace", 3, 64);
    if !namespace.is_empty() && Namespace::parse(&namespace).is_err() {
        fields.refuse("namespace", "must be 3 to 64 of a-z, 0-9 and '-', with a letter or digit at both ends");
    }
    let public_key = fields.text("public_key", 1, 256);
    if !public_key.is_empty() && PublicKey::parse(&public_key).is_err() {
        fields.refuse("public_key", "must be 'ed25519:' followed by 32 bytes of base64");
    }
    let service = fields.text("service", 1, 64);
    // What a gateway saw, or calls it: a policy goes by what is an address, people read the rest.
    let agent_ip = fields.text("agent_ip", 1, 64);
    let is_given = !agent_ip.is_empty();
    let agent_ip = agent_ip.trim().to_owned();
    if is_given && (agent_ip.is_empty() || agent_ip.chars().any(char::is_control)) {
        fields.refuse("agent_ip", "must be a text of 1 to 64 characters without control characters");
    }
    let nonce = fields.text("nonce", 8, 256);
    let mut subject = fields.optional_text("subject", 256);
    let agent_id = fields.optional_text("agent_id", 128);
    let mut agent_name = fields.optional_text("agent_name", 128);
    fields.finish()?;
    if namespace_only && subject.is_none() {
        // Older gateways say here whom the agent acts for.
        subject = agent_name.take();
    }
    Ok(ClaimSubmission { agent_id, agent_ip, agent_name, namespace, nonce, public_key, service, subject })
}

/// Judges a submission and writes it down.
fn decide(
    db: &Connection,
    limits: &Limits,
    service: &KeyedService,
    submission: ClaimSubmission,
    address: Option<IpAddr>,
    now_ms: i64,
) -> Result<(StatusCode, ClaimAnswer), Problem> {
    let ttl_ms = i64::try_from(limits.nonce_ttl.as_millis()).unwrap_or(i64::MAX);
    let nonce = Nonce::Claim(&service.service_id, &submission.nonce);
    if !nonces::admit(db, nonce, now_ms, now_ms.saturating_add(ttl_ms))? {
        let text = "a claim with this nonce was submitted before";
        return Err(Problem::new(StatusCode::CONFLICT, "NONCE_REPLAY", text));
    }
    let mut owner = db.prepare_cached("SELECT settings FROM users WHERE namespace = ?1")?;
    let settings: Option<String> = owner.query_row([&submission.namespace], |row| row.get(0)).optional()?;
    let Some(settings) = settings else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "nobody has this namespace"));
    };
    ledger::expire_approved(db, now_ms)?;
    let known = ledger::find(db, &service.service_id, &submission.namespace, &submission.public_key)?;
    if let Some(claim) = &known
        && let Some(text) = standing(db, claim, now_ms)?
    {
        return Ok((StatusCode::OK, answer(&claim.claim_id, claim.status, &service.slug, text)));
    }
    let refused_before = known.is_some_and(|claim| matches!(claim.status, Status::Rejected | Status::Revoked));
    let policy = Policy::of(&settings);
    let taken = ledger::taken(db, &service.service_id, &submission.namespace)?;
    let facts = Facts {
        service_id: &service.service_id,
        slug: &service.slug,
        own_service: submission.namespace == service.owner_namespace,
        address,
    };
    let (status, text) = if !taken.connected && taken.services >= i64::from(limits.max_services_per_namespace) {
        (Status::Rejected, "this namespace is connected to as many services as it may be")
    } else if taken.agents >= i64::from(limits.max_agents_per_service) {
        (Status::Rejected, "this namespace has as many approved agents for this service as it may have")
    } else if policy.max_pending_limit && taken.pending >= i64::from(limits.max_pending) {
        (Status::Rejected, "too many claims of this namespace wait for a decision")
    } else if !refused_before && policy.approves(&facts) {
        (Status::Approved, "approved by the owner's policy")
    } else {
        (Status::Pending, "waiting for the owner's decision")
    };
    let claim = Claim {
        claim_id: ledger::new_id()?,
        service_id: service.service_id.clone(),
        service: service.slug.clone(),
        namespace: submission.namespace,
        public_key: submission.public_key,
        status,
        agent_ip: submission.agent_ip,
        subject: submission.subject,
        agent_id: submission.agent_id,
        agent_name: submission.agent_name,
        created_at_ms: now_ms,
        approved_at_ms: (status == Status::Approved).then_some(now_ms),
        expires_at_ms: None,
        ended_at_ms: (status == Status::Rejected).then_some(now_ms),
    };
    ledger::put(db, &claim)?;
    if status == Status::Rejected {
        ledger::forget_ended(db, &claim.namespace)?;
    }
    Ok((StatusCode::CREATED, answer(&claim.claim_id, status, &service.slug, text)))
}

/// What to answer where the claim that is there stands; `None` where it may be asked for anew.
fn standing(db: &Connection, claim: &Claim, now_ms: i64) -> Result<Option<&'static str>, Problem> {
    let text = match claim.status {
        Status::Pending => return Ok(Some("still waiting for the owner's decision")),
        Status::Approved => return Ok(Some("approved already")),
        Status::Expired => return Ok(None),
        Status::Rejected => "rejected; it may be asked for again in a few minutes",
        Status::Revoked => "revoked; it may be asked for again in a few minutes",
    };
    for ask in 0..ASKS {
        let ask = Nonce::Ask(&claim.service_id, &claim.namespace, &claim.public_key, ask);
        if nonces::admit(db, ask, now_ms, now_ms.saturating_add(ASKED_MS))? {
            return Ok(None);
        }
    }
    Ok(Some(text))
}

fn answer(claim_id: &str, status: Status, service: &str, message: &str) -> ClaimAnswer {
    ClaimAnswer {
        claim_id: claim_id.to_owned(),
        status: status.text().to_owned(),
        service: service.to_owned(),
        message: message.to_owned(),
    }
}
