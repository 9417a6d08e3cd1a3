//! One line of a log: a JSON object, which stream it belongs to, and what somebody looks for in it.

use serde_json::Map;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Member that says that a line was longer than what is kept of it.
pub const TRUNCATED: &str = "truncated";

/// Ids that are looked for at a time.
pub const MAX_IDS: usize = 8;

/// Where a line comes from; each stream has a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogStream {
    /// What the admin process says.
    Admin,
    /// What the decision's process says, its decisions left out.
    Authz,
    /// One line for each decision that is written down.
    Decision,
    /// What Envoy says.
    Envoy,
    /// One line for each request, written by Envoy.
    Access,
    /// What the bridge to a dashboard says.
    Pair,
    /// Each change of connections, variables and keys.
    Audit,
    /// What the local control plane of `up` says.
    Api,
}

impl LogStream {
    /// All of them, in the order in which lines of the same moment are shown.
    pub const ALL: [Self; 8] =
        [Self::Access, Self::Decision, Self::Authz, Self::Envoy, Self::Admin, Self::Audit, Self::Pair, Self::Api];

    /// The name in commands, addresses and names of files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Authz => "authz",
            Self::Decision => "decision",
            Self::Envoy => "envoy",
            Self::Access => "access",
            Self::Pair => "pair",
            Self::Audit => "audit",
            Self::Api => "api",
        }
    }

    /// The stream of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name() == name)
    }
}

/// A line as an object. What is none becomes the `message` of one; of a line that was cut, [`TRUNCATED`] says so.
pub fn parse(line: &[u8], cut: bool) -> Map<String, Value> {
    if !cut && let Ok(Value::Object(members)) = serde_json::from_slice(line) {
        return members;
    }
    let mut members = Map::new();
    members.insert("message".to_owned(), Value::String(String::from_utf8_lossy(line).into_owned()));
    if cut {
        members.insert(TRUNCATED.to_owned(), Value::Bool(true));
    }
    members
}

/// A member that is text.
pub fn text<'a>(line: &'a Map<String, Value>, name: &str) -> &'a str {
    line.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// When it was written, in nanoseconds since the Unix epoch; `None` where the line does not say.
pub fn nanos(line: &Map<String, Value>) -> Option<i128> {
    OffsetDateTime::parse(text(line, "timestamp"), &Rfc3339).ok().map(OffsetDateTime::unix_timestamp_nanos)
}

/// What is looked for. The default lets every line pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Ids of requests or decisions; one of them must be there. Empty: any.
    pub ids: Vec<String>,
    /// The connection it is about.
    pub connection: Option<String>,
    /// Nothing older, in nanoseconds since the Unix epoch.
    pub since: Option<i128>,
}

impl LogFilter {
    /// Whether every line passes.
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.connection.is_none() && self.since.is_none()
    }

    /// Whether a line may pass, by its bytes alone: far cheaper than reading it.
    pub fn may_match(&self, line: &[u8]) -> bool {
        if self.ids.is_empty() && self.connection.is_none() {
            return true;
        }
        // What is no text holds no id either.
        let Ok(line) = std::str::from_utf8(line) else { return false };
        (self.ids.is_empty() || self.ids.iter().any(|id| line.contains(id.as_str())))
            && self.connection.as_ref().is_none_or(|connection| line.contains(connection.as_str()))
    }

    /// Whether a line passes.
    pub fn matches(&self, line: &Map<String, Value>) -> bool {
        let named = |id: &String| ["request_id", "decision_id"].iter().any(|name| text(line, name) == id);
        // The audit says of which connection it is in `target`.
        let about = |wanted: &String| ["connection", "target"].iter().any(|name| text(line, name) == wanted);
        (self.ids.is_empty() || self.ids.iter().any(named))
            && self.connection.as_ref().is_none_or(about)
            && self.since.is_none_or(|since| nanos(line).is_some_and(|at| at >= since))
    }

    /// Takes the other id of a line that passes, so that lines that have only that one pass as well; `true` where it was
    /// not known.
    pub fn learn(&mut self, line: &Map<String, Value>) -> bool {
        if self.ids.is_empty() {
            return false;
        }
        let mut learned = false;
        for name in ["request_id", "decision_id"] {
            let id = text(line, name);
            if !id.is_empty() && self.ids.len() < MAX_IDS && !self.ids.iter().any(|known| known == id) {
                self.ids.push(id.to_owned());
                learned = true;
            }
        }
        learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_leads_to_the_other() {
        let line = parse(br#"{"request_id":"r","decision_id":"d"}"#, false);
        let mut filter = LogFilter { ids: vec!["r".to_owned()], ..LogFilter::default() };
        assert!(filter.matches(&line) && filter.learn(&line) && !filter.learn(&line));
        assert!(filter.matches(&parse(br#"{"decision_id":"d","event":"claim_submit"}"#, false)));
        assert!(!filter.matches(&parse(br#"{"message":"r"}"#, false)));
    }

    #[test]
    fn what_is_cheaply_turned_away_would_not_have_passed() {
        let lines =
            [r#"{"connection":"demo"}"#, r#"{"target":"demo"}"#, r#"{"connection":"other"}"#, "demo", "\u{fffd}"];
        let filter = LogFilter { connection: Some("demo".to_owned()), ..LogFilter::default() };
        for line in lines {
            assert!(!filter.matches(&parse(line.as_bytes(), false)) || filter.may_match(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_moment_without_a_time_is_older_than_any() {
        let filter = LogFilter { since: Some(0), ..LogFilter::default() };
        assert!(filter.matches(&parse(br#"{"timestamp":"2026-01-02T03:04:05.6Z"}"#, false)));
        assert!(!filter.matches(&parse(br#"{"timestamp":"yesterday"}"#, false)));
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for stream in LogStream::ALL {
            assert_eq!(LogStream::parse(stream.name()), Some(stream));
        }
        assert_eq!(LogStream::parse("../admin"), None);
    }

    #[test]
    fn what_is_no_object_becomes_a_message() {
        assert_eq!(Value::Object(parse(b"panicked", false)), serde_json::json!({"message": "panicked"}));
        let cut = parse(br#"{"message":"x"}"#, true);
        assert_eq!(cut.get(TRUNCATED), Some(&Value::Bool(true)));
    }
}
