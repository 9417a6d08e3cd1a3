//! A line of a log for people: time, level, stream, what happened, and the facts.

use serde_json::Map;
use serde_json::Value;
use time::OffsetDateTime;
use time::UtcOffset;
use time::format_description::well_known::Rfc3339;

use crate::cli::logs::merge::Line;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::tame;
use crate::cli::table::Tone;
use crate::domain::log_line;
use crate::domain::log_line::LogStream;

/// Columns of a level.
const LEVEL: usize = 5;
/// Columns of the name of a stream.
const STREAM: usize = 8;
/// Columns of a time in UTC with milliseconds.
const TIME: usize = 24;
/// The same with an offset.
const LOCAL_TIME: usize = 29;

/// How lines look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// As JSON.
    pub(super) json: bool,
    /// Without columns.
    pub(super) plain: bool,
    /// With colours.
    pub(super) coloured: bool,
    /// Whose time.
    pub(super) zone: Zone,
}

/// The zone times are shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Zone(Option<UtcOffset>);

impl Zone {
    /// Coordinated universal time, as it stands in the logs.
    pub(super) const fn utc() -> Self {
        Self(None)
    }

    /// That of this machine, as it is now.
    pub(super) fn local() -> Result<Self, CliError> {
        let refused = |_| CliError::new(Outcome::Failed, "the time zone of this machine is not known; see --utc");
        UtcOffset::current_local_offset().map(Some).map(Self).map_err(refused)
    }

    fn width(self) -> usize {
        if self.0.is_some() { LOCAL_TIME } else { TIME }
    }

    /// The time of a line with milliseconds; as it stands there where it is none.
    fn show(self, line: &Map<String, Value>) -> String {
        let text = log_line::text(line, "timestamp");
        let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) else { return text.to_owned() };
        let at = at.to_offset(self.0.unwrap_or(UtcOffset::UTC));
        // Seconds have a width only with a fraction; that of none is `.000`.
        let whole = at.replace_nanosecond(0).ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
        let (seconds, zone) = whole.split_at_checked("2026-02-20T18:04:26".len()).unwrap_or((&whole, ""));
        format!("{seconds}.{:03}{zone}", at.millisecond())
    }
}

impl Look {
    /// One line, whatever stands in it.
    pub(super) fn line(&self, line: &Line) -> String {
        let members = &line.members;
        let (level, tone) = level(line);
        let (message, told) = message(line);
        let mut text = one_line(&message);
        for (name, value) in members {
            let silent = matches!(name.as_str(), "timestamp" | "level" | "message" | "target" | "component" | "kind");
            if silent && !(name == "component" && line.stream == LogStream::Envoy) || told.contains(&name.as_str()) {
                continue;
            }
            if let Some(value) = fact(value) {
                text.push_str(&format!(" {}={value}", one_line(name)));
            }
        }
        let (time, stream) = (one_line(&self.zone.show(members)), line.stream.name());
        if self.plain {
            return format!("{time} {level} {stream} {}", text.trim_start()).trim_end().to_owned();
        }
        let width = self.zone.width();
        let (time, level) = (format!("{time:<width$}"), format!("{level:<LEVEL$}"));
        let (time, level) = if self.coloured { (Tone::Faint.paint(&time), tone.paint(&level)) } else { (time, level) };
        format!("{time} {level} {stream:<STREAM$} {}", text.trim_start()).trim_end().to_owned()
    }
}

/// The level in at most five letters, and what it means. The access log has none: its status says as much.
fn level(line: &Line) -> (String, Tone) {
    let name = log_line::text(&line.members, "level").to_uppercase();
    let status = line.members.get("status").and_then(Value::as_u64).unwrap_or_default();
    let name = match name.as_str() {
        "" if status >= 500 => "ERROR",
        "" if status >= 400 => "WARN",
        "" => "INFO",
        name => name,
    };
    let tone = match name {
        "ERROR" => Tone::Bad,
        "WARN" => Tone::Attention,
        "INFO" => Tone::Good,
        _ => Tone::Faint,
    };
    (one_line(name).chars().take(LEVEL).collect(), tone)
}

/// What happened, and the members that say it.
fn message(line: &Line) -> (String, &'static [&'static str]) {
    let text = |name| log_line::text(&line.members, name);
    match line.stream {
        LogStream::Access => {
            let status = line.members.get("status").map(ToString::to_string).unwrap_or_default();
            let words = [text("method"), text("path"), &status];
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            (words.join(" "), &["method", "path", "status"])
        }
        LogStream::Decision => {
            let words = [text("event"), text("decision")];
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            (words.join(" "), &["event", "decision"])
        }
        LogStream::Audit => (text("action").to_owned(), &["action"]),
        LogStream::Admin | LogStream::Authz | LogStream::Envoy | LogStream::Pair | LogStream::Api => {
            (text("message").to_owned(), &[])
        }
    }
}

/// The value of a member; `None` where there is none.
fn fact(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => {
            let quoted = text.is_empty() || text.chars().any(|letter| letter.is_whitespace() || letter == '"');
            Some(one_line(&if quoted { value.to_string() } else { text.clone() }))
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(one_line(&value.to_string())),
    }
}

fn one_line(text: &str) -> String {
    tame(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn shown(stream: LogStream, text: &str, look: Look) -> String {
        look.line(&Line { stream, members: log_line::parse(text.as_bytes(), false) })
    }

    const ALIGNED: Look = Look { json: false, plain: false, coloured: false, zone: Zone::utc() };

    #[test]
    fn lines_of_all_streams_are_aligned() {
        let access = r#"{"timestamp":"2026-02-20T18:04:26.1Z","request_id":"r","method":"GET","path":"/proxy/x","status":403,"code":null}"#;
        assert_eq!(
            shown(LogStream::Access, access, ALIGNED),
            "2026-02-20T18:04:26.100Z WARN  access   GET /proxy/x 403 request_id=r"
        );
        let ours = r#"{"timestamp":"2026-02-20T18:04:26.123456Z","level":"INFO","message":"two words","why":"a b","n":1,"target":"x"}"#;
        assert_eq!(
            shown(LogStream::Admin, ours, ALIGNED),
            "2026-02-20T18:04:26.123Z INFO  admin    two words why=\"a b\" n=1"
        );
        let plain = Look { plain: true, ..ALIGNED };
        assert_eq!(
            shown(LogStream::Admin, ours, plain),
            "2026-02-20T18:04:26.123Z INFO admin two words why=\"a b\" n=1"
        );
    }

    #[test]
    fn times_are_shown_in_another_zone() {
        let look = Look { zone: Zone(Some(UtcOffset::from_hms(2, 0, 0).unwrap())), ..ALIGNED };
        let line =
            shown(LogStream::Admin, r#"{"timestamp":"2026-02-20T18:04:26Z","level":"INFO","message":"m"}"#, look);
        assert_eq!(line, "2026-02-20T20:04:26.000+02:00 INFO  admin    m");
    }

    #[test]
    fn what_a_stranger_wrote_moves_no_cursor() {
        let text = "{\"timestamp\":\"t\\u001b[2J\",\"level\":\"WARN\",\"message\":\"a\\nb\\u009b2J\",\"x\\u001b\":\"\\u202e\"}";
        let line = shown(LogStream::Admin, text, ALIGNED);
        assert!(!line.chars().any(char::is_control) && !line.contains('\u{202e}'), "{line}");
    }

    #[test]
    fn a_level_has_its_colour() {
        let look = Look { coloured: true, ..ALIGNED };
        let line = shown(LogStream::Admin, r#"{"timestamp":"t","level":"ERROR","message":"m"}"#, look);
        assert!(line.contains("\u{1b}[31mERROR\u{1b}[0m"), "{line:?}");
    }
}
