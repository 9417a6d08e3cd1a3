//! `.env` files: no panic, lines stand in order and inside the file, and what is taken out is gone and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::config::dotenv;

fuzz_target!(|file: &[u8]| {
    let count = file.split(|byte| *byte == b'\n').count();
    let found = dotenv::parse(file);
    let mut last = 0;
    for assignment in &found {
        assert!(*assignment.lines.start() > last && assignment.lines.start() <= assignment.lines.end());
        last = *assignment.lines.end();
    }
    assert!(last <= count);
    let all: Vec<_> = found.iter().map(|assignment| assignment.lines.clone()).collect();
    let rest = dotenv::without(file, &all);
    assert!(rest.len() <= file.len());
    assert_eq!(dotenv::without(file, &[]), file);
});
