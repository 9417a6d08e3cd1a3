//! The process's own log: one JSON object per line on standard error.
//!
//! Messages are constant, facts are fields. The level (`error`, `warn`, `info`, `debug`, `trace`) is for
//! our code; libraries stay at `warn`, because at `debug` some of them print what they send.

use std::io;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::TryInitError;

use crate::sys::env;

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
}

/// Begins the log of this process at the level the environment names.
pub fn begin() -> Result<(), LogError> {
    begin_at(env::lookup(LEVEL_VARIABLE).as_deref().unwrap_or("info"))
}

/// Begins the log of this process at a level.
pub fn begin_at(level: &str) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let level: LevelFilter = level.trim().parse().map_err(|_| LogError::Level(level.to_owned()))?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(io::stderr)
        .with_env_filter(filter(level))
        .finish()
        .try_init()?;
    Ok(())
}

/// Begins the log of this process at a level, with a place of its own: `sink` is handed one event at a time,
/// a JSON object and a line feed.
pub fn begin_into(level: &str, sink: impl Fn(&[u8]) + Send + Sync + 'static) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let level: LevelFilter = level.trim().parse().map_err(|_| LogError::Level(level.to_owned()))?;
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
        assert!(matches!(begin_at("loud"), Err(LogError::Level(_))));
    }
}
