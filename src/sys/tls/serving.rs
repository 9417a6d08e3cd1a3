//! TLS of a listener that people and their programs come to: its certificate may be replaced while it runs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio_rustls::TlsAcceptor;

use crate::sys::tasks::Stop;
use crate::sys::tls::TlsError;
use crate::sys::tls::listed_name;
use crate::sys::tls::rotating::Contents;
use crate::sys::tls::rotating::FileSet;
use crate::sys::tls::rotating::Rotating;
use crate::sys::tls::rotating::unfit;
use crate::sys::tls::until_refused;

/// The files, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingFiles {
    /// Our certificate, then its intermediates.
    pub certificate: PathBuf,
    /// The private key of our certificate; others must not be able to read it.
    pub key: PathBuf,
    /// Whose certificates clients may show.
    pub clients: Option<ClientFiles>,
}

/// Which clients are known by a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// Their authorities.
    pub authorities: PathBuf,
    /// Subject alternative names (DNS or URI, exact); a certificate must carry one.
    pub names: Vec<String>,
}

/// The server's side as it stands; cheap to clone.
#[derive(Clone)]
pub struct Serving {
    files: Arc<Rotating<Made>>,
    names: Option<Arc<[String]>>,
}

/// What connections are accepted with now.
#[derive(Clone)]
struct Made {
    config: Arc<ServerConfig>,
    /// `None`: clients are asked for no certificate.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Serving").field(&self.files).finish()
    }
}

impl Serving {
    /// Reads the files.
    pub fn load(files: ServingFiles) -> Result<Self, TlsError> {
        let ServingFiles { certificate, key, clients } = files;
        let (authorities, names) = clients.map(|clients| (clients.authorities, clients.names)).unzip();
        if names.as_ref().is_some_and(Vec::is_empty) {
            return Err(TlsError::NoNames);
        }
        let files = Rotating::load(FileSet { certificate, key, authorities }, Box::new(build))?;
        Ok(Self { files, names: names.map(Arc::from) })
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.files.current().config)
    }

    /// Whether clients are asked for a certificate.
    pub const fn asks(&self) -> bool {
        self.names.is_some()
    }

    /// The name of the list in the certificate a client showed and its authorities signed; `None` where it showed
    /// none, or one without such a name.
    pub fn client_name(&self, shown: Option<&[CertificateDer<'_>]>) -> Option<Arc<str>> {
        listed_name(shown?.first()?, self.names.as_ref()?).map(Arc::from)
    }

    /// Returns when a client that showed this chain would not be accepted any more: its authority was withdrawn, or its
    /// certificate is past its time. Never for one that showed none.
    pub async fn withdrawn(&self, chain: &[CertificateDer<'_>]) {
        let Some((shown, intermediates)) = chain.split_first() else { return std::future::pending().await };
        let accepts = || {
            let clients = self.files.current().clients;
            clients.is_some_and(|clients| clients.verify_client_cert(shown, intermediates, UnixTime::now()).is_ok())
        };
        until_refused(self.files.standing(), accepts).await;
    }

    /// Looks at the files until told to stop, and serves what they hold.
    pub async fn follow(self, stop: Stop) {
        self.files.follow(stop).await;
    }
}

fn build(files: &FileSet, contents: &Contents) -> Result<Made, TlsError> {
    let failed = |error: &dyn fmt::Display| TlsError::Config(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    let clients = match contents.roots(files)? {
        Some(roots) => {
            // Health is for everybody; who shows none is told so by an answer and not by a broken connection.
            let clients: Arc<dyn ClientCertVerifier> =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| failed(&error))?;
            Some(clients)
        }
        None => None,
    };
    let builder = match &clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
        None => builder.with_no_client_auth(),
    };
    // Refuses a key that is not the certificate's.
    let mut config =
        builder.with_single_cert(contents.chain(files)?, contents.key(files)?).map_err(|error| unfit(files, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Made { config: Arc::new(config), clients })
}
