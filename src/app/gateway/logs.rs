//! What the processes say: cleaned, kept as JSON lines in files of bounded size, warnings shown to the person as well.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde_json::Map;
use serde_json::Value;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncRead;
use tokio::io::BufReader;
use tokio::sync::mpsc;

use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::progress::Logged;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::progress::Role;
use crate::config::keys;
use crate::config::parts::LogStyle;
use crate::domain::log_line;
use crate::domain::log_line::LogStream;
use crate::domain::log_redaction::LogRedactor;
use crate::domain::redact::Redactor;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::telemetry::log_cleaning;
use crate::telemetry::log_cleaning::DECISION;
use crate::telemetry::log_file::LogFile;
use crate::telemetry::log_reader::LogPlaces;

/// The part of a line that is kept.
const MAX_LINE: usize = 16 * 1024;
/// The part of a line that is shown.
const MAX_SHOWN: usize = 600;
/// Shorter secrets are words that lines may well hold.
const MIN_SECRET: usize = 12;

/// The log of one process.
#[derive(Debug, Clone)]
pub(in crate::app) struct Log {
    file: Arc<LogFile>,
    /// Where the lines about decisions go.
    decisions: Option<Arc<LogFile>>,
    redactor: Arc<LogRedactor>,
    /// Whose it is.
    stream: LogStream,
    /// How lines look that are told.
    style: Option<LogStyle>,
    verbose: bool,
}

/// A line as it was understood.
struct Line {
    members: Map<String, Value>,
    /// It was no JSON: a panic, a loader's complaint, anything of Envoy's.
    plain: bool,
}

impl Log {
    /// Opens that of a process for appending.
    pub(super) fn of(role: Role, config: &GatewayConfig) -> io::Result<Self> {
        match role {
            Role::Admin => Self::open(LogStream::Admin, config),
            Role::Envoy => Self::open(LogStream::Envoy, config),
            Role::Authz => {
                let decisions = Self::open(LogStream::Decision, config)?.file;
                Ok(Self { decisions: Some(decisions), ..Self::open(LogStream::Authz, config)? })
            }
        }
    }

    /// Opens one for appending.
    pub(in crate::app) fn open(stream: LogStream, config: &GatewayConfig) -> io::Result<Self> {
        let places = LogPlaces { data_dir: config.data_dir.clone(), run_dir: config.run_dir.clone() };
        let secrets =
            config.admin_secrets.iter().filter(|(name, _)| keys::is_own_secret(name)).map(|(_, secret)| secret);
        let known = Redactor::new(secrets.filter(|secret| secret.expose().len() >= MIN_SECRET));
        Ok(Self {
            file: Arc::new(LogFile::open(&places.file(stream), config.logs)?),
            decisions: None,
            redactor: Arc::new(LogRedactor::knowing(known)),
            stream,
            style: config.log_style,
            verbose: config.verbose,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Copies lines into the file until the stream ends; what matters goes to `progress` too.
    pub(super) async fn follow(self, role: Role, stream: impl AsyncRead + Unpin, progress: mpsc::Sender<Progress>) {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(Some(cut)) = next_line(&mut reader, &mut line).await {
            let Some(line) = self.append(role, &line, cut, Some(&progress)) else { continue };
            if let Some(note) = notable(role, &line) {
                self.tell(line, note, &progress);
            }
        }
    }

    /// The same for one event of this very process, by the name of the part that is in it.
    pub(in crate::app) fn event(&self, name: &str, event: &[u8], progress: &mpsc::Sender<Progress>) {
        let line = self.take(event, Some(progress));
        if let Some((line, text)) = line.and_then(|line| ours(&line).map(|text| (line, text))) {
            self.tell(line, shown(name, &text), progress);
        }
    }

    /// Tells a line that matters: as a sentence, or as a line where those have a style, and then once.
    fn tell(&self, line: Line, note: String, progress: &mpsc::Sender<Progress>) {
        let told = match self.style {
            None => Progress::Note(note),
            Some(_) if self.verbose => return,
            Some(_) => self.logged(self.stream, Value::Object(line.members).to_string()),
        };
        // A full channel: nobody reads that fast, and the file has it.
        let _ = progress.try_send(told);
    }

    fn logged(&self, stream: LogStream, line: String) -> Progress {
        Progress::Log(Logged { stream, line, style: self.style })
    }

    /// Keeps it without showing it.
    pub(in crate::app) fn keep(&self, event: &[u8]) {
        self.take(event, None);
    }

    fn take(&self, event: &[u8], progress: Option<&mpsc::Sender<Progress>>) -> Option<Line> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        let cut = line.len() > MAX_LINE;
        self.append(Role::Admin, line.get(..MAX_LINE).unwrap_or(line), cut, progress)
    }

    /// Cleans a line and writes it down; `None` where nobody need be shown it.
    fn append(&self, role: Role, line: &[u8], cut: bool, progress: Option<&mpsc::Sender<Progress>>) -> Option<Line> {
        if let Some(decisions) =
            self.decisions.as_ref().filter(|_| !cut && log_cleaning::is_plain_decision(&self.redactor, line))
        {
            // A full disk must not stop the gateway.
            let _ = decisions.append(line);
            if let Some(progress) = progress.filter(|_| self.verbose) {
                let text = String::from_utf8_lossy(line).into_owned();
                let _ = progress.try_send(self.logged(LogStream::Decision, text));
            }
            return None;
        }
        let mut line = understood(role, line, cut)?;
        self.redactor.clean(&mut line.members);
        // Members only: writing them as JSON cannot fail.
        let text = serde_json::to_string(&line.members).unwrap_or_default();
        let decisions = self.decisions.as_ref().filter(|_| log_line::text(&line.members, "kind") == DECISION);
        // A full disk must not stop the gateway.
        let _ = decisions.unwrap_or(&self.file).append(text.as_bytes());
        if let Some(progress) = progress.filter(|_| self.verbose) {
            let stream = if decisions.is_some() { LogStream::Decision } else { self.stream };
            let _ = progress.try_send(self.logged(stream, text));
        }
        Some(line)
    }
}

/// A line as an object with a time and a level; `None` where it is blank.
fn understood(role: Role, line: &[u8], cut: bool) -> Option<Line> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    let mut said = log_line::parse(line, cut);
    if said.contains_key("timestamp") && said.contains_key("level") {
        return Some(Line { members: said, plain: false });
    }
    let text = log_line::text(&said, "message").to_owned();
    let (level, component, message) = match role {
        Role::Envoy => of_envoy(&text).unwrap_or(("INFO", None, &text)),
        Role::Admin | Role::Authz => ("ERROR", None, text.as_str()),
    };
    let mut members = Map::new();
    let mut add = |name: &str, value: &str| members.insert(name.to_owned(), Value::String(value.to_owned()));
    // Its own time is local and says not where; it was written a moment ago.
    add("timestamp", &SystemClock.now().wall.rfc3339());
    add("level", level);
    add("message", message);
    if let Some(component) = component {
        add("component", component);
    }
    // What else it says, also where an object came without a time.
    said.remove("message");
    members.extend(said);
    Some(Line { members, plain: true })
}

/// Level, component and message of a line of Envoy's: `[time][thread][level][component] [file:line] message`.
fn of_envoy(line: &str) -> Option<(&'static str, Option<&str>, &str)> {
    let mut parts = line.strip_prefix('[')?.splitn(4, "][");
    let (level, rest) = (parts.nth(2)?, parts.next()?);
    let level = match level {
        "trace" => "TRACE",
        "debug" => "DEBUG",
        "info" => "INFO",
        "warning" => "WARN",
        "error" | "critical" => "ERROR",
        _ => return None,
    };
    let (component, rest) = rest.split_once(']')?;
    let rest = rest.trim_start();
    let message = match rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, message)) => message,
        None => rest,
    };
    Some((level, Some(component), message))
}

/// Reads one line without its end into `line`; says whether it was cut at [`MAX_LINE`], `None` at the end of the stream.
async fn next_line(reader: &mut BufReader<impl AsyncRead + Unpin>, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let (mut any, mut cut) = (false, false);
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(any.then_some(cut));
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = MAX_LINE.saturating_sub(line.len());
        cut |= part.len() > room;
        line.extend(part.iter().take(room));
        let used = end.map_or(buffer.len(), |end| end.saturating_add(1));
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(cut));
        }
    }
}

/// What the person should see of a line: warnings and errors of ours, errors of Envoy, and whatever is
/// not a log line at all (a panic, a loader's complaint).
fn notable(role: Role, line: &Line) -> Option<String> {
    let text = match role {
        Role::Admin | Role::Authz => ours(line)?,
        Role::Envoy => {
            let level = log_line::text(&line.members, "level");
            (level == "ERROR").then(|| format!("error: {}", log_line::text(&line.members, "message")))?
        }
    };
    Some(shown(role.name(), &text))
}

fn shown(name: &str, text: &str) -> String {
    let shown: String = text.chars().filter(|character| !character.is_control()).take(MAX_SHOWN).collect();
    format!("{name}: {shown}")
}

fn ours(line: &Line) -> Option<String> {
    let message = log_line::text(&line.members, "message");
    if line.plain {
        return Some(message.to_owned());
    }
    let level = log_line::text(&line.members, "level").to_lowercase();
    if !matches!(level.as_str(), "warn" | "error") {
        return None;
    }
    let facts: String = line
        .members
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "timestamp" | "level" | "message" | "target" | "span" | "spans"))
        .map(|(name, value)| format!(" {name}={value}"))
        .collect();
    Some(format!("{level}: {message}{facts}"))
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
