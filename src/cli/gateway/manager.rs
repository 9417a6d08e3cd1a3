//! Who runs a gateway in the background on this machine, and where its file is: systemd (the user's or the machine's), launchd,
//! or somebody who starts us from outside (`SIGILUM_SUPERVISOR_MODE=external`) and is not to be meddled with.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::app::launchd;
use crate::app::systemd;
use crate::app::systemd::Kind;
use crate::cli::gateway::place::Place;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::sys::env;
use crate::sys::files;

/// Says that somebody else starts and stops us.
const MODE: &str = "SIGILUM_SUPERVISOR_MODE";
/// Where systemd looks for units instead, in its own words; the first is where ours goes.
const UNIT_PATH: &str = "SYSTEMD_UNIT_PATH";
/// Where it looks for the machine's.
const SYSTEM_UNITS: &str = "/etc/systemd/system";
/// Where launchd looks for the machine's jobs.
const DAEMONS: &str = "/Library/LaunchDaemons";
/// Longest file of a unit that is compared, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// The kinds of managers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kin {
    /// systemd.
    Systemd,
    /// launchd.
    Launchd,
}

/// Whether it is said that somebody else starts and stops us.
pub(crate) fn is_external() -> bool {
    env::lookup(MODE).as_deref() == Some("external")
}

/// Refuses where somebody outside manages this gateway.
pub(crate) fn refuse_external() -> Result<(), CliError> {
    match env::lookup(MODE).as_deref() {
        Some("external") => {
            let message = format!("this gateway is started and stopped from outside ({MODE}=external)");
            Err(CliError::new(Outcome::Config, message)
                .hint("use the tools of whoever runs it; `sigilum gateway restart` works"))
        }
        None | Some("" | "auto") => Ok(()),
        Some(other) => {
            let message = format!("{MODE} is {other:?}; it may be `auto` or `external`");
            Err(CliError::new(Outcome::Config, message))
        }
    }
}

/// The manager of this system.
pub(crate) fn kin() -> Result<Kin, CliError> {
    if cfg!(target_os = "linux") {
        return Ok(Kin::Systemd);
    }
    if cfg!(target_os = "macos") {
        return Ok(Kin::Launchd);
    }
    Err(CliError::new(Outcome::Unavailable, "services are installed under systemd and launchd only")
        .hint("run `sigilum gateway start` in a container, or under the manager of this system"))
}

/// Where units of the machine are.
pub(crate) fn system_folder() -> PathBuf {
    let named = env::lookup(UNIT_PATH);
    let first = named.as_deref().and_then(|path| path.split(':').find(|folder| !folder.is_empty()));
    PathBuf::from(first.unwrap_or(SYSTEM_UNITS))
}

/// Where those of this user are.
pub(crate) fn user_folder() -> Result<PathBuf, CliError> {
    let config = env::lookup("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| home().map(|home| home.join(".config")));
    let config = config.ok_or_else(|| CliError::new(Outcome::Failed, "there is no home folder for units (HOME)"))?;
    Ok(config.join("systemd/user"))
}

/// The user's job of launchd.
pub(crate) fn agent_file(place: &Place) -> Result<PathBuf, CliError> {
    let home = home().ok_or_else(|| CliError::new(Outcome::Failed, "there is no home folder for jobs (HOME)"))?;
    Ok(home.join("Library/LaunchAgents").join(format!("{}.plist", place.label())))
}

fn home() -> Option<PathBuf> {
    env::lookup("HOME").map(PathBuf::from)
}

/// The other place in which a manager of the same gateway may be installed.
pub(crate) fn other(kin: Kin, system: bool, place: &Place) -> Result<PathBuf, CliError> {
    let unit = place.unit(Kind::Gateway);
    Ok(match (kin, system) {
        (Kin::Systemd, false) => system_folder().join(unit),
        (Kin::Systemd, true) => user_folder()?.join(unit),
        (Kin::Launchd, _) => Path::new(DAEMONS).join(format!("{}.plist", place.label())),
    })
}

/// What is there already where a file is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// The same.
    Same,
    /// Another one that we wrote.
    Ours,
}

/// Looks at the place of a unit. A folder that others may write to, a file that belongs to somebody else and one that we did
/// not write are refused: who can change it has the gateway run what they like.
pub(crate) fn look(path: &Path, text: &str) -> Result<Found, CliError> {
    let refused = |why: String| CliError::new(Outcome::Config, why);
    let folder = files::folder_of(path);
    match fs::metadata(folder) {
        Ok(found) => check_folder(folder, &found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(refused(format!("{}: {error}", folder.display()))),
    }
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(refused(format!("{}: {error}", path.display()))),
    };
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return Err(refused(format!("{} belongs to user {}, not to us", path.display(), found.uid())));
    }
    if !found.is_file() {
        return Err(refused(format!("{} is no ordinary file", path.display())));
    }
    let held = files::read_text(path, MAX_BYTES).map_err(|error| refused(format!("{}: {error}", path.display())))?;
    if held == text {
        return Ok(Found::Same);
    }
    if is_ours(&held) {
        return Ok(Found::Ours);
    }
    Err(refused(format!("{} was not written by this program", path.display())).hint("move it away"))
}

/// Whether a unit or job was written by us: its mark, or the names of before there was one.
fn is_ours(text: &str) -> bool {
    let mut lines = text.lines();
    let marked = lines.next() == Some(systemd::MARK);
    marked || text.contains("Description=Sigilum Gateway\n") || text.contains(&format!("<string>{}", launchd::LABEL))
}

/// Refuses a folder in which others could put or change units.
fn check_folder(folder: &Path, found: &fs::Metadata) -> Result<(), CliError> {
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us && found.uid() != 0 {
        let message = format!("[unsafe-permissions] {} belongs to user {}", folder.display(), found.uid());
        return Err(CliError::new(Outcome::Config, message));
    }
    if found.mode() & 0o022 != 0 {
        let message = format!(
            "[unsafe-permissions] {} can be written by others (mode {:04o})",
            folder.display(),
            found.mode() & 0o7777
        );
        return Err(CliError::new(Outcome::Config, message).hint(format!("chmod go-w {}", folder.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn refusal(path: &Path) -> String {
        let error = look(path, "text").unwrap_err();
        assert_eq!(error.outcome, Outcome::Config);
        error.message
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.service");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(look(&path, "text").unwrap(), Found::Nothing);
        for mode in [0o775, 0o757, 0o777, 0o1777] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let said = refusal(&path);
            assert!(said.starts_with("[unsafe-permissions]") && said.contains(&format!("{mode:04o}")), "{said}");
        }
    }

    #[test]
    fn only_what_we_wrote_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.service");
        fs::write(&path, "[Service]\nExecStart=/bin/true\n").unwrap();
        assert!(refusal(&path).contains("was not written by this program"));
        fs::write(&path, format!("{}\n[Service]\n", systemd::MARK)).unwrap();
        assert_eq!(look(&path, "text").unwrap(), Found::Ours);
        fs::write(&path, "text").unwrap();
        assert_eq!(look(&path, "text").unwrap(), Found::Same);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(refusal(&path).contains("is no ordinary file"));
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.service");
        fs::write(&path, systemd::MARK).unwrap();
        // Only root can give files away.
        if std::os::unix::fs::chown(&path, Some(1234), None).is_ok() {
            assert!(refusal(&path).contains("belongs to user 1234"));
        }
    }
}
