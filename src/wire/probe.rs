//! JSON of a connection's test.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::domain::probe::TestDraft;
use crate::domain::probe::TestOutcome;
use crate::wire::catalog::Template;

/// `POST /connections/{id}/test`; without a body all defaults.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[schema(as = ConnectionTest)]
pub struct TestBody {
    /// By default `GET`.
    #[schema(example = "GET")]
    method: Option<String>,
    /// Path and query, joined as those of agents are; by default the connection's own address.
    #[schema(example = "/v1/models")]
    test_path: Option<String>,
    /// Sent too. None that carries a credential or describes the connection itself.
    headers: Option<BTreeMap<String, String>>,
    /// A text is sent as it is, anything else as JSON.
    body: Option<Value>,
}

impl TestBody {
    /// Whether it is a `GET` or `HEAD` with nothing of its own but the path.
    pub fn is_look(&self) -> bool {
        let method = self.method.as_deref().unwrap_or_default().trim();
        let reads = ["", "GET", "HEAD"].iter().any(|known| method.eq_ignore_ascii_case(known));
        let bare = self.headers.as_ref().is_none_or(BTreeMap::is_empty);
        reads && bare && matches!(self.body, None | Some(Value::Null))
    }

    /// Whether it is the test of a template, with nothing added and nothing left out.
    pub fn is_of(&self, template: &Template) -> bool {
        let none = BTreeMap::new();
        let or =
            |given: Option<&str>, default: &str| given.filter(|given| !given.is_empty()).unwrap_or(default).to_owned();
        let path = or(self.test_path.as_deref(), "/");
        let method = or(self.method.as_deref(), "GET");
        let body = |body: &Option<Value>| body.clone().filter(|body| !body.is_null());
        path == or(Some(&template.default_test_path), "/")
            && method.eq_ignore_ascii_case(&or(Some(&template.default_test_method), "GET"))
            && self.headers.as_ref().unwrap_or(&none) == &template.default_test_headers
            && body(&self.body) == body(&template.default_test_body)
    }

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
