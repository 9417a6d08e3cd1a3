//! The admin API of the running gateway, as commands reach it: address, token, slugs, and what its errors mean.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use reqwest::Url;
use zeroize::Zeroizing;

use crate::app::connections_api::ApiError;
use crate::app::connections_api::ConnectionsApi;
use crate::app::logs_api::LogsApi;
use crate::app::own_listener;
use crate::app::upkeep::StoreApi;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::token;
use crate::config::Config;
use crate::config::parts::AccessMode;
use crate::config::parts::AdminTrust;
use crate::config::parts::GivenSecret;
use crate::config::remote;
use crate::domain::ids::ConnectionId;
use crate::domain::secret::Secret;
use crate::sys::files;
use crate::sys::tls::trust::ServerTrust;

/// The admin API of the gateway the settings mean.
pub(crate) fn open(config: &Config, printer: &mut Printer) -> Result<ConnectionsApi, CliError> {
    warn_of_clear(config, printer);
    let trust = trust(&config.admin.trust);
    ConnectionsApi::new(&config.admin_url, token(config)?.as_ref(), &trust).map_err(|error| failed(&error))
}

/// The same API, for what concerns the store as a whole.
pub(crate) fn store(config: &Config, printer: &mut Printer) -> Result<StoreApi, CliError> {
    warn_of_clear(config, printer);
    let trust = trust(&config.admin.trust);
    StoreApi::new(&config.admin_url, token(config)?.as_ref(), &trust).map_err(|error| failed(&error))
}

/// The logs behind the admin API at an address that was typed. No token but the one that was named with it goes there.
pub(crate) fn logs(config: &Config, url: &str, token: Option<&Secret>) -> Result<LogsApi, CliError> {
    check_url(config, url)?;
    LogsApi::new(url, token, &trust(&config.admin.trust)).map_err(|error| failed(&error))
}

/// Refuses an address of `--url` on the way to which others would read a token.
pub(crate) fn check_url(config: &Config, url: &str) -> Result<(), CliError> {
    remote::check_guarded(url, config.allow_insecure)
        .map_err(|why| CliError::new(Outcome::Usage, format!("--url {url} {why}")))
}

/// What opens the admin API of the settings, to be sent there.
pub(crate) fn token(config: &Config) -> Result<Option<Secret>, CliError> {
    token_for(config, &config.admin_url)
}

/// What opens the admin API, to be sent to this address of the gateway. The token of a gateway that runs elsewhere goes there
/// alone. What is stored goes to an address that nobody gave only where the gateway of the data folder listens there, and
/// where another address was given, so does what was given with it.
pub(crate) fn token_for(config: &Config, url: &str) -> Result<Option<Secret>, CliError> {
    if config.remote.as_ref().is_some_and(|remote| remote.url != url) {
        return Ok(None);
    }
    let credential = credential(config);
    let token = credential.read()?;
    if token.is_some() && config.admin_url == url {
        check_guarded(config)?;
    }
    if token.is_some() && is_unproven(config, &credential, url) {
        check_listener(url, &config.paths.data_dir, &config.paths.run_dir)?;
    }
    Ok(token)
}

/// Refuses the gateway's address where others would read a token on the way.
pub(crate) fn check_guarded(config: &Config) -> Result<(), CliError> {
    config.admin_url_refused.map_or(Ok(()), |why| {
        let url = &config.admin_url;
        Err(CliError::new(Outcome::Config, format!("the gateway's address {url} {why}; see GATEWAY_ADMIN_URL")))
    })
}

/// Whether this credential goes to that address only after a look at who listens there: nobody named the address, and the
/// credential was found, or was given for another one.
pub(crate) fn is_unproven(config: &Config, credential: &Credential, url: &str) -> bool {
    let is_named = config.remote.is_some() || config.admin_url_set && config.admin_url == url;
    !is_named && (credential.is_stored() || config.admin_url_set)
}

/// That the gateway of these folders listens at a computed address of this machine, or nobody.
pub(crate) fn check_listener(url: &str, data_dir: &Path, run_dir: &Path) -> Result<(), CliError> {
    let address = Url::parse(url).ok().and_then(|url| {
        let ip = url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        Some(SocketAddr::new(ip, url.port_or_known_default()?))
    });
    // What is computed is always an address.
    let Some(address) = address else { return Ok(()) };
    own_listener::check(data_dir, run_dir, address).map_err(|stranger| {
        CliError::new(
            Outcome::Unreachable,
            format!("the gateway does not run: {stranger}; it was not sent the admin token"),
        )
        .hint("end that program and start the gateway; if it is the right one, name it: --gateway-admin-url")
    })
}

/// The token, or in modes `password` and `trusted-proxy` the password; that of the environment, else that of its file;
/// `None` where there is neither. Who sends it somewhere asks for that of the place.
pub(crate) fn own_token(config: &Config) -> Result<Option<Secret>, CliError> {
    credential(config).read()
}

/// Where that is.
pub(crate) enum Credential {
    /// It was given.
    Given(Secret),
    /// In this file, whose content may change.
    File(PathBuf),
    /// There is none.
    Nothing,
}

impl Credential {
    /// What it is now.
    pub(crate) fn read(&self) -> Result<Option<Secret>, CliError> {
        match self {
            Self::Given(secret) => Ok(Some(secret.duplicate())),
            Self::File(file) => stored_token(file),
            Self::Nothing => Ok(None),
        }
    }

    /// Whether it was found in a file, and not given to this command.
    pub(crate) const fn is_stored(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// Where commands find what opens the admin API.
/// A gateway that runs elsewhere gets the token that was named for it, and nobody else does.
pub(crate) fn credential(config: &Config) -> Credential {
    if let Some(remote) = &config.remote {
        let file = remote.token_file.clone().filter(|_| config.admin_url == remote.url);
        return file.map_or(Credential::Nothing, Credential::File);
    }
    match config.admin.mode {
        AccessMode::Password | AccessMode::TrustedProxy => match &config.admin.password {
            Some(GivenSecret::Given(password)) => Credential::Given(password.duplicate()),
            Some(GivenSecret::File(file)) => Credential::File(file.clone()),
            None => Credential::Nothing,
        },
        AccessMode::Token | AccessMode::Hybrid | AccessMode::None | AccessMode::Mtls => match &config.admin.token {
            Some(token) => Credential::Given(token.duplicate()),
            None => Credential::File(config.paths.data_dir.join("admin-token")),
        },
    }
}

fn warn_of_clear(config: &Config, printer: &mut Printer) {
    if !owner::is_loopback(&config.admin_url) && config.admin_url.starts_with("http:") {
        printer.warn(&format!("the admin token goes to {} in clear; use https", config.admin_url));
    }
}

/// Whom our commands believe at the admin API, and what they show it.
pub(crate) fn trust(settings: &AdminTrust) -> ServerTrust {
    ServerTrust {
        authorities: settings.ca_file.clone(),
        own: settings.own_cert_file.clone(),
        fingerprint: settings.fingerprint.clone(),
        identity: settings.operator.clone(),
    }
}

/// The admin token or password in a file; `None` where there is no such file.
pub(crate) fn stored_token(file: &Path) -> Result<Option<Secret>, CliError> {
    match files::read_text(file, token::MAX_BYTES).map(Zeroizing::new) {
        Ok(text) => Ok(token::tidy(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::new(Outcome::Config, format!("{}: {error}", file.display()))),
    }
}

/// An error of the gateway with its exit code and what to do next.
pub(crate) fn failed(error: &ApiError) -> CliError {
    let shown = |outcome| CliError::new(outcome, format!("the gateway: {error}"));
    let unauthorized = || CliError::new(Outcome::Unauthorized, format!("unauthorized: the gateway: {error}"));
    match error {
        ApiError::Address { .. } => shown(Outcome::Config).hint("see --gateway-admin-url and GATEWAY_ADMIN_URL"),
        ApiError::Client(_) | ApiError::Token => shown(Outcome::Failed),
        ApiError::Unreachable { .. } => shown(Outcome::Unreachable)
            .hint("start it with `sigilum up` or `sigilum gateway start`, or see --gateway-admin-url"),
        ApiError::Certificate { .. } => shown(Outcome::Unreachable).hint(
            "GATEWAY_ADMIN_CA_FILE names the authority behind the gateway's certificate; where it wants one of yours, \
             see GATEWAY_ADMIN_CLIENT_CERT_FILE. A certificate to serve with has CA:FALSE",
        ),
        ApiError::Redirect { .. } | ApiError::Unexpected { .. } => {
            shown(Outcome::Failed).hint("is that the admin API of a gateway? see --gateway-admin-url")
        }
        ApiError::Refused(refusal) => match (refusal.status, refusal.code.as_str()) {
            (403, "ADMIN_CERTIFICATE_REQUIRED") => unauthorized()
                .hint("GATEWAY_ADMIN_CLIENT_CERT_FILE and GATEWAY_ADMIN_CLIENT_KEY_FILE name the certificate to show"),
            (403, "ADMIN_PASSWORD_REQUIRED") => unauthorized()
                .hint("set SIGILUM_GATEWAY_PASSWORD_FILE to the gateway's password file, or SIGILUM_GATEWAY_PASSWORD"),
            (403, "ADMIN_TRUSTED_PROXY_REQUIRED") => unauthorized().hint(
                "commands of that machine come in with a password, where one is set (SIGILUM_GATEWAY_PASSWORD or \
                 admin.password_file); all others through the proxy",
            ),
            (403, "ADMIN_HOST_REFUSED") => {
                shown(Outcome::Failed).hint("the gateway's admin.allowed_hosts names the hosts it is known by")
            }
            (401 | 403, _) => unauthorized().hint(
                "the token is GATEWAY_ADMIN_TOKEN, else <data-dir>/admin-token of the gateway; see --gateway-data-dir",
            ),
            (_, "CONNECTION_DECLARED" | "VARIABLE_DECLARED") => {
                shown(Outcome::Failed).hint("change it in that file; the running gateway takes it from there")
            }
            (_, "STORE_UNAVAILABLE") => shown(Outcome::Failed).hint(
                "`sigilum health` says how the store stands; `df -h` where the gateway runs says which disk is full",
            ),
            (429, _) => shown(Outcome::Failed).hint("wait a moment and try again"),
            (501, _) => shown(Outcome::Failed).hint("the gateway that runs is another version than this command"),
            _ => shown(Outcome::Failed),
        },
    }
}

/// A slug as typed. Nothing is rewritten: what is stored is what stands in approvals and in paths. Slugs of services
/// and of connections are the same; `what` says which one is meant.
pub(crate) fn slug(what: &str, typed: &str) -> Result<ConnectionId, CliError> {
    ConnectionId::parse(typed).map_err(|invalid| {
        let refused = CliError::new(Outcome::Failed, format!("the {what} {typed:?} {invalid}"));
        match ConnectionId::parse(&typed.trim().to_lowercase().replace(['_', ' ', '.'], "-")) {
            Ok(near) => refused.hint(format!("perhaps {near}")),
            Err(_) => refused,
        }
    })
}

/// A secret for people who know it: its ends, and nothing of a short one.
pub(crate) fn masked(secret: &Secret, reveal: bool) -> String {
    let letters: Vec<char> = secret.expose().chars().collect();
    let ends = (letters.get(..4), letters.get(letters.len().saturating_sub(4)..));
    match ends {
        _ if reveal => secret.expose().to_owned(),
        (Some(head), Some(tail)) if letters.len() > 8 => head.iter().chain(&['.', '.', '.']).chain(tail).collect(),
        _ => "****".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_slug_is_refused_with_its_rule_and_a_guess() {
        let error = slug("slug", "My_Service").unwrap_err();
        assert!(error.message.contains("a-z") && error.outcome == Outcome::Failed, "{error}");
        assert_eq!(error.hint.as_deref(), Some("perhaps my-service"));
        assert!(slug("slug", "x").unwrap_err().hint.is_none());
    }

    #[test]
    fn a_mask_shows_the_ends_of_long_secrets_only() {
        let shown = |text: &str| masked(&Secret::new(text.to_owned()), false);
        assert_eq!((shown("12345678").as_str(), shown("123456789").as_str()), ("****", "1234...6789"));
        assert_eq!(shown("äöüß-ñøåé"), "äöüß...ñøåé");
        assert_eq!(masked(&Secret::new("abc".to_owned()), true), "abc");
    }
}
