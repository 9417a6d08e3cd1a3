//! A registration on the state stream: what authz asks of admin, and what it makes of the answer.

use std::net::IpAddr;

use crate::domain::decision::Caller;
use crate::domain::ids::ConnectionId;
use crate::domain::registration::Registration;
use crate::domain::registration::Submission;
use crate::wire::state::proto;

/// Longest name or code kept of an answer, in characters. Thousands of answers are remembered.
const MAX_NAME: usize = 96;
/// Longest text kept of an answer, in characters: one more than is shown, so that the cut can be seen.
const MAX_TEXT: usize = 221;

/// Asks to register a caller for a service. The id is the stream's business.
pub fn encode(caller: &Caller, service: &ConnectionId, address: Option<IpAddr>) -> proto::Register {
    proto::Register {
        id: 0,
        service: service.as_str().to_owned(),
        namespace: caller.namespace.as_str().to_owned(),
        public_key: caller.key.as_bytes().to_vec(),
        subject: caller.subject.clone(),
        agent_id: caller.agent_id.clone().unwrap_or_default(),
        remote_address: address.map(|address| address.to_string()).unwrap_or_default(),
    }
}

/// Reads an answer; every text is cut to what is ever shown of it.
pub fn decode(message: &proto::Registered) -> Registration {
    let (submission, error) = match message.result() {
        proto::RegisterResult::Recorded => (Submission::Recorded, ""),
        proto::RegisterResult::ApiRejected => (Submission::ApiRejected, ""),
        proto::RegisterResult::NoResponse => (Submission::NoResponse, ""),
        proto::RegisterResult::FailedBeforeResponse => (Submission::FailedBeforeResponse, message.error.as_str()),
        proto::RegisterResult::RateLimited => (Submission::RateLimited, ""),
        proto::RegisterResult::Unspecified => {
            (Submission::FailedBeforeResponse, "the gateway's control process answered with an unknown result")
        }
    };
    Registration {
        submission,
        error: cut(error, MAX_TEXT),
        http_status: u16::try_from(message.http_status).ok().filter(|status| *status != 0),
        claim_id: cut(&message.claim_id, MAX_NAME),
        claim_status: cut(&message.claim_status, MAX_NAME),
        code: cut(&message.code, MAX_NAME),
        message: cut(&message.message, MAX_TEXT),
    }
}

fn cut(text: &str, limit: usize) -> String {
    text.trim().chars().take(limit).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;
    use crate::domain::ids::Namespace;
    use crate::domain::ids::PublicKey;

    #[test]
    fn what_is_asked_is_what_was_signed() {
        let caller = Caller {
            namespace: Namespace::parse("acme").unwrap(),
            subject: "alice".to_owned(),
            key: PublicKey::new([7; 32]),
            agent_id: Some("bot-1".to_owned()),
        };
        let service = ConnectionId::parse("svc-one").unwrap();
        let asked = encode(&caller, &service, Some("192.0.2.7".parse().unwrap()));
        assert_eq!((asked.service.as_str(), asked.namespace.as_str()), ("svc-one", "acme"));
        assert_eq!((asked.subject.as_str(), asked.agent_id.as_str()), ("alice", "bot-1"));
        assert_eq!((asked.public_key.as_slice(), asked.remote_address.as_str()), (&[7; 32][..], "192.0.2.7"));
        let asked = encode(&Caller { agent_id: None, ..caller }, &service, None);
        assert!(asked.agent_id.is_empty() && asked.remote_address.is_empty());
    }

    #[test]
    fn an_answer_is_bounded_and_what_is_absent_stays_absent() {
        let long = "ü".repeat(5000);
        let read = decode(&proto::Registered {
            result: proto::RegisterResult::ApiRejected.into(),
            http_status: 409,
            claim_id: long.clone(),
            claim_status: long.clone(),
            code: long.clone(),
            message: long.clone(),
            error: long.clone(),
            id: 1,
        });
        assert_eq!((read.submission, read.http_status), (Submission::ApiRejected, Some(409)));
        assert!([&read.claim_id, &read.claim_status, &read.code].iter().all(|text| text.chars().count() == MAX_NAME));
        assert_eq!(read.message.chars().count(), MAX_TEXT);
        assert!(read.error.is_empty(), "an error is told only of what failed here");
        let read = decode(&proto::Registered::default());
        assert_eq!((read.submission, read.http_status), (Submission::FailedBeforeResponse, None));
        assert!(read.claim_id.is_empty() && !read.error.is_empty());
        let read = decode(&proto::Registered { result: 77, http_status: 70_000, ..proto::Registered::default() });
        assert_eq!((read.submission, read.http_status), (Submission::FailedBeforeResponse, None));
    }
}
