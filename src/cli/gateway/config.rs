//! `gateway config check | show | schema`: the configuration without a gateway. Nothing is started, opened or resolved.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::args::Globals;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::cli::settings::Refused;
use crate::cli::table::Cell;
use crate::cli::table::Table;
use crate::cli::table::Tone;
use crate::config;
use crate::config::Config;
use crate::config::keys;
use crate::config::mistake::MAX_LISTED;
use crate::config::mistake::Mistake;
use crate::config::mistake::Place;

/// `gateway config` and which part of it.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say everything that is wrong with the configuration
    Check(CheckArgs),
    /// Print every setting that is set, its value and where it comes from
    Show(ShowArgs),
    /// Print the JSON Schema of gateway.yaml, for editors
    Schema,
}

/// Options of `gateway config check`.
#[derive(Debug, Args)]
struct CheckArgs {
    /// The file [default: as for `gateway start`]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// JSON for programs: {ok, count, mistakes: [{path, line, column, source, message}], warnings}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Options of `gateway config show`.
#[derive(Debug, Args)]
struct ShowArgs {
    /// The file [default: as for `gateway start`]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// Defaults too
    #[arg(long)]
    effective: bool,
    /// JSON for programs: {file, config (in the form of gateway.yaml), outside, sources}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Runs one of them.
pub(crate) fn run(args: &ConfigArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    match &args.command {
        ConfigCommand::Check(args) => check(args, globals, printer),
        ConfigCommand::Show(args) => show(args, globals, printer),
        ConfigCommand::Schema => printer.json(&config::schema()).map(|()| Outcome::Done),
    }
}

fn check(args: &CheckArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let mut flags = args.settings.flags(globals);
    flags.set(&keys::CONFIG_FILE, args.file.as_ref().map(|file| file.to_string_lossy().into_owned()));
    let (mistakes, file, warnings, config) = match settings::judge(&flags, &[]) {
        Ok(config) => {
            let file = config.paths.config_file.as_ref().map(|file| file.display().to_string());
            (Vec::new(), file, config.warnings.clone(), Some(config))
        }
        Err(Refused::Mistakes(mistakes)) => {
            (mistakes.list().to_vec(), mistakes.file().map(ToOwned::to_owned), Vec::new(), None)
        }
        Err(Refused::File(path, message) | Refused::Missing(path, message)) => {
            let whole = Mistake { place: Place::Whole, path: String::new(), message: format!("{path}: {message}") };
            (vec![whole], Some(path), Vec::new(), None)
        }
        Err(Refused::Saved(message)) => {
            (vec![Mistake { place: Place::Whole, path: String::new(), message }], None, Vec::new(), None)
        }
    };
    if args.json {
        let told = |list: &[Mistake]| list.iter().take(MAX_LISTED).map(told).collect::<Value>();
        printer.json(&json!({
            "ok": mistakes.is_empty(),
            "file": file,
            "count": mistakes.len(),
            "mistakes": told(&mistakes),
            "warnings": told(&warnings),
        }))?;
    } else {
        for mistake in mistakes.iter().take(MAX_LISTED) {
            printer.line(&readable_line(mistake, file.as_deref()))?;
        }
        for warning in warnings.iter().take(MAX_LISTED) {
            printer.warn(&warning.line(file.as_deref()));
        }
    }
    match config {
        Some(_) if args.json => Ok(Outcome::Done),
        Some(config) => printer.ok(&summary(&config, file.as_deref())).map(|()| Outcome::Done),
        None if args.json => Err(CliError::new(Outcome::Config, "")),
        None => Err(CliError::new(Outcome::Config, counted(mistakes.len()))),
    }
}

/// A mistake as a line for people: a name in it may have been chosen by a stranger, and a terminal obeys more than letters.
fn readable_line(mistake: &Mistake, file: Option<&str>) -> String {
    mistake.line(file).chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

fn counted(count: usize) -> String {
    match count {
        1 => "the configuration has a mistake".to_owned(),
        count if count > MAX_LISTED => {
            format!("the configuration has {count} mistakes; the first {MAX_LISTED} are shown")
        }
        count => format!("the configuration has {count} mistakes"),
    }
}

fn summary(config: &Config, file: Option<&str>) -> String {
    let Some(file) = file else { return "there is no file; options and environment are right".to_owned() };
    let (connections, variables, approvals) =
        (config.connections.len(), config.variables.len(), config.approvals.len());
    format!("{file}: connections: {connections}, variables: {variables}, approvals: {approvals}")
}

fn told(mistake: &Mistake) -> Value {
    let (line, column) = match &mistake.place {
        Place::File { line, column } => (Some(*line), Some(*column)),
        Place::Environment(_) | Place::Flag(_) | Place::Saved(_) | Place::Whole => (None, None),
    };
    json!({
        "path": mistake.path,
        "line": line,
        "column": column,
        "source": source(&mistake.place),
        "message": mistake.message,
    })
}

/// Where a value comes from, in a word.
fn source(place: &Place) -> &'static str {
    match place {
        Place::File { .. } => "file",
        Place::Environment(name) | Place::Flag(name) | Place::Saved(name) => name,
        Place::Whole => "default",
    }
}

fn show(args: &ShowArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let mut flags = args.settings.flags(globals);
    flags.set(&keys::CONFIG_FILE, args.file.as_ref().map(|file| file.to_string_lossy().into_owned()));
    let (explained, file) = settings::explain(&flags, args.effective)?;
    if args.json {
        let sources = explained.rows.iter().map(|row| (row.path.clone(), origin(&row.place)));
        printer.json(&json!({
            "file": file,
            "config": explained.tree,
            "outside": explained.outside,
            "sources": Value::Object(sources.collect()),
        }))?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&["KEY", "VALUE", "SOURCE"]);
    for row in &explained.rows {
        let value = if row.value.is_null() { String::new() } else { row.value.to_string() };
        let value = row.value.as_str().map_or(value, ToOwned::to_owned);
        let from = match &row.place {
            Place::File { line, .. } => format!("{}:{line}", file.as_deref().unwrap_or("gateway.yaml")),
            Place::Environment(name) | Place::Flag(name) => (*name).to_owned(),
            Place::Saved(name) => format!("config.env: {name}"),
            Place::Whole => "default".to_owned(),
        };
        let tone = if row.place == Place::Whole { Tone::Faint } else { Tone::Plain };
        table.row(vec![row.path.as_str().into(), value.as_str().into(), Cell::toned(&from, tone)]);
    }
    printer.lines(&table.lines(printer.is_coloured()))?;
    Ok(Outcome::Done)
}

/// Where a value comes from, for programs.
fn origin(place: &Place) -> Value {
    let of = |from: &str, name: &str| json!({ "from": from, "name": name });
    match place {
        Place::File { line, column } => json!({ "from": "file", "line": line, "column": column }),
        Place::Environment(name) => of("environment", name),
        Place::Flag(name) => of("option", name),
        Place::Saved(name) => of("config.env", name),
        Place::Whole => Value::Object(Map::from_iter([("from".to_owned(), json!("default"))])),
    }
}
