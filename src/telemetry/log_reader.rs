//! Reading a log page by page: the last lines, everything from the oldest on, or what came after a place that was
//! reached before, over files that were put aside, truncated or replaced meanwhile.
//!
//! Nothing is kept between two pages but the place, so that it can travel. A line is in exactly one page.

use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use serde_json::Map;
use serde_json::Value;

use crate::domain::log_line;
use crate::domain::log_line::LogFilter;
use crate::domain::log_line::LogStream;
use crate::domain::log_redaction::LogRedactor;
use crate::telemetry::segments;
use crate::telemetry::segments::Position;
use crate::telemetry::segments::Segment;

/// The part of a longer line that is read, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Most lines of a page.
pub const MAX_LINES: usize = 5000;
/// Most bytes of the lines of a page.
pub const MAX_BYTES: usize = 1_000_000;
/// Bytes of a log that are looked through for one page.
const MAX_SCAN: u64 = 16 * 1024 * 1024;
/// How often a place that is not found is looked for again.
const LOOKS: usize = 3;
/// Bytes read in one go, backwards.
const CHUNK: usize = 64 * 1024;

/// Name of Envoy's access log in the run folder.
pub const ACCESS_LOG: &str = "access.log";

/// Where the logs of a gateway are.
#[derive(Debug, Clone)]
pub struct LogPlaces {
    /// The data folder; the logs are in `logs` below it.
    pub data_dir: PathBuf,
    /// The run folder, where Envoy writes its access log.
    pub run_dir: PathBuf,
}

impl LogPlaces {
    /// The file of a stream. Envoy itself writes the access log, and knows no way to take a line back: what may stand in
    /// it is bounded by its format, and what is read of it is cleaned.
    pub fn file(&self, stream: LogStream) -> PathBuf {
        match stream {
            LogStream::Access => self.run_dir.join(ACCESS_LOG),
            LogStream::Admin
            | LogStream::Authz
            | LogStream::Decision
            | LogStream::Envoy
            | LogStream::Pair
            | LogStream::Audit
            | LogStream::Api => self.data_dir.join("logs").join(format!("{}.jsonl", stream.name())),
        }
    }

    /// Whether anything was ever written to a stream.
    pub fn exists(&self, stream: LogStream) -> bool {
        segments::list(&self.file(stream)).is_ok_and(|files| !files.is_empty())
    }
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// As many lines before the end as fit.
    Newest,
    /// With the oldest line there is.
    Oldest,
    /// Behind the last line of another page.
    After(Position),
}

/// How long a page may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize {
    /// Lines, at most [`MAX_LINES`].
    pub lines: usize,
    /// Bytes of lines, at most [`MAX_BYTES`]; a single line is cut to it.
    pub bytes: usize,
}

/// Some lines of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The lines, oldest first.
    pub lines: Vec<Map<String, Value>>,
    /// Where the next page begins.
    pub next: Position,
    /// Length of the file that is being written, in bytes.
    pub size: u64,
    /// A line was cut, or older ones were left out because the page was full.
    pub truncated: bool,
    /// The place the page was to begin behind is gone: the file was truncated or replaced, and is read anew.
    pub reset: bool,
    /// There are more lines now, or there was more to look through than one page may.
    pub more: bool,
}

/// Reads a page of the stream's log; of what it holds, what passes the filter. Blocks on the disk.
pub fn read(
    places: &LogPlaces,
    stream: LogStream,
    start: &Start,
    size: PageSize,
    filter: &LogFilter,
) -> io::Result<Page> {
    // What lies before the place is done with.
    let first = match start {
        Start::After(position) => position.segment,
        Start::Newest | Start::Oldest => 0,
    };
    let mut files = segments::open_from(&places.file(stream), first)?;
    if let Start::After(position) = start {
        // Where the oldest was removed and another put aside while the folder was read, both may be missing in what was
        // read of it; not several times in a row.
        for _ in 0..LOOKS {
            if !after(&files, position)?.reset {
                break;
            }
            files = segments::open_from(&places.file(stream), first)?;
        }
    }
    let mut page = Page {
        lines: Vec::new(),
        next: Position::default(),
        size: files.last().filter(|(_, segment)| segment.number.is_none()).map_or(0, |(_, segment)| segment.length),
        truncated: false,
        reset: false,
        more: false,
    };
    let max_line = MAX_LINE.min(size.bytes);
    let begin = match start {
        Start::Oldest => Begin::default(),
        Start::Newest => newest(&files, size, max_line)?,
        Start::After(position) => after(&files, position)?,
    };
    page.reset = begin.reset;
    page.truncated = begin.left_out;
    // Envoy cleans nothing; every other log was cleaned when it was written.
    let redactor = (stream == LogStream::Access).then(LogRedactor::default);
    let mut budget = Budget { size, filter, redactor, scanned: 0, bytes: 0, max_line };
    let mut offset = begin.offset;
    // Where nothing is to be read the place stays the same.
    page.next = match start {
        Start::After(position) => position.clone(),
        Start::Newest | Start::Oldest => Position::default(),
    };
    for (index, (file, segment)) in files.iter().enumerate().skip(begin.index) {
        let is_last = index.saturating_add(1) == files.len();
        let reached = read_file(file, offset, is_last, &mut budget, &mut page)?;
        page.next = position(file, segment, number_before(&files, index).max(first), reached)?;
        if page.more {
            break;
        }
        offset = 0;
    }
    Ok(page)
}

/// Where to begin: which file, and where in it.
#[derive(Debug, Default)]
struct Begin {
    index: usize,
    offset: u64,
    reset: bool,
    left_out: bool,
}

/// What may still be read.
struct Budget<'a> {
    size: PageSize,
    filter: &'a LogFilter,
    redactor: Option<LogRedactor>,
    scanned: u64,
    bytes: usize,
    max_line: usize,
}

/// The number of a file, or of the last one before it.
fn number_before(files: &[(File, Segment)], index: usize) -> u64 {
    files.iter().take(index.saturating_add(1)).filter_map(|(_, segment)| segment.number).max().unwrap_or(0)
}

fn position(file: &File, segment: &Segment, number: u64, offset: u64) -> io::Result<Position> {
    let head = segments::digest(&segments::head(file, segments::head_length(offset))?);
    Ok(Position { id: segment.id, offset, segment: number, head })
}

/// Behind a place that was reached before, or the first file that was begun after it.
fn after(files: &[(File, Segment)], position: &Position) -> io::Result<Begin> {
    if *position == Position::default() {
        // There was no file at all.
        return Ok(Begin::default());
    }
    for (index, (file, segment)) in files.iter().enumerate().rev() {
        if position.is_in(file, segment)? {
            return Ok(Begin { index, offset: position.offset, ..Begin::default() });
        }
    }
    let newer = |(_, segment): &(File, Segment)| segment.number.is_none_or(|number| number > position.segment);
    let index = files.iter().position(newer).unwrap_or(files.len());
    Ok(Begin { index, reset: index < files.len(), ..Begin::default() })
}

/// As many whole lines before the end as fit, looking backwards.
fn newest(files: &[(File, Segment)], size: PageSize, max_line: usize) -> io::Result<Begin> {
    let (mut lines, mut bytes) = (0_usize, 0_usize);
    let mut begin = Begin { index: files.len().saturating_sub(1), ..Begin::default() };
    if let Some((_, last)) = files.last() {
        begin.offset = last.length;
    }
    for (index, (file, segment)) in files.iter().enumerate().rev() {
        let mut end = segment.length;
        // What stands behind the last line feed is no line yet; in a file that is finished it is one.
        let mut whole = index.saturating_add(1) < files.len();
        let mut at = segment.length;
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = CHUNK.min(usize::try_from(at).unwrap_or(CHUNK));
            let from = at.saturating_sub(length as u64);
            let Some(part) = chunk.get_mut(..length) else { break };
            file.read_exact_at(part, from)?;
            let feeds =
                part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place as u64);
            let begins = feeds.map(|place| from.saturating_add(place).saturating_add(1));
            // The first line begins where the file does.
            for line in begins.chain((from == 0).then_some(0)) {
                if line < end && whole {
                    let length = usize::try_from(end.saturating_sub(line)).unwrap_or(max_line).min(max_line);
                    bytes = bytes.saturating_add(length);
                    if lines == size.lines || bytes > size.bytes && lines > 0 {
                        begin.left_out = lines < size.lines;
                        return Ok(begin);
                    }
                    lines = lines.saturating_add(1);
                    (begin.index, begin.offset) = (index, line);
                } else if !whole {
                    // It is read when it is whole.
                    (begin.index, begin.offset) = (index, line);
                }
                end = line;
                whole = true;
            }
            if from == 0 {
                break;
            }
            at = from;
        }
    }
    Ok(begin)
}

/// Reads lines from `offset` on; returns where the first begins that was not read.
fn read_file(file: &File, offset: u64, is_last: bool, budget: &mut Budget<'_>, page: &mut Page) -> io::Result<u64> {
    let mut reached = offset;
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = BufReader::with_capacity(CHUNK, file);
    let mut line = Vec::new();
    loop {
        if page.lines.len() >= budget.size.lines || budget.scanned >= MAX_SCAN {
            // Whether there is more shows when it is asked for.
            page.more = true;
            return Ok(reached);
        }
        let (length, ended) = next_line(&mut reader, &mut line, budget.max_line)?;
        if length == 0 || !ended && is_last {
            return Ok(reached);
        }
        let feed = u64::from(ended);
        let cut = length.saturating_sub(feed) > line.len() as u64;
        if budget.filter.may_match(&line) && !line.is_empty() {
            if budget.bytes.saturating_add(line.len()) > budget.size.bytes && !page.lines.is_empty() {
                page.more = true;
                return Ok(reached);
            }
            let mut members = log_line::parse(&line, cut);
            if let Some(redactor) = &budget.redactor {
                redactor.clean(&mut members);
            }
            if budget.filter.matches(&members) {
                budget.bytes = budget.bytes.saturating_add(line.len());
                page.truncated |= cut;
                page.lines.push(members);
            }
        }
        budget.scanned = budget.scanned.saturating_add(length);
        reached = reached.saturating_add(length);
    }
}

/// Reads one line without its end into `line`, cut at `max` bytes; returns its length as it stands there, with its line
/// feed, and whether there was one.
fn next_line(reader: &mut BufReader<&File>, line: &mut Vec<u8>, max: usize) -> io::Result<(u64, bool)> {
    line.clear();
    let mut length = 0_u64;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok((length, false));
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        line.extend(part.iter().take(max.saturating_sub(line.len())));
        let used = end.map_or(buffer.len(), |end| end.saturating_add(1));
        reader.consume(used);
        length = length.saturating_add(used as u64);
        if end.is_some() {
            return Ok((length, true));
        }
    }
}

#[cfg(test)]
#[path = "log_reader_tests.rs"]
mod tests;
