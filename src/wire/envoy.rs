//! What Envoy asks: an ext_authz v3 `CheckRequest`, read as a request of the core.
//!
//! Everything is borrowed from the message. Envoy must be configured with `encode_raw_headers: true`:
//! without it, it joins repeated fields with commas and replaces bytes that are not UTF-8.

use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
pub use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use prost::Message as _;

use crate::domain::request::BodyView;
use crate::domain::request::HeaderSize;
use crate::domain::request::RequestView;
use crate::domain::request::Stage;

/// gRPC metadata in which our Envoy says which of its two questions this is: `head` or `body`.
pub const STAGE_METADATA: &str = "x-sigilum-stage";
/// gRPC metadata in which any caller says how long it waits.
pub const TIMEOUT_METADATA: &str = "grpc-timeout";
/// `context_extensions` key by which somebody else's Envoy names the connection.
pub const CONNECTION_EXTENSION: &str = "connection";
/// `context_extensions` key by which somebody else's Envoy says whether it buffers the body:
/// `buffered`, or `none` (the default, because it fails closed).
pub const BODY_EXTENSION: &str = "body";
/// `context_extensions` key by which somebody else's Envoy says how many header fields it allows, where that is not
/// Envoy's default; named after the setting.
pub const COUNT_EXTENSION: &str = "max_headers_count";
/// The same of their size, in KiB.
pub const SIZE_EXTENSION: &str = "max_request_headers_kb";

/// What a request may hold once a decision is written into it: the limits of `envoy/envoy.yaml`. Envoy judges by the
/// same limits what it receives and what a decision makes of it, so they are above what a client may send.
pub const MOST_OF_OURS: HeaderSize = HeaderSize { fields: 200, bytes: 160 * 1024 };
/// The same of somebody else's Envoy where it says nothing of its limits: Envoy's defaults.
pub const MOST_OF_GUEST: HeaderSize = HeaderSize { fields: 100, bytes: 60 * 1024 };

/// Longest request id that is repeated, in characters.
const MAX_REQUEST_ID: usize = 128;

/// Why a check could not be read. Nothing was decided; the answer is `AUTHZ_UNAVAILABLE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No HTTP request in it: not the HTTP filter's question.
    #[error("the check carries no HTTP request")]
    NoRequest,
    /// Headers came joined.
    #[error("the check carries no header_map: set encode_raw_headers: true in Envoy's ext_authz filter")]
    NoHeaderMap,
    /// Neither `head` nor `body`.
    #[error("the metadata x-sigilum-stage is neither head nor body")]
    Stage,
}

/// Reads a message from bytes, e.g. of a fuzzer.
pub fn decode(bytes: &[u8]) -> Result<CheckRequest, prost::DecodeError> {
    CheckRequest::decode(bytes)
}

/// Reads the stage; a front that names none asks for the decision.
pub fn decode_stage(metadata: Option<&[u8]>) -> Result<Stage, Unreadable> {
    match metadata {
        None | Some(b"body") => Ok(Stage::Body),
        Some(b"head") => Ok(Stage::Head),
        Some(_) => Err(Unreadable::Stage),
    }
}

/// How long Envoy waits for the answer, as gRPC says it (`grpc-timeout`: at most eight digits and a unit). `None`
/// where it is not said, or not in this form.
pub fn decode_timeout(metadata: Option<&[u8]>) -> Option<Duration> {
    let (unit, digits) = metadata?.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count.saturating_mul(3600))),
        b'M' => Some(Duration::from_secs(count.saturating_mul(60))),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// One check, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    http: &'a HttpRequest,
    headers: &'a [HeaderValue],
    method: &'a [u8],
    scheme: &'a [u8],
    authority: &'a [u8],
    target: &'a [u8],
    body: BodyView<'a>,
    client: Option<IpAddr>,
    connection: Option<&'a str>,
    most: HeaderSize,
    request_id: &'a str,
}

/// What the header fields say, gathered in one pass.
#[derive(Debug, Default)]
struct Facts<'a> {
    method: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    scheme: &'a [u8],
    schemes: usize,
    length: Option<&'a [u8]>,
    lengths: usize,
    chunked: bool,
    partial: bool,
    external: Option<&'a [u8]>,
    request_id: &'a [u8],
}

impl<'a> Check<'a> {
    /// Reads a check. What is merely wrong about the request (a missing signature, two Host headers)
    /// is left for the core to refuse; only what is no HTTP check at all is an error.
    pub fn read(request: &'a CheckRequest) -> Result<Self, Unreadable> {
        let attributes = request.attributes.as_ref().ok_or(Unreadable::NoRequest)?;
        let http =
            attributes.request.as_ref().and_then(|request| request.http.as_ref()).ok_or(Unreadable::NoRequest)?;
        let headers = match &http.header_map {
            Some(map) if !map.headers.is_empty() => map.headers.as_slice(),
            Some(_) | None => return Err(Unreadable::NoHeaderMap),
        };
        let facts = Facts::gather(headers);
        let connection = attributes.context_extensions.get(CONNECTION_EXTENSION).map(String::as_str);
        let buffered = connection.is_none()
            || attributes.context_extensions.get(BODY_EXTENSION).is_some_and(|body| body == "buffered");
        Ok(Self {
            http,
            headers,
            method: facts.method.unwrap_or(http.method.as_bytes()),
            // Two of them: somebody in front of Envoy adds to what Envoy should replace. No scheme
            // verifies no signature.
            scheme: if facts.schemes == 1 { scheme(facts.scheme) } else { b"" },
            authority: facts.authority.unwrap_or(http.host.as_bytes()),
            target: facts.target.unwrap_or(http.path.as_bytes()),
            body: body(http, &facts, buffered),
            client: client(attributes, &facts, connection.is_some()),
            connection,
            most: if connection.is_some() { most_of_guest(attributes) } else { MOST_OF_OURS },
            request_id: request_id(facts.request_id, &http.id),
        })
    }

    /// Envoy's id of this request, at most 128 visible ASCII characters; empty where there is none.
    pub const fn request_id(&self) -> &'a str {
        self.request_id
    }

    /// The request target without its query, for logs: agents put secrets of their own into queries.
    pub fn path(&self) -> &'a [u8] {
        self.target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
    }

    /// The header fields, pseudo header fields among them, names in lower case.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.headers.iter().map(|header| (header.key.as_str(), value(header)))
    }

    /// Everything that is in the request by now, with what Envoy has added.
    pub fn held(&self) -> HeaderSize {
        self.fields().fold(HeaderSize::default(), |size, (name, value)| size.with(name, value.len()))
    }

    /// What it may hold once a decision is written into it.
    pub const fn most(&self) -> HeaderSize {
        self.most
    }

    /// The protocol between client and Envoy, e.g. `HTTP/1.1`.
    pub fn protocol(&self) -> &'a str {
        &self.http.protocol
    }
}

impl RequestView for Check<'_> {
    fn method(&self) -> &[u8] {
        self.method
    }

    fn scheme(&self) -> &[u8] {
        self.scheme
    }

    fn authority(&self) -> &[u8] {
        self.authority
    }

    fn target(&self) -> &[u8] {
        self.target
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields()
    }

    fn sent(&self) -> HeaderSize {
        let fields = self.fields().filter(|(name, _)| !is_envoys(name));
        fields.fold(HeaderSize::default(), |size, (name, value)| size.with(name, value.len()))
    }

    fn body(&self) -> BodyView<'_> {
        self.body
    }

    fn client_address(&self) -> Option<IpAddr> {
        self.client
    }

    fn assigned_connection(&self) -> Option<&str> {
        self.connection
    }
}

/// What somebody else's Envoy says its limits are.
fn most_of_guest(attributes: &AttributeContext) -> HeaderSize {
    let said = |key: &str| attributes.context_extensions.get(key).and_then(|text| text.parse::<usize>().ok());
    HeaderSize {
        fields: said(COUNT_EXTENSION).unwrap_or(MOST_OF_GUEST.fields),
        bytes: said(SIZE_EXTENSION).map_or(MOST_OF_GUEST.bytes, |kib| kib.saturating_mul(1024)),
    }
}

/// Whether a field is one Envoy writes itself, whatever the client sent. `:authority` is the client's Host.
fn is_envoys(name: &str) -> bool {
    match name {
        ":authority" => false,
        "x-forwarded-for" | "x-forwarded-proto" | "x-request-id" => true,
        name => [":", "x-envoy-", "x-sigilum-"].iter().any(|prefix| name.starts_with(prefix)),
    }
}

fn value(header: &HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
}

impl<'a> Facts<'a> {
    fn gather(headers: &'a [HeaderValue]) -> Self {
        let mut facts = Self::default();
        for header in headers {
            let value = value(header);
            match header.key.as_str() {
                // Envoy has one of each; a second one would be somebody else's.
                ":method" => facts.method = facts.method.or(Some(value)),
                ":authority" => facts.authority = facts.authority.or(Some(value)),
                ":path" => facts.target = facts.target.or(Some(value)),
                "x-forwarded-proto" => {
                    facts.scheme = value;
                    facts.schemes = facts.schemes.saturating_add(1);
                }
                "content-length" => {
                    facts.length = Some(value);
                    facts.lengths = facts.lengths.saturating_add(1);
                }
                "transfer-encoding" => facts.chunked = true,
                "x-envoy-auth-partial-body" => facts.partial = facts.partial || value != b"false",
                "x-envoy-external-address" => facts.external = Some(value),
                "x-request-id" => facts.request_id = value,
                _ => {}
            }
        }
        facts
    }

    /// The announced length; `Err` where it is announced twice or not as a number.
    fn announced(&self) -> Result<Option<usize>, ()> {
        match (self.length, self.lengths) {
            (None, _) => Ok(None),
            (Some(text), 1) => {
                std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).map(Some).ok_or(())
            }
            (Some(_), _) => Err(()),
        }
    }
}

/// What is visible of the body. `Hidden` wherever there may be more than is seen.
fn body<'a>(http: &'a HttpRequest, facts: &Facts<'a>, buffered: bool) -> BodyView<'a> {
    let seen = if http.raw_body.is_empty() { http.body.as_bytes() } else { http.raw_body.as_slice() };
    match facts.announced() {
        Err(()) => BodyView::Hidden,
        // A chained check can receive a partial body although partial messages are not allowed.
        Ok(_) if facts.partial => BodyView::Hidden,
        Ok(Some(length)) if length != seen.len() => BodyView::Hidden,
        Ok(Some(_)) => BodyView::Whole(seen),
        Ok(None) if buffered => BodyView::Whole(seen),
        // Over HTTP/1 a request without length and coding has no body (RFC 9112 section 6.3); later
        // versions announce nothing, so an unseen body cannot be told from none.
        Ok(None) if !facts.chunked && http.protocol.starts_with("HTTP/1") => BodyView::Whole(seen),
        Ok(None) => BodyView::Hidden,
    }
}

/// The scheme the client spoke to the first of the proxies that are trusted. Envoy writes its own where none is, so the
/// header is one scheme then. Proxies may add theirs behind a comma; what is no scheme of HTTP was no TLS.
fn scheme(forwarded: &[u8]) -> &'static [u8] {
    let first = forwarded.split(|byte| *byte == b',').next().unwrap_or_default();
    if first.trim_ascii().eq_ignore_ascii_case(b"https") { b"https" } else { b"http" }
}

/// The client as our Envoy counted it from the right; behind somebody else's Envoy, its direct peer,
/// because nobody guarantees there that the header is Envoy's.
fn client(attributes: &AttributeContext, facts: &Facts<'_>, guest: bool) -> Option<IpAddr> {
    let external = facts.external.filter(|_| !guest).and_then(|text| std::str::from_utf8(text).ok());
    external.and_then(|text| text.trim().parse().ok()).or_else(|| {
        match attributes.source.as_ref()?.address.as_ref()?.address.as_ref()? {
            Address::SocketAddress(socket) => socket.address.parse().ok(),
            Address::Pipe(_) | Address::EnvoyInternalAddress(_) => None,
        }
    })
}

fn request_id<'a>(header: &'a [u8], attribute: &'a str) -> &'a str {
    let text = std::str::from_utf8(header).ok().filter(|text| !text.is_empty()).unwrap_or(attribute);
    if text.bytes().all(|byte| byte.is_ascii_graphic()) { text.get(..MAX_REQUEST_ID).unwrap_or(text) } else { "" }
}

#[cfg(test)]
#[path = "envoy_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]
mod tests;
