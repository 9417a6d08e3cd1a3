//! `gateway sealing-key`: what others seal secrets to, so that a person can compare it, and another one in its place. Online
//! through the admin process that holds the store, else by taking its lock.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use serde::Serialize;

use crate::app::upkeep::Offline;
use crate::app::upkeep::SealingKeyAnswer;
use crate::app::upkeep::SealingKeyReplacedAnswer;
use crate::app::upkeep::StoreError;
use crate::cli::args::Globals;
use crate::cli::confirm;
use crate::cli::gateway::master_key;
use crate::cli::gateway::role;
use crate::cli::gateway::store;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;

/// `gateway sealing-key` and what to do with it.
#[derive(Debug, Clone, Args)]
pub(crate) struct SealingKeyArgs {
    #[command(subcommand)]
    command: SealingKeyCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum SealingKeyCommand {
    /// Show the public key and its fingerprint, to compare with what a dashboard shows
    Show(ShowArgs),
    /// Put another key in its place; what was sealed to the old one and has not arrived opens no more
    Rotate(RotateArgs),
}

#[derive(Debug, Clone, Args)]
struct ShowArgs {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Configuration file [default: <home>/gateway.yaml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
struct RotateArgs {
    /// Do not ask: every dashboard that has pinned the fingerprint must be told the new one
    #[arg(long)]
    yes: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Configuration file [default: <home>/gateway.yaml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The key as programs read it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    public_key: &'a str,
    fingerprint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<&'a str>,
}

/// Shows or replaces it.
pub(crate) async fn run(args: &SealingKeyArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    // The master key passes through this process.
    role::harden()?;
    match &args.command {
        SealingKeyCommand::Show(args) => show(args, globals, printer).await,
        SealingKeyCommand::Rotate(args) => rotate(args, globals, printer).await,
    }
}

async fn show(args: &ShowArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let mut config = store::load(globals, args.config.as_deref())?;
    let keys = master_key::keys(&mut config);
    let key: SealingKeyAnswer = match Offline::open(&config.paths.data_dir, &keys, "sealing-key show") {
        Ok(mut open) => open.sealing_key().map_err(|error| failed(store::failed(&error, &config), &error))?.into(),
        Err(StoreError::Locked(held)) => {
            let api = gateway_api::store(&config, printer)?;
            api.sealing_key().await.map_err(|error| store::api_failed(&error, &held.to_string()))?
        }
        Err(error) => return Err(store::failed(&error, &config)),
    };
    if args.json {
        printer.json(&Shown { public_key: &key.public_key, fingerprint: &key.fingerprint, previous: None })?;
    } else {
        printer.line(&format!("fingerprint {}", key.fingerprint))?;
        printer.line(&format!("public key  {}", key.public_key))?;
    }
    Ok(Outcome::Done)
}

async fn rotate(args: &RotateArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    if !args.yes {
        confirm::check_attended()?;
        let question = "Every dashboard that has pinned the fingerprint must be told the new one. Go on?";
        if !confirm::ask(question, printer)? {
            return Err(CliError::new(Outcome::Failed, "nothing was changed"));
        }
    }
    let mut config = store::load(globals, args.config.as_deref())?;
    let keys = master_key::keys(&mut config);
    let done: SealingKeyReplacedAnswer = match Offline::open(&config.paths.data_dir, &keys, "sealing-key rotate") {
        Ok(mut open) => open.replace_sealing_key().map_err(|error| store::failed(&error, &config))?.into(),
        Err(StoreError::Locked(held)) => {
            let api = gateway_api::store(&config, printer)?;
            api.replace_sealing_key().await.map_err(|error| store::api_failed(&error, &held.to_string()))?
        }
        Err(error) => return Err(store::failed(&error, &config)),
    };
    let SealingKeyAnswer { public_key, fingerprint } = &done.key;
    if args.json {
        printer.json(&Shown { public_key, fingerprint, previous: done.previous.as_deref() })?;
        return Ok(Outcome::Done);
    }
    printer.ok(&format!("the sealing key is another: {fingerprint}"))?;
    if let Some(previous) = &done.previous {
        printer.note(&format!("what is sealed to {previous} opens no more; secrets that have arrived stay"));
    }
    printer.note("a dashboard that knows the old fingerprint seals nothing until the new one was compared there (page of the pairing)");
    Ok(Outcome::Done)
}

/// A key that does not open is replaced by its owner alone.
fn failed(shown: CliError, error: &StoreError) -> CliError {
    if matches!(error, StoreError::Seal(_) | StoreError::Record { .. }) {
        return shown
            .hint("`sigilum gateway sealing-key rotate` puts another one in its place; a backup may still have it");
    }
    shown
}
