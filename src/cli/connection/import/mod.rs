//! `connection import`: the provider keys of a `.env` file become connections of the gateway; then it is said how each
//! is deleted in the file, and what agents read in its place. Values are never printed.

mod plan;
mod report;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use serde_json::Map;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::app::connections_api::ConnectionsApi;
use crate::cli::args::Globals;
use crate::cli::confirm;
use crate::cli::connection::ACTOR;
use crate::cli::connection::id;
use crate::cli::connection::import::plan::Lines;
use crate::cli::connection::import::plan::Offer;
use crate::cli::connection::import::plan::Only;
use crate::cli::connection::import::plan::Plan;
use crate::cli::connection::import::report::Entry;
use crate::cli::connection::import::report::Report;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::config::dotenv;
use crate::domain::secret::Secret;
use crate::sys::files;
use crate::sys::git;

/// Why, for the gateway's record.
const REASON: &str = "import";

/// Options of `connection import`.
#[derive(Debug, Clone, Args)]
pub(super) struct ImportArgs {
    /// The file, e.g. .env
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take every offer; needed where nobody is at a terminal
    #[arg(short, long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with_all = ["yes", "remove"])]
    dry_run: bool,
    /// Only this variable, several times for several; with =ID under that id
    #[arg(long, value_name = "VARIABLE[=ID]")]
    only: Vec<String>,
    /// Afterwards delete the lines of the keys that the gateway holds now from the file; no copy is kept
    #[arg(long)]
    remove: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// How an offer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// It was only to be shown.
    Planned,
    /// The connection is new.
    Created,
    /// It has another secret now.
    Rotated,
    /// It had this secret already.
    Unchanged,
    /// The person did not want it.
    Declined,
    /// The gateway did not.
    Failed,
}

impl Done {
    const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Created => "created",
            Self::Rotated => "rotated",
            Self::Unchanged => "unchanged",
            Self::Declined => "declined",
            Self::Failed => "failed",
        }
    }

    /// Whether the gateway holds the key now, so that the file need not.
    const fn is_held(self) -> bool {
        matches!(self, Self::Created | Self::Rotated | Self::Unchanged)
    }
}

/// Imports.
pub(super) async fn run(args: &ImportArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let only = args.only.iter().map(|text| only(text)).collect::<Result<Vec<_>, _>>()?;
    if !args.yes && !args.dry_run {
        confirm::check_attended()?;
    }
    let config = settings::load(&globals.flags(), &[])?;
    let content = read(&args.file)?;
    let assignments = dotenv::parse(&content);
    if let Some(missing) = only.iter().find(|only| !assignments.iter().any(|it| it.name == only.variable)) {
        let message = format!("{} sets no variable {}", args.file.display(), missing.variable);
        return Err(CliError::new(Outcome::Failed, message));
    }
    let api = gateway_api::open(&config, printer)?;
    let connections = api.list().await.map_err(|error| gateway_api::failed(&error))?;
    let plan = plan::plan(assignments, &catalog(&api).await?, &connections, &only);
    warn(&args.file, &plan, printer);
    let gateway = agents_address(&config);
    let place = report::Place { file: &args.file, gateway: &gateway };
    if !args.json {
        report::show_plan(&plan, &place, printer)?;
    }
    let Plan { offers, skipped } = plan;
    let mut entries = Vec::with_capacity(offers.len());
    for offer in offers {
        let (done, error) = take(&api, &offer, args, printer).await?;
        if let Some(error) = &error {
            printer.warn(error);
        }
        entries.push(Entry { offer, done, error });
    }
    let held: Vec<Lines> = entries.iter().filter(|entry| entry.done.is_held()).flat_map(Entry::lines).collect();
    let removed = args.remove && !held.is_empty() && remove(args, &content, &held, printer)?;
    let report = Report { entries: &entries, skipped: &skipped, place, removed };
    if args.json {
        printer.json(&report.json())?;
    } else if !args.dry_run {
        report.show(printer)?;
    }
    let failed = entries.iter().any(|entry| entry.done == Done::Failed);
    Ok(if failed || (args.remove && !held.is_empty() && !removed) { Outcome::Failed } else { Outcome::Done })
}

/// `VARIABLE` or `VARIABLE=ID`.
fn only(text: &str) -> Result<Only, CliError> {
    let (variable, connection) = match text.split_once('=') {
        Some((variable, connection)) => (variable, Some(id(connection)?)),
        None => (text, None),
    };
    Ok(Only { variable: variable.trim().to_owned(), connection })
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |what: &str| CliError::new(Outcome::Failed, format!("{}: {what}", file.display()));
    let content = files::read_bytes(file, dotenv::MAX_BYTES).map(Zeroizing::new).map_err(|error| {
        let failed = failed(&error.to_string());
        if error.kind() == io::ErrorKind::NotFound {
            failed.hint("name the file: sigilum connection import .env")
        } else {
            failed
        }
    })?;
    // UTF-16 has one in every other place.
    if content.contains(&0) {
        return Err(failed("is no text in UTF-8").hint("save it as UTF-8 first"));
    }
    Ok(content)
}

/// The service catalog; a gateway without one has no templates, and our own table is enough.
async fn catalog(api: &ConnectionsApi) -> Result<Vec<Value>, CliError> {
    match api.catalog().await {
        Ok(catalog) => Ok(catalog),
        Err(error) if matches!(error.status(), 404 | 501) => Ok(Vec::new()),
        Err(error) => Err(gateway_api::failed(&error)),
    }
}

/// What should worry whoever has such a file.
fn warn(file: &Path, plan: &Plan, printer: &mut Printer) {
    if plan.offers.is_empty() && plan.skipped.is_empty() {
        return;
    }
    let name = file.display();
    if files::is_readable_by_others(file).unwrap_or_default() {
        printer.warn(&format!("other users of this machine may read {name}: chmod 600 it"));
    }
    if git::tracks(file) {
        printer.warn(&format!(
            "git keeps versions of {name}: what stood in it stays in the history, so rotate these keys at their providers"
        ));
    }
}

/// Where agents reach the gateway, for the machine this runs on.
fn agents_address(config: &crate::config::Config) -> String {
    let scheme = if config.envoy.tls.is_some() { "https" } else { "http" };
    let address = config.listen.ingress.first().copied();
    let port = address.map_or(0, |address| address.port());
    match address.map(|address| address.ip()) {
        Some(ip) if !ip.is_unspecified() => format!("{scheme}://{}", SocketAddr::new(ip, port)),
        Some(_) | None => format!("{scheme}://127.0.0.1:{port}"),
    }
}

/// Asks for one offer where somebody is to be asked, and does it. A refusal of the gateway leaves the other offers;
/// that it is gone, or wants another token, does not.
async fn take(
    api: &ConnectionsApi,
    offer: &Offer,
    args: &ImportArgs,
    printer: &mut Printer,
) -> Result<(Done, Option<String>), CliError> {
    if args.dry_run {
        return Ok((Done::Planned, None));
    }
    if !args.yes && !confirm::ask(&format!("{}?", report::question(offer)), printer)? {
        return Ok((Done::Declined, None));
    }
    let secrets: Vec<(&str, &Secret)> =
        offer.secrets.iter().map(|secret| (secret.name.as_str(), &secret.value)).collect();
    let answer = if offer.exists {
        api.rotate(&offer.id, &secrets, ACTOR, REASON).await.map(|_| Done::Rotated)
    } else {
        let values: Map<_, _> =
            secrets.iter().map(|(name, secret)| ((*name).to_owned(), Value::from(secret.expose()))).collect();
        let mut body = offer.body.clone();
        body.insert("secrets".to_owned(), Value::Object(values));
        api.create(&Value::Object(body)).await.map(|_| Done::Created)
    };
    match answer {
        Ok(done) => Ok((done, None)),
        Err(error) if error.code() == "SECRET_UNCHANGED" => Ok((Done::Unchanged, None)),
        Err(error) => {
            let failed = gateway_api::failed(&error);
            if matches!(failed.outcome, Outcome::Unauthorized | Outcome::Unreachable) {
                return Err(failed);
            }
            Ok((Done::Failed, Some(format!("{}: {}", offer.id, failed.message))))
        }
    }
}

/// Rewrites the file without the lines; `false` where that was not to be.
fn remove(args: &ImportArgs, content: &[u8], lines: &[Lines], printer: &mut Printer) -> Result<bool, CliError> {
    let name = args.file.display();
    let question = format!("Delete {} from {name}?", report::lines_of(lines));
    if !args.yes && !confirm::ask(&question, printer)? {
        return Ok(false);
    }
    let rest = Zeroizing::new(dotenv::without(content, lines));
    match files::replace_content(&args.file, content, &rest) {
        Ok(()) => Ok(true),
        // The connections are made: how to delete the lines by hand is still to be said.
        Err(error) => {
            printer.warn(&format!("{name} {error}; it is as it was"));
            Ok(false)
        }
    }
}
