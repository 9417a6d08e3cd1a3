//! Every kind of write, ended by `kill -9` wherever it is.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use crate::domain::address::AddressPolicy;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Entry;
use crate::domain::audit::Filter;
use crate::domain::audit::Via;
use crate::domain::draft::CheckedDraft;
use crate::domain::draft::Draft;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::PublicKey;
use crate::domain::record::Secrets;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::declared::Place;
use crate::store::declared::Resolved;
use crate::store::declared::ResolvedConnection;
use crate::store::declared::ResolvedSecret;
use crate::store::last_use::LastUse;
use crate::store::variables::references;
use crate::store::vault::RotationRequest;
use crate::store::vault::Vault;
use crate::store::worker::OpenStore;

/// Tells the child which folder to write to, and how to begin.
const FOLDER: &str = "SIGILUM_TEST_CRASH_FOLDER";
const SEED: &str = "SIGILUM_TEST_CRASH_SEED";
const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
/// How often the child is killed in all, and with how many stores.
const ROUNDS: u64 = 200;
const STORES: u64 = 4;

fn open(folder: &Path) -> OpenStore {
    OpenStore::open(folder, &Secret::new(KEY.to_owned()), "crash test").unwrap()
}

/// The generator of Knuth's MMIX: enough to mix kinds of writes, and a seed repeats a round.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn asker() -> Asker {
    Asker::new(Via::Token, "192.0.2.7", "req").named("crash test")
}

fn draft(id: &str, name: u64) -> CheckedDraft {
    let draft = Draft {
        id: id.to_owned(),
        name: format!("name {name}"),
        base_url: "https://api.example.com".to_owned(),
        auth_secret_key: "key".to_owned(),
        ..Draft::default()
    };
    draft.check(&AddressPolicy::default()).unwrap()
}

/// A secret of its own, or one of the variables there are.
fn secrets(vault: &Vault, dice: &mut Dice) -> Secrets {
    let variables = vault.list_variables().unwrap();
    let choice = usize::try_from(dice.roll(variables.len() as u64 + 2)).unwrap();
    let value = variables.get(choice).map_or_else(
        || format!("secret {}", dice.roll(1_000_000)),
        |variable| format!("{{{{{}}}}}", variable.record.key),
    );
    Secrets::from([("key".to_owned(), Secret::new(value))])
}

/// One write of any kind; one that is refused is none.
fn write(vault: &mut Vault, dice: &mut Dice) {
    let now = UnixMillis(dice.roll(1_000_000));
    let id = format!("connection-{}", dice.roll(5));
    let key = format!("VARIABLE_{}", dice.roll(3));
    let name = dice.roll(1000);
    match dice.roll(12) {
        0 | 1 => {
            let secrets = secrets(vault, dice);
            let _ = vault.create_connection(draft(&id, name), secrets, &asker(), now);
        }
        2 => {
            let _ = vault.update_connection(&id, &asker(), now, |_| Ok::<_, StoreError>(draft("ignored", name)));
        }
        3 | 4 => {
            let request = RotationRequest { secrets: secrets(vault, dice), by: String::new(), reason: String::new() };
            let _ = vault.rotate(&id, request, &asker(), now);
        }
        5 => {
            let _ = vault.delete_connection(&ConnectionId::parse(&id).unwrap(), &asker(), now);
        }
        6 => {
            let value = Secret::new(format!("value {name}"));
            vault.set_variable(&key, &value, "", &asker(), now).unwrap();
        }
        7 => {
            let _ = vault.delete_variable(&key, true, &asker(), now);
        }
        8 => {
            let connection = |number: u64| ResolvedConnection {
                draft: draft(&format!("declared-{number}"), name),
                secrets: BTreeMap::from([("key".to_owned(), ResolvedSecret::Value(Arc::new(Secret::new("d".into()))))]),
                place: Place { file: "gateway.yaml".into(), line: 1 },
            };
            let set = Resolved { connections: (0..dice.roll(4)).map(connection).collect(), ..Resolved::default() };
            vault.declare(set, Action::ConfigReload, &asker(), now).unwrap();
        }
        9 => {
            let last = LastUse {
                namespace: format!("ns-{}", dice.roll(50)),
                public_key: PublicKey::new([7; 32]),
                subject: String::new(),
                at: now,
                status: 200,
            };
            vault.note_uses(&[(id, last)]).unwrap();
        }
        10 => drop(vault.replace_sealing_key(&asker(), now).unwrap()),
        _ => {
            vault.keep_versions(u32::try_from(1 + dice.roll(5)).unwrap()).unwrap();
            vault.note(&Entry::new(Action::ConnectionTest, &id, &asker(), now)).unwrap();
            vault.advance().unwrap();
        }
    }
}

/// Writes without end; after each write says which entry and version there are then.
#[test]
#[ignore = "the crash test runs this in a process of its own"]
fn child() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let mut dice = Dice(std::env::var(SEED).unwrap().parse().unwrap());
    let mut store = open(&folder);
    loop {
        write(&mut store.vault, &mut dice);
        println!("\ncommitted {} {}", store.vault.engine.newest_audit().unwrap(), store.vault.state().version);
    }
}

#[test]
fn two_hundred_kills_lose_nothing_that_was_acknowledged_and_leave_nothing_half_done() {
    let mut acknowledged = 0;
    for store in 0..STORES {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()));
        for round in 0..ROUNDS / STORES {
            let seed = store * 1000 + round;
            let (entry, version, told) = killed_after(folder.path(), seed, 1 + seed % 9);
            acknowledged += told;
            check(folder.path(), entry, version, seed);
        }
    }
    println!("{ROUNDS} kills, {acknowledged} writes acknowledged before them");
}

/// Has a child write and kills it once it has told of so many writes. Returns the last entry and version it told of,
/// and how many that were.
fn killed_after(folder: &Path, seed: u64, writes: u64) -> (u64, u64, usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::crash_tests::child", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = lines.map_while(Result::ok).filter_map(|line| {
        let (entry, version) = line.strip_prefix("committed ")?.split_once(' ')?;
        Some((entry.parse::<u64>().ok()?, version.parse::<u64>().ok()?))
    });
    let mut all: Vec<_> = told.by_ref().take(usize::try_from(writes).unwrap()).collect();
    child.kill().unwrap();
    // Whatever was said before the kill arrived counts as well.
    all.extend(told);
    child.wait().unwrap();
    let (entry, version) = *all.last().expect("the child writes");
    (entry, version, all.len())
}

/// What the entries of the audit make of connections and variables, each with its version.
type Model = (BTreeMap<String, u64>, BTreeMap<String, u64>);

fn replay(vault: &Vault) -> Model {
    let (mut connections, mut variables) = Model::default();
    let mut last = 0;
    loop {
        let page = vault.engine.audit_after(last, 500).unwrap();
        let Some(newest) = page.last() else { return (connections, variables) };
        assert_eq!(newest.id, last + page.len() as u64, "no entry is missing");
        last = newest.id;
        for entry in page {
            let number = |name: &str| entry.detail[name].as_u64().unwrap();
            let target = entry.target.clone();
            match Action::parse(&entry.action).unwrap() {
                Action::ConnectionCreate => assert_eq!(connections.insert(target, 1), None),
                Action::ConnectionUpdate => assert!(connections.contains_key(&target)),
                Action::ConnectionRotate => {
                    let version = number("secret_version");
                    assert_eq!(connections.insert(target, version), Some(version - 1));
                }
                Action::ConnectionDelete => assert!(connections.remove(&target).is_some()),
                Action::VariableSet => {
                    let version = number("version");
                    assert_eq!(variables.insert(target, version), (version > 1).then(|| version - 1));
                }
                Action::VariableDelete => assert!(variables.remove(&target).is_some()),
                Action::ConfigReload | Action::ConnectionTest | Action::SealingKeySet => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn check(folder: &Path, entry: u64, version: u64, seed: u64) {
    let store = open(folder);
    let vault = &store.vault;
    let newest = vault.engine.newest_audit().unwrap();
    assert!(newest >= entry && vault.state().version >= version, "round {seed}: an acknowledged write is gone");

    // Each entry stands for a change that is there, and each change for an entry.
    let records: Vec<_> = vault.list().unwrap().into_iter().map(|listed| listed.record).collect();
    let connections = records.iter().map(|record| {
        let settings = &record.settings;
        (settings.id.as_str().to_owned(), settings.secret_version)
    });
    let variables = vault.list_variables().unwrap().into_iter().map(|one| (one.record.key, one.record.version));
    let found: Model = (connections.collect(), variables.collect());
    assert_eq!(found, replay(vault), "round {seed}: changes and entries differ");

    // Every secret opens, and what is kept of references is what stands in them.
    for record in &records {
        let id = record.settings.id.as_str();
        let secrets = vault.secrets(record).unwrap();
        let held: BTreeSet<String> = references(&secrets).into_iter().map(str::to_owned).collect();
        let mut known = BTreeSet::new();
        for number in 0..3 {
            let key = format!("VARIABLE_{number}");
            if vault.engine.referencing(&key).unwrap().contains(&id.to_owned()) {
                known.insert(key);
            }
        }
        assert_eq!(held, known, "round {seed}");
    }
    for (record, secret) in vault.load().unwrap().usable {
        assert!(secret.is_ok() || secret.is_err_and(|why| why.contains("not defined")), "{}", record.settings.id);
    }
    let filter = Filter { action: Some(Action::SealingKeySet), ..Filter::default() };
    let told = vault.audit(&filter, 1).unwrap().pop().map(|entry| entry.detail["fingerprint"].clone());
    let held = vault.held_sealing_key().unwrap().map(|key| key.public().fingerprint().into());
    assert_eq!(held, told, "round {seed}: the sealing key and its last entry differ");
    let orphans = "SELECT (SELECT count(*) FROM secrets WHERE connection NOT IN (SELECT id FROM connections))
                   + (SELECT count(*) FROM last_use WHERE connection NOT IN (SELECT id FROM connections))
                   + (SELECT count(*) FROM variable_references WHERE connection NOT IN (SELECT id FROM connections))";
    assert_eq!(vault.engine.db().query_row(orphans, [], |row| row.get::<_, i64>(0)).unwrap(), 0);

    // The lines have caught up, none twice and none missing.
    let text = fs::read_to_string(folder.join("logs/audit.jsonl")).unwrap();
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_u64().unwrap();
    assert_eq!(text.lines().map(id).collect::<Vec<_>>(), (1..=newest).collect::<Vec<_>>(), "round {seed}");
}
