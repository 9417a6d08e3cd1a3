//! The files of one log: the one being written and those put aside before it, in the order they were written.
//!
//! `access.log` is put aside as `access.log.1`, `access.log.2` and so on. Numbers only rise, so that a reader that
//! remembers a number knows what lies before and what behind it, also when files in between are gone.

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::hex;
use crate::sys::files;
use crate::sys::files::beside;
use crate::sys::files::read_text;
use crate::sys::files::write_private;

/// Bytes at the start of a file by which it is recognised: an inode is given to another file once the first is gone.
pub(in crate::telemetry) const HEAD_BYTES: usize = 256;
/// Files before a known one that are looked for by their number.
const MAX_MISSED: u64 = 1000;
/// Longest position file, in bytes.
const MAX_POSITION_BYTES: u64 = 1024;

/// Which file, as the file system counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::telemetry) struct FileId {
    device: u64,
    inode: u64,
}

/// A place in a log: what lies before it is done with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    #[serde(flatten)]
    pub(in crate::telemetry) id: FileId,
    pub(in crate::telemetry) offset: u64,
    /// The number of the file, or of the last one before it where it has none. All numbers up to here are done with,
    /// this file excepted.
    #[serde(default)]
    pub(in crate::telemetry) segment: u64,
    /// Digest of what the file begins with, as far as it was read; empty where that is not known.
    #[serde(default)]
    pub(in crate::telemetry) head: String,
}

impl Position {
    /// Reads what [`Position::store`] wrote; `None` where nothing usable stands there.
    pub fn load(path: &Path) -> Option<Self> {
        read_text(path, MAX_POSITION_BYTES).ok().and_then(|text| serde_json::from_str(&text).ok())
    }

    /// Writes it down, whole or not at all.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string(self).map_err(io::Error::other)?;
        write_private(path, text.as_bytes())
    }

    /// As one word: device and inode in hex, number and offset, digest of the head. [`Position::parse`] reads it.
    pub fn encode(&self) -> String {
        let Self { id, offset, segment, head } = self;
        format!("{:x}-{:x}-{segment}-{offset}-{head}", id.device, id.inode)
    }

    /// Reads what [`Position::encode`] wrote; `None` where it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (device, inode) = (hex_number(parts.next()?)?, hex_number(parts.next()?)?);
        let (segment, offset) = (number(parts.next()?)?, number(parts.next()?)?);
        let head = parts.next()?;
        let known = head.is_empty() || head.len() == 16 && head.bytes().all(|byte| byte.is_ascii_hexdigit());
        (known && parts.next().is_none()).then(|| Self {
            id: FileId { device, inode },
            offset,
            segment,
            head: head.to_owned(),
        })
    }

    /// Whether the file that is open is the one this position is in.
    pub(in crate::telemetry) fn is_in(&self, file: &File, segment: &Segment) -> io::Result<bool> {
        if self.id != segment.id || self.offset > segment.length {
            return Ok(false);
        }
        if self.head.is_empty() {
            return Ok(true);
        }
        Ok(digest(&head(file, head_length(self.offset))?) == self.head)
    }
}

/// One file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its number; `None`: the file that is being written.
    pub number: Option<u64>,
    /// Where it lies.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    pub(in crate::telemetry) id: FileId,
}

/// All files of a log, oldest first, the one being written last.
pub fn list(log: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for number in numbers(log)? {
        // One that was removed meanwhile is none.
        found.extend(open(&aside(log, number), Some(number))?.map(|(_, segment)| segment));
    }
    found.extend(open(log, None)?.map(|(_, segment)| segment));
    Ok(found)
}

/// The numbers of the files that were put aside, ascending.
fn numbers(log: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(found);
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        found.extend(entry?.file_name().to_str().and_then(|found| number_of(found, name)));
    }
    found.sort_unstable();
    Ok(found)
}

/// Where a file lies that was put aside under a number.
fn aside(log: &Path, number: u64) -> PathBuf {
    beside(log, &format!(".{number}"))
}

/// Puts the log aside under the next number and says where it is now. Whoever writes it goes on writing there until
/// it opens the log anew. `positions` are those of its readers: numbers they know are not used again.
pub fn put_aside(log: &Path, positions: &[PathBuf]) -> io::Result<PathBuf> {
    let listed = list(log)?.into_iter().filter_map(|segment| segment.number);
    let known = positions.iter().filter_map(|path| Position::load(path)).map(|position| position.segment);
    let number = listed.chain(known).max().unwrap_or(0).saturating_add(1);
    let aside = aside(log, number);
    std::fs::rename(log, &aside)?;
    Ok(aside)
}

/// Puts the log back in its place, unless another has taken it.
pub fn put_back(log: &Path, aside: &Path) -> io::Result<()> {
    match std::fs::hard_link(aside, log) {
        Ok(()) => std::fs::remove_file(aside),
        // The writer has opened the log anew after all.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the files that every reader is done with, by the positions it has stored; the newest one that was put
/// aside stays for people to read. A reader that has stored nothing yet is done with nothing.
pub fn remove_read(log: &Path, positions: &[PathBuf]) -> io::Result<usize> {
    let Some(readers) = positions.iter().map(|path| Position::load(path)).collect::<Option<Vec<_>>>() else {
        return Ok(0);
    };
    let segments = list(log)?;
    let newest = segments.iter().filter_map(|segment| segment.number).max();
    let mut removed = 0;
    for segment in &segments {
        let Some(number) = segment.number.filter(|number| Some(*number) != newest) else { continue };
        if readers.iter().all(|reader| number <= reader.segment && reader.id != segment.id) {
            std::fs::remove_file(&segment.path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes the oldest files that were put aside, until `kept` of them are left.
pub fn keep_newest(log: &Path, kept: usize) -> io::Result<()> {
    let mut aside: Vec<_> = list(log)?.into_iter().filter(|segment| segment.number.is_some()).collect();
    aside.truncate(aside.len().saturating_sub(kept));
    aside.iter().try_for_each(|segment| std::fs::remove_file(&segment.path))
}

/// The files of a log from a number on, open, oldest first, as they were at one moment: a file that is put aside meanwhile is neither
/// missed nor there twice, however often that happens. What writes the log writes nothing more into a file once the next
/// one is there.
pub(in crate::telemetry) fn open_from(log: &Path, first: u64) -> io::Result<Vec<(File, Segment)>> {
    let mut opened: Vec<(File, Segment)> = Vec::new();
    let mut next = first.max(1);
    for number in numbers(log)?.into_iter().filter(|number| *number >= first) {
        // Those that were put aside while the folder was read may be missing in what was read of it.
        let missed = if opened.is_empty() { number } else { next.max(number.saturating_sub(MAX_MISSED)) };
        for number in missed..=number {
            opened.extend(open(&aside(log, number), Some(number))?);
        }
        next = number.saturating_add(1);
    }
    loop {
        while let Some(found) = open(&aside(log, next), Some(next))? {
            opened.push(found);
            next = next.saturating_add(1);
        }
        let current = open(log, None)?;
        // Where it was put aside before it was opened, or is now, it has the next number.
        if !aside(log, next).try_exists()? {
            opened.extend(current);
            return Ok(opened);
        }
    }
}

/// Bytes of the log behind a position.
pub fn bytes_behind(log: &Path, position: &Position) -> io::Result<u64> {
    let segments = list(log)?;
    let behind = segments.iter().map(|segment| {
        if segment.id == position.id {
            // Shorter than the position: truncated, so all of it is new.
            if segment.length < position.offset { segment.length } else { segment.length - position.offset }
        } else if segment.number.is_none_or(|number| number > position.segment) {
            segment.length
        } else {
            0
        }
    });
    Ok(behind.fold(0, u64::saturating_add))
}

/// Whether another file follows the one a position is in, so that it could be given up whole.
pub fn is_followed(log: &Path, position: &Position) -> io::Result<bool> {
    let segments = list(log)?;
    let here = segments.iter().rposition(|segment| segment.id == position.id);
    Ok(match here {
        Some(index) => index.saturating_add(1) < segments.len(),
        None => segments.iter().any(|segment| segment.number.is_some_and(|number| number > position.segment)),
    })
}

/// Opens a file of a log; `None` where there is none. Envoy may write to the folder of its own logs, and whoever has taken it over
/// must not have another file shown, nor a reader held up by a pipe.
pub(in crate::telemetry) fn open(path: &Path, number: Option<u64>) -> io::Result<Option<(File, Segment)>> {
    let file = match files::open_unlinked(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    let id = FileId { device: found.dev(), inode: found.ino() };
    Ok(Some((file, Segment { number, path: path.to_owned(), length: found.len(), id })))
}

/// How much of the head lies before an offset.
pub(in crate::telemetry) fn head_length(offset: u64) -> usize {
    usize::try_from(offset).map_or(HEAD_BYTES, |offset| offset.min(HEAD_BYTES))
}

/// The first bytes of a file, at most `length`.
pub(in crate::telemetry) fn head(file: &File, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Sixteen hex digits of SHA-256.
pub(in crate::telemetry) fn digest(bytes: &[u8]) -> String {
    hex::begin(&Sha256::digest(bytes), 8)
}

/// Reads at most `limit` bytes from where the file stands.
pub(in crate::telemetry) fn read_more(file: &File, limit: u64, into: &mut Vec<u8>) -> io::Result<usize> {
    file.take(limit).read_to_end(into)
}

/// What `u64` reads, without a sign.
fn number(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

fn hex_number(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { u64::from_str_radix(text, 16).ok() }
}

fn number_of(found: &str, log: &str) -> Option<u64> {
    let digits = found.strip_prefix(log)?.strip_prefix('.')?;
    let plain = !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(
            device: u64, inode: u64, offset: u64, segment: u64, head in "|[0-9a-f]{16}",
        ) {
            let position = Position { id: FileId { device, inode }, offset, segment, head };
            prop_assert_eq!(Position::parse(&position.encode()), Some(position));
        }

        #[test]
        fn any_text_is_a_position_or_none(text in "\\PC{0,60}|[0-9a-f+-]{0,60}") {
            if let Some(position) = Position::parse(&text) {
                prop_assert_eq!(Position::parse(&position.encode()), Some(position));
            }
        }
    }
}
