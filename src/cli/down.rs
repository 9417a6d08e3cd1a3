//! `down`: stops what this installation started, and nothing else.

use clap::Args;

use crate::app::down;
use crate::app::down::Port;
use crate::app::down::Stopped;
use crate::app::own_listener;
use crate::cli::args::Globals;
use crate::cli::gateway;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::stop;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::reach;
use crate::cli::stack;
use crate::config::Config;
use crate::config::api as api_settings;
use crate::sys::env;
use crate::sys::process::PortHolder;

/// Options of `down`.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// Settings: they say which installation is meant.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Stops it. Nothing to stop is no failure, and neither is a port that is somebody else's.
pub(crate) async fn run(args: &DownArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let config = reach::running(&args.settings.flags(globals), printer)?;
    let ours = down::listening(&config.paths.run_dir);
    // First those who would start again what is stopped, or try to reach it.
    gateway::end_bridge(&config, printer).await?;
    let unit = stop::through_manager(&config).await?;
    let stopped = down::run(&config.paths.run_dir, config.drain)
        .await
        .map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    match stopped {
        Stopped::NothingRan => match unit {
            Some(unit) => printer.line(&format!("[ok] gateway: stopped (unit {unit})"))?,
            None => printer.line("[ok] gateway: not running")?,
        },
        Stopped::Gracefully => printer.line("[ok] gateway: stopped")?,
        Stopped::Killed(names) => {
            printer.line(&format!("[ok] gateway: stopped ({} had to be killed)", names.join(", ")))?
        }
    }
    let own_api = own_listener::api_process(&api_settings::data_dir(&env::lookup));
    let mut kept = Vec::new();
    for (label, port) in ports(&config, globals) {
        match down::look(port, &ours).await {
            Port::Freed => printer.line(&format!("[ok] {label}: stopped, :{port} is free"))?,
            Port::Quiet => printer.line(&format!("[ok] {label}: no listeners on :{port}"))?,
            Port::Foreign(Some(holder)) if own_api == Some(holder.pid) => printer.line(&format!(
                "[warn] {label}: `sigilum api` of this user (process {}) listens on :{port}; it was started by itself, left \
                 alone: kill {}",
                holder.pid, holder.pid
            ))?,
            Port::Foreign(holder) => {
                let who = who(holder.as_ref());
                printer
                    .line(&format!("[warn] {label}: {who} listens on :{port}; it was not started here, left alone"))?;
            }
            Port::Kept(holder) => kept.push(format!("{label} (:{port}, {})", who(holder.as_ref()))),
        }
    }
    if !kept.is_empty() {
        return Err(CliError::new(Outcome::Failed, format!("still in use: {}", kept.join(", "))));
    }
    printer.line("Sigilum local stack shutdown complete.")?;
    Ok(Outcome::Done)
}

/// The ports of the local stack by name. Each listener has one port on all of its addresses.
fn ports(config: &Config, globals: &Globals) -> Vec<(&'static str, u16)> {
    let first = |list: &[std::net::SocketAddr]| list.first().map(std::net::SocketAddr::port);
    [
        ("api", Some(stack::api_port(globals))),
        ("gateway admin", first(&config.listen.admin)),
        ("native demo", Some(config.native_port)),
        ("upstream demo", Some(config.upstream_port)),
        ("envoy ingress", first(&config.listen.ingress)),
        ("envoy admin", first(&config.listen.envoy_admin)),
    ]
    .into_iter()
    .filter_map(|(label, port)| Some((label, port?)))
    .collect()
}

fn who(holder: Option<&PortHolder>) -> String {
    holder.map_or_else(|| "a process".to_owned(), |holder| format!("process {} ({})", holder.pid, holder.name))
}
