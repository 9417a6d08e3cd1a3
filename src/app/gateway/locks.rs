//! One gateway per data folder, and one per run folder: a lock in each, held for as long as the supervisor lives.
//!
//! The kernel gives a lock back when its holder ends, in whatever way; what the file says is for people. The run folder has
//! one of its own because a start ends what a killed gateway left in it, which must not be somebody else's.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::error::GatewayError;
use crate::sys::files::FileLock;
use crate::sys::files::LockError;

/// Name of the supervisor's lock file in the data folder.
pub const LOCK_FILE: &str = "supervisor.lock";
/// Name of its lock file in the run folder.
const RUN_LOCK: &str = "gateway.lock";
/// How long and how often the lock of a process that may be dying is tried.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// The locks of a gateway that runs.
#[derive(Debug)]
pub(super) struct Locks {
    data: FileLock,
    run: FileLock,
}

/// Those of other folders.
#[derive(Debug, Default)]
pub(super) struct Others {
    data: Option<FileLock>,
    run: Option<FileLock>,
}

impl Locks {
    /// Takes both. A killed predecessor may be on its way out and still hold one, so each is tried for a moment.
    pub(super) async fn take(config: &GatewayConfig) -> Result<Self, GatewayError> {
        let data = take(&config.data_dir.join(LOCK_FILE), config).await?;
        let run = take(&config.run_dir.join(RUN_LOCK), config).await?;
        Ok(Self { data, run })
    }

    /// Takes those of folders that are not held already.
    pub(super) async fn others(&self, config: &GatewayConfig) -> Result<Others, GatewayError> {
        let (data, run) = (config.data_dir.join(LOCK_FILE), config.run_dir.join(RUN_LOCK));
        Ok(Others {
            data: if self.data.path() == data { None } else { Some(take(&data, config).await?) },
            run: if self.run.path() == run { None } else { Some(take(&run, config).await?) },
        })
    }

    /// Holds these from now on, and gives back those they replace.
    pub(super) fn replace(&mut self, others: Others) {
        let Others { data, run } = others;
        for (held, other) in [(&mut self.data, data), (&mut self.run, run)] {
            if let Some(other) = other {
                *held = other;
            }
        }
    }
}

async fn take(path: &Path, config: &GatewayConfig) -> Result<FileLock, GatewayError> {
    let own = holder(config);
    let started = Instant::now();
    loop {
        match FileLock::take(path, &own) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Io { path, source }) => return Err(GatewayError::Io { path, source }),
            Err(LockError::Held { path, holder }) => {
                if started.elapsed() > PATIENCE {
                    return Err(GatewayError::AlreadyRunning { lock: path, holder });
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Who holds it, for people: process and listeners.
fn holder(config: &GatewayConfig) -> String {
    let first = |list: &[SocketAddr]| list.first().map(ToString::to_string).unwrap_or_default();
    format!(
        "pid {} (sigilum gateway, agents {}, admin {})",
        std::process::id(),
        first(&config.ingress),
        first(&config.admin)
    )
}
