//! Lists of a gateway, which may be as long as it likes: the beginning of each is read, and the rest counted.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::IgnoredAny;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// Entries of one list that are read and shown.
pub(super) const MAX_SHOWN: usize = 1000;

/// The beginning of a list: at most `MOST` entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed<T, const MOST: usize = MAX_SHOWN> {
    /// At most `MOST`.
    pub(super) shown: Vec<T>,
    /// How many there are besides.
    pub(super) more: usize,
}

impl<T, const MOST: usize> Default for Listed<T, MOST> {
    fn default() -> Self {
        Self { shown: Vec::new(), more: 0 }
    }
}

impl<T, const MOST: usize> Listed<T, MOST> {
    /// The beginning of a list that is there already.
    pub(super) fn of(mut all: Vec<T>) -> Self {
        let more = all.len().saturating_sub(MOST);
        all.truncate(MOST);
        Self { shown: all, more }
    }

    /// Something else in the place of each entry.
    pub(super) fn map<U>(self, change: impl FnMut(T) -> U) -> Listed<U, MOST> {
        Listed { shown: self.shown.into_iter().map(change).collect(), more: self.more }
    }

    /// At most `most` of them.
    #[must_use]
    pub(super) fn cut(mut self, most: usize) -> Self {
        self.more = self.more.saturating_add(self.shown.len().saturating_sub(most));
        self.shown.truncate(most);
        self
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Listed<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListedVisitor(PhantomData))
    }
}

struct ListedVisitor<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for ListedVisitor<T, MOST> {
    type Value = Listed<T, MOST>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Listed<T, MOST>, A::Error> {
        let mut listed = Listed::default();
        while listed.shown.len() < MOST {
            match entries.next_element()? {
                Some(entry) => listed.shown.push(entry),
                None => return Ok(listed),
            }
        }
        while entries.next_element::<IgnoredAny>()?.is_some() {
            listed.more = listed.more.saturating_add(1);
        }
        Ok(listed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_thousand_entries_are_read_and_the_others_counted() {
        for (entries, shown, more) in
            [(0, 0, 0), (999, 999, 0), (1000, 1000, 0), (1001, 1000, 1), (50_000, 1000, 49_000)]
        {
            let text = serde_json::to_string(&vec![7; entries]).unwrap();
            let listed: Listed<u8> = serde_json::from_str(&text).unwrap();
            assert_eq!((listed.shown.len(), listed.more), (shown, more));
            assert_eq!(Listed::of(vec![7; entries]), listed);
        }
    }

    #[test]
    fn what_is_cut_is_counted() {
        let cut: Listed<i32> = Listed { shown: vec![1, 2, 3], more: 4 }.map(|entry| entry * 2).cut(2);
        assert_eq!(cut, Listed { shown: vec![2, 4], more: 5 });
        assert_eq!(cut.clone().cut(9), cut);
    }
}
