//! Answers with a page, a piece of one, or the way to another.

use askama::Template;
use axum::body::Body;
use axum::response::IntoResponse as _;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use tokio::task::spawn_blocking;

use crate::api::problem::Problem;

/// A page. It is written beside the runtime's threads: one of a thousand rows takes milliseconds, in which no other request
/// would be served, and the way there and back some microseconds.
pub(super) async fn html(status: StatusCode, page: impl Template + Send + 'static) -> Response<Body> {
    let written = spawn_blocking(move || short_html(status, &page)).await;
    written.unwrap_or_else(|_| Problem::internal().into_response())
}

/// A page without a list, or a piece of one, written at once.
pub(super) fn short_html(status: StatusCode, page: &impl Template) -> Response<Body> {
    match page.render() {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = status;
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, html);
            response
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Problem::internal().into_response()
        }
    }
}

/// The way to another page, which is then asked for by GET (RFC 9110 section 15.4.4): reloading it changes nothing.
pub(super) fn see_other(target: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    // Targets are made of ours and of ids that were found; one that is no header value leads home.
    let target = HeaderValue::try_from(target).unwrap_or_else(|_| HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, target);
    response
}

/// Nothing new: what the page shows stays.
pub(super) fn unchanged() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A text as one segment of a path, or as the value of a parameter: everything but letters, digits and `-._~` is
/// percent-encoded (RFC 3986 section 2.3).
pub(super) fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_text_is_one_segment() {
        assert_eq!(escaped("cl_1-a.~"), "cl_1-a.~");
        assert_eq!(escaped("../a b?c=d&é"), "..%2Fa%20b%3Fc%3Dd%26%C3%A9");
    }
}
