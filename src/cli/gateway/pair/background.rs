//! The bridge in the background: started, looked for, stopped.

use std::fs::File;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::app::gateway::instance;
use crate::app::systemd::Kind;
use crate::app::systemd::Scope;
use crate::app::systemd::Unit;
use crate::cli::gateway::lifecycle;
use crate::cli::gateway::lifecycle::Lifecycle;
use crate::cli::gateway::lifecycle::LifecycleMode;
use crate::cli::gateway::lifecycle::Systemctl;
use crate::cli::gateway::pair::foreground::MARKER;
use crate::cli::gateway::pair::foreground::READY;
use crate::cli::gateway::pair::session;
use crate::cli::gateway::pair::session::CODE_VARIABLE;
use crate::cli::gateway::pair::session::Pairing;
use crate::cli::gateway::pid_file;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::process::ProcessIdentity;
use crate::sys::supervision;

/// How long a bridge that was started is watched: until it is connected or has ended, if that is sooner.
const WATCH: Duration = Duration::from_secs(5);
/// How often.
const LOOK: Duration = Duration::from_millis(50);
/// How long one that is told to stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a killed one may still be seen.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// Most of a log that is read.
const MAX_LOG: u64 = 16 * 1024 * 1024;
/// Lines of the log that are shown where it did not start.
const LAST_LINES: usize = 5;

/// Where a bridge in the background is written down.
pub(super) struct Background {
    log: PathBuf,
    pid: PathBuf,
}

impl Background {
    /// In these files, or those of the run folder.
    pub(super) fn new(log: Option<PathBuf>, pid: Option<PathBuf>) -> Self {
        let place = |given: Option<PathBuf>, name: &str| {
            let path = given.unwrap_or_else(|| settings::background_folder().join(name));
            std::path::absolute(&path).unwrap_or(path)
        };
        Self { log: place(log, "gateway-pair-bridge.log"), pid: place(pid, "gateway-pair-bridge.pid") }
    }

    /// Starts one, unless one runs.
    pub(super) async fn start(
        &self,
        pairing: &Pairing,
        mode: LifecycleMode,
        printer: &mut Printer,
    ) -> Result<Outcome, CliError> {
        files::private_folder(files::folder_of(&self.log)).map_err(|error| at(&self.log, &error))?;
        let folder = files::folder_of(&self.pid);
        files::own_folder(folder).map_err(|error| at(folder, &error))?;
        // Held until this command ends: of two that start at once, one starts.
        let lock = files::beside(&self.pid, ".lock");
        let _lock = FileLock::take(&lock, &format!("pid {} (gateway pair --daemon)", std::process::id()))
            .map_err(|error| CliError::new(Outcome::Failed, format!("another start is under way: {error}")))?;
        if let Some(running) = pid_file::living(&self.pid)? {
            return Err(CliError::new(
                Outcome::Failed,
                format!("a gateway pair bridge is running already (pid={})", running.pid),
            )
            .hint("sigilum gateway pair --stop"));
        }
        match Lifecycle::resolve(mode).await? {
            Lifecycle::Compat => self.start_process(pairing, printer).await,
            Lifecycle::Stable(systemctl) => self.start_unit(&systemctl, pairing, printer).await,
        }
    }

    async fn start_process(&self, pairing: &Pairing, printer: &mut Printer) -> Result<Outcome, CliError> {
        let log = fresh_log(&self.log).map_err(|error| at(&self.log, &error))?;
        let mut arguments = pairing.arguments();
        for (name, value) in [
            ("--session-id", pairing.session.as_str()),
            ("--namespace", pairing.namespace.as_str()),
            ("--api-url", pairing.api_url.as_str()),
            ("--pair-code-file", "-"),
        ] {
            arguments.extend([name.to_owned(), value.to_owned()]);
        }
        let failed = |error: io::Error| CliError::new(Outcome::Failed, format!("the bridge was not started: {error}"));
        let mut command = supervision::detached(&arguments, &log).map_err(failed)?;
        let mut child = command.stdin(Stdio::piped()).env_remove(CODE_VARIABLE).spawn().map_err(failed)?;
        let process = i32::try_from(child.id()).ok().and_then(ProcessIdentity::of);
        if let Some(process) = &process {
            pid_file::write(&self.pid, process).map_err(|error| at(&self.pid, &error))?;
        }
        // The end of its standard input is the end of the code. One that ended already says why in its log.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(pairing.code.expose().as_bytes());
        }
        if let Some(ended) = self.watch(&mut child).await.map_err(failed)? {
            pid_file::forget(&self.pid);
            return Ok(self.ended(ended, printer));
        }
        printer.line("Gateway pair bridge started in background.")?;
        if !self.says(READY) {
            printer.note("[i] it is not connected yet; its log says why");
        }
        printer.line(&format!("pid:      {}", child.id()))?;
        self.show_files(printer)?;
        Ok(Outcome::Done)
    }

    /// How it ended, where it did.
    async fn watch(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let work = async {
            loop {
                if let Some(status) = child.try_wait()? {
                    return Ok(Some(status));
                }
                if self.says(READY) {
                    return Ok(None);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(WATCH, work).await.unwrap_or(Ok(None))
    }

    fn ended(&self, status: ExitStatus, printer: &mut Printer) -> Outcome {
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
            printer.note(line);
        }
        printer.note(&format!("The gateway pair bridge did not start ({status}); log: {}", self.log.display()));
        if status.code() == Some(i32::from(Outcome::Over.code())) || text.contains(MARKER) {
            Outcome::Over
        } else {
            Outcome::Failed
        }
    }

    async fn start_unit(
        &self,
        systemctl: &Systemctl,
        pairing: &Pairing,
        printer: &mut Printer,
    ) -> Result<Outcome, CliError> {
        let name = Kind::Pair.unit();
        if systemctl.standing(name).await.active {
            return Err(CliError::new(
                Outcome::Failed,
                format!("a gateway pair bridge is running already (systemd unit={name})"),
            )
            .hint("sigilum gateway pair --stop"));
        }
        let file = session::file();
        files::private_folder(files::folder_of(&file)).map_err(|error| at(&file, &error))?;
        session::keep(pairing).map_err(|error| at(&file, &error))?;
        let mut arguments = pairing.arguments();
        arguments.extend(["--session-file".to_owned(), file.display().to_string()]);
        let (program, environment) = (lifecycle::program()?, lifecycle::environment());
        let unit = Unit {
            kind: Kind::Pair,
            scope: Scope::User,
            program: &program,
            arguments: &arguments,
            reload: &[],
            environment: &environment,
        };
        let standing = systemctl.start(&unit).await?;
        if !standing.active {
            printer.note(&format!("The systemd unit {name} is not running (exit code {}).", standing.exit_status));
            printer.note(&format!("logs: journalctl --user -u {name}"));
            let over = standing.exit_status == i32::from(Outcome::Over.code());
            return Ok(if over { Outcome::Over } else { Outcome::Failed });
        }
        printer.line("Gateway pair bridge started as systemd user service.")?;
        printer.line(&format!("unit:     {name}"))?;
        printer.line(&format!("pid:      {}", standing.pid))?;
        printer.line(&format!("logs:     journalctl --user -u {name}"))?;
        Ok(Outcome::Done)
    }

    /// Says whether one runs; exit code 1 where none does.
    pub(super) async fn status(&self, mode: LifecycleMode, printer: &mut Printer) -> Result<Outcome, CliError> {
        let name = Kind::Pair.unit();
        let systemctl = if mode == LifecycleMode::Compat { None } else { Systemctl::find().await };
        let standing = match &systemctl {
            Some(systemctl) => systemctl.standing(name).await,
            None => lifecycle::Standing::default(),
        };
        if standing.active {
            printer.line(&format!("Gateway pair bridge is running (systemd unit={name}, pid={}).", standing.pid))?;
            printer.line(&format!("logs:     journalctl --user -u {name}"))?;
            return Ok(Outcome::Done);
        }
        if let Some(running) = pid_file::living(&self.pid)? {
            printer.line(&format!("Gateway pair bridge is running (pid={}).", running.pid))?;
            self.show_files(printer)?;
            return Ok(Outcome::Done);
        }
        if standing.exit_status == i32::from(Outcome::Over.code()) || self.says(MARKER) {
            printer.note(
                "Gateway pair bridge is not running: its pairing session has expired or is not known any more. Start \
                 another pairing in the dashboard and run its command.",
            );
        } else {
            printer.line("Gateway pair bridge is not running.")?;
        }
        Ok(Outcome::Failed)
    }

    /// Stops what runs. That nothing does is no failure.
    pub(super) async fn stop(&self, printer: &mut Printer) -> Result<Outcome, CliError> {
        // A file that is refused is refused before anything is stopped.
        let running = pid_file::living(&self.pid)?;
        let name = Kind::Pair.unit();
        let mut stopped = false;
        if let Some(systemctl) = Systemctl::find().await
            && systemctl.standing(name).await.active
        {
            match systemctl.stop(name).await {
                Ok(()) => {
                    printer.line(&format!("Stopped gateway pair bridge systemd unit ({name})."))?;
                    stopped = true;
                }
                Err(error) => printer.error(&error),
            }
        }
        if let Some(running) = running {
            if end(&running).await {
                printer.line(&format!("Stopped gateway pair bridge (pid={}).", running.pid))?;
            } else {
                printer.warn(&format!("the gateway pair bridge (pid={}) does not end", running.pid));
                return Ok(Outcome::Done);
            }
            stopped = true;
        }
        pid_file::forget(&self.pid);
        let file = session::file();
        if let Err(error) = session::forget(&file) {
            printer.warn(&format!("{}: {error}; the pair code is in it", file.display()));
        }
        if !stopped {
            printer.line("Gateway pair bridge is not running.")?;
        }
        Ok(Outcome::Done)
    }

    fn show_files(&self, printer: &mut Printer) -> Result<(), CliError> {
        printer.line(&format!("pid_file: {}", self.pid.display()))?;
        printer.line(&format!("log_file: {}", self.log.display()))
    }

    fn says(&self, text: &str) -> bool {
        self.log_text().contains(text)
    }

    fn log_text(&self) -> String {
        // Without a log, nothing was said.
        files::read_bytes(&self.log, MAX_LOG)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

/// Asks a process to end, and kills one that does not. `false`: it still runs.
async fn end(process: &ProcessIdentity) -> bool {
    for (signal, patience) in [(Signal::TERM, STOP_PATIENCE), (Signal::KILL, KILL_GRACE)] {
        if process.signal(signal).is_err() {
            return false;
        }
        if instance::wait_for_end(&[process], patience).await {
            return true;
        }
    }
    false
}

/// A new log, mode 0600; the one before is kept under another name, so that what is looked for in this one was said by
/// this bridge.
pub(in crate::cli::gateway) fn fresh_log(path: &Path) -> io::Result<File> {
    match std::fs::rename(path, files::beside(path, ".1")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    files::create_new_private(path)
}

fn at(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Outcome::Failed, format!("{}: {error}", path.display()))
}
