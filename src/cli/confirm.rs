//! Questions that are answered with yes or no.

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::sys::terminal;

/// That somebody can be asked; where not, nothing is assumed: exit code 64.
pub(crate) fn check_attended() -> Result<(), CliError> {
    if terminal::is_attended() {
        return Ok(());
    }
    Err(CliError::new(Outcome::Usage, "nobody is at a terminal who could be asked").hint("give --yes"))
}

/// Asks; everything but `y` and `yes` is a no.
pub(crate) fn ask(question: &str, printer: &mut Printer) -> Result<bool, CliError> {
    check_attended()?;
    printer.ask(&format!("{question} [y/N] "));
    let answer = terminal::read_line()
        .map_err(|error| CliError::new(Outcome::Failed, format!("the terminal: {error}")))?
        .unwrap_or_default();
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}
