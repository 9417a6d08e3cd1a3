//! A line of a log and the cursor of a page (a zero byte between them): no panic, what is cleaned is clean when it is
//! cleaned again, and a cursor is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::log_line;
use sigilum::domain::log_redaction::LogRedactor;
use sigilum::telemetry::segments::Position;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let mut line = log_line::parse(parts.next().unwrap_or_default(), false);
    LogRedactor::default().clean(&mut line);
    let _ = log_line::nanos(&line);
    let cursor = parts.next().and_then(|cursor| std::str::from_utf8(cursor).ok()).unwrap_or_default();
    if let Some(position) = Position::parse(cursor) {
        assert_eq!(Position::parse(&position.encode()), Some(position));
    }
});
