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

impl Record {
    fn grant<'a>(&self, names: &'a Names) -> Grant<'a> {
        Grant {
            service: names.text(self.service),
            namespace: names.text(self.namespace),
            source: self.terms.source(),
            expires_at: self.terms.expires_at(),
        }
    }
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

/// Which grants of a table were seen again: a bit for each.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    shards: Vec<Vec<u64>>,
    count: usize,
}

impl Marks {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn set(&mut self, place: Position) {
        if self.shards.len() <= place.shard {
            self.shards.resize(place.shard.saturating_add(1), Vec::new());
        }
        let Some(words) = self.shards.get_mut(place.shard) else { return };
        if words.len() <= place.record / 64 {
            words.resize((place.record / 64).saturating_add(1), 0);
        }
        if let Some(word) = words.get_mut(place.record / 64) {
            let bit = 1 << (place.record % 64);
            self.count = self.count.saturating_add(usize::from(*word & bit == 0));
            *word |= bit;
        }
    }

    fn has(&self, place: Position) -> bool {
        let word = self.shards.get(place.shard).and_then(|words| words.get(place.record / 64));
        word.is_some_and(|word| word >> (place.record % 64) & 1 == 1)
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
        self.records(key, service, namespace).map(move |(_, record)| Grant {
            service,
            namespace,
            source: record.terms.source(),
            expires_at: record.terms.expires_at(),
        })
    }

    /// Whether exactly this is held, expiry included.
    pub fn holds(&self, key: &PublicKey, grant: &Grant<'_>) -> bool {
        let terms = Terms::new(grant.source, grant.expires_at);
        self.records(key, grant.service, grant.namespace).any(|(_, held)| held.terms == terms)
    }

    /// Whether this is held, with whatever expiry.
    pub fn has(&self, key: &PublicKey, grant: &Grant<'_>) -> bool {
        self.record(key, grant).is_some()
    }

    /// Adds a grant, or gives one that is held another expiry. `false`: nothing had to be changed.
    pub fn add(&mut self, key: &PublicKey, grant: &Grant<'_>) -> bool {
        self.put(key, grant).is_some_and(|(_, changed)| changed)
    }

    /// Adds a grant and marks it, for a [`GrantTable::sweep`] to come. Between the two nothing may be removed.
    pub fn add_marked(&mut self, key: &PublicKey, grant: &Grant<'_>, marks: &mut Marks) {
        if let Some((place, _)) = self.put(key, grant) {
            marks.set(place);
        }
    }

    /// Removes everything that is not marked, unless it is to be kept all the same.
    pub fn sweep(&mut self, marks: &Marks, keep: impl Fn(&Grant<'_>) -> bool) {
        self.retain(|names, place, record| marks.has(place) || keep(&record.grant(names)));
    }

    /// Where the grant is held now, and whether anything had to be changed for it. `None`: there is no room.
    fn put(&mut self, key: &PublicKey, grant: &Grant<'_>) -> Option<(Position, bool)> {
        let terms = Terms::new(grant.source, grant.expires_at);
        let hash = self.hasher.hash_one(key);
        let held = self.record(key, grant).map(|(position, held)| (position, held.terms));
        let at = shard_of(hash);
        if let Some((record, held)) = held {
            if held != terms {
                Arc::make_mut(self.shards.get_mut(at)?).records.get_mut(record)?.terms = terms;
            }
            return Some((Position { shard: at, record }, held != terms));
        }
        let service = self.names.take(&self.hasher, grant.service)?;
        let Some(namespace) = self.names.take(&self.hasher, grant.namespace) else {
            self.names.release(&self.hasher, service);
            return None;
        };
        let shard = Arc::make_mut(self.shards.get_mut(at)?);
        let record = shard.records.len();
        shard.push(&self.hasher, hash, Record { key: *key, service, namespace, terms });
        self.count = self.count.saturating_add(1);
        let count = self.counts.entry((service, grant.source)).or_default();
        *count = count.saturating_add(1);
        Some((Position { shard: at, record }, true))
    }

    /// The records of a key for a service in a namespace, with their positions in their shard.
    fn records(&self, key: &PublicKey, service: &str, namespace: &str) -> impl Iterator<Item = (usize, &Record)> {
        let key = *key;
        let hash = self.hasher.hash_one(key);
        let names = self.names.find(&self.hasher, service).zip(self.names.find(&self.hasher, namespace));
        let place = self.shard(hash).zip(names);
        place.into_iter().flat_map(move |(shard, (service, namespace))| {
            let positions = shard.places.iter_hash(place_hash(hash, service, namespace));
            let records =
                positions.filter_map(|position| Some((usize::try_from(*position).ok()?, shard.at(*position)?)));
            records.filter(move |(_, record)| {
                record.key == key && record.service == service && record.namespace == namespace
            })
        })
    }

    fn record(&self, key: &PublicKey, grant: &Grant<'_>) -> Option<(usize, &Record)> {
        let mut records = self.records(key, grant.service, grant.namespace);
        records.find(|(_, record)| record.terms.source() == grant.source)
    }

    /// Removes a grant, whatever its expiry. `false`: it was not held.
    pub fn remove(&mut self, key: &PublicKey, grant: &Grant<'_>) -> bool {
        let Some((position, record)) = self.record(key, grant).map(|(position, record)| (position, *record)) else {
            return false;
        };
        let Some(shard) = self.shards.get_mut(shard_of(self.hasher.hash_one(key))) else { return false };
        Arc::make_mut(shard).take(&self.hasher, position);
        self.forget(&record);
        true
    }

    /// Removes everything one source gives for a service.
    pub fn clear(&mut self, service: &str, source: Source) {
        let Some(service) = self.names.find(&self.hasher, service) else { return };
        if self.counts.contains_key(&(service, source)) {
            self.retain(|_, _, record| record.service != service || record.terms.source() != source);
        }
    }

    fn retain(&mut self, keep: impl Fn(&Names, Position, &Record) -> bool) {
        for at in 0..self.shards.len() {
            let Some(shard) = self.shards.get(at).cloned() else { return };
            let kept =
                |number: usize, record: &Record| keep(&self.names, Position { shard: at, record: number }, record);
            let stays: Vec<_> = shard.records.iter().enumerate().map(|(number, record)| kept(number, record)).collect();
            let count = stays.iter().filter(|stays| **stays).count();
            if count == stays.len() {
                continue;
            }
            let rest = shard.records.iter().zip(&stays).filter(|(_, stays)| **stays).map(|(record, _)| *record);
            let rest = Shard::build(&self.hasher, rest, count);
            if let Some(place) = self.shards.get_mut(at) {
                *place = Arc::new(rest);
            }
            for (record, _) in shard.records.iter().zip(&stays).filter(|(_, stays)| !**stays) {
                self.forget(record);
            }
        }
    }

    /// A record is gone from its shard.
    fn forget(&mut self, record: &Record) {
        let place = (record.service, record.terms.source());
        self.count = self.count.saturating_sub(1);
        if let Some(count) = self.counts.get_mut(&place) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&place);
            }
        }
        self.names.release(&self.hasher, record.service);
        self.names.release(&self.hasher, record.namespace);
    }

    /// Walks through all grants from `from` on, in an order of no meaning; with each comes where the walk
    /// goes on behind it.
    pub fn walk(&self, from: Position) -> impl Iterator<Item = (Position, &PublicKey, Grant<'_>)> {
        self.shards.iter().enumerate().skip(from.shard).flat_map(move |(at, shard)| {
            let skip = if at == from.shard { from.record } else { 0 };
            shard.records.iter().enumerate().skip(skip).map(move |(number, record)| {
                (Position { shard: at, record: number.saturating_add(1) }, &record.key, record.grant(&self.names))
            })
        })
    }

    /// Hands over every grant, giving memory back on the way.
    pub fn consume(mut self, mut visit: impl FnMut(&PublicKey, &Grant<'_>)) {
        for shard in std::mem::take(&mut self.shards) {
            for record in &shard.records {
                visit(&record.key, &record.grant(&self.names));
            }
        }
    }

    fn shard(&self, hash: u64) -> Option<&Shard> {
        self.shards.get(shard_of(hash)).map(|shard| &**shard)
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
    fn build(hasher: &RandomState, records: impl Iterator<Item = Record>, count: usize) -> Self {
        let mut shard = Self {
            records: Vec::with_capacity(count),
            places: HashTable::with_capacity(count),
            keys: HashTable::with_capacity(count),
        };
        for record in records {
            shard.push(hasher, hasher.hash_one(record.key), record);
        }
        shard
    }

    fn at(&self, position: u32) -> Option<&Record> {
        usize::try_from(position).ok().and_then(|position| self.records.get(position))
    }

    fn key_is(&self, position: u32, key: &PublicKey) -> bool {
        self.at(position).is_some_and(|record| record.key == *key)
    }

    /// Adds a record that is not there. One beyond the four thousand millionth could not be found again.
    fn push(&mut self, hasher: &RandomState, hash: u64, record: Record) {
        let Ok(position) = u32::try_from(self.records.len()) else { return };
        grow(&mut self.records);
        self.records.push(record);
        let Self { records, places, keys } = self;
        let at = |position: &u32| usize::try_from(*position).ok().and_then(|position| records.get(position));
        let place = place_hash(hash, record.service, record.namespace);
        places.insert_unique(place, position, |position| {
            at(position).map_or(0, |held| place_hash(hasher.hash_one(held.key), held.service, held.namespace))
        });
        if keys.find(hash, |position| at(position).is_some_and(|held| held.key == record.key)).is_none() {
            keys.insert_unique(hash, position, |position| at(position).map_or(0, |held| hasher.hash_one(held.key)));
        }
    }

    /// Removes a record; the last one takes its place.
    fn take(&mut self, hasher: &RandomState, position: usize) {
        let Self { records, places, keys } = self;
        let (Some(last), Ok(gone)) = (records.len().checked_sub(1), u32::try_from(position)) else { return };
        let (Some(record), Ok(last)) = (records.get(position).copied(), u32::try_from(last)) else { return };
        let hash = hasher.hash_one(record.key);
        if let Ok(entry) = places.find_entry(place_hash(hash, record.service, record.namespace), |held| *held == gone) {
            entry.remove();
        }
        if let Ok(mut entry) = keys.find_entry(hash, |held| *held == gone) {
            let mut others = records.iter().zip(0_u32..);
            match others.find(|(other, number)| other.key == record.key && *number != gone) {
                Some((_, other)) => *entry.get_mut() = other,
                None => drop(entry.remove()),
            }
        }
        if last != gone
            && let Some(moved) = records.last()
        {
            let hash = hasher.hash_one(moved.key);
            let place = place_hash(hash, moved.service, moved.namespace);
            for (table, hash) in [(&mut *places, place), (&mut *keys, hash)] {
                if let Some(held) = table.find_mut(hash, |held| *held == last) {
                    *held = gone;
                }
            }
        }
        records.swap_remove(position);
        if records.capacity() > 16 && records.len() < records.capacity() / 2 {
            *self = Self::build(hasher, self.records.iter().copied(), self.records.len());
        }
    }
}

#[cfg(test)]
#[path = "grants_tests.rs"]
#[allow(clippy::indexing_slicing, clippy::print_stdout, reason = "test code may panic and print")]
mod tests;
