//! The conditions of readiness that can be judged where no gateway runs: by the same functions, and asking no gateway.

use std::path::Path;
use std::time::Duration;

use crate::admin::health_api;
use crate::admin::health_judge;
use crate::admin::health_judge::ApiFact;
use crate::admin::health_watch;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::wire::health::ConditionBody;

/// The Sigilum API (`None`: it is not asked), the clock, the room that
/// is left, the bridge.
pub async fn conditions(api: Option<&str>, data: &Path, run: &Path, patience: Duration) -> Vec<ConditionBody> {
    let api: Option<ApiFact> = match api {
        Some(address) => Some(health_api::ask_once(address, patience).await),
        None => None,
    };
    let bridge = health_watch::bridge(run, SystemClock.now().seconds());
    vec![
        health_judge::api(api.as_ref()),
        health_judge::clock(api.as_ref()),
        health_judge::disk(files::free_bytes(data).ok()),
        health_judge::bridge(&bridge),
    ]
}
