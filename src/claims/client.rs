//! The signed HTTP client of the control plane: one request, one judged answer.
//!
//! Every request is signed with the gateway's own identity (set A or B) exactly as it goes on the wire. Redirects are
//! not followed: they would carry the service key elsewhere. Answers are bounded in size and time. What went wrong is
//! a typed error whose text says what to do next and holds no secret.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use reqwest::Client;
use reqwest::Url;

use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::domain::time::UnixSeconds;
use crate::identity::Identity;
use crate::identity::Outgoing;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::http as outbound;
use crate::sys::http::HttpError;
use crate::sys::random;
use crate::wire::control_plane::ErrorBody;

/// Longest time for one request, its answer included.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Why there is no good answer: the service key, or the identity, is not accepted. See [`ApiError::reason`].
pub const UNAUTHORIZED: &str = "Unauthorized";
/// Bytes of an error's body that are read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Characters of the API's own words that are repeated.
const MAX_QUOTED: usize = 200;
/// A clock further off than this is named as the cause of a refused signature. The hosted API grants no skew at all.
const CLOCK_SKEW_SECONDS: u64 = 5;
/// Longest pause an answer may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Why the API's address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an absolute http or https URL.
    #[error("{0} is no http:// or https:// address; set SIGILUM_API_URL")]
    Address(String),
    /// The client could not be made.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// A request to the API.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// `GET` or `POST`.
    pub method: &'a Method,
    /// Path and query below the API's address, percent-encoded.
    pub path: &'a str,
    /// The service key, sent as a bearer token; `None` = not sent.
    pub key: Option<&'a Secret>,
    /// Whom the request is made for; `None` = the gateway's namespace.
    pub subject: Option<&'a str>,
    /// A JSON body; empty = none.
    pub body: &'a [u8],
    /// Further headers; not signed.
    pub headers: &'a [(&'static str, &'a str)],
    /// Largest body of a good answer, in bytes.
    pub limit: usize,
    /// Longest time in all.
    pub patience: Duration,
}

impl<'a> Call<'a> {
    /// A `GET` with a service key.
    pub const fn get(path: &'a str, key: &'a Secret, limit: usize) -> Self {
        Self {
            method: &Method::GET,
            path,
            key: Some(key),
            subject: None,
            body: &[],
            headers: &[],
            limit,
            patience: PATIENCE,
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Of [`ApiClient::send`] a 2xx or a 304.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON. Anything else is named as what it is: a page for people, a cut-off text.
    pub fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| not_json(self.status, &self.headers, Some(&error)))
    }

    /// What is wrong with it; `None` of a 2xx or a 304.
    pub fn refusal(&self) -> Option<ApiError> {
        (!is_good(self.status)).then(|| refusal(self))
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no good answer. The texts are for the log and for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No connection.
    #[error("{address} cannot be reached ({reason}); check that the API runs and that SIGILUM_API_URL is right")]
    Unreachable {
        /// The API's address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// A connection, and no whole answer in time.
    #[error("{address} did not answer within {seconds} s")]
    TimedOut {
        /// The API's address.
        address: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The answer broke off.
    #[error("the answer of {address} broke off ({reason})")]
    Broken {
        /// The API's address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The API sends us elsewhere; the service key does not go there.
    #[error(
        "the API answers {status} with a redirect to {location}, which is not followed; set SIGILUM_API_URL to the API itself"
    )]
    Redirect {
        /// 3xx.
        status: u16,
        /// Where to.
        location: String,
    },
    /// The API refused.
    #[error("the API answers {status}{}{}{}", spaced(code), spaced(message), advice(*status))]
    Refused {
        /// 4xx or 5xx.
        status: u16,
        /// For programs; empty where it said none.
        code: String,
        /// Its own words, bounded; empty where it said none.
        message: String,
        /// How long it asks to be left alone, bounded.
        retry_after: Option<Duration>,
    },
    /// Signatures made now are not of now.
    #[error("the API refuses the signature, and the clocks differ by {seconds} s; set this machine's clock (it is {})",
        if *ahead { "ahead" } else { "behind" })]
    Clock {
        /// By how much.
        seconds: u64,
        /// Whether ours is ahead of the API's.
        ahead: bool,
    },
    /// The answer is something else than the API's JSON.
    #[error("the answer {status} is not the API's JSON but {found}; check SIGILUM_API_URL")]
    NotJson {
        /// Its status.
        status: u16,
        /// What it is instead.
        found: String,
    },
    /// The answer is larger than it may be.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The request could not be made from what is configured.
    #[error("the request cannot be made: {0}")]
    Request(String),
}

impl ApiError {
    /// How long the API asked to be left alone.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::Redirect { .. }
            | Self::Clock { .. }
            | Self::NotJson { .. }
            | Self::TooLarge { .. }
            | Self::Request(_) => None,
        }
    }

    /// The status of a refusal.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Redirect { status, .. } | Self::NotJson { status, .. } => {
                Some(*status)
            }
            Self::Clock { .. } => Some(401),
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::TooLarge { .. }
            | Self::Request(_) => None,
        }
    }

    /// One word for metrics and conditions.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::TimedOut { .. } => "TimedOut",
            Self::Broken { .. } => "BrokenOff",
            Self::Redirect { .. } => "Redirect",
            Self::Refused { status: 401 | 403, .. } => UNAUTHORIZED,
            Self::Refused { status: 500.., .. } => "ServerError",
            Self::Refused { .. } => "Refused",
            Self::Clock { .. } => "ClockOff",
            Self::NotJson { .. } => "NotJson",
            Self::TooLarge { .. } => "TooLarge",
            Self::Request(_) => "Request",
        }
    }
}

/// Talks to one API as one identity. Cheap to share behind an `Arc`; connections are kept and used again.
pub struct ApiClient {
    base: String,
    http: Client,
    identity: Arc<Identity>,
}

impl std::fmt::Debug for ApiClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ApiClient").field("base", &self.base).field("identity", &self.identity).finish()
    }
}

impl ApiClient {
    /// `base` is the API's address, with or without a path and a trailing slash.
    pub fn new(base: &str, identity: Arc<Identity>) -> Result<Self, ClientError> {
        let base = base.trim().trim_end_matches('/');
        let url = Url::parse(base).ok().filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else { return Err(ClientError::Address(base.to_owned())) };
        let http = outbound::client(url.scheme() == "https")?;
        Ok(Self { base: base.to_owned(), http, identity })
    }

    /// The API's address, without a trailing slash.
    pub fn address(&self) -> &str {
        &self.base
    }

    /// Whether what is sent could be read on its way: without TLS to another machine.
    pub fn is_exposed(&self) -> bool {
        let url = Url::parse(&self.base).ok().filter(|url| url.scheme() == "http");
        url.is_some_and(|url| {
            let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
        })
    }

    /// The namespace requests are signed in.
    pub fn namespace(&self) -> &Namespace {
        self.identity.namespace()
    }

    /// Sends a request and reads the whole answer: a 2xx or a 304, anything else is an error.
    pub async fn send(&self, call: Call<'_>) -> Result<Answer, ApiError> {
        let answer = self.ask(call).await?;
        answer.refusal().map_or(Ok(answer), Err)
    }

    /// The same, and a bad answer is one as well: what it says counts for more than that it is bad.
    pub async fn ask(&self, call: Call<'_>) -> Result<Answer, ApiError> {
        let whole = async {
            let response = self.request(&call)?.send().await.map_err(|error| self.failed(error))?;
            if is_good(response.status()) {
                self.read(response, call.limit).await
            } else {
                self.read_bad(response).await
            }
        };
        let timed_out = || ApiError::TimedOut { address: self.base.clone(), seconds: call.patience.as_secs() };
        tokio::time::timeout(call.patience, whole).await.map_err(|_| timed_out())?
    }

    /// Sends a request whose good answer is a stream without an end; `patience` covers its head, and a bad answer.
    pub async fn open(&self, call: Call<'_>) -> Result<reqwest::Response, ApiError> {
        let timed_out = || ApiError::TimedOut { address: self.base.clone(), seconds: call.patience.as_secs() };
        tokio::time::timeout(call.patience, self.exchange(&call)).await.map_err(|_| timed_out())?
    }

    /// The head of a good answer.
    async fn exchange(&self, call: &Call<'_>) -> Result<reqwest::Response, ApiError> {
        let response = self.request(call)?.send().await.map_err(|error| self.failed(error))?;
        if is_good(response.status()) {
            return Ok(response);
        }
        Err(refusal(&self.read_bad(response).await?))
    }

    async fn read(&self, mut response: reqwest::Response, limit: usize) -> Result<Answer, ApiError> {
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = self.body(response, limit).await?.ok_or(ApiError::TooLarge { limit })?;
        Ok(Answer { status, headers, body })
    }

    /// Of a bad answer a body that is too large says nothing, and where a redirect leads to no body does.
    async fn read_bad(&self, mut response: reqwest::Response) -> Result<Answer, ApiError> {
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = match status.is_redirection() {
            true => Bytes::new(),
            false => self.body(response, MAX_ERROR_BYTES).await?.unwrap_or_default(),
        };
        Ok(Answer { status, headers, body })
    }

    fn request(&self, call: &Call<'_>) -> Result<reqwest::RequestBuilder, ApiError> {
        let cannot = |what: &dyn std::fmt::Display| ApiError::Request(what.to_string());
        // What is signed is what the client sends: its own writing of the address.
        let url = Url::parse(&format!("{}{}", self.base, call.path)).map_err(|error| cannot(&error))?;
        let nonce = random::uuid().map_err(|error| cannot(&error))?;
        let outgoing = Outgoing {
            method: call.method.as_str(),
            url: url.as_str(),
            body: call.body,
            subject: call.subject,
            agent_id: None,
            created: SystemClock.now().seconds(),
            nonce: &nonce,
        };
        let signed = self.identity.signer().sign(&outgoing).map_err(|error| cannot(&error))?;
        let mut headers = HeaderMap::with_capacity(12);
        for (name, value) in signed {
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| cannot(&name))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some(key) = call.key {
            headers.insert(header::AUTHORIZATION, bearer(key)?);
        }
        if !call.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in call.headers {
            let value = HeaderValue::from_str(value).map_err(|_| cannot(name))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let request = self.http.request(call.method.clone(), url).headers(headers);
        Ok(if call.body.is_empty() { request } else { request.body(call.body.to_vec()) })
    }

    /// The body, or `None` where it is longer than `limit`.
    async fn body(&self, mut response: reqwest::Response, limit: usize) -> Result<Option<Bytes>, ApiError> {
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        if announced > limit {
            return Ok(None);
        }
        let mut body = Vec::with_capacity(announced);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            if body.len().saturating_add(chunk.len()) > limit {
                return Ok(None);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(Bytes::from(body)))
    }

    fn failed(&self, error: reqwest::Error) -> ApiError {
        let error = error.without_url();
        if error.is_builder() {
            return ApiError::Request(quoted(&outbound::chain(&error)));
        }
        if error.is_connect() {
            return ApiError::Unreachable { address: self.base.clone(), reason: quoted(&outbound::chain(&error)) };
        }
        self.broken(error)
    }

    fn broken(&self, error: reqwest::Error) -> ApiError {
        ApiError::Broken { address: self.base.clone(), reason: quoted(&outbound::chain(&error.without_url())) }
    }
}

const fn is_good(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..300 | 304)
}

/// Judges an answer that is no good one.
fn refusal(answer: &Answer) -> ApiError {
    let Answer { status, headers, body } = answer;
    let status = *status;
    if status.is_redirection() {
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        return ApiError::Redirect { status: status.as_u16(), location: quoted(location.unwrap_or("nowhere")) };
    }
    let said: Option<ErrorBody> = serde_json::from_slice(body).ok();
    let is_json = said.is_some();
    let ErrorBody { error: message, code, .. } = said.unwrap_or_default();
    let code = code.unwrap_or_default();
    // A refused signature is the usual face of a clock that is off; other refusals have other causes.
    if status == StatusCode::UNAUTHORIZED
        && (code.is_empty() || code == "SIGNATURE_EXPIRED")
        && let Some((seconds, ahead)) = clock_difference(headers, SystemClock.now().seconds())
    {
        return ApiError::Clock { seconds, ahead };
    }
    // A proxy in front says 5xx in its own words, and that is no wrong address.
    if !is_json && !status.is_server_error() {
        return not_json(status, headers, None);
    }
    ApiError::Refused {
        status: status.as_u16(),
        code: quoted(&code),
        message: quoted(&message),
        retry_after: retry_after(headers),
    }
}

fn bearer(key: &Secret) -> Result<HeaderValue, ApiError> {
    let wrong = || ApiError::Request("the service key holds characters no header can carry".to_owned());
    if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(value)
}

/// How far the API's clock is from ours and whether ours is ahead; `None` where they agree well enough, or where the
/// answer has no time.
fn clock_difference(headers: &HeaderMap, now: UnixSeconds) -> Option<(u64, bool)> {
    let theirs = headers.get(header::DATE)?.to_str().ok().and_then(UnixSeconds::parse_http_date)?;
    let seconds = theirs.0.abs_diff(now.0);
    (seconds > CLOCK_SKEW_SECONDS).then_some((seconds, now.0 > theirs.0))
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3), bounded; a date is not understood.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

fn not_json(status: StatusCode, headers: &HeaderMap, error: Option<&serde_json::Error>) -> ApiError {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let found = match (kind.as_str(), error) {
        ("text/html" | "application/xhtml+xml", _) => "a web page (text/html)".to_owned(),
        ("application/json", Some(error)) if error.is_eof() => "JSON that breaks off".to_owned(),
        ("application/json", Some(error)) => {
            format!("other JSON (line {}, column {})", error.line(), error.column())
        }
        ("application/json", None) => "other JSON".to_owned(),
        ("", _) => "something without a content type".to_owned(),
        (kind, _) => quoted(kind),
    };
    ApiError::NotJson { status: status.as_u16(), found }
}

/// The API's words: bounded, in one line, without control characters.
fn quoted(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_QUOTED).collect::<String>().trim().to_owned()
}

fn spaced(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" {text}") }
}

const fn advice(status: u16) -> &'static str {
    match status {
        401 => "; check the service key and the gateway's identity",
        403 => "; check that the service key belongs to this service",
        404 => "; check SIGILUM_API_URL, and that the namespace is known there",
        429 => "; it is asked again later",
        500.. => "; it is asked again",
        _ => "",
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
