//! The admin process: locked, opened, proven and bound first; then served.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::sync::watch;

use crate::admin::Admin;
use crate::admin::ClaimsWatch;
use crate::admin::access;
use crate::admin::access::AccessRule;
use crate::admin::attempts::Attempts;
use crate::admin::catalog;
use crate::admin::drain;
use crate::admin::drain::DrainDesk;
use crate::admin::feed;
use crate::admin::health_watch;
use crate::admin::health_watch::Health;
use crate::admin::health_watch::Places;
use crate::admin::legacy::LegacyDesk;
use crate::admin::meter::Meter;
use crate::admin::origin::Pages;
use crate::admin::probes::Tests;
use crate::admin::reload::ReloadDesk;
use crate::admin::router::router;
use crate::admin::token::AdminSecret;
use crate::admin::token::TokenError;
use crate::admin::upkeep::COPIES;
use crate::app::admin_access;
use crate::app::admin_access::Proven;
use crate::app::admin_outward::connect;
use crate::app::admin_outward::report_usage;
use crate::app::state_door::DoorError;
use crate::app::state_door::Fleet;
use crate::app::state_door::StateDoor;
use crate::claims::refresh::Advance;
use crate::claims::refresh::Claims;
use crate::claims::registrar;
use crate::claims::registrar::RegistrarConfig;
use crate::claims::usage;
use crate::claims::usage::Usage;
use crate::config::guard;
use crate::config::guard::OpenBind;
use crate::config::parts::AccessMode;
use crate::config::parts::DeclaredApproval;
use crate::config::parts::GivenSecret;
use crate::config::parts::ProxyRule;
use crate::config::parts::UsageOptions;
use crate::domain::address::AddressPolicy;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::domain::snapshot::Settings;
use crate::envoy::launch;
use crate::envoy::live::Live;
use crate::envoy::live::LiveError;
use crate::reload;
use crate::reload::Reloader;
use crate::secrets::Environment;
use crate::secrets::Resolver;
use crate::secrets::exec::Launcher;
use crate::state::Publisher;
use crate::store::StoreError;
use crate::store::declared::Resolved;
use crate::store::master_keys::MasterKeys;
use crate::store::vault::Vault;
use crate::store::worker::OpenStore;
use crate::store::worker::Store;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files::check_folder;
use crate::sys::files::folder_of;
use crate::sys::files::own_folder;
use crate::sys::http_server;
use crate::sys::http_server::BindError;
use crate::sys::peer::SocketError;
use crate::sys::peer::SocketName;
use crate::sys::peer::bind_private;
use crate::sys::peer::check_socket_path;
use crate::sys::random;
use crate::sys::random::RandomError;
use crate::sys::room::Room;
use crate::sys::spawner::Spawner;
use crate::sys::supervision::supervised_peers;
use crate::sys::supervision::unsupervised_peers;
use crate::sys::tasks::Ended;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::Tasks;
use crate::sys::tls::TlsError;
use crate::sys::tls::serving::Serving;
use crate::sys::tls::serving::ServingFiles;
use crate::telemetry::log_reader::LogPlaces;
use crate::telemetry::metrics::DrainOutcome;
use crate::telemetry::metrics::Metrics;

pub use crate::admin::legacy_scan::LegacyPlaces;
pub use crate::admin::token;
pub use crate::claims::keys::KeyPlaces;
pub use crate::store::worker::DATABASE_FILE;

/// Connections to the API at a time, on all addresses together.
const MAX_CONNECTIONS: usize = 256;
/// Name of the state stream's socket in the run folder.
pub const STATE_SOCKET: &str = "state.sock";

/// What the admin process needs to know.
#[derive(Debug)]
pub struct AdminConfig {
    /// Where the API is served.
    pub addresses: Vec<SocketAddr>,
    /// Store, lock, token.
    pub data_dir: PathBuf,
    /// State socket, access log.
    pub run_dir: PathBuf,
    /// The state socket where it is elsewhere: in a folder that authz alone shares.
    pub state_socket: Option<PathBuf>,
    /// Opens the store.
    pub master_key: MasterKeys,
    /// The file of the service catalog.
    pub service_catalog: PathBuf,
    /// Where the service keys are.
    pub keys: Arc<KeyPlaces>,
    /// Where OpenClaw keeps keys in clear.
    pub legacy: LegacyPlaces,
    /// Who may use the API.
    pub access_mode: AccessMode,
    /// The token where the environment names it; otherwise it is in its file.
    pub token: Option<Secret>,
    /// The password; mode `password` cannot do without.
    pub password: Option<GivenSecret>,
    /// What opens the metrics alone; `None`: nothing does.
    pub metrics_token: Option<GivenSecret>,
    /// Whose word counts; mode `trusted-proxy` cannot do without.
    pub proxy: Option<ProxyRule>,
    /// Web origins that may call; `None` = those of this machine with our port.
    pub allowed_origins: Option<Vec<String>>,
    /// Hosts a change may name besides our own addresses.
    pub allowed_hosts: Vec<String>,
    /// Its certificate; `None`: plain HTTP.
    pub tls: Option<ServingFiles>,
    /// What decisions depend on.
    pub settings: Settings,
    /// Approvals of the configuration file.
    pub approvals: Vec<DeclaredApproval>,
    /// Versions of a connection's secrets that are kept, the one in use included.
    pub kept_secret_versions: u32,
    /// How the addresses of the admin API came about, as the settings call it.
    pub bind_mode: &'static str,
    /// Where the ports of the admin API and of agents come from: `option`, `environment`, `file`, `default`.
    pub port_sources: [&'static str; 2],
    /// Where Envoy takes the requests of agents.
    pub ingress: Vec<SocketAddr>,
    /// Ports this gateway listens on; no connection may lead there.
    pub own_ports: Vec<u16>,
    /// Whether a supervisor holds our standard input and names the one authz that may connect.
    pub supervised: bool,
    /// How long requests in flight may take once told to stop.
    pub grace: Duration,
    /// Who is sent the state over the network.
    pub fleet: Fleet,
    /// How approvals come from the Sigilum API; `None`: only declared ones count.
    pub claims: Option<ClaimsSetup>,
    /// The configuration file, with what it declares; `None`: none is read, and none is watched.
    pub file: Option<FileSetup>,
}

/// The configuration file: what it declares, and how it is read again.
#[derive(Debug)]
pub struct FileSetup {
    /// How it was read, and is again.
    pub reload: reload::Setup,
    /// Where secrets of the environment are.
    pub environment: Environment,
    /// This program, through which programs that know secrets are started; `None`: directly.
    pub shim: Option<PathBuf>,
}

/// Ends this process so that its supervisor starts the whole gateway anew, with the settings as they are then.
#[derive(Debug, Clone)]
pub struct Anew {
    asked: Arc<AtomicBool>,
    stop: StopHandle,
}

impl Anew {
    /// Asks for it: requests in flight are finished, and the process ends with
    /// [`crate::sys::supervision::EXIT_ANEW`].
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.stop.stop();
    }

    /// Whether it was asked for.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

/// What the control plane is asked with. Where the identity is missing nobody is asked.
#[derive(Debug)]
pub struct ClaimsSetup {
    /// Address of the Sigilum API.
    pub api_url: String,
    /// Whether every connection is to be approved there; else only those that have a service key.
    pub every_service: bool,
    /// The gateway's own namespace, and the folder of its identity; nothing is made there.
    pub namespace: Namespace,
    /// Folder that holds `identities/`.
    pub home: PathBuf,
    /// Time between two readings.
    pub refresh: Duration,
    /// Most approvals of one service.
    pub max_approvals: usize,
    /// Submissions of unapproved callers in any minute, all together; 0 = no limit.
    pub registrations_per_minute: u32,
    /// What it is told of usage.
    pub usage: UsageOptions,
}

/// Why the admin process could not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody would be asked who comes.
    #[error(transparent)]
    Open(#[from] OpenBind),
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The API's addresses.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The state stream for other hosts.
    #[error("the state stream for other hosts: {0}")]
    Door(#[from] DoorError),
    /// The state socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What Envoy runs with.
    #[error(transparent)]
    Envoy(#[from] LiveError),
    /// References of the configuration file without a secret.
    #[error("secret reference unresolved: {}", .0.join("; "))]
    Secrets(Vec<String>),
    /// The thread that starts programs.
    #[error("no program can be started: {0}")]
    Spawner(std::io::Error),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A folder.
    #[error("{path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The metrics could not be set up.
    #[error("metrics: {0}")]
    Metrics(String),
}

/// Everything held and proven; nothing served yet.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<TcpListener>,
    tls: Option<Serving>,
    state: (UnixListener, SocketName),
    door: Option<StateDoor>,
    admin: Arc<Admin>,
    store: Store,
    store_thread: JoinHandle<()>,
    meter: Meter,
    claims: Option<Claims>,
    registrar: Option<RegistrarConfig>,
    usage: Option<Usage>,
    reloader: Option<Reloader>,
    live: Option<Arc<Live>>,
    supervised: bool,
    grace: Duration,
    anew: Arc<AtomicBool>,
    tasks: Tasks,
}

/// Locks the data folder, opens the store with its key, reads or mints the token, binds addresses and socket.
pub async fn build(config: AdminConfig) -> Result<Bound, AdminError> {
    if let Some(why) = config.file.as_ref().and_then(|file| file.reload.held_back.as_ref()) {
        tracing::error!(why, "the settings file cannot be used; the gateway runs with the last settings it could use");
    }
    let state_path = config.state_socket.clone().unwrap_or_else(|| config.run_dir.join(STATE_SOCKET));
    check_socket_path(&state_path)?;
    // Judged first: no socket is opened that would have to be closed again.
    let secret = admin_access::prove(&config)?;
    let unguarded = admin_access::unguarded(&config);
    guard::check(&config.addresses, unguarded)?;
    let tls = config.tls.map(Serving::load).transpose()?;
    access::warn_of_clear(&config.addresses, tls.is_some());
    let listeners = http_server::bind(&config.addresses).await?;
    let door = match &config.fleet.listener {
        Some(listener) => Some(StateDoor::open(listener).await?),
        None => None,
    };
    let holder = format!("pid {} (admin)", std::process::id());
    // Deriving a key from a passphrase and reading the store take a while; nothing else runs yet.
    let mut open = OpenStore::open_with(&config.data_dir, &config.master_key, &holder)?;
    drop(config.master_key);
    let outward = config.claims.as_ref().map(|setup| setup.usage);
    let (connected, pace) = config.claims.and_then(|setup| connect(setup, Arc::clone(&config.keys))).unzip();
    let mut settings = config.settings;
    // Nobody can be submitted to an API that is not asked.
    settings.auto_register &= connected.is_some();
    let file = match config.file {
        Some(file) => Some(resolve(file, &open.vault).await?),
        None => None,
    };
    let declared = match &file {
        Some((setup, _, found)) => found.declared(&setup.loaded.config),
        None => Resolved { approvals: config.approvals, ..Resolved::default() },
    };
    let declared = Resolved { settings: settings.clone(), ..declared };
    open.vault.keep_versions(config.kept_secret_versions)?;
    let mut initial = feed::initial_state(&mut open.vault, declared, SystemClock.now().wall)?;
    let secret = match secret {
        Proven::Known(secret) => Some(*secret),
        Proven::OfFolder => Some(AdminSecret::of_folder(&config.data_dir)?),
        Proven::Nothing => None,
    };
    let metrics_token = admin_access::metrics(config.metrics_token.as_ref(), secret.as_ref())?;
    own_folder(&config.run_dir).map_err(|source| AdminError::Folder { path: config.run_dir.clone(), source })?;
    let state_folder = folder_of(&state_path);
    check_folder(state_folder).map_err(|source| AdminError::Folder { path: state_folder.to_owned(), source })?;
    let drain = Arc::new(DrainDesk::open(&config.run_dir, SystemClock.now().wall));
    initial.settings.draining_until_ms = drain.until_ms();
    let state = (bind_private(&state_path).await?, SocketName::of(&state_path));
    catalog::make_if_missing(&config.service_catalog);
    access::warn_of_mode(config.access_mode);
    let publisher = Publisher::new(initial);
    publisher.set_workloads(config.fleet.workloads);
    let places = Places {
        lock: open.lock_watch()?,
        data_dir: config.data_dir.clone(),
        run_dir: config.run_dir.clone(),
        own_envoy: config.supervised,
        api: connected.as_ref().map(|claims| claims.client.address().to_owned()),
    };
    let (store, store_thread) = open.start(feed::listener(publisher.clone()))?;
    let metrics = Arc::new(Metrics::new().map_err(|error| AdminError::Metrics(error.to_string()))?);
    let envoy_socket = config.run_dir.join(launch::ADMIN_SOCKET);
    let mut meter = Meter::new(publisher.clone(), Arc::clone(&metrics), store.clone(), &config.run_dir, &envoy_socket);
    let usage = match (&connected, outward) {
        (Some(claims), Some(UsageOptions { enabled: true, max_backlog_bytes })) => {
            let usage = report_usage(claims, &config.run_dir, max_backlog_bytes, &metrics);
            meter = meter.also_read(usage::position_file(&config.run_dir));
            Some(usage.map_err(|source| AdminError::Folder { path: config.run_dir.clone(), source })?)
        }
        _ => {
            usage::forget(&config.run_dir)
                .map_err(|source| AdminError::Folder { path: config.run_dir.clone(), source })?;
            None
        }
    };
    let (claims, registrar) = connected
        .map(|claims_config| {
            let (client, keys) = (Arc::clone(&claims_config.client), Arc::clone(&claims_config.keys));
            let claims = Claims::new(claims_config, publisher.clone(), advance(store.clone()), Arc::clone(&metrics));
            let (poke, pace, metrics) = (claims.poke(), claims.pace(), Arc::clone(&metrics));
            (claims, RegistrarConfig { client, keys, pace, poke, metrics })
        })
        .unzip();
    let shown = Arc::clone(metrics.data_plane());
    let live = if config.supervised { Some(Arc::new(Live::open(&config.run_dir, shown)?)) } else { None };
    let health = Health::new(places, meter.canaries(), random::uuid()?, SystemClock.now().monotonic);
    if let Some(live) = &live {
        health.ingress_tls.store(live.settings().await.tls.map(Arc::new));
    }
    let watch = |claims: &Claims| ClaimsWatch { overview: claims.overview(), pace: claims.pace(), poke: claims.poke() };
    let mut own_ports = config.own_ports;
    own_ports.extend(listeners.iter().filter_map(|listener| listener.local_addr().ok()).map(|address| address.port()));
    let port = listeners.first().and_then(|listener| listener.local_addr().ok()).map_or(0, |address| address.port());
    let (standing, told) = watch::channel(reload::standing(file.as_ref().map(|(setup, ..)| setup)));
    let (desk, asks) = ReloadDesk::new(told);
    let admin = Arc::new(Admin {
        store: store.clone(),
        publisher,
        access: AccessRule {
            mode: config.access_mode,
            secret,
            metrics: metrics_token,
            proxy: config.proxy,
            certificates: tls.as_ref().is_some_and(Serving::asks),
        },
        attempts: Attempts::default(),
        pages: ArcSwap::from_pointee(Pages::new(config.allowed_origins, config.allowed_hosts, tls.is_some(), port)),
        addresses: ArcSwap::from_pointee(AddressPolicy {
            allow_loopback: settings.allow_loopback,
            allow_private: settings.allow_private,
            own_ports,
        }),
        drain,
        health: Arc::new(health),
        bind_mode: config.bind_mode,
        port_sources: config.port_sources,
        addresses_bound: listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect(),
        reload: desk,
        prober: Arc::default(),
        tests: Tests::default(),
        refusals: meter.refusals(),
        catalog: config.service_catalog,
        ingress: ArcSwap::from_pointee(config.ingress),
        logs: LogPlaces { data_dir: config.data_dir, run_dir: config.run_dir },
        keys: config.keys,
        legacy: LegacyDesk::new(config.legacy),
        copies: Arc::new(Semaphore::new(COPIES)),
        metrics,
        claims: claims.as_ref().map(watch),
        envoy_socket,
        clock: SystemClock,
    });
    let (tasks, anew) = (Tasks::default(), Arc::<AtomicBool>::default());
    let again = Anew { asked: Arc::clone(&anew), stop: tasks.stop_handle() };
    let restart = config.supervised.then_some(Box::new(move || again.ask()) as Box<dyn Fn() + Send + Sync>);
    let reloader = file.map(|(setup, resolver, found)| {
        let reload::Setup { read, file, loaded, held_back } = setup;
        let parts = reload::Parts {
            read,
            file,
            held_back,
            resolver,
            admin: Arc::clone(&admin),
            asks,
            standing,
            claims: pace,
            live: live.clone(),
            restart,
        };
        Reloader::new(parts, loaded, found)
    });
    let reloader = reloader.transpose()?;
    Ok(Bound {
        listeners,
        tls,
        state,
        door,
        admin,
        store,
        store_thread,
        meter,
        claims,
        registrar,
        usage,
        reloader,
        live,
        supervised: config.supervised,
        grace: config.grace,
        anew,
        tasks,
    })
}

impl Bound {
    /// The addresses the API is bound on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The addresses the state is streamed on to other hosts.
    pub fn state_addresses(&self) -> Vec<SocketAddr> {
        self.door.as_ref().map_or_else(Vec::new, StateDoor::addresses)
    }

    /// The Envoy whose configuration this process may change while it runs; `None` where no supervisor runs both.
    pub const fn live(&self) -> Option<&Arc<Live>> {
        self.live.as_ref()
    }

    /// For whoever finds that only a start anew lets a change count; `None` where no supervisor would start it.
    pub fn anew(&self) -> Option<Anew> {
        let anew = || Anew { asked: Arc::clone(&self.anew), stop: self.tasks.stop_handle() };
        self.supervised.then(anew)
    }

    /// Tells the process to stop.
    pub fn stop_handle(&self) -> StopHandle {
        self.tasks.stop_handle()
    }

    /// Serves until told to stop or until a part fails; then finishes requests in flight and closes the store.
    pub async fn run(self) -> Ended {
        let Self { listeners, tls, state, door, admin, store, store_thread, supervised, grace, mut tasks, .. } = self;
        let (listener, name) = state;
        let peers = if supervised { supervised_peers(tasks.stop_handle()) } else { unsupervised_peers() };
        let addresses: Vec<_> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let publisher = admin.publisher.clone();
        let metrics = Arc::clone(&admin.metrics);
        tasks.spawn("state-stream", |stop| async move {
            publisher.serve_unix(listener, peers, stop).await;
            // While the lock of the data folder is ours: no other admin of it has come yet.
            name.remove();
        });
        if let Some(door) = door {
            door.serve(&admin.publisher, &mut tasks);
        }
        tasks.spawn("meter", |stop| self.meter.run(stop));
        let drained = Arc::clone(&admin);
        tasks.spawn("drain", |stop| drain::look_after(drained, stop));
        if let Some(claims) = self.claims {
            tasks.spawn("claims", |stop| claims.run(stop));
        }
        if let Some(config) = self.registrar {
            let registrations = admin.publisher.registrations();
            tasks.spawn("registrar", |stop| registrar::run(config, registrations, stop));
        }
        if let Some(usage) = self.usage {
            tasks.spawn("usage", |stop| usage.run(stop));
        }
        if let Some(live) = self.live {
            tasks.spawn("certificates", |stop| live.watch(stop));
        }
        if let Some(reloader) = self.reloader {
            tasks.spawn("reload", |stop| reloader.run(stop));
        }
        tasks.spawn("store", |mut stop| async move {
            tokio::select! {
                () = store.closed() => tracing::error!("the store's thread has ended"),
                () = stop.wait() => {}
            }
        });
        if let Some(tls) = tls.clone() {
            tasks.spawn("certificates", |stop| tls.follow(stop));
        }
        let looked_at = Arc::clone(&admin);
        tasks.spawn("health", |stop| health_watch::run(looked_at, stop));
        let router = router(admin);
        let room = Room::guarded(MAX_CONNECTIONS);
        for listener in listeners {
            let (router, room, tls) = (router.clone(), Arc::clone(&room), tls.clone());
            tasks.spawn("admin-http", |stop| http_server::serve_with(listener, tls, router, room, stop));
        }
        // The router holds the store: with the last listener goes the last handle on it.
        drop(router);
        tracing::info!(?addresses, "the admin API is served");
        let mut stop = tasks.stop_signal();
        let stopped_at = async {
            stop.wait().await;
            SystemClock.now().monotonic
        };
        let (ended, stopped_at) = tokio::join!(tasks.supervise(grace), stopped_at);
        let outcome = if ended == Ended::Forced { DrainOutcome::Forced } else { DrainOutcome::Clean };
        let took_ms = SystemClock.now().monotonic.since(stopped_at);
        metrics.record_drain(outcome, took_ms as f64 / 1000.0);
        tracing::info!(?ended, took_ms, "the admin API has stopped");
        // With the last handle gone the thread closes the database and gives the lock back.
        let closed = tokio::task::spawn_blocking(move || store_thread.join());
        if !matches!(tokio::time::timeout(grace, closed).await, Ok(Ok(Ok(())))) {
            tracing::warn!("the store was not closed in time");
        }
        ended
    }
}

/// Builds and runs.
pub async fn run(config: AdminConfig) -> Result<Ended, AdminError> {
    Ok(build(config).await?.run().await)
}

/// Everything the configuration file refers to, found.
async fn resolve(file: FileSetup, vault: &Vault) -> Result<(reload::Setup, Resolver, reload::Found), AdminError> {
    let FileSetup { reload: setup, environment, shim } = file;
    let spawner = Spawner::start().map_err(AdminError::Spawner)?;
    let resolver = Resolver::new(Launcher::new(spawner, shim), environment);
    let found = reload::begin(&setup.loaded.config, &resolver, vault).await.map_err(AdminError::Secrets)?;
    Ok((setup, resolver, found))
}

/// A version of the store for each change of claims, made on its thread.
fn advance(store: Store) -> Advance {
    Box::new(move |work| {
        let store = store.clone();
        Box::pin(async move { store.advance(work).await.map_err(|error| error.to_string()) })
    })
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "admin_outward_tests.rs"]
mod outward_tests;
