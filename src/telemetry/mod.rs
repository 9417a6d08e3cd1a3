//! Logs, metrics, and one event per decision.

pub mod decisions;
pub mod log;
