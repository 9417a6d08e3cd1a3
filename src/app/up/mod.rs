//! `up`: the local stack as one life in the foreground: control plane and gateway, with `--demo` something to
//! try them on.
//!
//! The control plane and the demos are tasks of this process, the gateway is supervised by it. The first that
//! ends stops the rest. At a stop the gateway drains first: requests in flight still reach the demo, and what
//! the gateway has to report still reaches the control plane.

mod bootstrap;
mod demo;
mod error;
mod keys;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::app::api;
use crate::app::api::ApiConfig;
use crate::app::api::ApiError;
use crate::app::gateway;
use crate::app::gateway::Stops;
use crate::app::gateway::config::ADMIN_PASSWORD;
use crate::app::gateway::config::ADMIN_TOKEN;
use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::config::Loader;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::instance::Instance;
use crate::app::gateway::logs::Log;
use crate::app::gateway::progress::Beside;
use crate::app::gateway::progress::Progress;
use crate::app::up::bootstrap::Keys;
use crate::app::up::demo::Listeners;
use crate::app::up::demo::Source;
use crate::demo as services;
use crate::domain::log_line::LogStream;
use crate::domain::secret::Secret;
use crate::identity::Identity;
use crate::sys::files;
use crate::sys::http_server::BindError;
use crate::sys::local_http;
use crate::sys::process;
use crate::sys::tasks::Ended;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::stop_pair;
use crate::telemetry::log;
use crate::telemetry::log::LogError;
pub use demo::CONNECTION;
pub use error::SetupError;

/// What the local control plane is called among what stands beside a gateway.
pub const API: &str = "api";
/// Name of the part that speaks in the log of this process.
const API_LOG: &str = "api";
/// The variables that may name the admin token or password; no more than one of them is handed over.
const ADMIN_SECRETS: [&str; 2] = [ADMIN_TOKEN, ADMIN_PASSWORD];
/// The variable under which admin finds the key for connections without one of their own.
const SERVICE_KEY: &str = "SIGILUM_SERVICE_API_KEY";
/// The variables that name the control plane.
const API_URL: [&str; 2] = ["SIGILUM_API_URL", "SIGILUM_REGISTRY_URL"];

/// What stands beside the gateway.
#[derive(Debug)]
pub struct StackConfig {
    /// The local control plane.
    pub api: ApiConfig,
    /// Level of what this process itself logs, to `api.jsonl` beside the logs of the gateway.
    pub log_level: String,
    /// The gateway's identity; its namespace owns the services, and it is the demo's agent.
    pub identity: Identity,
    /// Where the keys of services are kept.
    pub home: PathBuf,
    /// The token of the test seed that was made for this run, and where others of this user find it meanwhile.
    pub seed_file: Option<(PathBuf, Secret)>,
    /// The demo, where it is wanted.
    pub demo: Option<DemoPorts>,
}

/// Where the demo services listen, on loopback.
#[derive(Debug, Clone, Copy)]
pub struct DemoPorts {
    /// The one that verifies its callers itself.
    pub native: u16,
    /// The one behind the gateway.
    pub upstream: u16,
}

/// Why `up` ended early.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The gateway did.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The control plane did not start.
    #[error("the local API does not start: {0}")]
    Api(#[from] ApiError),
    /// The control plane ended by itself.
    #[error("the local API ended by itself ({0})")]
    ApiEnded(String),
    /// The stack could not be set up.
    #[error("the local stack could not be set up: {0}")]
    Setup(#[from] SetupError),
    /// The log could not be begun.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A demo service ended.
    #[error(transparent)]
    Demo(#[from] services::DemoError),
}

/// Runs the stack until the stop. `stop` is the handle behind `stops`: whatever fails stops the rest.
pub async fn run(
    config: GatewayConfig,
    loader: Loader,
    stack: StackConfig,
    mut stops: Stops,
    stop: StopHandle,
    progress: mpsc::Sender<Progress>,
) -> Result<(), UpError> {
    let StackConfig { api, log_level, identity, home, seed_file, demo } = stack;
    // Locks and ports first: a second start must find them taken, and leave everything as it is.
    refuse_second(&config)?;
    begin_log(&config, &log_level, &progress)?;
    let built = gateway::Bound::build_unless_stopped(config, loader, &mut stops, progress.clone()).await?;
    let Some(mut bound) = built else { return Ok(()) };
    let api = api::build(api).await.map_err(taken)?;
    let listeners = match demo {
        Some(ports) => Some(Listeners::bind(ports.native, ports.upstream)?),
        None => None,
    };
    let (address, base) = place(&api.addresses());
    let secret = api.jwt_secret().duplicate();
    let mut beside: Vec<_> = address.map(|address| Beside { name: API.to_owned(), address }).into_iter().collect();
    beside.extend(listeners.iter().flat_map(Listeners::beside));
    let _seed = seed_file.map(|(file, token)| SeedFile::write(file, &token)).transpose()?;
    let keys = Keys::of(&home, demo.is_some())?;
    {
        let (base, key, beside) = (base.clone(), keys.gateway.duplicate(), beside.clone());
        bound.amend(move |config| {
            config.beside.clone_from(&beside);
            configure(config, &base, &key);
        });
    }
    let token = admin_token(bound.config_mut());
    let trust = bound.config_mut().admin_trust.clone();
    let token_file = bound.config_mut().admin_secret_file.clone();
    let addresses = bound.addresses().clone();
    let demo = match (listeners, &keys.demo) {
        (Some(listeners), Some((native, _))) => {
            let secret = keys::upstream_key(&home)?;
            let source = Source::new(&base, &home, native.duplicate())?;
            Some(Demo { listeners, secret, source })
        }
        _ => None,
    };

    let api_stop = api.stop_handle();
    let serve_api = async {
        let ended = api.run().await;
        stop.stop();
        match ended {
            // Somebody's request that does not end is no failure of ours.
            Ended::Stopped | Ended::Forced => Ok(()),
            Ended::Early(task) => Err(UpError::ApiEnded(task.unwrap_or("a task failed").to_owned())),
        }
    };
    let (demo_stop, demo_stopped) = stop_pair();
    let demo_places = demo.as_ref().map(|demo| (demo.listeners.addresses, demo.secret.duplicate()));
    let (prepared, preparing) = oneshot::channel();
    let serve_demo = async {
        let Some(Demo { listeners, secret, source }) = demo else { return Ok(()) };
        // Before that the API does not know the key the native service reads its approvals with.
        if preparing.await.is_err() {
            return Ok(());
        }
        let Listeners { native, upstream, .. } = listeners;
        let native = demo::listen("the native demo service", native);
        let both = native.and_then(|native| Ok((native, demo::listen("the demo upstream", upstream)?)));
        let (native, upstream) = both.inspect_err(|_| stop.stop())?;
        let behind = services::run(upstream, secret, demo_stopped.clone());
        let itself = services::run_native(native, || source.read(), demo_stopped.clone());
        let ended = tokio::try_join!(stopping(behind, &stop), stopping(itself, &stop));
        ended.map(drop).map_err(UpError::from)
    };
    let mut ready = bound.ready();
    let set_up = async {
        if ready.wait_for(|ready| *ready).await.is_err() {
            // It never became ready; why is said elsewhere.
            return Ok(());
        }
        let done = async {
            let places = demo_places.zip(addresses.admin.first()).zip(addresses.ingress.first());
            if let Some(((([native, upstream], secret), admin), ingress)) = places {
                demo::connect((*admin, trust), token, &token_file, upstream, &secret).await?;
                demo::prove((!addresses.ingress_tls).then_some(*ingress), native, &identity, &progress).await?;
            }
            let connection = keys.demo.as_ref().map(|_| CONNECTION);
            let stands = Progress::StackReady { gateway: addresses.clone(), beside, demo: connection };
            let _ = progress.try_send(stands);
            Ok::<_, SetupError>(())
        };
        let done = done.await;
        if done.is_err() {
            stop.stop();
        }
        done.map_err(UpError::from)
    };
    let live = async {
        let bootstrapped = tokio::select! {
            done = bootstrap::run(&base, &secret, &identity, &keys, &progress) => {
                done.map(|()| true).map_err(UpError::from)
            }
            () = stops.called() => Ok(false),
        };
        let ended = match bootstrapped {
            Ok(true) => {
                // Nobody listens where there is no demo.
                let _ = prepared.send(());
                bound.run(&mut stops).await.map_err(UpError::from)
            }
            Ok(false) => {
                drop(bound);
                Ok(())
            }
            Err(error) => {
                drop(bound);
                Err(error)
            }
        };
        demo_stop.stop();
        api_stop.stop();
        ended
    };
    let (lived, api_ended, demo_ended, done) = tokio::join!(live, serve_api, serve_demo, set_up);
    // A part that ended by itself is the cause of what the others say.
    api_ended?;
    demo_ended?;
    lived?;
    // What was stopped while it was being set up did not fail.
    if stops.is_signalled() { Ok(()) } else { done }
}

/// A second start of this installation is told so before it trips over a port. What decides is the lock.
fn refuse_second(config: &GatewayConfig) -> Result<(), GatewayError> {
    let Some(instance) = Instance::read(&config.run_dir).filter(|instance| instance.supervisor.is_alive()) else {
        return Ok(());
    };
    let holder = format!("pid {}", instance.supervisor.pid);
    Err(GatewayError::AlreadyRunning { lock: config.data_dir.join(gateway::LOCK_FILE), holder })
}

/// What runs within this process is logged beside the logs of the gateway's processes.
fn begin_log(config: &GatewayConfig, level: &str, progress: &mpsc::Sender<Progress>) -> Result<(), UpError> {
    let folder = config.log_dir();
    let at = |source| GatewayError::Io { path: folder.clone(), source };
    for folder in [&config.data_dir, &folder] {
        files::own_folder(folder).map_err(at)?;
    }
    let log = Log::open(LogStream::Api, config).map_err(at)?;
    let progress = progress.clone();
    // Weak: what is logged at the very end must not keep the one waiting who shows it.
    let progress = progress.downgrade();
    let sink = move |event: &[u8]| match progress.upgrade() {
        Some(progress) => log.event(API_LOG, event, &progress),
        None => log.keep(event),
    };
    Ok(log::begin_into(level, sink)?)
}

/// A port that somebody has is told with its holder, as the gateway's are.
fn taken(error: ApiError) -> UpError {
    match error {
        ApiError::Bind(BindError::Io { address, source }) if source.kind() == io::ErrorKind::AddrInUse => {
            let holder = process::port_holder(address.port());
            UpError::Gateway(GatewayError::PortInUse { what: "the local API", address, holder })
        }
        other @ (ApiError::Db(_)
        | ApiError::Secret(_)
        | ApiError::Bind(_)
        | ApiError::Remote(_)
        | ApiError::Guessable(_)) => UpError::Api(other),
    }
}

/// What it takes to run the demo.
struct Demo {
    listeners: Listeners,
    secret: Secret,
    source: Source,
}

/// The file with the token of the test seed; gone when the run is over.
struct SeedFile(PathBuf);

impl SeedFile {
    fn write(path: PathBuf, token: &Secret) -> Result<Self, SetupError> {
        match files::write_private(&path, token.expose().as_bytes()) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(SetupError::Io { path, source }),
        }
    }
}

impl Drop for SeedFile {
    fn drop(&mut self) {
        // One that stays opens nothing: the next run has another.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The end of one part stops the others.
async fn stopping<T>(part: impl Future<Output = T>, stop: &StopHandle) -> T {
    let ended = part.await;
    stop.stop();
    ended
}

/// Where this machine reaches the control plane.
fn place(addresses: &[SocketAddr]) -> (Option<SocketAddr>, String) {
    let first = addresses.first().copied();
    let reached = first.map(local_http::reachable).map(|address| address.to_string()).unwrap_or_default();
    (first, format!("http://{reached}"))
}

/// Has admin ask this control plane, with this key where a connection has none of its own.
fn configure(config: &mut GatewayConfig, base: &str, key: &Secret) {
    config.admin_environment.retain(|(name, _)| !API_URL.contains(&name.as_str()));
    config.admin_environment.extend(API_URL.map(|name| (name.to_owned(), base.to_owned())));
    if !config.admin_secrets.iter().any(|(name, _)| name == SERVICE_KEY) {
        config.admin_secrets.push((SERVICE_KEY.to_owned(), key.duplicate()));
    }
}

fn admin_token(config: &GatewayConfig) -> Option<Secret> {
    let given = config.admin_secrets.iter().find(|(name, _)| ADMIN_SECRETS.contains(&name.as_str()));
    given.map(|(_, token)| token.duplicate())
}
