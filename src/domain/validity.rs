//! When a certificate holds, and whether somebody should look after it.

use crate::domain::time::UnixSeconds;

/// Longest time before the end in which it is told of, in seconds: two weeks.
const LONGEST_NOTICE: u64 = 14 * 24 * 3600;
/// Of a certificate that holds shorter the notice is this part of its time: whoever renews certificates does so earlier.
const NOTICE_PART: u64 = 5;

/// The first and the last second in which a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first.
    pub from: UnixSeconds,
    /// The last.
    pub until: UnixSeconds,
}

impl Validity {
    /// Whether its time has passed.
    pub const fn is_over(self, now: UnixSeconds) -> bool {
        self.until.0 < now.0
    }

    /// Whether so little is left that somebody should look why it was not replaced; also where nothing is.
    pub fn ends_soon(self, now: UnixSeconds) -> bool {
        let whole = self.until.0.saturating_sub(self.from.0);
        self.until.0.saturating_sub(now.0) <= LONGEST_NOTICE.min(whole / NOTICE_PART)
    }

    /// How its end stands to now, for people: `ends in 3 days (2026-12-02T00:00:00Z)`, `ended at 2026-12-02T00:00:00Z`.
    pub fn said(self, now: UnixSeconds) -> String {
        let at = self.until.rfc3339();
        if self.is_over(now) {
            return format!("ended at {at}");
        }
        let left = self.until.0.saturating_sub(now.0);
        let left = match (left / 86_400, left / 3_600, left / 60) {
            (days @ 2.., ..) => format!("{days} days"),
            (_, hours @ 2.., _) => format!("{hours} hours"),
            (_, _, minutes @ 2..) => format!("{minutes} minutes"),
            (..) => format!("{left} seconds"),
        };
        format!("ends in {left} ({at})")
    }

    /// As one word: both seconds, with a dash.
    pub fn word(self) -> String {
        format!("{}-{}", self.from.0, self.until.0)
    }

    /// Reads that word.
    pub fn parse(word: &str) -> Option<Self> {
        let (from, until) = word.split_once('-')?;
        Some(Self { from: UnixSeconds(from.parse().ok()?), until: UnixSeconds(until.parse().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn of(days: u64) -> Validity {
        Validity { from: UnixSeconds(1_000 * DAY), until: UnixSeconds((1_000 + days) * DAY) }
    }

    #[test]
    fn notice_is_two_weeks_and_less_where_a_certificate_holds_for_less() {
        let left = |validity: Validity, seconds: u64| UnixSeconds(validity.until.0 - seconds);
        for (days, notice) in [(365, 14 * DAY), (90, 14 * DAY), (30, 6 * DAY), (1, DAY / 5)] {
            let validity = of(days);
            assert!(validity.ends_soon(left(validity, notice)), "{days}");
            assert!(!validity.ends_soon(left(validity, notice + 1)), "{days}");
            assert!(validity.ends_soon(UnixSeconds(validity.until.0 + 1)), "{days}");
        }
        assert!(!of(90).is_over(of(90).until) && of(90).is_over(UnixSeconds(of(90).until.0 + 1)));
    }

    #[test]
    fn the_end_is_said_in_the_unit_that_fits() {
        let validity = of(90);
        let said = |left: u64| validity.said(UnixSeconds(validity.until.0 - left));
        for (left, wanted) in
            [(5 * DAY + 7, "5 days"), (47 * 3_600, "47 hours"), (90 * 60, "90 minutes"), (59, "59 seconds")]
        {
            assert!(said(left).starts_with(&format!("ends in {wanted} (1972-")), "{}", said(left));
        }
        assert_eq!(validity.said(UnixSeconds(validity.until.0 + 1)), format!("ended at {}", validity.until.rfc3339()));
    }

    #[test]
    fn the_word_is_read_again() {
        assert_eq!(Validity::parse(&of(90).word()), Some(of(90)));
        for bad in ["", "1", "1-", "-1", "a-b", "1-2-3"] {
            assert_eq!(Validity::parse(bad), None, "{bad}");
        }
    }
}
