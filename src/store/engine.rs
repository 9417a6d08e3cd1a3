//! The embedded database: SQLite in WAL mode. Its rows are bytes and text here; what they mean is `vault`'s.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::OptionalExtension as _;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;
use rusqlite::config::DbConfig;
use rusqlite::params;

use crate::store::StoreError;
use crate::store::migrate;
use crate::sys::files::PRIVATE_FILE;

/// How long a statement waits for a reader from outside, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The WAL file is cut back to this many bytes after a checkpoint.
const WAL_BYTES: i64 = 4 * 1024 * 1024;

/// A connection's row.
#[derive(Debug)]
pub struct ConnectionRow {
    /// Its id.
    pub id: String,
    /// JSON of [`crate::store::records`].
    pub record: String,
    /// Version of the secrets in use.
    pub secret_version: i64,
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

/// The open database.
#[derive(Debug)]
pub struct Engine {
    db: Connection,
    path: PathBuf,
}

impl Engine {
    /// Opens or makes the file (mode 0600) and looks at it. A newer schema or a foreign database is refused, and
    /// then no byte of the file has changed.
    pub fn look(path: &Path) -> Result<Found, StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        match OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(error)),
        }
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        // SQLite's NOFOLLOW refuses links in any part of the path; only the file itself must not be one.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let real = folder.canonicalize().map_err(io)?.join(path.file_name().unwrap_or_default());
        let db = Connection::open_with_flags(real, flags)?;
        // Closing must not fold a WAL of a database that is not ours to touch.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        db.busy_timeout(BUSY_TIMEOUT)?;
        let foreign = || StoreError::Foreign { path: path.to_owned() };
        let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let application = pragma("application_id").map_err(|_| foreign())?;
        let version = pragma("user_version").map_err(|_| foreign())?;
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let engine = Self { db, path: path.to_owned() };
        match (application, version, tables) {
            (0, 0, 0) => Ok(Found::Empty(engine)),
            (migrate::APPLICATION_ID, version, _) if version > migrate::NEWEST => {
                Err(StoreError::Newer { path: path.to_owned(), found: version, known: migrate::NEWEST })
            }
            (migrate::APPLICATION_ID, 1.., _) => Ok(Found::Store(engine, version)),
            _ => Err(foreign()),
        }
    }

    /// Sets the database up for use. Called once the store is known to be ours and its key to be right.
    pub fn prepare(&mut self) -> Result<(), StoreError> {
        self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        self.db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        self.db.pragma_update(None, "synchronous", "FULL")?;
        self.db.pragma_update(None, "secure_delete", true)?;
        self.db.pragma_update(None, "foreign_keys", true)?;
        self.db.pragma_update(None, "temp_store", "MEMORY")?;
        self.db.pragma_update(None, "trusted_schema", false)?;
        self.db.pragma_update(None, "cell_size_check", true)?;
        self.db.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
        let verdict: String = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(StoreError::Damaged { path: self.path.clone(), detail: verdict });
        }
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

    /// Moves the WAL into the database file and empties it, so that what was deleted is overwritten there too.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// A value of `meta`.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    /// Every connection, by id.
    pub fn connections(&self) -> Result<Vec<ConnectionRow>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT id, record, secret_version FROM connections ORDER BY id")?;
        let rows = statement.query_map([], connection_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many connections there are.
    pub fn count(&self) -> Result<i64, StoreError> {
        Ok(self.db.query_row("SELECT count(*) FROM connections", [], |row| row.get(0))?)
    }

    /// One connection.
    pub fn connection(&self, id: &str) -> Result<Option<ConnectionRow>, StoreError> {
        let mut statement =
            self.db.prepare_cached("SELECT id, record, secret_version FROM connections WHERE id = ?1")?;
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
    transaction: Transaction<'a>,
}

impl Writer<'_> {
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
        let sql = "INSERT INTO connections (id, record, secret_version) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        let added = self.transaction.prepare_cached(sql)?.execute(params![row.id, row.record, row.secret_version])?;
        Ok(added == 1)
    }

    /// Replaces a connection's record; `false` where there is none.
    pub fn update(&self, row: &ConnectionRow) -> Result<bool, StoreError> {
        let sql = "UPDATE connections SET record = ?2, secret_version = ?3 WHERE id = ?1";
        let changed = self.transaction.prepare_cached(sql)?.execute(params![row.id, row.record, row.secret_version])?;
        Ok(changed == 1)
    }

    /// Removes a connection and every version of its secrets; `false` where there is none.
    pub fn delete(&self, id: &str) -> Result<bool, StoreError> {
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

    /// Removes the versions of a connection's secrets up to `version`.
    pub fn purge_secrets(&self, id: &str, version: i64) -> Result<(), StoreError> {
        let sql = "DELETE FROM secrets WHERE connection = ?1 AND version <= ?2";
        self.transaction.prepare_cached(sql)?.execute(params![id, version])?;
        Ok(())
    }
}

fn connection_row(row: &rusqlite::Row<'_>) -> Result<ConnectionRow, rusqlite::Error> {
    Ok(ConnectionRow { id: row.get(0)?, record: row.get(1)?, secret_version: row.get(2)? })
}

#[cfg(test)]
impl Engine {
    /// As if the disk held no more than this.
    pub(super) fn limit_pages(&self, pages: i64) -> Result<(), StoreError> {
        Ok(self.db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?)
    }
}
