//! Files that others change: told of when they have come to rest.
//!
//! Folders are watched, not files: an editor that writes a new file and renames it over the old one, and a Kubernetes
//! volume that turns the link `..data`, leave a watched file behind that nobody writes to any more. What counts is what
//! the name leads to: its place, inode, size and times. Where the system tells nothing (network file systems, or too many
//! watches), the files are looked at instead.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use notify::RecursiveMode;
use notify::Watcher as _;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often files are looked at where the system tells nothing.
const POLL: Duration = Duration::from_millis(100);
/// The same where there are many: looking must not become work.
const SLOW_POLL: Duration = Duration::from_secs(2);
/// More files than this are many.
const FEW: usize = 200;
/// How long a file that never comes to rest is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the system forgot to tell is noticed after this time.
const SAFETY: Duration = Duration::from_secs(30);

/// What a name leads to; `None`: to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<(PathBuf, [i128; 5])>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let found = fs::canonicalize(path).and_then(|file| fs::metadata(&file).map(|found| (file, found)));
        Self(found.ok().map(|(file, found)| {
            let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            let times = [nanos(found.mtime(), found.mtime_nsec()), nanos(found.ctime(), found.ctime_nsec())];
            let [modified, changed] = times;
            (file, [i128::from(found.dev()), i128::from(found.ino()), i128::from(found.size()), modified, changed])
        }))
    }
}

/// Watches some files.
pub struct FileWatch {
    files: Vec<(PathBuf, Stamp)>,
    folders: BTreeSet<PathBuf>,
    system: Option<notify::RecommendedWatcher>,
    told: watch::Receiver<u64>,
    settle: Duration,
    poll: bool,
    /// A change was seen and not told of yet.
    stirred: bool,
}

impl std::fmt::Debug for FileWatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FileWatch").field("files", &self.files.len()).field("poll", &self.poll).finish()
    }
}

impl FileWatch {
    /// Changes of these files from now on. `settle`: how long a changed file must have been left alone; `poll`: the
    /// files are looked at although the system may tell.
    pub fn new(files: impl IntoIterator<Item = PathBuf>, settle: Duration, poll: bool) -> Self {
        let (sender, told) = watch::channel(0_u64);
        // Called on a thread of its own, for every event; that something happened is all we need.
        let system = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| !event.kind.is_access()) {
                sender.send_modify(|count| *count = count.wrapping_add(1));
            }
        });
        let system = match system {
            Ok(system) => Some(system),
            Err(error) => {
                tracing::warn!(%error, "the system does not tell of changed files; they are looked at instead");
                None
            }
        };
        let mut made = Self { files: Vec::new(), folders: BTreeSet::new(), system, told, settle, poll, stirred: false };
        made.set(files);
        made
    }

    /// Watches these files from now on. What happened to those that were watched already is still told. Returns those that
    /// were not: what happened to them until now is told of by nobody.
    pub fn set(&mut self, files: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
        let mut before: BTreeMap<_, _> = std::mem::take(&mut self.files).into_iter().collect();
        let wanted: BTreeSet<_> = files.into_iter().collect();
        let fresh = wanted.iter().filter(|path| !before.contains_key(*path)).cloned().collect();
        let stamped = wanted.into_iter().map(|path| {
            let stamp = before.remove(&path).unwrap_or_else(|| Stamp::of(&path));
            (path, stamp)
        });
        self.files = stamped.collect();
        self.follow();
        fresh
    }

    /// How long a changed file must have been left alone from now on, and whether files are looked at.
    pub const fn tune(&mut self, settle: Duration, poll: bool) {
        self.settle = settle;
        self.poll = poll;
    }

    /// Returns when one of the files has changed and come to rest. Nothing is lost where nobody waits for it.
    pub async fn changed(&mut self) {
        loop {
            if self.stirred || self.differs() {
                self.stirred = true;
                self.rest().await;
                self.stirred = false;
                self.follow();
                return;
            }
            self.stirring().await;
        }
    }

    /// Returns when something may have happened.
    async fn stirring(&mut self) {
        let pause = match (self.poll || self.system.is_none(), self.files.len() > FEW) {
            (true, false) => POLL,
            (true, true) => SLOW_POLL,
            (false, _) => SAFETY,
        };
        tokio::select! {
            told = self.told.changed() => {
                if told.is_err() {
                    // The watcher is gone; what is left is looking.
                    self.system = None;
                    tokio::time::sleep(POLL).await;
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }

    fn differs(&self) -> bool {
        self.files.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Waits until all files look the same for the time they have to settle.
    async fn rest(&mut self) {
        let begun = Instant::now();
        loop {
            for (path, stamp) in &mut self.files {
                *stamp = Stamp::of(path);
            }
            tokio::time::sleep(self.settle).await;
            if !self.differs() || begun.elapsed() > PATIENCE {
                return;
            }
        }
    }

    /// Watches the folders the names and what they lead to lie in.
    fn follow(&mut self) {
        let mut wanted = BTreeSet::new();
        for (path, Stamp(stamp)) in &self.files {
            wanted.extend(path.parent().map(Path::to_owned));
            wanted.extend(stamp.as_ref().and_then(|(file, _)| file.parent().map(Path::to_owned)));
        }
        let Some(system) = &mut self.system else { return };
        for gone in self.folders.difference(&wanted) {
            // It may have gone by itself.
            let _ = system.unwatch(gone);
        }
        let mut watched = BTreeSet::new();
        for folder in wanted {
            if self.folders.contains(&folder) && folder.exists() {
                watched.insert(folder);
                continue;
            }
            match system.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    watched.insert(folder);
                }
                // A folder that is not there yet is looked for now and then.
                Err(error) => tracing::debug!(folder = %folder.display(), %error, "a folder is not watched"),
            }
        }
        self.folders = watched;
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::disallowed_methods,
        reason = "test code may panic, and writes files as other programs do"
    )]

    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    const SETTLE: Duration = Duration::from_millis(50);
    /// Ten times what it takes on a busy machine.
    const LIMIT: Duration = Duration::from_secs(10);

    async fn told(watch: &mut FileWatch) -> bool {
        tokio::time::timeout(LIMIT, watch.changed()).await.is_ok()
    }

    async fn silent(watch: &mut FileWatch) -> bool {
        tokio::time::timeout(Duration::from_millis(400), watch.changed()).await.is_err()
    }

    #[tokio::test]
    async fn every_way_of_writing_a_file_is_noticed() {
        for poll in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("gateway.yaml");
            fs::write(&file, "one").unwrap();
            let mut watch = FileWatch::new([file.clone()], SETTLE, poll);
            assert!(silent(&mut watch).await);

            fs::write(&file, "in place").unwrap();
            assert!(told(&mut watch).await, "in place");

            let temporary = folder.path().join(".gateway.yaml.swp");
            fs::write(&temporary, "renamed").unwrap();
            fs::rename(&temporary, &file).unwrap();
            assert!(told(&mut watch).await, "temporary file and rename");
            // The new file is followed too.
            fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"more").unwrap();
            assert!(told(&mut watch).await, "after a rename");

            fs::remove_file(&file).unwrap();
            assert!(told(&mut watch).await, "gone");
            fs::write(&file, "back").unwrap();
            assert!(told(&mut watch).await, "back");

            fs::write(folder.path().join("other"), "x").unwrap();
            assert!(silent(&mut watch).await, "another file of the folder");
        }
    }

    #[tokio::test]
    async fn a_turned_link_of_kubernetes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let version = |name: &str| {
            let data = folder.path().join(name);
            fs::create_dir(&data).unwrap();
            fs::write(data.join("gateway.yaml"), "same").unwrap();
        };
        version("..1");
        symlink("..1", folder.path().join("..data")).unwrap();
        symlink("..data/gateway.yaml", folder.path().join("gateway.yaml")).unwrap();
        let mut watch = FileWatch::new([folder.path().join("gateway.yaml")], SETTLE, false);
        for number in 2..4 {
            let name = format!("..{number}");
            version(&name);
            symlink(&name, folder.path().join("..data_tmp")).unwrap();
            fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
            assert!(told(&mut watch).await, "{number}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_written_in_pieces_is_told_of_once_it_rests() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        fs::write(&file, "whole").unwrap();
        let mut watch = FileWatch::new([file.clone()], Duration::from_millis(300), false);
        let writer = {
            let file = file.clone();
            std::thread::spawn(move || {
                let mut file = fs::File::create(file).unwrap();
                for piece in ["a", "b", "c", "d", "e"] {
                    file.write_all(piece.as_bytes()).unwrap();
                    std::thread::sleep(Duration::from_millis(60));
                }
            })
        };
        assert!(told(&mut watch).await);
        assert_eq!(fs::read_to_string(&file).unwrap(), "abcde");
        writer.join().unwrap();
        assert!(silent(&mut watch).await);
    }

    #[tokio::test]
    async fn what_is_new_to_it_is_named_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::write(&one, "a").unwrap();
        let mut watch = FileWatch::new([one.clone()], SETTLE, false);
        fs::write(&one, "changed before").unwrap();
        assert_eq!(watch.set([two.clone(), one.clone()]), std::slice::from_ref(&two));
        assert!(told(&mut watch).await, "what happened to the one that was watched is not forgotten");
        assert!(watch.set([two.clone()]).is_empty());
        assert_eq!(watch.set([one.clone(), two]), [one]);
    }
}
