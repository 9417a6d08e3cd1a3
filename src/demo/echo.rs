//! `/v1/echo`: what arrived, as JSON, so that a person can see what the gateway sent.

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// The answer of `/v1/echo`.
#[derive(Debug, Serialize)]
pub(crate) struct Echo {
    method: String,
    path: String,
    /// Without the question mark; `null` where there was none.
    query: Option<String>,
    /// Name and value in the order of arrival; values of a repeated name stand together. The injected
    /// key is among them: this is a mirror to look at what the gateway adds, with a key worth nothing.
    headers: Vec<(String, String)>,
    /// The body as text; `null` where it is not UTF-8.
    body: Option<String>,
    /// The body in base64 where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl Echo {
    pub(crate) fn of(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Self {
        let text = std::str::from_utf8(body).ok();
        Self {
            method: method.to_string(),
            path: uri.path().to_owned(),
            query: uri.query().map(ToOwned::to_owned),
            headers: headers
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect(),
            body: text.map(ToOwned::to_owned),
            body_base64: text.is_none().then(|| STANDARD.encode(body)),
        }
    }
}
