//! Mends what can be mended without harm: permissions are taken away and never given, what is removed belongs to nobody, and
//! a unit is written anew only after a yes.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::app::gateway::instance;
use crate::cli::doctor::finding::Repair;
use crate::cli::doctor::gather_files;
use crate::cli::gateway::lifecycle::State;
use crate::cli::gateway::lifecycle::Systemctl;
use crate::sys::files;
use crate::sys::files::FileLock;

/// Mends it. What was done, in words; nothing where there is nothing to do any more.
pub(super) async fn apply(repair: &Repair) -> Result<Option<String>, String> {
    match repair {
        Repair::Tighten { path, take } => tighten(path, *take).map_err(|error| at(path, &error)),
        Repair::Folder(path) => {
            files::private_folder(path).map_err(|error| at(path, &error))?;
            Ok(Some(format!("made the folder {} (0700)", path.display())))
        }
        Repair::Remove { paths, lock } => remove(paths, lock),
        Repair::Unit { path, text } => unit(path, text).await,
    }
}

fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// Takes permissions away from the very file that has this name, and not from what a link leads to.
fn tighten(path: &Path, take: u32) -> io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user by now"));
    }
    let old = found.mode() & 0o7777;
    let new = old & !take;
    if new == old {
        return Ok(None);
    }
    file.set_permissions(Permissions::from_mode(new))?;
    Ok(Some(format!("chmod {new:04o} {} (was {old:04o})", path.display())))
}

/// Removes what a gateway that is gone left. None can start meanwhile: the lock is ours.
fn remove(paths: &[std::path::PathBuf], lock: &Path) -> Result<Option<String>, String> {
    let holder = format!("pid {} (sigilum doctor --fix)", std::process::id());
    let _lock = FileLock::take(lock, &holder).map_err(|error| error.to_string())?;
    let mut removed = Vec::new();
    for path in paths {
        let run = files::folder_of(path);
        let own = *path == instance::path(run);
        let living = instance::Instance::read(run).is_some_and(|found| {
            found.supervisor.is_alive() || found.children.iter().any(|child| child.process.is_alive())
        });
        // Somebody may have taken it into use since it was looked at.
        if own && !living || gather_files::is_dead_socket(path) {
            fs::remove_file(path).map_err(|error| at(path, &error))?;
            removed.push(path.display().to_string());
        }
    }
    Ok((!removed.is_empty()).then(|| format!("removed {}", removed.join(", "))))
}

/// Writes a unit anew and has systemd read it. One that runs is stopped before, and started once more by what stands there now;
/// where anything of that fails it stays stopped, and the error says so.
async fn unit(path: &Path, text: &str) -> Result<Option<String>, String> {
    let found = fs::symlink_metadata(path).map_err(|error| at(path, &error))?;
    if !found.is_file() {
        return Err(format!("{} is a link: what it leads to is somebody else's", path.display()));
    }
    let written = format!("wrote {} anew", path.display());
    let Some(systemctl) = Systemctl::find().await else {
        write(path, text)?;
        return Ok(Some(format!("{written}; then: systemctl --user daemon-reload")));
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let runs = systemctl.standing(name).await.map_err(|error| error.message)?.state != State::Inactive;
    if !runs {
        write(path, text)?;
        systemctl.reload().await.map_err(|error| error.message)?;
        return Ok(Some(format!("{written}; it counts from the next start of the unit")));
    }
    systemctl.stop_now(name).await.map_err(|error| error.message)?;
    let again = async {
        write(path, text)?;
        systemctl.reload().await.map_err(|error| error.message)?;
        let standing = systemctl.restart(name).await.map_err(|error| error.message)?;
        if standing.state != State::Active {
            return Err(format!("it ended at once (exit code {})", standing.exit_status));
        }
        Ok(())
    };
    match again.await {
        Ok(()) => Ok(Some(format!("{written}, and started the unit by it"))),
        Err(why) => {
            // What is started again and again is not left to itself.
            let _ = systemctl.stop_now(name).await;
            Err(format!("{why}; {name} stays stopped"))
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    files::write_private(path, text.as_bytes()).map_err(|error| at(path, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic, and writes its files")]

    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    proptest! {
        #[test]
        fn no_permission_is_ever_given(old in 0o400_u32..0o1000, take in 0_u32..0o100) {
            let old = old | 0o400;
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(old)).unwrap();
            tighten(&path, take).unwrap();
            prop_assert_eq!(mode(&path), old & !take);
            // Once more changes nothing.
            prop_assert_eq!(tighten(&path, take).unwrap(), None);
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        tighten(&link, 0o077).unwrap_err();
        assert_eq!(mode(&path), 0o644);
    }

    #[test]
    fn a_socket_in_use_and_a_locked_folder_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        drop(UnixListener::bind(at("dead.sock")).unwrap());
        let _live = UnixListener::bind(at("live.sock")).unwrap();
        fs::write(at("instance.json"), "half").unwrap();
        let paths = [at("dead.sock"), at("live.sock"), at("instance.json")];
        let held = FileLock::take(&at("lock"), "pid 1 (gateway)").unwrap();
        assert!(remove(&paths, &at("lock")).unwrap_err().contains("pid 1 (gateway)"));
        assert!(paths.iter().all(|path| path.exists()));
        drop(held);
        assert!(remove(&paths, &at("lock")).unwrap().is_some());
        assert_eq!(paths.map(|path| path.exists()), [false, true, false]);
    }
}
