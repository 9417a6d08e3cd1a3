//! Which of several keys opens a store.

use std::path::Path;

use crate::domain::secret::Secret;
use crate::store::StoreError;
use crate::store::engine::Engine;
use crate::store::engine::Found;
use crate::store::master_keys::MasterKeys;
use crate::store::master_keys::Origin;
use crate::store::seal::MasterKey;
use crate::store::seal::SALT_BYTES;
use crate::store::seal::SealError;
use crate::store::sealed::SENTINEL;
use crate::store::sealed::SENTINEL_PLACE;
use crate::store::sealed::sentinel_place;
use crate::store::vault::Vault;
use crate::sys::database::DatabaseError;

/// The first of these keys that opens the store, and where it was found.
pub(super) fn find_key(
    engine: &Engine,
    schema: i64,
    candidates: &[(Origin, Secret)],
) -> Result<Option<(Origin, MasterKey)>, StoreError> {
    let missing = |name: &str| damaged(engine.path(), name);
    let salt = salt(engine)?;
    let sentinel = engine.meta("sentinel")?.ok_or_else(|| missing("sentinel"))?;
    for (origin, text) in candidates {
        let key = MasterKey::derive(text, &salt)?;
        match key.open(sentinel_place(schema), &sentinel) {
            Ok(found) if found.as_slice() == SENTINEL => return Ok(Some((*origin, key))),
            Err(SealError::OtherKey) => {}
            Ok(_) | Err(_) => return Err(missing("usable sentinel")),
        }
    }
    Ok(None)
}

/// Looks whether one of these keys opens the store of a file that is there, and changes nothing in it. Only for whoever holds
/// its lock.
pub fn prove(path: &Path, keys: &MasterKeys) -> Result<(), StoreError> {
    let candidates = keys.candidates()?;
    if candidates.is_empty() {
        return Err(keys.missing().into());
    }
    match Engine::look(path)? {
        Found::Empty(_) => Ok(()),
        Found::Store(engine, schema) => {
            // What looking left beside the file goes with it: it is ours.
            engine.fold_on_close()?;
            let found = find_key(&engine, schema, &candidates)?;
            found.map(drop).ok_or_else(|| StoreError::WrongMasterKey { path: path.to_owned() })
        }
    }
}

/// How it stands with the master key of a store that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStanding {
    /// It opens the store, and lies where the next start looks for it.
    Opens,
    /// The store's own proof of the key does not open with the key in use.
    Mismatch,
    /// It opens the store, and its file is gone: the next start will not find it.
    FileMissing,
}

impl Vault {
    /// Tries the key in use on the store's proof of it, and looks whether its file is still there.
    pub fn key_standing(&self) -> Result<KeyStanding, StoreError> {
        let sentinel = self.engine.meta("sentinel")?;
        let opened = sentinel.and_then(|sealed| self.key.open(SENTINEL_PLACE, &sealed).ok());
        if opened.is_none_or(|found| found.as_slice() != SENTINEL) {
            return Ok(KeyStanding::Mismatch);
        }
        let kept = self.place.is_given()
            || self
                .place
                .file()
                .is_none_or(|file| file.exists() || self.place.next().is_some_and(|next| next.exists()));
        Ok(if kept { KeyStanding::Opens } else { KeyStanding::FileMissing })
    }
}

/// The store's salt.
pub(super) fn salt(engine: &Engine) -> Result<[u8; SALT_BYTES], StoreError> {
    let found = engine.meta("salt")?.ok_or_else(|| damaged(engine.path(), "salt"))?;
    found.as_slice().try_into().map_err(|_| damaged(engine.path(), "usable salt"))
}

/// What lacks something it cannot be opened without.
pub(super) fn damaged(path: &Path, name: &str) -> StoreError {
    StoreError::Database(DatabaseError::Damaged { path: path.to_owned(), detail: format!("meta has no {name}") })
}
