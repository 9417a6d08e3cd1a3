//! The store's operations: records and sealed secrets together, each change one transaction and one version.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::audit::claim;
use crate::domain::connection::ConnectionSettings;
use crate::domain::connection::SECRETS_LOST;
use crate::domain::draft::CheckedDraft;
use crate::domain::ids::ConnectionId;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::Secrets;
use crate::domain::record::check_injection;
use crate::domain::record::check_named;
use crate::domain::record::check_secrets;
use crate::domain::secret::Secret;
use crate::domain::snapshot::StateVersion;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::audit_lines::Lines;
use crate::store::declared::Declared;
use crate::store::declared::Held;
use crate::store::engine::Engine;
use crate::store::engine::Found;
use crate::store::engine::SecretsRow;
use crate::store::engine::Writer;
use crate::store::master_keys::KeyPlace;
use crate::store::master_keys::MasterKeys;
use crate::store::master_keys::Origin;
use crate::store::migrate;
use crate::store::records;
use crate::store::seal::MasterKey;
use crate::store::seal::Place;
use crate::store::seal::SALT_BYTES;
use crate::store::sealed;
use crate::store::sealed::SENTINEL;
use crate::store::sealed::SENTINEL_PLACE;
use crate::store::sealed::secrets_place;
use crate::store::unlock::damaged;
use crate::store::unlock::find_key;
use crate::store::variables::Variables;
use crate::sys::database::DatabaseError;
use crate::sys::random;

pub use crate::store::change::Change;
pub use crate::store::change::Listed;
pub use crate::store::change::Loaded;
pub use crate::store::change::RotationRequest;

/// Versions of a connection's secrets that are kept where nothing else is said: the one in use and four to look back at.
const KEPT_SECRET_VERSIONS: i64 = 5;
/// Purges after which the write-ahead log is cut back even if nobody has leisure for it.
const MAX_UNCUT: u32 = 256;
/// Connections one store holds: far more than any snapshot was measured with.
pub const MAX_CONNECTIONS: i64 = 50_000;

/// Where the digest of what is declared belongs.
const DECLARED_PLACE: Place<'static> = Place { kind: "meta", record: "declared", field: "value", version: 1 };

/// The open store with its key.
#[derive(Debug)]
pub struct Vault {
    pub(super) engine: Engine,
    pub(super) key: MasterKey,
    pub(super) state: StateVersion,
    /// Where the key lies, and in which of these places it was found.
    pub(super) place: KeyPlace,
    pub(super) origin: Origin,
    /// The text of the key in use as long as it lies in no place of its own: with its file it would be gone for good.
    pub(super) next_key: Option<Secret>,
    /// Where the audit is written as lines; `None`: nowhere.
    pub(super) lines: Option<Lines>,
    /// What the configuration file declares.
    pub(super) declared: Declared,
    /// Versions of a connection's secrets that are kept.
    kept: i64,
    /// Purges that still stand in the write-ahead log.
    uncut: u32,
}

impl Vault {
    /// Opens the store or makes a new one. The key is proven by the sentinel before anything is changed.
    pub fn open(path: &Path, master_key: &Secret) -> Result<Self, StoreError> {
        Self::open_with(path, &MasterKeys::from(master_key.duplicate()))
    }

    /// The same with whichever of these keys opens it. A change of the key that was interrupted is finished, or undone
    /// where nothing was sealed with the next key yet.
    pub fn open_with(path: &Path, keys: &MasterKeys) -> Result<Self, StoreError> {
        let candidates = keys.candidates()?;
        let current = || candidates.iter().find(|(origin, _)| *origin != Origin::Next);
        if candidates.is_empty() {
            return Err(keys.missing().into());
        }
        let mut vault = match Engine::look(path)? {
            Found::Empty(engine) => {
                let (origin, key) = current().ok_or_else(|| keys.missing())?;
                Self::create(engine, key, keys.place().clone(), *origin)?
            }
            Found::Store(engine, schema) => Self::unlock(engine, schema, &candidates, keys.place().clone())?,
        };
        vault.settle_keys()?;
        Ok(vault)
    }

    fn create(mut engine: Engine, master_key: &Secret, place: KeyPlace, origin: Origin) -> Result<Self, StoreError> {
        let salt = random::bytes::<SALT_BYTES>()?;
        let key = MasterKey::derive(master_key, &salt)?;
        let state = StateVersion { epoch: random::uuid()?, version: 1, ..StateVersion::default() };
        let sentinel = key.seal(SENTINEL_PLACE, SENTINEL)?;
        engine.prepare()?;
        engine.write(|writer| {
            writer.upgrade(0)?;
            writer.set_meta("salt", &salt)?;
            writer.set_meta("sentinel", &sentinel)?;
            writer.set_meta("epoch", state.epoch.as_bytes())?;
            writer.set_meta("version", &state.version.to_be_bytes())
        })?;
        Ok(Self {
            engine,
            key,
            state,
            place,
            origin,
            next_key: None,
            lines: None,
            declared: Declared::default(),
            kept: KEPT_SECRET_VERSIONS,
            uncut: 0,
        })
    }

    pub(super) fn unlock(
        mut engine: Engine,
        schema: i64,
        candidates: &[(Origin, Secret)],
        place: KeyPlace,
    ) -> Result<Self, StoreError> {
        let path = engine.path().to_owned();
        let missing = |name: &str| damaged(&path, name);
        let meta = |name: &str| engine.meta(name)?.ok_or_else(|| missing(name));
        let (origin, key) =
            find_key(&engine, schema, candidates)?.ok_or_else(|| StoreError::WrongMasterKey { path: path.clone() })?;
        let epoch = String::from_utf8(meta("epoch")?).map_err(|_| missing("usable epoch"))?;
        let version = decode_version(&meta("version")?).ok_or_else(|| missing("usable version"))?;
        engine.prepare()?;
        engine.write(|writer| {
            writer.upgrade(schema)?;
            if !migrate::is_ours(writer.db())? {
                let detail = "it holds tables or triggers that are none of this program's".to_owned();
                return Err(DatabaseError::Damaged { path: path.clone(), detail }.into());
            }
            if schema < migrate::MARKED {
                sealed::mark_all(writer.db(), None, &key)?;
                writer.set_meta("sentinel", &key.seal(SENTINEL_PLACE, SENTINEL)?)?;
            }
            Ok(())
        })?;
        let next_key = candidates.iter().find(|(found, _)| *found == origin && origin == Origin::Next);
        Ok(Self {
            engine,
            key,
            state: StateVersion { epoch, version, ..StateVersion::default() },
            place,
            origin,
            next_key: next_key.map(|(_, text)| text.duplicate()),
            lines: None,
            declared: Declared::default(),
            kept: KEPT_SECRET_VERSIONS,
            uncut: 0,
        })
    }

    /// Epoch and version of the last committed change.
    pub fn state(&self) -> &StateVersion {
        &self.state
    }

    /// Whether the database answers.
    pub fn ping(&self) -> Result<(), StoreError> {
        self.engine.meta("version")?.map(drop).ok_or(StoreError::NotFound)
    }

    /// How many connections there are, declared ones included.
    pub fn count(&self) -> Result<u64, StoreError> {
        let stored = u64::try_from(self.engine.count()?).unwrap_or_default();
        let declared = (self.declared.connections.len() as u64).saturating_sub(self.declared.shadowing);
        Ok(stored.saturating_add(declared))
    }

    /// Every connection, by id. One that cannot be read is left out here and reported by [`Vault::load`].
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let missing = self.missing_variables(None)?;
        let used = self.engine.last_used(None)?;
        let mut listed: BTreeMap<String, Listed> = BTreeMap::new();
        for row in self.engine.connections()? {
            if let Ok(record) = records::decode(&row, self.key.records()) {
                let (problem, last_used_at) = (missing.get(&row.id).cloned(), used.get(&row.id).copied());
                listed.insert(row.id, Listed { record: Arc::new(record), declared: None, problem, last_used_at });
            }
        }
        for (id, held) in &self.declared.connections {
            listed.insert(id.clone(), self.list_declared(held, used.get(id).copied()));
        }
        Ok(listed.into_values().collect())
    }

    /// One connection, as in the list.
    pub fn get(&self, id: &str) -> Result<Listed, StoreError> {
        if let Some(held) = self.declared.connections.get(id) {
            let used = self.engine.last_used(Some(id))?;
            return Ok(self.list_declared(held, used.into_values().next()));
        }
        Ok(self.describe(self.record(id)?))
    }

    /// A stored record, as in the list.
    pub fn describe(&self, record: ConnectionRecord) -> Listed {
        let missing = self.missing_variables(Some(record.settings.id.as_str())).unwrap_or_default();
        let used = self.engine.last_used(Some(record.settings.id.as_str())).unwrap_or_default();
        let (problem, last_used_at) = (missing.into_values().next(), used.into_values().next());
        Listed { record: Arc::new(record), declared: None, problem, last_used_at }
    }

    fn list_declared(&self, held: &Held, last_used_at: Option<UnixMillis>) -> Listed {
        Listed {
            record: Arc::clone(&held.record),
            declared: Some(held.place.clone()),
            problem: held.injected(&self.variables()).err(),
            last_used_at,
        }
    }

    /// A stored connection.
    pub(super) fn record(&self, id: &str) -> Result<ConnectionRecord, StoreError> {
        records::decode(&self.engine.connection(id)?.ok_or(StoreError::NotFound)?, self.key.records())
    }

    /// Every connection with the secret to inject, and what cannot be read.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let variables = self.variables();
        let mut loaded = Loaded::default();
        for row in self.engine.connections()? {
            if self.declared.connections.contains_key(&row.id) {
                loaded.shadowed.push(row.id);
                continue;
            }
            match records::decode(&row, self.key.records()) {
                Ok(record) => {
                    let secret = self.injected(&record, &variables);
                    loaded.usable.push((Arc::new(record), secret));
                }
                Err(error) => loaded.unreadable.push(error),
            }
        }
        let declared = self.declared.connections.values();
        loaded.usable.extend(declared.map(|held| (Arc::clone(&held.record), held.injected(&variables))));
        Ok(loaded)
    }

    /// One connection with the secret to inject, declared or stored; `Err` in its place says why there is none.
    pub fn usable(&self, id: &str) -> Result<(Arc<ConnectionRecord>, Result<Secret, String>), StoreError> {
        let variables = self.variables();
        if let Some(held) = self.declared.connections.get(id) {
            return Ok((Arc::clone(&held.record), held.injected(&variables)));
        }
        let record = self.record(id)?;
        let secret = self.injected(&record, &variables);
        Ok((Arc::new(record), secret))
    }

    /// Remembers which settings, approvals and connections are declared. Where they differ from those of the last
    /// start the version rises, because they are part of the state although they do not lie in the store. What is
    /// remembered is sealed: it depends on secrets.
    pub fn note_declared(&mut self, digest: &[u8; 32]) -> Result<(), StoreError> {
        let held = self.engine.meta("declared")?.unwrap_or_default();
        if self.key.open(DECLARED_PLACE, &held).is_ok_and(|held| held.as_slice() == digest) {
            return Ok(());
        }
        let sealed = self.key.seal(DECLARED_PLACE, digest)?;
        self.commit(None, |writer| writer.set_meta("declared", &sealed))
    }

    /// One version more without a change of anything stored: the state has parts that lie elsewhere.
    pub fn advance(&mut self) -> Result<(), StoreError> {
        self.commit(None, |_| Ok(()))
    }

    /// Stores a new connection with its first secrets.
    pub fn create_connection(
        &mut self,
        draft: CheckedDraft,
        secrets: Secrets,
        asker: &Asker,
        now: UnixMillis,
    ) -> Result<(ConnectionRecord, Change), StoreError> {
        self.refuse_declared(draft.settings.id.as_str())?;
        let secrets = check_secrets(secrets)?;
        secrets.values().try_for_each(|secret| self.check_reference(secret))?;
        self.check_injected(&draft.settings, draft.auth_secret_key.as_deref(), &secrets)?;
        let mut record = ConnectionRecord {
            settings: draft.settings,
            auth_secret_key: draft.auth_secret_key,
            credential_keys: secrets.keys().cloned().collect(),
            rotation_interval_days: draft.rotation_interval_days,
            mcp: draft.mcp,
            created_at: now,
            updated_at: now,
            last_rotated_at: (!secrets.is_empty()).then_some(now),
            secrets_lost: false,
        };
        record.settings.next_rotation_due_at = record.rotation_due();
        let row = records::encode(&record, self.key.records())?;
        let first = self.seal_secrets(&record, &secrets, asker.actor(), "")?;
        let detail = Detail::default().names("secrets", secrets.keys());
        let entry = Entry::new(Action::ConnectionCreate, &row.id, asker, now).with(detail);
        self.commit(Some(&entry), |writer| {
            if writer.count()? >= MAX_CONNECTIONS {
                return Err(StoreError::Full);
            }
            if !writer.insert(&row)? {
                return Err(StoreError::Exists);
            }
            writer.insert_secrets(&row.id, row.secret_version, &first)?;
            writer.set_references(&row.id, &secrets)
        })?;
        let change = self.saved(&record, &secrets);
        Ok((record, change))
    }

    /// Changes what `edit` changes; secrets stay. `edit` sees the record as it is.
    pub fn update_connection<E: Into<StoreError>>(
        &mut self,
        id: &str,
        asker: &Asker,
        now: UnixMillis,
        edit: impl FnOnce(&ConnectionRecord) -> Result<CheckedDraft, E>,
    ) -> Result<(ConnectionRecord, Change), StoreError> {
        self.refuse_declared(id)?;
        let before = self.engine.connection(id)?.ok_or(StoreError::NotFound)?;
        let old = records::decode(&before, self.key.records())?;
        let draft = edit(&old).map_err(Into::into)?;
        let old_key = old.auth_secret_key.clone();
        let mut record = ConnectionRecord {
            settings: draft.settings,
            auth_secret_key: draft.auth_secret_key,
            rotation_interval_days: draft.rotation_interval_days,
            mcp: draft.mcp,
            updated_at: now,
            ..old
        };
        record.settings.id = old.settings.id;
        record.settings.secret_version = old.settings.secret_version;
        record.settings.next_rotation_due_at = record.rotation_due();
        let row = records::encode(&record, self.key.records())?;
        let change = if record.secrets_lost {
            // No value is there to be judged; its owner may still switch it off, or change where it leads.
            check_named(record.auth_secret_key.as_deref(), &record.credential_keys)?;
            Change::Saved(Arc::new(record.clone()), Err(SECRETS_LOST.to_owned()))
        } else {
            let secrets = self.secrets(&record)?;
            if let Some(name) = record.auth_secret_key.as_ref().filter(|name| Some(*name) != old_key.as_ref())
                && let Some(secret) = secrets.get(name)
            {
                self.check_reference(secret)?;
            }
            // A variable that is gone by now must not keep its owner from switching the connection off.
            self.check_injected(&record.settings, record.auth_secret_key.as_deref(), &secrets)?;
            self.saved(&record, &secrets)
        };
        let detail = Detail::default().names("changed", records::changed(&before, &row));
        let entry = Entry::new(Action::ConnectionUpdate, &row.id, asker, now).with(detail);
        self.commit(Some(&entry), |writer| writer.update(&row)?.then_some(()).ok_or(StoreError::NotFound))?;
        Ok((record, change))
    }

    /// Says how many versions of a connection's secrets are kept, at least the one in use, and purges what is beyond.
    pub fn keep_versions(&mut self, kept: u32) -> Result<(), StoreError> {
        self.kept = i64::from(kept.max(1));
        let kept = self.kept;
        if self.engine.write(|writer| writer.purge_all_secrets(kept))? > 0 {
            self.cut_back();
        }
        Ok(())
    }

    /// Cuts the write-ahead log back where purged secrets still stand in it: called when nobody waits, so that no
    /// rotation has to.
    pub fn tidy(&mut self) {
        if self.uncut > 0 {
            self.cut_back();
        }
    }

    /// Merges new secrets into a connection's, as a new version; old versions beyond those that are kept are purged.
    pub fn rotate(
        &mut self,
        id: &str,
        request: RotationRequest,
        asker: &Asker,
        now: UnixMillis,
    ) -> Result<(ConnectionRecord, Change), StoreError> {
        self.refuse_declared(id)?;
        let mut record = self.record(id)?;
        let given = check_secrets(request.secrets)?;
        let mut secrets = match self.secrets(&record) {
            Ok(secrets) => secrets,
            // What cannot be read cannot be merged with: whoever gives everything again needs nothing of it.
            Err(StoreError::Lost | StoreError::Seal(_)) => {
                let held = record.credential_keys.iter();
                let missing: Vec<_> = held.filter(|name| !given.contains_key(*name)).cloned().collect();
                if !missing.is_empty() {
                    return Err(StoreError::SecretsIncomplete(missing));
                }
                Secrets::new()
            }
            Err(error) => return Err(error),
        };
        // What is kept is not judged: a variable that is gone must not hold up the rotation of another secret.
        let defined = given.values().try_for_each(|secret| self.check_reference(secret));
        let mut changed = Vec::new();
        for (name, secret) in given {
            if secrets.get(&name) != Some(&secret) {
                changed.push(name.clone());
            }
            secrets.insert(name, secret);
        }
        if changed.is_empty() {
            return Err(StoreError::Unchanged);
        }
        defined?;
        // The limits hold for the union too.
        let secrets = check_secrets(secrets)?;
        self.check_injected(&record.settings, record.auth_secret_key.as_deref(), &secrets)?;
        record.settings.secret_version = record.settings.secret_version.saturating_add(1);
        record.credential_keys = secrets.keys().cloned().collect();
        record.secrets_lost = false;
        record.rotated(now);
        let row = records::encode(&record, self.key.records())?;
        let asker = asker.clone().named(&request.by);
        let next = self.seal_secrets(&record, &secrets, asker.actor(), &request.reason)?;
        let detail = Detail::default()
            .names("secrets", changed)
            .text("reason", &request.reason)
            // Where a certificate has proven another name.
            .text("rotated_by", Some(request.by.as_str()).filter(|by| claim(by) != asker.actor()).unwrap_or_default())
            .number("secret_version", record.settings.secret_version);
        let entry = Entry::new(Action::ConnectionRotate, &row.id, &asker, now).with(detail);
        let last_purged = row.secret_version.saturating_sub(self.kept);
        let mut purged = 0;
        self.commit(Some(&entry), |writer| {
            writer.update(&row)?.then_some(()).ok_or(StoreError::NotFound)?;
            writer.insert_secrets(&row.id, row.secret_version, &next)?;
            writer.set_references(&row.id, &secrets)?;
            purged = writer.purge_secrets(&row.id, last_purged)?;
            Ok(())
        })?;
        if purged > 0 {
            self.uncut = self.uncut.saturating_add(1);
        }
        if self.uncut >= MAX_UNCUT {
            self.cut_back();
        }
        let change = self.saved(&record, &secrets);
        Ok((record, change))
    }

    /// Removes a connection and every version of its secrets.
    pub fn delete_connection(
        &mut self,
        id: &ConnectionId,
        asker: &Asker,
        now: UnixMillis,
    ) -> Result<Change, StoreError> {
        self.refuse_declared(id.as_str())?;
        let entry = Entry::new(Action::ConnectionDelete, id.as_str(), asker, now);
        self.commit(Some(&entry), |writer| {
            writer.forget_uses(id.as_str())?;
            writer.delete(id.as_str())?.then_some(()).ok_or(StoreError::NotFound)
        })?;
        self.cut_back();
        Ok(Change::Deleted(id.clone()))
    }

    /// What was deleted still stands in the write-ahead log. Failing to cut it back does not undo the deletion.
    pub(super) fn cut_back(&mut self) {
        self.uncut = 0;
        match self.engine.checkpoint() {
            Ok(true) => {}
            Ok(false) => tracing::warn!("the write-ahead log was not cut back after a deletion: somebody reads it"),
            Err(error) => tracing::warn!(%error, "the write-ahead log was not cut back after a deletion"),
        }
    }

    fn refuse_declared(&self, id: &str) -> Result<(), StoreError> {
        match self.declared.connections.get(id) {
            Some(held) => Err(StoreError::Declared { id: id.to_owned(), place: held.place.clone() }),
            None => Ok(()),
        }
    }

    /// Whether the secret that `key` names is there and can be injected, as far as that can be told now.
    fn check_injected(
        &self,
        settings: &ConnectionSettings,
        key: Option<&str>,
        secrets: &Secrets,
    ) -> Result<(), StoreError> {
        let named = key.and_then(|key| Some((key, secrets.get(key)?)));
        match named.map(|(key, secret)| (key, self.variables().resolve(secret))) {
            Some((key, Ok(secret))) => {
                Ok(check_injection(settings, Some(key), &Secrets::from([(key.to_owned(), secret)]))?)
            }
            // Its variable has no value now.
            Some((_, Err(_))) => Ok(()),
            None => Ok(check_injection(settings, key, secrets)?),
        }
    }

    /// One transaction, one version more; the entry says in the same transaction who asked for it.
    pub(super) fn commit(
        &mut self,
        entry: Option<&Entry>,
        work: impl FnOnce(&Writer<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let version = self.state.version.saturating_add(1);
        self.engine.write(|writer| {
            work(writer)?;
            if let Some(entry) = entry {
                writer.insert_audit(entry)?;
            }
            writer.set_meta("version", &version.to_be_bytes())
        })?;
        self.state.version = version;
        if let Some(entry) = entry {
            self.noted(entry);
        }
        Ok(())
    }

    fn seal_secrets(
        &self,
        record: &ConnectionRecord,
        secrets: &Secrets,
        by: &str,
        reason: &str,
    ) -> Result<SecretsRow, StoreError> {
        let sealed = self.key.seal(place_of(record), &records::encode_secrets(secrets))?;
        let made_at_ms = i64::try_from(record.updated_at.0).unwrap_or(i64::MAX);
        Ok(SecretsRow { sealed, made_at_ms, made_by: claim(by), reason: claim(reason) })
    }

    pub(super) fn secrets(&self, record: &ConnectionRecord) -> Result<Secrets, StoreError> {
        let version = i64::try_from(record.settings.secret_version).unwrap_or(i64::MAX);
        let id = record.settings.id.as_str();
        let unreadable = |detail: &str| StoreError::Record { id: id.to_owned(), detail: detail.to_owned() };
        let sealed = self.engine.secrets(id, version)?.ok_or(StoreError::Lost)?;
        let plaintext = self.key.open(place_of(record), &sealed)?;
        records::decode_secrets(&plaintext).ok_or_else(|| unreadable("its secrets are not readable"))
    }

    /// The secret that a stored connection injects.
    pub(super) fn injected(&self, record: &ConnectionRecord, variables: &Variables<'_>) -> Result<Secret, String> {
        let secrets = self.secrets(record).map_err(|error| error.to_string())?;
        pick(record, &secrets, variables)
    }

    fn saved(&self, record: &ConnectionRecord, secrets: &Secrets) -> Change {
        Change::Saved(Arc::new(record.clone()), pick(record, secrets, &self.variables()))
    }
}

fn place_of(record: &ConnectionRecord) -> Place<'_> {
    secrets_place(record.settings.id.as_str(), record.settings.secret_version)
}

/// The secret to inject.
fn pick(record: &ConnectionRecord, secrets: &Secrets, variables: &Variables<'_>) -> Result<Secret, String> {
    let key = record.auth_secret_key.as_deref().ok_or_else(|| "no secret is named for injection".to_owned())?;
    let secret = secrets.get(key).ok_or_else(|| "the secret to inject is missing".to_owned())?;
    variables.resolve(secret).map_err(|missing| missing.to_string())
}

fn decode_version(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
