//! What the tests are made of: an agent that signs, a client that sends exact bytes, a provider that
//! remembers, the gateway and the control plane as their users start them, and a control plane that misbehaves.

pub mod agent;
pub mod api;
pub mod bridge;
pub mod browser;
pub mod client;
pub mod collector;
pub mod exposition;
pub mod fake_api;
pub mod fake_authz;
pub mod gateway;
pub mod pair_bridge;
pub mod parts;
pub mod plane;
pub mod process;
pub mod stack;
pub mod upstream;
pub mod volume;
pub mod wiretap;
