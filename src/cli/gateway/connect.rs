//! `gateway connect`: from a session that a dashboard shows to a gateway that it manages, in one command.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use clap::Args;
use reqwest::Url;

use crate::app::gateway::instance;
use crate::app::pair;
use crate::app::pair::Sealing;
use crate::app::systemd::Kind;
use crate::cli::args::Globals;
use crate::cli::gateway::install;
use crate::cli::gateway::launch;
use crate::cli::gateway::lifecycle;
use crate::cli::gateway::lifecycle::Lifecycle;
use crate::cli::gateway::lifecycle::LifecycleMode;
use crate::cli::gateway::lifecycle::State as UnitState;
use crate::cli::gateway::lifecycle::Systemctl;
use crate::cli::gateway::pair as bridge;
use crate::cli::gateway::pid_file;
use crate::cli::gateway::place::Place;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::Mode;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::cli::settings;
use crate::config::Config;
use crate::config::keys;
use crate::sys::files;
use crate::sys::process::ProcessIdentity;
use crate::sys::supervision;
use crate::sys::tls::trust::ServerTrust;

/// How often a gateway that starts is asked.
const LOOK: Duration = Duration::from_secs(1);
/// How long one health check may take.
const HEALTH: Duration = Duration::from_secs(5);
/// How long a gateway that is in the way may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Most of a log that is read.
const MAX_LOG: u64 = 16 * 1024 * 1024;

/// Options of `gateway connect`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "The gateway is started in the background where it does not run; `sigilum down` stops it.")]
pub(super) struct ConnectArgs {
    /// Which session.
    #[command(flatten)]
    session: bridge::SessionArgs,
    /// Admin API of a gateway that is started here: :PORT or IP:PORT [default: that of --gateway-admin-url]
    #[arg(long, value_name = "ADDR")]
    addr: Option<String>,
    /// Where agents connect to a gateway that is started here; may be repeated [default: :38000]
    #[arg(long, value_name = "ADDR")]
    ingress_addr: Vec<String>,
    /// Read-only face of Envoy's admin interface of a gateway that is started here; may be repeated [default: :38200]
    #[arg(long, value_name = "ADDR")]
    envoy_admin_addr: Vec<String>,
    /// How long a gateway that is started may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    gateway_start_timeout_seconds: u64,
    /// Who looks after gateway and bridge
    #[arg(long, value_name = "MODE", value_enum, default_value = "auto")]
    lifecycle_mode: LifecycleMode,
}

/// The gateway that is meant.
struct Target {
    config: Config,
    place: Place,
    admin: Url,
    trust: ServerTrust,
    /// What it is started with.
    arguments: Vec<String>,
    /// Where what it says goes, and which process it is.
    log: PathBuf,
    pid: PathBuf,
    within: Duration,
}

/// Starts what does not run, pairs it, says how it stands.
pub(super) async fn run(args: &ConnectArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let mut globals = globals.clone();
    globals.gateway_admin_url = globals.gateway_admin_url.as_deref().map(address);
    let mut session = args.session.clone();
    session.api_url.get_or_insert_with(|| Mode::Managed.address(&globals));
    let target = target(args, &globals, session.api_url.as_deref().unwrap_or_default())?;
    // What is wrong with session, API or token is said before anything that runs is touched.
    let pairing = session.resolve(&target.config, &globals, printer)?;
    let reached = bridge::check_api(&pairing, printer).await;
    if reached != Outcome::Done {
        return Ok(reached);
    }
    if target.is_healthy().await? {
        target.check_token().await?;
    }
    let lifecycle = Lifecycle::resolve(args.lifecycle_mode).await?;
    match &lifecycle {
        Lifecycle::Compat => target.ensure_process(printer).await?,
        Lifecycle::Stable(systemctl) => target.ensure_unit(systemctl, printer).await?,
    }
    let url = target.admin.as_str().trim_end_matches('/');
    printer.line(&format!("Gateway is healthy at {url}"))?;
    target.check_token().await?;
    let paired = bridge::replace(&pairing, args.lifecycle_mode, &target.config, printer).await?;
    if paired != Outcome::Done {
        return Ok(paired);
    }
    printer.line("Connect complete.")?;
    printer.line(&format!("gateway health: {url}/health"))?;
    printer.line(&format!("pair status:    {} gateway pair --status", launch::command()))?;
    Ok(Outcome::Done)
}

fn target(args: &ConnectArgs, globals: &Globals, api_url: &str) -> Result<Target, CliError> {
    let mut flags = globals.flags();
    flags.set(&keys::ADMIN_ADDR, args.addr.clone());
    let listed = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
    flags.set(&keys::INGRESS_ADDR, listed(&args.ingress_addr));
    flags.set(&keys::ENVOY_ADMIN_ADDR, listed(&args.envoy_admin_addr));
    let config = settings::load(&flags, &[])?;
    let admin = Url::parse(&config.admin_url).ok().filter(Url::has_host);
    let admin = admin.ok_or_else(|| {
        CliError::new(Outcome::Usage, format!("{:?} is no address of an admin API", config.admin_url))
    })?;
    let port = admin.port_or_known_default().unwrap_or_default();
    let addr = args.addr.clone().unwrap_or_else(|| format!(":{port}"));
    let namespace = config.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let mut arguments = ["gateway", "start"].map(str::to_owned).to_vec();
    let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    add("--namespace", namespace);
    add("--sigilum-home", absolute(&config.paths.home));
    add("--api-url", api_url.to_owned());
    add("--addr", addr);
    add("--gateway-data-dir", absolute(&config.paths.data_dir));
    args.ingress_addr.iter().for_each(|addr| add("--ingress-addr", addr.clone()));
    args.envoy_admin_addr.iter().for_each(|addr| add("--envoy-admin-addr", addr.clone()));
    let place = Place::of(&config.paths.data_dir);
    Ok(Target {
        trust: gateway_api::trust(&config.admin.trust),
        config,
        admin,
        arguments,
        log: place.file("gateway-start", "log"),
        pid: place.file("gateway-start", "pid"),
        place,
        within: Duration::from_secs(args.gateway_start_timeout_seconds),
    })
}

/// `host:port` and `:port` as the address they mean; blanks are nothing.
fn address(text: &str) -> String {
    let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    match text.strip_prefix(':') {
        Some(port) => format!("http://127.0.0.1:{port}"),
        None if text.contains("://") => text,
        None => format!("http://{text}"),
    }
}

impl Target {
    async fn is_healthy(&self) -> Result<bool, CliError> {
        pair::is_healthy(&self.admin, &self.trust, HEALTH)
            .await
            .map_err(|error| CliError::new(Outcome::Failed, error.to_string()))
    }

    /// A gateway that does not take our token would refuse whatever is relayed.
    async fn check_token(&self) -> Result<(), CliError> {
        match bridge::sealing(&self.admin, &self.config).await? {
            Sealing::Refused => Err(CliError::new(
                Outcome::Unauthorized,
                format!(
                    "the gateway at {} does not take the admin token of {}: it would refuse whatever is relayed",
                    self.admin,
                    self.config.paths.data_dir.display()
                ),
            )
            .hint(
                "--gateway-data-dir names the data folder of the gateway that answers there, or GATEWAY_ADMIN_TOKEN its \
                 token; --gateway-admin-url names another gateway",
            )),
            // What else may be wrong with it, the bridge says.
            Sealing::Fingerprint(_) | Sealing::Absent | Sealing::Unknown(_) => Ok(()),
        }
    }

    /// Somebody else's machine is not where a gateway is started.
    fn check_here(&self) -> Result<(), CliError> {
        if owner::is_loopback(self.admin.as_str()) {
            return Ok(());
        }
        Err(CliError::new(Outcome::Failed, format!("no gateway answers at {}, which is not this machine", self.admin))
            .hint("start it there, or see --gateway-admin-url"))
    }

    async fn ensure_process(&self, printer: &mut Printer) -> Result<(), CliError> {
        if self.is_healthy().await? {
            return Ok(());
        }
        self.check_here()?;
        let failed = |error: io::Error| CliError::new(Outcome::Failed, format!("the gateway was not started: {error}"));
        files::private_folder(files::folder_of(&self.log)).map_err(failed)?;
        let mut child = None;
        if let Some(running) = pid_file::living(&self.pid)? {
            printer.note(&format!("[i] the gateway is starting already (pid={})", running.pid));
        } else {
            let log = bridge::fresh_log(&self.log).map_err(failed)?;
            let mut command = supervision::detached(&self.arguments, &log).map_err(failed)?;
            // What its owner signs in with is none of the gateway's business.
            command.env_remove(owner::JWT_SECRET).env_remove(owner::OWNER_TOKEN);
            let started = command.spawn().map_err(failed)?;
            if let Some(process) = i32::try_from(started.id()).ok().and_then(ProcessIdentity::of) {
                pid_file::write(&self.pid, &process).map_err(failed)?;
            }
            printer.note(&format!("[i] starting the gateway (pid={}), log: {}", started.id(), self.log.display()));
            child = Some(started);
        }
        let log = self.log.display().to_string();
        self.wait(child.as_mut(), &format!("see its log: {log}")).await
    }

    async fn ensure_unit(&self, systemctl: &Systemctl, printer: &mut Printer) -> Result<(), CliError> {
        let name = &self.place.unit(Kind::Gateway);
        let active = systemctl.standing(name).await?.state == UnitState::Active;
        let healthy = self.is_healthy().await?;
        if active && healthy {
            return Ok(());
        }
        self.check_here()?;
        // Before what runs is ended: a unit of somebody else is not replaced.
        let unit = install::for_user(&self.config, &self.arguments)?;
        if healthy {
            self.make_room(printer).await?;
        }
        lifecycle::warn_of_secrets(&[("GATEWAY_MASTER_KEY", "<home>/gateway-master-key")], printer);
        lifecycle::warn_of_secrets(&lifecycle::ADMIN_SECRETS, printer);
        let standing = systemctl.place(&unit.unit, &unit.path, &unit.text).await?;
        let logs = format!("journalctl --user -u {name}");
        if standing.state != UnitState::Active {
            let message = format!("the unit {name} is not running (exit code {})", standing.exit_status);
            return Err(CliError::new(Outcome::Failed, message).hint(logs));
        }
        self.point_to(&logs)?;
        self.wait(None, &logs).await
    }

    /// Ends the gateway that an earlier `connect` started without systemd.
    async fn make_room(&self, printer: &mut Printer) -> Result<(), CliError> {
        if let Some(running) = pid_file::living(&self.pid)? {
            printer.note(&format!("[i] the gateway that was started without systemd ends (pid={})", running.pid));
            // What does not end is found by the next look.
            let _ = running.signal(rustix::process::Signal::TERM);
            let patience = STOP_PATIENCE.saturating_add(self.config.drain);
            instance::wait_for_end(&[&running], patience).await;
            pid_file::forget(&self.pid);
        }
        if self.is_healthy().await? {
            let message = format!("another gateway answers at {}, which systemd did not start", self.admin);
            return Err(CliError::new(Outcome::Failed, message)
                .hint(format!("stop it (`{}`), or give --lifecycle-mode compat", profile::command("down"))));
        }
        Ok(())
    }

    /// Who looks into the log of the other mode is told where this one's is.
    fn point_to(&self, logs: &str) -> Result<(), CliError> {
        let failed = |error: io::Error| CliError::new(Outcome::Failed, format!("{}: {error}", self.log.display()));
        files::private_folder(files::folder_of(&self.log)).map_err(failed)?;
        files::write_private(&self.log, format!("The gateway runs as a systemd unit: {logs}\n").as_bytes())
            .map_err(failed)
    }

    /// What the log says last of an error, or last at all.
    fn last_words(&self) -> String {
        let text = files::read_bytes(&self.log, MAX_LOG).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = || text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        let last = lines().find(|line| line.starts_with("error")).or_else(|| lines().next());
        last.map(|line| format!(": {line}")).unwrap_or_default()
    }

    /// Until it answers; `child`: the process, where it is ours.
    async fn wait(&self, mut child: Option<&mut Child>, hint: &str) -> Result<(), CliError> {
        let answers = async {
            loop {
                if self.is_healthy().await? {
                    return Ok(());
                }
                if let Some(Ok(Some(status))) = child.as_mut().map(|child| child.try_wait()) {
                    pid_file::forget(&self.pid);
                    let message = format!("the gateway has ended ({status}){}", self.last_words());
                    return Err(CliError::new(Outcome::Failed, message).hint(hint));
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(self.within, answers).await.unwrap_or_else(|_| {
            let message = format!("the gateway at {} was not healthy within {} s", self.admin, self.within.as_secs());
            Err(CliError::new(Outcome::Failed, message).hint(hint))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_short() {
        for (short, whole) in [
            (":39100", "http://127.0.0.1:39100"),
            (" localhost:39100 ", "http://localhost:39100"),
            ("https://admin.internal:1", "https://admin.internal:1"),
        ] {
            assert_eq!(address(short), whole);
        }
    }
}
