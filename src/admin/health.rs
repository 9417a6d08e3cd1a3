//! Health over HTTP: liveness, readiness as it was found last.

use axum::body::Body;
use http::Response;
use http::StatusCode;

use crate::admin::Admin;
use crate::admin::health_judge::Facts;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::sys::clock::Clock as _;
use crate::wire::health::DRAINING;
use crate::wire::health::GATEWAY_DRAINING;
use crate::wire::health::HealthBody;
use crate::wire::health::ReadyBody;

/// `GET /health` and `/health/live`: the process answers.
pub fn alive(check: &str) -> Result<Response<Body>, Problem> {
    json(StatusCode::OK, &HealthBody { check: check.to_owned(), ok: true, status: "ok".to_owned() })
}

/// `GET /health/startup`: the store answers, and an authz has the state and would decide: what Envoy's start waits for.
pub fn started(admin: &Admin) -> Result<Response<Body>, Problem> {
    let Some(found) = admin.health.latest(admin.clock.now().monotonic) else { return Err(not_ready(NOT_LOOKED)) };
    let Facts { store, authz, .. } = &found.facts;
    if store.answers() && authz.current > 0 && authz.ready > 0 { alive("startup") } else { Err(not_ready(NOT_READY)) }
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
    let drains = found.details.conditions.iter().filter(|one| one.is_failure()).all(|one| one.reason == DRAINING);
    let (code, plain) = if drains { (GATEWAY_DRAINING, DRAINS) } else { ("NOT_READY", NOT_READY) };
    let Some(told) = told else { return Err(refused(code, plain)) };
    let first = told.conditions.iter().find(|condition| condition.is_failure());
    let problem = refused(code, first.map_or(plain, |condition| condition.message.as_str()));
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

/// The same where a drain is all that keeps it from being ready.
const DRAINS: &str = "the gateway takes no new requests: somebody drains it";

fn not_ready(reason: &str) -> Problem {
    refused("NOT_READY", reason)
}

fn refused(code: &'static str, reason: &str) -> Problem {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, reason).retry_after(1);
    problem.member("ok", &false).member("ready", &false)
}
