//! Exit codes: chosen in one place, from what happened and not from where.

use std::process::ExitCode;

use crate::sys::supervision;

/// How a command ended, for the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// The operation or a check failed.
    Failed,
    /// Not to be said: a reference leads nowhere, or it still goes on.
    Indeterminate,
    /// Nothing of that kind runs.
    NotRunning,
    /// The other side refused us.
    Unauthorized,
    /// The other side does not answer.
    Unreachable,
    /// A pairing session that is over: it takes another one, from the dashboard.
    Over,
    /// Wrong arguments (`EX_USAGE`).
    Usage,
    /// The gateway is to start anew; only its supervisor hears it (`EX_TEMPFAIL`).
    Anew,
    /// Something this machine would need is missing (`EX_UNAVAILABLE`).
    Unavailable,
    /// It passes by itself: the same helps later (`EX_TEMPFAIL`).
    Temporary,
    /// Configuration, bind or lock conflict (`EX_CONFIG`): starting again does not help.
    Config,
}

impl Outcome {
    /// The exit code: 0 to 5, 42 or one of `sysexits.h`.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Indeterminate => 2,
            Self::NotRunning => 3,
            Self::Unauthorized => 4,
            Self::Unreachable => 5,
            Self::Over => 42,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Temporary => 75,
            Self::Anew => supervision::EXIT_ANEW,
            Self::Config => 78,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}

/// A command that did not get through: what to say, what to do about it, and how it counts.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// One sentence, no trailing full stop, no secret.
    pub message: String,
    /// What to type or change next.
    pub hint: Option<String>,
    /// The exit code.
    pub outcome: Outcome,
}

impl CliError {
    /// A failure with its exit code.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, outcome }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
