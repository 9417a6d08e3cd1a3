#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "test code may panic"
)]

use std::io::BufRead as _;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::audit::Asker;
use crate::domain::audit::Via;
use crate::domain::draft::Draft;
use crate::domain::record::Secrets;
use crate::store::change::RotationRequest;
use crate::store::worker::OpenStore;

const KEY: &str = "the gateway's key";
const CANARY: &str = "canary-5f0c77e1";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn keys(text: &str) -> MasterKeys {
    MasterKeys::from(Secret::new(text.to_owned()))
}

fn open(folder: &Path) -> OpenStore {
    unlocked(|| OpenStore::open_with(folder, &keys(KEY), "test")).unwrap()
}

/// The lock of a store that was just dropped lives on for a moment in processes that other tests are starting: a child
/// holds what its parent has open until it becomes another program.
fn unlocked<T>(work: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let start = std::time::Instant::now();
    loop {
        match work() {
            Err(StoreError::Locked(_)) if start.elapsed() < std::time::Duration::from_secs(10) => {
                std::thread::yield_now();
            }
            done => return done,
        }
    }
}

fn add(vault: &mut Vault, id: &str, secret: &str) {
    let draft = Draft {
        id: id.to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_secret_key: "api_key".to_owned(),
        ..Draft::default()
    };
    let draft = draft.check(&AddressPolicy::default()).unwrap();
    let secrets: Secrets = [("api_key".to_owned(), Secret::new(secret.to_owned()))].into();
    vault.create_connection(draft, secrets, &asker(), UnixMillis(1)).unwrap();
}

fn ids(vault: &Vault) -> Vec<String> {
    vault.list().unwrap().into_iter().map(|record| record.record.settings.id.as_str().to_owned()).collect()
}

fn asker() -> Asker {
    Asker::local(Via::Command)
}

fn no_step(_: Step) {}

fn put(folder: &Path, from: &Path, own: &MasterKeys, other: Option<&str>) -> Result<Restored, StoreError> {
    unlocked(|| {
        let other = other.map(|text| Secret::new(text.to_owned()));
        restore(folder, from, own, other, "restore", UnixMillis(1_700_000_000_123), &mut no_step)
    })
}

/// Everything in a folder but the lock, by name.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let plain = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut names: Vec<_> = plain.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "gateway.lock");
    names.sort();
    names
}

#[test]
fn a_backup_that_somebody_changed_without_the_key_is_refused() {
    for (what, said) in [
        ("UPDATE connections SET record = replace(record, 'api.example.com', 'evil.example')", "changed without"),
        ("UPDATE connections SET secret_version = 1", "changed without"),
        ("CREATE TRIGGER evil AFTER UPDATE ON meta BEGIN DELETE FROM audit; END", "none of this program's"),
        ("DROP TRIGGER audit_is_not_written_over", "none of this program's"),
        // What an older version wrote is believed: it had no marks.
        (
            "DROP TABLE declared_secrets; ALTER TABLE connections DROP COLUMN mark; PRAGMA user_version = 2;
             UPDATE connections SET record = replace(record, 'api.example.com', 'evil.example')",
            "usable sentinel",
        ),
    ] {
        let (home, beside) = (folder(), folder());
        let backup = beside.path().join("backup.db");
        {
            let mut store = open(home.path());
            add(&mut store.vault, "linear", CANARY);
            let secrets: Secrets = [("api_key".to_owned(), Secret::new("another".to_owned()))].into();
            let request = RotationRequest { secrets, by: String::new(), reason: String::new() };
            store.vault.rotate("linear", request, &asker(), UnixMillis(2)).unwrap();
            store.vault.backup(&backup, &asker(), UnixMillis(3)).unwrap();
        }
        rusqlite::Connection::open(&backup).unwrap().execute_batch(what).unwrap();
        let refused = put(home.path(), &backup, &keys(KEY), None).unwrap_err().to_string();
        assert!(refused.contains(said), "{what}: {refused}");
        assert_eq!(ids(&open(home.path()).vault), ["linear"]);
    }
}

#[test]
fn a_backup_comes_back_with_an_epoch_of_its_own_and_the_old_store_stays_aside() {
    let (data, backups) = (folder(), folder());
    let backup = backups.path().join("one.db");
    let mut store = open(data.path());
    add(&mut store.vault, "linear", CANARY);
    add(&mut store.vault, "gone", "deleted-before");
    let gone = store.vault.get("gone").unwrap().record.settings.id.clone();
    store.vault.delete_connection(&gone, &asker(), UnixMillis(2)).unwrap();
    let checked = store.vault.backup(&backup, &asker(), UnixMillis(3)).unwrap();
    assert_eq!((checked.connections, checked.secrets), (1, 1));
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(files(backups.path()), ["one.db"], "nothing lies beside it");
    assert!(
        matches!(store.vault.backup(&backup, &asker(), UnixMillis(3)), Err(StoreError::Database(_))),
        "no backup is written over"
    );
    add(&mut store.vault, "later", "s");
    let state = store.vault.state().clone();
    // Somebody holds the folder.
    match put(data.path(), &backup, &keys(KEY), None) {
        Err(StoreError::Locked(error)) => assert!(error.to_string().contains("test"), "{error}"),
        other => panic!("{other:?}"),
    }
    drop(store);
    let done = put(data.path(), &backup, &keys(KEY), None).unwrap();
    assert!(!done.wrapped && done.key_file.is_none());
    let kept = done.kept.unwrap();
    assert!(kept.ends_with("gateway.db.before-restore-20231114T221320123Z"), "{kept:?}");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let store = open(data.path());
    assert_eq!(ids(&store.vault), ["linear"]);
    assert_ne!(store.vault.state().epoch, state.epoch);
    drop(store);
    // And back again: what was aside is a backup like any other.
    let aside = backups.path().join("aside.db");
    fs::rename(&kept, &aside).unwrap();
    put(data.path(), &aside, &keys(KEY), None).unwrap();
    assert_eq!(ids(&open(data.path()).vault), ["later", "linear"]);
    for entry in [data.path(), backups.path()].iter().flat_map(|folder| fs::read_dir(folder).unwrap()) {
        let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
        for clear in [CANARY, "deleted-before", KEY] {
            assert!(!bytes.windows(clear.len()).any(|window| window == clear.as_bytes()));
        }
    }
}

#[test]
fn what_is_no_whole_store_of_ours_is_refused_and_changes_nothing() {
    let (data, other) = (folder(), folder());
    add(&mut open(data.path()).vault, "linear", "s");
    let backup = other.path().join("good.db");
    open(data.path()).vault.backup(&backup, &asker(), UnixMillis(3)).unwrap();
    let good = fs::read(&backup).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = other.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let foreign = other.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let newer = write("newer.db", &good);
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 9999).unwrap();
    let moved = write("moved.db", &good);
    let raw = rusqlite::Connection::open(&moved).unwrap();
    raw.execute("UPDATE secrets SET sealed = zeroblob(100)", []).unwrap();
    drop(raw);
    let mut flipped = good.clone();
    // The second page is the root of a table.
    flipped[4096..4096 + 2048].fill(0xa5);
    let hot = write("hot.db", &good);
    fs::write(other.path().join("hot.db-wal"), b"frames").unwrap();
    let before: Vec<_> = files(data.path()).iter().map(|name| fs::read(data.path().join(name)).unwrap()).collect();
    for (path, says) in [
        (other.path().join("missing.db"), "missing.db"),
        (other.path().to_owned(), "is no ordinary file"),
        (write("empty.db", b""), "not a database of this program"),
        (write("text.db", &b"hello ".repeat(2000)), "not a database of this program"),
        (write("torn.db", &good[..good.len() / 2]), "is damaged"),
        (write("short.db", &good[..good.len() - 4096]), "is damaged"),
        (write("flipped.db", &flipped), "is damaged"),
        (foreign, "not a database of this program"),
        (newer, "9999"),
        (moved, "connection linear (version 1)"),
        (hot, "write-ahead log"),
    ] {
        let error = put(data.path(), &path, &keys(KEY), None).unwrap_err().to_string();
        assert!(error.contains(says), "{path:?}: {error}");
        assert!(!error.contains(".copy-"), "{error}");
    }
    let wrong = put(data.path(), &backup, &keys("another"), Some("a third")).unwrap_err();
    assert!(matches!(wrong, StoreError::WrongMasterKey { .. }), "{wrong}");
    assert!(wrong.to_string().contains("good.db"), "{wrong}");
    let after: Vec<_> = files(data.path()).iter().map(|name| fs::read(data.path().join(name)).unwrap()).collect();
    assert!(before == after, "{:?}", files(data.path()));
}

#[test]
fn a_pipe_is_no_backup_and_holds_nobody_up() {
    let folder = folder();
    let (pipe, to) = (folder.path().join("pipe"), folder.path().join("to"));
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || sender.send(copy(&pipe, &to).unwrap_err().to_string()).unwrap());
    let said = receiver.recv_timeout(Duration::from_secs(10)).expect("it waits for a writer");
    assert!(said.contains("is no ordinary file"), "{said}");
}

#[test]
fn a_backup_of_another_key_is_wrapped_for_the_gateways() {
    let (data, other) = (folder(), folder());
    add(&mut OpenStore::open_with(other.path(), &keys("theirs"), "test").unwrap().vault, "theirs", "s");
    let backup = other.path().join("backup.db");
    unlocked(|| OpenStore::open_with(other.path(), &keys("theirs"), "test"))
        .unwrap()
        .vault
        .backup(&backup, &asker(), UnixMillis(3))
        .unwrap();
    add(&mut open(data.path()).vault, "ours", "s");
    let done = put(data.path(), &backup, &keys(KEY), Some("theirs")).unwrap();
    assert!(done.wrapped);
    let store = open(data.path());
    assert_eq!(ids(&store.vault), ["theirs"]);
    assert!(store.vault.check().unwrap().unreadable.is_empty());
    drop(store);
    // A machine without anything: the backup's key becomes its own.
    let fresh = folder();
    let file = fresh.path().join("gateway-master-key");
    let own = MasterKeys::new(None, file.clone());
    assert!(matches!(put(fresh.path(), &backup, &own, None), Err(StoreError::KeyFile(_))));
    let done = put(fresh.path(), &backup, &own, Some("theirs")).unwrap();
    assert_eq!((done.key_file, done.kept), (Some(file.clone()), None));
    assert_eq!(fs::read_to_string(&file).unwrap(), "theirs\n");
    assert_eq!(ids(&OpenStore::open_with(fresh.path(), &own, "test").unwrap().vault), ["theirs"]);
}

#[test]
fn a_damaged_store_is_replaced_and_kept_as_it_is() {
    let data = folder();
    let backup = data.path().join("backup.db");
    let mut store = open(data.path());
    add(&mut store.vault, "linear", "s");
    store.vault.backup(&backup, &asker(), UnixMillis(3)).unwrap();
    drop(store);
    fs::write(data.path().join("gateway.db"), b"no database").unwrap();
    fs::write(data.path().join("gateway.db-wal"), b"frames of something").unwrap();
    let kept = put(data.path(), &backup, &keys(KEY), None).unwrap().kept.unwrap();
    assert_eq!(fs::read(&kept).unwrap(), b"no database");
    assert_eq!(fs::read(beside(&kept, "-wal")).unwrap(), b"frames of something");
    assert_eq!(ids(&open(data.path()).vault), ["linear"]);
}

/// Tells the child of the crash test where things are, and where to stop.
const CRASH_FOLDER: &str = "SIGILUM_TEST_RESTORE_FOLDER";
const CRASH_STEP: &str = "SIGILUM_TEST_RESTORE_STEP";

/// Writes and ends without closing, or restores and waits to be killed at the named step.
#[test]
#[ignore = "the crash test runs this in a process of its own"]
fn crash_child() {
    let folder = PathBuf::from(std::env::var_os(CRASH_FOLDER).unwrap());
    let step = std::env::var(CRASH_STEP).unwrap();
    if let Some(id) = step.strip_prefix("write ") {
        let mut store = open(&folder);
        add(&mut store.vault, id, "s");
        std::process::abort();
    }
    let mut reached = |at: Step| {
        if format!("{at:?}") == step {
            println!("\nat {step}");
            loop {
                thread::sleep(Duration::from_secs(60));
            }
        }
    };
    println!("\nat begin");
    let (own, from) = (keys(KEY), folder.join("backup"));
    restore(&folder, &from, &own, None, "crash test", UnixMillis(1), &mut reached).unwrap();
    println!("\nat end");
}

fn child(folder: &Path, step: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::restore::tests::crash_child", "--ignored", "--nocapture"])
        .env(CRASH_FOLDER, folder)
        .env(CRASH_STEP, step)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_kill_at_any_step_leaves_the_old_store_or_the_new_one() {
    let data = folder();
    let backup = data.path().join("backup");
    let mut store = open(data.path());
    add(&mut store.vault, "backed-up", "s");
    store.vault.backup(&backup, &asker(), UnixMillis(3)).unwrap();
    drop(store);
    let steps = ["Copied", "Proven", "Kept", "Replaced"];
    let named = steps.iter().cycle().take(3 * steps.len()).map(|step| (*step, 0));
    let timed = (0..50_u64).map(|round| ("", round * 977_777 % 30_000));
    let (mut old, mut new) = (0, 0);
    for (round, (step, micros)) in named.chain(timed).enumerate() {
        // The old store: killed while it had frames in its log.
        let epoch = open(data.path()).vault.state().epoch.clone();
        let id = format!("round-{round}");
        // A process that another test has just forked holds our lock until it executes its program, and then this child
        // cannot open the store.
        let mut tries = (0..100).map(|_| child(data.path(), &format!("write {id}")).wait().unwrap().signal());
        assert!(tries.any(|signal| signal == Some(Signal::ABORT.as_raw())), "{step} {micros}: nothing was written");
        assert!(fs::metadata(data.path().join("gateway.db-wal")).unwrap().len() > 0);
        let mut child = child(data.path(), step);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let until = if step.is_empty() { "at begin".to_owned() } else { format!("at {step}") };
        assert!(lines.into_iter().any(|line| line == until), "{step}");
        thread::sleep(Duration::from_micros(micros));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(data.path());
        let found = ids(&store.vault);
        if store.vault.state().epoch == epoch {
            old += 1;
            assert!(found.contains(&id), "{step} {micros}: the old store lost its last commit: {found:?}");
        } else {
            new += 1;
            assert_eq!(found, ["backed-up"], "{step} {micros}");
        }
        assert!(store.vault.check().unwrap().unreadable.is_empty());
        assert!(!files(data.path()).iter().any(|name| name.starts_with(".copy-")), "{:?}", files(data.path()));
        for name in files(data.path()).iter().filter(|name| name.contains("before-restore")) {
            fs::remove_file(data.path().join(name)).unwrap();
        }
    }
    assert!(old > 8 && new > 2, "{old} {new}");
}
