//! What a service manager is told of this process (`sd_notify(3)`): that it is ready, how it stands, that it lives. Where no
//! manager listens (`NOTIFY_SOCKET` is not set) all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::sys::env;

/// Parts of the manager's patience: a sign of life is tried for one and waited with for another, so that after one that was
/// lost the next comes when four have passed.
const BEATS: u32 = 6;

/// The service manager this process was started by, as its environment names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceManager {
    there: bool,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads the environment.
    pub fn of_environment() -> Self {
        Self { there: env::lookup("NOTIFY_SOCKET").is_some(), watchdog: sd_notify::watchdog_enabled() }
    }

    /// Whether one listens: it would start what ends.
    pub fn is_there(self) -> bool {
        self.there
    }

    /// The start takes longer than the manager would wait: this much from now on.
    pub fn extend(self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// One that is this patient, for tests; nobody listens.
    #[cfg(test)]
    pub(crate) const fn with_patience(patience: Duration) -> Self {
        Self { there: false, watchdog: Some(patience) }
    }

    /// How long to wait between two signs of life, and at most for what one depends on; `None`: nobody waits for them.
    pub fn beat_every(self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / BEATS)
    }

    /// Everything answers.
    pub fn ready(self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// One line for people.
    pub fn status(self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    /// The end has begun.
    pub fn stopping(self, status: &str) {
        tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// A sign of life.
    pub fn beat(self) {
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        // It goes on without: a manager that hears nothing does what its unit says.
        tracing::debug!(%error, "the service manager could not be told");
    }
}
