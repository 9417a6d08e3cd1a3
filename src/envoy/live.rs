//! Settings that Envoy takes while it runs: written, waited for, taken back where it would not have them.
//!
//! [`prepare`] writes what Envoy starts with; the supervisor calls it. [`Live`] changes that later; the admin process has
//! one where a supervisor runs it ([`crate::app::admin::Bound::live`]):
//!
//! ```text
//! let mut change = live.settings().await;            // what Envoy runs with now
//! change.ingress = config.listen.ingress.clone();    // a port 0 keeps the port it has
//! change.trusted_hops = config.envoy.trusted_hops;
//! change.max_body_bytes = config.settings.max_body_bytes;
//! match live.apply(change).await {
//!     Ok(applied) => …                               // Envoy said so: version, addresses, time it took
//!     Err(rejected) => …                             // nothing has changed; rejected.reason, .message
//! }
//! ```
//!
//! Call it at every reload, also with nothing changed: that costs nothing, and the condition `XdsInSync` is true again once
//! a refused change is taken out of the file. An `Err` is also logged (`envoy update rejected`), counted
//! (`envoy_config_rejected_total`) and shown by readiness; whoever calls need not.
//!
//! `limits.max_body_bytes` counts in two places, and the decision's must never be the smaller one, or a body that Envoy let
//! in is refused after it was sent: to **raise** it, publish the settings first and then apply; to **lower** it, apply first.
//! Where the change is rejected, publish the old value.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::envoy::ack;
use crate::envoy::ack::Refusal;
use crate::envoy::launch;
use crate::envoy::render::RenderError;
use crate::envoy::render::Rendering;
use crate::envoy::split;
use crate::envoy::split::FOLDER;
use crate::envoy::split::LISTENERS_FILE;
use crate::envoy::split::Listener;
use crate::envoy::split::Parts;
use crate::sys::files;
use crate::sys::local_http::Endpoint;
use crate::sys::ports;
use crate::sys::ports::PortError;
use crate::telemetry::data_plane::Condition;
use crate::telemetry::data_plane::DataPlane;
use crate::telemetry::data_plane::IN_SYNC;

/// What Envoy runs with, in the run folder; read again by whoever starts later.
pub const SETTINGS_FILE: &str = "envoy-settings.json";
/// The file holds a few hundred bytes.
const MAX_SETTINGS: u64 = 64 * 1024;
/// Largest file of listeners that is read back; it has some 50 kB per listener.
const MAX_LISTENERS: u64 = 4 * 1024 * 1024;
/// How long Envoy has to say what it thinks of a file. It takes tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a port is tried that the listener before may not have given back yet.
const CLOSING_TRIES: usize = 5;
const CLOSING_PAUSE: Duration = Duration::from_millis(100);

/// What Envoy was given last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u64,
    settings: Rendering,
}

/// A change Envoy accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The version it shows; counted from its start.
    pub version: u64,
    /// Whether anything was different.
    pub changed: bool,
    /// Where agents connect now.
    pub ingress: Vec<SocketAddr>,
    /// How long it took.
    pub took: Duration,
}

/// Why a change did not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Envoy refused it.
    Nack,
    /// Envoy did not say in time, or is not there.
    AckTimeout,
    /// An address cannot be listened on; Envoy was not asked.
    Port,
    /// The settings, or a file they name, cannot be used; Envoy was not asked.
    Settings,
    /// A file of ours could not be written.
    Files,
}

impl Reason {
    /// The word in conditions and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nack => "Nack",
            Self::AckTimeout => "AckTimeout",
            Self::Port => "PortNotAvailable",
            Self::Settings => "InvalidSettings",
            Self::Files => "FileNotWritten",
        }
    }
}

/// A change that did not come about. Envoy goes on with what it had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Envoy's configuration was not changed ({}): {message}", .reason.name())]
pub struct Rejected {
    /// In one word.
    pub reason: Reason,
    /// In Envoy's words or ours; holds no secret.
    pub message: String,
    /// Whether Envoy has confirmed that it runs with what it had. Else it was asked to, and did not answer.
    pub restored: bool,
}

impl Rejected {
    /// Before Envoy was told anything.
    fn early(reason: Reason, message: impl ToString) -> Self {
        Self { reason, message: message.to_string(), restored: true }
    }
}

/// Why there is nothing to start with, or to change.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// No configuration.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn at(path: PathBuf) -> impl FnOnce(io::Error) -> LiveError {
    move |source| LiveError::Io { path, source }
}

/// Writes everything an Envoy starts with into `run_dir`, which is its working directory. None may run there.
pub fn prepare(run_dir: &Path, settings: &Rendering) -> Result<(), LiveError> {
    let Parts { bootstrap, listeners } = split::split(settings)?;
    let folder = run_dir.join(FOLDER);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(folder)(error)),
        Ok(()) | Err(_) => {}
    }
    files::own_folder(&folder).map_err(at(folder.clone()))?;
    let write = |path: PathBuf, value: &Value| put(&path, value).map_err(at(path));
    write(run_dir.join(launch::CONFIG_FILE), &bootstrap)?;
    write(folder.join(LISTENERS_FILE), &split::listeners_file(1, &listeners))?;
    keep(run_dir, &Kept { version: 1, settings: settings.clone() })
}

/// The settings an Envoy of this run folder was given last; `None` where none was.
pub fn settings_in(run_dir: &Path) -> Option<Rendering> {
    read_kept(run_dir).ok().map(|kept| kept.settings)
}

fn put(path: &Path, value: &Value) -> io::Result<()> {
    files::write_private(path, &serde_json::to_vec(value)?)
}

fn keep(run_dir: &Path, kept: &Kept) -> Result<(), LiveError> {
    let path = run_dir.join(SETTINGS_FILE);
    let written = serde_json::to_vec(kept).map_err(io::Error::from).and_then(|text| files::write_private(&path, &text));
    written.map_err(at(path))
}

fn read_kept(run_dir: &Path) -> io::Result<Kept> {
    Ok(serde_json::from_str(&files::read_text(&run_dir.join(SETTINGS_FILE), MAX_SETTINGS)?)?)
}

/// An Envoy that runs, and what it runs with.
#[derive(Debug)]
pub struct Live {
    run_dir: PathBuf,
    envoy: Endpoint,
    shown: Arc<DataPlane>,
    kept: Mutex<Kept>,
    patience: Duration,
}

impl Live {
    /// Takes over what [`prepare`] or another process of ours left. A change that one was killed in is taken back.
    pub fn open(run_dir: &Path, shown: Arc<DataPlane>) -> Result<Self, LiveError> {
        let path = run_dir.join(SETTINGS_FILE);
        let mut kept = read_kept(run_dir).map_err(at(path))?;
        let listeners = run_dir.join(FOLDER).join(LISTENERS_FILE);
        let stands = files::read_text(&listeners, MAX_LISTENERS).ok();
        let stands: Option<Value> = stands.and_then(|text| serde_json::from_str(&text).ok());
        let version = stands.as_ref().and_then(|file| file.get("version_info")?.as_str()?.parse().ok());
        if version != Some(kept.version) {
            tracing::warn!(
                ?version,
                expected = kept.version,
                "a change of Envoy's configuration was cut off; taken back"
            );
            kept.version = version.unwrap_or_default().max(kept.version).saturating_add(1);
            let parts = split::split(&kept.settings)?;
            put(&listeners, &split::listeners_file(kept.version, &parts.listeners)).map_err(at(listeners))?;
            keep(run_dir, &kept)?;
        }
        shown.record_version(kept.version);
        shown.set(in_sync(kept.version));
        let envoy = Endpoint::Unix(run_dir.join(launch::ADMIN_SOCKET));
        Ok(Self { run_dir: run_dir.to_owned(), envoy, shown, kept: Mutex::new(kept), patience: PATIENCE })
    }

    /// What Envoy runs with.
    pub async fn settings(&self) -> Rendering {
        self.kept.lock().await.settings.clone()
    }

    /// Has Envoy run with these settings. Only what [`crate::config::keys::Reload::HotEnvoy`] names may differ from what
    /// it runs with: the rest needs a start anew.
    pub async fn apply(&self, wanted: Rendering) -> Result<Applied, Rejected> {
        let mut kept = self.kept.lock().await;
        let started = Instant::now();
        let done = self.change(&mut kept, wanted).await;
        let ingress = kept.settings.ingress.clone();
        match done {
            Ok(changed) => {
                let (version, took) = (kept.version, started.elapsed());
                if changed {
                    tracing::info!(version, ?ingress, took_ms = millis(took), "envoy update accepted");
                }
                self.shown.record_version(version);
                self.shown.set(in_sync(version));
                Ok(Applied { version, changed, ingress, took })
            }
            Err(rejected) => {
                let Rejected { reason, message, restored } = &rejected;
                tracing::error!(reason = reason.name(), %message, restored, "envoy update rejected");
                self.shown.count_rejected();
                self.shown.record_version(kept.version);
                self.shown.set(Condition {
                    kind: IN_SYNC,
                    holds: false,
                    reason: reason.name(),
                    message: format!("Envoy goes on with the settings before the last change: {message}"),
                });
                Err(rejected)
            }
        }
    }

    async fn change(&self, kept: &mut Kept, mut wanted: Rendering) -> Result<bool, Rejected> {
        let settings = |error: RenderError| Rejected::early(Reason::Settings, error);
        wanted.ingress = addresses(&wanted.ingress, &kept.settings.ingress)
            .map_err(|error| Rejected::early(Reason::Port, format!("the ingress: {error}")))?;
        if wanted == kept.settings {
            return Ok(false);
        }
        let old = split::split(&kept.settings).map_err(settings)?;
        let new = split::split(&wanted).map_err(settings)?;
        if old.bootstrap != new.bootstrap {
            return Err(Rejected::early(Reason::Settings, "this change needs a new Envoy"));
        }
        let mut failed = None;
        for stage in split::stages(&old.listeners, &new.listeners) {
            if let Err(refusal) = self.offer(&mut kept.version, &stage).await {
                failed = Some(refusal);
                break;
            }
        }
        let Some(refusal) = failed else {
            kept.settings = wanted;
            self.write_down(kept);
            return Ok(true);
        };
        let before: Vec<_> = old.listeners.iter().collect();
        let restored = self.offer(&mut kept.version, &before).await;
        self.write_down(kept);
        if let Err(error) = &restored {
            tracing::error!(%error, "Envoy has not confirmed that it has its last good configuration back");
        }
        let reason = match &refusal {
            Refusal::Nack(_) => Reason::Nack,
            Refusal::Silent(_) => Reason::AckTimeout,
            Refusal::Io(_) => Reason::Files,
        };
        Err(Rejected { reason, message: refusal.to_string(), restored: restored.is_ok() })
    }

    /// Puts a file of listeners in place and waits for what Envoy says. A port that a listener has just left may take a
    /// moment to be free.
    async fn offer(&self, version: &mut u64, listeners: &[&Listener]) -> Result<(), Refusal> {
        let mut tries = 0;
        loop {
            *version = version.saturating_add(1);
            let before = ack::standing(&self.envoy).await.unwrap_or_default();
            let file = split::listeners_file(*version, listeners.iter().copied());
            put(&self.run_dir.join(FOLDER).join(LISTENERS_FILE), &file).map_err(Refusal::Io)?;
            let said = ack::wait(&self.envoy, *version, &before, self.patience).await;
            tries += 1;
            match said {
                Err(Refusal::Nack(message)) if message.contains("cannot bind") && tries < CLOSING_TRIES => {
                    tokio::time::sleep(CLOSING_PAUSE).await;
                }
                said => return said,
            }
        }
    }

    /// A run folder that cannot be written to has said so already; the next start writes everything anew.
    fn write_down(&self, kept: &Kept) {
        if let Err(error) = keep(&self.run_dir, kept) {
            tracing::error!(%error, "what Envoy runs with was not written down");
        }
    }
}

fn in_sync(version: u64) -> Condition {
    let message = format!("Envoy runs with version {version} of its configuration");
    Condition { kind: IN_SYNC, holds: true, reason: "InSync", message }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The addresses to listen on: those we have stay ours, others must be free. A port 0 is the port we have on that host,
/// else the one of the others, else any.
fn addresses(wanted: &[SocketAddr], ours: &[SocketAddr]) -> Result<Vec<SocketAddr>, PortError> {
    let overlaps = |address: SocketAddr| {
        let any = |one: &SocketAddr| one.ip().is_unspecified();
        ours.iter().any(|one| one.port() == address.port() && (any(one) || any(&address)))
    };
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in wanted {
        let mut address = *address;
        if address.port() == 0 {
            let same_host = ours.iter().find(|one| one.ip() == address.ip());
            address.set_port(same_host.or(found.first()).map_or(0, SocketAddr::port));
        }
        if ours.contains(&address) || overlaps(address) {
            found.push(address);
        } else if let Some((_, bound)) = ports::take_one(address, wanted.len() > 1)? {
            found.push(bound);
        }
    }
    if found.is_empty() { Err(PortError::NoAddress) } else { Ok(found) }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
