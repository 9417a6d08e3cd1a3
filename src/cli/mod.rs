//! The command line: args, settings, outcome; only the printer prints.
//!
//! Owns what a person types and what comes back: one file per command with its clap struct and a `run`
//! that returns an outcome. Never decides anything about requests and never opens the store.

pub mod outcome;
pub mod printer;

mod args;
mod identity;
mod request;
mod run;
mod settings;

pub use args::Cli;
pub use run::run;
pub use settings::IdentityPlace;
