//! Where a backup may be written: a new name, or that of an earlier backup. It is a rename that puts it there, and a rename
//! replaces whatever has the name: the live store, a key, a device.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::admin::token::TOKEN_FILE;
use crate::app::gateway;
use crate::config::parts::Paths;
use crate::store::backup::bears_our_mark;
use crate::store::worker;
use crate::store::worker::DATABASE_FILE;
use crate::sys::files;

/// What names of the gateway's own begin with, in the folders it lives in.
const OWN_NAMES: [&str; 8] = [
    DATABASE_FILE,
    worker::LOCK_FILE,
    gateway::LOCK_FILE,
    TOKEN_FILE,
    "gateway-master-key",
    "gateway.yaml",
    "config.env",
    "service-",
];

/// A name that a backup may have.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    own: Vec<PathBuf>,
}

/// Why a name is none for a backup.
#[derive(Debug, thiserror::Error)]
#[error("{path} {why}; nothing was written")]
pub struct TargetError {
    path: PathBuf,
    why: String,
}

impl Target {
    /// Judges a name. `paths`: where the gateway lives.
    pub fn check(path: &Path, paths: &Paths) -> Result<Self, TargetError> {
        let own = vec![paths.data_dir.clone(), paths.home.clone(), paths.run_dir.clone()];
        let target = Self { path: path.to_owned(), own };
        target.check_again()?;
        Ok(target)
    }

    /// Judges it once more: making a copy takes its time.
    pub fn check_again(&self) -> Result<(), TargetError> {
        let path = &self.path;
        let refused = |why: String| Err(TargetError { path: path.clone(), why });
        let own = self.own.iter().find(|own| is_same(files::folder_of(path), own));
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                return match own {
                    Some(own) if OWN_NAMES.iter().any(|begin| name.starts_with(begin)) => {
                        refused(format!("is a name of the gateway's own in {}", own.display()))
                    }
                    Some(_) | None => Ok(()),
                };
            }
            Err(error) => return refused(format!("cannot be looked at: {error}")),
        };
        if let Some(own) = own {
            return refused(format!("exists, and what is in {} is not replaced", own.display()));
        }
        if found.is_symlink() {
            return refused("is a symbolic link".to_owned());
        }
        if !found.is_file() {
            return refused("is no ordinary file".to_owned());
        }
        if !bears_our_mark(path) {
            return refused("exists and is no backup".to_owned());
        }
        // Another gateway's: it runs, or it was stopped.
        let store = path.file_name().is_some_and(|name| name == DATABASE_FILE)
            && path.with_file_name(worker::LOCK_FILE).exists();
        if store || files::beside(path, "-wal").exists() {
            return refused("is the store of a gateway and no backup".to_owned());
        }
        Ok(())
    }

    /// The name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether two names lead to one folder.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    place(one).is_some_and(|one| place(other) == Some(one))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::app::upkeep::BackupError;
    use crate::app::upkeep::MasterKeys;
    use crate::app::upkeep::Offline;
    use crate::domain::secret::Secret;
    use crate::store::StoreError;
    use crate::store::worker::OpenStore;
    use crate::sys::clock::Clock as _;
    use crate::sys::clock::SystemClock;

    struct Place {
        root: TempDir,
        paths: Paths,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            let paths = Paths {
                home: at("home"),
                config_file: None,
                data_dir: at("data"),
                run_dir: at("data/run"),
                run_behind: None,
                service_catalog: at("data/service-catalog.json"),
            };
            for folder in [&paths.home, &paths.run_dir, &at("backups")] {
                files::private_folder(folder).unwrap();
            }
            Self { root, paths }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn refused(&self, name: &str) -> String {
            Target::check(&self.at(name), &self.paths).unwrap_err().to_string()
        }
    }

    fn keys() -> MasterKeys {
        MasterKeys::from(Secret::new("the gateway's key".to_owned()))
    }

    /// The lock of a store that was just dropped lives on for a moment in processes that other tests are starting.
    fn offline(place: &Place) -> Offline {
        let begun = SystemClock.now().monotonic;
        loop {
            match Offline::open(&place.paths.data_dir, &keys(), "test") {
                Err(StoreError::Locked(_)) if SystemClock.now().monotonic.since(begun) < 10_000 => {
                    std::thread::yield_now();
                }
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn a_backup_takes_a_new_name_or_that_of_an_earlier_one() {
        let place = Place::new();
        drop(OpenStore::open_with(&place.paths.data_dir, &keys(), "test").unwrap());
        let mut open = offline(&place);
        for name in ["backups/nightly.db", "backups/nightly.db", "data/first.db"] {
            let target = Target::check(&place.at(name), &place.paths).unwrap();
            open.backup(&target).unwrap();
            assert!(bears_our_mark(&place.at(name)), "{name}");
        }
        // What lies where the gateway lives is not replaced, not even an earlier backup.
        assert!(place.refused("data/first.db").contains("is not replaced"));
    }

    #[test]
    fn nothing_but_a_backup_is_replaced() {
        let place = Place::new();
        drop(OpenStore::open_with(&place.paths.data_dir, &keys(), "test").unwrap());
        let store = fs::read(place.at("data/gateway.db")).unwrap();
        for name in ["home/gateway-master-key", "data/admin-token", "backups/notes", "backups/empty"] {
            fs::write(place.at(name), if name.ends_with("empty") { "" } else { "0123456789" }).unwrap();
        }
        fs::write(place.at("backups/a.db"), &store).unwrap();
        symlink("a.db", place.at("backups/link")).unwrap();
        symlink("../data", place.at("backups/way")).unwrap();
        let pipe = place.at("backups/pipe");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        for (name, why) in [
            ("data/gateway.db", "is not replaced"),
            ("backups/way/gateway.db", "is not replaced"),
            ("home/gateway-master-key", "is not replaced"),
            ("data/admin-token", "is not replaced"),
            ("data/gateway.db-wal", "the gateway's own"),
            ("home/gateway-master-key.next", "the gateway's own"),
            ("data/run/supervisor.lock", "the gateway's own"),
            ("backups/notes", "is no backup"),
            ("backups/empty", "is no backup"),
            ("backups/link", "symbolic link"),
            ("backups/pipe", "no ordinary file"),
        ] {
            let said = place.refused(name);
            assert!(said.contains(why), "{name}: {said}");
        }
        let device = Target::check(Path::new("/dev/null"), &place.paths).unwrap_err().to_string();
        assert!(device.contains("no ordinary file"), "{device}");
        assert_eq!(fs::read(place.at("data/gateway.db")).unwrap(), store);
    }

    #[test]
    fn the_store_of_another_gateway_is_no_backup() {
        let (place, other) = (Place::new(), Place::new());
        drop(OpenStore::open_with(&other.paths.data_dir, &keys(), "test").unwrap());
        let said = |file: &Path| Target::check(file, &place.paths).unwrap_err().to_string();
        assert!(said(&other.at("data/gateway.db")).contains("the store of a gateway"));
        fs::copy(other.at("data/gateway.db"), other.at("backups/b.db")).unwrap();
        Target::check(&other.at("backups/b.db"), &place.paths).unwrap();
        fs::write(other.at("backups/b.db-wal"), b"frames").unwrap();
        assert!(said(&other.at("backups/b.db")).contains("the store of a gateway"));
    }

    #[test]
    fn what_took_the_name_meanwhile_is_kept_and_no_copy_is_left() {
        let place = Place::new();
        drop(OpenStore::open_with(&place.paths.data_dir, &keys(), "test").unwrap());
        let target = Target::check(&place.at("backups/new.db"), &place.paths).unwrap();
        fs::write(place.at("backups/new.db"), "notes").unwrap();
        let failed = offline(&place).backup(&target).unwrap_err();
        assert!(matches!(failed, BackupError::Target(_)), "{failed}");
        assert_eq!(fs::read(place.at("backups/new.db")).unwrap(), b"notes");
        assert_eq!(fs::read_dir(place.at("backups")).unwrap().count(), 1);
    }
}
