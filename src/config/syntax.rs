//! YAML text to a tree in which every node knows its line and column. Bounded in size, depth and nodes.
//!
//! Aliases and tags are refused: nothing in `gateway.yaml` needs them, and aliases are how a short file
//! becomes a huge one.

use std::collections::HashMap;

use saphyr_parser::Event;
use saphyr_parser::Parser;
use saphyr_parser::ScalarStyle;
use saphyr_parser::Span;

use crate::config::mistake::MAX_FOUND;
use crate::config::mistake::Mistake;
use crate::config::mistake::Place;

/// Largest configuration file, in bytes: room for a few hundred thousand approvals.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Deepest nesting. The deepest thing we know is a field of a list entry.
const MAX_DEPTH: usize = 16;
/// Most nodes: a file of the largest size holds about this many words.
const MAX_NODES: usize = 8 * 1024 * 1024;
/// Most keys in one mapping: the largest holds one entry for each credential variable.
const MAX_KEYS: usize = 65_536;
/// Up to so many keys a search through all of them is faster than a table.
const FEW_KEYS: usize = 16;
/// How much of a key a message repeats, in characters.
const MAX_SHOWN_KEY: usize = 64;
/// What `{{KEY}}` without quotes looks like to YAML.
const NOT_A_KEY: &str = "a key must be a plain word; references such as {{KEY}} stand in quotes";

/// A position in the file, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    line: u32,
    column: u32,
}

impl Mark {
    /// As the place of a mistake.
    pub(crate) const fn place(self) -> Place {
        Place::File { line: self.line as usize, column: self.column as usize }
    }

    /// The line, from 1.
    pub(crate) const fn line(self) -> u32 {
        self.line
    }

    fn of(span: Span) -> Self {
        let clamp = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self { line: clamp(span.start.line()), column: clamp(span.start.col()).saturating_add(1) }
    }
}

/// One node of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A word without quotes, which YAML may read as a number, truth value or nothing.
    Plain(String),
    /// Text in quotes or a block.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file; no key twice.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) mark: Mark,
    pub(crate) value: Node,
}

impl Node {
    /// Whether the node says nothing: an empty value, `~` or `null` (YAML 1.2 core schema).
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, in a word for people.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Plain(_) if self.is_nothing() => "nothing",
            Value::Plain(text) if is_boolean(text) => "a truth value",
            Value::Plain(text) if is_number(text) => "a number",
            Value::Plain(_) | Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// `true` and `false` as the YAML 1.2 core schema writes them.
pub(crate) fn is_boolean(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

/// Whether the YAML 1.2 core schema reads `text` as a number.
pub(crate) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = |prefix: &str, fits: fn(&u8) -> bool| {
        digits.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.as_bytes().iter().all(fits))
    };
    if radix("0x", u8::is_ascii_hexdigit) || radix("0o", |byte| matches!(byte, b'0'..=b'7')) {
        return true;
    }
    let special = matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    let numeric = digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.parse::<f64>().is_ok();
    special || numeric
}

/// A collection whose end has not come yet.
enum Open {
    List(Mark, Vec<Node>),
    Map(Mapping),
}

/// A mapping whose end has not come yet.
struct Mapping {
    mark: Mark,
    entries: Vec<Entry>,
    /// The key whose value comes next.
    waiting: Option<(String, Mark)>,
    /// Where keys stand first, once there are more than a few.
    first: HashMap<String, Mark>,
}

impl Mapping {
    fn new(mark: Mark) -> Self {
        Self { mark, entries: Vec::new(), waiting: None, first: HashMap::new() }
    }

    /// Takes the next key; returns where it stands already.
    fn expect(&mut self, key: String, mark: Mark) -> Option<Mark> {
        let first = if self.entries.len() < FEW_KEYS {
            self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.mark)
        } else {
            if self.first.is_empty() {
                for entry in &self.entries {
                    self.first.entry(entry.key.clone()).or_insert(entry.mark);
                }
            }
            let first = self.first.get(&key).copied();
            if first.is_none() {
                self.first.insert(key.clone(), mark);
            }
            first
        };
        self.waiting = Some((key, mark));
        first
    }
}

/// Reads one YAML document: its tree, and what is wrong with its form.
///
/// The tree is `None` for a file that says nothing, and for one that cannot be read to its end: what
/// stands behind such a mistake cannot be trusted. Duplicate keys and tags leave a tree, so that the rest
/// can be judged as well.
pub(crate) fn parse(text: &str) -> (Option<Node>, Vec<Mistake>) {
    if text.len() as u64 > MAX_FILE_BYTES {
        let message = "the file is larger than 64 MiB".to_owned();
        return (None, vec![Mistake { place: Place::Whole, path: String::new(), message }]);
    }
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        match event {
            Ok((event, span)) => {
                if let Err(fatal) = reader.take(event, Mark::of(span)) {
                    reader.mistakes.push(fatal);
                    return (None, reader.mistakes);
                }
            }
            Err(error) => {
                let at = error.marker();
                let place = Place::File { line: at.line(), column: at.col().saturating_add(1) };
                let message = format!("not valid YAML: {}", error.info());
                reader.mistakes.push(Mistake { place, path: String::new(), message });
                return (None, reader.mistakes);
            }
        }
    }
    (reader.root.filter(|root| !root.is_nothing()), reader.mistakes)
}

#[derive(Default)]
struct Reader {
    root: Option<Node>,
    open: Vec<Open>,
    nodes: usize,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// Takes one event; an error ends the reading.
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Mistake> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                if self.root.is_some() {
                    return Err(at(mark, "only one YAML document per file"));
                }
                Ok(())
            }
            Event::Alias(_) => Err(at(mark, "aliases (*name) are not supported here: write the value out")),
            Event::Scalar(text, style, _, tag) => {
                self.refuse_tag(tag.is_some(), mark);
                let text = text.into_owned();
                let plain = matches!(style, ScalarStyle::Plain);
                self.node(Node { mark, value: if plain { Value::Plain(text) } else { Value::Text(text) } })
            }
            Event::SequenceStart(_, tag) => {
                self.refuse_tag(tag.is_some(), mark);
                self.enter(Open::List(mark, Vec::new()), mark)
            }
            Event::MappingStart(_, tag) => {
                self.refuse_tag(tag.is_some(), mark);
                self.enter(Open::Map(Mapping::new(mark)), mark)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(mark, items)) => self.node(Node { mark, value: Value::List(items) }),
                Some(Open::Map(map)) => self.node(Node { mark: map.mark, value: Value::Map(map.entries) }),
                None => Err(at(mark, "not valid YAML: an end without a beginning")),
            },
        }
    }

    fn refuse_tag(&mut self, tagged: bool, mark: Mark) {
        if tagged && self.mistakes.len() < MAX_FOUND {
            self.mistakes.push(at(mark, "tags (!name) are not supported here"));
        }
    }

    fn enter(&mut self, collection: Open, mark: Mark) -> Result<(), Mistake> {
        if self.open.len() >= MAX_DEPTH {
            return Err(at(mark, "nested too deeply"));
        }
        if let Some(Open::Map(Mapping { waiting: None, .. })) = self.open.last() {
            return Err(at(mark, NOT_A_KEY));
        }
        self.open.push(collection);
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn node(&mut self, node: Node) -> Result<(), Mistake> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MAX_NODES {
            return Err(at(node.mark, "the file has too many values"));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(map)) => match map.waiting.take() {
                Some((key, mark)) => map.entries.push(Entry { key, mark, value: node }),
                None => match node.value {
                    Value::Plain(key) | Value::Text(key) => {
                        if map.entries.len() >= MAX_KEYS {
                            return Err(at(node.mark, "too many keys in one mapping"));
                        }
                        let named: String = key.chars().take(MAX_SHOWN_KEY).collect();
                        let first = map.expect(key, node.mark);
                        if let Some(first) = first.filter(|_| self.mistakes.len() < MAX_FOUND) {
                            let line = first.line();
                            let message = format!("{named} stands here twice, first in line {line}");
                            self.mistakes.push(at(node.mark, &message));
                        }
                    }
                    Value::List(_) | Value::Map(_) => return Err(at(node.mark, NOT_A_KEY)),
                },
            },
        }
        Ok(())
    }
}

fn at(mark: Mark, message: &str) -> Mistake {
    Mistake { place: mark.place(), path: String::new(), message: message.to_owned() }
}
