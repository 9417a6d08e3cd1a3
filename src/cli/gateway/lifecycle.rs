//! Who looks after what runs in the background: the user's systemd (`stable`), or nobody (`compat`).

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use clap::ValueEnum;
use tokio::process::Command;

use crate::app::systemd;
use crate::app::systemd::Unit;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::config::keys;
use crate::sys::env;
use crate::sys::files;

/// Where systemd says that it runs this machine.
const SYSTEMD: &str = "/run/systemd/system";
/// How long systemctl may take: it waits for units that end.
const PATIENCE: Duration = Duration::from_secs(120);
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

/// How a unit stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether it runs.
    pub(crate) active: bool,
    /// Its process; 0 where there is none.
    pub(crate) pid: i32,
    /// The exit code of the last one.
    pub(crate) exit_status: i32,
}

/// The user's systemd, by its command.
#[derive(Debug)]
pub(crate) struct Systemctl {
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
        if !cfg!(target_os = "linux") {
            return None;
        }
        let systemctl = Self { environment: guessed() };
        let answered = systemctl.call(&["show-environment"]).await.ok()?;
        answered.status.success().then_some(systemctl)
    }

    async fn call(&self, arguments: &[&str]) -> io::Result<Output> {
        let mut command = Command::new("systemctl");
        command.arg("--user").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        tokio::time::timeout(PATIENCE, command.output())
            .await
            .unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {} s", PATIENCE.as_secs()))))
    }

    async fn run(&self, arguments: &[&str]) -> Result<(), CliError> {
        let failed = |why: String| {
            CliError::new(Outcome::Failed, format!("systemctl --user {}: {}", arguments.join(" "), why.trim()))
        };
        let output = self.call(arguments).await.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(format!("{} ({})", String::from_utf8_lossy(&output.stderr).trim(), output.status)))
    }

    /// How a unit stands. One that systemd does not know is not active.
    pub(crate) async fn standing(&self, unit: &str) -> Standing {
        let properties = "--property=ActiveState,MainPID,ExecMainStatus";
        let output = self.call(&["show", unit, properties]).await;
        output.map(|output| standing(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
    }

    /// Writes a unit, has it started with the machine, and starts it now. The standing is that of a moment later.
    pub(crate) async fn start(&self, unit: &Unit<'_>) -> Result<Standing, CliError> {
        let name = unit.kind.unit();
        let text = systemd::render(unit).map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
        let path = folder()?.join(name);
        let failed = |error: io::Error| CliError::new(Outcome::Failed, format!("{}: {error}", path.display()));
        files::private_folder(files::folder_of(&path)).map_err(failed)?;
        files::write_private(&path, text.as_bytes()).map_err(failed)?;
        self.run(&["daemon-reload"]).await?;
        self.run(&["enable", name]).await?;
        // What failed before has no say in this start.
        let _ = self.call(&["reset-failed", name]).await;
        self.run(&["restart", name]).await?;
        self.watch(name).await
    }

    /// Has systemd read its units again.
    pub(crate) async fn reload(&self) -> Result<(), CliError> {
        self.run(&["daemon-reload"]).await
    }

    /// The standing after a moment, or as soon as the unit has ended.
    async fn watch(&self, name: &str) -> Result<Standing, CliError> {
        let active = async {
            while self.standing(name).await.active {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(WATCH, active).await;
        Ok(self.standing(name).await)
    }

    /// Stops a unit, and has it not started with the machine any more.
    pub(crate) async fn stop(&self, name: &str) -> Result<(), CliError> {
        self.run(&["stop", name]).await?;
        // One that was never enabled is disabled.
        let _ = self.call(&["disable", name]).await;
        Ok(())
    }
}

/// Reads `NAME=value` lines.
fn standing(text: &str) -> Standing {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim()).unwrap_or_default()
    };
    Standing {
        active: matches!(value("ActiveState"), "active" | "reloading"),
        pid: value("MainPID").parse().unwrap_or_default(),
        exit_status: value("ExecMainStatus").parse().unwrap_or_default(),
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

/// Where the units of this user are.
pub(crate) fn folder() -> Result<PathBuf, CliError> {
    let config = env::lookup("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| env::lookup("HOME").map(|home| PathBuf::from(home).join(".config")));
    let config = config.ok_or_else(|| CliError::new(Outcome::Failed, "there is no home folder for units (HOME)"))?;
    Ok(config.join("systemd/user"))
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
    fn a_standing_is_read_and_what_is_not_said_is_not_running() {
        let running = Standing { active: true, pid: 42, exit_status: 0 };
        assert_eq!(standing("MainPID=42\nExecMainStatus=0\nActiveState=active\n"), running);
        let over = Standing { active: false, pid: 0, exit_status: 42 };
        assert_eq!(standing("MainPID=0\nExecMainStatus=42\nActiveState=failed\n"), over);
        assert_eq!(standing(""), Standing::default());
    }
}
