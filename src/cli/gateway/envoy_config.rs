//! `gateway envoy-config`: the configuration the gateway gives its Envoy, on stdout.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::config::Config;
use crate::envoy::probe;
use crate::envoy::render;
use crate::envoy::render::Rendering;

/// Options of `gateway envoy-config`.
#[derive(Debug, Clone, Args)]
pub(crate) struct EnvoyConfigArgs {
    /// Print the file as it is shipped, without any setting applied
    #[arg(long = "static")]
    unchanged: bool,
    /// Add a listener for the probes of a container platform: `/ready` (Envoy is live) and `/healthz` (requests are decided)
    #[arg(long, value_name = "IP:PORT", conflicts_with = "unchanged")]
    probe_addr: Option<SocketAddr>,
    /// Settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Prints it. Socket paths in it are relative: Envoy runs with the run folder as its working directory.
pub(crate) fn run(args: &EnvoyConfigArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    if args.unchanged {
        printer.bytes(render::STATIC.as_bytes())?;
        return Ok(Outcome::Done);
    }
    let config = args.settings.load(globals)?;
    let text =
        render::render(&rendering(&config)).map_err(|error| CliError::new(Outcome::Config, error.to_string()))?;
    let text = match args.probe_addr {
        Some(address) => {
            probe::add(&text, address).map_err(|error| CliError::new(Outcome::Config, error.to_string()))?
        }
        None => text,
    };
    printer.bytes(text.as_bytes())?;
    Ok(Outcome::Done)
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
