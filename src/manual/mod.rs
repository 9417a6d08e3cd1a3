//! Why the gateway is built as it is: threat model, decisions, measurements, operations.
//!
//! Documentation only; it is compiled by rustdoc alone, so that its links are checked.

pub mod admin_access;
pub mod admin_api;
pub mod configuration;
pub mod control_plane;
pub mod data_plane;
pub mod decision;
pub mod deployment;
pub mod fleet;
pub mod kubernetes;
pub mod libraries;
pub mod measurements;
pub mod operations;
pub mod secrets;
pub mod store_format;
pub mod threat_model;
pub mod verification;
