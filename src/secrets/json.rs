//! JSON that may hold secrets: every text in it is wiped when it is dropped, and no member occurs twice.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use zeroize::Zeroizing;

/// One JSON value.
pub enum Json {
    /// A text.
    Text(Zeroizing<String>),
    /// A list.
    List(Vec<Json>),
    /// An object, in its own order; no member twice.
    Object(Vec<(String, Json)>),
    /// Anything else, by its name for people: a number, a truth value, `null`.
    Other(&'static str),
}

impl Json {
    /// Reads a whole document; bounded in depth by serde_json (128). The error tells the place and never the content.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| {
            // The text of an error may repeat what stands in the document.
            let what = match error.classify() {
                serde_json::error::Category::Eof => "it ends too early",
                serde_json::error::Category::Syntax => "not valid JSON",
                serde_json::error::Category::Data => "a member occurs twice",
                serde_json::error::Category::Io => "it cannot be read",
            };
            format!("{what} (line {}, column {})", error.line(), error.column())
        })
    }

    /// What it is, for people.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
            Self::Other(kind) => kind,
        }
    }

    /// A member of an object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            Self::Text(_) | Self::List(_) | Self::Other(_) => None,
        }
    }

    /// The text, where it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(_) | Self::Object(_) | Self::Other(_) => None,
        }
    }

    /// The value a JSON pointer (RFC 6901) leads to. The empty pointer is the whole document.
    pub fn at(&self, pointer: &str) -> Option<&Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        let mut here = self;
        for segment in pointer.strip_prefix('/')?.split('/') {
            here = match here {
                Self::Object(_) => here.member(&unescaped(segment)?)?,
                Self::List(items) => items.get(index(segment)?)?,
                Self::Text(_) | Self::Other(_) => return None,
            };
        }
        Some(here)
    }
}

/// `~1` is a slash and `~0` a tilde; a tilde before anything else is no pointer.
fn unescaped(segment: &str) -> Option<String> {
    let mut plain = String::with_capacity(segment.len());
    let mut letters = segment.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '~' => match letters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(plain)
}

/// The place in a list: digits without leading zeros. `-`, the place after the last, holds nothing.
fn index(segment: &str) -> Option<usize> {
    let digits = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    let leading = segment.len() > 1 && segment.starts_with('0');
    if digits && !leading { segment.parse().ok() } else { None }
}

impl fmt::Debug for Json {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind())
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole)
    }
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(text)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other("a truth value"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object: Vec<(String, Json)> = Vec::new();
        while let Some(member) = members.next_entry::<String, Json>()? {
            object.push(member);
        }
        // Two readers would take two different values for it.
        let mut names: Vec<_> = object.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(A::Error::custom("twice"));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    /// The examples of RFC 6901 section 5, with texts for values.
    const EXAMPLE: &str = r#"{"foo":["bar","baz"],"":"0","a/b":"1","c%d":"2","e^f":"3","g|h":"4","i\\j":"5","k\"l":"6"," ":"7","m~n":"8"}"#;

    #[test]
    fn pointers_are_those_of_rfc_6901() {
        let json = Json::parse(EXAMPLE.as_bytes()).unwrap();
        let text = |pointer: &str| json.at(pointer).and_then(Json::text).map(str::to_owned);
        for (pointer, value) in [
            ("/foo/0", "bar"),
            ("/foo/1", "baz"),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(text(pointer).as_deref(), Some(value), "{pointer}");
        }
        assert_eq!(json.at("").map(Json::kind), Some("an object"));
        assert_eq!(json.at("/foo").map(Json::kind), Some("a list"));
        for pointer in ["/foo/2", "/foo/-", "/foo/00", "/foo/+1", "/foo/0/0", "/bar", "foo", "/m~n", "/m~2n", "/foo/"] {
            assert!(json.at(pointer).is_none(), "{pointer}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_saying_what_stands_there() {
        for (text, said) in [
            ("{\"a\":\"canary", "it ends too early"),
            ("{\"a\":\"x\",\"a\":\"canary\"}", "a member occurs twice"),
            ("{\"a\":canary}", "not valid JSON"),
            ("", "it ends too early"),
            ("{} canary", "not valid JSON"),
        ] {
            let error = Json::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(said) && !error.contains("canary"), "{text}: {error}");
        }
        let bomb = "[".repeat(100_000);
        assert!(Json::parse(bomb.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}\",:a-c/~01\\\\ ]{0,40}", pointer in "(/[a-c~01/]{0,4}){0,3}") {
            let ours = Json::parse(text.as_bytes());
            if let Ok(theirs) = serde_json::from_str::<serde_json::Value>(&text)
                && let Ok(ours) = ours
                && let Some(found) = ours.at(&pointer)
            {
                let expected = theirs.pointer(&pointer);
                prop_assert!(expected.is_some());
                prop_assert_eq!(found.text(), expected.and_then(serde_json::Value::as_str));
            }
        }
    }
}
