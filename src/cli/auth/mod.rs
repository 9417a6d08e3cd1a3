//! `sigilum auth login | refresh | show`, and `login`: the owner's token, kept in a file of its own.
//!
//! The token goes into its file and, where OpenClaw's notifier is switched on, into OpenClaw's configuration.
//! It is printed only where somebody asks for that.

mod login;
pub(crate) mod openclaw;

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;

use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::cli::token::Said;
use crate::domain::ids::Namespace;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::env;
pub(crate) use login::LoginArgs;

/// `auth` and what to do.
#[derive(Debug, Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, Subcommand)]
enum AuthCommand {
    /// Store the owner's token; for the local API make one
    Login(LoginArgs),
    /// Store a new token in place of the old one
    Refresh(LoginArgs),
    /// Print the stored token
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Folder of OpenClaw [default: OPENCLAW_HOME, else ~/.openclaw]
    #[arg(long, value_name = "PATH")]
    openclaw_home: Option<PathBuf>,
    /// Where the token is [default: <openclaw>/.sigilum/owner-token-<namespace>.jwt]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Runs one of them.
pub(crate) async fn run(args: &AuthArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    match &args.command {
        AuthCommand::Login(args) => login::run(args, false, globals, printer).await,
        AuthCommand::Refresh(args) => login::run(args, true, globals, printer).await,
        AuthCommand::Show(args) => show(args, globals, printer),
    }
}

/// `sigilum login`.
pub(crate) async fn login(args: &LoginArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    login::run(args, false, globals, printer).await
}

fn show(args: &ShowArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let file = match &args.token_file {
        Some(file) => file.clone(),
        None => {
            let openclaw = args.openclaw_home.clone().unwrap_or_else(owner::openclaw_home);
            owner::token_file(&openclaw, &namespace(globals, None)?)
        }
    };
    let Some(token) = owner::stored_token(&file)? else {
        return Err(CliError::new(Outcome::Failed, format!("there is no token in {}", file.display()))
            .hint("sigilum auth login"));
    };
    if let Some(ended) = Said::by(&token).and_then(|said| said.expired(SystemClock.now().seconds())) {
        printer.warn(&format!("this token expired at {}; sigilum auth refresh", ended.rfc3339()));
    }
    printer.line(token.expose())?;
    Ok(Outcome::Done)
}

/// The namespace that is meant: option, environment, `config.env`, the token's own, the user's name, `default`.
fn namespace(globals: &Globals, said: Option<&Said>) -> Result<Namespace, CliError> {
    const NAMES: &[&str] = &["SIGILUM_NAMESPACE", "GATEWAY_SIGILUM_NAMESPACE"];
    const SAVED: &[&str] = &["GATEWAY_SIGILUM_NAMESPACE", "SIGILUM_NAMESPACE"];
    let named = match &globals.namespace {
        Some(named) => Some(named.clone()),
        None => match NAMES.iter().find_map(|name| env::lookup(name)) {
            Some(named) => Some(named),
            None => settings::saved(SAVED)?,
        },
    };
    let of_token = || said.map(|said| said.namespace.clone()).filter(|namespace| !namespace.is_empty());
    let given = named.or_else(of_token).or_else(|| env::lookup("USER")).unwrap_or_else(|| "default".to_owned());
    Namespace::normalise(&given).map_err(|invalid| {
        CliError::new(Outcome::Failed, format!("the namespace {given:?} {invalid}")).hint("give --namespace NAME")
    })
}
