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
//! a refused change is taken out of the file. An `Err` is also logged (`xds rejected`), counted
//! (`envoy_config_rejected_total`) and shown by readiness; whoever calls need not.
//!
//! Certificates are watched by [`Live::watch`]: files that are replaced, in whatever way, are checked and then told to Envoy,
//! which serves the ones before until it has the new ones. What cannot be used, a file half-written or a key of another
//! certificate, changes nothing, and the condition `IngressCertificate` says so.
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

use crate::config::parts::IngressTls;
use crate::envoy::ack;
use crate::envoy::ack::Refusal;
use crate::envoy::launch;
use crate::envoy::render::RenderError;
use crate::envoy::render::Rendering;
use crate::envoy::secrets;
use crate::envoy::split;
use crate::envoy::split::CERTIFICATE;
use crate::envoy::split::FOLDER;
use crate::envoy::split::LISTENERS_FILE;
use crate::envoy::split::Listener;
use crate::envoy::split::Parts;
use crate::envoy::split::SecretFile;
use crate::sys::files;
use crate::sys::local_http::Endpoint;
use crate::sys::ports;
use crate::sys::ports::PortError;
use crate::sys::tasks::Stop;
use crate::sys::tls::TlsError;
use crate::sys::tls::pair;
use crate::telemetry::data_plane::CERTIFICATE_SERVED;
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
/// How often certificates are looked at; a change counts once it is the same at two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How often a port is tried that the listener before may not have given back yet.
const CLOSING_TRIES: usize = 5;
const CLOSING_PAUSE: Duration = Duration::from_millis(100);

/// What Envoy was given last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u64,
    settings: Rendering,
    /// Version of the certificates; 0 where there are none.
    #[serde(default)]
    pair: u64,
    /// What their files looked like when they were judged last.
    #[serde(default)]
    seen: String,
}

impl Kept {
    fn of(settings: Rendering) -> Self {
        let pair = u64::from(settings.tls.is_some());
        let seen = settings.tls.as_ref().map_or_else(String::new, seen);
        Self { version: 1, settings, pair, seen }
    }
}

fn seen(tls: &IngressTls) -> String {
    pair::fingerprint(tls.files())
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
    /// Certificates that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    let kept = Kept::of(settings.clone());
    if let Some(tls) = &settings.tls {
        secrets::check(tls)?;
    }
    let Parts { bootstrap, listeners, secrets } = split::split(settings)?;
    let folder = run_dir.join(FOLDER);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(folder)(error)),
        Ok(()) | Err(_) => {}
    }
    files::own_folder(&folder).map_err(at(folder.clone()))?;
    let write = |path: PathBuf, value: &Value| put(&path, value).map_err(at(path));
    write(run_dir.join(launch::CONFIG_FILE), &bootstrap)?;
    write(folder.join(LISTENERS_FILE), &split::listeners_file(1, &listeners))?;
    secrets::write(run_dir, &secrets, kept.pair).map_err(at(folder))?;
    keep(run_dir, &kept)
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
        let folder = run_dir.join(FOLDER);
        let listeners = folder.join(LISTENERS_FILE);
        let parts = split::split(&kept.settings)?;
        let (version, pair) = (version_of(&listeners), version_of(&folder.join(format!("{CERTIFICATE}.json"))));
        if version != Some(kept.version) || pair.unwrap_or_default() != kept.pair {
            tracing::warn!(version, pair, "a change of Envoy's configuration was cut off; taken back");
            let next = |stands: Option<u64>, known: u64| stands.unwrap_or_default().max(known).saturating_add(1);
            (kept.version, kept.pair) = (next(version, kept.version), next(pair, kept.pair));
            // The certificates first: listeners ask for them.
            secrets::write(run_dir, &parts.secrets, kept.pair).map_err(at(folder))?;
            put(&listeners, &split::listeners_file(kept.version, &parts.listeners)).map_err(at(listeners))?;
            if parts.secrets.is_empty() {
                secrets::tidy(run_dir, &parts.secrets, kept.pair);
                kept.pair = 0;
            }
            keep(run_dir, &kept)?;
        }
        shown.record_version(kept.version);
        shown.set(in_sync(kept.version));
        match &kept.settings.tls {
            Some(tls) => shown.set(certificate_is(&secrets::check(tls).map_err(|error| error.to_string()))),
            None => shown.clear(CERTIFICATE_SERVED),
        }
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
                // Not `message`: that is the name of the words at the end.
                tracing::error!(code = "XDS_REJECTED", reason = reason.name(), error = %message, restored, "xds rejected");
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
        let tls = wanted.tls != kept.settings.tls;
        let looks = wanted.tls.as_ref().map_or_else(String::new, seen);
        if let Some(files) = wanted.tls.as_ref().filter(|_| tls) {
            secrets::check(files).map_err(|error| Rejected::early(Reason::Settings, error))?;
        }
        let old = split::split(&kept.settings).map_err(settings)?;
        let new = split::split(&wanted).map_err(settings)?;
        if old.bootstrap != new.bootstrap {
            return Err(Rejected::early(Reason::Settings, "this change needs a new Envoy"));
        }
        let Err(refusal) = self.exchange(kept, &old, &new, tls).await else {
            if tls {
                (kept.seen, kept.pair) = (looks, if wanted.tls.is_some() { kept.pair } else { 0 });
                secrets::tidy(&self.run_dir, &new.secrets, kept.pair);
                match &wanted.tls {
                    Some(_) => self.shown.set(certificate_is(&Ok(()))),
                    None => self.shown.clear(CERTIFICATE_SERVED),
                }
            }
            kept.settings = wanted;
            self.write_down(kept);
            return Ok(true);
        };
        let restored = self.exchange(kept, &new, &old, tls).await;
        if old.secrets.is_empty() {
            secrets::tidy(&self.run_dir, &old.secrets, kept.pair);
            kept.pair = 0;
        }
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

    /// From one configuration to another: certificates first, because listeners ask for them.
    async fn exchange(&self, kept: &mut Kept, from: &Parts, to: &Parts, tls: bool) -> Result<(), Refusal> {
        if tls && !to.secrets.is_empty() {
            self.show(&mut kept.pair, &to.secrets, &from.secrets).await?;
        }
        for stage in split::stages(&from.listeners, &to.listeners) {
            self.offer(&mut kept.version, &stage).await?;
        }
        Ok(())
    }

    /// Tells Envoy of certificates, and waits for its word on those it has `known` before: it asks for others only when a
    /// listener does.
    async fn show(&self, pair: &mut u64, secrets: &[SecretFile], known: &[SecretFile]) -> Result<(), Refusal> {
        *pair = pair.saturating_add(1);
        let mut waited = Vec::new();
        for secret in secrets.iter().filter(|one| known.iter().any(|other| other.name == one.name)) {
            let file = ack::secret(secret.name);
            let before = ack::standing(&self.envoy, &file).await.unwrap_or_default();
            waited.push((file, before));
        }
        secrets::write(&self.run_dir, secrets, *pair).map_err(Refusal::Io)?;
        for (file, before) in waited {
            ack::wait(&self.envoy, &file, *pair, &before, self.patience).await?;
        }
        Ok(())
    }

    /// Looks after the certificates until the stop.
    pub async fn watch(self: Arc<Self>, mut stop: Stop) {
        let mut before = String::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => self.look(&mut before).await,
                () = stop.wait() => return,
            }
        }
    }

    /// One look at the files of TLS. What has changed since the last look is still being written.
    async fn look(&self, before: &mut String) {
        let mut kept = self.kept.lock().await;
        let Some(tls) = kept.settings.tls.clone() else { return };
        let now = seen(&tls);
        let settled = *before == now;
        before.clone_from(&now);
        if !settled || kept.seen == now {
            return;
        }
        kept.seen = now;
        let taken = match secrets::check(&tls) {
            Ok(()) => self.renew(&mut kept).await,
            Err(error) => Err(error.to_string()),
        };
        self.write_down(&kept);
        match &taken {
            Ok(()) => tracing::info!(version = kept.pair, "the certificate of agents' connections was renewed"),
            Err(why) => tracing::error!(%why, "ingress certificate refused; the one before is served"),
        }
        self.shown.count_certificate(taken.is_ok());
        self.shown.set(certificate_is(&taken));
    }

    async fn renew(&self, kept: &mut Kept) -> Result<(), String> {
        let parts = split::split(&kept.settings).map_err(|error| error.to_string())?;
        self.show(&mut kept.pair, &parts.secrets, &parts.secrets).await.map_err(|error| error.to_string())?;
        secrets::tidy(&self.run_dir, &parts.secrets, kept.pair);
        Ok(())
    }

    /// Puts a file of listeners in place and waits for what Envoy says. A port that a listener has just left may take a
    /// moment to be free.
    async fn offer(&self, version: &mut u64, listeners: &[&Listener]) -> Result<(), Refusal> {
        let mut tries = 0;
        loop {
            *version = version.saturating_add(1);
            let before = ack::standing(&self.envoy, ack::LISTENERS).await.unwrap_or_default();
            let file = split::listeners_file(*version, listeners.iter().copied());
            put(&self.run_dir.join(FOLDER).join(LISTENERS_FILE), &file).map_err(Refusal::Io)?;
            let said = ack::wait(&self.envoy, ack::LISTENERS, *version, &before, self.patience).await;
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

/// The version of a file Envoy watches.
fn version_of(path: &Path) -> Option<u64> {
    let file: Value = serde_json::from_str(&files::read_text(path, MAX_LISTENERS).ok()?).ok()?;
    file.get("version_info")?.as_str()?.parse().ok()
}

fn certificate_is(taken: &Result<(), String>) -> Condition {
    let (holds, reason, message) = match taken {
        Ok(()) => (true, "Served", "agents are shown the certificate of the file".to_owned()),
        Err(why) => (false, "Refused", format!("agents are shown the certificate before: {why}")),
    };
    Condition { kind: CERTIFICATE_SERVED, holds, reason, message }
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
        } else if let Some(held) = ports::take_one(address, wanted.len() > 1)? {
            found.push(held.address());
        }
    }
    if found.is_empty() { Err(PortError::NoAddress) } else { Ok(found) }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
