//! One process of a gateway: how it is started, told things, and how its end is heard of.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::app::admin::STATE_SOCKET;
use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::config::LAST_GOOD_FILE;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::logs::Log;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::progress::Role;
use crate::domain::secret::Secret;
use crate::envoy::binary::EnvoyBinary;
use crate::envoy::launch;
#[cfg(doc)]
use crate::envoy::live;
use crate::sys::process;
use crate::sys::process::HeldChild;
use crate::sys::process::ProcessIdentity;
use crate::sys::spawner::Spawner;
use crate::sys::supervision;

/// How long the last words of a process may take to arrive after its end: something it started itself
/// may hold the other end of the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a line to a child may take; the pipe holds far more than all lines together.
const TELL: Duration = Duration::from_secs(2);

/// How admin's allocator is set (glibc; others do not read it): one heap for all threads, and large pieces given back at
/// once. Nobody waits for admin, and a list of approvals read page by page by changing threads would leave holes in the
/// heap of each, in all more than the list itself.
const ADMIN_MEMORY: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// How often it is looked who a new process is, and the time between.
const IDENTITY_TRIES: usize = 10;
const IDENTITY_LOOK: Duration = Duration::from_millis(1);

/// The command line and environment of one process.
pub(super) struct Plan {
    role: Role,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: PathBuf,
    supervised: bool,
}

/// A started process.
pub(super) struct Running {
    /// Who it is.
    pub(super) process: ProcessIdentity,
    /// `None`: it had ended before it could be held.
    held: Option<HeldChild>,
    stdin: Option<ChildStdin>,
}

/// A process that ended.
#[derive(Debug)]
pub(super) struct Exit {
    /// Which.
    pub(super) role: Role,
    /// Its process id.
    pub(super) pid: i32,
    /// How; `None` where the system did not say.
    pub(super) status: Option<ExitStatus>,
}

impl Exit {
    /// Whether it is admin that asks for a start anew.
    pub(super) fn asks_for_anew(&self) -> bool {
        let code = self.status.and_then(|status| status.code());
        self.role == Role::Admin && code == Some(i32::from(supervision::EXIT_ANEW))
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match self.status {
            Some(status) => status.to_string(),
            None => "unknown".to_owned(),
        }
    }
}

/// This very program, or the one that is set. Where its file was replaced since we started, the one that still runs.
fn program(config: &GatewayConfig) -> PathBuf {
    if let Some(program) = &config.program {
        return program.clone();
    }
    process::own_program()
}

impl Plan {
    /// The store and the admin API. It reads the settings as we did, so that it sees what a change of the file changes;
    /// where the ports really are stands in the run folder ([`live::settings_in`]).
    pub(super) fn admin(config: &GatewayConfig) -> Self {
        let mut arguments = vec!["gateway".to_owned(), "admin".to_owned(), "--supervised".to_owned()];
        arguments.extend(config.typed.iter().cloned());
        let folders = [("--data-dir", &config.data_dir), ("--run-dir", &config.run_dir), ("--home", &config.home)];
        for (flag, folder) in folders {
            arguments.extend([flag.to_owned(), folder.display().to_string()]);
        }
        if let Some(file) = &config.config_file {
            arguments.extend(["--config".to_owned(), file.display().to_string()]);
        }
        if let Some(why) = &config.held_back {
            let last_good = config.run_dir.join(LAST_GOOD_FILE).display().to_string();
            arguments.extend(["--last-good".to_owned(), last_good, "--held-back".to_owned(), why.clone()]);
        }
        let mut environment = config.admin_environment.clone();
        environment.extend(ADMIN_MEMORY.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Self {
            role: Role::Admin,
            program: program(config),
            arguments,
            environment,
            folder: config.run_dir.clone(),
            supervised: true,
        }
    }

    /// The decision.
    pub(super) fn authz(config: &GatewayConfig) -> Self {
        let run_dir = config.run_dir.clone();
        let unix = |name: &str| format!("unix:{}", run_dir.join(name).display());
        let arguments = [
            "gateway".to_owned(),
            "authz".to_owned(),
            "--supervised".to_owned(),
            "--listen".to_owned(),
            unix(launch::AUTHZ_SOCKET),
            "--state".to_owned(),
            unix(STATE_SOCKET),
            "--run-dir".to_owned(),
            run_dir.display().to_string(),
        ];
        Self {
            role: Role::Authz,
            program: program(config),
            arguments: arguments.to_vec(),
            environment: config.environment.clone(),
            folder: run_dir,
            supervised: true,
        }
    }

    /// The same for one that takes the place of another.
    pub(super) fn taking_over(mut self) -> Self {
        self.arguments.push("--take-over".to_owned());
        self
    }

    /// The data plane, through our own program: it ties Envoy's life to ours and becomes Envoy.
    pub(super) fn envoy(config: &GatewayConfig, envoy: &EnvoyBinary) -> Self {
        let mut arguments = vec![supervision::EXEC_ENVOY.to_owned(), std::process::id().to_string()];
        arguments.push(envoy.path.display().to_string());
        arguments.extend(launch::arguments(config.concurrency));
        Self {
            role: Role::Envoy,
            program: program(config),
            arguments,
            environment: Vec::new(),
            folder: config.run_dir.clone(),
            supervised: false,
        }
    }

    /// Starts it. Its end arrives in `exits`, what it says in `log`.
    pub(super) async fn start(
        self,
        spawner: &Spawner,
        log: &Log,
        exits: &mut JoinSet<Exit>,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Running, GatewayError> {
        let role = self.role;
        let mut command = Command::new(&self.program);
        command
            .arg0("sigilum")
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment)
            .current_dir(&self.folder)
            // A group of its own: Ctrl-C in the terminal reaches the supervisor alone, which drains.
            .process_group(0)
            .stdin(if self.supervised { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let failed = |source| GatewayError::Spawn { role, source };
        let mut child = spawner.spawn(command).await.map_err(failed)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let held = HeldChild::of(pid).ok();
        let process = identity(pid).await;
        let stdin = child.stdin.take();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (log, progress) = (log.clone(), progress.clone());
        exits.spawn(async move {
            let words = async {
                let out = async {
                    if let Some(stream) = out {
                        log.clone().follow(role, stream, progress.clone()).await;
                    }
                };
                let err = async {
                    if let Some(stream) = err {
                        log.clone().follow(role, stream, progress.clone()).await;
                    }
                };
                tokio::join!(out, err)
            };
            tokio::pin!(words);
            let status = tokio::select! {
                status = child.wait() => {
                    let _ = tokio::time::timeout(LAST_WORDS, &mut words).await;
                    status
                }
                // It closed its outputs and lives on.
                _ = &mut words => child.wait().await,
            };
            Exit { role, pid, status: status.ok() }
        });
        Ok(Running { process, held, stdin })
    }
}

/// Who a child is that has just been started. A new process is hidden from us for an instant where `/proc` shows a user only
/// what leaves a core dump, as we do not (`hidepid`). One that is gone already has no start time; its exit is on its way.
async fn identity(pid: i32) -> ProcessIdentity {
    for _ in 0..IDENTITY_TRIES {
        match ProcessIdentity::of(pid) {
            Some(found) => return found,
            None => tokio::time::sleep(IDENTITY_LOOK).await,
        }
    }
    ProcessIdentity { pid, started: "never".to_owned() }
}

impl Running {
    /// Sends it a signal, where it still runs. That it is gone meanwhile is heard elsewhere.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(held) = &self.held {
            let _ = held.signal(signal);
        }
    }

    /// Hands over the secrets and ends them. That the child is gone meanwhile is heard elsewhere.
    pub(super) async fn tell_secrets(&mut self, secrets: &[(String, Secret)]) {
        for (name, secret) in secrets {
            self.tell(supervision::secret_line(name, secret).as_bytes()).await;
        }
        self.tell(supervision::GO.as_bytes()).await;
    }

    /// Names the process that may connect to this one, and the one that is about to take its place.
    pub(super) async fn tell_peer(&mut self, peer: &ProcessIdentity, successor: Option<&ProcessIdentity>) {
        self.tell(supervision::peer_line(peer.pid, successor.map(|successor| successor.pid)).as_bytes()).await;
    }

    /// Says that a successor stands ready.
    pub(super) async fn tell_leave(&mut self) {
        self.tell(supervision::LEAVE.as_bytes()).await;
    }

    async fn tell(&mut self, line: &[u8]) {
        let Some(stdin) = &mut self.stdin else { return };
        let told = tokio::time::timeout(TELL, stdin.write_all(line)).await;
        if !matches!(told, Ok(Ok(()))) {
            // Half a line would be misread: nothing more is said, and the end of the pipe ends the child.
            self.stdin = None;
        }
    }
}
