//! The last test of each connection, those of the configuration file too.

use std::collections::BTreeMap;

use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;

use crate::domain::audit::Entry;
use crate::domain::probe::LastTest;
use crate::domain::probe::TestOutcome;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::engine::Engine;
use crate::store::engine::Writer;
use crate::store::vault::Vault;

const COLUMNS: &str = "connection, at_ms, passed, http_status, error";

impl Writer<'_> {
    /// Keeps a test in the place of the one before.
    fn replace_test(&self, connection: &str, test: &LastTest) -> Result<(), StoreError> {
        let sql = "INSERT INTO tests (connection, at_ms, passed, http_status, error) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (connection) DO UPDATE SET at_ms = excluded.at_ms, passed = excluded.passed,
                   http_status = excluded.http_status, error = excluded.error";
        let at_ms = i64::try_from(test.at.0).unwrap_or(i64::MAX);
        let TestOutcome { passed, http_status, error } = &test.outcome;
        self.transaction.prepare_cached(sql)?.execute(params![connection, at_ms, passed, http_status, error])?;
        Ok(())
    }

    /// Forgets the test of a connection.
    pub(super) fn forget_test(&self, connection: &str) -> Result<(), StoreError> {
        self.transaction.prepare_cached("DELETE FROM tests WHERE connection = ?1")?.execute([connection])?;
        Ok(())
    }
}

impl Engine {
    fn last_test(&self, connection: &str) -> Result<Option<LastTest>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tests WHERE connection = ?1");
        let found = self.db.prepare_cached(&sql)?.query_row([connection], test).optional()?;
        Ok(found.map(|(_, test)| test))
    }

    fn last_tests(&self) -> Result<BTreeMap<String, LastTest>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tests");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map([], test)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Vault {
    /// The last test of one connection.
    pub fn last_test(&self, connection: &str) -> Result<Option<LastTest>, StoreError> {
        self.engine.last_test(connection)
    }

    /// The last test of every connection that was tested.
    pub fn last_tests(&self) -> Result<BTreeMap<String, LastTest>, StoreError> {
        self.engine.last_tests()
    }

    /// Keeps what came of a test, and who asked for it. The state that authz has is not touched.
    pub fn keep_test(&mut self, connection: &str, test: &LastTest, entry: &Entry) -> Result<(), StoreError> {
        self.engine.write(|writer| {
            writer.replace_test(connection, test)?;
            writer.insert_audit(entry)
        })?;
        self.noted(entry);
        Ok(())
    }
}

fn test(row: &Row<'_>) -> Result<(String, LastTest), rusqlite::Error> {
    let at = UnixMillis(u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default());
    let outcome = TestOutcome { passed: row.get(2)?, http_status: row.get(3)?, error: row.get(4)? };
    Ok((row.get(0)?, LastTest { at, outcome }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;
    use crate::domain::audit::Action;
    use crate::domain::audit::Asker;
    use crate::domain::audit::Via;
    use crate::domain::secret::Secret;

    fn test_of(at: u64, passed: bool, http_status: u16, error: &str) -> LastTest {
        LastTest { at: UnixMillis(at), outcome: TestOutcome { passed, http_status, error: error.to_owned() } }
    }

    #[test]
    fn the_last_test_is_kept_and_counts_as_no_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let key = Secret::new("01".repeat(32));
        let mut vault = Vault::open(&path, &key).unwrap();
        let entry = Entry::new(Action::ConnectionTest, "demo", &Asker::local(Via::Command), UnixMillis(1));
        let before = vault.state().clone();
        vault.keep_test("demo", &test_of(1, false, 401, "http 401"), &entry).unwrap();
        vault.keep_test("demo", &test_of(2, true, 200, ""), &entry).unwrap();
        vault.keep_test("other", &test_of(3, false, 0, "no answer"), &entry).unwrap();
        assert_eq!(vault.state(), &before);
        drop(vault);
        let vault = Vault::open(&path, &key).unwrap();
        assert_eq!(vault.last_test("demo").unwrap(), Some(test_of(2, true, 200, "")));
        assert_eq!(vault.last_test("none").unwrap(), None);
        assert_eq!(vault.last_tests().unwrap().len(), 2);
        assert_eq!(vault.audit(&crate::domain::audit::Filter::default(), 10).unwrap().len(), 3);
    }
}
