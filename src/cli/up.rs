//! `up`: the local stack in the foreground; with `--demo` something to try it on.

use clap::Args;

use crate::app::up;
use crate::app::up::DemoConfig;
use crate::cli::args::Globals;
use crate::cli::gateway::launch;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::role;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::domain::ids::Namespace;

/// The demo's namespace where none is set.
const DEMO_NAMESPACE: &str = "demo";

/// Options of `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Add a demo upstream, a connection to it and an agent that may use it
    #[arg(long)]
    pub demo: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Runs the gateway; with `--demo` the agent becomes the default of later commands.
pub(crate) async fn run(args: &UpArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    // The master key passes through this process.
    role::harden()?;
    let config = args.settings.load(globals)?;
    let namespace = match &config.namespace {
        None if args.demo => Namespace::parse(DEMO_NAMESPACE)
            .map_err(|invalid| CliError::new(Outcome::Failed, format!("the demo's namespace {invalid}")))?,
        _ => launch::namespace(&config, printer)?,
    };
    let prepared = launch::prepare(&config, &namespace)?;
    launch::announce(&config, &namespace, &prepared, printer)?;
    let home = config.paths.home.clone();
    let demo = args.demo.then(|| DemoConfig {
        port: config.upstream_port,
        identity: prepared.identity,
        secret_file: home.join(format!("gateway-connection-secret-{}", up::CONNECTION)),
    });
    if demo.is_some() {
        let home = std::path::absolute(&home).unwrap_or(home);
        let home = home.display().to_string();
        settings::save(&[("SIGILUM_NAMESPACE", namespace.as_str()), ("GATEWAY_SIGILUM_HOME", &home)])?;
    }
    launch::foreground(launch::gateway_config(config, &namespace), demo, printer).await
}
