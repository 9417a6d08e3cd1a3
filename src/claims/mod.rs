//! The gateway as a client of the control plane: approvals come in, registrations and usage go out.
//!
//! Owns the conversation with the Sigilum API: the feed of approved claims with its change stream, the
//! submission of claims for unapproved callers, and usage events. Promises: no request of an agent ever waits
//! for it, no approval is dropped silently, and only services that have a connection are asked for. Never
//! decides anything: what it learns goes to authz over the state stream.

pub mod client;
pub mod events;
pub mod feed;
pub mod keys;
pub mod overview;
pub mod refresh;
pub mod registrar;
pub mod usage;

mod attendant;
mod follow;

#[cfg(test)]
#[path = "fake_api_tests.rs"]
pub(crate) mod fake_api;
