//! Answers: JSON bodies and error envelopes, and the one table from store errors to them.

use std::io;

use axum::body::Body;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use serde::Serialize;

use crate::domain::relay::RelayRefused;
use crate::store::StoreError;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::database::Hindrance;
use crate::sys::files;
use crate::wire::envelope;
use crate::wire::envelope::Envelope;

/// Header that repeats a request's id.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Header that repeats an error's code.
pub const CODE_HEADER: &str = "x-sigilum-code";

/// When to come again where the store cannot be written: people look after a disk.
const STORE_RETRY_SECONDS: u32 = 10;

/// The id of a request: its client's, else ours.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// An error answer: status, code (may be empty), sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<u32>,
    /// Members besides those of every error, each as `,"name":value`.
    members: String,
}

impl Problem {
    /// An error answer. The sentence holds no secret and nothing the operating system said.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None, members: String::new() }
    }

    /// A mistake in what was asked.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "", message)
    }

    /// Nothing of that name.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "not found")
    }

    /// Something of ours failed; the log says what.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", "internal error; the gateway's log says more")
    }

    /// A file of ours could not be written, and the sentence says which: 500, but for want of room as of the store.
    pub fn unwritten(error: &io::Error, otherwise: &'static str) -> Self {
        if files::is_full(error) {
            return Self::store_unavailable(Hindrance::Full);
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", otherwise)
    }

    /// The store, or a file beside it, cannot be written for now.
    pub fn store_unavailable(hindrance: Hindrance) -> Self {
        let message = match hindrance {
            Hindrance::Full => "the gateway's disk is full, so nothing can be changed",
            Hindrance::Other => "the gateway's store cannot be used now; the gateway's log says why",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE", message).retry_after(STORE_RETRY_SECONDS)
    }

    /// Larger than the limit.
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "REQUEST_BODY_TOO_LARGE", "request body too large")
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a member that programs read.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: &impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_string(value) {
            self.members.push_str(&format!(",\"{name}\":{value}"));
        }
        self
    }

    /// Code, or empty.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// The answer.
    pub fn into_response(self, request_id: &RequestId) -> Response<Body> {
        let envelope = Envelope { code: self.code, status: self.status.as_u16(), message: &self.message };
        let mut body = envelope.json(&request_id.0, SystemClock.now().wall);
        if let Some(end) = body.rfind('}') {
            body.insert_str(end, &self.members);
        }
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(envelope::CONTENT_TYPE));
        if !self.code.is_empty() {
            headers.insert(CODE_HEADER, HeaderValue::from_static(self.code));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::Database(database) = &error
            && let Some(hindrance) = database.hindrance()
        {
            tracing::error!(%error, "the store cannot be used");
            return Self::store_unavailable(hindrance);
        }
        match error {
            StoreError::NotFound => Self::new(StatusCode::NOT_FOUND, "", error.to_string()),
            StoreError::VariableNotFound => Self::new(StatusCode::NOT_FOUND, "", error.to_string()),
            StoreError::Declared { .. } => Self::new(StatusCode::CONFLICT, "CONNECTION_DECLARED", error.to_string()),
            StoreError::VariableDeclared { .. } => {
                Self::new(StatusCode::CONFLICT, "VARIABLE_DECLARED", error.to_string())
            }
            StoreError::VariableInUse { ref connections, .. } => {
                let problem = Self::new(StatusCode::CONFLICT, "VARIABLE_IN_USE", error.to_string());
                problem.member("used_by", &connections.len()).member("connections", connections)
            }
            StoreError::VariableMissing { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "VARIABLE_NOT_FOUND", error.to_string())
            }
            StoreError::VariableCycle { .. } => Self::new(StatusCode::BAD_REQUEST, "VARIABLE_CYCLE", error.to_string()),
            StoreError::VariableInvalid(_) => Self::invalid(error.to_string()),
            StoreError::Exists | StoreError::Full => Self::new(StatusCode::CONFLICT, "", error.to_string()),
            // With a code of its own: for a command that is run again this is success.
            StoreError::Unchanged => Self::new(StatusCode::BAD_REQUEST, "SECRET_UNCHANGED", error.to_string()),
            StoreError::Invalid(_) => Self::invalid(error.to_string()),
            StoreError::SealedInvalid(_) => {
                Self::new(StatusCode::BAD_REQUEST, "SEALED_SECRET_INVALID", error.to_string())
            }
            StoreError::Relay(refused) => Self::from(refused),
            StoreError::Lost | StoreError::SecretsIncomplete(_) => {
                Self::new(StatusCode::BAD_REQUEST, "SECRETS_LOST", error.to_string())
            }
            StoreError::NoNextMasterKey { .. } => {
                Self::new(StatusCode::CONFLICT, "NEXT_MASTER_KEY_REQUIRED", error.to_string())
            }
            StoreError::MasterKeyPending { .. } => {
                Self::new(StatusCode::CONFLICT, "MASTER_KEY_PENDING", error.to_string())
            }
            StoreError::SameMasterKey => Self::new(StatusCode::CONFLICT, "MASTER_KEY_UNCHANGED", error.to_string()),
            StoreError::Unreadable(_) => Self::new(StatusCode::CONFLICT, "SEALED_UNREADABLE", error.to_string()),
            StoreError::Locked(_)
            | StoreError::DeclaredTwice { .. }
            | StoreError::Database(_)
            | StoreError::KeyFile(_)
            | StoreError::MasterKeyOpens
            | StoreError::NoStore { .. }
            | StoreError::WrongMasterKey { .. }
            | StoreError::Seal(_)
            | StoreError::Record { .. }
            | StoreError::Random(_)
            | StoreError::Closed => {
                tracing::error!(%error, "the store failed");
                Self::internal()
            }
        }
    }
}

impl From<RelayRefused> for Problem {
    fn from(refused: RelayRefused) -> Self {
        tracing::warn!(%refused, "a relayed request was turned away");
        Self::new(StatusCode::FORBIDDEN, "RELAY_FORBIDDEN", refused.to_string())
    }
}

/// A JSON answer, ended by a line feed.
pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Response<Body>, Problem> {
    let mut body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        Problem::internal()
    })?;
    body.push(b'\n');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A JSON answer that is written already.
pub fn json_text(text: String) -> Result<Response<Body>, Problem> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
