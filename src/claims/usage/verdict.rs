//! What an answer of the control plane means for the events that were sent.

use crate::claims::client::Answer;
use crate::claims::client::ApiError;
use crate::wire::control_plane::RefusedEvent;
use crate::wire::control_plane::UsageBatchAnswer;

/// Refusals of a signature that no other attempt changes: this gateway may not report for that agent.
const NEVER_OURS: [&str; 2] = ["SIGNATURE_NAMESPACE_MISMATCH", "SIGNATURE_KEY_MISMATCH"];
/// Refusals of a signature that the next attempt, with a nonce and a time of its own, may not meet.
const OF_THIS_ATTEMPT: [&str; 2] = ["SIGNATURE_EXPIRED", "SIGNATURE_NONCE_REPLAY"];
/// Code of what a key may not do.
const FORBIDDEN: &str = "FORBIDDEN";
/// What a refusal is called that names no code.
const NO_CODE: &str = "HTTP";

/// What is to be done with the events of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::claims) enum Verdict {
    /// The control plane has them, except those it will never take.
    Settled {
        /// How many it had before.
        duplicate: u64,
        /// Those it will never take.
        refused: Vec<RefusedEvent>,
    },
    /// It will never take this, as it was sent: code, and its words.
    Refused(String, String),
    /// It does not take many at a time.
    NoBatches,
    /// It does not accept the key: another key may help.
    Unauthorized,
    /// It knows the key as that of another service, and waiting changes nothing about it.
    OfAnotherService,
    /// Something in between does not let it through, perhaps for what one of the events says.
    Stuck(u16),
    /// Try again.
    Later,
}

/// Judges the answer to a batch of `sent` events.
pub(in crate::claims) fn of_batch(answer: &Result<Answer, ApiError>, sent: usize) -> Verdict {
    match answer {
        Ok(answer) => match answer.json::<UsageBatchAnswer>() {
            // All of them: it is the key that is of another service.
            Ok(UsageBatchAnswer { refused, .. })
                if refused.len() == sent && refused.iter().all(|event| event.code == FORBIDDEN) =>
            {
                Verdict::OfAnotherService
            }
            Ok(UsageBatchAnswer { accepted, duplicate, refused })
                if accepted.saturating_add(duplicate).saturating_add(refused.len() as u64) == sent as u64 =>
            {
                Verdict::Settled { duplicate, refused }
            }
            // Somebody else's 200, or an answer that does not say what became of each.
            Ok(_) | Err(_) => Verdict::Later,
        },
        Err(ApiError::Refused { status: 404 | 405, .. } | ApiError::NotJson { status: 404 | 405, .. }) => {
            Verdict::NoBatches
        }
        // The signature is ours, whatever the events are: it is the clock or the identity, which all wait for.
        Err(ApiError::Refused { status: 401 | 403, code, .. })
            if code.starts_with("SIGNATURE_") && !NEVER_OURS.contains(&code.as_str()) =>
        {
            Verdict::Later
        }
        Err(error) => of_error(error),
    }
}

/// Judges the answer to one event sent by itself.
pub(in crate::claims) fn of_single(answer: &Result<Answer, ApiError>) -> Verdict {
    match answer {
        Ok(answer) => {
            let said = answer.json::<serde_json::Value>().unwrap_or_default();
            let says = |name: &str| said.get(name).and_then(serde_json::Value::as_bool) == Some(true);
            match (says("accepted"), says("duplicate")) {
                (_, true) => Verdict::Settled { duplicate: 1, refused: Vec::new() },
                (true, false) => Verdict::Settled { duplicate: 0, refused: Vec::new() },
                (false, false) => Verdict::Later,
            }
        }
        Err(error) => of_error(error),
    }
}

fn of_error(error: &ApiError) -> Verdict {
    match error {
        ApiError::Refused { code, .. } if OF_THIS_ATTEMPT.contains(&code.as_str()) => Verdict::Later,
        ApiError::Refused { status: 403, code, .. } if code == FORBIDDEN => Verdict::OfAnotherService,
        ApiError::Refused { status: 401 | 403, code, .. } if !NEVER_OURS.contains(&code.as_str()) => {
            Verdict::Unauthorized
        }
        ApiError::Refused { status: 408 | 429 | 500.., .. } => Verdict::Later,
        ApiError::Refused { status, code, message, .. } => {
            let code = if code.is_empty() { format!("{NO_CODE}_{status}") } else { code.clone() };
            Verdict::Refused(code, message.clone())
        }
        ApiError::NotJson { status: 413, .. } => Verdict::Refused(format!("{NO_CODE}_413"), String::new()),
        ApiError::NotJson { status, .. } if (400..500).contains(status) && !matches!(status, 408 | 429) => {
            Verdict::Stuck(*status)
        }
        ApiError::Request(why) => Verdict::Refused("CANNOT_BE_SENT".to_owned(), why.clone()),
        ApiError::Unreachable { .. }
        | ApiError::TimedOut { .. }
        | ApiError::Broken { .. }
        | ApiError::Redirect { .. }
        | ApiError::Clock { .. }
        | ApiError::NotJson { .. }
        | ApiError::TooLarge { .. } => Verdict::Later,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use http::StatusCode;

    use super::*;

    fn answer(body: &'static str) -> Result<Answer, ApiError> {
        Ok(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) })
    }

    fn refused(status: u16, code: &str) -> Result<Answer, ApiError> {
        Err(ApiError::Refused { status, code: code.to_owned(), message: String::new(), retry_after: None })
    }

    #[test]
    fn only_an_answer_that_accounts_for_every_event_settles_a_batch() {
        let settled = of_batch(&answer(r#"{"accepted":1,"duplicate":1,"refused":[{"event_id":"x","code":"C"}]}"#), 3);
        assert!(matches!(settled, Verdict::Settled { duplicate: 1, refused } if refused.len() == 1));
        let key = r#"{"refused":[{"event_id":"x","code":"FORBIDDEN"},{"event_id":"y","code":"FORBIDDEN"}]}"#;
        assert_eq!(of_batch(&answer(key), 2), Verdict::OfAnotherService);
        for other in ["{}", r#"{"accepted":2}"#, r#"{"accepted":4}"#, "<html>", ""] {
            assert_eq!(of_batch(&answer(other), 3), Verdict::Later, "{other}");
        }
    }

    #[test]
    fn only_a_yes_settles_an_event() {
        for (body, duplicate) in [
            (r#"{"event_id":"x","accepted":true,"duplicate":false}"#, 0),
            (r#"{"event_id":"x","accepted":true,"duplicate":true}"#, 1),
            (r#"{"event_id":"x","accepted":false,"duplicate":true}"#, 1),
        ] {
            assert_eq!(of_single(&answer(body)), Verdict::Settled { duplicate, refused: Vec::new() }, "{body}");
        }
        for other in ["{}", r#"{"accepted":"true"}"#, "[]", "<html>", ""] {
            assert_eq!(of_single(&answer(other)), Verdict::Later, "{other}");
        }
    }

    #[test]
    fn refusals_are_for_good_unless_time_or_another_key_may_help() {
        let for_good = |code: &str| Verdict::Refused(code.to_owned(), String::new());
        for (status, code, wanted) in [
            (400, "VALIDATION_ERROR", for_good("VALIDATION_ERROR")),
            (413, "", for_good("HTTP_413")),
            (403, "SIGNATURE_KEY_MISMATCH", for_good("SIGNATURE_KEY_MISMATCH")),
            (403, "SIGNATURE_NAMESPACE_MISMATCH", for_good("SIGNATURE_NAMESPACE_MISMATCH")),
            (401, "UNAUTHORIZED", Verdict::Unauthorized),
            (403, "FORBIDDEN", Verdict::OfAnotherService),
            (403, "", Verdict::Unauthorized),
            (401, "SIGNATURE_EXPIRED", Verdict::Later),
            (409, "SIGNATURE_NONCE_REPLAY", Verdict::Later),
            (408, "", Verdict::Later),
            (429, "RATE_LIMITED", Verdict::Later),
            (500, "INTERNAL_ERROR", Verdict::Later),
            (503, "NONCE_STORE_UNAVAILABLE", Verdict::Later),
        ] {
            assert_eq!(of_single(&refused(status, code)), wanted, "{status} {code}");
            assert_eq!(of_batch(&refused(status, code), 3), wanted, "{status} {code}");
        }
        assert_eq!(of_batch(&refused(404, "NOT_FOUND"), 3), Verdict::NoBatches);
        assert_eq!(of_batch(&refused(405, ""), 3), Verdict::NoBatches);
        assert_eq!(of_single(&refused(404, "NOT_FOUND")), for_good("NOT_FOUND"));
        let invalid = refused(401, "SIGNATURE_INVALID");
        assert_eq!((of_batch(&invalid, 3), of_single(&invalid)), (Verdict::Later, Verdict::Unauthorized));
        let page = |status| Err(ApiError::NotJson { status, found: "a web page".to_owned() });
        assert_eq!((of_batch(&page(404), 3), of_single(&page(404))), (Verdict::NoBatches, Verdict::Stuck(404)));
        assert_eq!((of_batch(&page(403), 3), of_single(&page(403))), (Verdict::Stuck(403), Verdict::Stuck(403)));
        assert_eq!((of_batch(&page(413), 3), of_batch(&page(429), 3)), (for_good("HTTP_413"), Verdict::Later));
        assert_eq!(of_single(&Err(ApiError::Clock { seconds: 900, ahead: true })), Verdict::Later);
    }
}
