//! The time by which the entries of a window expire.
//!
//! It goes as the monotonic clock does, from what the wall clock showed when it was looked at first. Where the wall clock leaps
//! ahead nothing expires for that: it may step back. Where it steps back, so can this time, and entries stay the longer.

use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::is_beyond_skew;

/// That time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// What it was at `since`, in milliseconds.
    began: u64,
    since: MonotonicMillis,
    /// How far the wall clock was ahead of it at most, in milliseconds, since it was last told to have stepped back.
    lead: i128,
}

impl Pace {
    /// Begins with what the wall clock shows.
    pub(super) const fn begin(now: Now) -> Self {
        Self { began: now.wall.0, since: now.monotonic, lead: 0 }
    }

    /// What it is now, in seconds.
    pub(super) const fn seconds(&self, now: Now) -> u64 {
        self.millis(now) / 1000
    }

    /// By how many seconds the wall clock has stepped back, where that is more than clocks may differ. It is told once.
    pub(super) fn look(&mut self, now: Now) -> Option<u64> {
        let lead = i128::from(now.wall.0).saturating_sub(i128::from(self.millis(now)));
        let back = u64::try_from(self.lead.saturating_sub(lead)).unwrap_or(0);
        if is_beyond_skew(back) {
            self.lead = lead;
            return Some(back.div_ceil(1000));
        }
        self.lead = self.lead.max(lead);
        None
    }

    /// Goes back.
    pub(super) fn turn_back(&mut self, seconds: u64) {
        let millis = seconds.saturating_mul(1000);
        self.began = self.began.saturating_sub(millis);
        self.lead = self.lead.saturating_add(i128::from(millis));
    }

    const fn millis(&self, now: Now) -> u64 {
        self.began.saturating_add(now.monotonic.since(self.since))
    }
}
