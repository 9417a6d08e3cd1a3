//! What a check says.

use std::path::PathBuf;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Good to know
    Info,
    /// Should be changed; requests are answered
    Warning,
    /// Something does not work, or a secret lies open
    Error,
    /// The gate may be open
    Critical,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The check.
    pub(super) id: &'static str,
    /// How bad it is.
    pub(super) severity: Severity,
    /// What is wrong, in a sentence without a full stop. Holds no secret.
    pub(super) message: String,
    /// The file or the setting it is about.
    pub(super) path: Option<String>,
    /// What to type or change.
    pub(super) hint: Option<String>,
    /// What `--fix` would do about it.
    pub(super) repair: Option<Repair>,
}

impl Finding {
    /// Without a place, a hint and a repair.
    pub(super) fn new(id: &'static str, severity: Severity, message: impl Into<String>) -> Self {
        Self { id, severity, message: message.into(), path: None, hint: None, repair: None }
    }

    /// Says what it is about.
    #[must_use]
    pub(super) fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what `--fix` does.
    #[must_use]
    pub(super) fn repair(mut self, repair: Repair) -> Self {
        self.repair = Some(repair);
        self
    }
}

/// What can be mended without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repair {
    /// Takes these permissions away.
    Tighten {
        /// The file or folder.
        path: PathBuf,
        /// Permission bits that go.
        take: u32,
    },
    /// Makes a folder, 0700.
    Folder(PathBuf),
    /// Removes what a gateway that is gone left, while nobody holds its lock.
    Remove {
        /// Files and sockets.
        paths: Vec<PathBuf>,
        /// The lock.
        lock: PathBuf,
    },
    /// Writes a unit's file anew.
    Unit {
        /// The file.
        path: PathBuf,
        /// What is to stand in it.
        text: String,
    },
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// It means nothing here, or what it takes is not known: why.
    Skipped(String),
    /// All is well: in a few words.
    Well(String),
    /// It is not.
    Found(Vec<Finding>),
}

impl Judged {
    /// Well, unless something was found.
    pub(super) fn of(findings: Vec<Finding>, well: impl Into<String>) -> Self {
        if findings.is_empty() { Self::Well(well.into()) } else { Self::Found(findings) }
    }
}
