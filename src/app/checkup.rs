//! What can be found out of a gateway that does not run: by the same judgement as readiness, and without changing anything.

use std::path::Path;

pub use crate::admin::health_alone::conditions;
pub use crate::app::upkeep::DATABASE_FILE;
use crate::app::upkeep::KeyFileError;
pub use crate::app::upkeep::MasterKeys;
use crate::app::upkeep::StoreError;
use crate::store::unlock;
use crate::store::worker;
use crate::sys::files::LockError;

/// What a look at a store showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLook {
    /// There is none yet.
    None,
    /// The key opens it.
    Opens,
    /// Somebody has it: who.
    Held(String),
    /// The key is another one than it was sealed with.
    OtherKey(String),
    /// There is no key, or nothing in its file.
    NoKey(String),
    /// The key's file is open to others, and so not read.
    KeyShown(String),
    /// It cannot be opened.
    Broken(String),
}

/// Tries the keys on the store of a data folder. `command` is what others are told of the holder of its lock meanwhile.
pub fn store(folder: &Path, keys: &MasterKeys, command: &str) -> StoreLook {
    let file = folder.join(DATABASE_FILE);
    if !file.exists() {
        return StoreLook::None;
    }
    let holder = format!("pid {} (sigilum {command})", std::process::id());
    let found = worker::lock(folder, &holder).and_then(|_lock| unlock::prove(&file, keys));
    match found {
        Ok(()) => StoreLook::Opens,
        Err(StoreError::Locked(LockError::Held { holder, .. })) => StoreLook::Held(holder),
        Err(error @ StoreError::WrongMasterKey { .. }) => StoreLook::OtherKey(error.to_string()),
        Err(StoreError::KeyFile(error @ KeyFileError::Open { .. })) => StoreLook::KeyShown(error.to_string()),
        Err(StoreError::KeyFile(error)) => StoreLook::NoKey(error.to_string()),
        Err(error) => StoreLook::Broken(error.to_string()),
    }
}
