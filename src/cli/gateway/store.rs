//! What the commands about the store as a whole have in common: settings, and what errors mean.

use std::path::Path;

use crate::app::json_api::ApiError;
use crate::app::upkeep::KeyFileError;
use crate::app::upkeep::StoreError;
use crate::cli::args::Globals;
use crate::cli::gateway::master_key;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::settings;
use crate::config::Config;
use crate::config::keys;

/// The settings, with a configuration file that may be named.
pub(crate) fn load(globals: &Globals, file: Option<&Path>) -> Result<Config, CliError> {
    let mut flags = globals.flags();
    flags.set(&keys::CONFIG_FILE, file.map(|file| file.to_string_lossy().into_owned()));
    settings::load(&flags, &[])
}

/// An error of the store with its exit code and what to do next.
#[expect(clippy::wildcard_enum_match_arm, reason = "what no command meets is a failure")]
pub(crate) fn failed(error: &StoreError, config: &Config) -> CliError {
    let shown = |outcome| CliError::new(outcome, error.to_string());
    match error {
        // What it says is what to do.
        StoreError::KeyFile(KeyFileError::Open { .. }) => shown(Outcome::Config),
        StoreError::WrongMasterKey { .. } | StoreError::KeyFile(_) => shown(Outcome::Config).hint(format!(
            "put the key back into {} or set GATEWAY_MASTER_KEY; where it is lost for good: `sigilum gateway rekey \
             --lost-master-key`",
            master_key::file(config).display()
        )),
        StoreError::NoStore { .. } => shown(Outcome::Config).hint("see --gateway-data-dir and GATEWAY_DATA_DIR"),
        StoreError::Unreadable(_) => shown(Outcome::Failed).hint(
            "`sigilum connection rotate ID` with all its secrets, or `sigilum connection rm ID`; the sealing key: `sigilum \
             gateway sealing-key rotate`; a backup may still have them",
        ),
        StoreError::Locked(_)
        | StoreError::Database(_)
        | StoreError::SameMasterKey
        | StoreError::NoNextMasterKey { .. }
        | StoreError::MasterKeyPending { .. }
        | StoreError::MasterKeyOpens => shown(Outcome::Config),
        _ => shown(Outcome::Failed),
    }
}

/// An error of the admin process that should hold the store. `held` says who has the lock.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other error is said as for all commands")]
pub(crate) fn api_failed(error: &ApiError, held: &str) -> CliError {
    match error {
        ApiError::Unreachable { .. } => CliError::new(Outcome::Config, format!("{held}; {error}"))
            .hint("wait until it is ready, or see --gateway-admin-url and GATEWAY_ADMIN_URL"),
        ApiError::Refused(refusal) if refusal.code == "SEALED_UNREADABLE" => gateway_api::failed(error)
            .hint(
                "`sigilum connection rotate ID` with all its secrets, or `sigilum connection rm ID`; the sealing key: `sigilum \
                 gateway sealing-key rotate`",
            ),
        _ => gateway_api::failed(error),
    }
}
