//! The file of one log: lines are added at its end, and it is put aside when it has become long.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::config::parts::LogBounds;
use crate::sys::files::PRIVATE_FILE;
use crate::telemetry::segments;

/// A log, open for appending. Files that were put aside lie beside it: `<name>.1`, `<name>.2` and so on, the latest with
/// the highest number ([`segments`]).
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    bounds: LogBounds,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl LogFile {
    /// Opens it, mode 0600; its folder is there. Half a line that a crash left is ended.
    pub fn open(path: &Path, bounds: LogBounds) -> io::Result<Self> {
        let open = Open::append(path)?;
        Ok(Self { path: path.to_owned(), bounds, open: Mutex::new(open) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line, given without its line feed: whole or, on an error, not at all.
    pub fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut whole = Vec::with_capacity(line.len().saturating_add(1));
        whole.extend_from_slice(line);
        whole.push(b'\n');
        let length = whole.len() as u64;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.length > 0 && open.length.saturating_add(length) > self.bounds.max_bytes {
            // Where that fails the old file goes on: rather too long than silent.
            if let Ok(next) = self.begin_next(&open) {
                *open = next;
            }
        }
        if let Err(error) = open.file.write_all(&whole) {
            open.file.set_len(open.length)?;
            return Err(error);
        }
        open.length = open.length.saturating_add(length);
        Ok(())
    }

    fn begin_next(&self, open: &Open) -> io::Result<Open> {
        // Somebody may have put it aside already.
        if self.path.metadata().is_ok_and(|found| open.is(&found)) {
            segments::put_aside(&self.path, &[])?;
        }
        let next = Open::append(&self.path)?;
        segments::keep_newest(&self.path, self.bounds.keep.max(1))?;
        Ok(next)
    }
}

impl Open {
    fn append(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).read(true).create(true).mode(PRIVATE_FILE).open(path)?;
        let mut length = file.metadata()?.len();
        let mut last = [b'\n'];
        if let Some(before) = length.checked_sub(1) {
            file.read_exact_at(&mut last, before)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
            length = length.saturating_add(1);
        }
        Ok(Self { file, length })
    }

    fn is(&self, found: &std::fs::Metadata) -> bool {
        self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_log_is_bounded_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let log = LogFile::open(&path, LogBounds { max_bytes: 25, keep: 2 }).unwrap();
        for number in 0..20 {
            log.append(format!("line {number:04}").as_bytes()).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a.jsonl", "a.jsonl.8", "a.jsonl.9"]);
        for entry in fs::read_dir(folder.path()).unwrap() {
            let found = entry.unwrap().metadata().unwrap();
            assert!(found.len() <= 25);
            assert_eq!(found.permissions().mode() & 0o777, PRIVATE_FILE);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 0018\nline 0019\n");
    }

    #[test]
    fn half_a_line_is_not_joined_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, "{\"half\":").unwrap();
        LogFile::open(&path, LogBounds::default()).unwrap().append(b"{}").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"half\":\n{}\n");
    }
}
