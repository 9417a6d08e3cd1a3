//! The Envoy binary and its configuration: found, installed, checked, rendered.
//!
//! Owns which Envoy runs and what it is told. Never puts a secret into either: the configuration, the
//! command line and the environment of Envoy hold none.

mod ack;
pub mod binary;
mod install;
pub mod launch;
pub mod live;
pub mod pod;
pub mod render;
pub mod sds;
mod secrets;
pub mod split;
