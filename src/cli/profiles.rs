//! `sigilum profiles`: the gateways of this user, their ports, and which of them run.

use clap::Args;
use serde::Serialize;

use crate::app::gateway::instance::Instance;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::cli::table::Cell;
use crate::cli::table::Table;
use crate::cli::table::Tone;
use crate::config;
use crate::config::profile::DEFAULT;
use crate::config::profile::DEV;
use crate::config::profile::Ports;
use crate::config::profile::VARIABLE;
use crate::sys::env;

/// Options of `profiles`.
#[derive(Debug, Clone, Args)]
pub struct ProfilesArgs {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// One of them. Ports are those it listens on, or would by default.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    agents: u16,
    admin: u16,
    envoy_admin: u16,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    data_dir: String,
}

/// Prints them: the default one, those with ports of their own, and that of `--dev` where it was used.
pub(super) fn run(args: &ProfilesArgs, printer: &mut Printer) -> Result<Outcome, CliError> {
    let mut rows = vec![row(DEFAULT, Ports::DEFAULT)];
    rows.extend(profile::known()?.iter().map(|(name, place)| row(name, Ports::at(*place))));
    let dev = row(DEV, Ports::DEV);
    if std::path::Path::new(&dev.data_dir).exists() {
        rows.push(dev);
    }
    if args.json {
        printer.json(&rows)?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&["PROFILE", "AGENTS", "ADMIN", "ENVOY", "STATE"]);
    for row in rows {
        let port = |port: u16| Cell::from(port.to_string().as_str());
        let state = match row.pid {
            Some(pid) => Cell::toned(&format!("running (pid {pid})"), Tone::Good),
            None => Cell::toned("not running", Tone::Faint),
        };
        table.row(vec![row.name.as_str().into(), port(row.agents), port(row.admin), port(row.envoy_admin), state]);
    }
    printer.lines(&table.lines(printer.is_coloured()))?;
    Ok(Outcome::Done)
}

/// What is in the data folder of its own; one that was given another is not seen from here.
fn row(name: &str, ports: Ports) -> Row {
    let lookup = |variable: &str| if variable == VARIABLE { Some(name.to_owned()) } else { env::lookup(variable) };
    let data = config::default_data_dir(&lookup);
    let found = Instance::read(&data.join("run")).filter(|found| found.supervisor.is_alive());
    let first = |list: &[std::net::SocketAddr]| list.first().map(std::net::SocketAddr::port);
    let addresses = found.as_ref().map(|found| &found.addresses);
    Row {
        name: name.to_owned(),
        agents: addresses.and_then(|all| first(&all.ingress)).unwrap_or(ports.ingress),
        admin: addresses.and_then(|all| first(&all.admin)).unwrap_or(ports.admin),
        envoy_admin: addresses.and_then(|all| first(&all.envoy_admin)).unwrap_or(ports.envoy_admin),
        running: found.is_some(),
        pid: found.map(|found| found.supervisor.pid),
        data_dir: data.display().to_string(),
    }
}
