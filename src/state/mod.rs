//! The two ends of the state stream: admin publishes, authz keeps.
//!
//! Owns the protocol of `proto/sigilum/gateway/v1/state.proto`: full states in parts, deltas that name
//! the version they follow, confirmations, acknowledgements. Promises that a subscriber's state is
//! always one the publisher had, whatever was lost in between. Never reads the store.

mod cursor;
mod published;
mod publisher;
mod replica;
mod session;
mod subscriber;

pub use published::Change;
pub use published::PublishedState;
pub use publisher::PeerState;
pub use publisher::Publisher;
pub use replica::Applied;
pub use replica::Refused;
pub use replica::Replica;
pub use subscriber::StateSource;
pub use subscriber::Subscriber;
