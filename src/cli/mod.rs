//! The command line: args, settings, outcome; only the printer prints.
//!
//! Owns what a person types and what comes back: one file per command with its clap struct and a `run`
//! that returns an outcome. Never decides anything about requests and never opens the store.

pub mod outcome;
pub mod printer;

mod api;
mod args;
mod dispatch;
mod down;
mod exec_envoy;
mod gateway;
mod identity;
mod request;
mod settings;
mod up;

pub use args::Cli;
pub use dispatch::run;
pub use settings::IdentityPlace;
