//! `connection set | disable | enable`.

use clap::Args;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::app::connections_api::ConnectionsApi;
use crate::cli::args::Globals;
use crate::cli::connection::fields;
use crate::cli::connection::fields::FieldOptions;
use crate::cli::connection::find;
use crate::cli::connection::id;
use crate::cli::connection::missing;
use crate::cli::connection::open;
use crate::cli::connection::show;
use crate::cli::connection::text;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::domain::ids::ConnectionId;

/// Options of `connection set`.
#[derive(Debug, Clone, Args)]
pub(super) struct SetArgs {
    /// Which connection
    #[arg(value_name = "ID")]
    id: String,
    /// What to change, e.g. base_url=https://api.example.com, allowed_methods=GET,POST, max_stream_seconds=null
    #[arg(value_name = "FIELD=VALUE")]
    changes: Vec<String>,
    /// The same as options.
    #[command(flatten)]
    options: FieldOptions<false>,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Options of `connection disable` and `connection enable`.
#[derive(Debug, Clone, Args)]
pub(super) struct SwitchArgs {
    /// Which connection
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Changes fields; nothing is sent where nothing would differ.
pub(super) async fn set(args: &SetArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let id = id(&args.id)?;
    let patch = fields::patch(&args.changes, &args.options)?;
    if patch.is_empty() {
        return Err(CliError::new(Outcome::Usage, "nothing is to be changed")
            .hint(format!("sigilum connection set {id} FIELD=VALUE …; sigilum help connection set lists the fields")));
    }
    let api = open(globals, printer)?;
    let found = find(&api, &id).await?;
    let wanted = patch.iter().filter(|(name, value)| set_to(found.get(*name)) != set_to(Some(value)));
    let differing: Map<_, _> = wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
    if differing.is_empty() {
        return told(args.json, &found, &format!("Connection {id} is so already."), printer);
    }
    let names = differing.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let changed = send(&api, &id, &Value::Object(differing)).await?;
    told(args.json, &changed, &format!("Connection {id} changed: {names}."), printer)
}

/// What a field is set to: a member without content says the same as none, as do the root of paths and days below 0.
fn set_to(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_i64().is_none_or(|number| number > 0),
        Value::String(text) => !matches!(text.as_str(), "" | "/"),
        Value::Array(entries) => !entries.is_empty(),
        Value::Object(members) => !members.is_empty(),
    })
}

/// Sets the status; doing it twice changes nothing.
pub(super) async fn switch(
    args: &SwitchArgs,
    status: &str,
    globals: &Globals,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let id = id(&args.id)?;
    let api = open(globals, printer)?;
    let found = find(&api, &id).await?;
    if text(&found, "status") == status {
        return told(args.json, &found, &format!("Connection {id} is {status} already."), printer);
    }
    let changed = send(&api, &id, &json!({ "status": status })).await?;
    told(args.json, &changed, &format!("Connection {id} is {status}."), printer)
}

async fn send(api: &ConnectionsApi, id: &ConnectionId, patch: &Value) -> Result<Value, CliError> {
    api.patch(id.as_str(), patch).await.map_err(|error| match error.status() {
        404 => missing(id),
        _ => gateway_api::failed(&error),
    })
}

fn told(json: bool, connection: &Value, done: &str, printer: &mut Printer) -> Result<Outcome, CliError> {
    if json {
        printer.json(connection)?;
    } else {
        printer.ok(done)?;
        printer.lines(&show::details(connection))?;
    }
    Ok(Outcome::Done)
}
