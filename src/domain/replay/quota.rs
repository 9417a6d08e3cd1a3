//! How many live entries one key holds, in bounded memory whatever the number of keys.
//!
//! A count-min sketch per span of expiry: each holder adds to one counter in each row, and the
//! smallest of its counters is its count. It never counts too little. It counts too much only for
//! a holder that shares its counter in every row with others; with at most four keys near a
//! quarter of the window that meets fewer than one in a hundred million.

use std::collections::VecDeque;

/// Independent rows.
const ROWS: usize = 4;
/// Counters per row; a power of two.
const COLUMNS: usize = 512;
/// Seconds of expiry counted together: a key's share is freed at most this much late.
const SPAN_SECONDS: u64 = 16;

type Counters = [u32; ROWS * COLUMNS];

/// Entries by holder.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// Sum of all spans; allocated with the first entry.
    total: Option<Box<Counters>>,
    /// One part per span of expiry, from `first` on.
    spans: VecDeque<Option<Box<Counters>>>,
    /// Number of the front span.
    first: u64,
}

impl Quota {
    /// An upper bound of the live entries of `holder`, tight but for the odds given above.
    pub(super) fn held(&self, holder: u64) -> usize {
        let Some(total) = self.total.as_deref() else { return 0 };
        let least = places(holder).filter_map(|at| total.get(at)).min().copied().unwrap_or(0);
        usize::try_from(least).unwrap_or(usize::MAX)
    }

    /// Counts an entry that expires at `expires_at`, which is not before the last [`Quota::advance`].
    pub(super) fn add(&mut self, holder: u64, expires_at: u64) {
        let span = (expires_at / SPAN_SECONDS).saturating_sub(self.first);
        let at = usize::try_from(span).unwrap_or(usize::MAX);
        while self.spans.len() <= at {
            self.spans.push_back(None);
        }
        let total = self.total.get_or_insert_with(empty);
        let Some(part) = self.spans.get_mut(at) else { return };
        let part = part.get_or_insert_with(empty);
        for place in places(holder) {
            for counters in [&mut *total, &mut *part] {
                if let Some(counter) = counters.get_mut(place) {
                    *counter = counter.saturating_add(1);
                }
            }
        }
    }

    /// Forgets the spans that lie wholly before second `now`.
    pub(super) fn advance(&mut self, now: u64) {
        let current = now / SPAN_SECONDS;
        for _ in self.first..current {
            let Some(gone) = self.spans.pop_front() else { break };
            let (Some(gone), Some(total)) = (gone, self.total.as_deref_mut()) else { continue };
            for (sum, part) in total.iter_mut().zip(gone.iter()) {
                *sum = sum.saturating_sub(*part);
            }
        }
        self.first = self.first.max(current);
    }

    /// Goes back to second `now`; nothing that is counted is freed before its time.
    pub(super) fn turn_back(&mut self, now: u64) {
        let current = now / SPAN_SECONDS;
        for _ in current..self.first {
            self.spans.push_front(None);
        }
        self.first = self.first.min(current);
    }

    /// Bytes allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        let boxes = self.spans.iter().flatten().count().saturating_add(usize::from(self.total.is_some()));
        boxes.saturating_mul(size_of::<Counters>()).saturating_add(self.spans.capacity().saturating_mul(8))
    }
}

fn empty() -> Box<Counters> {
    Box::new([0; ROWS * COLUMNS])
}

/// One counter per row: nine bits of the hash choose each.
fn places(holder: u64) -> impl Iterator<Item = usize> {
    (0..ROWS).map(move |row| {
        let shifted = holder >> row.saturating_mul(16);
        let column = usize::try_from(shifted & 0xffff).unwrap_or(0) & COLUMNS.saturating_sub(1);
        row.saturating_mul(COLUMNS).saturating_add(column)
    })
}
