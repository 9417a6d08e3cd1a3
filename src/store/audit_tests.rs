#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code may panic and write files as a crash leaves them"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Via;
use crate::domain::secret::Secret;
use crate::store::worker::DATABASE_FILE;
use crate::store::worker::OpenStore;

fn open(folder: &TempDir) -> Vault {
    OpenStore::open(folder.path(), &Secret::new("01".repeat(32)), "test").unwrap().vault
}

fn entry(at: u64) -> Entry {
    let asker = Asker::new(Via::Token, "192.0.2.7", "req").named("ops");
    let detail = Detail::default().names("secrets", ["api_key"]).text("reason", "leaked");
    Entry::new(Action::ConnectionRotate, "linear", &asker, UnixMillis(at)).with(detail)
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("logs/audit.jsonl")
}

fn ids(text: &str) -> Vec<u64> {
    let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_u64().unwrap();
    text.lines().map(line).collect()
}

fn lines(folder: &TempDir) -> Vec<u64> {
    ids(&fs::read_to_string(file(folder)).unwrap())
}

#[test]
fn rows_are_neither_changed_nor_removed_nor_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    for at in 1..=3 {
        vault.note(&entry(at)).unwrap();
    }
    drop(vault);
    let raw = rusqlite::Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
    for statement in [
        "UPDATE audit SET actor = 'nobody' WHERE id = 2",
        "UPDATE audit SET id = 9 WHERE id = 2",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE id = 1",
        "DELETE FROM audit WHERE id = 3",
        "INSERT OR REPLACE INTO audit VALUES (2, 0, '', '', '', '', '', '', '{}')",
        "INSERT OR REPLACE INTO audit VALUES (3, 0, '', '', '', '', '', '', '{}')",
        "INSERT INTO audit VALUES (1, 0, '', '', '', '', '', '', '{}') ON CONFLICT (id) DO UPDATE SET actor = 'x'",
        "UPDATE OR REPLACE audit SET id = 3 WHERE id = 1",
    ] {
        let error = raw.execute(statement, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{statement}: {error}");
    }
    let found: Vec<_> = open(&folder).audit(&Filter::default(), 10).unwrap();
    assert_eq!(found.iter().map(|entry| (entry.id, entry.at.0)).collect::<Vec<_>>(), [(3, 3), (2, 2), (1, 1)]);
    assert!(found.iter().all(|entry| entry.actor == "ops"));
}

#[test]
fn beyond_a_million_the_oldest_go_in_small_steps() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    for at in 1..=200 {
        vault.note(&entry(at)).unwrap();
    }
    // As if a million more had been written, without the time that takes.
    vault.engine.db.execute("UPDATE sqlite_sequence SET seq = 1000100 WHERE name = 'audit'", []).unwrap();
    let mut left = Vec::new();
    for at in 0..4 {
        vault.note(&entry(at)).unwrap();
        let count: i64 =
            vault.engine.db.query_row("SELECT count(*) FROM audit WHERE id <= 200", [], |row| row.get(0)).unwrap();
        left.push(count);
    }
    assert_eq!(left, [136, 98, 97, 96]);
    assert!(vault.engine.db.execute("DELETE FROM audit WHERE id <= 105", []).is_err());
}

#[test]
fn entries_are_found_by_connection_action_and_age() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    let asker = Asker::local(Via::Config);
    for (action, target) in [
        (Action::ConnectionCreate, "linear"),
        (Action::VariableSet, "linear"),
        (Action::ConnectionRotate, "github"),
        (Action::ConnectionRotate, "linear"),
    ] {
        vault.note(&Entry::new(action, target, &asker, UnixMillis(0))).unwrap();
    }
    let found = |before: Option<u64>, connection: Option<&str>, action: Option<Action>, limit: usize| {
        let filter = Filter { before, connection: connection.map(str::to_owned), action };
        vault.audit(&filter, limit).unwrap().iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(found(None, None, None, 10), [4, 3, 2, 1]);
    assert_eq!(found(None, None, None, 2), [4, 3]);
    assert_eq!(found(Some(3), None, None, 10), [2, 1]);
    assert_eq!(found(None, Some("linear"), None, 10), [4, 1]);
    assert_eq!(found(None, None, Some(Action::ConnectionRotate), 10), [4, 3]);
    assert_eq!(found(Some(4), Some("linear"), Some(Action::ConnectionRotate), 10), [0_u64; 0]);
    assert_eq!(found(None, Some("linear"), Some(Action::ConnectionCreate), 10), [1]);
}

#[test]
fn each_entry_is_a_line_of_a_private_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    vault.note(&entry(1_771_610_666_123)).unwrap();
    let text = fs::read_to_string(file(&folder)).unwrap();
    assert_eq!(
        text,
        "{\"timestamp\":\"2026-02-20T18:04:26.123Z\",\"component\":\"gateway\",\"kind\":\"audit\",\"id\":1,\
         \"action\":\"connection.rotate\",\"target\":\"linear\",\"via\":\"token\",\"actor\":\"ops\",\
         \"address\":\"192.0.2.7\",\"request_id\":\"req\",\"detail\":{\"secrets\":[\"api_key\"],\"reason\":\"leaked\"}}\n"
    );
    assert_eq!(fs::metadata(file(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn lines_that_a_crash_kept_from_the_file_are_added_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    for at in 1..=600 {
        vault.note(&entry(at)).unwrap();
    }
    drop(vault);
    let text = fs::read_to_string(file(&folder)).unwrap();
    let first_two = text.match_indices('\n').nth(1).unwrap().0 + 1;
    for (left, what) in [
        (text[..first_two].to_owned(), "some are missing"),
        (text[..first_two + 20].to_owned(), "one is torn"),
        (format!("{}\0\0\0\0\n\0\0", &text[..first_two]), "the disk made something up"),
        (String::new(), "all are missing"),
        (text.clone(), "none is missing"),
    ] {
        fs::write(file(&folder), left).unwrap();
        drop(open(&folder));
        assert_eq!(lines(&folder), (1..=600).collect::<Vec<_>>(), "{what}");
    }
    fs::remove_file(file(&folder)).unwrap();
    drop(open(&folder));
    assert_eq!(lines(&folder), (1..=600).collect::<Vec<_>>());
}

#[test]
fn after_an_older_store_was_put_back_its_new_entries_are_added() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    for at in 1..=3 {
        vault.note(&entry(at)).unwrap();
    }
    vault.engine.checkpoint().unwrap();
    drop(vault);
    let backup = fs::read(folder.path().join(DATABASE_FILE)).unwrap();
    let mut vault = open(&folder);
    for at in 4..=6 {
        vault.note(&entry(at)).unwrap();
    }
    drop(vault);
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(folder.path().join(format!("{DATABASE_FILE}{suffix}")));
    }
    fs::write(folder.path().join(DATABASE_FILE), backup).unwrap();
    let mut vault = open(&folder);
    vault.note(&entry(44)).unwrap();
    assert_eq!(lines(&folder), [1, 2, 3, 4, 5, 6, 4]);
}

#[test]
fn a_file_that_is_full_is_set_aside_and_few_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    vault.note(&entry(1)).unwrap();
    let lines = vault.lines.as_mut().unwrap();
    for _ in 0..12 {
        lines.fill_up();
        let entry = vault.engine.audit_after(0, 1).unwrap().remove(0);
        lines.append(&entry).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(folder.path().join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut aside: Vec<_> = (4..=12).map(|number| format!("audit.jsonl.{number}")).collect();
    aside.sort();
    assert_eq!(names, [vec!["audit.jsonl".to_owned()], aside].concat());
    // The newest file being empty, the last line is in the one set aside before it.
    drop(vault);
    fs::write(file(&folder), "").unwrap();
    drop(open(&folder));
    assert_eq!(fs::read_to_string(file(&folder)).unwrap(), "");
}
