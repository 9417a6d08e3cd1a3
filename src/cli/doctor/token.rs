//! `doctor --generate-gateway-token`: makes the admin token where none is there. One that is there is never replaced.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::app::admin::token;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::config::Config;
use crate::config::Flags;
use crate::config::parts::AccessMode;
use crate::sys::files;

/// Makes it, and says where; what was done, in words, or nothing where one counts already.
pub(super) fn generate(flags: &Flags, printer: &mut Printer) -> Result<Option<String>, CliError> {
    // With a mistake in the settings nobody knows which token would count.
    let config = settings::load(flags, &[])?;
    refuse(&config)?;
    if gateway_api::own_token(&config)?.is_some() {
        let place = match &config.admin.token {
            Some(_) => "GATEWAY_ADMIN_TOKEN says it".to_owned(),
            None => format!("it stands in {}", config.paths.data_dir.join(token::TOKEN_FILE).display()),
        };
        printer.note(&format!("[i] there is an admin token, and it stays: {place}"));
        return Ok(None);
    }
    let folder = &config.paths.data_dir;
    let failed = |error: String| CliError::new(Outcome::Failed, error);
    if !folder.exists() {
        files::private_folder(folder).map_err(|error| failed(format!("{}: {error}", folder.display())))?;
    }
    refuse_foreign(folder)?;
    token::load_or_mint(folder).map_err(|error| failed(error.to_string()))?;
    let file = folder.join(token::TOKEN_FILE);
    Ok(Some(format!("made an admin token: {} (0600)", file.display())))
}

/// Where a token would count for nothing: to make one would look as if it did.
fn refuse(config: &Config) -> Result<(), CliError> {
    if let Some(remote) = &config.remote {
        let message =
            format!("the gateway of these settings runs elsewhere, at {}: its token is made there", remote.url);
        return Err(CliError::new(Outcome::Config, message).hint("gateway.remote.token_file names a copy of it here"));
    }
    match config.admin.mode {
        AccessMode::Token | AccessMode::Hybrid => Ok(()),
        AccessMode::Password | AccessMode::TrustedProxy | AccessMode::None | AccessMode::Mtls => {
            let message = format!("no token opens the admin API in access mode {}", config.admin.mode.name());
            Err(CliError::new(Outcome::Config, message).hint("admin.access_mode (--auth) says how it is opened"))
        }
    }
}

/// A file of ours in somebody else's folder is one that the gateway of that folder could not read; root's becomes the folder
/// owner's.
fn refuse_foreign(folder: &Path) -> Result<(), CliError> {
    let failed = |what: String| CliError::new(Outcome::Failed, format!("{}: {what}", folder.display()));
    let owner = std::fs::metadata(folder).map_err(|error| failed(error.to_string()))?.uid();
    let us = rustix::process::geteuid();
    if us.is_root() || owner == us.as_raw() {
        return Ok(());
    }
    Err(failed(format!("belongs to user {owner}: run the command as that user")))
}
