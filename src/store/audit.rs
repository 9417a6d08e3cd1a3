//! The audit: one row per change, written in the transaction of the change itself, and a line in a file after it.

use std::path::Path;

use rusqlite::Row;
use rusqlite::ToSql;
use rusqlite::params;

use crate::domain::audit::Entry;
use crate::domain::audit::Filter;
use crate::domain::audit::Recorded;
use crate::domain::relay::RelaySession;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::audit_lines::Lines;
use crate::store::engine::Engine;
use crate::store::engine::Writer;
use crate::store::vault::Vault;

/// Rows that are kept. The trigger of the schema holds the same number, so that no mistake here can take more.
const KEPT: i64 = 1_000_000;
/// Rows beyond those that one entry takes away: more than it adds, so that a surplus melts, and few enough not to be
/// felt.
const STEP: i64 = 64;
/// Most entries of one look.
pub const MAX_PAGE: usize = 500;

const COLUMNS: &str = "id, at_ms, action, target, via, actor, address, request_id, detail";

impl Writer<'_> {
    /// Adds an entry, and takes away the oldest where there are too many.
    pub(super) fn insert_audit(&self, entry: &Entry) -> Result<(), StoreError> {
        let detail = serde_json::to_string(&entry.whole_detail()).unwrap_or_else(|_| "{}".to_owned());
        let asker = &entry.asker;
        let sql = "INSERT INTO audit (at_ms, action, target, via, actor, address, request_id, detail)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.transaction.prepare_cached(sql)?.execute(params![
            i64::try_from(entry.at.0).unwrap_or(i64::MAX),
            entry.action.name(),
            entry.target,
            asker.via().name(),
            asker.actor(),
            asker.address(),
            asker.request_id(),
            detail,
        ])?;
        let newest = self.transaction.last_insert_rowid();
        self.prune_audit(newest.saturating_sub(KEPT))
    }

    /// Takes away at most [`STEP`] entries up to `last`.
    pub(super) fn prune_audit(&self, last: i64) -> Result<(), StoreError> {
        if last > 0 {
            let sql = "DELETE FROM audit WHERE id <= min(?1, (SELECT min(id) FROM audit) + ?2)";
            self.transaction.prepare_cached(sql)?.execute(params![last, STEP.saturating_sub(1)])?;
        }
        Ok(())
    }
}

impl Engine {
    /// Entries after one, oldest first.
    pub(super) fn audit_after(&self, id: u64, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map(params![number(id), number(limit as u64)], recorded)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The newest entry's id; 0 where there is none.
    pub(super) fn newest_audit(&self) -> Result<u64, StoreError> {
        let newest: Option<i64> = self.db.query_row("SELECT max(id) FROM audit", [], |row| row.get(0))?;
        Ok(newest.and_then(|id| u64::try_from(id).ok()).unwrap_or(0))
    }

    fn audit(&self, filter: &Filter, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        let mut conditions = vec!["id < ?1"];
        let before = filter.before.map_or(i64::MAX, number);
        let limit = number(limit.min(MAX_PAGE + 1) as u64);
        let action = filter.action.map(|action| action.name());
        let mut values: Vec<&dyn ToSql> = vec![&before, &limit];
        if let Some(connection) = &filter.connection {
            conditions.push("target = ?3 AND action LIKE 'connection.%'");
            values.push(connection);
        }
        if let Some(action) = &action {
            conditions.push(if values.len() == 2 { "action = ?3" } else { "action = ?4" });
            values.push(action);
        }
        let condition = conditions.join(" AND ");
        let sql = format!("SELECT {COLUMNS} FROM audit WHERE {condition} ORDER BY id DESC LIMIT ?2");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map(values.as_slice(), recorded)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Vault {
    /// Entries that pass the filter, newest first, at most one more than [`MAX_PAGE`].
    pub fn audit(&self, filter: &Filter, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        self.engine.audit(filter, limit)
    }

    /// Writes down something that changes no state that authz holds: a test, a backup, a file of ours.
    pub fn note(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.engine.write(|writer| writer.insert_audit(entry))?;
        self.noted(entry);
        Ok(())
    }

    /// From now on every entry becomes a line of `logs/audit.jsonl` in this folder; those that are missing there are
    /// added first.
    pub(super) fn keep_lines_in(&mut self, data: &Path) -> Result<(), StoreError> {
        self.lines = Some(Lines::open(data, &self.engine)?);
        self.write_lines();
        Ok(())
    }

    /// Tells the log and the file of an entry that is committed.
    pub(super) fn noted(&mut self, entry: &Entry) {
        let (action, via) = (entry.action.name(), entry.asker.via().name());
        let relayed = entry.asker.relay().map(RelaySession::as_str);
        tracing::info!(action, target = entry.target, via, request_id = entry.asker.request_id(), relayed, "changed");
        self.write_lines();
    }

    /// Adds the lines of the entries the file does not have yet. What cannot be written now is written the next time:
    /// the table has it.
    fn write_lines(&mut self) {
        if let Some(lines) = &mut self.lines
            && let Err(error) = lines.catch_up(&self.engine)
        {
            tracing::warn!(%error, "the lines of the audit cannot be written; the table has every entry");
        }
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn recorded(row: &Row<'_>) -> Result<Recorded, rusqlite::Error> {
    let detail: String = row.get(8)?;
    Ok(Recorded {
        id: u64::try_from(row.get::<_, i64>(0)?).unwrap_or_default(),
        at: UnixMillis(u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default()),
        action: row.get(2)?,
        target: row.get(3)?,
        via: row.get(4)?,
        actor: row.get(5)?,
        address: row.get(6)?,
        request_id: row.get(7)?,
        detail: serde_json::from_str(&detail).unwrap_or_default(),
    })
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
