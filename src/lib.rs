//! The Sigilum gateway: agents call APIs without holding the keys.
//!
//! An agent signs each request with its Ed25519 identity. Envoy takes the traffic and asks `authz`;
//! `authz` verifies signature, replay and approval, strips the proof and injects the provider's
//! credential; `admin` owns the sealed store and feeds `authz`. One binary carries every role.
//!
//! The modules below stand in layers; `tests/house.rs` holds which may name which.

pub mod admin;
pub mod api;
pub mod app;
pub mod authz;
pub mod claims;
pub mod cli;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod domain;
pub mod envoy;
pub mod gate;
pub mod identity;
#[cfg(doc)]
pub mod manual;
pub mod pair;
pub mod probe;
pub mod reload;
pub mod secrets;
pub mod state;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod wire;
