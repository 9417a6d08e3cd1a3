//! The master key as text: from the environment, or in its file in the home folder.

use std::io;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::app::admin::DATABASE_FILE;
use crate::app::upkeep::MasterKeys;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::config::Config;
use crate::sys::files;
use crate::sys::random;

/// The key's file in the home folder.
const FILE: &str = "gateway-master-key";

/// Where the key's file is, or would be.
pub(crate) fn file(config: &Config) -> PathBuf {
    config.paths.home.join(FILE)
}

/// Makes a key where neither the environment nor the file has one: 32 random bytes as 64 hex digits and
/// a line feed, 0600. Never where a store exists that another key sealed. Returns the file it made.
pub(crate) fn make_if_missing(config: &Config) -> Result<Option<PathBuf>, CliError> {
    let file = file(config);
    // A change of the key that was interrupted leaves it there at the least.
    let next = MasterKeys::new(None, file.clone()).place().next();
    if config.master_key.is_some() || file.exists() || next.is_some_and(|next| next.exists()) {
        return Ok(None);
    }
    let store = config.paths.data_dir.join(DATABASE_FILE);
    if store.exists() {
        let message = format!("{} exists, but the master key that opens it is missing", store.display());
        return Err(CliError::new(Outcome::Config, message).hint(format!(
            "put it back into {} or set GATEWAY_MASTER_KEY; where it is lost for good: `sigilum gateway rekey \
                 --lost-master-key`",
            file.display()
        )));
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

/// The keys the store may open with: that of the environment, else that of the file, and the next one where a change of
/// the key was interrupted.
pub(crate) fn keys(config: &mut Config) -> MasterKeys {
    MasterKeys::new(config.master_key.take(), file(config))
}

fn at(path: &std::path::Path, error: &io::Error) -> CliError {
    CliError::new(Outcome::Config, format!("{}: {error}", path.display()))
}
