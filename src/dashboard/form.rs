//! What a form sends: `application/x-www-form-urlencoded`, read strictly.

use axum::extract::FromRequest;
use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use serde_json::Map;
use serde_json::Value;

use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::dashboard::failure::Failure;
use crate::domain::secret::Secret;

/// Most fields of a form; comparing their names with one another stays cheap.
const MAX_FIELDS: usize = 64;
/// Largest form, in bytes: some secrets of 16 KiB, sealed and percent-encoded.
const MAX_BYTES: usize = 256 * 1024;

/// The fields of a form, each of which occurs once.
#[derive(Clone, PartialEq, Eq)]
pub struct Form(Query);

impl std::fmt::Debug for Form {
    /// Names only: a value may be a secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.0.pairs().map(|(name, _)| name)).finish()
    }
}

impl Form {
    /// Reads a body: 400 `VALIDATION_ERROR` where it is no form, too many fields, or has one twice; 413 where it is
    /// too large.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        if body.len() > MAX_BYTES {
            return Err(Problem::too_large());
        }
        if body.iter().filter(|byte| **byte == b'&').count() >= MAX_FIELDS {
            return Err(Problem::invalid("body", format!("must have at most {MAX_FIELDS} fields")));
        }
        let text = std::str::from_utf8(body).map_err(|_| Problem::invalid("body", "must be a form"))?;
        Query::parse(text).map(Self)
    }

    /// A field without blanks around it; an empty one is absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.find(name).map(str::trim).filter(|text| !text.is_empty())
    }

    /// The fields whose name begins with `prefix`, under the rest of their names; empty ones are absent.
    pub fn secrets<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Secret)> {
        self.0
            .pairs()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.trim())))
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, Secret::new(value.to_owned())))
    }

    /// These fields as the members of a JSON object, as the API's own endpoints read them; absent ones are left out.
    pub fn object(&self, names: &[&str]) -> Map<String, Value> {
        let member = |name: &&str| Some(((*name).to_owned(), Value::from(self.text(name)?)));
        names.iter().filter_map(member).collect()
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        if !is_form(request.headers()) {
            let text = "the content type must be application/x-www-form-urlencoded";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "UNSUPPORTED_MEDIA_TYPE", text).into());
        }
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|refused| Problem::of_status(refused.status()))?;
        Ok(Self::parse(&body)?)
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str) else { return false };
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_trimmed_and_empty_ones_absent() {
        let form = Form::parse(b"name=+Slack+&slug=&secret.a=x&secret.b=+&domain=d%26").unwrap();
        assert_eq!((form.text("name"), form.text("slug"), form.text("domain")), (Some("Slack"), None, Some("d&")));
        let secrets: Vec<_> = form.secrets("secret.").map(|(name, value)| (name, value.expose().to_owned())).collect();
        assert_eq!(secrets, [("a", "x".to_owned())]);
        assert_eq!(Value::Object(form.object(&["name", "slug", "other"])), serde_json::json!({"name": "Slack"}));
    }

    #[test]
    fn a_form_is_bounded_and_has_no_field_twice() {
        for bad in ["a=1&a=2", "a=%zz", &"a&".repeat(MAX_FIELDS)] {
            assert_eq!(Form::parse(bad.as_bytes()).unwrap_err().code(), "VALIDATION_ERROR", "{bad}");
        }
        assert_eq!(Form::parse(&[b'a'; MAX_BYTES + 1]).unwrap_err().code(), "REQUEST_BODY_TOO_LARGE");
        assert!(Form::parse(&[0xff, b'=']).is_err());
    }

    #[test]
    fn what_is_shown_of_a_form_holds_no_value() {
        let form = Form::parse(b"secret.key=hunter2").unwrap();
        assert_eq!(format!("{form:?}"), r#"["secret.key"]"#);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_form_or_a_refusal(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(form) = Form::parse(&body) {
                prop_assert!(form.0.pairs().count() <= MAX_FIELDS);
            }
        }
    }
}
