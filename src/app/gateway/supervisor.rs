//! Building a gateway, starting it in order, keeping it up.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::gateway::child::Exit;
use crate::app::gateway::child::Plan;
use crate::app::gateway::child::Running;
use crate::app::gateway::child::STATE_SOCKET;
use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::instance::ChildIdentity;
use crate::app::gateway::instance::Instance;
use crate::app::gateway::logs::Log;
use crate::app::gateway::ports;
use crate::app::gateway::ports::Reserved;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::progress::Role;
use crate::app::gateway::restart::Failures;
use crate::envoy::binary;
use crate::envoy::binary::EnvoyBinary;
use crate::envoy::launch;
use crate::envoy::render;
use crate::envoy::render::Rendering;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::env;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::files::LockError;
use crate::sys::local_http;
use crate::sys::local_http::Endpoint;
use crate::sys::peer;
use crate::sys::process::ProcessIdentity;
use crate::sys::random;
use crate::sys::signal::StopSignals;
use crate::sys::spawner::Spawner;
use crate::sys::tasks::Stop;

/// How long a process may take to become ready: far longer than it takes on a busy small machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How often its health is asked for.
const READY_LOOK: Duration = Duration::from_millis(30);
/// How long one answer about health may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// How long processes of a killed supervisor have to notice it themselves.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// What calls the stop: a signal, or somebody in this process. A second signal forces it.
#[derive(Debug)]
pub struct Stops {
    signals: StopSignals,
    also: Stop,
}

impl Stops {
    /// Listens to both.
    pub const fn new(signals: StopSignals, also: Stop) -> Self {
        Self { signals, also }
    }

    /// Returns when the stop is called.
    pub(super) async fn called(&mut self) {
        tokio::select! {
            _ = self.signals.next() => {}
            () = self.also.wait() => {}
        }
    }

    /// Returns at the next signal.
    pub(super) async fn forced(&mut self) {
        self.signals.next().await;
    }
}

/// A gateway whose lock and ports are held and whose Envoy is found; nothing runs yet.
#[derive(Debug)]
pub struct Bound {
    config: GatewayConfig,
    addresses: Addresses,
    reserved: Reserved,
    envoy: EnvoyBinary,
    lock: FileLock,
    progress: mpsc::Sender<Progress>,
    ready: watch::Sender<bool>,
}

/// A gateway that runs.
pub(super) struct Supervisor {
    pub(super) config: GatewayConfig,
    pub(super) addresses: Addresses,
    envoy: EnvoyBinary,
    spawner: Spawner,
    logs: BTreeMap<Role, Log>,
    pub(super) children: BTreeMap<Role, Running>,
    pub(super) exits: JoinSet<Exit>,
    failures: BTreeMap<Role, Failures>,
    restarts: BTreeMap<Role, Instant>,
    pub(super) progress: mpsc::Sender<Progress>,
    ready: watch::Sender<bool>,
    _lock: FileLock,
}

impl Bound {
    /// Takes the lock and the ports, ends what a killed predecessor left, finds Envoy, writes its configuration.
    pub async fn build(mut config: GatewayConfig, progress: mpsc::Sender<Progress>) -> Result<Self, GatewayError> {
        config.data_dir = std::path::absolute(&config.data_dir).map_err(io_at(&config.data_dir))?;
        config.run_dir = std::path::absolute(&config.run_dir).map_err(io_at(&config.run_dir))?;
        for folder in [config.data_dir.clone(), config.run_dir.clone(), config.log_dir()] {
            files::private_folder(&folder).map_err(io_at(&folder))?;
        }
        for socket in [launch::AUTHZ_SOCKET, STATE_SOCKET, launch::ADMIN_SOCKET] {
            peer::check_socket_path(&config.run_dir.join(socket))?;
        }
        let lock = take_lock(&config)?;
        if let Some(before) = Instance::read(&config.run_dir) {
            for role in before.end_orphans(ORPHAN_GRACE).await {
                let note = format!("{} of a gateway that was killed still ran; it was ended", role.name());
                let _ = progress.try_send(Progress::Note(note));
            }
        }
        let (reserved, addresses) = ports::reserve(&config)?;
        let noted = progress.clone();
        let mut note = move |text| {
            let _ = noted.try_send(Progress::Note(text));
        };
        let envoy = binary::find(&config.envoy, &mut note).await?;
        let rendered = render::render(&Rendering {
            ingress: addresses.ingress.clone(),
            admin_face: addresses.envoy_admin.clone(),
            admin: addresses.admin.clone(),
            max_body_bytes: config.max_body_bytes,
            trusted_hops: config.trusted_hops,
            ca_file: ca_file()?,
        })?;
        let file = config.run_dir.join(launch::CONFIG_FILE);
        files::write_private(&file, rendered.as_bytes()).map_err(io_at(&file))?;
        Ok(Self { config, addresses, reserved, envoy, lock, progress, ready: watch::channel(false).0 })
    }

    /// Where it will listen.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Becomes true when everything answers for the first time.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Starts everything, keeps it up until the stop is called, drains. Whatever happens, nothing is left.
    pub async fn run(self, mut stops: Stops) -> Result<(), GatewayError> {
        let mut logs = BTreeMap::new();
        for role in [Role::Admin, Role::Authz, Role::Envoy] {
            let folder = self.config.log_dir();
            logs.insert(role, Log::open(&folder, role).map_err(io_at(&folder))?);
        }
        let spawner = Spawner::start().map_err(|source| GatewayError::Spawn { role: Role::Admin, source })?;
        let mut supervisor = Supervisor {
            config: self.config,
            addresses: self.addresses,
            envoy: self.envoy,
            spawner,
            logs,
            children: BTreeMap::new(),
            exits: JoinSet::new(),
            failures: BTreeMap::new(),
            restarts: BTreeMap::new(),
            progress: self.progress,
            ready: self.ready,
            _lock: self.lock,
        };
        let lived = tokio::select! {
            started = supervisor.start_all(self.reserved) => started.map(|()| true),
            () = stops.called() => Ok(false),
        };
        let ended = match lived {
            Ok(true) => supervisor.keep_up(&mut stops).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        match &ended {
            Ok(()) => supervisor.drain(&mut stops).await,
            Err(_) => supervisor.end(&mut stops).await,
        }
        Instance::forget(&supervisor.config.run_dir);
        ended
    }
}

impl Supervisor {
    /// Starts the three in order; each earns the start of the next.
    async fn start_all(&mut self, reserved: Reserved) -> Result<(), GatewayError> {
        let Reserved { admin, envoy } = reserved;
        let health = |address: Option<&SocketAddr>| Endpoint::Tcp(reachable(address));
        drop(admin);
        self.start(Role::Admin).await?;
        let api = health(self.addresses.admin.first());
        self.ready(Role::Admin, &api, "/health/live").await?;
        self.start(Role::Authz).await?;
        // admin is ready when an authz has its state.
        self.ready(Role::Authz, &api, "/health/ready").await?;
        drop(envoy);
        self.start(Role::Envoy).await?;
        let raw = Endpoint::Unix(self.config.run_dir.join(launch::ADMIN_SOCKET));
        self.ready(Role::Envoy, &raw, "/ready").await?;
        // And Envoy reaches authz.
        let ingress = health(self.addresses.ingress.first());
        self.ready(Role::Envoy, &ingress, "/health").await?;
        let _ = self.progress.try_send(Progress::Ready(self.addresses.clone()));
        self.ready.send_replace(true);
        Ok(())
    }

    /// Starts one process and tells the others about it.
    async fn start(&mut self, role: Role) -> Result<(), GatewayError> {
        let plan = match role {
            Role::Admin => Plan::admin(&self.config, &self.addresses),
            Role::Authz => Plan::authz(&self.config),
            Role::Envoy => {
                // What a killed one left; Envoy would replace it, a probe must not find it before.
                let _ = std::fs::remove_file(self.config.run_dir.join(launch::ADMIN_SOCKET));
                Plan::envoy(&self.config, &self.envoy)
            }
        };
        let log =
            self.logs.get(&role).cloned().ok_or(GatewayError::Spawn { role, source: io::Error::other("no log") })?;
        let mut running = plan.start(&self.spawner, &log, &mut self.exits, &self.progress).await?;
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
            running.tell_peer(&visitor.process).await;
        }
        if let Some(host) = host.and_then(|host| self.children.get_mut(&host)) {
            host.tell_peer(&running.process).await;
        }
        self.children.insert(role, running);
        self.write_instance();
        Ok(())
    }

    /// Asks until the answer is 200; the end of any process ends the wait.
    async fn ready(&mut self, role: Role, endpoint: &Endpoint, path: &str) -> Result<(), GatewayError> {
        let started = Instant::now();
        let mut answer;
        loop {
            let asked = local_http::exchange(endpoint, Request::get(path), Bytes::new(), PROBE_DEADLINE).await;
            match asked {
                Ok(found) if found.status == 200 => return Ok(()),
                Ok(found) => answer = format!("{path} answers {}", found.status),
                Err(error) => answer = format!("{path} {error}"),
            }
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

    /// Restarts what ends until the stop is called, or until something ends too often.
    async fn keep_up(&mut self, stops: &mut Stops) -> Result<(), GatewayError> {
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
                () = stops.called() => return Ok(()),
                role = due => {
                    self.restarts.remove(&role);
                    self.start(role).await?;
                }
                Some(exit) = self.exits.join_next() => self.plan_restart(exit)?,
            }
        }
    }

    fn plan_restart(&mut self, exit: Result<Exit, tokio::task::JoinError>) -> Result<(), GatewayError> {
        // The watching task neither panics nor is aborted while we run.
        let Ok(exit) = exit else { return Ok(()) };
        let role = exit.role;
        self.children.remove(&role);
        self.write_instance();
        let patience = self.config.patience;
        let spread = random::bytes::<1>().map_or(u8::MAX, |[byte]| byte);
        match self.failures.entry(role).or_default().count(patience, SystemClock.now().monotonic, spread) {
            Some(wait) => {
                let after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let _ = self.progress.try_send(Progress::Restarting { role, ended: exit.words(), after_ms });
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

    fn ended_early(&mut self, exit: Result<Exit, tokio::task::JoinError>) -> GatewayError {
        let exit = exit.unwrap_or(Exit { role: Role::Admin, status: None });
        self.children.remove(&exit.role);
        GatewayError::Ended {
            role: exit.role,
            ended: exit.words(),
            code: exit.status.and_then(|status| status.code()),
            log: self.log_path(exit.role),
        }
    }

    fn write_instance(&self) {
        let Some(supervisor) = ProcessIdentity::own() else { return };
        let children = self
            .children
            .iter()
            .map(|(role, running)| ChildIdentity { role: *role, process: running.process.clone() })
            .collect();
        let instance = Instance { supervisor, children, addresses: self.addresses.clone() };
        if let Err(error) = instance.write(&self.config.run_dir) {
            let _ = self.progress.try_send(Progress::Note(format!("instance.json: {error}")));
        }
    }

    fn log_path(&self, role: Role) -> PathBuf {
        self.logs.get(&role).map(|log| log.path().to_owned()).unwrap_or_default()
    }
}

fn take_lock(config: &GatewayConfig) -> Result<FileLock, GatewayError> {
    let address = config.ingress.first().map(ToString::to_string).unwrap_or_default();
    let holder = format!("pid {} (sigilum gateway, {address})", std::process::id());
    FileLock::take(&config.data_dir.join("supervisor.lock"), &holder).map_err(|error| match error {
        LockError::Held { path, holder } => GatewayError::AlreadyRunning { lock: path, holder },
        LockError::Io { path, source } => GatewayError::Io { path, source },
    })
}

/// `SSL_CERT_FILE`, else the first of the usual places.
fn ca_file() -> Result<PathBuf, GatewayError> {
    if let Some(named) = env::lookup("SSL_CERT_FILE").map(PathBuf::from) {
        let named = std::path::absolute(&named).map_err(io_at(&named))?;
        return if named.is_file() {
            Ok(named)
        } else {
            Err(GatewayError::NoCertificates(named.display().to_string()))
        };
    }
    let places = render::CA_FILES.iter().map(PathBuf::from);
    places
        .into_iter()
        .find(|file| file.is_file())
        .ok_or_else(|| GatewayError::NoCertificates(render::CA_FILES.join(", ")))
}

/// Where we reach a listener of our own: one on all addresses answers on loopback.
fn reachable(address: Option<&SocketAddr>) -> SocketAddr {
    let mut address = address.copied().unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> GatewayError {
    let path = path.to_owned();
    move |source| GatewayError::Io { path, source }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
