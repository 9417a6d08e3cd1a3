//! What admin publishes, as one value: the whole state, and the last changes that led to it.
//!
//! No IO and no clock: the publisher puts a lock around it, the property tests drive it directly.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::approval::Grant;
use crate::domain::approval::Source;
use crate::domain::grants::GrantTable;
use crate::domain::ids::PublicKey;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::UnixSeconds;
use crate::state::change::CLAIMS;
use crate::state::change::Change;
use crate::state::change::Merged;
use crate::state::full::FullParts;
use crate::state::full::Whole;
use crate::state::publisher::Tally;
use crate::state::scope::Scope;
use crate::state::tenure::Floors;
use crate::state::tenure::Marks;
use crate::wire::state;
use crate::wire::state::proto;

/// How many changes are remembered; who is further behind gets the full state.
const LOG_CHANGES: usize = 1024;
/// How many bytes of changes are remembered: all of them fit into one delta.
const LOG_BYTES: usize = 1 << 20;

/// The state a publisher begins with.
#[derive(Debug, Clone, Default)]
pub struct PublishedState {
    /// Made when the store was created or restored.
    pub epoch: String,
    /// Another at each start of admin, so that nothing is built upon what another run told; empty: all runs pass for one.
    pub incarnation: String,
    /// The store's version now.
    pub version: u64,
    /// Must be complete: authz refuses a state without.
    pub settings: proto::Settings,
    /// All connections with their secrets.
    pub connections: Vec<proto::Connection>,
    /// One entry per (service, source). A claims entry with `age_ms` absent is of a source that was not read yet.
    /// Every service with a claims source belongs in here, or is told by
    /// [`Publisher::expect_claims`](crate::state::Publisher::expect_claims): an authz that is sent the full state
    /// forgets the claims of all others.
    pub approvals: Vec<proto::ServiceApprovals>,
}

/// The state, and how it came about.
#[derive(Debug)]
pub(super) struct Published {
    epoch: String,
    incarnation: String,
    /// The version this process began with, or after which changes were lost: it is not known which of them an authz was
    /// sent that holds it, so only later versions can be built upon.
    first: u64,
    version: u64,
    settings: proto::Settings,
    /// The oldest signature that was accepted since this process began, in seconds.
    oldest: u64,
    connections: BTreeMap<String, Arc<proto::Connection>>,
    /// Those there were when this process began.
    old: Arc<BTreeSet<String>>,
    grants: GrantTable,
    /// The services that have a claims source.
    sources: BTreeMap<String, ClaimsSource>,
    confirmations: u64,
    /// The last changes and their sizes; the newest led to `version`.
    log: VecDeque<(Change, usize)>,
    log_bytes: usize,
}

/// When a service's claims were confirmed, and as which confirmation.
#[derive(Debug, Clone, Copy)]
struct ClaimsSource {
    /// `None`: it was not read since this process began, and there are no grants of it.
    at: Option<MonotonicMillis>,
    number: u64,
}

impl Published {
    pub(super) fn new(state: PublishedState, now: MonotonicMillis) -> Self {
        let mut made = Self {
            epoch: state.epoch,
            incarnation: state.incarnation,
            first: state.version,
            version: state.version,
            oldest: state.settings.max_age_seconds,
            settings: state.settings,
            connections: BTreeMap::new(),
            old: Arc::new(state.connections.iter().map(|connection| connection.id.clone()).collect()),
            grants: GrantTable::default(),
            sources: BTreeMap::new(),
            confirmations: 0,
            log: VecDeque::new(),
            log_bytes: 0,
        };
        for connection in state.connections {
            made.connections.insert(connection.id.clone(), Arc::new(connection));
        }
        for list in state.approvals {
            made.replace(&list, now);
        }
        made
    }

    pub(super) fn version(&self) -> proto::StateVersion {
        let (epoch, incarnation) = (self.epoch.clone(), self.incarnation.clone());
        proto::StateVersion { epoch, version: self.version, incarnation }
    }

    /// Whether an authz that has acknowledged this holds what is published now. Of one that does not tell who told it, what
    /// it acknowledges on its stream is what it was sent there.
    pub(super) fn is_at(&self, version: &proto::StateVersion) -> bool {
        let ours = version.incarnation.is_empty() || version.incarnation == self.incarnation;
        ours && self.version == version.version && self.epoch == version.epoch
    }

    /// Whether this process told it.
    fn is_ours(&self, version: &proto::StateVersion) -> bool {
        version.epoch == self.epoch && version.incarnation == self.incarnation
    }

    /// Whether deltas may build upon what an authz says it holds from before this stream.
    pub(super) fn may_resume(&self, held: &proto::StateVersion) -> bool {
        self.is_ours(held) && held.version > self.first && held.version <= self.version
    }

    /// Whether an authz holds a later state of our store than the store does: an earlier copy was put in its place.
    pub(super) fn is_rolled_back(&self, held: &proto::StateVersion) -> bool {
        held.epoch == self.epoch && held.version > self.version
    }

    /// For how long after it was signed a request may be used somewhere, in milliseconds: the age it may have, or may have again, the
    /// skew of the clock that signed it, and the skews of the two that judge it.
    pub(super) fn memory(&self) -> u64 {
        let skews = CLOCK_SKEW.as_secs().saturating_mul(3);
        self.oldest.saturating_add(skews).saturating_mul(1000)
    }

    /// One connection.
    pub(super) fn connection(&self, id: &str) -> Option<Arc<proto::Connection>> {
        self.connections.get(id).cloned()
    }

    /// Connections and their approvals, counted.
    pub(super) fn tally(&self, now: UnixSeconds) -> Tally {
        let mut tally = Tally::default();
        for (id, connection) in &self.connections {
            let degraded = connection.active && !connection.unusable.is_empty();
            let due = connection.next_rotation_due_at.is_some_and(|due| due < now.0);
            let approved = [Source::Declared, Source::Claims].map(|source| self.grants.count(id, source));
            tally.active += u64::from(connection.active);
            tally.disabled += u64::from(!connection.active);
            tally.degraded += u64::from(degraded);
            tally.rotation_due += u64::from(due);
            tally.approved += approved.iter().map(|count| *count as u64).sum::<u64>();
        }
        tally
    }

    /// How many approvals each connection has, of whatever source.
    pub(super) fn approvals(&self) -> BTreeMap<String, u64> {
        let count = |id: &String| {
            let counts = [Source::Declared, Source::Claims].map(|source| self.grants.count(id, source));
            counts.iter().map(|count| *count as u64).sum()
        };
        self.connections.keys().map(|id| (id.clone(), count(id))).collect()
    }

    /// Whether any connection has a declared approval.
    pub(super) fn declares_approvals(&self) -> bool {
        self.connections.keys().any(|id| self.grants.count(id, Source::Declared) > 0)
    }

    /// For how long claims hold without confirmation, in milliseconds.
    pub(super) const fn claims_hold_ms(&self) -> u64 {
        self.settings.claims_hold_ms
    }

    /// Ids of all connections, in order.
    pub(super) fn connection_ids(&self) -> Vec<String> {
        self.connections.keys().cloned().collect()
    }

    /// All approvals; the clone costs next to nothing.
    pub(super) fn grants(&self) -> GrantTable {
        self.grants.clone()
    }

    /// Whether the service has a claims source, and whether that was read.
    pub(super) fn claims_source(&self, service: &str) -> Option<bool> {
        self.sources.get(service).map(|source| source.at.is_some())
    }

    /// As if the state had begun with these claims sources, not read yet.
    pub(super) fn expect_claims(&mut self, services: Vec<String>) {
        for service in services {
            self.sources.entry(service).or_insert(ClaimsSource { at: None, number: self.confirmations });
        }
    }

    /// Each service with a claims source: age of what it said in milliseconds (`None`: not read), and how many
    /// approvals that is.
    pub(super) fn claims_ages(&self, now: MonotonicMillis) -> Vec<(String, Option<u64>, usize)> {
        let sources = self.sources.iter();
        let describe = |(service, source): (&String, &ClaimsSource)| {
            let age = source.at.map(|at| now.since(at));
            (service.clone(), age, self.grants.count(service, Source::Claims))
        };
        sources.map(describe).collect()
    }

    /// Applies a change that led the store to `version`. `false`: the version does not follow ours, so
    /// changes were lost on the way here; the log is dropped and everybody gets the full state.
    pub(super) fn apply(&mut self, version: u64, change: Change, now: MonotonicMillis) -> bool {
        let follows = self.version.checked_add(1) == Some(version);
        let enacted = self.enact(change, now);
        self.version = self.version.max(version);
        match enacted {
            Some(change) if follows => self.remember(change),
            // No delta leads over what is not remembered.
            Some(_) | None => {
                self.log.clear();
                self.log_bytes = 0;
            }
        }
        if !follows {
            self.first = self.version;
        }
        follows
    }

    /// Does what a change says and gives it back as it is to be sent, without what does not count; `None` where
    /// it is too large to be sent as a change.
    fn enact(&mut self, change: Change, now: MonotonicMillis) -> Option<Change> {
        let change = match change {
            Change::Settings(mut settings) => {
                // No setting: whoever drains says until when.
                settings.draining_until_ms = self.settings.draining_until_ms;
                self.oldest = self.oldest.max(settings.max_age_seconds);
                self.settings = settings.clone();
                Change::Settings(settings)
            }
            Change::Drain { until_ms } => {
                self.settings.draining_until_ms = until_ms;
                Change::Settings(self.settings.clone())
            }
            Change::Upsert(connection) => {
                self.connections.insert(connection.id.clone(), Arc::from(connection.clone()));
                Change::Upsert(connection)
            }
            Change::Delete(id) => {
                self.connections.remove(&id);
                Change::Delete(id)
            }
            Change::ReplaceApprovals(mut list) => {
                self.replace(&list, now);
                if list.source == CLAIMS && list.age_ms.is_none() {
                    list.grants.clear();
                }
                Change::ReplaceApprovals(list)
            }
            Change::AddApprovals(list) => Change::AddApprovals(self.enact_each(list, GrantTable::add)),
            Change::RemoveApprovals(list) => Change::RemoveApprovals(self.enact_each(list, GrantTable::remove)),
            Change::LoadClaims { service, list } => {
                self.read_at(&service, list.began().min(now));
                let message = (list.bytes() <= LOG_BYTES).then(|| list.encode(&service));
                list.load_into(&service, &mut self.grants);
                Change::ReplaceApprovals(message?)
            }
            Change::EndClaims(service) => {
                self.sources.remove(&service);
                self.grants.clear(&service, Source::Claims);
                Change::EndClaims(service)
            }
            Change::Together(changes) => {
                // Each is done whether or not it can be sent: what cannot, is part of the next full state.
                let enacted: Vec<_> = changes.into_iter().map(|change| self.enact(change, now)).collect();
                Change::Together(enacted.into_iter().collect::<Option<_>>()?)
            }
        };
        Some(change)
    }

    /// Adds or removes the approvals that count, and gives those back.
    fn enact_each(
        &mut self,
        mut list: Vec<proto::Approval>,
        enact: fn(&mut GrantTable, &PublicKey, &Grant<'_>) -> bool,
    ) -> Vec<proto::Approval> {
        list.retain(|approval| {
            let Some((key, grant)) = state::decode_approval(approval) else { return false };
            // Of a source that was not read nothing is known, so nothing can be added to it.
            let counts = grant.source == Source::Declared || self.claims_source(grant.service) == Some(true);
            if counts {
                enact(&mut self.grants, &key, &grant);
            }
            counts
        });
        list
    }

    fn remember(&mut self, change: Change) {
        let bytes = change.bytes();
        self.log_bytes = self.log_bytes.saturating_add(bytes);
        self.log.push_back((change, bytes));
        while self.log.len() > LOG_CHANGES || self.log_bytes > LOG_BYTES {
            let Some((_, gone)) = self.log.pop_front() else { break };
            self.log_bytes = self.log_bytes.saturating_sub(gone);
        }
    }

    fn replace(&mut self, list: &proto::ServiceApprovals, now: MonotonicMillis) {
        let Some(source) = state::decode_source(list.source) else { return };
        match (source, list.age_ms) {
            (Source::Declared, _) => {}
            (Source::Claims, Some(age)) => self.read_at(&list.service, MonotonicMillis(now.0.saturating_sub(age))),
            (Source::Claims, None) => {
                let unread = ClaimsSource { at: None, number: self.confirmations };
                self.sources.entry(list.service.clone()).or_insert(unread);
                return;
            }
        }
        self.grants.clear(&list.service, source);
        for grant in &list.grants {
            if let Some((key, grant)) = state::decode_grant(&list.service, source, grant) {
                self.grants.add(&key, &grant);
            }
        }
    }

    fn read_at(&mut self, service: &str, at: MonotonicMillis) {
        self.sources.insert(service.to_owned(), ClaimsSource { at: Some(at), number: self.confirmations });
    }

    /// Notes that the source of these services was asked `age_ms` ago and said what is held. Services without a
    /// source, or whose source was not read, have nothing that could be confirmed.
    pub(super) fn confirm(&mut self, services: Vec<proto::ServiceAge>, now: MonotonicMillis) {
        self.confirmations = self.confirmations.saturating_add(1);
        let number = self.confirmations;
        for service in services {
            if let Some(source) = self.sources.get_mut(&service.service).filter(|source| source.at.is_some()) {
                let at = Some(MonotonicMillis(now.0.saturating_sub(service.age_ms)));
                *source = ClaimsSource { at, number };
            }
        }
    }

    /// The confirmations after the one numbered `seen`, and the newest number. `None`: there are none.
    pub(super) fn confirmations_since(
        &self,
        seen: u64,
        scope: &Scope,
        now: MonotonicMillis,
    ) -> Option<(proto::StateResponse, u64)> {
        if self.confirmations <= seen {
            return None;
        }
        let services =
            self.sources.iter().filter(|(_, source)| source.number > seen).filter_map(|(service, source)| {
                if !scope.covers(service) {
                    return None;
                }
                Some(proto::ServiceAge { service: service.clone(), age_ms: now.since(source.at?) })
            });
        let confirm = proto::Confirm { services: services.collect() };
        let message = Some(proto::state_response::Message::Confirm(confirm));
        Some((proto::StateResponse { version: Some(self.version()), message }, self.confirmations))
    }

    /// What leads from `held` to our version in one message, all changes put together.
    pub(super) fn delta_from(
        &self,
        held: &proto::StateVersion,
        (scope, floors): (&Scope, &Floors),
        now: MonotonicMillis,
    ) -> Step {
        if self.is_at(held) {
            return Step::UpToDate;
        }
        let missing = self.version.saturating_sub(held.version);
        let Some(skip) = usize::try_from(missing).ok().and_then(|missing| self.log.len().checked_sub(missing)) else {
            return Step::Full;
        };
        if !self.is_ours(held) || held.version < self.first || held.version >= self.version {
            return Step::Full;
        }
        let mut merged = Merged::default();
        for (change, _) in self.log.iter().skip(skip) {
            merged.add(change.clone());
        }
        let mut delta = merged.into_delta(held.version, |service| self.age(service, now));
        scope.restrict(&mut delta);
        let marks = self.marks(floors, now);
        delta.upsert_connections.iter_mut().for_each(|connection| marks.mark(connection));
        Step::Delta(Box::new(proto::StateResponse {
            version: Some(self.version()),
            message: Some(proto::state_response::Message::Delta(delta)),
        }))
    }

    fn age(&self, service: &str, now: MonotonicMillis) -> Option<u64> {
        self.sources.get(service).and_then(|source| source.at).map(|at| now.since(at))
    }

    /// The whole state, to be sent part by part. Cheap: records are shared, not copied.
    pub(super) fn full(&self, (scope, floors): (&Scope, &Floors), now: MonotonicMillis) -> FullParts {
        let ages = self.sources.iter().filter(|(service, _)| scope.covers(service));
        let connections = self.connections.iter().filter(|(id, _)| scope.covers(id));
        FullParts::new(Whole {
            version: self.version(),
            confirmations: self.confirmations,
            settings: self.settings.clone(),
            connections: connections.map(|(_, connection)| Arc::clone(connection)).collect(),
            ages: ages.map(|(service, source)| (service.clone(), source.at.map(|at| now.since(at)))).collect(),
            grants: self.grants.clone(),
            scope: scope.clone(),
            marks: self.marks(floors, now),
        })
    }

    fn marks(&self, floors: &Floors, now: MonotonicMillis) -> Marks {
        Marks::new(floors.clone(), Arc::clone(&self.old), now)
    }
}

/// What a subscriber is to be sent next.
#[derive(Debug)]
pub(super) enum Step {
    /// It holds the newest version.
    UpToDate,
    /// This message brings it there.
    Delta(Box<proto::StateResponse>),
    /// No delta leads from what it holds.
    Full,
}
