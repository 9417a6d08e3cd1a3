//! JSON from strangers: no member twice, no deep nesting.
//!
//! Two readers that disagree on which of two equal members counts disagree on what was signed.

use std::collections::HashSet;
use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// Deepest nesting that is read; ours have two levels.
const MAX_DEPTH: u8 = 8;

/// Walks a whole JSON text and refuses one that is malformed, repeats a member name within an object,
/// or nests deeper than 8 levels.
pub fn check_unique_members(json: &[u8]) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    Walk { depth: MAX_DEPTH }.deserialize(&mut reader)?;
    reader.end()
}

/// Reads one value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Walk {
    depth: u8,
}

impl Walk {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        depth.map(|depth| Self { depth }).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while members.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a member occurs twice"));
            }
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_json_passes() {
        for good in ["{}", "null", "[1,-2,3.5,true,\"x\",null]", r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#] {
            assert!(check_unique_members(good.as_bytes()).is_ok(), "{good}");
        }
    }

    #[test]
    fn repeated_members_deep_nesting_and_garbage_do_not() {
        let deep = format!("{}{}", "[".repeat(9), "]".repeat(9));
        let very_deep = "[".repeat(100_000);
        let bad = [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":1}}"#,
            r#"[{"a":1,"a":1}]"#,
            &deep,
            &very_deep,
            "",
            "{} {}",
            "{",
            "nul",
            "1e999",
        ];
        for bad in bad {
            assert!(check_unique_members(bad.as_bytes()).is_err(), "{:.40}", bad);
        }
        assert!(check_unique_members(format!("{}{}", "[".repeat(8), "]".repeat(8)).as_bytes()).is_ok());
        assert!(check_unique_members(b"\"\xff\"").is_err());
    }
}
