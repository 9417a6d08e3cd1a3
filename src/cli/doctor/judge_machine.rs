//! What the facts about files, units and other programs of the machine mean. Pure.

use std::collections::BTreeMap;

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::facts::IdentityFact;
use crate::cli::doctor::facts::ModeFact;
use crate::cli::doctor::facts::OpenclawFact;
use crate::cli::doctor::facts::Owner;
use crate::cli::doctor::facts::Privacy;
use crate::cli::doctor::facts::UnitFact;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::finding::Judged;
use crate::cli::doctor::finding::Repair;
use crate::cli::doctor::finding::Severity;
use crate::cli::doctor::judge::NO_GATEWAY;
use crate::cli::gateway::drift;
use crate::secrets::residue;
use crate::wire::status::DriftBody;

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;
/// Of those, the ones that change something.
const OTHERS_WRITE: u32 = 0o022;
/// Everybody who is neither owner nor in the group.
const STRANGERS: u32 = 0o007;
/// Says that what is made in a folder gets its group: how a folder is shared on purpose.
const SHARED: u32 = 0o2000;
/// Lines of a unit that are quoted.
const MAX_LINES: usize = 3;
/// What an older gateway wrote into its unit: what it started runs on beside the next one.
const LEGACY_KILL: &str = "KillMode=process";

/// Who may use what is there.
pub(super) fn modes(facts: &Facts) -> Judged {
    let found = facts.modes.iter().filter_map(mode).collect();
    let well = match facts.modes.len() {
        0 => "nothing of the gateway is there yet".to_owned(),
        count => format!("{count} files and folders are as private as they should be"),
    };
    Judged::of(found, well)
}

fn mode(fact: &ModeFact) -> Option<Finding> {
    let id = "files/modes";
    let path = fact.path.display().to_string();
    let severity = match fact.privacy {
        Privacy::Secret | Privacy::Shared => Severity::Error,
        Privacy::Own | Privacy::Readable => Severity::Warning,
    };
    if let Owner::Other(user) = fact.owner {
        let message = format!("{path} belongs to user {user}, neither to the user of the gateway nor to root");
        return Some(
            Finding::new(id, severity, message).at(path.clone()).hint(format!("chown it, or move it away: {path}")),
        );
    }
    let shared = fact.folder && fact.mode & SHARED != 0;
    let wrong = match (fact.privacy, fact.owner) {
        (Privacy::Readable, _) => fact.mode & OTHERS_WRITE,
        // Root gave it to a group of ours, without which we could not read it; or somebody shares the folder on purpose.
        (Privacy::Secret | Privacy::Own | Privacy::Shared, Owner::Root) | (Privacy::Shared, _) => {
            fact.mode & (STRANGERS | OTHERS_WRITE)
        }
        (Privacy::Own, Owner::Us | Owner::Other(_)) if shared => fact.mode & STRANGERS,
        (Privacy::Secret | Privacy::Own, Owner::Us | Owner::Other(_)) => fact.mode & OTHERS,
    };
    if wrong == 0 {
        return None;
    }
    let verb = if wrong & OTHERS_WRITE != 0 { "change" } else { "read" };
    let mode = fact.mode & 0o7777;
    let wanted = fact.mode & 0o777 & !wrong;
    let message = format!("others can {verb} {path} (mode {mode:04o})");
    let finding = Finding::new(id, severity, message).at(path.clone()).hint(format!("chmod {wanted:03o} {path}"));
    Some(match fact.owner {
        Owner::Us => finding.repair(Repair::Tighten { path: fact.path.clone(), take: wrong }),
        Owner::Root | Owner::Other(_) => finding,
    })
}

/// Folders that are not there.
pub(super) fn folders(facts: &Facts) -> Judged {
    let found = facts.missing.iter().map(|path| {
        let shown = path.display().to_string();
        Finding::new("files/folders", Severity::Info, format!("{shown} is not there; the first start makes it"))
            .at(shown)
            .repair(Repair::Folder(path.clone()))
    });
    Judged::of(found.collect(), "the folders of the gateway are there")
}

/// Whether the gateway has a name.
pub(super) fn identity_present(facts: &Facts) -> Judged {
    match &facts.identity {
        IdentityFact::Valid(namespace, path) => Judged::Well(format!("{namespace} ({})", path.display())),
        IdentityFact::Wrong(path, _) => Judged::Well(path.display().to_string()),
        IdentityFact::None(home, why) => {
            // Without its home the identity would be made in another.
            let home = home.display();
            Judged::Found(vec![Finding::new("identity/present", Severity::Warning, why.clone()).hint(format!(
                "sigilum identity init --namespace NAME --sigilum-home {home}, or start the gateway with --namespace NAME"
            ))])
        }
    }
}

/// Whether its record is whole: key, certificate and names belong together.
pub(super) fn identity_match(facts: &Facts) -> Judged {
    match &facts.identity {
        IdentityFact::Valid(..) => Judged::Well("key, certificate and names belong together".to_owned()),
        IdentityFact::None(..) => Judged::Skipped("there is no identity".to_owned()),
        IdentityFact::Wrong(path, why) => Judged::Found(vec![
            Finding::new("identity/key-match", Severity::Error, why.clone()).at(path.display().to_string()).hint(
                "put the file back from a copy; a new identity (sigilum identity init --force) loses its approvals",
            ),
        ]),
    }
}

/// An agent of our user can read our keys.
pub(super) fn same_owner(facts: &Facts) -> Judged {
    match facts.same_owner {
        None => return Judged::Skipped("there is no identity, or no master key yet".to_owned()),
        Some(false) => return Judged::Well("identities and the master key are in different hands".to_owned()),
        Some(true) => {}
    }
    let message = "identities and the master key belong to the same user: an agent that runs as this user can read the \
                   provider keys";
    Judged::Found(vec![
        Finding::new("identity/same-owner", Severity::Info, message)
            .hint("where agents are not trusted, run the gateway as a user of its own"),
    ])
}

/// Secrets in clear, counted.
pub(super) fn residue(facts: &Facts) -> Judged {
    // Who may read a file is told once, there.
    let told: Vec<_> = facts.modes.iter().filter(|fact| mode(fact).is_some()).map(|fact| &fact.path).collect();
    let mut counts: BTreeMap<(&str, residue::Severity), usize> = BTreeMap::new();
    for found in facts.residue.iter().filter(|found| !told.iter().any(|path| path.as_os_str() == found.path.as_str())) {
        *counts.entry((found.code.name(), found.severity)).or_default() += 1;
    }
    let found = counts.into_iter().map(|((code, severity), count)| {
        let severity = match severity {
            residue::Severity::Info => Severity::Info,
            residue::Severity::Warn => Severity::Warning,
            residue::Severity::Error => Severity::Error,
        };
        let places = if count == 1 { "place" } else { "places" };
        Finding::new("secrets/audit", severity, format!("{code} in {count} {places}")).hint("sigilum secrets audit")
    });
    Judged::of(found.collect(), "no secret lies about in clear")
}

/// Core dumps hold what was in memory.
pub(super) fn cores(facts: &Facts) -> Judged {
    if facts.instance.pids.is_empty() {
        return Judged::Skipped(NO_GATEWAY.to_owned());
    }
    let found = facts.cores.iter().map(|(pid, limit)| {
        let message = format!("process {pid} of the gateway may leave a core dump with credentials (limit {limit})");
        Finding::new("host/core-dumps", Severity::Warning, message).hint("restart the gateway; LimitCORE=0 in a unit")
    });
    Judged::of(found.collect(), "no process of the gateway leaves a core dump")
}

/// The unit is what we would write now.
pub(super) fn drift(facts: &Facts) -> Judged {
    let id = "service/drift";
    let Some(unit) = &facts.service.unit else { return Judged::Skipped(NO_UNIT.to_owned()) };
    let path = unit.path.display().to_string();
    if unit.text.contains(LEGACY_KILL) {
        return Judged::Skipped("it is of an older gateway: see service/legacy-unit".to_owned());
    }
    let Some(wanted) = &unit.wanted else {
        let message = format!("{path} is not written as this program writes units");
        let finding = Finding::new(id, Severity::Info, message);
        return Judged::Found(vec![finding.at(path).hint("sigilum gateway install writes it anew")]);
    };
    let mut found = Vec::new();
    if let (false, Some(command)) = (unit.program_exists, &unit.command) {
        let message = format!("the unit starts {}, which is not there", command.program.display());
        found.push(Finding::new(id, Severity::Error, message));
    } else if *wanted != unit.text {
        let message = format!("the unit differs from what this version writes: {}", differences(unit, wanted));
        found.push(Finding::new(id, Severity::Warning, message));
    }
    let found = found.into_iter().map(|finding| {
        let finding = finding.at(path.clone());
        match rewrite_refused(facts) {
            Some(why) => finding.hint(why),
            None => finding
                .hint("sigilum doctor --fix --yes writes it anew, but not drop-ins")
                .repair(Repair::Unit { path: unit.path.clone(), text: wanted.clone() }),
        }
    });
    Judged::of(found.collect(), path.clone())
}

/// Why a unit of this user is not ours to write.
fn rewrite_refused(facts: &Facts) -> Option<&'static str> {
    if facts.service.external {
        return Some("units are managed elsewhere (SIGILUM_SERVICE_REPAIR_POLICY=external)");
    }
    facts
        .service
        .system
        .is_some()
        .then_some("the machine has a unit of this name, which owns the gateway: see service/duplicate")
}

/// Lines that one has and the other lacks.
fn differences(unit: &UnitFact, wanted: &str) -> String {
    let lacks = |text: &str, line: &&str| !text.lines().any(|other| other == *line);
    let gone = unit.text.lines().filter(|line| lacks(wanted, line)).map(|line| format!("has `{}`", shown(line)));
    let new = wanted.lines().filter(|line| lacks(&unit.text, line)).map(|line| format!("lacks `{}`", shown(line)));
    let all: Vec<_> = gone.chain(new).collect();
    let more = all.len().saturating_sub(MAX_LINES);
    let mut text = all.iter().take(MAX_LINES).cloned().collect::<Vec<_>>().join(", ");
    match (all.is_empty(), more) {
        (true, _) => "the order of lines".clone_into(&mut text),
        (false, 0) => {}
        (false, more) => text.push_str(&format!(", and {more} more")),
    }
    text
}

/// A line of a unit without the value of a variable, which somebody may have put a secret into.
fn shown(line: &str) -> String {
    match line.strip_prefix("Environment=") {
        Some(rest) => format!("Environment={}=…", rest.trim_start_matches('"').split('=').next().unwrap_or_default()),
        None => line.to_owned(),
    }
}

/// The unit starts the gateway on other ports than the settings say.
pub(super) fn port_drift(facts: &Facts) -> Judged {
    let Some(command) = facts.service.unit.as_ref().and_then(|unit| unit.command.as_ref()) else {
        return Judged::Skipped(NO_UNIT.to_owned());
    };
    let (admin, ingress) = &facts.service.ports;
    let found = drift::ports(command, admin, ingress).into_iter().map(|differs| {
        let DriftBody { field, unit, config } = differs;
        let message = format!("the unit puts the {field} on port {unit}, the settings on {config}");
        Finding::new("service/port-drift", Severity::Warning, message)
            .hint("sigilum gateway install writes the unit for the settings; or change gateway.yaml")
    });
    let found = found.collect();
    Judged::of(found, "the unit and the settings name the same ports")
}

const NO_UNIT: &str = "this user has no unit of the gateway";

/// Without lingering, the user's units end with the last login.
pub(super) fn linger(facts: &Facts) -> Judged {
    if facts.service.unit.is_none() {
        return Judged::Skipped(NO_UNIT.to_owned());
    }
    match (facts.service.systemd, facts.service.linger) {
        (false, _) => Judged::Skipped("systemd does not run this machine".to_owned()),
        (true, None) => Judged::Skipped("the name of this user is not known".to_owned()),
        (true, Some(true)) => Judged::Well("this user's units run without a login".to_owned()),
        (true, Some(false)) => Judged::Found(vec![
            Finding::new("service/linger", Severity::Warning, "the gateway's unit ends when this user logs out")
                .hint("sudo loginctl enable-linger $USER"),
        ]),
    }
}

/// Two units for one gateway.
pub(super) fn duplicate(facts: &Facts) -> Judged {
    let id = "service/duplicate";
    let mut found = Vec::new();
    if let (Some(unit), Some(system)) = (&facts.service.unit, &facts.service.system) {
        let (user, system) = (unit.path.display(), system.display().to_string());
        let message = format!("both the user and the machine have a unit of the gateway: {user} and {system}");
        found.push(
            Finding::new(id, Severity::Error, message)
                .at(system)
                .hint("keep one: systemctl --user disable --now sigilum-gateway.service, or the same with sudo and without --user"),
        );
    }
    for unit in facts.service.others.iter().filter(|unit| !unit.legacy) {
        let path = unit.path.display().to_string();
        let message = format!("the unit {} starts a gateway too", unit.name);
        found.push(
            Finding::new(id, Severity::Warning, message)
                .at(path)
                .hint("if it is not needed, disable it and remove the file"),
        );
    }
    Judged::of(found, "no second unit starts a gateway")
}

/// What an older gateway installed.
pub(super) fn legacy(facts: &Facts) -> Judged {
    let own = facts.service.unit.iter().filter(|unit| unit.text.contains(LEGACY_KILL));
    let own = own.map(|unit| unit.path.display().to_string());
    let others = facts.service.others.iter().filter(|unit| unit.legacy).map(|unit| unit.path.display().to_string());
    let found = own.chain(others).map(|path| {
        let message = format!("{path} is of an older gateway, whose processes outlive their unit ({LEGACY_KILL})");
        Finding::new("service/legacy-unit", Severity::Error, message)
            .at(path)
            .hint("disable and stop it, remove the file, then: sigilum gateway connect")
    });
    Judged::of(found.collect(), "no unit of an older gateway is left")
}

/// The configuration of OpenClaw, as far as it is about us.
pub(super) fn openclaw(facts: &Facts) -> Judged {
    let id = "openclaw/config";
    match &facts.openclaw {
        OpenclawFact::Absent => Judged::Skipped("OpenClaw is not on this machine".to_owned()),
        OpenclawFact::Missing(path) => {
            let path = path.display().to_string();
            let message = format!("OpenClaw is here, and {path} is not");
            Judged::Found(vec![
                Finding::new(id, Severity::Warning, message).at(path).hint("sigilum auth login writes it"),
            ])
        }
        OpenclawFact::Unreadable(path, why) => {
            let path = path.display().to_string();
            Judged::Found(vec![Finding::new(id, Severity::Error, format!("{path}: {why}")).at(path)])
        }
        OpenclawFact::Broken(path, mode, why) => {
            let shown = path.display().to_string();
            let broken = Finding::new(id, Severity::Error, format!("{shown}: {why}")).at(shown);
            Judged::Found(openclaw_mode(path, *mode).into_iter().chain([broken]).collect())
        }
        OpenclawFact::Read { path, mode, notifies, token } => {
            let shown = path.display().to_string();
            let about =
                |severity, message: &str, hint: &str| Finding::new(id, severity, message).at(shown.clone()).hint(hint);
            let wiring = match (notifies, token) {
                (true, false) => Some(about(
                    Severity::Error,
                    "the notifier of approvals runs without an owner token",
                    "sigilum auth login --enable-authz-notify true",
                )),
                (true, true) => Some(about(
                    Severity::Warning,
                    "the owner token stands in OpenClaw's configuration: its agents can approve themselves",
                    "where agents are not trusted: sigilum auth login --enable-authz-notify false",
                )),
                (false, true) => Some(about(
                    Severity::Warning,
                    "an owner token is left in OpenClaw's configuration, whose notifier does not run",
                    "sigilum auth login --enable-authz-notify false removes it",
                )),
                (false, false) => None,
            };
            Judged::of(openclaw_mode(path, *mode).into_iter().chain(wiring).collect(), shown.clone())
        }
    }
}

fn openclaw_mode(path: &std::path::Path, mode: u32) -> Option<Finding> {
    let wrong = mode & OTHERS;
    let shown = path.display().to_string();
    let message = format!("others can use {shown} (mode {:04o}), where tokens stand", mode & 0o7777);
    (wrong != 0).then(|| {
        Finding::new("openclaw/config", Severity::Warning, message)
            .hint(format!("chmod 600 {shown}"))
            .at(shown)
            .repair(Repair::Tighten { path: path.to_owned(), take: wrong })
    })
}

#[cfg(test)]
#[path = "judge_machine_tests.rs"]
mod tests;
