//! When a process that ended is started again, and when no longer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::time::MonotonicMillis;

/// Wait before the first restart: an accident is over by then.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait: what comes back by itself is noticed soon.
const LONGEST: Duration = Duration::from_secs(10);
/// Failures are forgotten after this time; within it they count.
pub(super) const WINDOW: Duration = Duration::from_secs(300);
/// This many within the window, and it is not an accident any more.
pub(super) const MOST: usize = 12;

/// The recent failures of one process.
#[derive(Debug, Default)]
pub(super) struct Failures(VecDeque<MonotonicMillis>);

impl Failures {
    /// Counts one and says how long to wait, or that it was one too many. `random` spreads the wait over
    /// its upper half, so that what fell together does not rise together.
    pub(super) fn count(&mut self, now: MonotonicMillis, random: u8) -> Option<Duration> {
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        while self.0.front().is_some_and(|first| now.since(*first) > window) {
            self.0.pop_front();
        }
        let before = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push_back(now);
        if self.0.len() >= MOST {
            return None;
        }
        let longest = FIRST.saturating_mul(2_u32.saturating_pow(before)).min(LONGEST);
        Some(longest / 2 + longest / 2 * u32::from(random) / 255)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let mut failures = Failures::default();
        let waits: Vec<_> = (0..20).map_while(|second| failures.count(MonotonicMillis(second * 1000), 255)).collect();
        assert_eq!(waits.len(), MOST - 1);
        assert_eq!(waits.first(), Some(&FIRST));
        assert_eq!(waits.get(1), Some(&(FIRST * 2)));
        assert_eq!(waits.last(), Some(&LONGEST));
    }

    #[test]
    fn the_past_is_forgotten() {
        let mut failures = Failures::default();
        let apart = u64::try_from(WINDOW.as_millis()).unwrap() + 1;
        for time in 0..100 {
            assert_eq!(failures.count(MonotonicMillis(time * apart), 0), Some(FIRST / 2));
        }
    }
}
