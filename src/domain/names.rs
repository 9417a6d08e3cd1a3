//! Names of services and namespaces, each written down once however many approvals bear it.
//!
//! A hundred thousand approvals may name a hundred thousand namespaces or one. Texts lie end to end in
//! a few hundred shards; a change copies the one it touches, a clone copies none.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::domain::blocks::Blocks;

/// Number of shards; the low byte of an id says in which one its name lies.
const SHARDS: usize = 256;
/// Room of a piece of text, in bytes, and of a first piece.
const PIECE: usize = 1024;
const FIRST_PIECE: usize = 256;

/// Stands for a name in one [`Names`] and its clones, for as long as it is in use there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NameId(u32);

impl NameId {
    /// As a number, for hashing.
    pub(super) fn number(self) -> u64 {
        u64::from(self.0)
    }

    fn new(shard: u8, place: u32) -> Option<Self> {
        // 24 bits of places.
        (place < 1 << 24).then_some(Self(place << 8 | u32::from(shard)))
    }

    fn shard(self) -> usize {
        usize::from(self.0.to_le_bytes()[0])
    }

    fn place(self) -> u32 {
        self.0 >> 8
    }
}

/// The names in use, with how often each is.
#[derive(Clone)]
pub(super) struct Names {
    shards: Vec<Arc<Shard>>,
}

#[derive(Clone, Default)]
struct Shard {
    entries: Blocks<Entry>,
    /// Places of entries in use, by the hash of their text.
    index: HashTable<u32>,
    /// Places of entries not in use.
    free: Vec<u32>,
    text: Vec<String>,
    /// Bytes of `text`, and how many of them no entry needs.
    length: usize,
    unused: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    piece: u32,
    start: u16,
    length: u16,
    uses: u32,
}

impl Default for Names {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS] }
    }
}

impl Names {
    /// The id of a name in use.
    pub(super) fn find(&self, hasher: &RandomState, name: &str) -> Option<NameId> {
        let hash = hasher.hash_one(name);
        let shard = shard_of(hash);
        NameId::new(shard, self.shards.get(usize::from(shard))?.find(hash, name)?)
    }

    /// The text behind an id; empty for an id that is not of here.
    pub(super) fn text(&self, id: NameId) -> &str {
        self.shards.get(id.shard()).map_or("", |shard| shard.text_at(id.place()))
    }

    /// Notes one use more of a name. `None`: there is no room for it, or it has more than 65,535 bytes.
    pub(super) fn take(&mut self, hasher: &RandomState, name: &str) -> Option<NameId> {
        let hash = hasher.hash_one(name);
        let at = shard_of(hash);
        let shard = Arc::make_mut(self.shards.get_mut(usize::from(at))?);
        let place = match shard.find(hash, name) {
            Some(place) => {
                let entry = shard.entries.get_mut(usize::try_from(place).ok()?)?;
                entry.uses = entry.uses.checked_add(1)?;
                place
            }
            None => shard.insert(hasher, hash, name)?,
        };
        NameId::new(at, place)
    }

    /// Notes one use less; a name without use is forgotten and its id given to another.
    pub(super) fn release(&mut self, hasher: &RandomState, id: NameId) {
        if let Some(shard) = self.shards.get_mut(id.shard()) {
            Arc::make_mut(shard).release(hasher, id.place());
        }
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let shards = self.shards.iter().map(|shard| {
            let text: usize = shard.text.iter().map(String::capacity).sum();
            let lists = shard.free.capacity() * 4 + shard.text.capacity() * size_of::<String>();
            size_of::<Shard>() + shard.entries.bytes() + shard.index.allocation_size() + lists + text
        });
        shards.sum()
    }
}

/// Bits the hash tables inside a shard do not choose by.
fn shard_of(hash: u64) -> u8 {
    (hash >> 48).to_le_bytes()[0]
}

impl Shard {
    fn text_at(&self, place: u32) -> &str {
        let entry = usize::try_from(place).ok().and_then(|place| self.entries.get(place));
        entry.map_or("", |entry| text_of(&self.text, entry))
    }

    fn find(&self, hash: u64, name: &str) -> Option<u32> {
        self.index.find(hash, |place| self.text_at(*place) == name).copied()
    }

    fn insert(&mut self, hasher: &RandomState, hash: u64, name: &str) -> Option<u32> {
        self.compact();
        let place = self.free.last().copied().or_else(|| u32::try_from(self.entries.len()).ok())?;
        let (piece, start) = write(&mut self.text, name)?;
        let entry = Entry { piece, start, length: u16::try_from(name.len()).ok()?, uses: 1 };
        match self.free.pop() {
            Some(place) => *self.entries.get_mut(usize::try_from(place).ok()?)? = entry,
            None => self.entries.push(entry),
        }
        self.length = self.length.saturating_add(name.len());
        let (entries, text) = (&self.entries, &self.text);
        self.index.insert_unique(hash, place, |place| {
            let entry = usize::try_from(*place).ok().and_then(|place| entries.get(place));
            hasher.hash_one(entry.map_or("", |entry| text_of(text, entry)))
        });
        Some(place)
    }

    fn release(&mut self, hasher: &RandomState, place: u32) {
        let Some(entry) = usize::try_from(place).ok().and_then(|at| self.entries.get_mut(at)) else { return };
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses > 0 {
            return;
        }
        let hash = hasher.hash_one(text_of(&self.text, entry));
        if let Ok(found) = self.index.find_entry(hash, |held| *held == place) {
            found.remove();
            self.unused = self.unused.saturating_add(usize::from(entry.length));
            entry.length = 0;
            self.free.push(place);
        }
    }

    /// Writes the texts anew where most of them are of no use any more.
    fn compact(&mut self) {
        if self.unused < FIRST_PIECE || self.unused < self.length / 2 {
            return;
        }
        let mut text = Vec::new();
        for entry in self.entries.iter_mut() {
            // Each was written before, so each can be written again.
            if let Some((piece, start)) = write(&mut text, text_of(&self.text, entry)) {
                (entry.piece, entry.start) = (piece, start);
            }
        }
        self.length = self.length.saturating_sub(self.unused);
        (self.text, self.unused) = (text, 0);
    }
}

/// Writes a name behind the others; returns in which piece, and where. `None`: it is too long.
fn write(text: &mut Vec<String>, name: &str) -> Option<(u32, u16)> {
    u16::try_from(name.len()).ok()?;
    let fits = |piece: &&mut String| piece.capacity().saturating_sub(piece.len()) >= name.len();
    match text.last_mut().filter(fits) {
        Some(piece) => {
            let start = u16::try_from(piece.len()).ok()?;
            piece.push_str(name);
            Some((u32::try_from(text.len().checked_sub(1)?).ok()?, start))
        }
        None => {
            let number = u32::try_from(text.len()).ok()?;
            let room = if text.is_empty() { FIRST_PIECE } else { PIECE };
            let mut piece = String::with_capacity(room.max(name.len()));
            piece.push_str(name);
            text.push(piece);
            Some((number, 0))
        }
    }
}

fn text_of<'a>(text: &'a [String], entry: &Entry) -> &'a str {
    let piece = usize::try_from(entry.piece).ok().and_then(|piece| text.get(piece));
    let (start, length) = (usize::from(entry.start), usize::from(entry.length));
    piece.and_then(|piece| piece.get(start..start.saturating_add(length))).unwrap_or("")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_name_is_held_once_and_as_long_as_it_is_used() {
        let hasher = RandomState::new();
        let mut names = Names::default();
        let first = names.take(&hasher, "alice").unwrap();
        assert_eq!(names.take(&hasher, "alice"), Some(first));
        let other = names.take(&hasher, "bob").unwrap();
        assert_ne!(first, other);
        let before = names.clone();
        names.release(&hasher, first);
        assert_eq!(names.find(&hasher, "alice"), Some(first));
        names.release(&hasher, first);
        assert_eq!(names.find(&hasher, "alice"), None);
        assert_eq!(names.text(other), "bob");
        assert_eq!(before.find(&hasher, "alice"), Some(first), "a clone keeps what it had");
        assert_eq!(before.text(first), "alice");
    }

    #[test]
    fn a_name_of_any_length_is_told_apart_or_refused() {
        let hasher = RandomState::new();
        let mut names = Names::default();
        let long: Vec<_> = [0, 1, 255, 256, 257, 1024, 5000, 65_535].map(|length| "x".repeat(length)).into();
        let ids: Vec<_> = long.iter().map(|name| names.take(&hasher, name).unwrap()).collect();
        for (name, id) in long.iter().zip(ids) {
            assert!(names.text(id) == name && names.find(&hasher, name) == Some(id), "{}", name.len());
        }
        assert_eq!(names.take(&hasher, &"x".repeat(65_536)), None);
    }

    #[test]
    fn names_that_come_and_go_take_no_more_room() {
        let hasher = RandomState::new();
        let mut names = Names::default();
        let kept: Vec<_> = (0..500).map(|n| names.take(&hasher, &format!("kept-{n}")).unwrap()).collect();
        let mut after_one = 0;
        for round in 0..50 {
            let ids: Vec<_> = (0..2000).map(|n| names.take(&hasher, &format!("round-{round}-{n}")).unwrap()).collect();
            for id in ids {
                names.release(&hasher, id);
            }
            if round == 0 {
                after_one = names.bytes();
            }
        }
        assert!(names.bytes() < after_one * 2, "{} after {after_one}", names.bytes());
        for (n, id) in kept.into_iter().enumerate() {
            assert_eq!(names.text(id), format!("kept-{n}"));
            assert_eq!(names.find(&hasher, &format!("kept-{n}")), Some(id));
        }
    }
}
