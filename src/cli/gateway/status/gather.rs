//! Gathers the report: files, processes and ports of this machine, and what the gateway says of itself.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::app::gateway::ask::Command;
use crate::app::gateway::ask::Event;
use crate::app::gateway::ask::Phase;
use crate::app::gateway::ask::Status as SupervisorStatus;
use crate::app::gateway::command::Conversation;
use crate::app::gateway::instance::Instance;
use crate::app::gateway::progress::Role;
use crate::app::gateway::record::LastShutdown;
use crate::app::status_api::ApiError;
use crate::app::status_api::StatusApi;
use crate::app::survey;
use crate::app::systemd::Kind;
use crate::app::unit_file;
use crate::cli::gateway::drift;
use crate::cli::gateway::lifecycle::State as UnitState;
use crate::cli::gateway::lifecycle::Systemctl;
use crate::cli::gateway::manager;
use crate::cli::gateway::place;
use crate::cli::gateway::status::Refusal;
use crate::cli::gateway::status::Wanted;
use crate::cli::gateway::status::credentials;
use crate::cli::gateway::status::credentials::Credentials;
use crate::cli::gateway::status::credentials::Wants;
use crate::cli::gateway::status::deep;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::owner;
use crate::cli::profile;
use crate::cli::reach;
use crate::cli::settings;
use crate::cli::settings::Looked;
use crate::config::Config;
use crate::config::Flags;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::env;
use crate::sys::files;
use crate::sys::process;
use crate::sys::process::PortHolder;
use crate::wire::health::DetailsBody;
use crate::wire::status::AppliedConfigBody;
use crate::wire::status::AuthzBody;
use crate::wire::status::ClaimsBody;
use crate::wire::status::ConfigBody;
use crate::wire::status::ConfigFileBody;
use crate::wire::status::ConnectionsBody;
use crate::wire::status::DecisionsBody;
use crate::wire::status::EnvoyBody;
use crate::wire::status::EnvoyState;
use crate::wire::status::GatewayBody;
use crate::wire::status::IssueBody;
use crate::wire::status::KnownBody;
use crate::wire::status::ListenerBody;
use crate::wire::status::PairingBody;
use crate::wire::status::PortBody;
use crate::wire::status::PortListenerBody;
use crate::wire::status::ReadinessBody;
use crate::wire::status::RefsBody;
use crate::wire::status::ReportBody;
use crate::wire::status::RpcBody;
use crate::wire::status::RuntimeBody;
use crate::wire::status::SCHEMA_VERSION;
use crate::wire::status::SecretsBody;
use crate::wire::status::ServiceBody;
use crate::wire::status::ShutdownBody;
use crate::wire::status::StatusBody;
use crate::wire::status::XdsBody;

/// How long Envoy may take to answer on the port of agents.
const INGRESS_PATIENCE: Duration = Duration::from_millis(800);
/// How long the supervisor of this machine may take to say how it stands.
const SUPERVISOR_PATIENCE: Duration = Duration::from_millis(500);
/// The word where nobody looks after it.
const NO_MANAGER: &str = "none";
/// Somebody outside, who keeps what it says, too.
const EXTERNAL: &str = "external";

/// The report, and what the exit code depends on.
pub(super) struct Gathered {
    pub(super) report: ReportBody,
    pub(super) refusal: Option<Refusal>,
    /// What the port of agents answered; `None`: it was not asked.
    pub(super) ingress: Option<Result<(), String>>,
    /// What the gateway wants, where it refuses us, and whether it was shown anything.
    pub(super) wants: Option<(Wants, bool)>,
    /// Whether whoever runs it from outside keeps its log, and no file does.
    pub(super) log_is_outside: bool,
    /// What to type next, where something is wrong.
    pub(super) next: Vec<String>,
}

/// What the gateway answered.
struct Told {
    rpc: RpcBody,
    status: Option<StatusBody>,
    readiness: ReadinessBody,
    refusal: Option<Refusal>,
    wants: Option<(Wants, bool)>,
}

/// Puts the report together.
pub(super) async fn gather(flags: &Flags, wanted: &Wanted<'_>) -> Result<Gathered, CliError> {
    let looked = settings::look(flags)?;
    let config = &looked.config;
    if let Some(url) = wanted.url {
        gateway_api::check_url(config, url)?;
    }
    let instance = Instance::read(&config.paths.run_dir);
    let lives = instance.as_ref().is_some_and(|instance| instance.supervisor.is_alive());
    let running = instance.as_ref().filter(|_| lives);
    let ingress = running.map_or_else(|| config.listen.ingress.clone(), |found| found.addresses.ingress.clone());
    let admin = running.map_or_else(|| config.listen.admin.clone(), |found| found.addresses.admin.clone());
    let face = running.map_or_else(|| config.listen.envoy_admin.clone(), |found| found.addresses.envoy_admin.clone());
    let plain = running.is_none_or(|found| !found.addresses.ingress_tls) && config.envoy.tls.is_none();
    let url = match (wanted.url, running) {
        (Some(url), _) => url.to_owned(),
        // Where it really is, unless the settings name another place.
        (None, Some(found)) if config.remote.is_none() && owner::is_loopback(&config.admin_url) => {
            reach::admin_url(found).unwrap_or_default()
        }
        (None, _) => config.admin_url.clone(),
    };
    // Also where a tunnel leads there. Ports of this machine say nothing then.
    let is_elsewhere = config.remote.is_some() || !owner::is_loopback(&url);
    let asks_ports = running.is_some() || !is_elsewhere;
    let listeners = [&admin, &ingress, &face];
    let place = place::Place::of(&config.paths.data_dir);
    let (unit, pair) = (place.unit(Kind::Gateway), place.unit(Kind::Pair));
    let (told, supervised, service, ports, answered) = tokio::join!(
        ask(&looked, wanted, &url),
        supervisor(running, &config.paths.run_dir),
        service(config, instance.as_ref(), lives, &place),
        async { if asks_ports { ports(&listeners, running).await } else { Vec::new() } },
        asked_ingress(wanted, plain && asks_ports, &ingress, running.is_none() && manager::is_external()),
    );
    let Told { rpc, status, readiness, refusal, wants } = told;
    let (mut service, mut ports) = (service, ports);
    if running.is_none() && status.is_some() {
        // Parts that were started by hand are nobody's children.
        ports.iter_mut().for_each(|port| port.hints.clear());
    }
    if service.runtime.status != "running" && (status.is_some() || refusal == Some(Refusal::Unauthorized)) {
        // It has no supervisor of this installation, and answers.
        "running".clone_into(&mut service.runtime.status);
    }
    let deep = wanted.deep.then(|| deep::look(&[&unit, &pair], &pids(running)));
    let (legacy_services, extra_services) = deep.map_or_else(Default::default, |deep| (deep.legacy, deep.extra));
    let envoy_restarts = supervised.as_ref().and_then(|told| told.envoy_restarts);
    let (phase, process_restarts, managed) = supervised.map_or((None, None, false), |told| {
        let phase = (told.phase != Phase::Running).then(|| told.phase.name().to_owned());
        (phase, Some(told.process_restarts), told.managed)
    });
    if service.manager == NO_MANAGER && (managed || manager::is_external()) {
        EXTERNAL.clone_into(&mut service.manager);
    }
    let units = service.runtime.restarts.unwrap_or_default();
    service.runtime.restarts = Some(units.saturating_add(process_restarts.unwrap_or_default()));
    let (applied, mut known) = match status {
        Some(StatusBody { config, mut known, .. }) => {
            known.envoy.pid = running.and_then(|found| pid(found, Role::Envoy));
            known.envoy.restarts = envoy_restarts.unwrap_or(known.envoy.restarts);
            if is_elsewhere {
                "remote".clone_into(&mut known.gateway.mode);
            }
            (config, known)
        }
        None => {
            let gateway = gateway_unasked(&looked, flags, is_elsewhere || wanted.url.is_some(), &admin, &ingress);
            let reachable = matches!(answered, Some(Ok(())));
            (
                AppliedConfigBody::default(),
                unasked(gateway, envoy_unasked(running, envoy_restarts), reachable, readiness),
            )
        }
    };
    known.gateway.startup_phase = phase.or(known.gateway.startup_phase);
    let file = ConfigFileBody {
        path: looked.file.display().to_string(),
        exists: looked.exists,
        valid: looked.issues.is_empty(),
        issues: looked
            .issues
            .iter()
            .map(|(path, message)| IssueBody { path: path.clone(), message: message.clone() })
            .collect(),
    };
    let ok = known.readiness.ready && looked.issues.is_empty() && refusal.is_none();
    let first = looked.issues.first().map(|(_, message)| message.clone());
    known.last_error = known.last_error.or(first).or_else(|| rpc.error.clone());
    let report = ReportBody {
        schema_version: SCHEMA_VERSION,
        ok,
        profile: env::lookup("SIGILUM_PROFILE").unwrap_or_else(|| "default".to_owned()),
        generated_at: SystemClock.now().wall.rfc3339(),
        service,
        config: config_of(file, applied, is_elsewhere || wanted.url.is_some()),
        known,
        port: ports,
        rpc,
        log_file: config.paths.data_dir.join("logs").join("admin.jsonl").display().to_string(),
        last_shutdown: LastShutdown::read(&config.paths.data_dir)
            .map(|found| ShutdownBody { reason: found.reason, at: found.at }),
        legacy_services,
        extra_services,
    };
    let next = next_steps(config, &report, (refusal, wants), wanted.probe);
    let log_is_outside = report.service.manager == EXTERNAL && !Path::new(&report.log_file).exists();
    Ok(Gathered { report, refusal, wants, ingress: answered, log_is_outside, next })
}

/// The file of this command beside the one the gateway reads; the same where it did not say.
fn config_of(cli: ConfigFileBody, applied: AppliedConfigBody, elsewhere: bool) -> ConfigBody {
    let real = |path: &str| std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    let Some(path) = applied.file.clone() else {
        return ConfigBody { service: Some(cli.clone()), mismatch: Some(false), cli, applied };
    };
    let issue = |message: &String| IssueBody { path: String::new(), message: message.clone() };
    let issues: Vec<_> = applied.file_error.iter().map(issue).collect();
    // Of a gateway elsewhere it is a file of that machine: what it said of it is all there is.
    let exists = if elsewhere { applied.config_revision_hash.is_some() } else { PathBuf::from(&path).exists() };
    let service = ConfigFileBody { exists, valid: issues.is_empty(), issues, path };
    let mismatch = Some(real(&service.path) != real(&cli.path));
    ConfigBody { cli, service: Some(service), mismatch, applied }
}

/// What its supervisor says, where one runs that answers.
async fn supervisor(running: Option<&Instance>, run_dir: &Path) -> Option<SupervisorStatus> {
    running?;
    let asked = async {
        let mut conversation = Conversation::begin(run_dir, Command::Status).await.ok()?;
        conversation.next().await.ok().flatten()
    };
    match tokio::time::timeout(SUPERVISOR_PATIENCE, asked).await {
        Ok(Some(Event::Status(status))) => Some(status),
        // Nobody, or somebody who says something else, which a supervisor of this version does not.
        Ok(Some(_) | None) | Err(_) => None,
    }
}

/// What can be said of a gateway that does not say it itself.
fn unasked(gateway: GatewayBody, envoy: EnvoyBody, reachable: bool, readiness: ReadinessBody) -> KnownBody {
    let unknown = || "unavailable".to_owned();
    KnownBody {
        gateway,
        envoy,
        authz: AuthzBody {
            reachable,
            p50_ms: Some(0.0),
            p99_ms: Some(0.0),
            decisions: DecisionsBody::default(),
            fail_closed: Some(true),
        },
        secrets: SecretsBody { generation: 0, state: unknown(), age_seconds: 0, refs: RefsBody::default() },
        claims: ClaimsBody { state: unknown(), source: String::new(), age_seconds: Some(0), approved: 0 },
        connections: ConnectionsBody::default(),
        pairing: PairingBody { bridge: "off".to_owned() },
        readiness,
        last_error: None,
    }
}

fn pid(found: &Instance, role: Role) -> Option<i32> {
    let child = found.children.iter().find(|child| child.role == role && child.process.is_alive());
    child.map(|child| child.process.pid)
}

/// The processes of this installation, and ours.
fn pids(running: Option<&Instance>) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).ok();
    let found = running.map(|found| {
        let children = found.children.iter().map(|child| child.process.pid);
        children.chain([found.supervisor.pid]).collect::<Vec<_>>()
    });
    own.into_iter().chain(found.unwrap_or_default()).collect()
}

/// With the admin token of this installation; to a named address only the one that was named with it.
async fn ask(looked: &Looked, wanted: &Wanted<'_>, url: &str) -> Told {
    let rpc = RpcBody {
        ok: None,
        url: url.to_owned(),
        capability: "unknown".to_owned(),
        error: None,
        auth_warning: None,
        latency_ms: None,
    };
    let mut told = Told { rpc, status: None, readiness: ReadinessBody::default(), refusal: None, wants: None };
    if !wanted.probe {
        return told;
    }
    let Credentials { token, trust, warning, stranger } = credentials::find(&looked.config, wanted, url);
    told.rpc.auth_warning = warning;
    if let Some(stranger) = stranger {
        told.rpc.ok = Some(false);
        told.rpc.error = Some(stranger);
        told.refusal = Some(Refusal::Unreachable);
        return told;
    }
    let began = Instant::now();
    let api = StatusApi::new(url, token.as_ref(), &trust, wanted.patience);
    let answered = match &api {
        Ok(api) => api.status::<StatusBody>().await,
        Err(_) => Err(ApiError::Token),
    };
    told.rpc.latency_ms = u64::try_from(began.elapsed().as_millis()).ok();
    match (answered, api) {
        (Ok(status), _) => {
            told.rpc.ok = Some(true);
            "admin_capable".clone_into(&mut told.rpc.capability);
            told.readiness = status.known.readiness.clone();
            told.status = Some(status);
        }
        (Err(error), Ok(api)) => {
            told.rpc.ok = Some(false);
            told.rpc.error = Some(error.to_string());
            told.refusal = Some(refusal(&error));
            if let ApiError::Refused(refused) = &error {
                told.wants = Some((Wants::of(refused.status, &refused.code), token.is_some()));
            }
            if told.refusal == Some(Refusal::Unauthorized) {
                "connected_no_operator_scope".clone_into(&mut told.rpc.capability);
                // What everybody is told.
                if let Ok(known) = api.readiness::<DetailsBody>(false).await {
                    told.readiness.ready = known.ready;
                }
            }
        }
        (Err(_), Err(error)) => {
            told.rpc.ok = Some(false);
            told.rpc.error = Some(error.to_string());
            told.refusal = Some(Refusal::Other);
        }
    }
    told
}

fn refusal(error: &ApiError) -> Refusal {
    match error {
        ApiError::Unreachable { .. } | ApiError::Certificate { .. } => Refusal::Unreachable,
        ApiError::Refused(refused) if matches!(refused.status, 401 | 403 | 429) => Refusal::Unauthorized,
        ApiError::Refused(_)
        | ApiError::Address { .. }
        | ApiError::Client(_)
        | ApiError::Token
        | ApiError::Redirect { .. }
        | ApiError::Unexpected { .. } => Refusal::Other,
    }
}

/// Whether Envoy answers on the port of agents that authz is healthy. `apart`: it may be in a container of its own, whose loopback is
/// not ours, so that nobody on that port says nothing.
async fn asked_ingress(
    wanted: &Wanted<'_>,
    plain: bool,
    ingress: &[SocketAddr],
    apart: bool,
) -> Option<Result<(), String>> {
    let address = ingress.first().filter(|_| wanted.probe && plain && wanted.url.is_none())?;
    match survey::get(*address, "/health", INGRESS_PATIENCE.min(wanted.patience)).await {
        Ok((200, _)) => Some(Ok(())),
        Ok((status, _)) => Some(Err(format!("http://{address}/health answers {status}"))),
        Err(_) if apart => None,
        Err(error) => Some(Err(format!("http://{address} {error}"))),
    }
}

/// Who looks after the gateway, and its main process.
async fn service(config: &Config, instance: Option<&Instance>, lives: bool, place: &place::Place) -> ServiceBody {
    let unit = place.unit(Kind::Gateway);
    let file = |path: PathBuf| Some(path).filter(|path| path.is_file());
    let user = manager::user_folder().ok().and_then(|folder| file(folder.join(&unit)));
    // The machine has one gateway, wherever its data is.
    let machine = place::Place::default().unit(Kind::Gateway);
    let system = file(manager::system_folder().join(&machine));
    let job = manager::agent_file(place).ok().and_then(file);
    let (manager, label, path) = match (user, system, job) {
        (Some(path), _, _) => ("systemd-user", unit, Some(path)),
        (None, Some(path), _) => ("systemd-system", machine, Some(path)),
        (None, None, Some(path)) => ("launchd", place.label(), Some(path)),
        (None, None, None) => (NO_MANAGER, String::new(), None),
    };
    let systemctl = match manager {
        "systemd-user" => Systemctl::find().await,
        "systemd-system" => Systemctl::find_in(true).await,
        _ => None,
    };
    let standing = match systemctl {
        Some(systemctl) => systemctl.standing(&label).await.ok(),
        None => None,
    };
    let linked = path.as_ref().and_then(|path| path.parent()).is_some_and(|folder| {
        let wanted = ["default.target.wants", "multi-user.target.wants"];
        wanted.iter().any(|wants| folder.join(wants).join(&label).exists())
    });
    let text = path.as_ref().and_then(|path| files::read_text(path, unit_file::MAX_BYTES).ok());
    let command = text.as_deref().and_then(unit_file::parse);
    let drift = command
        .map(|command| drift::ports(&command, &drift::of(&config.listen.admin), &drift::of(&config.listen.ingress)));
    let process = instance.map(|instance| &instance.supervisor).filter(|_| lives);
    let since = process.and_then(|process| process::started_at(process.pid)).map(|at| at.rfc3339());
    let status = match (lives, instance) {
        (true, _) => "running",
        // It wrote down what it started, and nothing of its end.
        (false, Some(_)) => "failed",
        (false, None) => "stopped",
    };
    let last = standing.as_ref().filter(|standing| standing.state != UnitState::Active && standing.exit_status != 0);
    ServiceBody {
        manager: manager.to_owned(),
        label,
        loaded: standing.as_ref().is_some_and(|standing| standing.loaded),
        enabled: linked || standing.as_ref().is_some_and(|standing| standing.enabled),
        unit_path: path.map(|path| path.display().to_string()),
        reload_pending: Some(standing.as_ref().is_some_and(|standing| standing.stale)),
        drift: drift.unwrap_or_default(),
        runtime: RuntimeBody {
            status: status.to_owned(),
            pid: process.map(|process| process.pid),
            since,
            last_exit_status: last.map(|standing| standing.exit_status),
            last_exit_reason: last.map(|standing| standing.result.clone()).filter(|result| !result.is_empty()),
            restarts: standing.as_ref().map(|standing| standing.restarts),
        },
    }
}

/// Who listens on the gateway's ports; each port once.
async fn ports(listeners: &[&Vec<SocketAddr>], running: Option<&Instance>) -> Vec<PortBody> {
    let known = pids(running);
    let mut found: Vec<PortBody> = Vec::new();
    for address in listeners.iter().filter_map(|list| list.first()) {
        if address.port() == 0 || found.iter().any(|port| port.port == address.port()) {
            continue;
        }
        let holder = survey::listener(*address, &known).await;
        let foreign = |holder: &PortHolder| !known.contains(&holder.pid);
        let hints = match &holder {
            Some(Some(holder)) if foreign(holder) => vec![format!(
                "port in use by foreign process {} ({}): stop it, or choose another port",
                holder.pid, holder.name
            )],
            Some(Some(_) | None) | None => Vec::new(),
        };
        let listener = |holder: PortHolder| PortListenerBody {
            pid: holder.pid,
            command: holder.name,
            address: address.to_string(),
        };
        found.push(PortBody {
            port: address.port(),
            status: if holder.is_some() { "busy" } else { "free" }.to_owned(),
            listeners: holder.flatten().map(listener).into_iter().collect(),
            hints,
        });
    }
    found
}

/// What the settings say of a gateway that does not.
fn gateway_unasked(
    looked: &Looked,
    flags: &Flags,
    remote: bool,
    admin: &[SocketAddr],
    ingress: &[SocketAddr],
) -> GatewayBody {
    let [control, runtime] = settings::port_sources(flags);
    let listener = |list: &[SocketAddr], port_source: &str| {
        let port_source = port_source.to_owned();
        let (host, port) = list.first().map(|address| (address.ip().to_string(), address.port())).unwrap_or_default();
        ListenerBody { host, port, port_source }
    };
    GatewayBody {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance_id: Some(String::new()),
        mode: if remote { "remote" } else { "local" }.to_owned(),
        bind_mode: looked.config.bind_mode.to_owned(),
        control: listener(admin, control),
        runtime_listener: listener(ingress, runtime),
        auth_mode: looked.config.admin.mode.name().to_owned(),
        reload_mode: looked.config.reload.mode.name().to_owned(),
        uptime_ms: 0,
        startup_phase: None,
    }
}

fn envoy_unasked(running: Option<&Instance>, restarts: Option<u64>) -> EnvoyBody {
    let pid = running.and_then(|found| pid(found, Role::Envoy));
    let state = match (running, pid) {
        (Some(_), Some(_)) => EnvoyState::Unknown,
        (Some(_) | None, _) => EnvoyState::Down,
    };
    EnvoyBody {
        managed: running.is_some(),
        pid,
        version: None,
        state,
        restarts: restarts.unwrap_or_default(),
        xds: XdsBody::default(),
    }
}

/// What to type next: one line for each thing that is wrong, the cause first. Of a gateway that runs elsewhere only what works
/// from here.
fn next_steps(
    config: &Config,
    report: &ReportBody,
    (refusal, wants): (Option<Refusal>, Option<(Wants, bool)>),
    probed: bool,
) -> Vec<String> {
    let mut next = Vec::new();
    let mut add = |command: &str| next.push(profile::command(command));
    let is_remote = report.known.gateway.mode == "remote";
    if !report.config.cli.valid {
        add(&format!("gateway config check {}", report.config.cli.path));
    }
    if report.port.iter().any(|port| !port.hints.is_empty()) {
        add("gateway status --deep");
    }
    match refusal {
        Some(Refusal::Unreachable) if is_remote => add("gateway probe"),
        Some(Refusal::Unreachable) if report.service.runtime.status == "running" => add("gateway status --deep"),
        // A start would fail: the file comes first.
        Some(Refusal::Unreachable) if !report.config.cli.valid => {}
        // Whoever runs it from outside starts it.
        Some(Refusal::Unreachable) if report.service.manager == EXTERNAL => {}
        Some(Refusal::Unreachable) => add("gateway start"),
        Some(Refusal::Unauthorized) => {
            next.push(wants.map_or(Wants::Token, |(wants, _)| wants).next(config, is_remote));
        }
        Some(Refusal::Other) => add("gateway probe"),
        None if probed && !report.known.readiness.ready => add("health --verbose"),
        None => {}
    }
    let mut add = |command: &str| next.push(profile::command(command));
    if report.known.secrets.state == "degraded" {
        add("secrets reload");
    }
    if report.known.readiness.failures.is_empty()
        && report.known.readiness.advisories.iter().any(|kind| kind == "ClaimsFresh")
    {
        add("health --verbose");
    }
    // The bridge runs beside the gateway.
    if report.known.pairing.bridge == "terminal" && !is_remote {
        add("gateway connect");
    }
    next.dedup();
    next
}
