//! What the gateway is asked with, and what it asked for where that was refused.

use crate::app::admin::DATABASE_FILE;
use crate::cli::gateway::status::Wanted;
use crate::cli::gateway_api;
use crate::cli::gateway_api::Credential;
use crate::cli::outcome::Outcome;
use crate::cli::profile;
use crate::config::Config;
use crate::config::parts::AccessMode;
use crate::domain::secret::Secret;
use crate::sys::tls::trust::ServerTrust;

/// What the gateway is asked with.
pub(super) struct Credentials {
    /// Token or password; `None`: neither is sent.
    pub(super) token: Option<Secret>,
    /// Whom to believe there.
    pub(super) trust: ServerTrust,
    /// What is odd about the token.
    pub(super) warning: Option<String>,
    /// Who listens in the gateway's place: he is asked nothing.
    pub(super) stranger: Option<String>,
}

/// What a gateway wants of those it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// The admin token.
    Token,
    /// The password.
    Password,
    /// The word of a trusted proxy.
    Proxy,
    /// A client certificate.
    Certificate,
    /// Somebody on its machine.
    Machine,
    /// Less haste: too many were wrong.
    Patience,
}

impl Wants {
    /// By the status and the code of its refusal.
    pub(super) fn of(status: u16, code: &str) -> Self {
        match code {
            _ if status == 429 => Self::Patience,
            "ADMIN_PASSWORD_REQUIRED" => Self::Password,
            "ADMIN_TRUSTED_PROXY_REQUIRED" => Self::Proxy,
            "ADMIN_CERTIFICATE_REQUIRED" => Self::Certificate,
            "ADMIN_LOOPBACK_REQUIRED" => Self::Machine,
            _ => Self::Token,
        }
    }

    /// What it says to a command, which `sent` a token or a password or did not.
    pub(super) const fn words(self, sent: bool) -> &'static str {
        match (self, sent) {
            (Self::Token, true) => "the token is refused",
            (Self::Token, false) => "it asks for the admin token",
            (Self::Password, true) => "the password is refused",
            (Self::Password, false) => "it asks for the password",
            (Self::Proxy, _) => "it believes a trusted proxy alone",
            (Self::Certificate, _) => "it asks for a client certificate",
            (Self::Machine, _) => "it answers commands of its own machine alone",
            (Self::Patience, _) => "it answers nobody for a minute: too many tokens or passwords were wrong",
        }
    }

    /// What to type, or to do.
    pub(super) fn next(self, config: &Config, is_remote: bool) -> String {
        match self {
            Self::Token if is_remote => {
                let file = config.remote.as_ref().and_then(|remote| remote.token_file.as_ref());
                let file = file.map_or_else(|| "a file".to_owned(), |file| file.display().to_string());
                format!("write that gateway's admin token into {file}, which gateway.remote.token_file names")
            }
            Self::Token if config.admin.token.is_some() => {
                "unset GATEWAY_ADMIN_TOKEN, or set it to the token the gateway was started with".to_owned()
            }
            Self::Token => profile::command("gateway auth-token --show"),
            Self::Password => profile::command("gateway status --auth password --password-file FILE"),
            Self::Proxy => {
                "come through the proxy, or on the gateway's machine with SIGILUM_GATEWAY_PASSWORD_FILE".to_owned()
            }
            Self::Certificate => {
                "set GATEWAY_ADMIN_CLIENT_CERT_FILE and GATEWAY_ADMIN_CLIENT_KEY_FILE to yours".to_owned()
            }
            Self::Machine => "ask on the gateway's own machine".to_owned(),
            Self::Patience => format!("wait a minute, then `{}`", profile::command("gateway status")),
        }
    }
}

/// To a named address goes only what was named with it.
pub(super) fn find(config: &Config, wanted: &Wanted<'_>, at: &str) -> Credentials {
    let with = |token| {
        let trust = gateway_api::trust(&config.admin.trust);
        Credentials { token, trust, warning: None, stranger: None }
    };
    let odd = |warning: String| Credentials { warning: Some(warning), ..with(None) };
    if wanted.url.is_some() {
        return match wanted.token_file.map(gateway_api::stored_token) {
            Some(Ok(Some(token))) => with(Some(token)),
            Some(Ok(None)) => odd("the token's file is not there, or empty".to_owned()),
            Some(Err(error)) => odd(error.message),
            None => odd("with --url only --token-file names a token".to_owned()),
        };
    }
    match gateway_api::token_for(config, at) {
        Ok(Some(token)) => with(Some(token)),
        Ok(None) => Credentials { warning: missing(config), ..with(None) },
        Err(error) if error.outcome == Outcome::Unreachable => {
            Credentials { stranger: Some(error.message), ..with(None) }
        }
        Err(error) => odd(error.message),
    }
}

/// What is missing where nothing can be sent; `None`: nothing need be.
fn missing(config: &Config) -> Option<String> {
    let place = match gateway_api::credential(config) {
        Credential::File(file) => Some(file.display().to_string()),
        Credential::Given(_) | Credential::Nothing => None,
    };
    if config.remote.is_some() {
        return Some(match place {
            Some(file) => format!("there is no token for that gateway: {file} is not there, or empty"),
            None => "there is no token for that gateway: gateway.remote.token_file is not set".to_owned(),
        });
    }
    match config.admin.mode {
        AccessMode::Token | AccessMode::Hybrid if !config.paths.data_dir.join(DATABASE_FILE).exists() => {
            Some("the first start makes the admin token".to_owned())
        }
        AccessMode::Token | AccessMode::Hybrid => {
            let file = place.unwrap_or_default();
            Some(format!("there is no admin token: GATEWAY_ADMIN_TOKEN is not set, and {file} is not there"))
        }
        AccessMode::Password => Some(match place {
            Some(file) => format!("there is no password: {file} is not there, or empty"),
            None => "there is no password: neither SIGILUM_GATEWAY_PASSWORD nor a password file is set".to_owned(),
        }),
        AccessMode::TrustedProxy => Some(match place {
            Some(file) => format!("there is no password for commands of this machine: {file} is not there, or empty"),
            None => "commands of this machine have no password, so only the proxy comes in".to_owned(),
        }),
        AccessMode::None | AccessMode::Mtls => None,
    }
}
