//! What the long-lived roles have in common: hardened first, then logging; an end with an exit code.

use std::path::Path;
use std::sync::Arc;

use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::domain::log_redaction::LogRedactor;
use crate::domain::redact::Redactor;
use crate::domain::secret::Secret;
use crate::sys::hardening;
use crate::sys::signal::StopSignals;
use crate::sys::tasks::Ended;
use crate::sys::tasks::StopHandle;
use crate::telemetry::log;

/// Shorter secrets are words that lines may well hold.
const MIN_SECRET: usize = 12;

/// Hardens the process; nothing secret may have been read before, apart from the environment the process
/// was born with.
pub(crate) fn harden() -> Result<(), CliError> {
    hardening::harden_process()
        .map_err(|error| CliError::new(Outcome::Failed, format!("the process could not be hardened: {error}")))
}

/// Begins the log. `cleaner`: nobody reads it who would clean it.
pub(crate) fn begin_log(level: &str, cleaner: Option<Arc<LogRedactor>>) -> Result<(), CliError> {
    log::begin_at(level, cleaner).map_err(|error| CliError::new(Outcome::Config, error.to_string()))
}

/// Cleans the log of a role that nobody supervises; these secrets in whatever form they turn up.
pub(crate) fn cleaner<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Arc<LogRedactor> {
    let long = secrets.filter(|secret| secret.expose().len() >= MIN_SECRET);
    Arc::new(LogRedactor::knowing(Redactor::new(long)))
}

/// A secret for [`cleaner`]: what was given, else what its file holds now. One that cannot be read is told elsewhere.
pub(crate) fn held(given: Option<&Secret>, file: Option<&Path>) -> Option<Secret> {
    given.map(Secret::duplicate).or_else(|| gateway_api::stored_token(file?).ok().flatten())
}

/// Runs a role until it ends; the first signal calls its stop, the second does not wait for it.
pub(crate) async fn run_until_told(
    running: impl Future<Output = Ended>,
    stop: &StopHandle,
    signals: &mut StopSignals,
) -> Result<Outcome, CliError> {
    let told = async {
        let signal = signals.next().await;
        tracing::info!(signal, "told to stop");
        stop.stop();
        signals.next().await
    };
    tokio::select! {
        how = running => ended(&how),
        _ = told => forced(),
    }
}

/// How a role's end counts: told to stop is done, everything else is a failure a supervisor should see.
pub(crate) fn ended(ended: &Ended) -> Result<Outcome, CliError> {
    match ended {
        Ended::Stopped => Ok(Outcome::Done),
        Ended::Early(Some(task)) => Err(CliError::new(Outcome::Failed, format!("the task {task} ended by itself"))),
        Ended::Early(None) => Err(CliError::new(Outcome::Failed, "a task failed")),
        Ended::Forced => forced(),
    }
}

/// The end after a second signal, or after the grace period.
pub(crate) fn forced() -> Result<Outcome, CliError> {
    Err(CliError::new(Outcome::Failed, "stopped before everything in flight had ended"))
}
