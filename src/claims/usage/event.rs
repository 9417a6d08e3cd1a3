//! What a line of the access log says of a usage event.

use crate::domain::ids::ConnectionId;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::time::UnixSeconds;
use crate::telemetry::access_log::AccessEntry;
use crate::telemetry::usage::Skipped;
use crate::wire::control_plane::UsageEvent;

/// The refusal that counts as usage: an approved agent was stopped by its connection's overdue rotation.
const ROTATION: &str = "ROTATION_REQUIRED";
/// Longest texts, in bytes. The API counts characters; no text has more of those than bytes.
const MAX_ID: usize = 128;
const MAX_SUBJECT: usize = 256;
const MAX_METHOD: usize = 16;
const MAX_PATH: usize = 512;
const MAX_ADDRESS: usize = 128;
/// Longest duration in milliseconds, and largest response in bytes, that the API takes.
const MAX_DURATION_MS: u64 = 3_600_000;
const MAX_RESPONSE: u64 = 100_000_000;

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::claims) enum Found {
    /// A request to be reported.
    Event(Box<UsageEvent>),
    /// A request that would be, but for this.
    Skipped(Skipped),
    /// A refusal, or no request of an agent.
    Nothing,
}

/// Reads a line of the log for a gateway of this namespace.
pub(in crate::claims) fn read(line: &[u8], gateway: &Namespace) -> Found {
    let Some(entry) = AccessEntry::parse(line) else { return Found::Nothing };
    let blocked = entry.reason == ROTATION;
    if !blocked && !entry.was_forwarded() {
        return Found::Nothing;
    }
    let identified = ConnectionId::parse(&entry.connection).is_ok()
        && PublicKey::parse(&entry.public_key).is_ok()
        && !entry.namespace.is_empty()
        && !entry.decision_id.is_empty();
    if !identified {
        return Found::Skipped(Skipped::Incomplete);
    }
    if entry.namespace != gateway.as_str() {
        return Found::Skipped(Skipped::ForeignNamespace);
    }
    let outcome = match entry.status {
        _ if blocked => "forbidden",
        // Without a status the client left before there was an answer.
        100..400 => "success",
        _ => "error",
    };
    let subject = if entry.subject.trim().is_empty() { &entry.namespace } else { &entry.subject };
    let path = entry.path.split(['?', '#']).next().unwrap_or_default();
    Found::Event(Box::new(UsageEvent {
        event_id: cut(&entry.decision_id, MAX_ID),
        subject: cut(subject, MAX_SUBJECT),
        agent_id: some(&entry.agent_id, MAX_ID),
        protocol: "http".to_owned(),
        action: "proxy".to_owned(),
        outcome: outcome.to_owned(),
        status_code: u16::try_from(entry.status).ok().filter(|status| (100..=599).contains(status)),
        duration_ms: Some(entry.duration_ms.min(MAX_DURATION_MS)).filter(|millis| *millis > 0),
        response_bytes: Some(entry.bytes_sent.min(MAX_RESPONSE)),
        request_method: some(&entry.method.to_ascii_uppercase(), MAX_METHOD),
        request_path: some(path, MAX_PATH),
        remote_ip: some(&entry.client_address, MAX_ADDRESS),
        occurred_at: UnixSeconds::parse_rfc3339(&entry.timestamp).map(|_| entry.timestamp),
        namespace: entry.namespace,
        service: entry.connection,
        public_key: entry.public_key,
    }))
}

fn some(text: &str, limit: usize) -> Option<String> {
    (!text.trim().is_empty()).then(|| cut(text, limit))
}

/// At most `limit` bytes, cut between two characters.
fn cut(text: &str, limit: usize) -> String {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn line() -> Value {
        json!({
            "timestamp": "2026-01-01T00:00:00.000Z", "decision_id": "dec-1", "connection": "linear",
            "path": "/proxy/linear/graphql?token=x", "namespace": "acme", "subject": "alice",
            "agent_key": "0011223344556677", "public_key": PublicKey::new([7; 32]).text(), "agent_id": "bot",
            "method": "post", "status": 200, "duration_ms": 12, "bytes_sent": 34, "client_address": "192.0.2.7",
        })
    }

    fn with(members: &Value) -> Found {
        let mut line = line();
        for (name, value) in members.as_object().unwrap() {
            line.as_object_mut().unwrap().insert(name.clone(), value.clone());
        }
        read(line.to_string().as_bytes(), &Namespace::parse("acme").unwrap())
    }

    fn event(members: &Value) -> UsageEvent {
        match with(members) {
            Found::Event(event) => *event,
            other @ (Found::Skipped(_) | Found::Nothing) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_forwarded_request_is_an_event_with_every_field_and_no_query() {
        let expected = UsageEvent {
            event_id: "dec-1".to_owned(),
            namespace: "acme".to_owned(),
            service: "linear".to_owned(),
            public_key: PublicKey::new([7; 32]).text(),
            subject: "alice".to_owned(),
            agent_id: Some("bot".to_owned()),
            protocol: "http".to_owned(),
            action: "proxy".to_owned(),
            outcome: "success".to_owned(),
            status_code: Some(200),
            duration_ms: Some(12),
            response_bytes: Some(34),
            request_method: Some("POST".to_owned()),
            request_path: Some("/proxy/linear/graphql".to_owned()),
            remote_ip: Some("192.0.2.7".to_owned()),
            occurred_at: Some("2026-01-01T00:00:00.000Z".to_owned()),
        };
        assert_eq!(event(&json!({})), expected);
    }

    #[test]
    fn the_outcome_follows_the_status_and_the_rotation_policy() {
        for (members, outcome, status) in [
            (json!({"status": 399}), "success", Some(399)),
            (json!({"status": 400}), "error", Some(400)),
            (json!({"status": 502}), "error", Some(502)),
            (json!({"status": 0}), "error", None),
            (json!({"status": 999}), "error", None),
            (json!({"status": 403, "reason": "ROTATION_REQUIRED"}), "forbidden", Some(403)),
        ] {
            let event = event(&members);
            assert_eq!((event.outcome.as_str(), event.status_code), (outcome, status), "{members}");
        }
    }

    #[test]
    fn other_refusals_and_other_requests_are_none() {
        for members in [json!({"reason": "AUTH_CLAIM_REQUIRED"}), json!({"decision_id": ""}), json!({"connection": ""})]
        {
            assert_eq!(with(&members), Found::Nothing, "{members}");
        }
        assert_eq!(read(b"not json", &Namespace::parse("acme").unwrap()), Found::Nothing);
    }

    #[test]
    fn who_cannot_be_reported_is_skipped_and_said() {
        assert_eq!(with(&json!({"namespace": "other"})), Found::Skipped(Skipped::ForeignNamespace));
        for members in [json!({"namespace": ""}), json!({"public_key": "x"}), json!({"connection": "../x"})] {
            assert_eq!(with(&members), Found::Skipped(Skipped::Incomplete), "{members}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_what_is_empty_left_out() {
        let long = "ü".repeat(600);
        let event_ = event(&json!({
            "subject": long, "agent_id": long, "path": format!("/{long}"), "method": "x".repeat(99),
            "duration_ms": u64::MAX, "bytes_sent": u64::MAX,
        }));
        assert_eq!(event_.subject.len(), MAX_SUBJECT);
        assert_eq!(event_.agent_id.map(|text| text.len()), Some(MAX_ID));
        assert_eq!(event_.request_path.map(|text| text.len()), Some(MAX_PATH - 1), "no half character");
        assert_eq!(event_.request_method.map(|text| text.len()), Some(MAX_METHOD));
        assert_eq!((event_.duration_ms, event_.response_bytes), (Some(MAX_DURATION_MS), Some(MAX_RESPONSE)));
        let event =
            event(&json!({"subject": " ", "agent_id": "", "duration_ms": 0, "client_address": "", "path": "?x"}));
        assert_eq!((event.subject.as_str(), event.agent_id, event.duration_ms), ("acme", None, None));
        assert_eq!((event.remote_ip, event.request_path), (None, None));
        for timestamp in ["", "-", "yesterday", "2026-01-01"] {
            assert_eq!(self::event(&json!({"timestamp": timestamp})).occurred_at, None, "{timestamp}");
        }
    }
}
