//! What admin publishes, as one value: the whole state, and the last changes that led to it.
//!
//! No IO and no clock: the publisher puts a lock around it, the property tests drive it directly.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use prost::Message as _;

use crate::domain::time::MonotonicMillis;
use crate::wire::state::proto;

/// Soft size of one part of a full state, in bytes: far below the 4 MiB a gRPC receiver accepts.
const PART_BYTES: usize = 1 << 20;
/// Largest delta, in bytes. More than this is sent as a full state.
const DELTA_BYTES: usize = 1 << 20;
/// How many changes are remembered; who is further behind gets the full state.
const LOG_CHANGES: usize = 1024;
/// How many bytes of changes are remembered.
const LOG_BYTES: usize = 8 << 20;

/// The state a publisher begins with.
#[derive(Debug, Clone, Default)]
pub struct PublishedState {
    /// Made when the store was created or restored.
    pub epoch: String,
    /// The store's version now.
    pub version: u64,
    /// Must be complete: authz refuses a state without.
    pub settings: proto::Settings,
    /// All connections with their secrets.
    pub connections: Vec<proto::Connection>,
    /// One entry per (service, source). A claims entry with `age_ms` absent was never confirmed.
    pub approvals: Vec<proto::ServiceApprovals>,
}

/// One committed change of the store.
#[derive(Debug, Clone)]
pub enum Change {
    /// The settings, whole.
    Settings(proto::Settings),
    /// A connection that is new or different.
    Upsert(Box<proto::Connection>),
    /// A connection that is gone, by id.
    Delete(String),
    /// Everything one source says of one service. An entry without grants ends the approvals.
    ReplaceApprovals(proto::ServiceApprovals),
    /// Single approvals that are new or have another expiry.
    AddApprovals(Vec<proto::Approval>),
    /// Single approvals that are gone.
    RemoveApprovals(Vec<proto::Approval>),
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Settings(settings) => settings.encoded_len(),
            Self::Upsert(connection) => connection.encoded_len(),
            Self::Delete(id) => id.len(),
            Self::ReplaceApprovals(list) => list.encoded_len(),
            Self::AddApprovals(list) | Self::RemoveApprovals(list) => {
                list.iter().map(|approval| approval.encoded_len().saturating_add(4)).sum()
            }
        }
    }
}

type Place = (String, i32);
type Holder = (String, Vec<u8>);
type Grants = BTreeMap<Holder, Option<u64>>;

/// The state, and how it came about.
#[derive(Debug)]
pub(super) struct Published {
    epoch: String,
    /// The version this process began with. What an authz holds of it may stem from an earlier process
    /// whose declared approvals and settings were others, so only later versions can be built upon.
    first: u64,
    version: u64,
    settings: proto::Settings,
    connections: BTreeMap<String, Arc<proto::Connection>>,
    approvals: BTreeMap<Place, Arc<Grants>>,
    confirmed: BTreeMap<String, Confirmed>,
    confirmations: u64,
    /// The last changes and their sizes; the newest led to `version`.
    log: VecDeque<(Change, usize)>,
    log_bytes: usize,
}

/// When a service's claims were confirmed, and as which confirmation.
#[derive(Debug, Clone, Copy)]
struct Confirmed {
    at: Option<MonotonicMillis>,
    number: u64,
}

impl Published {
    pub(super) fn new(state: PublishedState, now: MonotonicMillis) -> Self {
        let mut made = Self {
            epoch: state.epoch,
            first: state.version,
            version: state.version,
            settings: state.settings,
            connections: BTreeMap::new(),
            approvals: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            confirmations: 0,
            log: VecDeque::new(),
            log_bytes: 0,
        };
        for connection in state.connections {
            made.connections.insert(connection.id.clone(), Arc::new(connection));
        }
        for list in state.approvals {
            made.replace(list, now);
        }
        made
    }

    pub(super) fn version(&self) -> proto::StateVersion {
        proto::StateVersion { epoch: self.epoch.clone(), version: self.version }
    }

    pub(super) fn is_at(&self, version: &proto::StateVersion) -> bool {
        self.version == version.version && self.epoch == version.epoch
    }

    /// Whether deltas may build upon what an authz says it holds from before this stream.
    pub(super) fn may_resume(&self, held: &proto::StateVersion) -> bool {
        held.epoch == self.epoch && held.version > self.first && held.version <= self.version
    }

    /// Applies a change that led the store to `version`. `false`: the version does not follow ours, so
    /// changes were lost on the way here; the log is dropped and everybody gets the full state.
    pub(super) fn apply(&mut self, version: u64, change: Change, now: MonotonicMillis) -> bool {
        let follows = self.version.checked_add(1) == Some(version);
        match change.clone() {
            Change::Settings(settings) => self.settings = settings,
            Change::Upsert(connection) => {
                self.connections.insert(connection.id.clone(), Arc::from(connection));
            }
            Change::Delete(id) => {
                self.connections.remove(&id);
            }
            Change::ReplaceApprovals(list) => self.replace(list, now),
            Change::AddApprovals(list) => {
                for approval in list {
                    let Some(grant) = approval.grant else { continue };
                    if approval.source == i32::from(proto::ApprovalSource::Claims) {
                        let never = Confirmed { at: None, number: self.confirmations };
                        self.confirmed.entry(approval.service.clone()).or_insert(never);
                    }
                    let grants = self.approvals.entry((approval.service, approval.source)).or_default();
                    Arc::make_mut(grants).insert((grant.namespace, grant.public_key), grant.expires_at);
                }
            }
            Change::RemoveApprovals(list) => {
                for approval in list {
                    let Some(grant) = approval.grant else { continue };
                    if let Some(grants) = self.approvals.get_mut(&(approval.service, approval.source)) {
                        Arc::make_mut(grants).remove(&(grant.namespace, grant.public_key));
                    }
                }
            }
        }
        self.version = self.version.max(version);
        if follows {
            let bytes = change.bytes();
            self.log_bytes = self.log_bytes.saturating_add(bytes);
            self.log.push_back((change, bytes));
            while self.log.len() > LOG_CHANGES || self.log_bytes > LOG_BYTES {
                let Some((_, gone)) = self.log.pop_front() else { break };
                self.log_bytes = self.log_bytes.saturating_sub(gone);
            }
        } else {
            self.log.clear();
            self.log_bytes = 0;
            self.first = self.version;
        }
        follows
    }

    fn replace(&mut self, list: proto::ServiceApprovals, now: MonotonicMillis) {
        if list.source == i32::from(proto::ApprovalSource::Claims) {
            let at = list.age_ms.and_then(|age| now.0.checked_sub(age)).map(MonotonicMillis);
            self.confirmed.insert(list.service.clone(), Confirmed { at, number: self.confirmations });
        }
        let grants: Grants =
            list.grants.into_iter().map(|grant| ((grant.namespace, grant.public_key), grant.expires_at)).collect();
        self.approvals.insert((list.service, list.source), Arc::new(grants));
    }

    /// Notes that the source of these services was asked `age_ms` ago and said what is held.
    pub(super) fn confirm(&mut self, services: Vec<proto::ServiceAge>, now: MonotonicMillis) {
        self.confirmations = self.confirmations.saturating_add(1);
        let number = self.confirmations;
        for service in services {
            let at = now.0.checked_sub(service.age_ms).map(MonotonicMillis);
            // A service without claims has nothing that could be confirmed.
            if let Some(confirmed) = self.confirmed.get_mut(&service.service) {
                *confirmed = Confirmed { at, number };
            }
        }
    }

    /// The confirmations after the one numbered `seen`, and the newest number. `None`: there are none.
    pub(super) fn confirmations_since(&self, seen: u64, now: MonotonicMillis) -> Option<(proto::StateResponse, u64)> {
        if self.confirmations <= seen {
            return None;
        }
        let services = self.confirmed.iter().filter(|(_, confirmed)| confirmed.number > seen).filter_map(
            |(service, confirmed)| {
                Some(proto::ServiceAge { service: service.clone(), age_ms: now.since(confirmed.at?) })
            },
        );
        let confirm = proto::Confirm { services: services.collect() };
        let message = Some(proto::state_response::Message::Confirm(confirm));
        Some((proto::StateResponse { version: Some(self.version()), message }, self.confirmations))
    }

    /// What leads from `held` towards our version in one message, several changes put together.
    pub(super) fn delta_from(&self, held: &proto::StateVersion, now: MonotonicMillis) -> Step {
        if self.is_at(held) {
            return Step::UpToDate;
        }
        let missing = self.version.saturating_sub(held.version);
        let Some(skip) = usize::try_from(missing).ok().and_then(|missing| self.log.len().checked_sub(missing)) else {
            return Step::Full;
        };
        if held.epoch != self.epoch || held.version < self.first || held.version >= self.version {
            return Step::Full;
        }
        let mut merged = Merged::default();
        let mut version = held.version;
        let mut bytes = 0_usize;
        for (change, size) in self.log.iter().skip(skip) {
            bytes = bytes.saturating_add(*size);
            if bytes > DELTA_BYTES && version == held.version {
                return Step::Full;
            }
            if bytes > DELTA_BYTES {
                break;
            }
            merged.add(change.clone());
            version = version.saturating_add(1);
        }
        let delta = merged.into_delta(held.version, |service| self.age(service, now));
        Step::Delta(Box::new(proto::StateResponse {
            version: Some(proto::StateVersion { epoch: self.epoch.clone(), version }),
            message: Some(proto::state_response::Message::Delta(delta)),
        }))
    }

    fn age(&self, service: &str, now: MonotonicMillis) -> Option<u64> {
        self.confirmed.get(service).and_then(|confirmed| confirmed.at).map(|at| now.since(at))
    }

    /// The whole state, to be sent part by part. Cheap: records are shared, not copied.
    pub(super) fn full(&self, now: MonotonicMillis) -> FullParts {
        let approvals = self.approvals.iter().map(|((service, source), grants)| PendingList {
            service: service.clone(),
            source: *source,
            age_ms: (*source == i32::from(proto::ApprovalSource::Claims)).then(|| self.age(service, now)).flatten(),
            grants: Arc::clone(grants),
            after: None,
        });
        FullParts {
            version: self.version(),
            confirmations: self.confirmations,
            settings: Some(self.settings.clone()),
            connections: self.connections.values().cloned().collect(),
            approvals: approvals.collect(),
            part: 0,
            done: false,
        }
    }
}

/// What a subscriber is to be sent next.
#[derive(Debug)]
pub(super) enum Step {
    /// It holds the newest version.
    UpToDate,
    /// This message brings it nearer.
    Delta(Box<proto::StateResponse>),
    /// No delta leads from what it holds.
    Full,
}

/// Several changes as one: the last word on each record counts.
#[derive(Debug, Default)]
struct Merged {
    settings: Option<proto::Settings>,
    connections: BTreeMap<String, Option<Box<proto::Connection>>>,
    replaced: BTreeMap<Place, proto::ServiceApprovals>,
    single: BTreeMap<(Place, Holder), Option<proto::Grant>>,
}

impl Merged {
    fn add(&mut self, change: Change) {
        match change {
            Change::Settings(settings) => self.settings = Some(settings),
            Change::Upsert(connection) => {
                self.connections.insert(connection.id.clone(), Some(connection));
            }
            Change::Delete(id) => {
                self.connections.insert(id, None);
            }
            Change::ReplaceApprovals(list) => {
                let place = (list.service.clone(), list.source);
                self.single.retain(|(held, _), _| *held != place);
                self.replaced.insert(place, list);
            }
            Change::AddApprovals(list) => self.add_single(list, true),
            Change::RemoveApprovals(list) => self.add_single(list, false),
        }
    }

    fn add_single(&mut self, list: Vec<proto::Approval>, present: bool) {
        for approval in list {
            let Some(grant) = approval.grant else { continue };
            let place = (approval.service, approval.source);
            let holder = (grant.namespace.clone(), grant.public_key.clone());
            self.single.insert((place, holder), present.then_some(grant));
        }
    }

    fn into_delta(self, follows: u64, age: impl Fn(&str) -> Option<u64>) -> proto::Delta {
        let mut delta = proto::Delta { follows, settings: self.settings, ..proto::Delta::default() };
        for (id, connection) in self.connections {
            match connection {
                Some(connection) => delta.upsert_connections.push(*connection),
                None => delta.delete_connections.push(id),
            }
        }
        for (_, mut list) in self.replaced {
            // Time has passed since the change was made: its age then is not its age now.
            list.age_ms = list.age_ms.and_then(|_| age(&list.service));
            delta.replace_approvals.push(list);
        }
        for (((service, source), (namespace, public_key)), grant) in self.single {
            let removed = proto::Grant { namespace, public_key, expires_at: None };
            match grant {
                Some(grant) => delta.add_approvals.push(proto::Approval { service, source, grant: Some(grant) }),
                None => delta.remove_approvals.push(proto::Approval { service, source, grant: Some(removed) }),
            }
        }
        delta
    }
}

/// A full state on its way out.
#[derive(Debug)]
pub(super) struct FullParts {
    version: proto::StateVersion,
    confirmations: u64,
    settings: Option<proto::Settings>,
    connections: VecDeque<Arc<proto::Connection>>,
    approvals: VecDeque<PendingList>,
    part: u32,
    done: bool,
}

#[derive(Debug)]
struct PendingList {
    service: String,
    source: i32,
    age_ms: Option<u64>,
    grants: Arc<Grants>,
    /// The last holder that was sent.
    after: Option<Holder>,
}

impl FullParts {
    /// The state it carries.
    pub(super) const fn version(&self) -> &proto::StateVersion {
        &self.version
    }

    /// The newest confirmation its ages know of.
    pub(super) const fn confirmations(&self) -> u64 {
        self.confirmations
    }

    /// The next part; `None` after the last.
    pub(super) fn next(&mut self) -> Option<proto::StateResponse> {
        if self.done {
            return None;
        }
        let mut full = proto::Full { part: self.part, settings: self.settings.take(), ..proto::Full::default() };
        let mut bytes = full.settings.as_ref().map_or(0, prost::Message::encoded_len);
        while bytes < PART_BYTES {
            let Some(connection) = self.connections.pop_front() else { break };
            bytes = bytes.saturating_add(connection.encoded_len());
            full.connections.push(proto::Connection::clone(&connection));
        }
        while bytes < PART_BYTES {
            let Some(list) = self.approvals.front_mut() else { break };
            let (taken, size, ended) = list.take(PART_BYTES.saturating_sub(bytes));
            bytes = bytes.saturating_add(size);
            full.approvals.push(taken);
            if ended {
                self.approvals.pop_front();
            }
        }
        self.part = self.part.saturating_add(1);
        self.done = self.connections.is_empty() && self.approvals.is_empty();
        full.last = self.done;
        let message = Some(proto::state_response::Message::Full(full));
        Some(proto::StateResponse { version: Some(self.version.clone()), message })
    }
}

impl PendingList {
    /// Grants up to about `budget` bytes, at least one; their size; whether the list ends with them.
    fn take(&mut self, budget: usize) -> (proto::ServiceApprovals, usize, bool) {
        let mut list = proto::ServiceApprovals {
            service: self.service.clone(),
            source: self.source,
            grants: Vec::new(),
            age_ms: self.age_ms,
        };
        let mut bytes = list.encoded_len();
        let from = self.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (holder, expires_at) in self.grants.range((from, Bound::Unbounded)) {
            let (namespace, public_key) = holder.clone();
            let grant = proto::Grant { namespace, public_key, expires_at: *expires_at };
            bytes = bytes.saturating_add(grant.encoded_len()).saturating_add(4);
            list.grants.push(grant);
            if bytes >= budget {
                self.after = Some(holder.clone());
                return (list, bytes, false);
            }
        }
        (list, bytes, true)
    }
}
