//! `connection status`: how it stands with each connection, and with `--probe` whether its provider answers now. Where the
//! gateway does not run it tells what the file declares, and says so.

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::app::connections_api::ApiError;
use crate::app::connections_api::ConnectionsApi;
use crate::cli::args::Globals;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::cli::span::age;
use crate::cli::table::Cell;
use crate::cli::table::Table;
use crate::cli::table::Tone;
use crate::config::Config;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::status::ConnectionStatusBody;
use crate::wire::status::ProbeBody;

/// Probes at a time: providers are not to be flooded, and the gateway bounds its tests too.
const AT_A_TIME: usize = 4;

/// Options of `connection status`.
#[derive(Debug, Clone, Args)]
pub(super) struct StatusArgs {
    /// Have the gateway send one request to the provider of each active connection
    #[arg(long)]
    probe: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    /// `gateway`, or `config` where it does not answer.
    source: &'static str,
    connections: Vec<ConnectionStatusBody>,
}

/// Tells it: exit 1 where a probe failed, 5 where the gateway does not answer.
pub(super) async fn run(args: &StatusArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    status(args.probe, args.json, globals, printer).await
}

/// The same for `connection list --probe`.
pub(super) async fn status(
    probe: bool,
    as_json: bool,
    globals: &Globals,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let config = settings::load(&globals.flags(), &[])?;
    let api = gateway_api::open(&config, printer)?;
    let (report, down) = match api.standing().await {
        Ok(rows) => {
            let read = |row| serde_json::from_value::<ConnectionStatusBody>(row).ok();
            let mut connections: Vec<_> = rows.into_iter().filter_map(read).collect();
            if probe {
                probe_all(&api, &mut connections).await;
            }
            (Report { source: "gateway", connections }, None)
        }
        Err(error @ ApiError::Unreachable { .. }) => {
            (Report { source: "config", connections: declared(&config) }, Some(gateway_api::failed(&error)))
        }
        Err(error) => return Err(gateway_api::failed(&error)),
    };
    if as_json {
        printer.json(&report)?;
    } else if report.connections.is_empty() {
        printer.line("No connections.")?;
    } else {
        printer.lines(&table(&report, SystemClock.now().seconds()).lines(printer.is_coloured()))?;
    }
    if let Some(error) = down {
        return Err(error);
    }
    let failed = |one: &ConnectionStatusBody| one.last_probe.as_ref().is_some_and(|probe| !probe.ok);
    let unwell = probe && report.connections.iter().any(|one| one.status == "active" && failed(one));
    Ok(if unwell { Outcome::Failed } else { Outcome::Done })
}

/// What the file declares; nobody says whether any of it works.
fn declared(config: &Config) -> Vec<ConnectionStatusBody> {
    let told = config.connections.iter().map(|declared| ConnectionStatusBody {
        id: declared.id().as_str().to_owned(),
        protocol: declared.checked.settings.protocol.name().to_owned(),
        status: if declared.checked.settings.active { "active" } else { "disabled" }.to_owned(),
        secret: None,
        last_probe: None,
        approved_agents: None,
    });
    told.collect()
}

async fn probe_all(api: &ConnectionsApi, connections: &mut [ConnectionStatusBody]) {
    // The gateway sends nothing to servers of this protocol yet.
    let wanted = connections.iter_mut().filter(|one| one.status == "active" && one.protocol == "http");
    stream::iter(wanted)
        .for_each_concurrent(AT_A_TIME, |one| async move {
            let began = Instant::now();
            let told = api.test(&one.id, &json!({})).await;
            let ms = u64::try_from(began.elapsed().as_millis()).ok();
            let at = SystemClock.now().wall.rfc3339();
            one.last_probe = Some(match told {
                Ok(told) => ProbeBody {
                    ok: told.get("status").is_some_and(|status| status == "pass"),
                    http_status: told
                        .get("http_status")
                        .and_then(Value::as_u64)
                        .and_then(|status| u16::try_from(status).ok())
                        .unwrap_or_default(),
                    ms,
                    at,
                    error: told.get("error").and_then(Value::as_str).map(ToOwned::to_owned),
                },
                Err(error) => ProbeBody { ok: false, http_status: 0, ms, at, error: Some(error.to_string()) },
            });
        })
        .await;
}

fn table(report: &Report, now: UnixSeconds) -> Table {
    let mut table = Table::new(&["CONNECTION", "PROTOCOL", "STATUS", "SECRET", "AGENTS", "PROBE", "AGO", "WHY"]);
    for one in &report.connections {
        let secret = one.secret.as_deref().unwrap_or_default();
        let tone = match secret {
            "resolved" => Tone::Good,
            "rotation-due" => Tone::Attention,
            "unresolved" => Tone::Bad,
            _ => Tone::Plain,
        };
        let probe = one.last_probe.as_ref();
        let (word, probed) = match probe {
            Some(probe) if probe.ok => (format!("ok {}", probe.http_status), Tone::Good),
            Some(probe) if probe.http_status > 0 => (format!("fail {}", probe.http_status), Tone::Bad),
            Some(_) => ("fail".to_owned(), Tone::Bad),
            None => (String::new(), Tone::Plain),
        };
        table.row(vec![
            one.id.as_str().into(),
            one.protocol.as_str().into(),
            Cell::toned(&one.status, if one.status == "active" { Tone::Good } else { Tone::Faint }),
            Cell::toned(secret, tone),
            one.approved_agents.map(|count| count.to_string()).unwrap_or_default().as_str().into(),
            Cell::toned(&word, probed),
            age(probe.map(|probe| probe.at.as_str()), now).as_str().into(),
            probe.and_then(|probe| probe.error.as_deref()).unwrap_or_default().into(),
        ]);
    }
    table
}
