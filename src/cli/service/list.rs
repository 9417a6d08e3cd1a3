//! `service list`: what the API has, and which of it the gateway connects.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::app::connections_api::ApiError;
use crate::cli::args::Globals;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::OwnerArgs;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::cli::table::Table;
use crate::config::Config;

/// Options of `service list`.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArgs {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Whose services.
    #[command(flatten)]
    owner: OwnerArgs,
}

#[derive(Debug, Serialize)]
struct Listed {
    namespace: String,
    services: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    service_slug: String,
    service_name: String,
    domain: String,
    description: String,
    active_api_keys: u64,
    mode: &'static str,
}

/// Lists them, by slug.
pub(super) async fn run(args: &ListArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let config = settings::load(&globals.flags(), &[])?;
    let owner = owner::open_for_service(&args.owner, &config, globals, printer)?;
    let mut services = owner.api.services().await.map_err(|error| owner::failed(&error))?;
    services.sort_by(|one, other| one.slug.cmp(&other.slug));
    let connected = connected(&config, printer).await?;
    let row = |service: crate::app::owner_api::Service| Row {
        mode: if connected.contains(&service.slug) { "gateway" } else { "native" },
        service_slug: service.slug,
        service_name: service.name,
        domain: service.domain,
        description: service.description,
        active_api_keys: service.active_key_count,
    };
    let listed = Listed { namespace: owner.namespace.to_string(), services: services.into_iter().map(row).collect() };
    if args.json {
        printer.json(&listed)?;
        return Ok(Outcome::Done);
    }
    if listed.services.is_empty() {
        printer.line(&format!("No services registered for namespace \"{}\".", listed.namespace))?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&["SERVICE", "MODE", "API_KEYS", "NAME"]);
    for row in &listed.services {
        let keys = row.active_api_keys.to_string();
        table.row(vec![
            row.service_slug.as_str().into(),
            row.mode.into(),
            keys.as_str().into(),
            row.service_name.as_str().into(),
        ]);
    }
    printer.lines(&table.lines(printer.is_coloured()))?;
    Ok(Outcome::Done)
}

/// The slugs the gateway has connections for. A gateway that does not run has none to show: that is said.
async fn connected(config: &Config, printer: &mut Printer) -> Result<Vec<String>, CliError> {
    match gateway_api::open(config, printer)?.list().await {
        Ok(rows) => {
            let id = |row: &Value| row.get("id").and_then(Value::as_str).map(ToOwned::to_owned);
            Ok(rows.iter().filter_map(id).collect())
        }
        Err(ApiError::Unreachable { base, .. }) => {
            printer.warn(&format!("no gateway answers at {base}, so every service is shown as native"));
            Ok(Vec::new())
        }
        Err(error) => {
            let shown = gateway_api::failed(&error);
            printer.warn(&format!("{}; every service is shown as native", shown.message));
            Ok(Vec::new())
        }
    }
}
