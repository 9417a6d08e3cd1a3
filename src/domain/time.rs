//! Points in time as values: the core is handed `Now`, it never asks a clock.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use time::format_description::well_known::Rfc3339;

/// Allowance for clocks that disagree, in both directions: a `created` at most this far in the
/// future is accepted, and a replay entry is kept this much longer than the maximum age.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Whole seconds since the Unix epoch, as RFC 9421 `created` counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixSeconds(pub u64);

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

/// Milliseconds of a clock that never steps back. Only differences within one process mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonotonicMillis(pub u64);

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall clock: ages of signatures, expiries, timestamps.
    pub wall: UnixMillis,
    /// Monotonic clock: freshness of claims, budgets.
    pub monotonic: MonotonicMillis,
}

impl Now {
    /// The wall clock in whole seconds, rounded down.
    pub const fn seconds(self) -> UnixSeconds {
        self.wall.seconds()
    }
}

impl UnixMillis {
    /// In whole seconds, rounded down.
    pub const fn seconds(self) -> UnixSeconds {
        UnixSeconds(self.0 / 1000)
    }

    /// RFC 3339 in UTC with the milliseconds there are, e.g. `2026-02-20T18:04:26.123Z`, `2026-02-20T18:04:26Z`.
    pub fn rfc3339(self) -> String {
        let nanos = i128::from(self.0) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .ok()
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
    }
}

impl UnixSeconds {
    /// RFC 3339 in UTC with whole seconds, e.g. `2026-02-20T18:04:26Z`.
    pub fn rfc3339(self) -> String {
        UnixMillis(self.0.saturating_mul(1000)).rfc3339()
    }

    /// Reads RFC 3339 text; fractions are dropped. `None` where it is not RFC 3339 or lies before 1970.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(at.unix_timestamp()).ok().map(Self)
    }

    /// Reads the date of an HTTP header in its preferred form (RFC 9110 section 5.6.7, IMF-fixdate), e.g.
    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn parse_http_date(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text.trim(), &Rfc2822).ok()?;
        u64::try_from(at.unix_timestamp()).ok().map(Self)
    }
}

impl MonotonicMillis {
    /// Milliseconds from `earlier` to here; 0 where `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Whether that many milliseconds are more than clocks may differ.
pub fn is_beyond_skew(millis: u64) -> bool {
    u128::from(millis) > CLOCK_SKEW.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_http_header_is_read() {
        assert_eq!(UnixSeconds::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(UnixSeconds(784_111_777)));
        for bad in ["", "Sun, 06 Nov 1994", "1994-11-06T08:49:37Z", "784111777"] {
            assert_eq!(UnixSeconds::parse_http_date(bad), None, "{bad}");
        }
    }
}
