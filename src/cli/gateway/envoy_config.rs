//! `gateway envoy-config`: the configuration the gateway gives its Envoy, on stdout.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;

use crate::cli::args::Globals;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::config::Config;
use crate::envoy::pod;
use crate::envoy::render;
use crate::envoy::render::RenderError;
use crate::envoy::render::Rendering;
use crate::envoy::sds;
use crate::sys::files;
use crate::sys::peer;

/// Options of `gateway envoy-config`.
#[derive(Debug, Clone, Args)]
pub(crate) struct EnvoyConfigArgs {
    /// Print the file as it is shipped, without any setting applied
    #[arg(long = "static", conflicts_with_all = ["in_container", "authz_socket"])]
    unchanged: bool,
    /// Write it to this file (0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Unix socket of authz, where it is not authz.sock in Envoy's working directory
    #[arg(long, value_name = "PATH")]
    authz_socket: Option<PathBuf>,
    /// For an Envoy in a container of its own: the read-only face listens on all its addresses. Publish it on loopback only, and give that container no network with agents
    #[arg(long)]
    in_container: bool,
    /// Leave the read-only face out: beside an application, which would reach it. `gateway drain --envoy` takes Envoy's own socket
    #[arg(long, conflicts_with_all = ["unchanged", "in_container"])]
    no_admin_face: bool,
    /// Add a listener for the probes of a container platform: `/ready` (Envoy is live) and `/healthz` (requests are decided)
    #[arg(long, value_name = "IP:PORT", conflicts_with = "unchanged")]
    probe_addr: Option<SocketAddr>,
    /// Add a listener where Prometheus reads Envoy's statistics: GET `/stats/prometheus` and nothing else. Keep agents from it
    #[arg(long, value_name = "IP:PORT", conflicts_with = "unchanged")]
    stats_addr: Option<SocketAddr>,
    /// Where the access log goes: `stdout` is for an Envoy whose run folder no admin shares, as nobody else puts the file aside
    #[arg(long, value_enum, value_name = "PLACE", default_value_t = AccessLogPlace::File, conflicts_with = "unchanged")]
    access_log: AccessLogPlace,
    /// With gateway.tls, for an Envoy that `gateway start` does not run: it takes the certificate by way of this file (SDS, an absolute path), and a renewed one without a restart. With --output the file is written too
    #[arg(long, value_name = "FILE", conflicts_with = "unchanged")]
    sds_file: Option<PathBuf>,
    /// Print what is to stand in that file instead
    #[arg(long, conflicts_with_all = ["unchanged", "output"])]
    print_sds: bool,
    /// Settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Where Envoy writes a line per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AccessLogPlace {
    /// access.log in its working directory; admin reads it there and keeps it in bounds
    File,
    /// Its standard output
    Stdout,
}

/// Prints it, or writes it. Socket paths in it are relative: Envoy runs with the run folder as its working directory.
pub(crate) fn run(args: &EnvoyConfigArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    if args.unchanged {
        put(args.output.as_deref(), render::STATIC, printer)?;
        return Ok(Outcome::Done);
    }
    let rendering = rendering(&args.settings.load(globals)?);
    let resources = match &rendering.tls {
        Some(tls) if args.print_sds || args.sds_file.is_some() => Some(sds::resources(tls).map_err(failed)?),
        Some(_) | None => None,
    };
    if args.print_sds {
        let none = || CliError::new(Outcome::Config, "gateway.tls names no certificate".to_owned());
        put(None, &resources.ok_or_else(none)?, printer)?;
        return Ok(Outcome::Done);
    }
    let text = text(args, rendering)?;
    // First what the other one refers to.
    if let (Some(file), Some(resources), Some(_)) = (&args.sds_file, &resources, &args.output) {
        put(Some(file), resources, printer)?;
    }
    put(args.output.as_deref(), &text, printer)?;
    Ok(Outcome::Done)
}

/// Into the file, or on stdout.
fn put(file: Option<&Path>, text: &str, printer: &mut Printer) -> Result<(), CliError> {
    match file {
        None => printer.bytes(text.as_bytes())?,
        Some(file) => files::write_private(file, text.as_bytes())
            .map_err(|error| CliError::new(Outcome::Config, format!("{}: {error}", file.display())))?,
    }
    Ok(())
}

fn failed(error: RenderError) -> CliError {
    CliError::new(Outcome::Config, error.to_string())
}

fn text(args: &EnvoyConfigArgs, mut rendering: Rendering) -> Result<String, CliError> {
    if args.in_container {
        // Its loopback is nobody's but its own; who publishes the port says who may come.
        for address in &mut rendering.admin_face {
            address.set_ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        }
        rendering.admin_face.dedup();
    }
    let text = render::render(&rendering).map_err(failed)?;
    let text = match (&rendering.tls, &args.sds_file) {
        (Some(_), Some(file)) if !file.is_absolute() => {
            let why = format!("{}: --sds-file is an absolute path", file.display());
            return Err(CliError::new(Outcome::Usage, why));
        }
        (Some(tls), Some(file)) => sds::refer(&text, tls, file).map_err(failed)?,
        (None | Some(_), None) | (None, Some(_)) => text,
    };
    let text = match args.probe_addr {
        Some(address) => pod::add_probe(&text, address).map_err(failed)?,
        None => text,
    };
    let text = match args.stats_addr {
        Some(address) => pod::add_stats(&text, address).map_err(failed)?,
        None => text,
    };
    let text = if args.no_admin_face { render::without_face(&text).map_err(failed)? } else { text };
    let text = match args.access_log {
        AccessLogPlace::File => text,
        AccessLogPlace::Stdout => render::with_access_log_on_stdout(&text).map_err(failed)?,
    };
    let Some(socket) = &args.authz_socket else { return Ok(text) };
    peer::check_socket_path(socket).map_err(|error| CliError::new(Outcome::Config, error.to_string()))?;
    render::with_authz_at(&text, socket).map_err(failed)
}

/// What the settings change in Envoy's file.
pub(crate) fn rendering(config: &Config) -> Rendering {
    let mut found = render::CA_FILES.iter().map(Path::new);
    Rendering {
        ingress: config.listen.ingress.clone(),
        admin_face: config.listen.envoy_admin.clone(),
        admin: config.listen.admin.clone(),
        max_body_bytes: config.settings.max_body_bytes,
        trusted_hops: config.envoy.trusted_hops,
        tls: config.envoy.tls.clone(),
        traces: config.traces.clone(),
        // Where this machine has none, the one that will probably run it is named.
        ca_file: found.find(|file| file.exists()).map_or_else(default_ca_file, Path::to_path_buf),
    }
}

fn default_ca_file() -> PathBuf {
    render::CA_FILES.first().map_or_else(PathBuf::new, PathBuf::from)
}
