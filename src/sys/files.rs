//! Files that matter: written whole or not at all, private, and locked while somebody owns them.

use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::domain::time::UnixMillis;
use crate::sys::ownership;
use crate::sys::random;

/// A folder whose entries only their owners may remove (inode(7)).
const STICKY: u32 = 0o1000;
/// Mode of files that hold something private.
pub const PRIVATE_FILE: u32 = 0o600;
/// Mode of folders that hold something private.
pub const PRIVATE_FOLDER: u32 = 0o700;
/// A temporary file this old is in nobody's hands any more: writing one takes milliseconds.
const IN_THE_MAKING: Duration = Duration::from_secs(60);
/// Symbolic links that are followed on the way to one file; the kernel gives up there too.
const MAX_LINKS: usize = 40;

/// Whether there is no room: on the volume, or within a quota.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes `content` to `path` with mode 0600: a temporary file beside it, fsync, rename, fsync of the
/// folder. After a crash either the old content stands there or the new.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    put_private(path, content, |temporary| fs::rename(temporary, path))
}

/// Writes a new file and fails where one exists already, so that two writers cannot both think they
/// made it. Same guarantees as [`write_private`].
pub fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    // A hard link fails where the name is taken; a rename would overwrite.
    put_private(path, content, |temporary| fs::hard_link(temporary, path))
}

/// The name of `path` with `end` behind it.
pub fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// A name beside `path` for what shall become it.
pub fn temporary_for(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let suffix = random::hex::<8>().map_err(io::Error::other)?;
    Ok(folder_of(path).join(format!(".{name}.{suffix}.tmp")))
}

/// Removes what killed processes left of files that should become `path` ([`temporary_for`]); not what may be in the
/// making still.
pub fn sweep_temporaries(path: &Path, now: UnixMillis) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let begin = format!(".{name}.");
    let is_temporary = |name: &str| {
        let suffix = name.strip_prefix(&begin).and_then(|rest| rest.strip_suffix(".tmp"));
        suffix.is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    for entry in fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        // Of the name itself: a link is none of ours.
        let Ok(found) = entry.metadata() else { continue };
        let age = i128::from(now.0).saturating_sub(i128::from(found.mtime()).saturating_mul(1000));
        let old = age > i128::try_from(IN_THE_MAKING.as_millis()).unwrap_or(i128::MAX);
        if old && found.is_file() && entry.file_name().to_str().is_some_and(is_temporary) {
            // It costs room and is private; the next start tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A new file, mode 0600, to be written.
pub fn create_new_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path)
}

/// A new log, mode 0600: what is written goes to its end, whoever else writes.
pub fn create_new_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(PRIVATE_FILE).open(path)
}

/// Gives a file that is whole and on disk its name; what had it is replaced.
pub fn put_in_place(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path)?;
    sync_folder(folder_of(path))
}

/// The folder a path lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Brings the names in a folder to disk.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a temporary file in the folder of `path` and has it put into its place.
fn put_private(path: &Path, content: &[u8], put: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_for(path)?;
    let written = (|| {
        let mut file = create_new_private(&temporary)?;
        give_to_the_folders_owner(&file, folder_of(path))?;
        file.write_all(content)?;
        file.sync_all()?;
        put(&temporary)?;
        sync_folder(folder_of(path))
    })();
    // Gone after a rename, a second name after a link; after an error the error is what matters, and a
    // leftover is harmless.
    let _ = fs::remove_file(&temporary);
    written
}

/// What root writes into the folder of another user is that user's: a token that `sudo` mints must be readable to the
/// gateway that runs as its own user.
fn give_to_the_folders_owner(file: &File, folder: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let found = fs::metadata(folder)?;
    // A sticky folder is one that strangers share.
    if found.uid() == 0 || found.mode() & STICKY != 0 {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(found.uid()), Some(found.gid()))
}

/// Puts `new` in place of what somebody's file holds, which must be `old` still. Mode and owner stay, a symbolic link
/// stays one; no copy of `old` remains. Everything that would leave one is an error: another name of the file (a hard
/// link), a change in the meantime.
pub fn replace_content(path: &Path, old: &[u8], new: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let found = fs::metadata(&path)?;
    if !found.is_file() {
        return Err(io::Error::other("is no ordinary file"));
    }
    if found.nlink() > 1 {
        return Err(io::Error::other("has other names (hard links), under which the old content would stay"));
    }
    put_private(&path, new, |temporary| {
        let made = fs::metadata(temporary)?;
        if (made.uid(), made.gid()) != (found.uid(), found.gid()) {
            std::os::unix::fs::chown(temporary, Some(found.uid()), Some(found.gid()))?;
        }
        fs::set_permissions(temporary, found.permissions())?;
        let is_same = read_bytes(&path, old.len() as u64).is_ok_and(|now| now == old);
        if !is_same {
            return Err(io::Error::other("was changed in the meantime"));
        }
        fs::rename(temporary, &path)
    })
}

/// Makes a folder and its parents; those it makes get mode 0700.
pub fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(path)
}

/// The same, for a folder whose content is believed: which processes are ours, what Envoy is to run with,
/// which nonces are used. One that is there already must not be in the hands of others.
pub fn own_folder(path: &Path) -> io::Result<()> {
    private_folder(path)?;
    check_folder(path)
}

/// Whether the content of a folder that is there is believed; see [`own_folder`].
pub fn check_folder(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path)?;
    match others_may_write(found.uid(), found.mode(), rustix::process::geteuid().as_raw()) {
        None => Ok(()),
        Some(why) => {
            let text = format!("{why}; give the gateway a folder of its own, mode 0700");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
    }
}

/// Why a folder of this owner and mode cannot be believed by `us`. Root may hand folders out, as container
/// platforms do with volumes that everybody inside may write (0777), and may use those of others; a group
/// may share the sockets. A sticky folder is one that strangers share.
fn others_may_write(owner: u32, mode: u32, us: u32) -> Option<&'static str> {
    let (everybody, sticky) = (mode & 0o002 != 0, mode & STICKY != 0);
    if us != 0 && owner != us && owner != 0 {
        Some("it belongs to another user")
    } else if everybody && (sticky || owner != 0) {
        Some("every user of this machine may write to it")
    } else {
        None
    }
}

/// Opens an ordinary file for reading. What is none (a pipe, a device) is an error and holds nothing up.
pub fn open_ordinary(path: &Path) -> io::Result<File> {
    ordinary(open_at_once(path)?)
}

/// The same in a folder another program writes to: a link in the file's place, which could lead to a secret that program may
/// not read, is an error too.
pub fn open_unlinked(path: &Path) -> io::Result<File> {
    ordinary(open_with(path, AT_ONCE | OFlags::NOFOLLOW)?)
}

/// Opens whatever is there for reading: a pipe without waiting for its writer, a terminal without becoming its own.
pub fn open_at_once(path: &Path) -> io::Result<File> {
    open_with(path, AT_ONCE)
}

const AT_ONCE: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

fn open_with(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.map_err(|error| explained(path, error))
}

/// An error of opening a file to read it, with whose it is where that is what is wrong.
fn explained(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    io::Error::new(error.kind(), ownership::denied(path))
}

fn ordinary(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("is no ordinary file")) }
}

/// Reads at most `limit` bytes of an ordinary file of text; a longer one is an error, not a cut.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    text_of(open_ordinary(path)?, limit)
}

/// The same for a file that somebody names in a command: a pipe (`<(command)`) is waited for, as it is meant.
pub fn read_named_text(path: &Path, limit: u64) -> io::Result<String> {
    text_of(File::open(path).map_err(|error| explained(path, error))?, limit)
}

/// The text of an open file.
pub fn text_of(file: File, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    file.take(limit.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
    }
    Ok(text)
}

/// Reads at most `limit` bytes of an ordinary file; a longer one is an error, not a cut. Who wants to wipe them later
/// gets them in one piece of memory.
pub fn read_bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_ordinary(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(limit.min(64 * 1024)).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Whether a file of this owner is in nobody's hands but ours and root's.
pub fn is_trusted_owner(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Why a way was not gone to its end.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// There is no such way, or not for us.
    #[error("{path}: {source}")]
    Io {
        /// How far it went.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// What was judged is not to be passed.
    #[error("{0}")]
    Refused(String),
}

/// Goes from the root to what a path leads to and shows `judge` all there is on the way: each folder, each symbolic
/// link, and the end. Gives the end, by its name without links. Each step starts from the very folder that was shown, so
/// nobody can put another in its place meanwhile.
pub fn walk(
    path: &Path,
    mut judge: impl FnMut(&Path, &Metadata) -> Result<(), String>,
) -> Result<(PathBuf, Metadata), WalkError> {
    let failed = |at: &Path, source: io::Error| WalkError::Io { path: at.to_owned(), source };
    let mut ahead = steps(&std::path::absolute(path).map_err(|error| failed(path, error))?);
    let mut at = PathBuf::from("/");
    let root = step(CWD, &at).map_err(|error| failed(&at, error))?;
    let mut found = root.metadata().map_err(|error| failed(&at, error))?;
    judge(&at, &found).map_err(WalkError::Refused)?;
    // What was passed and not left again; its length is that of the longest path the kernel knows.
    let mut passed: Vec<(File, Metadata)> = Vec::new();
    let mut links = 0_usize;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            // The root is its own parent.
            if passed.pop().is_some() {
                at.pop();
            }
            continue;
        }
        let next = at.join(&name);
        let from = passed.last().map_or(&root, |(folder, _)| folder);
        let here = step(from, Path::new(&name)).map_err(|error| failed(&next, error))?;
        let seen = here.metadata().map_err(|error| failed(&next, error))?;
        judge(&next, &seen).map_err(WalkError::Refused)?;
        if !seen.is_symlink() {
            passed.push((here, seen));
            at = next;
            continue;
        }
        links = links.saturating_add(1);
        if links > MAX_LINKS {
            return Err(failed(&next, Errno::LOOP.into()));
        }
        let target = rustix::fs::readlinkat(&here, "", Vec::new()).map_err(|error| failed(&next, error.into()))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            passed.clear();
            at = PathBuf::from("/");
        }
        ahead.extend(steps(&target));
    }
    if let Some((_, last)) = passed.pop() {
        found = last;
    }
    Ok((at, found))
}

/// What lies in a folder, a link as the link it is; nothing is opened that could be read or could wait.
fn step(folder: impl AsFd, name: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?))
}

/// The names in a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let named = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(named).map(|part| part.as_os_str().to_owned()).collect()
}

/// Whether users besides the owner may read a file.
pub fn is_readable_by_others(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.mode() & 0o044 != 0)
}

/// Whether a file, or what its name leads to, was changed at that moment or later. One that is not there was not.
pub fn changed_since(path: &Path, moment: UnixMillis) -> bool {
    let millis = |seconds: i64, nanos: i64| i128::from(seconds) * 1000 + i128::from(nanos) / 1_000_000;
    let since = |found: fs::Metadata| {
        let times = [millis(found.mtime(), found.mtime_nsec()), millis(found.ctime(), found.ctime_nsec())];
        times.into_iter().any(|time| time >= i128::from(moment.0))
    };
    // A turned link has a new time of its own, and an old file behind it.
    fs::metadata(path).is_ok_and(since) || fs::symlink_metadata(path).is_ok_and(since)
}

/// An exclusive lock on a file, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it; what they wrote into it says who.
    #[error("{path} is locked by {holder}")]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote: its process id and role.
        holder: String,
    },
    /// The lock file could not be used.
    #[error("{path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl FileLock {
    /// Takes the lock at once or says who holds it. `holder` is written into the file, e.g. `pid 42 (gateway)`.
    pub fn take(path: &Path, holder: &str) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&mut file).take(256).read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
                return Err(LockError::Held { path: path.to_owned(), holder: holder.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // In this order: a full volume has no room for what was given back to it.
        file.write_all(holder.as_bytes()).and_then(|()| file.set_len(holder.len() as u64)).map_err(io)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For whoever wants to know later whether the lock still keeps others out.
    pub fn watch(&self) -> io::Result<LockWatch> {
        let found = self.file.metadata()?;
        Ok(LockWatch { path: self.path.clone(), file: (found.dev(), found.ino()) })
    }
}

/// Looks whether a lock still means something. A lock is one of a file and not of its name: where the file was removed or
/// the folder replaced, another process can take a lock of the same name.
#[derive(Debug, Clone)]
pub struct LockWatch {
    path: PathBuf,
    /// Device and number of the file that is locked.
    file: (u64, u64),
}

impl LockWatch {
    /// Whether the name still leads to the file that is locked.
    pub fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file)
    }
}

/// Bytes that may still be written below a folder.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // The name of a holder that is gone would mislead.
        let _ = self.file.set_len(0);
        // Not by closing alone: a process that another thread starts at this moment has a copy of the file until it runs
        // its program, and would hold the lock so long.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_private_file_is_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE_FILE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_whose_file_was_replaced_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = FileLock::take(&path, "one").unwrap();
        let watch = lock.watch().unwrap();
        assert!(watch.is_in_place());
        fs::remove_file(&path).unwrap();
        assert!(!watch.is_in_place());
        let _other = FileLock::take(&path, "two").unwrap();
        assert!(!watch.is_in_place());
    }

    #[test]
    fn a_folder_says_how_much_room_is_left() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).unwrap() > 0);
        assert!(free_bytes(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn a_created_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create_private(&path, b"one").unwrap();
        assert_eq!(create_private(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let left = temporary_for(&path).unwrap();
        let fresh = temporary_for(&path).unwrap();
        let link = temporary_for(&path).unwrap();
        let others =
            [".key.tmp", ".key.0123456789abcdeg.tmp", ".key.next.0123456789abcdef.tmp", "key.0123456789abcdef.tmp"];
        let others = others.map(|name| folder.path().join(name));
        let now = UnixMillis(1_700_000_000_000);
        let at = |seconds: u64| std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        for (file, seconds) in
            [(&left, 1_699_999_000), (&fresh, 1_699_999_990)].into_iter().chain(others.iter().map(|file| (file, 1)))
        {
            fs::write(file, b"x").unwrap();
            File::options().write(true).open(file).unwrap().set_modified(at(seconds)).unwrap();
        }
        std::os::unix::fs::symlink(&others[0], &link).unwrap();
        // Links are as old as this test; at this moment all are old enough.
        sweep_temporaries(&path, now);
        assert!(!left.exists() && fresh.exists() && link.is_symlink());
        sweep_temporaries(&path, UnixMillis(9_999_999_999_999));
        assert!(!fresh.exists() && link.is_symlink());
        assert!(others.iter().all(|file| file.exists()), "{others:?}");
        sweep_temporaries(&folder.path().join("none/key"), now);
    }

    #[test]
    fn somebodys_file_keeps_its_mode_and_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join(".env"), folder.path().join("link"));
        fs::write(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace_content(&link, b"old", b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        for old in [&b"old"[..], b"ne", b"newer"] {
            assert!(replace_content(&path, old, b"other").unwrap_err().to_string().contains("in the meantime"));
        }
        fs::hard_link(&path, folder.path().join("second")).unwrap();
        assert!(replace_content(&path, b"new", b"other").unwrap_err().to_string().contains("hard links"));
        assert!(replace_content(folder.path(), b"", b"").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left behind");
    }

    #[test]
    fn a_folder_that_strangers_may_write_to_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        own_folder(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE_FOLDER);
        for shared in [0o1777, 0o1703] {
            fs::set_permissions(&path, fs::Permissions::from_mode(shared)).unwrap();
            assert_eq!(own_folder(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{shared:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2770)).unwrap();
        own_folder(&path).unwrap();
    }

    #[test]
    fn owner_and_mode_decide_who_may_write() {
        for (owner, mode, us, believed) in [
            (1000, 0o700, 1000, true),
            (1000, 0o2770, 1000, true),
            (0, 0o755, 1000, true),
            (0, 0o777, 65532, true),
            (1000, 0o700, 0, true),
            (1000, 0o777, 1000, false),
            (1000, 0o777, 0, false),
            (0, 0o1777, 1000, false),
            (0, 0o1777, 0, false),
            (1001, 0o700, 1000, false),
            (1001, 0o777, 1000, false),
        ] {
            assert_eq!(others_may_write(owner, mode, us).is_none(), believed, "{owner} {mode:o} {us}");
        }
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("gateway.yaml");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for path in [pipe, PathBuf::from("/dev/zero"), folder.path().to_owned()] {
            let (sender, receiver) = std::sync::mpsc::channel();
            let asked = path.clone();
            std::thread::spawn(move || {
                let bytes = read_bytes(&asked, 10).map(drop);
                sender.send([read_text(&asked, 10).map(drop), bytes, open_ordinary(&asked).map(drop)]).unwrap();
            });
            let answers = receiver.recv_timeout(std::time::Duration::from_secs(10)).expect("somebody waits");
            for answer in answers {
                assert!(answer.unwrap_err().to_string().contains("is no ordinary file"), "{path:?}");
            }
        }
    }

    #[test]
    fn a_way_shows_every_folder_and_link_and_ends_where_the_kernel_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), b"x").unwrap();
        std::os::unix::fs::symlink("../a/./b", root.join("a/near")).unwrap();
        std::os::unix::fs::symlink(root.join("a/near"), root.join("far")).unwrap();
        let mut seen = Vec::new();
        let (end, found) = walk(&root.join("far/../b/file"), |at, found| {
            let kind = if found.is_symlink() { "link" } else { "place" };
            seen.push((at.strip_prefix(&root).unwrap_or(at).to_owned(), kind));
            Ok(())
        })
        .unwrap();
        assert_eq!(end, fs::canonicalize(root.join("far/../b/file")).unwrap());
        assert_eq!(found.ino(), fs::metadata(root.join("a/b/file")).unwrap().ino());
        for link in ["far", "a/near"] {
            assert!(seen.contains(&(PathBuf::from(link), "link")), "{seen:?}");
        }
        assert!(seen.contains(&(PathBuf::from("/"), "place")) && seen.contains(&(PathBuf::from("a/b"), "place")));
        assert!(matches!(walk(&root.join("a/none"), |_, _| Ok(())), Err(WalkError::Io { .. })));
        std::os::unix::fs::symlink("round", root.join("round")).unwrap();
        assert!(matches!(walk(&root.join("round"), |_, _| Ok(())), Err(WalkError::Io { .. })));
    }

    #[test]
    fn what_is_exchanged_behind_a_way_is_not_gone_into() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        for name in ["given", "other"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("file"), name).unwrap();
        }
        let given = fs::metadata(root.join("given/file")).unwrap().ino();
        let (_, found) = walk(&root.join("given/file"), |at, _| {
            // As a stranger would, the moment the folder has been looked at.
            if at == root.join("given") {
                fs::rename(at, root.join("aside")).unwrap();
                std::os::unix::fs::symlink("other", at).unwrap();
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(found.ino(), given);
    }

    #[test]
    fn what_root_writes_into_the_folder_of_another_user_is_that_users() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let owner = |path: &Path| fs::metadata(path).unwrap().uid();
        let us = rustix::process::geteuid();
        if us.is_root() {
            std::os::unix::fs::chown(folder.path(), Some(4711), Some(4711)).unwrap();
        }
        write_private(&path, b"x").unwrap();
        assert_eq!(owner(&path), if us.is_root() { 4711 } else { us.as_raw() });
        // Where strangers share a folder it says nothing about a file.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        write_private(&path, b"y").unwrap();
        assert_eq!(owner(&path), us.as_raw());
    }

    #[test]
    fn the_second_taker_learns_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FileLock::take(&path, "pid 1 (gateway)").unwrap();
        match FileLock::take(&path, "pid 2") {
            Err(LockError::Held { holder, .. }) => assert_eq!(holder, "pid 1 (gateway)"),
            other => unreachable!("{other:?}"),
        }
        drop(held);
        FileLock::take(&path, "pid 2").unwrap();
    }
}
