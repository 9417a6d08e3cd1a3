//! TLS of a listener that people and their programs come to: its certificate may be replaced while it runs.
//!
//! A replacement is several files that change one after the other. It counts when two looks in a row see the same
//! contents and these make a working set; until then, and where they do not, the old one serves on. The whole
//! configuration is replaced and not the certificate alone: sessions of the old one end with it, so that nobody
//! resumes past the authorities that were taken away.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use sha2::Digest as _;
use sha2::Sha256;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::sys::files;
use crate::sys::tasks::Stop;
use crate::sys::tls::TlsError;
use crate::sys::tls::file_error;
use crate::sys::tls::listed_name;

/// Time between two looks at the files: reading three small ones costs less than a request, and works where files
/// are replaced by links and on file systems that tell nobody of changes.
const LOOK: Duration = Duration::from_millis(500);
/// Largest file that is read, in bytes; a chain has a few kB, the authorities of a whole system 250 kB.
const MAX_FILE: u64 = 1024 * 1024;
/// Permission bits of those who are neither owner nor group.
const OTHERS: u32 = 0o007;

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
pub struct Serving(Arc<Inner>);

struct Inner {
    files: ServingFiles,
    current: ArcSwap<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    mark: Mark,
}

/// What tells contents apart without keeping a key twice.
type Mark = [u8; 32];

impl fmt::Debug for Serving {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Serving").field(&self.0.files).finish()
    }
}

impl Serving {
    /// Reads the files.
    pub fn load(files: ServingFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let current = Current { config: contents.build(&files)?, mark: contents.mark() };
        Ok(Self(Arc::new(Inner { files, current: ArcSwap::from_pointee(current) })))
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.current.load().config))
    }

    /// Whether clients are asked for a certificate.
    pub fn asks(&self) -> bool {
        self.0.files.clients.is_some()
    }

    /// The name of the list in the certificate a client showed and its authorities signed; `None` where it showed
    /// none, or one without such a name.
    pub fn client_name(&self, shown: Option<&[CertificateDer<'_>]>) -> Option<Arc<str>> {
        let names = &self.0.files.clients.as_ref()?.names;
        listed_name(shown?.first()?, names).map(Arc::from)
    }

    /// Looks at the files until told to stop, and serves what they hold.
    pub async fn follow(self, mut stop: Stop) {
        let mut watch = Watch::default();
        loop {
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let this = self.clone();
            // The task is neither aborted, nor does it panic.
            let Ok(read) = tokio::task::spawn_blocking(move || Contents::read(&this.0.files)).await else { continue };
            self.consider(read, &mut watch);
        }
    }

    fn consider(&self, read: Result<Contents, TlsError>, watch: &mut Watch) {
        let contents = match read {
            Ok(contents) => contents,
            Err(error) => return watch.complain(error.to_string()),
        };
        let mark = contents.mark();
        if mark == self.0.current.load().mark {
            *watch = Watch::default();
        } else if watch.seen != Some(mark) {
            watch.seen = Some(mark);
        } else if watch.refused != Some(mark) {
            match contents.build(&self.0.files) {
                Ok(config) => {
                    self.0.current.store(Arc::new(Current { config, mark }));
                    *watch = Watch::default();
                    tracing::info!(file = %self.0.files.certificate.display(), "a new certificate is served");
                }
                Err(error) => {
                    watch.refused = Some(mark);
                    watch.complain(error.to_string());
                }
            }
        }
    }
}

/// What the looks before saw.
#[derive(Debug, Default)]
struct Watch {
    /// Contents that may still be in the middle of being written.
    seen: Option<Mark>,
    /// Contents that make no working set.
    refused: Option<Mark>,
    /// What was said last: once, not twice a second.
    said: Option<String>,
}

impl Watch {
    fn complain(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            tracing::warn!(error = text, "a new certificate cannot be used; the old one serves on");
            self.said = Some(text);
        }
    }
}

/// What the files hold.
struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    authorities: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &ServingFiles) -> Result<Self, TlsError> {
        let mode = std::fs::metadata(&files.key).map_err(|error| file_error(&files.key, error))?.permissions().mode();
        if mode & OTHERS != 0 {
            let mode = mode & 0o777;
            let text = format!("has mode {mode:o}; others could use the private key: chmod 600 it, or 640 for a group");
            return Err(file_error(&files.key, text));
        }
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: Zeroizing::new(read(&files.key)?),
            authorities: files.clients.as_ref().map(|clients| read(&clients.authorities)).transpose()?,
        })
    }

    fn mark(&self) -> Mark {
        let mut hash = Sha256::new();
        for part in [&self.certificate, &*self.key, self.authorities.as_ref().unwrap_or(&Vec::new())] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn build(&self, files: &ServingFiles) -> Result<Arc<ServerConfig>, TlsError> {
        let failed = |error: &dyn fmt::Display| TlsError::Config(error.to_string());
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| file_error(&files.key, error))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?;
        let builder = match (&files.clients, &self.authorities) {
            (Some(clients), Some(authorities)) => {
                if clients.names.is_empty() {
                    return Err(TlsError::NoNames);
                }
                let mut roots = RootCertStore::empty();
                for authority in certificates(&clients.authorities, authorities)? {
                    roots.add(authority).map_err(|error| file_error(&clients.authorities, error))?;
                }
                // Health is for everybody; who shows none is told so by an answer and not by a broken connection.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| failed(&error))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        // Refuses a key that is not the certificate's.
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| file_error(&files.certificate, format!("with {}: {error}", files.key.display())))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|error| file_error(path, error))?;
    if found.is_empty() { Err(file_error(path, "holds no certificate")) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let file = files::open_ordinary(path).map_err(|error| file_error(path, error))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| file_error(path, error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(file_error(path, "is too large for a PEM file"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use std::fs;

    use rcgen::CertificateParams;
    use rcgen::KeyPair;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.put("first.test");
            folder
        }

        fn files(&self) -> ServingFiles {
            ServingFiles { certificate: self.0.path().join("crt"), key: self.0.path().join("key"), clients: None }
        }

        /// Writes a new certificate and key; returns the two texts.
        fn put(&self, name: &str) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
            let (certificate, key) = (certificate.pem(), key.serialize_pem());
            self.write("crt", &certificate);
            self.write("key", &key);
            (certificate, key)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// Looks twice, as it takes; whether something new is served.
    fn looks(serving: &Serving, watch: &mut Watch) -> bool {
        let before = serving.0.current.load().mark;
        for _ in 0..2 {
            serving.consider(Contents::read(&serving.0.files), watch);
        }
        before != serving.0.current.load().mark
    }

    #[test]
    fn a_whole_replacement_counts_at_the_second_look() {
        let folder = Folder::new();
        let serving = Serving::load(folder.files()).unwrap();
        let (first, mut watch) = (serving.0.current.load().mark, Watch::default());
        folder.put("second.test");
        serving.consider(Contents::read(&serving.0.files), &mut watch);
        assert_eq!(serving.0.current.load().mark, first, "it may still be written");
        serving.consider(Contents::read(&serving.0.files), &mut watch);
        assert_ne!(serving.0.current.load().mark, first);
        assert!(!looks(&serving, &mut watch));
    }

    #[test]
    fn half_a_replacement_changes_nothing_and_is_said_once() {
        let folder = Folder::new();
        let (certificate, key) = folder.put("first.test");
        let serving = Serving::load(folder.files()).unwrap();
        let mut watch = Watch::default();
        let (other, other_key) = folder.put("second.test");
        for (part, text, word) in [
            ("key", key.as_str(), "KeyMismatch"),
            ("key", "", "no items found"),
            ("key", other_key.get(..60).unwrap(), "key"),
            ("crt", "", "no certificate"),
            ("crt", other.get(..200).unwrap(), "crt"),
            ("crt", &format!("{other}{}", certificate.get(..300).unwrap()), "crt"),
        ] {
            folder.write("crt", &other);
            folder.write("key", &other_key);
            folder.write(part, text);
            assert!(!looks(&serving, &mut watch), "{part}: {text}");
            let said = watch.said.clone().unwrap();
            assert!(said.contains(word), "{said}");
            let held = watch.refused;
            assert!(!looks(&serving, &mut watch) && watch.said == Some(said) && watch.refused == held);
        }
        fs::remove_file(folder.0.path().join("crt")).unwrap();
        assert!(!looks(&serving, &mut watch));
        folder.write("crt", &other);
        folder.write("key", &other_key);
        assert!(looks(&serving, &mut watch));
    }

    #[test]
    fn a_key_others_can_read_is_refused_with_the_mode_to_set() {
        let folder = Folder::new();
        for (mode, fits) in [(0o600, true), (0o640, true), (0o644, false), (0o601, false)] {
            fs::set_permissions(folder.0.path().join("key"), fs::Permissions::from_mode(mode)).unwrap();
            let loaded = Serving::load(folder.files()).map(drop).map_err(|error| error.to_string());
            assert_eq!(loaded.is_ok(), fits, "{mode:o}");
            assert!(fits || loaded.unwrap_err().contains("chmod 600"));
        }
    }
}
