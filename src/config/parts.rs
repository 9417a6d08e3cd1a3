//! The configuration as typed parts; a component is handed its own part.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::config::compare::Values;
pub use crate::config::declaration::DeclaredConnection;
pub use crate::config::declaration::DeclaredVariable;
pub use crate::config::declaration::ExecProvider;
pub use crate::config::declaration::ProviderConfig;
pub use crate::config::declaration::ReloadMode;
pub use crate::config::declaration::ReloadOptions;
pub use crate::config::declaration::Resolution;
pub use crate::config::declaration::SecretSource;
pub use crate::config::declaration::SecretsOptions;
use crate::config::fleet::SharedReplay;
use crate::config::fleet::StateListener;
use crate::config::fleet::Workload;
use crate::config::mistake::Mistake;
pub use crate::config::remote::Mode;
pub use crate::config::remote::RemoteGateway;
pub use crate::config::telemetry::TraceOptions;
use crate::domain::address::AddressPolicy;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::network::Network;
use crate::domain::secret::Secret;
use crate::domain::snapshot::Settings;
use crate::domain::time::UnixSeconds;

/// Everything that is configured. Only [`crate::config::load::load`] makes one, and only a valid one.
#[derive(Debug)]
pub struct Config {
    /// The gateway's own namespace; `None` where nobody named it.
    pub namespace: Option<Namespace>,
    /// Whether the gateway runs here.
    pub mode: Mode,
    /// The gateway that runs elsewhere, in that mode.
    pub remote: Option<RemoteGateway>,
    /// Whether a token may go in clear to an address of a private network.
    pub allow_insecure: bool,
    /// Address of the Sigilum API, without a trailing slash.
    pub api_url: String,
    /// Whether somebody set that address: then every connection is to be approved there.
    pub api_url_set: bool,
    /// Where commands of this machine reach the admin API, without a trailing slash.
    pub admin_url: String,
    /// Why no token may be sent to that address; `None`: it may.
    pub admin_url_refused: Option<&'static str>,
    /// Whether somebody set that address; else it is the one `admin` listens on, on this machine.
    pub admin_url_set: bool,
    /// Where things lie.
    pub paths: Paths,
    /// Where each process listens.
    pub listen: Listeners,
    /// How the addresses of the admin API came about: `loopback`, `lan`, `tailnet`, `auto`, `custom`; `lan` also where it was
    /// told to listen on every address of the machine.
    pub bind_mode: &'static str,
    /// Who may use the admin API.
    pub admin: AdminAccess,
    /// How Envoy is run.
    pub envoy: EnvoyOptions,
    /// What a decision depends on; the state stream carries it to authz.
    pub settings: Settings,
    /// How approvals are read from the Sigilum API, and strangers submitted to it.
    pub claims: ClaimsOptions,
    /// What it is told of usage.
    pub usage: UsageOptions,
    /// Entries of the replay window.
    pub replay_capacity: usize,
    /// The replay window that replicas share; `None`: each has its own alone.
    pub shared_replay: Option<SharedReplay>,
    /// Where the state is streamed to other hosts; `None`: nowhere.
    pub state_listener: Option<StateListener>,
    /// Which of them are sent what, in the order of the file.
    pub workloads: Vec<Workload>,
    /// How long open requests have to end at a stop.
    pub drain: Duration,
    /// Level of the log: `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// Which decisions are logged.
    pub decisions: DecisionLog,
    /// How much of the logs is kept.
    pub logs: LogBounds,
    /// How lines of the logs look on standard error; `None`: warnings as sentences, with `--verbose` lines as JSON.
    pub log_style: Option<LogStyle>,
    /// How Envoy traces; `None`: not at all. Where spans go is in the settings of the decision.
    pub traces: Option<TraceOptions>,
    /// The master key where the environment names it; otherwise it is in its file.
    pub master_key: Option<Secret>,
    /// Versions of a connection's secrets the store keeps, the one in use included.
    pub kept_secret_versions: u32,
    /// Port of the demo's native service.
    pub native_port: u16,
    /// Port of the demo upstream.
    pub upstream_port: u16,
    /// Approvals declared in the file; no two of the same namespace, key and service.
    pub approvals: Vec<DeclaredApproval>,
    /// Connections declared in the file, in its order; no two of the same id.
    pub connections: Vec<DeclaredConnection>,
    /// Variables declared in the file, in its order; no two of the same key.
    pub variables: Vec<DeclaredVariable>,
    /// How their secrets are found.
    pub secrets: SecretsOptions,
    /// How changes of the file are taken.
    pub reload: ReloadOptions,
    /// The settings as they were understood, for comparing.
    pub values: Values,
    /// What is allowed and still likely to be a mistake, with its place.
    pub warnings: Vec<Mistake>,
}

impl Config {
    /// Whether secrets stand in the file themselves: then nobody else may read it.
    pub fn holds_literals(&self) -> bool {
        let literal = |source: &SecretSource| matches!(source, SecretSource::Literal(_));
        self.connections.iter().any(|connection| connection.secrets.values().any(literal))
            || self.variables.iter().any(|variable| literal(&variable.source))
    }

    /// Whether agents without approval are submitted: whoever has no name cannot vouch for anybody, and nobody is submitted
    /// to an API that is not asked.
    pub fn registers(&self) -> bool {
        self.claims.auto_register && self.namespace.is_some() && self.claims.source == ClaimsSource::Api
    }

    /// Which upstream addresses connections may name: what declared ones were judged by.
    pub fn address_policy(&self) -> AddressPolicy {
        let all = self.listen.ingress.iter().chain(&self.listen.admin).chain(&self.listen.envoy_admin);
        AddressPolicy {
            allow_loopback: self.settings.allow_loopback,
            allow_private: self.settings.allow_private,
            own_ports: all.map(SocketAddr::port).collect(),
        }
    }
}

/// How much of each log of the data folder is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// The file is put aside when it would grow beyond this, in bytes.
    pub max_bytes: u64,
    /// How many files that were put aside are kept, at least one.
    pub keep: usize,
}

impl Default for LogBounds {
    /// 10 MiB, and three files put aside: the defaults of the settings.
    fn default() -> Self {
        Self { max_bytes: 10 * 1024 * 1024, keep: 3 }
    }
}

/// How lines of the logs look to whoever watches the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStyle {
    /// Columns, and colours where a terminal takes them.
    Pretty,
    /// Single blanks, no colours.
    Compact,
    /// As they stand in the files.
    Json,
}

impl LogStyle {
    /// Reads the name used in the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "pretty" => Some(Self::Pretty),
            "compact" => Some(Self::Compact),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Files and folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Identity, master key, `gateway.yaml`.
    pub home: PathBuf,
    /// The configuration file that was read; `None` where there is none.
    pub config_file: Option<PathBuf>,
    /// Store, admin token, logs.
    pub data_dir: PathBuf,
    /// Sockets and replay journal.
    pub run_dir: PathBuf,
    /// The folder itself, where `run_dir` is a shorter name of it ([`crate::config::run_folder`]).
    pub run_behind: Option<PathBuf>,
    /// Templates of connections.
    pub service_catalog: PathBuf,
}

/// Listen addresses; none is empty and no address occurs twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// Agents (Envoy).
    pub ingress: Vec<SocketAddr>,
    /// Admin API.
    pub admin: Vec<SocketAddr>,
    /// Read-only face of Envoy's admin interface; loopback.
    pub envoy_admin: Vec<SocketAddr>,
}

/// Where claims come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimsSource {
    /// The Sigilum API.
    Api,
    /// Nowhere: only declared approvals count.
    Off,
}

/// How claims are read and submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimsOptions {
    /// Where they come from.
    pub source: ClaimsSource,
    /// Time between two readings; never more than `ttl`.
    pub refresh: Duration,
    /// How long they hold without confirmation, the grace not counted.
    pub ttl: Duration,
    /// Most approvals of one service.
    pub max_approvals: usize,
    /// Submissions in any minute, all together; 0 = no limit.
    pub registrations_per_minute: u32,
    /// Whether agents without approval are submitted, where that is possible: see [`Config::registers`].
    pub auto_register: bool,
}

/// What the control plane is told of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageOptions {
    /// Whether it is told.
    pub enabled: bool,
    /// Bytes of the access log that may wait for it.
    pub max_backlog_bytes: u64,
}

/// How the admin API decides who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// The token, always.
    Token,
    /// A password.
    Password,
    /// The user a trusted proxy names.
    TrustedProxy,
    /// The token, or a direct loopback client.
    Hybrid,
    /// Nothing is asked: direct loopback clients only.
    None,
    /// A client certificate.
    Mtls,
}

impl AccessMode {
    /// Reads the name used in the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "token" => Some(Self::Token),
            "password" => Some(Self::Password),
            "trusted-proxy" => Some(Self::TrustedProxy),
            "hybrid" => Some(Self::Hybrid),
            // The second is what it was called first.
            "none" | "loopback" => Some(Self::None),
            "mtls" => Some(Self::Mtls),
            _ => None,
        }
    }

    /// The name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Password => "password",
            Self::TrustedProxy => "trusted-proxy",
            Self::Hybrid => "hybrid",
            Self::None => "none",
            Self::Mtls => "mtls",
        }
    }
}

/// Access to the admin API.
#[derive(Debug)]
pub struct AdminAccess {
    /// The rule.
    pub mode: AccessMode,
    /// The token where the environment names it; otherwise it is in its file.
    pub token: Option<Secret>,
    /// The password; always there in mode `password`.
    pub password: Option<GivenSecret>,
    /// What opens the metrics and nothing else; `None`: nothing but the rule does.
    pub metrics: Option<GivenSecret>,
    /// Whose word counts; always there in mode `trusted-proxy`.
    pub proxy: Option<ProxyRule>,
    /// Origins of web pages that may call it; `None`: its own on this machine.
    pub allowed_origins: Option<Vec<String>>,
    /// Hosts (`host` or `host:port`, lower case) a change may name besides our own addresses.
    pub allowed_hosts: Vec<String>,
    /// Its certificate; `None`: plain HTTP.
    pub tls: Option<AdminTls>,
    /// Whom commands of this machine trust, and what they show.
    pub trust: AdminTrust,
}

/// Where a secret that opens something of the admin API is.
#[derive(Debug)]
pub enum GivenSecret {
    /// It was given, and stays as long as the process.
    Given(Secret),
    /// In this file, whose content may change; the path is absolute.
    File(PathBuf),
}

impl GivenSecret {
    /// The secret itself, where it does not have to be read.
    pub const fn given(&self) -> Option<&Secret> {
        match self {
            Self::Given(secret) => Some(secret),
            Self::File(_) => None,
        }
    }

    /// Another one of the same.
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Given(secret) => Self::Given(secret.duplicate()),
            Self::File(path) => Self::File(path.clone()),
        }
    }
}

/// Which proxies are believed, and in what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRule {
    /// Where they are. Never empty.
    pub proxies: Vec<Network>,
    /// The header in which they name the user, in small letters.
    pub user_header: String,
    /// Headers that must be there besides, in small letters.
    pub required_headers: Vec<String>,
    /// Users who may; empty: all.
    pub allow_users: Vec<String>,
    /// Whether one of them may have a loopback address.
    pub allow_loopback: bool,
}

/// TLS of the admin API. Paths are absolute; the files may change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTls {
    /// The certificate, then its intermediates (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM).
    pub key_file: PathBuf,
    /// Whose client certificates are wanted; `None`: nobody's.
    pub clients: Option<ClientRule>,
}

/// Which client certificates count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRule {
    /// Their authorities (PEM).
    pub ca_file: PathBuf,
    /// Subject alternative names (DNS or URI, exact); a certificate must carry one. Never empty.
    pub names: Vec<String>,
}

/// How a command of ours speaks to the admin API over TLS. Paths are absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminTrust {
    /// Authorities of its certificate; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// A file whose first certificate is believed as it is, whatever name it carries: our own.
    pub own_cert_file: Option<PathBuf>,
    /// The certificate that is shown, and its key.
    pub operator: Option<(PathBuf, PathBuf)>,
    /// SHA-256 of the only certificate that is believed, 64 lower-case hex digits; `None`: the above counts.
    pub fingerprint: Option<String>,
}

/// Which decisions are logged; all are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionLog {
    /// None.
    Off,
    /// Refusals.
    Denied,
    /// Every one.
    All,
}

impl DecisionLog {
    /// The name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Denied => "denied",
            Self::All => "all",
        }
    }
}

/// How Envoy is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyOptions {
    /// The binary, where one is named.
    pub binary: Option<PathBuf>,
    /// Worker threads; `None` = one per processor.
    pub concurrency: Option<u32>,
    /// Proxies in front that are trusted to append to `x-forwarded-for`.
    pub trusted_hops: u32,
    /// TLS on the port of agents; `None`: plain HTTP.
    pub tls: Option<IngressTls>,
}

/// TLS on the port of agents. Paths are absolute; the files may change while the gateway runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressTls {
    /// The certificate, then its intermediates (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM).
    pub key_file: PathBuf,
    /// Authorities of client certificates (PEM), which are then required.
    pub client_ca_file: Option<PathBuf>,
}

impl IngressTls {
    /// All its files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file].into_iter().chain(&self.client_ca_file).map(PathBuf::as_path)
    }
}

/// An approval written in `gateway.yaml`: holds as long as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredApproval {
    /// The agent's namespace.
    pub namespace: Namespace,
    /// The agent's key.
    pub public_key: PublicKey,
    /// The connection it may use.
    pub service: ConnectionId,
    /// Not after this second; `None` = open end.
    pub expires_at: Option<UnixSeconds>,
}
