//! The control plane's database behind one thread: callers wait without blocking the runtime, and one thread gives
//! one order. What is answered was committed and is on disk. A second thread reads what takes long, from the moment
//! it begins, so that nobody waits for a summary of a million rows but whoever asked for it.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::api::migrate;
use crate::api::problem::Problem;
use crate::sys::database;
use crate::sys::database::DatabaseError;
use crate::sys::database::Found;
use crate::sys::database::Mark;
use crate::sys::files::FileLock;
use crate::sys::files::LockError;
use crate::sys::files::own_folder;
use crate::sys::random;
use crate::sys::random::RandomError;

/// Requests that may wait for the database's thread; further ones wait in front of it.
const QUEUE: usize = 256;
/// Statements kept prepared.
const STATEMENTS: usize = 128;
/// Name of the lock file in the data folder.
pub const LOCK_FILE: &str = "api.lock";
/// Name of the database file in the data folder.
pub const DATABASE_FILE: &str = "api.db";

/// Long reads that may wait for one another; further ones wait in front of their thread.
const SURVEYS: usize = 16;

type Job = Box<dyn FnOnce(&mut Connection, &watch::Sender<i64>) + Send>;
type Survey = Box<dyn FnOnce(&Connection) + Send>;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Another process owns the data folder.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The folder could not be used.
    #[error("{path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// No randomness for its epoch.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(DatabaseError::Sqlite(error))
    }
}

/// The data folder, locked, with its database open. Not yet in use.
#[derive(Debug)]
pub struct OpenDb {
    db: Connection,
    reader: Connection,
    lock: FileLock,
    epoch: Arc<str>,
}

impl OpenDb {
    /// Locks `folder` (made with mode 0700 where it is missing) and opens the database in it.
    pub fn open(folder: &Path, holder: &str) -> Result<Self, DbError> {
        own_folder(folder).map_err(|source| DbError::Folder { path: folder.to_owned(), source })?;
        let lock = FileLock::take(&folder.join(LOCK_FILE), holder)?;
        let path = folder.join(DATABASE_FILE);
        let mark = Mark { application: migrate::APPLICATION_ID, newest: migrate::NEWEST };
        let (mut db, version) = match database::look(&path, mark)? {
            Found::Empty(db) => (db, 0),
            Found::Ours(db, version) => (db, version),
        };
        database::prepare(&db, &path)?;
        db.set_prepared_statement_cache_capacity(STATEMENTS);
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version < migrate::NEWEST {
            migrate::upgrade(&transaction, version)?;
        }
        let epoch = epoch(&transaction)?;
        transaction.commit()?;
        let reader = match database::look(&path, mark)? {
            Found::Empty(db) | Found::Ours(db, _) => db,
        };
        reader.pragma_update(None, "query_only", true)?;
        reader.pragma_update(None, "temp_store", "MEMORY")?;
        reader.pragma_update(None, "trusted_schema", false)?;
        Ok(Self { db, reader, lock, epoch: Arc::from(epoch) })
    }

    /// Hands the database to threads of its own, which close it and end when the last [`Db`] is dropped. The one that
    /// is returned ends last.
    pub fn start(self) -> Result<(Db, JoinHandle<()>), DbError> {
        let (sender, mut jobs) = mpsc::channel::<Job>(QUEUE);
        let (surveys, mut surveyed) = mpsc::channel::<Survey>(SURVEYS);
        let Self { mut db, reader, lock, epoch } = self;
        let (changed, changes) = watch::channel(last_change(&db)?);
        let no_thread = |source| DbError::Folder { path: LOCK_FILE.into(), source };
        let reading = thread::Builder::new()
            .name("api-db-survey".to_owned())
            .spawn(move || {
                while let Some(survey) = surveyed.blocking_recv() {
                    survey(&reader);
                }
            })
            .map_err(no_thread)?;
        let thread = thread::Builder::new()
            .name("api-db".to_owned())
            .spawn(move || {
                while let Some(job) = jobs.blocking_recv() {
                    job(&mut db, &changed);
                }
                // The database closes before the lock goes. A survey cannot panic: its work is contained.
                let _ = reading.join();
                drop(db);
                drop(lock);
            })
            .map_err(no_thread)?;
        Ok((Db { jobs: sender, surveys, changes, epoch }, thread))
    }
}

/// Made with the database; a cursor of another epoch means nothing here.
fn epoch(transaction: &Transaction<'_>) -> Result<String, DbError> {
    let known =
        transaction.query_row("SELECT value FROM meta WHERE name = 'epoch'", [], |row| row.get(0)).optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    let epoch = random::hex::<8>()?;
    transaction.execute("INSERT INTO meta (name, value) VALUES ('epoch', ?1)", [&epoch])?;
    Ok(epoch)
}

/// Number of the last change of a claim, whichever service it was of.
fn last_change(db: &Connection) -> Result<i64, rusqlite::Error> {
    let mut statement = db.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'claim_changes'")?;
    Ok(statement.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// A handle on the database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    jobs: mpsc::Sender<Job>,
    surveys: mpsc::Sender<Survey>,
    changes: watch::Receiver<i64>,
    epoch: Arc<str>,
}

impl Db {
    /// Runs `work`, which only reads, on the database's thread; nothing is written in between.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.run(move |db, _| work(db)).await
    }

    /// Runs `work`, which only reads and may take long, beside everything else: it sees the database as it was when
    /// its statement began. Nothing is done for a caller who has left.
    pub async fn survey<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        let survey: Survey = Box::new(move |db| {
            if answer.is_closed() {
                return;
            }
            if let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| work(db))) {
                let _ = answer.send(outcome);
            }
        });
        self.surveys.send(survey).await.map_err(|_| Problem::database())?;
        received(answered).await
    }

    /// Runs `work` in one write transaction: all of it is on disk when this returns, or none, also where `work`
    /// fails. A caller that goes away does not undo what was begun.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.run(move |db, changed| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            let latest = last_change(db)?;
            changed.send_if_modified(|known| std::mem::replace(known, latest) != latest);
            Ok(value)
        })
        .await
    }

    /// Number of the last change of any claim; changes with each commit that has one.
    pub fn changes(&self) -> watch::Receiver<i64> {
        self.changes.clone()
    }

    /// Made with the database, 16 hex digits.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Returns when the database's thread has ended.
    pub async fn closed(&self) {
        self.jobs.closed().await;
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &watch::Sender<i64>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |db, changed| {
            // A panic ends the one piece of work, whose transaction is rolled back, and not the database.
            if let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| work(db, changed))) {
                // Whoever asked may have left; the work is done all the same.
                let _ = answer.send(outcome);
            }
        });
        self.jobs.send(job).await.map_err(|_| Problem::database())?;
        received(answered).await
    }
}

async fn received<T>(answered: oneshot::Receiver<Result<T, Problem>>) -> Result<T, Problem> {
    answered.await.unwrap_or_else(|_| {
        tracing::error!("work on the database panicked");
        Err(Problem::internal())
    })
}

#[cfg(test)]
#[path = "db_tests.rs"]
mod tests;
