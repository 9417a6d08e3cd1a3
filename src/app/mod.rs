//! Wiring, straight-line: Config, build, Bound, run.

pub mod admin;
pub mod api;
pub mod authz;
pub mod down;
pub mod gateway;
pub mod up;

#[cfg(test)]
#[path = "claims_tests.rs"]
mod claims_tests;
