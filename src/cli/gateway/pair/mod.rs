//! `gateway pair`: the bridge to a dashboard, in the foreground or looked after in the background.

mod background;
mod foreground;
mod lock;
mod note;
mod session;

use std::path::PathBuf;

use clap::Args;

use crate::app::pair::Sealing;
use crate::cli::args::Globals;
use crate::cli::gateway::lifecycle::LifecycleMode;
use crate::cli::gateway::pair::background::Background;
pub(super) use crate::cli::gateway::pair::background::fresh_log;
use crate::cli::gateway::pair::foreground::Places;
pub(super) use crate::cli::gateway::pair::foreground::check_api;
pub(super) use crate::cli::gateway::pair::foreground::sealing;
pub(super) use crate::cli::gateway::pair::session::Pairing;
pub(super) use crate::cli::gateway::pair::session::SessionArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::config::Config;

/// Options of `gateway pair`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The dashboard shows a session id and a pair code. Every process of this machine can read arguments: \
    give them by SIGILUM_PAIR_SESSION_ID and SIGILUM_PAIR_CODE, or as one line ID:CODE in a file or on standard input \
    (--pair-code-file -).\n\
    Exit codes: 0 told to stop, 1 one of both ends does not answer as it should, 42 the session is over, 64 wrong \
    arguments, 78 another bridge has the session."
)]
pub(super) struct PairArgs {
    /// Which session.
    #[command(flatten)]
    session: SessionArgs,
    /// What to do.
    #[command(flatten)]
    action: ActionArgs,
    /// Who looks after the bridge in the background
    #[arg(long, value_name = "MODE", value_enum, default_value = "auto")]
    lifecycle_mode: LifecycleMode,
    /// What a bridge in the background says [default: ~/.sigilum/run/gateway-pair-bridge.log; beside a --pid-file]
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Which process it is [default: ~/.sigilum/run/gateway-pair-bridge.pid]
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// The address of --gateway-admin-url was computed: the token goes there while the gateway of the data folder listens
    #[arg(long, hide = true)]
    own_gateway: bool,
    /// Where the bridge says how it stands
    #[arg(long, hide = true, value_name = "FILE")]
    state_file: Option<PathBuf>,
}

/// One of four.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
struct ActionArgs {
    /// Run here, until told to stop (the default)
    #[arg(long)]
    foreground: bool,
    /// Run in the background
    #[arg(long)]
    daemon: bool,
    /// Say whether one runs in the background
    #[arg(long)]
    status: bool,
    /// Stop the one in the background
    #[arg(long)]
    stop: bool,
}

/// Does it.
pub(super) async fn run(args: &PairArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let mut flags = globals.flags();
    flags.own_gateway = args.own_gateway;
    let mut config = settings::load(&flags, &[])?;
    config.admin_url_set &= !args.own_gateway;
    let background = Background::new(&config, args.log_file.clone(), args.pid_file.clone());
    if args.action.status {
        return background.status(args.lifecycle_mode, printer).await;
    }
    if args.action.stop {
        if !background.stop(printer).await? {
            printer.line("Gateway pair bridge is not running.")?;
        }
        return Ok(Outcome::Done);
    }
    let pairing = args.session.resolve(&config, globals, printer)?;
    if args.action.daemon {
        return start(&background, &pairing, args.lifecycle_mode, &config, printer).await;
    }
    let places = Places { log: args.log_file.clone(), state: args.state_file.clone() };
    foreground::run(pairing, &config, places, printer).await
}

/// Starts a bridge in the background, and shows what a person compares with the dashboard.
async fn start(
    background: &Background,
    pairing: &Pairing,
    mode: LifecycleMode,
    config: &Config,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let outcome = background.start(pairing, mode, printer).await?;
    if outcome == Outcome::Done
        && let Sealing::Fingerprint(fingerprint) = sealing(&pairing.admin_url, config).await?
    {
        printer.line(&format!("sealing key fingerprint: {fingerprint}"))?;
    }
    Ok(outcome)
}

/// Puts a bridge for a session in the place of the one in the background, if there is one.
pub(super) async fn replace(
    pairing: &Pairing,
    mode: LifecycleMode,
    config: &Config,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let background = Background::new(config, None, None);
    background.stop(printer).await?;
    start(&background, pairing, mode, config, printer).await
}

/// Ends the bridge in the background of the gateway of these settings, if there is one.
pub(super) async fn end(config: &Config, printer: &mut Printer) -> Result<(), CliError> {
    Background::new(config, None, None).stop(printer).await?;
    Ok(())
}
