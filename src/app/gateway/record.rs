//! What is written down of a gateway's life: each restart that was asked for, a line of `logs/gateway-restart.log`, and why
//! the supervisor ended last, in `last-shutdown.json` of the data folder.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::config::parts::LogBounds;
use crate::domain::time::UnixMillis;
use crate::sys::files;
use crate::telemetry::log_file::LogFile;

/// Name of the log.
const RESTART_LOG: &str = "gateway-restart.log";
/// A line has some two hundred bytes, and people restart gateways by hand.
const BOUNDS: LogBounds = LogBounds { max_bytes: 1024 * 1024, keep: 1 };
/// Name of the file that says why the last supervisor ended.
const LAST_SHUTDOWN: &str = "last-shutdown.json";
/// The file has a few hundred bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// One restart, as a line of the log.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RestartLine<'a> {
    timestamp: String,
    level: &'static str,
    message: &'static str,
    mode: &'static str,
    by: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    took_ms: u64,
}

/// How a restart went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went<'a> {
    /// Everything answers.
    Healthy,
    /// It did not come about, for this reason.
    Failed(&'a str),
    /// The same, and what was there goes on as it did.
    Kept(&'a str),
    /// It was broken off by a stop.
    Stopped,
    /// Requests in flight were cut off: they took longer than they had. It goes on.
    DrainTimeout,
}

/// Writes one down. That it cannot be is no reason not to restart.
pub(super) fn restart(folder: &Path, mode: &'static str, by: &str, went: Went<'_>, took: Duration, now: UnixMillis) {
    let (level, message, outcome, reason) = match went {
        Went::Healthy => ("INFO", "restarted", "healthy", None),
        Went::Kept(why) => ("ERROR", "hand-off failed; what ran before goes on", "kept", Some(why)),
        Went::Failed(why) => ("ERROR", "restart failed", "restart-health-failed", Some(why)),
        Went::Stopped => ("WARN", "restart broken off", "stopped", None),
        Went::DrainTimeout => ("WARN", "requests in flight were cut off", "drain_timeout", None),
    };
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let line = RestartLine { timestamp: now.rfc3339(), level, message, mode, by, outcome, reason, took_ms };
    if let (Ok(log), Ok(line)) = (LogFile::open(&folder.join(RESTART_LOG), BOUNDS), serde_json::to_vec(&line)) {
        let _ = log.append(&line);
    }
}

/// Why the supervisor of a data folder ended last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastShutdown {
    /// When, in RFC 3339.
    pub at: String,
    /// Its process id.
    pub pid: u32,
    /// `SIGTERM`, `SIGINT`, `stop` or `failure`.
    pub reason: String,
    /// What went wrong, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl LastShutdown {
    /// Reads it; `None` where none has ended yet, or it was killed before it could say so.
    pub fn read(data_dir: &Path) -> Option<Self> {
        let text = files::read_text(&data_dir.join(LAST_SHUTDOWN), MAX_BYTES).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes it, 0600.
    pub(super) fn write(&self, data_dir: &Path) -> io::Result<()> {
        files::write_private(&data_dir.join(LAST_SHUTDOWN), &serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn restarts_are_lines_and_the_last_shutdown_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let now = UnixMillis(1_700_000_000_000);
        restart(folder.path(), "safe", "pid 7", Went::Failed("no port"), Duration::from_millis(12), now);
        restart(folder.path(), "force", "SIGUSR2", Went::Healthy, Duration::ZERO, now);
        let text = std::fs::read_to_string(folder.path().join("gateway-restart.log")).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        let first = &lines[0];
        assert_eq!((first["by"].as_str(), first["reason"].as_str()), (Some("pid 7"), Some("no port")));
        assert_eq!((first["took_ms"].as_u64(), first["outcome"].as_str()), (Some(12), Some("restart-health-failed")));
        assert_eq!(LastShutdown::read(folder.path()), None);
        let last = LastShutdown { at: now.rfc3339(), pid: 7, reason: "SIGTERM".to_owned(), error: None };
        last.write(folder.path()).unwrap();
        assert_eq!(LastShutdown::read(folder.path()), Some(last));
    }
}
