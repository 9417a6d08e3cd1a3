//! The gateway's metrics in the Prometheus text format (version 0.0.4): counters of authz by its reports,
//! counters of the proxy by Envoy's access log, gauges of the state stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus::Encoder as _;
use prometheus::Gauge;
use prometheus::GaugeVec;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::proto;

use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::telemetry::access_log::AccessEntry;
use crate::telemetry::data_plane::DataPlane;
use crate::telemetry::decision_times::AllTimes;
use crate::telemetry::decision_times::DecisionSeconds;
use crate::telemetry::reload::ReloadMetrics;
use crate::telemetry::standing::Standing;
use crate::telemetry::standing::StandingGauges;
use crate::telemetry::usage::UsageMetrics;

/// Content type of the rendered text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Longest label value, in bytes.
const MAX_LABEL_BYTES: usize = 64;
/// Distinct values one label may take; those after it are counted as `other`.
pub(in crate::telemetry) const MAX_LABEL_VALUES: usize = 64;
/// Processes whose counters are remembered, so that one which reconnects is not counted twice.
const MAX_KNOWN: usize = 1024;
/// Upper bounds of the latency buckets, in seconds.
const LATENCY_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// What may become of a span of a trace: taken by the collector, given up for want of room, not taken.
pub const SPAN_RESULTS: [&str; 3] = ["exported", "dropped", "failed"];

/// What one authz process says of itself; counters are cumulative since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthzCounters {
    /// What it calls itself.
    pub node: String,
    /// Unix milliseconds of its start: a new value says that the counters began again.
    pub started_at_ms: u64,
    /// Requests let through.
    pub allowed: u64,
    /// Refusals by code.
    pub denied: HashMap<String, u64>,
    /// Live entries of the replay window.
    pub replay_entries: u64,
    /// Entries it may hold.
    pub replay_capacity: u64,
    /// Whether it answers.
    pub ready: bool,
    /// How long its decisions took.
    pub times: AllTimes,
    /// Refusals because one key held its share of the replay window.
    pub replay_share_refused: u64,
    /// Spans by what became of them.
    pub spans: HashMap<String, u64>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Everything ended in time.
    Clean,
    /// Something was cut off.
    Forced,
}

/// All metrics of one admin process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    auth_reject: IntCounterVec,
    auth_allow: IntCounter,
    replay_detected: IntCounter,
    requests_in_flight: Gauge,
    upstream_requests: IntCounterVec,
    upstream_latency: HistogramVec,
    upstream_error: IntCounterVec,
    drain: IntCounterVec,
    drain_seconds: HistogramVec,
    access_log_unreadable: IntCounter,
    /// One value without labels, or none.
    envoy_up: IntGaugeVec,
    state_version: IntGauge,
    state_connections: IntGauge,
    authz_connected: IntGauge,
    authz_ready: IntGauge,
    replay_entries: IntGauge,
    replay_capacity: IntGauge,
    claims_refresh: IntCounterVec,
    claims_age: GaugeVec,
    claims_approvals: IntGauge,
    claims_unconfirmed: IntGauge,
    claims_streams: IntGauge,
    decision_seconds: DecisionSeconds,
    replay_share_refused: IntCounter,
    trace_spans: IntCounterVec,
    standing: StandingGauges,
    started_at_ms: u64,
    usage: UsageMetrics,
    data_plane: Arc<DataPlane>,
    reload: ReloadMetrics,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    counters: HashMap<(String, u64), AuthzCounters>,
    labels: HashMap<&'static str, Vec<String>>,
}

impl Metrics {
    /// Registers every metric. Fails only where two share a name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(options(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(options(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(options(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let latency = |name: &str, help: &str, labels: &[&str]| {
            let buckets = HistogramOpts::from(options(name, help)).buckets(LATENCY_BUCKETS.to_vec());
            let latency = HistogramVec::new(buckets, labels)?;
            registry.register(Box::new(latency.clone()))?;
            Ok::<_, prometheus::Error>(latency)
        };
        let envoy_up = IntGaugeVec::new(options("envoy_up", "Whether Envoy's admin interface answers"), &[])?;
        registry.register(Box::new(envoy_up.clone()))?;
        let requests_in_flight = Gauge::with_opts(options("requests_in_flight", "Requests Envoy is working on"))?;
        registry.register(Box::new(requests_in_flight.clone()))?;
        let claims_age = GaugeVec::new(
            options("claims_age_seconds", "Age of the last confirmation of a service's approvals by the Sigilum API"),
            &["service"],
        )?;
        registry.register(Box::new(claims_age.clone()))?;
        let (decision_seconds, standing) = (DecisionSeconds::new()?, StandingGauges::new()?);
        registry.register(Box::new(decision_seconds.clone()))?;
        registry.register(Box::new(standing.clone()))?;
        let made = Self {
            auth_reject: counters("auth_reject_total", "Refused requests by reason", &["reason"])?,
            auth_allow: counter("auth_allow_total", "Requests let through")?,
            replay_detected: counter("replay_detected_total", "Requests refused because their nonce had been used")?,
            upstream_requests: counters(
                "upstream_requests_total",
                "Requests sent to providers",
                &["protocol", "outcome"],
            )?,
            upstream_latency: latency(
                "upstream_latency_seconds",
                "Duration of requests sent to providers, to the end of the response",
                &["protocol", "outcome"],
            )?,
            upstream_error: counters("upstream_error_total", "Failed requests to providers by class", &["class"])?,
            drain: counters("shutdown_drain_total", "Shutdowns by outcome", &["outcome"])?,
            drain_seconds: latency("shutdown_drain_seconds", "Duration of shutdowns", &["outcome"])?,
            access_log_unreadable: counter("access_log_unreadable_total", "Access log lines that were not understood")?,
            envoy_up,
            state_version: gauge("state_version", "Version of the published state")?,
            state_connections: gauge("state_connections", "Connections in the store")?,
            authz_connected: gauge("authz_connected", "Connected authz processes")?,
            authz_ready: gauge(
                "authz_ready",
                "Authz processes that answer and hold the published state; where one of this machine is, those alone",
            )?,
            replay_entries: gauge("replay_entries", "Live entries of the replay windows")?,
            replay_capacity: gauge("replay_capacity", "Entries the replay windows may hold")?,
            replay_share_refused: counter(
                "replay_share_refused_total",
                "Requests refused because their key held its share of the replay window",
            )?,
            trace_spans: counters("trace_spans_total", "Spans of traces by what became of them", &["result"])?,
            decision_seconds,
            standing,
            started_at_ms: SystemClock.now().wall.0,
            claims_refresh: counters("claims_refresh_total", "Readings of approvals by result", &["result"])?,
            claims_approvals: gauge("claims_approvals", "Approvals held from the Sigilum API")?,
            claims_unconfirmed: gauge("claims_unconfirmed_services", "Services whose approvals were never confirmed")?,
            claims_streams: gauge("claims_streams", "Open streams of changes of approvals")?,
            claims_age,
            usage: UsageMetrics::new(&registry)?,
            data_plane: Arc::new(DataPlane::new(&registry)?),
            reload: ReloadMetrics::new(&registry)?,
            requests_in_flight,
            seen: Mutex::default(),
            registry,
        };
        // A series that appears with its first event has no rate for that event, and no name to look for before it.
        for outcome in [DrainOutcome::Clean, DrainOutcome::Forced] {
            made.drain.with_label_values(&[outcome.label()]).inc_by(0);
            let _ = made.drain_seconds.with_label_values(&[outcome.label()]);
        }
        for result in SPAN_RESULTS {
            made.trace_spans.with_label_values(&[result]).inc_by(0);
        }
        for result in ["read", "unchanged", "failed", "no_key"] {
            made.claims_refresh.with_label_values(&[result]).inc_by(0);
        }
        for outcome in ["success", "error"] {
            made.upstream_requests.with_label_values(&["http", outcome]).inc_by(0);
            let _ = made.upstream_latency.with_label_values(&["http", outcome]);
        }
        {
            let mut seen = made.seen.lock().unwrap_or_else(PoisonError::into_inner);
            made.auth_reject.with_label_values(&[seen.label("reason", "AUTH_SIGNATURE_INVALID").as_str()]).inc_by(0);
            made.upstream_error.with_label_values(&[seen.label("class", "http_502").as_str()]).inc_by(0);
        }
        Ok(made)
    }

    /// Takes over the reports of the authz processes connected now.
    pub fn record_authz(&self, reports: &[AuthzCounters]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for report in reports {
            let place = (report.node.clone(), report.started_at_ms);
            let before = seen.counters.remove(&place).unwrap_or_default();
            self.auth_allow.inc_by(report.allowed.saturating_sub(before.allowed));
            for (code, count) in &report.denied {
                let more = count.saturating_sub(before.denied.get(code).copied().unwrap_or_default());
                if more == 0 {
                    continue;
                }
                let reason = seen.label("reason", code);
                self.auth_reject.with_label_values(&[reason.as_str()]).inc_by(more);
                if code == "AUTH_REPLAY_DETECTED" {
                    self.replay_detected.inc_by(more);
                }
            }
            self.decision_seconds.add(&report.times, &before.times);
            self.replay_share_refused.inc_by(report.replay_share_refused.saturating_sub(before.replay_share_refused));
            for result in SPAN_RESULTS {
                let count = |report: &AuthzCounters| report.spans.get(result).copied().unwrap_or_default();
                self.trace_spans.with_label_values(&[result]).inc_by(count(report).saturating_sub(count(&before)));
            }
            seen.counters.insert(place, report.clone());
        }
        if seen.counters.len() > MAX_KNOWN {
            let current = |node: &String, at: &u64| {
                reports.iter().any(|report| report.node == *node && report.started_at_ms == *at)
            };
            seen.counters.retain(|(node, at), _| current(node, at));
        }
        // Others write these numbers.
        let sum =
            |count: fn(&AuthzCounters) -> u64| gauge_value(reports.iter().map(count).fold(0, u64::saturating_add));
        self.replay_entries.set(sum(|report| report.replay_entries));
        self.replay_capacity.set(sum(|report| report.replay_capacity));
    }

    /// Unix milliseconds of the moment counting began, which is that of the start of the process.
    pub const fn started_at_ms(&self) -> u64 {
        self.started_at_ms
    }

    /// Shows what a look at store, state stream and processes has found.
    pub fn show(&self, standing: Standing) {
        self.standing.show(standing);
    }

    /// Sets the gauges of the state stream.
    pub fn record_state(&self, version: u64, connections: u64, connected: u64, ready: u64) {
        self.state_version.set(gauge_value(version));
        self.state_connections.set(gauge_value(connections));
        self.authz_connected.set(gauge_value(connected));
        self.authz_ready.set(gauge_value(ready));
    }

    /// Counts one reading of a service's approvals: `read`, `unchanged`, `failed` or `no_key`.
    pub fn record_claims_refresh(&self, result: &'static str) {
        self.claims_refresh.with_label_values(&[result]).inc();
    }

    /// Sets the gauges of the claims: service, milliseconds since its confirmation (`None`: never), approvals. The
    /// oldest services are shown by name, the rest as `other` with the oldest of them.
    pub fn record_claims(&self, services: &[(String, Option<u64>, usize)], streams: u64) {
        let mut ages: Vec<_> =
            services.iter().filter_map(|(service, age, _)| age.map(|age| (age, service.as_str()))).collect();
        self.claims_unconfirmed.set(gauge_value(services.len().saturating_sub(ages.len()) as u64));
        self.claims_approvals.set(gauge_value(services.iter().map(|(_, _, count)| *count as u64).sum()));
        self.claims_streams.set(gauge_value(streams));
        ages.sort_unstable_by(|one, other| other.cmp(one));
        self.claims_age.reset();
        let seconds = |age: u64| age as f64 / 1000.0;
        for (age, service) in ages.iter().take(MAX_LABEL_VALUES) {
            // A connection's id, which is clean by its own rule.
            self.claims_age.with_label_values(&[*service]).set(seconds(*age));
        }
        if let Some((age, _)) = ages.get(MAX_LABEL_VALUES) {
            self.claims_age.with_label_values(&["other"]).set(seconds(*age));
        }
    }

    /// Requests Envoy is working on; `None` where it does not answer. `here`: there is an Envoy whose admin interface we could
    /// reach; where there is none nothing is said of it, as it may well be up elsewhere.
    pub fn record_in_flight(&self, requests: Option<f64>, here: bool) {
        if here {
            self.envoy_up.with_label_values::<&str>(&[]).set(i64::from(requests.is_some()));
        } else {
            self.envoy_up.reset();
        }
        self.requests_in_flight.set(requests.unwrap_or_default());
    }

    /// Counts one line of the access log, if it is about a request that was let through.
    pub fn record_access(&self, entry: &AccessEntry) {
        if !entry.was_forwarded() {
            return;
        }
        let class = if entry.code == "UPSTREAM_ADDRESS_REFUSED" {
            Some("address_refused".to_owned())
        } else if entry.status >= 500 || entry.status == 0 {
            Some(format!("http_{}", entry.status))
        } else {
            None
        };
        let outcome = if class.is_some() { "error" } else { "success" };
        self.upstream_requests.with_label_values(&["http", outcome]).inc();
        self.upstream_latency.with_label_values(&["http", outcome]).observe(entry.duration_ms as f64 / 1000.0);
        if let Some(class) = class {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let class = seen.label("class", &class);
            self.upstream_error.with_label_values(&[class.as_str()]).inc();
        }
    }

    /// Counts a line of the access log that was not understood.
    pub fn record_unreadable(&self) {
        self.access_log_unreadable.inc();
    }

    /// What goes out to the control plane.
    pub const fn usage(&self) -> &UsageMetrics {
        &self.usage
    }

    /// What Envoy runs with.
    pub const fn data_plane(&self) -> &Arc<DataPlane> {
        &self.data_plane
    }

    /// What comes of reloads.
    pub const fn reload(&self) -> &ReloadMetrics {
        &self.reload
    }

    /// Counts a shutdown.
    pub fn record_drain(&self, outcome: DrainOutcome, seconds: f64) {
        self.drain.with_label_values(&[outcome.label()]).inc();
        self.drain_seconds.with_label_values(&[outcome.label()]).observe(seconds);
    }

    /// Everything in the text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut out = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        String::from_utf8(out).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

impl DrainOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Forced => "forced",
        }
    }
}

impl Seen {
    /// A label's value, clean and from a bounded set.
    fn label(&mut self, label: &'static str, raw: &str) -> String {
        let value = clean_label(raw);
        let known = self.labels.entry(label).or_default();
        if known.contains(&value) {
            return value;
        }
        if known.len() >= MAX_LABEL_VALUES {
            return "other".to_owned();
        }
        known.push(value.clone());
        value
    }
}

pub(in crate::telemetry) fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("sigilum_gateway_{name}"), help)
}

/// Lower case; everything but `a-z0-9` becomes `_`; trimmed of it; bounded; never empty.
pub(in crate::telemetry) fn clean_label(raw: &str) -> String {
    let clean: String = raw
        .chars()
        .take(MAX_LABEL_BYTES)
        .map(|character| {
            let lower = character.to_ascii_lowercase();
            if lower.is_ascii_lowercase() || lower.is_ascii_digit() { lower } else { '_' }
        })
        .collect();
    match clean.trim_matches('_') {
        "" => "unknown".to_owned(),
        clean => clean.to_owned(),
    }
}

pub(in crate::telemetry) fn label_pair(name: &str, value: &str) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
