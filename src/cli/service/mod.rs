//! `sigilum service add | list | rm | secret set | key`: services with their keys and connections, through the Sigilum
//! API and the admin API of the gateway; no store is opened here.

mod add;
mod connection;
mod key;
mod list;
mod remove;
mod secret;
mod source;

use clap::Args;
use clap::Subcommand;

use crate::cli::args::Globals;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::service::add::AddArgs;
use crate::cli::service::key::KeyCommand;
use crate::cli::service::list::ListArgs;
use crate::cli::service::remove::RemoveArgs;
use crate::cli::service::secret::SetArgs;
use crate::domain::ids::ConnectionId;

/// `service` and what to do.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Register a service with a key; in gateway mode connect it too. Running it twice changes nothing
    Add(Box<AddArgs>),
    /// List the services of the namespace
    List(ListArgs),
    /// Remove a service with its keys and approvals; its connection stays
    Rm(RemoveArgs),
    /// Secrets of a service's connection
    Secret(SecretArgs),
    /// Keys of a service
    Key(KeyArgs),
}

#[derive(Debug, Args)]
struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Args)]
struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Put a new secret in place of the connection's old one
    Set(SetArgs),
}

/// Runs one of them.
pub(crate) async fn run(args: &ServiceArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    match &args.command {
        ServiceCommand::Add(args) => add::run(args, globals, printer).await,
        ServiceCommand::List(args) => list::run(args, globals, printer).await,
        ServiceCommand::Rm(args) => remove::run(args, globals, printer).await,
        ServiceCommand::Secret(SecretArgs { command: SecretCommand::Set(args) }) => {
            secret::run(args, globals, printer).await
        }
        ServiceCommand::Key(KeyArgs { command }) => key::run(command, globals, printer).await,
    }
}

/// The slug of a service.
fn slug(typed: &str) -> Result<ConnectionId, CliError> {
    gateway_api::slug("slug", typed)
}

/// `SIGILUM_SERVICE_API_KEY_<SUFFIX>`: the variable that may hold a service's key.
fn key_variable(slug: &ConnectionId) -> String {
    let upper = slug.as_str().to_ascii_uppercase();
    let words: Vec<_> = upper.split('-').filter(|word| !word.is_empty()).collect();
    format!("SIGILUM_SERVICE_API_KEY_{}", words.join("_"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn the_variable_of_a_key_follows_from_the_slug() {
        assert_eq!(key_variable(&slug("my-svc-2").unwrap()), "SIGILUM_SERVICE_API_KEY_MY_SVC_2");
        assert_eq!(key_variable(&slug("a---b").unwrap()), "SIGILUM_SERVICE_API_KEY_A_B");
    }
}
