#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::audit::Filter;
use crate::domain::audit::Via;
use crate::domain::draft::CheckedDraft;
use crate::domain::draft::Draft;
use crate::domain::ids::ConnectionId;
use crate::store::vault::RotationRequest;
use crate::store::worker::DATABASE_FILE;

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const CANARY: &str = "canary-71b2c9";
const NOW: UnixMillis = UnixMillis(1000);

fn open(folder: &TempDir) -> Vault {
    Vault::open(&folder.path().join(DATABASE_FILE), &Secret::new(KEY.to_owned())).unwrap()
}

fn asker() -> Asker {
    Asker::new(Via::Token, "192.0.2.7", "req")
}

fn draft(id: &str) -> CheckedDraft {
    let draft = Draft {
        id: id.to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_secret_key: "api_key".to_owned(),
        ..Draft::default()
    };
    draft.check(&AddressPolicy::default()).unwrap()
}

fn secrets(pairs: &[(&str, &str)]) -> Secrets {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect()
}

fn add(vault: &mut Vault, id: &str, pairs: &[(&str, &str)]) -> Result<Change, StoreError> {
    vault.create_connection(draft(id), secrets(pairs), &asker(), NOW).map(|(_, change)| change)
}

fn set(vault: &mut Vault, key: &str, value: &str) -> Result<(ListedVariable, Change), StoreError> {
    vault.set_variable(key, &Secret::new(value.to_owned()), "", &asker(), NOW)
}

/// Ids and secrets of a change.
fn told(change: &Change) -> Vec<(String, Result<String, String>)> {
    match change {
        Change::Saved(record, secret) => {
            let secret = secret.as_ref().map(|secret| secret.expose().to_owned()).map_err(String::clone);
            vec![(record.settings.id.as_str().to_owned(), secret)]
        }
        Change::Together(changes) => changes.iter().flat_map(told).collect(),
        Change::Deleted(_) | Change::Settings(_) | Change::Approvals(..) => Vec::new(),
    }
}

fn injected(vault: &Vault, id: &str) -> Result<String, String> {
    vault.usable(id).unwrap().1.map(|secret| secret.expose().to_owned())
}

#[test]
fn a_secret_in_braces_is_the_value_of_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    set(&mut vault, "SLACK_TOKEN", " first ").unwrap();
    let change = add(&mut vault, "slack", &[("api_key", " {{ SLACK_TOKEN }} "), ("other", "{{SLACK_TOKEN}}")]).unwrap();
    assert_eq!(told(&change), [("slack".to_owned(), Ok("first".to_owned()))]);
    drop(vault);
    let vault = open(&folder);
    assert_eq!(injected(&vault, "slack").unwrap(), "first");
    let listed = vault.list_variables().unwrap();
    assert_eq!((listed.len(), listed[0].used_by, listed[0].record.version), (1, 1, 1));
}

#[test]
fn a_variable_that_nothing_defines_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    let refused = add(&mut vault, "slack", &[("api_key", "x"), ("other", "{{NOWHERE}}")]);
    assert!(refused.is_err_and(|error| error.to_string().contains("NOWHERE")));
    add(&mut vault, "slack", &[("api_key", "x")]).unwrap();
    let request =
        RotationRequest { secrets: secrets(&[("api_key", "{{NOWHERE}}")]), by: String::new(), reason: String::new() };
    let refused = vault.rotate("slack", request, &asker(), NOW);
    assert!(matches!(refused, Err(StoreError::VariableMissing { key }) if key == "NOWHERE"));
    assert_eq!(injected(&vault, "slack").unwrap(), "x");
}

#[test]
fn keys_and_values_have_bounds_and_a_value_refers_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    let long = "k".repeat(129);
    for key in ["", "K", "a b", "a/b", "ä-ö", &long] {
        assert!(matches!(set(&mut vault, key, "v"), Err(StoreError::VariableInvalid(text)) if text.contains("key")));
    }
    let large = "v".repeat(16_385);
    for value in ["", "  ", &large] {
        let refused = set(&mut vault, "KEY", value);
        assert!(matches!(refused, Err(StoreError::VariableInvalid(text)) if text.contains("KEY")));
    }
    for value in ["{{KEY}}", " {{ OTHER }} ", "{{a b}}"] {
        assert!(matches!(set(&mut vault, "KEY", value), Err(StoreError::VariableCycle { key }) if key == "KEY"));
    }
    assert!(vault.list_variables().unwrap().is_empty());
    set(&mut vault, &"k".repeat(128), &"v".repeat(16_384)).unwrap();
}

#[test]
fn another_value_reaches_every_connection_in_one_version() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    set(&mut vault, "TOKEN", "one").unwrap();
    set(&mut vault, "ELSE", "else").unwrap();
    for number in 0..50 {
        add(&mut vault, &format!("uses-{number:02}"), &[("api_key", "{{TOKEN}}")]).unwrap();
    }
    add(&mut vault, "other-secret", &[("api_key", "own"), ("spare", "{{TOKEN}}")]).unwrap();
    add(&mut vault, "other-variable", &[("api_key", "{{ELSE}}")]).unwrap();
    let version = vault.state().version;
    let (listed, change) = set(&mut vault, "TOKEN", "two").unwrap();
    assert_eq!((vault.state().version, listed.used_by, listed.record.version), (version + 1, 51, 2));
    let told = told(&change);
    assert_eq!(told.len(), 50, "only those that inject it");
    assert!(told.iter().all(|(id, secret)| id.starts_with("uses-") && *secret == Ok("two".to_owned())));
}

#[test]
fn another_value_is_a_rotation_of_every_stored_connection_that_injects_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    set(&mut vault, "TOKEN", "one").unwrap();
    add(&mut vault, "slack", &[("api_key", "{{TOKEN}}")]).unwrap();
    add(&mut vault, "spare", &[("api_key", "own"), ("spare", "{{TOKEN}}")]).unwrap();
    let month = |record: &ConnectionRecord| {
        let draft = Draft { rotation_interval_days: 30, ..Draft::from_record(record) };
        draft.check(&AddressPolicy::default())
    };
    for id in ["slack", "spare"] {
        vault.update_connection(id, &asker(), NOW, month).unwrap();
    }
    let rotated = |vault: &Vault, id: &str| {
        let record = vault.get(id).unwrap().record;
        (record.last_rotated_at.unwrap(), record.settings.next_rotation_due_at.unwrap().0)
    };
    let (later, month) = (UnixMillis(50_000), 30 * 86_400);
    // The same value is no other one.
    vault.set_variable("TOKEN", &Secret::new("one".to_owned()), "", &asker(), later).unwrap();
    assert_eq!(rotated(&vault, "slack"), (NOW, 1 + month));
    let (_, change) = vault.set_variable("TOKEN", &Secret::new("two".to_owned()), "", &asker(), later).unwrap();
    let Change::Together(changes) = change else { unreachable!("{change:?}") };
    let [Change::Saved(published, Ok(_))] = changes.as_slice() else { unreachable!("{changes:?}") };
    assert_eq!(published.settings.next_rotation_due_at.unwrap().0, 50 + month);
    assert_eq!((rotated(&vault, "slack"), rotated(&vault, "spare")), ((later, 50 + month), (NOW, 1 + month)));
    drop(vault);
    assert_eq!(rotated(&open(&folder), "slack"), (later, 50 + month));
}

#[test]
fn a_value_that_a_connection_cannot_carry_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    set(&mut vault, "TOKEN", "one").unwrap();
    add(&mut vault, "slack", &[("api_key", "{{TOKEN}}")]).unwrap();
    let refused = set(&mut vault, "TOKEN", "a\nb");
    assert!(
        matches!(refused, Err(StoreError::VariableInvalid(text)) if text.contains("slack") && !text.contains("a\nb"))
    );
    assert_eq!(injected(&vault, "slack").unwrap(), "one");
    set(&mut vault, "UNUSED", "a\nb").unwrap();
    assert!(matches!(add(&mut vault, "other", &[("api_key", "{{UNUSED}}")]), Err(StoreError::Invalid(_))));
}

#[test]
fn who_made_a_variable_stays_who_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    let value = Secret::new("v".to_owned());
    vault.set_variable("TOKEN", &value, "alice\n", &asker(), NOW).unwrap();
    let (listed, _) = vault.set_variable("TOKEN", &value, "mallory", &asker(), UnixMillis(2000)).unwrap();
    assert_eq!(listed.record.created_by, "alice");
    assert_eq!((listed.record.created_at, listed.record.updated_at), (NOW, UnixMillis(2000)));
}

#[test]
fn a_variable_in_use_goes_by_force_only_and_its_connections_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    set(&mut vault, "TOKEN", "one").unwrap();
    add(&mut vault, "slack", &[("api_key", "{{TOKEN}}")]).unwrap();
    add(&mut vault, "github", &[("api_key", "own"), ("spare", "{{TOKEN}}")]).unwrap();
    match vault.delete_variable("TOKEN", false, &asker(), NOW) {
        Err(StoreError::VariableInUse { connections, .. }) => assert_eq!(connections, ["github", "slack"]),
        other => unreachable!("{other:?}"),
    }
    let (unusable, change) = vault.delete_variable("TOKEN", true, &asker(), NOW).unwrap();
    assert_eq!(unusable, ["slack"], "the other one injects a secret of its own");
    assert_eq!((vault.get("github").unwrap().problem, injected(&vault, "github").unwrap().as_str()), (None, "own"));
    assert!(
        vault.list().unwrap().iter().all(|one| one.problem.is_some() == (one.record.settings.id.as_str() == "slack"))
    );
    let entry = vault.audit(&Filter::default(), 1).unwrap().remove(0);
    assert_eq!(entry.detail, serde_json::json!({ "unusable": ["slack"], "forced": true }));
    let told = told(&change);
    assert_eq!(told.len(), 1);
    assert!(told[0].0 == "slack" && told[0].1.as_ref().unwrap_err().contains("TOKEN"));
    assert!(vault.get("slack").unwrap().problem.unwrap().contains("TOKEN"));
    // Its owner may still switch it off, and give it another secret.
    let off = |record: &ConnectionRecord| {
        let draft = Draft { disabled: true, ..Draft::from_record(record) };
        draft.check(&AddressPolicy::default())
    };
    vault.update_connection("slack", &asker(), NOW, off).unwrap();
    let request = RotationRequest { secrets: secrets(&[("api_key", "own")]), by: String::new(), reason: String::new() };
    vault.rotate("slack", request, &asker(), NOW).unwrap();
    assert_eq!((injected(&vault, "slack").unwrap().as_str(), vault.get("slack").unwrap().problem), ("own", None));
    assert!(matches!(vault.delete_variable("TOKEN", true, &asker(), NOW), Err(StoreError::VariableNotFound)));
}

#[test]
fn a_variable_that_is_gone_holds_up_no_other_secret() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    set(&mut vault, "APP", "app").unwrap();
    add(&mut vault, "slack", &[("api_key", "xoxb-1"), ("app_token", "{{APP}}"), ("spare", "s")]).unwrap();
    vault.delete_variable("APP", true, &asker(), NOW).unwrap();
    let rotate = |vault: &mut Vault, name: &str, value: &str| {
        let request = RotationRequest { secrets: secrets(&[(name, value)]), by: String::new(), reason: String::new() };
        vault.rotate("slack", request, &asker(), NOW).map(drop)
    };
    rotate(&mut vault, "api_key", "xoxb-2").unwrap();
    assert_eq!(injected(&vault, "slack").unwrap(), "xoxb-2");
    let inject = |vault: &mut Vault, name: &str| {
        let edit = |record: &ConnectionRecord| {
            let draft = Draft { auth_secret_key: name.to_owned(), ..Draft::from_record(record) };
            draft.check(&AddressPolicy::default())
        };
        vault.update_connection("slack", &asker(), NOW, edit).map(drop)
    };
    inject(&mut vault, "spare").unwrap();
    // What is given, or named, is judged.
    for refused in [rotate(&mut vault, "spare", "{{APP}}"), inject(&mut vault, "app_token")] {
        assert!(matches!(refused, Err(StoreError::VariableMissing { ref key }) if key == "APP"), "{refused:?}");
    }
    assert_eq!(injected(&vault, "slack").unwrap(), "s");
}

#[test]
fn uses_are_counted_as_connections_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    set(&mut vault, "TOKEN", "one").unwrap();
    let used = |vault: &Vault| vault.list_variables().unwrap()[0].used_by;
    add(&mut vault, "slack", &[("api_key", "{{TOKEN}}"), ("spare", "{{TOKEN}}")]).unwrap();
    add(&mut vault, "github", &[("api_key", "own")]).unwrap();
    assert_eq!(used(&vault), 1);
    let rotate = |vault: &mut Vault, id: &str, value: &str| {
        let secrets = secrets(&[("api_key", value), ("spare", value)]);
        let request = RotationRequest { secrets, by: String::new(), reason: String::new() };
        vault.rotate(id, request, &asker(), NOW).unwrap();
    };
    rotate(&mut vault, "github", "{{TOKEN}}");
    assert_eq!(used(&vault), 2);
    rotate(&mut vault, "slack", "plain");
    assert_eq!(used(&vault), 1);
    vault.delete_connection(&ConnectionId::parse("github").unwrap(), &asker(), NOW).unwrap();
    assert_eq!(used(&vault), 0);
    vault.delete_variable("TOKEN", false, &asker(), NOW).unwrap();
}

#[test]
fn a_moved_or_damaged_value_leaves_its_connections_without_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    set(&mut vault, "ONE", "one").unwrap();
    set(&mut vault, "TWO", "two").unwrap();
    add(&mut vault, "slack", &[("api_key", "{{ONE}}")]).unwrap();
    let sql = "UPDATE variables SET sealed = (SELECT sealed FROM variables WHERE key = 'TWO') WHERE key = 'ONE'";
    vault.engine.db.execute(sql, []).unwrap();
    assert!(injected(&vault, "slack").unwrap_err().contains("moved"));
}

#[test]
fn a_value_lies_in_no_file_in_clear_and_in_no_entry() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    set(&mut vault, "TOKEN", CANARY).unwrap();
    add(&mut vault, "slack", &[("api_key", "{{TOKEN}}")]).unwrap();
    set(&mut vault, "TOKEN", &format!("{CANARY}-2")).unwrap();
    let entries = vault.audit(&Filter::default(), 10).unwrap();
    assert!(!format!("{entries:?} {vault:?}").contains(CANARY));
    assert_eq!((entries[0].action.as_str(), entries[0].target.as_str()), ("variable.set", "TOKEN"));
    for entry in fs::read_dir(folder.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()));
    }
}
