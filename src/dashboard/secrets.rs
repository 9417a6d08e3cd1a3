//! Secrets that a form sends to the gateway: sealed in the browser, and in clear only where the owner said so.

use serde_json::Map;
use serde_json::Value;

use crate::api::problem::Problem;
use crate::api::problem::Violation;
use crate::dashboard::form::Form;
use crate::domain::sealing;

/// What names of secret fields begin with.
const PREFIX: &str = "secret.";
/// What the field `plain` says where the owner accepts that secrets go in clear.
const ACCEPTED: &str = "accepted";

/// The secrets of a form by their keys. 400 `VALIDATION_ERROR` where there is none, or where one is in clear and the
/// owner has not accepted that: a page whose script failed must not give a secret away.
pub(super) fn read(form: &Form) -> Result<Map<String, Value>, Problem> {
    let plain = form.text("plain") == Some(ACCEPTED);
    let mut violations = Vec::new();
    let mut secrets = Map::new();
    for (key, secret) in form.secrets(PREFIX) {
        if !plain && !secret.expose().starts_with(sealing::PREFIX) {
            let message = "was not encrypted in the browser and was not passed on";
            violations.push(Violation { field: key.to_owned().into(), message: message.into() });
        }
        secrets.insert(key.to_owned(), Value::from(secret.expose()));
    }
    if secrets.is_empty() {
        let message = "must be given; the page encrypts it in the browser, which needs JavaScript";
        violations.push(Violation { field: "secret".into(), message: message.into() });
    }
    if violations.is_empty() { Ok(secrets) } else { Err(Problem::validation(&violations)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn of(body: &str) -> Result<Value, &'static str> {
        read(&Form::parse(body.as_bytes()).unwrap()).map(Value::Object).map_err(|problem| problem.code())
    }

    #[test]
    fn a_plain_secret_needs_the_owners_word() {
        assert_eq!(of("secret.a=hunter2"), Err("VALIDATION_ERROR"));
        assert_eq!(of("secret.a=hunter2&plain=yes"), Err("VALIDATION_ERROR"));
        assert_eq!(of("secret.a=hunter2&plain=accepted"), Ok(serde_json::json!({"a": "hunter2"})));
        assert_eq!(of("secret.a=sealed:v1:x.y"), Ok(serde_json::json!({"a": "sealed:v1:x.y"})));
        assert_eq!(of("secret.a=sealed:v1:x.y&secret.b=hunter2"), Err("VALIDATION_ERROR"));
        assert_eq!(of("secret.a=&plain=accepted"), Err("VALIDATION_ERROR"));
    }

    #[test]
    fn a_refusal_does_not_repeat_the_secret() {
        let problem = read(&Form::parse(b"secret.a=hunter2").unwrap()).unwrap_err();
        assert!(!format!("{problem:?}").contains("hunter2"));
    }
}
