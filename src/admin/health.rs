//! Health and metrics over HTTP: liveness, readiness as it was found last, what is counted.

use std::time::Duration;

use axum::body::Body;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;

use crate::admin::Admin;
use crate::admin::health_judge::Facts;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::sys::clock::Clock as _;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::exchange;
use crate::telemetry::metrics;
use crate::wire::health::HealthBody;
use crate::wire::health::ReadyBody;

/// How long Envoy may take to say how many requests are open.
const ENVOY_PATIENCE: Duration = Duration::from_millis(500);
/// Envoy's gauge of open requests on the agents' listener.
const IN_FLIGHT_QUERY: &str = "/stats?filter=%5Ehttp%5C.ingress%5C.downstream_rq_active%24";

/// `GET /health` and `/health/live`: the process answers.
pub fn alive(check: &str) -> Result<Response<Body>, Problem> {
    json(StatusCode::OK, &HealthBody { check: check.to_owned(), ok: true, status: "ok".to_owned() })
}

/// `GET /health/startup`: the store answers, and an authz has the state and would decide: what Envoy's start waits for.
pub fn started(admin: &Admin) -> Result<Response<Body>, Problem> {
    let Some(found) = admin.health.latest(admin.clock.now().monotonic) else { return Err(not_ready(NOT_LOOKED)) };
    let Facts { store, authz, .. } = &found.facts;
    if store.is_ok() && authz.current > 0 && authz.ready > 0 { alive("startup") } else { Err(not_ready(NOT_READY)) }
}

/// `GET /health/ready`, as it was found last, or looked at anew. With the details for those who may have them.
pub async fn ready(admin: &Admin, details: bool, fresh: bool) -> Result<Response<Body>, Problem> {
    let found = match (details, fresh) {
        (true, true) => admin.health.fresh().await,
        // What a stranger asks for costs nothing.
        (_, _) => admin.health.latest(admin.clock.now().monotonic),
    };
    let Some(found) = found else { return Err(not_ready(NOT_LOOKED)) };
    let told = details.then(|| found.details.clone());
    if found.details.is_ready() {
        let (check, status) = ("readiness".to_owned(), "ok".to_owned());
        return json(StatusCode::OK, &ReadyBody { check, ok: true, ready: true, status, details: told });
    }
    let Some(told) = told else { return Err(not_ready(NOT_READY)) };
    let first = told.conditions.iter().find(|condition| condition.is_failure());
    let problem = not_ready(first.map_or(NOT_READY, |condition| condition.message.as_str()));
    Err(problem
        .member("contractVersion", &told.contract_version)
        .member("evaluatedAt", &told.evaluated_at)
        .member("uptimeMs", &told.uptime_ms)
        .member("conditions", &told.conditions)
        .member("failures", &told.failures)
        .member("advisories", &told.advisories))
}

/// What a stranger is told.
const NOT_READY: &str = "the gateway is not ready; with the admin token this path says why";
/// Nothing is known, or not any more.
const NOT_LOOKED: &str = "how it stands with the gateway has not been looked at lately";

fn not_ready(reason: &str) -> Problem {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_READY", reason).retry_after(1);
    problem.member("ok", &false).member("ready", &false)
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
