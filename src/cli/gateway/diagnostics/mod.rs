//! `gateway diagnostics export`: what somebody who helps needs to see, as one file without a secret in it. Works with the gateway
//! down and with a configuration that cannot be used; changes nothing.

mod archive;
mod cleaner;
mod gather;
mod known;

use std::io;
use std::io::IsTerminal as _;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use serde::Serialize;

use crate::cli::args::Globals;
use crate::cli::gateway::diagnostics::gather::Missing;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::role;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;

/// Standard output as a file's name.
const STDOUT: &str = "-";

/// `gateway diagnostics` and which part of it.
#[derive(Debug, Args)]
pub(crate) struct DiagnosticsArgs {
    #[command(subcommand)]
    command: DiagnosticsCommand,
}

#[derive(Debug, Subcommand)]
enum DiagnosticsCommand {
    /// Write one archive without secrets for whoever helps: status, health, settings, logs, metrics, units
    Export(ExportArgs),
}

/// Options of `gateway diagnostics export`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The archive is a folder in a .tar.gz: manifest.json lists its files and what is missing and why. Secrets, what \
    looks like one, and the home folder's name are taken out; names of connections, agents and hosts are not. Look through it \
    before you pass it on.\nExit codes: 0 written, 64 wrong arguments or the file exists already"
)]
struct ExportArgs {
    /// The archive's file, which must not be there yet; - for standard output [default: sigilum-diagnostics-TIME.tar.gz]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON for programs: {path, bytes, files, missing: [{file, reason}]}
    #[arg(long)]
    json: bool,
    /// Settings: they say which installation is meant.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Report<'a> {
    path: String,
    bytes: usize,
    files: Vec<&'a str>,
    missing: &'a [Missing],
}

/// Runs one of them.
pub(super) async fn run(args: &DiagnosticsArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    match &args.command {
        DiagnosticsCommand::Export(args) => export(args, globals, printer).await,
    }
}

async fn export(args: &ExportArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    // Secrets are read so that they can be taken out.
    role::harden()?;
    let now = SystemClock.now().seconds();
    let stamp: String = now.rfc3339().chars().filter(char::is_ascii_alphanumeric).collect();
    let folder = format!("sigilum-diagnostics-{stamp}");
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    let to_stdout = path == Path::new(STDOUT);
    if to_stdout {
        refuse_stdout(args.json)?;
    } else if path.symlink_metadata().is_ok() {
        return Err(taken(&path));
    }
    let gathered = gather::gather(&args.settings.flags(globals), now).await?;
    let packed = archive::pack(&folder, gathered.parts.iter(), now)
        .map_err(|error| CliError::new(Outcome::Failed, format!("the archive could not be made: {error}")))?;
    if to_stdout {
        printer.bytes(&packed)?;
        return Ok(Outcome::Done);
    }
    files::create_private(&path, &packed).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            taken(&path)
        } else {
            CliError::new(Outcome::Failed, format!("{}: {error}", path.display()))
        }
    })?;
    if args.json {
        printer.json(&Report {
            path: path.display().to_string(),
            bytes: packed.len(),
            files: gathered.parts.iter().map(|part| part.name.as_str()).collect(),
            missing: &gathered.missing,
        })?;
        return Ok(Outcome::Done);
    }
    printer.ok(&format!("{}: {} files, {} bytes", path.display(), gathered.parts.len(), packed.len()))?;
    for Missing { file, reason } in &gathered.missing {
        printer.warn(&format!("without {file}: {reason}"));
    }
    printer.note(
        "look through it before you pass it on: names of connections, agents and hosts are in it, secrets are not",
    );
    Ok(Outcome::Done)
}

fn refuse_stdout(json: bool) -> Result<(), CliError> {
    if json {
        return Err(CliError::new(
            Outcome::Usage,
            "--json says where the archive is; with --output - it is standard output",
        ));
    }
    if io::stdout().is_terminal() {
        return Err(CliError::new(Outcome::Usage, "an archive is nothing to show on a terminal")
            .hint("name a file with --output, or lead it into one"));
    }
    Ok(())
}

fn taken(path: &Path) -> CliError {
    CliError::new(Outcome::Usage, format!("{} is there already; nothing was written", path.display()))
        .hint("name another file with --output")
}
