//! Pictures of numbers: calls over time as bars, and shares of a whole. Pure: numbers in, coordinates out.
//!
//! A picture is drawn in units of its own and stretched to its place; what must not be stretched (text) stands
//! beside it.

use crate::api::moment::iso;
use crate::api::usage_chart::Calls;
use crate::dashboard::when::part;

/// Width of a picture, in its own units.
pub(super) const WIDTH: i64 = 10_000;
/// Height of a picture, in its own units.
pub(super) const HEIGHT: i64 = 2_000;

/// One step of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) x: i64,
    pub(super) width: i64,
    /// Top and height of the part that succeeded.
    pub(super) good: (i64, i64),
    /// Top and height of the part that failed, above it.
    pub(super) bad: (i64, i64),
    /// What a pointer that rests on it is told.
    pub(super) title: String,
}

/// Calls over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bars {
    pub(super) bars: Vec<Bar>,
    /// Marks of the scale, the largest first.
    pub(super) marks: Vec<i64>,
    /// Names of some steps, evenly spread from the first to the last.
    pub(super) names: Vec<String>,
    /// All calls.
    pub(super) total: Calls,
}

impl Bars {
    /// Of steps that begin at `from_ms` and are `step_ms` long.
    pub(super) fn of(steps: &[Calls], from_ms: i64, step_ms: i64) -> Self {
        let highest = steps.iter().map(|calls| calls.all).max().unwrap_or(0);
        let top = scale(highest);
        let count = i64::try_from(steps.len()).unwrap_or(1).max(1);
        let pitch = WIDTH.checked_div(count).unwrap_or(WIDTH);
        // A gap of a fifth between two bars.
        let width = pitch.saturating_sub(pitch / 5).max(1);
        let height = |calls: i64| calls.saturating_mul(HEIGHT).checked_div(top).unwrap_or(0);
        let mut total = Calls::default();
        let bars = steps.iter().zip(0_i64..).map(|(calls, index)| {
            total.all = total.all.saturating_add(calls.all);
            total.good = total.good.saturating_add(calls.good);
            let failed = calls.all.saturating_sub(calls.good);
            let (good, bad) = (height(calls.good), height(failed));
            let begins = from_ms.saturating_add(step_ms.saturating_mul(index));
            Bar {
                x: pitch.saturating_mul(index),
                width,
                good: (HEIGHT.saturating_sub(good), good),
                bad: (HEIGHT.saturating_sub(good).saturating_sub(bad), bad),
                title: format!("{}: {} calls, {failed} failed", name(begins, step_ms), calls.all),
            }
        });
        let bars = bars.collect();
        let last = count.saturating_sub(1);
        let names = (0..=4_i64).map(|quarter| {
            let index = last.saturating_mul(quarter) / 4;
            name(from_ms.saturating_add(step_ms.saturating_mul(index)), step_ms)
        });
        Self { bars, marks: vec![top, top / 2, 0], names: names.collect(), total }
    }

    /// For whoever cannot see the picture.
    pub(super) fn spoken(&self) -> String {
        let failed = self.total.all.saturating_sub(self.total.good);
        let begin = self.names.first().map_or("", String::as_str);
        let end = self.names.last().map_or("", String::as_str);
        format!("Calls from {begin} to {end}: {} in all, {failed} failed", self.total.all)
    }
}

/// The least number of the series 4, 10, 20, 40, 100, 200, 400, … that is not below `highest`; its half is whole.
fn scale(highest: i64) -> i64 {
    let mut power = 1_i64;
    while power < i64::MAX / 100 {
        for step in [4, 10, 20] {
            let top = power.saturating_mul(step);
            if top >= highest {
                return top;
            }
        }
        power = power.saturating_mul(10);
    }
    highest
}

/// A step's name: its hour, its day, or both, as its length needs.
fn name(at_ms: i64, step_ms: i64) -> String {
    const HOUR_MS: i64 = 3_600_000;
    const DAY_MS: i64 = 24 * 3_600_000;
    let text = iso(at_ms);
    let month = match part(&text, 5, 7) {
        "01" => "Jan",
        "02" => "Feb",
        "03" => "Mar",
        "04" => "Apr",
        "05" => "May",
        "06" => "Jun",
        "07" => "Jul",
        "08" => "Aug",
        "09" => "Sep",
        "10" => "Oct",
        "11" => "Nov",
        _ => "Dec",
    };
    let day = part(&text, 8, 10).trim_start_matches('0');
    let hour = part(&text, 11, 16);
    if step_ms <= HOUR_MS {
        hour.to_owned()
    } else if step_ms < DAY_MS {
        format!("{day} {month} {hour}")
    } else {
        format!("{day} {month}")
    }
}

/// A part of a whole in thousandths, for a bar of that width; something is never nothing.
pub(super) fn thousandths(of: i64, whole: i64) -> i64 {
    let exact = of.saturating_mul(1000).checked_div(whole).unwrap_or(0).clamp(0, 1000);
    if of > 0 { exact.max(1) } else { exact }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_scale_is_round_and_never_too_low() {
        for (highest, top) in [(0, 4), (3, 4), (4, 4), (5, 10), (11, 20), (21, 40), (40, 40), (41, 100), (999, 1000)] {
            assert_eq!(scale(highest), top, "{highest}");
        }
    }

    #[test]
    fn failed_calls_stand_on_those_that_succeeded() {
        let calls = [Calls { all: 4, good: 3 }, Calls::default()];
        let bars = Bars::of(&calls, 1_800_000_000_000, 3_600_000);
        assert_eq!(bars.bars[0].good, (500, 1500));
        assert_eq!(bars.bars[0].bad, (0, 500));
        assert_eq!(bars.bars[0].title, "08:00: 4 calls, 1 failed");
        assert_eq!(bars.bars[1].good, (2000, 0));
        assert_eq!(bars.marks, [4, 2, 0]);
        assert_eq!(bars.spoken(), "Calls from 08:00 to 09:00: 4 in all, 1 failed");
    }

    #[test]
    fn a_share_is_seen_where_there_is_one() {
        assert_eq!(
            (thousandths(0, 9), thousandths(1, 1_000_000), thousandths(9, 9), thousandths(1, 0)),
            (0, 1, 1000, 1)
        );
    }

    proptest! {
        #[test]
        fn every_bar_is_inside(steps in proptest::collection::vec((0_i64..1 << 40, 0_i64..1 << 40), 1..100)) {
            let calls: Vec<_> = steps.iter().map(|(good, bad)| Calls { all: good + bad, good: *good }).collect();
            for bar in Bars::of(&calls, 0, 3_600_000).bars {
                prop_assert!(bar.x >= 0 && bar.x + bar.width <= WIDTH);
                prop_assert!(bar.bad.0 >= 0 && bar.bad.0 + bar.bad.1 + bar.good.1 <= HEIGHT);
            }
        }
    }
}
