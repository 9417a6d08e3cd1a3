//! Who may use what: approvals by key, with the freshness of their source.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::ids::PublicKey;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::UnixSeconds;

/// Number of parts the table is split into: a change copies one part, not a million approvals.
const SHARDS: usize = 256;

/// Where an approval comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Written in `gateway.yaml`: holds as long as it stands there.
    Declared,
    /// The control plane's feed: holds as long as the feed is confirmed.
    Claims,
}

/// One approval: this namespace may use this service with this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Connection id.
    pub service: Arc<str>,
    /// The agent's namespace.
    pub namespace: Arc<str>,
    /// Who says so.
    pub source: Source,
    /// Not after this second; `None` = open end.
    pub expires_at: Option<UnixSeconds>,
}

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

type Shard = HashMap<PublicKey, Vec<Grant>>;

/// All approvals. Cloning is cheap; a change copies the parts it touches.
#[derive(Debug, Clone)]
pub struct Approvals {
    shards: Vec<Arc<Shard>>,
    /// Services that have a claims source; others are judged by declared approvals alone.
    claims: HashMap<Arc<str>, Freshness>,
    count: usize,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS], claims: HashMap::new(), count: 0 }
    }
}

impl Approvals {
    /// How many approvals there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this key is approved for anything, by any namespace: such keys are not strangers.
    pub fn knows(&self, key: &PublicKey) -> bool {
        self.shard(key).contains_key(key)
    }

    /// Judges one (key, namespace, service). `hold_ms` is how long claims hold after a confirmation.
    pub fn judge(&self, key: &PublicKey, namespace: &str, service: &str, now: Now, hold_ms: u64) -> Approval {
        let fresh = match self.claims.get(service) {
            None => None,
            Some(Freshness::Never) => Some(false),
            Some(Freshness::ConfirmedAt(at)) => Some(now.monotonic.since(*at) <= hold_ms),
        };
        let grants = self.shard(key).get(key).map_or(&[][..], Vec::as_slice);
        let matching = grants.iter().filter(|grant| {
            &*grant.service == service
                && &*grant.namespace == namespace
                && grant.expires_at.is_none_or(|end| now.seconds() <= end)
        });
        for grant in matching {
            match grant.source {
                Source::Declared => return Approval::Approved,
                Source::Claims if fresh == Some(true) => return Approval::Approved,
                Source::Claims => {}
            }
        }
        if fresh == Some(false) { Approval::Stale } else { Approval::Missing }
    }

    /// Adds one approval; one that is there already has its expiry replaced.
    pub fn add(&mut self, key: PublicKey, grant: Grant) {
        let grants = self.shard_mut(&key).entry(key).or_default();
        match grants.iter_mut().find(|held| same_place(held, &grant)) {
            Some(held) => *held = grant,
            None => {
                // Most keys have one approval; a Vec would reserve room for four.
                grants.reserve_exact(1);
                grants.push(grant);
                self.count = self.count.saturating_add(1);
            }
        }
    }

    /// Removes one approval, whatever its expiry.
    pub fn remove(&mut self, key: &PublicKey, grant: &Grant) {
        let shard = self.shard_mut(key);
        let Some(grants) = shard.get_mut(key) else { return };
        let before = grants.len();
        grants.retain(|held| !same_place(held, grant));
        let gone = before.saturating_sub(grants.len());
        if grants.is_empty() {
            shard.remove(key);
        }
        self.count = self.count.saturating_sub(gone);
    }

    /// Removes everything one source says of a service.
    pub fn clear(&mut self, service: &str, source: Source) {
        let mut gone = 0_usize;
        for shard in &mut self.shards {
            let touched = shard.values().flatten().any(|held| &*held.service == service && held.source == source);
            if !touched {
                continue;
            }
            Arc::make_mut(shard).retain(|_, grants| {
                let before = grants.len();
                grants.retain(|held| !(&*held.service == service && held.source == source));
                gone = gone.saturating_add(before.saturating_sub(grants.len()));
                !grants.is_empty()
            });
        }
        self.count = self.count.saturating_sub(gone);
    }

    /// Says that a service has a claims source, and how fresh it is.
    pub fn set_freshness(&mut self, service: &str, freshness: Freshness) {
        match self.claims.get_mut(service) {
            Some(held) => *held = freshness,
            None => {
                self.claims.insert(Arc::from(service), freshness);
            }
        }
    }

    /// Freshness of a service's claims; `None` where it has no claims source.
    pub fn freshness(&self, service: &str) -> Option<Freshness> {
        self.claims.get(service).copied()
    }

    fn shard(&self, key: &PublicKey) -> &Shard {
        static EMPTY: std::sync::LazyLock<Shard> = std::sync::LazyLock::new(HashMap::new);
        // Keys are points of a curve: their first byte is evenly spread.
        self.shards.get(usize::from(key.as_bytes()[0])).map_or(&EMPTY, |shard| &**shard)
    }

    fn shard_mut(&mut self, key: &PublicKey) -> &mut Shard {
        let at = usize::from(key.as_bytes()[0]);
        while self.shards.len() <= at {
            self.shards.push(Arc::default());
        }
        // The loop above made it exist; `get_mut` keeps the lint table honest.
        match self.shards.get_mut(at) {
            Some(shard) => Arc::make_mut(shard),
            None => unreachable!("shards were extended to hold {at}"),
        }
    }
}

fn same_place(held: &Grant, grant: &Grant) -> bool {
    held.service == grant.service && held.namespace == grant.namespace && held.source == grant.source
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;
    use crate::domain::time::UnixMillis;

    const HOLD: u64 = 30_000;

    fn at(monotonic: u64) -> Now {
        Now { wall: UnixMillis(1_700_000_000_000), monotonic: MonotonicMillis(monotonic) }
    }

    fn grant(source: Source, expires_at: Option<UnixSeconds>) -> Grant {
        Grant { service: Arc::from("svc"), namespace: Arc::from("ns"), source, expires_at }
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
}
