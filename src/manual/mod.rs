//! Why the gateway is built as it is: threat model, decisions, measurements, operations.
//!
//! Documentation only; it is compiled by rustdoc alone, so that its links are checked.

pub mod data_plane;
pub mod libraries;
pub mod threat_model;
pub mod verification;
