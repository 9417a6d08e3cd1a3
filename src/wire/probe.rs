//! JSON of a connection's test.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::domain::probe::TestDraft;
use crate::domain::probe::TestOutcome;

/// `POST /connections/{id}/test`; without a body all defaults.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = ConnectionTest)]
pub struct TestBody {
    /// By default `GET`.
    #[schema(example = "GET")]
    method: Option<String>,
    /// Path and query, joined as those of agents are; by default `/`.
    #[schema(example = "/v1/models")]
    test_path: Option<String>,
    /// Sent too. None that carries a credential or describes the connection itself.
    headers: Option<BTreeMap<String, String>>,
    /// A text is sent as it is, anything else as JSON.
    body: Option<Value>,
}

impl TestBody {
    /// The test as asked for.
    pub fn into_draft(self) -> TestDraft {
        let body = match self.body {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => text.into_bytes(),
            Some(other) => other.to_string().into_bytes(),
        };
        TestDraft { method: self.method, path: self.test_path, headers: self.headers.unwrap_or_default(), body }
    }
}

/// What came of a test.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ConnectionTestResult)]
pub struct TestResultBody {
    /// `pass` or `fail`.
    status: &'static str,
    /// Of the provider's answer; 0 where there was none.
    http_status: u16,
    /// Why it failed, at most 240 characters; absent where it passed.
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

impl TestResultBody {
    /// Writes an outcome down.
    pub fn encode(outcome: TestOutcome) -> Self {
        let TestOutcome { passed, http_status, error } = outcome;
        Self { status: verdict(passed), http_status, error }
    }
}

/// The word for an outcome.
pub const fn verdict(passed: bool) -> &'static str {
    if passed { "pass" } else { "fail" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;
    use crate::wire::admin::decode;

    #[test]
    fn a_body_is_sent_as_text_or_as_json() {
        for (body, sent) in [
            ("{}", ""),
            (r#"{"body":null}"#, ""),
            (r#"{"body":"a=b"}"#, "a=b"),
            (r#"{"body":{"b":1,"a":[2,null]}}"#, r#"{"b":1,"a":[2,null]}"#),
            (r#"{"body":7}"#, "7"),
        ] {
            let draft = decode::<TestBody>(body.as_bytes()).unwrap().into_draft();
            assert_eq!(draft.body, sent.as_bytes(), "{body}");
        }
    }
}
