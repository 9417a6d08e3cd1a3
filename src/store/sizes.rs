//! How large the store is, for the metrics.

use std::fs;

use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::vault::Vault;
use crate::sys::files::beside;

/// The store's files, and the part of it that grows by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the database file.
    pub database_bytes: u64,
    /// Bytes of the write-ahead log; 0 where there is none.
    pub wal_bytes: u64,
    /// Bytes of the database file that hold nothing.
    pub free_bytes: u64,
    /// Entries of the audit.
    pub audit_entries: u64,
    /// When the oldest of them was made; `None` where there is none.
    pub audit_oldest: Option<UnixMillis>,
}

impl Vault {
    /// Whether anything can be written; nothing is changed.
    pub fn try_write(&self) -> Result<(), StoreError> {
        self.engine.try_write()
    }

    /// Looks. Reads a few pages whatever the size of the store.
    pub fn sizes(&self) -> Result<Sizes, StoreError> {
        let db = self.engine.db();
        let pragma = |name: &str| -> Result<u64, StoreError> {
            let value: i64 = db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
            Ok(u64::try_from(value).unwrap_or_default())
        };
        let page = pragma("page_size")?;
        // Entries leave at the old end only, so the ends say how many there are.
        let sql = "SELECT (SELECT max(id) FROM audit) - id + 1, at_ms FROM audit ORDER BY id LIMIT 1";
        let mut statement = db.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let audit: Option<(i64, i64)> =
            rows.next()?.map(|row| Ok::<_, StoreError>((row.get(0)?, row.get(1)?))).transpose()?;
        let length = |path| fs::metadata(path).map_or(0, |found| found.len());
        let path = self.engine.path();
        Ok(Sizes {
            database_bytes: length(path.to_owned()),
            wal_bytes: length(beside(path, "-wal")),
            free_bytes: pragma("freelist_count")?.saturating_mul(page),
            audit_entries: audit.and_then(|(entries, _)| u64::try_from(entries).ok()).unwrap_or_default(),
            audit_oldest: audit.and_then(|(_, at)| u64::try_from(at).ok()).map(UnixMillis),
        })
    }
}

#[cfg(test)]
#[path = "sizes_tests.rs"]
mod tests;
