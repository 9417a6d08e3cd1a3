//! Moments as people read them: how long ago, with the whole moment beside it.

use crate::api::moment::iso;
use crate::api::text;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A moment on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct When {
    /// For machines: `2026-02-20T18:04:26.120Z`.
    pub(super) iso: String,
    /// Seen from now: `5 min ago`, `in 3 days`.
    pub(super) seen: String,
    /// The whole moment: `2026-02-20 18:04 UTC`.
    pub(super) whole: String,
}

impl When {
    /// A moment as the API writes it; one that cannot be read is shown as it is.
    pub(super) fn of(text: &str, now_ms: i64) -> Self {
        match text::instant(text) {
            Some(at_ms) => Self::at(at_ms, now_ms),
            None => Self { iso: text.to_owned(), seen: text.to_owned(), whole: text.to_owned() },
        }
    }

    /// A moment in Unix milliseconds.
    pub(super) fn at(at_ms: i64, now_ms: i64) -> Self {
        let iso = iso(at_ms);
        let whole = format!("{} {} UTC", part(&iso, 0, 10), part(&iso, 11, 16));
        let gap = now_ms.saturating_sub(at_ms);
        let seen = match (gap, length(gap.saturating_abs())) {
            (_, None) => "just now".to_owned(),
            (0.., Some(length)) => format!("{length} ago"),
            (_, Some(length)) => format!("in {length}"),
        };
        Self { iso, seen, whole }
    }
}

/// A length of time in its largest unit; `None` where it is next to nothing.
fn length(ms: i64) -> Option<String> {
    let unit = |size: i64, one: &str, many: &str| {
        let count = ms.checked_div(size).unwrap_or(0);
        format!("{count} {}", if count == 1 { one } else { many })
    };
    if ms < 10 * SECOND {
        return None;
    }
    Some(if ms < MINUTE {
        unit(SECOND, "s", "s")
    } else if ms < HOUR {
        unit(MINUTE, "min", "min")
    } else if ms < DAY {
        unit(HOUR, "hour", "hours")
    } else {
        unit(DAY, "day", "days")
    })
}

/// A part of an ISO text, which is ASCII.
pub(super) fn part(iso: &str, from: usize, to: usize) -> &str {
    iso.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_seen_from_now() {
        let now = 1_800_000_000_000;
        for (gap, seen) in [
            (0, "just now"),
            (9 * SECOND, "just now"),
            (42 * SECOND, "42 s ago"),
            (MINUTE, "1 min ago"),
            (HOUR, "1 hour ago"),
            (DAY - 1, "23 hours ago"),
            (DAY, "1 day ago"),
            (400 * DAY, "400 days ago"),
            (-3 * DAY, "in 3 days"),
            (-5 * SECOND, "just now"),
        ] {
            assert_eq!(When::at(now - gap, now).seen, seen);
        }
    }

    #[test]
    fn what_is_no_moment_is_shown_as_it_is() {
        let when = When::of("<b>soon</b>", 0);
        assert_eq!((when.iso.as_str(), when.seen.as_str()), ("<b>soon</b>", "<b>soon</b>"));
        assert_eq!(When::of("2026-02-20T18:04:26.120Z", 0).whole, "2026-02-20 18:04 UTC");
    }
}
