//! Secrets in files: who owns them, who else may read them, and that no half of one is taken.
//!
//! A secret file belongs to our user or to root and nobody else may read or write it. Two exceptions keep container
//! platforms usable: a file of root's that one of *our* groups may read is what Kubernetes makes of a secret volume
//! with an `fsGroup` (mode 0440, behind symbolic links), and is accepted where we are not root; any other group's
//! reading wants `allow_group_read` on the provider. A file every user may read is never accepted.
//!
//! Symbolic links are followed where they belong to our user or to root. Whoever may write to the folder could otherwise
//! put a link to another secret of ours in the file's place, and have that one sent to a provider. The folders
//! themselves are not judged: container platforms hand out volumes that everybody may write to.

use std::fs;
use std::fs::Metadata;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::files::WalkError;
use crate::sys::ownership;
use crate::sys::ownership::Access;
use crate::sys::ownership::Refusal;
use crate::sys::ownership::Us;

/// A file that was written to less than this ago may still be written to.
const QUIET: Duration = Duration::from_millis(100);
/// How long a file may take to come to rest: a writer that empties it and writes it anew takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// What a secret file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rules {
    /// Largest file, in bytes.
    pub max_bytes: u64,
    /// Whether its group may read it, whichever group that is.
    pub allow_group_read: bool,
}

/// One attempt that did not succeed.
enum Attempt<T> {
    /// It may be better in a moment; else this is what it is.
    Unsettled(Result<T, String>),
    /// It is as it is.
    Failed(String),
}

/// Reads a secret file whole and has `take` make something of it; `Err`: that looks like half a file. Such a file is read
/// again until it has been left alone for a while; blocks for as long as that takes, at most `PATIENCE`.
pub fn read<T>(path: &Path, rules: Rules, take: impl Fn(&[u8]) -> Result<T, T>) -> Result<T, String> {
    let begun = SystemClock.now().monotonic;
    loop {
        let so_far = match attempt(path, rules, &take) {
            Ok(value) => return Ok(value),
            Err(Attempt::Failed(reason)) => return Err(reason),
            Err(Attempt::Unsettled(so_far)) => so_far,
        };
        if u128::from(SystemClock.now().monotonic.since(begun)) > PATIENCE.as_millis() {
            return so_far;
        }
        std::thread::sleep(LOOK);
    }
}

fn attempt<T>(path: &Path, rules: Rules, take: &impl Fn(&[u8]) -> Result<T, T>) -> Result<T, Attempt<T>> {
    let shown = path.display();
    let failed = |what: String| Attempt::Failed(format!("{shown} {what}"));
    let mut file = files::open_at_once(path).map_err(|error| {
        let kind = error.kind();
        if kind == io::ErrorKind::PermissionDenied {
            failed(format!("cannot be read: {error}"))
        } else if kind != io::ErrorKind::NotFound {
            failed(format!("cannot be read: {kind}"))
        } else if between_two_files(path) {
            Attempt::Unsettled(Err(format!("{shown} does not exist")))
        } else {
            failed("does not exist".to_owned())
        }
    })?;
    let before = file.metadata().map_err(|error| failed(format!("cannot be read: {}", error.kind())))?;
    if !before.is_file() {
        return Err(failed("is not a regular file".to_owned()));
    }
    ownership::check_secret(&Access::of(&before), &Us::now(), rules.allow_group_read).map_err(|refusal| {
        let hint = match refusal {
            Refusal::GroupReads(_) => ", or set allow_group_read on its provider",
            Refusal::Owner(_) | Refusal::Everybody(_) | Refusal::GroupWrites(_) => "",
        };
        failed(format!("{}{hint}", refusal.said(path)))
    })?;
    check_way(path, &before)?;
    if before.len() > rules.max_bytes {
        return Err(failed(format!("is larger than {} bytes", rules.max_bytes)));
    }
    // The whole buffer at once: one that grows leaves copies behind.
    let room = usize::try_from(before.len()).unwrap_or_default().saturating_add(64);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    (&mut file)
        .take(before.len().saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| failed(format!("cannot be read: {}", error.kind())))?;
    let after = file.metadata().map_err(|error| failed(format!("cannot be read: {}", error.kind())))?;
    let moved = Stamp::of(&before) != Stamp::of(&after) || bytes.len() as u64 != before.len();
    if moved || is_fresh(&after, QUIET) {
        return Err(Attempt::Unsettled(Err(format!("{shown} is being written to"))));
    }
    let taken = match take(&bytes) {
        _ if bytes.is_empty() => Err(format!("{shown} is empty")),
        Ok(value) => return Ok(value),
        Err(value) => Ok(value),
    };
    if is_fresh(&after, PATIENCE) { Err(Attempt::Unsettled(taken)) } else { taken.map_err(Attempt::Failed) }
}

/// Whether nobody but us and root led us to what was opened. It was opened by its name, so it could have been by another
/// way; the way that is judged must end at that very file.
fn check_way<T>(path: &Path, opened: &Metadata) -> Result<(), Attempt<T>> {
    let shown = path.display();
    let replaced = || Attempt::Unsettled(Err(format!("{shown} is being replaced")));
    let walked = files::walk(path, |at, found| {
        if found.is_symlink() && !files::is_trusted_owner(found.uid()) {
            let (link, owner) = (at.display(), found.uid());
            return Err(format!(
                "is reached through the symbolic link {link}, which belongs to user {owner}, neither to the user of the \
                 gateway nor to root: name what it leads to"
            ));
        }
        Ok(())
    });
    match walked {
        Ok((_, end)) if (end.dev(), end.ino()) == (opened.dev(), opened.ino()) => Ok(()),
        Ok(_) => Err(replaced()),
        Err(WalkError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Err(replaced()),
        Err(WalkError::Io { source, .. }) => Err(Attempt::Failed(format!("{shown} cannot be read: {}", source.kind()))),
        Err(WalkError::Refused(why)) => Err(Attempt::Failed(format!("{shown} {why}"))),
    }
}

/// Whether the folder changed just now: the file may be on its way.
fn between_two_files(path: &Path) -> bool {
    path.parent().and_then(|folder| fs::metadata(folder).ok()).is_some_and(|folder| is_fresh(&folder, PATIENCE))
}

/// Whether something was written less than `age` ago. Times ahead of our clock say nothing.
fn is_fresh(found: &Metadata, age: Duration) -> bool {
    let nanos = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    let written_ms = nanos / 1_000_000;
    let now_ms = i128::from(SystemClock.now().wall.0);
    (0..i128::try_from(age.as_millis()).unwrap_or_default()).contains(&(now_ms - written_ms))
}

/// What changes when a file is written to.
#[derive(PartialEq, Eq)]
struct Stamp(u64, i64, i64, i64, i64);

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self(found.len(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::disallowed_methods,
        reason = "test code may panic, and writes files as other programs do"
    )]

    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::fs::symlink;

    use super::*;

    const STRICT: Rules = Rules { max_bytes: 1024 * 1024, allow_group_read: false };
    const GROUP: Rules = Rules { allow_group_read: true, ..STRICT };

    fn whole(bytes: &[u8]) -> Result<String, String> {
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_everybody_reads_is_refused_with_the_mode_to_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, "canary", 0o644);
        let error = read(&path, GROUP, whole).unwrap_err();
        assert!(error.contains("mode 0644") && error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        assert!(!error.contains("canary"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path, STRICT, whole).unwrap(), "canary");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path, STRICT, whole).unwrap_err().contains("or set allow_group_read"));
        assert_eq!(read(&path, GROUP, whole).unwrap(), "canary");
    }

    #[test]
    fn a_volume_of_kubernetes_is_read_through_its_links_and_has_its_own_advice() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("..2026_01_01");
        fs::create_dir(&data).unwrap();
        write(&data.join("key"), "canary", 0o644);
        symlink("..2026_01_01", folder.path().join("..data")).unwrap();
        symlink("..data/key", folder.path().join("key")).unwrap();
        let path = folder.path().join("key");
        assert!(read(&path, STRICT, whole).unwrap_err().contains("defaultMode: 0440"));
        fs::set_permissions(data.join("key"), fs::Permissions::from_mode(0o440)).unwrap();
        assert_eq!(read(&path, GROUP, whole).unwrap(), "canary");
    }

    #[test]
    fn a_link_somebody_else_made_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("shared");
        fs::create_dir_all(shared.join("deep")).unwrap();
        for open in [&shared, &shared.join("deep")] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let master = folder.path().join("master-key");
        write(&master, "canary", 0o600);
        let key = shared.join("deep/key");
        symlink(&master, &key).unwrap();
        // A link of our own is followed, in whatever folder.
        assert_eq!(read(&key, STRICT, whole).unwrap(), "canary");
        // Handing it over takes root.
        if std::os::unix::fs::lchown(&key, Some(12345), Some(12345)).is_err() {
            return;
        }
        let error = read(&key, STRICT, whole).unwrap_err();
        assert!(error.contains("symbolic link") && error.contains("belongs to user 12345"), "{error}");
        assert!(!error.contains("canary"), "{error}");

        // The same higher up: a folder that is a link of theirs, reached by one of ours.
        write(&shared.join("deep/real"), "ours", 0o600);
        symlink("deep", shared.join("turned")).unwrap();
        symlink("turned/real", shared.join("way")).unwrap();
        assert_eq!(read(&shared.join("way"), STRICT, whole).unwrap(), "ours");
        std::os::unix::fs::lchown(shared.join("turned"), Some(12345), Some(12345)).unwrap();
        let error = read(&shared.join("way"), STRICT, whole).unwrap_err();
        assert!(error.contains("shared/turned, which belongs to user 12345"), "{error}");
        // Folders are not judged, whosever they are.
        std::os::unix::fs::chown(shared.join("deep"), Some(12345), Some(12345)).unwrap();
        assert_eq!(read(&shared.join("deep/real"), STRICT, whole).unwrap(), "ours");
    }

    #[test]
    fn a_way_that_ends_at_another_file_than_was_opened_is_gone_again() {
        let folder = tempfile::tempdir().unwrap();
        let (here, other) = (folder.path().join("here"), folder.path().join("other"));
        write(&here, "here", 0o600);
        write(&other, "other", 0o600);
        let opened = fs::metadata(&other).unwrap();
        assert!(matches!(check_way::<String>(&here, &opened), Err(Attempt::Unsettled(Err(_)))));
        assert!(matches!(check_way::<String>(&folder.path().join("none"), &opened), Err(Attempt::Unsettled(Err(_)))));
        assert!(check_way::<String>(&other, &opened).is_ok());
    }

    #[test]
    fn half_a_file_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        write(&path, "{\"a\":", 0o600);
        let writer = {
            let path = path.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                file.write_all(b"\"b\"}").unwrap();
            })
        };
        let json =
            |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).map_err(|_| serde_json::Value::Null);
        assert_eq!(read(&path, STRICT, json).unwrap(), serde_json::json!({"a": "b"}));
        writer.join().unwrap();
    }

    #[test]
    fn a_file_that_is_replaced_by_hand_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, "", 0o600);
        let writer = {
            let path = path.clone();
            std::thread::spawn(move || {
                fs::remove_file(&path).unwrap();
                std::thread::sleep(Duration::from_millis(300));
                write(&path.with_extension("new"), "new", 0o600);
                fs::rename(path.with_extension("new"), path).unwrap();
            })
        };
        assert_eq!(read(&path, STRICT, whole).unwrap(), "new");
        writer.join().unwrap();
    }

    #[test]
    fn what_is_no_file_is_an_error_and_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(read(&pipe, STRICT, whole).unwrap_err().contains("not a regular file"));
        assert!(read(folder.path(), STRICT, whole).unwrap_err().contains("not a regular file"));
        let large = folder.path().join("large");
        write(&large, &"x".repeat(1024 * 1024 + 1), 0o600);
        assert!(read(&large, STRICT, whole).unwrap_err().contains("larger than 1048576 bytes"));
    }
}
