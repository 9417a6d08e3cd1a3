//! The built-in demo upstream: a small API that wants a key the agent does not have.
//!
//! `up --demo` runs it behind the gateway, so that the first request of a new user has somewhere to go.
//! It keeps nothing and reaches nothing.

mod echo;
mod upstream;

pub use upstream::DemoError;
pub use upstream::KEY_HEADER;
pub use upstream::run;
