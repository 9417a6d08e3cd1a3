//! Health and metrics. Ready means: the store answers and an authz process has what is published.

use std::time::Duration;

use axum::body::Body;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;

use crate::admin::Admin;
use crate::admin::ClaimsWatch;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::state::PeerState;
use crate::sys::clock::Clock as _;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::exchange;
use crate::telemetry::metrics;
use crate::wire::health::ConditionBody;
use crate::wire::health::ConditionKind;
use crate::wire::health::DetailsBody;
use crate::wire::health::HealthBody;
use crate::wire::health::ReadyBody;
use crate::wire::health::Requirement;
use crate::wire::health::Status;

/// How long the store may take to say that it is there.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// How long Envoy may take to say how many requests are open.
const ENVOY_PATIENCE: Duration = Duration::from_millis(500);
/// How long an authz may take to apply what was just published before that is worth telling.
const APPLY_PATIENCE: Duration = Duration::from_millis(500);
/// How often that is looked at.
const APPLY_POLL: Duration = Duration::from_millis(10);
/// Envoy's gauge of open requests on the agents' listener.
const IN_FLIGHT_QUERY: &str = "/stats?filter=%5Ehttp%5C.ingress%5C.downstream_rq_active%24";

/// `GET /health` and `/health/live`: the process answers.
pub fn alive(check: &'static str) -> Result<Response<Body>, Problem> {
    json(StatusCode::OK, &HealthBody { check: check.to_owned(), ok: true, status: "ok".to_owned() })
}

/// The connected authz processes, once one of them has applied what is published now: each change of an approval is a
/// version of its own, and the moment between publishing and applying it is no reason to be taken out of service.
async fn peers(admin: &Admin) -> Vec<PeerState> {
    let deadline = tokio::time::Instant::now() + APPLY_PATIENCE;
    loop {
        let peers = admin.publisher.peers();
        let settled = peers.is_empty() || peers.iter().any(|peer| peer.current);
        if settled || tokio::time::Instant::now() >= deadline {
            return peers;
        }
        tokio::time::sleep(APPLY_POLL).await;
    }
}

/// `GET /health/ready`.
pub async fn ready(admin: &Admin) -> Result<Response<Body>, Problem> {
    let not_ready = |reason: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_READY", reason).retry_after(1);
    match tokio::time::timeout(STORE_PATIENCE, admin.store.read(|vault| vault.ping())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "the store does not answer");
            return Err(not_ready("the store does not answer"));
        }
        Err(_) => return Err(not_ready("the store does not answer in time")),
    }
    let peers = peers(admin).await;
    if peers.is_empty() {
        return Err(not_ready("no authz process is connected"));
    }
    if !peers.iter().any(|peer| peer.current) {
        return Err(not_ready("no authz process has applied the current state yet"));
    }
    if !peers.iter().any(|peer| peer.current && peer.report.as_ref().is_some_and(|report| report.ready)) {
        return Err(not_ready("no authz process is ready yet"));
    }
    // Stale claims do not make the gateway unready: declared approvals go on, each request is judged by its own, and
    // taking the gateway out of service would turn away those too.
    // Nor does an Envoy that goes on with the configuration it had.
    let mut conditions: Vec<_> = admin.claims.iter().map(|claims| condition(admin, claims)).collect();
    let data_plane = admin.metrics.data_plane().conditions();
    conditions.extend(
        data_plane.into_iter().map(|found| advisory(found.kind, "envoy", found.holds, found.reason, found.message)),
    );
    conditions.extend(secrets(admin));
    let at = admin.clock.now().wall.rfc3339();
    let details = (!conditions.is_empty()).then(|| DetailsBody::of(conditions, at, 0));
    let (check, status) = ("readiness".to_owned(), "ok".to_owned());
    json(StatusCode::OK, &ReadyBody { check, ok: true, ready: true, status, details })
}

/// How it stands with the secrets of the configuration file; nothing where it refers to none. The last good ones serve
/// on, so this makes nobody unready either.
fn secrets(admin: &Admin) -> Option<ConditionBody> {
    let told = admin.reload.secrets();
    let (_, _, too_old, age) = admin.reload.snapshot();
    if told.refs.active == 0 {
        return None;
    }
    let failing = told.unresolved.len();
    let (holds, reason, message) = match (told.degraded, too_old) {
        (false, _) => (true, "Resolved", format!("generation {}, {age} s old", told.generation)),
        (true, false) => {
            (true, "Degraded", format!("{failing} references cannot be resolved; secrets of {age} s ago are in use"))
        }
        (true, true) => (
            false,
            "TooStale",
            format!("{failing} references cannot be resolved for {age} s; their connections are closed"),
        ),
    };
    Some(advisory(ConditionKind::SecretsSnapshot.name(), "secrets", holds, reason, message))
}

fn condition(admin: &Admin, claims: &ClaimsWatch) -> ConditionBody {
    let judged = claims.overview.judge(&admin.publisher.claims_ages(), claims.late_ms());
    advisory(ConditionKind::ClaimsFresh.name(), "claims", judged.fresh, judged.reason, judged.message)
}

fn advisory(kind: &str, subject: &str, holds: bool, reason: &str, message: String) -> ConditionBody {
    ConditionBody {
        kind: kind.to_owned(),
        subject_ref: subject.to_owned(),
        status: if holds { Status::True } else { Status::False },
        requirement: Requirement::Advisory,
        reason: reason.to_owned(),
        message,
    }
}

/// `GET /metrics`.
pub async fn metrics(admin: &Admin) -> Result<Response<Body>, Problem> {
    let connections = admin.store.read(|vault| vault.count()).await?;
    let peers = admin.publisher.peers();
    let ready = peers.iter().filter(|peer| peer.current && peer.report.as_ref().is_some_and(|report| report.ready));
    let (connected, ready) = (peers.len() as u64, ready.count() as u64);
    admin.metrics.record_state(admin.publisher.version().version, connections, connected, ready);
    let streams = admin.claims.as_ref().map_or(0, |claims| claims.overview.streams());
    admin.metrics.record_claims(&admin.publisher.claims_ages(), streams);
    let (generation, degraded, _, age) = admin.reload.snapshot();
    admin.metrics.reload().record_secrets(generation, degraded, age);
    let config = admin.reload.config();
    admin.metrics.reload().record_config(config.generation, config.pending_changes.len());
    admin.metrics.record_in_flight(in_flight(admin).await);
    let text = admin.metrics.render().map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        Problem::internal()
    })?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    Ok(response)
}

/// What Envoy says; `None` where it does not.
async fn in_flight(admin: &Admin) -> Option<f64> {
    let endpoint = Endpoint::Unix(admin.envoy_socket.clone());
    let answer = exchange(&endpoint, Request::get(IN_FLIGHT_QUERY), bytes::Bytes::new(), ENVOY_PATIENCE).await.ok()?;
    let text = std::str::from_utf8(&answer.body).ok().filter(|_| answer.status == 200)?;
    // Before the first request Envoy has not made the gauge.
    let value = text.lines().find_map(|line| line.strip_prefix("http.ingress.downstream_rq_active:"));
    value.map_or(Some(0.0), |value| value.trim().parse().ok())
}
