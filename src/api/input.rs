//! What clients send, read strictly: query strings, pages, JSON bodies. Everything that is wrong is reported at once.

use std::borrow::Cow;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde_json::Map;
use serde_json::Value;

use crate::api::problem::Problem;
use crate::api::problem::Violation;
use crate::wire::control_plane::Pagination;

/// Largest offset of a page: more rows than any list here may have.
const MAX_OFFSET: u64 = 100_000_000;

/// The parameters of a query string, decoded. A parameter that occurs twice is refused: two readers could take
/// different ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part of a target behind `?`.
    pub fn parse(raw: &str) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(Problem::invalid("query", "must be percent-encoded UTF-8"));
            };
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Problem::invalid(name, "must occur once"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter; an empty one is absent.
    pub fn find(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(known, _)| known == name);
        pair.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Of parameters that are known already, each name once.
    pub const fn of(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// Every parameter as it was sent, the empty ones too, in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `limit` and `offset`: whole numbers, `limit` at least 1. Who asks for more than `max` rows gets `max`, and is told
    /// so by `pagination.limit`: clients that know a larger page from elsewhere go on by the number of rows they got.
    pub fn page(&self, default: u64, max: u64) -> Result<Page, Problem> {
        let mut violations = Vec::new();
        let mut number = |name: &'static str, default: u64, least: u64, most: u64| {
            let Some(text) = self.find(name) else { return default };
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|number| digits && (least..=most).contains(number));
            number.unwrap_or_else(|| {
                let message = match most {
                    u64::MAX => format!("must be a whole number of at least {least}"),
                    most => format!("must be a whole number from {least} to {most}"),
                };
                violations.push(Violation { field: name.into(), message: message.into() });
                default
            })
        };
        let limit = number("limit", default, 1, u64::MAX).min(max);
        let offset = number("offset", 0, 0, MAX_OFFSET);
        if violations.is_empty() { Ok(Page { limit, offset }) } else { Err(Problem::validation(&violations)) }
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// Percent-decoding (RFC 3986 section 2.1), `+` as a blank (HTML forms); `None` where it is malformed or no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit()?.checked_mul(16)?.checked_add(digit()?)?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Most rows.
    pub limit: u64,
    /// Rows to pass over.
    pub offset: u64,
}

impl Page {
    /// How it lies in a list of `total` rows, of which it has `rows`.
    pub fn position(self, rows: usize, total: i64) -> Pagination {
        let total = u64::try_from(total).unwrap_or(0);
        let end = self.offset.saturating_add(rows as u64);
        Pagination { limit: self.limit, offset: self.offset, total, has_more: rows > 0 && end < total }
    }

    /// For a statement.
    pub fn sql_limit(self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX)
    }

    /// For a statement.
    pub fn sql_offset(self) -> i64 {
        i64::try_from(self.offset).unwrap_or(i64::MAX)
    }
}

/// Reads a body as one JSON object; of a member that occurs twice the last counts.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(Problem::invalid_json()),
    }
}

/// Takes members out of an object and notes what is wrong with them.
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    violations: Vec<Violation>,
}

impl<'a> Fields<'a> {
    /// Of this object.
    pub const fn of(object: &'a Map<String, Value>) -> Self {
        Self { object, violations: Vec::new() }
    }

    /// Notes that something is wrong with a member.
    pub fn refuse(&mut self, field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) {
        self.violations.push(Violation { field: field.into(), message: message.into() });
    }

    /// A text that must be there, `least` to `most` characters; empty where it is wrong.
    pub fn text(&mut self, field: &'static str, least: usize, most: usize) -> String {
        match self.object.get(field) {
            Some(Value::String(text)) => self.bounded(field, text, least, most).unwrap_or_default(),
            None | Some(_) => {
                self.refuse(field, format!("must be a text of {least} to {most} characters"));
                String::new()
            }
        }
    }

    /// A text that may be absent or `null`.
    pub fn optional_text(&mut self, field: &'static str, most: usize) -> Option<String> {
        match self.object.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => self.bounded(field, text, 0, most).filter(|text| !text.is_empty()),
            Some(_) => {
                self.refuse(field, format!("must be a text of at most {most} characters"));
                None
            }
        }
    }

    /// A whole number that may be absent or `null`, from `least` to `most`.
    pub fn optional_number(&mut self, field: &'static str, least: i64, most: i64) -> Option<i64> {
        let value = self.object.get(field).filter(|value| !value.is_null())?;
        let number = value.as_i64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.refuse(field, format!("must be a whole number from {least} to {most}"));
        }
        number
    }

    fn bounded(&mut self, field: &'static str, text: &str, least: usize, most: usize) -> Option<String> {
        // A NUL would end the text for every reader written in C.
        let fits = (least..=most).contains(&text.chars().take(most.saturating_add(1)).count());
        if fits && !text.contains('\0') {
            return Some(text.to_owned());
        }
        self.refuse(field, format!("must be a text of {least} to {most} characters"));
        None
    }

    /// Nothing, or everything that was wrong.
    pub fn finish(self) -> Result<(), Problem> {
        if self.violations.is_empty() { Ok(()) } else { Err(Problem::validation(&self.violations)) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn queries_are_decoded_once_and_never_twice_the_same() {
        let query = Query::parse("a=b%20c+d&e=%2525&f&g=").unwrap();
        assert_eq!(query.find("a"), Some("b c d"));
        assert_eq!(query.find("e"), Some("%25"));
        assert_eq!((query.find("f"), query.find("g"), query.find("h")), (None, None, None));
        for bad in ["a=%", "a=%2", "a=%zz", "a=%ff", "a=1&a=2", "a=1&%61=2"] {
            assert_eq!(Query::parse(bad).unwrap_err().code(), "VALIDATION_ERROR", "{bad}");
        }
    }

    #[test]
    fn pages_are_whole_numbers_within_bounds() {
        let page = |text: &str| Query::parse(text).unwrap().page(50, 200);
        assert_eq!(page("").unwrap(), Page { limit: 50, offset: 0 });
        assert_eq!(page("limit=200&offset=7").unwrap(), Page { limit: 200, offset: 7 });
        for bad in ["limit=-1", "limit=0", "limit=NaN", "limit=1.5", "limit=+1", "offset=-1", "offset=x"] {
            assert_eq!(page(bad).unwrap_err().code(), "VALIDATION_ERROR", "{bad}");
        }
        assert_eq!(page("limit=201").unwrap(), Page { limit: 200, offset: 0 });
        assert!(page(&format!("offset={}", u128::MAX)).is_err());
    }
}
