//! What a bridge writes down of itself, for the gateway's readiness and status: a file in the gateway's run folder. The bridge
//! may run on another machine than the gateway, so it writes only where that folder is.

use std::path::Path;
use std::path::PathBuf;

use crate::app::pair::Notice;
use crate::app::pair::Progress;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::process::ProcessIdentity;
use crate::wire::status::BRIDGE_FILE;
use crate::wire::status::BridgeNote;

/// The file, and what stands in it.
pub(super) struct Note {
    path: PathBuf,
    state: &'static str,
}

impl Note {
    /// In this run folder, which is not made.
    pub(super) fn begin(run_dir: &Path) -> Self {
        let mut note = Self { path: run_dir.join(BRIDGE_FILE), state: "" };
        note.write("connecting");
        note
    }

    /// Takes note of what happens.
    pub(super) fn hear(&mut self, progress: &Progress) {
        match progress {
            Progress::Session(Notice::Open { .. }) => self.write("connected"),
            Progress::Session(Notice::Closed { .. } | Notice::Trouble(..)) => self.write("connecting"),
            Progress::Session(Notice::CodeInAddress) | Progress::Preflight(_) | Progress::SecretNotKept(_) => {}
        }
    }

    /// The session is over; it takes another one.
    pub(super) fn terminal(mut self) {
        self.write("terminal");
    }

    /// The bridge was told to stop: none is in use.
    pub(super) fn forget(self) {
        // A leftover names a process that is gone.
        let _ = std::fs::remove_file(&self.path);
    }

    fn write(&mut self, state: &'static str) {
        if self.state == state || !self.path.parent().is_some_and(Path::is_dir) {
            return;
        }
        let Some(own) = ProcessIdentity::own() else { return };
        let since = SystemClock.now().seconds().0;
        let note = BridgeNote { pid: own.pid, started: own.started, state: state.to_owned(), since };
        // Without it the gateway does not know of the bridge, which works all the same.
        if let Ok(text) = serde_json::to_vec(&note)
            && files::write_private(&self.path, &text).is_ok()
        {
            self.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn read(folder: &Path) -> Option<BridgeNote> {
        let text = std::fs::read(folder.join(BRIDGE_FILE)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    #[test]
    fn what_becomes_of_a_bridge_is_written_down_where_the_gateway_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut note = Note::begin(folder.path());
        assert_eq!(read(folder.path()).unwrap().state, "connecting");
        note.hear(&Progress::Session(Notice::Open { first: true }));
        let told = read(folder.path()).unwrap();
        assert_eq!((told.state.as_str(), told.pid), ("connected", ProcessIdentity::own().unwrap().pid));
        note.terminal();
        assert_eq!(read(folder.path()).unwrap().state, "terminal");
        Note::begin(folder.path()).forget();
        assert_eq!(read(folder.path()), None);
        let elsewhere = folder.path().join("elsewhere");
        Note::begin(&elsewhere).terminal();
        assert!(!elsewhere.exists());
    }
}
