//! The bridge here: what happens is said in lines that scripts look for.

use std::sync::Arc;

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
use crate::cli::gateway::pair::lock::SessionLock;
use crate::cli::gateway::pair::note::Note;
use crate::cli::gateway::pair::session;
use crate::cli::gateway::pair::session::Pairing;
use crate::cli::gateway::role;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::config::Config;
use crate::domain::secret::Secret;
use crate::sys::signal::StopSignals;
use crate::sys::tasks::stop_pair;

/// What stands before every line.
const TAG: &str = "[sigilum]";
/// Says on standard error, and so in logs, that the session is over.
pub(super) const MARKER: &str = "PAIR_SESSION_TERMINAL";
/// Says that the bridge is connected for the first time.
pub(super) const READY: &str = "success: pairing bridge ready";

/// Runs until told to stop, or until the session is over.
pub(super) async fn run(pairing: Pairing, config: &Config, printer: &mut Printer) -> Result<Outcome, CliError> {
    // Code and admin token are in this process.
    role::harden()?;
    let mut signals =
        StopSignals::install().map_err(|error| CliError::new(Outcome::Failed, format!("signals: {error}")))?;
    warn(&pairing, config, printer)?;
    let lock = SessionLock::take(&pairing, printer).await?;
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
    let mut note = Note::begin(&config.paths.run_dir);
    let mut say = |progress: Progress| {
        note.hear(&progress);
        show(&progress, &names, &at, printer);
    };
    let ended = tokio::select! {
        ended = pair::run(pair_config(pairing, config), stopped, &mut say) => ended,
        // Never ends.
        () = told => return Err(CliError::new(Outcome::Failed, "signals are not heard")),
    };
    let end = match ended {
        Ok(end) => end,
        Err(error) => {
            note.forget();
            return Ok(refused(&error, printer));
        }
    };
    match end {
        End::Terminal(_) => {
            note.terminal();
            if let Some(file) = file
                && let Err(error) = session::forget(&file)
            {
                printer.note(&format!("{TAG} {}: {error}", file.display()));
            }
            lock.retire();
        }
        End::Stopped | End::Replaced => note.forget(),
    }
    Ok(over(end, printer))
}

fn pair_config(pairing: Pairing, config: &Config) -> PairConfig {
    let given = config.admin.token.as_ref().map(Secret::duplicate);
    let file = config.paths.data_dir.join("admin-token");
    let token = move || match &given {
        Some(token) => Ok(Some(token.duplicate())),
        None => gateway_api::stored_token(&file).map_err(|error| error.message),
    };
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
        admin_url: pairing.admin_url,
        admin_trust: gateway_api::trust(&config.admin.trust),
        admin_token: Arc::new(token),
        pace: pairing.pace,
    }
}

/// What a person should know before anything is sent.
fn warn(pairing: &Pairing, config: &Config, printer: &mut Printer) -> Result<(), CliError> {
    let in_clear = |url: &reqwest::Url| url.scheme() == "http" && !owner::is_loopback(url.as_str());
    if in_clear(&pairing.api_url) {
        printer.warn(&format!("the pair code and what is relayed go to {} in clear; use https", pairing.api_url));
    }
    if in_clear(&pairing.admin_url) {
        printer.warn(&format!("the admin token goes to {} in clear; use https", pairing.admin_url));
    }
    if gateway_api::token(config)?.is_none() {
        printer.warn(&format!(
            "there is no admin token in {}: the gateway may refuse what is relayed; see --gateway-data-dir",
            config.paths.data_dir.display()
        ));
    }
    Ok(())
}

fn shown(url: &reqwest::Url) -> &str {
    url.as_str().trim_end_matches('/')
}

fn show(progress: &Progress, names: &str, at: &str, printer: &mut Printer) {
    let mut out = |text: String| {
        // That nobody reads along is no reason to end.
        let _ = printer.line(&format!("{TAG} {text}"));
    };
    match progress {
        Progress::Preflight(sealing) => {
            out("preflight: ok".to_owned());
            match sealing {
                Sealing::Fingerprint(fingerprint) => out(format!("sealing key fingerprint: {fingerprint}")),
                Sealing::Absent => {}
                Sealing::Refused => printer.note(&format!(
                    "{TAG} the gateway does not take the admin token of this machine: what is relayed will be refused. \
                     See --gateway-data-dir and GATEWAY_ADMIN_TOKEN"
                )),
                Sealing::Unknown(why) => {
                    printer.note(&format!("{TAG} the gateway was not asked for its key for sealed secrets: {why}"));
                }
            }
        }
        Progress::SecretNotKept(why) => printer.note(&format!(
            "{TAG} what this bridge was given to come back with is not kept: {why}; started again it goes by the code"
        )),
        Progress::Session(Notice::Open { first }) => {
            out(format!("websocket connected ({at})"));
            if *first {
                out(format!("{READY} ({names})"));
            }
        }
        Progress::Session(Notice::Closed { code, reason }) => out(format!("websocket closed ({code}) {reason}")),
        Progress::Session(Notice::Trouble(trouble, pause)) => {
            printer.note(&format!("{TAG} {trouble}; trying again, next in {} ms", pause.as_millis()));
        }
        Progress::Session(Notice::CodeInAddress) => {
            printer.note(&format!("{TAG} this API takes the pair code in the address alone; it is sent there"));
        }
    }
}

/// The end in words and as an exit code.
fn over(end: End, printer: &mut Printer) -> Outcome {
    match end {
        End::Stopped => {
            let _ = printer.line(&format!("{TAG} gateway pairing bridge stopped"));
            Outcome::Done
        }
        End::Terminal(terminal) => {
            let (status, text) = terminal.wire();
            printer.note(&format!(
                "{TAG} {MARKER}: {text} (HTTP {status}). Start another pairing in the dashboard and run its command"
            ));
            Outcome::Over
        }
        End::Replaced => {
            printer.note(&format!(
                "{TAG} another bridge has taken this session over; this one ends and does not take it back"
            ));
            Outcome::Config
        }
    }
}

/// Why it did not begin.
fn refused(error: &PairError, printer: &mut Printer) -> Outcome {
    printer.note(&format!("{TAG} preflight: {error}"));
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
        printer.note(&format!("{TAG} hint: {hint}"));
    }
    Outcome::Failed
}
