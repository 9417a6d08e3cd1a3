//! One authz process: bind, lock, journal, subscriber; then serve until told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::app::replay_window::Window;
use crate::authz;
use crate::authz::Admissions;
use crate::authz::Authz;
use crate::authz::Behind;
use crate::authz::Certificate;
use crate::authz::Exporter;
use crate::authz::Found;
use crate::authz::Journal;
use crate::authz::JournalError;
use crate::authz::Preread;
use crate::authz::Registrar;
use crate::authz::Registrations;
use crate::authz::Server;
use crate::authz::Told;
use crate::authz::Traces;
use crate::config::fleet::SharedReplay;
use crate::domain::log_redaction::LogRedactor;
use crate::domain::replay::ReplayWindow;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::UnixMillis;
use crate::gate::Gate;
use crate::state::StateSource;
use crate::state::Subscriber;
use crate::sys::clock::Clock;
use crate::sys::env;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::files::LockError;
use crate::sys::inbound::Inbound;
use crate::sys::peer;
use crate::sys::peer::PeerRule;
use crate::sys::peer::SocketError;
use crate::sys::random;
use crate::sys::random::RandomError;
use crate::sys::signal::StopSignals;
use crate::sys::supervision;
use crate::sys::supervision::Orders;
use crate::sys::tasks::Ended;
use crate::sys::tasks::Stop;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::Tasks;
use crate::sys::tls::ClientTls;
use crate::sys::tls::ServerTls;
use crate::sys::tls::TlsError;
use crate::sys::tls::TlsFiles;
use crate::telemetry::decisions::DecisionIds;
use crate::telemetry::decisions::Decisions;
use crate::telemetry::decisions::Level;
use crate::telemetry::log;

/// The lock file in the run folder: two authz must not share a journal.
const LOCK: &str = "authz.lock";

/// What the socket of a successor is called beside that of the authz it follows, until the supervisor gives it its name.
pub const NEXT: &str = ".next";

/// How long connections that were made before a successor had our name may take to be accepted.
const LAST_CALLERS: Duration = Duration::from_millis(20);
/// How long after that our journal is kept for requests that are on their way. Envoy, told to go, sends no others; and it
/// gives up a check, which waits at our successor meanwhile, after 500 ms.
const LAST_REQUESTS: Duration = Duration::from_millis(150);
/// How often a successor tries the lock: requests wait for it.
const LOCK_LOOK: Duration = Duration::from_millis(2);

/// How often another level of the log is looked for: nobody waits for it.
const LEVEL_LOOK: Duration = Duration::from_secs(1);

/// Where Envoy finds us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket with mode 0600 and a verified peer.
    Unix(PathBuf),
    /// TCP with mutual TLS. Without TLS the start is refused: our answers carry credentials.
    Tcp {
        /// Where.
        address: SocketAddr,
        /// Our certificate, and the names Envoy's certificate may carry.
        tls: Option<(TlsFiles, Vec<String>)>,
    },
}

/// Where we find admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateFrom {
    /// Admin's Unix socket.
    Unix(PathBuf),
    /// TCP with mutual TLS; plain TCP is refused, because the stream carries secrets.
    Tcp {
        /// Host and port.
        address: String,
        /// Our certificate, and the name admin's certificate must carry.
        tls: Option<(TlsFiles, String)>,
    },
}

/// What one authz process is told.
#[derive(Debug, Clone)]
pub struct AuthzConfig {
    /// Where Envoy finds us.
    pub listen: Listen,
    /// Where we find admin.
    pub state: StateFrom,
    /// Holds the replay journal and the lock; made where it is missing.
    pub run_dir: PathBuf,
    /// A supervisor holds our standard input and names the one process that may connect.
    pub supervised: bool,
    /// Cleans the events of decisions; `None`: whoever reads them does.
    pub cleaner: Option<Arc<LogRedactor>>,
    /// Entries of the replay window.
    pub replay_capacity: usize,
    /// The window that all replicas share behind it; `None`: there is none.
    pub shared_replay: Option<Arc<SharedReplay>>,
    /// Largest request body Envoy sends us, in bytes.
    pub max_body_bytes: u64,
    /// What is written down of decisions; the counters count in any case.
    pub decisions: Level,
    /// How long checks are still decided after health was withdrawn at a stop.
    pub drain_pause: Duration,
    /// How long checks in flight may take after that.
    pub grace: Duration,
}

/// Why authz did not start. Starting again does not help.
#[derive(Debug, thiserror::Error)]
pub enum AuthzError {
    /// Only the name of a socket can be handed on.
    #[error("{0} cannot be taken over: only a Unix socket can")]
    TakeOver(SocketAddr),
    /// The stop came before there was anything to serve.
    #[error("told to stop before it took over")]
    Stopped,
    /// A TCP address without certificates.
    #[error("{0} needs certificates: authz answers carry credentials, so TCP is served with mutual TLS only")]
    PlainTcp(SocketAddr),
    /// A TCP address of admin without certificates.
    #[error(
        "the state stream from {0} needs certificates: it carries credentials, so TCP is used with mutual TLS only"
    )]
    PlainState(String),
    /// Certificates that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket could not be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The address could not be bound.
    #[error("{address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The run folder, or that of the socket, could not be made or is in the hands of others.
    #[error("{path}: {source}")]
    RunFolder {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Another authz uses the run folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal could not be read or begun.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Signals could not be taken over.
    #[error("signals: {0}")]
    Signals(std::io::Error),
}

/// Everything held and proven, nothing served yet.
#[derive(Debug)]
pub struct Bound<C> {
    config: AuthzConfig,
    clock: C,
    inbound: Inbound,
    source: StateSource,
    subscriber: Subscriber,
    authz: Arc<Authz<C>>,
    registrar: Registrar,
    exporter: Exporter,
    decisions: Arc<Decisions>,
    reporter: Reporter<C>,
    window: Window,
    /// Whether the state is followed already, and the shared window held.
    follows: bool,
    // Dropped last: the journal must not be shared while we write to it.
    lock: FileLock,
}

/// What admin is told, which begins before there is anything to decide with.
type Reporter<C> = Arc<OnceLock<Arc<Authz<C>>>>;

/// Takes the lock, reads the journal, binds the socket. `peers` says who may connect to a Unix socket.
pub async fn build<C: Clock + Clone>(
    config: AuthzConfig,
    clock: C,
    peers: watch::Receiver<Option<PeerRule>>,
) -> Result<Bound<C>, AuthzError> {
    let source = source(&config)?;
    own_run_dir(&config)?;
    let lock = FileLock::take(&config.run_dir.join(LOCK), &holder())?;
    let memory = read_journal(&config, &clock, None)?;
    let inbound = bind(&config.listen, peers).await?;
    let subscriber = Subscriber::new();
    let window = Window::of(config.shared_replay.as_deref(), Some(memory.0.id()));
    assemble(config, clock, Held { source, subscriber, memory, inbound, window, lock })
}

/// The same beside an authz that still decides: takes the state, reads its journal, listens beside it, and says by that
/// that it stands ready. When the other has left its place, reads what it has written since. Checks that come meanwhile
/// wait. The state stream runs on `tasks` from the beginning.
pub async fn take_over<C: Clock + Clone>(
    config: AuthzConfig,
    clock: C,
    peers: watch::Receiver<Option<PeerRule>>,
    tasks: &mut Tasks,
) -> Result<Bound<C>, AuthzError> {
    let source = source(&config)?;
    own_run_dir(&config)?;
    let place = match &config.listen {
        Listen::Unix(path) => files::beside(path, NEXT),
        Listen::Tcp { address, .. } => return Err(AuthzError::TakeOver(*address)),
    };
    let (subscriber, reporter) = (Subscriber::new(), Reporter::default());
    let started_at = clock.now().wall;
    // That of the authz this one follows: the two have one journal.
    let behind = behind(&config);
    let window = Window::of(config.shared_replay.as_deref(), Journal::id_in(&config.run_dir, behind));
    window.hold(tasks, clock.clone());
    follow_state(tasks, &subscriber, source.clone(), window.name(), clock.clone(), started_at, &reporter);
    let mut stop = tasks.stop_signal();
    let mut arrived = subscriber.arrived();
    tokio::select! {
        () = stop.wait() => return Err(AuthzError::Stopped),
        Ok(_) = arrived.wait_for(|arrived| *arrived) => {}
    }
    let (folder, capacity, now) = (config.run_dir.clone(), config.replay_capacity, clock.now().seconds());
    let preread = tokio::task::spawn_blocking(move || Journal::preread(&folder, capacity, now, behind));
    let preread = preread.await.ok().flatten();
    tracing::info!(entries = preread.as_ref().map(Preread::len), "the replay journal was read ahead");
    // The supervisor renames it as soon as it is there.
    let inbound = Inbound::Unix { listener: peer::bind_private_at_once(&place).await?, peers };
    let path = config.run_dir.join(LOCK);
    let lock = loop {
        match FileLock::take(&path, &holder()) {
            Ok(lock) => break lock,
            Err(LockError::Held { .. }) => {}
            Err(error @ LockError::Io { .. }) => return Err(error.into()),
        }
        tokio::select! {
            () = stop.wait() => return Err(AuthzError::Stopped),
            () = tokio::time::sleep(LOCK_LOOK) => {}
        }
    };
    let memory = read_journal(&config, &clock, preread)?;
    window.learn(&memory.0.id());
    let bound = assemble(config, clock, Held { source, subscriber, memory, inbound, window, lock })?;
    Ok(Bound { reporter, follows: true, ..bound })
}

/// What is held before anything is decided.
struct Held {
    source: StateSource,
    subscriber: Subscriber,
    memory: (Journal, ReplayWindow),
    inbound: Inbound,
    window: Window,
    lock: FileLock,
}

fn source(config: &AuthzConfig) -> Result<StateSource, AuthzError> {
    match &config.state {
        StateFrom::Unix(path) => {
            peer::check_socket_path(path)?;
            Ok(StateSource::Unix(path.clone()))
        }
        StateFrom::Tcp { address, tls: Some((files, server)) } => {
            Ok(StateSource::Tls(address.clone(), ClientTls::load(files, server)?))
        }
        StateFrom::Tcp { address, tls: None } => Err(AuthzError::PlainState(address.clone())),
    }
}

fn own_run_dir(config: &AuthzConfig) -> Result<(), AuthzError> {
    let failed = |path: &Path, source| AuthzError::RunFolder { path: path.to_owned(), source };
    files::own_folder(&config.run_dir).map_err(|source| failed(&config.run_dir, source))?;
    // Whoever may write there can put a socket of their own in our place.
    let sockets = match &config.listen {
        Listen::Unix(path) => files::folder_of(path),
        Listen::Tcp { .. } => return Ok(()),
    };
    files::check_folder(sockets).map_err(|source| failed(sockets, source))
}

fn holder() -> String {
    format!("pid {} (authz)", std::process::id())
}

const fn behind(config: &AuthzConfig) -> Behind {
    if config.shared_replay.is_some() { Behind::Shared } else { Behind::Nobody }
}

/// Whoever has the lock may.
fn read_journal(
    config: &AuthzConfig,
    clock: &impl Clock,
    preread: Option<Preread>,
) -> Result<(Journal, ReplayWindow), JournalError> {
    let now = clock.now().seconds();
    let (journal, window, found) =
        Journal::open_after(&config.run_dir, config.replay_capacity, now, behind(config), preread)?;
    if journal.failing().is_some() {
        tracing::error!(
            folder = %config.run_dir.display(),
            "the volume is full, so the replay journal cannot be written to: every signed request is refused until it can"
        );
    }
    match found {
        Found::Usable => tracing::info!(entries = window.len(), "the replay journal was read"),
        // What was used before is known to the window that all share.
        Found::Nothing if config.shared_replay.is_some() => {
            tracing::info!("a new replay journal; the shared replay window knows what was used before");
        }
        Found::Unusable(reason) if config.shared_replay.is_some() => {
            tracing::info!(reason, "no usable replay journal; the shared replay window knows what was used before");
        }
        Found::Nothing => tracing::info!("a new replay journal: requests signed before this start are refused"),
        Found::Unusable(reason) => {
            tracing::warn!(reason, "no usable replay journal: requests signed before this start are refused");
        }
    }
    Ok((journal, window))
}

/// Puts the parts together.
fn assemble<C: Clock + Clone>(config: AuthzConfig, clock: C, held: Held) -> Result<Bound<C>, AuthzError> {
    let Held { source, subscriber, memory: (journal, local), inbound, window, lock } = held;
    let decisions = Decisions::new(config.decisions, clock.now().wall).cleaned_by(config.cleaner.clone());
    let decisions = Arc::new(decisions);
    let (registrations, registrar) = Registrations::new();
    let (traces, exporter) = Traces::new(subscriber.current());
    let decided = registrations.clone();
    let subscriber = subscriber.telling(Arc::new(move |ended| decided.forget(ended)));
    let authz = Arc::new(Authz::new(
        Gate::new(random::bytes()?),
        subscriber.current(),
        if window.shared.is_some() {
            Admissions::before_shared(journal, local)
        } else {
            Admissions::new(journal, local)
        },
        window.shared.clone(),
        Told { decisions: Arc::clone(&decisions), ids: DecisionIds::new()?, traces },
        registrations,
        clock.clone(),
    ));
    let reporter = Reporter::default();
    let follows = false;
    Ok(Bound {
        config,
        clock,
        inbound,
        source,
        subscriber,
        authz,
        registrar,
        exporter,
        decisions,
        reporter,
        window,
        follows,
        lock,
    })
}

/// What admin knows an authz of another host by: a container's `HOSTNAME`, which is the name of its pod. There it is process 1,
/// and so is every other one.
fn node_name(host: Option<String>, process: u32) -> Option<String> {
    host.map(|host| if process == 1 { host } else { format!("{host}-{process}") })
}

/// Keeps the state up to date, and tells admin how it stands: not ready while there is nothing to decide with.
fn follow_state<C: Clock + Clone>(
    tasks: &mut Tasks,
    subscriber: &Subscriber,
    source: StateSource,
    window: watch::Receiver<Option<String>>,
    clock: C,
    started_at: UnixMillis,
    reporter: &Reporter<C>,
) {
    let mut node = format!("authz-{}", std::process::id());
    if let StateSource::Tls(_, tls) = &source {
        node = node_name(env::lookup("HOSTNAME"), std::process::id()).unwrap_or(node);
        let tls = tls.clone();
        tasks.spawn("state-certificates", |stop| tls.follow(stop));
    }
    let (subscriber, reporter) = (subscriber.clone(), Arc::clone(reporter));
    let report = move || reporter.get().map_or_else(|| authz::report_of_none(started_at), |authz| authz.report());
    tasks.spawn("state-stream", |stop| subscriber.run(source, node, window, clock, report, stop));
}

async fn bind(listen: &Listen, peers: watch::Receiver<Option<PeerRule>>) -> Result<Inbound, AuthzError> {
    match listen {
        Listen::Unix(path) => Ok(Inbound::Unix { listener: peer::bind_private(path).await?, peers }),
        Listen::Tcp { address, tls: Some((files, names)) } => {
            let tls = ServerTls::load(files, names)?;
            let bind = |source| AuthzError::Bind { address: *address, source };
            Ok(Inbound::Tls { listener: TcpListener::bind(address).await.map_err(bind)?, tls })
        }
        Listen::Tcp { address, tls: None } => Err(AuthzError::PlainTcp(*address)),
    }
}

impl<C: Clock + Clone> Bound<C> {
    /// Where TCP is listened on; `None` on a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.inbound {
            Inbound::Unix { .. } => None,
            Inbound::Tls { listener, .. } => listener.local_addr().ok(),
        }
    }

    /// Serves until the stop is called on `tasks`.
    pub async fn run(self, tasks: Tasks) -> Ended {
        self.run_until_succeeded(tasks, None).await
    }

    /// The same, or until `leave` is called: then what is in flight is finished while the successor, which has our name,
    /// takes what is new.
    pub async fn run_until_succeeded(self, mut tasks: Tasks, leave: Option<Stop>) -> Ended {
        let Self {
            config,
            clock,
            inbound,
            source,
            subscriber,
            authz,
            registrar,
            exporter,
            decisions,
            reporter,
            window,
            follows,
            lock,
        } = self;
        let (arrived, fed) = (subscriber.arrived(), subscriber.fed());
        let certificate: Certificate = match &source {
            StateSource::Unix(_) => Arc::new(|| None),
            StateSource::Tls(_, tls) => {
                let tls = tls.clone();
                Arc::new(move || tls.validity())
            }
        };
        if let Inbound::Tls { tls, .. } = &inbound {
            let tls = tls.clone();
            tasks.spawn("certificates", |stop| tls.follow(stop));
        }
        let link = subscriber.registrar();
        let register = move |message| {
            let link = link.clone();
            async move { link.register(message).await }
        };
        if config.supervised {
            let state = subscriber.current();
            tasks.spawn("log-level", |stop| follow_level(state, stop));
        }
        let (state, decided, ticking) = (subscriber.current(), Arc::clone(&decisions), clock.clone());
        tasks.spawn("registrations", |stop| registrar.run(register, state, decided, ticking, stop));
        tasks.spawn("traces", |stop| exporter.run(stop));
        // It is set here alone, and once.
        let _ = reporter.set(Arc::clone(&authz));
        if !follows {
            window.hold(&mut tasks, clock.clone());
            follow_state(&mut tasks, &subscriber, source, window.name(), clock.clone(), clock.now().wall, &reporter);
        }
        tasks.spawn("decision-log", |stop| decisions.write(stop));
        let server = Server::new(Arc::clone(&authz), config.max_body_bytes, config.drain_pause, config.grace);
        let server = server.showing(certificate);
        let done = tasks.stop_handle();
        tasks.spawn("authz-grpc", |stop| async move {
            let last_callers = async {
                called(leave.clone()).await;
                tokio::time::sleep(LAST_CALLERS).await;
            };
            let last_requests = async {
                called(leave.clone()).await;
                tokio::time::sleep(LAST_CALLERS.saturating_add(LAST_REQUESTS)).await;
            };
            let mut serving = std::pin::pin!(server.run(inbound, (arrived, fed), last_callers, stop));
            let served = tokio::select! {
                () = serving.as_mut() => true,
                () = last_requests => false,
            };
            authz.seal();
            drop(lock);
            if !served {
                // What is in flight was decided, and waits for a registration at most.
                serving.await;
            }
            if leave.as_ref().is_some_and(Stop::is_called) {
                // That was all this process was for; an end for any other reason is an accident.
                done.stop();
            }
        });
        // Pause and grace are the server's own; what is over them does not end by itself.
        let all = config.drain_pause.saturating_add(config.grace).saturating_add(Duration::from_secs(1));
        tasks.supervise(all).await
    }
}

/// Returns when a leave is called; never where nobody calls it.
async fn called(leave: Option<Stop>) {
    if let Some(mut leave) = leave {
        leave.wait().await;
        if leave.is_called() {
            return;
        }
    }
    std::future::pending().await
}

/// One authz process from start to end: until SIGTERM, SIGINT, the end of its supervisor, or its successor. `succeeds`:
/// it is the successor of one that runs.
pub async fn run<C: Clock + Clone>(config: AuthzConfig, succeeds: bool, clock: C) -> Result<Ended, AuthzError> {
    let mut tasks = Tasks::default();
    let stop = tasks.stop_handle();
    let Orders { peers, leave } = orders(config.supervised, stop.clone());
    let mut signals = StopSignals::install().map_err(AuthzError::Signals)?;
    let bound = if succeeds {
        tokio::select! {
            bound = take_over(config, clock, peers, &mut tasks) => bound?,
            _ = signals.next() => return Ok(Ended::Stopped),
        }
    } else {
        build(config, clock, peers).await?
    };
    let serving = bound.run_until_succeeded(tasks, leave);
    let listening = async {
        let signal = signals.next().await;
        tracing::info!(signal, "told to stop");
        stop.stop();
        // A second one: whoever asks twice does not want to wait.
        signals.next().await
    };
    tokio::select! {
        ended = serving => Ok(ended),
        _ = listening => Ok(Ended::Forced),
    }
}

/// The level of the log as the settings say, which change while this process runs.
async fn follow_level(state: Arc<ArcSwapOption<Snapshot>>, mut stop: Stop) {
    let mut level = String::new();
    loop {
        let wanted = state.load().as_ref().map(|snapshot| snapshot.settings.log_level.clone()).unwrap_or_default();
        if !wanted.is_empty() && wanted != level {
            if let Err(error) = log::set_level(&wanted) {
                tracing::error!(%error, "the level of the log stays as it is");
            }
            level = wanted;
        }
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(LEVEL_LOOK) => {}
        }
    }
}

fn orders(supervised: bool, stop: StopHandle) -> Orders {
    if supervised { supervision::supervised_orders(stop) } else { supervision::unsupervised_orders() }
}

#[cfg(test)]
#[path = "authz_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code may panic")]
mod tests;
