//! Who used which connection, gathered from the access log until it is written down, and asked for over the API.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Id;
use crate::admin::input::Name;
use crate::admin::input::Shared;
use crate::admin::input::finish;
use crate::admin::respond::json;
use crate::domain::ids::PublicKey;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;
use crate::store::last_use::LastUse;
use crate::telemetry::access_log::AccessEntry;
use crate::wire::agents::AgentBody;
use crate::wire::agents::AgentListBody;
use crate::wire::envelope::ErrorBody;

/// How long uses are gathered before they are written, in milliseconds. What a crash finds gathered is lost.
const GATHER_MS: u64 = 5_000;
/// Agents gathered at a time; one more counts with its next request.
const MAX_GATHERED: usize = 20_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(agents))
}

/// Which agents used a connection, the last one first: at most 1000. Requests that were refused do not count.
#[utoipa::path(get, path = "/api/admin/connections/{id}/agents", operation_id = "listAgents", tag = "connections",
    params(("id" = String, Path, description = "Slug of the connection")), responses(
    (status = 200, description = "As of a few seconds ago", body = AgentListBody),
    (status = 404, description = "No connection of that id", body = ErrorBody),
))]
async fn agents(State(admin): Shared, Extension(id): Id, name: Name) -> Response<Body> {
    let work = async {
        let connection = name.connection()?;
        let uses = admin.store.read(move |vault| vault.agents(connection.as_str())).await?;
        json(StatusCode::OK, &AgentListBody { agents: uses.into_iter().map(encode).collect() })
    };
    finish(&id, work.await)
}

fn encode(last: LastUse) -> AgentBody {
    AgentBody {
        namespace: last.namespace,
        public_key: last.public_key.text(),
        subject: last.subject,
        last_used_at: last.at.rfc3339(),
        status: last.status,
    }
}

/// Connection, namespace, key.
type Agent = (String, String, PublicKey);

/// What was seen and not written down yet.
#[derive(Debug, Default)]
pub(super) struct Uses {
    gathered: HashMap<Agent, LastUse>,
    written_at: MonotonicMillis,
}

impl Uses {
    /// Takes note of one line of the access log.
    pub(super) fn note(&mut self, entry: &AccessEntry) {
        if !entry.was_forwarded() || entry.namespace.is_empty() {
            return;
        }
        let Ok(key) = PublicKey::parse(&entry.public_key) else { return };
        let Some(at) = UnixSeconds::parse_rfc3339(&entry.timestamp) else { return };
        let agent = (entry.connection.clone(), entry.namespace.clone(), key);
        if self.gathered.len() >= MAX_GATHERED && !self.gathered.contains_key(&agent) {
            return;
        }
        let last = LastUse {
            namespace: entry.namespace.clone(),
            public_key: agent.2,
            subject: entry.subject.clone(),
            at: UnixMillis(at.0.saturating_mul(1000)),
            status: u16::try_from(entry.status).unwrap_or_default(),
        };
        let held = self.gathered.entry(agent).or_insert_with(|| last.clone());
        if held.at <= last.at {
            *held = last;
        }
    }

    /// What is to be written down now; nothing while it is too early.
    pub(super) fn take_due(&mut self, now: MonotonicMillis, last_call: bool) -> Vec<(String, LastUse)> {
        if !last_call && now.since(self.written_at) < GATHER_MS {
            return Vec::new();
        }
        self.written_at = now;
        self.gathered.drain().map(|((connection, _, _), last)| (connection, last)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use super::*;

    fn entry(connection: &str, key: u8, second: u32, status: u64) -> AccessEntry {
        AccessEntry {
            timestamp: format!("2026-02-20T18:04:{second:02}.123Z"),
            decision_id: "d".to_owned(),
            connection: connection.to_owned(),
            namespace: "alice".to_owned(),
            subject: "alice".to_owned(),
            public_key: PublicKey::new([key; 32]).text(),
            status,
            ..AccessEntry::default()
        }
    }

    #[test]
    fn the_last_forwarded_request_of_each_agent_counts() {
        let mut uses = Uses::default();
        for seen in [entry("linear", 1, 5, 200), entry("linear", 1, 7, 500), entry("linear", 1, 6, 200)] {
            uses.note(&seen);
        }
        uses.note(&entry("github", 1, 1, 0));
        uses.note(&AccessEntry { reason: "AUTH_CLAIM_REQUIRED".to_owned(), ..entry("linear", 2, 9, 403) });
        uses.note(&AccessEntry { public_key: "nonsense".to_owned(), ..entry("linear", 3, 9, 200) });
        uses.note(&AccessEntry { timestamp: "nonsense".to_owned(), ..entry("linear", 4, 9, 200) });
        let mut taken = uses.take_due(MonotonicMillis(GATHER_MS), false);
        taken.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(
            taken.iter().map(|(id, last)| (id.as_str(), last.status)).collect::<Vec<_>>(),
            [("github", 0), ("linear", 500)]
        );
    }

    #[test]
    fn uses_are_gathered_for_a_while_and_all_told_at_the_end() {
        let mut uses = Uses::default();
        assert!(uses.take_due(MonotonicMillis(10_000), false).is_empty());
        uses.note(&entry("linear", 1, 1, 200));
        assert!(uses.take_due(MonotonicMillis(14_999), false).is_empty());
        assert_eq!(uses.take_due(MonotonicMillis(15_000), false).len(), 1);
        uses.note(&entry("linear", 1, 2, 200));
        assert_eq!(uses.take_due(MonotonicMillis(15_001), true).len(), 1);
    }

    #[test]
    fn a_flood_of_agents_is_bounded() {
        let mut uses = Uses::default();
        for number in 0..=MAX_GATHERED {
            uses.note(&AccessEntry { namespace: format!("ns-{number}"), ..entry("linear", 1, 1, 200) });
        }
        uses.note(&AccessEntry { namespace: "ns-0".to_owned(), ..entry("linear", 1, 2, 201) });
        let taken = uses.take_due(MonotonicMillis(0), true);
        assert_eq!(taken.len(), MAX_GATHERED);
        assert!(taken.iter().any(|(_, last)| last.namespace == "ns-0" && last.status == 201));
    }
}
