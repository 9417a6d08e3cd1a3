//! `gateway start --force`: the gateway that runs is stopped, where it is ours beyond doubt.

use crate::app::down;
use crate::app::down::Stopped;
use crate::app::gateway::ask::Command;
use crate::app::gateway::ask::Event;
use crate::app::gateway::command::CommandError;
use crate::app::gateway::command::Conversation;
use crate::cli::confirm;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::config::Config;
use crate::sys::terminal;

/// Stops the gateway of this installation, which is known by its process id, its start time and the socket that this very
/// process answers on. Whoever else listens where we would is named by the start, and left alone.
pub(super) async fn running(config: &Config, yes: bool, printer: &mut Printer) -> Result<(), CliError> {
    let refused = |message: String| CliError::new(Outcome::Config, message);
    let mut conversation = match Conversation::begin(&config.paths.run_dir, Command::Status).await {
        Ok(conversation) => conversation,
        Err(CommandError::NotRunning) => return Ok(()),
        Err(error) => {
            return Err(refused(format!("what runs is not known to be ours, and is left alone: {error}"))
                .hint(format!("`{}` stops what this installation started", profile::command("down"))));
        }
    };
    let pid = conversation.instance().supervisor.pid;
    let answer = conversation.next().await.map_err(|error| refused(error.to_string()))?;
    let Some(Event::Status(status)) = answer else {
        return Err(refused(format!("the gateway (pid {pid}) does not say how it stands")));
    };
    if status.managed {
        return Err(refused(format!(
            "the gateway (pid {pid}) is run by a service manager, which would start it again"
        ))
        .hint(format!(
            "`{}` stops it, `{}` restarts it",
            profile::command("gateway stop"),
            profile::command("gateway restart")
        )));
    }
    if !yes {
        if !terminal::is_attended() {
            return Err(refused(format!(
                "the gateway (pid {pid}) runs, and nobody is at a terminal who could be asked"
            ))
            .hint("give --yes"));
        }
        if !confirm::ask(&format!("Stop the gateway that runs (pid {pid}) and take its place?"), printer)? {
            return Err(refused("nothing was stopped".to_owned()));
        }
    }
    let stopped = down::run(&config.paths.run_dir, config.drain)
        .await
        .map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    match stopped {
        Stopped::NothingRan => {}
        Stopped::Gracefully => printer.note(&format!("stopped the gateway that ran (pid {pid})")),
        Stopped::Killed(names) => {
            printer.note(&format!("stopped the gateway that ran (pid {pid}); {} had to be killed", names.join(", ")));
        }
    }
    Ok(())
}
