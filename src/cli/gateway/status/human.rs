//! The report for people: ten lines in a fixed order, then what is wrong and what to type next. Pure.

use crate::cli::gateway::status::Refusal;
use crate::cli::gateway::status::credentials::Wants;
use crate::cli::gateway::status::gather::Gathered;
use crate::cli::logs::CONTAINER_LOGS;
use crate::cli::span::age;
use crate::cli::span::span;
use crate::cli::table::Tone;
use crate::domain::time::UnixSeconds;
use crate::wire::status::EnvoyState;
use crate::wire::status::ReportBody;

/// Width of the names: that of the longest, its colon and a gap.
const WIDTH: usize = "Connectivity probe:".len() + 2;
/// Most problems that are told in lines: the screen holds them.
const MAX_PROBLEMS: usize = 6;
/// Longest problem, in characters.
const MAX_WORDS: usize = 300;

/// All lines.
pub(super) fn lines(gathered: &Gathered, coloured: bool) -> Vec<String> {
    let report = &gathered.report;
    let rows = [
        ("Runtime", runtime(report)),
        ("Envoy", envoy(report)),
        ("Authz", authz(report)),
        ("Connectivity probe", probe(gathered)),
        ("Capability", capability(report)),
        ("Secrets", secrets(report)),
        ("Claims", claims(report)),
        ("Connections", connections(report)),
        ("Config", config(report)),
        ("Log file", (Tone::Plain, log_file(gathered))),
    ];
    let paint = |tone: Tone, text: &str| if coloured { tone.paint(text) } else { text.to_owned() };
    let mut lines: Vec<String> = Vec::new();
    for (name, (tone, text)) in rows {
        lines.push(format!("{:WIDTH$}{}", format!("{name}:"), paint(tone, &clean(&text))));
    }
    let problems = problems(report);
    if !problems.is_empty() {
        lines.push(String::new());
        lines.extend(problems.iter().take(MAX_PROBLEMS).map(|text| format!("- {}", clean(text))));
    }
    for found in report.legacy_services.iter().chain(&report.extra_services) {
        lines.push(format!(
            "- also on this machine ({}): {} ({})",
            found.scope,
            clean(&found.label),
            clean(&found.detail)
        ));
    }
    if !gathered.next.is_empty() {
        lines.push(String::new());
        lines.extend(gathered.next.iter().map(|command| format!("next: {command}")));
    }
    lines
}

/// Without what a terminal would obey: names in it were chosen by others.
fn clean(text: &str) -> String {
    let one_line = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    one_line.take(MAX_WORDS).collect::<String>().trim_end().to_owned()
}

fn runtime(report: &ReportBody) -> (Tone, String) {
    let runtime = &report.service.runtime;
    let now = UnixSeconds::parse_rfc3339(&report.generated_at).unwrap_or_default();
    let since = age(runtime.since.as_deref(), now);
    match runtime.status.as_str() {
        "running" => {
            let pid = runtime.pid.map(|pid| format!("pid {pid}"));
            let since = Some(since).filter(|since| !since.is_empty()).map(|since| format!("for {since}"));
            let manager = Some(report.service.manager.clone()).filter(|manager| manager != "none");
            let details: Vec<_> = [pid, since, manager].into_iter().flatten().collect();
            let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
            (Tone::Good, format!("running{details}"))
        }
        _ if report.known.gateway.mode == "remote" => {
            let asked = if report.rpc.ok.is_some() { "does not answer" } else { "was not asked" };
            (Tone::Attention, format!("elsewhere, and {asked}"))
        }
        "failed" => (Tone::Bad, "stopped (it ended without a word)".to_owned()),
        _ => {
            let last = report.last_shutdown.as_ref();
            let last = last.map(|last| format!(" (last: {}, {})", last.reason, last.at)).unwrap_or_default();
            (Tone::Attention, format!("stopped{last}"))
        }
    }
}

fn envoy(report: &ReportBody) -> (Tone, String) {
    let envoy = &report.known.envoy;
    let version = envoy.version.clone();
    let pid = envoy.pid.map(|pid| format!("pid {pid}"));
    let restarts = (envoy.restarts > 0).then(|| format!("restarts: {}", envoy.restarts));
    let details: Vec<_> = [version, pid, restarts].into_iter().flatten().collect();
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
    match envoy.state {
        EnvoyState::Live => (Tone::Good, format!("live{details}")),
        EnvoyState::Draining => (Tone::Attention, format!("draining{details}")),
        EnvoyState::Initializing => (Tone::Attention, format!("starting{details}")),
        EnvoyState::Down => (Tone::Bad, "down".to_owned()),
        EnvoyState::Unknown if envoy.managed => (Tone::Attention, format!("not known{details}")),
        EnvoyState::Unknown => (Tone::Plain, "elsewhere (not run by this gateway)".to_owned()),
    }
}

fn authz(report: &ReportBody) -> (Tone, String) {
    let failing = report.known.readiness.failures.iter().any(|kind| kind == "AuthzReachable");
    if report.known.authz.reachable {
        return (Tone::Good, "ok".to_owned());
    }
    if report.known.readiness.messages.iter().any(|text| text.starts_with("AuthzReachable: draining until ")) {
        return (Tone::Attention, "refuses new requests (draining)".to_owned());
    }
    let open = report.known.readiness.messages.iter().any(|text| text.contains("let through"));
    match (failing, open) {
        (true, true) => (Tone::Bad, "OPEN: an unsigned request was let through".to_owned()),
        (true, false) => (Tone::Bad, "unreachable (failing closed)".to_owned()),
        (false, _) => (Tone::Attention, "not known".to_owned()),
    }
}

/// What the two ports say: the admin API, and Envoy on the port of agents.
fn probe(gathered: &Gathered) -> (Tone, String) {
    let (report, rpc) = (&gathered.report, &gathered.report.rpc);
    let took = rpc.latency_ms.map(|ms| format!(", {ms} ms")).unwrap_or_default();
    match (rpc.ok, gathered.refusal, &gathered.ingress) {
        (None, _, _) => (Tone::Plain, "not made (--no-probe)".to_owned()),
        (_, Some(Refusal::Unreachable | Refusal::Other), _) => {
            (Tone::Bad, format!("failed ({})", rpc.error.as_deref().unwrap_or(&rpc.url)))
        }
        (_, _, Some(Err(why))) => (Tone::Bad, format!("failed ({why})")),
        (_, Some(Refusal::Unauthorized), _) => {
            let (wants, sent) = gathered.wants.unwrap_or((Wants::Token, true));
            (Tone::Attention, format!("ok ({}{took}), but {}", rpc.url, wants.words(sent)))
        }
        (Some(_), None, _) => {
            let agents = format!(
                "{}:{}",
                report.known.gateway.runtime_listener.host, report.known.gateway.runtime_listener.port
            );
            let agents = gathered.ingress.as_ref().map(|_| format!(" and {agents}")).unwrap_or_default();
            (Tone::Good, format!("ok ({}{agents}{took})", rpc.url))
        }
    }
}

fn capability(report: &ReportBody) -> (Tone, String) {
    let capability = report.rpc.capability.clone();
    match (report.rpc.auth_warning.clone(), capability.as_str()) {
        (Some(warning), _) => (Tone::Attention, format!("{capability} ({warning})")),
        (None, "admin_capable") => (Tone::Good, capability),
        (None, _) => (Tone::Attention, capability),
    }
}

fn secrets(report: &ReportBody) -> (Tone, String) {
    let secrets = &report.known.secrets;
    let refs = secrets.refs.active + secrets.refs.inactive;
    match (report.rpc.ok, secrets.state.as_str()) {
        (Some(true), "ok") => (Tone::Good, format!("ok gen {} (references: {refs})", secrets.generation)),
        (Some(true), state) => {
            let (generation, unresolved) = (secrets.generation, secrets.refs.unresolved);
            let old = span(secrets.age_seconds);
            (Tone::Bad, format!("{state} gen {generation} (unresolved: {unresolved}, {old} old)"))
        }
        _ => (Tone::Attention, "not known".to_owned()),
    }
}

fn claims(report: &ReportBody) -> (Tone, String) {
    let claims = &report.known.claims;
    let old = claims.age_seconds.map(|seconds| format!(", {} old", span(seconds))).unwrap_or_default();
    let approved = claims.approved;
    match (report.rpc.ok, claims.state.as_str()) {
        (Some(true), _) if claims.source == "off" => (Tone::Plain, format!("off (approved in the file: {approved})")),
        (Some(true), "fresh") => (Tone::Good, format!("fresh (approved: {approved}{old})")),
        (Some(true), state) => (Tone::Attention, format!("{state} (approved: {approved}{old})")),
        _ => (Tone::Attention, "not known".to_owned()),
    }
}

fn connections(report: &ReportBody) -> (Tone, String) {
    if report.rpc.ok != Some(true) {
        return (Tone::Attention, "not known".to_owned());
    }
    let found = &report.known.connections;
    let mut parts = vec![format!("{} active", found.active)];
    for (count, word) in
        [(found.disabled, "disabled"), (found.degraded, "degraded"), (found.rotation_due, "due for rotation")]
    {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let tone = if found.degraded > 0 { Tone::Attention } else { Tone::Good };
    (tone, parts.join(", "))
}

fn config(report: &ReportBody) -> (Tone, String) {
    let file = &report.config.cli;
    let restart = report.config.applied.restart_required.len();
    match (file.valid, file.exists) {
        (false, _) => {
            let count = file.issues.len();
            (Tone::Bad, format!("{} (mistakes: {count})", file.path))
        }
        (true, true) if restart > 0 => (Tone::Attention, format!("{} (valid, a restart is due)", file.path)),
        (true, true) => (Tone::Good, format!("{} (valid)", file.path)),
        (true, false) => (Tone::Plain, format!("{} (not there; defaults)", file.path)),
    }
}

fn log_file(gathered: &Gathered) -> String {
    if gathered.log_is_outside { format!("none: {CONTAINER_LOGS}") } else { gathered.report.log_file.clone() }
}

/// What is wrong, the cause first.
fn problems(report: &ReportBody) -> Vec<String> {
    let mut found: Vec<String> = report.config.cli.issues.iter().map(|issue| issue.message.clone()).collect();
    found.extend(
        report
            .port
            .iter()
            .flat_map(|port| port.hints.iter().map(|hint| format!("{}: {hint}", port.port)).collect::<Vec<_>>()),
    );
    found.extend(report.known.readiness.messages.iter().cloned());
    found
}

#[cfg(test)]
#[path = "human_tests.rs"]
mod tests;
