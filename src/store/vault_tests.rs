#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "test code may panic"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::audit::Via;
use crate::domain::draft::Draft;
use crate::store::seal::SealError;
use crate::store::worker::DATABASE_FILE;
use crate::store::worker::OpenStore;

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const CANARY: &str = "canary-8d1f0c2e";

fn key(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn asker() -> Asker {
    Asker::new(Via::Token, "192.0.2.7", "req-1")
}

fn open(folder: &TempDir) -> Result<Vault, StoreError> {
    Vault::open(&folder.path().join(DATABASE_FILE), &key(KEY))
}

fn draft(id: &str) -> CheckedDraft {
    let draft = Draft {
        id: id.to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_secret_key: "api_key".to_owned(),
        rotation_interval_days: 30,
        ..Draft::default()
    };
    draft.check(&AddressPolicy::default()).unwrap()
}

fn secrets(pairs: &[(&str, &str)]) -> Secrets {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect()
}

fn rotation(pairs: &[(&str, &str)]) -> RotationRequest {
    RotationRequest { secrets: secrets(pairs), by: "me".to_owned(), reason: "why\n".to_owned() }
}

fn add(vault: &mut Vault, id: &str, secret: &str) {
    vault.create_connection(draft(id), secrets(&[("api_key", secret)]), &asker(), UnixMillis(1000)).unwrap();
}

fn injected(vault: &Vault, id: &str) -> String {
    let Loaded { usable, unreadable, .. } = vault.load().unwrap();
    assert!(unreadable.is_empty());
    let (_, secret) = usable.into_iter().find(|(record, _)| record.settings.id.as_str() == id).unwrap();
    secret.unwrap().expose().to_owned()
}

#[test]
fn what_was_stored_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    let made = vault.state().clone();
    add(&mut vault, "linear", "s1");
    add(&mut vault, "github", "s2");
    let records = vault.list().unwrap();
    let state = vault.state().clone();
    drop(vault);
    let vault = open(&folder).unwrap();
    assert_eq!((vault.state(), vault.list().unwrap()), (&state, records));
    assert_eq!((state.epoch, state.version), (made.epoch, made.version + 2));
    assert_eq!(injected(&vault, "linear"), "s1");
    let mode = fs::metadata(folder.path().join(DATABASE_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_id_is_taken_once_and_missing_ids_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    add(&mut vault, "linear", "s1");
    let version = vault.state().version;
    let again = vault.create_connection(draft("linear"), secrets(&[("api_key", "s2")]), &asker(), UnixMillis(0));
    assert!(matches!(again, Err(StoreError::Exists)));
    assert!(matches!(vault.get("nobody"), Err(StoreError::NotFound)));
    assert!(matches!(
        vault.rotate("nobody", rotation(&[("a", "b")]), &asker(), UnixMillis(0)),
        Err(StoreError::NotFound)
    ));
    let nobody = ConnectionId::parse("nobody").unwrap();
    assert!(matches!(vault.delete_connection(&nobody, &asker(), UnixMillis(0)), Err(StoreError::NotFound)));
    // A change that failed leaves no version and no data behind.
    assert_eq!((vault.state().version, injected(&vault, "linear")), (version, "s1".to_owned()));
}

#[test]
fn the_named_secret_must_be_there_and_injectable() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    for bad in [
        &[][..],
        &[("other", "x")],
        &[("api_key", "  ")],
        &[("api_key", "a\nb")],
        &[("api_key", "Bearer ")],
        &[("api_key", "{{K}}")],
        &[("api_key", "{{a b}}")],
        &[("", "x")],
    ] {
        let refused = vault.create_connection(draft("linear"), secrets(bad), &asker(), UnixMillis(0));
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{bad:?}");
    }
    assert!(vault.list().unwrap().is_empty());
}

#[test]
fn rotation_merges_counts_and_purges() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    add(&mut vault, "linear", "s1");
    for round in 2..=9 {
        let value = format!("s{round}");
        let at = UnixMillis(round * 1000);
        let (record, _) =
            vault.rotate("linear", rotation(&[("api_key", &value), ("other", "o")]), &asker(), at).unwrap();
        assert_eq!(record.settings.secret_version, round);
        assert_eq!(record.credential_keys, ["api_key", "other"]);
        assert_eq!(record.settings.next_rotation_due_at.unwrap().0, round + 30 * 86_400);
        assert_eq!(injected(&vault, "linear"), value);
    }
    let unchanged = vault.rotate("linear", rotation(&[("api_key", "s9")]), &asker(), UnixMillis(0));
    assert!(matches!(unchanged, Err(StoreError::Unchanged)));
    let kept: Vec<i64> =
        (0..=9).filter(|version| vault.engine.secrets("linear", *version).unwrap().is_some()).collect();
    assert_eq!(kept, [5, 6, 7, 8, 9]);
}

#[test]
fn deleting_leaves_nothing_and_the_id_is_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    add(&mut vault, "linear", "s1");
    vault.rotate("linear", rotation(&[("api_key", "s2")]), &asker(), UnixMillis(0)).unwrap();
    vault.delete_connection(&ConnectionId::parse("linear").unwrap(), &asker(), UnixMillis(0)).unwrap();
    assert!(
        vault.engine.secrets("linear", 1).unwrap().is_none() && vault.engine.secrets("linear", 2).unwrap().is_none()
    );
    add(&mut vault, "linear", "s3");
    assert_eq!(injected(&vault, "linear"), "s3");
}

#[test]
fn a_secret_lies_in_no_file_in_clear() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    add(&mut vault, "linear", CANARY);
    vault.rotate("linear", rotation(&[("api_key", &format!("{CANARY}-2"))]), &asker(), UnixMillis(0)).unwrap();
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "{:?}", entry.path());
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        seen.insert(entry.file_name().into_string().unwrap());
    }
    assert!(seen.contains("gateway.db") && seen.contains("gateway.db-wal"), "{seen:?}");
}

/// Bytes of every file of the store.
fn contents(folder: &TempDir) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // The shared-memory index is SQLite's scratch space and holds no data.
        .filter(|path| !path.to_string_lossy().ends_with("-shm"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    files.sort();
    files
}

#[test]
fn a_wrong_key_is_said_at_once_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    add(&mut open(&folder).unwrap(), "linear", "s1");
    let before = contents(&folder);
    for wrong in ["another", &"02".repeat(32)] {
        let refused = Vault::open(&folder.path().join(DATABASE_FILE), &key(wrong));
        assert!(matches!(refused, Err(StoreError::WrongMasterKey { .. })), "{refused:?}");
    }
    let blank = Vault::open(&folder.path().join(DATABASE_FILE), &key(" "));
    assert!(matches!(blank, Err(StoreError::Seal(SealError::BlankKey))), "{blank:?}");
    assert_eq!(contents(&folder), before);
    assert_eq!(injected(&open(&folder).unwrap(), "linear"), "s1");
}

#[test]
fn a_newer_schema_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    add(&mut open(&folder).unwrap(), "linear", "s1");
    let raw = rusqlite::Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let before = contents(&folder);
    assert!(matches!(open(&folder), Err(StoreError::Database(DatabaseError::Newer { found: 99, known: 3, .. }))));
    assert_eq!(contents(&folder), before);
}

#[test]
fn a_store_without_marks_is_given_them_once() {
    let folder = tempfile::tempdir().unwrap();
    add(&mut open(&folder).unwrap(), "linear", "s1");
    let raw = rusqlite::Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
    let salt: Vec<u8> = raw.query_row("SELECT value FROM meta WHERE name = 'salt'", [], |row| row.get(0)).unwrap();
    let master = MasterKey::derive(&key(KEY), salt.as_slice().try_into().unwrap()).unwrap();
    let sentinel = master.seal(sealed::sentinel_place(2), SENTINEL).unwrap();
    raw.execute("UPDATE meta SET value = ?1 WHERE name = 'sentinel'", [sentinel]).unwrap();
    let older = "DROP TABLE declared_secrets; ALTER TABLE connections DROP COLUMN mark; PRAGMA user_version = 2";
    raw.execute_batch(older).unwrap();
    drop(raw);
    assert_eq!(injected(&open(&folder).unwrap(), "linear"), "s1");
    let vault = open(&folder).unwrap();
    assert_eq!(injected(&vault, "linear"), "s1");
    assert!(vault.check().unwrap().unreadable.is_empty());
}

#[test]
fn what_is_not_our_database_is_refused_untouched() {
    for content in [&b"not a database, but long enough to be looked at as one\n"[..], &[0; 4096]] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(DATABASE_FILE), content).unwrap();
        let before = contents(&folder);
        assert!(open(&folder).is_err());
        assert_eq!(contents(&folder), before);
    }
    let folder = tempfile::tempdir().unwrap();
    let raw = rusqlite::Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
    raw.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(raw);
    let before = contents(&folder);
    assert!(matches!(open(&folder), Err(StoreError::Database(DatabaseError::Foreign { .. }))));
    assert_eq!(contents(&folder), before);
}

#[test]
fn moved_rows_do_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    add(&mut vault, "linear", "s1");
    add(&mut vault, "github", "s2");
    vault.rotate("linear", rotation(&[("api_key", "s3")]), &asker(), UnixMillis(0)).unwrap();
    drop(vault);
    let raw = rusqlite::Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
    // github gets linear's secret, linear its own old one.
    for statement in [
        "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE connection = 'linear' AND version = 1)
         WHERE connection = 'github' AND version = 1",
        "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE connection = 'linear' AND version = 1)
         WHERE connection = 'linear' AND version = 2",
    ] {
        assert_eq!(raw.execute(statement, []).unwrap(), 1);
    }
    drop(raw);
    let vault = open(&folder).unwrap();
    let Loaded { usable, .. } = vault.load().unwrap();
    assert_eq!(usable.len(), 2);
    for (record, secret) in usable {
        assert!(secret.unwrap_err().contains("moved"), "{}", record.settings.id);
    }
}

#[test]
fn an_edited_record_is_reported_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    add(&mut vault, "linear", "s1");
    add(&mut vault, "github", "s2");
    drop(vault);
    let raw = rusqlite::Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
    raw.execute(
        "UPDATE connections SET record = replace(record, 'api.example', 'evil.example') WHERE id = 'linear'",
        [],
    )
    .unwrap();
    drop(raw);
    let mut vault = open(&folder).unwrap();
    let Loaded { usable, unreadable, .. } = vault.load().unwrap();
    assert_eq!((usable.len(), unreadable.len()), (1, 1));
    assert!(matches!(&unreadable[0], StoreError::Record { id, .. } if id == "linear"));
    vault.delete_connection(&ConnectionId::parse("linear").unwrap(), &asker(), UnixMillis(0)).unwrap();
}

#[test]
fn declared_state_counts_as_a_change_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    let first = vault.state().version;
    vault.note_declared(&[1; 32]).unwrap();
    vault.note_declared(&[1; 32]).unwrap();
    assert_eq!(vault.state().version, first + 1);
    drop(vault);
    let mut vault = open(&folder).unwrap();
    vault.note_declared(&[1; 32]).unwrap();
    assert_eq!(vault.state().version, first + 1);
    vault.note_declared(&[2; 32]).unwrap();
    assert_eq!(vault.state().version, first + 2);
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    add(&mut vault, "linear", "s1");
    let before = (vault.state().clone(), vault.list().unwrap());
    vault.engine.limit_pages(1).unwrap();
    let large = "x".repeat(16_000);
    let refused = vault.create_connection(draft("github"), secrets(&[("api_key", &large)]), &asker(), UnixMillis(0));
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    let refused = vault.rotate("linear", rotation(&[("api_key", &large)]), &asker(), UnixMillis(0));
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    assert_eq!((vault.state().clone(), vault.list().unwrap()), before);
    assert_eq!(injected(&vault, "linear"), "s1");
    vault.engine.limit_pages(i64::from(u32::MAX) - 1).unwrap();
    add(&mut vault, "github", &large);
    assert_eq!(vault.state().version, before.0.version + 1);
}

#[test]
fn one_process_owns_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _held = OpenStore::open(folder.path(), &key(KEY), "pid 1 (admin)").unwrap();
    match OpenStore::open(folder.path(), &key(KEY), "pid 2 (admin)") {
        Err(StoreError::Locked(error)) => assert!(error.to_string().contains("pid 1 (admin)")),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn as_many_versions_are_kept_as_is_said_and_no_trace_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    add(&mut vault, "linear", "s1");
    let sealed_first = vault.engine.secrets("linear", 1).unwrap().unwrap();
    for round in 2..=4 {
        vault.rotate("linear", rotation(&[("api_key", &format!("s{round}"))]), &asker(), UnixMillis(0)).unwrap();
    }
    let kept = |vault: &Vault| -> Vec<i64> {
        (0..=9).filter(|version| vault.engine.secrets("linear", *version).unwrap().is_some()).collect()
    };
    vault.keep_versions(5).unwrap();
    assert_eq!(kept(&vault), [1, 2, 3, 4]);
    // A smaller number counts for what is there already.
    vault.keep_versions(2).unwrap();
    assert_eq!(kept(&vault), [3, 4]);
    let traces = |sealed: &[u8]| {
        let holds = |(_, bytes): &(PathBuf, Vec<u8>)| bytes.windows(sealed.len()).any(|window| window == sealed);
        contents(&folder).iter().any(holds)
    };
    assert!(!traces(&sealed_first));
    let sealed_third = vault.engine.secrets("linear", 3).unwrap().unwrap();
    assert!(traces(&sealed_third));
    vault.rotate("linear", rotation(&[("api_key", "s5")]), &asker(), UnixMillis(0)).unwrap();
    assert_eq!(kept(&vault), [4, 5]);
    // Nobody waits for the cutting back; once there is leisure it is done.
    vault.tidy();
    assert!(!traces(&sealed_third));
    assert_eq!(injected(&vault, "linear"), "s5");
}

#[test]
fn without_leisure_the_log_is_cut_back_after_many_purges() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder).unwrap();
    add(&mut vault, "linear", "s0");
    vault.keep_versions(1).unwrap();
    let first = vault.engine.secrets("linear", 1).unwrap().unwrap();
    for round in 1..=MAX_UNCUT {
        vault.rotate("linear", rotation(&[("api_key", &format!("s{round}"))]), &asker(), UnixMillis(0)).unwrap();
    }
    assert!(contents(&folder).iter().all(|(_, bytes)| !bytes.windows(first.len()).any(|window| window == first)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn secrets_come_back_as_they_went(pairs in prop::collection::btree_map("[^\u{0}]{1,20}", "\\PC{0,40}", 0..6)) {
        let given: Secrets = pairs.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone()))).collect();
        let bytes = records::encode_secrets(&given);
        prop_assert!(records::decode_secrets(&bytes) == Some(given));
        if !bytes.is_empty() {
            prop_assert!(records::decode_secrets(&bytes[..bytes.len() - 1]).is_none());
        }
    }

    #[test]
    fn any_bytes_decode_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = records::decode_secrets(&bytes);
    }
}
