//! The request by which an owner tests a connection, checked: it goes where agents' requests go, and carries nothing
//! that is ours, the connection's own or a credential.

use std::collections::BTreeMap;

use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header;

use crate::domain::connection::AuthMode;
use crate::domain::connection::ConnectionSettings;
use crate::domain::connection::Credential;
use crate::domain::connection::InvalidConnection;
use crate::domain::connection::MAX_LIST_ENTRIES;
use crate::domain::connection::MAX_TEXT_BYTES;
use crate::domain::draft::is_reserved;
use crate::domain::route;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::domain::upstream_path;

/// Longest text that says why a test failed, in characters.
pub const MAX_ERROR_CHARS: usize = 240;

/// A test as asked for; `None` = the default.
#[derive(Debug, Default)]
pub struct TestDraft {
    /// By default `GET`; any case.
    pub method: Option<String>,
    /// Path and query below the base address and prefix; by default none, as of an agent that names the connection alone.
    pub path: Option<String>,
    /// As written.
    pub headers: BTreeMap<String, String>,
    /// Empty = none.
    pub body: Vec<u8>,
}

/// A test that may be sent.
#[derive(Debug)]
pub struct TestRequest {
    /// Neither `CONNECT` nor `TRACE`.
    pub method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Empty = none.
    pub body: Vec<u8>,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// 200 to 399 was answered.
    pub passed: bool,
    /// 0 where nothing was answered.
    pub http_status: u16,
    /// Why it failed, [`MAX_ERROR_CHARS`] at most; empty where it passed. No secret, no query.
    pub error: String,
}

/// The last test of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastTest {
    /// When it ended.
    pub at: UnixMillis,
    /// What came of it.
    pub outcome: TestOutcome,
}

impl TestDraft {
    /// Checks what may be sent over this connection.
    pub fn check(self, settings: &ConnectionSettings) -> Result<TestRequest, InvalidConnection> {
        let method = self.method.unwrap_or_default().trim().to_ascii_uppercase();
        let method = if method.is_empty() { "GET" } else { method.as_str() };
        let path = self.path.unwrap_or_default();
        let path = path.trim();
        let path = if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if path.len() > MAX_TEXT_BYTES {
            return Err(invalid("test_path", format!("has more than {MAX_TEXT_BYTES} bytes")));
        }
        // An allowed method first, so that what is wrong is named.
        route::parse_assigned(method.as_bytes(), b"/", "")
            .map_err(|_| invalid("method", "is not a method that is forwarded"))?;
        let asked = if path.is_empty() { "/" } else { path.as_str() };
        route::parse_assigned(method.as_bytes(), asked.as_bytes(), "").map_err(|_| {
            invalid("test_path", "is not forwarded: a dot segment, a fragment, a blank or another forbidden character")
        })?;
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| invalid("method", "is not a method that is forwarded"))?;
        Ok(TestRequest { method, path, headers: check_headers(self.headers, settings)?, body: self.body })
    }
}

impl TestRequest {
    /// Path and query upstream, joined exactly as for agents, with the credential where it is a parameter.
    pub fn target(&self, settings: &ConnectionSettings, credential: &Credential) -> Secret {
        let (remainder, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path.as_str(), None),
        };
        let base = &settings.upstream.base_path;
        let joined = upstream_path::join(base, &settings.path_prefix, remainder, query, credential);
        // Joined of texts.
        Secret::new(String::from_utf8_lossy(&joined).into_owned())
    }

    /// All headers but `Host` and `Content-Length`: the caller's, the connection's, the type of the body, and the
    /// credential last.
    pub fn headers(
        &self,
        settings: &ConnectionSettings,
        credential: &Credential,
    ) -> Result<http::HeaderMap, InvalidConnection> {
        let mut headers: http::HeaderMap = self.headers.iter().cloned().collect();
        for (name, value) in &settings.extra_headers {
            let name = HeaderName::try_from(name).map_err(|_| InvalidConnection::SecretCharacters)?;
            let value = HeaderValue::try_from(value).map_err(|_| InvalidConnection::SecretCharacters)?;
            headers.insert(name, value);
        }
        if !self.body.is_empty() && !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Credential::Header { name, value } = credential {
            let mut value = HeaderValue::try_from(value.expose()).map_err(|_| InvalidConnection::SecretCharacters)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

fn check_headers(
    given: BTreeMap<String, String>,
    settings: &ConnectionSettings,
) -> Result<Vec<(HeaderName, HeaderValue)>, InvalidConnection> {
    const FIELD: &str = "headers";
    if given.len() > MAX_LIST_ENTRIES {
        return Err(invalid(FIELD, format!("has more than {MAX_LIST_ENTRIES} entries")));
    }
    let mut checked: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(given.len());
    for (name, value) in given {
        let name = HeaderName::try_from(name.trim()).map_err(|_| invalid(FIELD, "holds something that is no name"))?;
        // What a body is may be said; everything else that describes the message is made by us.
        if is_reserved(&name) && !matches!(name.as_str(), "content-type" | "content-encoding") {
            return Err(invalid(FIELD, format!("{name} is set by the gateway and cannot be chosen")));
        }
        let injected =
            settings.auth_mode != AuthMode::QueryParam && name.as_str().eq_ignore_ascii_case(&settings.auth_target);
        if injected || matches!(name.as_str(), "authorization" | "proxy-authorization" | "cookie") {
            return Err(invalid(FIELD, format!("{name} carries a credential; the connection's own is used")));
        }
        if value.len() > MAX_TEXT_BYTES {
            return Err(invalid(FIELD, format!("the value of {name} has more than {MAX_TEXT_BYTES} bytes")));
        }
        let value = HeaderValue::try_from(value.trim())
            .map_err(|_| invalid(FIELD, format!("the value of {name} cannot be carried by a header")))?;
        if checked.iter().any(|(known, _)| *known == name) {
            return Err(invalid(FIELD, format!("{name} occurs twice")));
        }
        checked.push((name, value));
    }
    Ok(checked)
}

fn invalid(field: &'static str, reason: impl Into<String>) -> InvalidConnection {
    InvalidConnection::Field { field, reason: reason.into() }
}
