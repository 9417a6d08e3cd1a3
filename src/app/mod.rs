//! Wiring, straight-line: Config, build, Bound, run.

pub mod admin;
pub mod authz;
pub mod down;
pub mod gateway;
pub mod simulator;
pub mod up;
mod web;
