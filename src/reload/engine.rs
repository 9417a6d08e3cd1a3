//! The task that reloads.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::admin::reload::Ask;
use crate::admin::reload::Standing;
use crate::claims::refresh::ClaimsPace;
use crate::config::Config;
use crate::config::declaration::ReloadMode;
use crate::domain::audit::Asker;
use crate::domain::audit::Via;
use crate::domain::time::UnixMillis;
use crate::envoy::live::Live;
use crate::reload::Content;
use crate::reload::Loaded;
use crate::reload::Read;
use crate::reload::declare;
use crate::reload::declare::Refusal;
use crate::reload::file::error_body;
use crate::reload::secrets::INACTIVE;
use crate::reload::sets;
use crate::reload::sets::SecretSet;
use crate::reload::sets::Wants;
use crate::reload::sets::said;
use crate::secrets::Resolver;
use crate::secrets::residue::Fingerprints;
use crate::store::declared::Resolved;
use crate::store::vault::Vault;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::random;
use crate::sys::signal::Hangups;
use crate::sys::tasks::Stop;
use crate::sys::watch::FileWatch;
use crate::wire::reload::UnresolvedBody;

/// The times of files go by the kernel's tick, which is behind the clock.
const TICK_MILLIS: u64 = 20;

/// What the task works with.
pub struct Parts {
    /// Reads the configuration again.
    pub read: Read,
    /// The file that is watched.
    pub file: PathBuf,
    /// Why what was read at the start is not what stands there.
    pub held_back: Option<String>,
    /// Finds secrets.
    pub resolver: Resolver,
    /// What admin works with.
    pub admin: Arc<Admin>,
    /// Questions.
    pub asks: mpsc::Receiver<Ask>,
    /// Where it is told how it stands.
    pub standing: watch::Sender<Standing>,
    /// The pace of claims; `None` where nobody is asked for them.
    pub claims: Option<watch::Sender<ClaimsPace>>,
    /// Envoy, where it takes changes from us.
    pub live: Option<Arc<Live>>,
    /// Has everything start anew; `None` where nobody would start it.
    pub restart: Option<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Parts").field("file", &self.file).finish_non_exhaustive()
    }
}

/// The secrets of a start.
#[derive(Debug)]
pub struct Found(SecretSet, UnixMillis);

impl Found {
    /// What is declared with them.
    pub fn declared(&self, config: &Config) -> Resolved {
        declare::resolved(config, &self.0)
    }
}

/// Resolves everything a configuration refers to. `Err`: one line for each reference without a secret.
pub async fn begin(config: &Config, resolver: &Resolver, vault: &Vault) -> Result<Found, Vec<String>> {
    let (wants, began) = (Wants::of(config), SystemClock.now().wall);
    let found = resolver.resolve(&config.secrets, wants.origins()).await;
    let lines = |missing: Vec<UnresolvedBody>| missing.iter().map(said).collect::<Vec<_>>();
    let set = SecretSet::gather(&wants, &found, &SecretSet::default()).map_err(lines)?;
    let mut missing = declare::unfit(config, &set);
    let (needed, next) = (declare::stored(&wants, config), declare::resolved(config, &set));
    match declare::refusal(&next, &needed, vault).map_err(|error| vec![error.to_string()])? {
        Some(Refusal::Unfit(mut unfit)) => {
            // What the store holds does not stop a start: such a connection answers 400, and all others serve.
            let stored = unfit.extract_if(.., |unfit| !unfit.declared).collect();
            for line in lines(Refusal::Unfit(stored).lines(config)) {
                tracing::warn!(line, "a stored connection cannot inject the value of a declared variable");
            }
            missing.extend(Refusal::Unfit(unfit).lines(config));
        }
        Some(refused @ Refusal::Missing(_)) => missing.extend(refused.lines(config)),
        None => {}
    }
    if !missing.is_empty() {
        return Err(lines(missing));
    }
    for want in &wants.inactive {
        tracing::warn!(code = INACTIVE, path = want.path, reference = %want.origin, "a reference is not resolved");
    }
    Ok(Found(set, began))
}

/// Reloads.
#[derive(Debug)]
pub struct Reloader {
    pub(super) parts: Parts,
    /// What is in force; where a part of the file is not, that part as it was before.
    pub(super) config: Config,
    /// What the file was that it stood in.
    pub(super) content: Content,
    pub(super) set: SecretSet,
    pub(super) fingerprints: Fingerprints,
    pub(super) generation: u64,
    /// When everything was resolved last.
    pub(super) resolved_at: Instant,
    /// Resolving fails since some time.
    pub(super) degraded: Option<Degraded>,
    /// The hash of the file that was refused last: it is told once.
    pub(super) refused: Option<String>,
    /// The hash of a file that a restart has failed with, and why.
    pub(super) burnt: Option<(String, String)>,
    /// A file that secrets are missing for.
    pub(super) pending: Option<Pending>,
    /// When the secrets of the start began to be looked for.
    began: UnixMillis,
}

/// A file that could be put in force but for its secrets: they may come after it.
#[derive(Debug)]
pub(super) struct Pending {
    /// The files its secrets lie in.
    pub(super) files: BTreeSet<PathBuf>,
    pub(super) retry_at: Instant,
}

/// Resolving fails.
#[derive(Debug)]
pub(super) struct Degraded {
    pub(super) unresolved: Vec<UnresolvedBody>,
    pub(super) retry_at: Instant,
    /// The secrets that could not be resolved are too old and out of use.
    pub(super) closed: bool,
}

/// Why the task wakes up.
enum Woken {
    Asked(Ask),
    File,
    SecretFile,
    Hangup,
    Retry,
    TooOld,
}

impl Reloader {
    /// With what the start has put in force.
    pub fn new(mut parts: Parts, loaded: Loaded, found: Found) -> Result<Self, random::RandomError> {
        let burnt = parts.held_back.take().map(|why| {
            // What stands there now is what did not work.
            let hash = match (parts.read)() {
                Ok(loaded) => loaded.hash,
                Err(unusable) => unusable.hash,
            };
            parts.standing.send_modify(|standing| {
                standing.config.ok = false;
                standing.config.file_config_hash.clone_from(&hash);
                standing.config.last_error = Some(error_body("restart", why.clone()));
            });
            (hash, why)
        });
        let made = Self {
            parts,
            config: loaded.config,
            content: loaded.content,
            set: found.0,
            fingerprints: Fingerprints::new()?,
            generation: 1,
            resolved_at: Instant::now(),
            degraded: None,
            // That is told already.
            refused: burnt.as_ref().map(|(hash, _)| hash.clone()),
            burnt,
            pending: None,
            began: found.1,
        };
        made.tell_secrets();
        Ok(made)
    }

    /// Reloads until told to stop.
    pub async fn run(mut self, mut stop: Stop) {
        let mut hangups = match Hangups::install() {
            Ok(hangups) => Some(hangups),
            Err(error) => {
                tracing::error!(%error, "SIGHUP cannot be taken for a reload");
                None
            }
        };
        let options = self.config.reload;
        let mut file = FileWatch::new([self.parts.file.clone()], options.settle, options.poll);
        let mut secrets = FileWatch::new(sets::files(&self.config), options.settle, options.poll);
        self.catch_up().await;
        self.watch(&mut secrets, self.began).await;
        loop {
            let (retry, too_old) = (self.retry_at(), self.too_old_at());
            let woken = tokio::select! {
                () = stop.wait() => return,
                ask = self.parts.asks.recv() => match ask {
                    Some(ask) => Woken::Asked(ask),
                    None => return,
                },
                () = file.changed() => Woken::File,
                () = secrets.changed() => Woken::SecretFile,
                () = hangup(&mut hangups) => Woken::Hangup,
                () = at(retry) => Woken::Retry,
                () = at(too_old) => Woken::TooOld,
            };
            let began = SystemClock.now().wall;
            self.attend(woken).await;
            let options = self.config.reload;
            file.tune(options.settle, options.poll);
            secrets.tune(options.settle, options.poll);
            self.watch(&mut secrets, began).await;
        }
    }

    /// Watches the secret files of what is in force, and of a file that waits for some. `began`: when the last work began. It
    /// may have read a file that changed before it was watched.
    async fn watch(&mut self, secrets: &mut FileWatch, began: UnixMillis) {
        let waiting = self.pending.iter().flat_map(|pending| &pending.files).cloned();
        let fresh = secrets.set(sets::files(&self.config).into_iter().chain(waiting));
        if fresh.iter().any(|file| written_since(file, began)) {
            self.attend(Woken::SecretFile).await;
        }
    }

    /// What was written between the start's reading and the watching counts too.
    async fn catch_up(&mut self) {
        let read = Arc::clone(&self.parts.read);
        let stands = tokio::task::spawn_blocking(move || match read() {
            Ok(loaded) => loaded.hash,
            Err(unusable) => unusable.hash,
        });
        let applied = self.parts.standing.borrow().config.applied_config_hash.clone();
        let known = |hash: &String| *hash == applied || self.refused.as_ref() == Some(hash);
        if stands.await.is_ok_and(|hash| !known(&hash)) {
            self.reload_file(&Asker::local(Via::Config)).await;
        }
        let began = self.began;
        if sets::files(&self.config).iter().any(|file| written_since(file, began)) {
            self.attend(Woken::SecretFile).await;
        }
    }

    async fn attend(&mut self, woken: Woken) {
        let config = Asker::local(Via::Config);
        match woken {
            Woken::Asked(Ask::Secrets { dry_run, asker, answer }) => {
                // Whoever asked may have left.
                let _ = answer.send(self.reload_secrets(dry_run, asker).await);
            }
            Woken::Asked(Ask::Config { asker, answer }) => {
                self.reload_file(&asker).await;
                let _ = answer.send(self.parts.standing.borrow().config.clone());
            }
            Woken::File => self.reload_file(&config).await,
            Woken::SecretFile if self.config.reload.mode == ReloadMode::Off => {
                tracing::info!("a secret file has changed; the reload mode is off");
            }
            Woken::SecretFile => {
                if self.pending.is_some() {
                    self.reload_file(&config).await;
                }
                self.reload_secrets(false, config).await;
            }
            Woken::Retry => {
                let now = Instant::now();
                if self.pending.as_ref().is_some_and(|pending| pending.retry_at <= now) {
                    self.reload_file(&config).await;
                }
                if self.degraded.as_ref().is_some_and(|degraded| degraded.retry_at <= now) {
                    self.reload_secrets(false, config).await;
                }
            }
            Woken::Hangup => {
                tracing::info!("SIGHUP: reload");
                self.reload_file(&config).await;
                self.reload_secrets(false, config).await;
            }
            Woken::TooOld => self.close_too_old().await,
        }
    }

    fn retry_at(&self) -> Option<Instant> {
        let degraded = self.degraded.as_ref().map(|degraded| degraded.retry_at);
        let pending = self.pending.as_ref().map(|pending| pending.retry_at);
        degraded.into_iter().chain(pending).min()
    }

    /// When secrets that cannot be resolved must not be used any more.
    fn too_old_at(&self) -> Option<Instant> {
        let open = self.degraded.as_ref().is_some_and(|degraded| !degraded.closed);
        self.config.secrets.max_stale.filter(|_| open).map(|most| self.resolved_at + most)
    }
}

/// Whether a file was written at that moment or later, as far as its times tell.
fn written_since(file: &Path, moment: UnixMillis) -> bool {
    files::changed_since(file, UnixMillis(moment.0.saturating_sub(TICK_MILLIS)))
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn hangup(hangups: &mut Option<Hangups>) {
    match hangups {
        Some(hangups) => hangups.next().await,
        None => std::future::pending().await,
    }
}
