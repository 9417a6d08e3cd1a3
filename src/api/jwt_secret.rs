//! The secret of the owner tokens: minted at the first start, readable by its owner alone.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroize as _;

use crate::domain::secret::Secret;
use crate::sys::files::PRIVATE_FILE;
use crate::sys::files::create_private;
use crate::sys::files::read_text;
use crate::sys::random;

/// Name of the file in the data folder.
pub const FILE: &str = "jwt-secret";
/// Random bytes of a minted secret; it is written as twice as many hex digits and a line feed.
const SECRET_BYTES: usize = 48;
/// Shortest secret of a file, in bytes; a shorter one from the environment is used and warned of.
pub const MIN_BYTES: usize = 32;
/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read or made.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file holds too little.
    #[error("{path} holds no secret of at least {MIN_BYTES} characters; delete it and start again to mint one")]
    Short {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("{path} has mode {mode:o}; others could issue owner tokens: chmod 600 it, or delete it to mint another")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] random::RandomError),
}

/// The secret of the data folder; `None` where there is none yet.
pub fn load(folder: &Path) -> Result<Option<Secret>, SecretError> {
    let path = folder.join(FILE);
    let io = |source| SecretError::Io { path: path.clone(), source };
    let mode = match std::fs::metadata(&path) {
        Ok(found) => found.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if mode & !PRIVATE_FILE != 0 {
        return Err(SecretError::Open { path, mode });
    }
    let mut text = read_text(&path, MAX_FILE_BYTES).map_err(io)?;
    let secret = Secret::new(text.trim().to_owned());
    text.zeroize();
    if secret.expose().len() < MIN_BYTES { Err(SecretError::Short { path }) } else { Ok(Some(secret)) }
}

/// The secret of the data folder; makes one where there is none.
pub fn load_or_mint(folder: &Path) -> Result<Secret, SecretError> {
    if let Some(secret) = load(folder)? {
        return Ok(secret);
    }
    let path = folder.join(FILE);
    let mut text = random::hex::<SECRET_BYTES>()?;
    text.push('\n');
    let made = create_private(&path, text.as_bytes());
    text.zeroize();
    match made {
        Ok(()) => tracing::info!(path = %path.display(), "the secret of the owner tokens was minted"),
        // Somebody else minted it in the meantime.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(SecretError::Io { path, source }),
    }
    load(folder)?.ok_or(SecretError::Short { path })
}
