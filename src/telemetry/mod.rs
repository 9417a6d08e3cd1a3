//! Logs, metrics, and one event per decision.

pub mod access_log;
pub mod decisions;
pub mod log;
pub mod metrics;
