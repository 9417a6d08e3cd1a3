//! `sigilum secrets …`: the references of `gateway.yaml`, resolved anew by the running gateway, and a search for secrets
//! that lie about in clear.

pub(crate) mod audit;

use clap::Args;
use clap::Subcommand;

use crate::app::connections_api::ConnectionsApi;
use crate::cli::args::Globals;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::secrets::audit::AuditArgs;
use crate::cli::settings;
use crate::wire::reload::SecretsReloadBody;
use crate::wire::reload::SecretsStatusBody;

/// `secrets` and what to do.
#[derive(Debug, Args)]
pub struct SecretsArgs {
    #[command(subcommand)]
    command: SecretsCommand,
}

#[derive(Debug, Subcommand)]
enum SecretsCommand {
    /// Have the running gateway resolve every reference again: all of the new secrets are used, or none
    Reload(ReloadArgs),
    /// Show how it stands with each reference; never its secret
    Status(StatusArgs),
    /// Look for secrets in clear and for references that lead nowhere
    Audit(AuditArgs),
}

/// Options of `secrets reload`.
#[derive(Debug, Clone, Args)]
struct ReloadArgs {
    /// Resolve and tell, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Print nothing where all went well
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
}

/// Options of `secrets status`.
#[derive(Debug, Clone, Args)]
struct StatusArgs {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub(crate) async fn run(args: &SecretsArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    match &args.command {
        SecretsCommand::Reload(args) => reload(args, globals, printer).await,
        SecretsCommand::Status(args) => status(args, globals, printer).await,
        SecretsCommand::Audit(args) => audit::run(args, globals, printer).await,
    }
}

fn open(globals: &Globals, printer: &mut Printer) -> Result<ConnectionsApi, CliError> {
    gateway_api::open(&settings::load(&globals.flags(), &[])?, printer)
}

async fn reload(args: &ReloadArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let api = open(globals, printer)?;
    let told = api.reload_secrets(args.dry_run).await.map_err(|error| gateway_api::failed(&error))?;
    let told: SecretsReloadBody = serde_json::from_value(told).map_err(|error| senseless(&error))?;
    let outcome = if told.ok { Outcome::Done } else { Outcome::Indeterminate };
    if args.json {
        printer.json(&told)?;
        return Ok(outcome);
    }
    for warning in &told.warnings {
        printer.warn(&format!("{}: {} [{}]", warning.path, warning.message, warning.code));
    }
    if !told.ok {
        let lines =
            told.unresolved.iter().map(|found| format!("  {} ({}): {}", found.path, found.reference, found.message));
        let lines = lines.collect::<Vec<_>>().join("\n");
        let text =
            format!("{} references were not resolved; the last secrets stay in use\n{lines}", told.refs.unresolved);
        return Err(CliError::new(outcome, text).hint("sigilum secrets status"));
    }
    if !args.quiet {
        let what = if args.dry_run { "would change" } else { "changed" };
        let (active, changed, generation) = (told.refs.active, told.refs.changed, told.generation);
        printer.ok(&format!(
            "{active} references resolved in {} ms, {changed} {what}; generation {generation}.",
            told.duration_ms
        ))?;
    }
    Ok(outcome)
}

async fn status(args: &StatusArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let api = open(globals, printer)?;
    let told = api.secrets_status().await.map_err(|error| gateway_api::failed(&error))?;
    let told: SecretsStatusBody = serde_json::from_value(told).map_err(|error| senseless(&error))?;
    let outcome = if told.ok { Outcome::Done } else { Outcome::Indeterminate };
    if args.json {
        printer.json(&told)?;
        return Ok(outcome);
    }
    let how = if told.degraded { "degraded: the last secrets are in use" } else { "all resolved" };
    printer.line(&format!("generation {}, {} s old, {how}", told.generation, told.age_seconds))?;
    for found in &told.references {
        let fingerprint = found.fingerprint.as_deref().unwrap_or("-");
        printer.line(&format!("{:<11} {fingerprint:<12} {} ({})", found.state, found.path, found.reference))?;
    }
    for found in &told.unresolved {
        printer.warn(&format!("{} ({}): {}", found.path, found.reference, found.message));
    }
    Ok(outcome)
}

fn senseless(error: &serde_json::Error) -> CliError {
    CliError::new(Outcome::Failed, format!("the gateway's answer was not understood: {error}"))
        .hint("the gateway that runs is another version than this command")
}
