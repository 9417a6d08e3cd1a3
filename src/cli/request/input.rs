//! What a person typed, as a request that can be signed.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::PathBuf;

use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header::CONTENT_TYPE;
use reqwest::Url;

use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::request::unreadable;

/// Largest body that is read: the gateway cannot be set to let a larger one through.
const MAX_BODY_BYTES: u64 = 64 * 1024 * 1024;

/// Headers that belong to the connection, to the address or to the signature.
const RESERVED: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "signature",
    "signature-input",
    "content-digest",
];

/// A request on its way to being signed.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) method: Method,
    /// Without fragment; its text is both what is signed and what is sent.
    pub(crate) url: Url,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Vec<u8>,
}

impl Draft {
    /// Judges method, address and headers as typed.
    pub(crate) fn parse(method: &str, url: &str, headers: &[String]) -> Result<Self, CliError> {
        let usage = |message: String| CliError::new(Outcome::Usage, message);
        let method = Method::from_bytes(method.trim().to_ascii_uppercase().as_bytes())
            .map_err(|_| usage("the method is not an HTTP method".to_owned()))?;
        if matches!(method, Method::CONNECT | Method::TRACE) {
            return Err(usage(format!("{method} is not a request the gateway takes")));
        }
        let mut url = Url::parse(url.trim()).map_err(|error| {
            usage(format!("the address is not a URL: {error}")).hint("give it whole, e.g. http://127.0.0.1:38000/…")
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(usage("the address must begin with http:// or https://".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(usage("the address may not hold a user or password".to_owned()));
        }
        url.set_fragment(None);
        let headers = headers.iter().map(|header| parse_header(header)).collect::<Result<_, _>>()?;
        Ok(Self { method, url, headers, body: Vec::new() })
    }

    /// Adds the body, and its type where none was given.
    pub(crate) fn take_body(&mut self, body: Vec<u8>) {
        let typed = self.headers.iter().any(|(name, _)| name == CONTENT_TYPE);
        if !typed && !body.is_empty() {
            let guess = if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok() {
                "application/json"
            } else if std::str::from_utf8(&body).is_ok() {
                "text/plain; charset=utf-8"
            } else {
                "application/octet-stream"
            };
            self.headers.push((CONTENT_TYPE, HeaderValue::from_static(guess)));
        }
        self.body = body;
    }

    /// `host` or `host:port`, as the `Host` header carries it.
    pub(crate) fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// The request as it goes over the wire, for people: HTTP/1.1 with line feeds.
    pub(crate) fn wire(&self) -> Vec<u8> {
        let target = self.url.as_str().get(self.url.origin().ascii_serialization().len()..).unwrap_or("/");
        let mut out = format!("{} {target} HTTP/1.1\nhost: {}\n", self.method, self.authority()).into_bytes();
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.push(b'\n');
        }
        out.push(b'\n');
        out.extend_from_slice(&self.body);
        out
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), CliError> {
    let usage = |message: String| CliError::new(Outcome::Usage, message);
    let wrong = || usage("a header must be written as 'Name: value'".to_owned());
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
    if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("sigilum-") {
        return Err(usage(format!("the header {name} is set by this command")));
    }
    let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
    Ok((name, value))
}

/// The body that `-d` names: the text itself, `@FILE`, or `@-` for standard input.
pub(crate) fn read_body(data: &str) -> Result<Vec<u8>, CliError> {
    let Some(name) = data.strip_prefix('@') else { return Ok(data.as_bytes().to_vec()) };
    let path = PathBuf::from(if name == "-" { "standard input" } else { name });
    let read = |source: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        source.take(MAX_BODY_BYTES.saturating_add(1)).read_to_end(&mut body)?;
        if body.len() as u64 > MAX_BODY_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 64 MiB"));
        }
        Ok(body)
    };
    let body = if name == "-" {
        read(&mut io::stdin().lock())
    } else {
        File::open(&path).and_then(|mut file| read(&mut file))
    };
    body.map_err(|error| unreadable(&path, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn draft(url: &str) -> Draft {
        Draft::parse("get", url, &[]).unwrap()
    }

    #[test]
    fn the_target_is_kept_as_it_will_be_sent() {
        for (typed, sent, authority) in [
            ("http://h/a%2Fb?x=%20&x=1#frag", "http://h/a%2Fb?x=%20&x=1", "h"),
            ("http://127.0.0.1:38000", "http://127.0.0.1:38000/", "127.0.0.1:38000"),
            ("HTTPS://Example.COM:443/A?", "https://example.com/A?", "example.com"),
            ("http://[::1]:38000/x", "http://[::1]:38000/x", "[::1]:38000"),
        ] {
            let draft = draft(typed);
            assert_eq!((draft.url.as_str(), draft.authority().as_str()), (sent, authority));
        }
    }

    #[test]
    fn the_wire_form_shows_target_host_headers_and_body() {
        let mut draft = Draft::parse("post", "http://h:8/a?b", &["X-A:  1 ".to_owned(), "x-a: 2".to_owned()]).unwrap();
        draft.take_body(b"\"ping\"".to_vec());
        let expected = "POST /a?b HTTP/1.1\nhost: h:8\nx-a: 1\nx-a: 2\ncontent-type: application/json\n\n\"ping\"";
        assert_eq!(String::from_utf8(draft.wire()).unwrap(), expected);
    }

    #[test]
    fn the_body_names_its_type_unless_it_was_given() {
        let type_of = |headers: &[String], body: &[u8]| {
            let mut draft = Draft::parse("POST", "http://h/", headers).unwrap();
            draft.take_body(body.to_vec());
            let found: Vec<_> = draft.headers.iter().map(|(_, value)| value.to_str().unwrap().to_owned()).collect();
            found.join("|")
        };
        assert_eq!(type_of(&[], b"{\"a\":1}"), "application/json");
        assert_eq!(type_of(&[], b"a=1"), "text/plain; charset=utf-8");
        assert_eq!(type_of(&[], b"\xff"), "application/octet-stream");
        assert_eq!(type_of(&[], b""), "");
        assert_eq!(type_of(&["Content-Type: text/csv".to_owned()], b"1"), "text/csv");
    }

    #[test]
    fn what_cannot_be_sent_is_a_usage_error() {
        for (method, url) in [
            ("G T", "http://h/"),
            ("CONNECT", "http://h/"),
            ("GET", "ftp://h/"),
            ("GET", "/proxy/x"),
            ("GET", "http://u:p@h/"),
            ("GET", "http://"),
        ] {
            assert_eq!(Draft::parse(method, url, &[]).unwrap_err().outcome, Outcome::Usage, "{method} {url}");
        }
        for header in ["x", ": y", "Host: h", "Signature: s", "sigilum-namespace: n", "x: a\nb", "content-length: 1"] {
            assert!(Draft::parse("GET", "http://h/", &[header.to_owned()]).is_err(), "{header}");
        }
    }
}
