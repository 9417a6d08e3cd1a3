//! Logs, metrics, and one event per decision.

pub mod access_log;
pub mod data_plane;
pub mod decision_times;
pub mod decisions;
pub mod log;
pub mod log_cleaning;
pub mod log_file;
pub mod log_reader;
pub mod metrics;
pub mod reload;
pub mod segments;
pub mod standing;
pub mod tail;
pub mod usage;
