//! Wiring, straight-line: Config, build, Bound, run.

pub mod admin;
mod admin_access;
mod admin_outward;
pub mod api;
pub mod authz;
pub mod authz_health;
pub mod backup_target;
pub mod checkup;
pub mod connections_api;
pub mod down;
pub mod e2e;
pub mod envoy_drain;
pub mod gateway;
pub mod json_api;
pub mod launchd;
pub mod logs_api;
pub mod own_listener;
pub mod owner_api;
pub mod pair;
mod replay_window;
pub mod simulator;
pub mod state_door;
pub mod status_api;
pub mod survey;
pub mod systemd;
pub mod unit_file;
pub mod up;
pub mod upkeep;

mod web;

#[cfg(test)]
#[path = "claims_tests.rs"]
mod claims_tests;
