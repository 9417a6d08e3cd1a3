//! The report: as JSON for programs, as lines for people. Pure.

use serde::Serialize;

use crate::app::json_api::readable;
use crate::cli::doctor::catalog::Check;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::finding::Judged;
use crate::cli::doctor::finding::Severity;
use crate::cli::doctor::managed::Label;
use crate::cli::profile;
use crate::cli::table::Tone;

/// Version of the document: members are added, never renamed.
const SCHEMA_VERSION: u32 = 1;

/// What came of each check, in the order of the catalogue.
pub(super) type Results = Vec<(&'static Check, Judged)>;

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Document {
    schema_version: u32,
    /// Whether nothing failed.
    ok: bool,
    /// How many checks said something.
    checks_run: usize,
    /// How many meant nothing here, or were left out.
    checks_skipped: usize,
    findings: Vec<FindingBody>,
    /// The same for readers of earlier versions.
    #[serde(flatten)]
    earlier: Earlier,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingBody {
    check_id: &'static str,
    severity: Severity,
    message: String,
    path: Option<String>,
    fix_hint: Option<String>,
}

/// What earlier versions said; their names are another style.
#[derive(Debug, Serialize)]
struct Earlier {
    status: &'static str,
    warnings: usize,
    failures: usize,
    checks: Vec<CheckBody>,
    applied_fixes: Vec<String>,
    actions: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CheckBody {
    status: &'static str,
    label: &'static str,
    detail: String,
}

/// Findings, worst of one severity at least.
pub(super) fn findings(results: &Results, least: Severity) -> impl Iterator<Item = &Finding> {
    let found = results.iter().flat_map(|(_, judged)| match judged {
        Judged::Found(found) => found.as_slice(),
        Judged::Skipped(_) | Judged::Well(_) => &[],
    });
    found.filter(move |finding| finding.severity >= least)
}

/// How many findings mean that something does not work.
pub(super) fn failures(results: &Results) -> usize {
    findings(results, Severity::Error).count()
}

fn warnings(results: &Results) -> usize {
    findings(results, Severity::Warning).count().saturating_sub(failures(results))
}

/// The document of these results, with the rows that have earlier names; `least`: findings below are left out of its list; `left_out`: checks nobody wanted.
pub(super) fn document(
    (results, labels): (&Results, &[Label]),
    least: Severity,
    left_out: usize,
    applied: &[String],
) -> Document {
    let skipped = results.iter().filter(|(_, judged)| matches!(judged, Judged::Skipped(_))).count();
    let (failures, warnings) = (failures(results), warnings(results));
    let body = |finding: &Finding| FindingBody {
        check_id: finding.id,
        severity: finding.severity,
        message: finding.message.clone(),
        path: finding.path.clone(),
        fix_hint: finding.hint.clone(),
    };
    let mut actions: Vec<String> =
        findings(results, Severity::Warning).filter_map(|found| found.hint.clone()).collect();
    let mut seen = Vec::new();
    actions.retain(|action| {
        let new = !seen.contains(action);
        seen.push(action.clone());
        new
    });
    Document {
        schema_version: SCHEMA_VERSION,
        ok: failures == 0,
        checks_run: results.len().saturating_sub(skipped),
        checks_skipped: skipped.saturating_add(left_out),
        findings: findings(results, least).map(body).collect(),
        earlier: Earlier {
            status: match (failures, warnings) {
                (0, 0) => "ok",
                (0, _) => "warn",
                (_, _) => "fail",
            },
            warnings,
            failures,
            checks: results
                .iter()
                .flat_map(|(check, judged)| checks(check, judged))
                .chain(labels.iter().map(label))
                .collect(),
            applied_fixes: applied.to_vec(),
            actions,
        },
    }
}

fn checks(check: &Check, judged: &Judged) -> Vec<CheckBody> {
    let one = |status, detail: &str| CheckBody { status, label: check.title, detail: detail.to_owned() };
    match judged {
        Judged::Skipped(why) => vec![one("info", why)],
        Judged::Well(detail) => vec![one("ok", detail)],
        Judged::Found(found) => found.iter().map(|finding| one(word(finding.severity), &finding.message)).collect(),
    }
}

fn label(row: &Label) -> CheckBody {
    CheckBody { status: row.status, label: row.label, detail: row.detail.clone() }
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warn",
        Severity::Error | Severity::Critical => "fail",
    }
}

/// How the report is shown to people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// With colours.
    pub(super) coloured: bool,
    /// With checks that mean nothing here.
    pub(super) skipped: bool,
}

/// All lines: each check, what was mended, what can be, and the sum.
pub(super) fn lines(results: &Results, applied: &[String], look: Look) -> Vec<String> {
    let width = results.iter().map(|(check, _)| check.title.len()).max().unwrap_or_default();
    let paint = |tone: Tone, text: &str| if look.coloured { tone.paint(text) } else { text.to_owned() };
    let line = |tone, word: &str, title: &str, text: &str| {
        format!("{}  {title:width$}  {}", paint(tone, &format!("{word:4}")), readable(text))
    };
    let mut lines = Vec::new();
    for (check, judged) in results {
        match judged {
            Judged::Skipped(why) if look.skipped => lines.push(line(Tone::Faint, "-", check.title, why)),
            Judged::Skipped(_) => {}
            Judged::Well(detail) => lines.push(line(Tone::Good, "ok", check.title, detail)),
            Judged::Found(found) => {
                for finding in found {
                    let (tone, word) = match finding.severity {
                        Severity::Info => (Tone::Plain, "info"),
                        Severity::Warning => (Tone::Attention, "warn"),
                        Severity::Error | Severity::Critical => (Tone::Bad, "FAIL"),
                    };
                    let text = format!("{} [{}]", finding.message, finding.id);
                    lines.push(line(tone, word, check.title, &text));
                    if let Some(hint) = &finding.hint {
                        lines.push(format!("{:1$}-> {2}", "", width.saturating_add(8), readable(hint)));
                    }
                }
            }
        }
    }
    lines.push(String::new());
    lines.extend(applied.iter().map(|done| format!("fixed: {}", readable(done))));
    let mendable = findings(results, Severity::Info).filter(|finding| finding.repair.is_some()).count();
    if mendable > 0 {
        lines.push(format!("{mendable} of these can be mended: {}", profile::command("doctor --fix")));
    }
    if findings(results, Severity::Warning).next().is_some() {
        lines.push(format!("What a check means: {}", profile::command("doctor --explain ID")));
    }
    let well = results.iter().filter(|(_, judged)| matches!(judged, Judged::Well(_))).count();
    lines.push(format!("Summary: {well} ok, {} warnings, {} failures", warnings(results), failures(results)));
    lines
}

/// Findings for a program that reads lines, or a person in a hurry: one each.
pub(super) fn lint_lines(results: &Results, least: Severity) -> Vec<String> {
    let one = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        };
        format!("{severity:8}  {}  {}", finding.id, readable(&finding.message))
    };
    findings(results, least).map(one).collect()
}

/// What a check means.
pub(super) fn explanation(check: &Check) -> Vec<String> {
    let worst = match check.worst {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Critical => "critical",
    };
    vec![
        format!("{}: {}", check.id, check.title),
        String::new(),
        check.explanation.to_owned(),
        String::new(),
        format!("worst: {worst}"),
        format!("--fix: {}", check.fix.unwrap_or("nothing; the report says what to type")),
    ]
}
