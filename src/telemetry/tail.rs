//! Following a log: every line once, from where the last reading ended, through restarts, rotations and
//! truncations.
//!
//! A log may have several readers, each with a position file of its own. What a reader has been handed and what it
//! is done with are two things: only a position it stores counts after a restart.

use std::fs::File;
use std::io;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

use crate::telemetry::segments;
use crate::telemetry::segments::Position;
use crate::telemetry::segments::Segment;

/// Longest line that is read; a longer one is skipped. Envoy's header limit keeps real ones far below.
pub const MAX_LINE_BYTES: usize = 128 * 1024;
/// Bytes read in one go.
const CHUNK_BYTES: u64 = 256 * 1024;

/// A line without its line feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// As it stands there.
    Whole(&'a [u8]),
    /// Longer than [`MAX_LINE_BYTES`].
    TooLong,
}

/// A reader of one log.
#[derive(Debug)]
pub struct Tail {
    log: PathBuf,
    position_file: PathBuf,
    stored: Option<Position>,
    open: Option<Open>,
}

/// The file being read.
#[derive(Debug)]
struct Open {
    file: File,
    /// Where the next line begins. Its `head` is filled in when a position is taken.
    next: Position,
    /// What was read of the file and not handed out begins at `start`.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes of a line that is too long, dropped already.
    dropped: u64,
    /// What the file begins with, as far as it has been there.
    head: Vec<u8>,
    /// Digest of it, once it is complete.
    whole_head: Option<String>,
}

impl Tail {
    /// Goes on where the position file says; where it says nothing, at the start of the oldest file.
    pub fn new(log: &Path, position_file: &Path) -> Self {
        let stored = Position::load(position_file);
        Self { log: log.to_owned(), position_file: position_file.to_owned(), stored, open: None }
    }

    /// The same, but where there is no position file at all, what is in the log already is left out, for good.
    pub fn from_now(log: &Path, position_file: &Path) -> io::Result<Self> {
        let mut tail = Self::new(log, position_file);
        if !position_file.try_exists()? {
            let position = match segments::open(log, None)? {
                Some((file, segment)) => Open::at_line(file, &segment, tail.last_number()?)?.position(),
                None => Position { segment: tail.last_number()?, ..Position::default() },
            };
            tail.store(&position)?;
        }
        Ok(tail)
    }

    /// The next line; `None` where there is none yet. Blocks on the disk.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        let found = loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => match Self::resume(&self.log, self.stored.as_ref())? {
                    Some(open) => self.open.insert(open),
                    None => return Ok(None),
                },
            };
            if let Some(found) = open.take_line() {
                break found;
            }
            if open.refill()? {
                continue;
            }
            let Some(mut successor) = open.successor(&self.log)? else { return Ok(None) };
            // Written between our last look and the opening of the next one; from now on nothing is.
            if open.refill()? {
                continue;
            }
            if let Some(rest) = open.take_rest() {
                break rest;
            }
            successor.next.segment = successor.next.segment.max(open.next.segment);
            self.open = Some(successor);
        };
        Ok(self.open.as_ref().map(|open| open.line(found)))
    }

    /// Behind the last line that was handed out.
    pub fn position(&self) -> Position {
        match (&self.open, &self.stored) {
            (Some(open), _) => open.position(),
            (None, Some(stored)) => stored.clone(),
            (None, None) => Position::default(),
        }
    }

    /// Stores a position, if it is another than the stored one.
    pub fn store(&mut self, position: &Position) -> io::Result<()> {
        if self.stored.as_ref() == Some(position) {
            return Ok(());
        }
        position.store(&self.position_file)?;
        self.stored = Some(position.clone());
        Ok(())
    }

    /// The stored position; the start where nothing is stored.
    pub fn stored(&self) -> Position {
        self.stored.clone().unwrap_or_default()
    }

    /// Hands out the rest of the file being read and goes to the next one, where there is one: `false` where not,
    /// and then nothing is handed out.
    pub fn leave_file(&mut self, mut each: impl FnMut(Line<'_>)) -> io::Result<bool> {
        if self.open.is_none() {
            self.open = Self::resume(&self.log, self.stored.as_ref())?;
        }
        let Some(open) = &mut self.open else { return Ok(false) };
        let Some(mut successor) = open.successor(&self.log)? else { return Ok(false) };
        loop {
            while let Some(found) = open.take_line() {
                each(open.line(found));
            }
            if !open.refill()? {
                break;
            }
        }
        if let Some(rest) = open.take_rest() {
            each(open.line(rest));
        }
        successor.next.segment = successor.next.segment.max(open.next.segment);
        self.open = Some(successor);
        Ok(true)
    }

    fn last_number(&self) -> io::Result<u64> {
        let segments = segments::list(&self.log)?;
        Ok(segments.iter().filter_map(|segment| segment.number).max().unwrap_or(0))
    }

    fn resume(log: &Path, stored: Option<&Position>) -> io::Result<Option<Open>> {
        let segments = segments::list(log)?;
        let Some(stored) = stored else { return open_first(&segments, 0) };
        for (index, segment) in segments.iter().enumerate() {
            let Some((file, found)) = segments::open(&segment.path, segment.number)? else { continue };
            if stored.is_in(&file, &found)? {
                let number = number(&segments, index).max(stored.segment);
                return Open::at(file, &found, stored.offset, number).map(Some);
            }
        }
        open_first(&segments, stored.segment)
    }
}

/// The first file behind the number `after`, from its start.
fn open_first(segments: &[Segment], after: u64) -> io::Result<Option<Open>> {
    for (index, segment) in segments.iter().enumerate() {
        if segment.number.is_some_and(|number| number <= after) {
            continue;
        }
        if let Some((file, found)) = segments::open(&segment.path, segment.number)? {
            return Open::at(file, &found, 0, number(segments, index).max(after)).map(Some);
        }
    }
    Ok(None)
}

/// The number of a file in the list, or of the last one before it.
fn number(segments: &[Segment], index: usize) -> u64 {
    segments.iter().take(index.saturating_add(1)).filter_map(|segment| segment.number).max().unwrap_or(0)
}

impl Open {
    fn at(mut file: File, segment: &Segment, offset: u64, number: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        let next = Position { id: segment.id, offset, segment: number, head: String::new() };
        let (buffer, head) = (Vec::new(), Vec::new());
        let mut open = Self { file, next, buffer, start: 0, dropped: 0, head, whole_head: None };
        open.look_at_head()?;
        Ok(open)
    }

    /// Behind the last whole line that stands in the file now.
    fn at_line(file: File, segment: &Segment, number: u64) -> io::Result<Self> {
        let mut open = Self::at(file, segment, 0, number)?;
        loop {
            while open.take_line().is_some() {}
            if !open.refill()? {
                return Ok(open);
            }
        }
    }

    fn line(&self, found: Option<Range<usize>>) -> Line<'_> {
        found.map_or(Line::TooLong, |range| Line::Whole(self.buffer.get(range).unwrap_or_default()))
    }

    fn position(&self) -> Position {
        let length = segments::head_length(self.next.offset);
        let head = match &self.whole_head {
            Some(digest) if length == segments::HEAD_BYTES => digest.clone(),
            Some(_) | None => segments::digest(self.head.get(..length).unwrap_or(&self.head)),
        };
        Position { head, ..self.next.clone() }
    }

    /// Remembers what the file begins with, as far as it is there.
    fn look_at_head(&mut self) -> io::Result<()> {
        if self.head.len() < segments::HEAD_BYTES {
            self.head = segments::head(&self.file, segments::HEAD_BYTES)?;
            self.whole_head = (self.head.len() == segments::HEAD_BYTES).then(|| segments::digest(&self.head));
        }
        Ok(())
    }

    /// The next line's place in the buffer, its line feed left out; the inner `None` is one that is too long.
    fn take_line(&mut self) -> Option<Option<Range<usize>>> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            if rest.len() > MAX_LINE_BYTES {
                self.dropped = self.dropped.saturating_add(rest.len() as u64);
                self.buffer.clear();
                self.start = 0;
            }
            return None;
        };
        Some(self.hand_out(length, 1))
    }

    /// What stands behind the last line feed of a file that is finished.
    fn take_rest(&mut self) -> Option<Option<Range<usize>>> {
        let length = self.buffer.len().saturating_sub(self.start);
        (length > 0 || self.dropped > 0).then(|| self.hand_out(length, 0))
    }

    fn hand_out(&mut self, length: usize, feed: usize) -> Option<Range<usize>> {
        let dropped = std::mem::take(&mut self.dropped);
        let range = self.start..self.start.saturating_add(length);
        self.start = range.end.saturating_add(feed);
        let whole = dropped.saturating_add(length as u64).saturating_add(feed as u64);
        self.next.offset = self.next.offset.saturating_add(whole);
        (dropped == 0 && length <= MAX_LINE_BYTES).then_some(range)
    }

    /// Reads on. `false`: there is nothing more now.
    fn refill(&mut self) -> io::Result<bool> {
        let held = self.buffer.len().saturating_sub(self.start) as u64;
        let read_to = self.next.offset.saturating_add(self.dropped).saturating_add(held);
        // What was truncated may have grown past where we stood: then it begins with something else.
        let begins = segments::head(&self.file, segments::HEAD_BYTES)?;
        if self.file.metadata()?.len() < read_to || !begins.starts_with(&self.head) {
            self.next.offset = 0;
            self.dropped = 0;
            self.buffer.clear();
            self.start = 0;
            self.head.clear();
            self.file.seek(SeekFrom::Start(0))?;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let read = segments::read_more(&self.file, CHUNK_BYTES, &mut self.buffer)?;
        // After the reading: whatever was read is covered.
        self.look_at_head()?;
        Ok(read > 0)
    }

    /// The file that was begun after this one, where there is one.
    fn successor(&self, log: &Path) -> io::Result<Option<Self>> {
        let mut segments = segments::list(log)?;
        let here = |segments: &[Segment]| segments.iter().rposition(|segment| segment.id == self.next.id);
        let mut index = here(&segments);
        if index.is_none() {
            // A file that is renamed while the folder is listed may be missed; not twice in a row.
            segments = segments::list(log)?;
            index = here(&segments);
        }
        let Some(index) = index else { return open_first(&segments, self.next.segment) };
        let behind = segments.get(index.saturating_add(1)..).unwrap_or_default();
        let number = number(&segments, index).max(self.next.segment);
        open_first(behind, 0).map(|open| {
            open.map(|mut open| {
                open.next.segment = open.next.segment.max(number);
                open
            })
        })
    }
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
