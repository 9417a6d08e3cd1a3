//! Many small hash tables that grow, and drop what has expired, one at a time.

use crate::domain::replay::ReplayKey;

/// Live entries per table when the window is full: small enough that rebuilding one takes a few microseconds.
const ENTRIES_PER_TABLE: usize = 512;
/// Slots of a table when its first entry comes.
const FIRST_SLOTS: usize = 8;
/// One table is looked through for expired entries at every this many insertions.
const SWEEP_EVERY: u32 = 16;

/// How many seconds before its first insertion a table begins to count; a slot counts to 136 years.
const BEFORE: u64 = 1 << 30;

/// One slot: 20 bytes. `expires` counts seconds from the base of the tables, 0 = never used.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key: [u32; 4],
    expires: u32,
}

const FREE: Slot = Slot { key: [0; 4], expires: 0 };

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It is remembered now.
    New,
    /// It was remembered before, and has not expired.
    Present,
    /// Its expiry lies outside what a slot can hold.
    OutOfRange,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    /// Slots that hold something, expired or not.
    used: usize,
}

/// The tables. A key belongs to exactly one of them.
#[derive(Debug)]
pub(super) struct Tables {
    tables: Vec<Table>,
    /// The second that counts as 0; set by the first call.
    base: Option<u64>,
    /// Slots allocated in all tables.
    slots: usize,
    insertions: u32,
    next_swept: usize,
}

impl Tables {
    /// Room for tables, not yet for entries.
    pub(super) fn new(capacity: usize) -> Self {
        let count = (capacity / ENTRIES_PER_TABLE).clamp(1, 1 << 20).next_power_of_two();
        let mut tables = Vec::new();
        tables.resize_with(count, Table::default);
        Self { tables, base: None, slots: 0, insertions: 0, next_swept: 0 }
    }

    /// Whether `key` is remembered in second `now`.
    pub(super) fn contains(&self, key: &ReplayKey, now: u64) -> bool {
        let key = words(key);
        let now = self.seconds(now);
        self.tables.get(self.index(key)).is_some_and(|table| table.find(key, now).is_some())
    }

    /// Remembers `key` up to and including second `expires_at`.
    pub(super) fn insert(&mut self, key: &ReplayKey, expires_at: u64, now: u64) -> Inserted {
        // Below all there will be, also where the clock goes back, so that no live entry has the 0 that marks a free slot.
        let base = *self.base.get_or_insert(now.saturating_sub(BEFORE));
        let Some(expires) = expires_at.checked_sub(base).and_then(|seconds| u32::try_from(seconds).ok()) else {
            return Inserted::OutOfRange;
        };
        let now = self.seconds(now);
        if expires == 0 || expires < now {
            return Inserted::OutOfRange;
        }
        let key = words(key);
        let at = self.index(key);
        let Some(table) = self.tables.get_mut(at) else { return Inserted::OutOfRange };
        let before = table.slots.len();
        let inserted = table.insert(Slot { key, expires }, now);
        self.slots = self.slots.saturating_sub(before).saturating_add(table.slots.len());
        self.sweep(now);
        inserted
    }

    /// Bytes allocated, allocator overhead excepted.
    pub(super) fn memory_bytes(&self) -> usize {
        let directory = self.tables.capacity().saturating_mul(size_of::<Table>());
        self.slots.saturating_mul(size_of::<Slot>()).saturating_add(directory)
    }

    /// Gives memory back after a peak: every now and then one table is looked at.
    fn sweep(&mut self, now: u32) {
        self.insertions = self.insertions.wrapping_add(1);
        if !self.insertions.is_multiple_of(SWEEP_EVERY) {
            return;
        }
        self.next_swept = self.next_swept.checked_add(1).filter(|next| *next < self.tables.len()).unwrap_or(0);
        if let Some(table) = self.tables.get_mut(self.next_swept) {
            let before = table.slots.len();
            table.shrink(now);
            self.slots = self.slots.saturating_sub(before).saturating_add(table.slots.len());
        }
    }

    fn seconds(&self, at: u64) -> u32 {
        let base = self.base.unwrap_or(at);
        u32::try_from(at.saturating_sub(base)).unwrap_or(u32::MAX)
    }

    fn index(&self, key: [u32; 4]) -> usize {
        // The count is a power of two.
        usize::try_from(key[1]).unwrap_or(0) & self.tables.len().saturating_sub(1)
    }
}

impl Table {
    fn find(&self, key: [u32; 4], now: u32) -> Option<&Slot> {
        self.probe(key).find(|slot| slot.key == key && slot.expires >= now)
    }

    /// Slots from the place where `key` belongs to the first free one.
    fn probe(&self, key: [u32; 4]) -> impl Iterator<Item = &Slot> {
        let (head, tail) = self.slots.split_at_checked(start(key, self.slots.len())).unwrap_or((&[], &[]));
        tail.iter().chain(head).take_while(|slot| slot.expires != 0)
    }

    fn insert(&mut self, slot: Slot, now: u32) -> Inserted {
        if self.find(slot.key, now).is_some() {
            return Inserted::Present;
        }
        if self.used >= self.limit() {
            self.rebuild(now);
        }
        self.place(slot, now);
        Inserted::New
    }

    /// Puts `slot` where the first expired or free slot on its way is.
    fn place(&mut self, slot: Slot, now: u32) {
        let from = start(slot.key, self.slots.len());
        let (head, tail) = self.slots.split_at_mut_checked(from).unwrap_or((&mut [], &mut []));
        if let Some(free) = tail.iter_mut().chain(head).find(|held| held.expires < now || held.expires == 0) {
            if free.expires == 0 {
                self.used = self.used.saturating_add(1);
            }
            *free = slot;
        }
    }

    /// Slots that may be used before the table is rebuilt: nine in ten.
    fn limit(&self) -> usize {
        self.slots.len().saturating_sub(self.slots.len().div_ceil(10))
    }

    /// Moves the live entries to a new table with room for a third more: between this and the limit
    /// lies the trade of memory (27 to 22 bytes an entry) against length of search.
    fn rebuild(&mut self, now: u32) {
        let live = self.live(now);
        let slots = live.saturating_add(live / 3).max(FIRST_SLOTS);
        let mut fresh = Self { slots: vec![FREE; slots], used: 0 };
        for slot in self.slots.iter().filter(|slot| slot.expires != 0 && slot.expires >= now) {
            fresh.place(*slot, now);
        }
        *self = fresh;
    }

    fn shrink(&mut self, now: u32) {
        let live = self.live(now);
        if live == 0 {
            *self = Self::default();
        } else if self.slots.len() > live.saturating_mul(2).max(FIRST_SLOTS) {
            self.rebuild(now);
        }
    }

    fn live(&self, now: u32) -> usize {
        self.slots.iter().filter(|slot| slot.expires != 0 && slot.expires >= now).count()
    }
}

/// Where `key` belongs among `len` slots: its first word scaled to the range.
fn start(key: [u32; 4], len: usize) -> usize {
    let scaled = u64::from(key[0]).saturating_mul(u64::try_from(len).unwrap_or(u64::MAX)) >> 32;
    usize::try_from(scaled).unwrap_or(0)
}

fn words(key: &ReplayKey) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(key.0.chunks_exact(4)) {
        let mut four = [0; 4];
        four.copy_from_slice(bytes);
        *word = u32::from_le_bytes(four);
    }
    words
}
