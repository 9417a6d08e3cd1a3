//! `sigilum variable list | set | rm`: credential variables of the gateway, which secrets of connections refer to as
//! `{{KEY}}`.

use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use crate::app::connections_api::ApiError;
use crate::app::connections_api::ConnectionsApi;
use crate::cli::args::Globals;
use crate::cli::confirm;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::secret_source;
use crate::cli::secret_source::Place;
use crate::cli::settings;
use crate::cli::span::age;
use crate::cli::table::Cell;
use crate::cli::table::Table;
use crate::cli::table::Tone;
use crate::domain::secret::Secret;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::terminal;

/// The options that name a place of a value, for hints.
const OPTIONS: &str = "--value-env, --value-file or --value-stdin";

/// `variable` and what to do.
#[derive(Debug, Args)]
pub struct VariableArgs {
    #[command(subcommand)]
    command: VariableCommand,
}

#[derive(Debug, Subcommand)]
enum VariableCommand {
    /// List the variables and how many connections use each; never their values
    List(ListArgs),
    /// Give a variable a value; connections that use it take it with the next request
    Set(SetArgs),
    /// Remove a variable that no connection uses; one that is gone already is no error
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
}

/// Options of `variable list`.
#[derive(Debug, Clone, Args)]
struct ListArgs {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Options of `variable set`.
#[derive(Debug, Clone, Args)]
struct SetArgs {
    /// Its name: 2 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'
    #[arg(value_name = "KEY")]
    key: String,
    /// Taken so that it can be refused without being repeated.
    #[arg(value_name = "VALUE", hide = true)]
    literal: Vec<String>,
    /// Environment variable that holds the value
    #[arg(long, value_name = "VARIABLE", conflicts_with_all = ["value_file", "value_stdin"])]
    value_env: Option<String>,
    /// File that holds it; line ends are no part of it
    #[arg(long, value_name = "FILE", conflicts_with = "value_stdin")]
    value_file: Option<std::path::PathBuf>,
    /// Read it from standard input; on a terminal it does not show
    #[arg(long)]
    value_stdin: bool,
    /// Taken so that it can be refused with a reason.
    #[arg(long, hide = true, num_args = 0.., value_name = "VALUE", allow_hyphen_values = true)]
    value: Option<Vec<String>>,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Options of `variable rm`.
#[derive(Debug, Clone, Args)]
struct RemoveArgs {
    /// Its name
    #[arg(value_name = "KEY")]
    key: String,
    /// Do not ask; needed where nobody is at a terminal
    #[arg(short, long)]
    yes: bool,
    /// Also where connections use it: those that inject it are without a secret then
    #[arg(long)]
    force: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub(crate) async fn run(args: &VariableArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    match &args.command {
        VariableCommand::List(args) => list(args, globals, printer).await,
        VariableCommand::Set(args) => set(args, globals, printer).await,
        VariableCommand::Rm(args) => remove(args, globals, printer).await,
    }
}

fn open(globals: &Globals, printer: &mut Printer) -> Result<ConnectionsApi, CliError> {
    gateway_api::open(&settings::load(&globals.flags(), &[])?, printer)
}

/// A name as typed; one that is none may be the value itself, so it is not repeated.
fn key(typed: &str) -> Result<&str, CliError> {
    let clean = typed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if (2..=128).contains(&typed.len()) && clean {
        return Ok(typed);
    }
    Err(CliError::new(Outcome::Usage, "that is no name of a credential variable")
        .hint("2 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'"))
}

async fn list(args: &ListArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let api = open(globals, printer)?;
    let variables = api.variables().await.map_err(|error| gateway_api::failed(&error))?;
    if args.json {
        printer.json(&variables)?;
    } else if variables.is_empty() {
        printer.line("No credential variables.")?;
    } else {
        printer.lines(&table(&variables, SystemClock.now().seconds()).lines(printer.is_coloured()))?;
    }
    Ok(Outcome::Done)
}

fn table(variables: &[Value], now: UnixSeconds) -> Table {
    let mut table = Table::new(&["VARIABLE", "CHANGED", "BY", "USED BY", "DECLARED", "VALUE"]);
    for variable in variables {
        let text = |member: &str| variable.get(member).and_then(Value::as_str).unwrap_or_default();
        let declared = variable.get("declared").and_then(Value::as_bool).unwrap_or_default();
        let users = variable.get("used_by").and_then(Value::as_u64).filter(|users| *users > 0);
        let error = text("error");
        table.row(vec![
            text("key").into(),
            age(Some(text("updated_at")), now).as_str().into(),
            text("created_by_subject").into(),
            users.map_or_else(String::new, |users| users.to_string()).as_str().into(),
            if declared { "yes" } else { "" }.into(),
            if error.is_empty() { Cell::toned("ok", Tone::Good) } else { Cell::toned(error, Tone::Bad) },
        ]);
    }
    table
}

async fn set(args: &SetArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let key = key(&args.key)?;
    if args.value.is_some() || !args.literal.is_empty() {
        return Err(secret_source::on_argv(OPTIONS));
    }
    let place = match (&args.value_env, &args.value_file, args.value_stdin) {
        (Some(variable), _, _) => Place::Variable(variable),
        (None, Some(file), _) => Place::File(file),
        (None, None, true) => Place::Stdin,
        (None, None, false) if terminal::is_attended() => Place::Stdin,
        (None, None, false) => {
            return Err(CliError::new(Outcome::Usage, "no value is named").hint(format!("give one of {OPTIONS}")));
        }
    };
    let api = open(globals, printer)?;
    let value: Secret = place.read(&format!("the value of {key}"), printer)?;
    let record = api.set_variable(key, &value).await.map_err(|error| gateway_api::failed(&error))?;
    if args.json {
        printer.json(&record)?;
    } else {
        printer.ok(&format!("Variable {key} set. Secrets of connections use it as {{{{{key}}}}}."))?;
    }
    Ok(Outcome::Done)
}

/// Removes it. That it is gone already is what was wanted, so it is no error.
async fn remove(args: &RemoveArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let key = key(&args.key)?;
    if !args.yes && !confirm::ask(&format!("Remove the credential variable {key}?"), printer)? {
        return Err(CliError::new(Outcome::Failed, format!("variable {key} was not removed")));
    }
    let api = open(globals, printer)?;
    let said = api.delete_variable(key, args.force).await.map_err(|error| refused(&error))?;
    let unusable = said.as_ref().and_then(|said| said.get("unusable")).and_then(Value::as_array);
    let unusable: Vec<_> = unusable.into_iter().flatten().filter_map(Value::as_str).collect();
    if args.json {
        printer.json(&json!({ "deleted": said.is_some(), "key": key, "unusable": unusable }))?;
    } else if said.is_some() {
        printer.ok(&format!("Variable {key} removed."))?;
    } else {
        printer.ok(&format!("There is no variable {key}; nothing was removed."))?;
    }
    if !unusable.is_empty() {
        printer.warn(&format!("without a secret now: {}", unusable.join(", ")));
    }
    Ok(Outcome::Done)
}

/// A refusal; one that says who uses the variable gets what to do about it.
fn refused(error: &ApiError) -> CliError {
    let failed = gateway_api::failed(error);
    match (error.status(), failed.hint.is_some()) {
        (409, false) => {
            failed.hint("give those connections secrets of their own first: sigilum connection rotate ID; or --force")
        }
        _ => failed,
    }
}
