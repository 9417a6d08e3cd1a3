//! Whether somebody is asked who comes, judged before a socket is opened.

use crate::admin::token;
use crate::admin::token::AdminSecret;
use crate::admin::token::TokenError;
use crate::app::admin::AdminConfig;
use crate::config::guard::Unguarded;
use crate::config::guard::is_placeholder;
use crate::config::parts::AccessMode;
use crate::config::parts::GivenSecret;
use crate::domain::secret::Secret;

/// The secret, as far as it can be had before the data folder is ours.
#[derive(Debug)]
pub(super) enum Proven {
    /// This one.
    Known(Box<AdminSecret>),
    /// The one of the data folder, which may have to be minted.
    OfFolder,
    /// None is asked for.
    Nothing,
}

/// Reads the secret of the mode; a file that holds none, or that others can read, is an error.
pub(super) fn prove(config: &AdminConfig) -> Result<Proven, TokenError> {
    match config.access_mode {
        AccessMode::Password | AccessMode::TrustedProxy => {
            config.password.as_ref().map_or(Ok(Proven::Nothing), |given| {
                AdminSecret::password(given).map(|secret| Proven::Known(Box::new(secret)))
            })
        }
        AccessMode::Token | AccessMode::Hybrid | AccessMode::None | AccessMode::Mtls => match &config.token {
            Some(token) => AdminSecret::given(token).map(|secret| Proven::Known(Box::new(secret))),
            None => token::load(&config.data_dir).map(|_| Proven::OfFolder),
        },
    }
}

/// What opens the metrics alone.
pub(super) fn metrics(
    given: Option<&GivenSecret>,
    secret: Option<&AdminSecret>,
) -> Result<Option<AdminSecret>, TokenError> {
    given.map(|given| AdminSecret::metrics(given, secret)).transpose()
}

/// Why nobody would be asked.
pub(super) fn unguarded(config: &AdminConfig) -> Option<Unguarded> {
    match config.access_mode {
        AccessMode::None => Some(Unguarded::NoneMode),
        AccessMode::Token | AccessMode::Hybrid => placeholder(config.token.as_ref()),
        AccessMode::Password => match &config.password {
            None => Some(Unguarded::NoPassword),
            Some(GivenSecret::Given(password)) => placeholder(Some(password)),
            // Was read by now.
            Some(GivenSecret::File(_)) => None,
        },
        AccessMode::TrustedProxy => config.proxy.is_none().then_some(Unguarded::NoProxy),
        AccessMode::Mtls => None,
    }
}

/// A token that everybody knows lets everybody in.
fn placeholder(secret: Option<&Secret>) -> Option<Unguarded> {
    secret.filter(|secret| is_placeholder(secret.expose())).map(|_| Unguarded::Placeholder)
}
