//! The gateway's end of a pairing: what may be relayed to the admin API, and how a session with the control plane goes.
//!
//! Owns the list of requests that may be relayed and the state of the session, both pure: events in, actions out, time
//! and randomness as arguments. Never opens a socket; [`crate::app::pair`] does what is decided here.

pub mod allow;
pub mod session;

/// What the session speaks, for those who carry it.
pub use crate::wire::pairing as frames;
