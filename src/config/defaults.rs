//! `config.env`: the defaults `up --demo` leaves for later commands. `KEY=VALUE` lines.
//!
//! `#` comments, a carriage return at the end and one pair of surrounding quotes are removed, the first
//! match wins, there are no escapes.

/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 64 * 1024;

/// The value of `key`; blank values count as absent.
pub fn find(text: &str, key: &str) -> Option<String> {
    let value = text.lines().filter_map(assignment).find(|(name, _)| *name == key).map(|(_, value)| value)?;
    let quoted =
        |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).filter(|_| value.len() >= 2);
    let bare = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    (!bare.trim().is_empty()).then(|| bare.to_owned())
}

/// `text` with `pairs` set: the first line of a key is replaced, later lines of it are dropped (they had
/// no effect), a missing key is added at the end, and every other line stays as it is.
///
/// A value that a shell would not read as one plain word is written in quotes: people source this file.
/// `None` where a value cannot be written so that both read the same (line breaks, both kinds of quotes).
pub fn update(text: &str, pairs: &[(&str, &str)]) -> Option<String> {
    let quoted = pairs.iter().map(|(key, value)| quote(value).map(|value| (*key, value)));
    let pairs = quoted.collect::<Option<Vec<_>>>()?;
    let mut written = vec![false; pairs.len()];
    let mut out = String::with_capacity(text.len().saturating_add(128));
    for line in text.lines() {
        let name = assignment(line).map(|(name, _)| name);
        match pairs.iter().zip(&mut written).find(|((key, _), _)| Some(*key) == name) {
            Some((_, done)) if *done => {}
            Some(((key, value), done)) => {
                *done = true;
                out.push_str(&format!("{key}={value}\n"));
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    for ((key, value), done) in pairs.iter().zip(written) {
        if !done {
            out.push_str(&format!("{key}={value}\n"));
        }
    }
    Some(out)
}

/// The value as it stands in the file.
fn quote(value: &str) -> Option<String> {
    let plain = |letter: char| letter.is_alphanumeric() || "_./:@%+,=-~".contains(letter);
    if value.contains(char::is_control) || value.trim() != value {
        None
    } else if value.chars().all(plain) && !value.starts_with('~') {
        Some(value.to_owned())
    } else if !value.contains('\'') {
        Some(format!("'{value}'"))
    } else if !value.contains(['"', '$', '`', '\\']) {
        Some(format!("\"{value}\""))
    } else {
        None
    }
}

/// Name and raw value of a line; `None` for comments, blank lines and anything else.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let name = name.strip_prefix("export ").map_or(name, str::trim);
    Some((name, value.trim()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_comments_and_carriage_returns_are_removed_and_the_first_match_wins() {
        let text = "# SIGILUM_NAMESPACE=no\r\nSIGILUM_NAMESPACE=\"demo\"\r\nSIGILUM_NAMESPACE=later\nA='b'\nB=\n";
        assert_eq!(find(text, "SIGILUM_NAMESPACE").as_deref(), Some("demo"));
        assert_eq!(find(text, "A").as_deref(), Some("b"));
        assert_eq!(find(text, "B"), None);
        assert_eq!(find(text, "C"), None);
    }

    #[test]
    fn an_update_keeps_every_other_line() {
        let text = "# mine\nOTHER=1\nSIGILUM_NAMESPACE=old\nSIGILUM_NAMESPACE=older\n";
        let updated = update(text, &[("SIGILUM_NAMESPACE", "demo"), ("NEW", "x")]).unwrap();
        assert_eq!(updated, "# mine\nOTHER=1\nSIGILUM_NAMESPACE=demo\nNEW=x\n");
        assert_eq!(update(&updated, &[("SIGILUM_NAMESPACE", "demo"), ("NEW", "x")]).unwrap(), updated);
        assert_eq!(update("", &[("A", "b\nc")]), None);
        for (value, line) in [("/a b", "A='/a b'\n"), ("it's", "A=\"it's\"\n"), ("$x", "A='$x'\n"), ("", "A=\n")] {
            assert_eq!(update("", &[("A", value)]).as_deref(), Some(line));
            assert_eq!(find(line, "A").unwrap_or_default(), value);
        }
        assert_eq!(update("", &[("A", "it's $x")]), None);
    }

    proptest! {
        #[test]
        fn what_was_written_is_found(text in "\\PC{0,200}", value in "[ -~]{1,40}") {
            if let Some(updated) = update(&text, &[("SIGILUM_HOME", &value)]) {
                prop_assert_eq!(find(&updated, "SIGILUM_HOME"), Some(value));
            }
        }
    }
}
