//! What a bridge writes down of itself, for the gateway's readiness and status and for `gateway pair --status`: one file, mode
//! 0600, without code or secret. It lies in the gateway's run folder; where the gateway is on another machine, beside the pid
//! file of a bridge in the background.
//!
//! One bridge writes it at a time: whoever holds its lock. A second one of the same gateway is silent until the first is gone.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::app::pair::Notice;
use crate::app::pair::Progress;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::process::ProcessIdentity;
use crate::wire::status::BRIDGE_FILE;
use crate::wire::status::BridgeNote;

/// Largest file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Which bridge it is.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    /// Its session.
    pub(super) session_id: String,
    /// The control plane.
    pub(super) api_url: String,
    /// Where it prints, if that is a file.
    pub(super) log: Option<PathBuf>,
}

/// Where bridges of a gateway write: in its run folder, which is not made, else where they were told.
pub(super) fn place(run_dir: &Path, elsewhere: Option<PathBuf>) -> Option<PathBuf> {
    if run_dir.is_dir() { Some(run_dir.join(BRIDGE_FILE)) } else { elsewhere }
}

/// What the last bridge of this file said; `None` where there was none, or none that can be understood.
pub(super) fn read(path: &Path) -> Option<BridgeNote> {
    serde_json::from_str(&files::read_text(path, MAX_FILE).ok()?).ok()
}

/// Forgets what a bridge said that is gone: another begins, or nobody shall be told of it any more.
pub(super) fn forget(path: &Path) {
    let lives = |note: BridgeNote| ProcessIdentity { pid: note.pid, started: note.started }.is_alive();
    if !read(path).is_some_and(lives) {
        // A leftover names a process that is gone.
        let _ = std::fs::remove_file(path);
    }
}

/// Keeps the file of one bridge, where it has one.
#[derive(Debug)]
pub(super) struct Note {
    path: Option<PathBuf>,
    /// Held from the first write on.
    lock: Option<FileLock>,
    told: BridgeNote,
}

impl Note {
    /// For a bridge that begins; without a path nothing is kept.
    pub(super) fn begin(path: Option<PathBuf>, about: About) -> Self {
        let own = ProcessIdentity::own();
        let told = BridgeNote {
            // Without our own start time nobody could tell us from a later process: nothing is kept.
            pid: own.as_ref().map(|own| own.pid).unwrap_or_default(),
            started: own.as_ref().map(|own| own.started.clone()).unwrap_or_default(),
            state: String::new(),
            since: 0,
            session_id: about.session_id,
            api_url: about.api_url,
            trouble: None,
            ended: None,
            log: about.log.map(|log| log.display().to_string()),
        };
        let mut note = Self { path: path.filter(|_| own.is_some()), lock: None, told };
        note.write("connecting");
        note
    }

    /// Takes note of what happens.
    pub(super) fn hear(&mut self, progress: &Progress) {
        let (state, trouble) = match progress {
            Progress::Session(Notice::Open { .. }) => ("connected", None),
            Progress::Session(Notice::Closed { code, reason }) => {
                ("connecting", Some(format!("closed ({code}) {reason}").trim_end().to_owned()))
            }
            Progress::Session(Notice::Trouble(trouble, _)) => ("connecting", Some(trouble.to_string())),
            Progress::Session(Notice::CodeInAddress) | Progress::Preflight(_) | Progress::SecretNotKept(_) => return,
        };
        self.told.trouble = trouble;
        self.write(state);
    }

    /// It did not begin, and why.
    pub(super) fn failed(mut self, why: String) {
        self.told.trouble = Some(why);
        self.write("ended");
    }

    /// It has ended for good; `terminal`: the session is over, and it takes another one.
    pub(super) fn ended(mut self, why: String, terminal: bool) {
        self.told.ended = Some(why);
        self.write(if terminal { "terminal" } else { "ended" });
    }

    /// It was told to end: there is nothing to say.
    pub(super) fn stopped(self) {
        if let (Some(path), Some(_held)) = (&self.path, &self.lock) {
            // A leftover names a process that is gone.
            let _ = std::fs::remove_file(path);
        }
    }

    fn write(&mut self, state: &str) {
        let Some(path) = &self.path else { return };
        if self.lock.is_none() {
            let holder = format!("pid {} (gateway pair)", self.told.pid);
            self.lock = FileLock::take(&files::beside(path, ".lock"), &holder).ok();
        }
        if self.lock.is_none() {
            return;
        }
        if self.told.state != state {
            state.clone_into(&mut self.told.state);
            self.told.since = SystemClock.now().seconds().0;
        }
        let written = serde_json::to_vec(&self.told).map_err(io::Error::from);
        // Without it the gateway does not know of the bridge, which works all the same.
        let _ = written.and_then(|text| files::write_private(path, &text));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn about(session: &str) -> About {
        About { session_id: session.to_owned(), ..About::default() }
    }

    fn open() -> Progress {
        Progress::Session(Notice::Open { first: true })
    }

    #[test]
    fn what_becomes_of_a_bridge_is_written_down_where_the_gateway_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = place(folder.path(), None).unwrap();
        let mut note = Note::begin(Some(path.clone()), about("one"));
        assert_eq!(read(&path).unwrap().state, "connecting");
        note.hear(&open());
        let told = read(&path).unwrap();
        let own = ProcessIdentity::own().unwrap();
        assert_eq!((told.state.as_str(), told.session_id.as_str(), told.pid), ("connected", "one", own.pid));
        note.ended("it is over".to_owned(), true);
        let told = read(&path).unwrap();
        assert_eq!((told.state.as_str(), told.ended.as_deref()), ("terminal", Some("it is over")));
        Note::begin(Some(path.clone()), about("two")).stopped();
        assert_eq!(read(&path), None);
        assert_eq!(place(&folder.path().join("elsewhere"), None), None);
    }

    #[test]
    fn of_two_bridges_one_writes_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = place(folder.path(), None).unwrap();
        let session = || read(&path).map(|note| (note.session_id, note.state));
        let pair = |session: &str, state: &str| Some((session.to_owned(), state.to_owned()));
        let mut first = Note::begin(Some(path.clone()), about("first"));
        first.hear(&open());
        let mut second = Note::begin(Some(path.clone()), about("second"));
        second.hear(&open());
        assert_eq!(session(), pair("first", "connected"));
        Note::begin(Some(path.clone()), about("third")).stopped();
        forget(&path);
        assert_eq!(session(), pair("first", "connected"), "whoever did not write it does not remove it");
        first.stopped();
        second.hear(&open());
        assert_eq!(session(), pair("second", "connected"));
    }
}
