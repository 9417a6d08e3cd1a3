//! `gateway status`: one screen about the gateway of this installation, whether or not it runs and whether or not its
//! configuration can be used. Looks, and changes nothing.

mod credentials;
mod deep;
mod gather;
mod human;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::config::Flags;
use crate::wire::status::ReportBody;

/// Options of `gateway status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Look at the whole machine too: units and processes that look like a gateway's
    #[arg(long)]
    deep: bool,
    /// Fail unless the gateway answers a call with the admin token: exit 4 refused, 5 unreachable
    #[arg(long, conflicts_with = "no_probe")]
    require_rpc: bool,
    /// Fail unless the gateway is ready: exit 1 not ready, 3 not running
    #[arg(long, conflicts_with = "no_probe")]
    require_ready: bool,
    /// Ask nobody: processes, files and ports alone
    #[arg(long)]
    no_probe: bool,
    /// Ask the admin API at this address; then only --token-file names a token
    #[arg(long, value_name = "URL", conflicts_with = "no_probe")]
    url: Option<String>,
    /// Read the admin token for --url from this file
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// How long an answer may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    /// Settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What the report is made of besides the settings.
struct Wanted<'a> {
    deep: bool,
    probe: bool,
    url: Option<&'a str>,
    token_file: Option<&'a std::path::Path>,
    patience: Duration,
}

/// Prints the report.
pub(crate) async fn run(args: &StatusArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let wanted = Wanted {
        deep: args.deep,
        probe: !args.no_probe,
        url: args.url.as_deref(),
        token_file: args.token_file.as_deref(),
        patience: Duration::from_millis(args.timeout),
    };
    let gathered = gather::gather(&args.settings.flags(globals), &wanted).await?;
    if args.json {
        printer.json(&gathered.report)?;
    } else {
        printer.lines(&human::lines(&gathered, printer.is_coloured()))?;
    }
    Ok(outcome(args, &gathered.report, gathered.refusal))
}

/// The report with all there is, for whoever writes it down.
pub(super) async fn report(flags: &Flags, patience: Duration) -> Result<ReportBody, CliError> {
    let wanted = Wanted { deep: true, probe: true, url: None, token_file: None, patience };
    gather::gather(flags, &wanted).await.map(|gathered| gathered.report)
}

/// Why a call with the token did not come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The token was refused, or there is none.
    Unauthorized,
    /// Nobody answers.
    Unreachable,
    /// Something else.
    Other,
}

/// A report is a success; the rest was asked for.
fn outcome(args: &StatusArgs, report: &ReportBody, refusal: Option<Refusal>) -> Outcome {
    if args.require_rpc {
        match refusal {
            None => {}
            Some(Refusal::Unauthorized) => return Outcome::Unauthorized,
            Some(Refusal::Unreachable) => return Outcome::Unreachable,
            Some(Refusal::Other) => return Outcome::Failed,
        }
    }
    if args.require_ready && !report.known.readiness.ready {
        let nothing = report.service.runtime.status != "running" && refusal == Some(Refusal::Unreachable);
        return if nothing { Outcome::NotRunning } else { Outcome::Failed };
    }
    Outcome::Done
}
