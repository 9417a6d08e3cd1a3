//! Frames between the control plane and a gateway's bridge: one JSON object in one text message.
//!
//! What is unknown or malformed is no frame, and is passed over; neither side ends a session for it. Members this
//! version does not know are ignored, so that either side may say more later.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;

/// Where a bridge connects; the query names session and namespace.
pub const CONNECT_PATH: &str = "/v1/gateway/pairing/connect";
/// Carries the pair code in the handshake, so that it stands in no URL; the query's `code` is read where it is absent.
pub const CODE_HEADER: &str = "x-sigilum-pair-code";
/// Close reason (code 1000) of a socket whose session another bridge has taken over.
pub const REPLACED: &str = "replaced";
/// Close reason (code 1000) of a bridge that was told to stop.
pub const SHUTDOWN: &str = "shutdown";
/// Close reason (code 1000) of a bridge that waited too long for the handshake.
pub const CONNECT_TIMEOUT: &str = "connect-timeout";

/// Why a handshake is refused for good: retrying the same session with the same code cannot help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// No session of that id, or no longer.
    NotFound,
    /// It was, and has ended.
    Expired,
    /// It is another namespace's.
    Namespace,
    /// Not its code, or one that was tried too often.
    Code,
}

impl Terminal {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::NotFound, Self::Expired, Self::Namespace, Self::Code];

    /// HTTP status and the text of `error`, which bridges compare without regard to case.
    pub const fn wire(self) -> (u16, &'static str) {
        match self {
            Self::NotFound => (404, "Pair session not found"),
            Self::Expired => (410, "Pair session expired"),
            Self::Namespace => (403, "Namespace mismatch"),
            Self::Code => (403, "Invalid pair code"),
        }
    }

    /// What a text (a body's `error`, a close reason) says, if it is one of ours.
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

/// What came of a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// Of the command.
    pub request_id: String,
    /// HTTP status; 500 where the bridge gave none.
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
        let mut frame = object(text)?;
        match frame.get("type")?.as_str()? {
            "ping" => Some(Self::Ping),
            "pong" => Some(Self::Pong),
            "command" => Some(Self::Command(Command {
                request_id: owned(&mut frame, "request_id")?,
                method: owned(&mut frame, "method")?,
                path: owned(&mut frame, "path")?,
                headers: headers(&mut frame),
                body: body(&mut frame).map(Secret::new),
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
        let mut frame = object(text)?;
        match frame.get("type")?.as_str()? {
            "ping" => Some(Self::Ping),
            "pong" => Some(Self::Pong),
            "response" => {
                let status = frame.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
                Some(Self::Response(Relayed {
                    request_id: owned(&mut frame, "request_id")?,
                    status: status.filter(|status| (100..600).contains(status)).unwrap_or(500),
                    headers: headers(&mut frame),
                    body: body(&mut frame),
                    error: owned(&mut frame, "error"),
                }))
            }
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

fn object(text: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) | Err(_) => None,
    }
}

fn owned(frame: &mut Map<String, Value>, name: &str) -> Option<String> {
    text(frame.remove(name)?).ok()
}

fn headers(frame: &mut Map<String, Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(headers)) = frame.remove("headers") else { return BTreeMap::new() };
    headers.into_iter().filter_map(|(name, value)| Some((name, text(value).ok()?))).collect()
}

fn body(frame: &mut Map<String, Value>) -> Option<String> {
    let value = frame.remove("body").filter(|value| !value.is_null())?;
    Some(text(value).unwrap_or_else(|value| value.to_string()))
}

/// The text, or back what is none.
fn text(value: Value) -> Result<String, Value> {
    if let Value::String(text) = value { Ok(text) } else { Err(value) }
}

#[cfg(test)]
#[path = "pairing_tests.rs"]
mod tests;
