//! A gateway that can start: lock and ports held, Envoy found, its configuration written.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::admin::STATE_SOCKET;
use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::instance::Instance;
use crate::app::gateway::ports;
use crate::app::gateway::ports::Reserved;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::supervisor::Supervisor;
use crate::envoy::binary;
use crate::envoy::binary::EnvoyBinary;
use crate::envoy::launch;
use crate::envoy::live;
use crate::envoy::render;
use crate::envoy::render::Rendering;
use crate::sys::env;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::files::LockError;
use crate::sys::peer;
use crate::sys::signal::StopSignals;
use crate::sys::tasks::Stop;

/// How long processes of a killed supervisor have to notice it themselves.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);
/// How long and how often the lock of a process that may be dying is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_LOOK: Duration = Duration::from_millis(20);

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
    pub(in crate::app) async fn called(&mut self) {
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
    pub(super) config: GatewayConfig,
    pub(super) addresses: Addresses,
    pub(super) reserved: Reserved,
    pub(super) envoy: EnvoyBinary,
    pub(super) lock: FileLock,
    pub(super) progress: mpsc::Sender<Progress>,
    pub(super) ready: watch::Sender<bool>,
}

impl Bound {
    /// Takes the lock and the ports, ends what a killed predecessor left, finds Envoy, writes its configuration.
    pub async fn build(mut config: GatewayConfig, progress: mpsc::Sender<Progress>) -> Result<Self, GatewayError> {
        config.data_dir = std::path::absolute(&config.data_dir).map_err(io_at(&config.data_dir))?;
        config.run_dir = std::path::absolute(&config.run_dir).map_err(io_at(&config.run_dir))?;
        for folder in [config.data_dir.clone(), config.run_dir.clone(), config.log_dir()] {
            files::own_folder(&folder).map_err(io_at(&folder))?;
        }
        for socket in [launch::AUTHZ_SOCKET, STATE_SOCKET, launch::ADMIN_SOCKET] {
            peer::check_socket_path(&config.run_dir.join(socket))?;
        }
        let lock = take_lock(&config).await?;
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
        let settings = Rendering {
            ingress: addresses.ingress.clone(),
            admin_face: addresses.envoy_admin.clone(),
            admin: addresses.admin.clone(),
            max_body_bytes: config.max_body_bytes,
            trusted_hops: config.trusted_hops,
            ca_file: ca_file()?,
        };
        live::prepare(&config.run_dir, &settings)?;
        Ok(Self { config, addresses, reserved, envoy, lock, progress, ready: watch::channel(false).0 })
    }

    /// The same; `None` where the stop came first. Installing Envoy can take minutes.
    pub async fn build_unless_stopped(
        config: GatewayConfig,
        stops: &mut Stops,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Option<Self>, GatewayError> {
        tokio::select! {
            bound = Self::build(config, progress) => bound.map(Some),
            () = stops.called() => Ok(None),
        }
    }

    /// What it will run with, for changes to what the processes are told.
    pub const fn config_mut(&mut self) -> &mut GatewayConfig {
        &mut self.config
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
        let (mut supervisor, reserved) = Supervisor::new(self)?;
        let lived = tokio::select! {
            started = supervisor.start_all(reserved) => started.map(|()| true),
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

/// Takes the lock. A killed predecessor may be on its way out and still hold it, so it is tried for a moment.
async fn take_lock(config: &GatewayConfig) -> Result<FileLock, GatewayError> {
    let address = config.ingress.first().map(ToString::to_string).unwrap_or_default();
    let own = format!("pid {} (sigilum gateway, {address})", std::process::id());
    let path = config.data_dir.join("supervisor.lock");
    let started = Instant::now();
    loop {
        match FileLock::take(&path, &own) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Io { path, source }) => return Err(GatewayError::Io { path, source }),
            Err(LockError::Held { path, holder }) => {
                if started.elapsed() > LOCK_PATIENCE {
                    return Err(GatewayError::AlreadyRunning { lock: path, holder });
                }
            }
        }
        tokio::time::sleep(LOCK_LOOK).await;
    }
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

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> GatewayError {
    let path = path.to_owned();
    move |source| GatewayError::Io { path, source }
}
