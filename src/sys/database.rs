//! Opening an SQLite file that is ours: looked at before anything in it is changed, then set up the same way everywhere.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;

use crate::sys::files;
use crate::sys::files::PRIVATE_FILE;

/// How long a statement waits for a reader from outside, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The WAL file is cut back to this many bytes after a checkpoint.
const WAL_BYTES: i64 = 4 * 1024 * 1024;

/// How a file of ours is told from others.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// `PRAGMA application_id`.
    pub application: i64,
    /// The newest schema version this program knows (`PRAGMA user_version`); the first is 1.
    pub newest: i64,
}

/// What a look at a database file showed.
#[derive(Debug)]
pub enum Found {
    /// Nothing yet.
    Empty(Connection),
    /// A database of ours, of this or an older schema version.
    Ours(Connection, i64),
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file could not be used.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Written by a newer version of this program.
    #[error("{path} has schema version {found}, this program knows versions up to {known}; it was left as it is")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// What the file says.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// A SQLite database of some other program, or not a database.
    #[error("{path} is not a database of this program; it was left as it is")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{path} is damaged: {detail}")]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What the check said.
        detail: String,
    },
    /// SQLite failed.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// What keeps us from a database that is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// Its disk has no room.
    Full,
    /// Anything else of the disk, or another process.
    Other,
}

impl DatabaseError {
    /// What keeps us from the database for now; `None`: it is the database itself, or what was asked of it.
    pub fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Io { source, .. } => Some(if files::is_full(source) { Hindrance::Full } else { Hindrance::Other }),
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Some(Hindrance::Full),
                Some(
                    ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen,
                ) => Some(Hindrance::Other),
                _ => None,
            },
            Self::Newer { .. } | Self::Foreign { .. } | Self::Damaged { .. } => None,
        }
    }
}

/// Opens or makes the file (mode 0600) and looks at it. A newer schema or a foreign database is refused, and
/// then no byte of the file has changed.
pub fn look(path: &Path, mark: Mark) -> Result<Found, DatabaseError> {
    let io = |source| DatabaseError::Io { path: path.to_owned(), source };
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    // SQLite's NOFOLLOW refuses links in any part of the path; only the file itself must not be one.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let real = folder.canonicalize().map_err(io)?.join(path.file_name().unwrap_or_default());
    let db = Connection::open_with_flags(real, flags)?;
    // Closing must not fold a WAL of a database that is not ours to touch.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    let foreign = || DatabaseError::Foreign { path: path.to_owned() };
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(|_| foreign())?;
    let version = pragma("user_version").map_err(|_| foreign())?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (application, version, tables) == (0, 0, 0) {
        return Ok(Found::Empty(db));
    }
    if application != mark.application || version < 1 {
        return Err(foreign());
    }
    if version > mark.newest {
        return Err(DatabaseError::Newer { path: path.to_owned(), found: version, known: mark.newest });
    }
    Ok(Found::Ours(db, version))
}

/// Has a log that was written ahead moved into the file when the last one closes it.
pub fn fold_on_close(db: &Connection) -> Result<(), DatabaseError> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// Sets a database up for use: WAL, every commit on disk, foreign keys, nothing believed of the file. Called once
/// it is known to be ours; a damaged one is refused.
pub fn prepare(db: &Connection, path: &Path) -> Result<(), DatabaseError> {
    fold_on_close(db)?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(DatabaseError::Damaged { path: path.to_owned(), detail: verdict });
    }
    Ok(())
}
