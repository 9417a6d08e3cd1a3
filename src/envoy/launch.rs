//! How Envoy is started: its command line and the files it finds in the run folder.

/// What Envoy starts with, in the run folder; its listeners are beside it ([`crate::envoy::split`]).
pub const CONFIG_FILE: &str = "envoy.json";
/// Envoy's own admin interface, in the run folder; the static configuration names it.
pub const ADMIN_SOCKET: &str = "envoy-admin.sock";
/// Where Envoy asks for decisions, in the run folder; the static configuration names it.
pub const AUTHZ_SOCKET: &str = "authz.sock";
/// How long connections of a listener that was changed or has gone may go on: as long as a stream may last. What needs
/// less time is told with its next answer to come again.
const DRAIN_SECONDS: &str = "3600";
/// How late a line may reach the access log: usage is counted from it.
const LOG_FLUSH_MILLIS: &str = "1000";

/// The arguments of an Envoy whose working directory is the run folder. `concurrency` is its number of
/// worker threads; without one it takes one per processor.
pub fn arguments(concurrency: Option<u32>) -> Vec<String> {
    // Hot restart would share memory, by a number, with any other Envoy of this user.
    let mut arguments: Vec<String> = ["--config-path", CONFIG_FILE, "--disable-hot-restart", "--log-level", "warning"]
        .into_iter()
        .chain(["--file-flush-interval-msec", LOG_FLUSH_MILLIS])
        .chain(["--drain-time-s", DRAIN_SECONDS, "--drain-strategy", "immediate"])
        // Envoy's own line about a refused request names its path and query.
        .chain(["--component-log-level", "http:critical"])
        .map(str::to_owned)
        .collect();
    if let Some(threads) = concurrency {
        arguments.extend(["--concurrency".to_owned(), threads.to_string()]);
    }
    arguments
}
