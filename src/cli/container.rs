//! `health --container`: whether what this container runs is well, for its health check.
//!
//! Process 1 of a container is the role that was chosen for it, so its arguments say whom to ask and where; the environment
//! of the check is its own.

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;

use crate::app::part_health;
use crate::app::part_health::AuthzHealth;
use crate::cli::args::Cli;
use crate::cli::args::Command;
use crate::cli::args::without_separator;
use crate::cli::gateway::GatewayRole;
use crate::cli::gateway::endpoint::Endpoint;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::config::Config;
use crate::sys::local_http;
use crate::sys::process;
use crate::sys::tls::trust::ServerTrust;

/// The first process of a container.
const FIRST: i32 = 1;

/// Asks it: exit 0 well, 1 it says it is not, 3 it is none of ours, 5 it does not answer.
pub(super) async fn run(patience: Duration, printer: &mut Printer) -> Result<Outcome, CliError> {
    let arguments = process::arguments_of(FIRST).unwrap_or_default();
    let none = || CliError::new(Outcome::NotRunning, "process 1 is no part of a gateway that can be asked");
    let cli = Cli::try_parse_from(without_separator(arguments)).map_err(|_| none())?;
    if let Command::Api(args) = &cli.command {
        let settings = args.settings(&cli.globals)?;
        let address = settings.addresses.first().copied().ok_or_else(none)?;
        let base = format!("http://{}", local_http::reachable(address));
        alive(&base, &["health"], &ServerTrust::default(), patience).await?;
    } else {
        let Command::Gateway(args) = &cli.command else { return Err(none()) };
        match args.role().ok_or_else(none)? {
            GatewayRole::Admin(settings) => admin(&settings.load(&cli.globals)?, patience).await?,
            GatewayRole::Authz(Endpoint::Unix(socket)) => authz(socket, patience).await?,
            GatewayRole::Authz(Endpoint::Tcp(_)) => {
                return Err(CliError::new(Outcome::Usage, "an authz on TCP answers only to who has a certificate"));
            }
        }
    }
    printer.line("ok")?;
    Ok(Outcome::Done)
}

async fn admin(config: &Config, patience: Duration) -> Result<(), CliError> {
    let trust = gateway_api::trust(&config.admin.trust);
    alive(&config.admin_url, &["health", "live"], &trust, patience).await
}

async fn authz(socket: &Path, patience: Duration) -> Result<(), CliError> {
    match part_health::of_authz(socket, patience).await {
        Ok(AuthzHealth::Serving) => Ok(()),
        Ok(AuthzHealth::NotServing) => {
            Err(CliError::new(Outcome::Failed, "authz has no state to decide with: admin has not been reached yet"))
        }
        Err(error) => Err(CliError::new(Outcome::Unreachable, error.to_string())),
    }
}

async fn alive(base: &str, path: &[&str], trust: &ServerTrust, patience: Duration) -> Result<(), CliError> {
    let answer = part_health::is_alive(base, path, trust, patience).await;
    answer.map_err(|error| CliError::new(Outcome::Unreachable, error.to_string()))
}
