//! The audit as JSON lines, for tools that follow files. The table is the truth: what is missing here, after a crash or
//! a full disk, is added from there by its id.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::domain::audit::Recorded;
use crate::store::StoreError;
use crate::store::engine::Engine;
use crate::sys::database::DatabaseError;
use crate::sys::files::PRIVATE_FILE;
use crate::sys::files::private_folder;
use crate::telemetry::segments;

/// Folder of the logs in the data folder.
const FOLDER: &str = "logs";
/// The file in it.
const FILE: &str = "audit.jsonl";
/// The file is set aside when it would grow beyond this, in bytes.
const MAX_FILE: u64 = 10 * 1024 * 1024;
/// How many of those are kept; the latest has the highest number ([`segments`]).
const SET_ASIDE: usize = 9;
/// Entries read from the table in one go.
const BATCH: usize = 256;
/// Entries a file that is missing altogether begins with: somebody took it away, and the table has the rest.
const FIRST: u64 = 10_000;

/// A line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    timestamp: String,
    component: &'static str,
    kind: &'static str,
    id: u64,
    action: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    target: &'a str,
    via: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    actor: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    address: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    detail: &'a serde_json::Value,
}

/// What is read of a line: enough to know which entry it is.
#[derive(Debug, Deserialize)]
struct Mark {
    id: u64,
    timestamp: String,
    action: String,
}

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: File,
    length: u64,
    /// The entry of the last line.
    last: u64,
}

impl Lines {
    /// Opens `logs/audit.jsonl` in the data folder, cuts off a line that is not whole, and finds out which entry it has
    /// last.
    pub(super) fn open(data: &Path, engine: &Engine) -> Result<Self, StoreError> {
        let folder = data.join(FOLDER);
        let path = folder.join(FILE);
        let io = |source| DatabaseError::Io { path: path.clone(), source };
        private_folder(&folder).map_err(io)?;
        let (file, length) = append(&path).map_err(io)?;
        let content = whole_lines(&path).map_err(io)?;
        let whole = content.len() as u64;
        if whole < length {
            file.set_len(whole).map_err(io)?;
        }
        let mut last = last_known(&content, engine)?;
        if last.is_none() {
            let before = segments::list(&path).map_err(io)?.into_iter().rfind(|segment| segment.number.is_some());
            let content = before.map(|segment| whole_lines(&segment.path)).transpose().map_err(io)?;
            last = last_known(&content.unwrap_or_default(), engine)?;
        }
        let last = last.map_or_else(|| Ok::<_, StoreError>(engine.newest_audit()?.saturating_sub(FIRST)), Ok)?;
        Ok(Self { path, file, length: whole, last })
    }

    /// Adds the line of every entry after the last one.
    pub(super) fn catch_up(&mut self, engine: &Engine) -> Result<(), StoreError> {
        loop {
            let entries = engine.audit_after(self.last, BATCH)?;
            for entry in &entries {
                let append = self.append(entry);
                append.map_err(|source| DatabaseError::Io { path: self.path.clone(), source })?;
            }
            if entries.len() < BATCH {
                return Ok(());
            }
        }
    }

    pub(super) fn append(&mut self, entry: &Recorded) -> io::Result<()> {
        let line = Line {
            timestamp: entry.at.rfc3339(),
            component: "gateway",
            kind: "audit",
            id: entry.id,
            action: &entry.action,
            target: &entry.target,
            via: &entry.via,
            actor: &entry.actor,
            address: &entry.address,
            request_id: &entry.request_id,
            detail: &entry.detail,
        };
        let mut line = serde_json::to_vec(&line).map_err(io::Error::other)?;
        line.push(b'\n');
        if self.length.saturating_add(line.len() as u64) > MAX_FILE {
            self.set_aside()?;
        }
        if let Err(error) = self.file.write_all(&line) {
            // Half a line must not be joined by the next.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length = self.length.saturating_add(line.len() as u64);
        self.last = entry.id;
        Ok(())
    }

    fn set_aside(&mut self) -> io::Result<()> {
        match segments::put_aside(&self.path, &[]) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
        (self.file, self.length) = append(&self.path)?;
        segments::keep_newest(&self.path, SET_ASIDE)
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(PRIVATE_FILE).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// What stands there up to the last line that is one: after a loss of power a file may end in anything. Empty where
/// there is no file.
fn whole_lines(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    match File::open(path) {
        Ok(file) => drop(file.take(2 * MAX_FILE).read_to_end(&mut content)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(content),
        Err(error) => return Err(error),
    }
    loop {
        let end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        content.truncate(end);
        let Some(line) = lines_from_the_end(&content).next() else { return Ok(content) };
        if serde_json::from_slice::<Mark>(line).is_ok() {
            return Ok(content);
        }
        content.pop();
    }
}

fn lines_from_the_end(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.strip_suffix(b"\n").into_iter().flat_map(|content| content.rsplit(|byte| *byte == b'\n'))
}

/// The newest line that the table has as well, by its entry. Where a backup was put back, the file knows entries that
/// the table never had.
fn last_known(content: &[u8], engine: &Engine) -> Result<Option<u64>, StoreError> {
    let newest = engine.newest_audit()?;
    for line in lines_from_the_end(content) {
        let Ok(mark) = serde_json::from_slice::<Mark>(line) else { continue };
        let Some(before) = mark.id.checked_sub(1).filter(|_| mark.id <= newest) else { continue };
        let found = engine.audit_after(before, 1)?.into_iter().next();
        // Gone from the table because it is old, yet whatever is there is newer.
        let known = found.is_some_and(|entry| {
            entry.id > mark.id || (entry.at.rfc3339(), entry.action.as_str()) == (mark.timestamp, mark.action.as_str())
        });
        if known {
            return Ok(Some(mark.id));
        }
    }
    Ok(None)
}

#[cfg(test)]
impl Lines {
    /// As if the file had no room for another line.
    pub(super) fn fill_up(&mut self) {
        self.length = MAX_FILE;
    }
}
