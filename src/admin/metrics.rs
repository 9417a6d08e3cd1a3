//! The metrics: what was counted so far, and what a look at store, state stream, processes and Envoy finds now.

use std::time::Duration;

use axum::body::Body;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;

use crate::admin::Admin;
use crate::admin::health_authz::Counted;
use crate::admin::respond::Problem;
use crate::state::PeerState;
use crate::store::sizes::Sizes;
use crate::sys::clock::Clock as _;
use crate::sys::local_http::Endpoint;
use crate::sys::local_http::exchange;
use crate::sys::own_use;
use crate::sys::own_use::OwnUse;
use crate::telemetry::metrics;
use crate::telemetry::standing::Held;
use crate::telemetry::standing::Node;
use crate::telemetry::standing::Process;
use crate::telemetry::standing::Standing;
use crate::telemetry::standing::StoreStanding;
use crate::wire::health::ConditionBody;
use crate::wire::health::DRAINING;
use crate::wire::health::DetailsBody;
use crate::wire::health::Requirement;
use crate::wire::health::Status;
use crate::wire::state::proto::Report;

/// How long Envoy may take to say how many requests are open.
const ENVOY_PATIENCE: Duration = Duration::from_millis(500);
/// Envoy's gauge of open requests on the agents' listener.
const IN_FLIGHT_QUERY: &str = "/stats?filter=%5Ehttp%5C.ingress%5C.downstream_rq_active%24";

/// `GET /metrics`.
pub async fn show(admin: &Admin) -> Result<Response<Body>, Problem> {
    let (connections, sizes) = admin.store.read(|vault| Ok((vault.count()?, vault.sizes()?))).await?;
    let peers = admin.publisher.peers();
    // Those readiness goes by: whoever has one workload's certificate must not hide that nothing is decided here.
    let (connected, ready) = (peers.len() as u64, Counted::of(admin, &peers).ready() as u64);
    let published = admin.publisher.version();
    admin.metrics.record_state(published.version, connections, connected, ready);
    let streams = admin.claims.as_ref().map_or(0, |claims| claims.overview.streams());
    admin.metrics.record_claims(&admin.publisher.claims_ages(), streams);
    let (generation, degraded, _, age) = admin.reload.snapshot();
    admin.metrics.reload().record_secrets(generation, degraded, age);
    let config = admin.reload.config();
    admin.metrics.reload().record_config(config.generation, config.pending_changes.len());
    let now_ms = admin.clock.now().wall.0;
    admin.metrics.usage().record_oldest_at(now_ms);
    let in_flight = in_flight(admin).await;
    // One that has run here left its socket behind, however it ended.
    let here = in_flight.is_some() || admin.health.own_envoy() || admin.envoy_socket.exists();
    admin.metrics.record_in_flight(in_flight, here);
    let conditions =
        admin.health.latest(admin.clock.now().monotonic).map_or_else(Vec::new, |found| conditions(&found.details));
    admin.metrics.show(Standing {
        conditions,
        nodes: peers.into_iter().map(|peer| node(peer, &published.epoch, published.version)).collect(),
        epoch: published.epoch,
        store: Some(store(sizes, now_ms)),
        admin: Process { started_at_ms: admin.metrics.started_at_ms(), uses: own_use::look() },
    });
    let text = admin.metrics.render().map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        Problem::internal()
    })?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    Ok(response)
}

/// The conditions that hold, and those that do not. A drain is meant: what it keeps from being ready is neither.
fn conditions(details: &DetailsBody) -> Vec<Held> {
    let known = details.conditions.iter().filter(|one| one.status != Status::Unknown && one.reason != DRAINING);
    let held = |one: &ConditionBody| Held {
        condition: one.kind.clone(),
        requirement: match one.requirement {
            Requirement::Required => "required",
            Requirement::Advisory => "advisory",
        },
        subject: one.subject_ref.clone(),
        holds: one.status == Status::True,
    };
    known.map(held).collect()
}

/// An authz process, against the state that is published.
fn node(peer: PeerState, epoch: &str, version: u64) -> Node {
    let acknowledged = peer.applied.filter(|applied| applied.epoch == epoch).map_or(0, |applied| applied.version);
    let used = |report: &Report| report.replay_entries as f64 / report.replay_capacity as f64;
    let replay_used = peer.report.as_ref().filter(|report| report.replay_capacity > 0).map(used);
    let process = peer.report.map_or_else(Process::default, |report| Process {
        started_at_ms: report.started_at_ms,
        uses: report.process.map(|uses| OwnUse {
            resident_bytes: uses.resident_bytes,
            open_files: uses.open_files,
            max_open_files: uses.max_open_files,
        }),
    });
    Node { name: peer.node, acknowledged, lag: version.saturating_sub(acknowledged), replay_used, process }
}

fn store(sizes: Sizes, now_ms: u64) -> StoreStanding {
    let age = sizes.audit_oldest.map_or(0, |at| now_ms.saturating_sub(at.0));
    StoreStanding {
        database_bytes: sizes.database_bytes,
        wal_bytes: sizes.wal_bytes,
        free_bytes: sizes.free_bytes,
        audit_entries: sizes.audit_entries,
        audit_oldest_age: age as f64 / 1000.0,
    }
}

/// What Envoy says; `None` where it does not.
pub(super) async fn in_flight(admin: &Admin) -> Option<f64> {
    let endpoint = Endpoint::Unix(admin.envoy_socket.clone());
    let answer = exchange(&endpoint, Request::get(IN_FLIGHT_QUERY), bytes::Bytes::new(), ENVOY_PATIENCE).await.ok()?;
    let text = std::str::from_utf8(&answer.body).ok().filter(|_| answer.status == 200)?;
    // Before the first request Envoy has not made the gauge.
    let value = text.lines().find_map(|line| line.strip_prefix("http.ingress.downstream_rq_active:"));
    value.map_or(Some(0.0), |value| value.trim().parse().ok())
}
