//! What can be found out of a gateway that does not run: by the same judgement as readiness, and without changing anything.

use std::path::Path;
use std::time::Duration;

use crate::admin::health_api;
use crate::admin::health_judge;
use crate::admin::health_judge::ApiFact;
use crate::admin::health_watch;
pub use crate::app::upkeep::DATABASE_FILE;
use crate::app::upkeep::KeyFileError;
pub use crate::app::upkeep::MasterKeys;
use crate::app::upkeep::StoreError;
use crate::store::unlock;
use crate::store::worker;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::files::LockError;
use crate::wire::health::ConditionBody;

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
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else keeps a store from opening is one thing here")]
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

/// The conditions of readiness that do not take a gateway: the Sigilum API (`None`: it is not asked), the clock, the room that
/// is left, the bridge.
pub async fn conditions(api: Option<&str>, data: &Path, run: &Path, patience: Duration) -> Vec<ConditionBody> {
    let api: Option<ApiFact> = match api {
        Some(address) => Some(health_api::ask_once(address, patience).await),
        None => None,
    };
    let bridge = health_watch::bridge(run, SystemClock.now().seconds());
    vec![
        health_judge::api(api.as_ref()),
        health_judge::clock(api.as_ref()),
        health_judge::disk(files::free_bytes(data).ok()),
        health_judge::bridge(&bridge),
    ]
}
