//! `gateway.yaml` and the secrets it refers to, put in force while the gateway runs.
//!
//! One task owns what is in force and does one thing at a time: read, judge, resolve, have Envoy take it, publish as one
//! version, write down. Whatever fails on the way leaves everything as it was, and is told: in the log, in readiness, in
//! the metrics and over the admin API. Nothing here is on the path of a request.

mod apply;
mod content;
mod declare;
mod engine;
mod file;
mod judge;
mod keep;
mod secrets;
mod sets;
mod standing;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;

pub use content::Content;
pub use engine::Found;
pub use engine::Parts;
pub use engine::Reloader;
pub use engine::begin;
pub use standing::standing;

/// A configuration as it was read.
#[derive(Debug)]
pub struct Loaded {
    /// Judged and found good.
    pub config: Config,
    /// SHA-256 of the file's text in hex; of nothing where there is no file.
    pub hash: String,
    /// Whether there was anything to read.
    pub content: Content,
}

/// A file that cannot be put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// SHA-256 of the file's text in hex; empty where it could not be read.
    pub hash: String,
    /// Whether somebody named a file that is not there.
    pub missing: bool,
    /// Everything that is wrong.
    pub message: String,
}

/// Reads the configuration anew, as the command line did at the start. Blocks.
pub type Read = Arc<dyn Fn() -> Result<Loaded, Unusable> + Send + Sync>;

/// What a reload needs of the start.
pub struct Setup {
    /// Reads again.
    pub read: Read,
    /// The file that is watched, whether or not it is there.
    pub file: PathBuf,
    /// What was read at the start.
    pub loaded: Loaded,
    /// Why that is not what stands in the file: a restart with the file failed. The same content is not tried again.
    pub held_back: Option<String>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Setup").field("file", &self.file).finish_non_exhaustive()
    }
}
