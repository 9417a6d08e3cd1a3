//! `GET /api/v1/status`: what the gateway knows of itself, for commands and scripts. Put together from what is at hand: nothing
//! is asked of anybody for it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::health_judge::AuthzFact;
use crate::admin::health_judge::BridgeFact;
use crate::admin::health_judge::CanaryFact;
use crate::admin::health_judge::EnvoyFact;
use crate::admin::health_watch::Evaluated;
use crate::admin::input::Id;
use crate::admin::input::Shared;
use crate::admin::input::finish;
use crate::admin::meter;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::domain::decision::DenyReason;
use crate::sys::clock::Clock as _;
use crate::telemetry::data_plane::IN_SYNC;
use crate::telemetry::decision_times::AllTimes;
use crate::wire::health::ConditionKind;
use crate::wire::health::DetailsBody;
use crate::wire::health::Status;
use crate::wire::status::AppliedConfigBody;
use crate::wire::status::AuthzBody;
use crate::wire::status::ClaimsBody;
use crate::wire::status::ConnectionStatusBody;
use crate::wire::status::ConnectionStatusListBody;
use crate::wire::status::ConnectionsBody;
use crate::wire::status::DecisionsBody;
use crate::wire::status::EnvoyBody;
use crate::wire::status::EnvoyState;
use crate::wire::status::GatewayBody;
use crate::wire::status::KnownBody;
use crate::wire::status::ListenerBody;
use crate::wire::status::PairingBody;
use crate::wire::status::ProbeBody;
use crate::wire::status::ReadinessBody;
use crate::wire::status::RefsBody;
use crate::wire::status::ResourceBody;
use crate::wire::status::SCHEMA_VERSION;
use crate::wire::status::SecretsBody;
use crate::wire::status::StatusBody;
use crate::wire::status::XdsBody;

/// Reasons that are no refusal of a request but of the moment.
const NOT_DECIDED: [DenyReason; 6] = [
    DenyReason::NotReady,
    DenyReason::Unavailable,
    DenyReason::Draining,
    DenyReason::ReplayWindowFull,
    DenyReason::ReplayWindowStarting,
    DenyReason::ReplayStoreUnavailable,
];

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(connections))
}

/// How it stands with each connection: its secret, who may use it, and the last request the gateway itself sent there.
#[utoipa::path(get, path = "/api/v1/connections", operation_id = "connectionStatus", tag = "connections", responses(
    (status = 200, description = "Sorted by id", body = ConnectionStatusListBody),
))]
async fn connections(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    finish(&id, connection_status(&admin).await)
}

async fn connection_status(admin: &Admin) -> Result<Response<Body>, Problem> {
    let (listed, mut tests) = admin.store.read(|vault| Ok((vault.list()?, vault.last_tests()?))).await?;
    let (approved, now) = (admin.publisher.approvals(), admin.clock.now().seconds());
    let told = listed.into_iter().map(|listed| {
        let settings = &listed.record.settings;
        let id = settings.id.as_str().to_owned();
        let secret = if listed.problem.is_some() || listed.record.secrets_lost {
            "unresolved"
        } else if settings.next_rotation_due_at.is_some_and(|due| due < now) {
            "rotation-due"
        } else {
            "resolved"
        };
        let probe = tests.remove(&id).map(|last| ProbeBody {
            ok: last.outcome.passed,
            http_status: last.outcome.http_status,
            ms: None,
            at: last.at.rfc3339(),
            error: (!last.outcome.error.is_empty()).then_some(last.outcome.error),
        });
        ConnectionStatusBody {
            protocol: settings.protocol.name().to_owned(),
            status: if settings.active { "active" } else { "disabled" }.to_owned(),
            secret: Some(secret.to_owned()),
            last_probe: probe,
            approved_agents: Some(approved.get(&id).copied().unwrap_or_default()),
            id,
        }
    });
    json(StatusCode::OK, &ConnectionStatusListBody { connections: told.collect() })
}

/// How it stands with the gateway: version, listeners, Envoy, authz, secrets, claims, connections, readiness.
#[utoipa::path(get, path = "/api/v1/status", operation_id = "status", tag = "health", responses(
    (status = 200, description = "As of at most half a second ago; also where the gateway is not ready", body = StatusBody),
))]
async fn show(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    finish(&id, status(&admin))
}

fn status(admin: &Admin) -> Result<Response<Body>, Problem> {
    let now = admin.clock.now();
    let found = admin.health.latest(now.monotonic);
    let readiness = found.as_deref().map(|found| readiness(&found.details)).unwrap_or_default();
    let config = admin.reload.config();
    let tally = admin.publisher.tally(now.seconds());
    let last_error = config.last_error.as_ref().map(|error| error.message.clone());
    let last_error = last_error.or_else(|| readiness.messages.first().cloned());
    let hash = |hash: String| (!hash.is_empty()).then_some(hash);
    let [control, runtime] = admin.port_sources;
    let body = StatusBody {
        schema_version: SCHEMA_VERSION,
        ok: readiness.ready,
        generated_at: now.wall.rfc3339(),
        config: AppliedConfigBody {
            file: config.file,
            file_error: config.last_error.map(|error| error.message),
            applied_config_hash: hash(config.applied_config_hash),
            config_revision_hash: hash(config.file_config_hash),
            restart_required: config.restart_required,
        },
        known: KnownBody {
            gateway: GatewayBody {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                instance_id: Some(admin.health.instance_id.clone()),
                mode: "local".to_owned(),
                bind_mode: admin.bind_mode.to_owned(),
                control: listener(admin.addresses_bound.first(), control),
                runtime_listener: listener(admin.ingress.load().first(), runtime),
                auth_mode: admin.access.mode.name().to_owned(),
                reload_mode: config.mode,
                uptime_ms: admin.health.uptime_ms(now.monotonic),
                startup_phase: found.as_deref().and_then(startup_phase).map(ToOwned::to_owned),
            },
            envoy: envoy(admin, found.as_deref()),
            authz: authz(admin, found.as_deref()),
            secrets: secrets(admin),
            claims: claims(admin, tally.approved),
            connections: ConnectionsBody {
                active: tally.active,
                disabled: tally.disabled,
                degraded: tally.degraded,
                rotation_due: tally.rotation_due,
            },
            pairing: PairingBody { bridge: bridge(found.as_deref()).to_owned() },
            readiness,
            last_error,
        },
    };
    json(StatusCode::OK, &body)
}

/// What a start still waits for. A part that was there once and is gone has not to do with a start.
const fn startup_phase(found: &Evaluated) -> Option<&'static str> {
    if !found.facts.authz.ever_current {
        return Some("authz");
    }
    match found.facts.envoy {
        EnvoyFact::Down { was_live: false, .. } => Some("envoy"),
        EnvoyFact::Down { was_live: true, .. } | EnvoyFact::Elsewhere | EnvoyFact::Answers { .. } => None,
    }
}

/// As conditions say it.
fn readiness(details: &DetailsBody) -> ReadinessBody {
    let told = details.conditions.iter().filter(|condition| condition.is_failure() || condition.is_advisory());
    // What keeps the gateway from being ready comes first.
    let mut told: Vec<_> = told.collect();
    told.sort_by_key(|condition| condition.is_advisory());
    ReadinessBody {
        ready: details.is_ready(),
        failures: details.failures.clone(),
        advisories: details.advisories.clone(),
        messages: told.iter().map(|condition| format!("{}: {}", condition.kind, condition.message)).collect(),
    }
}

fn listener(address: Option<&SocketAddr>, port_source: &str) -> ListenerBody {
    let port_source = port_source.to_owned();
    match address {
        Some(address) => ListenerBody { host: address.ip().to_string(), port: address.port(), port_source },
        None => ListenerBody { port_source, ..ListenerBody::default() },
    }
}

fn envoy(admin: &Admin, found: Option<&Evaluated>) -> EnvoyBody {
    let (state, version) = match found.map(|found| &found.facts.envoy) {
        None | Some(EnvoyFact::Elsewhere) => (EnvoyState::Unknown, None),
        Some(EnvoyFact::Down { .. }) => (EnvoyState::Down, None),
        Some(EnvoyFact::Answers { state, version }) => {
            let state = match state.as_str() {
                "LIVE" => EnvoyState::Live,
                "DRAINING" => EnvoyState::Draining,
                _ => EnvoyState::Initializing,
            };
            (state, Some(version.clone()))
        }
    };
    EnvoyBody {
        managed: admin.health.own_envoy(),
        pid: None,
        version,
        state,
        restarts: found.map_or(0, |found| found.envoy_restarts),
        xds: xds(admin, found),
    }
}

fn xds(admin: &Admin, found: Option<&Evaluated>) -> XdsBody {
    let data_plane = admin.metrics.data_plane();
    let condition = data_plane.conditions().into_iter().find(|condition| condition.kind == IN_SYNC);
    let lds = ResourceBody {
        version: data_plane.version(),
        acked: condition.as_ref().is_some_and(|condition| condition.holds),
    };
    let authz = found.map(|found| &found.facts.authz);
    let acked = authz.is_some_and(|authz| authz.current > 0);
    let stream = ResourceBody { version: admin.publisher.version().version, acked };
    let refused = condition.filter(|condition| !condition.holds).map(|condition| condition.message);
    let last_nack = refused.or_else(|| authz.and_then(|authz: &AuthzFact| authz.refused.clone()));
    XdsBody { lds, rds: stream.clone(), cds: stream, last_nack }
}

fn authz(admin: &Admin, found: Option<&Evaluated>) -> AuthzBody {
    let kind = ConditionKind::AuthzReachable.name();
    let condition = found.and_then(|found| found.details.conditions.iter().find(|condition| condition.kind == kind));
    let reachable = match condition.map(|condition| condition.status) {
        Some(Status::True) => true,
        Some(Status::False) | None => false,
        // Where Envoy cannot be asked, the state stream says whether it is there.
        Some(Status::Unknown) => found.is_some_and(|found| found.facts.authz.connected > 0),
    };
    let fail_closed = match found.map(|found| &found.facts.canary) {
        None
        | Some(
            CanaryFact::Elsewhere
            | CanaryFact::NoEnvoy
            | CanaryFact::Healthy
            | CanaryFact::Refused(_)
            | CanaryFact::Undecided(_),
        ) => true,
        Some(CanaryFact::LetThrough(_)) => false,
    };
    let (mut decisions, mut times) = (DecisionsBody::default(), AllTimes::default());
    for report in admin.publisher.reports() {
        times.merge(&meter::times(&report));
        decisions.allow = decisions.allow.saturating_add(report.allowed);
        for (code, count) in report.denied {
            let kind = if NOT_DECIDED.iter().any(|reason| reason.wire().0 == code) {
                &mut decisions.error
            } else {
                &mut decisions.deny
            };
            *kind = kind.saturating_add(count);
        }
    }
    let [p50_ms, p99_ms] = [0.5, 0.99].map(|part| Some(times.told_ms(part)));
    AuthzBody { reachable, p50_ms, p99_ms, decisions, fail_closed: Some(fail_closed) }
}

fn secrets(admin: &Admin) -> SecretsBody {
    let told = admin.reload.secrets();
    let (generation, degraded, too_old, age_seconds) = admin.reload.snapshot();
    let state = match (degraded, too_old) {
        (false, _) => "ok",
        (true, false) => "degraded",
        (true, true) => "unavailable",
    };
    SecretsBody {
        generation,
        state: state.to_owned(),
        age_seconds,
        refs: RefsBody { active: told.refs.active, inactive: told.refs.inactive, unresolved: told.unresolved.len() },
    }
}

fn claims(admin: &Admin, approved: u64) -> ClaimsBody {
    let Some(watch) = &admin.claims else {
        let (state, source) = ("fresh".to_owned(), "off".to_owned());
        return ClaimsBody { state, source, age_seconds: Some(0), approved };
    };
    let ages = admin.publisher.claims_ages();
    let fresh = watch.overview.judge(&ages, watch.late_ms()).fresh;
    let oldest = ages.iter().filter_map(|(_, age, _)| *age).max();
    let never = !ages.is_empty() && oldest.is_none();
    let state = if fresh {
        "fresh"
    } else if never {
        "unavailable"
    } else {
        "stale"
    };
    let waited = if never { admin.health.uptime_ms(admin.clock.now().monotonic) } else { 0 };
    let age_seconds = Some(oldest.unwrap_or(waited) / 1000);
    ClaimsBody { state: state.to_owned(), source: "api".to_owned(), age_seconds, approved }
}

const fn bridge(found: Option<&Evaluated>) -> &'static str {
    let Some(found) = found else { return "off" };
    match found.facts.bridge {
        BridgeFact::Off => "off",
        BridgeFact::Connected => "connected",
        BridgeFact::Connecting | BridgeFact::Gone => "connecting",
        BridgeFact::Terminal => "terminal",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;
    use crate::wire::health::ConditionBody;
    use crate::wire::health::Requirement;

    #[test]
    fn what_keeps_the_gateway_from_being_ready_is_told_first() {
        let condition = |kind: &str, requirement| ConditionBody {
            kind: kind.to_owned(),
            subject_ref: String::new(),
            status: Status::False,
            requirement,
            reason: String::new(),
            message: "m".to_owned(),
        };
        let conditions =
            vec![condition("DiskSpace", Requirement::Advisory), condition("EnvoyLive", Requirement::Required)];
        let told = readiness(&DetailsBody::of(conditions, String::new(), 0));
        assert_eq!(told.messages, ["EnvoyLive: m", "DiskSpace: m"]);
        assert!(!told.ready && told.failures == ["EnvoyLive"] && told.advisories == ["DiskSpace"]);
    }
}
