//! A list in blocks of one size. A vector that grows moves, and leaves holes that the next of hundreds of
//! vectors growing beside it cannot use; half of the memory would be such holes.

/// Entries of a block.
const BLOCK: usize = 32;
/// Room of a first block.
const FIRST: usize = 4;

/// A list that grows and shrinks at its end.
#[derive(Clone)]
pub(super) struct Blocks<T> {
    /// All full but the last, none empty.
    blocks: Vec<Vec<T>>,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { blocks: Vec::new() }
    }
}

impl<T> Blocks<T> {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        let last = self.blocks.last().map_or(0, Vec::len);
        self.blocks.len().saturating_sub(1).saturating_mul(BLOCK).saturating_add(last)
    }

    /// Adds an entry at the end.
    pub(super) fn push(&mut self, entry: T) {
        match self.blocks.last_mut().filter(|block| block.len() < BLOCK) {
            Some(block) => {
                if block.len() == block.capacity() {
                    block.reserve_exact(block.len().max(FIRST).min(BLOCK.saturating_sub(block.len())));
                }
                block.push(entry);
            }
            None => {
                let mut block = Vec::with_capacity(if self.blocks.is_empty() { FIRST } else { BLOCK });
                block.push(entry);
                self.blocks.push(block);
            }
        }
    }

    /// Takes the entry from the end.
    pub(super) fn pop(&mut self) -> Option<T> {
        let block = self.blocks.last_mut()?;
        let entry = block.pop();
        if block.is_empty() {
            self.blocks.pop();
        }
        entry
    }

    /// An entry by its number.
    pub(super) fn get(&self, number: usize) -> Option<&T> {
        self.blocks.get(number / BLOCK)?.get(number % BLOCK)
    }

    /// An entry by its number, to be changed.
    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.blocks.get_mut(number / BLOCK)?.get_mut(number % BLOCK)
    }

    /// All entries from this number on.
    pub(super) fn iter_from(&self, number: usize) -> impl Iterator<Item = &T> {
        let blocks = self.blocks.get(number / BLOCK..).unwrap_or_default();
        blocks.iter().flatten().skip(number % BLOCK)
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.iter_from(0)
    }

    /// All entries, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.blocks.iter_mut().flatten()
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| block.capacity() * size_of::<T>());
        blocks.sum::<usize>() + self.blocks.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list() {
        let (mut blocks, mut list) = (Blocks::default(), Vec::new());
        for number in 0..100 {
            blocks.push(number);
            list.push(number);
            assert_eq!((blocks.len(), blocks.get(number), blocks.get(number + 1)), (list.len(), Some(&number), None));
            blocks = blocks.clone();
        }
        for from in [0, 1, 31, 32, 33, 64, 99, 100, 1000] {
            assert!(blocks.iter_from(from).eq(list.iter().skip(from)), "from {from}");
        }
        blocks.iter_mut().for_each(|entry| *entry += 1);
        assert_eq!(blocks.get_mut(70), Some(&mut 71));
        for number in (0..100).rev() {
            assert_eq!(blocks.pop(), Some(number + 1));
            assert_eq!(blocks.len(), number);
        }
        assert_eq!((blocks.pop(), blocks.bytes() < 200), (None, true));
    }
}
