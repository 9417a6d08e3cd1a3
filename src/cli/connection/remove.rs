//! `connection rm`.

use clap::Args;
use serde_json::json;

use crate::cli::args::Globals;
use crate::cli::confirm;
use crate::cli::connection::id;
use crate::cli::connection::open;
use crate::cli::connection::text;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;

/// Options of `connection rm`.
#[derive(Debug, Clone, Args)]
pub(super) struct RemoveArgs {
    /// Which connection
    #[arg(value_name = "ID")]
    id: String,
    /// Do not ask; needed where nobody is at a terminal
    #[arg(short, long)]
    yes: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Removes it. That it is gone already is what was wanted, so it is no error.
pub(super) async fn run(args: &RemoveArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let id = id(&args.id)?;
    if !args.yes {
        confirm::check_attended()?;
    }
    let api = open(globals, printer)?;
    let found = api.find(id.as_str()).await.map_err(|error| gateway_api::failed(&error))?;
    let mut deleted = false;
    if let Some(found) = &found {
        let place = text(found, "base_url");
        let question = format!("Remove connection {id} ({place}) with every version of its secrets?");
        if !args.yes && !confirm::ask(&question, printer)? {
            return Err(CliError::new(Outcome::Failed, format!("connection {id} was not removed")));
        }
        deleted = api.delete(id.as_str()).await.map_err(|error| gateway_api::failed(&error))?;
    }
    if args.json {
        printer.json(&json!({ "deleted": deleted, "id": id.as_str() }))?;
    } else if deleted {
        printer.ok(&format!("Connection {id} removed with its secrets."))?;
    } else {
        printer.ok(&format!("There is no connection {id}; nothing was removed."))?;
    }
    Ok(Outcome::Done)
}
