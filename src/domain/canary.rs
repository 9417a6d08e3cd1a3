//! The canary: a request without a signature, which must be refused. What its answer says of the gate. Readiness and commands
//! send one each, and judge alike.

/// What is asked for. No connection needs to be called that: a request without a signature is refused before anybody looks.
pub const PATH: &str = "/proxy/sigilum-canary/";
/// What codes of the signature checks begin with.
const REFUSED: &str = "AUTH_";
/// Codes of authz where it decides nothing at the moment: also a refusal, and its own.
const CLOSED: [&str; 4] = ["NOT_READY", "GATEWAY_DRAINING", "REPLAY_WINDOW_FULL", "REPLAY_WINDOW_STARTING"];
/// Code of Envoy where authz does not answer.
const UNAVAILABLE: &str = "AUTHZ_UNAVAILABLE";
/// Code of Envoy where a request went on and no provider was reached.
const FORWARDED: &str = "UPSTREAM_ERROR";

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Authz refused it, as it should.
    Refused,
    /// It did not pass, and nobody decided: why.
    Undecided(String),
    /// It passed: how that shows.
    LetThrough(String),
}

/// Judges an answer by its status and the `code` of its body, which is empty where there is none.
pub fn judge(status: u16, code: &str) -> Verdict {
    if status >= 400 && (code.starts_with(REFUSED) || CLOSED.contains(&code)) {
        return Verdict::Refused;
    }
    if code == UNAVAILABLE {
        return Verdict::Undecided("Envoy answers AUTHZ_UNAVAILABLE".to_owned());
    }
    if status < 400 || code == FORWARDED {
        return Verdict::LetThrough(format!("HTTP {status}"));
    }
    Verdict::Undecided(format!("HTTP {status} without a decision"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_authz_is_told_from_an_outage_and_from_an_open_gate() {
        for (status, code) in [(403, "AUTH_SIGNATURE_INVALID"), (429, "AUTH_RATE_LIMITED"), (503, "NOT_READY")] {
            assert_eq!(judge(status, code), Verdict::Refused, "{code}");
        }
        for (status, code) in [(503, "AUTHZ_UNAVAILABLE"), (404, ""), (500, ""), (403, ""), (421, "OTHER")] {
            assert!(matches!(judge(status, code), Verdict::Undecided(_)), "{status} {code}");
        }
        // An upstream that was not reached was tried; a code in a good answer is the provider's own.
        for (status, code) in [(200, ""), (302, ""), (200, "AUTH_SIGNATURE_INVALID"), (502, "UPSTREAM_ERROR")] {
            assert!(matches!(judge(status, code), Verdict::LetThrough(_)), "{status} {code}");
        }
    }
}
