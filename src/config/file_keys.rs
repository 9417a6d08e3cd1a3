//! Settings of what `gateway.yaml` declares: where secrets may stand, how they are found, what a change does.

use crate::config::key::Fallback;
use crate::config::key::Key;

/// Secrets in the file itself.
pub const ALLOW_LITERALS: Key = Key::new(
    Some("secrets.allow_literals"),
    &["GATEWAY_SECRETS_ALLOW_LITERALS"],
    None,
    Fallback::Text("false"),
    "whether secrets may stand in `gateway.yaml` themselves instead of references to where they live",
)
.hot()
.boolean();
/// Providers at a time.
pub const PROVIDER_CONCURRENCY: Key = Key::new(
    Some("secrets.resolution.max_provider_concurrency"),
    &["GATEWAY_SECRETS_MAX_PROVIDER_CONCURRENCY"],
    None,
    Fallback::Text("4"),
    "providers of secrets that are asked at the same time, 1 to 64",
)
.hot()
.whole(1, 64);
/// References of one request.
pub const REFS_PER_PROVIDER: Key = Key::new(
    Some("secrets.resolution.max_refs_per_provider"),
    &["GATEWAY_SECRETS_MAX_REFS_PER_PROVIDER"],
    None,
    Fallback::Text("512"),
    "references of one request to a program that gives secrets, 1 to 10000; more are further requests",
)
.hot()
.whole(1, 10_000);
/// Bytes of one request.
pub const BATCH_BYTES: Key = Key::new(
    Some("secrets.resolution.max_batch_bytes"),
    &["GATEWAY_SECRETS_MAX_BATCH_BYTES"],
    None,
    Fallback::Text("262144"),
    "bytes of one request to a program that gives secrets, 1024 to 16777216",
)
.hot()
.whole(1024, 16 * 1024 * 1024);
/// How long resolved secrets hold.
pub const MAX_STALE: Key = Key::new(
    Some("secrets.max_stale_seconds"),
    &["GATEWAY_SECRETS_MAX_STALE_SECONDS"],
    None,
    Fallback::Text("0"),
    "seconds the last resolved secrets hold while resolving fails, at most 31536000; 0 = as long as it fails",
)
.hot()
.whole(0, 31_536_000);
/// What a change of the file does.
pub const RELOAD_MODE: Key = Key::new(
    Some("reload.mode"),
    &["GATEWAY_RELOAD_MODE"],
    None,
    Fallback::Text("hybrid"),
    "what a change of `gateway.yaml` does: `off`: it is read and judged, nothing is applied; `hot`: what is hot is applied, the rest is reported; `restart`: a restart; `hybrid`: what is hot is applied, the rest is a restart",
)
.hot()
.choice(&["off", "hot", "restart", "hybrid", "false"]);
/// How long a change may take to be written.
pub const RELOAD_SETTLE: Key = Key::new(
    Some("reload.settle_ms"),
    &["GATEWAY_RELOAD_SETTLE_MS"],
    None,
    Fallback::Text("200"),
    "milliseconds `gateway.yaml` must have been left alone before it is read again, 10 to 60000",
)
.hot()
.whole(10, 60_000);
/// Where the system tells nothing.
pub const RELOAD_POLL: Key = Key::new(
    Some("reload.poll"),
    &["GATEWAY_RELOAD_POLL"],
    None,
    Fallback::Text("false"),
    "whether `gateway.yaml` is looked at now and then, for file systems that do not tell of changes",
)
.hot()
.boolean();
