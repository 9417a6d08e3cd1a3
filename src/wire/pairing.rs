//! Frames between the control plane and a gateway's bridge: one JSON object in one text message.
//!
//! What is unknown or malformed is no frame, and is passed over; neither side ends a session for it. Members this
//! version does not know are ignored, so that either side may say more later.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::wire::member::member;

/// Where a bridge connects; the query names session and namespace.
pub const CONNECT_PATH: &str = "/v1/gateway/pairing/connect";
/// Carries the pair code in the handshake, so that it stands in no URL; the query's `code` is read where it is absent.
pub const CODE_HEADER: &str = "x-sigilum-pair-code";
/// Carries the reconnect secret: in the answer to a handshake that a pair code opened, and in later handshakes beside the
/// code. A peer that knows nothing of it neither gives nor asks for one.
pub const RECONNECT_HEADER: &str = "x-sigilum-reconnect-secret";
/// Close reason (code 1000) of a socket whose session another bridge has taken over.
pub const REPLACED: &str = "replaced";
/// Close reason (code 1000) of a bridge that was told to stop.
pub const SHUTDOWN: &str = "shutdown";
/// Commands of a session that are under way at a time: the control plane lets no more wait, the bridge takes no more to its
/// gateway. A page asks for a handful at once; more than this is no person, and each may hold an answer of some megabytes.
pub const MAX_COMMANDS: usize = 32;
/// Length of a reconnect secret: 32 bytes as base64url without padding.
const RECONNECT_SECRET_LENGTH: usize = 43;
/// How a bridge's `error` begins (status 502) where nobody answers at the gateway's admin address.
pub const GATEWAY_UNREACHABLE: &str = "the gateway cannot be reached";
/// Headers of a command or an answer that are read; HTTP servers take some hundred.
const MAX_HEADERS: usize = 1000;

/// The reconnect secret that a header's value is, if it has the form of one: 43 letters of base64url (RFC 4648 section 5).
pub fn reconnect_secret(value: &[u8]) -> Option<Secret> {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let text = std::str::from_utf8(value).ok()?;
    (value.len() == RECONNECT_SECRET_LENGTH && value.iter().all(is_letter)).then(|| Secret::new(text.to_owned()))
}

/// Why a handshake is refused for good: retrying the same session with the same code cannot help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// No session of that id, or no longer.
    NotFound,
    /// It was, and its owner has ended it.
    Ended,
    /// It was, and its time is over.
    Expired,
    /// It is another namespace's.
    Namespace,
    /// Not its code, or one that was tried too often.
    Code,
}

impl Terminal {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::NotFound, Self::Ended, Self::Expired, Self::Namespace, Self::Code];

    /// HTTP status and the text of `error`, which bridges compare without regard to case.
    pub const fn wire(self) -> (u16, &'static str) {
        match self {
            Self::NotFound => (404, "Pair session not found"),
            // Bridges that know nothing of it find what they know.
            Self::Ended => (410, "Pair session expired: its owner has ended it"),
            Self::Expired => (410, "Pair session expired"),
            Self::Namespace => (403, "Namespace mismatch"),
            Self::Code => (403, "Invalid pair code"),
        }
    }

    /// What a text (a body's `error`, a close reason) says, if it is one of ours: the one that says most comes first.
    pub fn find(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|terminal| text.contains(&terminal.wire().1.to_ascii_lowercase()))
    }
}

/// A request to the gateway's admin API, relayed.
#[derive(PartialEq)]
pub struct Command {
    /// Repeated by the answer.
    pub request_id: String,
    /// As written; upper-case by convention.
    pub method: String,
    /// Begins with `/`; not judged here.
    pub path: String,
    /// Those whose value is text.
    pub headers: BTreeMap<String, String>,
    /// May hold a secret; an object or array that was sent in place of text is its JSON.
    pub body: Option<Secret>,
}

impl fmt::Debug for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        formatter
            .debug_struct("Command")
            .field("request_id", &self.request_id)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// What came of a [`Command`]; who asked for it over REST is answered with the same members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Relayed {
    /// Of the command.
    pub request_id: String,
    /// HTTP status of the gateway's answer; 500 where the bridge gave none.
    pub status: u16,
    /// Of the gateway's answer.
    pub headers: BTreeMap<String, String>,
    /// `None` = empty.
    pub body: Option<String>,
    /// Why there is no answer of the gateway.
    pub error: Option<String>,
}

/// What the control plane says.
#[derive(Debug, PartialEq)]
pub enum ToBridge {
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// Do this.
    Command(Command),
}

/// What a bridge says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromBridge {
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// It is done.
    Response(Relayed),
}

impl ToBridge {
    /// Reads one message.
    pub fn read(text: &str) -> Option<Self> {
        let frame = Members::read(text)?;
        match member::<String>(frame.kind)?.as_str() {
            "ping" => Some(Self::Ping),
            "pong" => Some(Self::Pong),
            "command" => Some(Self::Command(Command {
                request_id: member(frame.request_id)?,
                method: member(frame.method)?,
                path: member(frame.path)?,
                headers: frame.headers(),
                body: frame.body().ok()?.map(Secret::new),
            })),
            _ => None,
        }
    }

    /// The message; `now` is what a ping or pong says of the time.
    pub fn write(&self, now: UnixMillis) -> Secret {
        let frame = match self {
            Self::Ping => beat("ping", now),
            Self::Pong => beat("pong", now),
            Self::Command(command) => json!({
                "type": "command",
                "request_id": command.request_id,
                "method": command.method,
                "path": command.path,
                "headers": command.headers,
                "body": command.body.as_ref().map(Secret::expose),
            }),
        };
        Secret::new(frame.to_string())
    }
}

impl FromBridge {
    /// Reads one message.
    pub fn read(text: &str) -> Option<Self> {
        let frame = Members::read(text)?;
        match member::<String>(frame.kind)?.as_str() {
            "ping" => Some(Self::Ping),
            "pong" => Some(Self::Pong),
            "response" => Some(Self::Response(Relayed {
                request_id: member(frame.request_id)?,
                status: member(frame.status).filter(|status| (100..600).contains(status)).unwrap_or(500),
                headers: frame.headers(),
                body: frame.body().ok()?,
                error: member(frame.error),
            })),
            _ => None,
        }
    }

    /// The message; `now` is what a ping or pong says of the time.
    pub fn write(&self, now: UnixMillis) -> String {
        let frame = match self {
            Self::Ping => beat("ping", now),
            Self::Pong => beat("pong", now),
            Self::Response(relayed) => json!({
                "type": "response",
                "request_id": relayed.request_id,
                "status": relayed.status,
                "headers": relayed.headers,
                "body": relayed.body,
                "error": relayed.error,
            }),
        };
        frame.to_string()
    }
}

fn beat(kind: &str, now: UnixMillis) -> Value {
    json!({ "type": kind, "ts": now.0 })
}

/// The members of any frame, not read yet: what is not needed costs nothing, however much of it a peer sends. `null` is
/// as good as absent; a member that comes twice makes it no frame.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    path: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl<'a> Members<'a> {
    fn read(text: &'a str) -> Option<Self> {
        // An array would be read as the members in their order.
        if !text.trim_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    fn headers(&self) -> BTreeMap<String, String> {
        member::<Headers>(self.headers).unwrap_or_default().0
    }

    /// Its text, or the JSON of what is none. An error where it is neither, because of half a surrogate pair.
    fn body(&self) -> Result<Option<String>, serde_json::Error> {
        let Some(body) = self.body else { return Ok(None) };
        if body.get().starts_with('"') { serde_json::from_str(body.get()) } else { Ok(Some(body.get().to_owned())) }
    }
}

/// The headers whose value is text, at most [`MAX_HEADERS`] of them.
#[derive(Default)]
struct Headers(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("headers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Headers, A::Error> {
        let mut headers = BTreeMap::new();
        while headers.len() < MAX_HEADERS
            && let Some((name, raw)) = members.next_entry::<String, &RawValue>()?
        {
            if let Some(text) = member(Some(raw)) {
                headers.insert(name, text);
            }
        }
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Headers(headers))
    }
}

#[cfg(test)]
#[path = "pairing_tests.rs"]
mod tests;
