//! A restart that nobody notices: each process is replaced while requests go on.
//!
//! First `authz`: its successor takes the state and the journal beside it, listens under a name of its own, and gets the
//! name `authz.sock` when it stands ready. Only then is the old one told to leave; Envoy, told to go, asks under the same
//! name. Then `admin`, which no request needs. Each step earns the next; where a successor does not get ready, what was
//! there stays.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::admin::health_watch::AUTHZ_HEALTHY;
use crate::app::authz::NEXT;
use crate::app::gateway::ask::Event;
use crate::app::gateway::ask::Phase;
use crate::app::gateway::child::Exit;
use crate::app::gateway::child::Plan;
use crate::app::gateway::child::Running;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::frame::millis;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::progress::Role;
use crate::app::gateway::supervisor::Supervisor;
use crate::app::gateway::supervisor::well;
use crate::envoy::launch;
use crate::sys::files;
use crate::sys::local_http::Endpoint;

/// How long a successor may take to stand ready, and to answer.
const READY: Duration = Duration::from_secs(60);
/// How long the authz before may take to leave: it finishes checks, which take milliseconds, and registrations, which take
/// less than half a second. Requests wait for the lock it holds.
const LEAVE_AUTHZ: Duration = Duration::from_secs(2);
/// The same for admin, for which nobody waits.
const LEAVE_ADMIN: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Why a hand-off did not come about.
#[derive(Debug)]
pub(super) enum Kept {
    /// What was there goes on as it did.
    Unchanged(String),
    /// Something was replaced, or has ended; what ended is started again as always.
    Changed(String),
    /// Admin has found settings with which everything is to start anew.
    Anew,
    /// It cannot go on at all.
    Over(GatewayError),
}

impl From<GatewayError> for Kept {
    fn from(error: GatewayError) -> Self {
        Self::Over(error)
    }
}

impl Supervisor {
    /// Replaces authz, then admin.
    pub(super) async fn hand_off(&mut self) -> Result<(), Kept> {
        if let Some(role) =
            [Role::Admin, Role::Authz, Role::Envoy].into_iter().find(|role| !self.children.contains_key(role))
        {
            return Err(Kept::Unchanged(format!("{} does not run; it is being started again", role.name())));
        }
        self.frame.begin(Phase::HandingOff);
        let _ = self.frame.progress.try_send(Progress::HandingOff);
        let done = async {
            self.replace_authz().await?;
            self.replace_admin().await
        };
        let done = done.await;
        self.give_up_successor().await;
        done
    }

    async fn replace_authz(&mut self) -> Result<(), Kept> {
        let began = Instant::now();
        let place = self.config.run_dir.join(launch::AUTHZ_SOCKET);
        let next = files::beside(&place, NEXT);
        // What an attempt before left would be taken for a successor that stands ready.
        let _ = std::fs::remove_file(&next);
        let pid = self.begin_successor(Role::Authz, Plan::authz(&self.config).taking_over()).await?;
        self.until_it_stands(&next).await?;
        // From here on connections come to the successor, and wait.
        if let Err(error) = std::fs::rename(&next, &place) {
            self.give_up_successor().await;
            return Err(Kept::Unchanged(format!("{}: {error}", place.display())));
        }
        if let Some(old) = self.promote(Role::Authz) {
            self.leave(old).await?;
        }
        if let (Some(authz), Some(admin)) = (self.process_of(Role::Authz), self.children.get_mut(&Role::Admin)) {
            admin.tell_peer(&authz, None).await;
        }
        let api = self.api();
        self.until_it_answers(&api, "/health/startup").await?;
        let raw = Endpoint::Unix(self.config.run_dir.join(launch::ADMIN_SOCKET));
        self.until_it_answers(&raw, AUTHZ_HEALTHY).await?;
        self.replaced(Role::Authz, pid, began);
        Ok(())
    }

    /// Admin has its store for itself: the one before ends first. No request needs it.
    async fn replace_admin(&mut self) -> Result<(), Kept> {
        let began = Instant::now();
        if let Some(old) = self.children.remove(&Role::Admin) {
            old.signal(Signal::TERM);
            self.leaving.push((Role::Admin, old));
            self.until_they_left(LEAVE_ADMIN).await?;
        }
        self.start(Role::Admin).await?;
        let api = self.api();
        self.until_it_answers(&api, "/health/live").await?;
        self.until_it_answers(&api, "/health/startup").await?;
        let pid = self.process_of(Role::Admin).map_or(0, |admin| admin.pid);
        self.replaced(Role::Admin, pid, began);
        Ok(())
    }

    /// Starts a process beside the one whose place it is to take, and has it known to its host.
    async fn begin_successor(&mut self, role: Role, plan: Plan) -> Result<i32, Kept> {
        let mut running = self.launch(role, plan).await.map_err(|error| Kept::Unchanged(error.to_string()))?;
        running.tell_secrets(&[]).await;
        if let Some(envoy) = self.process_of(Role::Envoy) {
            running.tell_peer(&envoy, None).await;
        }
        let pid = running.process.pid;
        if let (Some(before), Some(admin)) = (self.process_of(role), self.children.get_mut(&Role::Admin)) {
            admin.tell_peer(&before, Some(&running.process)).await;
        }
        self.successor = Some((role, running));
        Ok(pid)
    }

    /// Waits for the socket a successor makes when it has everything it needs.
    async fn until_it_stands(&mut self, next: &Path) -> Result<(), Kept> {
        let started = Instant::now();
        while !next.exists() {
            if let Some(exit) = self.reap()? {
                return Err(Kept::Unchanged(format!("the successor of {} ended ({})", exit.role.name(), exit.words())));
            }
            if started.elapsed() > READY {
                self.give_up_successor().await;
                return Err(Kept::Unchanged(format!("no successor stands ready after {} s", READY.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Gives the successor its role; the process before, which is to be told.
    fn promote(&mut self, role: Role) -> Option<Running> {
        let (_, running) = self.successor.take()?;
        let old = self.children.insert(role, running);
        self.write_instance();
        old
    }

    /// Tells the authz before to leave, and waits until it has.
    async fn leave(&mut self, mut old: Running) -> Result<(), Kept> {
        old.tell_leave().await;
        self.leaving.push((Role::Authz, old));
        self.until_they_left(LEAVE_AUTHZ).await
    }

    /// Waits for those that leave; what takes too long is killed, so that what it holds is free.
    async fn until_they_left(&mut self, within: Duration) -> Result<(), Kept> {
        let started = Instant::now();
        while !self.leaving.is_empty() {
            if started.elapsed() > within {
                for (_, running) in &self.leaving {
                    running.signal(Signal::KILL);
                }
            }
            if let Some(exit) = self.reap()? {
                return Err(Kept::Changed(format!("the successor of {} ended ({})", exit.role.name(), exit.words())));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn until_it_answers(&mut self, endpoint: &Endpoint, path: &str) -> Result<(), Kept> {
        let started = Instant::now();
        loop {
            let Err(answer) = well(endpoint, path).await else { return Ok(()) };
            if let Some(exit) = self.reap()? {
                return Err(Kept::Changed(format!("{} ended ({})", exit.role.name(), exit.words())));
            }
            if started.elapsed() > READY {
                return Err(Kept::Changed(format!("after {} s {answer}", READY.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Hears of processes that have ended. One that plays a role is planned to start again and ends the hand-off; the
    /// successor that ended is answered with; those that leave are what is waited for.
    fn reap(&mut self) -> Result<Option<Exit>, Kept> {
        while let Some(exit) = self.exits.try_join_next() {
            let Ok(found) = &exit else { continue };
            if self.has_left(found) {
                continue;
            }
            if self.successor.as_ref().is_some_and(|(_, successor)| successor.process.pid == found.pid) {
                self.successor = None;
                return Ok(exit.ok());
            }
            if found.asks_for_anew() {
                self.children.remove(&found.role);
                return Err(Kept::Anew);
            }
            let ended = format!("{} ended ({})", found.role.name(), found.words());
            self.plan_restart(exit)?;
            return Err(Kept::Changed(ended));
        }
        Ok(None)
    }

    /// Ends a successor that is not needed; what it was to follow goes on.
    async fn give_up_successor(&mut self) {
        let Some((role, running)) = self.successor.take() else { return };
        running.signal(Signal::KILL);
        self.leaving.push((role, running));
        if let (Some(authz), Some(admin)) = (self.process_of(Role::Authz), self.children.get_mut(&Role::Admin)) {
            admin.tell_peer(&authz, None).await;
        }
    }

    fn replaced(&self, role: Role, pid: i32, began: Instant) {
        let took_ms = millis(began.elapsed());
        self.frame.tell(Event::Replaced { role: role.name().to_owned(), pid, took_ms });
    }
}
