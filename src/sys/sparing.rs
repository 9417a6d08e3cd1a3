//! Words for the log that strangers cause: the first of them, then now and then one that says how many were left out.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::sys::clock::Stopwatch;

/// Least time between two of them.
const PAUSE: Duration = Duration::from_secs(10);

/// Knows when the last was said.
#[derive(Debug, Default)]
pub struct Sparing(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    said: Option<Stopwatch>,
    unsaid: u64,
}

impl Sparing {
    /// Whether it may be said now; if so, how many were not since the last.
    pub fn turn(&self) -> Option<u64> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.said.as_ref().is_some_and(|said| said.elapsed() < PAUSE) {
            held.unsaid = held.unsaid.saturating_add(1);
            return None;
        }
        held.said = Some(Stopwatch::start());
        Some(std::mem::take(&mut held.unsaid))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_flood_is_one_line() {
        let sparing = Sparing::default();
        assert_eq!(sparing.turn(), Some(0));
        assert!((0..1000).all(|_| sparing.turn().is_none()));
        assert_eq!(sparing.0.lock().unwrap().unsaid, 1000);
    }
}
