//! What is kept of a process that crashed: how it ended and what it said last, in one file of bounded size.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;

use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::progress::Role;
use crate::domain::log_line::LogFilter;
use crate::domain::log_line::LogStream;
use crate::domain::time::UnixMillis;
use crate::sys::files;
use crate::telemetry::log_reader;
use crate::telemetry::log_reader::LogPlaces;
use crate::telemetry::log_reader::PageSize;
use crate::telemetry::log_reader::Start;

/// The folder of the files, in the data folder.
pub const CRASHES: &str = "crashes";
/// Most files of a data folder; the oldest goes.
pub const MOST_FILES: usize = 5;
/// Version of a file's form.
const SCHEMA_VERSION: u32 = 1;
/// The last lines of its log; with [`MAX_BYTES`] a file stays below half a megabyte.
const LAST: PageSize = PageSize { lines: 200, bytes: 256 * 1024 };
/// What a process of ours exits with after a panic.
const PANICKED: i32 = 101;

/// One crash.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Crash<'a> {
    schema_version: u32,
    at: String,
    role: &'a str,
    pid: i32,
    /// In words.
    ended: String,
    exit_code: Option<i32>,
    signal: Option<i32>,
    versions: Versions<'a>,
    /// Cleaned when they were written.
    lines: Vec<Map<String, Value>>,
}

#[derive(Serialize)]
struct Versions<'a> {
    sigilum: &'a str,
    envoy: &'a str,
}

/// A process that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) role: Role,
    pub(super) pid: i32,
    pub(super) status: ExitStatus,
}

/// Whether an end is a crash: by a signal, or a panic.
pub(super) fn is_crash(status: ExitStatus) -> bool {
    status.signal().is_some() || status.code() == Some(PANICKED)
}

/// Writes one down and says where; the oldest files go. Blocks on the disk.
pub(super) fn keep(config: &GatewayConfig, envoy: &str, ended: Ended, now: UnixMillis) -> io::Result<PathBuf> {
    let Ended { role, pid, status } = ended;
    let folder = config.data_dir.join(CRASHES);
    files::own_folder(&folder)?;
    let stream = match role {
        Role::Admin => LogStream::Admin,
        Role::Authz => LogStream::Authz,
        Role::Envoy => LogStream::Envoy,
    };
    let places = LogPlaces { data_dir: config.data_dir.clone(), run_dir: config.run_dir.clone() };
    // A log that cannot be read is no reason to keep nothing.
    let page = log_reader::read(&places, stream, &Start::Newest, LAST, &LogFilter::default());
    let at = now.rfc3339();
    let crash = Crash {
        schema_version: SCHEMA_VERSION,
        role: role.name(),
        pid,
        ended: status.to_string(),
        exit_code: status.code(),
        signal: status.signal(),
        versions: Versions { sigilum: env!("CARGO_PKG_VERSION"), envoy },
        lines: page.map(|page| page.lines).unwrap_or_default(),
        at: at.clone(),
    };
    let mut text = serde_json::to_vec_pretty(&crash)?;
    text.push(b'\n');
    // By name they are in the order in which they happened.
    let stamp: String = at.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = folder.join(format!("{stamp}-{}-{pid}.json", role.name()));
    files::write_private(&path, &text)?;
    prune(&folder)?;
    Ok(path)
}

/// Removes the oldest files beyond [`MOST_FILES`].
fn prune(folder: &Path) -> io::Result<()> {
    let kept = list(folder);
    kept.iter().take(kept.len().saturating_sub(MOST_FILES)).try_for_each(fs::remove_file)
}

/// The files of a folder, oldest first; none where it cannot be read.
pub fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic, and writes its files")]

    use super::*;

    #[test]
    fn the_last_crashes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for hour in 10..18 {
            fs::write(folder.path().join(format!("20260101T{hour}0000000Z-authz-{hour}.json")), "{}").unwrap();
        }
        prune(folder.path()).unwrap();
        let kept = list(folder.path());
        assert_eq!(kept.len(), MOST_FILES);
        assert!(kept.first().unwrap().ends_with("20260101T130000000Z-authz-13.json"), "{kept:?}");
    }

    #[test]
    fn a_signal_and_a_panic_are_crashes_and_other_ends_are_none() {
        let ended = |raw: i32| is_crash(ExitStatus::from_raw(raw));
        assert!(ended(9) && ended(6) && ended(PANICKED << 8));
        assert!(!ended(0) && !ended(1 << 8) && !ended(75 << 8) && !ended(78 << 8));
    }
}
