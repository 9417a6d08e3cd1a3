//! The one place that prints: data on stdout, everything else on stderr.

use std::io;
use std::io::Write;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;

/// Where a command's words go. A reader that went away (a closed pipe) ends the command quietly.
pub struct Printer {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
}

impl Printer {
    /// The process's own stdout and stderr.
    pub fn standard() -> Self {
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()) }
    }

    /// Data: a line on stdout.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.out, "{text}").map_err(|error| gone(&error))
    }

    /// Data: raw bytes on stdout, flushed, so that a stream shows as it comes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(|error| gone(&error))
    }

    /// A note for the person: a line on stderr. That nobody reads it is no reason to fail.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// An error with its hint on stderr.
    pub fn error(&mut self, error: &CliError) {
        self.note(&format!("error: {}", error.message));
        if let Some(hint) = &error.hint {
            self.note(&format!("hint: {hint}"));
        }
    }
}

fn gone(error: &io::Error) -> CliError {
    CliError::new(Outcome::Failed, format!("could not write the output: {error}"))
}
