//! Another master key: every sealed value is wrapped anew, in an order that may be interrupted anywhere.
//!
//! 1. The next key is written beside the current one.
//! 2. One transaction wraps every data key anew.
//! 3. The next key's file takes the name of the current one.
//! 4. The write-ahead log is cut back.
//!
//! Whoever opens the store tries both files: before the commit of 2 the current one opens it and the other is removed, after
//! it the next one opens it, and 3 and 4 are done. Where the environment names the current key, 3 is the operator's: the
//! next key's file stays until the environment names the new one.

use std::path::Path;
use std::path::PathBuf;

use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::engine::Engine;
use crate::store::engine::Found;
use crate::store::engine::Writer;
use crate::store::master_keys;
use crate::store::master_keys::MasterKeys;
use crate::store::master_keys::Origin;
use crate::store::seal::MasterKey;
use crate::store::sealed;
use crate::store::sealed::Checked;
use crate::store::sealed::SENTINEL;
use crate::store::sealed::SENTINEL_PLACE;
use crate::store::unlock::find_key;
use crate::store::unlock::salt;
use crate::store::vault::Vault;
use crate::store::worker::DATABASE_FILE;

/// What has just been done. For whoever wants to see an end at each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next key lies in its file.
    KeyWritten,
    /// Everything is wrapped anew, and nothing of it committed.
    Wrapped,
    /// It is committed.
    Committed,
    /// The next key's file has the name of the current one.
    KeyInPlace,
}

/// A change of the key, done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rekeyed {
    /// Id of the key before.
    pub old_key: String,
    /// Id of the key in use.
    pub new_key: String,
    /// Sealed values that were wrapped anew.
    pub wrapped: u64,
    /// Old versions that did not open and are gone, by name.
    pub dropped: Vec<String>,
    /// The file that holds the new key; `None` where none does.
    pub key_file: Option<PathBuf>,
    /// Whether the environment still names the old key.
    pub pending: bool,
    /// Whether the write-ahead log is cut back; else the next start does it.
    pub cut_back: bool,
}

/// A start over without the old key, done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedOver {
    /// Id of the key in use.
    pub new_key: String,
    /// Connections whose secrets must be given again.
    pub connections: Vec<String>,
    /// Credential variables whose values must be given again.
    pub variables: Vec<String>,
    /// The file that holds the new key; `None` where the environment does.
    pub key_file: Option<PathBuf>,
    /// Where the key lies now that was in that file and opened nothing.
    pub kept: Option<PathBuf>,
}

impl Vault {
    /// Opens every sealed value once and looks at everything else.
    pub fn check(&self) -> Result<Checked, StoreError> {
        sealed::check(self.engine.db(), &self.key)
    }

    /// Id of the key in use.
    pub fn key_id(&self) -> String {
        self.key.id()
    }

    /// Whether the key in use is the one of the environment.
    pub fn key_is_given(&self) -> bool {
        self.place.is_given()
    }

    /// Wraps everything for another key: `new`, else the one in the next key's file, else a random one. `reached`
    /// is told of each step. An error before [`Step::Committed`] leaves the old key in use, one after it the new.
    pub fn rekey(
        &mut self,
        new: Option<Secret>,
        asker: &Asker,
        now: UnixMillis,
        reached: &mut dyn FnMut(Step),
    ) -> Result<Rekeyed, StoreError> {
        // What a failure after a commit left undone.
        if self.origin == Origin::Next {
            self.settle_keys()?;
        }
        if self.origin == Origin::Next {
            return Err(StoreError::MasterKeyPending { next: self.place.next().unwrap_or_default() });
        }
        let text = match new {
            Some(key) => key,
            None => match self.place.read_next()? {
                Some(key) => key,
                None if self.place.is_given() => {
                    return Err(StoreError::NoNextMasterKey { next: self.place.next().unwrap_or_default() });
                }
                None => master_keys::mint()?,
            },
        };
        let next = MasterKey::derive(&text, &salt(&self.engine)?)?;
        if next.id() == self.key.id() {
            self.place.remove_next()?;
            return Err(StoreError::SameMasterKey);
        }
        self.place.keep_next(&text)?;
        reached(Step::KeyWritten);
        let old_key = self.key.id();
        let (wrapped, dropped, entry) = self.engine.write(|writer| {
            let (wrapped, dropped) = wrap_all(writer, &self.key, &next)?;
            let detail = Detail::default()
                .text("old_key", &old_key)
                .text("new_key", &next.id())
                .number("wrapped", wrapped)
                .names("dropped", &dropped);
            let entry = Entry::new(Action::StoreRekey, "", asker, now).with(detail);
            writer.insert_audit(&entry)?;
            reached(Step::Wrapped);
            Ok((wrapped, dropped, entry))
        })?;
        reached(Step::Committed);
        self.key = next;
        self.origin = Origin::Next;
        self.next_key = Some(text);
        let cut_back = self.settle_keys()?;
        reached(Step::KeyInPlace);
        self.noted(&entry);
        let pending = self.origin == Origin::Next;
        let key_file = if pending { self.place.next() } else { self.place.file().map(Path::to_owned) };
        Ok(Rekeyed { old_key, new_key: self.key.id(), wrapped, dropped, key_file, pending, cut_back })
    }

    /// Brings the key's files in line with the key that opens the store, and cuts the write-ahead log back. Returns
    /// whether it is cut back.
    pub(super) fn settle_keys(&mut self) -> Result<bool, StoreError> {
        match self.origin {
            Origin::Next if self.place.is_given() && self.place.file().is_some() => {
                if let Some(key) = &self.next_key {
                    self.place.keep_next(key)?;
                }
                tracing::warn!(
                    file = %self.place.next().unwrap_or_default().display(),
                    "the master key was changed, and GATEWAY_MASTER_KEY still names the old one: the store opens with the key \
                     in this file until the variable names the new one"
                );
            }
            Origin::Next => {
                if let Some(key) = &self.next_key {
                    self.place.put_next_in_place(key)?;
                }
                self.next_key = None;
                self.origin = if self.place.is_given() { Origin::Given } else { Origin::File };
            }
            Origin::Given | Origin::File => {
                if self.place.remove_next()? {
                    tracing::info!("the next master key's file is removed: the store opens with the current key");
                }
            }
        }
        let cut_back = self.engine.checkpoint()?;
        if !cut_back {
            tracing::warn!("the write-ahead log was not cut back: somebody else reads the database");
        }
        Ok(cut_back)
    }

    /// Gives up what was sealed with a master key that nobody has any more: settings stay, sealed values go, and the store
    /// opens with a new key, which is the one of the environment, else `new`, else a random one. Refused while a key
    /// opens the store. The folder's lock must be held.
    pub fn start_over(
        folder: &Path,
        keys: &MasterKeys,
        new: Option<Secret>,
        asker: &Asker,
        now: UnixMillis,
        reached: &mut dyn FnMut(Step),
    ) -> Result<StartedOver, StoreError> {
        let path = folder.join(DATABASE_FILE);
        if !path.exists() {
            return Err(StoreError::NoStore { path: folder.to_owned() });
        }
        let Found::Store(mut engine, schema) = Engine::look(&path)? else {
            return Err(StoreError::NoStore { path: folder.to_owned() });
        };
        let mut candidates = keys.candidates()?;
        if find_key(&engine, schema, &candidates)?.is_some() {
            return Err(StoreError::MasterKeyOpens);
        }
        let place = keys.place();
        let given = candidates.iter().position(|(origin, _)| *origin == Origin::Given);
        let text = match (given, new) {
            (Some(at), _) => candidates.swap_remove(at).1,
            (None, Some(new)) => new,
            (None, None) => master_keys::mint()?,
        };
        drop(candidates);
        let next = MasterKey::derive(&text, &salt(&engine)?)?;
        if !place.is_given() {
            place.write_next(&text)?;
        }
        reached(Step::KeyWritten);
        engine.prepare()?;
        let (connections, variables) = engine.write(|writer| {
            writer.upgrade(schema)?;
            let names = sealed::names(writer.db())?;
            sealed::forget(writer.db())?;
            sealed::mark_all(writer.db(), None, &next)?;
            writer.set_meta("sentinel", &next.seal(SENTINEL_PLACE, SENTINEL)?)?;
            // Not the same state as before: nothing is injected any more.
            let version = writer.meta("version")?.and_then(|bytes| bytes.try_into().ok()).map_or(1, u64::from_be_bytes);
            writer.set_meta("version", &version.saturating_add(1).to_be_bytes())?;
            let (connections, variables) = &names;
            let detail = Detail::default()
                .flag("lost_master_key", true)
                .text("new_key", &next.id())
                .names("connections", connections)
                .names("variables", variables);
            writer.insert_audit(&Entry::new(Action::StoreRekey, "", asker, now).with(detail))?;
            reached(Step::Wrapped);
            Ok(names)
        })?;
        reached(Step::Committed);
        let mut kept = None;
        if !place.is_given() {
            kept = place.keep_current(now.0)?;
            place.put_next_in_place(&text)?;
        }
        reached(Step::KeyInPlace);
        engine.checkpoint()?;
        let key_file = place.file().filter(|_| !place.is_given()).map(Path::to_owned);
        Ok(StartedOver { new_key: next.id(), connections, variables, key_file, kept })
    }
}

/// Wraps every sealed value for `next`; how many, and what is gone. The version in use must open; an older one that does
/// not is of no use to anybody and goes.
pub(super) fn wrap_all(
    writer: &Writer<'_>,
    key: &MasterKey,
    next: &MasterKey,
) -> Result<(u64, Vec<String>), StoreError> {
    let (mut wrapped, mut dropped, mut unreadable) = (0, Vec::new(), Vec::new());
    sealed::walk(writer.db(), &mut |row| {
        if row.sealed.is_empty() {
            return Ok(());
        }
        match key.rewrap(row.place(), &row.sealed, next) {
            Ok(sealed) => {
                wrapped += 1;
                row.replace(writer.db(), &sealed)
            }
            Err(_) if row.in_use => {
                unreadable.push(row.name());
                Ok(())
            }
            Err(_) => {
                dropped.push(row.name());
                row.remove(writer.db())
            }
        }
    })?;
    unreadable.extend(sealed::mark_all(writer.db(), Some(key), next)?);
    if !unreadable.is_empty() {
        return Err(StoreError::Unreadable(unreadable));
    }
    writer.set_meta("sentinel", &next.seal(SENTINEL_PLACE, SENTINEL)?)?;
    Ok((wrapped, dropped))
}

#[cfg(test)]
#[path = "rekey_tests.rs"]
mod tests;
