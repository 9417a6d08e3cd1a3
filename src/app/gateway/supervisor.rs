//! Building a gateway, starting it in order, keeping it up.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::drain::LEASES_FILE;
use crate::admin::health_watch::AUTHZ_HEALTHY;
use crate::admin::health_watch::ONE_HEALTHY;
use crate::app::gateway::ask::Event;
use crate::app::gateway::ask::Phase;
use crate::app::gateway::ask::Restart;
use crate::app::gateway::bound::Bound;
use crate::app::gateway::bound::Last;
use crate::app::gateway::bound::Stops;
use crate::app::gateway::child::Exit;
use crate::app::gateway::child::Plan;
use crate::app::gateway::child::Running;
use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::crash;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::frame::Frame;
use crate::app::gateway::hand_off::Kept;
use crate::app::gateway::instance::ChildIdentity;
use crate::app::gateway::instance::Instance;
use crate::app::gateway::logs::Log;
use crate::app::gateway::ports::Reserved;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::progress::Role;
use crate::app::gateway::record::Went;
use crate::app::gateway::restart::Failures;
use crate::envoy::binary::EnvoyBinary;
use crate::envoy::launch;
use crate::envoy::live;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::local_http;
use crate::sys::local_http::Endpoint;
use crate::sys::process::ProcessIdentity;
use crate::sys::random;
use crate::sys::spawner::Spawner;

/// How long a process may take to become ready: far longer than it takes on a busy small machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How often its health is asked for.
const READY_LOOK: Duration = Duration::from_millis(30);
/// How long one answer about health may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// How long admin may take to find that everything is ready.
const SETTLE: Duration = Duration::from_secs(3);

/// A gateway that runs.
pub(super) struct Supervisor {
    pub(super) config: GatewayConfig,
    pub(super) addresses: Addresses,
    envoy: EnvoyBinary,
    spawner: Spawner,
    logs: BTreeMap<Role, Log>,
    pub(super) children: BTreeMap<Role, Running>,
    /// A process that is to take another's place.
    pub(super) successor: Option<(Role, Running)>,
    /// Processes whose place is taken, and which are about to end.
    pub(super) leaving: Vec<(Role, Running)>,
    pub(super) exits: JoinSet<Exit>,
    failures: BTreeMap<Role, Failures>,
    restarts: BTreeMap<Role, Instant>,
    pub(super) frame: Frame,
}

/// How a life of a gateway went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lived {
    /// The stop was called.
    Over,
    /// Admin asked for another, with the settings as they are now.
    Anew,
    /// Somebody else did; what they asked for is being done ([`Frame::doing`]).
    Again,
}

impl Supervisor {
    /// Takes over what was bound; nothing runs yet.
    pub(super) fn new(bound: Bound) -> Result<(Self, Reserved), GatewayError> {
        let mut logs = BTreeMap::new();
        for role in [Role::Admin, Role::Authz, Role::Envoy] {
            let folder = bound.config.log_dir();
            let log = Log::of(role, &bound.config).map_err(|source| GatewayError::Io { path: folder, source })?;
            logs.insert(role, log);
        }
        let spawner = Spawner::start().map_err(|source| GatewayError::Spawn { role: Role::Admin, source })?;
        let supervisor = Self {
            config: bound.config,
            addresses: bound.addresses,
            envoy: bound.envoy,
            spawner,
            logs,
            children: BTreeMap::new(),
            successor: None,
            leaving: Vec::new(),
            exits: JoinSet::new(),
            failures: BTreeMap::new(),
            restarts: BTreeMap::new(),
            frame: bound.frame,
        };
        let (run_dir, addresses) = (supervisor.config.run_dir.clone(), supervisor.addresses.clone());
        supervisor.frame.standing.send_modify(|standing| {
            (standing.run_dir, standing.addresses) = (run_dir, addresses);
        });
        Ok((supervisor, bound.reserved))
    }

    /// What the next life takes over; nothing runs any more. What Envoy took while it ran counts as well.
    pub(super) fn into_rest(self) -> (Last, Frame) {
        let Self { mut config, mut addresses, frame, .. } = self;
        if let Some(settings) = live::settings_in(&config.run_dir) {
            addresses.ingress = settings.ingress;
            config.max_body_bytes = settings.max_body_bytes;
            config.trusted_hops = settings.trusted_hops;
            addresses.ingress_tls = settings.tls.is_some();
            config.tls = settings.tls;
        }
        (Last { config, addresses }, frame)
    }

    /// Starts the three in order; each earns the start of the next.
    pub(super) async fn start_all(&mut self, reserved: Reserved) -> Result<(), GatewayError> {
        let Reserved { admin, envoy } = reserved;
        self.frame.begin(Phase::Starting);
        self.frame.tell(Event::Starting);
        let health = |address: Option<&SocketAddr>| {
            Endpoint::Tcp(address.copied().map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)), local_http::reachable))
        };
        drop(admin);
        self.start(Role::Admin).await?;
        let api = self.api();
        self.ready(Role::Admin, &api, "/health/live").await?;
        self.start(Role::Authz).await?;
        // admin says when an authz has its state. It calls itself ready only later, when Envoy runs too.
        self.ready(Role::Authz, &api, "/health/startup").await?;
        drop(envoy);
        self.start(Role::Envoy).await?;
        let raw = Endpoint::Unix(self.config.run_dir.join(launch::ADMIN_SOCKET));
        self.ready(Role::Envoy, &raw, "/ready").await?;
        // And Envoy reaches authz.
        let drained = self.config.run_dir.join(LEASES_FILE).exists();
        if self.addresses.ingress_tls || drained {
            // Whom its certificate is for, and who may connect, is not for us to say; and while somebody drains Envoy
            // says that it is not healthy. It says the same inside.
            self.ready(Role::Envoy, &raw, AUTHZ_HEALTHY).await?;
        } else {
            let ingress = health(self.addresses.ingress.first());
            self.ready(Role::Envoy, &ingress, "/health").await?;
        }
        self.settle(&api).await;
        let _ = self.frame.progress.try_send(Progress::Ready(self.addresses.clone()));
        self.frame.ready.send_replace(true);
        self.watch_admin();
        self.frame.begin(Phase::Running);
        self.frame.settle(Went::Healthy).await;
        Ok(())
    }

    /// Gives admin a moment to find that everything is ready. What it finds wanting is for it to say, and no reason not to
    /// run: declared agents are served, and a clock that is wrong is not mended by a restart.
    async fn settle(&self, api: &Endpoint) {
        let ready = async {
            while well(api, "/health/ready").await.is_err() {
                tokio::time::sleep(READY_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(SETTLE, ready).await;
    }

    /// Where admin answers.
    pub(super) fn api(&self) -> Endpoint {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = self.addresses.admin.first().copied().map_or(nowhere, local_http::reachable);
        match &self.config.admin_trust {
            Some(trust) => Endpoint::Tls(address, trust.clone()),
            None => Endpoint::Tcp(address),
        }
    }

    /// Has the watchdog look at admin, where there is one.
    fn watch_admin(&self) {
        let admin = self.children.contains_key(&Role::Admin).then(|| self.api());
        self.frame.standing.send_modify(|standing| standing.admin = admin);
    }

    /// Who plays a role.
    pub(super) fn process_of(&self, role: Role) -> Option<ProcessIdentity> {
        self.children.get(&role).map(|running| running.process.clone())
    }

    /// Starts a process by its plan; nobody is told yet.
    pub(super) async fn launch(&mut self, role: Role, plan: Plan) -> Result<Running, GatewayError> {
        let log =
            self.logs.get(&role).cloned().ok_or(GatewayError::Spawn { role, source: io::Error::other("no log") })?;
        plan.start(&self.spawner, &log, &mut self.exits, &self.frame.progress).await
    }

    /// Starts one process and tells the others about it.
    pub(super) async fn start(&mut self, role: Role) -> Result<(), GatewayError> {
        let plan = match role {
            Role::Admin => Plan::admin(&self.config),
            Role::Authz => Plan::authz(&self.config),
            Role::Envoy => {
                // What a killed one left; Envoy would replace it, a probe must not find it before.
                let _ = std::fs::remove_file(self.config.run_dir.join(launch::ADMIN_SOCKET));
                Plan::envoy(&self.config, &self.envoy)
            }
        };
        let mut running = self.launch(role, plan).await?;
        match role {
            Role::Admin => running.tell_secrets(&self.config.admin_secrets).await,
            Role::Authz => running.tell_secrets(&[]).await,
            Role::Envoy => {}
        }
        // Each socket has one visitor: authz comes to admin, Envoy to authz.
        let (visitor, host) = match role {
            Role::Admin => (Some(Role::Authz), None),
            Role::Authz => (Some(Role::Envoy), Some(Role::Admin)),
            Role::Envoy => (None, Some(Role::Authz)),
        };
        if let Some(visitor) = visitor.and_then(|visitor| self.children.get(&visitor)) {
            running.tell_peer(&visitor.process, None).await;
        }
        if let Some(host) = host.and_then(|host| self.children.get_mut(&host)) {
            host.tell_peer(&running.process, None).await;
        }
        self.children.insert(role, running);
        self.write_instance();
        Ok(())
    }

    /// Asks until the answer is 200; the end of any process ends the wait.
    async fn ready(&mut self, role: Role, endpoint: &Endpoint, path: &str) -> Result<(), GatewayError> {
        let started = Instant::now();
        loop {
            let Err(answer) = well(endpoint, path).await else { return Ok(()) };
            if let Some(exit) = self.exits.try_join_next() {
                return Err(self.ended_early(exit));
            }
            if started.elapsed() > READY_DEADLINE {
                let log = self.log_path(role);
                return Err(GatewayError::NotReady { role, seconds: READY_DEADLINE.as_secs(), answer, log });
            }
            tokio::time::sleep(READY_LOOK).await;
        }
    }

    /// Restarts what ends until the stop is called, admin asks for a start anew, or something ends too often.
    pub(super) async fn keep_up(&mut self, stops: &mut Stops) -> Result<Lived, GatewayError> {
        loop {
            let next = self.restarts.iter().min_by_key(|(_, at)| **at).map(|(role, at)| (*role, *at));
            let due = async {
                match next {
                    Some((role, at)) => {
                        tokio::time::sleep_until(at).await;
                        role
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stops.called() => return Ok(Lived::Over),
                role = due => {
                    self.restarts.remove(&role);
                    self.start(role).await?;
                    self.watch_admin();
                }
                Some(ask) = self.frame.asks.recv() => {
                    let handoff = ask.restart == Restart::Handoff;
                    self.frame.accept(ask);
                    if !handoff {
                        return Ok(Lived::Again);
                    }
                    let done = tokio::select! {
                        done = self.hand_off() => done,
                        () = stops.called() => return Ok(Lived::Over),
                    };
                    if let Some(lived) = self.handed_off(done).await? {
                        return Ok(lived);
                    }
                }
                Some(exit) = self.exits.join_next() => {
                    if let Ok(exit) = &exit && self.has_left(exit) {
                        continue;
                    }
                    if let Ok(exit) = &exit && exit.asks_for_anew() {
                        self.children.remove(&exit.role);
                        return Ok(Lived::Anew);
                    }
                    self.plan_restart(exit)?;
                }
            }
        }
    }

    /// Says how a hand-off went; a life that ends with it, where one does.
    async fn handed_off(&mut self, done: Result<(), Kept>) -> Result<Option<Lived>, GatewayError> {
        self.watch_admin();
        let told = match &done {
            Ok(()) => Ok(()),
            Err(Kept::Unchanged(why) | Kept::Changed(why)) => Err(why.clone()),
            Err(Kept::Anew) => Err("the settings have changed meanwhile".to_owned()),
            Err(Kept::Over(error)) => Err(error.to_string()),
        };
        let went = match (&done, &told) {
            (Err(Kept::Unchanged(_)), Err(why)) => Went::Kept(why),
            (_, Err(why)) => Went::Failed(why),
            (_, Ok(())) => Went::Healthy,
        };
        self.frame.settle(went).await;
        let _ = self.frame.progress.try_send(Progress::HandedOff(told));
        self.frame.begin(Phase::Running);
        match done {
            Ok(()) | Err(Kept::Unchanged(_) | Kept::Changed(_)) => Ok(None),
            Err(Kept::Anew) => Ok(Some(Lived::Anew)),
            Err(Kept::Over(error)) => Err(error),
        }
    }

    /// Whether a process that ended was about to.
    pub(super) fn has_left(&mut self, exit: &Exit) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|(_, running)| running.process.pid != exit.pid);
        self.leaving.len() < before
    }

    pub(super) fn plan_restart(&mut self, exit: Result<Exit, tokio::task::JoinError>) -> Result<(), GatewayError> {
        // The watching task neither panics nor is aborted while we run.
        let Ok(exit) = exit else { return Ok(()) };
        let role = exit.role;
        if self.children.get(&role).is_none_or(|running| running.process.pid != exit.pid) {
            // It played no role any more.
            return Ok(());
        }
        self.children.remove(&role);
        self.write_instance();
        self.watch_admin();
        self.frame.standing.send_modify(|standing| {
            standing.process_restarts = standing.process_restarts.saturating_add(1);
            if role == Role::Envoy {
                standing.envoy_restarts = standing.envoy_restarts.saturating_add(1);
            }
        });
        self.keep_crash(&exit);
        let patience = self.config.patience;
        let spread = random::bytes::<1>().map_or(u8::MAX, |[byte]| byte);
        match self.failures.entry(role).or_default().count(patience, SystemClock.now().monotonic, spread) {
            Some(wait) => {
                let after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let _ = self.frame.progress.try_send(Progress::Restarting { role, ended: exit.words(), after_ms });
                self.restarts.insert(role, Instant::now() + wait);
                Ok(())
            }
            None => Err(GatewayError::GaveUp {
                role,
                failures: patience.most,
                seconds: patience.window.as_secs(),
                ended: exit.words(),
                log: self.log_path(role),
            }),
        }
    }

    /// Keeps what a process that crashed said last, and says where.
    fn keep_crash(&self, exit: &Exit) {
        let Some(status) = exit.status.filter(|status| crash::is_crash(*status)) else { return };
        let ended = crash::Ended { role: exit.role, pid: exit.pid, status };
        let envoy = self.envoy.version.to_string();
        let name = exit.role.name();
        let note = match crash::keep(&self.config, &envoy, ended, SystemClock.now().wall) {
            Ok(path) => format!("{name} crashed ({}); what it said last: {}", exit.words(), path.display()),
            Err(error) => format!("{name} crashed ({}); what it said last cannot be kept: {error}", exit.words()),
        };
        let _ = self.frame.progress.try_send(Progress::Note(note));
    }

    fn ended_early(&mut self, exit: Result<Exit, tokio::task::JoinError>) -> GatewayError {
        let exit = exit.unwrap_or(Exit { role: Role::Admin, pid: 0, status: None });
        self.children.remove(&exit.role);
        self.keep_crash(&exit);
        GatewayError::Ended {
            role: exit.role,
            ended: exit.words(),
            code: exit.status.and_then(|status| status.code()),
            log: self.log_path(exit.role),
        }
    }

    pub(super) fn write_instance(&self) {
        let Some(supervisor) = ProcessIdentity::own() else { return };
        let children: Vec<_> = self
            .children
            .iter()
            .chain(self.leaving.iter().map(|(role, running)| (role, running)))
            .map(|(role, running)| ChildIdentity { role: *role, process: running.process.clone() })
            .collect();
        let (addresses, beside) = (self.addresses.clone(), self.config.beside.clone());
        self.frame.standing.send_modify(|standing| standing.processes = Vec::clone(&children));
        let instance = Instance { supervisor, children, addresses, beside };
        if let Err(error) = instance.write(&self.config.run_dir) {
            let _ = self.frame.progress.try_send(Progress::Note(format!("instance.json: {error}")));
        }
    }

    fn log_path(&self, role: Role) -> PathBuf {
        self.logs.get(&role).map(|log| log.path().to_owned()).unwrap_or_default()
    }
}

/// Asks once: whether the answer is 200, and where it is a number of [`AUTHZ_HEALTHY`] whether that is one. Else what came.
pub(super) async fn well(endpoint: &Endpoint, path: &str) -> Result<(), String> {
    match local_http::exchange(endpoint, Request::get(path), Bytes::new(), PROBE_DEADLINE).await {
        Ok(found) if found.status == 200 && (path != AUTHZ_HEALTHY || found.body.ends_with(ONE_HEALTHY)) => Ok(()),
        Ok(found) => Err(format!("{path} answers {}", found.status)),
        Err(error) => Err(format!("{path} {error}")),
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
