//! Why there is no usable identity.

use std::io;
use std::path::PathBuf;

use crate::domain::ids::InvalidId;
use crate::sys::random::RandomError;

/// Why an identity was not found, read or made. No text of it holds anything from the file.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// What was given as a namespace is none.
    #[error("'{given}' is no namespace: it {source}")]
    Namespace {
        /// As given.
        given: String,
        /// What is wrong with it.
        source: InvalidId,
    },
    /// The home holds no identity at all.
    #[error("no identity in {home}; make one with: sigilum identity init --namespace NAME")]
    None {
        /// Where was looked.
        home: PathBuf,
    },
    /// The home holds several and none was named.
    #[error("several identities in {home}, name one of them with --namespace: {}", names.join(", "))]
    Several {
        /// Where was looked.
        home: PathBuf,
        /// Their namespaces, sorted.
        names: Vec<String>,
    },
    /// The namespace has no identity file.
    #[error("there is no identity at {path}; make one with: sigilum identity init --namespace NAME")]
    NotFound {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not the JSON it should be.
    #[error("{path}: not an identity record: {problem} at line {line}, column {column}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What kind of mistake.
        problem: &'static str,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// The record is readable and wrong.
    #[error("{path}: {problem}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// No randomness, no key.
    #[error(transparent)]
    Random(#[from] RandomError),
}
