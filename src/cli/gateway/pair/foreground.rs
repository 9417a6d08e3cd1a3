//! The bridge here: what happens is said in lines that scripts look for.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use crate::app::pair;
use crate::app::pair::End;
use crate::app::pair::Notice;
use crate::app::pair::PairConfig;
use crate::app::pair::PairError;
use crate::app::pair::PreflightError;
use crate::app::pair::Progress;
use crate::app::pair::Sealing;
use crate::app::pair::SecretKeeper;
use crate::app::pair::Side;
use crate::app::pair::Terminal;
use crate::app::pair::TokenSource;
use crate::cli::gateway::pair::lock::SessionLock;
use crate::cli::gateway::pair::note;
use crate::cli::gateway::pair::note::About;
use crate::cli::gateway::pair::note::Note;
use crate::cli::gateway::pair::session;
use crate::cli::gateway::pair::session::Pairing;
use crate::cli::gateway::role;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::printer::tame;
use crate::config::Config;
use crate::domain::log_line::LogStream;
use crate::domain::log_redaction::LogRedactor;
use crate::domain::redact::Redactor;
use crate::domain::secret::Secret;
use crate::sys::clock::Clock as _;
use crate::sys::clock::Stopwatch;
use crate::sys::clock::SystemClock;
use crate::sys::files;
use crate::sys::signal::StopSignals;
use crate::sys::tasks::stop_pair;
use crate::telemetry::log_file::LogFile;
use crate::telemetry::log_reader::LogPlaces;

/// What stands before every line.
const TAG: &str = "[sigilum]";
/// Says on standard error, and so in logs, that the session is over.
pub(super) const MARKER: &str = "PAIR_SESSION_TERMINAL";
/// Says that the bridge is connected for the first time.
pub(super) const READY: &str = "success: pairing bridge ready";

/// Where a bridge in the background writes.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// What it says.
    pub(super) log: Option<PathBuf>,
    /// How it stands, where the gateway is on another machine.
    pub(super) state: Option<PathBuf>,
}

/// Runs until told to stop, or until the session is over.
pub(super) async fn run(
    pairing: Pairing,
    config: &Config,
    places: Places,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    // Code and admin token are in this process.
    role::harden()?;
    let mut signals =
        StopSignals::install().map_err(|error| CliError::new(Outcome::Failed, format!("signals: {error}")))?;
    let voice = &mut Voice::new(printer, config, &pairing, places.log.as_deref());
    warn(&pairing, config, voice)?;
    let lock = SessionLock::take(&pairing, voice.printer).await?;
    let names = format!(
        "session={}, namespace={}, gateway_admin={}",
        pairing.session.as_str(),
        pairing.namespace,
        shown(&pairing.admin_url)
    );
    let at = format!("session={}, api={}", pairing.session.as_str(), shown(&pairing.api_url));
    let file = pairing.file.clone();
    let (stop, stopped) = stop_pair();
    let told = async {
        loop {
            signals.next().await;
            stop.stop();
        }
    };
    let about = About {
        session_id: pairing.session.as_str().to_owned(),
        api_url: pairing.api_url.as_str().trim_end_matches('/').to_owned(),
        log: places.log,
    };
    let mut note = Note::begin(note::place(&config.paths.run_dir, places.state), about);
    let mut say = |progress: Progress| {
        note.hear(&progress);
        show(&progress, &names, &at, voice);
    };
    let ended = tokio::select! {
        ended = pair::run(pair_config(pairing, config), stopped, &mut say) => ended,
        // Never ends.
        () = told => return Err(CliError::new(Outcome::Failed, "signals are not heard")),
    };
    let end = match ended {
        Ok(end) => end,
        Err(error) => {
            note.failed(error.to_string());
            return Ok(refused(&error, voice));
        }
    };
    let Some(why) = why(end) else {
        note.stopped();
        return Ok(over(end, voice));
    };
    // The session is none of this bridge any more, and neither is its code.
    if let Some(file) = file
        && let Err(error) = session::forget(&file)
    {
        voice.note(&format!("{}: {error}", file.display()));
    }
    note.ended(why, matches!(end, End::Terminal(_) | End::Refused(_)));
    match end {
        // Its id never comes again.
        End::Terminal(Terminal::NotFound | Terminal::Expired | Terminal::Ended) => lock.retire(),
        End::Terminal(Terminal::Namespace | Terminal::Code) | End::Refused(_) | End::Replaced | End::Stopped => {}
    }
    Ok(over(end, voice))
}

/// What is said, to whoever reads along and in the log of the bridge.
struct Voice<'a> {
    printer: &'a mut Printer,
    log: Option<LogFile>,
    /// The file that this process prints to, where it is one: written to under a bound, which what is printed has not.
    printed: Option<LogFile>,
    redactor: LogRedactor,
    session: String,
}

impl<'a> Voice<'a> {
    /// The log is that of the data folder; without one the bridge works as well.
    fn new(printer: &'a mut Printer, config: &Config, pairing: &Pairing, printed: Option<&Path>) -> Self {
        let places = LogPlaces { data_dir: config.paths.data_dir.clone(), run_dir: config.paths.run_dir.clone() };
        let path = places.file(LogStream::Pair);
        let log = [&config.paths.data_dir, files::folder_of(&path)]
            .into_iter()
            .try_for_each(files::own_folder)
            .and_then(|()| LogFile::open(&path, config.logs));
        let log = match log {
            Ok(log) => Some(log),
            Err(error) => {
                printer.warn(&format!("{}: {error}; what the bridge says is not kept", path.display()));
                None
            }
        };
        // One that cannot be opened is printed to without a bound.
        let printed = printed.and_then(|path| LogFile::open(path, config.logs).ok());
        Self { log, printed, ..Self::unkept(printer, pairing) }
    }

    /// What is said is not kept.
    fn unkept(printer: &'a mut Printer, pairing: &Pairing) -> Self {
        let session = pairing.session.as_str().to_owned();
        let redactor =
            LogRedactor::knowing(Redactor::new(std::iter::once(&pairing.code).chain(pairing.reconnect.as_ref())));
        Self { printer, log: None, printed: None, redactor, session }
    }

    fn line(&mut self, text: &str) {
        self.keep("INFO", text);
        let line = format!("{TAG} {}", tame(text));
        if !self.print(&line) {
            // That nobody reads along is no reason to end.
            let _ = self.printer.line(&line);
        }
    }

    fn note(&mut self, text: &str) {
        self.keep("WARN", text);
        let line = format!("{TAG} {}", tame(text));
        if !self.print(&line) {
            self.printer.note(&line);
        }
    }

    fn warn(&mut self, text: &str) {
        self.keep("WARN", text);
        if !self.print(&format!("warning: {}", tame(text))) {
            self.printer.warn(text);
        }
    }

    /// Writes a line where this process prints, if that is a file.
    fn print(&self, line: &str) -> bool {
        self.printed.as_ref().is_some_and(|file| file.append(line.as_bytes()).is_ok())
    }

    fn keep(&self, level: &str, text: &str) {
        let Some(log) = &self.log else { return };
        let mut line = Map::new();
        let timestamp = SystemClock.now().wall.rfc3339();
        for (name, value) in
            [("timestamp", timestamp.as_str()), ("level", level), ("message", text), ("session", self.session.as_str())]
        {
            line.insert(name.to_owned(), Value::String(value.to_owned()));
        }
        self.redactor.clean(&mut line);
        // A full disk does not end the bridge.
        let _ = log.append(Value::Object(line).to_string().as_bytes());
    }
}

/// What the gateway at this address says of its key, to the admin token of these settings.
pub(in crate::cli::gateway) async fn sealing(admin: &reqwest::Url, config: &Config) -> Result<Sealing, CliError> {
    pair::sealing(admin, &gateway_api::trust(&config.admin.trust), token_source(admin, config))
        .await
        .map_err(|error| CliError::new(Outcome::Failed, error.to_string()))
}

/// Whether the API of a session is there and is one; where it is not, that was said.
pub(in crate::cli::gateway) async fn check_api(pairing: &Pairing, printer: &mut Printer) -> Outcome {
    match pair::check_api(&pairing.api_url, pairing.pace).await {
        Ok(()) => Outcome::Done,
        Err(error) => refused(&PairError::Preflight(error), &mut Voice::unkept(printer, pairing)),
    }
}

/// How long it is believed who listens at the gateway's address: finding out reads what every process holds.
const LISTENER_HOLDS: Duration = Duration::from_secs(1);

/// The token for each request, and that it may go where it goes: a bridge outlives the gateway.
fn token_source(admin: &reqwest::Url, config: &Config) -> TokenSource {
    let credential = gateway_api::credential(config);
    let (data, run) = (config.paths.data_dir.clone(), config.paths.run_dir.clone());
    // The bridge has its address from the same settings, as a parsed one.
    let unproven = gateway_api::is_unproven(config, &credential, &config.admin_url).then(|| admin.to_string());
    let looked = Mutex::new(None::<Stopwatch>);
    Arc::new(move || {
        let token = credential.read().map_err(|error| error.message)?;
        if let (Some(_), Some(url)) = (&token, &unproven) {
            let mut looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_none_or(|at| at.elapsed() >= LISTENER_HOLDS) {
                *looked = None;
                gateway_api::check_listener(url, &data, &run).map_err(|error| error.message)?;
                *looked = Some(Stopwatch::start());
            }
        }
        Ok(token)
    })
}

fn pair_config(pairing: Pairing, config: &Config) -> PairConfig {
    // Where the code is kept; one that has come from elsewhere is in this process alone, and the secret with it.
    let keep_reconnect = pairing
        .file
        .map(|file| Arc::new(move |secret: &Secret| session::keep_reconnect(&file, secret)) as SecretKeeper);
    PairConfig {
        session: pairing.session,
        namespace: pairing.namespace,
        code: pairing.code,
        reconnect: pairing.reconnect,
        keep_reconnect,
        api_url: pairing.api_url,
        admin_token: token_source(&pairing.admin_url, config),
        admin_url: pairing.admin_url,
        admin_trust: gateway_api::trust(&config.admin.trust),
        pace: pairing.pace,
    }
}

/// What a person should know before anything is sent.
fn warn(pairing: &Pairing, config: &Config, voice: &mut Voice<'_>) -> Result<(), CliError> {
    let in_clear = |url: &reqwest::Url| url.scheme() == "http" && !owner::is_loopback(url.as_str());
    if in_clear(&pairing.api_url) {
        voice.warn(&format!("the pair code and what is relayed go to {} in clear; use https", pairing.api_url));
    }
    gateway_api::check_guarded(config)?;
    if in_clear(&pairing.admin_url) {
        voice.warn(&format!("the admin token goes to {} in clear; use https", pairing.admin_url));
    }
    if gateway_api::own_token(config)?.is_none() {
        voice.warn(&format!(
            "there is no admin token in {}: the gateway may refuse what is relayed; see --gateway-data-dir",
            config.paths.data_dir.display()
        ));
    }
    Ok(())
}

fn shown(url: &reqwest::Url) -> &str {
    url.as_str().trim_end_matches('/')
}

fn show(progress: &Progress, names: &str, at: &str, voice: &mut Voice<'_>) {
    match progress {
        Progress::Preflight(sealing) => {
            voice.line("preflight: ok");
            match sealing {
                Sealing::Fingerprint(fingerprint) => voice.line(&format!("sealing key fingerprint: {fingerprint}")),
                Sealing::Absent => {}
                Sealing::Refused => voice.note(
                    "the gateway does not take the admin token of this machine: what is relayed will be refused. \
                     See --gateway-data-dir and GATEWAY_ADMIN_TOKEN",
                ),
                Sealing::Unknown(why) => {
                    voice.note(&format!("the gateway was not asked for its key for sealed secrets: {why}"));
                }
            }
        }
        Progress::SecretNotKept(why) => voice.note(&format!(
            "what this bridge was given to come back with is not kept: {why}; started again it goes by the code"
        )),
        Progress::Session(Notice::Open { first }) => {
            voice.line(&format!("websocket connected ({at})"));
            if *first {
                voice.line(&format!("{READY} ({names})"));
            }
        }
        Progress::Session(Notice::Closed { code, reason }) => {
            voice.line(&format!("websocket closed ({code}) {reason}"))
        }
        Progress::Session(Notice::Trouble(trouble, pause)) => {
            voice.note(&format!("{trouble}; trying again, next in {} ms", pause.as_millis()));
        }
        Progress::Session(Notice::CodeInAddress) => {
            voice.note("this API takes the pair code in the address alone; it is sent there");
        }
    }
}

/// What helps where a session is over.
const ANOTHER: &str = "Start another pairing in the dashboard and run its command";

/// What helps after a refusal.
const fn advice(terminal: Terminal) -> &'static str {
    match terminal {
        Terminal::NotFound | Terminal::Ended | Terminal::Expired => ANOTHER,
        Terminal::Namespace => "Give the namespace that the dashboard shows (--namespace)",
        Terminal::Code => {
            "The same command with the right code works; only after five wrong ones start another pairing in the dashboard"
        }
    }
}

/// Why a bridge has ended for good, and what helps; `None` where it was told to.
fn why(end: End) -> Option<String> {
    let (what, advice) = match end {
        End::Stopped => return None,
        End::Terminal(terminal) => (
            match terminal {
                Terminal::NotFound => "its pairing session is not known any more".to_owned(),
                Terminal::Ended => "its owner has ended the pairing".to_owned(),
                Terminal::Expired => "its pairing session has expired".to_owned(),
                Terminal::Namespace => "its pairing session is another namespace's".to_owned(),
                Terminal::Code => "its pair code was refused".to_owned(),
            },
            advice(terminal),
        ),
        End::Refused(status) => (format!("its pairing session was refused for good (HTTP {status})"), ANOTHER),
        End::Replaced => ("another bridge has taken its session over".to_owned(), ANOTHER),
    };
    Some(format!("{what}. {advice}"))
}

/// The end in words and as an exit code.
fn over(end: End, voice: &mut Voice<'_>) -> Outcome {
    match end {
        End::Stopped => {
            voice.line("gateway pairing bridge stopped");
            Outcome::Done
        }
        End::Terminal(terminal) => {
            let (status, text) = terminal.wire();
            voice.note(&format!("{MARKER}: {text} (HTTP {status}). {}", advice(terminal)));
            Outcome::Over
        }
        End::Refused(status) => {
            voice.note(&format!(
                "{MARKER}: the pairing route answers HTTP {status}, and API and gateway are well. {ANOTHER}"
            ));
            Outcome::Over
        }
        End::Replaced => {
            voice.note("another bridge has taken this session over; this one ends and does not take it back");
            Outcome::Config
        }
    }
}

/// Why it did not begin.
fn refused(error: &PairError, voice: &mut Voice<'_>) -> Outcome {
    voice.note(&format!("preflight: {error}"));
    let hint = match error {
        PairError::Preflight(PreflightError::Page { side: Side::Api, .. }) => {
            Some("that looks like the address of a dashboard; --api-url names the API, e.g. https://api.sigilum.id")
        }
        PairError::Preflight(PreflightError::NoRoute { .. }) => Some("is that a Sigilum API? see --api-url"),
        PairError::Preflight(
            PreflightError::Unreachable { side, .. }
            | PreflightError::Status { side, .. }
            | PreflightError::Page { side, .. },
        ) => Some(match side {
            Side::Api => "see --api-url and SIGILUM_API_URL",
            Side::Gateway => "start the gateway with `sigilum gateway start`, or see --gateway-admin-url",
        }),
        PairError::Preflight(PreflightError::Client(_))
        | PairError::Http(_)
        | PairError::Tls(_)
        | PairError::SessionId => None,
    };
    if let Some(hint) = hint {
        voice.note(&format!("hint: {hint}"));
    }
    Outcome::Failed
}
