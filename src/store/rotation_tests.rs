#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Via;
use crate::domain::draft::CheckedDraft;
use crate::domain::draft::Draft;
use crate::domain::record::Secrets;
use crate::store::declared::Place;
use crate::store::declared::Resolved;
use crate::store::declared::ResolvedConnection;
use crate::store::declared::ResolvedSecret;
use crate::store::declared::ResolvedVariable;
use crate::store::master_keys;
use crate::store::master_keys::MasterKeys;
use crate::store::restore;
use crate::store::worker::DATABASE_FILE;

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const DAY_MS: u64 = 86_400_000;
const FIRST: UnixMillis = UnixMillis(DAY_MS);
const SECOND: UnixMillis = UnixMillis(2 * DAY_MS);
const THIRD: UnixMillis = UnixMillis(3 * DAY_MS);

fn open(folder: &Path) -> Vault {
    Vault::open(&folder.join(DATABASE_FILE), &Secret::new(KEY.to_owned())).unwrap()
}

fn asker() -> Asker {
    Asker::local(Via::Config)
}

fn value(text: &str) -> ResolvedSecret {
    ResolvedSecret::Value(Arc::new(Secret::new(text.to_owned())))
}

fn variable(key: &str) -> ResolvedSecret {
    ResolvedSecret::Variable(key.to_owned())
}

fn away() -> ResolvedSecret {
    ResolvedSecret::Unusable("its provider is away".to_owned())
}

fn draft(id: &str) -> CheckedDraft {
    let draft = Draft {
        id: id.to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_secret_key: "key".to_owned(),
        rotation_interval_days: 30,
        ..Draft::default()
    };
    draft.check(&AddressPolicy::default()).unwrap()
}

type Given<'a> = (&'a str, ResolvedSecret);

/// Connections with the secret they inject, and variables.
fn set(connections: Vec<Given<'_>>, variables: Vec<Given<'_>>) -> Resolved {
    let place = || Place { file: "gateway.yaml".into(), line: 1 };
    let connection = |(id, secret): Given<'_>| ResolvedConnection {
        draft: draft(id),
        secrets: BTreeMap::from([("key".to_owned(), secret), ("spare".to_owned(), value("spare"))]),
        place: place(),
    };
    let variable = |(key, value): Given<'_>| ResolvedVariable { key: key.to_owned(), value, place: place() };
    Resolved {
        connections: connections.into_iter().map(connection).collect(),
        variables: variables.into_iter().map(variable).collect(),
        ..Resolved::default()
    }
}

fn declare(vault: &mut Vault, set: Resolved, now: UnixMillis) {
    vault.declare(set, Action::ConfigReload, &asker(), now).unwrap();
}

/// When a connection was rotated last; its due date must say the same.
fn rotated(vault: &Vault, id: &str) -> UnixMillis {
    let record = vault.get(id).unwrap().record;
    let at = record.last_rotated_at.unwrap();
    assert_eq!(record.settings.next_rotation_due_at.unwrap().0, at.0 / 1000 + 30 * 86_400);
    at
}

fn rows(vault: &Vault) -> Vec<String> {
    vault.engine.declared_secrets().unwrap().into_keys().map(|(_, name)| name).collect()
}

fn set_variable(vault: &mut Vault, key: &str, text: &str, now: UnixMillis) {
    vault.set_variable(key, &Secret::new(text.to_owned()), "", &asker(), now).unwrap();
}

#[test]
fn the_time_of_a_rotation_outlives_the_process_and_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path());
    vault.begin_declared(set(vec![("one", value("1")), ("two", value("2"))], Vec::new()), FIRST).unwrap();
    drop(vault);
    let mut vault = open(folder.path());
    // Changed while nothing ran.
    vault.begin_declared(set(vec![("one", value("1")), ("two", value("3"))], Vec::new()), SECOND).unwrap();
    assert_eq!((rotated(&vault, "one"), rotated(&vault, "two")), (FIRST, SECOND));
    // Away and back: as it was, and another one.
    declare(&mut vault, set(vec![("one", away()), ("two", away())], Vec::new()), SECOND);
    let updated = vault.get("one").unwrap().record.updated_at;
    assert_eq!(rotated(&vault, "one"), FIRST);
    declare(&mut vault, set(vec![("one", value("1")), ("two", value("4"))], Vec::new()), THIRD);
    assert_eq!((rotated(&vault, "one"), rotated(&vault, "two")), (FIRST, THIRD));
    assert_eq!(vault.get("one").unwrap().record.updated_at, updated);
    assert_eq!(vault.usable("one").unwrap().1.unwrap().expose(), "1");
    // One that was never seen is new when it is.
    declare(&mut vault, set(vec![("one", value("1")), ("late", away())], Vec::new()), FIRST);
    declare(&mut vault, set(vec![("one", value("1")), ("late", value("l"))], Vec::new()), SECOND);
    assert_eq!(rotated(&vault, "late"), SECOND);
}

#[test]
fn a_connection_that_is_switched_off_and_on_again_was_not_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path());
    let off = || {
        let mut set = set(vec![("one", away())], Vec::new());
        set.connections.iter_mut().for_each(|connection| connection.draft.settings.active = false);
        set
    };
    declare(&mut vault, set(vec![("one", value("1"))], Vec::new()), FIRST);
    declare(&mut vault, off(), SECOND);
    drop(vault);
    let mut vault = open(folder.path());
    vault.begin_declared(off(), SECOND).unwrap();
    declare(&mut vault, set(vec![("one", value("1"))], Vec::new()), THIRD);
    assert_eq!(rotated(&vault, "one"), FIRST);
}

#[test]
fn what_is_not_declared_any_more_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path());
    let both = || set(vec![("one", value("1")), ("two", value("2"))], vec![("TOKEN", value("t"))]);
    declare(&mut vault, both(), FIRST);
    assert_eq!(rows(&vault), ["one", "two", "TOKEN"]);
    declare(&mut vault, set(vec![("one", value("1"))], Vec::new()), FIRST);
    assert_eq!(rows(&vault), ["one"]);
    declare(&mut vault, both(), SECOND);
    assert_eq!((rotated(&vault, "one"), rotated(&vault, "two")), (FIRST, SECOND));
    // Also while nothing runs.
    drop(vault);
    let mut vault = open(folder.path());
    vault.begin_declared(Resolved::default(), THIRD).unwrap();
    assert!(rows(&vault).is_empty());
}

#[test]
fn another_value_of_a_variable_rotates_declared_connections_that_inject_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path());
    set_variable(&mut vault, "STORED", "s1", FIRST);
    let given = |token: &str| {
        let connections = vec![
            ("one", variable("STORED")),
            ("two", variable("ALIAS")),
            ("three", variable("TOKEN")),
            ("own", value("o")),
        ];
        set(connections, vec![("ALIAS", variable("STORED")), ("TOKEN", value(token))])
    };
    declare(&mut vault, given("t1"), FIRST);
    set_variable(&mut vault, "STORED", "s1", SECOND);
    assert_eq!(rotated(&vault, "one"), FIRST, "the same value");
    set_variable(&mut vault, "STORED", "s2", SECOND);
    let all = |vault: &Vault| ["one", "two", "three", "own"].map(|id| rotated(vault, id));
    assert_eq!(all(&vault), [SECOND, SECOND, FIRST, FIRST]);
    // It was seen: neither a reload nor a start sees it again.
    let (applied, change) = vault.declare(given("t1"), Action::ConfigReload, &asker(), THIRD).unwrap();
    assert!(change.is_none(), "{applied:?}");
    drop(vault);
    let mut vault = open(folder.path());
    vault.begin_declared(given("t1"), THIRD).unwrap();
    assert_eq!(all(&vault), [SECOND, SECOND, FIRST, FIRST]);
    declare(&mut vault, given("t2"), THIRD);
    assert_eq!(all(&vault), [SECOND, SECOND, THIRD, FIRST]);
    // Gone and set again to what it was.
    vault.delete_variable("STORED", true, &asker(), THIRD).unwrap();
    set_variable(&mut vault, "STORED", "s2", THIRD);
    assert_eq!(all(&vault), [SECOND, SECOND, THIRD, FIRST]);
}

#[test]
fn another_value_of_a_declared_variable_rotates_stored_connections_that_inject_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path());
    let variables = |values: &[(&'static str, &str)]| {
        set(Vec::new(), values.iter().map(|(key, text)| (*key, value(text))).collect())
    };
    set_variable(&mut vault, "BOTH", "b", FIRST);
    declare(&mut vault, variables(&[("TOKEN", "t1")]), FIRST);
    for (id, secret) in [("token", "{{TOKEN}}"), ("both", "{{BOTH}}")] {
        let secrets = Secrets::from([("key".to_owned(), Secret::new(secret.to_owned()))]);
        vault.create_connection(draft(id), secrets, &asker(), FIRST).unwrap();
    }
    let all = |vault: &Vault| (rotated(vault, "token"), rotated(vault, "both"));
    // A declaration with the value that counted before is no rotation.
    declare(&mut vault, variables(&[("TOKEN", "t1"), ("BOTH", "b")]), SECOND);
    assert_eq!(all(&vault), (FIRST, FIRST));
    declare(&mut vault, variables(&[("TOKEN", "t2"), ("BOTH", "b")]), SECOND);
    assert_eq!(all(&vault), (SECOND, FIRST));
    let version = vault.state().version;
    drop(vault);
    let mut vault = open(folder.path());
    vault.begin_declared(variables(&[("TOKEN", "t2"), ("BOTH", "other")]), THIRD).unwrap();
    assert_eq!(all(&vault), (SECOND, THIRD));
    assert_eq!(vault.state().version, version + 1, "another secret is injected than at the last start");
    // The stored value counts again.
    declare(&mut vault, variables(&[("TOKEN", "t2")]), UnixMillis(4 * DAY_MS));
    assert_eq!(all(&vault), (SECOND, UnixMillis(4 * DAY_MS)));
}

#[test]
fn a_new_master_key_and_a_backup_take_the_times_along() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway-master-key");
    master_keys::write(&file, &Secret::new(KEY.to_owned())).unwrap();
    let keys = || MasterKeys::new(None, file.clone());
    let open = |folder: &TempDir| Vault::open_with(&folder.path().join(DATABASE_FILE), &keys()).unwrap();
    let given = || set(vec![("one", value("1"))], Vec::new());
    let mut vault = open(&folder);
    vault.begin_declared(given(), FIRST).unwrap();
    let copy = folder.path().join("copy");
    vault.backup(&copy, &asker(), FIRST).unwrap();
    let done = vault.rekey(None, &asker(), FIRST, &mut |_| {}).unwrap();
    assert_eq!((done.wrapped, done.dropped), (1, Vec::new()));
    drop(vault);
    let mut vault = open(&folder);
    vault.begin_declared(given(), SECOND).unwrap();
    assert_eq!(rotated(&vault, "one"), FIRST);
    drop(vault);
    let other = Some(Secret::new(KEY.to_owned()));
    restore::restore(folder.path(), &copy, &keys(), other, "test", SECOND, &mut |_| {}).unwrap();
    let mut vault = open(&folder);
    vault.begin_declared(given(), SECOND).unwrap();
    assert_eq!(rotated(&vault, "one"), FIRST);
    // With the key lost they are seen for the first time again.
    drop(vault);
    fs::remove_file(&file).unwrap();
    Vault::start_over(folder.path(), &keys(), None, &asker(), SECOND, &mut |_| {}).unwrap();
    let mut vault = open(&folder);
    assert!(rows(&vault).is_empty());
    vault.begin_declared(given(), THIRD).unwrap();
    assert_eq!(rotated(&vault, "one"), THIRD);
}

#[test]
fn a_digest_shows_neither_the_value_nor_who_has_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path());
    declare(&mut vault, set(vec![("one", value("a-canary")), ("two", value("a-canary"))], Vec::new()), FIRST);
    let seen = vault.engine.declared_secrets().unwrap();
    let digests: BTreeSet<_> = seen.values().flat_map(|seen| seen.digests.iter().map(|held| held.1)).collect();
    assert_eq!(digests.len(), 4, "two secrets of two connections");
    for entry in fs::read_dir(folder.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"a-canary"));
    }
    // A key that does not open holds nothing up.
    vault.engine.write(|writer| writer.set_meta(ROTATION_KEY, &[1; 90])).unwrap();
    assert_eq!(
        vault.rekey(Some(Secret::new("new".to_owned())), &asker(), SECOND, &mut |_| {}).unwrap().dropped.len(),
        1
    );
    declare(&mut vault, set(vec![("one", value("1"))], Vec::new()), THIRD);
    assert_eq!(rotated(&vault, "one"), THIRD);
}
