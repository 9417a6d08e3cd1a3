//! Cleaning what a process writes to its log, where nobody else does it ([`crate::domain::log_redaction`]): events of its own,
//! whole lines of JSON.

use std::borrow::Cow;

use serde::Deserialize;

use crate::domain::log_line;
use crate::domain::log_redaction::LogRedactor;

/// What `kind` says of lines that tell of a decision.
pub const DECISION: &str = "decision";

/// Cleans lines, each ended by a line feed.
pub fn lines(redactor: &LogRedactor, lines: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if bare.is_empty() || is_plain_decision(redactor, bare) {
            clean.extend_from_slice(bare);
        } else {
            let mut members = log_line::parse(bare, false);
            redactor.clean(&mut members);
            // Members only: writing them as JSON cannot fail.
            clean.extend(serde_json::to_vec(&members).unwrap_or_default());
        }
        clean.push(b'\n');
    }
    clean
}

/// Whether a line tells of a decision, and nothing in it would be cleaned: there may be thousands a second, and taking
/// each apart costs ten times as much as looking at it (32 and 3 microseconds on one busy machine).
pub fn is_plain_decision(redactor: &LogRedactor, line: &[u8]) -> bool {
    serde_json::from_slice::<Decision<'_>>(line).is_ok_and(|line| {
        line.kind == DECISION
            && line.level == "INFO"
            && !redactor.would_clean(&line.method)
            && !redactor.would_clean(&line.path)
    })
}

/// What a stranger may have a say in of the event of a decision; the rest are our own words, ids and fingerprints.
#[derive(Deserialize)]
struct Decision<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use serde_json::Value;

    use super::*;
    use crate::domain::redact::Redactor;
    use crate::domain::secret::Secret;

    #[test]
    fn secrets_do_not_get_through_and_lines_stay_lines() {
        let token = Secret::new("canary-admin-token-0123".to_owned());
        let redactor = LogRedactor::knowing(Redactor::new([&token]));
        let said = concat!(
            r#"{"timestamp":"t","level":"WARN","message":"got canary-admin-token-0123","authorization":"x"}"#,
            "\n",
            r#"{"kind":"decision","level":"INFO","method":"GET","path":"/proxy/a/ghp_0123456789abcdef"}"#,
            "\n",
            r#"{"kind":"decision","level":"INFO","method":"GET","path":"/proxy/a/b"}"#,
            "\n",
        );
        let clean = String::from_utf8(lines(&redactor, said.as_bytes())).unwrap();
        assert!(!clean.contains("canary") && !clean.contains("ghp_"), "{clean}");
        let parsed: Vec<Value> = clean.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((parsed.len(), &parsed[0]["level"]), (3, &Value::from("WARN")));
        assert_eq!(clean.lines().next_back(), said.lines().next_back(), "what is clean stays as it is");
    }
}
