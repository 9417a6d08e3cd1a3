//! `.env` files of other programs: which variable is set on which lines, to what. Pure.
//!
//! There is no standard. What is read here is what the common readers agree on: `NAME=value`, with `export` or without;
//! `#` comments; values in `'…'`, `"…"` or `` `…` ``, also over several lines, with the escapes `\n`, `\r`, `\t`, `\\`,
//! `\"` and `\$` in double quotes. Where they disagree (what follows a closing quote, a quote that is not closed, a value
//! made of other variables) nothing is guessed: [`Value`] says so.

use std::ops::Range;
use std::ops::RangeInclusive;

use crate::domain::secret::Secret;

/// Largest file that is read, in bytes: a thousand times what people have.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// The mark some editors write at the beginning of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One variable that is set.
#[derive(Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its name: ASCII letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// What to.
    pub value: Value,
    /// On which lines, counted from 1.
    pub lines: RangeInclusive<usize>,
    /// Which bytes of the file are its value, quotes included and a comment not. Only for [`Value::Text`].
    pub span: Range<usize>,
}

/// What a variable is set to.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// This text; empty where nothing stands there.
    Text(Secret),
    /// What other variables or commands say.
    Reference,
    /// Readers disagree on what; why.
    Unclear(&'static str),
}

/// Everything the file sets, in its order. What is no assignment is passed over, as all readers do.
pub fn parse(file: &[u8]) -> Vec<Assignment> {
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    let mut begin = file.len().saturating_sub(text.len());
    let (mut lines, mut begins) = (Vec::new(), Vec::new());
    for line in text.split(|byte| *byte == b'\n') {
        lines.push(line.strip_suffix(b"\r").unwrap_or(line));
        begins.push(begin);
        begin = begin.saturating_add(line.len()).saturating_add(1);
    }
    let begin_of = |line: usize| begins.get(line).copied().unwrap_or(file.len());
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let Some((name, rest)) = head(line) else {
            at = at.saturating_add(1);
            continue;
        };
        let start = begin_of(at).saturating_add(line.len().saturating_sub(rest.len()));
        let (value, more, end) = match rest.first() {
            Some(quote @ (b'\'' | b'"' | b'`')) => {
                let following = lines.get(at.saturating_add(1)..).unwrap_or_default();
                let (value, more, end) = quoted(*quote, rest.get(1..).unwrap_or_default(), following);
                // Counted from behind the quote on its own line, from the beginning of every other.
                let from = if more == 0 { start.saturating_add(1) } else { begin_of(at.saturating_add(more)) };
                (value, more, from.saturating_add(end))
            }
            Some(_) | None => {
                let (value, length) = plain(rest);
                (value, 0, start.saturating_add(length))
            }
        };
        let first = at.saturating_add(1);
        let last = first.saturating_add(more);
        found.push(Assignment { name, value, lines: first..=last, span: start..end });
        at = last;
    }
    found
}

/// The file without these lines; all others stay byte for byte, and so does a mark at the beginning.
pub fn without(file: &[u8], lines: &[RangeInclusive<usize>]) -> Vec<u8> {
    let (mark, rest) = match file.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => (BYTE_ORDER_MARK, rest),
        None => (&[][..], file),
    };
    let mut kept = Vec::with_capacity(file.len());
    kept.extend_from_slice(mark);
    for (index, line) in rest.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = index.saturating_add(1);
        if !lines.iter().any(|range| range.contains(&number)) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// The name a line sets, and what stands behind the sign of equality.
fn head(line: &[u8]) -> Option<(String, &[u8])> {
    let line = line.trim_ascii_start();
    let line = match line.strip_prefix(b"export") {
        Some(rest) if rest.first().is_some_and(u8::is_ascii_whitespace) => rest.trim_ascii_start(),
        Some(_) | None => line,
    };
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let name = line.get(..equals)?.trim_ascii_end();
    let begins = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let clean = name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte));
    if !begins || !clean {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?.to_owned();
    Some((name, line.get(equals.saturating_add(1)..)?.trim_ascii_start()))
}

/// A value without quotes: to the end of the line or to a comment; and its length.
fn plain(rest: &[u8]) -> (Value, usize) {
    let mut before = b' ';
    let mut end = rest.len();
    for (at, byte) in rest.iter().enumerate() {
        if *byte == b'#' && before.is_ascii_whitespace() {
            end = at;
            break;
        }
        before = *byte;
    }
    let bytes = rest.get(..end).unwrap_or_default().trim_ascii_end();
    if has_reference(bytes) {
        return (Value::Reference, bytes.len());
    }
    (text(bytes.to_vec()), bytes.len())
}

/// A value that begins with a quote, how many more lines it takes, and where on the last one it ends.
fn quoted(quote: u8, first: &[u8], following: &[&[u8]]) -> (Value, usize, usize) {
    const UNCLOSED: Value = Value::Unclear("its quote is not closed");
    let mut bytes = Vec::new();
    let mut refers = false;
    for (more, line) in std::iter::once(&first).chain(following).enumerate() {
        let mut at = 0;
        while let Some(byte) = line.get(at).copied() {
            let next = line.get(at.saturating_add(1)).copied();
            match byte {
                b'\\' if quote == b'"' => {
                    match next {
                        Some(b'n') => bytes.push(b'\n'),
                        Some(b'r') => bytes.push(b'\r'),
                        Some(b't') => bytes.push(b'\t'),
                        Some(kept @ (b'\\' | b'"' | b'$')) => bytes.push(kept),
                        Some(other) => bytes.extend([b'\\', other]),
                        None => bytes.push(b'\\'),
                    }
                    at = at.saturating_add(1);
                }
                byte if byte == quote => {
                    let end = at.saturating_add(1);
                    let rest = line.get(end..).unwrap_or_default().trim_ascii_start();
                    return match rest.first() {
                        None | Some(b'#') if refers => (Value::Reference, more, end),
                        None | Some(b'#') => (text(bytes), more, end),
                        Some(_) if more == 0 => (Value::Unclear("something stands behind its closing quote"), 0, end),
                        // That quote belongs to another value: the first one was never closed.
                        Some(_) => (UNCLOSED, 0, first.len()),
                    };
                }
                byte => {
                    refers |= quote == b'"' && byte == b'$' && next.is_some_and(begins_reference);
                    bytes.push(byte);
                }
            }
            at = at.saturating_add(1);
        }
        bytes.push(b'\n');
    }
    (UNCLOSED, 0, first.len())
}

fn has_reference(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| matches!(pair, [b'$', next] if begins_reference(*next)))
}

const fn begins_reference(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'{' | b'(')
}

fn text(bytes: Vec<u8>) -> Value {
    match String::from_utf8(bytes) {
        Ok(text) => Value::Text(Secret::new(text)),
        Err(_) => Value::Unclear("it is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    /// Name, value (or what is unclear) and lines of each assignment.
    fn read(file: &[u8]) -> Vec<(String, String, usize, usize)> {
        let shown = |value: &Value| match value {
            Value::Text(text) => text.expose().to_owned(),
            Value::Reference => "(reference)".to_owned(),
            Value::Unclear(why) => format!("({why})"),
        };
        let row = |it: Assignment| (it.name, shown(&it.value), *it.lines.start(), *it.lines.end());
        parse(file).into_iter().map(row).collect()
    }

    fn one(line: &str) -> String {
        let mut found = read(line.as_bytes());
        assert_eq!(found.len(), 1, "{line:?}: {found:?}");
        found.remove(0).1
    }

    #[test]
    fn values_are_read_as_the_common_readers_read_them() {
        for (line, value) in [
            ("A=b", "b"),
            ("A = b ", "b"),
            ("  export A=b", "b"),
            ("export\tA=b\r", "b"),
            ("A=", ""),
            ("A= # nothing", ""),
            ("A=b#c", "b#c"),
            ("A=b #c", "b"),
            ("A=b c", "b c"),
            ("A='b #c' # d", "b #c"),
            ("A=\"b #c\"# d", "b #c"),
            ("A=`b'\"c`", "b'\"c"),
            (r#"A="b\n\t\"\\\$X\q""#, "b\n\t\"\\$X\\q"),
            (r"A='b\n$X'", r"b\n$X"),
            ("A=b=c==", "b=c=="),
            ("A=$X", "(reference)"),
            ("A=a${X}b", "(reference)"),
            ("A=\"$(cat key)\"", "(reference)"),
            ("A=cash$", "cash$"),
            ("A=$5", "$5"),
            ("A='b", "(its quote is not closed)"),
            ("A=\"b\"c", "(something stands behind its closing quote)"),
            ("A.b-c=d", "d"),
            ("exported=1", "1"),
            ("A=ä", "ä"),
        ] {
            assert_eq!(one(line), value, "{line:?}");
        }
        for nothing in ["", "#A=b", " # A=b", "A", "1A=b", "A B=c", "=b", "Ä=b", "- A=b", "export", "export A"] {
            assert_eq!(read(nothing.as_bytes()), [], "{nothing:?}");
        }
    }

    #[test]
    fn every_assignment_knows_its_lines() {
        let file = b"\xef\xbb\xbfA=1\r\n# B=2\r\nC=\"x\r\ny\"\r\n\r\nD='\nE=3\n'\nA=4";
        let expected = [("A", "1", 1, 1), ("C", "x\ny", 3, 4), ("D", "\nE=3\n", 6, 8), ("A", "4", 9, 9)];
        let expected = expected.map(|(name, value, first, last)| (name.to_owned(), value.to_owned(), first, last));
        assert_eq!(read(file), expected);
    }

    #[test]
    fn a_quote_that_is_not_closed_swallows_nothing() {
        let file = b"A=\"oops\nB=\"fine\"\nC=3\n";
        let names: Vec<_> = read(file).into_iter().map(|(name, value, ..)| (name, value)).collect();
        let unclosed = "(its quote is not closed)".to_owned();
        let expected =
            [("A".to_owned(), unclosed), ("B".to_owned(), "fine".to_owned()), ("C".to_owned(), "3".to_owned())];
        assert_eq!(names, expected);
        assert_eq!(read(b"A=\xff\n")[0].1, "(it is not UTF-8)");
    }

    #[test]
    fn only_the_named_lines_go() {
        let file = b"\xef\xbb\xbfA=1\r\nB=2\n\nC='x\ny'\nD";
        assert_eq!(without(file, &[1..=1, 4..=5]), b"\xef\xbb\xbfB=2\n\nD");
        assert_eq!(without(file, &[]), file);
        assert_eq!(without(b"A=1\nB=2", &[2..=2]), b"A=1\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_lines_stay_in_order(file in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b'\''), Just(b'\n'), Just(b'='), Just(b'A'), Just(b'\\'), Just(b'#'), any::<u8>()],
            0..400,
        )) {
            let count = file.split(|byte| *byte == b'\n').count();
            let mut last = 0;
            for assignment in parse(&file) {
                prop_assert!(*assignment.lines.start() > last && assignment.lines.end() >= assignment.lines.start());
                last = *assignment.lines.end();
            }
            prop_assert!(last <= count);
        }

        #[test]
        fn a_value_that_is_taken_out_leaves_all_others(file in proptest::collection::vec(
            prop_oneof![
                Just(b'"'), Just(b'\''), Just(b'\n'), Just(b'\r'), Just(b'='), Just(b'A'), Just(b'\\'), Just(b'#'),
                Just(b' '), any::<u8>(),
            ],
            0..200,
        )) {
            let found = parse(&file);
            for (index, assignment) in found.iter().enumerate() {
                prop_assert!(assignment.span.start <= assignment.span.end && assignment.span.end <= file.len());
                let Value::Text(text) = &assignment.value else { continue };
                let span = assignment.span.clone();
                if !text.is_empty() {
                    prop_assert!(!span.is_empty());
                }
                let rest = [&file[..span.start], &file[span.end..]].concat();
                let left = parse(&rest);
                prop_assert_eq!(left.len(), found.len());
                for (at, (left, found)) in left.iter().zip(&found).enumerate() {
                    let expected = if at == index { &Value::Text(Secret::new(String::new())) } else { &found.value };
                    prop_assert_eq!((&left.name, &left.value), (&found.name, expected));
                }
            }
        }

        #[test]
        fn what_is_written_in_quotes_is_read_again(value in "[^'\r]{0,60}") {
            let file = format!("A=1\nKEY='{value}'\nB=2\n");
            let found = parse(file.as_bytes());
            prop_assert_eq!(found.len(), 3);
            prop_assert_eq!(&found[1].value, &Value::Text(Secret::new(value.clone())));
            let rest = without(file.as_bytes(), &[found[1].lines.clone()]);
            prop_assert_eq!(rest, b"A=1\nB=2\n");
        }
    }
}
