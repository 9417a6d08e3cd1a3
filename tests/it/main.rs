//! End to end: the real binary, the real Envoy, real sockets. One claim per test; refusals by their exact code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "test code may panic, and the tests are the outside world: they read its clocks and write its files"
)]
#![allow(unreachable_pub, reason = "a test crate has no outside; `pub` says what the tests may use")]

mod support;

mod access;
mod addresses;
mod admin_tls;
mod anew;
mod approved;
mod bridge;
mod broken_file;
mod canary;
mod claims;
mod commands;
mod conditions;
mod connections;
mod control_plane;
mod dashboard;
mod dashboard_pages;
mod dashboard_story;
mod diagnostics;
mod doctor;
mod drain;
mod edits;
mod envoy_file;
mod faults;
mod fleet;
mod full_disk;
mod full_volume;
mod guest;
mod handoff;
mod header_limits;
mod held_ports;
mod ingress_sds;
mod ingress_tls;
mod limits;
mod lock;
mod logs;
mod long_home;
mod metrics;
mod outages;
mod own_answers;
mod pair_sessions;
mod probes;
mod profiles;
mod proof_headers;
mod refusals;
mod registration;
mod rekey;
mod reload;
mod remote_pin;
mod replay;
mod restart;
mod rolling;
mod rotation;
mod sandbox;
mod sealed;
mod service_life;
mod service_manager;
mod signatures;
#[path = "../soak/traffic.rs"]
mod soak;
#[path = "../soak/claims.rs"]
mod soak_claims;
#[path = "../soak/kills.rs"]
mod soak_kills;
mod sockets;
mod stack;
mod start;
mod start_surface;
mod status;
mod status_access;
mod stop;
mod traces;
mod tunnel;
mod up_stack;
mod upgrade;
mod usage_events;
mod variables;
