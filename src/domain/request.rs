//! How the core sees a request: a view over borrowed bytes that any front can offer.

use std::borrow::Cow;
use std::net::IpAddr;

/// How much a header section holds: its fields, and the bytes of all names and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderSize {
    /// Fields, repeated ones repeated.
    pub fields: usize,
    /// Bytes of names and values, without what separates them on the wire.
    pub bytes: usize,
}

/// What a client may send: room for certificates, cookies and traces many times over.
pub const MOST_OF_CLIENT: HeaderSize = HeaderSize { fields: 100, bytes: 64 * 1024 };

impl HeaderSize {
    /// With one field more.
    #[must_use]
    pub const fn with(self, name: &str, value: usize) -> Self {
        let bytes = self.bytes.saturating_add(name.len()).saturating_add(value);
        Self { fields: self.fields.saturating_add(1), bytes }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        let bytes = self.bytes.saturating_add(other.bytes);
        Self { fields: self.fields.saturating_add(other.fields), bytes }
    }

    /// Whether neither is more than `most` has.
    pub const fn is_within(self, most: Self) -> bool {
        self.fields <= most.fields && self.bytes <= most.bytes
    }
}

/// The name a provider may take a field's for: frameworks that follow CGI (RFC 3875 section 4.1.18) read `_` and `-` as one. Our
/// Envoy lets no `_` through; somebody else's may.
pub fn read_as(name: &str) -> Cow<'_, str> {
    if name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) }
}

/// What a front knows of the body at the moment it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyView<'a> {
    /// The whole body; empty where there is none.
    Whole(&'a [u8]),
    /// A body was announced but this front sees none of it, or only part of it.
    Hidden,
}

/// One HTTP request as it came off the wire, before anything rewrote it.
///
/// Implementations borrow; nothing is copied to ask a question.
pub trait RequestView {
    /// The method as sent, e.g. `POST`.
    fn method(&self) -> &[u8];
    /// `http` or `https`: what the client spoke to the trusted edge, never what it claimed.
    fn scheme(&self) -> &[u8];
    /// `Host` or `:authority` as sent.
    fn authority(&self) -> &[u8];
    /// The raw request target: path and query, no normalisation.
    fn target(&self) -> &[u8];
    /// All header fields in order, repeated ones repeated; names are lower case. Pseudo header
    /// fields may be among them and are skipped by the core.
    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])>;
    /// How much of that the client sent; what a front adds of its own is not its client's.
    fn sent(&self) -> HeaderSize {
        let fields = self.headers().filter(|(name, _)| !name.starts_with(':'));
        fields.fold(HeaderSize::default(), |size, (name, value)| size.with(name, value.len()))
    }
    /// The body, as far as it is visible.
    fn body(&self) -> BodyView<'_>;
    /// The client as counted from the right by trusted hops; `None` where the front cannot tell.
    fn client_address(&self) -> Option<IpAddr>;
    /// The connection a foreign front has chosen (Envoy `context_extensions`); `None`: from the path.
    fn assigned_connection(&self) -> Option<&str> {
        None
    }
}

/// Which of the two questions Envoy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Headers only, before the body is read. Can refuse, never allow.
    Head,
    /// The decision.
    Body,
}
