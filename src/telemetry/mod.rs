//! Logs, metrics, and one event per decision.

pub mod access_log;
pub mod metrics;
