//! Ed25519 identities on disk, and the signer that uses them.
//!
//! Owns: `<home>/identities/<namespace>/identity.json`, the file every SDK shares. Promises: what is
//! loaded was validated as a whole; what is written is written whole, private, and never over a key
//! that somebody else just made; the seed is wiped from memory and has no way into a log. Never: asks
//! a clock or the environment itself, both are arguments.

mod error;
mod key;
mod place;
mod record;
mod signer;
mod storage;

pub use error::IdentityError;
pub use key::Identity;
pub use place::Home;
pub use signer::Outgoing;
pub use signer::SignError;
pub use signer::Signer;
pub use storage::IdentityWarning;
pub use storage::Opened;
