#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "test code may panic"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::audit::Asker;
use crate::domain::audit::Via;
use crate::domain::draft::Draft;
use crate::domain::record::Secrets;
use crate::domain::time::UnixMillis;
use crate::store::vault::RotationRequest;
use crate::store::worker::OpenStore;

/// A folder with a key file and a store in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        master_keys::write(&place.key_file(), &master_keys::mint().unwrap()).unwrap();
        place
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn key_file(&self) -> PathBuf {
        self.folder().join("gateway-master-key")
    }

    fn next_file(&self) -> PathBuf {
        self.folder().join("gateway-master-key.next")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.key_file()).unwrap()
    }

    fn open_as(&self, given: Option<&str>) -> Result<Vault, StoreError> {
        let keys = MasterKeys::new(given.map(|text| Secret::new(text.to_owned())), self.key_file());
        OpenStore::open_with(self.folder(), &keys, "test").map(|open| open.vault)
    }

    fn open(&self) -> Vault {
        self.open_as(None).unwrap()
    }

    /// Whether this key alone opens the store.
    fn opens(&self, text: &str) -> bool {
        match Vault::open(&self.folder().join(DATABASE_FILE), &Secret::new(text.to_owned())) {
            Ok(_) => true,
            Err(StoreError::WrongMasterKey { .. }) => false,
            Err(other) => panic!("{other}"),
        }
    }

    /// Whether the eight bytes of a key id stand in the database or in its log.
    fn holds(&self, key_id: &str) -> bool {
        let id: Vec<u8> = (0..8).map(|at| u8::from_str_radix(&key_id[2 * at..2 * at + 2], 16).unwrap()).collect();
        ["gateway.db", "gateway.db-wal"].iter().any(|name| {
            let bytes = fs::read(self.folder().join(name)).unwrap_or_default();
            bytes.windows(8).any(|window| window == id)
        })
    }

    /// Files of keys, by name.
    fn key_files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("master-key") && !name.ends_with(".tmp"))
            .collect();
        names.sort();
        names
    }
}

fn secrets(value: &str) -> Secrets {
    [("api_key", value), ("other", "o")].map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).into()
}

fn add(vault: &mut Vault, id: &str) {
    let draft = Draft {
        id: id.to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_secret_key: "api_key".to_owned(),
        ..Draft::default()
    };
    let draft = draft.check(&AddressPolicy::default()).unwrap();
    vault.create_connection(draft, secrets(&format!("{id} 1")), &asker(), UnixMillis(1)).unwrap();
}

fn rotation(secrets: Secrets) -> RotationRequest {
    RotationRequest { secrets, by: String::new(), reason: String::new() }
}

/// Connections with some old versions, one with secrets that need pages of their own, and a variable.
fn fill(vault: &mut Vault) {
    for number in 0..12 {
        let id = format!("service-{number}");
        add(vault, &id);
        for version in 2..=1 + number % 4 {
            vault.rotate(&id, rotation(secrets(&format!("{id} {version}"))), &asker(), UnixMillis(2)).unwrap();
        }
    }
    vault
        .rotate("service-0", rotation(secrets(&format!("service-0 {}", "x".repeat(9000)))), &asker(), UnixMillis(2))
        .unwrap();
    let sealed = vault.key.seal(sealed::variable_place("SLACK", 3), b"xoxb").unwrap();
    vault
        .engine
        .write(|writer| {
            let sql = "INSERT INTO variables (key, sealed, version, created_at_ms, updated_at_ms, created_by)
                       VALUES ('SLACK', ?1, 3, 0, 0, '')";
            Ok(writer.db().execute(sql, [sealed]).map(drop)?)
        })
        .unwrap();
}

fn values(vault: &Vault) -> Vec<String> {
    let loaded = vault.load().unwrap();
    assert!(loaded.unreadable.is_empty());
    loaded.usable.into_iter().map(|(_, secret)| secret.unwrap().expose().to_owned()).collect()
}

fn assert_sound(vault: &Vault) {
    let checked = vault.check().unwrap();
    assert!(checked.unreadable.is_empty() && checked.lost.is_empty(), "{checked:?}");
}

fn asker() -> Asker {
    Asker::local(Via::Command)
}

fn no_step(_: Step) {}

#[test]
fn everything_opens_with_the_new_key_and_nothing_with_the_old_one() {
    let place = Place::new();
    let mut vault = place.open();
    fill(&mut vault);
    let (before, state, old) = (values(&vault), vault.state().clone(), place.text());
    let done = vault.rekey(None, &asker(), UnixMillis(9), &mut no_step).unwrap();
    assert!(done.cut_back && !done.pending && done.dropped.is_empty());
    assert_eq!(done.wrapped, 12 + 18 + 1 + 1);
    assert_eq!(done.key_file, Some(place.key_file()));
    // In use at once, and after the next start.
    assert_eq!((values(&vault), vault.state()), (before.clone(), &state));
    assert_sound(&vault);
    add(&mut vault, "later");
    drop(vault);
    assert_ne!(place.text(), old);
    assert_eq!(fs::metadata(place.key_file()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(place.opens(&place.text()) && !place.opens(&old));
    assert!(!place.holds(&done.old_key) && place.holds(&done.new_key));
    assert_eq!(place.key_files(), ["gateway-master-key"]);
    let vault = place.open();
    assert_sound(&vault);
    assert!(values(&vault).iter().all(|value| value == "later 1" || before.contains(value)));
}

#[test]
fn a_passphrase_is_a_key_too_and_the_same_key_is_none() {
    let place = Place::new();
    let mut vault = place.open();
    fill(&mut vault);
    let own = Secret::new(place.text());
    assert!(matches!(vault.rekey(Some(own), &asker(), UnixMillis(9), &mut no_step), Err(StoreError::SameMasterKey)));
    let phrase = "a phrase of several words";
    vault.rekey(Some(Secret::new(format!(" {phrase}\n"))), &asker(), UnixMillis(9), &mut no_step).unwrap();
    drop(vault);
    assert!(place.opens(phrase) && !place.opens("a phrase of several Words"));
    assert_sound(&place.open());
}

#[test]
fn where_the_environment_names_the_key_both_are_taken_until_it_names_the_new_one() {
    let place = Place::new();
    fs::remove_file(place.key_file()).unwrap();
    let (old, new) = ("the old key", "the new key");
    let mut vault = place.open_as(Some(old)).unwrap();
    fill(&mut vault);
    let before = values(&vault);
    assert!(matches!(
        vault.rekey(None, &asker(), UnixMillis(9), &mut no_step),
        Err(StoreError::NoNextMasterKey { .. })
    ));
    vault.place.write_next(&Secret::new(new.to_owned())).unwrap();
    let done = vault.rekey(None, &asker(), UnixMillis(9), &mut no_step).unwrap();
    assert!(done.pending && done.key_file == Some(place.next_file()));
    assert!(matches!(
        vault.rekey(Some(Secret::new("a third".to_owned())), &asker(), UnixMillis(9), &mut no_step),
        Err(StoreError::MasterKeyPending { .. })
    ));
    drop(vault);
    assert!(!place.opens(old) && place.opens(new));
    for given in [old, old, new, new] {
        assert_eq!(values(&place.open_as(Some(given)).unwrap()), before, "{given}");
    }
    // The new one was seen: its file is gone, and the old one is over.
    assert!(place.key_files().is_empty());
    assert!(matches!(place.open_as(Some(old)), Err(StoreError::WrongMasterKey { .. })));
}

#[test]
fn an_old_version_that_does_not_open_goes_and_one_in_use_stops_everything() {
    let place = Place::new();
    let mut vault = place.open();
    fill(&mut vault);
    let spoil = |vault: &mut Vault, version: i64| {
        let sql = "UPDATE secrets SET sealed = zeroblob(90) WHERE connection = 'service-3' AND version = ?1";
        vault.engine.write(|writer| Ok(writer.db().execute(sql, [version]).map(drop)?)).unwrap();
    };
    spoil(&mut vault, 2);
    let done = vault.rekey(None, &asker(), UnixMillis(9), &mut no_step).unwrap();
    assert_eq!(done.dropped, ["connection service-3 (version 2)"]);
    assert_sound(&vault);
    let (key, text) = (vault.key_id(), place.text());
    spoil(&mut vault, 4);
    match vault.rekey(None, &asker(), UnixMillis(9), &mut no_step) {
        Err(StoreError::Unreadable(names)) => assert_eq!(names, ["connection service-3 (version 4)"]),
        other => panic!("{other:?}"),
    }
    assert_eq!((vault.key_id(), place.text()), (key, text));
    // Given again it is in nobody's way.
    let all = rotation(secrets("new"));
    let missing = rotation([("api_key".to_owned(), Secret::new("new".to_owned()))].into());
    match vault.rotate("service-3", missing, &asker(), UnixMillis(3)) {
        Err(StoreError::SecretsIncomplete(names)) => assert_eq!(names, ["other"]),
        other => panic!("{other:?}"),
    }
    vault.rotate("service-3", all, &asker(), UnixMillis(3)).unwrap();
    vault.rekey(None, &asker(), UnixMillis(9), &mut no_step).unwrap();
    drop(vault);
    assert_sound(&place.open());
}

#[test]
fn where_the_next_key_cannot_be_kept_nothing_is_changed() {
    let place = Place::new();
    let mut vault = place.open();
    fill(&mut vault);
    let (before, id) = (values(&vault), vault.key_id());
    // A folder of that name: nothing can be written there.
    fs::create_dir(place.next_file()).unwrap();
    assert!(matches!(vault.rekey(None, &asker(), UnixMillis(9), &mut no_step), Err(StoreError::KeyFile(_))));
    assert_eq!((values(&vault), vault.key_id()), (before.clone(), id));
    fs::remove_dir(place.next_file()).unwrap();
    drop(vault);
    assert_eq!(values(&place.open()), before);
}

#[test]
fn a_next_key_whose_file_goes_or_changes_after_the_commit_is_not_lost() {
    let place = Place::new();
    let mut vault = place.open();
    fill(&mut vault);
    let before = values(&vault);
    // Somebody who believes that the change has failed, and somebody who begins another one.
    let spoil: [&dyn Fn(); 2] = [&|| fs::remove_file(place.next_file()).unwrap(), &|| {
        fs::write(place.next_file(), "another key\n").unwrap();
    }];
    for spoil in spoil {
        let mut reached = |step| {
            if step == Step::Committed {
                spoil();
            }
        };
        let old = place.text();
        let done = vault.rekey(None, &asker(), UnixMillis(9), &mut reached).unwrap();
        assert!(place.text() != old && place.opens(&place.text()) && !done.pending);
        assert_eq!(place.key_files(), ["gateway-master-key"]);
    }
    drop(vault);
    assert_eq!(values(&place.open()), before);
}

#[test]
fn a_next_key_that_could_not_be_put_in_place_is_put_there_by_the_next_change() {
    let place = Place::new();
    let mut vault = place.open();
    fill(&mut vault);
    let before = values(&vault);
    let mut blocked = |step| {
        if step == Step::Committed {
            // No file takes the name of a folder that is not empty.
            fs::remove_file(place.next_file()).unwrap();
            fs::create_dir_all(place.next_file().join("x")).unwrap();
        }
    };
    let failed = vault.rekey(None, &asker(), UnixMillis(9), &mut blocked);
    assert!(matches!(failed, Err(StoreError::KeyFile(_))), "{failed:?}");
    let id = vault.key_id();
    assert_eq!(values(&vault), before, "the key of the store is another, whatever was answered");
    fs::remove_dir_all(place.next_file()).unwrap();
    let done = vault.rekey(Some(Secret::new("a third key".to_owned())), &asker(), UnixMillis(9), &mut no_step).unwrap();
    assert_eq!(done.old_key, id);
    assert_eq!((place.key_files(), place.text().trim()), (vec!["gateway-master-key".to_owned()], "a third key"));
    drop(vault);
    assert_eq!(values(&place.open()), before);
}

#[test]
fn a_next_key_that_waits_for_the_environment_is_written_again() {
    let place = Place::new();
    fs::remove_file(place.key_file()).unwrap();
    let mut vault = place.open_as(Some("the old key")).unwrap();
    vault.place.write_next(&Secret::new("the new key".to_owned())).unwrap();
    vault.rekey(None, &asker(), UnixMillis(9), &mut no_step).unwrap();
    for _ in 0..2 {
        fs::remove_file(place.next_file()).unwrap();
        let pending = vault.rekey(None, &asker(), UnixMillis(9), &mut no_step);
        assert!(matches!(pending, Err(StoreError::MasterKeyPending { .. })), "{pending:?}");
        assert_eq!(fs::read_to_string(place.next_file()).unwrap().trim(), "the new key");
        // A start that took it from the file has it too.
        drop(vault);
        vault = place.open_as(Some("the old key")).unwrap();
    }
}

#[test]
fn what_was_sealed_with_a_lost_key_is_given_up_and_given_again() {
    let place = Place::new();
    let mut vault = place.open();
    fill(&mut vault);
    let (records, old_id, version) = (vault.list().unwrap(), vault.key_id(), vault.state().version);
    drop(vault);
    let keys = || MasterKeys::new(None, place.key_file());
    let over = |keys: &MasterKeys| Vault::start_over(place.folder(), keys, None, &asker(), UnixMillis(7), &mut no_step);
    assert!(matches!(over(&keys()), Err(StoreError::MasterKeyOpens)), "it is not lost");
    let other = "ab".repeat(32);
    fs::write(place.key_file(), &other).unwrap();
    let done = over(&keys()).unwrap();
    assert_eq!((done.connections.len(), done.variables.as_slice()), (12, ["SLACK".to_owned()].as_slice()));
    let kept = done.kept.unwrap();
    assert_eq!(fs::read_to_string(&kept).unwrap(), other, "a key that opens something else is not thrown away");
    assert!(!place.holds(&old_id));
    let mut vault = place.open();
    assert_eq!((vault.key_id(), vault.state().version), (done.new_key, version + 1));
    let lost = vault.list().unwrap();
    assert_eq!(lost.len(), records.len());
    assert!(lost.iter().all(|listed| listed.record.secrets_lost));
    let same: Vec<_> = lost
        .into_iter()
        .map(|mut listed| {
            Arc::make_mut(&mut listed.record).secrets_lost = false;
            listed
        })
        .collect();
    assert_eq!(same, records, "the settings are what they were");
    let checked = vault.check().unwrap();
    assert_eq!((checked.lost.len(), checked.unreadable.len()), (13, 0));
    assert!(
        vault
            .load()
            .unwrap()
            .usable
            .iter()
            .all(|(_, secret)| secret.as_ref().is_err_and(|why| why.contains("given again")))
    );
    let part = rotation([("api_key".to_owned(), Secret::new("new".to_owned()))].into());
    assert!(matches!(vault.rotate("service-1", part, &asker(), UnixMillis(3)), Err(StoreError::SecretsIncomplete(_))));
    let (record, _) = vault.rotate("service-1", rotation(secrets("new")), &asker(), UnixMillis(3)).unwrap();
    assert!(!record.secrets_lost && !vault.get("service-1").unwrap().record.secrets_lost);
    // A secret to inject is one of those it had.
    let name = |key: &str| {
        let key = key.to_owned();
        move |record: &crate::domain::record::ConnectionRecord| {
            Draft { auth_secret_key: key, ..Draft::from_record(record) }.check(&AddressPolicy::default())
        }
    };
    let refused = vault.update_connection("service-2", &asker(), UnixMillis(3), name("none"));
    assert!(
        matches!(&refused, Err(StoreError::Invalid(why)) if why.to_string().contains("auth_secret_key")),
        "{refused:?}"
    );
    vault.update_connection("service-2", &asker(), UnixMillis(3), name("other")).unwrap();
    // What is still lost can be administered, and stays lost through another change of the key.
    vault.rekey(None, &asker(), UnixMillis(9), &mut no_step).unwrap();
    assert!(vault.get("service-2").unwrap().record.secrets_lost);
    assert!(matches!(over(&keys()), Err(StoreError::MasterKeyOpens)));
}

#[test]
fn a_lost_key_of_the_environment_is_replaced_by_the_one_that_stands_there_now() {
    let place = Place::new();
    fs::remove_file(place.key_file()).unwrap();
    fill(&mut place.open_as(Some("lost")).unwrap());
    let keys = MasterKeys::new(Some(Secret::new("found".to_owned())), place.key_file());
    let done = Vault::start_over(place.folder(), &keys, None, &asker(), UnixMillis(7), &mut no_step).unwrap();
    assert_eq!((done.key_file, done.kept), (None, None));
    assert!(place.key_files().is_empty() && place.opens("found") && !place.opens("lost"));
}

/// Tells the child of the crash test where the store is, and where to stop.
const CRASH_FOLDER: &str = "SIGILUM_TEST_REKEY_FOLDER";
const CRASH_STEP: &str = "SIGILUM_TEST_REKEY_STEP";

/// Changes the key without end and says the id of each; at the named step of the second change it waits to be killed.
#[test]
#[ignore = "the crash test runs this in a process of its own"]
fn crash_child() {
    let folder = PathBuf::from(std::env::var_os(CRASH_FOLDER).unwrap());
    let step = std::env::var(CRASH_STEP).unwrap();
    let keys = MasterKeys::new(None, folder.join("gateway-master-key"));
    let mut store = OpenStore::open_with(&folder, &keys, "crash test").unwrap();
    for round in 0.. {
        let mut reached = |at: Step| {
            if round == 1 && format!("{at:?}") == step {
                println!("\nat {step}");
                loop {
                    thread::sleep(Duration::from_secs(60));
                }
            }
        };
        let done = store.vault.rekey(None, &asker(), UnixMillis(9), &mut reached).unwrap();
        println!("\nkey {}", done.new_key);
    }
}

#[test]
fn a_kill_at_any_step_leaves_one_key_that_opens_everything() {
    let place = Place::new();
    let mut vault = place.open();
    fill(&mut vault);
    let before = values(&vault);
    let mut known = BTreeSet::from([vault.key_id()]);
    drop(vault);
    let steps = ["KeyWritten", "Wrapped", "Committed", "KeyInPlace"];
    let named = steps.iter().cycle().take(5 * steps.len()).map(|step| (*step, 0));
    // Times that fall into every part of a change, which takes a few milliseconds.
    let timed = (0..48_u64).map(|round| ("", 1 + round * 1_733_333 % 60_000));
    for (step, micros) in named.chain(timed) {
        let text = place.text();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::rekey::tests::crash_child", "--ignored", "--nocapture"])
            .env(CRASH_FOLDER, place.folder())
            .env(CRASH_STEP, step)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut told: Vec<_> = lines
            .by_ref()
            .take_while(|line| if step.is_empty() { !line.starts_with("key ") } else { !line.starts_with("at ") })
            .collect();
        thread::sleep(Duration::from_micros(micros));
        child.kill().unwrap();
        told.extend(lines);
        child.wait().unwrap();
        known.extend(told.iter().filter_map(|line| line.strip_prefix("key ")).map(str::to_owned));

        let vault = place.open();
        assert_eq!(values(&vault), before, "{step} {micros}");
        assert_sound(&vault);
        let id = vault.key_id();
        drop(vault);
        assert_eq!(place.key_files(), ["gateway-master-key"], "{step} {micros}");
        assert!(place.opens(&place.text()), "{step} {micros}");
        assert!(
            place.text() != text && !place.opens(&text),
            "{step} {micros}: the key before was changed at least once"
        );
        known.insert(id.clone());
        for other in known.iter().filter(|other| **other != id) {
            assert!(!place.holds(other), "{step} {micros}: a wrapping of {other} is left");
        }
    }
    assert!(known.len() > 60);
}

#[test]
#[ignore = "a measurement: how long ten thousand connections with five versions each take"]
fn ten_thousand_connections() {
    let place = Place::new();
    let mut vault = place.open();
    add(&mut vault, "service");
    let row = vault.engine.connection("service").unwrap().unwrap();
    let key = &vault.key;
    vault
        .engine
        .write(|writer| {
            for number in 0..10_000 {
                let id = format!("service-{number}");
                let sql = "INSERT INTO connections (id, record, secret_version, mark) VALUES (?1, ?2, 5, ?3)";
                let mark = crate::store::records::mark(&id, &row.record, 5, key.records());
                writer.db().prepare_cached(sql)?.execute(rusqlite::params![id, row.record, mark])?;
                for version in 1..=5_u64 {
                    let sealed = key.seal(sealed::secrets_place(&id, version), &[0; 64])?;
                    let sql = "INSERT INTO secrets (connection, version, sealed, made_at_ms, made_by, reason)
                               VALUES (?1, ?2, ?3, 0, '', '')";
                    let values = rusqlite::params![id, i64::try_from(version).unwrap(), sealed];
                    writer.db().prepare_cached(sql)?.execute(values)?;
                }
            }
            Ok(())
        })
        .unwrap();
    let start = std::time::Instant::now();
    let done = vault.rekey(None, &asker(), UnixMillis(9), &mut no_step).unwrap();
    let rekey = start.elapsed();
    assert!(done.wrapped > 50_000);
    let start = std::time::Instant::now();
    let copy = place.folder().join("copy");
    vault.backup(&copy, &asker(), UnixMillis(9)).unwrap();
    let size = fs::metadata(&copy).unwrap().len();
    println!("rekey of {} values: {rekey:?}; backup of {size} bytes: {:?}", done.wrapped, start.elapsed());
    assert!(rekey < Duration::from_secs(60));
}

#[test]
fn what_a_killed_change_of_the_key_left_is_removed_with_the_next_opening() {
    let place = Place::new();
    let left = place.key_file().with_file_name(".gateway-master-key.next.0123456789abcdef.tmp");
    fs::write(&left, "canary").unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::File::options().write(true).open(&left).unwrap().set_modified(long_ago).unwrap();
    drop(place.open());
    assert!(!left.exists() && place.key_file().exists());
}
