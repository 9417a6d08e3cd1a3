//! `sigilum service add | list | secret set | key`: services with their keys and connections, through the Sigilum
//! API and the admin API of the gateway; no store is opened here.

mod add;
mod connection;
mod key;
mod list;
mod secret;
mod source;

use std::path::Path;

use clap::Args;
use clap::Subcommand;
use zeroize::Zeroizing;

use crate::app::connections_api::ApiError;
use crate::app::connections_api::ConnectionsApi;
use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::service::add::AddArgs;
use crate::cli::service::key::KeyCommand;
use crate::cli::service::list::ListArgs;
use crate::cli::service::secret::SetArgs;
use crate::cli::token;
use crate::config::Config;
use crate::domain::ids::ConnectionId;
use crate::domain::secret::Secret;
use crate::sys::files;

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
        ServiceCommand::Secret(SecretArgs { command: SecretCommand::Set(args) }) => {
            secret::run(args, globals, printer).await
        }
        ServiceCommand::Key(KeyArgs { command }) => key::run(command, globals, printer).await,
    }
}

/// A slug as typed. Nothing is rewritten: what is registered is what stands in approvals and in paths.
fn slug(typed: &str) -> Result<ConnectionId, CliError> {
    ConnectionId::parse(typed).map_err(|invalid| {
        let refused = CliError::new(Outcome::Failed, format!("the slug {typed:?} {invalid}"));
        match ConnectionId::parse(&typed.trim().to_lowercase().replace(['_', ' ', '.'], "-")) {
            Ok(near) => refused.hint(format!("perhaps {near}")),
            Err(_) => refused,
        }
    })
}

/// A secret for people who know it: its ends, and nothing of a short one.
fn masked(secret: &Secret, reveal: bool) -> String {
    let letters: Vec<char> = secret.expose().chars().collect();
    let ends = (letters.get(..4), letters.get(letters.len().saturating_sub(4)..));
    match ends {
        _ if reveal => secret.expose().to_owned(),
        (Some(head), Some(tail)) if letters.len() > 8 => head.iter().chain(&['.', '.', '.']).chain(tail).collect(),
        _ => "****".to_owned(),
    }
}

/// `SIGILUM_SERVICE_API_KEY_<SUFFIX>`: the variable that may hold a service's key.
fn key_variable(slug: &ConnectionId) -> String {
    let upper = slug.as_str().to_ascii_uppercase();
    let words: Vec<_> = upper.split('-').filter(|word| !word.is_empty()).collect();
    format!("SIGILUM_SERVICE_API_KEY_{}", words.join("_"))
}

/// The admin API of the gateway the settings mean.
fn gateway(config: &Config, printer: &mut Printer) -> Result<ConnectionsApi, CliError> {
    if !owner::is_loopback(&config.admin_url) && config.admin_url.starts_with("http:") {
        printer.warn(&format!("the admin token goes to {} in clear; use https", config.admin_url));
    }
    let token = match &config.admin.token {
        Some(token) => Some(token.duplicate()),
        None => stored_token(&config.paths.data_dir.join("admin-token"))?,
    };
    ConnectionsApi::new(&config.admin_url, token.as_ref()).map_err(|error| gateway_failed(&error))
}

fn stored_token(file: &Path) -> Result<Option<Secret>, CliError> {
    match files::read_text(file, token::MAX_BYTES).map(Zeroizing::new) {
        Ok(text) => Ok(token::tidy(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::new(Outcome::Config, format!("{}: {error}", file.display()))),
    }
}

/// An error of the gateway with its exit code and what to do next.
fn gateway_failed(error: &ApiError) -> CliError {
    let shown = |outcome| CliError::new(outcome, format!("the gateway: {error}"));
    match error {
        ApiError::Address { .. } => shown(Outcome::Config).hint("see --gateway-admin-url and GATEWAY_ADMIN_URL"),
        ApiError::Client(_) | ApiError::Token => shown(Outcome::Failed),
        ApiError::Unreachable { .. } => shown(Outcome::Unreachable)
            .hint("start it with `sigilum up` or `sigilum gateway start`, or see --gateway-admin-url"),
        ApiError::Redirect { .. } | ApiError::Unexpected { .. } => {
            shown(Outcome::Failed).hint("is that the admin API of a gateway? see --gateway-admin-url")
        }
        ApiError::Refused(refusal) if matches!(refusal.status, 401 | 403) => shown(Outcome::Unauthorized).hint(
            "the token is GATEWAY_ADMIN_TOKEN, else <data-dir>/admin-token of the gateway; see --gateway-data-dir",
        ),
        ApiError::Refused(_) => shown(Outcome::Failed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_slug_is_refused_with_its_rule_and_a_guess() {
        let error = slug("My_Service").unwrap_err();
        assert!(error.message.contains("a-z") && error.outcome == Outcome::Failed, "{error}");
        assert_eq!(error.hint.as_deref(), Some("perhaps my-service"));
        assert!(slug("x").unwrap_err().hint.is_none());
        assert_eq!(key_variable(&slug("my-svc-2").unwrap()), "SIGILUM_SERVICE_API_KEY_MY_SVC_2");
        assert_eq!(key_variable(&slug("a---b").unwrap()), "SIGILUM_SERVICE_API_KEY_A_B");
    }

    #[test]
    fn a_mask_shows_the_ends_of_long_secrets_only() {
        let shown = |text: &str| masked(&Secret::new(text.to_owned()), false);
        assert_eq!((shown("12345678").as_str(), shown("123456789").as_str()), ("****", "1234...6789"));
        assert_eq!(shown("äöüß-ñøåé"), "äöüß...ñøåé");
        assert_eq!(masked(&Secret::new("abc".to_owned()), true), "abc");
    }
}
