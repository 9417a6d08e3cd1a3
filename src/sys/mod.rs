//! The only door to the operating system: clock, randomness, environment, files, signals, tasks.
//!
//! Everything above asks here, so that a test can see what is asked and clippy can forbid the rest.

pub mod boot;
pub mod clock;
pub mod database;
pub mod env;
pub mod files;
pub mod git;
pub mod grpc;
pub mod grpc_client;
pub mod grpc_use;
pub mod hardening;
pub mod http;
pub mod http_server;
pub mod inbound;
pub mod key_store;
pub mod local_http;
pub mod machine;
pub mod open_files;
pub mod own_use;
pub mod ownership;
pub mod patient;
pub mod peer;
pub mod ports;
pub mod process;
pub mod random;
pub mod room;
pub mod service;
pub mod short_name;
pub mod signal;
pub mod sparing;
pub mod spawner;
pub mod stream;
pub mod supervision;
pub mod tasks;
pub mod terminal;
pub mod tls;
pub mod watch;
