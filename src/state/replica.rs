//! authz's end without its socket: messages in, snapshots out. No IO and no clock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::approval::Approvals;
use crate::domain::approval::Freshness;
use crate::domain::approval::Grant;
use crate::domain::approval::Restatement;
use crate::domain::approval::Source;
use crate::domain::connection::Connection;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::PublicKey;
use crate::domain::snapshot::Settings;
use crate::domain::snapshot::Snapshot;
use crate::domain::snapshot::StateVersion;
use crate::domain::time::MonotonicMillis;
use crate::wire::state;
use crate::wire::state::proto;
use crate::wire::state::proto::state_response::Message;

/// Most connections one state may hold; past this, the sender is broken.
const MAX_CONNECTIONS: usize = 200_000;
/// Most approvals one state may hold.
const MAX_APPROVALS: usize = 20_000_000;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The state is this version now; to be acknowledged.
    Version {
        /// The new version.
        version: StateVersion,
        /// Records that could not be read: connections without a readable id, malformed grants.
        unreadable: usize,
    },
    /// The same version, fresher claims.
    Confirmed,
    /// One part of a full state; more must follow.
    Part,
    /// It does not concern what is held.
    Ignored,
}

/// A message did not fit. What was held before is held still.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state {}: {reason}", version.version)]
pub struct Refused {
    /// The version the message would have led to.
    pub version: StateVersion,
    /// What did not fit. Names no record's content.
    pub reason: String,
}

/// What this authz holds of admin's state.
#[derive(Debug, Default)]
pub struct Replica {
    held: Option<Arc<Snapshot>>,
    pending: Option<Pending>,
    /// Something was refused: the rest of a full state whose beginning is gone is of no use.
    wants_full: bool,
}

/// A full state of which some parts have come.
#[derive(Debug)]
struct Pending {
    version: StateVersion,
    next_part: u32,
    settings: Settings,
    connections: HashMap<ConnectionId, Arc<Connection>>,
    approvals: Restatement,
    given: HashMap<ConnectionId, MonotonicMillis>,
    unreadable: usize,
    /// When its first part came: the ages in all parts were true then or earlier.
    since: MonotonicMillis,
}

impl Replica {
    /// The state; `None` before the first full one.
    pub const fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.held.as_ref()
    }

    /// A new stream begins: whatever was half received will not be continued.
    pub fn reconnect(&mut self) {
        self.pending = None;
        self.wants_full = false;
    }

    /// Takes one message, whole or not at all.
    pub fn apply(&mut self, response: proto::StateResponse, now: MonotonicMillis) -> Result<Applied, Refused> {
        let version = state::decode_version(response.version.unwrap_or_default());
        let applied = match response.message {
            Some(Message::Full(full)) => self.full(&version, full, now),
            Some(Message::Delta(delta)) => self.delta(&version, delta, now),
            Some(Message::Confirm(confirm)) => Ok(self.confirm(&version, confirm, now)),
            // Not of the state.
            Some(Message::Registered(_)) => Ok(Applied::Ignored),
            None => Err("a message this version does not know".to_owned()),
        };
        applied.map_err(|reason| {
            self.pending = None;
            self.wants_full = true;
            Refused { version, reason }
        })
    }

    fn full(&mut self, version: &StateVersion, full: proto::Full, now: MonotonicMillis) -> Result<Applied, String> {
        if version.epoch.is_empty() {
            return Err("a state without an epoch".to_owned());
        }
        // Of another run of admin it is what its store holds now, which somebody may have put back to an earlier state.
        if let Some(held) = &self.held
            && held.version.is_comparable(version)
            && held.version.version > version.version
        {
            return Err(format!("older than what is held, {}", held.version.version));
        }
        let mut pending = match (full.part, self.pending.take()) {
            (0, _) => {
                // Of another epoch is what another store's source said.
                let older = self.held.as_ref().filter(|held| held.version.epoch == version.epoch);
                let older = older.map_or_else(Approvals::default, |held| held.approvals.clone());
                let settings = full.settings.ok_or_else(|| "the first part carries no settings".to_owned())?;
                Pending {
                    version: version.clone(),
                    next_part: 0,
                    settings: state::decode_settings(settings).map_err(|error| error.to_string())?,
                    connections: HashMap::new(),
                    approvals: Restatement::new(older),
                    given: HashMap::new(),
                    unreadable: 0,
                    since: now,
                }
            }
            (part, Some(pending)) if pending.next_part == part && pending.version == *version => pending,
            // The rest of a state that was refused: its successor is on the way.
            (_, None) if self.wants_full => return Ok(Applied::Ignored),
            (_, _) => return Err("a part is missing".to_owned()),
        };
        pending.next_part = pending.next_part.saturating_add(1);
        for record in full.connections {
            note_given(&mut pending.given, &record, self.held.as_deref(), pending.since);
            pending.unreadable = pending.unreadable.saturating_add(upsert(&mut pending.connections, record));
        }
        for list in full.approvals {
            if is_unread(&list) {
                pending.approvals.keep_claims(&list.service);
                continue;
            }
            pending.unreadable =
                pending.unreadable.saturating_add(add_list(&mut pending.approvals, &list, pending.since));
        }
        check_bounds(pending.connections.len(), pending.approvals.len())?;
        if !full.last {
            self.pending = Some(pending);
            return Ok(Applied::Part);
        }
        let approvals = pending.approvals.finish();
        check_bounds(pending.connections.len(), approvals.len())?;
        self.wants_full = false;
        let unreadable = pending.unreadable;
        self.held = Some(Arc::new(Snapshot {
            version: pending.version,
            settings: Arc::new(pending.settings),
            connections: Arc::new(pending.connections),
            approvals,
            given: Arc::new(pending.given),
        }));
        Ok(Applied::Version { version: version.clone(), unreadable })
    }

    fn delta(&mut self, version: &StateVersion, delta: proto::Delta, now: MonotonicMillis) -> Result<Applied, String> {
        if self.pending.is_some() {
            return Err("a delta within a full state".to_owned());
        }
        let Some(held) = &self.held else { return Err("a delta before any full state".to_owned()) };
        if !held.version.is_comparable(version) || held.version.version != delta.follows {
            return Err(format!("it follows {}, held is {}", delta.follows, held.version.version));
        }
        if version.version <= delta.follows {
            return Err("it leads backwards".to_owned());
        }
        let mut next = Snapshot::clone(held);
        let mut unreadable = 0_usize;
        next.version = version.clone();
        if let Some(settings) = delta.settings {
            next.settings = Arc::new(state::decode_settings(settings).map_err(|error| error.to_string())?);
        }
        if !delta.upsert_connections.is_empty() || !delta.delete_connections.is_empty() {
            let connections = Arc::make_mut(&mut next.connections);
            for record in delta.upsert_connections {
                if record.given_ms_ago.is_some() {
                    note_given(Arc::make_mut(&mut next.given), &record, self.held.as_deref(), now);
                }
                unreadable = unreadable.saturating_add(upsert(connections, record));
            }
            for id in &delta.delete_connections {
                connections.remove(id.as_str());
            }
        }
        for service in &delta.end_claims {
            next.approvals.end_claims(service);
        }
        for list in delta.replace_approvals {
            let Some(source) = state::decode_source(list.source) else {
                unreadable = unreadable.saturating_add(1);
                continue;
            };
            if is_unread(&list) {
                begin_claims(&mut next.approvals, &list.service);
                continue;
            }
            next.approvals.clear(&list.service, source);
            unreadable = unreadable.saturating_add(add_list(&mut next.approvals, &list, now));
        }
        unreadable = unreadable.saturating_add(add_single(&mut next.approvals, &delta.add_approvals));
        unreadable = unreadable.saturating_add(remove_single(&mut next.approvals, &delta.remove_approvals));
        check_bounds(next.connections.len(), next.approvals.len())?;
        self.wants_full = false;
        self.held = Some(Arc::new(next));
        Ok(Applied::Version { version: version.clone(), unreadable })
    }

    fn confirm(&mut self, version: &StateVersion, confirm: proto::Confirm, now: MonotonicMillis) -> Applied {
        // What it confirms is not what is held: believing it would make stale claims look fresh.
        let Some(held) = self.held.as_ref().filter(|held| held.version == *version) else {
            return Applied::Ignored;
        };
        let mut next = Snapshot::clone(held);
        for service in confirm.services {
            if next.approvals.freshness(&service.service).is_some() {
                next.approvals.set_freshness(&service.service, freshness(Some(service.age_ms), now));
            }
        }
        self.held = Some(Arc::new(next));
        Applied::Confirmed
    }
}

/// How fresh something is that was confirmed `age` ms before `now`.
fn freshness(age: Option<u64>, now: MonotonicMillis) -> Freshness {
    match age.and_then(|age| now.0.checked_sub(age)) {
        Some(at) => Freshness::ConfirmedAt(MonotonicMillis(at)),
        None => Freshness::Never,
    }
}

fn check_bounds(connections: usize, approvals: usize) -> Result<(), String> {
    if connections > MAX_CONNECTIONS || approvals > MAX_APPROVALS {
        return Err(format!("larger than {MAX_CONNECTIONS} connections or {MAX_APPROVALS} approvals"));
    }
    Ok(())
}

/// Keeps when we were given a connection that another replay window had before. What is known of it holds as long as we hold
/// the connection; where it is not known whether there was another, it was none if we do.
fn note_given(
    given: &mut HashMap<ConnectionId, MonotonicMillis>,
    record: &proto::Connection,
    held: Option<&Snapshot>,
    now: MonotonicMillis,
) {
    let Ok(id) = ConnectionId::parse(&record.id) else { return };
    let is_held = held.is_some_and(|held| held.connections.contains_key(&id));
    let before = held.and_then(|held| held.given.get(&id)).copied();
    let told = record.given_ms_ago.filter(|_| !(record.given_unless_held && is_held));
    let told = told.map(|ago| MonotonicMillis(now.0.saturating_sub(ago)));
    if let Some(at) = told.max(before) {
        given.insert(id, at);
    }
}

/// Returns how many records could not be read.
fn upsert(connections: &mut HashMap<ConnectionId, Arc<Connection>>, record: proto::Connection) -> usize {
    match state::decode_connection(record) {
        Some(connection) => {
            connections.insert(connection.settings.id.clone(), connection);
            0
        }
        None => 1,
    }
}

/// Whether a list says only that there is a claims source, which admin has not read.
fn is_unread(list: &proto::ServiceApprovals) -> bool {
    state::decode_source(list.source) == Some(Source::Claims) && list.age_ms.is_none()
}

/// From now on the service has a claims source; what is held of it is held on.
fn begin_claims(approvals: &mut Approvals, service: &str) {
    if approvals.freshness(service).is_none() {
        approvals.set_freshness(service, Freshness::Never);
    }
}

/// What a list is added to: approvals that are changed, or ones that are stated anew.
trait Listed {
    fn add(&mut self, key: PublicKey, grant: Grant<'_>);
    fn set_freshness(&mut self, service: &str, freshness: Freshness);
}

impl Listed for Approvals {
    fn add(&mut self, key: PublicKey, grant: Grant<'_>) {
        Self::add(self, key, grant);
    }
    fn set_freshness(&mut self, service: &str, freshness: Freshness) {
        Self::set_freshness(self, service, freshness);
    }
}

impl Listed for Restatement {
    fn add(&mut self, key: PublicKey, grant: Grant<'_>) {
        Self::add(self, key, grant);
    }
    fn set_freshness(&mut self, service: &str, freshness: Freshness) {
        Self::set_freshness(self, service, freshness);
    }
}

/// Returns how many grants could not be read.
fn add_list(approvals: &mut impl Listed, list: &proto::ServiceApprovals, now: MonotonicMillis) -> usize {
    let Some(source) = state::decode_source(list.source) else { return list.grants.len().max(1) };
    if source == Source::Claims {
        approvals.set_freshness(&list.service, freshness(list.age_ms, now));
    }
    let mut unreadable = 0_usize;
    for grant in &list.grants {
        match state::decode_grant(&list.service, source, grant) {
            Some((key, grant)) => approvals.add(key, grant),
            None => unreadable = unreadable.saturating_add(1),
        }
    }
    unreadable
}

fn add_single(approvals: &mut Approvals, list: &[proto::Approval]) -> usize {
    let mut unreadable = 0_usize;
    for approval in list {
        match state::decode_approval(approval) {
            Some((key, grant)) => {
                if grant.source == Source::Claims {
                    begin_claims(approvals, grant.service);
                }
                approvals.add(key, grant);
            }
            None => unreadable = unreadable.saturating_add(1),
        }
    }
    unreadable
}

fn remove_single(approvals: &mut Approvals, list: &[proto::Approval]) -> usize {
    let mut unreadable = 0_usize;
    for approval in list {
        match state::decode_approval(approval) {
            Some((key, grant)) => approvals.remove(&key, &grant),
            None => unreadable = unreadable.saturating_add(1),
        }
    }
    unreadable
}

#[cfg(test)]
#[path = "replica_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]
mod tests;
