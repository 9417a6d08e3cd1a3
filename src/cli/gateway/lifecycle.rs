//! Who looks after what runs in the background: the user's systemd (`stable`), or nobody (`compat`).

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use clap::ValueEnum;
use tokio::process::Command;

use crate::app::gateway::START_PATIENCE;
use crate::app::systemd;
use crate::app::systemd::Unit;
use crate::cli::gateway::manager;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::config::keys;
use crate::sys::env;
use crate::sys::files;

/// Where systemd says that it runs this machine.
const SYSTEMD: &str = "/run/systemd/system";
/// How long a manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take to start or stop a unit. It gives up by itself, at what the unit says: the longest drain and what
/// comes after it, then a start that has to fetch Envoy first. Here is only the wall behind that.
const JOB_PATIENCE: Duration =
    START_PATIENCE.saturating_add(Duration::from_secs(keys::LONGEST_DRAIN.saturating_add(systemd::STOP_GRACE)));
/// How long a unit that was started is watched, and how often.
const WATCH: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LifecycleMode {
    /// The user's systemd where there is one
    Auto,
    /// The user's systemd
    Stable,
    /// A process of its own, without systemd
    Compat,
}

/// What there is.
#[derive(Debug)]
pub(crate) enum Lifecycle {
    /// The user's systemd.
    Stable(Systemctl),
    /// Nobody.
    Compat,
}

/// Whether a unit runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// It does.
    Active,
    /// It is about to, or to end: also one that has ended and waits to be started again.
    Starting,
    /// It does not, nor is it known.
    #[default]
    Inactive,
}

/// How a unit stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether it runs.
    pub(crate) state: State,
    /// Whether it is started with the machine.
    pub(crate) enabled: bool,
    /// Its process; 0 where there is none.
    pub(crate) pid: i32,
    /// The exit code of the last one.
    pub(crate) exit_status: i32,
    /// Whether systemd has read the unit.
    pub(crate) loaded: bool,
    /// Whether the unit's file differs from what it has read.
    pub(crate) stale: bool,
    /// How often systemd started it again by itself.
    pub(crate) restarts: u64,
    /// How the last process ended, in systemd's word (`exit-code`, `signal`, `watchdog`, …); empty where it ended well.
    pub(crate) result: String,
}

/// The user's systemd or the machine's, by its command.
#[derive(Debug)]
pub(crate) struct Systemctl {
    system: bool,
    /// Variables a session without a login lacks.
    environment: Vec<(&'static str, String)>,
}

impl Lifecycle {
    /// What a mode means on this machine.
    pub(crate) async fn resolve(mode: LifecycleMode) -> Result<Self, CliError> {
        if mode == LifecycleMode::Compat {
            return Ok(Self::Compat);
        }
        let hint = "sudo loginctl enable-linger <user>, then log in again; or --lifecycle-mode compat";
        match (Systemctl::find().await, mode) {
            (Some(systemctl), _) => Ok(Self::Stable(systemctl)),
            (None, LifecycleMode::Stable) => {
                Err(CliError::new(Outcome::Failed, "the user's systemd does not answer (systemctl --user)").hint(hint))
            }
            (None, _) if Path::new(SYSTEMD).is_dir() => {
                let message = "systemd runs this machine, but has no manager for this user";
                Err(CliError::new(Outcome::Failed, message).hint(hint))
            }
            (None, _) => Ok(Self::Compat),
        }
    }
}

impl Systemctl {
    /// The user's systemd, where it answers.
    pub(crate) async fn find() -> Option<Self> {
        Self::find_in(false).await
    }

    /// The machine's systemd or the user's, where it answers.
    pub(crate) async fn find_in(system: bool) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let environment = if system { Vec::new() } else { guessed() };
        let systemctl = Self { system, environment };
        let answered = systemctl.call(&["show-environment"]).await.ok()?;
        answered.status.success().then_some(systemctl)
    }

    async fn call(&self, arguments: &[&str]) -> io::Result<Output> {
        let mut command = Command::new("systemctl");
        command.arg(self.scope()).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let patience = patience(arguments);
        tokio::time::timeout(patience, command.output())
            .await
            .unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {} s", patience.as_secs()))))
    }

    /// Whether it is the machine's.
    pub(crate) const fn is_system(&self) -> bool {
        self.system
    }

    const fn scope(&self) -> &'static str {
        if self.system { "--system" } else { "--user" }
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output, CliError> {
        let failed = |why: String| {
            let message = format!("systemctl {} {}: {}", self.scope(), arguments.join(" "), why.trim());
            CliError::new(Outcome::Failed, message)
        };
        let output = self.call(arguments).await.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(output);
        }
        Err(failed(format!("{} ({})", String::from_utf8_lossy(&output.stderr).trim(), output.status)))
    }

    /// How a unit stands. One that systemd does not know is not active.
    pub(crate) async fn standing(&self, unit: &str) -> Result<Standing, CliError> {
        let properties =
            "--property=ActiveState,MainPID,ExecMainStatus,UnitFileState,LoadState,NeedDaemonReload,NRestarts,Result";
        Ok(standing(&String::from_utf8_lossy(&self.run(&["show", unit, properties]).await?.stdout)))
    }

    /// Writes a unit, has it started with the machine, and starts it now. The standing is that of a moment later.
    pub(crate) async fn start(&self, unit: &Unit<'_>) -> Result<Standing, CliError> {
        let name = &unit.kind.unit(unit.suffix);
        let text = systemd::render(unit).map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
        let path = manager::user_folder()?.join(name);
        manager::look(&path, &text)?;
        self.place(name, &path, &text).await
    }

    /// The same for a text that is rendered already, and a place that was looked at ([`manager::look`]).
    pub(crate) async fn place(&self, name: &str, path: &Path, text: &str) -> Result<Standing, CliError> {
        let failed = |error: io::Error| CliError::new(Outcome::Failed, format!("{}: {error}", path.display()));
        files::private_folder(files::folder_of(path)).map_err(failed)?;
        files::write_private(path, text.as_bytes()).map_err(failed)?;
        self.reload().await?;
        self.run(&["enable", name]).await?;
        self.restart(name).await
    }

    /// Starts a unit, anew where it runs. The standing is that of a moment later.
    pub(crate) async fn restart(&self, name: &str) -> Result<Standing, CliError> {
        // What failed before has no say in this start.
        let _ = self.call(&["reset-failed", name]).await;
        self.run(&["restart", name]).await?;
        self.watch(name).await
    }

    /// The standing after a moment, or as soon as the unit has ended.
    async fn watch(&self, name: &str) -> Result<Standing, CliError> {
        let active = async {
            while self.standing(name).await.is_ok_and(|standing| standing.state == State::Active) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(WATCH, active).await;
        self.standing(name).await
    }

    /// Has units read again.
    pub(crate) async fn reload(&self) -> Result<(), CliError> {
        self.run(&["daemon-reload"]).await.map(drop)
    }

    /// Stops a unit until it is started again.
    pub(crate) async fn stop_now(&self, name: &str) -> Result<(), CliError> {
        self.run(&["stop", name]).await.map(drop)
    }

    /// Stops a unit that runs or is about to, and has it not started with the machine any more. `false`: there was nothing
    /// to do.
    pub(crate) async fn stop(&self, name: &str) -> Result<bool, CliError> {
        let standing = self.standing(name).await?;
        if standing.state == State::Inactive && !standing.enabled {
            return Ok(false);
        }
        self.run(&["stop", name]).await?;
        if standing.enabled {
            self.run(&["disable", name]).await?;
        }
        Ok(true)
    }
}

/// How long a manager may take for what it is asked.
fn patience(arguments: &[&str]) -> Duration {
    match arguments.first() {
        Some(&("start" | "stop" | "restart" | "kickstart" | "bootout")) => JOB_PATIENCE,
        Some(_) | None => PATIENCE,
    }
}

/// Reads `NAME=value` lines.
fn standing(text: &str) -> Standing {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim()).unwrap_or_default()
    };
    Standing {
        state: match value("ActiveState") {
            "active" | "reloading" | "refreshing" => State::Active,
            "activating" | "deactivating" => State::Starting,
            _ => State::Inactive,
        },
        enabled: matches!(value("UnitFileState"), "enabled" | "enabled-runtime"),
        pid: value("MainPID").parse().unwrap_or_default(),
        exit_status: value("ExecMainStatus").parse().unwrap_or_default(),
        loaded: value("LoadState") == "loaded",
        stale: value("NeedDaemonReload") == "yes",
        restarts: value("NRestarts").parse().unwrap_or_default(),
        result: Some(value("Result")).filter(|result| *result != "success").unwrap_or_default().to_owned(),
    }
}

/// What a session that began with `su` or `ssh` may lack to reach the user's systemd.
fn guessed() -> Vec<(&'static str, String)> {
    let folder = format!("/run/user/{}", rustix::process::geteuid().as_raw());
    if !Path::new(&folder).is_dir() {
        return Vec::new();
    }
    let bus = format!("unix:path={folder}/bus");
    let guessed = [("XDG_RUNTIME_DIR", folder), ("DBUS_SESSION_BUS_ADDRESS", bus)];
    guessed.into_iter().filter(|(name, _)| env::lookup(name).is_none()).collect()
}

/// Has launchd do something.
pub(crate) async fn launchctl(arguments: &[&str]) -> Result<(), CliError> {
    let failed =
        |why: String| CliError::new(Outcome::Failed, format!("launchctl {}: {}", arguments.join(" "), why.trim()));
    let mut command = Command::new("launchctl");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let patience = patience(arguments);
    let output = tokio::time::timeout(patience, command.output()).await;
    match output {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            Err(failed(format!("{} ({})", String::from_utf8_lossy(&output.stderr).trim(), output.status)))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {} s", patience.as_secs()))),
    }
}

/// Variables a unit needs to find the same settings as this command: those of settings that are no secrets, and of
/// places.
pub(crate) fn environment() -> Vec<(String, String)> {
    const PLACES: [&str; 3] = ["PATH", "SIGILUM_CONFIG_HOME", "SIGILUM_CONFIG_FILE"];
    let names = keys::environment().filter(|name| !keys::is_own_secret(name)).chain(PLACES);
    let mut found: Vec<_> = names.filter_map(|name| env::lookup(name).map(|value| (name.to_owned(), value))).collect();
    found.sort();
    found.dedup();
    found
}

/// Variables that open the admin API, and where the same stands for a unit.
pub(crate) const ADMIN_SECRETS: [(&str, &str); 3] = [
    ("GATEWAY_ADMIN_TOKEN", "<data-dir>/admin-token"),
    ("SIGILUM_GATEWAY_TOKEN", "<data-dir>/admin-token"),
    ("SIGILUM_GATEWAY_PASSWORD", "that of admin.password_file"),
];

/// Says which secrets of this environment a unit does not get: what it is started with can be read. `wanted` are those it
/// would take, with the file that holds them in their stead.
pub(crate) fn warn_of_secrets(wanted: &[(&str, &str)], printer: &mut Printer) {
    for (name, file) in wanted.iter().filter(|(name, _)| env::lookup(name).is_some()) {
        printer
            .warn(&format!("{name} of this environment is not handed to the unit: it must stand in its file, {file}"));
    }
}

/// This program, for a unit: where it is installed, whatever runs now.
pub(crate) fn program() -> Result<PathBuf, CliError> {
    let found = std::env::current_exe().ok().filter(|path| path.is_file());
    found.ok_or_else(|| {
        CliError::new(Outcome::Failed, "this program's file was replaced while it runs").hint("run the command again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_as_long_as_its_unit_may_take() {
        // The longest drain; the second stop of a `mixed` unit; and a start that installs Envoy.
        let longest = keys::LONGEST_DRAIN + systemd::STOP_GRACE + START_PATIENCE.as_secs();
        for job in ["start", "stop", "restart"] {
            assert!(patience(&[job, "x.service"]).as_secs() >= longest, "{job}");
        }
        assert_eq!(patience(&["show", "x.service"]), PATIENCE);
    }

    #[test]
    fn a_standing_is_read_and_what_is_not_said_is_not_running() {
        let running = Standing { state: State::Active, enabled: true, pid: 42, loaded: true, ..Standing::default() };
        let text = "MainPID=42\nExecMainStatus=0\nActiveState=active\nUnitFileState=enabled\nLoadState=loaded\nResult=success\n";
        assert_eq!(standing(text), running);
        let over = Standing {
            exit_status: 42,
            stale: true,
            restarts: 3,
            result: "exit-code".to_owned(),
            ..Standing::default()
        };
        let text = "MainPID=0\nExecMainStatus=42\nActiveState=failed\nUnitFileState=disabled\nNeedDaemonReload=yes\nNRestarts=3\nResult=exit-code\n";
        assert_eq!(standing(text), over);
        let again = Standing { state: State::Starting, exit_status: 1, ..Standing::default() };
        assert_eq!(standing("MainPID=0\nExecMainStatus=1\nActiveState=activating\nSubState=auto-restart\n"), again);
        assert_eq!(standing(""), Standing::default());
    }
}
