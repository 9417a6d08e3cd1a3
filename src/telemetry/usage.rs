//! Metrics of what goes out to the control plane: usage events and submitted claims.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use prometheus::Gauge;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::Registry;

use crate::domain::time::UnixSeconds;
use crate::telemetry::metrics::clean_label;
use crate::telemetry::metrics::options;

/// Distinct codes of refusals that are told apart; the API chooses them.
const MAX_CODES: usize = 32;

/// What may become of a registration.
const CLAIM_RESULTS: [&str; 5] = ["recorded", "api_rejected", "no_response", "rate_limited", "failed_before_response"];

/// Why an event of the log is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skipped {
    /// No service key: the service is not one of the control plane.
    NoKey,
    /// The agent is of another namespace than the gateway, which may not report for it.
    ForeignNamespace,
    /// The line does not say who called.
    Incomplete,
    /// The control plane has refused the service's key for a long time.
    Unauthorized,
}

impl Skipped {
    const ALL: [Self; 4] = [Self::NoKey, Self::ForeignNamespace, Self::Incomplete, Self::Unauthorized];

    const fn label(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::ForeignNamespace => "foreign_namespace",
            Self::Incomplete => "incomplete",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// Counters and gauges; all methods are cheap.
#[derive(Debug)]
pub struct UsageMetrics {
    pending: IntGauge,
    lag_bytes: IntGauge,
    oldest_age: Gauge,
    /// Unix seconds of the oldest event that is not settled; 0: there is none.
    oldest: AtomicU64,
    sent: IntCounter,
    duplicate: IntCounter,
    refused: IntCounterVec,
    skipped: IntCounterVec,
    dropped: IntCounter,
    retries: IntCounter,
    claims: IntCounterVec,
    codes: Mutex<Vec<String>>,
}

impl UsageMetrics {
    /// Registers them.
    pub(in crate::telemetry) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(options(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(options(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(options(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let oldest_age = options("usage_oldest_age_seconds", "Age of the oldest usage event that is not settled");
        let oldest_age = Gauge::with_opts(oldest_age)?;
        registry.register(Box::new(oldest_age.clone()))?;
        let made = Self {
            pending: gauge("usage_pending", "Usage events read from the access log and not settled yet")?,
            lag_bytes: gauge("usage_lag_bytes", "Bytes of the access log whose usage events are not settled")?,
            oldest_age,
            oldest: AtomicU64::new(0),
            sent: counter("usage_sent_total", "Usage events the control plane has")?,
            duplicate: counter("usage_duplicate_total", "Usage events among the sent ones that it had before")?,
            refused: counters(
                "usage_refused_total",
                "Usage events the control plane will never take, by code",
                "code",
            )?,
            skipped: counters("usage_skipped_total", "Requests that are not reported, by reason", "reason")?,
            dropped: counter("usage_dropped_total", "Usage events lost because the backlog was full")?,
            retries: counter("usage_retries_total", "Attempts to send usage events that have to be repeated")?,
            claims: counters("claim_submit_total", "Registrations of unapproved callers by result", "result")?,
            codes: Mutex::default(),
        };
        // A series that appears with its first event has no rate for that event.
        for result in CLAIM_RESULTS {
            made.claims.with_label_values(&[result]).inc_by(0);
        }
        for reason in Skipped::ALL {
            made.skipped.with_label_values(&[reason.label()]).inc_by(0);
        }
        Ok(made)
    }

    /// Events read and not settled.
    pub fn record_pending(&self, events: usize) {
        self.pending.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    /// When the oldest event read and not settled happened; `None`: all are settled.
    pub fn record_oldest(&self, oldest: Option<UnixSeconds>) {
        self.oldest.store(oldest.map_or(0, |at| at.0), Ordering::Relaxed);
    }

    /// Sets the age of that event, for the moment `now_ms` (Unix milliseconds).
    pub fn record_oldest_at(&self, now_ms: u64) {
        let oldest_ms = self.oldest.load(Ordering::Relaxed).saturating_mul(1000);
        let age = if oldest_ms == 0 { 0 } else { now_ms.saturating_sub(oldest_ms) };
        self.oldest_age.set(age as f64 / 1000.0);
    }

    /// Bytes of the log behind what is settled.
    pub fn record_lag(&self, bytes: u64) {
        self.lag_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Events the control plane has, and how many of them it had before.
    pub fn record_sent(&self, events: u64, duplicate: u64) {
        self.sent.inc_by(events);
        self.duplicate.inc_by(duplicate);
    }

    /// An event it will never take; `true` the first time this code comes.
    pub fn record_refused(&self, code: &str) -> bool {
        let code = clean_label(code);
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = codes.contains(&code);
        if !known && codes.len() >= MAX_CODES {
            self.refused.with_label_values(&["other"]).inc();
            return false;
        }
        self.refused.with_label_values(&[code.as_str()]).inc();
        if !known {
            codes.push(code);
        }
        !known
    }

    /// Requests that are not reported.
    pub fn record_skipped(&self, reason: Skipped, events: u64) {
        self.skipped.with_label_values(&[reason.label()]).inc_by(events);
    }

    /// Events lost.
    pub fn record_dropped(&self, events: u64) {
        self.dropped.inc_by(events);
    }

    /// An attempt that has to be repeated.
    pub fn record_retry(&self) {
        self.retries.inc();
    }

    /// A registration and what became of it, e.g. `recorded`.
    pub fn record_claim(&self, result: &'static str) {
        self.claims.with_label_values(&[result]).inc();
    }
}
