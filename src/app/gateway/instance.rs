//! `instance.json`: which processes this installation runs, for `down` and for the start after a crash.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Beside;
use crate::app::gateway::progress::Role;
use crate::sys::files;
use crate::sys::process::ProcessIdentity;

/// The file holds a few hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// How often a process that should end is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A running gateway as written down.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Instance {
    /// The supervisor.
    pub supervisor: ProcessIdentity,
    /// What it started.
    pub children: Vec<ChildIdentity>,
    /// Where it listens.
    pub addresses: Addresses,
    /// What else its supervisor serves.
    #[serde(default)]
    pub beside: Vec<Beside>,
}

/// A process of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChildIdentity {
    /// What it is.
    pub role: Role,
    /// Who it is.
    #[serde(flatten)]
    pub process: ProcessIdentity,
}

/// The file in a run folder.
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("instance.json")
}

impl Instance {
    /// Reads it. `None` where there is none, or what is there is not ours: then nothing may be stopped by it.
    pub fn read(run_dir: &Path) -> Option<Self> {
        let text = files::read_text(&path(run_dir), MAX_BYTES).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes it, 0600.
    pub(super) fn write(&self, run_dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        files::write_private(&path(run_dir), &text)
    }

    /// Removes it: nothing runs.
    pub(super) fn forget(run_dir: &Path) {
        // A leftover names processes that are gone, which is harmless: each is known by its start time.
        let _ = std::fs::remove_file(path(run_dir));
    }

    /// Ends what a killed supervisor left: gives its processes `grace` to notice by themselves, then
    /// kills them. Returns the roles that had to be killed.
    pub(super) async fn end_orphans(&self, grace: Duration) -> Vec<Role> {
        let mut killed = Vec::new();
        let processes: Vec<_> = self.children.iter().map(|child| &child.process).collect();
        wait_for_end(&processes, grace).await;
        for child in &self.children {
            if child.process.signal(Signal::KILL).unwrap_or(false) {
                killed.push(child.role);
            }
        }
        wait_for_end(&processes, grace).await;
        killed
    }
}

/// Waits until all are gone; `false` where one still lives after `deadline`.
pub async fn wait_for_end(processes: &[&ProcessIdentity], deadline: Duration) -> bool {
    let gone = async {
        while processes.iter().any(|process| process.is_alive()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(deadline, gone).await.is_ok()
}
