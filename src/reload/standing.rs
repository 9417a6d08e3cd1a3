//! How it stands with the file and with the secrets, as it is told: kept whole, so that asking never waits for work.

use tokio::time::Instant;

use crate::admin::reload::Standing;
use crate::config::compare::Difference;
use crate::config::declaration::ReloadMode;
use crate::config::key::Reload;
use crate::reload::Setup;
use crate::wire::reload::ConfigStatusBody;
use crate::wire::reload::PendingBody;
use crate::wire::reload::ReferenceCounts;
use crate::wire::reload::SecretsStatusBody;

/// Differences that are listed.
const MAX_LISTED: usize = 1000;

/// What is told before anything has happened.
pub fn standing(setup: Option<&Setup>) -> Standing {
    let hash = setup.map(|setup| setup.loaded.hash.clone()).unwrap_or_default();
    let config = ConfigStatusBody {
        ok: true,
        mode: setup.map_or(ReloadMode::Off, |setup| setup.loaded.config.reload.mode).name().to_owned(),
        file: setup.map(|setup| setup.file.display().to_string()),
        generation: 1,
        applied_config_hash: hash.clone(),
        file_config_hash: hash,
        pending_changes: Vec::new(),
        restart_required: Vec::new(),
        last_error: None,
        envoy: None,
    };
    let secrets = SecretsStatusBody {
        ok: true,
        generation: 1,
        degraded: false,
        age_seconds: 0,
        refs: ReferenceCounts::default(),
        references: Vec::new(),
        warnings: Vec::new(),
        unresolved: Vec::new(),
    };
    Standing { config, secrets, resolved_at: Instant::now(), too_old: false }
}

/// Differences as they are told.
pub(super) fn pending(differences: &[Difference]) -> Vec<PendingBody> {
    let body = |difference: &Difference| PendingBody {
        path: difference.path.clone(),
        reload: difference.reload.name().to_owned(),
    };
    differences.iter().take(MAX_LISTED).map(body).collect()
}

/// Names of those that take a restart.
pub(super) fn restarts(differences: &[Difference]) -> Vec<String> {
    let restart = differences.iter().filter(|difference| difference.reload == Reload::Restart);
    restart.take(MAX_LISTED).map(|difference| difference.path.clone()).collect()
}
