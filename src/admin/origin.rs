//! Web pages: which may call, and what they are told (the Fetch standard's CORS).

use std::net::IpAddr;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::header;

use crate::admin::access::has_loopback_host;

/// Origins that may call where none are configured.
pub const DEFAULT_ORIGINS: [&str; 7] = [
    "http://localhost:5000",
    "http://127.0.0.1:5000",
    "http://localhost:3000",
    "http://127.0.0.1:3000",
    "http://localhost:38000",
    "http://127.0.0.1:38000",
    "https://sigilum.id",
];

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS");
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Authorization, X-Sigilum-Admin-Token, X-Request-Id, Signature-Input, Signature, Content-Digest, \
     Sigilum-Namespace, Sigilum-Subject, Sigilum-Agent-Id, Sigilum-Agent-Key, Sigilum-Agent-Cert",
);
const VARY: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// The origins that may call.
#[derive(Debug)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Takes origins as browsers write them, e.g. `https://sigilum.id`.
    pub const fn new(origins: Vec<String>) -> Self {
        Self(origins)
    }

    /// Whether a page may send this request: without an Origin it is none of a page, a reading one is answered
    /// without the headers that would let the page see the answer, and anything else must come from an allowed
    /// origin or from the very host it is sent to.
    pub fn may_send(&self, method: &Method, headers: &HeaderMap) -> bool {
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return true;
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => self.allows(origin) || is_same_host(origin, headers),
            (Some(_), Some(_)) => false,
        }
    }

    /// Adds what a browser needs to hand the answer to an allowed page.
    pub fn decorate(&self, origin: &HeaderValue, response: &mut HeaderMap) {
        response.insert(header::VARY, VARY);
        if !self.allows(origin) {
            return;
        }
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        response.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.0.iter().any(|allowed| allowed == origin))
    }
}

/// Whether the page comes from the host the request is sent to. Only where that host is an address or this
/// machine: a name may belong to whoever made the page and merely point here.
fn is_same_host(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else { return false };
    let (Some(authority), Some(host)) = (origin.authority(), headers.get(header::HOST)) else { return false };
    let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        && (has_loopback_host(headers) || bare.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn asks(origin: Option<&'static str>, host: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        headers
    }

    #[test]
    fn a_page_of_elsewhere_changes_nothing() {
        let origins = Origins::new(vec!["https://sigilum.id".to_owned()]);
        for (origin, host, may) in [
            (None, "127.0.0.1:38100", true),
            (Some("https://sigilum.id"), "127.0.0.1:38100", true),
            (Some("http://127.0.0.1:38100"), "127.0.0.1:38100", true),
            (Some("http://localhost:38100"), "localhost:38100", true),
            (Some("http://192.0.2.1:38100"), "192.0.2.1:38100", true),
            (Some("http://localhost:38100"), "127.0.0.1:38100", false),
            (Some("http://localhost:3001"), "localhost:38100", false),
            (Some("https://evil.example"), "127.0.0.1:38100", false),
            // A name of the attacker's that points at us (DNS rebinding).
            (Some("http://evil.example:38100"), "evil.example:38100", false),
            (Some("null"), "127.0.0.1:38100", false),
            (Some("https://sigilum.id.evil.example"), "127.0.0.1:38100", false),
            (Some("http://sigilum.id"), "127.0.0.1:38100", false),
        ] {
            for method in [Method::POST, Method::PATCH, Method::DELETE, Method::PUT] {
                assert_eq!(origins.may_send(&method, &asks(origin, host)), may, "{method} {origin:?} {host}");
            }
            assert!(origins.may_send(&Method::GET, &asks(origin, host)));
        }
    }

    #[test]
    fn only_allowed_origins_are_told_that_they_are() {
        let origins = Origins::new(DEFAULT_ORIGINS.map(str::to_owned).to_vec());
        let mut allowed = HeaderMap::new();
        origins.decorate(&HeaderValue::from_static("https://sigilum.id"), &mut allowed);
        assert_eq!(allowed.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "https://sigilum.id");
        assert_eq!(allowed.len(), 6);
        let mut other = HeaderMap::new();
        origins.decorate(&HeaderValue::from_static("https://evil.example"), &mut other);
        assert_eq!(other.len(), 1);
    }
}
