//! When a process that ended is started again, and when no longer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::time::MonotonicMillis;

/// How patient a supervisor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Wait before the first restart; it doubles with each failure within the window.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
    /// Failures are forgotten after this time.
    pub window: Duration,
    /// This many within the window, and it is not an accident any more.
    pub most: usize,
}

impl Default for Patience {
    /// An accident is over after 100 ms; what comes back by itself is noticed within 10 s; twelve failures,
    /// close to a minute without the process, are no accident.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            window: Duration::from_secs(300),
            most: 12,
        }
    }
}

/// The recent failures of one process.
#[derive(Debug, Default)]
pub(super) struct Failures(VecDeque<MonotonicMillis>);

impl Failures {
    /// Counts one and says how long to wait, or that it was one too many. `random` spreads the wait over
    /// its upper half, so that what fell together does not rise together.
    pub(super) fn count(&mut self, patience: Patience, now: MonotonicMillis, random: u8) -> Option<Duration> {
        let window = u64::try_from(patience.window.as_millis()).unwrap_or(u64::MAX);
        while self.0.front().is_some_and(|first| now.since(*first) > window) {
            self.0.pop_front();
        }
        let before = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push_back(now);
        if self.0.len() >= patience.most {
            return None;
        }
        let longest = patience.first.saturating_mul(2_u32.saturating_pow(before)).min(patience.longest);
        Some(longest / 2 + longest / 2 * u32::from(random) / 255)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let (mut failures, patience) = (Failures::default(), Patience::default());
        let waits: Vec<_> =
            (0..20).map_while(|second| failures.count(patience, MonotonicMillis(second * 1000), 255)).collect();
        assert_eq!(waits.len(), patience.most - 1);
        assert_eq!(waits.first(), Some(&patience.first));
        assert_eq!(waits.get(1), Some(&(patience.first * 2)));
        assert_eq!(waits.last(), Some(&patience.longest));
    }

    #[test]
    fn the_past_is_forgotten() {
        let (mut failures, patience) = (Failures::default(), Patience::default());
        let apart = u64::try_from(patience.window.as_millis()).unwrap() + 1;
        for time in 0..100 {
            assert_eq!(failures.count(patience, MonotonicMillis(time * apart), 0), Some(patience.first / 2));
        }
    }
}
