//! Error answers: `{error, code?, details?}` with a status. The sentence holds no secret and nothing the operating
//! system or the database said.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::IntoResponse;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use serde::Serialize;
use serde_json::Value;

use crate::domain::signature::received::Fault;
use crate::sys::random::RandomError;
use crate::wire::control_plane::ErrorBody;

/// One thing that is wrong with what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Violation {
    /// The member or parameter.
    pub field: Cow<'static, str>,
    /// What it must be.
    pub message: Cow<'static, str>,
}

/// An error answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    /// Boxed, so that every `Result` of a handler stays small.
    details: Option<Box<Value>>,
    retry_after: Option<u32>,
}

impl Problem {
    /// An error answer; the code may be empty.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), details: None, retry_after: None }
    }

    /// Adds what exactly, by code.
    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// 400: everything that is wrong with what was sent.
    pub fn validation(violations: &[Violation]) -> Self {
        // Two texts each: writing them as JSON cannot fail.
        let details = serde_json::to_value(violations).unwrap_or_default();
        Self::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", "what was sent is not valid").details(details)
    }

    /// 400: one thing that is wrong with what was sent.
    pub fn invalid(field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::validation(&[Violation { field: field.into(), message: message.into() }])
    }

    /// 400: a body that is no JSON object.
    pub fn invalid_json() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_JSON", "the body must be one JSON object")
    }

    /// 401: no credential that counts.
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
    }

    /// 403: known, but not allowed.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    /// 404: nothing of that name, or nothing of the caller's.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "not found")
    }

    /// 413.
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "REQUEST_BODY_TOO_LARGE", "request body too large")
    }

    /// 429.
    pub fn rate_limited(seconds: u32) -> Self {
        let text = "too many requests; try again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", text).retry_after(seconds)
    }

    /// 500: something of ours failed; the log says what.
    pub fn internal() -> Self {
        let text = "internal error; the log of the API says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", text)
    }

    /// 503: the database cannot be used now.
    pub fn database() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "DB_UNAVAILABLE", "the database cannot be used now").retry_after(1)
    }

    /// Status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Code, or empty.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// The sentence, for an answer that holds several.
    pub fn sentence(&self) -> String {
        self.message.clone().into_owned()
    }

    /// What is wrong with what was sent, where that is known member by member.
    pub fn violations(&self) -> Vec<Violation> {
        let listed = self.details.as_deref().and_then(Value::as_array);
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let read = |value: &Value| {
            let (field, message) = (text(value, "field")?, text(value, "message")?);
            Some(Violation { field: field.into(), message: message.into() })
        };
        listed.into_iter().flatten().filter_map(read).collect()
    }

    /// For an answer that does not say more than its status.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(status, "METHOD_NOT_ALLOWED", "method not allowed"),
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::new(status, "UNSUPPORTED_MEDIA_TYPE", "the content type must be application/json")
            }
            _ if status.is_server_error() => Self::internal(),
            _ => Self::new(status, "VALIDATION_ERROR", "what was sent is not valid"),
        }
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        tracing::error!(%error, "the database failed");
        match error.sqlite_error_code() {
            // The statement was one of ours and the data fitted it: this is the disk's or another process's doing.
            Some(
                rusqlite::ErrorCode::DatabaseBusy
                | rusqlite::ErrorCode::DatabaseLocked
                | rusqlite::ErrorCode::DiskFull
                | rusqlite::ErrorCode::SystemIoFailure
                | rusqlite::ErrorCode::ReadOnly
                | rusqlite::ErrorCode::CannotOpen,
            ) => Self::database(),
            _ => Self::internal(),
        }
    }
}

impl From<RandomError> for Problem {
    fn from(error: RandomError) -> Self {
        tracing::error!(%error, "no randomness");
        Self::internal()
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let (code, status) = fault.wire();
        Self::new(StatusCode::from_u16(status).unwrap_or(StatusCode::UNAUTHORIZED), code, fault.text())
            .details(serde_json::json!({ "reason": fault.sdk_code() }))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let body = ErrorBody {
            error: self.message.into_owned(),
            code: (!self.code.is_empty()).then(|| self.code.to_owned()),
            details: self.details.map(|details| *details),
        };
        let mut response = json(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A JSON answer.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = status;
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}
