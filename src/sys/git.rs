//! Whether a file is under version control, asked of git itself.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;

/// Whether git keeps versions of this file. Without git, or outside of a repository, it does not.
pub fn tracks(file: &Path) -> bool {
    let Ok(file) = std::fs::canonicalize(file) else { return false };
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return false };
    // A repository's own configuration may name programs to run; none is needed to read its index.
    Command::new("git")
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "ls-files", "--error-unmatch", "--"])
        .arg(name)
        .current_dir(folder)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_LITERAL_PATHSPECS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
