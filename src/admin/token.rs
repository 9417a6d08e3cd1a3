//! The admin token, minted into its file at the first start, and the password, which stands in a file of the operator's. A
//! running process takes a new file over by itself, and only a keyed digest stays in its memory. The token of the metrics is kept like
//! the password.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ring::hmac;
use zeroize::Zeroize as _;

use crate::config::guard::check_password;
use crate::config::guard::check_token;
use crate::config::guard::is_placeholder;
use crate::config::parts::GivenSecret;
use crate::domain::secret::Secret;
use crate::sys::files::PRIVATE_FILE;
use crate::sys::files::create_private;
use crate::sys::files::read_text;
use crate::sys::files::write_private;
use crate::sys::random;

/// Name of the file in the data folder.
pub const TOKEN_FILE: &str = "admin-token";
/// Random bytes of a minted token; it is written as twice as many hex digits and a line feed.
const TOKEN_BYTES: usize = 32;
/// Shortest token that is accepted: whoever writes one by hand must not write a guessable one.
pub const MIN_TOKEN_BYTES: usize = 16;
/// A password of so many bytes is not found over a network, also where a person made it up: that would take more tries than
/// such a network carries in years.
const LONG_PASSWORD_BYTES: usize = 24;
/// What a password's file may allow at most.
const GROUP_READS: u32 = 0o640;
/// Longest file of a secret that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file could not be read or made.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file holds too little.
    #[error("{path} holds no token of at least {MIN_TOKEN_BYTES} characters; delete it and start again to mint one")]
    Short {
        /// The file.
        path: PathBuf,
    },
    /// The file holds what stands in examples.
    #[error("{path} holds a placeholder that everybody knows; delete it and start again to mint a token")]
    Placeholder {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("{path} has mode {mode:o}; others could read the token: chmod 600 it, or delete it to mint another")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file of a password, or of the metrics' token, holds none that can be used.
    #[error("{path}: the {} {why}", kind.name())]
    Password {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        kind: Kind,
        /// What is wrong with it.
        why: String,
    },
    /// What opens the metrics alone opens more.
    #[error("the metrics token opens the whole admin API as well; give the metrics one of their own")]
    Same,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] random::RandomError),
}

/// The secret in force.
#[derive(Debug)]
pub struct AdminSecret {
    kind: Kind,
    /// Where it is written; `None`: it was given and stays.
    file: Option<PathBuf>,
    /// Drawn anew by each process, so that a digest says nothing to who has no more than it. No slow hash: what is looked
    /// for in memory is there in clear with every request, and guessing over the network is bounded otherwise.
    key: hmac::Key,
    known: ArcSwap<Known>,
}

/// Which secret it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The admin token.
    Token,
    /// The password.
    Password,
    /// What opens the metrics and nothing else.
    Metrics,
}

/// What is known of the secret and of the file it was read from.
#[derive(Debug)]
struct Known {
    digest: hmac::Tag,
    stamp: Option<Stamp>,
    /// Whether nobody finds it by guessing, however often.
    unguessable: bool,
}

/// Tells one state of a file from another: device, inode, size, and both times in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp([u64; 3], [i64; 4]);

impl Stamp {
    fn of(found: &Metadata) -> Self {
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Self([found.dev(), found.ino(), found.len()], times)
    }
}

impl AdminSecret {
    /// A token that was given, by the environment; it is in force until the process ends.
    pub fn given(token: &Secret) -> Result<Self, TokenError> {
        Self::new(Kind::Token, None, token, None)
    }

    /// The token of the data folder; makes one where there is none.
    pub fn of_folder(folder: &Path) -> Result<Self, TokenError> {
        let file = folder.join(TOKEN_FILE);
        // Looked at before it is read: a file replaced in between is read again.
        let stamp = std::fs::metadata(&file).ok().map(|found| Stamp::of(&found));
        let token = load_or_mint(folder)?;
        Self::new(Kind::Token, Some(file), &token, stamp)
    }

    /// The password.
    pub fn password(password: &GivenSecret) -> Result<Self, TokenError> {
        Self::of(Kind::Password, password, None)
    }

    /// The token of the metrics. One that is `another` as well is refused: whoever reads the metrics would hold both.
    pub fn metrics(token: &GivenSecret, another: Option<&Self>) -> Result<Self, TokenError> {
        Self::of(Kind::Metrics, token, another)
    }

    fn of(kind: Kind, given: &GivenSecret, another: Option<&Self>) -> Result<Self, TokenError> {
        let check = |secret: &Secret| {
            let same = another.is_some_and(|another| another.matches(secret.expose().as_bytes()));
            if same { Err(TokenError::Same) } else { Ok(()) }
        };
        match given {
            GivenSecret::Given(secret) => {
                check(secret)?;
                Self::new(kind, None, secret, None)
            }
            GivenSecret::File(file) => {
                let found = std::fs::metadata(file);
                let found = found.map_err(|source| TokenError::Io { path: file.clone(), source })?;
                let secret = kind.read(file, &found)?;
                check(&secret)?;
                Self::new(kind, Some(file.clone()), &secret, Some(Stamp::of(&found)))
            }
        }
    }

    fn new(kind: Kind, file: Option<PathBuf>, secret: &Secret, stamp: Option<Stamp>) -> Result<Self, TokenError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()?);
        let digest = hmac::sign(&key, secret.expose().as_bytes());
        let unguessable = kind.is_unguessable(secret);
        Ok(Self { kind, file, key, known: ArcSwap::from_pointee(Known { digest, stamp, unguessable }) })
    }

    /// Which it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether this is it. The time depends on what is shown and not on the secret.
    pub fn matches(&self, presented: &[u8]) -> bool {
        hmac::verify(&self.key, presented, self.known.load().digest.as_ref()).is_ok()
    }

    /// Whether nobody finds it by guessing, so that it may be compared however often somebody was wrong.
    pub fn is_unguessable(&self) -> bool {
        self.known.load().unguessable
    }

    /// Takes over what stands in the file by now; the old secret counts no longer then. `true` where it is another.
    /// A file that is gone, or that holds none, changes nothing.
    pub fn refresh(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let Ok(found) = std::fs::metadata(file) else { return false };
        let (stamp, known) = (Some(Stamp::of(&found)), self.known.load());
        if known.stamp == stamp {
            return false;
        }
        let (digest, unguessable, another) = match self.kind.read(file, &found) {
            Ok(secret) => {
                let text = secret.expose().as_bytes();
                let another = hmac::verify(&self.key, text, known.digest.as_ref()).is_err();
                (hmac::sign(&self.key, text), self.kind.is_unguessable(&secret), another)
            }
            Err(error) => {
                tracing::error!(%error, secret = self.kind.name(), "the secret of the admin API stays what it was");
                (known.digest, known.unguessable, false)
            }
        };
        self.known.store(Arc::new(Known { digest, stamp, unguessable }));
        another
    }
}

impl Kind {
    /// The word in messages and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Password => "password",
            Self::Metrics => "metrics token",
        }
    }

    /// A token is long by rule, unless somebody chose another for this machine alone. A person may have made a password up:
    /// one that is as long as `openssl rand -base64 18` makes it counts as drawn.
    fn is_unguessable(self, secret: &Secret) -> bool {
        match self {
            Self::Token => secret.expose().len() >= MIN_TOKEN_BYTES,
            Self::Metrics => true,
            Self::Password => secret.expose().len() >= LONG_PASSWORD_BYTES,
        }
    }

    fn read(self, file: &Path, found: &Metadata) -> Result<Secret, TokenError> {
        match self {
            Self::Token => check_mode(file, found).and_then(|()| read(file)),
            Self::Password => read_given(self, file, found, check_password),
            Self::Metrics => read_given(self, file, found, check_token),
        }
    }
}

/// What stands in a file of the operator's. A group may read it, as with a certificate's key: whoever mounts secrets gives them to one.
fn read_given(
    kind: Kind,
    file: &Path,
    found: &Metadata,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Result<Secret, TokenError> {
    let wrong = |why: String| TokenError::Password { path: file.to_owned(), kind, why };
    let mode = found.permissions().mode() & 0o777;
    if mode & !GROUP_READS != 0 {
        return Err(wrong(format!("stands in a file of mode {mode:o}: others could read or change it; chmod 600 it")));
    }
    let text = read_text(file, MAX_FILE_BYTES);
    let mut text = text.map_err(|source| TokenError::Io { path: file.to_owned(), source })?;
    let secret = Secret::new(text.trim().to_owned());
    text.zeroize();
    check(secret.expose()).map_err(|why| wrong(why.to_owned()))?;
    Ok(secret)
}

/// Puts a new random token in place of the folder's; the running process takes it over with the next request. Returns
/// the file.
pub fn mint(folder: &Path) -> Result<PathBuf, TokenError> {
    let path = folder.join(TOKEN_FILE);
    let mut token = random::hex::<TOKEN_BYTES>()?;
    token.push('\n');
    let written = write_private(&path, token.as_bytes());
    token.zeroize();
    written.map_err(|source| TokenError::Io { path: path.clone(), source })?;
    Ok(path)
}

/// The token of the data folder; makes one where there is none.
pub fn load_or_mint(folder: &Path) -> Result<Secret, TokenError> {
    if let Some(token) = load(folder)? {
        return Ok(token);
    }
    let path = folder.join(TOKEN_FILE);
    let mut token = random::hex::<TOKEN_BYTES>()?;
    token.push('\n');
    let made = create_private(&path, token.as_bytes());
    token.zeroize();
    match made {
        Ok(()) => tracing::info!(path = %path.display(), "the admin token was minted"),
        // Somebody else minted it in the meantime.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(TokenError::Io { path, source }),
    }
    load(folder)?.ok_or_else(|| TokenError::Io { path, source: io::ErrorKind::NotFound.into() })
}

/// The token of the data folder; `None` where there is no file.
pub fn load(folder: &Path) -> Result<Option<Secret>, TokenError> {
    let path = folder.join(TOKEN_FILE);
    match std::fs::metadata(&path) {
        Ok(found) => check_mode(&path, &found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TokenError::Io { path, source }),
    }
    read(&path).map(Some)
}

fn check_mode(path: &Path, found: &Metadata) -> Result<(), TokenError> {
    let mode = found.permissions().mode() & 0o777;
    if mode & !PRIVATE_FILE == 0 { Ok(()) } else { Err(TokenError::Open { path: path.to_owned(), mode }) }
}

fn read(path: &Path) -> Result<Secret, TokenError> {
    let path = path.to_owned();
    let mut text = match read_text(&path, MAX_FILE_BYTES) {
        Ok(text) => text,
        Err(source) => return Err(TokenError::Io { path, source }),
    };
    let token = Secret::new(text.trim().to_owned());
    text.zeroize();
    if token.expose().len() < MIN_TOKEN_BYTES {
        return Err(TokenError::Short { path });
    }
    if is_placeholder(token.expose()) {
        return Err(TokenError::Placeholder { path });
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use std::fs;

    use super::*;

    #[test]
    fn a_token_is_minted_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let token = load_or_mint(folder.path()).unwrap();
        assert_eq!(token.expose().len(), 64);
        assert!(load_or_mint(folder.path()).unwrap() == token);
        let path = folder.path().join(TOKEN_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", token.expose()));
    }

    #[test]
    fn an_open_or_empty_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TOKEN_FILE);
        create_private(&path, b"short\n").unwrap();
        assert!(matches!(load_or_mint(folder.path()), Err(TokenError::Short { .. })));
        fs::write(&path, "a-token-that-is-long-enough").unwrap();
        assert!(load_or_mint(folder.path()).is_ok());
        fs::write(&path, "<your-admin-token>\n").unwrap();
        assert!(matches!(load_or_mint(folder.path()), Err(TokenError::Placeholder { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load_or_mint(folder.path()), Err(TokenError::Open { mode: 0o640, .. })));
    }

    #[test]
    fn a_new_file_is_taken_over_and_the_old_token_ends() {
        let folder = tempfile::tempdir().unwrap();
        let token = AdminSecret::of_folder(folder.path()).unwrap();
        let first = load_or_mint(folder.path()).unwrap();
        assert!(token.matches(first.expose().as_bytes()) && !token.refresh());
        let path = mint(folder.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = load_or_mint(folder.path()).unwrap();
        assert!(token.refresh() && !token.refresh());
        assert!(token.matches(second.expose().as_bytes()) && !token.matches(first.expose().as_bytes()));
        // What is no token leaves the one there is.
        fs::write(&path, "short").unwrap();
        assert!(!token.refresh() && token.matches(second.expose().as_bytes()));
        fs::write(&path, first.expose()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!token.refresh() && token.matches(second.expose().as_bytes()));
        fs::remove_file(&path).unwrap();
        assert!(!token.refresh() && token.matches(second.expose().as_bytes()));
        let given = AdminSecret::given(&second).unwrap();
        assert!(given.matches(second.expose().as_bytes()) && !given.refresh() && !given.matches(b""));
    }

    #[test]
    fn a_new_password_in_its_file_is_taken_over_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        create_private(&path, b"a first passphrase\n").unwrap();
        let secret = AdminSecret::password(&GivenSecret::File(path.clone())).unwrap();
        assert_eq!(secret.kind(), Kind::Password);
        assert!(secret.matches(b"a first passphrase") && !secret.matches(b"a first passphrase\n"));
        write_private(&path, b"a second passphrase").unwrap();
        assert!(secret.refresh() && !secret.refresh());
        assert!(secret.matches(b"a second passphrase") && !secret.matches(b"a first passphrase"));
        for bad in ["short", "changeme-changeme", "", "a pass\u{1}word of no use"] {
            write_private(&path, bad.as_bytes()).unwrap();
            assert!(!secret.refresh() && secret.matches(b"a second passphrase"), "{bad:?}");
            assert!(matches!(
                AdminSecret::password(&GivenSecret::File(path.clone())),
                Err(TokenError::Password { .. })
            ));
        }
        // A group may read it, as mounts of secrets have it; nobody else may.
        write_private(&path, b"a third passphrase").unwrap();
        for (mode, taken) in [(0o640, true), (0o644, false), (0o660, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(AdminSecret::password(&GivenSecret::File(path.clone())).is_ok(), taken, "{mode:o}");
        }
    }

    #[test]
    fn the_token_of_the_metrics_is_as_long_as_a_token_and_opens_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let admin = AdminSecret::of_folder(folder.path()).unwrap();
        let path = folder.path().join("metrics");
        let metrics = || AdminSecret::metrics(&GivenSecret::File(path.clone()), Some(&admin));
        assert!(matches!(metrics(), Err(TokenError::Io { .. })));
        create_private(&path, b"a-metrics-token-0123\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        let token = metrics().unwrap();
        assert_eq!(token.kind(), Kind::Metrics);
        assert!(token.matches(b"a-metrics-token-0123") && !admin.matches(b"a-metrics-token-0123"));
        write_private(&path, b"another-metrics-token").unwrap();
        assert!(token.refresh() && token.matches(b"another-metrics-token"));
        for bad in ["short", "with blanks in between", "changeme-changeme"] {
            write_private(&path, bad.as_bytes()).unwrap();
            let said = metrics().unwrap_err().to_string();
            assert!(said.contains("the metrics token ") && !said.contains(bad), "{said}");
        }
        fs::copy(folder.path().join(TOKEN_FILE), &path).unwrap();
        assert!(matches!(metrics(), Err(TokenError::Same)));
    }
}
