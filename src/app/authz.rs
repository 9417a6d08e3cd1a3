//! One authz process: bind, lock, journal, subscriber; then serve until told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::authz::Admissions;
use crate::authz::Authz;
use crate::authz::Exporter;
use crate::authz::Found;
use crate::authz::Journal;
use crate::authz::JournalError;
use crate::authz::Registrar;
use crate::authz::Registrations;
use crate::authz::Server;
use crate::authz::Told;
use crate::authz::Traces;
use crate::domain::snapshot::Snapshot;
use crate::gate::Gate;
use crate::state::StateSource;
use crate::state::Subscriber;
use crate::sys::clock::Clock;
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthzConfig {
    /// Where Envoy finds us.
    pub listen: Listen,
    /// Where we find admin.
    pub state: StateFrom,
    /// Holds the replay journal and the lock; made where it is missing.
    pub run_dir: PathBuf,
    /// A supervisor holds our standard input and names the one process that may connect.
    pub supervised: bool,
    /// Entries of the replay window.
    pub replay_capacity: usize,
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
    /// The run folder could not be made.
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
    // Dropped last: the journal must not be shared while we write to it.
    lock: FileLock,
}

/// Takes the lock, reads the journal, binds the socket. `peers` says who may connect to a Unix socket.
pub async fn build<C: Clock + Clone>(
    config: AuthzConfig,
    clock: C,
    peers: watch::Receiver<Option<PeerRule>>,
) -> Result<Bound<C>, AuthzError> {
    let source = match &config.state {
        StateFrom::Unix(path) => {
            peer::check_socket_path(path)?;
            StateSource::Unix(path.clone())
        }
        StateFrom::Tcp { address, tls: Some((files, server)) } => {
            StateSource::Tls(address.clone(), ClientTls::load(files, server)?)
        }
        StateFrom::Tcp { address, tls: None } => return Err(AuthzError::PlainState(address.clone())),
    };
    files::own_folder(&config.run_dir)
        .map_err(|source| AuthzError::RunFolder { path: config.run_dir.clone(), source })?;
    let lock = FileLock::take(&config.run_dir.join(LOCK), &format!("pid {} (authz)", std::process::id()))?;
    let now = clock.now();
    let (journal, window, found) = Journal::open(&config.run_dir, config.replay_capacity, now.seconds())?;
    match found {
        Found::Usable => tracing::info!(entries = window.len(), "the replay journal was read"),
        Found::Unusable(reason) => {
            tracing::warn!(reason, "no usable replay journal: requests signed before this start are refused");
        }
    }
    let inbound = bind(&config.listen, peers).await?;
    let subscriber = Subscriber::new();
    let decisions = Arc::new(Decisions::new(config.decisions, now.wall));
    let (registrations, registrar) = Registrations::new();
    let (traces, exporter) = Traces::new(subscriber.current());
    let decided = registrations.clone();
    let subscriber = subscriber.telling(Arc::new(move |ended| decided.forget(ended)));
    let authz = Arc::new(Authz::new(
        Gate::new(random::bytes()?),
        subscriber.current(),
        Admissions::new(journal, window),
        Told { decisions: Arc::clone(&decisions), ids: DecisionIds::new()?, traces },
        registrations,
        clock.clone(),
    ));
    Ok(Bound { config, clock, inbound, source, subscriber, authz, registrar, exporter, decisions, lock })
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
    pub async fn run(self, mut tasks: Tasks) -> Ended {
        let Self { config, clock, inbound, source, subscriber, authz, registrar, exporter, decisions, lock } = self;
        let ready = subscriber.arrived();
        let node = format!("authz-{}", std::process::id());
        let reporter = Arc::clone(&authz);
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
        tasks.spawn("state-stream", |stop| subscriber.run(source, node, clock, move || reporter.report(), stop));
        tasks.spawn("traces", |stop| exporter.run(stop));
        tasks.spawn("decision-log", |stop| decisions.write(stop));
        let server = Server::new(authz, config.max_body_bytes, config.drain_pause, config.grace);
        tasks.spawn("authz-grpc", |stop| server.run(inbound, ready, stop));
        // Pause and grace are the server's own; what is over them does not end by itself.
        let all = config.drain_pause.saturating_add(config.grace).saturating_add(Duration::from_secs(1));
        let ended = tasks.supervise(all).await;
        drop(lock);
        ended
    }
}

/// One authz process from start to end: until SIGTERM, SIGINT or the end of its supervisor.
pub async fn run<C: Clock + Clone>(config: AuthzConfig, clock: C) -> Result<Ended, AuthzError> {
    let tasks = Tasks::default();
    let stop = tasks.stop_handle();
    let peers = peers(config.supervised, stop.clone());
    let mut signals = StopSignals::install().map_err(AuthzError::Signals)?;
    let bound = build(config, clock, peers).await?;
    let serving = bound.run(tasks);
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

fn peers(supervised: bool, stop: StopHandle) -> watch::Receiver<Option<PeerRule>> {
    if supervised { supervision::supervised_peers(stop) } else { supervision::unsupervised_peers() }
}

#[cfg(test)]
#[path = "authz_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code may panic")]
mod tests;
