//! Reading the clocks: one of the two trait seams of the crate.

use std::sync::LazyLock;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::UnixMillis;

/// Something that can say what time it is.
pub trait Clock: Send + Sync + 'static {
    /// Both clocks, read together.
    fn now(&self) -> Now;
}

/// Where the monotonic clock begins: far from zero, so that "confirmed twenty seconds ago" can be
/// written down by a process that started five seconds ago.
const MONOTONIC_START_MS: u64 = 1 << 40;

/// Nanoseconds since 1970, for a span of a trace.
#[expect(clippy::disallowed_methods, reason = "this is where the clocks are read")]
pub fn wall_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    u64::try_from(since).unwrap_or(u64::MAX)
}

/// Measures how long something takes.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins now.
    #[expect(clippy::disallowed_methods, reason = "this is where the clocks are read")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has been.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// Time since this process first asked. It goes on while the machine sleeps, where the system can tell: what was confirmed
/// before that is as old as it is.
#[cfg(target_os = "linux")]
fn running() -> Duration {
    static START: LazyLock<Duration> = LazyLock::new(since_boot);
    // First, or it would begin after it is read.
    let start = *START;
    since_boot().saturating_sub(start)
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime)).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "this is where the clocks are read")]
fn running() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where the clocks are read")]
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Now {
            wall: UnixMillis(u64::try_from(wall).unwrap_or(u64::MAX)),
            monotonic: MonotonicMillis(
                u64::try_from(running().as_millis()).unwrap_or(u64::MAX).saturating_add(MONOTONIC_START_MS),
            ),
        }
    }
}
