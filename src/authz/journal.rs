//! The replay window's memory across restarts: every admission is in a file before its answer leaves.
//!
//! Segments `replay-<n>.journal` in the run folder, numbered without a gap, each a header and entries of
//! 32 bytes. Nothing is synced: what was written survives the end of the process, however it ends,
//! and not the end of the operating system. So the header names the boot, and a journal of another boot
//! is not believed. A last entry that is cut off was never answered, and is dropped.
//!
//! Behind a window that replicas share, a journal is not all that was used. Its headers say so, and whoever has no such window
//! any more does not rely on it.
//!
//! Where a write fails, nothing more is written to that segment, and each look ([`Journal::mend`]) tries to begin another:
//! a header is written then, which no reader takes for an admission, whenever the process may end. Until one was begun
//! nothing is admitted.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use sha2::Digest as _;
use sha2::Sha256;

use crate::authz::journal_header::Behind;
use crate::authz::journal_header::HEADER_BYTES;
use crate::authz::journal_header::Header;
use crate::authz::journal_header::judge;
use crate::domain::hex;
use crate::domain::replay::Entry;
use crate::domain::replay::ReplayWindow;
use crate::domain::replay::floor_after;
use crate::domain::replay::lifetime;
use crate::domain::time::CLOCK_SKEW;
use crate::domain::time::UnixSeconds;
use crate::sys::boot;
use crate::sys::files;
use crate::sys::files::PRIVATE_FILE;
use crate::sys::random;

/// A segment is ended after this many seconds, so that expired ones can be deleted whole.
const SEGMENT_SECONDS: u64 = 60;
/// A segment is ended after this many entries (32 MB).
const SEGMENT_ENTRIES: u64 = 1 << 20;

/// The journal could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("replay journal {path}: {source}")]
pub struct JournalError {
    /// The file or folder.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub source: io::Error,
}

impl JournalError {
    fn failing(&self) -> Failing {
        if files::is_full(&self.source) { Failing::Full } else { Failing::Otherwise }
    }
}

/// Why nothing can be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// The volume has no room left, or a quota has none.
    Full,
    /// Anything else: the volume is read-only, broken, or not ours any more.
    Otherwise,
}

/// What was found at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Everything an earlier process admitted and that may still be replayed.
    Usable,
    /// Nothing: no authz has had this folder.
    Nothing,
    /// Something that cannot be relied upon; the reason is for the log.
    Unusable(&'static str),
}

/// What was read of a journal while its owner still wrote to it, so that whoever follows has little left to read.
#[derive(Debug)]
pub struct Preread {
    hash_key: [u8; 16],
    window: ReplayWindow,
    /// By number of the segment: up to which byte it was read, and the last expiry so far.
    read: BTreeMap<u64, (u64, u64)>,
}

impl Preread {
    /// Entries that were read.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }
}

/// The journal, open for appending. The caller holds the lock on its folder.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    hash_key: [u8; 16],
    boot: u128,
    floor: u64,
    /// When it was noticed that a segment is gone, in Unix seconds; 0: none is. For the next start alone: this process
    /// still knows what was in it.
    lost: u64,
    /// The highest wall clock seen, since it was last told to have stepped back.
    high: UnixSeconds,
    /// What the last write failed with; `None`: it did not.
    failing: Option<Failing>,
    current: Segment,
    older: VecDeque<Older>,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    /// `None`: it could not be begun, there is no such segment.
    file: Option<File>,
    length: u64,
    opened: u64,
    last_expiry: u64,
    /// Seconds; 0 while no admission has said.
    max_age: u64,
}

impl Segment {
    const fn of(header: &Header, file: Option<File>) -> Self {
        Self {
            number: header.number,
            file,
            length: HEADER_BYTES as u64,
            opened: header.opened,
            last_expiry: 0,
            max_age: header.max_age,
        }
    }

    /// What stands before the first one a process begins.
    fn none_before(first: &Header) -> Self {
        Self { number: first.number.saturating_sub(1), ..Self::of(first, None) }
    }
}

/// A segment that is only kept until its last entry has expired.
#[derive(Debug)]
struct Older {
    number: u64,
    last_expiry: u64,
}

impl Journal {
    /// Reads back what earlier processes admitted and begins a new segment. Where that cannot be
    /// relied upon, the window refuses what may have been admitted before `now`.
    pub fn open(folder: &Path, capacity: usize, now: UnixSeconds) -> Result<(Self, ReplayWindow, Found), JournalError> {
        Self::open_after(folder, capacity, now, Behind::Nobody, None)
    }

    /// Reads what there is while another process holds the lock and writes. `None` where nothing can be told ahead:
    /// then everything is read when the lock is had.
    pub fn preread(folder: &Path, capacity: usize, now: UnixSeconds, behind: Behind) -> Option<Preread> {
        let numbers = segments(folder).ok()?;
        let headers = read_headers(folder, &numbers).ok()?;
        let first = judge(&numbers, &headers, boot::id(), behind).ok()?;
        if headers.iter().flatten().any(|header| has_stepped_back(header.opened, now)) {
            return None;
        }
        let mut preread = Preread {
            hash_key: first.hash_key,
            window: ReplayWindow::new(capacity, first.hash_key),
            read: BTreeMap::new(),
        };
        for header in headers.iter().flatten() {
            // One that its owner has deleted meanwhile has expired.
            let path = segment_path(folder, header.number);
            let read = restore(&path, &mut preread.window, now, (HEADER_BYTES as u64, u64::MAX)).ok()?;
            preread.read.insert(header.number, read);
        }
        Some(preread)
    }

    /// The same as [`Journal::open`] for whoever has a window that is shared, and for whoever has read most of it before.
    pub fn open_after(
        folder: &Path,
        capacity: usize,
        now: UnixSeconds,
        behind: Behind,
        preread: Option<Preread>,
    ) -> Result<(Self, ReplayWindow, Found), JournalError> {
        let boot = boot::id();
        let numbers = segments(folder)?;
        let headers = read_headers(folder, &numbers)?;
        let written = behind.written(boot.unwrap_or(0));
        match judge(&numbers, &headers, boot, behind) {
            Ok(first) => {
                let preread = preread.filter(|preread| preread.hash_key == first.hash_key);
                let preread = preread.unwrap_or_else(|| Preread {
                    hash_key: first.hash_key,
                    window: ReplayWindow::new(capacity, first.hash_key),
                    read: BTreeMap::new(),
                });
                let first = Header { boot: written, ..first };
                let journal = Self::resume(folder, now, &numbers, &headers, (first, preread))?;
                Ok((journal.0, journal.1, Found::Usable))
            }
            Err(reason) => {
                let hash_key = random::bytes().map_err(|error| fail(folder, io::Error::other(error)))?;
                let mut window = ReplayWindow::new(capacity, hash_key);
                window.set_floor(now);
                let number = numbers.last().copied().unwrap_or(0).saturating_add(1);
                let header = Header { hash_key, boot: written, max_age: 0, number, opened: now.0, floor: now.0 };
                let older: VecDeque<_> = numbers.into_iter().map(|number| Older { number, last_expiry: 0 }).collect();
                let found = if older.is_empty() { Found::Nothing } else { Found::Unusable(reason) };
                Ok((Self::start(folder, &header, older)?, window, found))
            }
        }
    }

    fn resume(
        folder: &Path,
        now: UnixSeconds,
        numbers: &[u64],
        headers: &[Option<Header>],
        (first, preread): (Header, Preread),
    ) -> Result<(Self, ReplayWindow), JournalError> {
        let believed = || headers.iter().flatten();
        let latest = believed().map(|header| header.opened).max().unwrap_or(0);
        let mut floor = believed().map(|header| header.floor).max().unwrap_or(0);
        // The shortest time anything was kept for is what can be relied upon.
        let max_age = believed().map(|header| header.max_age).filter(|max_age| *max_age > 0).min();
        let longest = believed().map(|header| header.max_age).max().unwrap_or(0);
        let kept = lifetime(Duration::from_secs(longest));
        let (high, last) = if has_stepped_back(latest, now) {
            floor = stepped(now, floor, kept);
            // One that was used late has its whole age before it, and the step besides.
            (now, now.0.saturating_add(kept.saturating_mul(2)))
        } else {
            (UnixSeconds(latest.max(now.0)), u64::MAX)
        };
        let Preread { mut window, read, .. } = preread;
        let mut older = VecDeque::new();
        for header in believed() {
            let (from, before) = read.get(&header.number).copied().unwrap_or((HEADER_BYTES as u64, 0));
            let (_, last_expiry) = restore(&segment_path(folder, header.number), &mut window, high, (from, last))?;
            let last_expiry = last_expiry.max(before);
            older.push_back(Older { number: header.number, last_expiry });
        }
        if floor > 0 {
            window.set_floor(UnixSeconds(floor));
        }
        if let Some(max_age) = max_age {
            window.assume_max_age(Duration::from_secs(max_age));
        }
        let last = numbers.last().copied().unwrap_or(0);
        let number = if headers.last().is_some_and(Option::is_none) {
            // Begun and never answered from. In the middle of others it would count as damage.
            let path = segment_path(folder, last);
            fs::remove_file(&path).map_err(|error| fail(&path, error))?;
            last
        } else {
            last.saturating_add(1)
        };
        let header = Header { max_age: max_age.unwrap_or(0), number, opened: high.0, floor, ..first };
        Ok((Self::start(folder, &header, older)?, window))
    }

    /// Begins the first segment of this process. A volume that is full keeps nobody from starting: what was admitted is
    /// known, and nothing is admitted until there is room.
    fn start(folder: &Path, header: &Header, older: VecDeque<Older>) -> Result<Self, JournalError> {
        let none = Segment::none_before(header);
        let mut journal = Self {
            folder: folder.to_owned(),
            hash_key: header.hash_key,
            boot: header.boot,
            floor: header.floor,
            lost: 0,
            high: UnixSeconds(header.opened),
            failing: None,
            current: none,
            older,
        };
        match journal.rotate(Duration::from_secs(header.max_age)) {
            Err(error) if error.failing() == Failing::Full => journal.failing = Some(Failing::Full),
            begun => begun?,
        }
        Ok(journal)
    }

    /// What tells this memory from another. It is kept with it: whoever follows on this folder has the same.
    pub fn id(&self) -> String {
        name_of(&self.hash_key)
    }

    /// The same of the journal in a folder; `None` where none can be relied upon.
    pub fn id_in(folder: &Path, behind: Behind) -> Option<String> {
        let numbers = segments(folder).ok()?;
        let headers = read_headers(folder, &numbers).ok()?;
        judge(&numbers, &headers, boot::id(), behind).ok().map(|first| name_of(&first.hash_key))
    }

    /// What the last write failed with; `None`: the next admission can be written down, as far as is known.
    pub const fn failing(&self) -> Option<Failing> {
        self.failing
    }

    /// Writes an admission down. On an error the admission must not be answered; the next attempt goes to another segment.
    pub fn append(&mut self, entry: &Entry, max_age: Duration, now: UnixSeconds) -> Result<(), JournalError> {
        self.high = self.high.max(now);
        let written = self.write(entry, max_age);
        self.failing = written.as_ref().err().map(JournalError::failing);
        written
    }

    /// The wall clock has stepped back to `now`. What was signed while it was ahead is kept for twice its age and no longer, as the
    /// window keeps it, because no segment is deleted before those that were begun earlier.
    pub fn turn_back(&mut self, now: UnixSeconds, max_age: Duration) {
        self.high = now;
        // Where it is not known for how old a signature requests are accepted, as they were.
        let lifetime = lifetime(max_age.max(Duration::from_secs(self.current.max_age)));
        self.floor = stepped(now, self.floor, lifetime);
        let last = now.0.saturating_add(lifetime.saturating_mul(2));
        self.current.last_expiry = self.current.last_expiry.min(last);
        for segment in &mut self.older {
            segment.last_expiry = segment.last_expiry.min(last);
        }
    }

    fn write(&mut self, entry: &Entry, max_age: Duration) -> Result<(), JournalError> {
        let entries = self.current.length.saturating_sub(HEADER_BYTES as u64) / Entry::ENCODED_BYTES as u64;
        let opened = self.current.opened;
        let old = opened > self.high.0 || self.high.0.saturating_sub(opened) >= SEGMENT_SECONDS;
        let other = entries >= SEGMENT_ENTRIES || self.current.max_age != max_age.as_secs();
        // Whoever reads ahead may have seen part of what failed, and must not find another entry around it.
        if self.failing.is_some() || old || other {
            self.rotate(max_age)?;
        }
        let path = segment_path(&self.folder, self.current.number);
        let Some(file) = &mut self.current.file else { return Err(fail(&path, io::ErrorKind::NotFound.into())) };
        if let Err(source) = file.write_all(&entry.encode()) {
            // Part of it may be there. It would be dropped as it is; this only leaves less to read.
            let _ = file.set_len(self.current.length);
            return Err(fail(&path, source));
        }
        self.current.length = self.current.length.saturating_add(Entry::ENCODED_BYTES as u64);
        self.current.last_expiry = self.current.last_expiry.max(entry.expires_at.0);
        Ok(())
    }

    /// Begins another segment where the last write failed, which tries whether one works again, and where the current one is
    /// no longer in the folder: what is written to a file without a name is not found after a restart. What was in it
    /// is not found either, so a restart will refuse what was signed until now.
    pub fn mend(&mut self, now: UnixSeconds) -> Result<(), JournalError> {
        let mended = self.begin_where_due(now);
        self.failing = mended.as_ref().err().map(JournalError::failing);
        mended
    }

    fn begin_where_due(&mut self, now: UnixSeconds) -> Result<(), JournalError> {
        let is_lost = match &self.current.file {
            Some(file) => {
                let path = segment_path(&self.folder, self.current.number);
                let held = file.metadata().map_err(|error| fail(&path, error))?;
                let found = fs::symlink_metadata(&path);
                !found.is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino()))
            }
            None => false,
        };
        if !is_lost && self.failing.is_none() {
            return Ok(());
        }
        self.high = self.high.max(now);
        if is_lost {
            self.lost = self.high.0;
        }
        self.rotate(Duration::from_secs(self.current.max_age))
    }

    fn rotate(&mut self, max_age: Duration) -> Result<(), JournalError> {
        let header = Header {
            hash_key: self.hash_key,
            boot: self.boot,
            max_age: max_age.as_secs(),
            number: self.current.number.saturating_add(1),
            opened: self.high.0,
            floor: self.floor.max(self.lost),
        };
        let next = match begin(&self.folder, &header) {
            Err(error) if error.failing() == Failing::Full => self.begin_in_place_of_expired(&header, error)?,
            begun => begun?,
        };
        let ended = std::mem::replace(&mut self.current, next);
        if ended.file.is_some() {
            self.older.push_back(Older { number: ended.number, last_expiry: ended.last_expiry });
        }
        self.drop_expired();
        Ok(())
    }

    /// Without room for a header, in the room of the oldest segment where that has expired: the journal itself may be what
    /// fills the volume. None is deleted before the next begins, because its header says how late it was.
    fn begin_in_place_of_expired(&mut self, header: &Header, full: JournalError) -> Result<Segment, JournalError> {
        let Some(number) = self.older.front().filter(|oldest| oldest.last_expiry < self.high.0).map(|one| one.number)
        else {
            return Err(full);
        };
        let (old, path) = (segment_path(&self.folder, number), segment_path(&self.folder, header.number));
        let io = |error| fail(&old, error);
        let mut file = OpenOptions::new().write(true).open(&old).map_err(io)?;
        // From here to its new name it is damage to whoever starts, who then refuses what was signed before.
        file.write_all(&header.encode()).map_err(io)?;
        file.set_len(HEADER_BYTES as u64).map_err(io)?;
        fs::rename(&old, &path).map_err(io)?;
        self.older.pop_front();
        Ok(Segment::of(header, Some(file)))
    }

    /// Deletes from the oldest on, so that the numbers keep having no gap.
    fn drop_expired(&mut self) {
        while self.older.front().is_some_and(|segment| segment.last_expiry < self.high.0) {
            let Some(segment) = self.older.pop_front() else { break };
            let path = segment_path(&self.folder, segment.number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an expired replay segment could not be deleted");
            }
        }
    }
}

/// The hash key is made once for each journal; it is secret, and its hash is not.
fn name_of(hash_key: &[u8; 16]) -> String {
    let hash: [u8; 32] =
        Sha256::new().chain_update(b"sigilum replay journal\0").chain_update(hash_key).finalize().into();
    hash.first_chunk::<16>().map_or_else(String::new, |short| hex::text(short))
}

fn fail(path: &Path, source: io::Error) -> JournalError {
    JournalError { path: path.to_owned(), source }
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("replay-{number}.journal"))
}

/// The numbers of the segments in the folder, ascending.
fn segments(folder: &Path) -> Result<Vec<u64>, JournalError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| fail(folder, error))? {
        let entry = entry.map_err(|error| fail(folder, error))?;
        let name = entry.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_prefix("replay-")?.strip_suffix(".journal")?.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The header of each segment; `None` where there is none that can be read.
fn read_headers(folder: &Path, numbers: &[u64]) -> Result<Vec<Option<Header>>, JournalError> {
    let mut headers = Vec::new();
    for number in numbers {
        let path = segment_path(folder, *number);
        let mut bytes = [0; HEADER_BYTES];
        let mut file = File::open(&path).map_err(|error| fail(&path, error))?;
        headers.push(match file.read_exact(&mut bytes) {
            Ok(()) => Header::decode(&bytes).filter(|header| header.number == *number),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(fail(&path, error)),
        });
    }
    Ok(headers)
}

/// What stands in a header after the wall clock has stepped back to `now`: what it says is a moment, and what was signed until the
/// skew later is refused.
fn stepped(now: UnixSeconds, floor: u64, lifetime: u64) -> u64 {
    let skew = CLOCK_SKEW.as_secs();
    floor_after(now, floor.saturating_add(skew), lifetime).saturating_sub(skew)
}

/// Whether the wall clock was further ahead when a segment was begun than clocks may differ.
fn has_stepped_back(opened: u64, now: UnixSeconds) -> bool {
    opened > now.0.saturating_add(CLOCK_SKEW.as_secs())
}

/// Reads a segment's entries from a byte on into the window; returns up to which byte, and the last expiry among them. None
/// counts as later than `latest`.
fn restore(
    path: &Path,
    window: &mut ReplayWindow,
    now: UnixSeconds,
    (from, latest): (u64, u64),
) -> Result<(u64, u64), JournalError> {
    let io = |error| fail(path, error);
    let mut file = File::open(path).map_err(io)?;
    file.seek(SeekFrom::Start(from)).map_err(io)?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let (mut end, mut last_expiry) = (from, 0);
    let mut bytes = [0; Entry::ENCODED_BYTES];
    loop {
        match reader.read_exact(&mut bytes) {
            Ok(()) => {}
            // The end, or an entry that was cut off.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok((end, last_expiry)),
            Err(error) => return Err(io(error)),
        }
        let mut entry = Entry::decode(&bytes);
        entry.expires_at = entry.expires_at.min(UnixSeconds(latest));
        end = end.saturating_add(Entry::ENCODED_BYTES as u64);
        last_expiry = last_expiry.max(entry.expires_at.0);
        window.restore(entry, now);
    }
}

/// Makes a segment and writes its header.
fn begin(folder: &Path, header: &Header) -> Result<Segment, JournalError> {
    let path = segment_path(folder, header.number);
    let io = |error| fail(&path, error);
    // A leftover of the same number has no readable header; `judge` has seen to it.
    let mut file = OpenOptions::new().append(true).create_new(true).mode(PRIVATE_FILE).open(&path).map_err(io)?;
    if let Err(error) = file.write_all(&header.encode()) {
        // Half a header would be in the way of the next attempt.
        let _ = fs::remove_file(&path);
        return Err(io(error));
    }
    Ok(Segment::of(header, Some(file)))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]
mod tests;
