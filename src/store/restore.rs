//! A backup in the place of the store. Everything is made and proven beside it; then one rename decides. Until then a
//! kill leaves the old store, from then on the new one.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::audit::Via;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::backup::bears_our_mark;
use crate::store::backup::scratch;
use crate::store::engine::Engine;
use crate::store::engine::Found;
use crate::store::master_keys;
use crate::store::master_keys::MasterKeys;
use crate::store::master_keys::Origin;
use crate::store::rekey::wrap_all;
use crate::store::seal::MasterKey;
use crate::store::sealed::Checked;
use crate::store::unlock::salt;
use crate::store::vault::Vault;
use crate::store::worker::DATABASE_FILE;
use crate::store::worker::lock;
use crate::sys::database::DatabaseError;
use crate::sys::files;
use crate::sys::files::PRIVATE_FILE;
use crate::sys::files::beside;
use crate::sys::files::sync_folder;
use crate::sys::random;

/// What SQLite keeps beside a database.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// What has just been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A copy of the backup lies in the folder.
    Copied,
    /// It is proven and ready.
    Proven,
    /// The old store has a second name.
    Kept,
    /// The backup is the store.
    Replaced,
}

/// A restore, done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What is in it.
    pub checked: Checked,
    /// Where the store lies that was there before; nobody removes it but its owner.
    pub kept: Option<PathBuf>,
    /// Whether it was sealed with another key than the gateway's and is wrapped for that one now.
    pub wrapped: bool,
    /// The file into which the backup's own key was written, because the gateway had none.
    pub key_file: Option<PathBuf>,
}

/// Puts the backup `from` in the place of the folder's store. It must open with one of `keys`, or with `other`; in the
/// latter case it is wrapped for the first of `keys`, and where there is none `other` becomes the key in its file.
pub fn restore(
    folder: &Path,
    from: &Path,
    keys: &MasterKeys,
    other: Option<Secret>,
    holder: &str,
    now: UnixMillis,
    reached: &mut dyn FnMut(Step),
) -> Result<Restored, StoreError> {
    let _lock = lock(folder, holder)?;
    let staged = Staged(scratch(folder)?);
    copy(from, &staged.0).map_err(|source| DatabaseError::Io { path: from.to_owned(), source })?;
    reached(Step::Copied);
    let (checked, wrapped, key_file) = prove(&staged.0, from, keys, other, now).map_err(|error| named(error, from))?;
    reached(Step::Proven);
    let current = folder.join(DATABASE_FILE);
    let io = |source| DatabaseError::Io { path: current.clone(), source };
    let kept = keep(&current, now).map_err(io)?;
    reached(Step::Kept);
    fs::rename(&staged.0, &current).and_then(|()| sync_folder(folder)).map_err(io)?;
    reached(Step::Replaced);
    Ok(Restored { checked, kept, wrapped, key_file })
}

/// A copy that is removed unless it was given its place.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        for name in [self.0.clone()].into_iter().chain(COMPANIONS.map(|end| beside(&self.0, end))) {
            let _ = fs::remove_file(name);
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = files::open_ordinary(from)?;
    if fs::metadata(beside(from, "-wal")).is_ok_and(|wal| wal.len() > 0) {
        let text = "a write-ahead log lies beside it, so it is a copy of a running store and not whole; \
                    use what `sigilum gateway backup` made";
        return Err(io::Error::other(text));
    }
    let mut target = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(to)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()
}

/// Proves the copy, brings it to this version's schema and to the gateway's key, and gives it an epoch of its own.
fn prove(
    staged: &Path,
    from: &Path,
    keys: &MasterKeys,
    other: Option<Secret>,
    now: UnixMillis,
) -> Result<(Checked, bool, Option<PathBuf>), StoreError> {
    let Found::Store(engine, schema) = Engine::look(staged)? else {
        return Err(DatabaseError::Foreign { path: from.to_owned() }.into());
    };
    let damaged = |detail: String| DatabaseError::Damaged { path: from.to_owned(), detail };
    let verdict: String = engine.db().query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(damaged(verdict).into());
    }
    let own = keys.candidates()?;
    if own.is_empty() && other.is_none() {
        return Err(keys.missing().into());
    }
    let nowhere = MasterKeys::from(Secret::new(String::new()));
    let mut candidates: Vec<_> = own.iter().map(|(origin, key)| (*origin, key.duplicate())).collect();
    // Behind the gateway's own: a backup that opens with those needs no other.
    let foreign = candidates.len();
    candidates.extend(other.map(|key| (Origin::Given, key)));
    let mut opened = None;
    for (at, candidate) in candidates.iter().enumerate() {
        if crate::store::unlock::find_key(&engine, schema, std::slice::from_ref(candidate))?.is_some() {
            opened = Some(at);
            break;
        }
    }
    let at = opened.ok_or_else(|| StoreError::WrongMasterKey { path: from.to_owned() })?;
    let key = candidates.swap_remove(at).1;
    let mut vault = Vault::unlock(engine, schema, &[(Origin::Given, key.duplicate())], nowhere.place().clone())?;
    let checked = vault.check()?;
    if !checked.unreadable.is_empty() {
        return Err(StoreError::Unreadable(checked.unreadable));
    }
    let (mut wrapped, mut key_file) = (false, None);
    if at == foreign {
        match own.first() {
            Some((_, current)) => {
                let next = MasterKey::derive(current, &salt(&vault.engine)?)?;
                vault.engine.write(|writer| wrap_all(writer, &vault.key, &next))?;
                wrapped = true;
            }
            None => key_file = keys.place().file().map(Path::to_owned),
        }
    }
    let name = from.file_name().unwrap_or_default().to_string_lossy();
    let detail = Detail::default().number("connections", checked.connections).flag("other_master_key", at == foreign);
    begin_anew(&mut vault, &Entry::new(Action::StoreRestore, &name, &Asker::local(Via::Command), now).with(detail))?;
    vault.engine.checkpoint()?;
    drop(vault);
    // Closing took the log away with it; a file that is not whole by itself is none to rename.
    if fs::metadata(beside(staged, "-wal")).is_ok_and(|wal| wal.len() > 0) {
        return Err(damaged("its write-ahead log could not be folded into it".to_owned()).into());
    }
    let sync = || File::open(staged)?.sync_all();
    sync().map_err(|source| DatabaseError::Io { path: staged.to_owned(), source })?;
    if let Some(file) = &key_file {
        master_keys::write(file, &key)?;
    }
    Ok((checked, wrapped, key_file))
}

/// A state that no process has seen, although its version number may have been used.
fn begin_anew(vault: &mut Vault, entry: &Entry) -> Result<(), StoreError> {
    let epoch = random::uuid()?;
    let version = vault.state.version.saturating_add(1);
    vault.engine.write(|writer| {
        writer.set_meta("epoch", epoch.as_bytes())?;
        writer.insert_audit(entry)?;
        writer.set_meta("version", &version.to_be_bytes())
    })
}

/// Gives the store that is there a second name, and takes away what would be read as part of the next one.
fn keep(current: &Path, now: UnixMillis) -> io::Result<Option<PathBuf>> {
    if !current.exists() {
        remove_companions(current)?;
        return Ok(None);
    }
    // Its log belongs into it. One that cannot be opened any more keeps its log beside itself.
    if let Ok(Found::Store(engine, _)) = Engine::look(current)
        && let Err(error) = engine.checkpoint()
    {
        tracing::warn!(%error, "the write-ahead log of the old store stays beside it");
    }
    let stamp: String = now.rfc3339().chars().filter(|letter| !matches!(letter, ':' | '-' | '.')).collect();
    let kept = beside(current, &format!(".before-restore-{stamp}"));
    link(current, &kept)?;
    let log = beside(current, "-wal");
    if fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
        link(&log, &beside(&kept, "-wal"))?;
    }
    if let Some(folder) = current.parent() {
        sync_folder(folder)?;
    }
    remove_companions(current)?;
    Ok(Some(kept))
}

fn remove_companions(current: &Path) -> io::Result<()> {
    for end in COMPANIONS {
        match fs::remove_file(beside(current, end)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A second name; a copy where the file system knows no such thing.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => copy_private(from, to),
        done => done,
    }
}

fn copy_private(from: &Path, to: &Path) -> io::Result<()> {
    let mut target = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(to)?;
    io::copy(&mut File::open(from)?, &mut target)?;
    target.sync_all()
}

/// The error with the name its reader knows, and what SQLite says of a file that is not whole in words.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other error says what it says")]
fn named(error: StoreError, from: &Path) -> StoreError {
    let path = from.to_owned();
    match error {
        StoreError::Database(DatabaseError::Foreign { .. }) if bears_our_mark(from) => {
            DatabaseError::Damaged { path, detail: "it is not whole".to_owned() }.into()
        }
        StoreError::Database(DatabaseError::Foreign { .. }) => DatabaseError::Foreign { path }.into(),
        StoreError::Database(DatabaseError::Newer { found, known, .. }) => {
            DatabaseError::Newer { path, found, known }.into()
        }
        StoreError::Database(DatabaseError::Damaged { detail, .. }) => DatabaseError::Damaged { path, detail }.into(),
        StoreError::Database(DatabaseError::Sqlite(error)) => {
            DatabaseError::Damaged { path, detail: error.to_string() }.into()
        }
        other => other,
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
