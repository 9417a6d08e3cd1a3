//! What a gateway tells the person who started it.

use std::net::SocketAddr;

use crate::config::parts::LogStyle;
use crate::domain::log_line::LogStream;

/// One of the three processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The store and the admin API.
    Admin,
    /// The decision.
    Authz,
    /// The data plane.
    Envoy,
}

impl Role {
    /// The name in messages, log files and `instance.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Authz => "authz",
            Self::Envoy => "envoy",
        }
    }
}

/// The addresses a gateway really listens on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Addresses {
    /// Agents.
    pub ingress: Vec<SocketAddr>,
    /// Whether they speak TLS.
    #[serde(default)]
    pub ingress_tls: bool,
    /// The admin API.
    pub admin: Vec<SocketAddr>,
    /// Whether it speaks TLS.
    #[serde(default)]
    pub admin_tls: bool,
    /// Envoy's admin interface, read-only.
    pub envoy_admin: Vec<SocketAddr>,
}

/// A listener of the supervisor's own process that is no part of the gateway: the local control plane, a demo.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Beside {
    /// What listens, in one word.
    pub name: String,
    /// Where.
    pub address: SocketAddr,
}

/// A line of a log as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Whose.
    pub stream: LogStream,
    /// The line: JSON, without its end.
    pub line: String,
    /// How it is to look; `None`: as it is.
    pub style: Option<LogStyle>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A line worth reading: an installation, a warning of a process.
    Note(String),
    /// A line of a log, where every line is to be told, or this one matters and lines have a style.
    Log(Logged),
    /// Everything answers.
    Ready(Addresses),
    /// The whole local stack can be tried.
    StackReady {
        /// Where the gateway listens.
        gateway: Addresses,
        /// What listens beside it.
        beside: Vec<Beside>,
        /// The path of the demo's connection, where there is one.
        demo: Option<&'static str>,
    },
    /// A process ended by itself and will be started again.
    Restarting {
        /// Which.
        role: Role,
        /// How it ended.
        ended: String,
        /// When, in milliseconds from now.
        after_ms: u64,
    },
    /// The stop was called; requests in flight are finished.
    Draining,
    /// The settings have changed; requests in flight are finished, then everything starts anew.
    Anew,
    /// A restart was asked for; requests in flight are finished, then everything starts again.
    Again,
    /// A restart that nobody notices has begun.
    HandingOff,
    /// It is over: everything answers, or why not.
    HandedOff(Result<(), String>),
    /// The settings cannot be used, for this reason; those before are tried.
    HeldBack(String),
}
