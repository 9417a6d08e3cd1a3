//! `gateway start`: admin, authz and Envoy as one life in the foreground.

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::gateway::launch;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::replace;
use crate::cli::gateway::role;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;

/// Options of `gateway start`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StartArgs {
    /// Log at debug, and copy every line of the logs to standard error as well
    #[arg(long)]
    verbose: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Stop the gateway of this installation that runs, and take its place
    #[arg(long)]
    force: bool,
    /// Do not ask (with --force)
    #[arg(long, requires = "force")]
    yes: bool,
}

/// Prepares what is missing, says what is started, runs it.
pub(crate) async fn run(args: &StartArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    // The master key passes through this process.
    role::harden()?;
    let (config, text) = args.settings.load_text(globals, &[])?;
    if args.force {
        replace::running(&config, args.yes, printer).await?;
    }
    let namespace = launch::namespace(&config, printer)?;
    let prepared = launch::prepare(&config, &namespace)?;
    launch::announce(&config, &namespace, &prepared, printer)?;
    let typed = args.settings.typed(globals);
    let mut loader =
        launch::loader(args.settings.clone(), globals.clone(), Vec::new(), namespace.clone(), typed.clone());
    let mut config = launch::gateway_config(config, text, &namespace, typed);
    if args.verbose {
        launch::speak_up(&mut config, &mut loader);
    }
    launch::foreground(config, loader, None, false, printer).await
}
