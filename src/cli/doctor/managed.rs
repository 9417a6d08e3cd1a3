//! How this machine's OpenClaw is tied to Sigilum, and what earlier versions of `doctor` said of it under names of their own.
//! Pure.

use std::path::PathBuf;

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::facts::OpenclawFact;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::finding::Judged;
use crate::cli::doctor::finding::Severity;

/// The mode in which the hosted API is the owner's.
pub(super) const MANAGED: &str = "managed";
/// Why the checks of that mode say nothing.
const NOT_MANAGED: &str = "OpenClaw's mode here is not managed";

/// What OpenClaw's configuration and the environment say of Sigilum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Integration {
    /// `managed` or `oss-local`; `None`: nobody says.
    pub(super) mode: Option<String>,
    /// The namespace; `None`: nobody says.
    pub(super) namespace: Option<String>,
    /// Whether there is an owner token somewhere.
    pub(super) owner_token: bool,
    /// `SIGILUM_HOME`; `None`: it is not set.
    pub(super) home: Option<PathBuf>,
    /// Whether a service key is in that folder, or in the environment.
    pub(super) service_key: bool,
    /// The key files of a local stack: label, path, whether it is there.
    pub(super) key_files: Vec<(&'static str, PathBuf, bool)>,
}

impl Integration {
    fn is_managed(&self) -> bool {
        self.mode.as_deref() == Some(MANAGED)
    }
}

/// Whether somebody signed in.
pub(super) fn onboarding(facts: &Facts) -> Judged {
    let found = &facts.integration;
    match (found.is_managed(), found.owner_token) {
        (false, _) => Judged::Skipped(NOT_MANAGED.to_owned()),
        (true, true) => Judged::Well("there is an owner token".to_owned()),
        (true, false) => Judged::Found(vec![
            Finding::new("managed/onboarding", Severity::Warning, "OpenClaw is managed, and there is no owner token")
                .hint("sigilum auth login --mode managed --owner-token-stdin < FILE"),
        ]),
    }
}

/// Whether its runtime knows where its keys are.
pub(super) fn home(facts: &Facts) -> Judged {
    match (facts.integration.is_managed(), &facts.integration.home) {
        (false, _) => Judged::Skipped(NOT_MANAGED.to_owned()),
        (true, Some(home)) => Judged::Well(home.display().to_string()),
        (true, None) => Judged::Found(vec![
            Finding::new("managed/home", Severity::Error, "OpenClaw is managed, and SIGILUM_HOME is not set")
                .at("SIGILUM_HOME")
                .hint("set env.vars.SIGILUM_HOME in openclaw.json to the folder with the service keys"),
        ]),
    }
}

/// Whether there is a service key.
pub(super) fn service_key(facts: &Facts) -> Judged {
    match (facts.integration.is_managed(), facts.integration.service_key) {
        (false, _) => Judged::Skipped(NOT_MANAGED.to_owned()),
        (true, true) => Judged::Well("there is a service key".to_owned()),
        (true, false) => Judged::Found(vec![
            Finding::new("managed/service-key", Severity::Error, "OpenClaw is managed, and there is no service key")
                .hint("write it to service-api-key-<slug> in SIGILUM_HOME, or set SIGILUM_SERVICE_API_KEY"),
        ]),
    }
}

/// One row under an earlier name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// `ok`, `warn`, `fail` or `info`.
    pub(super) status: &'static str,
    /// Its name.
    pub(super) label: &'static str,
    /// In words.
    pub(super) detail: String,
}

/// The rows. What is wrong is a finding of another check too, and counts there.
pub(super) fn labels(facts: &Facts) -> Vec<Label> {
    let row = |status, label, detail: String| Label { status, label, detail };
    let mut rows = of_openclaw(&facts.openclaw);
    let found = &facts.integration;
    let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
    rows.push(row("info", "Detected mode", said(&found.mode)));
    rows.push(row("info", "Detected namespace", said(&found.namespace)));
    for (label, path, exists) in &found.key_files {
        let (status, what) = if *exists { ("ok", "") } else { ("info", " is not there") };
        rows.push(row(status, label, format!("{}{what}", path.display())));
    }
    rows
}

fn of_openclaw(fact: &OpenclawFact) -> Vec<Label> {
    let row = |status, label, detail: &str| Label { status, label, detail: detail.to_owned() };
    let permissions = |mode: u32| {
        let status = if mode & 0o077 == 0 { "ok" } else { "warn" };
        row(status, "Config permissions", &format!("mode {mode:04o}"))
    };
    match fact {
        OpenclawFact::Absent | OpenclawFact::Missing(_) => Vec::new(),
        OpenclawFact::Unreadable(_, why) => vec![row("fail", "Config parse", why)],
        OpenclawFact::Broken(_, mode, why) => vec![permissions(*mode), row("fail", "Config parse", why)],
        OpenclawFact::Read { mode, notifies, token, .. } => {
            let mut rows = vec![permissions(*mode), row("ok", "Config parse", "it can be read")];
            rows.push(match (notifies, token) {
                (true, false) => row("fail", "authz-notify", "enabled, without an owner token"),
                (true, true) => row("ok", "authz-notify", "enabled"),
                (false, _) => row("ok", "authz-notify", "disabled"),
            });
            match (notifies, token) {
                (true, true) => {
                    rows.push(row("warn", "Owner token exposure", "OpenClaw's agents can read the owner token"));
                }
                (false, true) => {
                    rows.push(row("warn", "Owner token residue", "an owner token is left, and nothing uses it"));
                }
                (_, false) => {}
            }
            rows
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::facts::tests_support::well;

    fn severities(integration: Integration) -> Vec<Option<Severity>> {
        let facts = Facts { integration, ..well() };
        let judges = [onboarding, home, service_key];
        let worst = |judged: Judged| match judged {
            Judged::Found(found) => found.iter().map(|finding| finding.severity).max(),
            Judged::Skipped(_) | Judged::Well(_) => None,
        };
        judges.iter().map(|judge| worst(judge(&facts))).collect()
    }

    #[test]
    fn a_managed_openclaw_needs_a_token_a_home_and_a_key() {
        let managed = || Integration { mode: Some(MANAGED.to_owned()), ..Integration::default() };
        let (warning, error) = (Some(Severity::Warning), Some(Severity::Error));
        assert_eq!(severities(managed()), [warning, error, error]);
        let home = Some(PathBuf::from("/h"));
        assert_eq!(severities(Integration { home, service_key: true, owner_token: true, ..managed() }), [None; 3]);
        let local = Integration { mode: Some("oss-local".to_owned()), ..Integration::default() };
        assert_eq!(severities(local), [None; 3]);
    }

    #[test]
    fn rows_have_the_names_they_had() {
        let path = PathBuf::from("/o");
        let told =
            |fact| of_openclaw(&fact).iter().map(|row| format!("{} {}", row.status, row.label)).collect::<Vec<_>>();
        let read = |mode, notifies, token| OpenclawFact::Read { path: path.clone(), mode, notifies, token };
        assert_eq!(told(read(0o600, false, false)), ["ok Config permissions", "ok Config parse", "ok authz-notify"]);
        assert_eq!(told(read(0o644, true, false)), ["warn Config permissions", "ok Config parse", "fail authz-notify"]);
        assert_eq!(told(read(0o600, true, true)).last().map(String::as_str), Some("warn Owner token exposure"));
        assert_eq!(told(read(0o600, false, true)).last().map(String::as_str), Some("warn Owner token residue"));
        let broken = OpenclawFact::Broken(path.clone(), 0o600, "m".to_owned());
        assert_eq!(told(broken), ["ok Config permissions", "fail Config parse"]);
        assert!(told(OpenclawFact::Absent).is_empty());
    }
}
