//! The state a decision is made from: one immutable value, replaced as a whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::approval::Approvals;
use crate::domain::connection::Connection;
use crate::domain::ids::ConnectionId;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;
use crate::domain::trace::Collector;

/// What to do when a connection's secret is overdue for rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rotation {
    /// Nothing.
    Off,
    /// Let through, and say so in a response header.
    #[default]
    Warn,
    /// Refuse with `ROTATION_REQUIRED`.
    Block,
}

/// A point in the history of one store (see `state.proto`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StateVersion {
    /// Made when a store is created or restored.
    pub epoch: String,
    /// Rises by one with every change within the epoch, unless an earlier copy of the store is put in its place.
    pub version: u64,
    /// Which run of admin told it; empty where it was told by none, and of a version that does not tell.
    pub incarnation: String,
}

impl StateVersion {
    /// Whether one run of admin told both, so that the higher is the later.
    pub fn is_comparable(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.incarnation == other.incarnation
    }
}

/// The settings a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Accepted authorities besides the loopback names, lower case, with or without port.
    pub authorities: Vec<String>,
    /// Whether loopback names and addresses are accepted.
    pub loopback_names: bool,
    /// How old a signature may be.
    pub max_age: Duration,
    /// Largest request body, in bytes.
    pub max_body_bytes: u64,
    /// Whether every connection may reach private addresses.
    pub allow_private: bool,
    /// Whether connections may reach loopback (the gateway binds loopback only).
    pub allow_loopback: bool,
    /// What happens when a rotation is overdue.
    pub rotation: Rotation,
    /// Days after the due time before a rotation counts as overdue.
    pub rotation_grace_days: u32,
    /// How long claims hold after their source confirmed them: TTL + grace.
    pub claims_hold: Duration,
    /// Verifications per second granted to keys without any approval, in total.
    pub stranger_rate_per_second: u32,
    /// Whether refusals for want of a claim are registered with the control plane.
    pub auto_register: bool,
    /// The gateway's own namespace; empty where it has none.
    pub gateway_namespace: String,
    /// Level of the log of an authz under our own supervisor; empty: as it was started.
    pub log_level: String,
    /// Where spans of traces go; `None`: none are made.
    pub traces: Option<Arc<Collector>>,
    /// New requests are refused until then; 0: they are not.
    pub draining_until: UnixMillis,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            authorities: Vec::new(),
            loopback_names: true,
            max_age: Duration::from_secs(300),
            max_body_bytes: 2 * 1024 * 1024,
            allow_private: false,
            allow_loopback: false,
            rotation: Rotation::Warn,
            rotation_grace_days: 0,
            claims_hold: Duration::from_secs(30),
            stranger_rate_per_second: 200,
            auto_register: false,
            gateway_namespace: String::new(),
            log_level: String::new(),
            traces: None,
            draining_until: UnixMillis(0),
        }
    }
}

/// Connections with their secrets, approvals, settings. A clone shares them all; a change copies what it touches.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What this state is.
    pub version: StateVersion,
    /// See [`Settings`].
    pub settings: Arc<Settings>,
    /// By id.
    pub connections: Arc<HashMap<ConnectionId, Arc<Connection>>>,
    /// By key.
    pub approvals: Approvals,
    /// When this process was given the connections for which another one, with another replay window, decided until then.
    pub given: Arc<HashMap<ConnectionId, MonotonicMillis>>,
}

impl Snapshot {
    /// The connection of this id.
    pub fn connection(&self, id: &str) -> Option<&Arc<Connection>> {
        self.connections.get(id)
    }

    /// Up to when requests for a connection were, or may have been, used at another replay window. By the clock of this process,
    /// and the skew twice: a signature may be ahead of the clock that accepted it, and that one ahead of ours. `None`: none
    /// were.
    pub fn floor(&self, id: &str, now: Now) -> Option<UnixSeconds> {
        let since = now.monotonic.since(*self.given.get(id)?);
        let given = UnixMillis(now.wall.0.saturating_sub(since)).seconds();
        Some(UnixSeconds(given.0.saturating_add(CLOCK_SKEW.as_secs().saturating_mul(2))))
    }

    /// Whether a request for this connection that was signed then may have been used at another replay window.
    pub fn is_before_floor(&self, id: &str, created: UnixSeconds, now: Now) -> bool {
        self.floor(id, now).is_some_and(|floor| created <= floor)
    }

    /// Whether that is so for every connection of a request signed now.
    pub fn is_starting(&self, now: Now) -> bool {
        // Nearly always there are fewer, and none is looked at.
        let all = self.given.len() >= self.connections.len() && !self.connections.is_empty();
        all && self.connections.keys().all(|id| self.is_before_floor(id.as_str(), now.seconds(), now))
    }
}
