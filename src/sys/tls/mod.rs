//! Mutual TLS between our own processes: both sides show a certificate, and a name in it is on a list. The files may be
//! replaced while they are in use ([`rotating`]). A listener that people come to is in [`serving`], and how they know it
//! in [`trust`].

pub mod pair;
pub mod rotating;
pub mod serving;
pub mod trust;

pub mod validity;

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::domain::validity::Validity;
use crate::sys::files;
use crate::sys::tasks::Stop;
use crate::sys::tls::rotating::Contents;
use crate::sys::tls::rotating::FileSet;
use crate::sys::tls::rotating::Rotating;
use crate::sys::tls::rotating::Standing;
use crate::sys::tls::rotating::unfit;

/// How often the other end's certificate is judged again.
const JUDGE_AGAIN: Duration = Duration::from_secs(30);
/// gRPC speaks HTTP/2 and nothing else (RFC 7301 protocol id).
const ALPN: &[u8] = b"h2";

/// What one side of a mutual TLS connection needs, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, then its intermediates.
    pub certificate: PathBuf,
    /// The private key of our certificate.
    pub key: PathBuf,
    /// The authorities the other side's certificate may come from.
    pub authorities: PathBuf,
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read as PEM.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong; never the file's content.
        reason: String,
    },
    /// Certificate, key and authorities do not make a working set.
    #[error("TLS: {0}")]
    Config(String),
    /// Nobody would be let in.
    #[error("TLS: the list of accepted client names is empty")]
    NoNames,
    /// Not a DNS name or IP address.
    #[error("TLS: {0:?} is not a server name")]
    ServerName(String),
}

/// The server's side, ready to accept; cheap to clone.
#[derive(Clone)]
pub struct ServerTls(Arc<Rotating<Accepting>>);

/// What a server accepts with now.
#[derive(Clone)]
struct Accepting {
    config: Arc<rustls::ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// The client's side, ready to connect, and the name the server must prove; cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    files: Arc<Rotating<Arc<rustls::ClientConfig>>>,
    server: ServerName<'static>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ServerTls").field(&self.0.files).finish()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientTls({:?})", self.server)
    }
}

impl ServerTls {
    /// Reads the files. `names` are the subject alternative names (DNS or URI, exact) a client's
    /// certificate may carry; one of them must be in it.
    pub fn load(files: &TlsFiles, names: &[String]) -> Result<Self, TlsError> {
        if names.is_empty() {
            return Err(TlsError::NoNames);
        }
        Self::load_with(files, Some(names.to_vec()))
    }

    /// The same for whoever judges the names himself ([`names_in`]): every certificate of the authorities is accepted.
    pub fn load_unnamed(files: &TlsFiles) -> Result<Self, TlsError> {
        Self::load_with(files, None)
    }

    fn load_with(files: &TlsFiles, names: Option<Vec<String>>) -> Result<Self, TlsError> {
        let build = move |files: &FileSet, contents: &Contents| {
            let provider = Arc::new(ring::default_provider());
            let roots = Arc::new(contents.roots(files)?.unwrap_or_else(RootCertStore::empty));
            let inner = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| TlsError::Config(error.to_string()))?;
            let clients: Arc<dyn ClientCertVerifier> = match &names {
                Some(names) => Arc::new(NamedClients { inner, names: names.clone() }),
                None => inner,
            };
            let mut config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| TlsError::Config(error.to_string()))?
                .with_client_cert_verifier(Arc::clone(&clients))
                .with_single_cert(contents.chain(files)?, contents.key(files)?)
                .map_err(|error| unfit(files, &error))?;
            config.alpn_protocols = vec![ALPN.to_vec()];
            Ok(Accepting { config: Arc::new(config), clients })
        };
        Ok(Self(Rotating::load(files.set(), Box::new(build))?))
    }

    /// The acceptor for the next connection; `None` while our certificate is past its time.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        let valid = !self.0.standing().borrow().expired;
        valid.then(|| TlsAcceptor::from(self.0.current().config))
    }

    /// Told when a connection may have to be judged anew, by [`ServerTls::accepts`].
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing()
    }

    /// Whether a client that showed this chain would be accepted now.
    pub fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((end_entity, intermediates)) = chain.split_first() else { return false };
        let current = self.0.current().clients.verify_client_cert(end_entity, intermediates, UnixTime::now());
        current.is_ok() && !self.0.standing().borrow().expired
    }

    /// Looks at the files until told to stop, and serves what they hold.
    pub async fn follow(self, stop: Stop) {
        self.0.follow(stop).await;
    }
}

impl ClientTls {
    /// Reads the files. `server` is the name the server's certificate must carry.
    pub fn load(files: &TlsFiles, server: &str) -> Result<Self, TlsError> {
        let server = ServerName::try_from(server.to_owned()).map_err(|_| TlsError::ServerName(server.to_owned()))?;
        let build = |files: &FileSet, contents: &Contents| {
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| TlsError::Config(error.to_string()))?
                .with_root_certificates(contents.roots(files)?.unwrap_or_else(RootCertStore::empty))
                .with_client_auth_cert(contents.chain(files)?, contents.key(files)?)
                .map_err(|error| unfit(files, &error))?;
            config.alpn_protocols = vec![ALPN.to_vec()];
            Ok(Arc::new(config))
        };
        Ok(Self { files: Rotating::load(files.set(), Box::new(build))?, server })
    }

    /// The connector for the next connection.
    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.files.current())
    }

    /// The name the server must prove.
    pub fn server(&self) -> ServerName<'static> {
        self.server.clone()
    }

    /// Returns when files were replaced, or our certificate is past its time: a connection made before may rely on
    /// authorities that are gone. `seen` is what [`ClientTls::standing`] said when it was made.
    pub async fn replaced(&self, seen: Standing) {
        let mut standing = self.files.standing();
        if standing.wait_for(|now| *now != seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// When our certificate holds; `None` where it does not say.
    pub fn validity(&self) -> Option<Validity> {
        self.files.validity()
    }

    /// How it stands with the files.
    pub fn standing(&self) -> Standing {
        *self.files.standing().borrow()
    }

    /// Looks at the files until told to stop, and uses what they hold.
    pub async fn follow(self, stop: Stop) {
        self.files.follow(stop).await;
    }
}

impl TlsFiles {
    fn set(&self) -> FileSet {
        let Self { certificate, key, authorities } = self.clone();
        FileSet { certificate, key, authorities: Some(authorities) }
    }
}

/// Returns when the other end of a connection is not accepted any more. It is asked when files have changed, and now and
/// then: a certificate's time may have passed.
pub(super) async fn until_refused(mut standing: watch::Receiver<Standing>, accepts: impl Fn() -> bool) {
    while accepts() {
        tokio::select! {
            Ok(()) = standing.changed() => {}
            () = tokio::time::sleep(JUDGE_AGAIN) => {}
        }
    }
}

fn file_error(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File { path: path.display().to_string(), reason: reason.to_string() }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = files::open_ordinary(path).map_err(|error| file_error(path, error))?;
    let found: Vec<_> =
        CertificateDer::pem_reader_iter(file).collect::<Result<_, _>>().map_err(|error| file_error(path, error))?;
    if found.is_empty() {
        return Err(file_error(path, "holds no certificate"));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = files::open_ordinary(path).map_err(|error| file_error(path, error))?;
    PrivateKeyDer::from_pem_reader(file).map_err(|error| file_error(path, error))
}

/// The text of a certificate and of its key, one after the other.
pub(super) fn pem_pair((certificate, key): &(PathBuf, PathBuf)) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let read = |path: &PathBuf| files::read_bytes(path, rotating::MAX_FILE).map_err(|error| file_error(path, error));
    let mut text = Zeroizing::new(read(certificate)?);
    text.push(b'\n');
    text.extend_from_slice(&Zeroizing::new(read(key)?));
    Ok(text)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in chain(path)? {
        store.add(certificate).map_err(|error| file_error(path, error))?;
    }
    Ok(store)
}

/// The name of the list that stands in a certificate as a subject alternative name, DNS or URI.
fn listed_name<'a>(certificate: &CertificateDer<'_>, names: &'a [String]) -> Option<&'a str> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut carried = certificate.valid_dns_names().chain(certificate.valid_uri_names());
    carried.find_map(|name| names.iter().find(|listed| *listed == name)).map(String::as_str)
}

/// All subject alternative names of a certificate that are DNS names or URIs.
pub fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    certificate.valid_dns_names().chain(certificate.valid_uri_names()).map(ToOwned::to_owned).collect()
}

/// Accepts what its authorities signed, if one of the names on the list is in it.
#[derive(Debug)]
struct NamedClients {
    inner: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let listed = listed_name(end_entity, &self.names);
        if listed.is_some() { Ok(verified) } else { Err(CertificateError::NotValidForName.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The one cryptography provider of this program; rustls asks for a default where a library does not
/// name one. Safe to call repeatedly.
pub fn install_provider() {
    // An error says that one is installed already, and it is this one.
    let _ = CryptoProvider::install_default(ring::default_provider());
}
