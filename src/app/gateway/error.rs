//! Why a gateway does not start or does not go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::app::gateway::progress::Role;
use crate::config::guard::OpenBind;
use crate::config::profile;
use crate::envoy::binary::EnvoyError;
use crate::envoy::live::LiveError;
use crate::envoy::render::RenderError;
use crate::sys::env;
use crate::sys::peer::SocketError;
use crate::sys::ports::by;
use crate::sys::ports::of;
use crate::sys::process::PortHolder;
use crate::sys::tls::TlsError;

/// How an error counts for whoever started us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Settings, a port or a lock: starting again does not help.
    Config,
    /// Something this machine would need is missing.
    Unavailable,
    /// It passes by itself: starting again later helps.
    Temporary,
    /// It went wrong.
    Failed,
}

/// Why a gateway does not start or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A second start on the same data folder.
    #[error("another gateway instance is already listening: {lock} is held by {holder}")]
    AlreadyRunning {
        /// The lock.
        lock: PathBuf,
        /// What its holder wrote into it.
        holder: String,
    },
    /// Somebody listens where we would.
    #[error(
        "port in use by foreign process: port {} ({what}, {address}) is in use{}", .address.port(), by(.holder.as_ref())
    )]
    PortInUse {
        /// What it is for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Who listens there, where the system tells.
        holder: Option<PortHolder>,
    },
    /// Nobody listens where we would, and the port is that of a connection.
    #[error(
        "port {} ({what}, {address}) is taken for now: it is the source port of an outgoing connection{}",
        .address.port(),
        of(.holder.as_ref())
    )]
    PortPassing {
        /// What it is for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Whose connection it is, where the system tells.
        holder: Option<PortHolder>,
    },
    /// Two of our own listeners want one address.
    #[error("{what} is set to {address}, which another listener of this gateway already has")]
    PortTwice {
        /// The second listener.
        what: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A listener that would be open to a network.
    #[error(transparent)]
    Open(#[from] OpenBind),
    /// An address that cannot be bound.
    #[error("{what} cannot listen on {address}: {source}")]
    Bind {
        /// What it is for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A listener without any address.
    #[error("{0} has no address to listen on")]
    NoAddress(&'static str),
    /// A socket path that the system cannot take.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No Envoy.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
    /// No configuration for it.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The certificate of agents' connections.
    #[error("the certificate of gateway.tls cannot be used: {0}")]
    Tls(TlsError),
    /// No trusted certificates.
    #[error("no file of trusted certificates was found ({0})")]
    NoCertificates(String),
    /// A file or folder.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A process cannot be started at all.
    #[error("{} cannot be started: {source}", .role.name())]
    Spawn {
        /// Which.
        role: Role,
        /// What the system said.
        source: io::Error,
    },
    /// A process ended before it was ready.
    #[error("{} ended before it was ready ({ended}); its log: {log}", .role.name())]
    Ended {
        /// Which.
        role: Role,
        /// How.
        ended: String,
        /// Its exit code, where it had one.
        code: Option<i32>,
        /// Where it says why.
        log: PathBuf,
    },
    /// A process did not become ready.
    #[error("{} is not ready after {seconds} s: {answer}; its log: {log}", .role.name())]
    NotReady {
        /// Which.
        role: Role,
        /// How long it was waited for.
        seconds: u64,
        /// What its health said last.
        answer: String,
        /// Where it says why.
        log: PathBuf,
    },
    /// A process that ends again and again.
    #[error(
        "{} crash loop: it ended {failures} times within {seconds} s, the last time with {ended}; its log: {log}", .role.name()
    )]
    GaveUp {
        /// Which.
        role: Role,
        /// How often.
        failures: usize,
        /// Within how long.
        seconds: u64,
        /// How, the last time.
        ended: String,
        /// Where it says why.
        log: PathBuf,
    },
}

/// `EX_CONFIG`, which our processes answer when starting them again does not help.
const EXIT_CONFIG: i32 = 78;
/// `EX_UNAVAILABLE`.
const EXIT_UNAVAILABLE: i32 = 69;

impl From<LiveError> for GatewayError {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::Render(error) => Self::Render(error),
            LiveError::Tls(error) => Self::Tls(error),
            LiveError::Io { path, source } => Self::Io { path, source },
        }
    }
}

impl GatewayError {
    /// How it counts.
    pub fn class(&self) -> Class {
        match self {
            Self::AlreadyRunning { .. }
            | Self::PortInUse { .. }
            | Self::PortTwice { .. }
            | Self::Open(_)
            | Self::Bind { .. }
            | Self::NoAddress(_)
            | Self::Socket(_)
            | Self::Render(_)
            | Self::Tls(_)
            | Self::Ended { code: Some(EXIT_CONFIG), .. } => Class::Config,
            Self::Envoy(_) | Self::NoCertificates(_) | Self::Ended { code: Some(EXIT_UNAVAILABLE), .. } => {
                Class::Unavailable
            }
            Self::PortPassing { .. } => Class::Temporary,
            // A folder that is not ours to use: somebody has to change a setting or a mode.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Class::Config,
            Self::Io { .. } | Self::Spawn { .. } | Self::Ended { .. } | Self::NotReady { .. } | Self::GaveUp { .. } => {
                Class::Failed
            }
        }
    }

    /// What to do about it, where something can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AlreadyRunning { .. } => {
                let sigilum = profile::typed(&env::lookup);
                Some(format!("`{sigilum} gateway stop` stops it, `{sigilum} gateway start --force` takes its place"))
            }
            Self::PortInUse { .. } => {
                Some("end that program, or choose another address; nothing was stopped".to_owned())
            }
            Self::PortPassing { address, .. } => Some(format!(
                "it passes by itself, start again then; `sysctl net.ipv4.ip_local_reserved_ports={}` keeps it free",
                address.port()
            )),
            Self::Socket(SocketError::TooLong { .. }) => {
                Some("choose a shorter data folder (--data-dir, GATEWAY_DATA_DIR)".to_owned())
            }
            Self::Envoy(error) => Some(error.hint()),
            Self::NoCertificates(_) => Some("install the package ca-certificates, or set SSL_CERT_FILE".to_owned()),
            Self::PortTwice { .. }
            | Self::Open(_)
            | Self::Bind { .. }
            | Self::NoAddress(_)
            | Self::Socket(_)
            | Self::Render(_)
            | Self::Tls(_)
            | Self::Io { .. }
            | Self::Spawn { .. }
            | Self::Ended { .. }
            | Self::NotReady { .. }
            | Self::GaveUp { .. } => None,
        }
    }
}
