//! Moments: Unix milliseconds in the database, ISO text with milliseconds and `Z` in JSON.

use time::OffsetDateTime;

use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;

/// Now.
pub fn now_ms(clock: SystemClock) -> i64 {
    i64::try_from(clock.now().wall.0).unwrap_or(i64::MAX)
}

/// `2026-02-20T18:04:26.120Z`: always three digits, so that text sorts like time.
pub fn iso(ms: i64) -> String {
    let at =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_always() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(1_771_610_666_120), "2026-02-20T18:04:26.120Z");
        assert_eq!(iso(i64::MIN), "1970-01-01T00:00:00.000Z");
    }
}
