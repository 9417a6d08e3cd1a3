//! Where the master key is kept: in the environment, or in a file with the next one beside it while it is changed.
//!
//! The text of a key is 64 hex digits or a passphrase; white space around it does not count.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::sys::files;
use crate::sys::ownership;
use crate::sys::ownership::Access;
use crate::sys::ownership::Us;
use crate::sys::random;
use crate::sys::random::RandomError;

/// What the next key's file has behind the name of the current one's.
const NEXT: &str = ".next";
/// Longest key file, in bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Why a key's file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file could not be read, written or put in its place.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Others may read or change it.
    #[error("{path} {why}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Who, and what to do.
        why: String,
    },
    /// Nothing in it.
    #[error("{path} is empty: it should hold the master key")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Neither the environment nor a file has one.
    #[error("the master key is missing: GATEWAY_MASTER_KEY is not set, and {path} does not exist")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Where a key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was given: by the environment, or by a caller that keeps none in a file.
    Given,
    /// In the file of the current key.
    File,
    /// In the file of the next key.
    Next,
}

/// The keys a store may open with.
#[derive(Debug)]
pub struct MasterKeys {
    given: Option<Secret>,
    place: KeyPlace,
}

/// Where they lie, without themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlace {
    given: bool,
    file: Option<PathBuf>,
}

impl From<Secret> for MasterKeys {
    /// This key and no other; no file is looked at.
    fn from(key: Secret) -> Self {
        Self { given: Some(key), place: KeyPlace { given: true, file: None } }
    }
}

impl MasterKeys {
    /// The key of the environment, else that of `file`; beside `file` the next one may lie.
    pub fn new(given: Option<Secret>, file: PathBuf) -> Self {
        let place = KeyPlace { given: given.is_some(), file: Some(file) };
        Self { given, place }
    }

    /// Where they lie.
    pub const fn place(&self) -> &KeyPlace {
        &self.place
    }

    /// The current key, and the next one where a change of the key was interrupted, in this order. None of them is
    /// no error here.
    pub fn candidates(&self) -> Result<Vec<(Origin, Secret)>, KeyFileError> {
        let mut found = Vec::new();
        match (&self.given, &self.place.file) {
            (Some(given), _) => found.push((Origin::Given, given.duplicate())),
            (None, Some(file)) => found.extend(read(file)?.map(|key| (Origin::File, key))),
            (None, None) => {}
        }
        if let Some(next) = self.place.next() {
            found.extend(read(&next)?.map(|key| (Origin::Next, key)));
        }
        Ok(found)
    }

    /// That there is none, as an error.
    pub fn missing(&self) -> KeyFileError {
        KeyFileError::Missing { path: self.place.file.clone().unwrap_or_default() }
    }
}

impl KeyPlace {
    /// The current key's file, where keys lie in files at all.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether the environment names the current key, whatever lies in the file.
    pub const fn is_given(&self) -> bool {
        self.given
    }

    /// Removes what a killed change of the key left beside these files. A key may be in it that is in use by now.
    pub fn sweep(&self, now: UnixMillis) {
        for file in self.file.iter().cloned().chain(self.next()) {
            files::sweep_temporaries(&file, now);
        }
    }

    /// The next key's file.
    pub fn next(&self) -> Option<PathBuf> {
        let file = self.file.as_ref()?;
        let mut name = file.file_name()?.to_owned();
        name.push(NEXT);
        Some(file.with_file_name(name))
    }

    /// What lies in the next key's file.
    pub fn read_next(&self) -> Result<Option<Secret>, KeyFileError> {
        self.next().map_or(Ok(None), |next| read(&next))
    }

    /// Writes the next key's file: 0600, on disk when this returns.
    pub fn write_next(&self, key: &Secret) -> Result<(), KeyFileError> {
        self.next().map_or(Ok(()), |next| write(&next, key))
    }

    /// Gives the current key's file a second name, under which it stays; `None` where there is no such file.
    pub fn keep_current(&self, now_ms: u64) -> Result<Option<PathBuf>, KeyFileError> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".before-{now_ms}"));
        let kept = file.with_file_name(name);
        match fs::hard_link(file, &kept) {
            Ok(()) => Ok(Some(kept)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeyFileError::Io { path: kept, source }),
        }
    }

    /// Writes the next key's file where it does not hold `key`.
    pub fn keep_next(&self, key: &Secret) -> Result<(), KeyFileError> {
        // One that cannot be read is written anew.
        if self.next_is(key).unwrap_or_default() { Ok(()) } else { self.write_next(key) }
    }

    /// Makes `key`, which is the next one, the current one in one step: whatever became of the next one's file meanwhile.
    pub fn put_next_in_place(&self, key: &Secret) -> Result<(), KeyFileError> {
        let (Some(file), Some(next)) = (&self.file, self.next()) else { return Ok(()) };
        self.keep_next(key)?;
        fs::rename(&next, file)
            .and_then(|()| files::sync_folder(files::folder_of(file)))
            .map_err(|source| KeyFileError::Io { path: next, source })
    }

    /// Removes the next key's file where it still holds `key`.
    pub fn withdraw_next(&self, key: &Secret) -> Result<(), KeyFileError> {
        if self.next_is(key)? { self.remove_next().map(drop) } else { Ok(()) }
    }

    fn next_is(&self, key: &Secret) -> Result<bool, KeyFileError> {
        Ok(self.read_next()?.is_some_and(|held| held.matches(key.expose().trim().as_bytes())))
    }

    /// Removes the next key's file, where there is one; `true` where there was.
    pub fn remove_next(&self) -> Result<bool, KeyFileError> {
        let Some(next) = self.next() else { return Ok(false) };
        match fs::remove_file(&next).and_then(|()| files::sync_folder(files::folder_of(&next))) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // Container platforms hand out secrets on file systems that say so before they look whether there is such a file.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem && !next.exists() => Ok(false),
            Err(source) => Err(KeyFileError::Io { path: next, source }),
        }
    }
}

/// A key's file; `None` where there is none.
pub fn read(file: &Path) -> Result<Option<Secret>, KeyFileError> {
    let io = |source| KeyFileError::Io { path: file.to_owned(), source };
    let opened = match files::open_ordinary(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(source)),
    };
    // Of the file that is read, whatever has its name by now.
    let found = opened.metadata().map_err(io)?;
    ownership::check_own(&Access::of(&found), &Us::now())
        .map_err(|refusal| KeyFileError::Open { path: file.to_owned(), why: refusal.said(file) })?;
    let text = files::text_of(opened, MAX_FILE_BYTES).map(Zeroizing::new).map_err(io)?;
    if text.trim().is_empty() {
        return Err(KeyFileError::Empty { path: file.to_owned() });
    }
    Ok(Some(Secret::new(text.trim().to_owned())))
}

/// 32 random bytes as 64 hex digits.
pub fn mint() -> Result<Secret, KeyFileError> {
    Ok(Secret::new(random::hex::<32>()?))
}

/// Writes a key's file: the text and a line feed, 0600, whole or not at all, and without a second name of it left behind.
pub fn write(file: &Path, key: &Secret) -> Result<(), KeyFileError> {
    let line = Zeroizing::new(format!("{}\n", key.expose()));
    files::write_private(file, line.as_bytes()).map_err(|source| KeyFileError::Io { path: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_that_others_may_read_or_change_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway-master-key");
        write(&file, &Secret::new("canary".to_owned())).unwrap();
        for (mode, who) in [(0o644, "every user"), (0o602, "every user"), (0o660, "its group"), (0o640, "its group")] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(who) && error.contains(&format!("chmod 600 {}", file.display())), "{error}");
            assert!(!error.contains("provider") && !error.contains("canary"), "{error}");
            // The next one is judged alike.
            let keys = MasterKeys::new(Some(Secret::new("given".to_owned())), folder.path().join("other"));
            fs::copy(&file, folder.path().join("other.next")).unwrap();
            assert!(matches!(keys.candidates(), Err(KeyFileError::Open { .. })), "{mode:o}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&file).unwrap().unwrap().expose(), "canary");
    }
}
