//! The secrets in use: resolved again, kept where that fails, taken out of use where they are too old.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Via;
use crate::reload::declare;
use crate::reload::engine::Degraded;
use crate::reload::engine::Reloader;
use crate::reload::file::MAX_UNRESOLVED;
use crate::reload::file::Setback;
use crate::reload::sets;
use crate::reload::sets::SecretSet;
use crate::reload::sets::Wants;
use crate::sys::random;
use crate::wire::reload::ReferenceBody;
use crate::wire::reload::ReferenceCounts;
use crate::wire::reload::SecretsReloadBody;
use crate::wire::reload::SecretsStatusBody;
use crate::wire::reload::UnresolvedBody;
use crate::wire::reload::WarningBody;

/// How long after a failure the secrets are resolved again without being asked.
pub(super) const RETRY: Duration = Duration::from_secs(30);
/// References that are listed.
const MAX_REFERENCES: usize = 1000;
/// What a reference of a disabled connection is told with.
pub(super) const INACTIVE: &str = "SECRETS_REF_IGNORED_INACTIVE_SURFACE";

impl Reloader {
    /// Resolves everything again and puts all of it in force or nothing. `asker`: somebody who asked, for the audit.
    pub(super) async fn reload_secrets(&mut self, dry_run: bool, asker: Asker) -> SecretsReloadBody {
        let (began, previous_generation) = (Instant::now(), self.generation);
        let wants = Wants::of(&self.config);
        let found = self.parts.resolver.resolve(&self.config.secrets, wants.origins()).await;
        let set = SecretSet::gather(&wants, &found, &SecretSet::default());
        let done = match set {
            Err(list) => Err(Setback::unresolved(list)),
            Ok(set) => self.adopt(set, dry_run, asker).await,
        };
        let mut refs =
            ReferenceCounts { active: wants.active.len(), inactive: wants.inactive.len(), changed: 0, unresolved: 0 };
        let mut unresolved = Vec::new();
        match done {
            Ok(changed) => {
                refs.changed = changed;
                if !dry_run {
                    self.recover();
                }
            }
            Err(setback) => {
                refs.unresolved = setback.unresolved.len().max(usize::from(setback.unresolved.is_empty()));
                if !dry_run {
                    self.degrade(&setback);
                }
                unresolved = setback.unresolved;
                if unresolved.is_empty() {
                    let message = setback.message;
                    unresolved.push(UnresolvedBody { path: String::new(), reference: String::new(), message });
                }
                unresolved.truncate(MAX_UNRESOLVED);
            }
        }
        self.tell_secrets();
        SecretsReloadBody {
            ok: refs.unresolved == 0,
            dry_run,
            generation: self.generation,
            previous_generation,
            refs,
            warnings: warnings(&wants),
            unresolved,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Puts a set in force. Returns how many secrets have changed.
    pub(super) async fn adopt(&mut self, set: SecretSet, dry_run: bool, asker: Asker) -> Result<usize, Setback> {
        let changed = set.changed_since(&self.set);
        let unfit = declare::unfit(&self.config, &set);
        if !unfit.is_empty() {
            return Err(Setback::unresolved(unfit));
        }
        let needed = declare::stored(&Wants::of(&self.config), &self.config);
        let (store, declared) = (&self.parts.admin.store, declare::resolved(&self.config, &set));
        if dry_run {
            declare::check(store, &self.config, declared, needed).await?;
            return Ok(changed);
        }
        declare::publish(store, &self.config, declared, needed, Action::SecretsReload, asker).await?;
        self.set = set;
        self.generation = self.generation.saturating_add(1);
        self.resolved_at = Instant::now();
        if changed > 0 {
            tracing::info!(generation = self.generation, changed, "secrets reloaded");
        }
        Ok(changed)
    }

    pub(super) fn recover(&mut self) {
        self.parts.admin.metrics.reload().count_secrets("ok");
        if self.degraded.take().is_some() {
            let generation = self.generation;
            tracing::info!(
                event = "secrets.recovered",
                code = "SECRETS_RELOADER_RECOVERED",
                generation,
                "all secret references are resolved again"
            );
        }
    }

    pub(super) fn degrade(&mut self, setback: &Setback) {
        self.parts.admin.metrics.reload().count_secrets("failed");
        let (generation, error) = (self.generation, &setback.message);
        let closed = self.degraded.as_ref().is_some_and(|degraded| degraded.closed);
        if self.degraded.is_none() {
            tracing::error!(
                event = "secrets.degraded",
                code = "SECRETS_RELOADER_DEGRADED",
                generation,
                error,
                "secrets snapshot degraded: they could not be reloaded, and the last good ones stay in use"
            );
        } else {
            tracing::warn!(generation, error, "secrets still cannot be reloaded");
        }
        let retry_at = Instant::now() + random::jittered(RETRY);
        self.degraded = Some(Degraded { unresolved: setback.unresolved.clone(), retry_at, closed });
    }

    /// Takes the secrets that could not be resolved out of use: each connection that has one is closed.
    pub(super) async fn close_too_old(&mut self) {
        let Some(degraded) = &mut self.degraded else { return };
        degraded.closed = true;
        let failing: BTreeSet<_> = degraded.unresolved.iter().map(|found| found.reference.clone()).collect();
        let set = self.set.without(&failing);
        let (declared, store) = (declare::resolved(&self.config, &set), &self.parts.admin.store);
        let asker = Asker::local(Via::Config).named("max_stale_seconds");
        let published = declare::publish(store, &self.config, declared, Vec::new(), Action::SecretsReload, asker).await;
        match published {
            Ok(_) => {
                tracing::error!(
                    event = "secrets.too_old",
                    references = ?failing,
                    "secrets that cannot be resolved are older than secrets.max_stale_seconds: their connections are closed"
                );
                self.set = set;
            }
            Err(failure) => {
                let setback = Setback::from(failure);
                tracing::error!(
                    error = setback.message,
                    "connections with secrets that are too old could not be closed"
                );
            }
        }
        self.tell_secrets();
    }

    /// Tells how it stands with the secrets.
    pub(super) fn tell_secrets(&self) {
        let wants = Wants::of(&self.config);
        let failing: BTreeSet<_> =
            self.degraded.iter().flat_map(|degraded| &degraded.unresolved).map(|found| &found.reference).collect();
        let body = |want: &sets::Want, active: bool| {
            let reference = want.origin.to_string();
            let secret = self.set.find(&want.origin);
            let state = match (active, failing.contains(&reference), secret) {
                (false, _, _) => "inactive",
                (true, true, None) if !sets::is_store(&want.origin) => "stale",
                (true, true, _) => "unresolved",
                (true, false, _) => "resolved",
            };
            let fingerprint = secret.filter(|_| active).map(|secret| self.fingerprints.of(secret.expose()));
            ReferenceBody { path: want.path.clone(), reference, state: state.to_owned(), fingerprint }
        };
        let active = wants.active.iter().take(MAX_REFERENCES).map(|want| body(want, true));
        let inactive = wants.inactive.iter().take(MAX_REFERENCES).map(|want| body(want, false));
        let references = active.chain(inactive).take(MAX_REFERENCES).collect();
        let unresolved = self.degraded.as_ref().map(|degraded| degraded.unresolved.clone()).unwrap_or_default();
        let secrets = SecretsStatusBody {
            ok: self.degraded.is_none(),
            generation: self.generation,
            degraded: self.degraded.is_some(),
            age_seconds: 0,
            refs: ReferenceCounts {
                active: wants.active.len(),
                inactive: wants.inactive.len(),
                changed: 0,
                unresolved: unresolved.len(),
            },
            references,
            warnings: warnings(&wants),
            unresolved: unresolved.into_iter().take(MAX_UNRESOLVED).collect(),
        };
        let too_old = self.degraded.as_ref().is_some_and(|degraded| degraded.closed);
        let resolved_at = self.resolved_at;
        self.parts.standing.send_modify(|standing| {
            standing.secrets = secrets;
            standing.resolved_at = resolved_at;
            standing.too_old = too_old;
        });
    }
}

fn warnings(wants: &Wants) -> Vec<WarningBody> {
    let text = "the connection is disabled: the reference is not resolved";
    let body = |want: &sets::Want| WarningBody {
        code: INACTIVE.to_owned(),
        path: want.path.clone(),
        message: format!("{}: {text}", want.origin),
    };
    wants.inactive.iter().take(MAX_UNRESOLVED).map(body).collect()
}
