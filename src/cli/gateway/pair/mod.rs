//! `gateway pair`: the bridge to a dashboard, in the foreground or looked after in the background.

mod background;
mod foreground;
mod lock;
mod note;
mod session;

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::gateway::lifecycle::LifecycleMode;
use crate::cli::gateway::pair::background::Background;
pub(super) use crate::cli::gateway::pair::background::fresh_log;
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
    /// What a bridge in the background says [default: ~/.sigilum/run/gateway-pair-bridge.log]
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Which process it is [default: ~/.sigilum/run/gateway-pair-bridge.pid]
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
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
    let background = Background::new(args.log_file.clone(), args.pid_file.clone());
    if args.action.status {
        return background.status(args.lifecycle_mode, printer).await;
    }
    if args.action.stop {
        return background.stop(printer).await;
    }
    let config = settings::load(&globals.flags(), &[])?;
    let pairing = args.session.resolve(&config, globals, printer)?;
    if args.action.daemon {
        return background.start(&pairing, args.lifecycle_mode, printer).await;
    }
    foreground::run(pairing, &config, printer).await
}

/// Puts a bridge for `session` in the place of the one in the background, if there is one.
pub(super) async fn replace(
    session: &SessionArgs,
    mode: LifecycleMode,
    config: &Config,
    globals: &Globals,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let pairing = session.resolve(config, globals, printer)?;
    let background = Background::new(None, None);
    background.stop(printer).await?;
    background.start(&pairing, mode, printer).await
}
