//! Where a command takes a secret from: a variable, a file, standard input, a person who types it unseen. Never an
//! argument: every process of the machine can read those, and the shell writes them down.

use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::domain::environment;
use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::files;
use crate::sys::terminal;

/// Longest secret, in bytes: the admin API takes no longer ones.
pub(crate) const MAX_BYTES: u64 = 16 * 1024;

/// A place that holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// An environment variable.
    Variable(&'a str),
    /// A file.
    File(&'a Path),
    /// Standard input to its end; on a terminal one line that does not show.
    Stdin,
}

impl Place<'_> {
    /// The secret there, without white space at its ends. `what` names it for the person who types it.
    pub(crate) fn read(&self, what: &str, printer: &mut Printer) -> Result<Secret, CliError> {
        let (text, place) = match self {
            Self::Variable(name) => {
                check_variable(name)?;
                let value = env::lookup(name).map(Zeroizing::new);
                (value.ok_or_else(|| failed(format!("the variable {name} is not set")))?, (*name).to_owned())
            }
            Self::File(file) => {
                let place = file.display().to_string();
                let text =
                    files::read_named_text(file, MAX_BYTES).map_err(|error| failed(format!("{place}: {error}")))?;
                (Zeroizing::new(text), place)
            }
            Self::Stdin if terminal::is_attended() => (typed(what, printer)?, "what was typed".to_owned()),
            Self::Stdin => (owner::read_stdin(what, MAX_BYTES, printer)?, "standard input".to_owned()),
        };
        let secret = text.trim();
        if secret.is_empty() {
            return Err(failed(format!("there is no secret in {place}")));
        }
        Ok(Secret::new(secret.to_owned()))
    }
}

/// What a person types unseen; may be empty.
pub(crate) fn typed(what: &str, printer: &mut Printer) -> Result<Zeroizing<String>, CliError> {
    let ask = || printer.ask(&format!("{what} (it does not show): "));
    let read = terminal::read_hidden(usize::try_from(MAX_BYTES).unwrap_or(usize::MAX), ask);
    printer.note("");
    read.map_err(|error| {
        if error.kind() == io::ErrorKind::Interrupted {
            return failed("interrupted; nothing was changed".to_owned());
        }
        failed(format!("the terminal: {error}"))
    })
}

/// A name that is none of a variable may be the secret itself, so it is not repeated.
fn check_variable(name: &str) -> Result<(), CliError> {
    if environment::is_name(name) {
        return Ok(());
    }
    Err(CliError::new(Outcome::Usage, "what should name an environment variable is no name of one")
        .hint("give the variable's name, not its value: every process of this machine can read arguments"))
}

/// The refusal of a secret among the arguments; it does not repeat it.
pub(crate) fn on_argv(options: &str) -> CliError {
    CliError::new(Outcome::Usage, "a secret cannot be given as an argument: every process can read arguments")
        .hint(format!("use {options}; and if it was a real one, clear it from the shell's history"))
}

fn failed(message: String) -> CliError {
    CliError::new(Outcome::Failed, message)
}
