//! The admin token's file: minted at the first start, readable by its owner alone.

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
pub const TOKEN_FILE: &str = "admin-token";
/// Random bytes of a minted token; it is written as twice as many hex digits and a line feed.
const TOKEN_BYTES: usize = 32;
/// Shortest token that is accepted: whoever writes one by hand must not write a guessable one.
pub const MIN_TOKEN_BYTES: usize = 16;
/// Longest token file that is read, in bytes.
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
    /// Others may read the file.
    #[error("{path} has mode {mode:o}; others could read the token: chmod 600 it, or delete it to mint another")]
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

/// The token of the data folder; makes one where there is none.
pub fn load_or_mint(folder: &Path) -> Result<Secret, TokenError> {
    let path = folder.join(TOKEN_FILE);
    let io = |source| TokenError::Io { path: path.clone(), source };
    match std::fs::metadata(&path) {
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            if mode & !PRIVATE_FILE != 0 {
                return Err(TokenError::Open { path, mode });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut token = random::hex::<TOKEN_BYTES>()?;
            token.push('\n');
            let made = create_private(&path, token.as_bytes());
            token.zeroize();
            match made {
                Ok(()) => tracing::info!(path = %path.display(), "the admin token was minted"),
                // Somebody else minted it in the meantime.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io(error)),
            }
        }
        Err(error) => return Err(io(error)),
    }
    let mut text = read_text(&path, MAX_FILE_BYTES).map_err(io)?;
    let token = Secret::new(text.trim().to_owned());
    text.zeroize();
    if token.expose().len() < MIN_TOKEN_BYTES {
        return Err(TokenError::Short { path });
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
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load_or_mint(folder.path()), Err(TokenError::Open { mode: 0o640, .. })));
    }
}
