//! Which Sigilum API a command talks to, and as whom: its address and the owner's token.

use std::fs;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::Url;
use zeroize::Zeroizing;

use crate::app::api;
use crate::app::own_listener;
use crate::app::owner_api::ApiError;
use crate::app::owner_api::OwnerApi;
use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::secret_source;
use crate::cli::settings;
use crate::cli::settings::IdentityPlace;
use crate::cli::stack;
use crate::cli::token;
use crate::cli::token::Said;
use crate::cli::up;
use crate::config::Config;
use crate::config::api as api_settings;
use crate::config::load::parse_url;
use crate::config::profile;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::identity::Home;
use crate::identity::IdentityError;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::env;
use crate::sys::files;
use crate::sys::process;
use crate::sys::terminal;

/// The hosted API.
const HOSTED: &str = "https://api.sigilum.id";
/// Seconds a token lives that is issued for one command.
const COMMAND_TTL: u64 = 60;
/// How long the API of this machine may take to look at a new token.
const INTRODUCTION: Duration = Duration::from_secs(3);

/// Options of the commands that speak to the API as an owner.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OwnerArgs {
    /// Address of the Sigilum API [default: the local one where there is one, else https://api.sigilum.id]
    #[arg(long, value_name = "URL")]
    pub(crate) api_url: Option<String>,
    /// Read the owner's token from standard input [default: SIGILUM_OWNER_TOKEN, else what `auth login` stored]
    #[arg(long, conflicts_with = "owner_token")]
    pub(crate) owner_token_stdin: bool,
    /// The owner's token; visible to every process of this machine
    #[arg(long, value_name = "TOKEN", hide = true)]
    pub(crate) owner_token: Option<String>,
    /// E-mail address in a token of the local API that is made for this command
    #[arg(long, value_name = "ADDRESS", hide_short_help = true)]
    pub(crate) email: Option<String>,
}

/// An owner who may speak to the API.
pub(crate) struct Owner {
    /// The API.
    pub(crate) api: OwnerApi,
    /// Its address, for people.
    pub(crate) base: String,
    /// Whose token it is.
    pub(crate) namespace: Namespace,
}

/// Where the hosted or the local API is, by mode, where nothing names an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The hosted API.
    Managed,
    /// The API of this machine.
    OssLocal,
}

impl Mode {
    /// Reads the name used in options and in `SIGILUM_MODE`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "managed" => Ok(Self::Managed),
            "oss-local" => Ok(Self::OssLocal),
            _ => Err("must be managed or oss-local".to_owned()),
        }
    }

    /// The name used in options.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::OssLocal => "oss-local",
        }
    }

    /// What the environment says.
    pub(crate) fn of_environment() -> Result<Option<Self>, CliError> {
        let read = |text: String| {
            Self::parse(&text).map_err(|wrong| CliError::new(Outcome::Config, format!("SIGILUM_MODE {wrong}")))
        };
        env::lookup("SIGILUM_MODE").map(read).transpose()
    }

    /// The address of its API.
    pub(crate) fn address(self, globals: &Globals) -> String {
        match self {
            Self::Managed => HOSTED.to_owned(),
            Self::OssLocal => local_address(globals),
        }
    }
}

fn local_address(globals: &Globals) -> String {
    format!("http://127.0.0.1:{}", stack::api_port(globals))
}

/// The address of the API: option, environment, `gateway.yaml`, `config.env`, then by mode; without a mode
/// the local one where this machine has one, or where `auth login` stored a token of it.
pub(crate) fn api_address(given: Option<&str>, config: &Config, globals: &Globals) -> Result<String, CliError> {
    if let Some(given) = given.map(|given| given.trim().trim_end_matches('/')).filter(|given| !given.is_empty()) {
        let wrong = |why| CliError::new(Outcome::Usage, format!("--api-url {given:?} {why}"));
        parse_url(given).map_err(|why| wrong(why).hint("such as http://127.0.0.1:8787"))?;
        return Ok(given.to_owned());
    }
    if globals.api_port.is_some() {
        return Ok(local_address(globals));
    }
    if config.api_url_set {
        return Ok(config.api_url.clone());
    }
    let mode = match Mode::of_environment()? {
        Some(mode) => mode,
        None if jwt_secret_file().is_file() || has_local_token(config) => Mode::OssLocal,
        None => Mode::Managed,
    };
    Ok(mode.address(globals))
}

/// The mode where nobody names one: that of this machine's API where it is the one that is meant, and a token that is
/// handed over was made by it.
pub(crate) fn mode_of(named: Option<&str>, handed: Option<&Secret>) -> Mode {
    let is_here = named.is_none_or(is_loopback) && jwt_secret_file().is_file();
    if is_here && handed.is_none_or(of_this_machine) { Mode::OssLocal } else { Mode::Managed }
}

/// Whether the token that is stored for the namespace of the settings was made for this machine's API.
fn has_local_token(config: &Config) -> bool {
    let file = config.namespace.as_ref().map(|namespace| token_file(&openclaw_home(), namespace));
    let stored = file.and_then(|file| stored_token(&file).ok().flatten());
    stored.as_ref().is_some_and(of_this_machine)
}

/// Whether a token was made by this machine's API.
fn of_this_machine(token: &Secret) -> bool {
    Said::by(token).is_some_and(|said| said.is_local())
}

/// Where the local API keeps the secret its tokens are signed with: the file that `JWT_SECRET_FILE` names, else its own.
pub(crate) fn jwt_secret_file() -> PathBuf {
    let own = || api_settings::data_dir(&env::lookup).join(api::JWT_SECRET_FILE);
    env::lookup("JWT_SECRET_FILE").map_or_else(own, PathBuf::from)
}

/// The variable that holds the secret of owner tokens.
pub(crate) const JWT_SECRET: &str = "JWT_SECRET";
/// The variable that holds the owner's token.
pub(crate) const OWNER_TOKEN: &str = "SIGILUM_OWNER_TOKEN";

/// What the file holds that `JWT_SECRET_FILE` names, where `JWT_SECRET` itself is not set.
pub(crate) fn jwt_secret_in_file() -> Result<Option<Secret>, CliError> {
    settings::secret_of_file(JWT_SECRET).map_err(CliError::from)
}

/// The secret of the local API: `JWT_SECRET`, the file that `JWT_SECRET_FILE` names, else its own file; `None` where this
/// machine has none of them.
pub(crate) fn jwt_secret() -> Result<Option<Secret>, CliError> {
    if let Some(secret) = env::lookup(JWT_SECRET) {
        return Ok(Some(Secret::new(secret)));
    }
    if let Some(secret) = jwt_secret_in_file()? {
        return Ok(Some(secret));
    }
    api::local_jwt_secret(&api_settings::data_dir(&env::lookup))
        .map_err(|error| CliError::new(Outcome::Config, error.to_string()))
}

/// The folder of OpenClaw, under which tokens are kept: `$OPENCLAW_HOME`, else `~/.openclaw`.
pub(crate) fn openclaw_home() -> PathBuf {
    env::lookup("OPENCLAW_HOME").map_or_else(
        || env::lookup("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from).join(".openclaw"),
        PathBuf::from,
    )
}

/// Whether this is somebody's OpenClaw folder, and not only the one our token made.
pub(crate) fn is_openclaw_used(home: &Path) -> bool {
    let Ok(entries) = fs::read_dir(home) else { return false };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.is_empty() || names.iter().any(|name| name != ".sigilum")
}

/// Where `auth login` keeps the token of a namespace; each profile has one of its own.
pub(crate) fn token_file(openclaw: &Path, namespace: &Namespace) -> PathBuf {
    let profile = profile::suffix(&env::lookup);
    // Two dashes: a namespace may end like a profile.
    let profile = if profile.is_empty() { profile } else { format!("-{profile}") };
    openclaw.join(".sigilum").join(format!("owner-token-{namespace}{profile}.jwt"))
}

/// The stored token of a namespace.
pub(crate) fn stored_token(file: &Path) -> Result<Option<Secret>, CliError> {
    match files::read_text(file, token::MAX_BYTES).map(Zeroizing::new) {
        Ok(text) => Ok(token::tidy(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::new(Outcome::Config, format!("{}: {error}", file.display()))),
    }
}

/// The token a person hands over: standard input, argument, environment.
pub(crate) fn handed_token(
    from_stdin: bool,
    argument: Option<&str>,
    printer: &mut Printer,
) -> Result<Option<Secret>, CliError> {
    if from_stdin {
        let token = read_stdin("the owner's token", token::MAX_BYTES, printer)?;
        return match token::tidy(&token) {
            Some(token) => Ok(Some(token)),
            None => Err(CliError::new(Outcome::Failed, "there is no token on standard input")),
        };
    }
    if let Some(argument) = argument {
        printer.warn("every process of this machine can read arguments; use --owner-token-stdin");
        return Ok(token::tidy(argument));
    }
    Ok(env::lookup(OWNER_TOKEN).and_then(|token| token::tidy(&token)))
}

/// Standard input as text: to its end, on a terminal one line that does not show.
pub(crate) fn read_stdin(what: &str, limit: u64, printer: &mut Printer) -> Result<Zeroizing<String>, CliError> {
    let failed = |error: io::Error| CliError::new(Outcome::Failed, format!("standard input: {error}"));
    if terminal::is_attended() {
        return secret_source::typed(what, printer);
    }
    let mut text = Zeroizing::new(String::new());
    let mut bounded = io::stdin().lock().take(limit.saturating_add(1));
    bounded.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(CliError::new(Outcome::Failed, format!("{what} on standard input is longer than {limit} bytes")));
    }
    Ok(text)
}

/// Refuses a token that has ended.
pub(crate) fn check_alive(token: &Secret, next: &str) -> Result<(), CliError> {
    let Some(ended) = Said::by(token).and_then(|said| said.expired(SystemClock.now().seconds())) else {
        return Ok(());
    };
    let message = format!("the owner's token expired at {}", ended.rfc3339());
    Err(CliError::new(Outcome::Unauthorized, message).hint(next))
}

/// Opens the API as the owner that is meant.
pub(crate) fn open(
    args: &OwnerArgs,
    config: &Config,
    globals: &Globals,
    printer: &mut Printer,
) -> Result<Owner, CliError> {
    open_or(None, args, config, globals, printer)
}

/// The same for services, whose owner is the one of `sigilum up` where nobody is named.
pub(crate) fn open_for_service(
    args: &OwnerArgs,
    config: &Config,
    globals: &Globals,
    printer: &mut Printer,
) -> Result<Owner, CliError> {
    open_or(Some(up::LOCAL_NAMESPACE), args, config, globals, printer)
}

fn open_or(
    default: Option<&str>,
    args: &OwnerArgs,
    config: &Config,
    globals: &Globals,
    printer: &mut Printer,
) -> Result<Owner, CliError> {
    let base = api_address(args.api_url.as_deref(), config, globals)?;
    let local = is_loopback(&base);
    if !local && base.starts_with("http:") {
        printer.warn(&format!("the token goes to {base} in clear; use https"));
    }
    let handed = handed_token(args.owner_token_stdin, args.owner_token.as_deref(), printer)?;
    let said = handed.as_ref().and_then(Said::by);
    let namespace = namespace(config, globals, said.as_ref(), default)?;
    let token = match handed {
        Some(token) => {
            check_alive(&token, "sigilum auth login, or hand over a new token")?;
            token
        }
        None => {
            if local {
                check_listener(&base)?;
            }
            own_token(&namespace, local, args.email.as_deref())?
        }
    };
    let api = OwnerApi::new(&base, &token).map_err(|error| failed(&error))?;
    Ok(Owner { api, base, namespace })
}

/// What `auth login` stored, else where the API is this machine's one that lives for this command.
fn own_token(namespace: &Namespace, local: bool, email: Option<&str>) -> Result<Secret, CliError> {
    // A token this machine's API made is worth nothing elsewhere, and goes nowhere else.
    let stored =
        stored_token(&token_file(&openclaw_home(), namespace))?.filter(|token| local || !of_this_machine(token));
    let ended = stored.as_ref().map(|token| check_alive(token, "sigilum auth login"));
    if let (Some(token), Some(Ok(()))) = (&stored, &ended) {
        return Ok(token.duplicate());
    }
    if local && let Some(secret) = jwt_secret()? {
        return issue(&secret, namespace, email, COMMAND_TTL);
    }
    match ended {
        Some(Err(expired)) => Err(expired),
        Some(Ok(())) | None => {
            let next = if local { "sigilum auth login --mode oss-local" } else { "sigilum auth login" };
            let message = format!("there is no owner token for the namespace {namespace}");
            Err(CliError::new(Outcome::Unauthorized, message)
                .hint(format!("{next}, or set SIGILUM_OWNER_TOKEN, or use --owner-token-stdin")))
        }
    }
}

/// A token of the local API. `email`: `SIGILUM_OWNER_EMAIL`, else `<namespace>@local.sigilum`.
pub(crate) fn issue(secret: &Secret, namespace: &Namespace, email: Option<&str>, ttl: u64) -> Result<Secret, CliError> {
    let email = email.map(ToOwned::to_owned).or_else(|| env::lookup("SIGILUM_OWNER_EMAIL"));
    api::issue_local_token(secret, namespace, email, Duration::from_secs(ttl))
        .map_err(|error| CliError::new(Outcome::Failed, error.to_string()))
}

/// Shows the API of this machine a new token once, so that the owner of its namespace is known there before anybody asks for
/// something of theirs. Best effort: where it does not run, that happens with the first use. Never asks another machine or
/// another user's program. Returns what a running API has against the token.
pub(crate) async fn introduce(base: &str, token: &Secret) -> Option<String> {
    if !is_loopback(base) || check_listener(base).is_err() {
        return None;
    }
    let api = OwnerApi::new(base, token).ok()?;
    match tokio::time::timeout(INTRODUCTION, api.introduce()).await {
        Ok(Err(ApiError::Refused(refusal))) => Some(refusal.message),
        Ok(Ok(()) | Err(_)) | Err(_) => None,
    }
}

/// The namespace that is meant: the settings', else the token's, else the only identity there is, else where there is none
/// `default`.
fn namespace(
    config: &Config,
    globals: &Globals,
    said: Option<&Said>,
    default: Option<&str>,
) -> Result<Namespace, CliError> {
    if let Some(namespace) = &config.namespace {
        return Ok(namespace.clone());
    }
    if let Some(namespace) = said.and_then(|said| Namespace::parse(&said.namespace).ok()) {
        return Ok(namespace);
    }
    let homes = [Some(config.paths.home.clone()), IdentityPlace::find(globals).ok().map(|place| place.home)];
    let mut several = false;
    for home in homes.into_iter().flatten() {
        match Home::new(home).namespace(None, |_| None) {
            Ok(only) => return Ok(only),
            Err(error) => several |= !matches!(error, IdentityError::None { .. }),
        }
    }
    default.filter(|_| !several).and_then(|default| Namespace::parse(default).ok()).ok_or_else(|| {
        CliError::new(Outcome::Config, "no namespace is named").hint("give --namespace NAME, or set SIGILUM_NAMESPACE")
    })
}

/// That no other user of this machine listens where the API should: while it does not run, anybody could, and would
/// be handed what makes him the owner. The user whose API it is may, and root.
fn check_listener(base: &str) -> Result<(), CliError> {
    check_listener_of(base, &api_settings::data_dir(&env::lookup), process::tells_listeners())
}

/// The same for the API of a data folder. `told`: whether the system tells who listens; where it does not, the API must be
/// known to run.
fn check_listener_of(base: &str, folder: &Path, told: bool) -> Result<(), CliError> {
    if !told {
        if own_listener::api_runs(folder) {
            return Ok(());
        }
        let message =
            format!("no API of {} runs that could listen at {base}: the owner's token stays here", folder.display());
        return Err(CliError::new(Outcome::Unreachable, message).hint(
            "start it with `sigilum up` or `sigilum api`; to another API hand a token over with --owner-token-stdin",
        ));
    }
    let owner = std::fs::metadata(jwt_secret_file()).ok().map(|file| file.uid());
    let port = Url::parse(base).ok().and_then(|url| url.port_or_known_default());
    match port.and_then(|port| process::foreign_listener(port, owner)) {
        None => Ok(()),
        Some(user) => {
            let message =
                format!("another user of this machine (id {user}) listens at {base}: the owner's token stays here");
            Err(CliError::new(Outcome::Unauthorized, message)
                .hint("end that program; if it is the right API, hand a token over with --owner-token-stdin"))
        }
    }
}

/// Whether the API is on this machine.
pub(crate) fn is_loopback(address: &str) -> bool {
    let Some(url) = Url::parse(address).ok() else { return false };
    match url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']') {
        "localhost" => true,
        host => host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

/// An error of the API with its exit code and what to do next.
pub(crate) fn failed(error: &ApiError) -> CliError {
    let shown = |outcome| CliError::new(outcome, error.to_string());
    match error {
        ApiError::Address { .. } => shown(Outcome::Config).hint("give --api-url, or set SIGILUM_API_URL"),
        ApiError::Client(_) | ApiError::Token => shown(Outcome::Failed),
        ApiError::Unreachable { base, .. } if is_loopback(base) => shown(Outcome::Unreachable)
            .hint("start the local API with `sigilum up` or `sigilum api`, or name another with --api-url"),
        ApiError::Unreachable { .. } => shown(Outcome::Unreachable).hint("check the network and --api-url"),
        ApiError::Certificate { .. } => {
            shown(Outcome::Unreachable).hint("the certificate of that API is not believed by this machine")
        }
        ApiError::Redirect { .. } | ApiError::Unexpected { .. } => {
            shown(Outcome::Failed).hint("is that the address of a Sigilum API? see --api-url and SIGILUM_API_URL")
        }
        ApiError::Refused(refusal) => refused(&shown, refusal.status, &refusal.code),
    }
}

fn refused(shown: &dyn Fn(Outcome) -> CliError, status: u16, code: &str) -> CliError {
    match (status, code) {
        (_, "SERVICE_LIMIT_REACHED") => shown(Outcome::Failed)
            .hint("remove one that is not needed any more: sigilum service rm SLUG; MAX_SERVICES_PER_ACCOUNT of a local API is the limit"),
        (_, "AGENT_LIMIT_REACHED") => {
            shown(Outcome::Failed).hint("revoke an agent of this service first: sigilum claim list --status approved")
        }
        (_, "KEY_LIMIT_REACHED") => {
            shown(Outcome::Failed).hint("revoke one first: sigilum service key list, sigilum service key revoke")
        }
        (401, _) => shown(Outcome::Unauthorized).hint("sign in again: sigilum auth login"),
        (403, _) => shown(Outcome::Unauthorized)
            .hint("the token is for another owner; see --namespace and `sigilum auth login`"),
        (429, _) => shown(Outcome::Failed).hint("wait a moment and try again"),
        (500.., _) => shown(Outcome::Failed).hint("the API has a problem of its own; its log says more"),
        _ => shown(Outcome::Failed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;
    use crate::sys::files::FileLock;

    #[test]
    fn where_nobody_tells_who_listens_only_an_api_that_runs_is_handed_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let check = |told| check_listener_of("http://127.0.0.1:1", folder.path(), told);
        assert!(check(true).is_ok(), "nobody listens there");
        assert_eq!(check(false).unwrap_err().outcome, Outcome::Unreachable);
        let held = FileLock::take(&folder.path().join("api.lock"), &format!("pid {} (api)", std::process::id()));
        assert!(held.is_ok() && check(false).is_ok());
    }

    #[test]
    fn this_machine_is_told_from_others() {
        for here in ["http://127.0.0.1:8787", "http://localhost", "http://[::1]:1/x", "http://127.9.9.9"] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in ["https://api.sigilum.id", "http://localhost.evil.example", "http://10.0.0.1", "x"] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}
