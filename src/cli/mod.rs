//! The command line: args, settings, outcome; only the printer prints.
//!
//! Owns what a person types and what comes back: one file per command with its clap struct and a `run`
//! that returns an outcome. Never decides anything about requests and never opens the store.

pub mod outcome;
pub mod printer;

mod agent_simulator;
mod api;
mod args;
mod auth;
mod claim;
mod completions;
mod confirm;
mod connection;
mod container;
mod dev;
mod dispatch;
mod doctor;
mod down;
mod duration;
mod e2e_tests;
mod exec_detached;
mod exec_envoy;
mod exec_provider;
mod gateway;
mod gateway_api;
mod health;
mod help;
mod identity;
mod install;
mod logs;
mod machine;
mod owner;
mod profile;
mod profiles;
mod progress;
mod reach;
mod request;
mod secret_source;
mod secrets;
mod service;
mod settings;
mod setup;
mod shell;
mod span;
mod stack;
mod table;
mod token;
mod up;
mod variable;
mod versions;

pub use args::Cli;
pub use dispatch::run;
pub use settings::IdentityPlace;
