//! The clock of a store that several replicas share, held against our own.
//!
//! What a store remembers it forgets by its own clock. Where that is far from ours, or steps, nobody can say what it still knows.

use crate::domain::time::Now;
use crate::domain::time::UnixMillis;
use crate::domain::time::is_beyond_skew;

/// What a store said the time was, and our clocks before it was asked and after it answered.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The store's clock.
    pub at: UnixMillis,
    /// Ours before.
    pub before: Now,
    /// Ours after.
    pub after: Now,
}

/// How the clock of one store goes.
#[derive(Debug, Clone, Default)]
pub struct StoreClock {
    /// It was ahead of our monotonic clock by something between these, in milliseconds.
    ahead: Option<(i128, i128)>,
    has_stepped: bool,
}

impl Reading {
    /// By how many whole seconds the store's clock is ahead of our wall clock (below zero: behind it), where that is more than
    /// clocks may differ.
    pub fn apart(&self) -> Option<i64> {
        let (early, late) = (self.before.wall.0, self.after.wall.0);
        let ahead = self.at.0.saturating_sub(late.max(early));
        let behind = early.min(late).saturating_sub(self.at.0);
        let seconds = |millis: u64| i64::try_from(millis / 1000).unwrap_or(i64::MAX);
        match (is_beyond_skew(ahead), is_beyond_skew(behind)) {
            (true, _) => Some(seconds(ahead)),
            (false, true) => Some(seconds(behind).saturating_neg()),
            (false, false) => None,
        }
    }

    /// How far it is ahead of our monotonic clock, between what and what.
    fn ahead(&self) -> (i128, i128) {
        let of = |now: Now| i128::from(self.at.0).saturating_sub(i128::from(now.monotonic.0));
        (of(self.after), of(self.before))
    }
}

impl StoreClock {
    /// Whether the store's clock has stepped, now or at an earlier look, since this was made or told to forget it. One that drifts
    /// does not step.
    pub fn look(&mut self, reading: &Reading) -> bool {
        let (least, most) = reading.ahead();
        if let Some((was_least, was_most)) = self.ahead {
            let step = least.saturating_sub(was_most).max(was_least.saturating_sub(most));
            self.has_stepped |= u64::try_from(step).is_ok_and(is_beyond_skew);
        }
        self.ahead = Some((least, most));
        self.has_stepped
    }

    /// What [`Self::look`] said last.
    pub const fn has_stepped(&self) -> bool {
        self.has_stepped
    }

    /// What it remembered before it stepped counts no more.
    pub const fn forget(&mut self) {
        self.has_stepped = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::MonotonicMillis;

    /// Our wall clock shows `wall` and has run for `ran`; the answer took `took`.
    fn reading(at: u64, wall: u64, ran: u64, took: u64) -> Reading {
        let now = |more: u64| Now { wall: UnixMillis(wall + more), monotonic: MonotonicMillis(ran + more) };
        Reading { at: UnixMillis(at), before: now(0), after: now(took) }
    }

    #[test]
    fn clocks_may_differ_by_the_skew_and_an_answer_may_take_its_time() {
        let apart = |at, took| reading(at, 100_000, 0, took).apart();
        assert_eq!(apart(105_000, 0), None);
        assert_eq!(apart(105_001, 0), Some(5));
        assert_eq!(apart(420_000, 0), Some(320));
        assert_eq!(apart(95_000, 0), None);
        assert_eq!(apart(80_000, 0), Some(-20));
        assert_eq!(apart(109_000, 4_000), None, "it may have been late as well");
        assert_eq!(apart(0, 0), Some(-100));
    }

    #[test]
    fn a_clock_that_steps_is_told_until_it_is_forgotten_and_one_that_drifts_is_none() {
        let mut clock = StoreClock::default();
        for second in 0..100_u64 {
            // It gains a tenth of a second in each, and our wall clock is anywhere.
            assert!(!clock.look(&reading(50_000 + second * 1_100, second * 77, second * 1_000, 3)));
        }
        let mut clock = StoreClock::default();
        assert!(!clock.look(&reading(50_000, 0, 0, 0)));
        assert!(!clock.look(&reading(56_000, 0, 1_000, 0)));
        assert!(clock.look(&reading(377_000, 0, 2_000, 0)));
        // Back where it was, it has lost what it lost.
        assert!(clock.look(&reading(58_000, 0, 3_000, 0)));
        clock.forget();
        assert!(!clock.look(&reading(59_000, 0, 4_000, 0)));
        assert!(clock.look(&reading(9_000, 0, 5_000, 0)), "also back");
    }

    #[test]
    fn an_answer_that_was_read_late_is_no_step() {
        let mut clock = StoreClock::default();
        assert!(!clock.look(&reading(50_000, 0, 0, 0)));
        assert!(!clock.look(&reading(51_000, 0, 1_000, 60_000)));
        assert!(!clock.look(&reading(112_000, 0, 62_000, 0)));
    }
}
