//! A table of grants in little memory: fixed-size records, names apart, cheap clones.
//!
//! Both ends of the state stream hold one. Records lie in a few hundred shards chosen by a keyed hash of
//! the public key, because keys are of a stranger's choosing; a clone shares all shards, a change copies
//! the one it touches. Looking up allocates nothing and does not depend on how much is held.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::domain::ids::PublicKey;
use crate::domain::names::NameId;
use crate::domain::names::Names;
use crate::domain::names::grow;
use crate::domain::time::UnixSeconds;

/// Number of shards: of a million grants a change copies four thousand.
const SHARDS: usize = 256;
/// Odd, without pattern: spreads what it is multiplied with over all bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where an approval comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Written in `gateway.yaml`: holds as long as it stands there.
    Declared,
    /// The control plane's feed: holds as long as the feed is confirmed.
    Claims,
}

/// One approval: this namespace may use this service with the key it is held under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant<'a> {
    /// Connection id.
    pub service: &'a str,
    /// The agent's namespace.
    pub namespace: &'a str,
    /// Who says so.
    pub source: Source,
    /// Not after this second; `None` = open end.
    pub expires_at: Option<UnixSeconds>,
}

/// Where a walk through a table stands; it means something in one table and its clones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    shard: usize,
    record: usize,
}

/// Grants by (key, service, namespace, source), each with its expiry.
#[derive(Clone)]
pub struct GrantTable {
    hasher: RandomState,
    shards: Vec<Arc<Shard>>,
    names: Names,
    /// Grants of each service by source; no entry where there are none.
    counts: HashMap<(NameId, Source), usize>,
    count: usize,
}

#[derive(Clone, Default)]
struct Shard {
    records: Vec<Record>,
    /// Positions of all records, by the hash of key, service and namespace.
    places: HashTable<u32>,
    /// Position of one record of each key, by the hash of the key.
    keys: HashTable<u32>,
}

/// 48 bytes.
#[derive(Clone, Copy)]
struct Record {
    key: PublicKey,
    service: NameId,
    namespace: NameId,
    terms: Terms,
}

/// Expiry in the upper 63 bits (all of them: open end), source in the lowest.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Terms(u64);

impl Terms {
    const OPEN: u64 = u64::MAX >> 1;

    fn new(source: Source, expires_at: Option<UnixSeconds>) -> Self {
        // A last second this far away is told from an open end, and from nothing else.
        let end = expires_at.map_or(Self::OPEN, |end| end.0.min(Self::OPEN - 1));
        Self(end << 1 | u64::from(source == Source::Claims))
    }

    fn source(self) -> Source {
        if self.0 & 1 == 1 { Source::Claims } else { Source::Declared }
    }

    fn expires_at(self) -> Option<UnixSeconds> {
        let end = self.0 >> 1;
        (end != Self::OPEN).then_some(UnixSeconds(end))
    }
}

impl Default for GrantTable {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: vec![Arc::default(); SHARDS],
            names: Names::default(),
            counts: HashMap::new(),
            count: 0,
        }
    }
}

impl fmt::Debug for GrantTable {
    /// How many; a table may hold millions.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GrantTable").field("count", &self.count).finish_non_exhaustive()
    }
}

impl GrantTable {
    /// How many grants there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many grants one source gives for a service.
    pub fn count(&self, service: &str, source: Source) -> usize {
        let id = self.names.find(&self.hasher, service);
        id.and_then(|id| self.counts.get(&(id, source))).copied().unwrap_or_default()
    }

    /// Whether this key has any grant.
    pub fn knows(&self, key: &PublicKey) -> bool {
        let hash = self.hasher.hash_one(key);
        self.shard(hash).is_some_and(|shard| shard.keys.find(hash, |at| shard.key_is(*at, key)).is_some())
    }

    /// The grants of a key for a service in a namespace: one for each source, at most.
    pub fn of<'a>(
        &'a self,
        key: &'a PublicKey,
        service: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = Grant<'a>> {
        let hash = self.hasher.hash_one(key);
        let names = self.names.find(&self.hasher, service).zip(self.names.find(&self.hasher, namespace));
        let place = self.shard(hash).zip(names);
        place.into_iter().flat_map(move |(shard, (service_id, namespace_id))| {
            let candidates = shard.places.iter_hash(place_hash(hash, service_id, namespace_id));
            candidates
                .filter_map(|at| shard.at(*at))
                .filter(move |record| {
                    record.key == *key && record.service == service_id && record.namespace == namespace_id
                })
                .map(move |record| Grant {
                    service,
                    namespace,
                    source: record.terms.source(),
                    expires_at: record.terms.expires_at(),
                })
        })
    }

    /// Whether exactly this is held, expiry included.
    pub fn holds(&self, key: &PublicKey, grant: &Grant<'_>) -> bool {
        let terms = Terms::new(grant.source, grant.expires_at);
        self.of(key, grant.service, grant.namespace).any(|held| Terms::new(held.source, held.expires_at) == terms)
    }

    /// Whether this is held, with whatever expiry.
    pub fn has(&self, key: &PublicKey, grant: &Grant<'_>) -> bool {
        self.of(key, grant.service, grant.namespace).any(|held| held.source == grant.source)
    }

    /// Adds a grant, or gives one that is held another expiry. `false`: nothing had to be changed.
    pub fn add(&mut self, key: &PublicKey, grant: &Grant<'_>) -> bool {
        let terms = Terms::new(grant.source, grant.expires_at);
        let held = self.of(key, grant.service, grant.namespace).find(|held| held.source == grant.source);
        if held.is_some_and(|held| Terms::new(held.source, held.expires_at) == terms) {
            return false;
        }
        // Taken also where the grant is held: the second use is given back below.
        let Some(service) = self.names.take(&self.hasher, grant.service) else { return false };
        let Some(namespace) = self.names.take(&self.hasher, grant.namespace) else {
            self.names.release(&self.hasher, service);
            return false;
        };
        let hash = self.hasher.hash_one(key);
        let record = Record { key: *key, service, namespace, terms };
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else { return false };
        if Arc::make_mut(shard).put(&self.hasher, hash, record) {
            self.count = self.count.saturating_add(1);
            let count = self.counts.entry((service, grant.source)).or_default();
            *count = count.saturating_add(1);
        } else {
            self.names.release(&self.hasher, service);
            self.names.release(&self.hasher, namespace);
        }
        true
    }

    /// Removes a grant, whatever its expiry. `false`: it was not held.
    pub fn remove(&mut self, key: &PublicKey, grant: &Grant<'_>) -> bool {
        let service = self.names.find(&self.hasher, grant.service);
        let Some((service, namespace)) = service.zip(self.names.find(&self.hasher, grant.namespace)) else {
            return false;
        };
        if !self.has(key, grant) {
            return false;
        }
        let hash = self.hasher.hash_one(key);
        let wanted = |record: &Record| {
            record.key == *key
                && record.service == service
                && record.namespace == namespace
                && record.terms.source() == grant.source
        };
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else { return false };
        if !Arc::make_mut(shard).take(&self.hasher, hash, place_hash(hash, service, namespace), wanted) {
            return false;
        }
        self.names.release(&self.hasher, namespace);
        self.forget(service, grant.source, 1);
        true
    }

    /// Removes everything one source gives for a service.
    pub fn clear(&mut self, service: &str, source: Source) {
        let Some(service) = self.names.find(&self.hasher, service) else { return };
        let mut gone = 0_usize;
        if !self.counts.contains_key(&(service, source)) {
            return;
        }
        let matches = |record: &Record| record.service == service && record.terms.source() == source;
        for shard in &mut self.shards {
            let count = shard.records.iter().filter(|record| matches(record)).count();
            if count == 0 {
                continue;
            }
            for record in shard.records.iter().filter(|record| matches(record)) {
                self.names.release(&self.hasher, record.namespace);
            }
            gone = gone.saturating_add(count);
            let rest = shard.records.iter().filter(|record| !matches(record)).copied();
            *shard = Shard::build(&self.hasher, rest, shard.records.len().saturating_sub(count));
        }
        self.forget(service, source, gone);
    }

    /// Walks through all grants from `from` on, in an order of no meaning; with each comes where the walk
    /// goes on behind it.
    pub fn walk(&self, from: Position) -> impl Iterator<Item = (Position, &PublicKey, Grant<'_>)> {
        self.shards.iter().enumerate().skip(from.shard).flat_map(move |(at, shard)| {
            let skip = if at == from.shard { from.record } else { 0 };
            shard.records.iter().enumerate().skip(skip).map(move |(number, record)| {
                (Position { shard: at, record: number.saturating_add(1) }, &record.key, self.grant(record))
            })
        })
    }

    /// Hands over every grant, giving memory back on the way.
    pub fn consume(mut self, mut visit: impl FnMut(&PublicKey, &Grant<'_>)) {
        for shard in std::mem::take(&mut self.shards) {
            for record in &shard.records {
                visit(&record.key, &self.grant(record));
            }
        }
    }

    fn grant(&self, record: &Record) -> Grant<'_> {
        Grant {
            service: self.names.text(record.service),
            namespace: self.names.text(record.namespace),
            source: record.terms.source(),
            expires_at: record.terms.expires_at(),
        }
    }

    fn shard(&self, hash: u64) -> Option<&Shard> {
        self.shards.get(shard_of(hash)).map(|shard| &**shard)
    }

    fn forget(&mut self, service: NameId, source: Source, gone: usize) {
        self.count = self.count.saturating_sub(gone);
        if let Some(count) = self.counts.get_mut(&(service, source)) {
            *count = count.saturating_sub(gone);
            if *count == 0 {
                self.counts.remove(&(service, source));
            }
        }
        for _ in 0..gone {
            self.names.release(&self.hasher, service);
        }
    }

    /// Bytes allocated, without the allocator's own.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let shards = self.shards.iter().map(|shard| {
            size_of::<Shard>()
                + shard.records.capacity() * size_of::<Record>()
                + shard.places.allocation_size()
                + shard.keys.allocation_size()
        });
        shards.sum::<usize>() + self.names.bytes()
    }
}

/// Bits the hash tables inside a shard do not choose by.
fn shard_of(hash: u64) -> usize {
    usize::from((hash >> 48).to_le_bytes()[0])
}

fn place_hash(key_hash: u64, service: NameId, namespace: NameId) -> u64 {
    let ids = service.number() << 32 | namespace.number();
    let product = u128::from(key_hash ^ ids).wrapping_mul(u128::from(SPREAD));
    let (low, high) = (product & u128::from(u64::MAX), product >> 64);
    u64::try_from(low ^ high).unwrap_or_default()
}

impl Shard {
    fn build(hasher: &RandomState, records: impl Iterator<Item = Record>, count: usize) -> Arc<Self> {
        let mut shard = Self {
            records: Vec::with_capacity(count),
            places: HashTable::with_capacity(count),
            keys: HashTable::with_capacity(count),
        };
        for record in records {
            shard.put(hasher, hasher.hash_one(record.key), record);
        }
        Arc::new(shard)
    }

    fn at(&self, position: u32) -> Option<&Record> {
        usize::try_from(position).ok().and_then(|position| self.records.get(position))
    }

    fn key_is(&self, position: u32, key: &PublicKey) -> bool {
        self.at(position).is_some_and(|record| record.key == *key)
    }

    /// Returns whether the record is new; one of the same place has its expiry replaced.
    fn put(&mut self, hasher: &RandomState, hash: u64, record: Record) -> bool {
        let place = place_hash(hash, record.service, record.namespace);
        let same = |held: &Record| {
            held.key == record.key
                && held.service == record.service
                && held.namespace == record.namespace
                && held.terms.source() == record.terms.source()
        };
        let held = self.places.find(place, |at| self.at(*at).is_some_and(same)).copied();
        if let Some(held) = held.and_then(|at| usize::try_from(at).ok()).and_then(|at| self.records.get_mut(at)) {
            held.terms = record.terms;
            return false;
        }
        let Ok(position) = u32::try_from(self.records.len()) else { return false };
        grow(&mut self.records);
        self.records.push(record);
        let Self { records, places, keys } = self;
        let at = |position: &u32| usize::try_from(*position).ok().and_then(|position| records.get(position));
        places.insert_unique(place, position, |position| {
            at(position).map_or(0, |held| place_hash(hasher.hash_one(held.key), held.service, held.namespace))
        });
        if keys.find(hash, |position| at(position).is_some_and(|held| held.key == record.key)).is_none() {
            keys.insert_unique(hash, position, |position| at(position).map_or(0, |held| hasher.hash_one(held.key)));
        }
        true
    }

    /// Removes one record of the key with this hash; `false` where none is `wanted`.
    fn take(&mut self, hasher: &RandomState, hash: u64, place: u64, wanted: impl Fn(&Record) -> bool) -> bool {
        let Self { records, places, keys } = self;
        let at = |position: u32| usize::try_from(position).ok().and_then(|position| records.get(position));
        let Ok(found) = places.find_entry(place, |position| at(*position).is_some_and(&wanted)) else { return false };
        let (gone, _) = found.remove();
        let Some(key) = at(gone).map(|record| record.key) else { return false };
        if let Ok(mut entry) = keys.find_entry(hash, |position| *position == gone) {
            let another = records.iter().zip(0_u32..).find(|(record, number)| record.key == key && *number != gone);
            match another {
                Some((_, number)) => *entry.get_mut() = number,
                None => drop(entry.remove()),
            }
        }
        // The last record takes the place that has become free.
        let Some(last) = records.len().checked_sub(1).and_then(|last| u32::try_from(last).ok()) else { return false };
        if last != gone
            && let Some(moved) = at(last)
        {
            let moved_hash = hasher.hash_one(moved.key);
            let moved_place = place_hash(moved_hash, moved.service, moved.namespace);
            for (table, hash) in [(&mut *places, moved_place), (&mut *keys, moved_hash)] {
                if let Some(position) = table.find_mut(hash, |position| *position == last) {
                    *position = gone;
                }
            }
        }
        if let Ok(gone) = usize::try_from(gone) {
            records.swap_remove(gone);
        }
        if records.capacity() > 16 && records.len() < records.capacity() / 2 {
            *self = Arc::unwrap_or_clone(Self::build(hasher, records.iter().copied(), records.len()));
        }
        true
    }
}

#[cfg(test)]
#[path = "grants_tests.rs"]
#[allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code may panic and print")]
mod tests;
