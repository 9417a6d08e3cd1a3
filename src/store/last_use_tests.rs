#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use tempfile::TempDir;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::audit::Asker;
use crate::domain::audit::Via;
use crate::domain::draft::Draft;
use crate::domain::ids::ConnectionId;
use crate::domain::record::Secrets;
use crate::domain::secret::Secret;
use crate::store::worker::DATABASE_FILE;

fn open(folder: &TempDir) -> Vault {
    Vault::open(&folder.path().join(DATABASE_FILE), &Secret::new("01".repeat(32))).unwrap()
}

fn add(vault: &mut Vault, id: &str) {
    let draft = Draft {
        id: id.to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_secret_key: "key".to_owned(),
        ..Draft::default()
    };
    let secrets = Secrets::from([("key".to_owned(), Secret::new("s".to_owned()))]);
    let draft = draft.check(&AddressPolicy::default()).unwrap();
    vault.create_connection(draft, secrets, &Asker::local(Via::Command), UnixMillis(0)).unwrap();
}

fn one(connection: &str, namespace: &str, at: u64, status: u16) -> (String, LastUse) {
    let last = LastUse {
        namespace: namespace.to_owned(),
        public_key: PublicKey::new([7; 32]),
        subject: format!("of {namespace}"),
        at: UnixMillis(at),
        status,
    };
    (connection.to_owned(), last)
}

#[test]
fn the_last_use_survives_and_takes_no_version() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    add(&mut vault, "linear");
    add(&mut vault, "github");
    let state = vault.state().clone();
    vault.note_uses(&[one("linear", "alice", 5000, 200), one("linear", "bob", 7000, 500)]).unwrap();
    // An older one than is known, and one of a connection that is gone.
    vault.note_uses(&[one("linear", "bob", 6000, 200), one("gone", "bob", 9000, 200)]).unwrap();
    drop(vault);
    let vault = open(&folder);
    assert_eq!(vault.state(), &state);
    assert_eq!(vault.agents("linear").unwrap(), [one("", "bob", 7000, 500).1, one("", "alice", 5000, 200).1]);
    assert_eq!(vault.get("linear").unwrap().last_used_at, Some(UnixMillis(7000)));
    let listed: Vec<_> = vault.list().unwrap().iter().map(|listed| listed.last_used_at).collect();
    assert_eq!(listed, [None, Some(UnixMillis(7000))]);
    assert!(vault.agents("github").unwrap().is_empty());
    assert!(matches!(vault.agents("gone"), Err(StoreError::NotFound)));
}

#[test]
fn a_connection_that_goes_takes_its_uses_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    add(&mut vault, "linear");
    vault.note_uses(&[one("linear", "alice", 5000, 200)]).unwrap();
    let id = ConnectionId::parse("linear").unwrap();
    vault.delete_connection(&id, &Asker::local(Via::Command), UnixMillis(0)).unwrap();
    add(&mut vault, "linear");
    assert!(vault.agents("linear").unwrap().is_empty());
}

#[test]
fn the_oldest_give_way_within_a_connection_and_in_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(&folder);
    add(&mut vault, "linear");
    add(&mut vault, "github");
    let many = |connection: &str, from: u64| -> Vec<_> {
        (from..from + 1_010).map(|number| one(connection, &format!("ns-{number}"), number, 200)).collect()
    };
    vault.note_uses(&many("linear", 0)).unwrap();
    vault.note_uses(&many("github", 5_000)).unwrap();
    let agents = vault.agents("linear").unwrap();
    assert_eq!((agents.len(), agents[0].at.0, agents[999].at.0), (1_000, 1_009, 10));
    vault.engine.write(|writer| writer.evict_oldest_uses(1_500)).unwrap();
    assert_eq!((vault.agents("linear").unwrap().len(), vault.agents("github").unwrap().len()), (500, 1_000));
    assert_eq!(vault.agents("linear").unwrap()[499].at.0, 510);
}
