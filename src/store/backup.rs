//! Copies of the store: one file that holds what is there now and nothing that was deleted before, proven before anybody
//! relies on it. The master key is not in it.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::engine::Engine;
use crate::store::engine::Found;
use crate::store::migrate::APPLICATION_ID;
use crate::store::sealed;
use crate::store::sealed::Checked;
use crate::store::vault::Vault;
use crate::sys::database::DatabaseError;
use crate::sys::files;
use crate::sys::files::PRIVATE_FILE;
use crate::sys::random;

/// What the names of files begin with that only live while a copy is made; a start removes those of a killed process.
const SCRATCH: &str = ".copy-";

/// Looks at a copy that came from elsewhere, without a key: ours, of a version we know, and sound. `name` is what it is
/// called in errors.
pub fn look(path: &Path, name: &Path) -> Result<(), StoreError> {
    let damaged = |detail: String| DatabaseError::Damaged { path: name.to_owned(), detail };
    let Found::Store(copy, _) = Engine::look(path)? else {
        return Err(DatabaseError::Foreign { path: name.to_owned() }.into());
    };
    let verdict: String = copy.db().query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(damaged(verdict).into()) }
}

/// Whether a file begins as a store of ours does (the format of SQLite's header: the text at 0, the application's id at 68).
pub fn bears_our_mark(path: &Path) -> bool {
    let mut header = [0_u8; 72];
    let read = files::open_ordinary(path).and_then(|mut file| file.read_exact(&mut header));
    let id = u32::try_from(APPLICATION_ID).unwrap_or_default().to_be_bytes();
    read.is_ok() && header.starts_with(b"SQLite format 3\0") && header.ends_with(&id)
}

/// A name for a copy that is being made in `folder`.
pub(super) fn scratch(folder: &Path) -> Result<PathBuf, StoreError> {
    Ok(folder.join(format!("{SCRATCH}{}", random::hex::<8>()?)))
}

/// Removes what a killed process left of its copies. The folder's lock must be held.
pub(super) fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            // A leftover is sealed and private: it costs room and nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Vault {
    /// Writes a copy to `path`, which must not exist: mode 0600, on disk, its structure sound and every sealed value
    /// opened with the key in use. What does not hold leaves no file.
    pub fn backup(&mut self, path: &Path, asker: &Asker, now: UnixMillis) -> Result<Checked, StoreError> {
        let io = |source| DatabaseError::Io { path: path.to_owned(), source };
        OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path).map_err(io)?;
        let made = self.copy_to(path).and_then(|checked| {
            let detail = Detail::default().number("connections", checked.connections);
            self.note(&Entry::new(Action::StoreBackup, "", asker, now).with(detail))?;
            Ok(checked)
        });
        if made.is_err() {
            // The error says why; without proof there is no copy.
            let _ = fs::remove_file(path);
        }
        made
    }

    fn copy_to(&self, path: &Path) -> Result<Checked, StoreError> {
        let io = |source| DatabaseError::Io { path: path.to_owned(), source };
        // SQLite follows no links here, wherever in the path they are.
        let real = path.canonicalize().map_err(io)?;
        let text = real.to_str().ok_or_else(|| io(io::Error::other("the name is not UTF-8")))?;
        self.engine.db().execute("VACUUM INTO ?1", [text])?;
        File::open(path).and_then(|file| file.sync_all()).map_err(io)?;
        let Found::Store(copy, _) = Engine::look(&real)? else {
            return Err(DatabaseError::Foreign { path: path.to_owned() }.into());
        };
        let checked = sealed::check(copy.db(), &self.key)?;
        if checked.unreadable.is_empty() { Ok(checked) } else { Err(StoreError::Unreadable(checked.unreadable)) }
    }

    /// A copy that has no name any more: it goes when the file is closed, however this process ends.
    pub fn backup_unnamed(&mut self, asker: &Asker, now: UnixMillis) -> Result<(File, Checked), StoreError> {
        let folder = self.engine.path().parent().unwrap_or_else(|| Path::new("."));
        let path = scratch(folder)?;
        let checked = self.backup(&path, asker, now)?;
        let io = |source| DatabaseError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io);
        fs::remove_file(&path).map_err(io)?;
        Ok((file?, checked))
    }
}
