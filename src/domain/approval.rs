//! Who may use what: approvals by key, with the freshness of their source.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::domain::grants::GrantTable;
use crate::domain::grants::Marks;
use crate::domain::ids::PublicKey;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;

pub use crate::domain::grants::Grant;
pub use crate::domain::grants::Source;

/// What the table says of one (key, namespace, service).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// Approved, and its source is fresh.
    Approved,
    /// Its source knows the service and does not list the key.
    Missing,
    /// The source was not confirmed for too long, or never: nobody can say.
    Stale,
}

/// How fresh the claims of a service are, by our own monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The feed was never read.
    Never,
    /// Read or confirmed then.
    ConfirmedAt(MonotonicMillis),
}

/// All approvals. Cloning is cheap; a change copies the parts it touches.
#[derive(Debug, Clone, Default)]
pub struct Approvals {
    grants: GrantTable,
    /// Services that have a claims source; others are judged by declared approvals alone.
    sources: Sources,
}

impl Approvals {
    /// How many approvals there are.
    pub const fn len(&self) -> usize {
        self.grants.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Whether this key is approved for anything, by any namespace: such keys are not strangers.
    pub fn knows(&self, key: &PublicKey) -> bool {
        self.grants.knows(key)
    }

    /// Judges one (key, namespace, service). `hold_ms` is how long claims hold after a confirmation.
    pub fn judge(&self, key: &PublicKey, namespace: &str, service: &str, now: Now, hold_ms: u64) -> Approval {
        let fresh = match self.sources.get(service) {
            None => None,
            Some(Freshness::Never) => Some(false),
            Some(Freshness::ConfirmedAt(at)) => Some(now.monotonic.since(at) <= hold_ms),
        };
        let grants = self.grants.of(key, service, namespace);
        for grant in grants.filter(|grant| grant.expires_at.is_none_or(|end| now.seconds() <= end)) {
            match grant.source {
                Source::Declared => return Approval::Approved,
                Source::Claims if fresh == Some(true) => return Approval::Approved,
                Source::Claims => {}
            }
        }
        if fresh == Some(false) { Approval::Stale } else { Approval::Missing }
    }

    /// Adds one approval; one that is there already has its expiry replaced.
    pub fn add(&mut self, key: PublicKey, grant: Grant<'_>) {
        self.grants.add(&key, &grant);
    }

    /// Removes one approval, whatever its expiry.
    pub fn remove(&mut self, key: &PublicKey, grant: &Grant<'_>) {
        self.grants.remove(key, grant);
    }

    /// Removes everything one source says of a service.
    pub fn clear(&mut self, service: &str, source: Source) {
        self.grants.clear(service, source);
    }

    /// Says that a service has a claims source, and how fresh it is.
    pub fn set_freshness(&mut self, service: &str, freshness: Freshness) {
        self.sources.set(service, freshness);
    }

    /// Freshness of a service's claims; `None` where it has no claims source.
    pub fn freshness(&self, service: &str) -> Option<Freshness> {
        self.sources.get(service)
    }

    /// Says that a service has no claims source any more: what the source said of it counts no longer.
    pub fn end_claims(&mut self, service: &str) {
        self.grants.clear(service, Source::Claims);
        self.sources.remove(service);
    }

    /// The grants themselves.
    pub const fn grants(&self) -> &GrantTable {
        &self.grants
    }
}

/// Approvals on their way to being stated anew as a whole. What is stated as it was is not copied, so that a
/// repetition takes no memory.
#[derive(Debug)]
pub struct Restatement {
    next: Approvals,
    marks: Marks,
    older: Sources,
    /// Services with a claims source of which nothing is stated: what is held of them is held on.
    kept: HashSet<Arc<str>>,
}

impl Restatement {
    /// Begins with what is held.
    pub fn new(older: Approvals) -> Self {
        let Approvals { grants, sources } = older;
        let next = Approvals { grants, sources: Sources::default() };
        Self { next, marks: Marks::default(), older: sources, kept: HashSet::new() }
    }

    /// How many approvals were stated so far.
    pub const fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether none was.
    pub const fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// States an approval.
    pub fn add(&mut self, key: PublicKey, grant: Grant<'_>) {
        self.next.grants.add_marked(&key, &grant, &mut self.marks);
    }

    /// States that a service has a claims source, and how fresh it is.
    pub fn set_freshness(&mut self, service: &str, freshness: Freshness) {
        self.kept.remove(service);
        self.next.set_freshness(service, freshness);
    }

    /// States that a service has a claims source, and nothing of what it said: that stays as it was, with its age. A
    /// source of which nothing was held was never read.
    pub fn keep_claims(&mut self, service: &str) {
        if self.next.freshness(service).is_none() {
            self.next.set_freshness(service, self.older.get(service).unwrap_or(Freshness::Never));
            self.kept.insert(Arc::from(service));
        }
    }

    /// Everything was stated: what was not is gone.
    pub fn finish(self) -> Approvals {
        let Self { mut next, marks, kept, .. } = self;
        next.grants.sweep(&marks, |grant| grant.source == Source::Claims && kept.contains(grant.service));
        next
    }
}

/// Services with a claims source. Which they are changes rarely, how fresh they are every few seconds:
/// only the latter is copied with a confirmation.
#[derive(Debug, Clone, Default)]
struct Sources {
    places: Arc<HashMap<Arc<str>, usize>>,
    freshness: Vec<Freshness>,
}

impl Sources {
    fn get(&self, service: &str) -> Option<Freshness> {
        self.places.get(service).and_then(|place| self.freshness.get(*place)).copied()
    }

    fn set(&mut self, service: &str, freshness: Freshness) {
        match self.places.get(service).and_then(|place| self.freshness.get_mut(*place)) {
            Some(held) => *held = freshness,
            None => {
                Arc::make_mut(&mut self.places).insert(Arc::from(service), self.freshness.len());
                self.freshness.push(freshness);
            }
        }
    }

    fn remove(&mut self, service: &str) {
        if !self.places.contains_key(service) {
            return;
        }
        let places = Arc::make_mut(&mut self.places);
        let Some(place) = places.remove(service) else { return };
        self.freshness.swap_remove(place);
        // What was last has moved to the place that became free.
        let last = self.freshness.len();
        if let Some(moved) = places.values_mut().find(|held| **held == last) {
            *moved = place;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "test code may panic")]

    use super::*;
    use crate::domain::time::UnixMillis;
    use crate::domain::time::UnixSeconds;

    const HOLD: u64 = 30_000;

    fn at(monotonic: u64) -> Now {
        Now { wall: UnixMillis(1_700_000_000_000), monotonic: MonotonicMillis(monotonic) }
    }

    fn grant(source: Source, expires_at: Option<UnixSeconds>) -> Grant<'static> {
        Grant { service: "svc", namespace: "ns", source, expires_at }
    }

    #[test]
    fn declared_approvals_never_age() {
        let key = PublicKey::new([7; 32]);
        let mut table = Approvals::default();
        table.add(key, grant(Source::Declared, None));
        assert_eq!(table.judge(&key, "ns", "svc", at(u64::MAX), HOLD), Approval::Approved);
        assert_eq!(table.judge(&key, "other", "svc", at(0), HOLD), Approval::Missing);
        assert_eq!(table.judge(&key, "ns", "other", at(0), HOLD), Approval::Missing);
        assert_eq!(table.judge(&PublicKey::new([8; 32]), "ns", "svc", at(0), HOLD), Approval::Missing);
    }

    #[test]
    fn claims_hold_until_their_source_is_stale() {
        let key = PublicKey::new([7; 32]);
        let mut table = Approvals::default();
        table.add(key, grant(Source::Claims, None));
        table.set_freshness("svc", Freshness::Never);
        assert_eq!(table.judge(&key, "ns", "svc", at(5), HOLD), Approval::Stale);
        table.set_freshness("svc", Freshness::ConfirmedAt(MonotonicMillis(1000)));
        assert_eq!(table.judge(&key, "ns", "svc", at(31_000), HOLD), Approval::Approved);
        assert_eq!(table.judge(&key, "ns", "svc", at(31_001), HOLD), Approval::Stale);
    }

    #[test]
    fn an_approval_ends_with_its_last_second() {
        let key = PublicKey::new([7; 32]);
        let mut table = Approvals::default();
        table.add(key, grant(Source::Declared, Some(UnixSeconds(1_700_000_000))));
        assert_eq!(table.judge(&key, "ns", "svc", at(0), HOLD), Approval::Approved);
        table.add(key, grant(Source::Declared, Some(UnixSeconds(1_699_999_999))));
        assert_eq!(table.len(), 1);
        assert_eq!(table.judge(&key, "ns", "svc", at(0), HOLD), Approval::Missing);
    }

    #[test]
    fn clearing_a_source_leaves_the_other() {
        let key = PublicKey::new([7; 32]);
        let mut table = Approvals::default();
        table.add(key, grant(Source::Declared, None));
        table.add(key, grant(Source::Claims, None));
        table.clear("svc", Source::Claims);
        assert_eq!(table.len(), 1);
        assert!(table.knows(&key));
        table.remove(&key, &grant(Source::Declared, None));
        assert!(table.is_empty() && !table.knows(&key));
    }

    #[test]
    fn a_service_without_its_source_is_judged_by_declared_approvals() {
        let key = PublicKey::new([7; 32]);
        let mut table = Approvals::default();
        for service in ["one", "svc", "two"] {
            table.set_freshness(service, Freshness::ConfirmedAt(MonotonicMillis(1)));
        }
        table.add(key, grant(Source::Claims, None));
        let before = table.clone();
        table.end_claims("svc");
        assert_eq!(table.judge(&key, "ns", "svc", at(2), HOLD), Approval::Missing);
        assert_eq!(table.freshness("svc"), None);
        assert_eq!(table.freshness("one"), Some(Freshness::ConfirmedAt(MonotonicMillis(1))));
        table.set_freshness("two", Freshness::Never);
        assert_eq!((table.freshness("one"), table.freshness("two")), (before.freshness("one"), Some(Freshness::Never)));
        assert_eq!(before.judge(&key, "ns", "svc", at(2), HOLD), Approval::Approved, "a clone keeps what it had");
    }

    #[test]
    fn a_restatement_keeps_what_it_is_told_to_and_what_it_states() {
        let keys = [7, 8, 9].map(|byte| PublicKey::new([byte; 32]));
        let mut older = Approvals::default();
        older.add(keys[0], grant(Source::Claims, None));
        older.add(keys[1], grant(Source::Declared, None));
        older.add(keys[1], Grant { service: "two", ..grant(Source::Claims, None) });
        older.set_freshness("svc", Freshness::ConfirmedAt(MonotonicMillis(1000)));
        older.set_freshness("two", Freshness::ConfirmedAt(MonotonicMillis(1000)));
        let mut restated = Restatement::new(older.clone());
        restated.keep_claims("svc");
        restated.keep_claims("new");
        restated.add(keys[2], grant(Source::Declared, None));
        restated.add(keys[2], grant(Source::Declared, None));
        assert_eq!(restated.len(), 1);
        let table = restated.finish();
        assert_eq!(table.len(), 2);
        assert_eq!(table.judge(&keys[0], "ns", "svc", at(31_000), HOLD), Approval::Approved);
        assert_eq!(table.judge(&keys[0], "ns", "svc", at(31_001), HOLD), Approval::Stale, "its age went on");
        assert_eq!(table.judge(&keys[2], "ns", "svc", at(99_999), HOLD), Approval::Approved);
        assert!(!table.knows(&keys[1]) && table.freshness("two").is_none(), "neither stated nor to be kept");
        assert_eq!(table.freshness("new"), Some(Freshness::Never));
        assert_eq!(older.len(), 3);
    }

    #[test]
    fn what_is_stated_after_all_is_not_kept() {
        let key = PublicKey::new([7; 32]);
        let mut older = Approvals::default();
        older.add(key, grant(Source::Claims, None));
        older.set_freshness("svc", Freshness::ConfirmedAt(MonotonicMillis(1000)));
        let mut restated = Restatement::new(older);
        restated.keep_claims("svc");
        restated.set_freshness("svc", Freshness::ConfirmedAt(MonotonicMillis(2000)));
        restated.keep_claims("svc");
        let table = restated.finish();
        assert!(table.is_empty());
        assert_eq!(table.freshness("svc"), Some(Freshness::ConfirmedAt(MonotonicMillis(2000))));
    }
}
