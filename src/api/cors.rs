//! Web pages: which may read answers (the Fetch standard's CORS), and which may act with an owner's cookie.
//!
//! A page of an origin that is not listed gets no CORS header at all, so its browser hands it nothing. What a browser
//! sends without asking first (a form, a body-less POST) is stopped by [`Origins::check_page`] unless its page is of a listed
//! origin, because the cookie comes along whoever made the page. A browser writes `Origin`, and no page can write another.

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::header;

/// Origins that may call where none are configured.
pub const DEFAULT_ORIGINS: [&str; 1] = ["http://localhost:3000"];

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PATCH, DELETE, OPTIONS");
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Authorization, X-Requested-With, X-Request-ID, X-Sigilum-Claim-Binding, Signature-Input, \
     Signature, Content-Digest, Sigilum-Namespace, Sigilum-Subject, Sigilum-Agent-Id, Sigilum-Agent-Key, \
     Sigilum-Agent-Cert",
);
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("X-Request-ID, ETag, Retry-After, Sigilum-Claims-Cursor");
const VARY: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<String>);

/// A web page that is not ours wanted to act with the owner's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this web page may not act for the signed-in owner")]
pub struct ForeignPage;

impl Origins {
    /// Takes origins as browsers write them, e.g. `https://sigilum.id`; compared exactly.
    pub const fn new(origins: Vec<String>) -> Self {
        Self(origins)
    }

    /// Whether pages of this origin may call. Never `null`, which every sandboxed frame says.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        origin != "null" && self.0.iter().any(|allowed| allowed == origin)
    }

    /// Adds what a browser needs to hand the answer to an allowed page; nothing for others. The answer depends on
    /// the origin even where there is none, so caches are told.
    pub fn decorate(&self, request: &HeaderMap, response: &mut HeaderMap) {
        response.append(header::VARY, VARY);
        let Some(origin) = single(request, &header::ORIGIN).filter(|origin| self.allows(origin)) else { return };
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        if request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
            response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
            response.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
    }

    /// Whether a request with an owner's cookie may change something. It must come from an allowed origin or from
    /// the very origin it is sent to (`secure`: we are reached by https). Without `Origin` the browser's word counts that
    /// page and API are of one origin.
    pub fn check_page(&self, method: &Method, headers: &HeaderMap, secure: bool) -> Result<(), ForeignPage> {
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let of_one_origin =
            single(headers, &SEC_FETCH_SITE).is_some_and(|site| site.as_bytes().eq_ignore_ascii_case(b"same-origin"));
        let known = match single(headers, &header::ORIGIN) {
            // Our own forms: over plain HTTP browsers send them without `Sec-Fetch-Site`.
            Some(origin) => self.allows(origin) || is_same_origin(origin, headers, secure),
            None => !headers.contains_key(header::ORIGIN) && of_one_origin,
        };
        if known { Ok(()) } else { Err(ForeignPage) }
    }

    /// Whether a request is no page's, or that of an allowed origin or of the very origin it is sent to (`secure`: we
    /// are reached by https). For WebSockets, which browsers open for any page without asking first.
    pub fn check_origin(&self, headers: &HeaderMap, secure: bool) -> Result<(), ForeignPage> {
        if !headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let origin = single(headers, &header::ORIGIN).ok_or(ForeignPage)?;
        if self.allows(origin) || is_same_origin(origin, headers, secure) { Ok(()) } else { Err(ForeignPage) }
    }
}

/// Whether a browser says that a page is behind a request.
pub fn is_of_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}

/// Whether this is a browser's question before the request itself.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

const SEC_FETCH_SITE: http::HeaderName = http::HeaderName::from_static("sec-fetch-site");

/// The header's value where it is there once.
fn single<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn is_same_origin(origin: &HeaderValue, headers: &HeaderMap, secure: bool) -> bool {
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), single(headers, &header::HOST).map(HeaderValue::to_str))
    else {
        return false;
    };
    let scheme = if secure { "https://" } else { "http://" };
    origin.strip_prefix(scheme).is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn origins() -> Origins {
        Origins::new(vec!["http://localhost:3000".to_owned(), "null".to_owned()])
    }

    #[test]
    fn a_cookie_alone_changes_nothing() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "localhost:8787");
        for (pairs, may) in [
            (vec![host], false),
            (vec![host, json], false),
            (vec![host, ("x-requested-with", "x")], false),
            // Listed: pages of it send what they like, also a POST without a body.
            (vec![host, ("origin", "http://localhost:3000")], true),
            (vec![host, ("origin", "http://localhost:3000"), json], true),
            (vec![host, ("origin", "http://localhost:3000"), ("x-requested-with", "x")], true),
            (vec![host, ("origin", "http://localhost:3000"), ("content-type", "text/plain")], true),
            (vec![host, ("origin", "http://localhost:3000"), ("sec-fetch-site", "cross-site")], true),
            (vec![host, ("origin", "http://localhost:8787"), json], true),
            (vec![host, ("origin", "http://localhost:8787")], true),
            (vec![host, ("origin", "http://localhost:8787"), ("sec-fetch-site", "same-origin")], true),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
            (vec![host, ("sec-fetch-site", "same-site"), json], false),
            (vec![host, ("origin", "https://localhost:8787"), json], false),
            (vec![host, ("origin", "http://localhost:3001"), json], false),
            (vec![host, ("origin", "http://evil.example"), json, ("x-requested-with", "x")], false),
            (vec![host, ("origin", "null"), json], false),
            (vec![host, ("origin", "http://localhost:3000.evil.example"), json], false),
            (vec![host, ("origin", "http://localhost:3000"), ("origin", "http://evil.example"), json], false),
            (vec![("origin", "http://localhost:8787"), json], false),
        ] {
            let headers = headers(&pairs);
            for method in [Method::POST, Method::PATCH, Method::DELETE, Method::PUT] {
                assert_eq!(origins().check_page(&method, &headers, false).is_ok(), may, "{method} {pairs:?}");
            }
            assert!(origins().check_page(&Method::GET, &headers, false).is_ok());
        }
    }

    #[test]
    fn over_https_the_page_is_of_https_too() {
        let page =
            |origin| headers(&[("host", "api.example"), ("content-type", "application/json"), ("origin", origin)]);
        let origins = Origins::default();
        assert!(origins.check_page(&Method::POST, &page("https://api.example"), true).is_ok());
        assert!(origins.check_page(&Method::POST, &page("http://api.example"), true).is_err());
    }

    #[test]
    fn only_listed_origins_are_told_anything() {
        let told = |origin| {
            let mut response = HeaderMap::new();
            let request = headers(&[("origin", origin), ("access-control-request-method", "POST")]);
            origins().decorate(&request, &mut response);
            response
        };
        let allowed = told("http://localhost:3000");
        assert_eq!(allowed.get("access-control-allow-origin").unwrap(), "http://localhost:3000");
        assert_eq!(allowed.get("access-control-allow-credentials").unwrap(), "true");
        assert!(allowed.contains_key("access-control-allow-methods"));
        for other in ["http://evil.example", "null", "http://LOCALHOST:3000", "*"] {
            assert_eq!(told(other).keys().collect::<Vec<_>>(), ["vary"], "{other}");
        }
    }
}
