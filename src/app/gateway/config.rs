//! What a supervised gateway is made of.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::app::gateway::progress::Beside;
use crate::app::gateway::restart::Patience;
use crate::config::guard::Unguarded;
use crate::domain::secret::Secret;
use crate::envoy::binary::Search;
use crate::sys::tls::trust::ServerTrust;

/// Everything `gateway start` needs, resolved and checked by the command line.
#[derive(Debug)]
pub struct GatewayConfig {
    /// Where the admin API listens.
    pub admin: Vec<SocketAddr>,
    /// Whom to believe at the admin API, and what to show it; `None`: it speaks plain HTTP.
    pub admin_trust: Option<ServerTrust>,
    /// Why the admin API may not face a network; `None`: whoever comes is asked who it is.
    pub admin_unguarded: Option<Unguarded>,
    /// Where agents connect.
    pub ingress: Vec<SocketAddr>,
    /// Where operators read Envoy's admin interface.
    pub envoy_admin: Vec<SocketAddr>,
    /// Store, admin token, logs, locks.
    pub data_dir: PathBuf,
    /// Sockets, Envoy's configuration, access log, replay journal, `instance.json`.
    pub run_dir: PathBuf,
    /// Identities and the master key; its owner is who the gateway acts for.
    pub home: PathBuf,
    /// The settings file admin reads, where there is one.
    pub config_file: Option<PathBuf>,
    /// Where to look for Envoy.
    pub envoy: Search,
    /// Worker threads of Envoy; one per processor where not set.
    pub concurrency: Option<u32>,
    /// Largest request body in bytes.
    pub max_body_bytes: u64,
    /// Proxies in front of Envoy whose `x-forwarded-for` entries count.
    pub trusted_hops: u32,
    /// How long requests in flight may take after a stop.
    pub drain: Duration,
    /// When a process that ends is given up.
    pub patience: Patience,
    /// The program that carries every role; this very one where not set.
    pub program: Option<PathBuf>,
    /// Settings that were typed as options, for admin to read as well. No secret may stand here.
    pub typed: Vec<String>,
    /// Settings admin reads from its environment. No secret may stand here.
    pub admin_environment: Vec<(String, String)>,
    /// Secrets admin needs, by variable name; handed over through its pipe.
    pub admin_secrets: Vec<(String, Secret)>,
    /// What else this process serves, to be written down for `down`.
    pub beside: Vec<Beside>,
    /// Settings of authz, which reads no file. No secret may stand here.
    pub environment: Vec<(String, String)>,
}

impl GatewayConfig {
    /// What the three processes say: `<data>/logs`.
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }
}
