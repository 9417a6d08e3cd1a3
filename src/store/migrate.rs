//! Schema steps: forward only, each in the transaction that makes or upgrades the store.

use rusqlite::Connection;
use rusqlite::Transaction;

/// Marks the file as ours (`PRAGMA application_id`): "SGLM".
pub const APPLICATION_ID: i64 = 0x5347_4c4d;

/// Step n leads from schema version n to n + 1. A released step is never changed.
const STEPS: &[&str] = &[
    // 0 -> 1
    "CREATE TABLE meta (
        name TEXT NOT NULL PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT;
    CREATE TABLE connections (
        id TEXT NOT NULL PRIMARY KEY,
        record TEXT NOT NULL,
        secret_version INTEGER NOT NULL CHECK (secret_version >= 1)
    ) STRICT;
    CREATE TABLE secrets (
        connection TEXT NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
        version INTEGER NOT NULL CHECK (version >= 1),
        sealed BLOB NOT NULL,
        made_at_ms INTEGER NOT NULL,
        made_by TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (connection, version)
    ) STRICT, WITHOUT ROWID;",
    // 1 -> 2
    "CREATE TABLE variables (
        key TEXT NOT NULL PRIMARY KEY,
        sealed BLOB NOT NULL,
        version INTEGER NOT NULL CHECK (version >= 1),
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        created_by TEXT NOT NULL
    ) STRICT;
    CREATE TABLE variable_references (
        connection TEXT NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
        variable TEXT NOT NULL,
        PRIMARY KEY (connection, variable)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX variable_references_by_variable ON variable_references (variable);
    CREATE TABLE tests (
        connection TEXT NOT NULL PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        passed INTEGER NOT NULL,
        http_status INTEGER NOT NULL,
        error TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE last_use (
        connection TEXT NOT NULL,
        namespace TEXT NOT NULL,
        public_key BLOB NOT NULL,
        subject TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        status INTEGER NOT NULL,
        PRIMARY KEY (connection, namespace, public_key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX last_use_by_time ON last_use (at_ms);
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        via TEXT NOT NULL,
        actor TEXT NOT NULL,
        address TEXT NOT NULL,
        request_id TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_target ON audit (target, id);
    CREATE INDEX audit_by_action ON audit (action, id);
    CREATE TRIGGER audit_keeps_what_it_says BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER audit_keeps_what_it_has BEFORE DELETE ON audit
        WHEN OLD.id > (SELECT max(id) FROM audit) - 1000000
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER audit_is_not_written_over BEFORE INSERT ON audit
        WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;",
    // 2 -> 3
    "CREATE TABLE declared_secrets (
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        digests BLOB NOT NULL,
        since_ms INTEGER NOT NULL,
        PRIMARY KEY (owner, name)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE connections ADD COLUMN mark BLOB NOT NULL DEFAULT x'';",
];

/// The first version whose records bear marks, see [`crate::store::records`].
pub const MARKED: i64 = 3;

/// The schema version this program writes.
pub const NEWEST: i64 = STEPS.len() as i64;

/// Whether the database holds the tables, indices and triggers of [`NEWEST`] and nothing else: what somebody added would
/// run with our statements.
pub fn is_ours(db: &Connection) -> Result<bool, rusqlite::Error> {
    fn objects(db: &Connection) -> Result<Vec<[Option<String>; 4]>, rusqlite::Error> {
        let mut statement = db.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?;
        let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
        rows.collect()
    }
    let fresh = Connection::open_in_memory()?;
    STEPS.iter().try_for_each(|step| fresh.execute_batch(step))?;
    Ok(objects(db)? == objects(&fresh)?)
}

/// Runs every step after `from`; the caller commits.
pub fn upgrade(transaction: &Transaction<'_>, from: i64) -> Result<(), rusqlite::Error> {
    let done = usize::try_from(from).unwrap_or(0);
    for step in STEPS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", NEWEST)
}
