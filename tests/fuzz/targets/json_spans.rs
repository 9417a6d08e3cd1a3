//! Texts of a JSON document: no panic, each span is what serde_json reads there, and taking one out leaves the rest as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::json_spans;

fuzz_target!(|document: &[u8]| {
    let mut found = Vec::new();
    let read = json_spans::texts(document, |text| found.push((text.value, text.span)));
    let theirs = serde_json::from_slice::<serde_json::Value>(document);
    assert!(read.is_ok() || theirs.is_err());
    if read.is_err() {
        return;
    }
    let mut last = 0;
    for (value, span) in &found {
        assert!(span.start >= last && span.end <= document.len());
        last = span.end;
        let text: String = serde_json::from_slice(&document[span.clone()]).expect("a text stands there");
        assert_eq!(text, value.expose());
    }
    let spans: Vec<_> = found.iter().map(|(_, span)| span.clone()).collect();
    let blank = json_spans::blanked(document, &spans, b"\"\"");
    assert!(blank.len() <= document.len());
    let mut count = 0;
    let again = json_spans::texts(&blank, |text| {
        assert!(text.value.is_empty());
        count += 1;
    });
    assert!(again.is_ok() && count == found.len());
});
