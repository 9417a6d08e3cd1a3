//! How a bridge in the background stands, as it says itself: a file beside its pid file, mode 0600, without code or secret.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::app::pair::Notice;
use crate::app::pair::Progress;
use crate::cli::gateway::pair::session::Pairing;
use crate::sys::files;

/// Largest file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// What a bridge says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// Its process.
    pub(super) pid: u32,
    pub(super) session_id: String,
    pub(super) api_url: String,
    /// Whether its socket is open.
    pub(super) connected: bool,
    /// What is in its way.
    pub(super) trouble: Option<String>,
    /// Why it has ended for good, and what to do.
    pub(super) ended: Option<String>,
    /// Where it prints, if that is a file.
    pub(super) log: Option<PathBuf>,
}

impl State {
    /// What the last bridge of this file said; `None` where there was none, or none that can be understood.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&files::read_text(path, MAX_FILE).ok()?).ok()
    }
}

/// Forgets what a bridge said: another begins, or nobody shall be told of it any more.
pub(super) fn forget(path: &Path) {
    // A leftover names a process that is gone.
    let _ = std::fs::remove_file(path);
}

/// Keeps the file of one bridge, where it has one.
#[derive(Debug)]
pub(super) struct Keeper {
    path: Option<PathBuf>,
    state: State,
}

impl Keeper {
    /// For a bridge that begins; without a path nothing is kept.
    pub(super) fn begin(path: Option<PathBuf>, log: Option<PathBuf>, pairing: &Pairing) -> Self {
        let state = State {
            pid: std::process::id(),
            session_id: pairing.session.as_str().to_owned(),
            api_url: pairing.api_url.as_str().trim_end_matches('/').to_owned(),
            log,
            ..State::default()
        };
        let keeper = Self { path, state };
        keeper.write();
        keeper
    }

    /// Something has happened.
    pub(super) fn note(&mut self, progress: &Progress) {
        let (connected, trouble) = match progress {
            Progress::Session(Notice::Open { .. }) => (true, None),
            Progress::Session(Notice::Closed { code, reason }) => {
                (false, Some(format!("closed ({code}) {reason}").trim_end().to_owned()))
            }
            Progress::Session(Notice::Trouble(trouble, _)) => (false, Some(trouble.to_string())),
            Progress::Session(Notice::CodeInAddress) | Progress::Preflight(_) | Progress::SecretNotKept(_) => return,
        };
        self.state.connected = connected;
        self.state.trouble = trouble;
        self.write();
    }

    /// It did not begin, and why.
    pub(super) fn failed(&mut self, why: String) {
        self.state.trouble = Some(why);
        self.write();
    }

    /// It has ended for good.
    pub(super) fn ended(mut self, why: String) {
        self.state.connected = false;
        self.state.ended = Some(why);
        self.write();
    }

    /// It was told to end: there is nothing to say.
    pub(super) fn stopped(self) {
        if let Some(path) = &self.path {
            forget(path);
        }
    }

    fn write(&self) {
        let Some(path) = &self.path else { return };
        let written = serde_json::to_vec(&self.state).map_err(io::Error::from);
        // Who asks then is told less.
        let _ = written.and_then(|text| files::write_private(path, &text));
    }
}
