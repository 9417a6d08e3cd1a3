//! Lines of several streams in the order of time. Pure.

use std::collections::VecDeque;

use serde_json::Map;
use serde_json::Value;

use crate::domain::log_line;
use crate::domain::log_line::LogStream;

/// A line and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Whose.
    pub(super) stream: LogStream,
    /// What it says.
    pub(super) members: Map<String, Value>,
}

impl Line {
    /// As an object that says whose it is.
    pub(super) fn into_json(self) -> Value {
        let mut members = Map::new();
        members.insert("stream".to_owned(), Value::String(self.stream.name().to_owned()));
        members.extend(self.members.into_iter().filter(|(name, _)| name != "stream"));
        Value::Object(members)
    }
}

/// Gathers lines, stream by stream.
#[derive(Debug, Default)]
pub(super) struct Merge {
    streams: Vec<(LogStream, VecDeque<Map<String, Value>>)>,
}

impl Merge {
    /// Adds lines of a stream, in its order.
    pub(super) fn add(&mut self, stream: LogStream, lines: impl IntoIterator<Item = Map<String, Value>>) {
        match self.streams.iter_mut().find(|(known, _)| *known == stream) {
            Some((_, queue)) => queue.extend(lines),
            None => self.streams.push((stream, lines.into_iter().collect())),
        }
    }

    /// All of them by time. Lines of one stream keep their order, whatever their times say; one without a time follows the
    /// line before it.
    pub(super) fn into_lines(mut self) -> Vec<Line> {
        let mut merged = Vec::new();
        loop {
            let heads = self.streams.iter_mut().filter_map(|(stream, queue)| {
                let at = log_line::nanos(queue.front()?).unwrap_or(i128::MIN);
                Some((at, *stream, queue))
            });
            // Of several of the same moment the first.
            let Some((_, stream, queue)) = heads.min_by_key(|(at, ..)| *at) else { return merged };
            merged.extend(queue.pop_front().map(|members| Line { stream, members }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_merged_by_time_and_keep_their_order() {
        let line = |text: &str| log_line::parse(text.as_bytes(), false);
        let mut merge = Merge::default();
        // The second was written late; it stays behind the first.
        merge.add(
            LogStream::Access,
            [
                line(r#"{"timestamp":"2026-01-01T00:00:02Z","n":1}"#),
                line(r#"{"timestamp":"2026-01-01T00:00:01.5Z","n":2}"#),
            ],
        );
        merge.add(
            LogStream::Authz,
            [
                line(r#"{"timestamp":"2026-01-01T00:00:01.9Z","n":3}"#),
                line("no time"),
                line(r#"{"timestamp":"2026-01-01T00:00:02.000001Z","n":4}"#),
            ],
        );
        let order: Vec<_> = merge.into_lines().iter().map(|line| line.members.get("n").cloned()).collect();
        let n = |number: u64| Some(Value::from(number));
        assert_eq!(order, [n(3), None, n(1), n(2), n(4)]);
    }
}
