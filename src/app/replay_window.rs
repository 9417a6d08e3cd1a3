//! The replay window of one authz as admin is told of it, and the one that all replicas share behind it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::authz::SharedWindow;
use crate::config::fleet::SharedReplay;
use crate::sys::clock::Clock;
use crate::sys::key_store::KeyStore;
use crate::sys::key_store::Password;
use crate::sys::key_store::Trust;
use crate::sys::tasks::Tasks;

/// What admin is told of the replay window, and the shared one, where there is one.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) shared: Option<Arc<SharedWindow>>,
    local: Arc<watch::Sender<Option<String>>>,
}

impl Window {
    /// `local`: the id that is kept with the journal; without it nothing is told of a window of our own.
    pub(super) fn of(config: Option<&SharedReplay>, local: Option<String>) -> Self {
        let shared = config.map(|shared| {
            let password = match (&shared.password, &shared.password_file) {
                (Some(secret), _) => Password::Held(secret.duplicate()),
                (None, Some(file)) => Password::File(file.clone()),
                (None, None) => Password::None,
            };
            let trust = match (shared.tls, &shared.ca_file) {
                (false, _) => Trust::Clear,
                (true, None) => Trust::System,
                (true, Some(file)) => Trust::Authorities(file.clone()),
            };
            let (host, port, database) = (shared.host.clone(), shared.port, shared.database);
            let store = KeyStore { host, port, database, username: shared.username.clone(), password, trust };
            Arc::new(SharedWindow::new(store, shared.timeout))
        });
        let local = local.map_or_else(String::new, |id| named(&id));
        Self { shared, local: Arc::new(watch::channel(Some(local)).0) }
    }

    /// Says the id that is kept with the journal, where it was not known before the journal was read.
    pub(super) fn learn(&self, local: &str) {
        let name = Some(named(local));
        self.local.send_if_modified(|known| std::mem::replace(known, name.clone()) != name);
    }

    pub(super) fn name(&self) -> watch::Receiver<Option<String>> {
        self.shared.as_ref().map_or_else(|| self.local.subscribe(), |shared| shared.name())
    }

    /// Keeps the shared window connected.
    pub(super) fn hold<C: Clock>(&self, tasks: &mut Tasks, clock: C) {
        if let Some(shared) = self.shared.clone() {
            tasks.spawn("shared-replay", |stop| shared.run(clock, stop));
        }
    }
}

fn named(local: &str) -> String {
    format!("local:{local}")
}
