//! `sigilum setup`: identity and master key made where they are missing, without starting anything.

use std::net::SocketAddr;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::gateway::launch;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::role;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;

/// Options of `setup`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "The namespace is remembered for later commands. What is there already stays as it is.")]
pub struct SetupArgs {
    /// Settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Makes what is missing and says where it is.
pub(super) fn run(args: &SetupArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    // The master key passes through this process.
    role::harden()?;
    let config = args.settings.load(globals)?;
    launch::check_local(&config)?;
    let namespace = launch::namespace(&config, printer)?;
    let prepared = launch::prepare(&config, &namespace)?;
    for line in prepared.made() {
        printer.ok(line)?;
    }
    let home = std::path::absolute(&config.paths.home).unwrap_or_else(|_| config.paths.home.clone());
    let home = home.display().to_string();
    let saved = settings::save(&[("SIGILUM_NAMESPACE", namespace.as_str()), ("GATEWAY_SIGILUM_HOME", &home)])?;
    let first = |list: &[SocketAddr]| list.first().map(ToString::to_string).unwrap_or_default();
    printer.line(&format!("namespace: {namespace}"))?;
    printer.line(&format!("home:      {home}"))?;
    printer.line(&format!("data:      {}", config.paths.data_dir.display()))?;
    printer.line(&format!("settings:  {}", saved.display()))?;
    printer.line(&format!("agents:    {}", first(&config.listen.ingress)))?;
    printer.line(&format!("admin:     {}", first(&config.listen.admin)))?;
    let dev = globals.settled.as_ref().is_some_and(|(_, profile)| profile.is_dev());
    let start = if dev { "gateway" } else { "gateway run" };
    printer.line(&format!("next:      {} {start}", launch::command()))?;
    Ok(Outcome::Done)
}
