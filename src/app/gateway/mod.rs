//! `gateway start`: one life for admin, authz and Envoy.
//!
//! Owns the order of starting, the restarts, the drain, and that nothing is left behind. Decides no
//! request and holds no key longer than it takes to hand it to the process that needs it.

pub mod ask;
mod bound;
mod child;
pub mod command;
pub mod config;
pub mod control;
pub mod crash;
mod drain;
pub mod error;
mod frame;
mod hand_off;
pub mod instance;
mod locks;
pub(in crate::app) mod logs;
mod ports;
pub mod progress;
pub mod record;
pub mod restart;
mod supervisor;
mod watchdog;

use tokio::sync::mpsc;

pub use crate::app::gateway::bound::Bound;
pub use crate::app::gateway::bound::START_PATIENCE;
pub use crate::app::gateway::bound::Stops;
use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::config::Loader;
use crate::app::gateway::error::GatewayError;
pub use crate::app::gateway::locks::LOCK_FILE;
use crate::app::gateway::progress::Progress;

/// Runs a gateway until it is told to stop, or cannot go on. `loader` reads the settings again when they have changed. What happens meanwhile goes to `progress`;
/// a reader that is too slow misses lines, it holds nothing up.
pub async fn run(
    config: GatewayConfig,
    loader: Loader,
    mut stops: Stops,
    progress: mpsc::Sender<Progress>,
) -> Result<(), GatewayError> {
    match Bound::build_unless_stopped(config, loader, &mut stops, progress).await? {
        Some(bound) => bound.run(&mut stops).await,
        None => Ok(()),
    }
}
