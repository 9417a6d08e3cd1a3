//! Identities on a real disk: idempotent, exclusive, private.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "test code may panic")]

use std::sync::Barrier;
use std::thread;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_771_610_666);

fn alice() -> Namespace {
    Namespace::parse("alice").unwrap()
}

#[test]
fn creating_twice_makes_one_private_key() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path().join("home"));
    let first = home.create(&alice(), NOW).unwrap();
    assert!(first.created);
    assert_eq!(first.warnings, []);
    let second = home.create(&alice(), NOW).unwrap();
    assert!(!second.created);
    assert_eq!(first.identity.key_id(), second.identity.key_id());
    assert_eq!(first.path, folder.path().join("home/identities/alice/identity.json"));
    assert_eq!(fs::metadata(&first.path).unwrap().permissions().mode() & 0o777, 0o600);
    for made in ["home", "home/identities", "home/identities/alice"] {
        let mode = fs::metadata(folder.path().join(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{made}");
    }
    assert_eq!(home.list().unwrap(), [alice()]);
}

#[test]
fn replacing_makes_another_key() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    let first = home.create(&alice(), NOW).unwrap();
    let second = home.replace(&alice(), NOW).unwrap();
    assert!(second.created);
    assert_ne!(first.identity.key_id(), second.identity.key_id());
    assert_eq!(home.load(&alice(), NOW).unwrap().identity.key_id(), second.identity.key_id());
}

#[test]
fn creating_at_once_ends_with_one_key_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    let barrier = Barrier::new(8);
    let opened: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    home.create(&alice(), NOW).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let kept = home.load(&alice(), NOW).unwrap();
    assert!(opened.iter().all(|opened| opened.identity.key_id() == kept.identity.key_id()));
    assert_eq!(opened.iter().filter(|opened| opened.created).count(), 1);
    assert_eq!(fs::read_dir(folder.path().join("identities/alice")).unwrap().count(), 1, "no temporary files are left");
}

#[test]
fn open_permissions_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    let path = home.create(&alice(), NOW).unwrap().path;
    let namespace_folder = path.parent().unwrap().to_owned();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&namespace_folder, fs::Permissions::from_mode(0o770)).unwrap();
    let expected = [
        IdentityWarning::FileTooOpen { path, why: Refusal::Everybody(0o644) },
        IdentityWarning::FolderTooOpen { path: namespace_folder.clone(), mode: 0o770 },
    ];
    assert_eq!(home.load(&alice(), NOW).unwrap().warnings, expected);
    assert!(expected[0].to_string().contains("run: chmod 600 "), "{}", expected[0]);
    // A closed file in a folder that others may look into is no risk.
    fs::set_permissions(home.record_path(&alice()), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&namespace_folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(home.load(&alice(), NOW).unwrap().warnings, []);
}

#[test]
fn a_file_of_a_volume_is_not_told_to_be_changed_where_nobody_can() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path().join("home"));
    home.create(&alice(), NOW).unwrap();
    // As a platform lays out a volume: the names at its top are links into the folder of the day.
    let volume = folder.path().join("volume");
    fs::create_dir_all(volume.join("..data")).unwrap();
    fs::rename(folder.path().join("home/identities"), volume.join("..data/identities")).unwrap();
    std::os::unix::fs::symlink("..data/identities", volume.join("identities")).unwrap();
    let home = Home::new(&volume);
    fs::set_permissions(home.record_path(&alice()), fs::Permissions::from_mode(0o644)).unwrap();
    let said: Vec<_> = home.load(&alice(), NOW).unwrap().warnings.iter().map(ToString::to_string).collect();
    assert!(said.len() == 1 && said[0].contains("fsGroup") && !said[0].contains("chmod"), "{said:?}");
}

#[test]
fn a_broken_file_is_reported_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    assert!(matches!(home.load(&alice(), NOW), Err(IdentityError::NotFound { .. })));
    let path = home.record_path(&alice());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "half a fi").unwrap();
    assert!(matches!(home.create(&alice(), NOW), Err(IdentityError::Malformed { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"half a fi");
    fs::write(&path, vec![b' '; 70_000]).unwrap();
    assert!(matches!(home.create(&alice(), NOW), Err(IdentityError::Io { .. })));
}

#[test]
fn somebody_elses_record_in_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    let bob = Namespace::parse("bob").unwrap();
    let path = home.create(&bob, NOW).unwrap().path;
    let stolen = home.record_path(&alice());
    fs::create_dir_all(stolen.parent().unwrap()).unwrap();
    fs::copy(path, stolen).unwrap();
    assert!(matches!(home.load(&alice(), NOW), Err(IdentityError::Invalid { .. })));
}
