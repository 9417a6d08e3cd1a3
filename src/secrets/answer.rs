//! What a provider program prints: protocol version 1.
//!
//! Asked `{"protocolVersion":1,"provider":NAME,"ids":[ID, …]}` on standard input, it answers
//! `{"values":{ID:TEXT, …},"errors":{ID:{"message":TEXT}, …}}` on standard output; `protocolVersion` may stand there
//! too and is then 1. Asked for one id it may print the bare value instead, unless the provider is `json_only`.

use serde::Serialize;

use crate::domain::secret::Secret;
use crate::secrets::json::Json;
use crate::secrets::redact::redacted;

/// The version of the protocol.
const PROTOCOL_VERSION: u64 = 1;

/// What is asked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    protocol_version: u64,
    provider: &'a str,
    ids: &'a [&'a str],
}

/// The line a provider reads.
pub fn question(provider: &str, ids: &[&str]) -> Vec<u8> {
    let question = Question { protocol_version: PROTOCOL_VERSION, provider, ids };
    // Texts and a number: nothing of it can fail.
    let mut line = serde_json::to_vec(&question).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads an answer: for each id, in the order asked, its secret or why there is none. `Err`: the answer as a whole
/// is not one. No message repeats a value.
pub fn read(output: &[u8], ids: &[&str], json_only: bool) -> Result<Vec<Result<Secret, String>>, String> {
    let text = std::str::from_utf8(output).map_err(|_| "its output is not UTF-8".to_owned())?;
    let bare = !json_only && ids.len() == 1;
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err("it printed nothing".to_owned());
    }
    if bare && !trimmed.starts_with(['{', '"']) {
        return Ok(vec![Ok(Secret::new(without_line_end(text).to_owned()))]);
    }
    let json = match Json::parse(trimmed.as_bytes()) {
        Ok(json) => json,
        // A secret may begin with a brace or a quote as with any other character.
        Err(_) if bare && !trimmed.starts_with("{\"") => {
            return Ok(vec![Ok(Secret::new(without_line_end(text).to_owned()))]);
        }
        Err(error) => return Err(format!("its output is no answer: {error}")),
    };
    if bare && let Some(value) = json.text() {
        return Ok(vec![usable(value)]);
    }
    let values = match json.member("values") {
        Some(values @ Json::Object(_)) => values,
        Some(other) => return Err(format!("\"values\" of its answer is {}, not an object", other.kind())),
        None => return Err("its answer has no \"values\"".to_owned()),
    };
    if !version_fits(trimmed) {
        return Err("its answer is of another protocol version than 1".to_owned());
    }
    let errors = json.member("errors");
    Ok(ids.iter().map(|id| one(id, values, errors)).collect())
}

fn one(id: &str, values: &Json, errors: Option<&Json>) -> Result<Secret, String> {
    // Whoever says both is not sure of the value.
    if let Some(error) = errors.and_then(|errors| errors.member(id)) {
        let message = error.member("message").or(Some(error)).and_then(Json::text).unwrap_or("it gave no reason");
        return Err(format!("the provider says: {}", redacted(message)));
    }
    match values.member(id) {
        Some(Json::Text(text)) => usable(text),
        Some(other) => Err(format!("the provider's value is {}, not a text", other.kind())),
        None => Err("the provider returned no value for it".to_owned()),
    }
}

fn usable(text: &str) -> Result<Secret, String> {
    if text.trim().is_empty() {
        return Err("the provider's value is empty".to_owned());
    }
    Ok(Secret::new(text.to_owned()))
}

/// Whether the answer says no version, or 1. Read apart: the tree keeps no numbers.
fn version_fits(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned {
        protocol_version: Option<u64>,
    }
    serde_json::from_str::<Versioned>(text)
        .is_ok_and(|found| found.protocol_version.is_none_or(|version| version == PROTOCOL_VERSION))
}

/// Without one line end at the end, which every program that prints adds.
pub fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    fn values(output: &str, ids: &[&str], json_only: bool) -> Result<Vec<Result<String, String>>, String> {
        read(output.as_bytes(), ids, json_only)
            .map(|list| list.into_iter().map(|one| one.map(|secret| secret.expose().to_owned())).collect())
    }

    #[test]
    fn the_question_is_one_line_of_json() {
        let line = question("vault", &["a/b", "c#d"]);
        let said = "{\"protocolVersion\":1,\"provider\":\"vault\",\"ids\":[\"a/b\",\"c#d\"]}\n";
        assert_eq!(String::from_utf8(line).unwrap(), said);
    }

    #[test]
    fn each_id_has_its_value_or_its_reason() {
        let output = r#"{"protocolVersion":1,"values":{"a":"one","b":7,"d":"  ","e":"x","z":"unasked"},
            "errors":{"c":{"message":"denied"},"e":{"message":"expired\nsince yesterday"}}}"#;
        let list = values(output, &["a", "b", "c", "d", "e", "f"], true).unwrap();
        assert_eq!(list[0], Ok("one".to_owned()));
        for (index, said) in [
            (1, "a number, not a text"),
            (2, "the provider says: denied"),
            (3, "is empty"),
            (4, "the provider says: expired since yesterday"),
            (5, "no value for it"),
        ] {
            assert!(list[index].as_ref().unwrap_err().contains(said), "{:?}", list[index]);
        }
    }

    #[test]
    fn a_bare_value_counts_for_a_single_id_only() {
        let single = |output: &str| values(output, &["a"], false).map(|list| list[0].clone());
        assert_eq!(single("sk-live-1\n"), Ok(Ok("sk-live-1".to_owned())));
        assert_eq!(single("12345\r\n"), Ok(Ok("12345".to_owned())));
        assert_eq!(single("two\nlines\n\n"), Ok(Ok("two\nlines\n".to_owned())));
        assert_eq!(single("\"quoted\"\n"), Ok(Ok("quoted".to_owned())));
        assert_eq!(single("{braces\n"), Ok(Ok("{braces".to_owned())));
        assert!(single("{\"values\":{\"a\":\"x\"}").is_err(), "half an answer is no secret");
        assert!(single("{\"other\":1}").is_err());
        assert!(single("  \n").is_err());
        assert!(values("sk-live-1\n", &["a"], true).is_err());
        assert!(values("sk-live-1\n", &["a", "b"], false).is_err());
    }

    #[test]
    fn another_version_is_not_guessed_at() {
        for output in ["{\"protocolVersion\":2,\"values\":{\"a\":\"x\"}}", "{\"protocolVersion\":\"1\",\"values\":{}}"]
        {
            assert!(values(output, &["a"], false).is_err(), "{output}");
        }
    }

    proptest! {
        #[test]
        fn no_error_repeats_what_was_printed(output in "\\PC{0,80}", json_only: bool, many: bool) {
            let output = format!("{output}canary-7f3a9c21e5d84b60");
            let ids: &[&str] = if many { &["a", "b"] } else { &["a"] };
            match values(&output, ids, json_only) {
                Ok(list) => for one in list {
                    prop_assert!(one.map_or_else(|error| !error.contains("canary-7f3a"), |value| output.contains(&value)));
                },
                Err(error) => prop_assert!(!error.contains("canary-7f3a"), "{}", error),
            }
        }
    }
}
