//! `gateway probe`: asks the gateways that can be meant who they are, what the token lets us do there, and whether the port of
//! agents is closed to what is not signed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use crate::app::gateway::instance::Instance;
use crate::app::status_api::ApiError;
use crate::app::status_api::StatusApi;
use crate::app::survey;
use crate::cli::args::Globals;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::cli::reach;
use crate::cli::settings;
use crate::cli::table::Cell;
use crate::cli::table::Table;
use crate::cli::table::Tone;
use crate::domain::canary;
use crate::domain::canary::Verdict;
use crate::domain::secret::Secret;
use crate::envoy::binary;
use crate::sys::local_http;
use crate::sys::tls::trust::ServerTrust;
use crate::wire::health::DetailsBody;
use crate::wire::status::StatusBody;

/// Options of `gateway probe`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProbeArgs {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Ask the admin API at this address first; then only --token-file names a token for it
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Read the admin token for --url from this file
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// How long each answer may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    /// Settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    ok: bool,
    degraded: bool,
    capability: &'static str,
    primary_target_id: Option<String>,
    warnings: Vec<Warning>,
    targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning {
    code: &'static str,
    message: String,
    target_ids: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    id: String,
    /// `explicit`, `loopback`, `remote` or `runtime`.
    kind: &'static str,
    url: String,
    connect: Connect,
    auth: Auth,
    /// Names the life of the gateway that answered.
    instance_id: Option<String>,
    version: Option<String>,
    ready: Option<bool>,
    #[serde(skip)]
    envoy: Option<String>,
    #[serde(skip)]
    open: bool,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Connect {
    ok: bool,
    rpc_ok: bool,
    scope_limited: bool,
    latency_ms: Option<u64>,
    error: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Auth {
    role: Option<&'static str>,
    scopes: Vec<&'static str>,
    capability: &'static str,
}

/// Asks them all at once: exit 0, or 1 where nobody answers, or the port of agents is open or, of a gateway that runs here,
/// decides nothing.
pub(super) async fn run(args: &ProbeArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let looked = settings::look(&args.settings.flags(globals))?;
    let config = &looked.config;
    let running = Instance::read(&config.paths.run_dir).filter(|found| found.supervisor.is_alive());
    let patience = Duration::from_millis(args.timeout);
    let trust = gateway_api::trust(&config.admin.trust);
    let own = running.as_ref().and_then(reach::admin_url);
    let here = || config.listen.admin.first().map(|address| format!("http://{}", local_http::reachable(*address)));
    // A gateway elsewhere is another one, also where a tunnel leads to it.
    let elsewhere = config.remote.as_ref().map(|remote| remote.url.clone());
    let named = Some(config.admin_url.clone()).filter(|url| owner::is_loopback(url) && elsewhere.is_none());
    let loopback = own.or(named).or_else(here);
    let at = loopback.as_deref().unwrap_or(&config.admin_url);
    let (token, unread, stranger) = match gateway_api::token_for(config, at) {
        Ok(token) => (token, None, None),
        Err(error) if error.outcome == Outcome::Unreachable => (None, None, Some(error.message)),
        Err(error) => (None, Some(error.message), None),
    };
    let remote = elsewhere.or_else(|| Some(config.admin_url.clone()).filter(|url| !owner::is_loopback(url)));
    let (remote_token, remote_unread) = match remote.as_ref().map(|url| gateway_api::token_for(config, url)).transpose()
    {
        Ok(token) => (token.flatten(), None),
        Err(error) => (None, Some(error.message)),
    };
    let explicit = args.url.clone();
    if let Some(url) = &explicit {
        gateway_api::check_url(config, url)?;
    }
    let explicit_token = args.token_file.as_deref().map(gateway_api::stored_token).transpose()?.flatten();
    let ingress =
        running.as_ref().map_or_else(|| config.listen.ingress.clone(), |found| found.addresses.ingress.clone());
    let tls = running.as_ref().map_or(config.envoy.tls.is_some(), |found| found.addresses.ingress_tls);
    let (one, two, three, four) = tokio::join!(
        ask("explicit", explicit, explicit_token.as_ref(), None, &trust, patience),
        ask("loopback", loopback, token.as_ref(), stranger, &trust, patience),
        ask("remote", remote, remote_token.as_ref(), None, &trust, patience),
        runtime(ingress.first().copied().filter(|_| !tls), patience),
    );
    let targets: Vec<Target> = [one, two, three, four].into_iter().flatten().collect();
    let report = judge(targets, unread.or(remote_unread), running.is_some());
    if args.json {
        printer.json(&report)?;
    } else {
        printer.lines(&lines(&report, printer.is_coloured()))?;
    }
    Ok(if report.ok { Outcome::Done } else { Outcome::Failed })
}

async fn ask(
    kind: &'static str,
    url: Option<String>,
    token: Option<&Secret>,
    stranger: Option<String>,
    trust: &ServerTrust,
    patience: Duration,
) -> Option<Target> {
    let url = url?;
    let connect = Connect { ok: false, rpc_ok: false, scope_limited: false, latency_ms: None, error: None };
    let auth = Auth { role: None, scopes: Vec::new(), capability: "unknown" };
    let mut target = Target {
        id: format!("{kind}:{url}"),
        kind,
        connect,
        auth,
        instance_id: None,
        version: None,
        ready: None,
        envoy: None,
        open: false,
        url,
    };
    if stranger.is_some() {
        // Who listens in the gateway's place is asked nothing.
        target.connect.error = stranger;
        return Some(target);
    }
    let api = match StatusApi::new(&target.url, token, trust, patience) {
        Ok(api) => api,
        Err(error) => {
            target.connect.error = Some(error.to_string());
            return Some(target);
        }
    };
    let began = Instant::now();
    let answered = api.status::<StatusBody>().await;
    target.connect.latency_ms = u64::try_from(began.elapsed().as_millis()).ok();
    match answered {
        Ok(status) => {
            (target.connect.ok, target.connect.rpc_ok) = (true, true);
            target.auth = Auth { role: Some("operator"), scopes: vec!["admin"], capability: "admin_capable" };
            (target.instance_id, target.version) =
                (status.known.gateway.instance_id, Some(status.known.gateway.version));
            (target.ready, target.envoy) = (Some(status.known.readiness.ready), status.known.envoy.version);
        }
        Err(error) => {
            target.connect.error = Some(error.to_string());
            let refused = matches!(&error, ApiError::Refused(refused) if matches!(refused.status, 401 | 403 | 429));
            if refused && let Ok(known) = api.readiness::<DetailsBody>(false).await {
                (target.connect.ok, target.connect.scope_limited) = (true, true);
                (target.auth.capability, target.ready) = ("connected_no_operator_scope", Some(known.ready));
            }
        }
    }
    Some(target)
}

/// The port of agents: what is not signed must be refused there.
async fn runtime(address: Option<SocketAddr>, patience: Duration) -> Option<Target> {
    let address = local_http::reachable(address?);
    let url = format!("http://{address}");
    let began = Instant::now();
    let found = unsigned(address, patience).await;
    let latency_ms = u64::try_from(began.elapsed().as_millis()).ok();
    let (ok, open, error) = match found {
        Verdict::Refused => (true, false, None),
        Verdict::LetThrough(what) => (false, true, Some(format!("an unsigned request was let through ({what})"))),
        Verdict::Undecided(why) => (false, false, Some(why)),
    };
    Some(Target {
        id: format!("runtime:{url}"),
        kind: "runtime",
        url,
        connect: Connect { ok, rpc_ok: false, scope_limited: false, latency_ms, error },
        auth: Auth { role: None, scopes: Vec::new(), capability: "unknown" },
        instance_id: None,
        version: None,
        ready: None,
        envoy: None,
        open,
    })
}

/// Sends a request that nobody signed: how the port of agents takes it.
pub(crate) async fn unsigned(address: SocketAddr, patience: Duration) -> Verdict {
    match survey::get(address, canary::PATH, patience).await {
        Ok((status, body)) => {
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            canary::judge(status, body.get("code").and_then(serde_json::Value::as_str).unwrap_or_default())
        }
        Err(error) => Verdict::Undecided(error.to_string()),
    }
}

/// `runs`: a gateway of this installation, whose port of agents must then decide.
fn judge(targets: Vec<Target>, unread_token: Option<String>, runs: bool) -> Report {
    let named = |wanted: &dyn Fn(&&Target) -> bool| {
        targets.iter().filter(|target| wanted(target)).map(|target| target.id.clone()).collect::<Vec<_>>()
    };
    let mut warnings = Vec::new();
    let mut warn = |code, message: String, target_ids: Vec<String>| {
        warnings.push(Warning { code, message, target_ids });
    };
    let open = named(&|target| target.open);
    if !open.is_empty() {
        warn("runtime_open", "an unsigned request was let through: stop the gateway now".to_owned(), open.clone());
    }
    let dead = named(&|target| runs && target.kind == "runtime" && !target.open && !target.connect.ok);
    if !dead.is_empty() {
        warn("runtime_dead", "the port of agents decides nothing, and the gateway runs".to_owned(), dead.clone());
    }
    let mut lives: Vec<_> = targets.iter().filter_map(|target| target.instance_id.as_deref()).collect();
    lives.sort_unstable();
    lives.dedup();
    if lives.len() > 1 {
        let message = format!("{} different gateways answer; commands go to the first that is configured", lives.len());
        warn("multiple_gateways", message, named(&|target| target.instance_id.is_some()));
    }
    let limited = named(&|target| target.connect.scope_limited);
    if !limited.is_empty() {
        let message = "the gateway answers, and refuses the admin token of this command".to_owned();
        warn("probe_scope_limited", message, limited);
    }
    if let Some(message) = unread_token {
        warn("auth_secretref_unresolved", message, Vec::new());
    }
    let pinned = binary::PINNED.to_string();
    let old = named(&|target| target.envoy.as_ref().is_some_and(|version| *version != pinned));
    if !old.is_empty() {
        let message = format!("Envoy is not the version this gateway is made for, {pinned}");
        warn("envoy_version_skew", message, old);
    }
    let control: Vec<_> = targets.iter().filter(|target| target.kind != "runtime").collect();
    let primary = control.iter().find(|target| target.connect.rpc_ok);
    let primary = primary.or_else(|| control.iter().find(|target| target.connect.ok)).copied();
    let ok = targets.iter().any(|target| target.connect.ok) && open.is_empty() && dead.is_empty();
    let degraded = ok
        && (targets.iter().any(|target| !target.connect.ok) || primary.is_none_or(|target| target.ready != Some(true)));
    Report {
        ok,
        degraded,
        capability: primary.map_or("unknown", |target| target.auth.capability),
        primary_target_id: primary.map(|target| target.id.clone()),
        warnings,
        targets,
    }
}

fn lines(report: &Report, coloured: bool) -> Vec<String> {
    let mut table = Table::new(&["TARGET", "WHERE", "CONNECT", "CAPABILITY", "READY", "MS"]);
    for target in &report.targets {
        let (word, tone) = match (target.open, target.connect.ok, &target.connect.error) {
            (true, _, _) => ("OPEN", Tone::Bad),
            (false, true, _) if target.kind == "runtime" => ("refuses", Tone::Good),
            (false, true, _) => ("ok", Tone::Good),
            (false, false, Some(error)) => (error.as_str(), Tone::Bad),
            (false, false, None) => ("failed", Tone::Bad),
        };
        let ready = target.ready.map_or("", |ready| if ready { "yes" } else { "no" });
        let took = target.connect.latency_ms.map(|ms| ms.to_string()).unwrap_or_default();
        table.row(vec![
            target.kind.into(),
            target.url.as_str().into(),
            Cell::toned(word, tone),
            if target.kind == "runtime" { "".into() } else { target.auth.capability.into() },
            ready.into(),
            took.as_str().into(),
        ]);
    }
    let mut lines = table.lines(coloured);
    lines.extend(report.warnings.iter().map(|warning| format!("- {}: {}", warning.code, warning.message)));
    if !report.ok || report.degraded {
        lines.push(format!("next: {}", profile::command("gateway status")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: &'static str, ok: bool) -> Target {
        Target {
            id: kind.to_owned(),
            kind,
            url: String::new(),
            connect: Connect {
                ok,
                rpc_ok: ok && kind != "runtime",
                scope_limited: false,
                latency_ms: None,
                error: None,
            },
            auth: Auth { role: None, scopes: vec![], capability: if ok { "admin_capable" } else { "unknown" } },
            instance_id: (ok && kind != "runtime").then(|| "a".to_owned()),
            version: None,
            ready: Some(ok),
            envoy: Some(binary::PINNED.to_string()),
            open: false,
        }
    }

    fn codes(report: &Report) -> Vec<&'static str> {
        report.warnings.iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn one_gateway_under_two_addresses_is_one_and_two_are_told() {
        let both = judge(vec![target("explicit", true), target("loopback", true), target("runtime", true)], None, true);
        assert_eq!((both.ok, both.degraded, codes(&both)), (true, false, vec![]));
        assert_eq!(both.primary_target_id.as_deref(), Some("explicit"));
        let other = Target { instance_id: Some("b".to_owned()), ..target("loopback", true) };
        let two = judge(vec![target("explicit", true), other], None, false);
        assert_eq!(codes(&two), ["multiple_gateways"]);
        assert!(two.ok);
    }

    #[test]
    fn an_open_port_is_a_failure_whatever_else_answers() {
        let open = Target { open: true, ..target("runtime", false) };
        let report = judge(vec![target("loopback", true), open], None, true);
        assert_eq!((report.ok, codes(&report)), (false, vec!["runtime_open"]));
    }

    #[test]
    fn a_dead_port_of_agents_is_a_failure_where_the_gateway_runs_here() {
        let targets = || vec![target("loopback", true), target("runtime", false)];
        let report = judge(targets(), None, true);
        assert_eq!((report.ok, codes(&report)), (false, vec!["runtime_dead"]));
        // Envoy may be elsewhere.
        let report = judge(targets(), None, false);
        assert_eq!((report.ok, report.degraded, codes(&report)), (true, true, vec![]));
    }

    #[test]
    fn nobody_is_a_failure_and_somebody_with_limits_is_not() {
        let nobody = judge(vec![target("loopback", false), target("runtime", false)], None, false);
        assert_eq!((nobody.ok, nobody.capability), (false, "unknown"));
        let mut limited = target("loopback", true);
        (limited.connect.scope_limited, limited.connect.rpc_ok) = (true, false);
        limited.envoy = Some("1.39.0".to_owned());
        let report = judge(vec![limited], Some("m".to_owned()), false);
        assert!(report.ok);
        assert_eq!(codes(&report), ["probe_scope_limited", "auth_secretref_unresolved", "envoy_version_skew"]);
    }
}
