//! The two ends of the state stream: admin publishes, authz keeps.
//!
//! Owns the protocol of `proto/sigilum/gateway/v1/state.proto`: full states in parts, deltas that name
//! the version they follow, confirmations, acknowledgements; and the registrations that come the other
//! way. Promises that a subscriber's state is always one the publisher had, whatever was lost in between,
//! and that a restart of the publisher makes no claim look fresher. Never reads the store.

mod change;
mod claims;
mod cursor;
mod full;
mod published;
mod publisher;
mod registration;
mod replica;
mod scope;
mod seats;
mod session;
mod subscriber;
mod tenure;

pub use change::Change;
pub use claims::ClaimList;
pub use published::PublishedState;
pub use publisher::PeerState;
pub use publisher::Publisher;
pub use publisher::Tally;
pub use registration::RegistrarLink;
pub use registration::Registration;
pub use replica::Applied;
pub use replica::Refused;
pub use replica::Replica;
pub use subscriber::EndedHook;
pub use subscriber::StateSource;
pub use subscriber::Subscriber;
pub use subscriber::connect;

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "test code may panic, print and read the clock"
)]
mod scale_tests;
