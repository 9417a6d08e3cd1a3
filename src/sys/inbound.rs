//! Accepting connections whose other end is known: a Unix socket with a verified peer, or mutual TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::domain::validity::Validity;
use crate::sys::peer::PeerRule;
use crate::sys::stream::VerifiedStream;
use crate::sys::tls;
use crate::sys::tls::ServerTls;
use crate::sys::tls::validity;

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where connections come from.
#[derive(Debug)]
pub enum Inbound {
    /// A Unix socket; the kernel says who is at the other end.
    Unix {
        /// Bound with mode 0600.
        listener: UnixListener,
        /// Who may connect; `None`: not known yet, so nobody.
        peers: watch::Receiver<Option<PeerRule>>,
    },
    /// TCP; the other end proves its name.
    Tls {
        /// Bound.
        listener: TcpListener,
        /// Our certificate and the names we accept.
        tls: ServerTls,
    },
}

/// A connection that was accepted by the system and not judged yet.
#[derive(Debug)]
pub enum Candidate {
    /// See [`Inbound::Unix`]; with the rule as it stood when the connection came.
    Unix(UnixStream, Option<PeerRule>),
    /// See [`Inbound::Tls`].
    Tls(TcpStream, ServerTls),
}

/// A candidate on its way to another thread's runtime: a socket belongs to the runtime it was made on.
#[derive(Debug)]
pub enum Detached {
    /// See [`Candidate::Unix`].
    Unix(std::os::unix::net::UnixStream, Option<PeerRule>),
    /// See [`Candidate::Tls`].
    Tls(std::net::TcpStream, ServerTls),
}

/// Why a connection was closed at once.
#[derive(Debug, thiserror::Error)]
pub enum Unwelcome {
    /// The process that may connect is not known yet.
    #[error("it is not known yet which process may connect")]
    TooEarly,
    /// Another process or user.
    #[error(transparent)]
    Peer(#[from] crate::sys::peer::PeerRefused),
    /// No certificate, a wrong one, or no TLS at all.
    #[error("TLS: {0}")]
    Handshake(io::Error),
    /// Nobody can rely on us any more.
    #[error("TLS: our own certificate has expired")]
    Expired,
    /// Whoever has a certificate with these names has enough connections; the first of them.
    #[error("TLS: there are too many connections with the names of this certificate ({0})")]
    Crowded(String),
    /// It took longer than a handshake takes.
    #[error("the TLS handshake took too long")]
    Slow,
}

impl Inbound {
    /// The next connection.
    pub async fn accept(&mut self) -> io::Result<Candidate> {
        match self {
            Self::Unix { listener, peers } => {
                let (stream, _) = listener.accept().await?;
                Ok(Candidate::Unix(stream, *peers.borrow()))
            }
            Self::Tls { listener, tls } => {
                let (stream, _) = listener.accept().await?;
                // A check is one small message each way; waiting to fill a segment only adds latency.
                stream.set_nodelay(true)?;
                Ok(Candidate::Tls(stream, tls.clone()))
            }
        }
    }
}

impl Detached {
    /// Takes the connection up on the runtime of the caller.
    pub fn attach(self) -> io::Result<Candidate> {
        match self {
            Self::Unix(stream, rule) => Ok(Candidate::Unix(UnixStream::from_std(stream)?, rule)),
            Self::Tls(stream, tls) => Ok(Candidate::Tls(TcpStream::from_std(stream)?, tls)),
        }
    }
}

impl Candidate {
    /// Gives the connection up on this runtime.
    pub fn detach(self) -> io::Result<Detached> {
        match self {
            Self::Unix(stream, rule) => Ok(Detached::Unix(stream.into_std()?, rule)),
            Self::Tls(stream, tls) => Ok(Detached::Tls(stream.into_std()?, tls)),
        }
    }

    /// Judges the other end. What is refused is closed by being dropped.
    pub async fn verify(self) -> Result<(VerifiedStream, Guard), Unwelcome> {
        match self {
            Self::Unix(_, None) => Err(Unwelcome::TooEarly),
            Self::Unix(stream, Some(rule)) => {
                rule.check(&stream)?;
                Ok((VerifiedStream::Unix(stream), Guard::Kernel))
            }
            Self::Tls(stream, tls) => {
                let acceptor = tls.acceptor().ok_or(Unwelcome::Expired)?;
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                        let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
                        Ok((VerifiedStream::Tls(Box::new(stream.into())), Guard::Tls { tls, chain }))
                    }
                    Ok(Err(error)) => Err(Unwelcome::Handshake(error)),
                    Err(_) => Err(Unwelcome::Slow),
                }
            }
        }
    }
}

/// What the certificate says that the other end of a TLS connection showed; every request of it carries that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The names in it.
    pub names: Arc<[String]>,
    /// When it holds; `None` where it does not say.
    pub validity: Option<Validity>,
}

/// Knows who is at the other end, and whether that still counts.
#[derive(Debug)]
pub enum Guard {
    /// The kernel said so, once and for all.
    Kernel,
    /// A certificate did, which may be withdrawn.
    Tls {
        /// What judges it.
        tls: ServerTls,
        /// What was shown.
        chain: Vec<CertificateDer<'static>>,
    },
}

impl Guard {
    /// What the other end has proven; `None` where the kernel vouches for it.
    pub fn shown(&self) -> Option<Shown> {
        match self {
            Self::Kernel => None,
            Self::Tls { chain, .. } => {
                let names = chain.first().map(|shown| tls::names_in(shown)).unwrap_or_default();
                Some(Shown { names: names.into(), validity: chain.first().and_then(validity::of) })
            }
        }
    }

    /// Returns when the other end would not be accepted any more: its authority was withdrawn, its certificate is past
    /// its time, or ours is.
    pub async fn withdrawn(&self) {
        let Self::Tls { tls: server, chain } = self else { return std::future::pending().await };
        tls::until_refused(server.standing(), || server.accepts(chain)).await;
    }
}
