//! Requests of agents that were refused, as the access log tells of them: how many for which reason, and the last ones.
//!
//! Kept in memory, in bounds, and without anything that names a person or says what was asked for: codes, ids of connections,
//! and fingerprints as in the decision log.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Id;
use crate::admin::input::Shared;
use crate::admin::input::finish;
use crate::admin::respond::json;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::Namespace;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::telemetry::access_log::AccessEntry;
use crate::telemetry::decisions;
use crate::wire::refusals::RefusalBody;
use crate::wire::refusals::RefusalReasonBody;
use crate::wire::refusals::RefusalsBody;

/// Refusals that are told one by one: a few screens of them.
const RECENT: usize = 200;
/// Reasons told apart. There are about forty; the rest is one.
const MAX_REASONS: usize = 64;
/// Longest code, in bytes.
const MAX_CODE: usize = 64;
/// The reason of those that are not told apart.
const OTHER: &str = "OTHER";
/// Digits of the fingerprint of a key.
const KEY_DIGITS: usize = 16;
/// What is told as the last day, in hours.
const DAY_HOURS: u64 = 24;
const HOUR_SECONDS: u64 = 3600;
/// What the provider did or did not do is no refusal.
const UPSTREAM: &str = "UPSTREAM_ERROR";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Requests of agents that were refused, by reason and the last ones.
#[utoipa::path(get, path = "/api/admin/refusals", operation_id = "listRefusals", tag = "refusals", responses(
    (status = 200, description = "As of a second ago", body = RefusalsBody),
))]
async fn show(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    finish(&id, json(StatusCode::OK, &admin.refusals.body(admin.clock.now().seconds())))
}

/// What was read of them.
#[derive(Debug)]
pub struct Refusals {
    since: UnixMillis,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    reasons: BTreeMap<String, Reason>,
    /// Oldest first.
    recent: VecDeque<Refusal>,
}

#[derive(Debug, Default)]
struct Reason {
    count: u64,
    last_at: UnixSeconds,
    /// By hour since the epoch; at most a day of them.
    hours: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone)]
struct Refusal {
    at: UnixSeconds,
    code: String,
    status: u16,
    connection: Option<String>,
    namespace: Option<String>,
    agent_key: Option<String>,
}

impl Refusals {
    /// None yet.
    pub fn new(since: UnixMillis) -> Self {
        Self { since, seen: Mutex::default() }
    }

    /// Takes note of one line of the access log.
    pub fn note(&self, entry: &AccessEntry) {
        let Some(mut refusal) = Refusal::read(entry) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.reasons.len() >= MAX_REASONS && !seen.reasons.contains_key(&refusal.code) {
            OTHER.clone_into(&mut refusal.code);
        }
        seen.reasons.entry(refusal.code.clone()).or_default().add(refusal.at);
        if seen.recent.len() >= RECENT {
            seen.recent.pop_front();
        }
        seen.recent.push_back(refusal);
    }

    fn body(&self, now: UnixSeconds) -> RefusalsBody {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reasons: Vec<_> = seen.reasons.iter().map(|(code, reason)| reason.body(code, now)).collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        RefusalsBody {
            since: self.since.rfc3339(),
            total: seen.reasons.values().map(|reason| reason.count).fold(0, u64::saturating_add),
            reasons,
            recent: seen.recent.iter().rev().cloned().map(Refusal::body).collect(),
        }
    }
}

impl Reason {
    fn add(&mut self, at: UnixSeconds) {
        self.count = self.count.saturating_add(1);
        self.last_at = self.last_at.max(at);
        let count = self.hours.entry(at.0 / HOUR_SECONDS).or_default();
        *count = count.saturating_add(1);
        if self.hours.len() as u64 > DAY_HOURS {
            self.hours.pop_first();
        }
    }

    fn body(&self, code: &str, now: UnixSeconds) -> RefusalReasonBody {
        let first = (now.0 / HOUR_SECONDS).saturating_sub(DAY_HOURS - 1);
        RefusalReasonBody {
            code: code.to_owned(),
            count: self.count,
            last_24h: self.hours.range(first..).map(|(_, count)| *count).fold(0, u64::saturating_add),
            last_at: self.last_at.rfc3339(),
        }
    }
}

impl Refusal {
    /// Reads a line; `None` where the request was let through, or is none of an agent. What is not as it should be is left
    /// out: a line is written of what strangers send.
    fn read(entry: &AccessEntry) -> Option<Self> {
        let code = if entry.reason.is_empty() { entry.code.as_str() } else { entry.reason.as_str() };
        let known = code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        if code.is_empty() || code == UPSTREAM {
            return None;
        }
        let key = entry.agent_key.as_str();
        let is_key = key.len() == KEY_DIGITS && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let namespace = Namespace::is_valid(&entry.namespace).then(|| decisions::fingerprint(&entry.namespace));
        Some(Self {
            at: UnixSeconds::parse_rfc3339(&entry.timestamp)?,
            code: if known && code.len() <= MAX_CODE { code.to_owned() } else { OTHER.to_owned() },
            status: u16::try_from(entry.status).unwrap_or_default(),
            connection: ConnectionId::parse(&entry.connection).ok().map(|id| id.as_str().to_owned()),
            namespace,
            agent_key: is_key.then(|| key.to_owned()),
        })
    }

    fn body(self) -> RefusalBody {
        let Self { at, code, status, connection, namespace, agent_key } = self;
        RefusalBody { at: at.rfc3339(), code, status, connection, namespace, agent_key }
    }
}

#[cfg(test)]
#[path = "refusals_tests.rs"]
mod tests;
