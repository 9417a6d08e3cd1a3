//! The store behind one thread: callers wait without blocking the runtime, and one thread gives one order.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::domain::secret::Secret;
use crate::domain::snapshot::StateVersion;
use crate::store::StoreError;
use crate::store::backup;
use crate::store::master_keys::MasterKeys;
use crate::store::vault::Change;
use crate::store::vault::Vault;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::database::DatabaseError;
use crate::sys::database::Hindrance;
use crate::sys::files::FileLock;
use crate::sys::files::LockWatch;
use crate::sys::files::own_folder;

/// Requests that may wait for the store's thread; the admin API has as many callers at most.
const QUEUE: usize = 64;

/// Name of the lock file in the data folder.
pub const LOCK_FILE: &str = "gateway.lock";
/// Name of the database file in the data folder.
pub const DATABASE_FILE: &str = "gateway.db";

type Job = Box<dyn FnOnce(&mut Vault, &mut Listener) + Send>;

/// Told of every change after its commit, with the version it led to, on the store's thread.
pub type Listener = Box<dyn FnMut(u64, Change) + Send>;

/// The data folder, locked, with its store open. Not yet in use.
#[derive(Debug)]
pub struct OpenStore {
    /// The store.
    pub vault: Vault,
    lock: FileLock,
}

/// Locks `folder`, which is made with mode 0700 where it is missing.
pub fn lock(folder: &Path, holder: &str) -> Result<FileLock, StoreError> {
    own_folder(folder).map_err(|source| DatabaseError::Io { path: folder.to_owned(), source })?;
    Ok(FileLock::take(&folder.join(LOCK_FILE), holder)?)
}

impl OpenStore {
    /// Locks `folder` (made with mode 0700 where it is missing) and opens the store in it.
    pub fn open(folder: &Path, master_key: &Secret, holder: &str) -> Result<Self, StoreError> {
        Self::open_with(folder, &MasterKeys::from(master_key.duplicate()), holder)
    }

    /// The same with whichever of these keys opens the store.
    pub fn open_with(folder: &Path, keys: &MasterKeys, holder: &str) -> Result<Self, StoreError> {
        let lock = lock(folder, holder)?;
        backup::sweep(folder);
        keys.place().sweep(SystemClock.now().wall);
        let mut vault = Vault::open_with(&folder.join(DATABASE_FILE), keys)?;
        vault.keep_lines_in(folder)?;
        Ok(Self { vault, lock })
    }

    /// Says later whether the lock still keeps others out of the folder.
    pub fn lock_watch(&self) -> Result<LockWatch, StoreError> {
        let watch = self.lock.watch();
        Ok(watch.map_err(|source| DatabaseError::Io { path: self.lock.path().to_owned(), source })?)
    }

    /// Hands the store to a thread of its own, which closes the database and ends when the last [`Store`] is
    /// dropped.
    pub fn start(self, listener: Listener) -> Result<(Store, JoinHandle<()>), StoreError> {
        let (sender, mut jobs) = mpsc::channel::<Job>(QUEUE);
        let Self { mut vault, lock } = self;
        let mut listener = listener;
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                while let Some(job) = jobs.blocking_recv() {
                    job(&mut vault, &mut listener);
                }
                // The database closes before the lock goes.
                drop(vault);
                drop(lock);
            })
            .map_err(|source| DatabaseError::Io { path: LOCK_FILE.into(), source })?;
        Ok((Store { jobs: sender, hindered: Arc::default() }, thread))
    }
}

/// A handle on the store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    /// The last that was heard of writing: it was kept from it by the disk, or another process.
    hindered: Arc<Mutex<Option<Hindrance>>>,
}

impl Store {
    /// Runs `work` on the store's thread. A caller that goes away does not undo what was begun.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Vault) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |vault, _| work(vault)).await
    }

    /// Runs a change on the store's thread and tells the listener of it before anybody else.
    pub async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vault) -> Result<(T, Change), StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |vault, listener| {
            let (value, change) = work(vault)?;
            listener(vault.state().version, change);
            Ok(value)
        })
        .await
    }

    /// The same for work that may find nothing to change: without a change nobody is told.
    pub async fn change_if<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vault) -> Result<(T, Option<Change>), StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |vault, listener| {
            let (value, change) = work(vault)?;
            if let Some(change) = change {
                listener(vault.state().version, change);
            }
            Ok(value)
        })
        .await
    }

    /// Writes something that is no part of the state authz has: a test, an entry of the audit.
    pub async fn keep<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vault) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |vault, _| work(vault)).await
    }

    /// Takes the next version for a change that does not lie in the store, and calls `work` with it once it is
    /// committed: on the store's thread, so in one order with what the listener is told.
    pub async fn advance(&self, work: impl FnOnce(u64) + Send + 'static) -> Result<(), StoreError> {
        self.run(move |vault, _| {
            vault.advance()?;
            work(vault.state().version);
            Ok(())
        })
        .await
    }

    /// What keeps changes from being written, as far as is known; looked at again by trying.
    pub async fn hindrance(&self) -> Option<Hindrance> {
        let known = *self.hindered.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() && self.run(|vault, _| vault.try_write()).await.is_ok() {
            *self.hindered.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return None;
        }
        known
    }

    /// Epoch and version of the last commit.
    pub async fn state(&self) -> Result<StateVersion, StoreError> {
        self.read(|vault| Ok(vault.state().clone())).await
    }

    /// Returns when the store's thread has ended, which it does by itself only when it panicked.
    pub async fn closed(&self) {
        self.jobs.closed().await;
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vault, &mut Listener) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |vault, listener| {
            // Whoever asked may have left; the work is done all the same.
            let _ = answer.send(work(vault, listener));
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        let done = answered.await.map_err(|_| StoreError::Closed)?;
        if let Err(StoreError::Database(error)) = &done
            && let Some(hindrance) = error.hindrance()
        {
            *self.hindered.lock().unwrap_or_else(PoisonError::into_inner) = Some(hindrance);
        }
        done
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
#[allow(clippy::unwrap_used, reason = "test code may panic")]
mod tests;
