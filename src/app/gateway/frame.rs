//! What stays the same when a gateway starts anew: its lock, who is told of it, what it was asked to do.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::gateway::ask::Ask;
use crate::app::gateway::ask::Event;
use crate::app::gateway::ask::Phase;
use crate::app::gateway::config::Loader;
use crate::app::gateway::control::Desk;
use crate::app::gateway::control::QUEUE;
use crate::app::gateway::control::Standing;
use crate::app::gateway::locks::Locks;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::record;
use crate::app::gateway::record::Went;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::service::ServiceManager;
use crate::sys::signal::RestartSignals;

/// How long the last answer of a supervisor that ends has to be written.
const LAST_WORD: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Frame {
    pub(super) locks: Locks,
    pub(super) progress: mpsc::Sender<Progress>,
    pub(super) ready: watch::Sender<bool>,
    /// Reads the settings again.
    pub(super) loader: Loader,
    pub(super) manager: ServiceManager,
    pub(super) standing: watch::Sender<Standing>,
    /// Where restarts are asked for.
    pub(super) asks: mpsc::Receiver<Ask>,
    sender: mpsc::Sender<Ask>,
    /// The same by a signal; heard from the very beginning, because one that nobody hears ends the process.
    pub(super) signals: Option<RestartSignals>,
    /// The restart that is being done.
    pub(super) doing: Option<Doing>,
    /// Where its line is written; of the settings that it began with.
    log_dir: std::path::PathBuf,
}

/// A restart that is being done.
pub(super) struct Doing {
    pub(super) ask: Ask,
    began: Instant,
}

impl Frame {
    pub(super) fn new(
        locks: Locks,
        signals: Option<RestartSignals>,
        progress: mpsc::Sender<Progress>,
        loader: Loader,
        run_dir: &Path,
        log_dir: &Path,
        addresses: &Addresses,
    ) -> Self {
        let (sender, asks) = mpsc::channel(QUEUE);
        let manager = ServiceManager::of_environment();
        let standing = Standing {
            managed: manager.is_there(),
            phase: Phase::Starting,
            since: SystemClock.now().wall,
            processes: Vec::new(),
            addresses: addresses.clone(),
            admin: None,
            run_dir: run_dir.to_owned(),
            process_restarts: 0,
            envoy_restarts: 0,
            restarts: 0,
        };
        Self {
            locks,
            progress,
            ready: watch::channel(false).0,
            loader,
            manager,
            standing: watch::channel(standing).0,
            asks,
            sender,
            signals,
            doing: None,
            log_dir: log_dir.to_owned(),
        }
    }

    /// What the control socket needs.
    pub(super) fn desk(&self) -> Desk {
        Desk { asks: self.sender.clone(), standing: self.standing.subscribe(), progress: self.progress.clone() }
    }

    /// Says what is done from now on. While nothing is said about admin, the watchdog trusts.
    pub(super) fn begin(&self, phase: Phase) {
        // A hand-off takes nothing away.
        if !matches!(phase, Phase::Running | Phase::HandingOff) {
            self.ready.send_if_modified(|ready| std::mem::replace(ready, false));
        }
        let since = SystemClock.now().wall;
        self.standing.send_modify(|standing| {
            (standing.phase, standing.since) = (phase, since);
            if phase != Phase::Running {
                standing.admin = None;
            }
        });
        match phase {
            Phase::Running => self.manager.ready("running"),
            Phase::Starting | Phase::Draining | Phase::HandingOff => self.manager.status(phase.name()),
        }
    }

    /// Takes a restart on.
    pub(super) fn accept(&mut self, ask: Ask) {
        ask.tell(Event::Accepted { pid: std::process::id() });
        self.standing.send_modify(|standing| standing.restarts = standing.restarts.saturating_add(1));
        self.doing = Some(Doing { ask, began: Instant::now() });
    }

    /// Tells whoever asked for what is being done.
    pub(super) fn tell(&self, event: Event) {
        if let Some(doing) = &self.doing {
            doing.ask.tell(event);
        }
    }

    /// Writes down something that happened to what is being done.
    pub(super) fn note(&self, went: Went<'_>, took: Duration) {
        if let Some(Doing { ask, .. }) = &self.doing {
            record::restart(&self.log_dir, ask.restart.name(), &ask.by, went, took, SystemClock.now().wall);
        }
    }

    /// What was being done is over.
    pub(super) async fn settle(&mut self, went: Went<'_>) {
        let Some(took) = self.doing.as_ref().map(|doing| doing.began.elapsed()) else { return };
        self.note(went, took);
        self.tell(match went {
            Went::Healthy | Went::DrainTimeout => Event::Healthy { took_ms: millis(took) },
            Went::Failed(why) => Event::Failed { message: why.to_owned(), unchanged: false },
            Went::Kept(why) => Event::Failed { message: why.to_owned(), unchanged: true },
            Went::Stopped => {
                Event::Refused { code: "stopping".to_owned(), message: "the gateway was told to stop".to_owned() }
            }
        });
        self.doing = None;
        if matches!(went, Went::Failed(_) | Went::Stopped) {
            tokio::time::sleep(LAST_WORD).await;
        }
    }
}

/// As milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
