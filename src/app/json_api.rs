//! JSON over HTTP as our commands speak it to the Sigilum API and to the admin API: one request, one
//! bounded answer, and an error for everything that is no answer of such an API.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::CONTENT_TYPE;
use http::header::HeaderName;
use http::header::HeaderValue;
use http::header::LOCATION;
use reqwest::Client;
use reqwest::Response;
use reqwest::Url;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::domain::secret::Secret;
use crate::sys::http::HttpError;
use crate::sys::http::chain;
use crate::sys::http::client;
use crate::sys::http::is_about_certificates;
use crate::sys::http::is_refused;
use crate::sys::http::trusting;
use crate::sys::tls::trust::ServerTrust;

/// A change waits for a disk, on a busy machine for long.
const DEADLINE: Duration = Duration::from_secs(30);
/// The same for what the admin API itself gives ten minutes.
const LONG_DEADLINE: Duration = Duration::from_secs(620);
/// Largest answer that is read: a list of as many connections as one gateway holds, 50,000 of about 1 kB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Longest text of an answer that is repeated to a person, in characters.
const MAX_TEXT: usize = 300;

/// Most mistakes of a refusal that are repeated to a person.
const MAX_DETAILS: usize = 8;

/// What an API said no with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// For programs, such as `KEY_LIMIT_REACHED`; empty where it sent none.
    pub code: String,
    /// For people; free of control characters.
    pub message: String,
    /// What exactly, by code; `Null` where it sent nothing.
    pub details: Value,
}

/// Why there is no result. The texts hold no token and no secret.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is none of an API.
    #[error("{address:?} is no address of an API: {reason}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The client could not be made.
    #[error(transparent)]
    Client(#[from] HttpError),
    /// The token cannot be sent in a header.
    #[error("the token holds characters that no token has")]
    Token,
    /// Nobody answers, or not to the end.
    #[error("{base} does not answer: {cause}")]
    Unreachable {
        /// Which API.
        base: String,
        /// What the network said.
        cause: String,
    },
    /// Who answers is not who was to answer, or does not know us: certificates.
    #[error("{base} and this command do not agree on certificates: {cause}")]
    Certificate {
        /// Which API.
        base: String,
        /// What was wrong with one of them.
        cause: String,
    },
    /// An API does not send its clients elsewhere, and a token is not carried there.
    #[error("{base} answers with a redirect ({status}) to {location}, which is not followed")]
    Redirect {
        /// Which API.
        base: String,
        /// HTTP status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// Something answers that is no such API: a page, half an answer, another JSON.
    #[error("{base} answered {status}, but not with the JSON that is expected: {what}")]
    Unexpected {
        /// Which API.
        base: String,
        /// HTTP status.
        status: u16,
        /// What it was instead.
        what: String,
    },
    /// It said no.
    #[error("{}", refusal_text(.0))]
    Refused(Box<Refusal>),
}

fn refusal_text(refusal: &Refusal) -> String {
    match refusal.code.as_str() {
        "" => format!("{} (HTTP {})", refusal.message, refusal.status),
        code => format!("{} (HTTP {}, {code})", refusal.message, refusal.status),
    }
}

impl ApiError {
    /// The refusal's code; empty for everything that is no refusal.
    pub fn code(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.code,
            Self::Address { .. }
            | Self::Client(_)
            | Self::Token
            | Self::Unreachable { .. }
            | Self::Certificate { .. }
            | Self::Redirect { .. }
            | Self::Unexpected { .. } => "",
        }
    }

    /// The refusal's status; 0 for everything that is no refusal.
    pub fn status(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.status,
            Self::Address { .. }
            | Self::Client(_)
            | Self::Token
            | Self::Unreachable { .. }
            | Self::Certificate { .. }
            | Self::Redirect { .. }
            | Self::Unexpected { .. } => 0,
        }
    }
}

/// An API at an address, and what to say to it with each request.
#[derive(Clone)]
pub(super) struct JsonApi {
    client: Client,
    base: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    deadline: Duration,
}

impl JsonApi {
    /// An API below `base`, which may have a path.
    pub(super) fn new(base: &str) -> Result<Self, ApiError> {
        Self::trusting(base, &ServerTrust::default())
    }

    /// The same with whom to believe, where it is reached over TLS.
    pub(super) fn trusting(base: &str, trust: &ServerTrust) -> Result<Self, ApiError> {
        let wrong = |reason| ApiError::Address { address: base.to_owned(), reason };
        let url = Url::parse(base.trim()).map_err(|_| wrong("it is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("it must begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it may not hold a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it may not hold a query"));
        }
        let client = if url.scheme() == "https" { trusting(trust)? } else { client(false)? };
        Ok(Self { client, base: url, headers: Vec::new(), deadline: DEADLINE })
    }

    /// Adds a header that holds a secret: never shown, never kept in a compression table.
    pub(super) fn with_secret(mut self, name: HeaderName, value: &Secret) -> Result<Self, ApiError> {
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| ApiError::Token)?;
        value.set_sensitive(true);
        self.headers.push((name, value));
        Ok(self)
    }

    /// The same with another time for each answer.
    pub(super) fn within(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same for what takes long: work on a whole store, programs that are asked for secrets.
    pub(super) fn patient(&self) -> Self {
        Self { deadline: LONG_DEADLINE, ..self.clone() }
    }

    /// The address of the resource these segments name; each is escaped as a whole.
    pub(super) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// One request. A status below 300 is an answer, everything else an error; a body of nothing is `Null`.
    pub(super) async fn call(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Value, ApiError> {
        self.call_with(method, url, body.map(|body| body.to_string().into_bytes()), &[]).await
    }

    /// One request with a body that was made elsewhere and headers of its own.
    pub(super) async fn call_with(
        &self,
        method: Method,
        url: Url,
        body: Option<Vec<u8>>,
        more: &[(HeaderName, HeaderValue)],
    ) -> Result<Value, ApiError> {
        self.exchange(method, url, body, more, |_| false).await
    }

    /// One request whose answer counts as one by its body too, whatever its status: `is_answer`.
    pub(super) async fn call_where(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        is_answer: fn(&Value) -> bool,
    ) -> Result<Value, ApiError> {
        self.exchange(method, url, body.map(|body| body.to_string().into_bytes()), &[], is_answer).await
    }

    async fn exchange(
        &self,
        method: Method,
        url: Url,
        body: Option<Vec<u8>>,
        more: &[(HeaderName, HeaderValue)],
        is_answer: fn(&Value) -> bool,
    ) -> Result<Value, ApiError> {
        let mut request = self.client.request(method, url);
        for (name, value) in self.headers.iter().chain(more) {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let exchange = async {
            let answer = request.send().await.map_err(|error| self.unreachable(error))?;
            self.judge(answer, is_answer).await
        };
        timeout(self.deadline, exchange).await.unwrap_or_else(|_| {
            let cause = format!("no answer within {} s", self.deadline.as_secs());
            Err(ApiError::Unreachable { base: self.name(), cause })
        })
    }

    /// One request whose answer is no JSON but bytes, to be read with [`JsonApi::next`].
    pub(super) async fn open(&self, method: Method, url: Url) -> Result<Response, ApiError> {
        let mut request = self.client.request(method, url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = self.patiently(request.send()).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        self.judge(answer, |_| false).await.and_then(|_| Err(self.unexpected(status, "it says neither yes nor no")))
    }

    /// The next bytes of an answer; `None` at its end.
    pub(super) async fn next(&self, answer: &mut Response) -> Result<Option<Bytes>, ApiError> {
        self.patiently(answer.chunk()).await
    }

    /// Waits for one step of an answer of any length.
    async fn patiently<T>(&self, step: impl Future<Output = Result<T, reqwest::Error>>) -> Result<T, ApiError> {
        match timeout(self.deadline, step).await {
            Ok(done) => done.map_err(|error| self.unreachable(error)),
            Err(_) => {
                let cause = format!("nothing came for {} s", self.deadline.as_secs());
                Err(ApiError::Unreachable { base: self.name(), cause })
            }
        }
    }

    /// The answer as the type that is expected.
    pub(super) fn read<T: DeserializeOwned>(&self, value: Value) -> Result<T, ApiError> {
        // The parser's own message could quote a value.
        serde_json::from_value(value).map_err(|_| self.unexpected(200, "its members are others"))
    }

    /// An answer that says nothing usable.
    pub(super) fn unexpected(&self, status: u16, what: &str) -> ApiError {
        ApiError::Unexpected { base: self.name(), status, what: what.to_owned() }
    }

    async fn judge(&self, mut answer: Response, is_answer: fn(&Value) -> bool) -> Result<Value, ApiError> {
        let status = answer.status();
        if status.is_redirection() {
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
            return Err(ApiError::Redirect {
                base: self.name(),
                status: status.as_u16(),
                location: readable(location),
            });
        }
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(readable);
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER {
                return Err(self.unexpected(status.as_u16(), "it is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        if body.is_empty() && status.is_success() {
            return Ok(Value::Null);
        }
        let value = serde_json::from_slice::<Value>(&body).map_err(|_| {
            let what = kind.unwrap_or_else(|| "no content type".to_owned());
            self.unexpected(status.as_u16(), &what)
        })?;
        if status.is_success() || is_answer(&value) {
            Ok(value)
        } else {
            Err(ApiError::Refused(Box::new(refusal(status.as_u16(), &value))))
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> ApiError {
        let error = error.without_url();
        // What every layer of the client says of it tells nobody more.
        let cause = if is_refused(&error) { "connection refused".to_owned() } else { chain(&error) };
        let base = self.name();
        if is_about_certificates(&error) {
            ApiError::Certificate { base, cause }
        } else {
            ApiError::Unreachable { base, cause }
        }
    }

    fn name(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }
}

fn refusal(status: u16, body: &Value) -> Refusal {
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(readable).unwrap_or_default();
    let mut message = match text("error") {
        empty if empty.is_empty() => "refused without a reason".to_owned(),
        said => said.trim_end_matches('.').to_owned(),
    };
    let details = body.get("details").cloned().unwrap_or_default();
    for wrong in details.as_array().into_iter().flatten().take(MAX_DETAILS) {
        let part = |name: &str| wrong.get(name).and_then(Value::as_str).map(readable).unwrap_or_default();
        message.push_str(&format!("; {}: {}", part("field"), part("message")));
    }
    Refusal { status, code: text("code"), message, details }
}

/// What a stranger wrote, so that it can be shown on a terminal: one line of bounded length without control
/// characters and without marks that turn the direction of writing around.
pub fn readable(text: &str) -> String {
    let turning =
        |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |letter: char| if letter.is_control() || turning(letter) { '\u{fffd}' } else { letter };
    text.trim().chars().take(MAX_TEXT).map(shown).collect()
}

#[cfg(test)]
#[path = "json_api_tests.rs"]
mod tests;
