//! A gateway that can start: lock and ports held, Envoy found, its configuration written.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::admin::STATE_SOCKET;
use crate::app::gateway::ask::Event;
use crate::app::gateway::ask::Phase;
use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::config::LAST_GOOD_FILE;
use crate::app::gateway::config::Loader;
use crate::app::gateway::control::CONTROL_SOCKET;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::frame::Frame;
use crate::app::gateway::instance::Instance;
use crate::app::gateway::locks::Locks;
use crate::app::gateway::ports;
use crate::app::gateway::ports::Reserved;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::record::LastShutdown;
use crate::app::gateway::record::Went;
use crate::app::gateway::supervisor::Lived;
use crate::app::gateway::supervisor::Supervisor;
use crate::app::gateway::watchdog;
use crate::config::guard;
use crate::domain::secret::Secret;
use crate::envoy::binary;
use crate::envoy::binary::EnvoyBinary;
use crate::envoy::launch;
use crate::envoy::live;
use crate::envoy::render;
use crate::envoy::render::Rendering;
use crate::reload::Content;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::env;
use crate::sys::files;
use crate::sys::peer;
use crate::sys::service::ServiceManager;
use crate::sys::short_name;
use crate::sys::signal::RestartSignals;
use crate::sys::signal::StopSignals;
use crate::sys::tasks::Stop;

/// How long a start may take altogether: Envoy is fetched, and each process has its own deadline.
pub const START_PATIENCE: Duration = Duration::from_secs(600);
/// How long processes of a killed supervisor have to notice it themselves.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);
/// What is written down as the cause of a stop that was called in this process.
const OWN: &str = "stop";
/// How long and how often a port is tried that an outgoing connection has. Long enough that a unit that is started again each
/// time never is for too often (`StartLimitBurst=`).
const PORT_PATIENCE: Duration = Duration::from_secs(15);
const PORT_LOOK: Duration = Duration::from_millis(500);
/// Sockets that the processes make in the run folder.
const PROCESS_SOCKETS: [&str; 3] = [launch::AUTHZ_SOCKET, STATE_SOCKET, launch::ADMIN_SOCKET];

/// What calls the stop: a signal, or somebody in this process. A second signal forces it.
#[derive(Debug)]
pub struct Stops {
    signals: StopSignals,
    also: Stop,
    cause: Option<&'static str>,
}

impl Stops {
    /// Listens to both.
    pub const fn new(signals: StopSignals, also: Stop) -> Self {
        Self { signals, also, cause: None }
    }

    /// Returns when the stop is called.
    pub(in crate::app) async fn called(&mut self) {
        let cause = tokio::select! {
            signal = self.signals.next() => signal,
            () = self.also.wait() => OWN,
        };
        self.cause.get_or_insert(cause);
    }

    /// Whether a signal called it, and not somebody in this process.
    pub(in crate::app) fn is_signalled(&self) -> bool {
        self.cause.is_some_and(|cause| cause != OWN)
    }

    /// What called it: `SIGTERM`, `SIGINT` or `stop`; `None` where nothing has.
    pub(super) const fn cause(&self) -> Option<&'static str> {
        self.cause
    }

    /// Returns at the next signal.
    pub(super) async fn forced(&mut self) {
        self.signals.next().await;
    }

    /// Returns at the next call: what forces the stop where it was `called` before, else the stop.
    pub(super) async fn next(&mut self, called: bool) {
        if called {
            self.forced().await;
        } else {
            self.called().await;
        }
    }
}

/// What ran before, and where it listened.
pub(super) struct Last {
    pub(super) config: GatewayConfig,
    pub(super) addresses: Addresses,
}

/// A gateway whose lock and ports are held and whose Envoy is found; nothing runs yet.
pub struct Bound {
    pub(super) config: GatewayConfig,
    pub(super) addresses: Addresses,
    pub(super) reserved: Reserved,
    pub(super) envoy: EnvoyBinary,
    pub(super) frame: Frame,
    /// To go back to where this does not start.
    before: Option<Box<Last>>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bound").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Bound {
    /// Takes the lock and the ports, ends what a killed predecessor left, finds Envoy, writes its configuration. `loader`
    /// reads the settings again when they have changed.
    pub async fn build(
        mut config: GatewayConfig,
        loader: Loader,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Self, GatewayError> {
        // One that comes while nothing runs yet restarts what will.
        let signals = RestartSignals::install().ok();
        make_folders(&mut config)?;
        let locks = Locks::take(&config).await?;
        if let Some(before) = Instance::read(&config.run_dir) {
            for role in before.end_orphans(ORPHAN_GRACE).await {
                let note = format!("{} of a gateway that was killed still ran; it was ended", role.name());
                let _ = progress.try_send(Progress::Note(note));
            }
        }
        // Envoy may have to be fetched first.
        ServiceManager::of_environment().extend(START_PATIENCE);
        let (reserved, addresses, envoy) = prepare(&config, &config.wanted(), &progress).await?;
        let frame = Frame::new(locks, signals, progress, loader, &config.run_dir, &config.log_dir(), &addresses);
        Ok(Self { config, addresses, reserved, envoy, frame, before: None })
    }

    /// The same; `None` where the stop came first. Installing Envoy can take minutes.
    pub async fn build_unless_stopped(
        config: GatewayConfig,
        loader: Loader,
        stops: &mut Stops,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Option<Self>, GatewayError> {
        tokio::select! {
            bound = Self::build(config, loader, progress) => bound.map(Some),
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

    /// Becomes true when everything answers, and false when it starts anew.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.frame.ready.subscribe()
    }

    /// Has the settings that are read again changed in the same way as those it was built from.
    pub fn amend(&mut self, amend: impl Fn(&mut GatewayConfig) + Send + Sync + 'static) {
        amend(&mut self.config);
        self.frame.loader.amend(amend);
    }

    /// Starts everything, keeps it up until the stop is called, drains; starts anew where admin asks for it or somebody else
    /// does, on the control socket. Whatever happens, nothing is left.
    pub async fn run(mut self, stops: &mut Stops) -> Result<(), GatewayError> {
        let (desk, standing, manager) = (self.frame.desk(), self.frame.standing.subscribe(), self.frame.manager);
        let data_dir = self.config.data_dir.clone();
        let signals = self.frame.signals.take();
        let ended = tokio::select! {
            ended = self.lives(stops) => ended,
            never = desk.serve(signals) => match never {},
            never = watchdog::beat(manager, standing) => match never {},
        };
        let reason = match &ended {
            Ok(()) => stops.cause().unwrap_or(OWN),
            Err(_) => "failure",
        };
        let last = LastShutdown {
            at: SystemClock.now().wall.rfc3339(),
            pid: std::process::id(),
            reason: reason.to_owned(),
            error: ended.as_ref().err().map(ToString::to_string),
        };
        // Only for people: a folder that is gone has nobody to tell.
        let _ = last.write(&data_dir);
        ended
    }

    /// One life after the other.
    async fn lives(self, stops: &mut Stops) -> Result<(), GatewayError> {
        let mut bound = self;
        loop {
            match bound.live(stops).await? {
                Some(next) => bound = next,
                None => return Ok(()),
            }
        }
    }

    /// One life; answers with the next, where there is to be one.
    async fn live(mut self, stops: &mut Stops) -> Result<Option<Self>, GatewayError> {
        let before = self.before.take();
        let (mut supervisor, reserved) = Supervisor::new(self)?;
        let started = tokio::select! {
            started = supervisor.start_all(reserved) => started.map(|()| true),
            () = stops.called() => Ok(false),
        };
        let up = matches!(started, Ok(true));
        let ended = match started {
            Ok(true) => supervisor.keep_up(stops).await,
            Ok(false) => Ok(Lived::Over),
            Err(error) => Err(error),
        };
        let stopped = match &ended {
            Ok(lived) => supervisor.drain(stops, *lived).await,
            Err(_) => supervisor.end(stops, false).await,
        };
        Instance::forget(&supervisor.config.run_dir);
        remove_sockets(&supervisor.config.run_dir);
        match ended {
            Ok(Lived::Anew | Lived::Again) if !stopped => {
                supervisor.frame.begin(Phase::Starting);
                let (last, frame) = supervisor.into_rest();
                anew(last, frame, stops).await
            }
            Ok(Lived::Over | Lived::Anew | Lived::Again) => {
                supervisor.frame.settle(Went::Stopped).await;
                Ok(None)
            }
            Err(error) => match before {
                // The new settings can be read and bound, and still nothing comes up with them.
                Some(before) if !up && !stopped => {
                    let (_, frame) = supervisor.into_rest();
                    back(*before, frame, &error.to_string(), stops).await
                }
                _ => {
                    supervisor.frame.settle(Went::Failed(&error.to_string())).await;
                    Err(error)
                }
            },
        }
    }
}

/// The next life, with the settings as they are now; with those before where they cannot be read or bound. `None`: the
/// stop was called.
async fn anew(last: Last, mut frame: Frame, stops: &mut Stops) -> Result<Option<Bound>, GatewayError> {
    let mut next = match frame.loader.load() {
        Ok(next) => next,
        Err(why) => return back(last, frame, &why, stops).await,
    };
    // Admin has judged what it asked for; draining gave the file time to be emptied.
    if let Some(why) = content(&next).refused_after(content(&last.config)) {
        return back(last, frame, why, stops).await;
    }
    // Whoever asks for the same as before keeps the ports there were.
    let mut wanted = next.wanted();
    let (asked, had) = (last.config.wanted(), &last.addresses);
    let pairs = [
        (&mut wanted.admin, &asked.admin, &had.admin),
        (&mut wanted.ingress, &asked.ingress, &had.ingress),
        (&mut wanted.envoy_admin, &asked.envoy_admin, &had.envoy_admin),
    ];
    for (wanted, asked, had) in pairs {
        if wanted == asked {
            wanted.clone_from(had);
        }
    }
    let taken = async {
        make_folders(&mut next)?;
        let locks = frame.locks.others(&next).await?;
        let prepared = prepare(&next, &wanted, &frame.progress).await?;
        Ok::<_, GatewayError>((locks, prepared))
    };
    let taken = tokio::select! {
        taken = taken => taken,
        () = stops.called() => return Ok(None),
    };
    match taken {
        Ok((locks, (reserved, addresses, envoy))) => {
            frame.locks.replace(locks);
            let before = Some(Box::new(last));
            Ok(Some(Bound { config: next, addresses, reserved, envoy, frame, before }))
        }
        Err(error) => back(last, frame, &error.to_string(), stops).await,
    }
}

fn content(config: &GatewayConfig) -> Content {
    Content::of(config.file_text.as_ref().map(Secret::expose))
}

/// The settings before once more, where they were.
async fn back(last: Last, mut frame: Frame, why: &str, stops: &mut Stops) -> Result<Option<Bound>, GatewayError> {
    let Last { mut config, addresses } = last;
    let _ = frame.progress.try_send(Progress::HeldBack(why.to_owned()));
    frame.tell(Event::HeldBack { message: why.to_owned() });
    config.held_back = Some(why.to_owned());
    let locks = frame.locks.others(&config).await?;
    frame.locks.replace(locks);
    tokio::select! {
        prepared = prepare(&config, &addresses, &frame.progress) => {
            let (reserved, addresses, envoy) = prepared?;
            Ok(Some(Bound { config, addresses, reserved, envoy, frame, before: None }))
        }
        () = stops.called() => Ok(None),
    }
}

/// Removes the sockets of processes that have ended: what lies there after a stop looks like the end of a killed gateway. The
/// lock of the run folder is held, so they are nobody else's.
fn remove_sockets(run_dir: &Path) {
    for socket in PROCESS_SOCKETS {
        // The next start replaces one that stays.
        let _ = std::fs::remove_file(run_dir.join(socket));
    }
}

/// Makes the folders and their paths absolute.
fn make_folders(config: &mut GatewayConfig) -> Result<(), GatewayError> {
    config.data_dir = std::path::absolute(&config.data_dir).map_err(io_at(&config.data_dir))?;
    config.run_dir = std::path::absolute(&config.run_dir).map_err(io_at(&config.run_dir))?;
    // Admin works in the run folder, where a relative path means something else.
    config.home = std::path::absolute(&config.home).map_err(io_at(&config.home))?;
    if let Some(file) = &mut config.config_file {
        *file = std::path::absolute(&*file).map_err(io_at(file))?;
    }
    if let Some(behind) = &config.run_behind {
        files::own_folder(behind).map_err(io_at(behind))?;
        short_name::make(&config.run_dir, behind).map_err(io_at(&config.run_dir))?;
    }
    for folder in [config.data_dir.clone(), config.run_dir.clone(), config.log_dir()] {
        files::own_folder(&folder).map_err(io_at(&folder))?;
    }
    for socket in PROCESS_SOCKETS.into_iter().chain([CONTROL_SOCKET]) {
        peer::check_socket_path(&config.run_dir.join(socket))?;
    }
    Ok(())
}

/// Takes the ports, finds Envoy, writes its configuration.
async fn prepare(
    config: &GatewayConfig,
    wanted: &Addresses,
    progress: &mpsc::Sender<Progress>,
) -> Result<(Reserved, Addresses, EnvoyBinary), GatewayError> {
    // Whether the listeners may face what they face: agents sign every request, which no setting changes; of the admin
    // API it depends.
    guard::check(&wanted.admin, config.admin_unguarded)?;
    let noted = progress.clone();
    let mut note = move |text| {
        let _ = noted.try_send(Progress::Note(text));
    };
    let (reserved, addresses) = reserve(wanted, &mut note).await?;
    let envoy = binary::find(&config.envoy, &mut note).await?;
    let settings = Rendering {
        ingress: addresses.ingress.clone(),
        admin_face: addresses.envoy_admin.clone(),
        admin: addresses.admin.clone(),
        max_body_bytes: config.max_body_bytes,
        trusted_hops: config.trusted_hops,
        tls: config.tls.clone(),
        traces: config.traces.clone(),
        ca_file: ca_file()?,
    };
    live::prepare(&config.run_dir, &settings)?;
    let last_good = config.run_dir.join(LAST_GOOD_FILE);
    if config.held_back.is_some() {
        let text = config.file_text.as_ref().map_or("", Secret::expose);
        files::write_private(&last_good, text.as_bytes()).map_err(io_at(&last_good))?;
    } else {
        // One that cannot be removed is read by nobody.
        let _ = std::fs::remove_file(&last_good);
    }
    Ok((reserved, addresses, envoy))
}

/// Takes the ports; one that a connection has is waited for.
async fn reserve(wanted: &Addresses, note: &mut impl FnMut(String)) -> Result<(Reserved, Addresses), GatewayError> {
    let deadline = Instant::now() + PORT_PATIENCE;
    let mut told = false;
    loop {
        match ports::reserve(wanted) {
            Err(error @ GatewayError::PortPassing { .. }) if Instant::now() < deadline => {
                if !told {
                    note(format!("{error}; waiting up to {} s for its end", PORT_PATIENCE.as_secs()));
                }
                told = true;
            }
            reserved => return reserved,
        }
        tokio::time::sleep(PORT_LOOK).await;
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
