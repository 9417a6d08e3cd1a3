//! The master key as text: from the environment, or in its file in the home folder.

use std::io;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::app::admin::DATABASE_FILE;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::config::Config;
use crate::domain::secret::Secret;
use crate::sys::files;
use crate::sys::random;

/// The key's file in the home folder.
const FILE: &str = "gateway-master-key";
/// Longest key file, in bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Where the key's file is, or would be.
pub(crate) fn file(config: &Config) -> PathBuf {
    config.paths.home.join(FILE)
}

/// Makes a key where neither the environment nor the file has one: 32 random bytes as 64 hex digits and
/// a line feed, 0600. Never where a store exists that another key sealed. Returns the file it made.
pub(crate) fn make_if_missing(config: &Config) -> Result<Option<PathBuf>, CliError> {
    let file = file(config);
    if config.master_key.is_some() || file.exists() {
        return Ok(None);
    }
    let store = config.paths.data_dir.join(DATABASE_FILE);
    if store.exists() {
        let message = format!("{} exists, but the master key that opens it is missing", store.display());
        return Err(CliError::new(Outcome::Config, message)
            .hint(format!("put it back into {} or set GATEWAY_MASTER_KEY", file.display())));
    }
    files::private_folder(&config.paths.home).map_err(|error| at(&config.paths.home, &error))?;
    let key =
        random::hex::<32>().map(Zeroizing::new).map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    let line = Zeroizing::new(format!("{}\n", *key));
    match files::create_private(&file, line.as_bytes()) {
        Ok(()) => Ok(Some(file)),
        // Two that start at once: the first one's key holds.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(at(&file, &error)),
    }
}

/// The key, which must be there by now. White space at the ends of the file is not part of it.
pub(crate) fn read(config: &mut Config) -> Result<Secret, CliError> {
    if let Some(key) = config.master_key.take() {
        return Ok(key);
    }
    let file = file(config);
    let text = files::read_text(&file, MAX_FILE_BYTES).map(Zeroizing::new).map_err(|error| at(&file, &error))?;
    if text.trim().is_empty() {
        let message = format!("{} is empty: it should hold the master key", file.display());
        return Err(CliError::new(Outcome::Config, message));
    }
    Ok(Secret::new(text.trim().to_owned()))
}

fn at(path: &std::path::Path, error: &io::Error) -> CliError {
    CliError::new(Outcome::Config, format!("{}: {error}", path.display()))
}
