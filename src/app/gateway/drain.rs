//! The end of a gateway: Envoy finishes what is in flight, then authz, then admin.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::app::envoy_drain;
use crate::app::envoy_drain::Ports;
use crate::app::gateway::ask::Event;
use crate::app::gateway::ask::Phase;
use crate::app::gateway::bound::Stops;
use crate::app::gateway::child::Exit;
use crate::app::gateway::frame::millis;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::progress::Role;
use crate::app::gateway::record::Went;
use crate::app::gateway::supervisor::Lived;
use crate::app::gateway::supervisor::Supervisor;
use crate::envoy::launch;
use crate::sys::local_http::Endpoint;

/// How long a process has between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(10);

/// How long Envoy may take to say how many requests are about to be cut off.
const COUNT: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Drains and ends everything. A call meanwhile turns a restart into a stop, with the time a stop has; the next one forces it.
    /// Says whether it is a stop.
    pub(super) async fn drain(&mut self, stops: &mut Stops, lived: Lived) -> bool {
        let why = match lived {
            Lived::Over => Progress::Draining,
            Lived::Anew => Progress::Anew,
            Lived::Again => Progress::Again,
        };
        let _ = self.frame.progress.try_send(why);
        self.frame.begin(Phase::Draining);
        let mut stopping = lived == Lived::Over;
        let patience = match (&self.frame.doing, lived) {
            (Some(doing), Lived::Again) => doing.ask.restart.patience(self.config.drain),
            (Some(_) | None, _) => Some(self.config.drain),
        };
        if lived == Lived::Over {
            self.frame.manager.stopping("stopping: requests in flight are finished");
        }
        let raw = Endpoint::Unix(self.config.run_dir.join(launch::ADMIN_SOCKET));
        let serves = self.children.contains_key(&Role::Envoy);
        if serves && patience.is_none() {
            // Nobody waits for them, and whoever asked is told.
            let cut = envoy_drain::left(&raw, COUNT).await.unwrap_or_default();
            self.frame.tell(Event::Drained { took_ms: 0, cut });
        }
        if let (true, Some(mut patience)) = (serves, patience) {
            let started = Instant::now();
            let cut = loop {
                let seconds = (patience < Duration::MAX).then_some(patience.as_secs());
                self.frame.tell(Event::Draining { seconds });
                tokio::select! {
                    cut = envoy_drain::drain(&raw, Ports::Closed, Duration::ZERO, patience) => break cut.unwrap_or_default(),
                    () = stops.next(stopping) => {}
                }
                if stopping {
                    self.kill_all().await;
                    return true;
                }
                stopping = true;
                self.stop_instead();
                patience = self.config.drain;
            };
            let took = started.elapsed();
            self.frame.tell(Event::Drained { took_ms: millis(took), cut });
            if cut > 0 {
                self.frame.note(Went::DrainTimeout, took);
                let text = format!("{cut} requests were cut off after {} s (drain_timeout)", took.as_secs());
                let _ = self.frame.progress.try_send(Progress::Note(text));
            }
        }
        self.end(stops, stopping).await
    }

    /// What was to start anew ends.
    fn stop_instead(&self) {
        let _ = self.frame.progress.try_send(Progress::Draining);
        self.frame.manager.stopping("stopping: requests in flight are finished");
    }

    /// Ends everything without waiting for requests: Envoy first, so that nobody asks an authz that is gone. Says whether it is
    /// a stop: it was one before (`stopping`), or became one meanwhile. Who calls it then a second time forces it.
    pub(super) async fn end(&mut self, stops: &mut Stops, mut stopping: bool) -> bool {
        for role in [Role::Envoy, Role::Authz, Role::Admin] {
            let Some(running) = self.children.get(&role) else { continue };
            // One that is gone already is heard of below.
            running.signal(Signal::TERM);
            let deadline = Instant::now() + TERM_GRACE;
            let forced = loop {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => break false,
                    () = self.gone(role) => break false,
                    () = stops.next(stopping) => {}
                }
                if stopping {
                    break true;
                }
                stopping = true;
                self.stop_instead();
            };
            if forced {
                break;
            }
            if let Some(running) = self.children.get(&role) {
                running.signal(Signal::KILL);
            }
        }
        self.kill_all().await;
        stopping
    }

    /// Kills what is left and waits for it: a killed process always ends.
    async fn kill_all(&mut self) {
        let others = self.leaving.drain(..).chain(self.successor.take()).map(|(_, running)| running);
        // What is no child of ours any more dies with its watching task, below.
        for running in others {
            running.signal(Signal::KILL);
        }
        for running in self.children.values() {
            running.signal(Signal::KILL);
        }
        while !self.children.is_empty() {
            match self.exits.join_next().await {
                Some(Ok(exit)) => self.forget(&exit),
                Some(Err(_)) => {}
                None => break,
            }
        }
        // One whose start was broken off is known to its watching task alone, and dies with it.
        self.exits.shutdown().await;
    }

    /// Returns when one process is gone.
    async fn gone(&mut self, role: Role) {
        while self.children.contains_key(&role) {
            match self.exits.join_next().await {
                Some(Ok(exit)) => self.forget(&exit),
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    /// A process that ended plays no role any more.
    fn forget(&mut self, exit: &Exit) {
        if self.children.get(&exit.role).is_some_and(|running| running.process.pid == exit.pid) {
            self.children.remove(&exit.role);
        }
    }
}
