//! The local control plane as a process: locked, opened and bound first; then served.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::api::Api;
use crate::api::cors::Origins;
use crate::api::db::DbError;
use crate::api::db::OpenDb;
use crate::api::jwt_secret;
use crate::api::jwt_secret::SecretError;
use crate::api::limits::MAX_STREAMS;
use crate::api::limits::Strangers;
use crate::api::limits::Streams;
use crate::api::pairing;
use crate::api::pairing::Arrivals;
use crate::api::pairing::Pairings;
use crate::api::router::router;
use crate::api::service_key::KeyUses;
use crate::api::signed::LARGE_BODIES;
use crate::api::token;
use crate::api::token::Owner;
use crate::api::token::TokenError;
use crate::api::upkeep;
use crate::config::api::ApiSettings;
use crate::config::api::MIN_SEED_TOKEN;
use crate::dashboard;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::http_server;
use crate::sys::http_server::BindError;
use crate::sys::open_files;
use crate::sys::room::Room;
use crate::sys::tasks::Ended;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::Tasks;

pub use crate::api::db::DATABASE_FILE;
pub use crate::api::jwt_secret::FILE as JWT_SECRET_FILE;
pub use crate::api::limits::Limits;
pub use crate::api::pairing::PairingLimits;
pub use crate::api::service_key::key_hash;

/// Connections at a time: all change streams and as many requests again.
const MAX_CONNECTIONS: usize = 2 * MAX_STREAMS;

/// Files the process wants to have open: those connections, as many sockets of paired gateways as there may be, and the
/// rest.
const OPEN_FILES: u64 = 8192;
/// Of these, what is not for sockets of paired gateways: connections, database, log.
const OTHER_FILES: u64 = MAX_CONNECTIONS as u64 + 128;

/// What the control plane needs to know.
#[derive(Debug)]
pub struct ApiConfig {
    /// Where it is served.
    pub addresses: Vec<SocketAddr>,
    /// Database, lock, token secret.
    pub data_dir: PathBuf,
    /// Web origins whose pages may call.
    pub allowed_origins: Vec<String>,
    /// Origins it is reached at besides loopback, e.g. `https://api.example.com`; what is signed names one of them.
    pub public_urls: Vec<String>,
    /// Whether addresses other than loopback may be bound.
    pub allow_remote: bool,
    /// Signs owner tokens where the operator names it; otherwise it is in its file.
    pub jwt_secret: Option<Secret>,
    /// `local`, `test` or something else.
    pub environment: String,
    /// Opens the test seed; `None` = there is none.
    pub seed: Option<Secret>,
    /// Settings that bound things.
    pub limits: Limits,
    /// How long requests in flight may take once told to stop.
    pub grace: Duration,
}

impl ApiConfig {
    /// What the settings say.
    pub fn new(settings: ApiSettings, grace: Duration) -> Self {
        Self {
            addresses: settings.addresses,
            data_dir: settings.data_dir,
            allowed_origins: settings.allowed_origins,
            public_urls: settings.public_urls,
            allow_remote: settings.allow_remote,
            jwt_secret: settings.jwt_secret,
            environment: settings.environment,
            seed: settings.seed_token.filter(|_| settings.seed_enabled),
            limits: Limits {
                max_pending: settings.max_pending,
                max_agents_per_service: settings.max_agents_per_service,
                max_services_per_namespace: settings.max_services_per_namespace,
                max_services_per_account: settings.max_services_per_account,
                max_keys_per_service: settings.max_keys_per_service,
                pending_expiry: settings.pending_expiry,
                signature_max_age: settings.signature_max_age,
                nonce_ttl: settings.nonce_ttl,
                token_ttl: settings.token_ttl,
                pairing: PairingLimits { max_life: settings.pairing_max, ..PairingLimits::default() },
            },
            grace,
        }
    }
}

/// Why the control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Folder, lock, database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The token secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Other machines could reach it, and nobody said that they should.
    #[error(
        "{0} is no loopback address: the API is for this machine unless API_ALLOW_REMOTE is true and JWT_SECRET is set"
    )]
    Remote(SocketAddr),
    /// Whoever reaches the address could guess the secret, and with it be every owner.
    #[error(
        "{0} is no loopback address, and JWT_SECRET has less than {least} characters: it could be guessed there",
        least = jwt_secret::MIN_BYTES
    )]
    Guessable(SocketAddr),
}

/// Everything held; nothing served yet.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<TcpListener>,
    api: Arc<Api>,
    db_thread: JoinHandle<()>,
    arrivals: Arrivals,
    grace: Duration,
    tasks: Tasks,
}

/// Binds the addresses, locks the data folder, opens the database, reads or mints the token secret.
pub async fn build(config: ApiConfig) -> Result<Bound, ApiError> {
    // Judged first: no socket is opened that would have to be closed again.
    let remote = config.addresses.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), false) = (remote, config.allow_remote && config.jwt_secret.is_some()) {
        return Err(ApiError::Remote(*address));
    }
    let short = |secret: &Secret| secret.expose().len() < jwt_secret::MIN_BYTES;
    if let (Some(address), true) = (remote, config.jwt_secret.as_ref().is_some_and(short)) {
        return Err(ApiError::Guessable(*address));
    }
    let listeners = http_server::bind(&config.addresses).await?;
    let open = OpenDb::open(&config.data_dir, &format!("pid {} (api)", std::process::id()))?;
    let jwt_secret = match config.jwt_secret {
        Some(secret) => {
            if short(&secret) {
                tracing::warn!("JWT_SECRET has less than {} characters and could be guessed", jwt_secret::MIN_BYTES);
            }
            secret
        }
        None => jwt_secret::load_or_mint(&config.data_dir)?,
    };
    let (db, db_thread) = open.start()?;
    let tasks = Tasks::default();
    let sockets = usize::try_from(open_files::raise_to(OPEN_FILES).saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    // The route answers this machine alone, and tests choose what is short.
    if config.seed.as_ref().is_some_and(|token| token.expose().len() < MIN_SEED_TOKEN) {
        tracing::warn!(
            "SIGILUM_TEST_SEED_TOKEN has less than {MIN_SEED_TOKEN} characters: whoever on this machine guesses it approves \
             what they like"
        );
    }
    let (pairings, arrivals) = Pairings::new(db.clone(), &jwt_secret, config.limits.pairing.clone(), sockets);
    let api = Arc::new(Api {
        db,
        jwt_secret,
        limits: config.limits,
        origins: Origins::new(config.allowed_origins),
        public_urls: config.public_urls,
        environment: config.environment,
        seed_token: config.seed,
        strangers: Strangers::default(),
        key_uses: KeyUses::default(),
        large_bodies: Semaphore::new(LARGE_BODIES),
        streams: Streams::default(),
        pairings,
        stop: tasks.stop_signal(),
        clock: SystemClock,
    });
    Ok(Bound { listeners, api, db_thread, arrivals, grace: config.grace, tasks })
}

impl Bound {
    /// The addresses it is bound on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Signs owner tokens.
    pub fn jwt_secret(&self) -> &Secret {
        &self.api.jwt_secret
    }

    /// Tells it to stop.
    pub fn stop_handle(&self) -> StopHandle {
        self.tasks.stop_handle()
    }

    /// Serves until told to stop or until a part fails; then finishes requests in flight and closes the database.
    pub async fn run(self) -> Ended {
        let addresses = self.addresses();
        let Self { listeners, api, db_thread, arrivals, grace, mut tasks } = self;
        if let Err(problem) = api.pairings.recall().await {
            // Only felt where strangers are at work: until a bridge has been let in once, it waits for them.
            tracing::warn!(error = %problem.sentence(), "pair sessions could not be read");
        }
        let (upkept, db) = (Arc::clone(&api), api.db.clone());
        tasks.spawn("api-upkeep", |stop| upkeep::run(upkept, stop));
        let pairings = Arc::clone(&api.pairings);
        tasks.spawn("api-pairings", |stop| pairing::keep(pairings, arrivals, stop));
        tasks.spawn("api-db", |mut stop| async move {
            tokio::select! {
                () = db.closed() => tracing::error!("the database's thread has ended"),
                () = stop.wait() => {}
            }
        });
        let router = router(api, dashboard::pages());
        let room = Room::new(MAX_CONNECTIONS);
        for listener in listeners {
            let (router, room) = (router.clone(), Arc::clone(&room));
            tasks.spawn("api-http", |stop| http_server::serve(listener, router, room, stop));
        }
        // The router holds the database: with the last listener goes the last handle on it.
        drop(router);
        tracing::info!(?addresses, "the API is served");
        let ended = tasks.supervise(grace).await;
        tracing::info!(?ended, "the API has stopped");
        let closed = tokio::task::spawn_blocking(move || db_thread.join());
        if !matches!(tokio::time::timeout(grace, closed).await, Ok(Ok(Ok(())))) {
            tracing::warn!("the database was not closed in time");
        }
        ended
    }
}

/// Builds and runs.
pub async fn run(config: ApiConfig) -> Result<Ended, ApiError> {
    Ok(build(config).await?.run().await)
}

/// The token secret of a data folder of this machine; `None` where no API has run there yet.
pub fn local_jwt_secret(data_dir: &Path) -> Result<Option<Secret>, SecretError> {
    jwt_secret::load(data_dir)
}

/// An owner token for `namespace` as the local API issues it, good for `ttl` (at least a second) from now.
pub fn issue_local_token(
    secret: &Secret,
    namespace: &Namespace,
    email: Option<String>,
    ttl: Duration,
) -> Result<Secret, TokenError> {
    token::issue(secret, &Owner::local(namespace.clone(), email), ttl, SystemClock.now().seconds())
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "api_support_tests.rs"]
mod support;

#[cfg(test)]
#[path = "api_pairing_support_tests.rs"]
mod pairing_support;

#[cfg(test)]
#[path = "api_pairing_tests.rs"]
mod pairing_tests;

#[cfg(test)]
#[path = "api_pairing_socket_tests.rs"]
mod pairing_socket_tests;

#[cfg(test)]
#[path = "api_account_tests.rs"]
mod account_tests;

#[cfg(test)]
#[path = "api_services_tests.rs"]
mod services_tests;

#[cfg(test)]
#[path = "api_decisions_tests.rs"]
mod decisions_tests;

#[cfg(test)]
#[path = "api_face_tests.rs"]
mod face_tests;
