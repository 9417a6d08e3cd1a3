//! What the admin process needs to speak with the Sigilum API: identity, client, usage.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::admin::meter::ACCESS_LOG;
use crate::app::admin::ClaimsSetup;
use crate::claims::client::ApiClient;
use crate::claims::keys::KeyPlaces;
use crate::claims::refresh::ClaimsConfig;
use crate::claims::refresh::ClaimsPace;
use crate::claims::usage;
use crate::claims::usage::Pace;
use crate::claims::usage::Usage;
use crate::claims::usage::UsageConfig;
use crate::identity::Home;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::telemetry::metrics::Metrics;

/// The API's client, with the gateway's own identity. Without either the gateway still serves: by declared approvals
/// alone, which is said once and loudly.
pub(super) fn connect(setup: ClaimsSetup, keys: Arc<KeyPlaces>) -> Option<(ClaimsConfig, watch::Sender<ClaimsPace>)> {
    let ClaimsSetup {
        api_url, every_service, namespace, home, refresh, max_approvals, registrations_per_minute, ..
    } = setup;
    let (sender, pace) = watch::channel(ClaimsPace { refresh, max_approvals, registrations_per_minute });
    let opened = match Home::new(home).load(&namespace, SystemClock.now().seconds()) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(
                %namespace,
                %error,
                "the gateway has no identity of its own: the Sigilum API is not asked, and only declared approvals \
                 count; start admin again when it has one"
            );
            return None;
        }
    };
    for warning in &opened.warnings {
        tracing::warn!(%warning, "the gateway's identity");
    }
    match ApiClient::new(&api_url, Arc::new(opened.identity)) {
        Ok(client) => {
            tracing::info!(api = client.address(), %namespace, "approvals are read from the Sigilum API");
            if client.is_exposed() {
                let api = client.address();
                tracing::warn!(
                    api,
                    "service keys and approvals travel in clear and could be changed on the way; use https"
                );
            }
            Some((ClaimsConfig { client: Arc::new(client), keys, every_service, pace }, sender))
        }
        Err(error) => {
            tracing::error!(%error, "the Sigilum API cannot be asked: only declared approvals count");
            None
        }
    }
}

/// Usage events from the access log of this run folder, to the API that claims come from.
pub(super) fn report_usage(
    claims: &ClaimsConfig,
    run_dir: &Path,
    max_backlog_bytes: u64,
    metrics: &Arc<Metrics>,
) -> std::io::Result<Usage> {
    Usage::build(UsageConfig {
        log: run_dir.join(ACCESS_LOG),
        position: usage::position_file(run_dir),
        max_backlog_bytes,
        client: Arc::clone(&claims.client),
        keys: Arc::clone(&claims.keys),
        metrics: Arc::clone(metrics),
        pace: Pace::default(),
    })
}
