#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "test code may panic, print and read the clock"
)]

use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::audit::Filter;
use crate::domain::draft::Draft;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::record::Secrets;
use crate::store::worker::DATABASE_FILE;

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const NOW: UnixMillis = UnixMillis(1000);
const LATER: UnixMillis = UnixMillis(9000);

fn open(folder: &TempDir) -> Vault {
    Vault::open(&folder.path().join(DATABASE_FILE), &Secret::new(KEY.to_owned())).unwrap()
}

fn value(text: &str) -> ResolvedSecret {
    ResolvedSecret::Value(Arc::new(Secret::new(text.to_owned())))
}

fn variable(key: &str) -> ResolvedSecret {
    ResolvedSecret::Variable(key.to_owned())
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

fn place(line: u32) -> Place {
    Place { file: "/etc/gateway.yaml".into(), line }
}

fn set(connections: Vec<(&str, ResolvedSecret)>, variables: Vec<(&str, ResolvedSecret)>) -> Resolved {
    let connection = |(id, secret): (&str, ResolvedSecret)| ResolvedConnection {
        draft: draft(id),
        secrets: BTreeMap::from([("key".to_owned(), secret)]),
        place: place(3),
    };
    let variable =
        |(key, value): (&str, ResolvedSecret)| ResolvedVariable { key: key.to_owned(), value, place: place(9) };
    Resolved {
        connections: connections.into_iter().map(connection).collect(),
        variables: variables.into_iter().map(variable).collect(),
        ..Resolved::default()
    }
}

/// What was published: a name, with its secret or why there is none.
type Told = Vec<(String, Result<String, String>)>;

fn declare(vault: &mut Vault, set: Resolved, now: UnixMillis) -> (Applied, Told) {
    let version = vault.state().version;
    let asker = Asker::local(Via::Config);
    let (applied, change) = vault.declare(set, Action::ConfigReload, &asker, now).unwrap();
    assert_eq!(vault.state().version, version + u64::from(change.is_some()));
    let mut told = change.as_ref().map(told).unwrap_or_default();
    told.sort();
    (applied, told)
}

/// Ids with the secret, or with nothing where one is gone.
fn told(change: &Change) -> Told {
    match change {
        Change::Saved(record, secret) => {
            let secret = secret.as_ref().map(|secret| secret.expose().to_owned()).map_err(String::clone);
            vec![(record.settings.id.as_str().to_owned(), secret)]
        }
        Change::Deleted(id) => vec![(id.as_str().to_owned(), Err("gone".to_owned()))],
        Change::Settings(_) => vec![("settings".to_owned(), Ok(String::new()))],
        Change::Approvals(service, list) => vec![(format!("approvals of {service}"), Ok(list.len().to_string()))],
        Change::Together(changes) => changes.iter().flat_map(told).collect(),
    }
}

fn ok(id: &str, secret: &str) -> (String, Result<String, String>) {
    (id.to_owned(), Ok(secret.to_owned()))
}

fn gone(id: &str) -> (String, Result<String, String>) {
    (id.to_owned(), Err("gone".to_owned()))
}

fn asker() -> Asker {
    Asker::new(Via::Token, "", "")
}

fn store(vault: &mut Vault, id: &str, secret: &str) {
    let secrets = Secrets::from([("key".to_owned(), Secret::new(secret.to_owned()))]);
    vault.create_connection(draft(id), secrets, &asker(), NOW).unwrap();
}

#[test]
fn only_what_differs_is_published_and_as_one_version() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    let three = |last: &str| {
        let connections = vec![("one", value("1")), ("two", value("2")), ("three", value(last))];
        set(connections, Vec::new())
    };
    let (applied, told) = declare(&mut vault, three("3"), NOW);
    assert_eq!(told, [ok("one", "1"), ok("three", "3"), ok("two", "2")]);
    assert_eq!(applied.added.len(), 3);
    assert_eq!(declare(&mut vault, three("3"), LATER), (Applied::default(), Vec::new()));
    let (applied, told) = declare(&mut vault, three("4"), LATER);
    assert_eq!((applied.changed, told), (vec!["three".to_owned()], vec![ok("three", "4")]));
    let (applied, told) = declare(&mut vault, set(vec![("three", value("4"))], Vec::new()), LATER);
    assert_eq!((applied.removed.len(), told), (2, vec![gone("one"), gone("two")]));
    // A reload that changed something is written down, one that did not is not.
    let entries = vault.audit(&Filter::default(), 10).unwrap();
    assert_eq!(entries.len(), 3);
    assert!(entries.iter().all(|entry| entry.action == "config.reload" && entry.via == "config"));
    assert_eq!(entries[1].detail, serde_json::json!({ "changed": ["three"] }));
}

#[test]
fn what_stays_keeps_its_times_and_another_secret_counts_as_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    declare(&mut vault, set(vec![("one", value("1")), ("two", value("2"))], Vec::new()), NOW);
    declare(&mut vault, set(vec![("one", value("1")), ("two", value("3"))], Vec::new()), LATER);
    let one = vault.get("one").unwrap().record;
    let two = vault.get("two").unwrap().record;
    assert_eq!((one.updated_at, one.settings.secret_version, one.last_rotated_at), (NOW, 1, Some(NOW)));
    assert_eq!((two.created_at, two.updated_at), (NOW, LATER));
    assert_eq!((two.settings.secret_version, two.last_rotated_at), (2, Some(LATER)));
    assert_eq!(two.settings.next_rotation_due_at.unwrap().0, 9 + 30 * 86_400);
}

#[test]
fn a_declaration_wins_over_a_stored_connection_and_gives_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    store(&mut vault, "one", "stored");
    let (applied, told) = declare(&mut vault, set(vec![("one", value("declared"))], Vec::new()), NOW);
    assert_eq!((applied.shadowed, told), (vec!["one".to_owned()], vec![ok("one", "declared")]));
    let loaded = vault.load().unwrap();
    assert_eq!((loaded.usable.len(), loaded.shadowed, vault.count().unwrap()), (1, vec!["one".to_owned()], 1));
    let listed = vault.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].declared.as_ref().unwrap().to_string(), "/etc/gateway.yaml, line 3");
    let (applied, told) = declare(&mut vault, Resolved::default(), LATER);
    assert_eq!((applied.removed, told), (vec!["one".to_owned()], vec![ok("one", "stored")]));
    assert_eq!(vault.get("one").unwrap().declared, None);
}

#[test]
fn a_declaration_over_a_stored_connection_that_cannot_be_read_ends_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    for id in ["one", "two"] {
        store(&mut vault, id, "stored");
    }
    vault.engine.db.execute("UPDATE connections SET record = '{}' WHERE id = 'one'", []).unwrap();
    let both = vec![("one", value("declared")), ("two", value("declared"))];
    declare(&mut vault, set(both, Vec::new()), NOW);
    let (_, told) = declare(&mut vault, Resolved::default(), LATER);
    assert_eq!(told, [gone("one"), ok("two", "stored")]);
}

#[test]
fn what_is_declared_is_changed_in_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    declare(&mut vault, set(vec![("one", value("1"))], vec![("TOKEN", value("t"))]), NOW);
    let secrets = || Secrets::from([("key".to_owned(), Secret::new("s".to_owned()))]);
    let id = ConnectionId::parse("one").unwrap();
    let request = crate::store::vault::RotationRequest { secrets: secrets(), by: String::new(), reason: String::new() };
    let edit = |record: &ConnectionRecord| Draft::from_record(record).check(&AddressPolicy::default());
    for refused in [
        vault.create_connection(draft("one"), secrets(), &asker(), NOW).err(),
        vault.update_connection("one", &asker(), NOW, edit).err(),
        vault.rotate("one", request, &asker(), NOW).err(),
        vault.delete_connection(&id, &asker(), NOW).err(),
    ] {
        let refused = refused.unwrap();
        assert!(matches!(refused, StoreError::Declared { .. }), "{refused:?}");
        assert!(refused.to_string().contains("gateway.yaml, line 3"));
    }
    for refused in [
        vault.set_variable("TOKEN", &Secret::new("x".to_owned()), "", &asker(), NOW).err(),
        vault.delete_variable("TOKEN", true, &asker(), NOW).err(),
    ] {
        assert!(refused.is_some_and(|error| error.to_string().contains("gateway.yaml, line 9")));
    }
    assert_eq!(vault.usable("one").unwrap().1.unwrap().expose(), "1");
}

#[test]
fn declared_variables_reach_stored_connections_and_stored_ones_declared_connections() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    let set_variable = |vault: &mut Vault, key: &str, text: &str| {
        let (_, change) = vault.set_variable(key, &Secret::new(text.to_owned()), "", &asker(), NOW).unwrap();
        let mut told = told(&change);
        told.sort();
        told
    };
    set_variable(&mut vault, "STORED", "s1");
    set_variable(&mut vault, "BOTH", "b-stored");
    store(&mut vault, "stored-one", "{{BOTH}}");
    let connections = || vec![("declared-one", variable("STORED")), ("declared-two", variable("ALIAS"))];
    let variables = |both: &str| vec![("BOTH", value(both)), ("ALIAS", variable("STORED"))];
    let (_, told) = declare(&mut vault, set(connections(), variables("b1")), NOW);
    assert_eq!(told, [ok("declared-one", "s1"), ok("declared-two", "s1"), ok("stored-one", "b1")]);
    // A stored variable reaches declared connections at once, also those behind a declared one.
    let told = set_variable(&mut vault, "STORED", "s2");
    assert_eq!(told, [ok("declared-one", "s2"), ok("declared-two", "s2")]);
    let (_, told) = declare(&mut vault, set(connections(), variables("b2")), NOW);
    assert_eq!(told, [ok("stored-one", "b2")]);
    let listed = vault.list_variables().unwrap();
    let shown: Vec<_> = listed.iter().map(|one| (one.record.key.as_str(), one.used_by, one.shadows)).collect();
    assert_eq!(shown, [("ALIAS", 1, false), ("BOTH", 1, true), ("STORED", 2, false)]);
    match vault.delete_variable("STORED", false, &asker(), NOW) {
        Err(StoreError::VariableInUse { connections, .. }) => assert_eq!(connections, ["declared-one", "declared-two"]),
        other => unreachable!("{other:?}"),
    }
    // The declaration goes, the stored one counts again.
    let (_, told) = declare(&mut vault, set(connections(), vec![("ALIAS", variable("STORED"))]), NOW);
    assert_eq!(told, [ok("stored-one", "b-stored")]);
}

#[test]
fn a_connection_that_hides_another_uses_a_variable_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    vault.set_variable("TOKEN", &Secret::new("t".to_owned()), "", &asker(), NOW).unwrap();
    store(&mut vault, "one", "{{TOKEN}}");
    declare(&mut vault, set(vec![("one", variable("TOKEN"))], Vec::new()), NOW);
    assert_eq!(vault.list_variables().unwrap()[0].used_by, 1);
    let (unusable, _) = vault.delete_variable("TOKEN", true, &asker(), NOW).unwrap();
    assert_eq!(unusable, ["one"]);
}

#[test]
fn what_could_not_be_resolved_says_why_and_holds_up_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    let broken = || ResolvedSecret::Unusable("env:default:X: not set".to_owned());
    let connections = vec![
        ("one", broken()),
        ("two", variable("BROKEN")),
        ("three", variable("NOWHERE")),
        ("four", variable("ROUND")),
        ("fine", value("f")),
    ];
    let variables = vec![("BROKEN", broken()), ("ROUND", variable("TRIP")), ("TRIP", variable("ROUND"))];
    let (_, told) = declare(&mut vault, set(connections, variables), NOW);
    let listed = vault.list().unwrap().into_iter();
    let reasons: BTreeMap<_, _> =
        listed.filter_map(|one| Some((one.record.settings.id.as_str().to_owned(), one.problem?))).collect();
    assert_eq!(reasons.keys().collect::<Vec<_>>(), ["four", "one", "three", "two"]);
    assert!(reasons["one"].contains("not set") && reasons["two"].contains("BROKEN"));
    assert!(reasons["three"].contains("NOWHERE") && reasons["four"].contains("cycle"));
    assert_eq!(told.iter().filter(|(_, secret)| secret.is_ok()).count(), 1);
    assert!(vault.get("three").unwrap().problem.unwrap().contains("NOWHERE"));
    // A stored connection may refer to a variable that is declared and not resolved now: it is defined.
    store(&mut vault, "stored-one", "{{BROKEN}}");
    assert!(vault.get("stored-one").unwrap().problem.unwrap().contains("BROKEN"));
}

#[test]
fn settings_and_approvals_are_part_of_the_same_version() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    let approval = |service: &str, key: u8| DeclaredApproval {
        namespace: Namespace::parse("alice").unwrap(),
        public_key: PublicKey::new([key; 32]),
        service: ConnectionId::parse(service).unwrap(),
        expires_at: None,
    };
    let with = |private: bool, approvals: Vec<DeclaredApproval>| Resolved {
        settings: Settings { allow_private: private, ..Settings::default() },
        approvals,
        ..set(vec![("one", value("1"))], Vec::new())
    };
    let (_, told) = declare(&mut vault, with(true, vec![approval("one", 1), approval("two", 1)]), NOW);
    assert_eq!(told, [ok("approvals of one", "1"), ok("approvals of two", "1"), ok("one", "1"), ok("settings", "")]);
    let (_, told) = declare(&mut vault, with(true, vec![approval("two", 1)]), NOW);
    assert_eq!(told, [ok("approvals of one", "0")]);
    let (applied, told) = declare(&mut vault, with(true, vec![approval("two", 1)]), NOW);
    assert!(told.is_empty() && !applied.is_change());
}

#[test]
fn a_set_that_names_something_twice_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    declare(&mut vault, set(vec![("one", value("1"))], Vec::new()), NOW);
    let version = vault.state().version;
    for twice in [
        set(vec![("two", value("1")), ("two", value("2"))], Vec::new()),
        set(Vec::new(), vec![("KEY", value("1")), ("KEY", value("2"))]),
    ] {
        let refused = vault.declare(twice, Action::ConfigReload, &asker(), NOW);
        assert!(matches!(refused, Err(StoreError::DeclaredTwice { .. })));
    }
    assert_eq!((vault.state().version, vault.list().unwrap().len()), (version, 1));
}

#[test]
fn a_reload_raises_the_version_that_the_next_start_compares_with() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    vault.note_declared(&[1; 32]).unwrap();
    declare(&mut vault, set(vec![("one", value("1"))], Vec::new()), NOW);
    let version = vault.state().version;
    drop(vault);
    let mut vault = open(&folder);
    vault.note_declared(&[1; 32]).unwrap();
    assert_eq!(vault.state().version, version + 1);
}

#[test]
fn ten_thousand_connections_are_applied_at_once_and_quickly() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    let many = |generation: &str| {
        let connection = |number: u32| ResolvedConnection {
            draft: draft(&format!("connection-{number}")),
            secrets: BTreeMap::from([("key".to_owned(), value(&format!("{generation}-{number}")))]),
            place: place(number),
        };
        Resolved { connections: (0..10_000).map(connection).collect(), ..Resolved::default() }
    };
    for (generation, published) in [("one", 10_000), ("two", 10_000), ("two", 0)] {
        let set = many(generation);
        let began = Instant::now();
        let (_, change) = vault.declare(set, Action::ConfigReload, &asker(), NOW).unwrap();
        let took = began.elapsed();
        println!("10,000 declared connections, {published} to be published: {took:?}");
        assert_eq!(change.as_ref().map_or(0, |change| told(change).len()), published);
        // Promised within a second.
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[test]
fn what_is_declared_holds_no_value_that_a_file_may_lose() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    for (key, held) in [("PLAIN", "plain"), ("BEHIND", "behind")] {
        vault.set_variable(key, &Secret::new(held.to_owned()), "", &asker(), NOW).unwrap();
    }
    store(&mut vault, "through", "{{ PLAIN }}");
    store(&mut vault, "itself", "own");
    let variables = vec![("BEHIND", value("other")), ("DECLARED", value("declared"))];
    declare(&mut vault, set(vec![("fixed", value("fixed"))], variables), NOW);
    let wanted =
        ["plain", "behind", "own", "declared", "other", "fixed", "nowhere"].map(|text| Secret::new(text.to_owned()));
    let holders = vault.holders(&wanted.iter().collect::<Vec<_>>()).unwrap();
    let shown: Vec<_> = holders
        .of
        .iter()
        .map(|holder| (holder.is_stored, holder.variable.as_deref(), holder.connection.as_deref()))
        .collect();
    let nowhere = (false, None, None);
    assert_eq!(
        shown,
        [
            (true, Some("PLAIN"), Some("through")),
            (true, None, None),
            (true, None, Some("itself")),
            nowhere,
            nowhere,
            nowhere,
            nowhere,
        ]
    );
    assert_eq!(holders.taken.into_iter().collect::<Vec<_>>(), ["BEHIND", "DECLARED", "PLAIN"]);
    // What was deleted is held no more.
    vault.delete_variable("PLAIN", true, &asker(), LATER).unwrap();
    let holders = vault.holders(&[&wanted[0]]).unwrap();
    assert_eq!(holders.of, [crate::store::holders::Holder::default()]);
}
