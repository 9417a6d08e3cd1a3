//! How long decisions take: counted in authz without a lock, carried to admin by its reports, shown as a histogram.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::core::Describer as _;
use prometheus::proto;

use crate::domain::request::Stage;
use crate::telemetry::metrics::label_pair;
use crate::telemetry::metrics::options;

/// Upper bounds of the buckets in microseconds. A decision takes about a hundred; Envoy waits for 500,000.
pub const BOUNDS_MICROS: [u32; 14] =
    [25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000];
/// The buckets, and one for what is beyond the last bound.
const CELLS: usize = BOUNDS_MICROS.len() + 1;
/// What is told apart: head and body, allowed and refused.
const KINDS: usize = 4;
/// The labels of each kind, in the order of the kinds.
const LABELS: [(&str, &str); KINDS] = [("head", "allow"), ("head", "deny"), ("body", "allow"), ("body", "deny")];

/// The durations of one kind of decision, cumulative since the start of whoever counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times {
    /// How many fell into each bucket, not added up; the last is for what is beyond the last bound.
    pub counts: [u64; CELLS],
    /// The sum of all durations, in nanoseconds.
    pub sum_nanos: u64,
}

/// The durations of all decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllTimes([Times; KINDS]);

impl AllTimes {
    /// Each kind by its labels: stage (`head`, `body`) and outcome (`allow`, `deny`).
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, &Times)> {
        LABELS.iter().zip(&self.0).map(|((stage, outcome), times)| (*stage, *outcome, times))
    }

    /// Takes over one kind as a report has it. A kind or a number of buckets that is not known here says nothing:
    /// another version of authz counts otherwise.
    pub fn set(&mut self, stage: &str, outcome: &str, counts: &[u64], sum_nanos: u64) {
        let Ok(counts) = <[u64; CELLS]>::try_from(counts) else { return };
        for (labels, times) in LABELS.iter().zip(&mut self.0) {
            if *labels == (stage, outcome) {
                *times = Times { counts, sum_nanos };
            }
        }
    }

    /// Adds the decisions of another process.
    pub fn merge(&mut self, other: &Self) {
        self.add(other, &Self::default());
    }

    /// Within how many milliseconds this part (0 to 1) of all decisions was made: the bound of the bucket it falls into.
    /// `None` where there was no decision, and where that bucket has no bound.
    pub fn within_ms(&self, part: f64) -> Option<f64> {
        let mut cells = [0_u64; CELLS];
        for (cell, count) in self.0.iter().flat_map(cells_of) {
            if let Some(total) = cells.get_mut(cell) {
                *total = total.saturating_add(count);
            }
        }
        let all = cells.iter().fold(0_u64, |all, count| all.saturating_add(*count));
        if all == 0 {
            return None;
        }
        let (wanted, mut seen) = (all as f64 * part, 0_u64);
        BOUNDS_MICROS.iter().zip(cells).find_map(|(bound, count)| {
            seen = seen.saturating_add(count);
            (seen as f64 >= wanted).then(|| f64::from(*bound) / 1000.0)
        })
    }

    /// The same as a number in any case: 0 where there was no decision, the last bound where the bucket has none.
    pub fn told_ms(&self, part: f64) -> f64 {
        let last = BOUNDS_MICROS.last().copied().map_or(0.0, |bound| f64::from(bound) / 1000.0);
        let none = self.within_ms(0.0).is_none();
        self.within_ms(part).unwrap_or(if none { 0.0 } else { last })
    }

    /// Adds what `now` has beyond `before`.
    fn add(&mut self, now: &Self, before: &Self) {
        for ((total, now), before) in self.0.iter_mut().zip(&now.0).zip(&before.0) {
            for ((count, now), before) in total.counts.iter_mut().zip(&now.counts).zip(&before.counts) {
                *count = count.saturating_add(now.saturating_sub(*before));
            }
            total.sum_nanos = total.sum_nanos.saturating_add(now.sum_nanos.saturating_sub(before.sum_nanos));
        }
    }
}

fn cells_of(times: &Times) -> impl Iterator<Item = (usize, u64)> {
    times.counts.iter().copied().enumerate()
}

/// Counts durations: two additions of atomic numbers each.
#[derive(Debug, Default)]
pub struct DecisionTimes([Cells; KINDS]);

#[derive(Debug, Default)]
struct Cells {
    counts: [AtomicU64; CELLS],
    sum_nanos: AtomicU64,
}

impl DecisionTimes {
    /// One decision and how long it took.
    pub fn record(&self, stage: Stage, allowed: bool, took: Duration) {
        let [head_allow, head_deny, body_allow, body_deny] = &self.0;
        let cells = match (stage, allowed) {
            (Stage::Head, true) => head_allow,
            (Stage::Head, false) => head_deny,
            (Stage::Body, true) => body_allow,
            (Stage::Body, false) => body_deny,
        };
        let bucket = BOUNDS_MICROS.partition_point(|bound| Duration::from_micros(u64::from(*bound)) < took);
        if let Some(count) = cells.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        cells.sum_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was counted so far. Taken while others count: each number is right, together they are nearly so.
    pub fn totals(&self) -> AllTimes {
        AllTimes(self.0.each_ref().map(|cells| Times {
            counts: cells.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
            sum_nanos: cells.sum_nanos.load(Ordering::Relaxed),
        }))
    }
}

/// The histogram, summed over all authz processes.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct DecisionSeconds {
    desc: Desc,
    totals: Arc<Mutex<AllTimes>>,
}

impl DecisionSeconds {
    pub(in crate::telemetry) fn new() -> Result<Self, prometheus::Error> {
        let options = options(
            "decision_seconds",
            "Time authz takes for a decision, by stage and outcome; waiting for a registration is not counted",
        )
        .variable_labels(["stage", "outcome"].map(str::to_owned).to_vec());
        Ok(Self { desc: options.describe()?, totals: Arc::default() })
    }

    /// Counts what a process did since its last report.
    pub(in crate::telemetry) fn add(&self, now: &AllTimes, before: &AllTimes) {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).add(now, before);
    }
}

impl Collector for DecisionSeconds {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let metrics = totals.iter().map(|(stage, outcome, times)| {
            let mut metric =
                proto::Metric::from_label(vec![label_pair("outcome", outcome), label_pair("stage", stage)]);
            metric.set_histogram(histogram(times));
            metric
        });
        let mut family = proto::MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

/// One kind as Prometheus counts: each bucket holds those below it too, and the last is implied.
fn histogram(times: &Times) -> proto::Histogram {
    let mut sum = 0_u64;
    let buckets = BOUNDS_MICROS.iter().zip(&times.counts).map(|(bound, count)| {
        sum = sum.saturating_add(*count);
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(f64::from(*bound) / 1e6);
        bucket.set_cumulative_count(sum);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(times.counts.iter().fold(0, |all, count| all.saturating_add(*count)));
    histogram.set_sample_sum(times.sum_nanos as f64 / 1e9);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shown: &DecisionSeconds) -> String {
        let mut out = Vec::new();
        prometheus::Encoder::encode(&prometheus::TextEncoder::new(), &shown.collect(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_duration_on_a_bound_falls_into_its_bucket() {
        let times = DecisionTimes::default();
        for micros in [1, 25, 26, 500_000, 500_001] {
            times.record(Stage::Body, true, Duration::from_micros(micros));
        }
        let totals = times.totals();
        let (_, _, found) = totals.iter().find(|(stage, outcome, _)| (*stage, *outcome) == ("body", "allow")).unwrap();
        let mut wanted = [0; CELLS];
        (wanted[0], wanted[1], wanted[CELLS - 2], wanted[CELLS - 1]) = (2, 1, 1, 1);
        assert_eq!(found.counts, wanted);
        assert_eq!(found.sum_nanos, (1 + 25 + 26 + 500_000 + 500_001) * 1000);
    }

    #[test]
    fn each_kind_has_its_own_series() {
        let times = DecisionTimes::default();
        times.record(Stage::Head, true, Duration::from_micros(1));
        times.record(Stage::Head, false, Duration::from_micros(1));
        times.record(Stage::Body, false, Duration::from_micros(1));
        let counted: Vec<_> = times.totals().iter().map(|(_, _, times)| times.counts[0]).collect();
        assert_eq!(counted, [1, 1, 0, 1]);
    }

    #[test]
    fn the_histogram_counts_upwards_and_in_seconds() {
        let shown = DecisionSeconds::new().unwrap();
        let times = DecisionTimes::default();
        for micros in [10, 60, 900_000] {
            times.record(Stage::Body, false, Duration::from_micros(micros));
        }
        shown.add(&times.totals(), &AllTimes::default());
        let text = text(&shown);
        for line in [
            "# TYPE sigilum_gateway_decision_seconds histogram",
            "sigilum_gateway_decision_seconds_bucket{outcome=\"deny\",stage=\"body\",le=\"0.000025\"} 1",
            "sigilum_gateway_decision_seconds_bucket{outcome=\"deny\",stage=\"body\",le=\"0.0001\"} 2",
            "sigilum_gateway_decision_seconds_bucket{outcome=\"deny\",stage=\"body\",le=\"0.5\"} 2",
            "sigilum_gateway_decision_seconds_bucket{outcome=\"deny\",stage=\"body\",le=\"+Inf\"} 3",
            "sigilum_gateway_decision_seconds_sum{outcome=\"deny\",stage=\"body\"} 0.90007",
            "sigilum_gateway_decision_seconds_count{outcome=\"deny\",stage=\"body\"} 3",
            "sigilum_gateway_decision_seconds_count{outcome=\"allow\",stage=\"head\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_part_of_all_decisions_is_read_from_the_bounds() {
        let times = DecisionTimes::default();
        assert_eq!(times.totals().within_ms(0.5), None);
        assert_eq!(times.totals().told_ms(0.5).to_bits(), 0.0_f64.to_bits());
        for (stage, micros) in [(Stage::Head, 20), (Stage::Body, 80), (Stage::Body, 90), (Stage::Body, 600_000)] {
            times.record(stage, true, Duration::from_micros(micros));
        }
        let mut both = times.totals();
        assert_eq!([0.25, 0.5, 0.75, 0.99].map(|part| both.within_ms(part)), [Some(0.025), Some(0.1), Some(0.1), None]);
        let other = DecisionTimes::default();
        for _ in 0..996 {
            other.record(Stage::Body, false, Duration::from_micros(4000));
        }
        both.merge(&other.totals());
        assert_eq!([0.5, 0.99].map(|part| both.within_ms(part)), [Some(5.0), Some(5.0)]);
    }

    #[test]
    fn what_another_version_counts_otherwise_is_left_out() {
        let mut times = AllTimes::default();
        times.set("body", "allow", &[1; CELLS + 1], 5);
        times.set("tail", "allow", &[1; CELLS], 5);
        assert_eq!(times, AllTimes::default());
        times.set("body", "allow", &[1; CELLS], 5);
        assert_ne!(times, AllTimes::default());
    }
}
