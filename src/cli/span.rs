//! Times as a person reads them in a table: how long ago, how long still. Pure.

use crate::domain::time::UnixSeconds;

/// How long ago, in its largest unit; empty where there is no such time.
pub(crate) fn age(since: Option<&str>, now: UnixSeconds) -> String {
    since.and_then(UnixSeconds::parse_rfc3339).map_or_else(String::new, |at| span(now.0.saturating_sub(at.0)))
}

/// How long still; `ended` where it is over; empty where there is no such time.
pub(crate) fn left(until: Option<&str>, now: UnixSeconds) -> String {
    let Some(at) = until.and_then(UnixSeconds::parse_rfc3339) else { return String::new() };
    if at <= now { "ended".to_owned() } else { format!("in {}", span(at.0.saturating_sub(now.0))) }
}

/// Seconds in their largest unit.
pub(crate) fn span(seconds: u64) -> String {
    const UNITS: &[(u64, &str)] = &[(86_400, "d"), (3600, "h"), (60, "m")];
    let largest = UNITS.iter().find(|(length, _)| seconds >= *length);
    largest.map_or_else(|| format!("{seconds}s"), |(length, name)| format!("{}{name}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        let now = UnixSeconds(1_700_000_000);
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(age(Some(&UnixSeconds(now.0 - seconds).rfc3339()), now), text);
        }
        assert_eq!(age(None, now), "");
        assert_eq!(left(Some(&UnixSeconds(now.0 + 90).rfc3339()), now), "in 1m");
        assert_eq!(left(Some(&now.rfc3339()), now), "ended");
    }
}
