//! `down`: stops what this installation started, and nothing else.

use clap::Args;

use crate::app::down;
use crate::app::down::Stopped;
use crate::cli::args::Globals;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;

/// Options of `down`.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// Settings: they say which installation is meant.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Stops it. Nothing to stop is no failure.
pub(crate) async fn run(args: &DownArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let config = args.settings.load(globals)?;
    let stopped = down::run(&config.paths.run_dir, config.drain)
        .await
        .map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    match stopped {
        Stopped::NothingRan => printer.line("[ok] gateway: not running")?,
        Stopped::Gracefully => printer.line("[ok] gateway: stopped")?,
        Stopped::Killed(names) => {
            printer.line(&format!("[ok] gateway: stopped ({} had to be killed)", names.join(", ")))?
        }
    }
    printer.line("Sigilum local stack shutdown complete.")?;
    Ok(Outcome::Done)
}
