//! `gateway start`: admin, authz and Envoy as one life in the foreground.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::gateway::launch;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::replace;
use crate::cli::gateway::role;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::config::keys;
use crate::domain::secret::Secret;

/// Options of `gateway start`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StartArgs {
    /// Read the admin token from this file [default: GATEWAY_ADMIN_TOKEN, else <data-dir>/admin-token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Taken so that it can be refused with a reason: arguments are visible to every process.
    #[arg(long, hide = true, value_name = "TOKEN")]
    token: Option<String>,
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
    if args.token.is_some() {
        return Err(CliError::new(
            Outcome::Usage,
            "the admin token cannot be given as an argument: every process can read arguments",
        )
        .hint("give --token-file FILE, or set GATEWAY_ADMIN_TOKEN"));
    }
    let handed = handed(args.token_file.as_deref())?;
    let (config, text) = args.settings.load_text(globals, &handed)?;
    if args.force {
        replace::running(&config, args.yes, printer).await?;
    }
    let namespace = launch::namespace(&config, printer)?;
    let prepared = launch::prepare(&config, &namespace)?;
    launch::announce(&config, &namespace, &prepared, printer)?;
    let typed = args.settings.typed(globals);
    let mut loader = launch::loader(args.settings.clone(), globals.clone(), handed, namespace.clone(), typed.clone());
    let mut config = launch::gateway_config(config, text, &namespace, typed);
    if args.verbose {
        launch::speak_up(&mut config, &mut loader);
    }
    launch::foreground(config, loader, None, false, printer).await
}

/// The admin token of a file, which stands in for the variable. A file without one would leave the gateway with another token
/// than whoever named it means.
fn handed(file: Option<&Path>) -> Result<Vec<(String, Secret)>, CliError> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let token = gateway_api::stored_token(file)?
        .ok_or_else(|| CliError::new(Outcome::Config, format!("{}: there is no token", file.display())))?;
    Ok(keys::ADMIN_TOKEN.env.iter().map(|name| ((*name).to_owned(), token.duplicate())).collect())
}
