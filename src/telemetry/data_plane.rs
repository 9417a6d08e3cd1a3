//! How it stands with the configuration Envoy runs with: what it accepted last, and what it would not have.

use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::Registry;

use crate::telemetry::metrics::options;

/// The name of the condition about Envoy's configuration.
pub const IN_SYNC: &str = "XdsInSync";

/// The name of the condition about the certificate of agents' connections.
pub const CERTIFICATE_SERVED: &str = "IngressCertificate";

/// One condition as readiness and status show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its name, e.g. [`IN_SYNC`].
    pub kind: &'static str,
    /// Whether all is well.
    pub holds: bool,
    /// One word for programs.
    pub reason: &'static str,
    /// For people; holds no secret.
    pub message: String,
}

/// Gauges, counters and conditions; all methods are cheap.
#[derive(Debug)]
pub struct DataPlane {
    version: IntGauge,
    rejected: IntCounter,
    certificates: IntCounterVec,
    conditions: Mutex<Vec<Condition>>,
}

impl DataPlane {
    /// Registers them.
    pub(in crate::telemetry) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let version =
            options("envoy_config_version", "Version of the configuration Envoy accepted last, counted from its start");
        let version = IntGauge::with_opts(version)?;
        registry.register(Box::new(version.clone()))?;
        let rejected = options("envoy_config_rejected_total", "Configurations Envoy did not accept, all rolled back");
        let rejected = IntCounter::with_opts(rejected)?;
        registry.register(Box::new(rejected.clone()))?;
        let certificates =
            options("ingress_certificate_updates_total", "Changes of the certificate agents are shown, by result");
        let certificates = IntCounterVec::new(certificates, &["result"])?;
        registry.register(Box::new(certificates.clone()))?;
        for result in ["taken", "refused"] {
            certificates.with_label_values(&[result]).inc_by(0);
        }
        Ok(Self { version, rejected, certificates, conditions: Mutex::default() })
    }

    /// Envoy runs with this version.
    pub fn record_version(&self, version: u64) {
        self.version.set(i64::try_from(version).unwrap_or(i64::MAX));
    }

    /// The version Envoy runs with; 0 where this process has no Envoy beside it.
    pub fn version(&self) -> u64 {
        u64::try_from(self.version.get()).unwrap_or_default()
    }

    /// Envoy would not have one.
    pub fn count_rejected(&self) {
        self.rejected.inc();
    }

    /// Files of the certificate were replaced: by what is served now, or by what cannot be.
    pub fn count_certificate(&self, taken: bool) {
        self.certificates.with_label_values(&[if taken { "taken" } else { "refused" }]).inc();
    }

    /// Forgets a condition that is about nothing any more.
    pub fn clear(&self, kind: &str) {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known.kind != kind);
    }

    /// Sets a condition; it stays until it is set again.
    pub fn set(&self, condition: Condition) {
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.retain(|known| known.kind != condition.kind);
        conditions.push(condition);
        conditions.sort_unstable_by_key(|known| known.kind);
    }

    /// All that were set, by name. None where this process has no Envoy beside it.
    pub fn conditions(&self) -> Vec<Condition> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
