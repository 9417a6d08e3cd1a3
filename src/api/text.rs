//! Texts owners give to things, and times they name: what [`crate::api::input`] reads, held to stricter rules.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::input::Fields;
use crate::api::input::Query;

/// A text that must be there: `least` to `most` characters without control characters, not only blanks. Names of
/// services and keys are shown in terminals and tables.
pub fn line(fields: &mut Fields<'_>, field: &'static str, least: usize, most: usize) -> String {
    let text = fields.text(field, least, most);
    if !text.is_empty() && !is_plain(&text) {
        fields.refuse(field, "must be one line of text without control characters");
    }
    text
}

/// The same, where the member may be absent; `null` is not absent here: nothing can be unset.
pub fn optional_line(
    fields: &mut Fields<'_>,
    object: &serde_json::Map<String, Value>,
    field: &'static str,
    least: usize,
    most: usize,
) -> Option<String> {
    object.contains_key(field).then(|| line(fields, field, least, most))
}

fn is_plain(text: &str) -> bool {
    !text.trim().is_empty() && !text.chars().any(char::is_control)
}

/// A query parameter that must be one of `values`; `Err` says what it must be.
pub fn choice(query: &Query, name: &str, values: &[&'static str]) -> Result<Option<&'static str>, String> {
    let Some(text) = query.find(name) else { return Ok(None) };
    let known = values.iter().find(|value| **value == text).copied();
    known.map(Some).ok_or_else(|| format!("must be one of {}", values.join(", ")))
}

/// Reads a point in time as Unix milliseconds: RFC 3339, or a date alone for its first moment in UTC. `None` where it
/// is neither, or before 1970.
pub fn instant(text: &str) -> Option<i64> {
    let whole = if text.len() == "2026-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let at = OffsetDateTime::parse(&whole, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok().filter(|ms| *ms >= 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;
    use crate::api::moment::iso;

    #[test]
    fn names_cannot_move_a_cursor() {
        for (text, good) in [("Slack", true), ("ä ö", true), ("a\u{1b}[2J", false), ("a\nb", false), ("   ", false)] {
            let object = serde_json::json!({ "name": text });
            let mut fields = Fields::of(object.as_object().unwrap());
            line(&mut fields, "name", 1, 100);
            assert_eq!(fields.finish().is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn times_are_rfc_3339_or_dates() {
        for (given, read) in [
            ("2026-01-31", "2026-01-31T00:00:00.000Z"),
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"),
            ("2026-01-31T12:00:00.5+01:00", "2026-01-31T11:00:00.500Z"),
            ("2026-01-31T12:00:00.123456789Z", "2026-01-31T12:00:00.123Z"),
        ] {
            assert_eq!(iso(instant(given).unwrap()), read);
        }
        for bad in ["", "yesterday", "2026-02-30", "1969-12-31", "2026-01-31T12:00", "26-01-31", "ééééé"] {
            assert_eq!(instant(bad), None, "{bad}");
        }
    }
}
