//! The admin process's HTTP face: connections, health, metrics.
//!
//! Owns access to the API and the translation between its JSON, the store and the state stream. Promises that
//! nothing is answered before access was judged, that a change is answered after it was committed and
//! published, and that no value of a secret is ever written. Never on the request path of agents.

pub mod access;
pub mod attempts;
pub mod audit;
pub mod catalog;
pub mod connections;
pub mod drain;
pub mod feed;
pub mod health;
pub mod health_alone;
pub mod health_api;
mod health_authz;
pub mod health_canary;
pub mod health_judge;
pub mod health_watch;
pub mod input;
pub mod legacy;
mod legacy_import;
mod legacy_purge;
pub mod legacy_scan;
pub mod logs;
pub mod meter;
pub mod metrics;
pub mod openapi;
pub mod origin;
pub mod probes;
pub mod proxy;
pub mod refusals;
pub mod reload;
pub mod respond;
pub mod router;
pub mod routes;
pub mod sealing_key;
pub mod service_keys;
pub mod status;
pub mod token;
pub mod upkeep;
pub mod uses;
pub mod variables;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::sync::watch;

use crate::admin::access::AccessRule;
use crate::admin::attempts::Attempts;
use crate::admin::drain::DrainDesk;
use crate::admin::health_watch::Health;
use crate::admin::legacy::LegacyDesk;
use crate::admin::origin::Pages;
use crate::admin::probes::Tests;
use crate::admin::refusals::Refusals;
use crate::admin::reload::ReloadDesk;
use crate::claims::client::UNAUTHORIZED;
use crate::claims::keys::KeyPlaces;
use crate::claims::overview::NO_SERVICE_KEY;
use crate::claims::overview::Overview;
use crate::claims::overview::Standing;
use crate::claims::refresh::ClaimsPace;
use crate::claims::refresh::Poke;
use crate::domain::address::AddressPolicy;
use crate::probe::Prober;
use crate::state::Publisher;
use crate::store::worker::Store;
use crate::sys::clock::SystemClock;
use crate::telemetry::log_reader::LogPlaces;
use crate::telemetry::metrics::Metrics;
use crate::wire::service_key::ApiStanding;

/// What every handler works with.
#[derive(Debug)]
pub struct Admin {
    /// The store.
    pub store: Store,
    /// What authz processes are told.
    pub publisher: Publisher,
    /// Who may use the API.
    pub access: AccessRule,
    /// Failed tokens by client.
    pub attempts: Attempts,
    /// Which web pages may call, under which names; replaced as a whole when the settings change, by
    /// [`Pages::under`].
    pub pages: ArcSwap<Pages>,
    /// Which upstream addresses may be saved.
    pub addresses: ArcSwap<AddressPolicy>,
    /// Sends tests of connections.
    pub prober: Arc<Prober>,
    /// Tests of connections that are running.
    pub tests: Tests,
    /// Refusals of agents' requests, as far as the access log was read.
    pub refusals: Arc<Refusals>,
    /// The file of the service catalog.
    pub catalog: PathBuf,
    /// Where this API is served.
    pub addresses_bound: Vec<SocketAddr>,
    /// How those came about, as the settings call it.
    pub bind_mode: &'static str,
    /// Where the ports of the admin API and of agents come from.
    pub port_sources: [&'static str; 2],
    /// Where Envoy takes the requests of agents.
    pub ingress: ArcSwap<Vec<SocketAddr>>,
    /// Where the logs are.
    pub logs: LogPlaces,
    /// Where the service keys are.
    pub keys: Arc<KeyPlaces>,
    /// Where OpenClaw keeps keys in clear, and whose turn it is to move them.
    pub legacy: LegacyDesk,
    /// Room for copies of the store that are made or fetched.
    pub copies: Arc<Semaphore>,
    /// Who drains, and until when.
    pub drain: Arc<DrainDesk>,
    /// How it stands with the gateway.
    pub health: Arc<Health>,
    /// Where reloads are asked for.
    pub reload: ReloadDesk,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How it stands with the claims; `None` where they have no source.
    pub claims: Option<ClaimsWatch>,
    /// Envoy's own admin interface, asked for its gauge of open requests.
    pub envoy_socket: PathBuf,
    /// Time of changes and answers.
    pub clock: SystemClock,
}

/// What readiness and metrics look at.
#[derive(Debug)]
pub struct ClaimsWatch {
    /// How it stands with each service.
    pub overview: Arc<Overview>,
    /// How often they are read.
    pub pace: watch::Receiver<ClaimsPace>,
    /// Has those of a service read at once.
    pub poke: Poke,
}

impl ClaimsWatch {
    /// Age from which on claims have missed a confirmation, in milliseconds.
    pub fn late_ms(&self) -> u64 {
        self.pace.borrow().late_ms()
    }

    /// A service has another key: the API is asked with it at once.
    pub fn key_written(&self, service: &str) {
        self.overview.begin_anew(service);
        if self.poke.try_send(service.to_owned()).is_err() {
            tracing::debug!(service, "the approvals are read at their own time");
        }
    }

    /// What came of the last asking for a service.
    pub fn standing(&self, service: &str) -> ApiStanding {
        match self.overview.standing(service) {
            Some(Standing::Current) => ApiStanding::Confirmed,
            Some(Standing::Missed(UNAUTHORIZED)) => ApiStanding::Refused,
            Some(Standing::Missed(NO_SERVICE_KEY) | Standing::Reading) | None => ApiStanding::Unknown,
            Some(Standing::Missed(_)) => ApiStanding::Failed,
        }
    }
}
