//! Schema steps: forward only, each in the transaction that makes or upgrades the store.

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
];

/// The schema version this program writes.
pub const NEWEST: i64 = STEPS.len() as i64;

/// Runs every step after `from`; the caller commits.
pub fn upgrade(transaction: &Transaction<'_>, from: i64) -> Result<(), rusqlite::Error> {
    let done = usize::try_from(from).unwrap_or(0);
    for step in STEPS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", NEWEST)
}
