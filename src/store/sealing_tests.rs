//! The sealing key through everything that happens to a store, and secrets opened with it.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::path::Path;

use super::*;
use crate::domain::audit::Filter;
use crate::domain::audit::Via;
use crate::domain::relay::RelaySession;
use crate::domain::sealing::seal;
use crate::store::master_keys;
use crate::store::master_keys::MasterKeys;
use crate::store::restore;
use crate::store::worker::DATABASE_FILE;

const NOW: UnixMillis = UnixMillis(1000);
const TARGET: Target<'static> =
    Target { purpose: Purpose::Connection, id: "linear", field: "key", destination: "https://api.linear.app" };

fn key(number: u8) -> Secret {
    Secret::new(format!("{number:02x}").repeat(32))
}

fn open(folder: &Path, number: u8) -> Vault {
    Vault::open(&folder.join(DATABASE_FILE), &key(number)).unwrap()
}

fn asker() -> Asker {
    Asker::new(Via::Token, "192.0.2.7", "req")
}

fn relayed() -> Asker {
    asker().relayed(RelaySession::parse("session-1"))
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

#[test]
fn the_key_is_made_once_and_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path(), 1);
    let version = vault.state().version;
    let public = vault.sealing_key(&asker(), NOW).unwrap();
    assert_eq!(vault.sealing_key(&asker(), NOW).unwrap(), public);
    assert_eq!(vault.state().version, version, "nothing of it concerns authz");
    drop(vault);
    assert_eq!(open(folder.path(), 1).sealing_key(&asker(), NOW).unwrap(), public);
}

#[test]
fn a_replaced_key_is_audited_and_what_was_sealed_before_opens_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path(), 1);
    let first = vault.sealing_key(&asker(), NOW).unwrap();
    let sealed = seal(&first, &TARGET, b"value").unwrap();
    assert_eq!(vault.reveal(secret(&sealed), &TARGET, &mut asker()).unwrap().expose(), "value");
    let SealingKeyReplaced { public, previous } = vault.replace_sealing_key(&asker(), NOW).unwrap();
    assert_eq!(previous, Some(first));
    assert_ne!(public, first);
    let refused = vault.reveal(secret(&sealed), &TARGET, &mut asker());
    assert!(matches!(refused, Err(StoreError::SealedInvalid(_))), "{refused:?}");
    let entries = vault.audit(&Filter { action: Some(Action::SealingKeySet), ..Filter::default() }, 10).unwrap();
    let said: Vec<_> = entries.into_iter().map(|entry| entry.detail).collect();
    let expected = [
        serde_json::json!({ "fingerprint": public.fingerprint(), "previous": first.fingerprint() }),
        serde_json::json!({ "fingerprint": first.fingerprint() }),
    ];
    assert_eq!(said, expected);
}

#[test]
fn the_private_key_is_nowhere_in_the_file_in_clear() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path(), 1);
    vault.sealing_key(&asker(), NOW).unwrap();
    let sealed = vault.engine.meta(SEALING_KEY).unwrap().unwrap();
    let private = vault.key.open(SEALING_KEY_PLACE, &sealed).unwrap();
    vault.engine.checkpoint().unwrap();
    let mut found = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(KEY_BYTES).any(|window| window == private.as_slice()));
        found += usize::from(bytes.windows(sealed.len()).any(|window| window == sealed.as_slice()));
    }
    assert_eq!(found, 1, "what is looked for would be found");
}

#[test]
fn the_key_survives_another_master_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("master-key");
    master_keys::write(&file, &key(1)).unwrap();
    let keys = MasterKeys::new(None, file);
    let mut vault = Vault::open_with(&folder.path().join(DATABASE_FILE), &keys).unwrap();
    let public = vault.sealing_key(&asker(), NOW).unwrap();
    let done = vault.rekey(Some(key(2)), &asker(), NOW, &mut |_| {}).unwrap();
    assert_eq!((done.wrapped, vault.sealing_key(&asker(), NOW).unwrap()), (1, public));
    drop(vault);
    assert_eq!(open(folder.path(), 2).sealing_key(&asker(), NOW).unwrap(), public);
}

#[test]
fn the_key_goes_with_a_backup_under_whatever_master_key() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut vault = open(folder.path(), 1);
    let public = vault.sealing_key(&asker(), NOW).unwrap();
    let copy = folder.path().join("copy.db");
    vault.backup(&copy, &asker(), NOW).unwrap();
    let keys = MasterKeys::from(key(3));
    restore::restore(other.path(), &copy, &keys, Some(key(1)), "test", NOW, &mut |_| {}).unwrap();
    assert_eq!(open(other.path(), 3).sealing_key(&asker(), NOW).unwrap(), public);
}

#[test]
fn a_key_that_does_not_open_is_told_and_replaced_only_where_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path(), 1);
    let public = vault.sealing_key(&asker(), NOW).unwrap();
    vault.engine.write(|writer| writer.set_meta(SEALING_KEY, &[1; 90])).unwrap();
    assert!(matches!(vault.sealing_key(&asker(), NOW), Err(StoreError::Seal(_))));
    assert_eq!(vault.check().unwrap().unreadable.len(), 1);
    let rekeyed = vault.rekey(Some(key(2)), &asker(), NOW, &mut |_| {});
    assert!(matches!(&rekeyed, Err(StoreError::Unreadable(names)) if names == &["the sealing key"]), "{rekeyed:?}");
    let SealingKeyReplaced { public: next, previous } = vault.replace_sealing_key(&asker(), NOW).unwrap();
    assert!(previous.is_none() && next != public);
    assert_eq!(vault.check().unwrap().unreadable, Vec::<String>::new());
}

#[test]
fn a_reference_comes_through_no_relay_sealed_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut vault = open(folder.path(), 1);
    let public = vault.sealing_key(&asker(), NOW).unwrap();
    let sealed = seal(&public, &TARGET, b" {{ TOKEN }} ").unwrap();
    for given in ["{{TOKEN}}", sealed.as_str()] {
        let refused = vault.reveal(secret(given), &TARGET, &mut relayed());
        assert!(matches!(refused, Err(StoreError::Relay(RelayRefused::Variable))), "{refused:?}");
        assert!(vault.reveal(secret(given), &TARGET, &mut asker()).is_ok());
    }
}

#[test]
fn without_a_key_nothing_is_opened_and_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path(), 1);
    let public = SealingKey::new(&[7; KEY_BYTES]).unwrap().public();
    let sealed = seal(&public, &TARGET, b"value").unwrap();
    assert!(matches!(vault.reveal(secret(&sealed), &TARGET, &mut asker()), Err(StoreError::SealedInvalid(_))));
    assert!(vault.engine.meta(SEALING_KEY).unwrap().is_none());
}

#[test]
fn more_sealed_values_than_a_connection_holds_are_not_even_opened() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path(), 1);
    let given =
        |count: usize| (0..count).map(|number| (format!("k{number}"), secret("sealed:v1:x"))).collect::<Secrets>();
    let refused = |count| vault.reveal_all(given(count), "linear", Some("https://api.linear.app"), &mut asker());
    assert!(matches!(refused(MAX_SECRETS + 1), Err(StoreError::Invalid(_))));
    assert!(matches!(refused(MAX_SECRETS), Err(StoreError::SealedInvalid(_))));
}
