//! The embedded database: SQLite in WAL mode. Its rows are bytes and text here; what they mean is `vault`'s.

use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;
use rusqlite::params;

use crate::store::StoreError;
use crate::store::migrate;
use crate::sys::database;
use crate::sys::database::Mark;

/// A connection's row.
#[derive(Debug)]
pub struct ConnectionRow {
    /// Its id.
    pub id: String,
    /// JSON of [`crate::store::records`].
    pub record: String,
    /// Version of the secrets in use.
    pub secret_version: i64,
    /// What says that nobody changed the others without the master key.
    pub mark: Vec<u8>,
    /// Whether there are no secrets of that version; only read, never written.
    pub lost: bool,
}

/// A row of sealed secrets.
#[derive(Debug)]
pub struct SecretsRow {
    /// What [`crate::store::seal`] made.
    pub sealed: Vec<u8>,
    /// Unix milliseconds.
    pub made_at_ms: i64,
    /// Who asked for it, as they said themselves.
    pub made_by: String,
    /// Why, as they said themselves.
    pub reason: String,
}

/// What a look at a database file showed, before anything in it is changed.
#[derive(Debug)]
pub enum Found {
    /// Nothing yet.
    Empty(Engine),
    /// A store of ours, of this or an older schema version.
    Store(Engine, i64),
}

/// The columns of a connection's row.
pub(super) const CONNECTION: &str = "SELECT id, record, secret_version, mark, NOT EXISTS (SELECT 1 FROM secrets
    WHERE connection = connections.id AND version = connections.secret_version) FROM connections";

/// The open database.
#[derive(Debug)]
pub struct Engine {
    pub(super) db: Connection,
    path: PathBuf,
}

impl Engine {
    /// Opens or makes the file (mode 0600) and looks at it. A newer schema or a foreign database is refused, and
    /// then no byte of the file has changed.
    pub fn look(path: &Path) -> Result<Found, StoreError> {
        let mark = Mark { application: migrate::APPLICATION_ID, newest: migrate::NEWEST };
        let engine = |db| Self { db, path: path.to_owned() };
        Ok(match database::look(path, mark)? {
            database::Found::Empty(db) => Found::Empty(engine(db)),
            database::Found::Ours(db, version) => Found::Store(engine(db), version),
        })
    }

    /// Sets the database up for use. Called once the store is known to be ours and its key to be right.
    pub fn prepare(&mut self) -> Result<(), StoreError> {
        // What was deleted held secrets, even if sealed ones.
        self.db.pragma_update(None, "secure_delete", true)?;
        Ok(database::prepare(&self.db, &self.path)?)
    }

    /// Has a log that was written ahead moved into the file when this is closed.
    pub(super) fn fold_on_close(&self) -> Result<(), StoreError> {
        database::fold_on_close(&self.db)?;
        Ok(())
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in one write transaction: all of it is on disk afterwards, or none.
    pub fn write<T>(&mut self, work: impl FnOnce(&Writer<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let writer = Writer { transaction };
        let value = work(&writer)?;
        writer.transaction.commit()?;
        Ok(value)
    }

    /// Writes what is there already, to learn whether anything can be written.
    pub fn try_write(&self) -> Result<(), StoreError> {
        let version: i64 = self.db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok(self.db.pragma_update(None, "user_version", version)?)
    }

    /// Moves the WAL into the database file and empties it, so that what was deleted is overwritten there too. `false`
    /// where somebody who reads from outside stood in the way.
    pub fn checkpoint(&self) -> Result<bool, StoreError> {
        let busy: i64 = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        Ok(busy == 0)
    }

    /// The connection itself, for what this folder does with all of it.
    pub(super) const fn db(&self) -> &Connection {
        &self.db
    }

    /// A value of `meta`.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    /// Every connection, by id.
    pub fn connections(&self) -> Result<Vec<ConnectionRow>, StoreError> {
        let mut statement = self.db.prepare_cached(&format!("{CONNECTION} ORDER BY id"))?;
        let rows = statement.query_map([], connection_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Ids of all connections.
    pub fn connection_ids(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT id FROM connections ORDER BY id")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many connections there are.
    pub fn count(&self) -> Result<i64, StoreError> {
        Ok(self.db.query_row("SELECT count(*) FROM connections", [], |row| row.get(0))?)
    }

    /// One connection.
    pub fn connection(&self, id: &str) -> Result<Option<ConnectionRow>, StoreError> {
        let mut statement = self.db.prepare_cached(&format!("{CONNECTION} WHERE id = ?1"))?;
        Ok(statement.query_row([id], connection_row).optional()?)
    }

    /// The sealed secrets of one version.
    pub fn secrets(&self, id: &str, version: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement =
            self.db.prepare_cached("SELECT sealed FROM secrets WHERE connection = ?1 AND version = ?2")?;
        Ok(statement.query_row(params![id, version], |row| row.get(0)).optional()?)
    }
}

/// The statements a write transaction may run.
#[derive(Debug)]
pub struct Writer<'a> {
    pub(super) transaction: Transaction<'a>,
}

impl Writer<'_> {
    /// The connection itself, for what this folder does with all of it.
    pub(super) fn db(&self) -> &Connection {
        &self.transaction
    }

    /// Runs the schema steps after `from`.
    pub fn upgrade(&self, from: i64) -> Result<(), StoreError> {
        Ok(migrate::upgrade(&self.transaction, from)?)
    }

    /// Sets a value of `meta`.
    pub fn set_meta(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.transaction.prepare_cached(sql)?.execute(params![name, value])?;
        Ok(())
    }

    /// A value of `meta`, as this transaction sees it.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement = self.transaction.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    /// How many connections there are.
    pub fn count(&self) -> Result<i64, StoreError> {
        Ok(self.transaction.query_row("SELECT count(*) FROM connections", [], |row| row.get(0))?)
    }

    /// Adds a connection; `false` where the id is taken.
    pub fn insert(&self, row: &ConnectionRow) -> Result<bool, StoreError> {
        let sql = "INSERT INTO connections (id, record, secret_version, mark) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT DO NOTHING";
        let values = params![row.id, row.record, row.secret_version, row.mark];
        let added = self.transaction.prepare_cached(sql)?.execute(values)?;
        Ok(added == 1)
    }

    /// Replaces a connection's record; `false` where there is none.
    pub fn update(&self, row: &ConnectionRow) -> Result<bool, StoreError> {
        let sql = "UPDATE connections SET record = ?2, secret_version = ?3, mark = ?4 WHERE id = ?1";
        let values = params![row.id, row.record, row.secret_version, row.mark];
        let changed = self.transaction.prepare_cached(sql)?.execute(values)?;
        Ok(changed == 1)
    }

    /// Removes a connection, every version of its secrets and its last test; `false` where there is none.
    pub fn delete(&self, id: &str) -> Result<bool, StoreError> {
        self.forget_test(id)?;
        let gone = self.transaction.prepare_cached("DELETE FROM connections WHERE id = ?1")?.execute([id])?;
        Ok(gone == 1)
    }

    /// Adds a version of a connection's secrets.
    pub fn insert_secrets(&self, id: &str, version: i64, row: &SecretsRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO secrets (connection, version, sealed, made_at_ms, made_by, reason)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.transaction.prepare_cached(sql)?.execute(params![
            id,
            version,
            row.sealed,
            row.made_at_ms,
            row.made_by,
            row.reason
        ])?;
        Ok(())
    }

    /// Removes of every connection the versions of its secrets beyond the newest `kept`; returns how many.
    pub fn purge_all_secrets(&self, kept: i64) -> Result<usize, StoreError> {
        let sql = "DELETE FROM secrets WHERE version <=
                   (SELECT secret_version FROM connections WHERE id = secrets.connection) - ?1";
        Ok(self.transaction.prepare_cached(sql)?.execute([kept])?)
    }

    /// Removes the versions of a connection's secrets up to `version`; returns how many.
    pub fn purge_secrets(&self, id: &str, version: i64) -> Result<usize, StoreError> {
        let sql = "DELETE FROM secrets WHERE connection = ?1 AND version <= ?2";
        Ok(self.transaction.prepare_cached(sql)?.execute(params![id, version])?)
    }
}

pub(super) fn connection_row(row: &rusqlite::Row<'_>) -> Result<ConnectionRow, rusqlite::Error> {
    Ok(ConnectionRow {
        id: row.get(0)?,
        record: row.get(1)?,
        secret_version: row.get(2)?,
        mark: row.get(3)?,
        lost: row.get(4)?,
    })
}

#[cfg(test)]
impl Engine {
    /// As if the disk held no more than this.
    pub(super) fn limit_pages(&self, pages: i64) -> Result<(), StoreError> {
        Ok(self.db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?)
    }
}
