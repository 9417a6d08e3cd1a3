//! When each agent last used each connection: seen in Envoy's access log, written down a few seconds later.
//!
//! It is no part of the state that authz has, so no write of it takes a version. Both bounds give way at the oldest end.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use rusqlite::params;

use crate::domain::audit::claim;
use crate::domain::ids::PublicKey;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::engine::Engine;
use crate::store::engine::Writer;
use crate::store::vault::Vault;

/// Agents remembered per connection.
pub const MAX_AGENTS: i64 = 1_000;
/// Agents remembered of all connections together.
const MAX_USES: i64 = 100_000;

/// One agent's last request through one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    /// Its namespace.
    pub namespace: String,
    /// Its key.
    pub public_key: PublicKey,
    /// Who it acted for, at most 256 bytes of it.
    pub subject: String,
    /// When the request began.
    pub at: UnixMillis,
    /// HTTP status of the answer; 0 where the agent left before there was one.
    pub status: u16,
}

impl Writer<'_> {
    fn put_use(&self, connection: &str, last: &LastUse) -> Result<(), StoreError> {
        let sql = "INSERT INTO last_use (connection, namespace, public_key, subject, at_ms, status)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                   ON CONFLICT (connection, namespace, public_key) DO UPDATE
                   SET subject = excluded.subject, at_ms = excluded.at_ms, status = excluded.status
                   WHERE excluded.at_ms >= last_use.at_ms";
        self.transaction.prepare_cached(sql)?.execute(params![
            connection,
            last.namespace,
            last.public_key.as_bytes(),
            claim(&last.subject),
            i64::try_from(last.at.0).unwrap_or(i64::MAX),
            last.status,
        ])?;
        Ok(())
    }

    fn evict_uses(&self, connection: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM last_use WHERE connection = ?1 AND (namespace, public_key) NOT IN (
                       SELECT namespace, public_key FROM last_use WHERE connection = ?1
                       ORDER BY at_ms DESC LIMIT ?2)
                   AND (SELECT count(*) FROM last_use WHERE connection = ?1) > ?2";
        self.transaction.prepare_cached(sql)?.execute(params![connection, MAX_AGENTS])?;
        Ok(())
    }

    fn evict_oldest_uses(&self, most: i64) -> Result<(), StoreError> {
        let count: i64 = self.transaction.query_row("SELECT count(*) FROM last_use", [], |row| row.get(0))?;
        if count > most {
            let sql = "DELETE FROM last_use WHERE (connection, namespace, public_key) IN (
                           SELECT connection, namespace, public_key FROM last_use ORDER BY at_ms LIMIT ?1)";
            self.transaction.prepare_cached(sql)?.execute([count.saturating_sub(most)])?;
        }
        Ok(())
    }

    /// Forgets who used a connection.
    pub(super) fn forget_uses(&self, connection: &str) -> Result<(), StoreError> {
        self.transaction.prepare_cached("DELETE FROM last_use WHERE connection = ?1")?.execute([connection])?;
        Ok(())
    }
}

impl Engine {
    /// When each connection (or only this one) was last used by anybody.
    pub(super) fn last_used(&self, only: Option<&str>) -> Result<BTreeMap<String, UnixMillis>, StoreError> {
        let filter = only.map_or("", |_| "WHERE connection = ?1");
        let sql = format!("SELECT connection, max(at_ms) FROM last_use {filter} GROUP BY connection");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map(rusqlite::params_from_iter(only), |row| {
            Ok((row.get(0)?, UnixMillis(u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default())))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn uses_of(&self, connection: &str) -> Result<Vec<LastUse>, StoreError> {
        let sql = "SELECT namespace, public_key, subject, at_ms, status FROM last_use WHERE connection = ?1
                   ORDER BY at_ms DESC, namespace, public_key";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([connection], |row| {
            Ok(LastUse {
                namespace: row.get(0)?,
                public_key: PublicKey::new(row.get(1)?),
                subject: row.get(2)?,
                at: UnixMillis(u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default()),
                status: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Vault {
    /// Writes down who used what, by connection; uses of connections that are gone count no longer.
    pub fn note_uses(&mut self, uses: &[(String, LastUse)]) -> Result<(), StoreError> {
        let named: BTreeSet<&str> = uses.iter().map(|(connection, _)| connection.as_str()).collect();
        let mut there = BTreeSet::new();
        for connection in named {
            if self.declared_at(connection).is_some() || self.engine.connection(connection)?.is_some() {
                there.insert(connection);
            }
        }
        self.engine.write(|writer| {
            for (connection, last) in uses.iter().filter(|(connection, _)| there.contains(connection.as_str())) {
                writer.put_use(connection, last)?;
            }
            there.iter().try_for_each(|connection| writer.evict_uses(connection))?;
            writer.evict_oldest_uses(MAX_USES)
        })
    }

    /// Who used a connection, the last one first; at most [`MAX_AGENTS`].
    pub fn agents(&self, connection: &str) -> Result<Vec<LastUse>, StoreError> {
        if self.declared_at(connection).is_none() && self.engine.connection(connection)?.is_none() {
            return Err(StoreError::NotFound);
        }
        self.engine.uses_of(connection)
    }
}

#[cfg(test)]
#[path = "last_use_tests.rs"]
mod tests;
