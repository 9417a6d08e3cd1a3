//! Everything that takes no restart, put in force together or not at all.

use std::sync::Arc;

use crate::claims::refresh::ClaimsPace;
use crate::config::Config;
use crate::config::compare::Difference;
use crate::config::keys;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Via;
use crate::domain::snapshot::Settings;
use crate::envoy::render::Rendering;
use crate::reload::Loaded;
use crate::reload::declare;
use crate::reload::engine::Reloader;
use crate::reload::file::Setback;
use crate::reload::judge::is_hot;
use crate::reload::keep;
use crate::reload::sets::SecretSet;
use crate::reload::sets::Wants;
use crate::store::declared::Resolved;
use crate::telemetry::log;

impl Reloader {
    /// Puts everything in force that takes no restart; all of it or nothing. `asker`: for the audit.
    pub(super) async fn apply(
        &mut self,
        loaded: Loaded,
        differences: &[Difference],
        asker: &Asker,
    ) -> Result<(), Setback> {
        let own_envoy = self.parts.live.is_some();
        let mut next = loaded.config;
        let left: Vec<_> = differences.iter().filter(|found| !is_hot(found, own_envoy)).collect();
        next.values.keep(&self.config.values, left.iter().map(|found| found.path.as_str()));
        let moved = differences.iter().any(|found| found.path == keys::INGRESS_ADDR.name());
        keep::what_takes_a_restart(&mut next, &self.config, moved, own_envoy, self.parts.claims.is_some());
        let wants = Wants::of(&next);
        // Another provider may answer otherwise what was asked before.
        let everything = differences.iter().any(|found| found.path.starts_with("secrets.providers"));
        let mut wanted = wants.origins();
        if !everything {
            wanted.retain(|origin| self.set.find(origin).is_none());
        }
        let found = self.parts.resolver.resolve(&next.secrets, wanted).await;
        let before = if everything { SecretSet::default() } else { self.set.clone() };
        let set = SecretSet::gather(&wants, &found, &before).map_err(Setback::unresolved)?;
        let unfit = declare::unfit(&next, &set);
        if !unfit.is_empty() {
            return Err(Setback::unresolved(unfit));
        }
        let raised = self.raise_body_limit(&next).await?;
        let envoy = match self.change_envoy(&next).await {
            Ok(envoy) => envoy,
            Err(setback) => {
                if raised {
                    self.lower_body_limit().await;
                }
                return Err(setback);
            }
        };
        let (store, needed) = (&self.parts.admin.store, declare::stored(&wants, &next));
        let in_force = differences.iter().filter(|found| is_hot(found, own_envoy));
        let names = in_force.flat_map(Difference::names).collect();
        let declared = Resolved { names, ..declare::resolved(&next, &set) };
        let published = declare::publish(store, &next, declared, needed, Action::ConfigReload, asker.clone()).await;
        if let Err(failure) = published {
            self.restore_envoy(envoy).await;
            if raised {
                self.lower_body_limit().await;
            }
            return Err(failure.into());
        }
        self.turn_switches(&next).await;
        self.config = next;
        self.set = set;
        self.tell_secrets();
        Ok(())
    }

    /// A body that Envoy lets in must not be too large for the decision: before Envoy lets in more, the decision does.
    pub(super) async fn raise_body_limit(&self, next: &Config) -> Result<bool, Setback> {
        let (now, then) = (self.config.settings.max_body_bytes, next.settings.max_body_bytes);
        if then <= now || self.parts.live.is_none() {
            return Ok(false);
        }
        let mut settings = self.config.settings.clone();
        settings.max_body_bytes = then;
        self.publish_body_limit(&settings).await?;
        Ok(true)
    }

    pub(super) async fn lower_body_limit(&self) {
        if let Err(setback) = self.publish_body_limit(&self.config.settings).await {
            tracing::error!(error = setback.message, "the largest request body could not be set back");
        }
    }

    pub(super) async fn publish_body_limit(&self, settings: &Settings) -> Result<(), Setback> {
        let names = vec![keys::MAX_REQUEST_BODY_BYTES.name().to_owned()];
        let declared = Resolved { settings: settings.clone(), names, ..declare::resolved(&self.config, &self.set) };
        let asker = Asker::local(Via::Config);
        let store = &self.parts.admin.store;
        declare::publish(store, &self.config, declared, Vec::new(), Action::ConfigReload, asker).await?;
        Ok(())
    }

    /// Has Envoy take what of the configuration is its own. Returns what it had, where that was something else.
    pub(super) async fn change_envoy(&self, next: &Config) -> Result<Option<Rendering>, Setback> {
        let Some(live) = &self.parts.live else { return Ok(None) };
        let before = live.settings().await;
        let mut wanted = before.clone();
        if next.listen.ingress != self.config.listen.ingress {
            wanted.ingress.clone_from(&next.listen.ingress);
        }
        wanted.max_body_bytes = next.settings.max_body_bytes;
        wanted.trusted_hops = next.envoy.trusted_hops;
        wanted.tls.clone_from(&next.envoy.tls);
        match live.apply(wanted).await {
            Ok(applied) => Ok(applied.changed.then_some(before)),
            Err(rejected) => Err(Setback::new("envoy", rejected.to_string())),
        }
    }

    pub(super) async fn restore_envoy(&self, before: Option<Rendering>) {
        let (Some(live), Some(before)) = (&self.parts.live, before) else { return };
        if let Err(rejected) = live.apply(before).await {
            tracing::error!(error = %rejected, "Envoy could not be given its last good configuration back");
        }
    }

    /// What this process itself goes by.
    pub(super) async fn turn_switches(&self, next: &Config) {
        let admin = &self.parts.admin;
        let (origins, hosts) = (next.admin.allowed_origins.clone(), next.admin.allowed_hosts.clone());
        let pages = admin.pages.load().under(origins, hosts);
        admin.pages.store(Arc::new(pages));
        admin.publisher.set_workloads(next.workloads.clone());
        let mut addresses = admin.addresses.load().as_ref().clone();
        addresses.allow_loopback = next.settings.allow_loopback;
        addresses.allow_private = next.settings.allow_private;
        if let Some(live) = &self.parts.live {
            let listens = live.settings().await;
            let all = listens.ingress.iter().chain(&listens.admin).chain(&listens.admin_face);
            addresses.own_ports = all.map(std::net::SocketAddr::port).collect();
            admin.health.ingress_tls.store(listens.tls.map(Arc::new));
            admin.ingress.store(Arc::new(listens.ingress));
        }
        admin.addresses.store(Arc::new(addresses));
        if let Some(claims) = &self.parts.claims {
            claims.send_if_modified(|pace| {
                let wanted = ClaimsPace::of(&next.claims);
                let changed = *pace != wanted;
                *pace = wanted;
                changed
            });
        }
        if let Err(error) = log::set_level(&next.log_level) {
            tracing::error!(%error, "the level of the log stays as it is");
        }
    }
}
