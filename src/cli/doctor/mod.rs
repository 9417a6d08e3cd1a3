//! `doctor`: looks at everything a gateway depends on, says what is wrong, and mends what can be mended without harm.
//!
//! Facts are gathered first and judged afterwards ([`catalog`] lists the checks), so that each judgement is a pure function.

mod catalog;
mod facts;
mod finding;
mod gather;
mod gather_envoy;
mod gather_files;
mod gather_service;
mod judge;
mod judge_machine;
mod managed;
mod repair;
mod report;
mod token;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::confirm;
use crate::cli::doctor::catalog::CHECKS;
use crate::cli::doctor::catalog::Check;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::finding::Judged;
use crate::cli::doctor::finding::Repair;
use crate::cli::doctor::finding::Severity;
use crate::cli::doctor::managed::Label;
use crate::cli::doctor::report::Document;
use crate::cli::doctor::report::Look;
use crate::cli::doctor::report::Results;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::config::Flags;
use crate::sys::terminal;

/// The check of OpenClaw's configuration.
const OPENCLAW: &str = "openclaw/config";

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit 1 where something fails, or was not mended. With --lint: 0 nothing, 1 something at --severity-min or above, 2 it could not be looked."
)]
pub struct DoctorArgs {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// For CI: changes nothing, prints findings alone, and the exit code says whether there are any
    #[arg(long, conflicts_with = "fix")]
    lint: bool,
    /// Least severity that counts for --lint
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "warning", requires = "lint")]
    severity_min: Severity,
    /// With --lint: list what is below that, too
    #[arg(long, requires = "lint")]
    all: bool,
    /// Only this check, or all of a group (`files`); may be repeated
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// Not this check; may be repeated
    #[arg(long, value_name = "ID")]
    skip: Vec<String>,
    /// Mend what can be mended without harm, and say what was done
    #[arg(long, visible_alias = "repair")]
    fix: bool,
    /// With --fix: write a unit anew without asking
    #[arg(long, requires = "fix")]
    yes: bool,
    /// With --fix: the same as --yes
    #[arg(long, requires = "fix", hide = true)]
    force: bool,
    /// With --fix: never ask; what would take a yes stays
    #[arg(long, requires = "fix")]
    non_interactive: bool,
    /// Make the admin token where there is none; one that is there stays
    #[arg(long, conflicts_with = "lint")]
    generate_gateway_token: bool,
    /// Have the running gateway look at everything anew, wait longer, and show what was skipped
    #[arg(long)]
    deep: bool,
    /// Without colours
    #[arg(long)]
    no_color: bool,
    /// Say what a check means, and look at nothing
    #[arg(long, value_name = "ID", exclusive = true)]
    explain: Option<String>,
    /// Settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Looks, mends where that is wanted, looks again, and tells.
pub(crate) async fn run(args: &DoctorArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    if let Some(id) = &args.explain {
        let check = catalog::find(id).ok_or_else(|| unknown(id))?;
        printer.lines(&report::explanation(check))?;
        return Ok(Outcome::Done);
    }
    let wanted = wanted(args)?;
    let flags = args.settings.flags(globals);
    let left_out = CHECKS.len().saturating_sub(wanted.len());
    if args.lint {
        return match examine(&flags, args.deep, &wanted).await {
            Ok((results, labels)) => lint(args, (&results, &labels), left_out, printer),
            Err(error) => Err(CliError { outcome: Outcome::Indeterminate, ..error }),
        };
    }
    let (mut applied, mut incomplete) = (Vec::new(), false);
    if args.generate_gateway_token {
        applied.extend(token::generate(&flags, printer)?);
    }
    let (mut results, mut labels) = examine(&flags, args.deep, &wanted).await?;
    if args.fix {
        let (mended, partly) = mend(args, &results, printer).await?;
        incomplete = partly;
        if incomplete || !mended.is_empty() {
            (results, labels) = examine(&flags, args.deep, &wanted).await?;
        }
        applied.extend(mended);
    }
    if args.json {
        printer.json(&report::document((&results, &labels), Severity::Info, left_out, &applied))?;
    } else {
        let look = Look { coloured: printer.is_coloured() && !args.no_color, skipped: args.deep };
        printer.lines(&report::lines(&results, &applied, look))?;
    }
    Ok(if report::failures(&results) == 0 && !incomplete { Outcome::Done } else { Outcome::Failed })
}

/// The report of all checks, for whoever writes it down. Mends nothing.
pub(in crate::cli) async fn report(flags: &Flags) -> Result<Document, CliError> {
    let all: Vec<_> = CHECKS.iter().collect();
    let (results, labels) = examine(flags, false, &all).await?;
    Ok(report::document((&results, &labels), Severity::Info, 0, &[]))
}

/// What the checks say, and the rows under earlier names, where the checks of OpenClaw are among them.
async fn examine(flags: &Flags, deep: bool, wanted: &[&'static Check]) -> Result<(Results, Vec<Label>), CliError> {
    let facts = gather::gather(flags, deep).await?;
    let told = wanted.iter().any(|check| check.id == OPENCLAW);
    let labels = if told { managed::labels(&facts) } else { Vec::new() };
    let mut results: Results = wanted.iter().map(|check| (*check, (check.judge)(&facts))).collect();
    for (_, judged) in &mut results {
        let Judged::Found(found) = judged else { continue };
        for finding in found {
            finding.message = profile::in_hint(&finding.message);
            finding.hint = finding.hint.as_deref().map(profile::in_hint);
        }
    }
    Ok((results, labels))
}

fn lint(
    args: &DoctorArgs,
    (results, labels): (&Results, &[Label]),
    left_out: usize,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let listed = if args.all { Severity::Info } else { args.severity_min };
    if args.json {
        printer.json(&report::document((results, labels), listed, left_out, &[]))?;
    } else {
        printer.lines(&report::lint_lines(results, listed))?;
    }
    let found = report::findings(results, args.severity_min).next().is_some();
    Ok(if found { Outcome::Failed } else { Outcome::Done })
}

/// The checks that are wanted, in their order.
fn wanted(args: &DoctorArgs) -> Result<Vec<&'static Check>, CliError> {
    let names = |check: &Check, name: &String| {
        check.id == name || check.id.split_once('/').is_some_and(|(group, _)| group == name)
    };
    for name in args.only.iter().chain(&args.skip) {
        if !CHECKS.iter().any(|check| names(check, name)) {
            return Err(unknown(name));
        }
    }
    let is_wanted = |check: &&Check| {
        (args.only.is_empty() || args.only.iter().any(|name| names(check, name)))
            && !args.skip.iter().any(|name| names(check, name))
    };
    Ok(CHECKS.iter().filter(is_wanted).collect())
}

fn unknown(id: &str) -> CliError {
    let all: Vec<_> = CHECKS.iter().map(|check| check.id).collect();
    CliError::new(Outcome::Usage, format!("there is no check {id:?}")).hint(format!("one of: {}", all.join(", ")))
}

/// Mends what was found: what was done, in words, and whether anything of it did not succeed, which is said.
async fn mend(args: &DoctorArgs, results: &Results, printer: &mut Printer) -> Result<(Vec<String>, bool), CliError> {
    let (mut applied, mut incomplete) = (Vec::new(), false);
    for finding in results.iter().flat_map(|(_, judged)| found(judged)) {
        let Some(repair) = &finding.repair else { continue };
        if matches!(repair, Repair::Unit { .. }) && !may_write(args, finding, printer)? {
            continue;
        }
        match repair::apply(repair).await {
            Ok(done) => applied.extend(done),
            Err(why) => {
                incomplete = true;
                printer.warn(&format!("{} was not mended: {why}", finding.id));
            }
        }
    }
    Ok((applied, incomplete))
}

fn found(judged: &Judged) -> &[Finding] {
    match judged {
        Judged::Found(found) => found,
        Judged::Skipped(_) | Judged::Well(_) => &[],
    }
}

/// Whether a unit may be written anew: somebody said so.
fn may_write(args: &DoctorArgs, finding: &Finding, printer: &mut Printer) -> Result<bool, CliError> {
    if args.yes || args.force {
        return Ok(true);
    }
    if args.non_interactive || args.json || !terminal::is_attended() {
        return Ok(false);
    }
    let path = finding.path.as_deref().unwrap_or_default();
    confirm::ask(&format!("{}. Write {path} anew?", finding.message), printer)
}
