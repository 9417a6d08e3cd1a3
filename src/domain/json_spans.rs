//! Where the texts of a JSON document stand, to the byte: so that one of them is replaced and nothing else changes. Pure.
//!
//! A parser that writes the document anew would lose its layout, the order of members and numbers as they were written.

use std::ops::Range;

use crate::domain::secret::Secret;

/// Deepest nesting, as in serde_json.
const MAX_DEPTH: usize = 127;

/// Why a document was not read. The place and never the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no plain JSON (byte {at})")]
pub struct NoJson {
    /// Offset of what is wrong.
    pub at: usize,
}

/// One member or entry that is a text.
#[derive(Debug)]
pub struct Text<'a> {
    /// Names of the members, and places in lists, that lead to it.
    pub path: &'a [String],
    /// It, without escapes.
    pub value: Secret,
    /// Where it stands, quotes included.
    pub span: Range<usize>,
}

/// Calls `found` with each text of the document, in its order. Names of members are none. What was found before a mistake is
/// worth nothing.
pub fn texts(document: &[u8], mut found: impl FnMut(Text<'_>)) -> Result<(), NoJson> {
    let mut walk = Walk { document, at: 0, path: Vec::new(), found: &mut found };
    walk.value(0)?;
    walk.blanks();
    if walk.at == document.len() { Ok(()) } else { Err(walk.wrong()) }
}

struct Walk<'a, F> {
    document: &'a [u8],
    at: usize,
    path: Vec<String>,
    found: &'a mut F,
}

impl<F: FnMut(Text<'_>)> Walk<'_, F> {
    const fn wrong(&self) -> NoJson {
        NoJson { at: self.at }
    }

    fn next(&self) -> Option<u8> {
        self.document.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at = self.at.saturating_add(1);
        }
    }

    /// Steps over this byte, where it is next.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        if is_next {
            self.at = self.at.saturating_add(1);
        }
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<(), NoJson> {
        if depth > MAX_DEPTH {
            return Err(self.wrong());
        }
        self.blanks();
        match self.next() {
            Some(b'"') => {
                let (value, span) = self.text()?;
                (self.found)(Text { path: &self.path, value, span });
                Ok(())
            }
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) | None => Err(self.wrong()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), NoJson> {
        self.takes(b'{');
        self.blanks();
        if self.takes(b'}') {
            return Ok(());
        }
        loop {
            self.blanks();
            let (name, _) = self.text()?;
            self.blanks();
            if !self.takes(b':') {
                return Err(self.wrong());
            }
            self.path.push(name.expose().to_owned());
            self.value(depth.saturating_add(1))?;
            self.path.pop();
            self.blanks();
            if self.takes(b'}') {
                return Ok(());
            }
            if !self.takes(b',') {
                return Err(self.wrong());
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), NoJson> {
        self.takes(b'[');
        self.blanks();
        if self.takes(b']') {
            return Ok(());
        }
        let mut place: usize = 0;
        loop {
            self.path.push(place.to_string());
            self.value(depth.saturating_add(1))?;
            self.path.pop();
            place = place.saturating_add(1);
            self.blanks();
            if self.takes(b']') {
                return Ok(());
            }
            if !self.takes(b',') {
                return Err(self.wrong());
            }
        }
    }

    /// A text in quotes. serde_json takes the escapes out, so that both mean the same by it.
    fn text(&mut self) -> Result<(Secret, Range<usize>), NoJson> {
        let start = self.at;
        if !self.takes(b'"') {
            return Err(self.wrong());
        }
        loop {
            match self.next() {
                Some(b'"') => break,
                Some(b'\\') => self.at = self.at.saturating_add(2),
                Some(_) => self.at = self.at.saturating_add(1),
                None => return Err(NoJson { at: start }),
            }
        }
        self.at = self.at.saturating_add(1);
        let span = start..self.at;
        let quoted = self.document.get(span.clone()).unwrap_or_default();
        let text = serde_json::from_slice::<String>(quoted).map_err(|_| NoJson { at: start })?;
        Ok((Secret::new(text), span))
    }

    fn word(&mut self, word: &[u8]) -> Result<(), NoJson> {
        let rest = self.document.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(self.wrong());
        }
        self.at = self.at.saturating_add(word.len());
        Ok(())
    }

    fn digits(&mut self) -> Result<(), NoJson> {
        let start = self.at;
        while matches!(self.next(), Some(b'0'..=b'9')) {
            self.at = self.at.saturating_add(1);
        }
        if self.at == start { Err(self.wrong()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), NoJson> {
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            if !self.takes(b'+') {
                self.takes(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }
}

/// The bytes with each of these spans replaced by `blank`. Spans must not overlap; one that does, or that lies outside, is
/// passed over.
pub fn blanked(bytes: &[u8], spans: &[Range<usize>], blank: &[u8]) -> Vec<u8> {
    let mut spans: Vec<_> = spans.iter().filter(|span| span.start <= span.end && span.end <= bytes.len()).collect();
    spans.sort_by_key(|span| (span.start, span.end));
    let mut left = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for span in spans {
        if span.start < at {
            continue;
        }
        left.extend_from_slice(bytes.get(at..span.start).unwrap_or_default());
        left.extend_from_slice(blank);
        at = span.end;
    }
    left.extend_from_slice(bytes.get(at..).unwrap_or_default());
    left
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Path, text and place.
    type Read = (Vec<String>, String, Range<usize>);

    fn read(document: &[u8]) -> Option<Vec<Read>> {
        let mut all = Vec::new();
        let read = texts(document, |text| {
            all.push((text.path.to_vec(), text.value.expose().to_owned(), text.span));
        });
        read.ok().map(|()| all)
    }

    fn flat(value: &Value, path: &mut Vec<String>, all: &mut Vec<(Vec<String>, String)>) {
        match value {
            Value::String(text) => all.push((path.clone(), text.clone())),
            Value::Array(entries) => {
                for (place, entry) in entries.iter().enumerate() {
                    path.push(place.to_string());
                    flat(entry, path, all);
                    path.pop();
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    path.push(name.clone());
                    flat(member, path, all);
                    path.pop();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((".{0,6}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn texts_are_found_where_they_stand() {
        let document = br#" {"a": ["x", {"b\n": "\u00e9\""}], "c" : -1.5e+3, "a":"z"} "#;
        let found = read(document).unwrap();
        let shown: Vec<_> = found.iter().map(|(path, text, _)| (path.join("."), text.as_str())).collect();
        let expected = [("a.0".to_owned(), "x"), ("a.1.b\n".to_owned(), "\u{e9}\""), ("a".to_owned(), "z")];
        assert_eq!(shown, expected);
        assert_eq!(&document[found[1].2.clone()], br#""\u00e9\"""#);
        for bad in [
            "",
            "{",
            "[1,]",
            "{a:1}",
            "{\"a\":1,}",
            "\"a",
            "'a'",
            "01",
            "1.",
            "-",
            "1e",
            "tru",
            "// x\n1",
            "\"\\ud800\"",
            "1 2",
        ] {
            assert!(read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(read("[".repeat(200_000).as_bytes()).is_none());
        assert!(read(b"\"\xff\"").is_none() && read(b"\"a\nb\"").is_none() && read(b"\"a\\").is_none());
    }

    proptest! {
        #[test]
        fn what_serde_json_reads_is_read_alike(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let found = read(text.as_bytes()).unwrap();
            let mut theirs = Vec::new();
            flat(&value, &mut Vec::new(), &mut theirs);
            let ours: Vec<_> = found.iter().map(|(path, text, _)| (path.clone(), text.clone())).collect();
            prop_assert_eq!(ours, theirs);
            // Each text can be taken out; what was around it is still there, and it is still JSON.
            for (_, _, span) in &found {
                let left = blanked(text.as_bytes(), std::slice::from_ref(span), b"\"\"");
                prop_assert_eq!(&left[..span.start], &text.as_bytes()[..span.start]);
                prop_assert_eq!(&left[span.start + 2..], &text.as_bytes()[span.end..]);
                prop_assert_eq!(read(&left).unwrap().len(), found.len());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(document in prop::collection::vec(
            prop_oneof![prop::sample::select(b"{}[]\",:\\ aetn10.-u".to_vec()), any::<u8>()],
            0..80,
        )) {
            let theirs = serde_json::from_slice::<Value>(&document);
            match theirs {
                Ok(_) => prop_assert!(read(&document).is_some()),
                // A number that fits nowhere is no mistake here.
                Err(error) if error.to_string().contains("out of range") => {}
                Err(_) => prop_assert!(read(&document).is_none()),
            }
        }
    }
}
