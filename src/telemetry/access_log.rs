//! Following Envoy's access log: one JSON object a line, read where the last reading ended, also after a
//! restart, a rotation or a truncation.

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

use crate::sys::files::read_text;
use crate::sys::files::write_private;

/// Longest line that is read; a longer one is skipped. Envoy's header limit keeps real ones far below.
pub const MAX_LINE_BYTES: usize = 128 * 1024;
/// Bytes read in one go, so that a backlog does not keep a thread busy for long.
const MAX_READ_BYTES: u64 = 4 * 1024 * 1024;
/// A log longer than this is put aside once it is read.
pub const ROTATE_BYTES: u64 = 64 * 1024 * 1024;

/// What is read of a line. Numbers may come as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AccessEntry {
    /// When the request began: RFC 3339 with milliseconds and `Z`.
    #[serde(deserialize_with = "text")]
    pub timestamp: String,
    /// Id of the decision; absent where none was made.
    #[serde(deserialize_with = "text")]
    pub decision_id: String,
    /// Connection id.
    #[serde(deserialize_with = "text")]
    pub connection: String,
    /// The agent's request target without query, at most 1024 bytes.
    #[serde(deserialize_with = "text")]
    pub path: String,
    /// The agent's namespace; this and the next four are there where the signature was verified.
    #[serde(deserialize_with = "text")]
    pub namespace: String,
    /// Who the agent acted for, at most 1024 bytes.
    #[serde(deserialize_with = "text")]
    pub subject: String,
    /// Fingerprint of the agent's key: 16 hex digits.
    #[serde(deserialize_with = "text")]
    pub agent_key: String,
    /// The agent's key, `ed25519:` and base64.
    #[serde(deserialize_with = "text")]
    pub public_key: String,
    /// Which agent of the namespace, at most 1024 bytes; absent where none was signed.
    #[serde(deserialize_with = "text")]
    pub agent_id: String,
    /// As sent.
    #[serde(deserialize_with = "text")]
    pub method: String,
    /// Why it was refused by authz; absent on requests let through.
    #[serde(deserialize_with = "text")]
    pub reason: String,
    /// `x-sigilum-code` of the answer.
    #[serde(deserialize_with = "text")]
    pub code: String,
    /// HTTP status; 0 where the client left before there was one.
    #[serde(deserialize_with = "number")]
    pub status: u64,
    /// Milliseconds from the first byte of the request to the last of the response.
    #[serde(deserialize_with = "number")]
    pub duration_ms: u64,
    /// Bytes of the response body.
    #[serde(deserialize_with = "number")]
    pub bytes_sent: u64,
    /// The client, as counted by trusted hops, without port.
    #[serde(deserialize_with = "text")]
    pub client_address: String,
}

impl AccessEntry {
    /// Reads one line.
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Whether authz let the request through.
    pub fn was_forwarded(&self) -> bool {
        self.reason.is_empty() && !self.connection.is_empty() && !self.decision_id.is_empty()
    }
}

/// Where the reading stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    device: u64,
    inode: u64,
    offset: u64,
}

/// A reader of one log file.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    position_file: PathBuf,
    open: Option<(File, Position)>,
    stored: Position,
    /// Bytes of a line whose end has not come yet.
    partial: Vec<u8>,
    /// The rest of a line that is too long is being skipped.
    skipping: bool,
}

impl Tail {
    /// Goes on where the position file says the last reading ended; from the start where there is none.
    pub fn new(path: &Path, position_file: &Path) -> Self {
        let stored = read_text(position_file, 1024).ok().and_then(|text| serde_json::from_str(&text).ok());
        Self {
            path: path.to_owned(),
            position_file: position_file.to_owned(),
            open: None,
            stored: stored.unwrap_or_default(),
            partial: Vec::new(),
            skipping: false,
        }
    }

    /// Reads what is new and hands every whole line to `each`, `None` for one that is too long. Blocks on the
    /// disk. `true`: there may be more at once.
    pub fn read(&mut self, mut each: impl FnMut(Option<&[u8]>)) -> io::Result<bool> {
        if self.open.is_none() {
            self.open = self.open_at_position()?;
        }
        let Some((file, position)) = &mut self.open else { return Ok(false) };
        if file.metadata()?.len() < position.offset {
            // Truncated: what stands there now is new.
            position.offset = 0;
            self.partial.clear();
            self.skipping = false;
            file.seek(SeekFrom::Start(0))?;
        }
        let mut chunk = Vec::new();
        let read = file.take(MAX_READ_BYTES).read_to_end(&mut chunk)?;
        position.offset = position.offset.saturating_add(read as u64);
        self.split(&chunk, &mut each);
        if read > 0 {
            return Ok(true);
        }
        // The end of this file; another one of the same name has taken its place?
        let replaced = match std::fs::metadata(&self.path) {
            Ok(found) => {
                self.open.as_ref().is_some_and(|(_, held)| (found.dev(), found.ino()) != (held.device, held.inode))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if replaced {
            self.open = None;
            // That file is read to its end; its stored position must not lead back to it.
            self.stored = Position::default();
            self.partial.clear();
            self.skipping = false;
        }
        Ok(replaced)
    }

    /// Whether the log has grown so long that it should be put aside.
    pub fn wants_rotation(&self) -> bool {
        self.open.as_ref().is_some_and(|(_, position)| position.offset > ROTATE_BYTES)
    }

    /// Stores where the reading stands, if that has changed: the start of a line that is not whole yet.
    pub fn store_position(&mut self) -> io::Result<()> {
        let Some((_, position)) = self.open else { return Ok(()) };
        let unread = self.partial.len() as u64;
        let position = Position { offset: position.offset.saturating_sub(unread), ..position };
        if position == self.stored {
            return Ok(());
        }
        let text = serde_json::to_string(&position).map_err(io::Error::other)?;
        write_private(&self.position_file, text.as_bytes())?;
        self.stored = position;
        Ok(())
    }

    /// The file the last reading was of, also where it was put aside since; else the one in place, from its start.
    fn open_at_position(&self) -> io::Result<Option<(File, Position)>> {
        for path in [self.path.clone(), put_aside(&self.path)] {
            let Some((file, found)) = open_if_there(&path)? else { continue };
            let same = (found.device, found.inode) == (self.stored.device, self.stored.inode);
            if same && self.stored.offset <= found.offset {
                return at_offset(file, Position { offset: self.stored.offset, ..found }).map(Some);
            }
        }
        let Some((file, found)) = open_if_there(&self.path)? else { return Ok(None) };
        at_offset(file, Position { offset: 0, ..found }).map(Some)
    }

    fn split(&mut self, mut chunk: &[u8], each: &mut impl FnMut(Option<&[u8]>)) {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = chunk.split_at(end);
            chunk = rest.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.partial.len() + line.len() > MAX_LINE_BYTES {
                each(None);
            } else if self.partial.is_empty() {
                each(Some(line));
            } else {
                self.partial.extend_from_slice(line);
                each(Some(&self.partial));
            }
            self.partial.clear();
        }
        if self.skipping {
            return;
        }
        if self.partial.len() + chunk.len() > MAX_LINE_BYTES {
            each(None);
            self.partial.clear();
            self.skipping = true;
        } else {
            self.partial.extend_from_slice(chunk);
        }
    }
}

/// Where a log goes when it has grown too long; what lay there before is replaced.
pub fn put_aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The file with its identity and its length as offset.
fn open_if_there(path: &Path) -> io::Result<Option<(File, Position)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    Ok(Some((file, Position { device: found.dev(), inode: found.ino(), offset: found.len() })))
}

fn at_offset(mut file: File, position: Position) -> io::Result<(File, Position)> {
    file.seek(SeekFrom::Start(position.offset))?;
    Ok((file, position))
}

/// Text, or anything else as nothing: a member of another type is not worth losing a line for.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => String::new(),
    })
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Number(number) => number.as_u64().unwrap_or_default(),
        serde_json::Value::String(text) => text.parse().unwrap_or_default(),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => 0,
    })
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
