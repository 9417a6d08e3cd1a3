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
use crate::cli::gateway::lifecycle::Standing;
use crate::cli::gateway::lifecycle::State as UnitState;
use crate::cli::gateway::lifecycle::Systemctl;
use crate::cli::gateway::pair::foreground::MARKER;
use crate::cli::gateway::pair::foreground::READY;
use crate::cli::gateway::pair::lock;
use crate::cli::gateway::pair::note;
use crate::cli::gateway::pair::session;
use crate::cli::gateway::pair::session::Pairing;
use crate::cli::gateway::pid_file;
use crate::cli::gateway::place::Place;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::printer::tame;
use crate::config::Config;
use crate::config::keys;
use crate::sys::env;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::process::ProcessIdentity;
use crate::sys::supervision;
use crate::telemetry::segments;
use crate::wire::status::BridgeNote;

/// What its files in the run folder are called.
const NAME: &str = "gateway-pair-bridge";
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
    place: Place,
    log: PathBuf,
    pid: PathBuf,
    /// How it stands, where the gateway is on another machine.
    state: PathBuf,
    run_dir: PathBuf,
}

impl Background {
    /// In these files, or those of the gateway in the run folder. The log of a bridge with a pid file of its own is beside
    /// that: it is nobody else's either.
    pub(super) fn new(config: &Config, log: Option<PathBuf>, pid: Option<PathBuf>) -> Self {
        let place = Place::of(&config.paths.data_dir);
        let log = log.or_else(|| pid.as_deref().map(|pid| files::beside(pid, ".log")));
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let log = absolute(log.unwrap_or_else(|| place.file(NAME, "log")));
        let pid = absolute(pid.unwrap_or_else(|| place.file(NAME, "pid")));
        let (state, run_dir) = (files::beside(&pid, ".state"), config.paths.run_dir.clone());
        Self { place, log, state, pid, run_dir }
    }

    /// Where it says how it stands: the gateway may have been there, or not, when it began.
    fn notes(&self) -> impl Iterator<Item = PathBuf> {
        note::place(&self.run_dir, None).into_iter().chain([self.state.clone()])
    }

    /// Where the session is kept for the unit.
    fn session_file(&self) -> PathBuf {
        self.place.file("pair-session", "json")
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
        lock::check(pairing)?;
        let lifecycle = Lifecycle::resolve(mode).await?;
        self.notes().for_each(|path| note::forget(&path));
        match lifecycle {
            Lifecycle::Compat => self.start_process(pairing, printer).await,
            Lifecycle::Stable(systemctl) => self.start_unit(&systemctl, pairing, printer).await,
        }
    }

    async fn start_process(&self, pairing: &Pairing, printer: &mut Printer) -> Result<Outcome, CliError> {
        let log = fresh_log(&self.log).map_err(|error| at(&self.log, &error))?;
        let mut arguments = pairing.arguments();
        // Whoever knows id and namespace of a session can try codes; every process of this machine can read arguments.
        arguments.extend(["--session-file", "-"].map(str::to_owned));
        arguments.extend(["--state-file".to_owned(), self.state.display().to_string()]);
        arguments.extend(["--log-file".to_owned(), self.log.display().to_string()]);
        let failed = |error: io::Error| CliError::new(Outcome::Failed, format!("the bridge was not started: {error}"));
        let mut command = supervision::detached(&arguments, &log).map_err(failed)?;
        let written = session::written(pairing).map_err(failed)?;
        command.stdin(Stdio::piped());
        unneeded_secrets().for_each(|name| {
            command.env_remove(name);
        });
        let mut child = command.spawn().map_err(failed)?;
        let process = i32::try_from(child.id()).ok().and_then(ProcessIdentity::of);
        if let Some(process) = &process {
            pid_file::write(&self.pid, process).map_err(|error| at(&self.pid, &error))?;
        }
        // The end of its standard input is the end of the session. One that ended already says why in its log.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(&written);
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
        self.show_files(&self.log, printer)?;
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
        let name = &self.place.unit(Kind::Pair);
        let does = match systemctl.standing(name).await?.state {
            UnitState::Active => Some("running"),
            UnitState::Starting => Some("starting"),
            UnitState::Inactive => None,
        };
        if let Some(does) = does {
            let message = format!("a gateway pair bridge is {does} already (systemd unit={name})");
            return Err(CliError::new(Outcome::Failed, message).hint("sigilum gateway pair --stop"));
        }
        let file = self.session_file();
        files::private_folder(files::folder_of(&file)).map_err(|error| at(&file, &error))?;
        session::keep(pairing, &file).map_err(|error| at(&file, &error))?;
        lifecycle::warn_of_secrets(&lifecycle::ADMIN_SECRETS, printer);
        let mut arguments = pairing.arguments();
        arguments.extend(["--session-file".to_owned(), file.display().to_string()]);
        arguments.extend(["--state-file".to_owned(), self.state.display().to_string()]);
        let (program, environment) = (lifecycle::program()?, lifecycle::environment());
        let unit = Unit {
            kind: Kind::Pair,
            drain_seconds: 0,
            suffix: self.place.suffix(),
            scope: Scope::User,
            program: &program,
            arguments: &arguments,
            reload: &[],
            environment: &environment,
        };
        let standing = systemctl.start(&unit).await?;
        if standing.state != UnitState::Active {
            printer.note(&format!("The systemd unit {name} is not running (exit code {}).", standing.exit_status));
            if standing.state == UnitState::Starting {
                printer.note("systemd starts it again until `sigilum gateway pair --stop`.");
            }
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
        let name = &self.place.unit(Kind::Pair);
        let systemctl = if mode == LifecycleMode::Compat { None } else { Systemctl::find().await };
        let standing = match &systemctl {
            Some(systemctl) => systemctl.standing(name).await?,
            None => Standing::default(),
        };
        let state = self.notes().find_map(|path| note::read(&path));
        let of = |pid: i32| state.as_ref().filter(|state| state.pid == pid);
        match standing.state {
            UnitState::Active => {
                printer
                    .line(&format!("Gateway pair bridge is running (systemd unit={name}, pid={}).", standing.pid))?;
                show_state(of(standing.pid), printer)?;
                printer.line(&format!("logs:     journalctl --user -u {name}"))?;
                return Ok(Outcome::Done);
            }
            UnitState::Starting => {
                let last = standing.exit_status;
                printer
                    .line(&format!("Gateway pair bridge starts again (systemd unit={name}, last exit code {last})."))?;
                show_state(state.as_ref(), printer)?;
                printer.line(&format!("logs:     journalctl --user -u {name}"))?;
                return Ok(Outcome::Failed);
            }
            UnitState::Inactive => {}
        }
        if let Some(running) = pid_file::living(&self.pid)? {
            printer.line(&format!("Gateway pair bridge is running (pid={}).", running.pid))?;
            let state = of(running.pid);
            show_state(state, printer)?;
            let log = state.and_then(|state| state.log.as_deref()).map_or(self.log.as_path(), Path::new);
            self.show_files(log, printer)?;
            return Ok(Outcome::Done);
        }
        // Where systemd looks after it, the log is of some bridge before it did.
        let over =
            standing.exit_status == i32::from(Outcome::Over.code()) || (systemctl.is_none() && self.says(MARKER));
        match state.and_then(|state| state.ended) {
            Some(why) => printer.note(&format!("Gateway pair bridge is not running: {why}.")),
            None if over => printer.note(
                "Gateway pair bridge is not running: its pairing session has expired or is not known any more. Start \
                 another pairing in the dashboard and run its command.",
            ),
            None => printer.line("Gateway pair bridge is not running.")?,
        }
        Ok(Outcome::Failed)
    }

    /// Stops what runs or is about to. `false`: nothing did, which is no failure and is not said here.
    pub(super) async fn stop(&self, printer: &mut Printer) -> Result<bool, CliError> {
        // A file that is refused is refused before anything is stopped.
        let running = pid_file::living(&self.pid)?;
        let name = &self.place.unit(Kind::Pair);
        let (mut stopped, mut still_there) = (false, false);
        if let Some(systemctl) = Systemctl::find().await {
            match systemctl.stop(name).await {
                Ok(true) => {
                    printer.line(&format!("Stopped gateway pair bridge systemd unit ({name})."))?;
                    stopped = true;
                }
                Ok(false) => {}
                Err(error) => {
                    printer.error(&error);
                    still_there = true;
                }
            }
        }
        if let Some(running) = running {
            if end(&running).await {
                printer.line(&format!("Stopped gateway pair bridge (pid={}).", running.pid))?;
                stopped = true;
            } else {
                printer.warn(&format!("the gateway pair bridge (pid={}) does not end", running.pid));
                return Ok(true);
            }
        }
        pid_file::forget(&self.pid);
        let file = self.session_file();
        if still_there {
            printer.warn(&format!(
                "whether the unit {name} has stopped is not known; its session stays in {}, the pair code with it",
                file.display()
            ));
            return Ok(true);
        }
        self.notes().for_each(|path| note::forget(&path));
        if let Err(error) = session::forget(&file) {
            printer.warn(&format!("{}: {error}; the pair code is in it", file.display()));
        }
        Ok(stopped)
    }

    fn show_files(&self, log: &Path, printer: &mut Printer) -> Result<(), CliError> {
        printer.line(&format!("pid_file: {}", self.pid.display()))?;
        printer.line(&format!("log_file: {}", log.display()))
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

/// Variables with secrets that a bridge has no use for, and that would stand in its environment as long as it lives. It opens
/// the admin API and nothing else.
fn unneeded_secrets() -> impl Iterator<Item = String> {
    let of_owner = [owner::JWT_SECRET, owner::OWNER_TOKEN];
    let opens = |name: &str| {
        let keys = [&keys::ADMIN_TOKEN, &keys::ADMIN_PASSWORD];
        keys.iter().any(|key| key.env.contains(&name))
    };
    let own = keys::SECRET_ENVIRONMENT.iter().copied().filter(move |name| !opens(name));
    own.chain(of_owner).map(str::to_owned).chain(env::names_with(&[keys::SERVICE_KEY_PREFIX]))
}

/// What a bridge says of itself, where it said anything.
fn show_state(state: Option<&BridgeNote>, printer: &mut Printer) -> Result<(), CliError> {
    let Some(state) = state else { return Ok(()) };
    printer.line(&format!("session:  {}", state.session_id))?;
    printer.line(&format!("api:      {}", state.api_url))?;
    let trouble = state.trouble.as_deref().map(|why| format!(": {}", tame(why))).unwrap_or_default();
    printer.line(&if state.state == "connected" {
        "state:    connected".to_owned()
    } else {
        format!("state:    not connected{trouble}")
    })
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
/// this bridge. Older ones go.
pub(in crate::cli::gateway) fn fresh_log(path: &Path) -> io::Result<File> {
    if path.exists() {
        segments::put_aside(path, &[])?;
        segments::keep_newest(path, 1)?;
    }
    files::create_new_log(path)
}

fn at(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Outcome::Failed, format!("{}: {error}", path.display()))
}
