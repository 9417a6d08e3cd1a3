//! Health. Ready means: the store answers and an authz process has what is published.

use std::time::Duration;

use axum::body::Body;
use http::Response;
use http::StatusCode;

use crate::admin::Admin;
use crate::admin::ClaimsWatch;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::state::PeerState;
use crate::wire::health::ConditionBody;
use crate::wire::health::HealthBody;

/// How long the store may take to say that it is there.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// How long an authz may take to apply what was just published before that is worth telling.
const APPLY_PATIENCE: Duration = Duration::from_millis(500);
/// How often that is looked at.
const APPLY_POLL: Duration = Duration::from_millis(10);

/// `GET /health` and `/health/live`: the process answers.
pub fn alive(check: &'static str) -> Result<Response<Body>, Problem> {
    json(StatusCode::OK, &HealthBody { check, status: "ok", conditions: None })
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
    conditions.extend(admin.metrics.data_plane().conditions().into_iter().map(|found| ConditionBody {
        kind: found.kind,
        status: if found.holds { "True" } else { "False" },
        reason: found.reason,
        message: found.message,
    }));
    conditions.extend(secrets(admin));
    let conditions = (!conditions.is_empty()).then_some(conditions);
    json(StatusCode::OK, &HealthBody { check: "readiness", status: "ok", conditions })
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
    let (status, reason, message) = match (told.degraded, too_old) {
        (false, _) => ("True", "Resolved", format!("generation {}, {age} s old", told.generation)),
        (true, false) => {
            ("True", "Degraded", format!("{failing} references cannot be resolved; secrets of {age} s ago are in use"))
        }
        (true, true) => (
            "False",
            "TooStale",
            format!("{failing} references cannot be resolved for {age} s; their connections are closed"),
        ),
    };
    Some(ConditionBody { kind: "SecretsSnapshot", status, reason, message })
}

fn condition(admin: &Admin, claims: &ClaimsWatch) -> ConditionBody {
    let judged = claims.overview.judge(&admin.publisher.claims_ages(), claims.late_ms());
    let status = if judged.fresh { "True" } else { "False" };
    ConditionBody { kind: "ClaimsFresh", status, reason: judged.reason, message: judged.message }
}
