#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

use std::collections::VecDeque;
use std::fs;
use std::fs::OpenOptions;
use std::io::Write as _;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

struct Log {
    folder: TempDir,
}

impl Log {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    fn offset(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tail(&self) -> Tail {
        Tail::new(&self.path(), &self.offset("access.offset"))
    }

    fn append(&self, text: &str) {
        append(&self.path(), text);
    }

    fn put_aside(&self) -> PathBuf {
        segments::put_aside(&self.path(), &[self.offset("access.offset")]).unwrap()
    }

    fn numbers(&self) -> Vec<Option<u64>> {
        segments::list(&self.path()).unwrap().into_iter().map(|segment| segment.number).collect()
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn text(line: Line<'_>) -> String {
    match line {
        Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
        Line::TooLong => "TOO LONG".to_owned(),
    }
}

fn lines(tail: &mut Tail) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(line) = tail.next_line().unwrap() {
        found.push(text(line));
    }
    found
}

fn store(tail: &mut Tail) {
    let position = tail.position();
    tail.store(&position).unwrap();
}

#[test]
fn lines_come_once_and_whole() {
    let log = Log::new();
    let mut tail = log.tail();
    assert!(lines(&mut tail).is_empty());
    log.append("one\ntw");
    assert_eq!(lines(&mut tail), ["one"]);
    log.append("o\nthree\n");
    assert_eq!(lines(&mut tail), ["two", "three"]);
    assert!(lines(&mut tail).is_empty());
}

#[test]
fn a_restart_goes_on_behind_what_was_stored_and_not_behind_what_was_read() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\ntwo\nthr");
    assert_eq!(text(tail.next_line().unwrap().unwrap()), "one");
    let behind_one = tail.position();
    assert_eq!(lines(&mut tail), ["two"]);
    tail.store(&behind_one).unwrap();
    drop(tail);
    log.append("ee\n");
    assert_eq!(lines(&mut log.tail()), ["two", "three"]);
}

#[test]
fn a_rotated_log_is_read_to_its_end_and_then_the_new_one() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\n");
    assert_eq!(lines(&mut tail), ["one"]);
    store(&mut tail);
    let aside = log.put_aside();
    assert!(lines(&mut tail).is_empty());
    append(&aside, "two\n");
    log.append("three\n");
    // A reader that starts now finds its place in the one put aside, too.
    assert_eq!(lines(&mut log.tail()), ["two", "three"]);
    assert_eq!(lines(&mut tail), ["two", "three"]);
    store(&mut tail);
    log.append("four\n");
    assert_eq!(lines(&mut log.tail()), ["four"]);
}

#[test]
fn several_files_are_read_in_their_order_and_removed_behind_the_slowest_reader() {
    let log = Log::new();
    let positions = [log.offset("access.offset"), log.offset("usage.offset")];
    let mut slow = Tail::new(&log.path(), &positions[1]);
    let mut fast = log.tail();
    for number in 1..=12 {
        log.append(&format!("{number}\n"));
        assert_eq!(lines(&mut fast), [number.to_string()]);
        store(&mut fast);
        assert_eq!(segments::remove_read(&log.path(), &positions).unwrap(), 0, "the other has stored nothing");
        log.put_aside();
    }
    log.append("13\n");
    assert_eq!(lines(&mut fast), ["13"]);
    store(&mut fast);
    for number in 1..=4 {
        assert_eq!(text(slow.next_line().unwrap().unwrap()), number.to_string());
    }
    store(&mut slow);
    // It stands at the end of the fourth.
    assert_eq!(segments::remove_read(&log.path(), &positions).unwrap(), 3);
    let mut slow = Tail::new(&log.path(), &positions[1]);
    assert_eq!(lines(&mut slow), (5..=13).map(|number| number.to_string()).collect::<Vec<_>>());
    store(&mut slow);
    assert_eq!(segments::remove_read(&log.path(), &positions).unwrap(), 8);
    assert_eq!(log.numbers(), [Some(12), None], "the newest stays for people");
}

#[test]
fn a_number_is_not_used_again() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\n");
    let first = log.put_aside();
    log.append("two\n");
    assert_eq!(lines(&mut tail), ["one", "two"]);
    store(&mut tail);
    fs::remove_file(first).unwrap();
    assert!(log.put_aside().to_str().unwrap().ends_with(".2"));
}

#[test]
fn a_log_that_is_put_back_is_read_on() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\n");
    assert_eq!(lines(&mut tail), ["one"]);
    let aside = log.put_aside();
    assert!(lines(&mut tail).is_empty());
    segments::put_back(&log.path(), &aside).unwrap();
    log.append("two\n");
    assert_eq!(lines(&mut tail), ["two"]);
    assert_eq!(log.numbers(), [None]);
    // Where the writer has made a new one meanwhile, both stay.
    let aside = log.put_aside();
    log.append("three\n");
    segments::put_back(&log.path(), &aside).unwrap();
    assert_eq!(lines(&mut tail), ["three"]);
    assert_eq!(log.numbers().len(), 2);
}

#[test]
fn a_truncated_log_is_read_from_its_start() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\ntwo\n");
    assert_eq!(lines(&mut tail).len(), 2);
    store(&mut tail);
    fs::write(log.path(), "new\n").unwrap();
    assert_eq!(lines(&mut tail), ["new"]);
    // The same, seen by the next process.
    assert_eq!(lines(&mut log.tail()), ["new"]);
    // And where it has grown past the place already.
    fs::write(log.path(), "another that is longer\nyet another\n").unwrap();
    assert_eq!(lines(&mut log.tail()), ["another that is longer", "yet another"]);
    assert_eq!(lines(&mut tail), ["another that is longer", "yet another"]);
}

#[test]
fn a_file_that_has_the_inode_of_another_is_told_from_it() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\ntwo\n");
    lines(&mut tail);
    let mut position = tail.position();
    drop(tail);
    let aside = log.put_aside();
    log.append("three three three\n");
    // As if the first were gone and the second had its inode.
    fs::remove_file(aside).unwrap();
    position.id = segments::list(&log.path()).unwrap().last().unwrap().id;
    position.store(&log.offset("access.offset")).unwrap();
    assert_eq!(lines(&mut log.tail()), ["three three three"]);
}

#[test]
fn a_position_of_the_version_before_is_understood() {
    use std::os::unix::fs::MetadataExt as _;
    let log = Log::new();
    log.append("one\ntwo\n");
    let found = fs::metadata(log.path()).unwrap();
    let old = format!("{{\"device\":{},\"inode\":{},\"offset\":4}}", found.dev(), found.ino());
    fs::write(log.offset("access.offset"), old).unwrap();
    assert_eq!(lines(&mut log.tail()), ["two"]);
}

#[test]
fn a_line_that_is_too_long_is_skipped_and_said_once() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append(&"x".repeat(MAX_LINE_BYTES));
    log.append("\n");
    assert_eq!(text(tail.next_line().unwrap().unwrap()).len(), MAX_LINE_BYTES);
    log.append(&"x".repeat(MAX_LINE_BYTES + 1));
    assert!(lines(&mut tail).is_empty());
    store(&mut tail);
    log.append(&"x".repeat(3 * MAX_LINE_BYTES));
    log.append("\nnext\n");
    assert_eq!(lines(&mut tail), ["TOO LONG", "next"]);
    assert_eq!(lines(&mut log.tail()), ["TOO LONG", "next"]);
}

#[test]
fn what_a_finished_file_ends_with_is_a_line() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\ncut of");
    assert_eq!(lines(&mut tail), ["one"]);
    log.put_aside();
    log.append("two\n");
    assert_eq!(lines(&mut tail), ["cut of", "two"]);
}

#[test]
fn a_file_is_left_with_its_rest_handed_out() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\ntwo\nthree\n");
    assert_eq!(text(tail.next_line().unwrap().unwrap()), "one");
    assert!(!tail.leave_file(|_| unreachable!("nothing follows")).unwrap());
    log.put_aside();
    log.append("four\n");
    assert_eq!(segments::bytes_behind(&log.path(), &tail.position()).unwrap(), 15);
    let mut left = Vec::new();
    assert!(tail.leave_file(|line| left.push(text(line))).unwrap());
    assert_eq!(left, ["two", "three"]);
    assert_eq!(segments::bytes_behind(&log.path(), &tail.position()).unwrap(), 5);
    assert_eq!(lines(&mut tail), ["four"]);
    assert_eq!(segments::bytes_behind(&log.path(), &tail.position()).unwrap(), 0);
}

#[test]
fn a_reader_from_now_leaves_out_what_is_there_but_only_the_first_time() {
    let log = Log::new();
    let offset = log.offset("usage.offset");
    log.append("old\n");
    log.put_aside();
    log.append("old too\nhalf a l");
    drop(Tail::from_now(&log.path(), &offset).unwrap());
    log.append("ine\n");
    assert_eq!(lines(&mut Tail::from_now(&log.path(), &offset).unwrap()), ["half a line"]);
    // Without any log it waits for one.
    let empty = Log::new();
    let mut tail = Tail::from_now(&empty.path(), &empty.offset("usage.offset")).unwrap();
    empty.append("one\n");
    assert_eq!(lines(&mut tail), ["one"]);
}

#[test]
fn a_damaged_position_counts_as_none() {
    let log = Log::new();
    log.append("one\n");
    fs::write(log.offset("access.offset"), "{\"device\":").unwrap();
    assert_eq!(lines(&mut log.tail()), ["one"]);
    assert_eq!(lines(&mut Tail::from_now(&log.path(), &log.offset("access.offset")).unwrap()), ["one"]);
}

/// What may happen to a log and its reader.
#[derive(Debug, Clone)]
enum Event {
    Write(String),
    PutAside,
    /// Lines read; then, perhaps, the position behind the first of those not stored yet.
    Read(usize),
    Store(usize),
    Restart,
    Remove,
    Leave,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => "[a-z\n]{0,12}".prop_map(Event::Write),
        2 => Just(Event::PutAside),
        3 => (0_usize..6).prop_map(Event::Read),
        2 => (0_usize..6).prop_map(Event::Store),
        2 => Just(Event::Restart),
        1 => Just(Event::Remove),
        1 => Just(Event::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, a line is handed out once, in order, and again after a restart exactly where it lies
    /// behind the stored position.
    #[test]
    fn no_line_is_lost_and_none_comes_twice(events in prop::collection::vec(event(), 0..40)) {
        let log = Log::new();
        let positions = [log.offset("access.offset")];
        let mut tail = log.tail();
        // Everything written so far, by file; the last one is being written.
        let mut written = vec![String::new()];
        // Handed out, and how many of those are behind the stored position.
        let (mut found, mut stored, mut marks) = (Vec::new(), 0, VecDeque::new());
        for event in events.iter().chain(&[Event::Restart, Event::Read(usize::MAX)]) {
            match event {
                Event::Write(piece) => {
                    log.append(piece);
                    written.last_mut().unwrap().push_str(piece);
                }
                Event::PutAside if log.path().exists() => {
                    log.put_aside();
                    written.push(String::new());
                }
                Event::Read(count) => {
                    for _ in 0..*count {
                        let Some(line) = tail.next_line().unwrap().map(text) else { break };
                        found.push(line);
                        marks.push_back(tail.position());
                    }
                }
                Event::Leave => {
                    let mut left = Vec::new();
                    if tail.leave_file(|line| left.push(text(line))).unwrap() && !left.is_empty() {
                        marks.extend(std::iter::repeat_n(tail.position(), left.len()));
                        found.extend(left);
                    }
                }
                Event::Store(count) => {
                    let Some(mark) = count.checked_sub(1).and_then(|last| marks.get(last)).cloned() else { continue };
                    // Lines that were left together share one position.
                    let count = marks.iter().rposition(|found| *found == mark).unwrap() + 1;
                    tail.store(&mark).unwrap();
                    stored += count;
                    marks.drain(..count);
                }
                Event::Restart => {
                    tail = log.tail();
                    found.truncate(stored);
                    marks.clear();
                }
                Event::Remove => {
                    segments::remove_read(&log.path(), &positions).unwrap();
                }
                Event::PutAside => {}
            }
        }
        let last = written.len() - 1;
        let expected: Vec<_> = written.iter().enumerate().flat_map(|(index, text)| {
            let whole = text.split_inclusive('\n').map(|line| line.strip_suffix('\n').ok_or(line));
            // The end of a finished file is a line; the one being written is not finished.
            whole.filter_map(move |line| match line {
                Ok(line) => Some(line),
                Err(rest) => (index < last).then_some(rest),
            })
        }).collect();
        let finished = log.path().exists();
        if finished {
            prop_assert_eq!(found, expected);
        } else {
            // The last one put aside may still be written to: what it ends with is no line yet.
            let open = expected.len().saturating_sub(usize::from(!written[last.saturating_sub(1)].ends_with('\n') && !written[last.saturating_sub(1)].is_empty()));
            prop_assert_eq!(found, &expected[..open]);
        }
    }

    /// A log that is truncated from outside loses nothing that is written afterwards.
    #[test]
    fn what_is_written_after_a_truncation_comes_once(
        before in prop::collection::vec("[a-z]{0,300}", 0..6),
        read in any::<bool>(),
        after in prop::collection::vec("[A-Z]{1,300}", 1..6),
        restart in any::<bool>(),
    ) {
        let log = Log::new();
        let mut tail = log.tail();
        let whole = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        log.append(&whole(&before));
        if read {
            prop_assert_eq!(&lines(&mut tail), &before);
        }
        store(&mut tail);
        fs::write(log.path(), whole(&after)).unwrap();
        if restart {
            tail = log.tail();
        }
        prop_assert_eq!(lines(&mut tail), after);
    }
}
