//! What the tests are made of: an agent that signs, a client that sends exact bytes, a provider that
//! remembers, the gateway as its users start it.

pub mod agent;
pub mod client;
pub mod gateway;
pub mod parts;
pub mod process;
pub mod upstream;
