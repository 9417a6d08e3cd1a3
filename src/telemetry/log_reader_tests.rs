#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "test code may panic")]

use std::fs;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::config::parts::LogBounds;
use crate::telemetry::log_file::LogFile;

const STREAM: LogStream = LogStream::Authz;
const ALL: PageSize = PageSize { lines: MAX_LINES, bytes: MAX_BYTES };

struct Fixture {
    _folder: TempDir,
    places: LogPlaces,
    file: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        let places = LogPlaces { data_dir: folder.path().to_owned(), run_dir: folder.path().join("run") };
        let file = places.file(STREAM);
        Self { _folder: folder, places, file }
    }

    fn writer(&self, max_bytes: u64, keep: usize) -> LogFile {
        LogFile::open(&self.file, LogBounds { max_bytes, keep }).unwrap()
    }

    fn read(&self, start: &Start, size: PageSize) -> Page {
        read(&self.places, STREAM, start, size, &LogFilter::default()).unwrap()
    }
}

fn line(number: u64) -> String {
    format!("{{\"n\":{number}}}")
}

fn numbers(page: &Page) -> Vec<u64> {
    page.lines.iter().map(|line| line["n"].as_u64().unwrap()).collect()
}

fn add(path: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_log_that_rotates_while_it_is_read_gives_every_line_once_and_in_order() {
    const LINES: u64 = 1200;
    let fixture = Fixture::new();
    // Three lines to a file; what is put aside is kept, so that only the reading could lose one.
    let writer = fixture.writer(30, 100_000);
    let writing = thread::spawn(move || (0..LINES).for_each(|number| writer.append(line(number).as_bytes()).unwrap()));
    let (mut seen, mut start) = (Vec::new(), Start::Oldest);
    // Only so much is taken at a time that the reader is in the middle of a file as well.
    let size = PageSize { lines: 7, bytes: MAX_BYTES };
    loop {
        let written = writing.is_finished();
        let page = fixture.read(&start, size);
        assert!(!page.reset);
        seen.extend(numbers(&page));
        start = Start::After(page.next);
        if written && page.lines.is_empty() && !page.more {
            break;
        }
    }
    assert_eq!(seen, (0..LINES).collect::<Vec<_>>());
}

#[test]
fn the_last_lines_reach_back_over_files_that_were_put_aside() {
    let fixture = Fixture::new();
    let writer = fixture.writer(30, 100);
    (0..50).for_each(|number| writer.append(line(number).as_bytes()).unwrap());
    let page = fixture.read(&Start::Newest, PageSize { lines: 10, bytes: MAX_BYTES });
    assert_eq!(numbers(&page), (40..50).collect::<Vec<_>>());
    writer.append(line(50).as_bytes()).unwrap();
    assert_eq!(numbers(&fixture.read(&Start::After(page.next), ALL)), [50]);
}

#[test]
fn bytes_bound_the_last_lines_as_well() {
    let fixture = Fixture::new();
    let writer = fixture.writer(1 << 20, 1);
    (10..60).for_each(|number| writer.append(line(number).as_bytes()).unwrap());
    let page = fixture.read(&Start::Newest, PageSize { lines: 100, bytes: 35 });
    assert_eq!((numbers(&page), page.truncated), (vec![57, 58, 59], true));
}

#[test]
fn half_a_line_waits_until_it_is_whole() {
    let fixture = Fixture::new();
    add(&fixture.file, "{\"n\":1}\n{\"n\"");
    let page = fixture.read(&Start::Newest, ALL);
    assert_eq!(numbers(&page), [1]);
    let again = fixture.read(&Start::After(page.next), ALL);
    assert!(again.lines.is_empty());
    add(&fixture.file, ":2}\n");
    assert_eq!(numbers(&fixture.read(&Start::After(again.next), ALL)), [2]);
}

#[test]
fn a_truncated_file_is_read_anew_and_said() {
    let fixture = Fixture::new();
    add(&fixture.file, "{\"n\":1}\n{\"n\":2}\n");
    let page = fixture.read(&Start::Newest, ALL);
    OpenOptions::new().write(true).open(&fixture.file).unwrap().set_len(0).unwrap();
    add(&fixture.file, "{\"n\":3}\n");
    let anew = fixture.read(&Start::After(page.next), ALL);
    assert_eq!((numbers(&anew), anew.reset), (vec![3], true));
    let after = fixture.read(&Start::After(anew.next), ALL);
    assert!(!after.reset && after.lines.is_empty());
}

#[test]
fn a_file_that_grew_past_the_place_after_it_was_truncated_is_read_anew() {
    let fixture = Fixture::new();
    add(&fixture.file, "{\"n\":1}\n");
    let page = fixture.read(&Start::Newest, ALL);
    OpenOptions::new().write(true).open(&fixture.file).unwrap().set_len(0).unwrap();
    add(&fixture.file, "{\"n\":2}\n{\"n\":3}\n");
    let anew = fixture.read(&Start::After(page.next), ALL);
    assert_eq!((numbers(&anew), anew.reset), (vec![2, 3], true));
}

#[test]
fn a_replaced_file_is_read_anew_and_said() {
    let fixture = Fixture::new();
    add(&fixture.file, "{\"n\":1}\n");
    let page = fixture.read(&Start::Newest, ALL);
    let other = fixture.file.with_extension("new");
    add(&other, "{\"n\":2}\n");
    fs::rename(&other, &fixture.file).unwrap();
    let anew = fixture.read(&Start::After(page.next), ALL);
    assert_eq!((numbers(&anew), anew.reset), (vec![2], true));
}

#[test]
fn what_was_removed_before_it_was_read_is_said() {
    let fixture = Fixture::new();
    let writer = fixture.writer(16, 1);
    writer.append(line(1).as_bytes()).unwrap();
    let page = fixture.read(&Start::Newest, ALL);
    (2..20).for_each(|number| writer.append(line(number).as_bytes()).unwrap());
    let next = fixture.read(&Start::After(page.next), ALL);
    assert!(next.reset && numbers(&next).ends_with(&[18, 19]), "{next:?}");
}

#[test]
fn a_line_of_ten_megabytes_is_cut_and_said() {
    let fixture = Fixture::new();
    add(&fixture.file, &format!("{{\"n\":\"{}\"}}\n{{\"n\":2}}\n", "x".repeat(10 << 20)));
    for start in [Start::Newest, Start::Oldest] {
        let page = fixture.read(&start, ALL);
        assert!(page.truncated && page.lines.len() == 2);
        assert_eq!(page.lines[0][log_line::TRUNCATED], true);
        assert_eq!(page.lines[0]["message"].as_str().unwrap().len(), MAX_LINE);
        assert_eq!(page.lines[1]["n"], 2);
    }
}

#[test]
fn a_log_that_is_not_there_yet_is_followed_from_its_first_line() {
    let fixture = Fixture::new();
    let page = fixture.read(&Start::Newest, ALL);
    assert_eq!((page.lines.len(), page.reset, page.size), (0, false, 0));
    add(&fixture.file, "{\"n\":1}\n");
    let next = fixture.read(&Start::After(page.next), ALL);
    assert_eq!((numbers(&next), next.reset), (vec![1], false));
}

#[test]
fn only_what_passes_the_filter_counts() {
    let fixture = Fixture::new();
    (0..100)
        .for_each(|number| add(&fixture.file, &format!("{{\"n\":{number},\"request_id\":\"r{}\"}}\n", number % 10)));
    let filter = LogFilter { ids: vec!["r3".to_owned()], ..LogFilter::default() };
    let page = read(&fixture.places, STREAM, &Start::Oldest, PageSize { lines: 4, bytes: MAX_BYTES }, &filter).unwrap();
    assert_eq!(numbers(&page), [3, 13, 23, 33]);
}

#[test]
fn the_access_log_is_cleaned_when_it_is_read() {
    let fixture = Fixture::new();
    fs::create_dir(&fixture.places.run_dir).unwrap();
    add(&fixture.places.file(LogStream::Access), "{\"path\":\"/v1/sk-live-0123456789\",\"status\":200}\n");
    let page = read(&fixture.places, LogStream::Access, &Start::Newest, ALL, &LogFilter::default()).unwrap();
    assert_eq!(serde_json::to_string(&page.lines).unwrap(), r#"[{"path":"/v1/[redacted]","status":200}]"#);
}

#[test]
fn what_is_put_in_the_place_of_a_log_is_neither_shown_nor_waited_for() {
    let fixture = Fixture::new();
    let secret = fixture.file.with_file_name("key");
    add(&secret, "{\"n\":7}\n");
    std::os::unix::fs::symlink(&secret, &fixture.file).unwrap();
    let shown = || read(&fixture.places, STREAM, &Start::Newest, ALL, &LogFilter::default());
    assert!(shown().is_err(), "a link was followed");
    fs::remove_file(&fixture.file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &fixture.file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(shown().is_err(), "a pipe was read");
}
