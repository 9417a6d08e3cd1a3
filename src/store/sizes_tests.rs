#![allow(clippy::unwrap_used, reason = "test code may panic")]

use tempfile::TempDir;

use super::*;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Entry;
use crate::domain::audit::Via;
use crate::domain::secret::Secret;
use crate::store::worker::OpenStore;

fn open(folder: &TempDir) -> Vault {
    OpenStore::open(folder.path(), &Secret::new("01".repeat(32)), "test").unwrap().vault
}

fn note(vault: &mut Vault, at: u64) {
    let asker = Asker::new(Via::Token, "192.0.2.7", "req");
    vault.note(&Entry::new(Action::ConnectionTest, "linear", &asker, UnixMillis(at))).unwrap();
}

#[test]
fn an_empty_audit_has_no_oldest_entry() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = open(&folder).sizes().unwrap();
    assert_eq!((sizes.audit_entries, sizes.audit_oldest), (0, None));
}

#[test]
fn files_and_audit_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    for at in [5, 7, 9] {
        note(&mut vault, at);
    }
    let sizes = vault.sizes().unwrap();
    assert_eq!((sizes.audit_entries, sizes.audit_oldest), (3, Some(UnixMillis(5))));
    let file = |name| fs::metadata(folder.path().join(name)).unwrap().len();
    assert_eq!((sizes.database_bytes, sizes.wal_bytes), (file("gateway.db"), file("gateway.db-wal")));
    assert!(sizes.wal_bytes > 0);
}

#[test]
fn room_left_by_what_is_gone_shows() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(&folder);
    let db = vault.engine.db();
    db.execute_batch("CREATE TABLE filler (x BLOB); INSERT INTO filler VALUES (zeroblob(1000000)); DROP TABLE filler;")
        .unwrap();
    assert!(vault.sizes().unwrap().free_bytes >= 1_000_000);
}
