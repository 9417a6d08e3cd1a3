//! Wiring, straight-line: Config, build, Bound, run.

pub mod admin;
