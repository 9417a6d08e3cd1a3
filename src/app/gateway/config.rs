//! What a supervised gateway is made of.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Beside;
#[cfg(doc)]
use crate::app::gateway::progress::Progress;
use crate::app::gateway::restart::Patience;
use crate::config::guard::Unguarded;
use crate::config::parts::IngressTls;
use crate::config::parts::LogBounds;
use crate::config::parts::LogStyle;
use crate::config::parts::TraceOptions;
use crate::domain::secret::Secret;
use crate::envoy::binary::Search;
use crate::sys::tls::trust::ServerTrust;
use crate::telemetry::log::LEVEL_VARIABLE;

/// The variable in which `admin` is handed the token.
pub const ADMIN_TOKEN: &str = "GATEWAY_ADMIN_TOKEN";
/// The variable in which it is handed the password.
pub const ADMIN_PASSWORD: &str = "SIGILUM_GATEWAY_PASSWORD";
/// The variable in which it is handed the token of the metrics.
pub const METRICS_TOKEN: &str = "GATEWAY_METRICS_TOKEN";
/// The settings file as it was when the gateway could use it, in the run folder; there while it cannot.
pub const LAST_GOOD_FILE: &str = "gateway.yaml.last-good";

/// Reads the settings, options and environment first. The error is for people.
type Read = Box<dyn Fn() -> Result<GatewayConfig, String> + Send + Sync>;

/// Reads the settings again, as the command line did at the start.
pub struct Loader(Read);

impl fmt::Debug for Loader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Loader")
    }
}

impl Loader {
    /// Through this function.
    pub fn new(read: impl Fn() -> Result<GatewayConfig, String> + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }

    /// The settings as they are now.
    pub fn load(&self) -> Result<GatewayConfig, String> {
        (self.0)()
    }

    /// Has what is read changed in this way.
    pub fn amend(&mut self, amend: impl Fn(&mut GatewayConfig) + Send + Sync + 'static) {
        let read = std::mem::replace(&mut self.0, Box::new(|| Err("the settings are being amended".to_owned())));
        self.0 = Box::new(move || {
            let mut config = read()?;
            amend(&mut config);
            Ok(config)
        });
    }
}

/// Everything `gateway start` needs, resolved and checked by the command line.
#[derive(Debug)]
pub struct GatewayConfig {
    /// Where the admin API listens.
    pub admin: Vec<SocketAddr>,
    /// Whom to believe at the admin API, and what to show it; `None`: it speaks plain HTTP.
    pub admin_trust: Option<ServerTrust>,
    /// Why the admin API may not face a network; `None`: whoever comes is asked who it is.
    pub admin_unguarded: Option<Unguarded>,
    /// The file of what opens the admin API, where that was not given: of the token, or of the password.
    pub admin_secret_file: PathBuf,
    /// Where agents connect.
    pub ingress: Vec<SocketAddr>,
    /// Where operators read Envoy's admin interface.
    pub envoy_admin: Vec<SocketAddr>,
    /// Store, admin token, logs, locks.
    pub data_dir: PathBuf,
    /// Sockets, Envoy's configuration, access log, replay journal, `instance.json`.
    pub run_dir: PathBuf,
    /// The folder itself, where `run_dir` is a shorter name of it.
    pub run_behind: Option<PathBuf>,
    /// Identities and the master key; its owner is who the gateway acts for.
    pub home: PathBuf,
    /// The settings file admin reads, where there is one.
    pub config_file: Option<PathBuf>,
    /// What stood in it when these settings were read; it may hold a secret.
    pub file_text: Option<Secret>,
    /// Why the settings in the file are not these: admin then reads [`LAST_GOOD_FILE`] in its place.
    pub held_back: Option<String>,
    /// Where to look for Envoy.
    pub envoy: Search,
    /// Worker threads of Envoy; one per processor where not set.
    pub concurrency: Option<u32>,
    /// Largest request body in bytes.
    pub max_body_bytes: u64,
    /// Proxies in front of Envoy whose `x-forwarded-for` entries count.
    pub trusted_hops: u32,
    /// TLS for agents.
    pub tls: Option<IngressTls>,
    /// How Envoy traces; `None`: not at all.
    pub traces: Option<TraceOptions>,
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
    /// How much of the logs is kept.
    pub logs: LogBounds,
    /// How their lines look where they are told; `None`: warnings as sentences, all others as they are.
    pub log_style: Option<LogStyle>,
    /// Whether every line of the logs is told as it is written ([`Progress::Log`]).
    pub verbose: bool,
    /// What else this process serves, to be written down for `down`.
    pub beside: Vec<Beside>,
    /// Settings of authz, which reads no file. No secret may stand here.
    pub environment: Vec<(String, String)>,
}

impl GatewayConfig {
    /// Where it is to listen.
    pub(super) fn wanted(&self) -> Addresses {
        let (ingress, admin, envoy_admin) = (self.ingress.clone(), self.admin.clone(), self.envoy_admin.clone());
        let (ingress_tls, admin_tls) = (self.tls.is_some(), self.admin_trust.is_some());
        Addresses { ingress, ingress_tls, admin, admin_tls, envoy_admin }
    }

    /// Has the processes log at debug, whatever the settings say, and every line told. Envoy stays as it is: at debug it
    /// prints what it forwards.
    pub fn speak_up(&mut self) {
        self.verbose = true;
        for environment in [&mut self.admin_environment, &mut self.environment] {
            environment.retain(|(name, _)| name != LEVEL_VARIABLE);
            environment.push((LEVEL_VARIABLE.to_owned(), "debug".to_owned()));
        }
    }

    /// What the processes say: `<data>/logs`.
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }
}
