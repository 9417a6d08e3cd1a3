//! Which session a bridge is for, with which code, and how fast it goes: options, environment, files.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::Url;
use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::app::pair::Pace;
use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::Mode;
use crate::cli::printer::Printer;
use crate::cli::secret_source::Place;
use crate::config::Config;
use crate::domain::ids::Namespace;
use crate::domain::relay::RelaySession;
use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::files;
use crate::sys::supervision::PAIR_CODE_VARIABLE;
use crate::sys::supervision::PAIR_SESSION_VARIABLE;
use crate::wire::pairing::reconnect_secret;

/// The code where it is missing.
const CODE_PLACES: &str = "the pair code (SIGILUM_PAIR_CODE or --pair-code-file)";
/// The session's id where it is missing.
const SESSION_PLACES: &str = "the session id (SIGILUM_PAIR_SESSION_ID, --session-id, or ID:CODE in place of the code)";
/// Stands between id and code where one text is both; in neither.
const BETWEEN: char = ':';
/// Says to a bridge that nobody named the gateway's address.
const OWN_GATEWAY: &str = "--own-gateway";
/// Longest pair code, in bytes; control planes give 8 letters.
const MAX_CODE: usize = 64;
/// Largest file of a session, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// Longest time that is taken, in milliseconds: a day.
const MAX_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// Options that say which session is meant.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli::gateway) struct SessionArgs {
    /// Id of the pairing session [env: SIGILUM_PAIR_SESSION_ID]
    #[arg(long, value_name = "ID")]
    session_id: Option<String>,
    /// The pair code; visible to every process of this machine
    #[arg(long, value_name = "CODE", conflicts_with = "pair_code_file")]
    pair_code: Option<String>,
    /// Read the pair code, or ID:CODE, from a file, or from standard input (-)
    #[arg(long, value_name = "FILE")]
    pair_code_file: Option<PathBuf>,
    /// Address of the Sigilum API
    #[arg(long, value_name = "URL")]
    pub(in crate::cli::gateway) api_url: Option<String>,
    /// Shortest pause between two attempts to connect, in milliseconds [default: 2000]
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    reconnect_ms: Option<String>,
    /// How long an attempt may take, in milliseconds [default: 5000]
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    connect_timeout_ms: Option<String>,
    /// Between two signs of life, in milliseconds [default: 30000; below 1000: 25000]
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    heartbeat_ms: Option<String>,
    /// How long the gateway may take to answer, in milliseconds [default: 10000]
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    relay_timeout_ms: Option<String>,
    /// Read session, code and addresses from a file that `--daemon` wrote, or from standard input (-) as it does
    #[arg(long, hide = true, value_name = "FILE", conflicts_with_all = ["session_id", "pair_code", "pair_code_file", "api_url"])]
    session_file: Option<PathBuf>,
}

/// A session a bridge can be started for.
#[derive(Debug)]
pub(in crate::cli::gateway) struct Pairing {
    /// The session's id.
    pub(super) session: RelaySession,
    /// Whose gateway this is.
    pub(super) namespace: Namespace,
    /// The pair code.
    pub(super) code: Secret,
    /// What an earlier bridge of the file was given to come back with.
    pub(super) reconnect: Option<Secret>,
    /// The control plane.
    pub(super) api_url: Url,
    /// The gateway.
    pub(super) admin_url: Url,
    /// Whether a person named it; else it was computed, and the token goes to the gateway of these folders alone.
    pub(super) admin_url_set: bool,
    /// How fast things go.
    pub(super) pace: Pace,
    /// Where identities and settings are, and where the admin token is: from the root on.
    pub(super) folders: [PathBuf; 2],
    /// The file it came from, which is the bridge's: it goes when the session is over.
    pub(super) file: Option<PathBuf>,
}

/// A session in its file. Mode 0600: the code and the reconnect secret are in it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept<'a> {
    session_id: Cow<'a, str>,
    namespace: Cow<'a, str>,
    api_url: Cow<'a, str>,
    pair_code: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reconnect_secret: Option<Cow<'a, str>>,
}

impl SessionArgs {
    /// Everything a bridge needs, or what is missing.
    pub(in crate::cli::gateway) fn resolve(
        &self,
        config: &Config,
        globals: &Globals,
        printer: &mut Printer,
    ) -> Result<Pairing, CliError> {
        let admin_url = url("the gateway's admin API", &config.admin_url)?;
        let pace = self.pace(printer)?;
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let folders = [absolute(&config.paths.home), absolute(&config.paths.data_dir)];
        let of_gateway = OfGateway { admin_url, admin_url_set: config.admin_url_set, pace, folders };
        match self.session_file.as_deref() {
            Some(file) if file == Path::new("-") => {
                let text = owner::read_stdin("the pairing session", MAX_FILE, printer)?;
                return understand(&text, "standard input", None, of_gateway);
            }
            Some(file) => return read(file, of_gateway),
            None => {}
        }
        let given = self.session().map(|id| parse_session(&id)).transpose()?;
        let namespace = config.namespace.clone().ok_or_else(|| missing("--namespace"))?;
        let api_url = url("the Sigilum API", &self.api_address(config, globals))?;
        let (named, code) = parts(&self.code(printer)?.ok_or_else(|| missing(CODE_PLACES))?)?;
        let session = match (given, named) {
            (Some(given), Some(named)) if given != named => {
                return Err(CliError::new(
                    Outcome::Usage,
                    "the session id given is not the one that stands with the code",
                ));
            }
            (given, named) => given.or(named).ok_or_else(|| missing(SESSION_PLACES))?,
        };
        let OfGateway { admin_url, admin_url_set, pace, folders } = of_gateway;
        Ok(Pairing {
            session,
            namespace,
            code,
            reconnect: None,
            api_url,
            admin_url,
            admin_url_set,
            pace,
            folders,
            file: None,
        })
    }

    /// Option, environment.
    fn session(&self) -> Option<String> {
        let given = self.session_id.clone().filter(|id| !id.trim().is_empty());
        let given = given.or_else(|| env::lookup(PAIR_SESSION_VARIABLE));
        given.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty())
    }

    /// Option, environment, settings, the local one.
    fn api_address(&self, config: &Config, globals: &Globals) -> String {
        let given = self.api_url.as_deref().map(str::trim).filter(|given| !given.is_empty());
        match given {
            Some(given) => given.to_owned(),
            None if config.api_url_set && globals.api_port.is_none() => config.api_url.clone(),
            None => Mode::OssLocal.address(globals),
        }
    }

    fn code(&self, printer: &mut Printer) -> Result<Option<Secret>, CliError> {
        if let Some(code) = &self.pair_code {
            printer.warn(
                "every process of this machine can read arguments, the pair code among them; \
                 use SIGILUM_PAIR_CODE or --pair-code-file",
            );
            return Ok(Some(Secret::new(code.trim().to_owned())));
        }
        let place = match self.pair_code_file.as_deref() {
            Some(file) if file == Path::new("-") => Place::Stdin,
            Some(file) => Place::File(file),
            None if env::lookup(PAIR_CODE_VARIABLE).is_some() => Place::Variable(PAIR_CODE_VARIABLE),
            None => return Ok(None),
        };
        place.read("pair code", printer).map(Some)
    }

    fn pace(&self, printer: &mut Printer) -> Result<Pace, CliError> {
        // What is no number there has always meant the value that is used instead.
        let heartbeat = self.heartbeat_ms.as_ref().map(|text| match text.trim().parse::<f64>() {
            Ok(number) if !number.is_nan() => text.clone(),
            Ok(_) | Err(_) => "0".to_owned(),
        });
        let mut of = |name, given: &Option<String>, default, lowest, instead| {
            time(name, given.as_deref(), default, lowest, instead, printer)
        };
        Ok(Pace {
            reconnect: of("--reconnect-ms", &self.reconnect_ms, 2000, 100, 2000)?,
            connect_timeout: of("--connect-timeout-ms", &self.connect_timeout_ms, 5000, 1000, 5000)?,
            heartbeat: of("--heartbeat-ms", &heartbeat, 30_000, 1000, 25_000)?,
            relay_timeout: of("--relay-timeout-ms", &self.relay_timeout_ms, 10_000, 1000, 10_000)?,
        })
    }
}

fn missing(what: &str) -> CliError {
    CliError::new(Outcome::Usage, format!("{what} is missing")).hint("the dashboard shows the whole command")
}

/// A time in milliseconds; below its lowest value `instead` is used, and above a day a day, and that is said.
fn time(
    name: &str,
    given: Option<&str>,
    default: u64,
    lowest: u64,
    instead: u64,
    printer: &mut Printer,
) -> Result<Duration, CliError> {
    let Some(text) = given.map(str::trim) else { return Ok(Duration::from_millis(default)) };
    // Negative ones are numbers below the lowest.
    let number = match text.strip_prefix('-').unwrap_or(text).parse::<u64>() {
        Ok(_) if text.starts_with('-') => 0,
        Ok(number) if number <= MAX_MILLIS => number,
        Ok(_) => {
            printer.warn(&format!("{name} must not be above {MAX_MILLIS}; it is {MAX_MILLIS} now"));
            return Ok(Duration::from_millis(MAX_MILLIS));
        }
        Err(_) => return Err(CliError::new(Outcome::Usage, format!("{name} must be a number of milliseconds"))),
    };
    if number < lowest {
        printer.warn(&format!("{name} must not be below {lowest}; it is {instead} now"));
        return Ok(Duration::from_millis(instead));
    }
    Ok(Duration::from_millis(number))
}

fn parse_session(text: &str) -> Result<RelaySession, CliError> {
    RelaySession::parse(text).ok_or_else(|| {
        CliError::new(Outcome::Usage, "the session id is none: 1 to 64 letters, digits, '.', '_' and '-'")
    })
}

/// `CODE`, or `ID:CODE`.
fn parts(text: &Secret) -> Result<(Option<RelaySession>, Secret), CliError> {
    let (session, code) = match text.expose().split_once(BETWEEN) {
        Some((session, code)) => (Some(parse_session(session.trim())?), code.trim()),
        None => (None, text.expose()),
    };
    let code = Secret::new(code.to_owned());
    check_code(&code)?;
    Ok((session, code))
}

/// It must fit into a header. What it is instead is not repeated.
fn check_code(code: &Secret) -> Result<(), CliError> {
    let text = code.expose();
    if text.chars().all(|letter| letter.is_ascii_graphic() && letter != BETWEEN) && (1..=MAX_CODE).contains(&text.len())
    {
        return Ok(());
    }
    Err(CliError::new(
        Outcome::Usage,
        "the pair code is none: visible letters without blanks, as the dashboard shows it",
    ))
}

fn url(what: &str, text: &str) -> Result<Url, CliError> {
    let wrong = |why: &str| CliError::new(Outcome::Usage, format!("{text:?} is no address of {what}: {why}"));
    let url = Url::parse(text).map_err(|_| wrong("it is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("it must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        // A password must not be repeated.
        let message = format!("an address of {what} may hold neither user nor password nor query");
        return Err(CliError::new(Outcome::Usage, message));
    }
    Ok(url)
}

/// Keeps a session for a bridge that is started without anything else, mode 0600.
pub(super) fn keep(pairing: &Pairing, file: &Path) -> io::Result<()> {
    files::write_private(file, &written(pairing)?)
}

/// A session as a bridge reads it from its file or its standard input.
pub(super) fn written(pairing: &Pairing) -> io::Result<Zeroizing<Vec<u8>>> {
    let kept = Kept {
        session_id: pairing.session.as_str().into(),
        namespace: pairing.namespace.as_str().into(),
        api_url: pairing.api_url.as_str().into(),
        pair_code: pairing.code.expose().into(),
        reconnect_secret: pairing.reconnect.as_ref().map(|secret| secret.expose().into()),
    };
    Ok(Zeroizing::new(serde_json::to_vec(&kept)?))
}

/// Writes the reconnect secret to the rest of a session that is kept.
pub(super) fn keep_reconnect(file: &Path, secret: &Secret) -> io::Result<()> {
    let text = Zeroizing::new(files::read_text(file, MAX_FILE)?);
    // The parser's own message could quote a value.
    let kept = serde_json::from_str::<Kept<'_>>(&text).map_err(|_| io::Error::other("it holds no pairing session"))?;
    let kept = Kept { reconnect_secret: Some(secret.expose().into()), ..kept };
    files::write_private(file, &Zeroizing::new(serde_json::to_vec(&kept)?))
}

/// Removes it: the code in it is good for nothing any more.
pub(super) fn forget(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What concerns the gateway, wherever the session comes from.
struct OfGateway {
    admin_url: Url,
    admin_url_set: bool,
    pace: Pace,
    folders: [PathBuf; 2],
}

fn read(file: &Path, of_gateway: OfGateway) -> Result<Pairing, CliError> {
    let shown = file.display();
    let wrong = |why: String| CliError::new(Outcome::Config, format!("{shown}: {why}"));
    let open = files::is_readable_by_others(file).map_err(|error| wrong(error.to_string()))?;
    if open {
        return Err(wrong("others can read it, and the pair code is in it".to_owned())
            .hint(format!("chmod 600 {shown}, and pair again")));
    }
    let text = files::read_text(file, MAX_FILE).map(Zeroizing::new).map_err(|error| wrong(error.to_string()))?;
    understand(&text, &shown.to_string(), Some(file), of_gateway)
}

/// A session as it was [`written`].
fn understand(text: &str, place: &str, file: Option<&Path>, of_gateway: OfGateway) -> Result<Pairing, CliError> {
    let wrong = |why: String| CliError::new(Outcome::Config, format!("{place}: {why}"));
    // The parser's own message could quote a value.
    let kept: Kept<'_> = serde_json::from_str(text).map_err(|_| wrong("it holds no pairing session".to_owned()))?;
    let namespace = Namespace::parse(&kept.namespace).map_err(|invalid| wrong(format!("the namespace {invalid}")))?;
    let code = Secret::new(kept.pair_code.into_owned());
    check_code(&code)?;
    // One that has another form would be none to the API either.
    let reconnect = kept.reconnect_secret.map(|secret| Zeroizing::new(secret.into_owned()));
    let reconnect = reconnect.and_then(|secret| reconnect_secret(secret.as_bytes()));
    let OfGateway { admin_url, admin_url_set, pace, folders } = of_gateway;
    Ok(Pairing {
        session: parse_session(&kept.session_id)?,
        namespace,
        code,
        reconnect,
        api_url: url("the Sigilum API", &kept.api_url)?,
        admin_url,
        admin_url_set,
        pace,
        folders,
        file: file.map(Path::to_owned),
    })
}

impl Pairing {
    /// What a bridge for it is started with, without session and code.
    pub(super) fn arguments(&self) -> Vec<String> {
        let [home, data] = &self.folders;
        let mut arguments = vec!["gateway".to_owned(), "pair".to_owned(), "--foreground".to_owned()];
        arguments.extend(["--gateway-admin-url".to_owned(), self.admin_url.to_string()]);
        if !self.admin_url_set {
            arguments.push(OWN_GATEWAY.to_owned());
        }
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--sigilum-home", home.display().to_string());
        add("--gateway-data-dir", data.display().to_string());
        for (name, time) in [
            ("--reconnect-ms", self.pace.reconnect),
            ("--connect-timeout-ms", self.pace.connect_timeout),
            ("--heartbeat-ms", self.pace.heartbeat),
            ("--relay-timeout-ms", self.pace.relay_timeout),
        ] {
            add(name, time.as_millis().to_string());
        }
        arguments
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
