//! Metrics of reloads: of the configuration file, and of secrets.

use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::Registry;

use crate::telemetry::metrics::options;

/// How a reload of the file can come out.
const RESULTS: [&str; 8] = ["applied", "restart", "invalid", "unresolved", "envoy", "ports", "internal", "unchanged"];

/// Counters and gauges; all methods are cheap.
#[derive(Debug)]
pub struct ReloadMetrics {
    config: IntCounterVec,
    config_generation: IntGauge,
    config_pending: IntGauge,
    secrets: IntCounterVec,
    secrets_generation: IntGauge,
    secrets_degraded: IntGauge,
    secrets_age: IntGauge,
}

impl ReloadMetrics {
    /// Registers them.
    pub(in crate::telemetry) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(options(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counters = |name: &str, help: &str| {
            let counters = IntCounterVec::new(options(name, help), &["result"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let made = Self {
            config: counters("config_reload_total", "Changes of the configuration file by what came of them")?,
            config_generation: gauge(
                "config_generation",
                "Configurations put in force since the start, its own counted",
            )?,
            config_pending: gauge("config_pending_changes", "Differences between the file and what is in force")?,
            secrets: counters("secrets_reload_total", "Resolvings of all secret references by result")?,
            secrets_generation: gauge("secrets_generation", "Number of the secrets in use, counted from the start")?,
            secrets_degraded: gauge("secrets_degraded", "Whether the last resolving of secrets failed")?,
            secrets_age: gauge("secrets_age_seconds", "Seconds since all secret references were resolved last")?,
        };
        for result in RESULTS {
            made.config.with_label_values(&[result]).inc_by(0);
        }
        for result in ["ok", "failed"] {
            made.secrets.with_label_values(&[result]).inc_by(0);
        }
        Ok(made)
    }

    /// Counts what came of a change of the file: one of the names above.
    pub fn count(&self, result: &'static str) {
        self.config.with_label_values(&[result]).inc();
    }

    /// Counts a resolving: `ok` or `failed`.
    pub fn count_secrets(&self, result: &'static str) {
        self.secrets.with_label_values(&[result]).inc();
    }

    /// Sets the gauges of the file.
    pub fn record_config(&self, generation: u64, pending: usize) {
        self.config_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.config_pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    /// Sets the gauges of the secrets; the age in seconds.
    pub fn record_secrets(&self, generation: u64, degraded: bool, age: u64) {
        self.secrets_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.secrets_degraded.set(i64::from(degraded));
        self.secrets_age.set(i64::try_from(age).unwrap_or(i64::MAX));
    }
}
