//! A change of the file: read, judged, and what comes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::compare;
use crate::config::compare::Difference;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::audit::Via;
use crate::reload::Content;
use crate::reload::Loaded;
use crate::reload::Unusable;
use crate::reload::declare;
use crate::reload::declare::Failure;
use crate::reload::engine::Pending;
use crate::reload::engine::Reloader;
use crate::reload::judge::Verdict;
use crate::reload::judge::is_hot;
use crate::reload::judge::judge;
use crate::reload::secrets::RETRY;
use crate::reload::sets;
use crate::reload::sets::SecretSet;
use crate::reload::sets::Wants;
use crate::reload::sets::said;
use crate::reload::standing;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::ports;
use crate::sys::random;
use crate::wire::reload::ReloadErrorBody;
use crate::wire::reload::UnresolvedBody;

/// References without a secret that are told one by one.
pub(super) const MAX_UNRESOLVED: usize = 100;

/// Kind of a setback by secrets.
const UNRESOLVED: &str = "unresolved";

impl Reloader {
    pub(super) async fn reload_file(&mut self, asker: &Asker) {
        let read = Arc::clone(&self.parts.read);
        let read = tokio::task::spawn_blocking(move || read()).await;
        let lost = || Unusable { hash: String::new(), missing: false, message: "reading it failed".to_owned() };
        match self.unless_gone(read.unwrap_or_else(|_| Err(lost()))) {
            Err(Unusable { hash, message, .. }) => {
                if self.refused.as_ref() != Some(&hash) {
                    tracing::warn!(
                        code = "CONFIG_RELOAD_SKIPPED",
                        error = message,
                        "config reload skipped (invalid config)"
                    );
                    self.parts.admin.metrics.reload().count("invalid");
                }
                self.refused = Some(hash.clone());
                self.pending = None;
                self.tell(&hash, Vec::new(), Some(Setback::new("invalid", message)));
            }
            Ok(loaded) => self.take(loaded, asker).await,
        }
    }

    /// The same, but a file with nothing in it is refused where it would withdraw one that says something.
    fn unless_gone(&self, read: Result<Loaded, Unusable>) -> Result<Loaded, Unusable> {
        let (content, hash) = match &read {
            Ok(loaded) => (loaded.content, &loaded.hash),
            Err(unusable) if unusable.missing => (Content::Missing, &unusable.hash),
            Err(_) => return read,
        };
        match content.refused_after(self.content) {
            Some(why) => {
                let message = format!("{}: {why}", self.parts.file.display());
                Err(Unusable { hash: hash.clone(), missing: content == Content::Missing, message })
            }
            None => read,
        }
    }

    pub(super) async fn take(&mut self, loaded: Loaded, asker: &Asker) {
        let (hash, content, began) = (loaded.hash.clone(), loaded.content, Instant::now());
        let secret_files = sets::files(&loaded.config);
        let differences = compare::differences(&self.config, &loaded.config);
        let (own_envoy, restarts) = (self.parts.live.is_some(), self.parts.restart.is_some());
        let verdict = judge(self.config.reload.mode, &differences, own_envoy, restarts);
        let burnt = self.burnt.as_ref().filter(|(known, _)| *known == hash).map(|(_, why)| why.clone());
        let done = match verdict {
            // Lines have moved: the declarations are told with their new ones.
            Verdict::Same => self.apply(loaded, &differences, &Asker::local(Via::Config)).await,
            Verdict::Report => Ok(()),
            Verdict::Apply => self.apply(loaded, &differences, asker).await,
            Verdict::Restart => match burnt {
                Some(why) => Err(Setback::new("restart", why)),
                None => self.restart(&loaded, &differences, asker).await,
            },
        };
        let left = match (verdict, &done) {
            (Verdict::Same, Ok(())) => Vec::new(),
            (Verdict::Apply, Ok(())) => differences.iter().filter(|found| !is_hot(found, own_envoy)).cloned().collect(),
            _ => differences.clone(),
        };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let changes = differences.len();
        match (verdict, &done) {
            (_, Err(setback)) => {
                self.parts.admin.metrics.reload().count(setback.kind);
                if self.refused.as_ref() != Some(&hash) {
                    let (kind, error) = (setback.kind, &setback.message);
                    tracing::error!(kind, error, "config reload failed; the last good configuration stays in force");
                }
                self.refused = Some(hash.clone());
            }
            (Verdict::Same, Ok(())) => tracing::debug!("the configuration file means what it meant before"),
            (Verdict::Report, Ok(())) => {
                tracing::warn!(changes, "the configuration file has changes that are not in force")
            }
            (Verdict::Apply, Ok(())) => {
                self.parts.admin.metrics.reload().count("applied");
                let restart_required = standing::restarts(&left);
                tracing::info!(changes, took_ms, ?restart_required, "config reload applied");
            }
            (Verdict::Restart, Ok(())) => self.parts.admin.metrics.reload().count("restart"),
        }
        if done.is_ok() {
            self.refused = None;
        }
        let waits = done.as_ref().is_err_and(|setback| setback.kind == UNRESOLVED);
        self.pending =
            waits.then(|| Pending { files: secret_files, retry_at: Instant::now() + random::jittered(RETRY) });
        if matches!((verdict, &done), (Verdict::Same | Verdict::Apply, Ok(()))) {
            self.content = content;
        }
        if matches!((verdict, &done), (Verdict::Apply, Ok(()))) {
            self.parts.standing.send_modify(|standing| standing.config.generation += 1);
        }
        self.tell(&hash, left, done.err());
    }

    /// Has everything start anew, once it is sure that it would start.
    pub(super) async fn restart(
        &self,
        loaded: &Loaded,
        differences: &[Difference],
        asker: &Asker,
    ) -> Result<(), Setback> {
        let next = &loaded.config;
        let mut wants = Wants::of(next);
        let needed = declare::stored(&wants, next);
        let found = self.parts.resolver.resolve(&next.secrets, wants.origins()).await;
        // A variable that is named for the first time comes with the restart.
        wants.active.retain(|want| !(sets::is_env(&want.origin) && matches!(found.get(&want.origin), Some(Err(_)))));
        let set = SecretSet::gather(&wants, &found, &SecretSet::default()).map_err(Setback::unresolved)?;
        let unfit = declare::unfit(next, &set);
        if !unfit.is_empty() {
            return Err(Setback::unresolved(unfit));
        }
        declare::check(&self.parts.admin.store, next, declare::resolved(next, &set), needed).await?;
        let (now, then) = (&self.config.listen, &loaded.config.listen);
        let ours: BTreeSet<u16> =
            now.admin.iter().chain(&now.envoy_admin).chain(&now.ingress).map(std::net::SocketAddr::port).collect();
        for listener in [&then.admin, &then.envoy_admin, &then.ingress] {
            // What is ours is given back before it is taken again.
            let new: Vec<_> = listener.iter().filter(|address| !ours.contains(&address.port())).copied().collect();
            if !new.is_empty() {
                ports::take(&new).map_err(|error| Setback::new("ports", error.to_string()))?;
            }
        }
        let names = differences.iter().flat_map(Difference::names);
        let detail = Detail::default().names("keys", names).flag("restart", true);
        let entry = Entry::new(Action::ConfigReload, "", asker, SystemClock.now().wall).with(detail);
        let noted = self.parts.admin.store.keep(move |vault| vault.note(&entry)).await;
        noted.map_err(|error| Setback::new("internal", format!("the store: {error}")))?;
        let changes = standing::restarts(differences);
        tracing::warn!(?changes, "the configuration takes a restart: the gateway starts anew");
        if let Some(restart) = &self.parts.restart {
            restart();
        }
        Ok(())
    }

    /// Tells how it stands with the file. `left`: what differs.
    pub(super) fn tell(&self, hash: &str, left: Vec<Difference>, setback: Option<Setback>) {
        let mode = self.config.reload.mode.name();
        self.parts.standing.send_modify(|standing| {
            let config = &mut standing.config;
            config.ok = left.is_empty() && setback.is_none();
            mode.clone_into(&mut config.mode);
            hash.clone_into(&mut config.file_config_hash);
            if config.ok {
                hash.clone_into(&mut config.applied_config_hash);
            }
            config.pending_changes = standing::pending(&left);
            config.restart_required = standing::restarts(&left);
            config.last_error = setback.map(|setback| error_body(setback.kind, setback.message));
        });
    }
}

/// How a try came out badly.
pub(super) struct Setback {
    pub(super) kind: &'static str,
    pub(super) message: String,
    pub(super) unresolved: Vec<UnresolvedBody>,
}

impl Setback {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), unresolved: Vec::new() }
    }

    pub(super) fn unresolved(list: Vec<UnresolvedBody>) -> Self {
        let mut lines: Vec<_> = list.iter().take(MAX_UNRESOLVED).map(said).collect();
        if list.len() > MAX_UNRESOLVED {
            lines.push(format!("and {} more", list.len().saturating_sub(MAX_UNRESOLVED)));
        }
        let message = format!("secret reference unresolved: {}", lines.join("; "));
        Self { kind: UNRESOLVED, message, unresolved: list }
    }
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unresolved(list) => Self::unresolved(list),
            Failure::Store(error) => Self::new("internal", format!("the store: {error}")),
        }
    }
}

pub(super) fn error_body(kind: &str, message: String) -> ReloadErrorBody {
    let at = SystemClock.now().wall;
    ReloadErrorBody { at: at.rfc3339(), kind: kind.to_owned(), message }
}
