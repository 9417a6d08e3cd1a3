//! `health --container`: whether what this container runs is well, for its health check.
//!
//! Process 1 of a container is the role that was chosen for it, so its arguments say whom to ask and where; the environment
//! of the check is its own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use http::Request;

use crate::app::authz_health::AuthzDoor;
use crate::app::status_api::StatusApi;
use crate::cli::args::Cli;
use crate::cli::args::Command;
use crate::cli::args::without_separator;
use crate::cli::gateway::GatewayRole;
use crate::cli::gateway::endpoint::Endpoint;
use crate::cli::gateway_api;
use crate::cli::health;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::config::Config;
use crate::sys::local_http;
use crate::sys::process;

/// The first process of a container.
const FIRST: i32 = 1;

/// Asks it: exit 0 well, 1 it says it is not, 3 it is none of ours, 5 it does not answer.
pub(super) async fn run(patience: Duration, printer: &mut Printer) -> Result<Outcome, CliError> {
    let arguments = process::arguments_of(FIRST).unwrap_or_default();
    let none = || CliError::new(Outcome::NotRunning, "process 1 is no part of a gateway that can be asked");
    let cli = Cli::try_parse_from(without_separator(arguments)).map_err(|_| none())?;
    if let Command::Api(args) = &cli.command {
        let address = args.settings(&cli.globals)?.addresses.first().copied().ok_or_else(none)?;
        return api(address, patience, printer).await;
    }
    let Command::Gateway(args) = &cli.command else { return Err(none()) };
    match args.role().ok_or_else(none)? {
        GatewayRole::Admin(settings) => admin(&settings.load(&cli.globals)?, patience, printer).await,
        GatewayRole::Authz(Endpoint::Unix(socket)) => {
            health::of_authz(&AuthzDoor::unix(socket), patience, printer).await
        }
        GatewayRole::Authz(Endpoint::Tcp(_)) => {
            Err(CliError::new(Outcome::Usage, "an authz on TCP answers only to who has a certificate: use --authz"))
        }
    }
}

async fn admin(config: &Config, patience: Duration, printer: &mut Printer) -> Result<Outcome, CliError> {
    let api = StatusApi::new(&config.admin_url, None, &gateway_api::trust(&config.admin.trust), patience);
    let api = api.map_err(|error| gateway_api::failed(&error))?;
    api.alive().await.map_err(|error| gateway_api::failed(&error))?;
    printer.line("alive")?;
    Ok(Outcome::Done)
}

async fn api(address: SocketAddr, patience: Duration, printer: &mut Printer) -> Result<Outcome, CliError> {
    let endpoint = local_http::Endpoint::Tcp(local_http::reachable(address));
    let answer = local_http::exchange(&endpoint, Request::get("/health"), Bytes::new(), patience).await;
    let answer = answer.map_err(|error| CliError::new(Outcome::Unreachable, format!("the API {error}")))?;
    let well = answer.status == 200;
    printer.line(if well { "alive" } else { "not well" })?;
    Ok(if well { Outcome::Done } else { Outcome::Failed })
}
