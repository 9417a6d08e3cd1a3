//! What the processes say: kept in files of bounded size, warnings shown to the person as well.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncRead;
use tokio::io::BufReader;
use tokio::sync::mpsc;

use crate::app::gateway::progress::Progress;
use crate::app::gateway::progress::Role;
use crate::sys::files::PRIVATE_FILE;

/// A log file is set aside when it would grow beyond this.
const MAX_FILE: u64 = 10 * 1024 * 1024;
/// How many are set aside per process, as `<name>.log.1` (the latest) and so on.
const KEPT: u32 = 3;
/// The part of a line that is kept.
const MAX_LINE: usize = 16 * 1024;
/// The part of a line that is shown.
const MAX_SHOWN: usize = 600;

/// The log file of one process.
#[derive(Debug, Clone)]
pub(in crate::app) struct Log {
    path: Arc<PathBuf>,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl Log {
    /// Opens it for appending.
    pub(in crate::app) fn open(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(format!("{name}.log"));
        let open = Open::append(&path)?;
        Ok(Self { path: Arc::new(path), open: Arc::new(Mutex::new(open)) })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies lines into the file until the stream ends; what matters goes to `progress` too.
    pub(super) async fn follow(self, role: Role, stream: impl AsyncRead + Unpin, progress: mpsc::Sender<Progress>) {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(true) = next_line(&mut reader, &mut line).await {
            self.append(&line);
            if let Some(note) = notable(role, &String::from_utf8_lossy(&line)) {
                // A full channel: nobody reads that fast, and the file has it.
                let _ = progress.try_send(Progress::Note(note));
            }
        }
    }

    /// The same for one event of this very process, by the name of the part that is in it.
    pub(in crate::app) fn event(&self, name: &str, event: &[u8], progress: &mpsc::Sender<Progress>) {
        self.keep(event);
        if let Some(text) = ours(&String::from_utf8_lossy(event)) {
            let _ = progress.try_send(Progress::Note(shown(name, &text)));
        }
    }

    /// Keeps it without showing it.
    pub(in crate::app) fn keep(&self, event: &[u8]) {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        self.append(line.get(..MAX_LINE).unwrap_or(line));
    }

    fn append(&self, line: &[u8]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let length = line.len() as u64 + 1;
        if open.length.saturating_add(length) > MAX_FILE {
            self.set_aside();
            if let Ok(fresh) = Open::append(&self.path) {
                *open = fresh;
            }
        }
        let mut whole = Vec::with_capacity(line.len() + 1);
        whole.extend_from_slice(line);
        whole.push(b'\n');
        // A full disk must not stop the gateway.
        if open.file.write_all(&whole).is_ok() {
            open.length = open.length.saturating_add(length);
        }
    }

    fn set_aside(&self) {
        let numbered = |number: u32| self.path.with_extension(format!("log.{number}"));
        for number in (1..KEPT).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        let _ = fs::rename(&*self.path, numbered(1));
    }
}

impl Open {
    fn append(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(PRIVATE_FILE).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

/// Reads one line without its end into `line`, cut at [`MAX_LINE`]; `false` at the end of the stream.
async fn next_line(reader: &mut BufReader<impl AsyncRead + Unpin>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = MAX_LINE.saturating_sub(line.len());
        line.extend(part.iter().take(room));
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// What the person should see of a line: warnings and errors of ours, errors of Envoy, and whatever is
/// not a log line at all (a panic, a loader's complaint).
fn notable(role: Role, line: &str) -> Option<String> {
    let text = match role {
        Role::Admin | Role::Authz => ours(line)?,
        Role::Envoy => {
            let level = line.strip_prefix('[')?.split("][").nth(2)?;
            matches!(level, "error" | "critical").then(|| line.to_owned())?
        }
    };
    Some(shown(role.name(), &text))
}

fn shown(name: &str, text: &str) -> String {
    let shown: String = text.chars().filter(|character| !character.is_control()).take(MAX_SHOWN).collect();
    format!("{name}: {shown}")
}

fn ours(line: &str) -> Option<String> {
    if line.trim().is_empty() {
        return None;
    }
    let Ok(serde_json::Value::Object(mut event)) = serde_json::from_str(line) else { return Some(line.to_owned()) };
    let level = event.get("level").and_then(serde_json::Value::as_str).unwrap_or_default().to_lowercase();
    if !matches!(level.as_str(), "warn" | "error") {
        return None;
    }
    // Facts are fields beside the message, or one level down, as the formatter is set.
    if let Some(serde_json::Value::Object(fields)) = event.remove("fields") {
        event.extend(fields);
    }
    let message = event.remove("message");
    let message = message.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    let facts: String = event
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "timestamp" | "level" | "target" | "span" | "spans"))
        .map(|(name, value)| format!(" {name}={value}"))
        .collect();
    Some(format!("{level}: {message}{facts}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_matters_is_shown() {
        let warn = r#"{"timestamp":"t","level":"WARN","fields":{"message":"store is slow","ms":900},"target":"x"}"#;
        assert_eq!(notable(Role::Admin, warn).unwrap(), "admin: warn: store is slow ms=900");
        let flat = r#"{"level":"ERROR","message":"no journal","path":"/run/x"}"#;
        assert_eq!(notable(Role::Authz, flat).unwrap(), "authz: error: no journal path=\"/run/x\"");
        assert_eq!(notable(Role::Authz, r#"{"level":"INFO","message":"decision"}"#), None);
        assert_eq!(notable(Role::Authz, "thread 'main' panicked").unwrap(), "authz: thread 'main' panicked");
        let envoy = |level| notable(Role::Envoy, &format!("[2026-11-20 15:00:00.000][7][{level}][main] [a.cc:1] x"));
        assert_eq!((envoy("info"), envoy("warning")), (None, None));
        assert!(envoy("critical").is_some());
        assert_eq!(notable(Role::Admin, "\u{1b}[31mred").unwrap(), "admin: [31mred");
    }

    #[test]
    fn an_event_of_this_process_is_kept_and_shown_where_it_matters() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), "api").unwrap();
        let (progress, mut reader) = mpsc::channel(4);
        log.event("api", b"{\"level\":\"INFO\",\"message\":\"served\"}\n", &progress);
        log.event("api", b"{\"level\":\"WARN\",\"message\":\"slow disk\"}\n", &progress);
        assert_eq!(fs::read_to_string(log.path()).unwrap().lines().count(), 2);
        assert_eq!(reader.try_recv().unwrap(), Progress::Note("api: warn: slow disk".to_owned()));
        assert!(reader.try_recv().is_err());
    }

    #[tokio::test]
    async fn lines_are_cut_and_files_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), "admin").unwrap();
        let (progress, _reader) = mpsc::channel(1);
        let lines = MAX_FILE as usize / MAX_LINE + 2;
        let stream = vec![b"x".repeat(MAX_LINE * 2); lines].join(&b'\n');
        log.clone().follow(Role::Admin, &stream[..], progress).await;
        let first = fs::metadata(log.path()).unwrap();
        let aside = fs::metadata(folder.path().join("admin.log.1")).unwrap();
        assert!(aside.len() <= MAX_FILE && aside.len() > MAX_FILE / 2);
        assert_eq!((first.len() + aside.len()) as usize, lines * (MAX_LINE + 1));
        assert_eq!(first.permissions().mode() & 0o777, PRIVATE_FILE);
    }
}
