//! The sealed connection store; exactly one process opens it.
//!
//! Owns the database file and the master key. Promises: a change is on disk before anybody hears of it, changes
//! are heard of in the order they were committed, no secret lies in the file in clear, and a database that
//! this version does not understand, or whose key is another, is left as it was. Never logs a secret.

pub mod audit;
mod audit_lines;
pub mod backup;
pub mod change;
pub mod declared;
pub mod engine;
pub mod holders;
pub mod last_tests;
pub mod last_use;
pub mod master_keys;
pub mod migrate;
pub mod records;
pub mod rekey;
pub mod restore;
pub mod rotation;
pub mod seal;
pub mod sealed;
pub mod sealing;
pub mod sizes;
pub mod unfit;
pub mod unlock;
pub mod variables;
pub mod vault;
pub mod worker;

use std::path::PathBuf;

use crate::domain::connection::InvalidConnection;
use crate::domain::connection::SECRETS_LOST;
use crate::domain::relay::RelayRefused;
use crate::domain::sealing::InvalidSealed;
use crate::store::declared::Place;
use crate::store::master_keys::KeyFileError;
use crate::store::seal::SealError;
use crate::sys::database::DatabaseError;
use crate::sys::files::LockError;
use crate::sys::random::RandomError;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process owns the data folder.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The database file, or the folder it lies in.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The master key is not the one the store was sealed with.
    #[error(
        "master key mismatch: the master key does not open {path}: it was sealed with another key; nothing was changed"
    )]
    WrongMasterKey {
        /// The database file.
        path: PathBuf,
    },
    /// The master key is nowhere, or its file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The new master key is the one in use.
    #[error("the new master key is the one in use")]
    SameMasterKey,
    /// The environment names the current key, and nobody gave the new one.
    #[error("GATEWAY_MASTER_KEY names the master key: the new one must lie in {next}")]
    NoNextMasterKey {
        /// Where it is looked for.
        next: PathBuf,
    },
    /// The environment still names the key before the last one.
    #[error(
        "the last change of the master key is not finished: GATEWAY_MASTER_KEY still names the old key, and the \
             store opens with the one in {next}"
    )]
    MasterKeyPending {
        /// The file of the key in use.
        next: PathBuf,
    },
    /// The master key is not lost.
    #[error("the master key is not lost: the store opens with it")]
    MasterKeyOpens,
    /// Sealed values that do not open stand in the way.
    #[error("these sealed values do not open: {}", .0.join(", "))]
    Unreadable(Vec<String>),
    /// The secrets of a connection are gone.
    #[error("{SECRETS_LOST}")]
    Lost,
    /// The secrets of a connection are gone, and not all of them were given.
    #[error("the secrets of this connection cannot be read any more: all of them must be given again; missing: {}",
            .0.join(", "))]
    SecretsIncomplete(Vec<String>),
    /// There is no store where one is needed.
    #[error("there is no store in {path}")]
    NoStore {
        /// Where the database file would be.
        path: PathBuf,
    },
    /// A record's seal does not open.
    #[error("a sealed record does not open: {0}")]
    Seal(#[from] SealError),
    /// A record cannot be read.
    #[error("the record of {id} cannot be read: {detail}")]
    Record {
        /// Connection id.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// No such connection.
    #[error("connection not found")]
    NotFound,
    /// The id is taken.
    #[error("a connection with this id exists already")]
    Exists,
    /// The connection stands in the configuration file, which alone changes it.
    #[error("connection {id} is declared in {place}: it is changed there and not over the admin API")]
    Declared {
        /// Its id.
        id: String,
        /// Where.
        place: Place,
    },
    /// The same of a credential variable.
    #[error("credential variable {key} is declared in {place}: it is changed there and not over the admin API")]
    VariableDeclared {
        /// Its key.
        key: String,
        /// Where.
        place: Place,
    },
    /// A declared name that occurs twice.
    #[error("{name} is declared twice")]
    DeclaredTwice {
        /// Id or key.
        name: String,
    },
    /// A secret refers to a credential variable that nothing defines.
    #[error("secrets: credential variable {key} is not defined")]
    VariableMissing {
        /// Its key.
        key: String,
    },
    /// No such credential variable.
    #[error("credential variable not found")]
    VariableNotFound,
    /// Connections refer to a credential variable.
    #[error("credential variable {key} is used by {} connections ({}); with force=true it goes all the same, and those that \
             inject it are without a secret", .connections.len(), some(.connections))]
    VariableInUse {
        /// Its key.
        key: String,
        /// Their ids.
        connections: Vec<String>,
    },
    /// A credential variable whose value refers to a credential variable.
    #[error(
        "value: the value of {key} refers to a credential variable itself; references go one level deep, so that \
             there is no cycle"
    )]
    VariableCycle {
        /// Its key.
        key: String,
    },
    /// A credential variable that is not valid; the text names the member.
    #[error("{0}")]
    VariableInvalid(String),
    /// A rotation that would change nothing.
    #[error("the rotation changes no secret")]
    Unchanged,
    /// As many connections as there may be.
    #[error("the store holds as many connections or variables as it may")]
    Full,
    /// What was asked for is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidConnection),
    /// A sealed value that does not open.
    #[error(transparent)]
    SealedInvalid(#[from] InvalidSealed),
    /// A relayed request that could send a secret elsewhere.
    #[error(transparent)]
    Relay(#[from] RelayRefused),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The store's thread has ended.
    #[error("the store is closed")]
    Closed,
}

/// The first of a list of names, for a sentence.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(DatabaseError::Sqlite(error))
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "test code may panic and print"
)]
mod crash_tests;
