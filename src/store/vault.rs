//! The store's operations: records and sealed secrets together, each change one transaction and one version.

use std::path::Path;

use crate::domain::connection::InvalidConnection;
use crate::domain::draft::CheckedDraft;
use crate::domain::ids::ConnectionId;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::Secrets;
use crate::domain::record::check_injection;
use crate::domain::record::check_secrets;
use crate::domain::secret::Secret;
use crate::domain::snapshot::StateVersion;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::engine::Engine;
use crate::store::engine::Found;
use crate::store::engine::SecretsRow;
use crate::store::engine::Writer;
use crate::store::records;
use crate::store::seal::MasterKey;
use crate::store::seal::Place;
use crate::store::seal::SALT_BYTES;
use crate::store::seal::SealError;
use crate::sys::database::DatabaseError;
use crate::sys::random;

/// Versions of a connection's secrets that are kept: the one in use and four to look back at.
pub const KEPT_SECRET_VERSIONS: i64 = 5;
/// Connections one store holds: far more than any snapshot was measured with.
pub const MAX_CONNECTIONS: i64 = 50_000;
/// What the sentinel holds.
const SENTINEL: &[u8] = b"this store opens";
/// Where the sentinel belongs.
const SENTINEL_PLACE: Place<'static> = Place { kind: "meta", record: "sentinel", field: "value", version: 1 };
/// Longest free text kept of a rotation, in bytes.
const MAX_NOTE_BYTES: usize = 256;

/// The open store with its key.
#[derive(Debug)]
pub struct Vault {
    engine: Engine,
    key: MasterKey,
    state: StateVersion,
}

/// What a change did, told in the order of commits.
#[derive(Debug)]
pub enum Change {
    /// A connection is new or different. The secret is the one to inject; `Err` says why there is none.
    Saved(Box<ConnectionRecord>, Result<Secret, String>),
    /// A connection is gone.
    Deleted(ConnectionId),
    /// Several changes that are one version.
    Together(Vec<Change>),
}

/// All connections of a store, as one look at it found them.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Records with the secret to inject; `Err` says why there is none.
    pub usable: Vec<(ConnectionRecord, Result<Secret, String>)>,
    /// Rows that are no records of this version.
    pub unreadable: Vec<StoreError>,
}

/// A rotation as asked for.
#[derive(Debug)]
pub struct RotationRequest {
    /// Merged into what is there.
    pub secrets: Secrets,
    /// Who, by their own word.
    pub by: String,
    /// Why, by their own word.
    pub reason: String,
}

impl Vault {
    /// Opens the store or makes a new one. The key is proven by the sentinel before anything is changed.
    pub fn open(path: &Path, master_key: &Secret) -> Result<Self, StoreError> {
        match Engine::look(path)? {
            Found::Empty(engine) => Self::create(engine, master_key),
            Found::Store(engine, schema) => Self::unlock(engine, schema, master_key),
        }
    }

    fn create(mut engine: Engine, master_key: &Secret) -> Result<Self, StoreError> {
        let salt = random::bytes::<SALT_BYTES>()?;
        let key = MasterKey::derive(master_key, &salt)?;
        let state = StateVersion { epoch: random::uuid()?, version: 1 };
        let sentinel = key.seal(SENTINEL_PLACE, SENTINEL)?;
        engine.prepare()?;
        engine.write(|writer| {
            writer.upgrade(0)?;
            writer.set_meta("salt", &salt)?;
            writer.set_meta("sentinel", &sentinel)?;
            writer.set_meta("epoch", state.epoch.as_bytes())?;
            writer.set_meta("version", &state.version.to_be_bytes())
        })?;
        Ok(Self { engine, key, state })
    }

    fn unlock(mut engine: Engine, schema: i64, master_key: &Secret) -> Result<Self, StoreError> {
        let path = engine.path().to_owned();
        let missing = |name: &str| {
            StoreError::Database(DatabaseError::Damaged { path: path.clone(), detail: format!("meta has no {name}") })
        };
        let meta = |name: &str| engine.meta(name)?.ok_or_else(|| missing(name));
        let salt: [u8; SALT_BYTES] = meta("salt")?.as_slice().try_into().map_err(|_| missing("usable salt"))?;
        let key = MasterKey::derive(master_key, &salt)?;
        match key.open(SENTINEL_PLACE, &meta("sentinel")?) {
            Ok(found) if found.as_slice() == SENTINEL => {}
            Err(SealError::OtherKey) => return Err(StoreError::WrongMasterKey { path }),
            Ok(_) | Err(_) => return Err(missing("usable sentinel")),
        }
        let epoch = String::from_utf8(meta("epoch")?).map_err(|_| missing("usable epoch"))?;
        let version = decode_version(&meta("version")?).ok_or_else(|| missing("usable version"))?;
        engine.prepare()?;
        engine.write(|writer| writer.upgrade(schema))?;
        Ok(Self { engine, key, state: StateVersion { epoch, version } })
    }

    /// Epoch and version of the last committed change.
    pub fn state(&self) -> &StateVersion {
        &self.state
    }

    /// Whether the database answers.
    pub fn ping(&self) -> Result<(), StoreError> {
        self.engine.meta("version")?.map(drop).ok_or(StoreError::NotFound)
    }

    /// How many connections there are.
    pub fn count(&self) -> Result<u64, StoreError> {
        Ok(u64::try_from(self.engine.count()?).unwrap_or_default())
    }

    /// Every connection, by id. One that cannot be read is left out here and reported by [`Vault::load`].
    pub fn list(&self) -> Result<Vec<ConnectionRecord>, StoreError> {
        Ok(self.engine.connections()?.into_iter().filter_map(|row| records::decode(row).ok()).collect())
    }

    /// One connection.
    pub fn get(&self, id: &str) -> Result<ConnectionRecord, StoreError> {
        records::decode(self.engine.connection(id)?.ok_or(StoreError::NotFound)?)
    }

    /// Every connection with the secret to inject, and what cannot be read.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        for row in self.engine.connections()? {
            match records::decode(row) {
                Ok(record) => {
                    let secret = self.injected(&record);
                    loaded.usable.push((record, secret));
                }
                Err(error) => loaded.unreadable.push(error),
            }
        }
        Ok(loaded)
    }

    /// Remembers which settings and declared approvals are in force. Where they differ from those of the last
    /// start the version rises, because they are part of the state although they do not lie in the store.
    pub fn note_declared(&mut self, digest: &[u8; 32]) -> Result<(), StoreError> {
        if self.engine.meta("declared")?.as_deref() == Some(digest.as_slice()) {
            return Ok(());
        }
        self.commit(|writer| writer.set_meta("declared", digest))
    }

    /// One version more without a change of anything stored: the state has parts that lie elsewhere.
    pub fn advance(&mut self) -> Result<(), StoreError> {
        self.commit(|_| Ok(()))
    }

    /// Stores a new connection with its first secrets.
    pub fn create_connection(
        &mut self,
        draft: CheckedDraft,
        secrets: Secrets,
        now: UnixMillis,
    ) -> Result<(ConnectionRecord, Change), StoreError> {
        let secrets = check_secrets(secrets)?;
        check_injection(&draft.settings, draft.auth_secret_key.as_deref(), &secrets)?;
        let mut record = ConnectionRecord {
            settings: draft.settings,
            auth_secret_key: draft.auth_secret_key,
            credential_keys: secrets.keys().cloned().collect(),
            rotation_interval_days: draft.rotation_interval_days,
            mcp: draft.mcp,
            created_at: now,
            updated_at: now,
            last_rotated_at: (!secrets.is_empty()).then_some(now),
        };
        record.settings.next_rotation_due_at = record.rotation_due();
        let row = records::encode(&record)?;
        let first = self.seal_secrets(&record, &secrets, now, "", "")?;
        self.commit(|writer| {
            if writer.count()? >= MAX_CONNECTIONS {
                return Err(StoreError::Full);
            }
            if !writer.insert(&row)? {
                return Err(StoreError::Exists);
            }
            writer.insert_secrets(&row.id, row.secret_version, &first)
        })?;
        let change = saved(&record, &secrets);
        Ok((record, change))
    }

    /// Changes what `edit` changes; secrets stay. `edit` sees the record as it is.
    pub fn update_connection(
        &mut self,
        id: &str,
        now: UnixMillis,
        edit: impl FnOnce(&ConnectionRecord) -> Result<CheckedDraft, InvalidConnection>,
    ) -> Result<(ConnectionRecord, Change), StoreError> {
        let old = self.get(id)?;
        let draft = edit(&old)?;
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
        let secrets = self.secrets(&record)?;
        check_injection(&record.settings, record.auth_secret_key.as_deref(), &secrets)?;
        let row = records::encode(&record)?;
        self.commit(|writer| writer.update(&row)?.then_some(()).ok_or(StoreError::NotFound))?;
        let change = saved(&record, &secrets);
        Ok((record, change))
    }

    /// Merges new secrets into a connection's, as a new version; old versions beyond
    /// [`KEPT_SECRET_VERSIONS`] are purged.
    pub fn rotate(
        &mut self,
        id: &str,
        request: RotationRequest,
        now: UnixMillis,
    ) -> Result<(ConnectionRecord, Change), StoreError> {
        let mut record = self.get(id)?;
        let mut secrets = self.secrets(&record)?;
        let mut changed = false;
        for (name, secret) in check_secrets(request.secrets)? {
            changed |= secrets.get(&name) != Some(&secret);
            secrets.insert(name, secret);
        }
        if !changed {
            return Err(StoreError::Unchanged);
        }
        // The limits hold for the union too.
        let secrets = check_secrets(secrets)?;
        check_injection(&record.settings, record.auth_secret_key.as_deref(), &secrets)?;
        record.settings.secret_version = record.settings.secret_version.saturating_add(1);
        record.credential_keys = secrets.keys().cloned().collect();
        record.updated_at = now;
        record.last_rotated_at = Some(now);
        record.settings.next_rotation_due_at = record.rotation_due();
        let row = records::encode(&record)?;
        let next = self.seal_secrets(&record, &secrets, now, &request.by, &request.reason)?;
        self.commit(|writer| {
            writer.update(&row)?.then_some(()).ok_or(StoreError::NotFound)?;
            writer.insert_secrets(&row.id, row.secret_version, &next)?;
            writer.purge_secrets(&row.id, row.secret_version.saturating_sub(KEPT_SECRET_VERSIONS))
        })?;
        let change = saved(&record, &secrets);
        Ok((record, change))
    }

    /// Removes a connection and every version of its secrets.
    pub fn delete_connection(&mut self, id: &ConnectionId) -> Result<Change, StoreError> {
        self.commit(|writer| writer.delete(id.as_str())?.then_some(()).ok_or(StoreError::NotFound))?;
        // What was deleted still stands in the WAL; failing to cut it back does not undo the deletion.
        if let Err(error) = self.engine.checkpoint() {
            tracing::warn!(%error, "the write-ahead log was not cut back after a deletion");
        }
        Ok(Change::Deleted(id.clone()))
    }

    /// One transaction, one version more.
    fn commit(&mut self, work: impl FnOnce(&Writer<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let version = self.state.version.saturating_add(1);
        self.engine.write(|writer| {
            work(writer)?;
            writer.set_meta("version", &version.to_be_bytes())
        })?;
        self.state.version = version;
        Ok(())
    }

    fn seal_secrets(
        &self,
        record: &ConnectionRecord,
        secrets: &Secrets,
        now: UnixMillis,
        by: &str,
        reason: &str,
    ) -> Result<SecretsRow, StoreError> {
        let sealed = self.key.seal(secrets_place(record), &records::encode_secrets(secrets))?;
        let made_at_ms = i64::try_from(now.0).unwrap_or(i64::MAX);
        Ok(SecretsRow { sealed, made_at_ms, made_by: note(by), reason: note(reason) })
    }

    fn secrets(&self, record: &ConnectionRecord) -> Result<Secrets, StoreError> {
        let version = i64::try_from(record.settings.secret_version).unwrap_or(i64::MAX);
        let id = record.settings.id.as_str();
        let unreadable = |detail: &str| StoreError::Record { id: id.to_owned(), detail: detail.to_owned() };
        let sealed = self.engine.secrets(id, version)?.ok_or_else(|| unreadable("it has no secrets"))?;
        let plaintext = self.key.open(secrets_place(record), &sealed)?;
        records::decode_secrets(&plaintext).ok_or_else(|| unreadable("its secrets are not readable"))
    }

    fn injected(&self, record: &ConnectionRecord) -> Result<Secret, String> {
        let secrets = self.secrets(record).map_err(|error| error.to_string())?;
        pick(record, &secrets)
    }
}

fn secrets_place(record: &ConnectionRecord) -> Place<'_> {
    Place {
        kind: "connection",
        record: record.settings.id.as_str(),
        field: "secrets",
        version: record.settings.secret_version,
    }
}

fn saved(record: &ConnectionRecord, secrets: &Secrets) -> Change {
    Change::Saved(Box::new(record.clone()), pick(record, secrets))
}

/// The secret to inject.
fn pick(record: &ConnectionRecord, secrets: &Secrets) -> Result<Secret, String> {
    let key = record.auth_secret_key.as_deref().ok_or_else(|| "no secret is named for injection".to_owned())?;
    secrets.get(key).map(Secret::duplicate).ok_or_else(|| "the secret to inject is missing".to_owned())
}

/// Free text of a stranger's making: no control characters, bounded.
fn note(text: &str) -> String {
    let mut clean: String = text.trim().chars().filter(|character| !character.is_control()).collect();
    while clean.len() > MAX_NOTE_BYTES {
        clean.pop();
    }
    clean
}

fn decode_version(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
