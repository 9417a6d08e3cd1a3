//! The admin API of the running gateway, as commands reach it: address, token, slugs, and what its errors mean.

use std::path::Path;

use zeroize::Zeroizing;

use crate::app::connections_api::ApiError;
use crate::app::connections_api::ConnectionsApi;
use crate::app::logs_api::LogsApi;
use crate::app::upkeep::StoreApi;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::token;
use crate::config::Config;
use crate::config::parts::AdminTrust;
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

/// The logs behind the admin API at an address.
pub(crate) fn logs(config: &Config, printer: &mut Printer) -> Result<LogsApi, CliError> {
    warn_of_clear(config, printer);
    let trust = trust(&config.admin.trust);
    LogsApi::new(&config.admin_url, token(config)?.as_ref(), &trust).map_err(|error| failed(&error))
}

/// The admin token: that of the environment, else that of its file; `None` where there is neither. A gateway that runs
/// elsewhere gets the token that was named for it, and nobody else does.
pub(crate) fn token(config: &Config) -> Result<Option<Secret>, CliError> {
    if let Some(remote) = &config.remote {
        let file = remote.token_file.as_deref().filter(|_| config.admin_url == remote.url);
        return file.map_or(Ok(None), stored_token);
    }
    match &config.admin.token {
        Some(token) => Ok(Some(token.duplicate())),
        None => stored_token(&config.paths.data_dir.join("admin-token")),
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

/// The admin token in a file; `None` where there is no such file.
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
            (421, _) => shown(Outcome::Failed).hint("the gateway's admin.allowed_hosts names the hosts it is known by"),
            (401 | 403, _) => unauthorized().hint(
                "the token is GATEWAY_ADMIN_TOKEN, else <data-dir>/admin-token of the gateway; see --gateway-data-dir",
            ),
            (_, "CONNECTION_DECLARED" | "VARIABLE_DECLARED") => {
                shown(Outcome::Failed).hint("change it in that file; the running gateway takes it from there")
            }
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
