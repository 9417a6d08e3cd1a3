//! Wiring, straight-line: Config, build, Bound, run.

pub mod admin;
pub mod authz;
pub mod connections_api;
pub mod down;
pub mod gateway;
pub mod owner_api;
pub mod simulator;
pub mod up;

mod json_api;
mod web;
