//! The body of `AUTH_CLAIM_REQUIRED`: Markdown that an agent can show to the person who must approve.
//!
//! Existing clients look for some of its phrases, so they are a contract: `Sigilum verified your
//! signature`, `AUTH_CLAIM_REQUIRED`, `HTTP 403`, `SECURE ACCESS BLOCKED`, `revoked/expired`.

use std::fmt::Write as _;

use crate::domain::registration::Registering;
use crate::domain::registration::Registration;
use crate::domain::registration::Submission;

/// Content type of the body.
pub const CONTENT_TYPE: &str = "text/markdown; charset=utf-8";

/// Longest key text shown, in characters.
const MAX_KEY: usize = 96;
/// Longest text of the control plane, or of our own failure, that is shown, in characters.
const MAX_TEXT: usize = 220;
/// Longest other value shown, in characters.
const MAX_VALUE: usize = 256;
/// The control plane's code for a claim of another namespace than its signer's.
const NAMESPACE_MISMATCH: &str = "SIGNATURE_NAMESPACE_MISMATCH";

/// What the body says of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimRequired<'a> {
    /// Namespace of the certificate.
    pub namespace: &'a str,
    /// Who the agent says it acts for.
    pub subject: &'a str,
    /// Connection id.
    pub service: &'a str,
    /// `ed25519:…`
    pub agent_key: &'a str,
    /// The client's address; empty where it is not known.
    pub remote_address: &'a str,
    /// What became of asking the control plane for an approval.
    pub registering: Registering<'a>,
}

impl ClaimRequired<'_> {
    /// The body: LF separated, no white space around it.
    pub fn markdown(&self) -> String {
        let mut out = String::with_capacity(3072);
        out.push_str(HEAD);
        out.push_str("\n\n## Request Context\n\n");
        bullet(&mut out, "Namespace", &plain(self.namespace, MAX_VALUE));
        bullet(&mut out, "Subject", &plain(self.subject, MAX_VALUE));
        bullet(&mut out, "Service", &plain(self.service, MAX_VALUE));
        bullet(&mut out, "Agent key", &plain(self.agent_key, MAX_KEY));
        bullet(&mut out, "Remote IP", &plain(self.remote_address, MAX_VALUE));
        out.push_str("\n## Authorization Registration\n\n");
        self.registration(&mut out);
        out.push('\n');
        out.push_str(EXPLANATION);
        out.push_str(&self.next_step());
        out
    }

    fn registration(&self, out: &mut String) {
        let mode = match self.registering {
            Registering::Disabled => "`disabled`",
            Registering::Untold | Registering::Told(_) => "`enabled` (gateway)",
        };
        bullet(out, "Auto-registration mode", mode);
        let Registering::Told(told) = self.registering else { return };
        let mut optional = |label: &str, value: &str, limit: usize| {
            if !value.trim().is_empty() {
                bullet(out, label, &quoted(value, limit));
            }
        };
        optional("Claim submit result", told.submission.word(), MAX_VALUE);
        optional("Submit error", &told.error, MAX_TEXT);
        optional("Claim API status", &told.http_status.map(|status| status.to_string()).unwrap_or_default(), MAX_VALUE);
        optional("Claim ID", &told.claim_id, MAX_VALUE);
        optional("Claim state", &told.claim_status, MAX_VALUE);
        optional("Claim API code", &told.code, MAX_VALUE);
        optional("Claim API message", &told.message, MAX_TEXT);
    }

    /// One sentence: by the code, else by the state of the claim.
    fn next_step(&self) -> String {
        let told = match self.registering {
            Registering::Disabled | Registering::Untold => return REVIEW.to_owned(),
            Registering::Told(told) => told,
        };
        if told.submission == Submission::ForeignNamespace || told.code == NAMESPACE_MISMATCH {
            let namespace = quoted(self.namespace, MAX_VALUE);
            return format!(
                "This gateway registers agents of its own namespace only: ask its operator to restart it with the \
                 agent's namespace {namespace} (`sigilum gateway start --namespace`, or \
                 `GATEWAY_SIGILUM_NAMESPACE`), then retry."
            );
        }
        if !told.submission.is_answered() {
            return REVIEW.to_owned();
        }
        next_step_of_claim(told)
    }
}

fn next_step_of_claim(told: &Registration) -> String {
    let claim = match told.claim_id.trim() {
        "" => "the claim of this agent key".to_owned(),
        id => format!("the claim {}", quoted(id, MAX_VALUE)),
    };
    match told.claim_status.trim() {
        "pending" => format!(
            "Ask the owner of the namespace to approve {claim}, which is waiting, in the Sigilum dashboard or with \
             `sigilum claim approve`, then retry."
        ),
        "approved" => format!(
            "Retry the request, signed anew, in a few seconds: {claim} is approved, and the gateway is about to hear \
             of it."
        ),
        "rejected" => format!(
            "Ask the owner of the namespace to look at {claim}, which was rejected by the owner or by a limit of the \
             namespace, and to approve this agent key for this service, then retry."
        ),
        "" => {
            let said = [&told.code, &told.message].iter().any(|text| !text.trim().is_empty());
            let above = if said { " (its answer is above)" } else { "" };
            format!(
                "Ask the operator of the gateway why the control plane did not take the registration{above}, and the \
                 owner of the namespace to approve this agent key for this service, then retry."
            )
        }
        other => format!(
            "Ask the owner of the namespace to review {claim}, whose state is {}, and to approve this agent key for \
             this service, then retry.",
            quoted(other, MAX_VALUE)
        ),
    }
}

/// The next step where nothing is known of a claim.
const REVIEW: &str =
    "Ask the owner of the namespace to review and approve this agent key for this service, then retry.";

const HEAD: &str = "\
# HTTP 403 AUTH_CLAIM_REQUIRED: Sigilum Authorization Required

~~~text
+--------------------------------------------------------------------+
|                       SECURE ACCESS BLOCKED                        |
+--------------------------------------------------------------------+
| Sigilum verified your signature, but the owner of this namespace   |
| has not approved this agent key for this service. This may be the  |
| first request of this key, or its approval was revoked/expired.    |
+--------------------------------------------------------------------+
~~~";

const EXPLANATION: &str = "\
## Why This Happened

The request was signed correctly and the gateway knows who sent it. Access to a service additionally needs an
approval for exactly this namespace, agent key and service, and there is none in force.

## How To Read This Response

This is an authorization decision, not an outage. The gateway, the network and the provider work; nothing was sent to
the provider, and retrying without an approval gives the same answer.

## What The Agent Should Do

Do not report a restart bug and do not try other credentials. Tell the user which service needs approval, show the
request context above, ask the user to approve it, and retry the request, signed anew, after that.

## Next Step

";

fn bullet(out: &mut String, label: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "- {label}: {value}");
}

/// A value as plain text of one line of Markdown: as [`quoted`], and angle brackets escaped.
fn plain(value: &str, limit: usize) -> String {
    tame(value, limit, |letter, out| match letter {
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        letter => out.push(letter),
    })
}

/// A value in back-ticks, between which nothing has a meaning but a back-tick.
fn quoted(value: &str, limit: usize) -> String {
    format!("`{}`", tame(value, limit, |letter, out| out.push(letter)))
}

/// Makes a value harmless inside one line of Markdown: trimmed, back-ticks to `'`, line ends and other
/// characters that steer a terminal or a reader to spaces, cut at `limit` characters, never empty.
fn tame(value: &str, limit: usize, push: impl Fn(char, &mut String)) -> String {
    let value = value.trim_matches(|letter: char| letter.is_whitespace() || letter.is_control() || steers(letter));
    if value.is_empty() {
        return "(unknown)".to_owned();
    }
    let mut out = String::with_capacity(value.len().min(limit.saturating_mul(4)));
    for (count, letter) in value.chars().enumerate() {
        if count >= limit {
            out.push_str("...");
            break;
        }
        match letter {
            '`' => out.push('\''),
            letter if letter.is_control() || steers(letter) => out.push(' '),
            letter => push(letter, &mut out),
        }
    }
    out
}

/// Line and paragraph separators, and what changes the direction text is read in.
const fn steers(letter: char) -> bool {
    matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
#[path = "markdown_tests.rs"]
mod tests;
