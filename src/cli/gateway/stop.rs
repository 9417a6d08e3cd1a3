//! `gateway stop`: through the manager that runs it, else by asking its supervisor. Twice is once.

use clap::Args;
use serde::Serialize;

use crate::app::down;
use crate::app::down::Stopped;
use crate::app::gateway::instance::Instance;
use crate::app::systemd::Kind;
use crate::cli::args::Globals;
use crate::cli::confirm;
use crate::cli::gateway::lifecycle;
use crate::cli::gateway::lifecycle::Systemctl;
use crate::cli::gateway::manager;
use crate::cli::gateway::manager::Kin;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::place::Place;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::reach;
use crate::config::Config;
use crate::sys::process::ProcessIdentity;

/// Options of `gateway stop`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StopArgs {
    /// Have it not started with the machine any more either
    #[arg(long)]
    disable: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Settings: they say which installation is meant.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What was done, for programs.
#[derive(Debug, Serialize)]
struct Report {
    /// `stopped` or `not-running`.
    result: &'static str,
    /// The unit it was stopped through; absent: its supervisor was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    /// Processes that had to be killed.
    killed: Vec<&'static str>,
    disabled: bool,
}

/// Who runs it.
enum Through {
    /// With its name there.
    Systemd(Systemctl, String),
    /// With the label of its job.
    Launchd(String),
    Nobody,
}

/// Stops it.
pub(crate) async fn run(args: &StopArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    manager::refuse_external()?;
    let config = reach::running(&args.settings.flags(globals), printer)?;
    let running = running(&config);
    let unit = unit_of(&config);
    let through = through(running.as_ref(), &Place::of(&config.paths.data_dir), &unit).await;
    let managed = !matches!(through, Through::Nobody);
    if running.is_none() && !managed && !args.disable {
        return said(&Report { result: "not-running", unit: None, killed: Vec::new(), disabled: false }, args, printer);
    }
    if running.is_some()
        && !args.yes
        && !confirm::ask("Stop the gateway? Agents get no answers until it runs again.", printer)?
    {
        return Err(CliError::new(Outcome::Failed, "nothing was stopped"));
    }
    let (unit, killed) = match &through {
        Through::Systemd(systemctl, unit) => {
            if args.disable {
                systemctl.stop(unit).await?;
            } else {
                systemctl.stop_now(unit).await?;
            }
            (Some(unit.clone()), Vec::new())
        }
        Through::Launchd(label) => {
            let domain = format!("gui/{}/{label}", rustix::process::getuid().as_raw());
            if args.disable {
                lifecycle::launchctl(&["disable", &domain]).await?;
            }
            lifecycle::launchctl(&["bootout", &domain]).await?;
            (Some(label.clone()), Vec::new())
        }
        Through::Nobody => {
            if args.disable {
                disable(&unit).await?;
            }
            let stopped = down::run(&config.paths.run_dir, config.drain)
                .await
                .map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
            let killed = match stopped {
                Stopped::NothingRan | Stopped::Gracefully => Vec::new(),
                Stopped::Killed(names) => names,
            };
            (None, killed)
        }
    };
    let result = if running.is_some() || managed { "stopped" } else { "not-running" };
    said(&Report { result, unit, killed, disabled: args.disable }, args, printer)
}

/// Stops the gateway of this installation through the manager that runs it, or is about to start it again. A unit of the
/// user's is not started with the machine any more either. The unit; `None`: nobody manages it.
pub(crate) async fn through_manager(config: &Config) -> Result<Option<String>, CliError> {
    let unit = unit_of(config);
    match through(running(config).as_ref(), &Place::of(&config.paths.data_dir), &unit).await {
        Through::Systemd(systemctl, unit) if systemctl.is_system() => {
            systemctl.stop_now(&unit).await.map(|()| Some(unit))
        }
        Through::Systemd(systemctl, unit) => systemctl.stop(&unit).await.map(|_| Some(unit)),
        Through::Launchd(label) => {
            let domain = format!("gui/{}/{label}", rustix::process::getuid().as_raw());
            lifecycle::launchctl(&["bootout", &domain]).await.map(|()| Some(label))
        }
        // It may wait to be started again.
        Through::Nobody => match Systemctl::find_in(false).await {
            Some(systemctl) => Ok(systemctl.stop(&unit).await?.then_some(unit)),
            None => Ok(None),
        },
    }
}

/// The unit of this installation.
fn unit_of(config: &Config) -> String {
    Place::of(&config.paths.data_dir).unit(Kind::Gateway)
}

/// The supervisor of this installation, where one runs.
fn running(config: &Config) -> Option<ProcessIdentity> {
    let instance = Instance::read(&config.paths.run_dir)?;
    Some(instance.supervisor).filter(ProcessIdentity::is_alive)
}

/// The manager whose unit is this supervisor.
async fn through(running: Option<&ProcessIdentity>, place: &Place, unit: &str) -> Through {
    let Some(running) = running else { return Through::Nobody };
    match manager::kin() {
        Ok(Kin::Systemd) => {
            // The machine has one gateway, wherever its data is.
            let machine = Place::default().unit(Kind::Gateway);
            for (system, unit) in [(false, unit), (true, machine.as_str())] {
                if let Some(systemctl) = Systemctl::find_in(system).await
                    && systemctl.standing(unit).await.is_ok_and(|standing| standing.pid == running.pid)
                {
                    return Through::Systemd(systemctl, unit.to_owned());
                }
            }
            Through::Nobody
        }
        Ok(Kin::Launchd) => {
            let file = manager::agent_file(place);
            if file.is_ok_and(|file| file.exists()) { Through::Launchd(place.label()) } else { Through::Nobody }
        }
        Err(_) => Through::Nobody,
    }
}

/// Has a unit of ours that does not run not started any more; where there is no systemd there is none.
async fn disable(unit: &str) -> Result<(), CliError> {
    let path = manager::user_folder()?.join(unit);
    if let (true, Some(systemctl)) = (path.exists(), Systemctl::find_in(false).await) {
        systemctl.stop(unit).await?;
    }
    Ok(())
}

fn said(report: &Report, args: &StopArgs, printer: &mut Printer) -> Result<Outcome, CliError> {
    if args.json {
        printer.json(report)?;
        return Ok(Outcome::Done);
    }
    let how = match &report.unit {
        Some(unit) => format!(" (unit {unit})"),
        None if !report.killed.is_empty() => format!(" ({} had to be killed)", report.killed.join(", ")),
        None => String::new(),
    };
    let what = if report.result == "stopped" {
        format!("the gateway is stopped{how}")
    } else {
        "no gateway of this installation runs".to_owned()
    };
    printer.ok(&what)?;
    if report.disabled {
        printer.ok("it is not started with the machine any more")?;
    }
    Ok(Outcome::Done)
}
