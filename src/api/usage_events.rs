//! `POST /v1/usage/events` and `/batch`: what agents did through a gateway.
//!
//! An event counts once by its id within its service, so that a sender may repeat itself and no owner can suppress
//! another's. It is of the moment its sender says, where that can be, else of the moment it came. It is taken where
//! the namespace has to do with the service: it is the service owner's own, or a key of it was approved for the
//! service: anybody can ask in another's name, and nobody fills another owner's statistics.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::Response;
use http::StatusCode;
use rusqlite::Connection;
use rusqlite::params;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::input;
use crate::api::input::Fields;
use crate::api::moment;
use crate::api::problem::Problem;
use crate::api::problem::json;
use crate::api::service_key::Keyed;
use crate::api::service_key::KeyedService;
use crate::api::signed::Signed;
use crate::api::text;
use crate::wire::control_plane::ErrorBody;
use crate::wire::control_plane::MAX_BATCH;
use crate::wire::control_plane::RefusedEvent;
use crate::wire::control_plane::UsageBatch;
use crate::wire::control_plane::UsageBatchAnswer;
use crate::wire::control_plane::UsageEvent;

/// How long ago an event may have been: an outage of the control plane delays them.
const MAX_LATE_MS: i64 = 30 * 24 * 3_600_000;
/// Events that are kept, about 400 bytes each; the oldest go first.
const MAX_EVENTS: i64 = 5_000_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(one)).routes(routes!(batch))
}

/// Answer to one event.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Accepted {
    /// The event's id.
    event_id: String,
    /// `true`.
    accepted: bool,
    /// Whether it was known.
    duplicate: bool,
}

/// Report one request of an agent
#[utoipa::path(
    post,
    path = "/v1/usage/events",
    tag = "usage",
    request_body = UsageEvent,
    responses(
        (status = 200, description = "The event was known", body = Accepted),
        (status = 201, description = "The event is new", body = Accepted),
        (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
        (status = 401, description = "SIGNATURE_*, UNAUTHORIZED", body = ErrorBody),
        (status = 403, description = "SIGNATURE_NAMESPACE_MISMATCH, SIGNATURE_KEY_MISMATCH, FORBIDDEN", body = ErrorBody),
        (status = 409, description = "SIGNATURE_NONCE_REPLAY", body = ErrorBody),
    )
)]
async fn one(
    State(api): State<Arc<Api>>,
    Signed(verified): Signed,
    Keyed(service): Keyed,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let event = read(&input::object(&body)?)?;
    let now_ms = moment::now_ms(api.clock);
    let event_id = event.event_id.clone();
    let new = api.db.write(move |db| {
        let new = put(db, &service, verified.caller.namespace.as_str(), &event, now_ms)?;
        forget(db)?;
        Ok(new)
    });
    let new = new.await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &Accepted { event_id, accepted: true, duplicate: !new }))
}

/// Report many requests of agents; what is not listed as refused is stored
#[utoipa::path(
    post,
    path = "/v1/usage/events/batch",
    tag = "usage",
    request_body = UsageBatch,
    responses(
        (status = 200, body = UsageBatchAnswer),
        (status = 400, description = "VALIDATION_ERROR, INVALID_JSON", body = ErrorBody),
        (status = 401, description = "SIGNATURE_*, UNAUTHORIZED", body = ErrorBody),
        (status = 409, description = "SIGNATURE_NONCE_REPLAY", body = ErrorBody),
    )
)]
async fn batch(
    State(api): State<Arc<Api>>,
    Signed(verified): Signed,
    Keyed(service): Keyed,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let object = input::object(&body)?;
    let events = match object.get("events") {
        Some(Value::Array(events)) if events.len() <= MAX_BATCH => events.clone(),
        None | Some(_) => return Err(Problem::invalid("events", format!("must be a list of at most {MAX_BATCH}"))),
    };
    let now_ms = moment::now_ms(api.clock);
    let work = move |db: &rusqlite::Transaction<'_>| {
        let mut answer = UsageBatchAnswer::default();
        for event in events {
            let put = event
                .as_object()
                .ok_or_else(|| Problem::invalid("events", "must be objects"))
                .and_then(read)
                .and_then(|event| put(db, &service, verified.caller.namespace.as_str(), &event, now_ms));
            match put {
                Ok(true) => answer.accepted = answer.accepted.saturating_add(1),
                Ok(false) => answer.duplicate = answer.duplicate.saturating_add(1),
                // Not the event's fault: all of the batch is to be sent again.
                Err(problem) if problem.status().is_server_error() => return Err(problem),
                Err(problem) => answer.refused.push(refused(&event, &problem)),
            }
        }
        forget(db)?;
        Ok(answer)
    };
    Ok(json(StatusCode::OK, &api.db.write(work).await?))
}

fn refused(event: &Value, problem: &Problem) -> RefusedEvent {
    let event_id = event.get("event_id").and_then(Value::as_str).unwrap_or_default();
    RefusedEvent {
        event_id: event_id.chars().take(128).collect(),
        code: problem.code().to_owned(),
        error: problem.sentence(),
    }
}

/// Reads an event, or says everything that is wrong with it.
fn read(object: &Map<String, Value>) -> Result<UsageEvent, Problem> {
    let mut fields = Fields::of(object);
    let event_id = fields.text("event_id", 1, 128);
    let namespace = fields.text("namespace", 3, 64);
    let service = fields.text("service", 1, 128);
    let public_key = fields.text("public_key", 1, 256);
    let subject = fields.text("subject", 1, 256);
    let agent_id = fields.optional_text("agent_id", 128);
    let protocol = fields.text("protocol", 1, 8);
    if !protocol.is_empty() && !matches!(protocol.as_str(), "http" | "mcp") {
        fields.refuse("protocol", "must be http or mcp");
    }
    let action = fields.text("action", 1, 64);
    let outcome = fields.text("outcome", 1, 32);
    let status_code = fields.optional_number("status_code", 100, 599);
    let duration_ms = fields.optional_number("duration_ms", 0, 3_600_000);
    let response_bytes = fields.optional_number("response_bytes", 0, 100_000_000);
    let request_method = fields.optional_text("request_method", 16);
    let request_path = fields.optional_text("request_path", 512);
    let remote_ip = fields.optional_text("remote_ip", 128);
    let occurred_at = fields.optional_text("occurred_at", 64);
    if occurred_at.as_deref().is_some_and(|at| text::instant(at).is_none()) {
        fields.refuse("occurred_at", "must be a time as in 2026-01-31T12:00:00.000Z");
    }
    fields.finish()?;
    Ok(UsageEvent {
        event_id,
        namespace,
        service,
        public_key,
        subject,
        agent_id,
        protocol,
        action,
        outcome,
        status_code: status_code.and_then(|code| u16::try_from(code).ok()),
        duration_ms: duration_ms.and_then(|duration| u64::try_from(duration).ok()),
        response_bytes: response_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        request_method,
        request_path,
        remote_ip,
        occurred_at,
    })
}

/// Stores an event; `false` where its id is known.
fn put(
    db: &Connection,
    service: &KeyedService,
    signer: &str,
    event: &UsageEvent,
    now_ms: i64,
) -> Result<bool, Problem> {
    if event.namespace != signer {
        let text = "the signer's namespace is not the event's";
        return Err(Problem::new(StatusCode::FORBIDDEN, "SIGNATURE_NAMESPACE_MISMATCH", text));
    }
    if event.service != service.slug {
        return Err(Problem::forbidden("the service key is of another service"));
    }
    if event.namespace != service.owner_namespace && !was_approved(db, service, &event.namespace)? {
        return Err(Problem::forbidden("no key of this namespace was approved for this service"));
    }
    let sql = "INSERT INTO usage_events (service_id, event_id, namespace, service, public_key, subject, agent_id,
                   protocol, action, outcome, status_code, duration_ms, response_bytes, request_method,
                   request_path, remote_ip, created_at_ms)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
               ON CONFLICT (service_id, event_id) DO NOTHING";
    let occurred_ms = event.occurred_at.as_deref().and_then(text::instant);
    let possible = now_ms.saturating_sub(MAX_LATE_MS)..=now_ms;
    let at_ms = occurred_ms.filter(|at_ms| possible.contains(at_ms)).unwrap_or(now_ms);
    let number = |number: Option<u64>| number.and_then(|number| i64::try_from(number).ok());
    let added = db.prepare_cached(sql)?.execute(params![
        service.service_id,
        event.event_id,
        event.namespace,
        event.service,
        event.public_key,
        event.subject,
        event.agent_id,
        event.protocol,
        event.action,
        event.outcome,
        event.status_code,
        number(event.duration_ms),
        number(event.response_bytes),
        event.request_method,
        event.request_path,
        event.remote_ip,
        at_ms,
    ])?;
    Ok(added == 1)
}

fn was_approved(db: &Connection, service: &KeyedService, namespace: &str) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT 1 FROM authorizations
               WHERE service_id = ?1 AND namespace = ?2 AND approved_at_ms IS NOT NULL LIMIT 1";
    db.prepare_cached(sql)?.exists([&service.service_id, namespace])
}

/// Lets the oldest events go beyond the bound.
fn forget(db: &Connection) -> Result<(), rusqlite::Error> {
    let sql = "DELETE FROM usage_events WHERE number <= (SELECT max(number) FROM usage_events) - ?1";
    db.prepare_cached(sql)?.execute([MAX_EVENTS])?;
    Ok(())
}
