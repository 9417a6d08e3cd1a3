#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::secret::Secret;

fn clean(text: &str) -> String {
    cleaned(text).unwrap_or_else(|| text.to_owned())
}

fn clean_line(line: Value) -> Value {
    let Value::Object(mut members) = line else { return line };
    LogRedactor::default().clean(&mut members);
    Value::Object(members)
}

#[test]
fn members_are_judged_by_their_name() {
    let cleaned = clean_line(json!({
        "authorization": "Bearer x", "X-Sigilum-Admin-Token": "t", "api_key": "k", "nested": {"client_secret": ["a", "b"]},
        "signature_code": "SIGNATURE_INVALID", "agent_key": "0123456789abcdef", "token_file": "/etc/t", "tokens": 3,
        "credentials": {"value": "v", "list": [{"deep": "d"}], "count": 2}, "x-sigilum-pair-code": "ABCD", "secret_id": "s",
    }));
    assert_eq!(
        cleaned,
        json!({
            "authorization": MARK, "X-Sigilum-Admin-Token": MARK, "api_key": MARK,
            "nested": {"client_secret": [MARK, MARK]},
            "signature_code": "SIGNATURE_INVALID", "agent_key": "0123456789abcdef", "token_file": "/etc/t", "tokens": 3,
            "credentials": {"value": MARK, "list": [{"deep": MARK}], "count": 2}, "x-sigilum-pair-code": MARK,
            "secret_id": MARK,
        })
    );
}

#[test]
fn credentials_within_a_text_go() {
    for (text, shown) in [
        ("sent Authorization: Bearer abc.def123456 to x", "sent Authorization: Bearer [redacted] to x"),
        ("got bearer 0123456789 here", "got bearer [redacted] here"),
        ("api_key=s3 and more", "api_key=[redacted] and more"),
        ("GET /v1?a=1&access_token=x%20y&b=2", "GET /v1?a=1&access_token=[redacted]&b=2"),
        (r#"{"password":"two words","a":1}"#, r#"{"password":"[redacted]","a":1}"#),
        (r#"{"authorization":"Basic dXNlcjpwYXNz"}"#, r#"{"authorization":"Basic [redacted]"}"#),
        ("key sk-live-0123456789 is wrong", "key [redacted] is wrong"),
        ("https://user:pass@example.com/x", "https://[redacted]@example.com/x"),
        ("before -----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY----- after", "before [redacted] after"),
        ("-----BEGIN PRIVATE KEY-----\nMII", "[redacted]"),
        ("password=!hunter2 x", "password=[redacted] x"),
        (r#"{"password":"a\"b","n":1}"#, r#"{"password":"[redacted]","n":1}"#),
        (r#"said {\"password\":\"abc\",\"n\":1}"#, r#"said {\"password\":\"[redacted]\",\"n\":1}"#),
        ("set-cookie: sid=1234567890", "set-cookie: [redacted]"),
    ] {
        assert_eq!(clean(text), shown);
    }
}

#[test]
fn what_an_operator_reads_stays() {
    for text in [
        "the admin token was replaced; the old one counts no longer",
        "secret reference unresolved: no such file",
        "invalid signature: the base differs",
        "basic authentication is not supported",
        "code=ADMIN_TOKEN_REQUIRED status=403",
        "https://example.com/a@b",
        "0b0c7b52-2d5a-8c1e-8000-000000000001",
        "/home/user/.config/sk-demo/file",
        "ask-anything_of_anybody",
    ] {
        assert_eq!(clean(text), text);
    }
}

#[test]
fn long_lines_take_no_longer_than_their_length() {
    // Each of these took time with the square of its length, many seconds, as long as a word was judged anew from each
    // of its parts on.
    for part in ["a.", "token ", "-----", "x://", "token=\"", "sk-", "é", "secret:{"] {
        let text = part.repeat(400_000 / part.len());
        let _ = clean(&text);
    }
}

#[test]
fn known_secrets_go_in_any_form() {
    let secret = Secret::new("plain-words-only".to_owned());
    let redactor = LogRedactor::knowing(Redactor::new([&secret]));
    let Value::Object(mut line) = json!({"message": "saw plain-words-only there"}) else { return };
    redactor.clean(&mut line);
    assert_eq!(Value::Object(line), json!({"message": "saw [redacted] there"}));
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}|[a-z :=\"'@/?&-]{0,80}|(token|Bearer|://|-----BEGIN |=|: |\"|é|sk-){0,12}") {
        let _ = clean(&text);
    }

    #[test]
    fn no_value_of_a_sensitive_name_is_left(
        name in "(x-)?(access_token|api-key|client_secret|password)",
        value in "[!-~&&[^\"'\\\\,;&)\\]}<>#=:@]]{1,40}",
        before in "[a-z ]{0,20}",
    ) {
        let cleaned = clean(&format!("{before} {name}={value}"));
        prop_assert_eq!(cleaned, format!("{} {}={}", before, name, MARK));
    }
}
