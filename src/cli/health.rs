//! `sigilum health`: the conditions of readiness as the running gateway tells them. For probes of containers also whether
//! one process lives, or decides.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::app::authz_health::AuthzDoor;
use crate::app::authz_health::AuthzHealth;
use crate::app::authz_health::AuthzHealthError;
use crate::app::authz_health::AuthzTold;
use crate::app::status_api::StatusApi;
use crate::cli::args::Globals;
use crate::cli::container;
use crate::cli::gateway::authz::TlsArgs;
use crate::cli::gateway::endpoint::Endpoint;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::cli::reach;
use crate::cli::table::Cell;
use crate::cli::table::Table;
use crate::cli::table::Tone;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::health::ConditionBody;
use crate::wire::health::ConditionKind;
use crate::wire::health::DRAINING;
use crate::wire::health::DetailsBody;
use crate::wire::health::Status;

/// Options of `health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Ask only whether the process answers, admin or that of --authz; wants no token
    #[arg(long, conflicts_with_all = ["verbose", "json"])]
    live: bool,
    /// Ask an authz process instead whether it decides: unix:PATH, or tcp:HOST:PORT with certificates
    #[arg(long, value_name = "ENDPOINT", value_parser = Endpoint::parse, conflicts_with_all = ["verbose", "json"])]
    authz: Option<Endpoint>,
    /// Certificates, for TCP.
    #[command(flatten)]
    tls: TlsArgs,
    /// Name that the certificate of authz must carry, for TCP
    #[arg(long, value_name = "NAME", requires = "authz")]
    authz_name: Option<String>,
    /// Have the gateway look at everything now, and show what holds too
    #[arg(long)]
    verbose: bool,
    /// How long the answer may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    /// Configuration file [default: <home>/gateway.yaml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask only what this container runs, whichever role that is: its health check
    #[arg(long, conflicts_with_all = ["json", "verbose", "config", "live", "authz"])]
    container: bool,
}

/// Asks and tells: exit 0 ready, 1 not ready, 4 the details were refused, 5 nobody answers.
pub(super) async fn run(args: &HealthArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let patience = Duration::from_millis(args.timeout);
    if args.container {
        return container::run(patience, printer).await;
    }
    if let Some(endpoint) = &args.authz {
        let outcome = of_authz(&door(endpoint, args)?, patience, printer).await?;
        // Whoever answers lives; one that waits for its state is not helped by a restart.
        return Ok(if args.live { Outcome::Done } else { outcome });
    }
    let mut flags = globals.flags();
    let file = args.config.as_ref().map(|file| file.to_string_lossy().into_owned());
    flags.set(&crate::config::keys::CONFIG_FILE, file);
    // Also where the file has become unusable since: the gateway that runs can still be asked.
    let config = reach::answering(&flags, printer)?;
    let token = gateway_api::token(&config).inspect_err(|error| {
        if args.json && error.outcome == Outcome::Unreachable {
            // What the error itself says follows in any case.
            let _ = printer.json(&unanswered(&error.message));
        }
    })?;
    let trust = gateway_api::trust(&config.admin.trust);
    let api = StatusApi::new(&config.admin_url, token.as_ref(), &trust, patience);
    let api = api.map_err(|error| gateway_api::failed(&error))?;
    if args.live {
        api.alive().await.map_err(|error| gateway_api::failed(&error))?;
        printer.line("alive")?;
        return Ok(Outcome::Done);
    }
    let told = api.readiness::<DetailsBody>(args.verbose).await;
    let told = match told {
        Ok(told) => told,
        Err(error) => {
            if args.json {
                printer.json(&unanswered(&error.to_string()))?;
            }
            return Err(gateway_api::failed(&error));
        }
    };
    if args.json {
        printer.json(&told.body)?;
    }
    let Some(details) = &told.details else {
        if !args.json {
            printer.line(if told.ready { "ready" } else { "not ready" })?;
        }
        return Err(CliError::new(
            Outcome::Unauthorized,
            "unauthorized: the gateway tells why only to those who have its admin token or password",
        )
        .hint(
            "the token is GATEWAY_ADMIN_TOKEN, else <data-dir>/admin-token of the gateway (see --gateway-data-dir); the \
             password is that of SIGILUM_GATEWAY_PASSWORD_FILE",
        ));
    };
    if !args.json {
        printer.lines(&lines(told.ready, details, args.verbose, printer.is_coloured()))?;
    }
    Ok(if told.ready { Outcome::Done } else { Outcome::Failed })
}

/// What is known of a gateway that does not say how it stands.
fn unanswered(message: &str) -> Value {
    json!({"check": "readiness", "ok": false, "ready": false, "status": "unknown", "message": message})
}

/// Asks one authz alone.
pub(super) async fn of_authz(door: &AuthzDoor, patience: Duration, printer: &mut Printer) -> Result<Outcome, CliError> {
    let told = door.health(patience).await.map_err(|error| CliError::new(outcome_of(&error), error.to_string()))?;
    let outcome = match told.health {
        // An outage of admin must not become one of everybody it feeds.
        AuthzHealth::Serving | AuthzHealth::Cut => Outcome::Done,
        AuthzHealth::NotServing => Outcome::Failed,
    };
    printer.line(&standing(&told, SystemClock.now().seconds()))?;
    Ok(outcome)
}

/// How an authz stands, in one line; with its certificate for admin where that nears its end, or is past it.
fn standing(told: &AuthzTold, now: UnixSeconds) -> String {
    let ending = told.certificate.filter(|certificate| certificate.ends_soon(now));
    let certificate = ending.map(|certificate| format!("the certificate it shows admin {}", certificate.said(now)));
    let over = ending.is_some_and(|certificate| certificate.is_over(now));
    match (told.health, certificate) {
        (AuthzHealth::Serving, None) => "ready".to_owned(),
        (AuthzHealth::Serving, Some(certificate)) => format!("ready; {certificate}"),
        (AuthzHealth::Cut, Some(certificate)) if over => {
            format!("ready, without admin: {certificate}; what was received stays in force")
        }
        (AuthzHealth::Cut, None) => "ready, without admin: what was received stays in force".to_owned(),
        (AuthzHealth::Cut, Some(certificate)) => {
            format!("ready, without admin: what was received stays in force; {certificate}")
        }
        (AuthzHealth::NotServing, certificate) => {
            let why = told.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let certificate = certificate.map(|certificate| format!("; {certificate}")).unwrap_or_default();
            format!("not ready{why}{certificate}")
        }
    }
}

fn door(endpoint: &Endpoint, args: &HealthArgs) -> Result<AuthzDoor, CliError> {
    match (endpoint, args.tls.files(), &args.authz_name) {
        (Endpoint::Unix(path), _, _) => Ok(AuthzDoor::unix(path)),
        (Endpoint::Tcp(address), Some(files), Some(name)) => AuthzDoor::tls(address.clone(), &files, name)
            .map_err(|error| CliError::new(Outcome::Config, error.to_string())),
        (Endpoint::Tcp(_), _, _) => {
            Err(CliError::new(Outcome::Usage, "--authz tcp: wants --tls-cert, --tls-key, --tls-ca and --authz-name"))
        }
    }
}

const fn outcome_of(error: &AuthzHealthError) -> Outcome {
    match error {
        AuthzHealthError::Tls(_) => Outcome::Config,
        AuthzHealthError::Unreachable(_) | AuthzHealthError::Late(_) => Outcome::Unreachable,
    }
}

/// What does not hold, with what to type next; with `all` also what does.
fn lines(ready: bool, details: &DetailsBody, all: bool, coloured: bool) -> Vec<String> {
    let (word, tone) = if ready { ("ready", Tone::Good) } else { ("not ready", Tone::Bad) };
    let mut lines = vec![if coloured { tone.paint(word) } else { word.to_owned() }];
    let told = |condition: &&ConditionBody| all || condition.is_failure() || condition.is_advisory();
    let told: Vec<_> = details.conditions.iter().filter(told).collect();
    if !told.is_empty() {
        let mut table = Table::new(&["CONDITION", "OF", "STATUS", "REASON", "WHAT"]);
        for condition in &told {
            let (status, tone) = match condition.status {
                Status::True => ("true", Tone::Good),
                Status::False if condition.is_failure() => ("FALSE", Tone::Bad),
                Status::False => ("false", Tone::Attention),
                Status::Unknown => ("unknown", Tone::Faint),
            };
            table.row(vec![
                condition.kind.as_str().into(),
                condition.subject_ref.as_str().into(),
                Cell::toned(status, tone),
                condition.reason.as_str().into(),
                condition.message.as_str().into(),
            ]);
        }
        lines.extend(table.lines(coloured));
    }
    let mut next: Vec<_> = told.iter().filter_map(|condition| next_step(condition)).collect();
    next.dedup();
    lines.extend(next.into_iter().map(|command| format!("next: {}", profile::in_hint(command))));
    lines
}

/// What to type about a condition that does not hold.
fn next_step(condition: &ConditionBody) -> Option<&'static str> {
    if !condition.is_failure() && !condition.is_advisory() {
        return None;
    }
    let kind = ConditionKind::ALL.iter().find(|kind| kind.name() == condition.kind)?;
    if *kind == ConditionKind::AuthzReachable && condition.reason == DRAINING {
        return Some("sigilum gateway undrain --all");
    }
    Some(match kind {
        ConditionKind::StateLock => "sigilum gateway status --deep",
        ConditionKind::Store | ConditionKind::MasterKey => "sigilum gateway backup --output FILE",
        ConditionKind::SecretsSnapshot => "sigilum secrets reload",
        ConditionKind::EnvoyLive
        | ConditionKind::AuthzReachable
        | ConditionKind::NonceStore
        | ConditionKind::ReplayShared => "sigilum gateway status --deep",
        ConditionKind::XdsInSync => "sigilum gateway config check",
        ConditionKind::ClaimsFresh | ConditionKind::ApiReachable => "sigilum service list",
        ConditionKind::ClockSane => "timedatectl status",
        ConditionKind::DiskSpace => "df -h",
        ConditionKind::PairBridge => "sigilum gateway pair --status",
        ConditionKind::IngressCertificate => "sigilum gateway config check",
        ConditionKind::StateCertificates | ConditionKind::RemoteAuthz => "sigilum logs --stream admin",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::validity::Validity;
    use crate::wire::health::Requirement;

    fn condition(kind: &str, status: Status, requirement: Requirement) -> ConditionBody {
        ConditionBody {
            kind: kind.to_owned(),
            subject_ref: "envoy".to_owned(),
            status,
            requirement,
            reason: "Why".to_owned(),
            message: "what".to_owned(),
        }
    }

    #[test]
    fn what_holds_is_told_only_where_it_is_asked_for() {
        let conditions = vec![
            condition("Store", Status::True, Requirement::Required),
            condition("EnvoyLive", Status::False, Requirement::Required),
            condition("DiskSpace", Status::False, Requirement::Advisory),
        ];
        let details = DetailsBody::of(conditions, String::new(), 0);
        assert_eq!(
            lines(false, &details, false, false),
            [
                "not ready",
                "CONDITION  OF     STATUS  REASON  WHAT",
                "EnvoyLive  envoy  FALSE   Why     what",
                "DiskSpace  envoy  false   Why     what",
                "next: sigilum gateway status --deep",
                "next: df -h",
            ]
        );
        assert!(lines(false, &details, true, false).iter().any(|line| line.starts_with("Store")));
        let well = DetailsBody::of(Vec::new(), String::new(), 0);
        assert_eq!(lines(true, &well, false, false), ["ready"]);
    }

    fn told(health: AuthzHealth, certificate: Option<Validity>, why: Option<&str>) -> AuthzTold {
        AuthzTold { health, certificate, why: why.map(str::to_owned) }
    }

    #[test]
    fn an_authz_says_when_its_certificate_ends_before_and_after() {
        const DAY: u64 = 86_400;
        let certificate = Validity { from: UnixSeconds(0), until: UnixSeconds(90 * DAY) };
        let line = |health, day| standing(&told(health, Some(certificate), None), UnixSeconds(day * DAY));
        assert_eq!(line(AuthzHealth::Serving, 50), "ready");
        assert_eq!(line(AuthzHealth::Cut, 50), "ready, without admin: what was received stays in force");
        let soon = "the certificate it shows admin ends in 5 days (1970-04-01T00:00:00Z)";
        assert_eq!(line(AuthzHealth::Serving, 85), format!("ready; {soon}"));
        assert_eq!(line(AuthzHealth::NotServing, 85), format!("not ready; {soon}"));
        assert_eq!(
            line(AuthzHealth::Cut, 91),
            "ready, without admin: the certificate it shows admin ended at 1970-04-01T00:00:00Z; what was received stays in force"
        );
        let without = told(AuthzHealth::Serving, None, None);
        assert_eq!(standing(&without, UnixSeconds(91 * DAY)), "ready");
        let refusing = told(AuthzHealth::NotServing, Some(certificate), Some("it drains"));
        assert_eq!(standing(&refusing, UnixSeconds(50 * DAY)), "not ready: it drains");
    }

    #[test]
    fn every_condition_has_a_next_step() {
        for kind in ConditionKind::ALL {
            assert!(
                next_step(&condition(kind.name(), Status::False, Requirement::Advisory)).is_some(),
                "{}",
                kind.name()
            );
            assert!(next_step(&condition(kind.name(), Status::True, Requirement::Required)).is_none());
        }
    }
}
