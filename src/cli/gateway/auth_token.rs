//! `gateway auth-token`: the admin token shown to a person, or replaced by a new one.

use std::io;
use std::io::IsTerminal as _;
use std::path::Path;

use clap::Args;
use zeroize::Zeroizing;

use crate::app::admin::DATABASE_FILE;
use crate::app::admin::token;
use crate::cli::args::Globals;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::config::Config;
use crate::config::parts::AccessMode;
use crate::domain::secret::Secret;

/// Options of `gateway auth-token`.
#[derive(Debug, Clone, Args)]
#[group(id = "what", required = true, multiple = true)]
pub(super) struct AuthTokenArgs {
    /// Print the token; on a terminal only
    #[arg(long)]
    show: bool,
    /// Mint a new token; a running gateway takes it with the next request, and the old one counts no longer
    #[arg(long)]
    rotate: bool,
}

/// Shows or replaces it; with both options the new one is shown.
pub(super) async fn run(args: &AuthTokenArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    if args.show && !io::stdout().is_terminal() {
        return Err(CliError::new(Outcome::Usage, "the token is shown on a terminal only")
            .hint("programs read <data-dir>/admin-token, or get it as GATEWAY_ADMIN_TOKEN"));
    }
    let config = settings::load(&globals.flags(), &[])?;
    if let Some(refused) = without_token(config.admin.mode) {
        return Err(refused);
    }
    if args.rotate {
        rotate(&config, printer).await?;
    }
    if args.show {
        let token = shown(&config)?;
        let line = Zeroizing::new(format!("{}\n", token.expose()));
        printer.bytes(line.as_bytes())?;
    }
    Ok(Outcome::Done)
}

/// Modes in which no token counts: to mint one would look as if it did, and a rotation never changes the mode.
fn without_token(mode: AccessMode) -> Option<CliError> {
    let refused = |hint: &'static str| {
        let message = format!("no token opens the admin API in access mode {}", mode.name());
        Some(CliError::new(Outcome::Config, message).hint(hint))
    };
    match mode {
        AccessMode::Token | AccessMode::Hybrid => None,
        // Kept for a return to another mode, and with `mtls` for certificates besides.
        AccessMode::None | AccessMode::Mtls => None,
        AccessMode::Password => refused("write another password into admin.password_file; a running gateway takes it"),
        AccessMode::TrustedProxy => refused("the proxy says who comes; see admin.trusted_proxy"),
    }
}

fn shown(config: &Config) -> Result<Secret, CliError> {
    if let Some(token) = &config.admin.token {
        return Ok(token.duplicate());
    }
    let folder = &config.paths.data_dir;
    gateway_api::stored_token(&folder.join(token::TOKEN_FILE))?.ok_or_else(|| none_here(folder))
}

/// A new token in the file. Where a gateway runs it is asked whether it goes by it: one that was started with a token
/// in its environment does not.
async fn rotate(config: &Config, printer: &mut Printer) -> Result<(), CliError> {
    if config.admin.token.is_some() {
        return Err(CliError::new(
            Outcome::Config,
            "the token is given by GATEWAY_ADMIN_TOKEN, and stays what that says",
        )
        .hint("set the variable to another value where the gateway is started, and start it again"));
    }
    let folder = &config.paths.data_dir;
    // A file that is lost is replaced; a folder without a store is none of a gateway.
    if !folder.join(token::TOKEN_FILE).is_file() && !folder.join(DATABASE_FILE).is_file() {
        return Err(none_here(folder));
    }
    let file = token::mint(folder).map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    printer.note(&format!("[ok] a new admin token stands in {}", file.display()));
    let failed = match gateway_api::open(config, printer) {
        Ok(api) => match api.secrets_status().await {
            Ok(_) => {
                let url = &config.admin_url;
                printer.note(&format!("[ok] the gateway at {url} goes by it; the old one counts no longer"));
                return Ok(());
            }
            Err(error) => gateway_api::failed(&error),
        },
        Err(error) => error,
    };
    match failed.outcome {
        Outcome::Unreachable => {
            printer
                .note(&format!("[i] no gateway answers at {}; the next one that starts goes by it", config.admin_url));
            Ok(())
        }
        Outcome::Unauthorized => {
            Err(CliError::new(Outcome::Unauthorized, format!("the gateway at {} does not go by it", config.admin_url))
                .hint("it was started with GATEWAY_ADMIN_TOKEN, or with another data folder: see --gateway-data-dir"))
        }
        Outcome::Done
        | Outcome::Failed
        | Outcome::Indeterminate
        | Outcome::NotRunning
        | Outcome::Over
        | Outcome::Usage
        | Outcome::Anew
        | Outcome::Temporary
        | Outcome::Unavailable
        | Outcome::Config => Err(failed),
    }
}

fn none_here(folder: &Path) -> CliError {
    CliError::new(Outcome::Failed, format!("there is no admin token in {}", folder.display()))
        .hint("the first start of a gateway mints one; see --gateway-data-dir")
}
