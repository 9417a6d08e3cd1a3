//! What a gateway in the foreground tells whoever watches it: lines of its logs, and what its supervisor does.

use serde_json::json;

use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Logged;
use crate::app::gateway::progress::Progress;
use crate::cli::gateway::launch;
use crate::cli::logs;
use crate::cli::outcome::CliError;
use crate::cli::printer::Printer;
use crate::cli::printer::tame;
use crate::cli::stack;
use crate::config::parts::LogStyle;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;

/// How much something matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Good to know.
    Info,
    /// Should be changed.
    Warning,
    /// Did not succeed.
    Error,
}

/// Says it on standard error: a sentence, or a line like those of the logs where these are JSON, so that whoever reads them
/// finds nothing else.
pub(crate) fn say(style: Option<LogStyle>, weight: Weight, text: &str, printer: &mut Printer) {
    let (word, level) = match weight {
        Weight::Info => ("", "INFO"),
        Weight::Warning => ("warning: ", "WARN"),
        Weight::Error => ("error: ", "ERROR"),
    };
    match style {
        Some(LogStyle::Json) => {
            let line = json!({"timestamp": SystemClock.now().wall.rfc3339(), "level": level, "message": text});
            printer.note(&tame(&line.to_string()));
        }
        Some(LogStyle::Pretty | LogStyle::Compact) | None => printer.note(&tame(&format!("{word}{text}"))),
    }
}

/// Shows what happened.
pub(super) fn show(event: &Progress, style: Option<LogStyle>, printer: &mut Printer) -> Result<(), CliError> {
    let mut tell = |weight, text: &str| say(style, weight, text, printer);
    match event {
        // They quote whoever sent a request.
        Progress::Note(text) => tell(Weight::Info, text),
        Progress::Log(logged) => line(logged, printer),
        Progress::Ready(addresses) => printer.line(&format!("ready:     {}", places(addresses)))?,
        Progress::Restarting { role, ended, after_ms } => {
            let text = format!("{} exited ({ended}); starting it again in {after_ms} ms", role.name());
            tell(Weight::Info, &text);
        }
        Progress::Draining => {
            tell(Weight::Info, "stopping: requests in flight are finished; a second signal does not wait");
        }
        Progress::Anew => {
            tell(Weight::Info, "the settings have changed: starting anew when requests in flight are finished");
        }
        Progress::Again => tell(Weight::Info, "restarting when requests in flight are finished"),
        Progress::HandingOff => tell(Weight::Info, "handing over to new processes"),
        Progress::HandedOff(Ok(())) => tell(Weight::Info, "handed over"),
        Progress::HandedOff(Err(why)) => tell(Weight::Error, &format!("the hand-off did not succeed: {why}")),
        Progress::HeldBack(why) => {
            let text = format!("the new settings cannot be used; trying those before: {why}");
            tell(Weight::Error, &text);
        }
        Progress::StackReady { gateway, beside, demo } => stack::show_ready(gateway, beside, *demo, printer)?,
    }
    Ok(())
}

fn line(logged: &Logged, printer: &mut Printer) {
    let shown = match logged.style {
        None | Some(LogStyle::Json) => tame(&logged.line),
        Some(LogStyle::Pretty) => logs::one(logged.stream, &logged.line, false, printer.is_error_coloured()),
        Some(LogStyle::Compact) => logs::one(logged.stream, &logged.line, true, false),
    };
    printer.note(&shown);
}

fn places(addresses: &Addresses) -> String {
    format!(
        "{} (admin {}, Envoy http://{})",
        launch::ingress_url(addresses),
        launch::admin_url(addresses),
        launch::first(&addresses.envoy_admin)
    )
}
