#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

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

    fn tail(&self) -> Tail {
        Tail::new(&self.path(), &self.folder.path().join("access.offset"))
    }

    fn append(&self, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

fn lines(tail: &mut Tail) -> Vec<String> {
    let mut found = Vec::new();
    while tail
        .read(|line| found.push(line.map_or("TOO LONG".to_owned(), |line| String::from_utf8_lossy(line).into_owned())))
        .unwrap()
    {}
    found
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
fn a_restart_goes_on_at_the_first_line_that_was_not_whole() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\ntw");
    assert_eq!(lines(&mut tail), ["one"]);
    tail.store_position().unwrap();
    drop(tail);
    log.append("o\n");
    assert_eq!(lines(&mut log.tail()), ["two"]);
}

#[test]
fn a_rotated_log_is_read_to_its_end_and_then_the_new_one() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\n");
    assert_eq!(lines(&mut tail), ["one"]);
    tail.store_position().unwrap();
    fs::rename(log.path(), put_aside(&log.path())).unwrap();
    assert!(lines(&mut tail).is_empty());
    let mut old = OpenOptions::new().append(true).open(put_aside(&log.path())).unwrap();
    old.write_all(b"two\n").unwrap();
    log.append("three\n");
    // A reader that starts now finds its place in the one put aside, too.
    assert_eq!(lines(&mut log.tail()), ["two", "three"]);
    assert_eq!(lines(&mut tail), ["two", "three"]);
    tail.store_position().unwrap();
    log.append("four\n");
    assert_eq!(lines(&mut log.tail()), ["four"]);
}

#[test]
fn a_truncated_log_is_read_from_its_start() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append("one\ntwo\n");
    assert_eq!(lines(&mut tail).len(), 2);
    tail.store_position().unwrap();
    fs::write(log.path(), "new\n").unwrap();
    assert_eq!(lines(&mut tail), ["new"]);
    // The same, seen by the next process.
    let mut tail = log.tail();
    assert_eq!(lines(&mut tail), ["new"]);
}

#[test]
fn a_line_that_is_too_long_is_skipped_and_said() {
    let log = Log::new();
    let mut tail = log.tail();
    log.append(&"x".repeat(MAX_LINE_BYTES + 1));
    assert_eq!(lines(&mut tail), ["TOO LONG"]);
    log.append(&"x".repeat(3 * MAX_LINE_BYTES));
    log.append("\nnext\n");
    assert_eq!(lines(&mut tail), ["next"]);
}

#[test]
fn a_damaged_position_counts_as_none() {
    let log = Log::new();
    log.append("one\n");
    fs::write(log.folder.path().join("access.offset"), "{\"device\":").unwrap();
    assert_eq!(lines(&mut log.tail()), ["one"]);
}

#[test]
fn numbers_may_come_as_text_and_unknown_members_do_not_matter() {
    let plain =
        br#"{"decision_id":"d","connection":"linear","status":200,"duration_ms":12,"bytes_sent":7,"other":"/x"}"#;
    let text = br#"{"decision_id":"d","connection":"linear","status":"200","duration_ms":"12","bytes_sent":"7","reason":null}"#;
    let entry = AccessEntry::parse(plain).unwrap();
    assert_eq!(AccessEntry::parse(text).unwrap(), entry);
    assert!(entry.was_forwarded() && entry.status == 200 && entry.duration_ms == 12);
    assert!(AccessEntry::parse(b"not json").is_none());
}

/// What Envoy writes and what is read of it are told apart by name only.
#[test]
fn every_field_that_is_read_is_written() {
    let bootstrap = include_str!("../../envoy/envoy.yaml");
    let (_, format) = bootstrap.split_once("json_format:").unwrap();
    let names = format.lines().skip(1).map_while(|line| line.trim().split_once(": \"").map(|(name, _)| name));
    let written: serde_json::Map<_, _> = names.map(|name| (name.to_owned(), "7".into())).collect();
    assert!(written.len() > 20, "{written:?}");
    let entry = AccessEntry::parse(serde_json::to_string(&written).unwrap().as_bytes()).unwrap();
    let seven = || "7".to_owned();
    let expected = AccessEntry {
        timestamp: seven(),
        decision_id: seven(),
        connection: seven(),
        path: seven(),
        namespace: seven(),
        subject: seven(),
        agent_key: seven(),
        public_key: seven(),
        agent_id: seven(),
        method: seven(),
        reason: seven(),
        code: seven(),
        status: 7,
        duration_ms: 7,
        bytes_sent: 7,
        client_address: seven(),
    };
    assert_eq!(entry, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However a log arrives in pieces, and whenever the reader restarts, each line comes exactly once.
    #[test]
    fn every_line_comes_exactly_once(pieces in prop::collection::vec(("[a-z\n]{0,12}", any::<bool>()), 0..12)) {
        let log = Log::new();
        let mut tail = log.tail();
        let mut found = Vec::new();
        for (piece, restart) in &pieces {
            log.append(piece);
            found.extend(lines(&mut tail));
            if *restart {
                tail.store_position().unwrap();
                tail = log.tail();
            }
        }
        let whole: String = pieces.iter().map(|(piece, _)| piece.as_str()).collect();
        let expected: Vec<_> = whole.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_line_is_judged(line in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = AccessEntry::parse(&line);
    }
}
