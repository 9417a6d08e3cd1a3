//! What is made of a certificate, its key and authorities, while these files may be replaced.
//!
//! A replacement is several files that change one after the other. It counts when two looks in a row see the same
//! contents and these make a working set; until then, and where they do not, the old one stays. The whole configuration
//! is replaced and not the certificate alone: sessions of the old one end with it, so that nobody resumes past the
//! authorities that were taken away.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::domain::time::UnixSeconds;
use crate::domain::validity::Validity;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::tasks::Stop;
use crate::sys::tls::TlsError;
use crate::sys::tls::file_error;
use crate::sys::tls::validity;

/// Time between two looks at the files: reading three small ones costs less than a request, and works where files
/// are replaced by links and on file systems that tell nobody of changes.
const LOOK: Duration = Duration::from_millis(500);
/// Largest file that is read, in bytes; a chain has a few kB, the authorities of a whole system 250 kB.
pub(super) const MAX_FILE: u64 = 1024 * 1024;
/// Permission bits of those who are neither owner nor group.
const OTHERS: u32 = 0o007;

/// The files, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSet {
    /// Our certificate, then its intermediates.
    pub(super) certificate: PathBuf,
    /// The private key of our certificate; others must not be able to read it.
    pub(super) key: PathBuf,
    /// Whose certificates the other side may show.
    pub(super) authorities: Option<PathBuf>,
}

/// Makes what is used of what the files hold.
type Build<T> = Box<dyn Fn(&FileSet, &Contents) -> Result<T, TlsError> + Send + Sync>;

/// What is used now.
pub(super) struct Rotating<T> {
    pub(super) files: FileSet,
    build: Build<T>,
    current: ArcSwap<Current<T>>,
    changed: watch::Sender<Standing>,
}

struct Current<T> {
    made: T,
    mark: Mark,
    validity: Option<Validity>,
}

/// How it stands with the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Counts replacements.
    pub generation: u64,
    /// Our certificate is past its time.
    pub expired: bool,
}

/// What tells contents apart without keeping a key twice.
type Mark = [u8; 32];

impl<T> fmt::Debug for Rotating<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Rotating").field(&self.files).finish()
    }
}

impl<T: Clone + Send + Sync + 'static> Rotating<T> {
    /// Reads the files.
    pub(super) fn load(files: FileSet, build: Build<T>) -> Result<Arc<Self>, TlsError> {
        let contents = Contents::read(&files)?;
        let current = Self::make(&files, &build, &contents)?;
        Ok(Arc::new(Self {
            files,
            build,
            current: ArcSwap::from_pointee(current),
            changed: watch::channel(Standing::default()).0,
        }))
    }

    fn make(files: &FileSet, build: &Build<T>, contents: &Contents) -> Result<Current<T>, TlsError> {
        let made = build(files, contents)?;
        let validity = contents.chain(files)?.first().and_then(validity::of);
        if let Some(over) = validity.filter(|validity| validity.is_over(SystemClock.now().seconds())) {
            let at = over.until.rfc3339();
            return Err(file_error(&files.certificate, format!("the certificate has expired at {at}")));
        }
        Ok(Current { made, mark: contents.mark(), validity })
    }

    /// For the next connection.
    pub(super) fn current(&self) -> T {
        self.current.load().made.clone()
    }

    /// When our certificate holds; `None` where it does not say.
    pub(super) fn validity(&self) -> Option<Validity> {
        self.current.load().validity
    }

    /// Told of replacements and of the end of our certificate.
    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.changed.subscribe()
    }

    /// Looks at the files until told to stop, and uses what they hold.
    pub(super) async fn follow(self: Arc<Self>, mut stop: Stop) {
        let (mut watch, mut warned) = (Watch::default(), None);
        loop {
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let this = Arc::clone(&self);
            // The task is neither aborted, nor does it panic.
            let Ok(read) = tokio::task::spawn_blocking(move || Contents::read(&this.files)).await else { continue };
            self.consider(read, &mut watch);
            self.look_at_time(&mut warned);
        }
    }

    fn consider(&self, read: Result<Contents, TlsError>, watch: &mut Watch) {
        let contents = match read {
            Ok(contents) => contents,
            Err(error) => return watch.complain(error.to_string()),
        };
        let mark = contents.mark();
        if mark == self.current.load().mark {
            *watch = Watch::default();
        } else if watch.seen != Some(mark) {
            watch.seen = Some(mark);
        } else if watch.refused != Some(mark) {
            match Self::make(&self.files, &self.build, &contents) {
                Ok(current) => {
                    self.current.store(Arc::new(current));
                    *watch = Watch::default();
                    tracing::info!(file = %self.files.certificate.display(), "a new certificate is used");
                    self.changed.send_modify(|standing| {
                        *standing = Standing { generation: standing.generation.wrapping_add(1), expired: false };
                    });
                }
                Err(error) => {
                    watch.refused = Some(mark);
                    watch.complain(error.to_string());
                }
            }
        }
    }

    /// Says once when our own certificate nears its end, and once when it is past it. `warned` is the end that was told of.
    fn look_at_time(&self, warned: &mut Option<UnixSeconds>) {
        let (Some(validity), now) = (self.validity(), SystemClock.now().seconds()) else { return };
        let file = self.files.certificate.display();
        if !validity.is_over(now) {
            if validity.ends_soon(now) && warned.replace(validity.until) != Some(validity.until) {
                tracing::warn!(%file, "the certificate {}, and no other is in its place yet", validity.said(now));
            }
            return;
        }
        if self.changed.borrow().expired {
            return;
        }
        let at = validity.until.rfc3339();
        tracing::error!(%file, at, "the certificate has expired: connections that rely on it are refused and ended");
        self.changed.send_modify(|standing| standing.expired = true);
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
            tracing::warn!(error = text, "a new certificate cannot be used; the old one stays");
            self.said = Some(text);
        }
    }
}

/// What the files hold.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    authorities: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &FileSet) -> Result<Self, TlsError> {
        let mode = std::fs::metadata(&files.key).map_err(|error| file_error(&files.key, error))?.permissions().mode();
        if mode & OTHERS != 0 {
            let mode = mode & 0o777;
            let text = format!("has mode {mode:o}; others could use the private key: chmod 600 it, or 640 for a group");
            return Err(file_error(&files.key, text));
        }
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: Zeroizing::new(read(&files.key)?),
            authorities: files.authorities.as_deref().map(read).transpose()?,
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

    /// Our certificate and its intermediates.
    pub(super) fn chain(&self, files: &FileSet) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&files.certificate, &self.certificate)
    }

    /// The key of our certificate.
    pub(super) fn key(&self, files: &FileSet) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| file_error(&files.key, error))
    }

    /// The authorities of the other side; `None` where there are none to be read.
    pub(super) fn roots(&self, files: &FileSet) -> Result<Option<RootCertStore>, TlsError> {
        let (Some(path), Some(text)) = (&files.authorities, &self.authorities) else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for authority in certificates(path, text)? {
            roots.add(authority).map_err(|error| file_error(path, error))?;
        }
        Ok(Some(roots))
    }
}

/// A key that is not the certificate's, by the names of both.
pub(super) fn unfit(files: &FileSet, error: &rustls::Error) -> TlsError {
    file_error(&files.certificate, format!("with {}: {error}", files.key.display()))
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

    /// What is made does not matter, as long as key and certificate fit.
    fn load(folder: &Folder) -> Result<Arc<Rotating<()>>, TlsError> {
        let build: Build<()> = Box::new(|files, contents| {
            let provider = rustls::crypto::ring::default_provider();
            let made = rustls::sign::CertifiedKey::from_der(contents.chain(files)?, contents.key(files)?, &provider);
            made.map(drop).map_err(|error| unfit(files, &error))
        });
        Rotating::load(folder.files(), build)
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.put("first.test");
            folder
        }

        fn files(&self) -> FileSet {
            FileSet { certificate: self.0.path().join("crt"), key: self.0.path().join("key"), authorities: None }
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

    fn dated(folder: &Folder, year: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["dated.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        folder.write("crt", &params.self_signed(&key).unwrap().pem());
        folder.write("key", &key.serialize_pem());
    }

    #[test]
    fn a_certificate_past_its_time_is_refused_by_its_file() {
        let folder = Folder::new();
        dated(&folder, 2001);
        let refused = load(&folder).unwrap_err().to_string();
        assert!(refused.contains("/crt: ") && refused.contains("expired at 2001-01-01"), "{refused}");
        folder.put("first.test");
        let serving = load(&folder).unwrap();
        let mut watch = Watch::default();
        dated(&folder, 2002);
        assert!(!looks(&serving, &mut watch));
        assert!(watch.said.unwrap().contains("expired at 2002"));
    }

    /// Looks twice, as it takes; whether something new is served.
    fn looks(serving: &Rotating<()>, watch: &mut Watch) -> bool {
        let before = serving.current.load().mark;
        for _ in 0..2 {
            serving.consider(Contents::read(&serving.files), watch);
        }
        before != serving.current.load().mark
    }

    #[test]
    fn a_whole_replacement_counts_at_the_second_look() {
        let folder = Folder::new();
        let serving = load(&folder).unwrap();
        let (first, mut watch) = (serving.current.load().mark, Watch::default());
        folder.put("second.test");
        serving.consider(Contents::read(&serving.files), &mut watch);
        assert_eq!(serving.current.load().mark, first, "it may still be written");
        serving.consider(Contents::read(&serving.files), &mut watch);
        assert_ne!(serving.current.load().mark, first);
        assert!(!looks(&serving, &mut watch));
    }

    #[test]
    fn half_a_replacement_changes_nothing_and_is_said_once() {
        let folder = Folder::new();
        let (certificate, key) = folder.put("first.test");
        let serving = load(&folder).unwrap();
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
            let loaded = load(&folder).map(drop).map_err(|error| error.to_string());
            assert_eq!(loaded.is_ok(), fits, "{mode:o}");
            assert!(fits || loaded.unwrap_err().contains("chmod 600"));
        }
    }
}
