//! `gateway install` and `uninstall`: the gateway as a service of this machine's manager.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use clap::Args;
use serde::Serialize;
use tokio::process::Command;

use crate::app::gateway::instance::Instance;
use crate::app::launchd;
use crate::app::launchd::Job;
use crate::app::systemd;
use crate::app::systemd::Credential;
use crate::app::systemd::Kind;
use crate::app::systemd::STATE;
use crate::app::systemd::Scope;
use crate::app::systemd::Unit;
use crate::cli::args::Globals;
use crate::cli::gateway::launch;
use crate::cli::gateway::lifecycle;
use crate::cli::gateway::lifecycle::State as UnitState;
use crate::cli::gateway::lifecycle::Systemctl;
use crate::cli::gateway::manager;
use crate::cli::gateway::manager::Found;
use crate::cli::gateway::manager::Kin;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::place::Place;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::config;
use crate::config::Config;
use crate::config::parts::AccessMode;
use crate::config::parts::GivenSecret;
use crate::config::profile::VARIABLE;
use crate::envoy::binary;
use crate::envoy::binary::Search;
use crate::sys::env;
use crate::sys::files;
use crate::sys::process::ProcessIdentity;

/// Where systemd keeps the state of the machine's units.
const SYSTEM_STATE: &str = "/var/lib";

/// What `ProtectHome=` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// Options of `gateway install`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "The unit holds ports, folders and settings as they are now, and no secret: after a change of \
    them install again with --force.")]
pub(crate) struct InstallArgs {
    /// Install for the machine, under a user of its own and in a sandbox, instead of for this user
    #[arg(long)]
    system: bool,
    /// A file with the master key, encrypted to this machine (systemd-creds encrypt --name=gateway-master-key)
    #[arg(long, value_name = "FILE", requires = "system", conflicts_with = "plain_credential")]
    credential: Option<PathBuf>,
    /// A file with the master key in clear, readable by root alone
    #[arg(long, value_name = "FILE", requires = "system")]
    plain_credential: Option<PathBuf>,
    /// Replace an installation that is there
    #[arg(long)]
    force: bool,
    /// Print what would be installed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Options of `gateway uninstall`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UninstallArgs {
    /// The machine's service instead of this user's
    #[arg(long)]
    system: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Settings: they say which gateway is meant.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What was done, for programs.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// `installed`, `unchanged`, `dry-run`, `uninstalled` or `not-installed`.
    result: &'static str,
    /// `user` or `system`.
    scope: &'static str,
    unit: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    /// Whether the user's services run without a login; absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    linger: Option<bool>,
}

/// What is to be installed.
pub(super) struct Planned {
    system: bool,
    pub(super) unit: String,
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Planned {
    fn report(&self, result: &'static str) -> Report {
        Report {
            result,
            scope: if self.system { "system" } else { "user" },
            unit: self.unit.clone(),
            path: self.path.display().to_string(),
            ..Report::default()
        }
    }
}

/// Writes the unit, starts it now and with the machine, and waits until it is ready.
pub(crate) async fn install(args: &InstallArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    manager::refuse_external()?;
    let kin = manager::kin()?;
    let config = args.settings.load(globals)?;
    launch::check_local(&config)?;
    require_secret(&config)?;
    let planned = plan(args, kin, &config)?;
    let found = look(&planned, kin, &place_of(args.system, &config))?;
    warn(args, &config, printer);
    if args.dry_run {
        if args.json {
            printer.json(&Report { text: Some(planned.text.clone()), ..planned.report("dry-run") })?;
        } else {
            printer.note(&format!("would be written to {}:", planned.path.display()));
            printer.bytes(planned.text.as_bytes())?;
        }
        return Ok(Outcome::Done);
    }
    if found == Found::Ours && !args.force {
        let message = format!("{} is installed with other settings", planned.unit);
        return Err(CliError::new(Outcome::Config, message).hint("`sigilum gateway install --force` replaces it"));
    }
    if args.system && !rustix::process::geteuid().is_root() {
        return Err(CliError::new(Outcome::Failed, "the machine's services are root's to install").hint("use sudo"));
    }
    match kin {
        Kin::Systemd => install_unit(args, &config, &planned, &found, printer).await,
        Kin::Launchd => install_job(&config, &planned, printer).await,
    }
}

/// What is there already where it is to go; refused where another manager has this gateway, or the place is none of ours.
fn look(planned: &Planned, kin: Kin, place: &Place) -> Result<Found, CliError> {
    let second = manager::other(kin, planned.system, place)?;
    if second.exists() && second != planned.path {
        let message = format!("another manager has this gateway already: {}", second.display());
        return Err(CliError::new(Outcome::Config, message)
            .hint("`sigilum gateway uninstall` (with or without --system) removes it"));
    }
    manager::look(&planned.path, &planned.text)
}

/// The unit of this user's gateway, started with these arguments, for a command that starts one by the way; its place was
/// looked at like that of an installation.
pub(super) fn for_user(config: &Config, arguments: &[String]) -> Result<Planned, CliError> {
    manager::refuse_external()?;
    let place = Place::of(&config.paths.data_dir);
    let places = Places::of_user(config);
    let planned = unit(config, &places, &place, Scope::User, arguments, &lifecycle::environment())?;
    look(&planned, Kin::Systemd, &place)?;
    Ok(planned)
}

/// Renders a unit of systemd.
fn unit(
    config: &Config,
    places: &Places,
    place: &Place,
    scope: Scope<'_>,
    arguments: &[String],
    environment: &[(String, String)],
) -> Result<Planned, CliError> {
    let (kind, drain_seconds) = (Kind::Gateway, config.drain.as_secs());
    let (program, reload) = (lifecycle::program()?, places.reload(config));
    let (suffix, program, reload) = (place.suffix(), program.as_path(), reload.as_slice());
    let text = systemd::render(&Unit { kind, drain_seconds, suffix, scope, program, arguments, reload, environment })
        .map_err(|error| CliError::new(Outcome::Config, error.to_string()))?;
    let (system, folder) = match scope {
        Scope::User => (false, manager::user_folder()?),
        Scope::System { .. } => (true, manager::system_folder()),
    };
    let unit = place.unit(kind);
    Ok(Planned { system, path: folder.join(&unit), unit, text })
}

/// What tells the units of this user's gateways apart; the machine has one.
fn place_of(system: bool, config: &Config) -> Place {
    if system { Place::default() } else { Place::of(&config.paths.data_dir) }
}

/// Renders the unit or the job.
fn plan(args: &InstallArgs, kin: Kin, config: &Config) -> Result<Planned, CliError> {
    let Some(namespace) = &config.namespace else {
        return Err(CliError::new(Outcome::Config, "the gateway has no namespace")
            .hint("give --namespace NAME, or set SIGILUM_NAMESPACE"));
    };
    let places = Places::of(args, config);
    let arguments = places.start(namespace.as_str(), config);
    let mut environment = lifecycle::environment();
    // They stand among the arguments, which count more.
    environment.retain(|(name, _)| !PINNED.contains(&name.as_str()));
    if args.system {
        // The machine has one gateway, whatever profile this command was given.
        environment.retain(|(name, _)| name != VARIABLE);
    }
    environment.extend(places.environment());
    // Not among the arguments: what reloads the gateway has those of another command.
    for (key, value) in args.settings.access() {
        environment.retain(|(name, _)| !key.env.contains(&name.as_str()));
        environment.extend(key.env.first().map(|name| ((*name).to_owned(), value)));
    }
    match (kin, args.system) {
        (Kin::Systemd, system) => {
            let credential = |path, encrypted| Credential { path, encrypted };
            let master_key = match (&args.credential, &args.plain_credential) {
                (Some(path), _) => Some(credential(path.as_path(), true)),
                (None, Some(path)) => Some(credential(path.as_path(), false)),
                (None, None) => None,
            };
            let scope = if system { Scope::System { master_key } } else { Scope::User };
            unit(config, &places, &place_of(system, config), scope, &arguments, &environment)
        }
        (Kin::Launchd, true) => {
            let message = "the machine's services are installed under systemd only";
            Err(CliError::new(Outcome::Unavailable, message).hint("without --system it becomes an agent of this user"))
        }
        (Kin::Launchd, false) => {
            let log = places.data.join("logs/gateway.log");
            let place = place_of(false, config);
            let label = place.label();
            let job = Job {
                label: &label,
                program: &lifecycle::program()?,
                arguments: &arguments,
                environment: &environment,
                log: &log,
                drain_seconds: config.drain.as_secs(),
            };
            let text = launchd::render(&job).map_err(|error| CliError::new(Outcome::Config, error.to_string()))?;
            Ok(Planned { system: false, path: manager::agent_file(&place)?, unit: label, text })
        }
    }
}

/// Variables of what stands among the arguments.
const PINNED: [&str; 12] = [
    "SIGILUM_NAMESPACE",
    "GATEWAY_SIGILUM_NAMESPACE",
    "GATEWAY_SIGILUM_HOME",
    "SIGILUM_HOME",
    "GATEWAY_DATA_DIR",
    "SIGILUM_GATEWAY_PORT",
    "SIGILUM_LISTEN_PORT",
    "GATEWAY_ADDR",
    "GATEWAY_INGRESS_ADDR",
    "GATEWAY_ENVOY_ADMIN_ADDR",
    "GATEWAY_CONFIG_FILE",
    "GATEWAY_RUN_DIR",
];

/// Where the service keeps what is its own.
struct Places {
    home: PathBuf,
    data: PathBuf,
    config_file: Option<PathBuf>,
    /// `None`: this user's, as it is.
    state: Option<PathBuf>,
}

impl Places {
    /// This user's folders; the machine's service has its own below `/var/lib`.
    fn of(args: &InstallArgs, config: &Config) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if args.system {
            let state = Path::new(SYSTEM_STATE).join(STATE);
            let own = config.paths.config_file.as_deref().filter(|file| file.starts_with("/etc")).map(absolute);
            return Self { home: state.join("home"), data: state.join("data"), config_file: own, state: Some(state) };
        }
        Self::of_user(config)
    }

    fn of_user(config: &Config) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            home: absolute(&config.paths.home),
            data: absolute(&config.paths.data_dir),
            config_file: config.paths.config_file.as_deref().map(absolute),
            state: None,
        }
    }

    fn start(&self, namespace: &str, config: &Config) -> Vec<String> {
        let mut arguments = ["gateway", "start"].map(str::to_owned).to_vec();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--namespace", namespace.to_owned());
        add("--sigilum-home", self.home.display().to_string());
        add("--gateway-data-dir", self.data.display().to_string());
        if let Some(file) = &self.config_file {
            add("--config", file.display().to_string());
        }
        let listeners: [(&str, &[SocketAddr]); 3] = [
            ("--addr", &config.listen.admin),
            ("--ingress-addr", &config.listen.ingress),
            ("--envoy-admin-addr", &config.listen.envoy_admin),
        ];
        for (name, addresses) in listeners {
            for address in addresses {
                add(name, address.to_string());
            }
        }
        if let Some(binary) = &config.envoy.binary {
            add("--envoy-bin", binary.display().to_string());
        }
        arguments
    }

    fn reload(&self, config: &Config) -> Vec<String> {
        let (home, data) = (self.home.display().to_string(), self.data.display().to_string());
        let mut arguments = vec!["--sigilum-home".to_owned(), home, "--gateway-data-dir".to_owned(), data];
        arguments.extend(["--gateway-admin-url".to_owned(), config.admin_url.clone()]);
        arguments.extend(["secrets", "reload", "--quiet"].map(str::to_owned));
        arguments
    }

    fn environment(&self) -> Vec<(String, String)> {
        let Some(state) = &self.state else { return Vec::new() };
        // The managed copy of Envoy goes there too: nobody's home is to be seen from within.
        let own = [("HOME", state.clone()), ("XDG_DATA_HOME", state.join("share"))];
        own.into_iter().map(|(name, path)| (name.to_owned(), path.display().to_string())).collect()
    }
}

/// A service that would start without the secret it goes by is not installed: it would refuse everybody, or not start.
fn require_secret(config: &Config) -> Result<(), CliError> {
    if config.admin.mode == AccessMode::Password && !matches!(config.admin.password, Some(GivenSecret::File(_))) {
        let message =
            "the service would have no password: SIGILUM_GATEWAY_PASSWORD of this environment is not handed to it";
        return Err(CliError::new(Outcome::Config, message)
            .hint("write it into a file of mode 0600 and name that in admin.password_file"));
    }
    Ok(())
}

/// What a person should know before.
fn warn(args: &InstallArgs, config: &Config, printer: &mut Printer) {
    if config.master_key.is_some() && args.credential.is_none() && args.plain_credential.is_none() {
        printer.warn(
            "GATEWAY_MASTER_KEY of this environment is not handed to the service: the key must stand in its file, \
             <home>/gateway-master-key, or come as a credential (--system --credential)",
        );
    }
    if config.admin.token.is_some() {
        printer.warn("GATEWAY_ADMIN_TOKEN of this environment is not handed to the service, which makes its own");
    }
    if matches!(config.admin.password, Some(GivenSecret::Given(_))) {
        printer.warn(
            "SIGILUM_GATEWAY_PASSWORD of this environment is not handed to the service; no secret stands in a unit",
        );
    }
    if matches!(config.admin.metrics, Some(GivenSecret::Given(_))) {
        printer.warn("GATEWAY_METRICS_TOKEN of this environment is not handed to the service; name its file in admin.metrics_token_file");
    }
    let named = launch::referenced_names(config);
    if !named.is_empty() {
        printer.warn(&format!(
            "gateway.yaml refers to variables that the service does not have, because no secret stands in a unit: {}; \
             refer to files or programs instead",
            named.join(", ")
        ));
    }
    let hidden = config.envoy.binary.as_deref().filter(|file| HOMES.iter().any(|home| file.starts_with(home)));
    if let (true, Some(file)) = (args.system, hidden) {
        printer.warn(&format!(
            "{} lies in a home folder, none of which the machine's service sees: put that Envoy elsewhere, or let the \
             service install its own (without --envoy-bin)",
            file.display()
        ));
    }
    let own = config.paths.config_file.as_deref().filter(|file| !file.starts_with("/etc"));
    if let (true, Some(file)) = (args.system, own) {
        printer.warn(&format!(
            "{} is not seen by the machine's service: put its settings into {SYSTEM_STATE}/{STATE}/home/gateway.yaml, or \
             name a file in /etc with --config",
            file.display()
        ));
    }
}

async fn install_unit(
    args: &InstallArgs,
    config: &Config,
    planned: &Planned,
    found: &Found,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let found_manager = Systemctl::find_in(args.system).await;
    let Some(systemctl) = found_manager else {
        let what =
            if args.system { "systemd does not run this machine" } else { "systemd has no manager for this user" };
        return Err(CliError::new(Outcome::Unavailable, what).hint(
            "in a container start it as the container's process (`sigilum gateway start`); on a machine with systemd log in \
             again, or `sudo loginctl enable-linger <user>`",
        ));
    };
    let standing = systemctl.standing(&planned.unit).await?;
    let run_dir = Places::of(args, config).data.join("run");
    let run_dir = if args.system { run_dir } else { config.paths.run_dir.clone() };
    refuse_second(&run_dir, standing.pid)?;
    if *found == Found::Same && standing.state == UnitState::Active {
        let report = Report { pid: Some(standing.pid), ..planned.report("unchanged") };
        return installed(&report, args.json, printer);
    }
    if !args.system {
        // Its first start would take minutes otherwise, and systemd waits for one.
        let search = Search::standard(config.envoy.binary.clone());
        binary::find(&search, &mut |note| printer.note(&note))
            .await
            .map_err(|error| CliError::new(Outcome::Unavailable, error.to_string()).hint(error.hint()))?;
    }
    let standing = systemctl.place(&planned.unit, &planned.path, &planned.text).await?;
    if standing.state != UnitState::Active {
        let message = format!("the unit {} is not running (exit code {})", planned.unit, standing.exit_status);
        let scope = if args.system { "" } else { "--user " };
        return Err(CliError::new(Outcome::Failed, message).hint(format!("journalctl {scope}-u {}", planned.unit)));
    }
    let linger = if args.system { None } else { lingers().await };
    if linger == Some(false) {
        printer.warn("it ends when you log out; `sudo loginctl enable-linger` with your name keeps it");
    }
    installed(&Report { pid: Some(standing.pid), linger, ..planned.report("installed") }, args.json, printer)
}

fn installed(report: &Report, json: bool, printer: &mut Printer) -> Result<Outcome, CliError> {
    if json {
        printer.json(report)?;
        return Ok(Outcome::Done);
    }
    let done = if report.result == "unchanged" {
        "is installed and runs"
    } else {
        "is installed, ready, and starts with the machine"
    };
    printer.ok(&format!("{} ({}) {done}", report.unit, report.scope))?;
    printer.line(&format!("unit: {}", report.path))?;
    if let Some(pid) = report.pid {
        printer.line(&format!("pid:  {pid}"))?;
    }
    Ok(Outcome::Done)
}

/// One that runs and is not the unit's would end the unit with a conflict.
fn refuse_second(run_dir: &Path, unit: i32) -> Result<(), CliError> {
    match Instance::read(run_dir).map(|instance| instance.supervisor).filter(ProcessIdentity::is_alive) {
        Some(running) if running.pid != unit => {
            let message = format!("another gateway instance is already listening (pid {})", running.pid);
            Err(CliError::new(Outcome::Config, message).hint(format!("`{}` ends it", profile::command("gateway stop"))))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether services of this user run without a login.
async fn lingers() -> Option<bool> {
    let user = rustix::process::getuid().as_raw().to_string();
    let mut command = Command::new("loginctl");
    command.args(["show-user", &user, "--property=Linger", "--value"]).stdin(Stdio::null());
    let output = command.output().await.ok().filter(|output| output.status.success())?;
    Some(output.stdout.trim_ascii() == b"yes")
}

async fn install_job(config: &Config, planned: &Planned, printer: &mut Printer) -> Result<Outcome, CliError> {
    refuse_second(&config.paths.run_dir, 0)?;
    let failed = |error: std::io::Error| CliError::new(Outcome::Failed, format!("{}: {error}", planned.path.display()));
    files::private_folder(files::folder_of(&planned.path)).map_err(failed)?;
    files::write_private(&planned.path, planned.text.as_bytes()).map_err(failed)?;
    let domain = format!("gui/{}", rustix::process::getuid().as_raw());
    // One that is loaded already is loaded anew.
    let _ = lifecycle::launchctl(&["bootout", &format!("{domain}/{}", planned.unit)]).await;
    lifecycle::launchctl(&["enable", &format!("{domain}/{}", planned.unit)]).await?;
    lifecycle::launchctl(&["bootstrap", &domain, &planned.path.display().to_string()]).await?;
    installed(&planned.report("installed"), false, printer)
}

/// Where the gateway of these options has its data; settings that cannot be used must not keep its service.
fn data_dir(args: &UninstallArgs, globals: &Globals) -> PathBuf {
    match args.settings.load(globals) {
        Ok(config) => config.paths.data_dir,
        Err(_) => globals.gateway_data_dir.clone().unwrap_or_else(|| config::default_data_dir(&env::lookup)),
    }
}

/// Stops the service and takes its file away; settings and state stay. Nothing to take away is no failure.
pub(crate) async fn uninstall(
    args: &UninstallArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    manager::refuse_external()?;
    let kin = manager::kin()?;
    let place = if args.system { Place::default() } else { Place::of(&data_dir(args, globals)) };
    let unit = place.unit(Kind::Gateway);
    let (unit, label) = (unit.as_str(), place.label());
    let (path, name) = match (kin, args.system) {
        (Kin::Systemd, true) => (manager::system_folder().join(unit), unit),
        (Kin::Systemd, false) => (manager::user_folder()?.join(unit), unit),
        (Kin::Launchd, _) => (manager::agent_file(&place)?, label.as_str()),
    };
    // Somebody else's is refused here.
    let found = manager::look(&path, "")?;
    let scope = if args.system { "system" } else { "user" };
    let report =
        |result| Report { result, scope, unit: name.to_owned(), path: path.display().to_string(), ..Report::default() };
    if found == Found::Nothing {
        return said(&report("not-installed"), args.json, printer);
    }
    match kin {
        Kin::Systemd => {
            if let Some(systemctl) = Systemctl::find_in(args.system).await {
                systemctl.stop(name).await?;
            }
        }
        Kin::Launchd => {
            let domain = format!("gui/{}", rustix::process::getuid().as_raw());
            let _ = lifecycle::launchctl(&["bootout", &format!("{domain}/{name}")]).await;
        }
    }
    std::fs::remove_file(&path)
        .map_err(|error| CliError::new(Outcome::Failed, format!("{}: {error}", path.display())))?;
    if let (Kin::Systemd, Some(systemctl)) = (kin, Systemctl::find_in(args.system).await) {
        systemctl.reload().await?;
    }
    said(&report("uninstalled"), args.json, printer)
}

fn said(report: &Report, json: bool, printer: &mut Printer) -> Result<Outcome, CliError> {
    if json {
        printer.json(report)?;
    } else if report.result == "not-installed" {
        printer.ok(&format!("{} ({}) is not installed", report.unit, report.scope))?;
    } else {
        printer.ok(&format!("{} ({}) is uninstalled; settings and state stay", report.unit, report.scope))?;
    }
    Ok(Outcome::Done)
}
