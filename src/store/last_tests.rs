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

    /// When a connection was made, which tells it from a namesake.
    pub fn made_at(&self, connection: &str) -> Result<UnixMillis, StoreError> {
        match self.declared.connections.get(connection) {
            Some(held) => Ok(held.record.created_at),
            None => Ok(self.record(connection)?.created_at),
        }
    }

    /// Keeps what came of a test of the connection made at `made`, and who asked for it. Where that is gone by now only the
    /// latter is kept. The state that authz has is not touched.
    pub fn keep_test(
        &mut self,
        connection: &str,
        made: UnixMillis,
        test: &LastTest,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        let is_there = self.made_at(connection).is_ok_and(|found| found == made);
        self.engine.write(|writer| {
            if is_there {
                writer.replace_test(connection, test)?;
            }
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
    use crate::domain::address::AddressPolicy;
    use crate::domain::audit::Action;
    use crate::domain::audit::Asker;
    use crate::domain::audit::Filter;
    use crate::domain::audit::Via;
    use crate::domain::draft::CheckedDraft;
    use crate::domain::draft::Draft;
    use crate::domain::ids::ConnectionId;
    use crate::domain::record::Secrets;
    use crate::domain::secret::Secret;
    use crate::store::declared::Place;
    use crate::store::declared::Resolved;
    use crate::store::declared::ResolvedConnection;

    fn draft(id: &str) -> CheckedDraft {
        let draft = Draft {
            id: id.to_owned(),
            protocol: "mcp".to_owned(),
            base_url: "https://api.example.com".to_owned(),
            ..Draft::default()
        };
        draft.check(&AddressPolicy::default()).unwrap()
    }

    fn create(vault: &mut Vault, id: &str, at: UnixMillis) {
        vault.create_connection(draft(id), Secrets::new(), &Asker::local(Via::Command), at).unwrap();
    }

    fn test_of(at: u64, passed: bool, http_status: u16, error: &str) -> LastTest {
        LastTest { at: UnixMillis(at), outcome: TestOutcome { passed, http_status, error: error.to_owned() } }
    }

    #[test]
    fn the_last_test_is_kept_and_counts_as_no_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let key = Secret::new("01".repeat(32));
        let mut vault = Vault::open(&path, &key).unwrap();
        let asker = Asker::local(Via::Command);
        let entry = Entry::new(Action::ConnectionTest, "demo", &asker, UnixMillis(1));
        for id in ["demo", "other"] {
            create(&mut vault, id, UnixMillis(1));
        }
        let before = vault.state().clone();
        vault.keep_test("demo", UnixMillis(1), &test_of(1, false, 401, "http 401"), &entry).unwrap();
        vault.keep_test("demo", UnixMillis(1), &test_of(2, true, 200, ""), &entry).unwrap();
        vault.keep_test("other", UnixMillis(1), &test_of(3, false, 0, "no answer"), &entry).unwrap();
        assert_eq!(vault.state(), &before);
        drop(vault);
        let vault = Vault::open(&path, &key).unwrap();
        assert_eq!(vault.last_test("demo").unwrap(), Some(test_of(2, true, 200, "")));
        assert_eq!(vault.last_test("none").unwrap(), None);
        assert_eq!(vault.last_tests().unwrap().len(), 2);
        let filter = Filter { action: Some(Action::ConnectionTest), ..Filter::default() };
        assert_eq!(vault.audit(&filter, 10).unwrap().len(), 3);
    }

    #[test]
    fn a_test_that_ends_after_its_connection_is_no_test_of_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut vault = Vault::open(&folder.path().join("store.db"), &Secret::new("01".repeat(32))).unwrap();
        let asker = Asker::local(Via::Command);
        let entry = Entry::new(Action::ConnectionTest, "demo", &asker, UnixMillis(1));
        create(&mut vault, "demo", UnixMillis(1));
        let made = vault.made_at("demo").unwrap();
        vault.delete_connection(&ConnectionId::parse("demo").unwrap(), &asker, UnixMillis(2)).unwrap();
        vault.keep_test("demo", made, &test_of(3, true, 200, ""), &entry).unwrap();
        create(&mut vault, "demo", UnixMillis(4));
        assert_eq!(vault.last_test("demo").unwrap(), None);
        vault.keep_test("demo", made, &test_of(5, true, 200, ""), &entry).unwrap();
        assert_eq!(vault.last_test("demo").unwrap(), None);
        let filter = Filter { action: Some(Action::ConnectionTest), ..Filter::default() };
        assert_eq!(vault.audit(&filter, 10).unwrap().len(), 2, "the credential was sent");
    }

    #[test]
    fn a_test_goes_with_its_declaration() {
        let folder = tempfile::tempdir().unwrap();
        let mut vault = Vault::open(&folder.path().join("store.db"), &Secret::new("01".repeat(32))).unwrap();
        let asker = Asker::local(Via::Config);
        let entry = Entry::new(Action::ConnectionTest, "demo", &asker, UnixMillis(1));
        let set = |declared: bool| {
            let place = Place { file: "gateway.yaml".into(), line: 1 };
            let connection = ResolvedConnection { draft: draft("demo"), secrets: BTreeMap::new(), place };
            Resolved { connections: declared.then_some(connection).into_iter().collect(), ..Resolved::default() }
        };
        let test = |vault: &mut Vault| {
            let made = vault.made_at("demo").unwrap();
            vault.keep_test("demo", made, &test_of(3, true, 200, ""), &entry).unwrap();
            assert!(vault.last_test("demo").unwrap().is_some());
        };
        let declare = |vault: &mut Vault, declared: bool| {
            vault.declare(set(declared), Action::ConfigReload, &asker, UnixMillis(2)).unwrap();
        };
        declare(&mut vault, true);
        test(&mut vault);
        declare(&mut vault, false);
        assert_eq!(vault.last_test("demo").unwrap(), None);
        // One that begins to hide a stored one was not tested, and the stored one was not when it comes back.
        create(&mut vault, "demo", UnixMillis(1));
        for declared in [true, false] {
            test(&mut vault);
            declare(&mut vault, declared);
            assert_eq!(vault.last_test("demo").unwrap(), None);
        }
        // What stays keeps it, over a start too.
        declare(&mut vault, true);
        test(&mut vault);
        vault.begin_declared(set(true), UnixMillis(3)).unwrap();
        assert!(vault.last_test("demo").unwrap().is_some());
        vault.begin_declared(set(false), UnixMillis(3)).unwrap();
        assert_eq!(vault.last_test("demo").unwrap(), None);
    }
}
