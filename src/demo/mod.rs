//! The built-in demo services: small APIs for agents to call.
//!
//! `up --demo` runs both, so that the first request of a new user has somewhere to go. The upstream stands
//! behind the gateway and wants a key the agent does not have; the native service verifies its callers
//! itself, with this library. They keep nothing; the native one reaches only the control plane.

mod account;
mod approvals;
mod echo;
mod native;
mod upstream;

pub use approvals::Approved;
pub use native::run as run_native;
pub use upstream::DemoError;
pub use upstream::KEY_HEADER;
pub use upstream::run;
