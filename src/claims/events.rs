//! Server-sent events (WHATWG HTML section 9.2.6), as far as the change stream needs them: bytes in, events out.
//!
//! Bounded in what one event may hold. Other than in a browser, an event with a name and without data counts: that is
//! how the API says that it is alive.

/// Longest line, and longest data of one event, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its name; `message` where none was given.
    pub name: String,
    /// Its data, lines joined by LF.
    pub data: String,
    /// The last id seen up to here; empty where there was none.
    pub id: String,
}

/// A line or an event is longer than any of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is too long")]
pub struct TooLong;

/// What has been read of a stream.
#[derive(Debug, Default)]
pub struct EventParser {
    line: Vec<u8>,
    /// The last line ended with CR: a LF that follows belongs to it.
    after_carriage_return: bool,
    /// The first line has been read; a byte order mark may stand before it only.
    begun: bool,
    name: String,
    data: Option<String>,
    id: String,
}

impl EventParser {
    /// Takes the next bytes and adds the events they complete to `events`.
    pub fn read(&mut self, bytes: &[u8], events: &mut Vec<ServerEvent>) -> Result<(), TooLong> {
        for byte in bytes {
            let after_carriage_return = std::mem::replace(&mut self.after_carriage_return, *byte == b'\r');
            match byte {
                b'\n' if after_carriage_return => {}
                b'\n' | b'\r' => self.line_ends(events)?,
                _ if self.line.len() >= MAX_BYTES => return Err(TooLong),
                byte => self.line.push(*byte),
            }
        }
        Ok(())
    }

    fn line_ends(&mut self, events: &mut Vec<ServerEvent>) -> Result<(), TooLong> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let first = !std::mem::replace(&mut self.begun, true);
        let line = if first { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
        if line.is_empty() {
            self.event_ends(events);
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.as_ref().map_or(0, String::len).saturating_add(value.len()) >= MAX_BYTES {
                    return Err(TooLong);
                }
                match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => self.data = Some(value.to_owned()),
                }
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // A comment has an empty field; others are of later versions.
            _ => {}
        }
        Ok(())
    }

    fn event_ends(&mut self, events: &mut Vec<ServerEvent>) {
        let (name, data) = (std::mem::take(&mut self.name), self.data.take());
        if name.is_empty() && data.is_none() {
            return;
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        events.push(ServerEvent { name, data: data.unwrap_or_default(), id: self.id.clone() });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Vec<(String, String, String)> {
        let mut parser = EventParser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.read(chunk, &mut events).unwrap();
        }
        events.into_iter().map(|event| (event.name, event.data, event.id)).collect()
    }

    fn event(name: &str, data: &str, id: &str) -> (String, String, String) {
        (name.to_owned(), data.to_owned(), id.to_owned())
    }

    #[test]
    fn events_have_a_name_data_and_the_last_id() {
        let text = "\u{feff}event: approved\r\nid: e.1\r\ndata: {\"a\":1}\r\n\r\n: a comment\n\nevent:alive\n\n\
                    data: one\ndata:two\ndata\nid: e.2\nretry: 5\n\nevent: ended\ndata: not finished\n";
        let wanted =
            [event("approved", "{\"a\":1}", "e.1"), event("alive", "", "e.1"), event("message", "one\ntwo\n", "e.2")];
        assert_eq!(parse(&[text.as_bytes()]), wanted);
    }

    #[test]
    fn every_line_end_counts_once() {
        assert_eq!(
            parse(&[b"data: x\r", b"\n\r", b"\ndata: y\r\rdata: z\n\n"]),
            ["x", "y", "z"].map(|data| event("message", data, ""))
        );
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let mut parser = EventParser::default();
        assert_eq!(parser.read(&vec![b'x'; MAX_BYTES + 1], &mut Vec::new()), Err(TooLong));
        let mut parser = EventParser::default();
        let line = format!("data: {}\n", "x".repeat(MAX_BYTES / 2));
        assert_eq!(parser.read(line.as_bytes(), &mut Vec::new()), Ok(()));
        assert_eq!(parser.read(line.as_bytes(), &mut Vec::new()), Err(TooLong));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_does_not_matter(
            text in "(event|data|id|:|: |\r|\n|\r\n|[a-z\u{e4}]|\0){0,60}",
            cuts in proptest::collection::vec(1..7_usize, 0..40),
        ) {
            let mut chunks: Vec<&[u8]> = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (chunk, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            chunks.push(rest);
            prop_assert_eq!(parse(&chunks), parse(&[text.as_bytes()]));
        }

        #[test]
        fn what_was_written_is_read(
            written in proptest::collection::vec(("[a-z]{1,8}", "[ -~\u{e4}]{0,40}", "[0-9a-f.]{1,9}"), 0..8),
        ) {
            let text: String =
                written.iter().map(|(name, data, id)| format!("event: {name}\ndata: {data}\nid: {id}\n\n")).collect();
            prop_assert_eq!(parse(&[text.as_bytes()]), written);
        }
    }
}
