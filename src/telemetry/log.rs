//! The process's own log: one JSON object per line on standard error.
//!
//! Messages are constant, facts are fields. The level (`error`, `warn`, `info`, `debug`, `trace`) is for
//! our code; libraries stay at `warn`, because at `debug` some of them print what they send.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::reload;
use tracing_subscriber::util::TryInitError;

use crate::domain::log_redaction::LogRedactor;
use crate::sys::env;
use crate::telemetry::log_cleaning;

/// Names the level; default `info`.
pub const LEVEL_VARIABLE: &str = "SIGILUM_LOG";

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a level.
    #[error("SIGILUM_LOG: {0:?} is none of off, error, warn, info, debug, trace")]
    Level(String),
    /// There is one already.
    #[error("the log was set up twice")]
    Twice(#[from] TryInitError),
    /// It does not take another level any more.
    #[error("the level of the log cannot be changed: {0}")]
    Gone(reload::Error),
}

/// Begins the log of this process at the level the environment names.
pub fn begin() -> Result<(), LogError> {
    begin_at(env::lookup(LEVEL_VARIABLE).as_deref().unwrap_or("info"), None)
}

/// Sets the filter of the process's log; there is one log, so there is one of these.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Begins the log of this process at a level, which [`set_level`] may change. `cleaner`: what is written is cleaned by it,
/// because nobody else will.
pub fn begin_at(level: &str, cleaner: Option<Arc<LogRedactor>>) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let builder = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(move || Stderr(cleaner.clone()))
        .with_env_filter(filter(parse(level)?))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.finish().try_init()?;
    let _ = SET_FILTER.set(Box::new(move |filter| handle.reload(filter)));
    Ok(())
}

/// Changes the level of a log that [`begin_at`] began; nothing where there is none.
pub fn set_level(level: &str) -> Result<(), LogError> {
    let filter = filter(parse(level)?);
    match SET_FILTER.get().map(|set| set(filter)) {
        Some(Err(error)) => Err(LogError::Gone(error)),
        Some(Ok(())) | None => Ok(()),
    }
}

fn parse(level: &str) -> Result<LevelFilter, LogError> {
    level.trim().parse().map_err(|_| LogError::Level(level.to_owned()))
}

/// Begins the log of this process at a level, with a place of its own: `sink` is handed one event at a time,
/// a JSON object and a line feed.
pub fn begin_into(level: &str, sink: impl Fn(&[u8]) + Send + Sync + 'static) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let level = parse(level)?;
    let sink = Arc::new(sink);
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(move || Sink(Arc::clone(&sink)))
        .with_env_filter(filter(level))
        .finish()
        .try_init()?;
    Ok(())
}

/// Standard error. An event is written to it in one piece.
struct Stderr(Option<Arc<LogRedactor>>);

impl io::Write for Stderr {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(redactor) => io::stderr().write_all(&log_cleaning::lines(redactor, event))?,
            None => io::stderr().write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// An event is written to it in one piece.
struct Sink<F>(Arc<F>);

impl<F: Fn(&[u8])> io::Write for Sink<F> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        (self.0)(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn filter(level: LevelFilter) -> EnvFilter {
    let libraries = level.min(LevelFilter::WARN);
    // Both parts are built here and known to be well formed.
    EnvFilter::new(format!("{libraries},sigilum={level}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_never_log_below_warn() {
        assert_eq!(filter(LevelFilter::TRACE).to_string(), "sigilum=trace,warn");
        assert_eq!(filter(LevelFilter::ERROR).to_string(), "sigilum=error,error");
    }

    #[test]
    fn an_unknown_level_is_an_error() {
        assert!(matches!(begin_at("loud", None), Err(LogError::Level(_))));
    }
}
