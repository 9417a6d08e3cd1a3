//! `gateway drain` and `undrain`: no new requests for a while; what is in flight goes on.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::Instant;

use crate::app::connections_api::ConnectionsApi;
use crate::app::envoy_drain;
use crate::app::envoy_drain::Ports;
use crate::cli::args::Globals;
use crate::cli::duration;
use crate::cli::gateway::endpoint::Endpoint;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::reach;
use crate::sys::local_http;

/// How often requests in flight are counted.
const LOOK: Duration = Duration::from_millis(200);

/// Options of `gateway drain`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "New requests are 503 GATEWAY_DRAINING and the health check of :38000 fails until the lease ends, or \
    `sigilum gateway undrain LEASE`."
)]
pub(crate) struct DrainArgs {
    /// Wait this long until nothing is in flight, e.g. 30s; exit code 1 where something still is
    #[arg(long, value_name = "TIME", value_parser = duration::option, default_value = "0")]
    wait: u64,
    /// How long the drain lasts, e.g. 10m; at most 24h
    #[arg(long, value_name = "TIME", value_parser = duration::option, default_value = "5m")]
    lease: u64,
    /// Drain one Envoy alone, through its own admin socket (unix:PATH): its health check fails, its connections end one
    /// by one, and requests that still come are decided as ever
    #[arg(long, value_name = "ENDPOINT", value_parser = Endpoint::parse, conflicts_with_all = ["lease", "json"])]
    envoy: Option<Endpoint>,
    /// Of --envoy: wait at least this long, for the news to reach whoever sends requests here
    #[arg(long, value_name = "TIME", value_parser = duration::option, default_value = "0", requires = "envoy")]
    at_least: u64,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Settings: they say which gateway is meant.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Options of `gateway undrain`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UndrainArgs {
    /// The lease that `gateway drain` printed
    #[arg(value_name = "LEASE", required_unless_present = "all", conflicts_with = "all")]
    lease: Option<String>,
    /// End all leases, whoever holds them
    #[arg(long)]
    all: bool,
    /// Settings: they say which gateway is meant.
    #[command(flatten)]
    settings: SettingsArgs,
}

fn open(settings: &SettingsArgs, globals: &Globals, printer: &mut Printer) -> Result<ConnectionsApi, CliError> {
    gateway_api::open(&reach::answering(&settings.flags(globals), printer)?, printer)
}

/// Begins a drain.
pub(crate) async fn drain(args: &DrainArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    if let Some(endpoint) = &args.envoy {
        return drain_envoy(endpoint, args, printer).await;
    }
    let api = open(&args.settings, globals, printer)?;
    let mut lease = api.drain(args.lease).await.map_err(|error| gateway_api::failed(&error))?;
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    let mut left = in_flight(&lease);
    while left.is_some_and(|left| left > 0) && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        left = in_flight(&api.drain_status().await.map_err(|error| gateway_api::failed(&error))?);
    }
    if let (Value::Object(members), Some(left)) = (&mut lease, left) {
        members.insert("inFlight".to_owned(), left.into());
    }
    if args.json {
        printer.json(&lease)?;
    } else {
        let text = |name: &str| lease.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        printer.ok(&format!("draining until {}", text("expiresAt")))?;
        printer.line(&format!("lease:     {}", text("leaseId")))?;
        if let Some(left) = left {
            printer.line(&format!("in flight: {left}"))?;
        }
    }
    let cut = "`sigilum gateway stop` cuts off what is left, the end of the lease does not";
    Ok(outcome(left.unwrap_or_default(), args.wait, cut, printer))
}

/// Empties the one Envoy; needs neither settings nor token. Exit code 1 where requests are still in flight at the end.
async fn drain_envoy(endpoint: &Endpoint, args: &DrainArgs, printer: &mut Printer) -> Result<Outcome, CliError> {
    let Endpoint::Unix(path) = endpoint else {
        return Err(CliError::new(
            Outcome::Usage,
            "--envoy wants unix:PATH: Envoy's admin interface is a private socket",
        ));
    };
    let (least, patience) = (Duration::from_secs(args.at_least), Duration::from_secs(args.wait));
    let raw = local_http::Endpoint::Unix(path.clone());
    let left = envoy_drain::drain(&raw, Ports::Open, least, patience.max(least)).await;
    let left = left.map_err(|error| CliError::new(Outcome::Unreachable, format!("Envoy: {error}")))?;
    printer.line(&format!("in flight: {left}"))?;
    let waited = if args.wait > 0 { patience.max(least).as_secs() } else { 0 };
    Ok(outcome(left, waited, "the end of this Envoy cuts off what is left", printer))
}

/// How a drain ends that was to wait this many seconds: where requests are left, with how many and what would end them.
fn outcome(left: u64, waited: u64, cut: &str, printer: &mut Printer) -> Outcome {
    if waited == 0 || left == 0 {
        return Outcome::Done;
    }
    let requests = if left == 1 { "request is" } else { "requests are" };
    printer.warn(&format!("{left} {requests} still in flight after {waited} s"));
    printer.note(&format!(
        "a stream ends by itself after max_stream_seconds of its connection at the latest (3600 where nobody set it): wait \
         for it with a longer --wait; {cut}"
    ));
    Outcome::Failed
}

fn in_flight(body: &Value) -> Option<u64> {
    body.get("inFlight").and_then(Value::as_u64)
}

/// Ends it.
pub(crate) async fn undrain(args: &UndrainArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let api = open(&args.settings, globals, printer)?;
    // Without a lease `--all` was typed: one of the two is required.
    let ended = match &args.lease {
        Some(lease) => api.undrain(lease).await,
        None => api.undrain_all().await,
    };
    ended.map_err(|error| gateway_api::failed(&error))?;
    printer.ok(if args.all { "all leases have ended" } else { "the lease has ended" })?;
    Ok(Outcome::Done)
}
