//! Names of services and namespaces, each written down once however many approvals bear it.
//!
//! A hundred thousand approvals may name a hundred thousand namespaces or one. Texts lie end to end in
//! a few hundred blocks; a change copies the one block it touches, a clone copies none.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;

use hashbrown::HashTable;

/// Number of blocks; the low byte of an id says in which one its name lies.
const BLOCKS: usize = 256;

/// Stands for a name in one [`Names`] and its clones, for as long as it is in use there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NameId(u32);

impl NameId {
    /// As a number, for hashing.
    pub(super) fn number(self) -> u64 {
        u64::from(self.0)
    }

    fn new(block: u8, place: u32) -> Option<Self> {
        // 24 bits of places.
        (place < 1 << 24).then_some(Self(place << 8 | u32::from(block)))
    }

    fn block(self) -> usize {
        usize::from(self.0.to_le_bytes()[0])
    }

    fn place(self) -> u32 {
        self.0 >> 8
    }
}

/// The names in use, with how often each is.
#[derive(Clone)]
pub(super) struct Names {
    blocks: Vec<Arc<Block>>,
}

#[derive(Clone, Default)]
struct Block {
    entries: Vec<Entry>,
    /// Places of entries in use, by the hash of their text.
    index: HashTable<u32>,
    /// Places of entries not in use.
    free: Vec<u32>,
    text: String,
    /// Bytes of `text` that no entry needs.
    unused: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    start: u32,
    length: u32,
    uses: u32,
}

impl Default for Names {
    fn default() -> Self {
        Self { blocks: vec![Arc::default(); BLOCKS] }
    }
}

impl Names {
    /// The id of a name in use.
    pub(super) fn find(&self, hasher: &RandomState, name: &str) -> Option<NameId> {
        let hash = hasher.hash_one(name);
        let block = block_of(hash);
        NameId::new(block, self.blocks.get(usize::from(block))?.find(hash, name)?)
    }

    /// The text behind an id; empty for an id that is not of here.
    pub(super) fn text(&self, id: NameId) -> &str {
        self.blocks.get(id.block()).map_or("", |block| block.text_at(id.place()))
    }

    /// Notes one use more of a name. `None`: there is no room for it.
    pub(super) fn take(&mut self, hasher: &RandomState, name: &str) -> Option<NameId> {
        let hash = hasher.hash_one(name);
        let at = block_of(hash);
        let block = Arc::make_mut(self.blocks.get_mut(usize::from(at))?);
        let place = match block.find(hash, name) {
            Some(place) => {
                let entry = block.entries.get_mut(usize::try_from(place).ok()?)?;
                entry.uses = entry.uses.checked_add(1)?;
                place
            }
            None => block.insert(hasher, hash, name)?,
        };
        NameId::new(at, place)
    }

    /// Notes one use less; a name without use is forgotten and its id given to another.
    pub(super) fn release(&mut self, hasher: &RandomState, id: NameId) {
        if let Some(block) = self.blocks.get_mut(id.block()) {
            Arc::make_mut(block).release(hasher, id.place());
        }
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.blocks
            .iter()
            .map(|block| {
                block.entries.capacity() * size_of::<Entry>()
                    + block.index.allocation_size()
                    + block.free.capacity() * 4
                    + block.text.capacity()
            })
            .sum()
    }
}

/// Bits the hash tables inside a block do not choose by.
fn block_of(hash: u64) -> u8 {
    (hash >> 48).to_le_bytes()[0]
}

impl Block {
    fn text_at(&self, place: u32) -> &str {
        let entry = usize::try_from(place).ok().and_then(|place| self.entries.get(place));
        entry.map_or("", |entry| text_of(&self.text, entry))
    }

    fn find(&self, hash: u64, name: &str) -> Option<u32> {
        self.index.find(hash, |place| self.text_at(*place) == name).copied()
    }

    fn insert(&mut self, hasher: &RandomState, hash: u64, name: &str) -> Option<u32> {
        self.compact();
        let entry =
            Entry { start: u32::try_from(self.text.len()).ok()?, length: u32::try_from(name.len()).ok()?, uses: 1 };
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                grow(&mut self.entries);
                self.entries.push(Entry { start: 0, length: 0, uses: 0 });
                u32::try_from(self.entries.len().checked_sub(1)?).ok()?
            }
        };
        *self.entries.get_mut(usize::try_from(place).ok()?)? = entry;
        if self.text.capacity().saturating_sub(self.text.len()) < name.len() {
            self.text.reserve_exact(name.len().max(self.text.len() / 8));
        }
        self.text.push_str(name);
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
            self.unused = self.unused.saturating_add(usize::try_from(entry.length).unwrap_or(usize::MAX));
            entry.length = 0;
            self.free.push(place);
        }
    }

    /// Writes the texts anew where most of them are of no use any more.
    fn compact(&mut self) {
        if self.unused < 64 || self.unused < self.text.len() / 2 {
            return;
        }
        let mut text = String::with_capacity(self.text.len().saturating_sub(self.unused));
        for entry in &mut self.entries {
            let start = text.len();
            text.push_str(text_of(&self.text, entry));
            // It is not longer than what it replaces.
            entry.start = u32::try_from(start).unwrap_or(u32::MAX);
        }
        (self.text, self.unused) = (text, 0);
    }
}

fn text_of<'a>(text: &'a str, entry: &Entry) -> &'a str {
    let range = usize::try_from(entry.start).ok().zip(usize::try_from(entry.length).ok());
    range.and_then(|(start, length)| text.get(start..start.checked_add(length)?)).unwrap_or("")
}

/// Makes room for one more, an eighth ahead: doubling would leave half of a large table empty.
pub(super) fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(4));
    }
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
