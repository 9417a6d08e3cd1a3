//! Which process a command left in the background: a file with its id in the first line and in the second when it was
//! started, so that a later process of the same number is not taken for it.

use std::io;
use std::path::Path;

use crate::sys::files;
use crate::sys::process::ProcessIdentity;

/// Longest file, in bytes.
const MAX_BYTES: u64 = 1024;

/// The process of the file, where it still runs. A file that names no such process is stale and says nothing.
pub(super) fn living(path: &Path) -> Option<ProcessIdentity> {
    let text = files::read_text(path, MAX_BYTES).ok()?;
    let mut lines = text.lines();
    let (pid, started) = (lines.next()?.trim().parse().ok()?, lines.next()?.trim().to_owned());
    Some(ProcessIdentity { pid, started }).filter(ProcessIdentity::is_alive)
}

/// Writes it, mode 0600.
pub(super) fn write(path: &Path, process: &ProcessIdentity) -> io::Result<()> {
    files::write_private(path, format!("{}\n{}\n", process.pid, process.started).as_bytes())
}

/// Removes it.
pub(super) fn forget(path: &Path) {
    // A leftover is stale, which is harmless.
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use super::*;

    #[test]
    fn only_the_very_process_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        assert_eq!(living(&path), None);
        let own = ProcessIdentity::own().unwrap();
        write(&path, &own).unwrap();
        assert_eq!(living(&path), Some(own.clone()));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().next(), Some(own.pid.to_string().as_str()));
        write(&path, &ProcessIdentity { started: "earlier".to_owned(), ..own.clone() }).unwrap();
        assert_eq!(living(&path), None, "another process has the number");
        for text in [own.pid.to_string(), "x\ny\n".to_owned(), String::new()] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(living(&path), None, "{text:?}");
        }
        forget(&path);
        assert!(!path.exists());
    }
}
