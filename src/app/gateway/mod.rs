//! `gateway start`: one life for admin, authz and Envoy.
//!
//! Owns the order of starting, the restarts, the drain, and that nothing is left behind. Decides no
//! request and holds no key longer than it takes to hand it to the process that needs it.

mod child;
pub mod config;
mod drain;
pub mod error;
pub mod instance;
mod logs;
mod ports;
pub mod progress;
pub mod restart;
mod supervisor;

use tokio::sync::mpsc;

use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::progress::Progress;
pub use crate::app::gateway::supervisor::Bound;
pub use crate::app::gateway::supervisor::Stops;

/// Runs a gateway until it is told to stop, or cannot go on. What happens meanwhile goes to `progress`;
/// a reader that is too slow misses lines, it holds nothing up.
pub async fn run(config: GatewayConfig, stops: Stops, progress: mpsc::Sender<Progress>) -> Result<(), GatewayError> {
    Bound::build(config, progress).await?.run(stops).await
}
