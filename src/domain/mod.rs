//! What a sigil means: types, verification, decisions.
//!
//! Pure: no IO, no clock, no randomness, no logging, no async. Everything here is a function of its
//! arguments, which is where the table tests, vectors, property tests and fuzzers point.

pub mod address;
pub mod approval;
pub mod audit;
pub mod authority;
mod blocks;
pub mod canary;
pub mod connection;
pub mod decision;
pub mod draft;
pub mod environment;
pub mod grants;
pub mod hex;
pub mod ids;
pub mod json_spans;
pub mod legacy;
pub mod limits;
pub mod log_line;
pub mod log_redaction;
mod names;
pub mod network;
pub mod probe;
pub mod providers;
pub mod record;
pub mod redact;
pub mod reference;
pub mod registration;
pub mod relay;
pub mod replay;
pub mod request;
pub mod route;
pub mod sealing;
pub mod secret;
pub mod signature;
pub mod snapshot;
pub mod symptom;
pub mod time;
pub mod trace;
pub mod upstream_path;
pub mod validity;
