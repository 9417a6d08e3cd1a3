//! Which process a command left in the background: a file with its id in the first line and in the second when it was
//! started, so that a later process of the same number is not taken for it.

use std::io;
use std::path::Path;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::sys::files;
use crate::sys::ownership;
use crate::sys::ownership::Access;
use crate::sys::ownership::Us;
use crate::sys::process::ProcessIdentity;

/// Longest file, in bytes.
const MAX_BYTES: u64 = 1024;

/// The process of the file, where it still runs. A file that names no such process is stale and says nothing. One that others
/// can have written is refused: they would choose which process is ended.
pub(super) fn living(path: &Path) -> Result<Option<ProcessIdentity>, CliError> {
    let text = match believed_text(path) {
        Ok(text) => text,
        // Nothing is there, or nothing of ours.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => return Ok(None),
        Err(error) => {
            let message = format!("the pid file {} is not used: {error}", path.display());
            return Err(CliError::new(Outcome::Failed, message));
        }
    };
    Ok(named(&text).filter(ProcessIdentity::is_alive))
}

fn believed_text(path: &Path) -> io::Result<String> {
    let folder = files::folder_of(path);
    files::check_folder(folder).map_err(|error| {
        let refused = error.kind() == io::ErrorKind::PermissionDenied;
        if refused { io::Error::new(error.kind(), format!("its folder: {error}")) } else { error }
    })?;
    let file = files::open_ordinary(path)?;
    ownership::check_believed(&Access::of(&file.metadata()?), &Us::now())
        .map_err(|refusal| io::Error::new(io::ErrorKind::PermissionDenied, format!("it {}", refusal.said(path))))?;
    files::text_of(file, MAX_BYTES)
}

fn named(text: &str) -> Option<ProcessIdentity> {
    let mut lines = text.lines();
    let (pid, started) = (lines.next()?.trim().parse().ok()?, lines.next()?.trim().to_owned());
    Some(ProcessIdentity { pid, started })
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

    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn refused(path: &Path) -> String {
        living(path).unwrap_err().message
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        write(&path, &ProcessIdentity::own().unwrap()).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(refused(&path).contains("open to every user"), "{}", refused(&path));
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(living(&path).unwrap().is_some(), "others may read it");
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        write(&path, &ProcessIdentity::own().unwrap()).unwrap();
        // Only root can give files away; the rule itself is tested with the others of its kind.
        if std::os::unix::fs::chown(&path, Some(1234), None).is_ok() {
            assert!(refused(&path).contains("belongs to user 1234"), "{}", refused(&path));
        }
    }

    #[test]
    fn a_folder_that_strangers_share_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        let path = shared.join("pid");
        write(&path, &ProcessIdentity::own().unwrap()).unwrap();
        std::fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
        assert!(refused(&path).contains("its folder: every user"), "{}", refused(&path));
    }

    #[test]
    fn only_the_very_process_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        assert_eq!(living(&path).unwrap(), None);
        let own = ProcessIdentity::own().unwrap();
        write(&path, &own).unwrap();
        assert_eq!(living(&path).unwrap(), Some(own.clone()));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().next(), Some(own.pid.to_string().as_str()));
        write(&path, &ProcessIdentity { started: "earlier".to_owned(), ..own.clone() }).unwrap();
        assert_eq!(living(&path).unwrap(), None, "another process has the number");
        for text in [own.pid.to_string(), "x\ny\n".to_owned(), String::new()] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(living(&path).unwrap(), None, "{text:?}");
        }
        forget(&path);
        assert!(!path.exists());
    }
}
