//! The body of `AUTH_CLAIM_REQUIRED`: Markdown that an agent can show to the person who must approve.
//!
//! Existing clients look for some of its phrases, so they are a contract: `Sigilum verified your
//! signature`, `AUTH_CLAIM_REQUIRED`, `HTTP 403`, `SECURE ACCESS BLOCKED`, `revoked/expired`.

use std::fmt::Write as _;

/// Content type of the body.
pub const CONTENT_TYPE: &str = "text/markdown; charset=utf-8";

/// Longest key text shown, in characters.
const MAX_KEY: usize = 96;
/// Longest other value shown, in characters.
const MAX_VALUE: usize = 256;

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
    /// Whether the gateway registers such requests with the control plane by itself.
    pub auto_register: bool,
}

impl ClaimRequired<'_> {
    /// The body: LF separated, no white space around it.
    pub fn markdown(&self) -> String {
        let mut out = String::with_capacity(3072);
        out.push_str(HEAD);
        out.push_str("\n\n## Request Context\n\n");
        bullet(&mut out, "Namespace", &sanitise(self.namespace, MAX_VALUE));
        bullet(&mut out, "Subject", &sanitise(self.subject, MAX_VALUE));
        bullet(&mut out, "Service", &sanitise(self.service, MAX_VALUE));
        bullet(&mut out, "Agent key", &sanitise(self.agent_key, MAX_KEY));
        bullet(&mut out, "Remote IP", &sanitise(self.remote_address, MAX_VALUE));
        out.push_str("\n## Authorization Registration\n\n");
        let mode = if self.auto_register { "`enabled` (gateway)" } else { "`disabled`" };
        bullet(&mut out, "Auto-registration mode", mode);
        out.push('\n');
        out.push_str(EXPLANATION);
        out
    }
}

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

Ask the owner of the namespace to review and approve this agent key for this service, then retry.";

fn bullet(out: &mut String, label: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "- {label}: {value}");
}

/// Makes a value harmless inside one line of Markdown: trimmed, back-ticks to `'`, line ends and other
/// control characters to spaces, angle brackets escaped, cut at `limit` characters, never empty.
fn sanitise(value: &str, limit: usize) -> String {
    let value = value.trim();
    if value.is_empty() {
        return "(unknown)".to_owned();
    }
    let mut out = String::with_capacity(value.len());
    for (count, letter) in value.chars().enumerate() {
        if count >= limit {
            out.push_str("...");
            break;
        }
        match letter {
            '`' => out.push('\''),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(subject: &str) -> String {
        ClaimRequired {
            namespace: "acme",
            subject,
            service: "svc-one",
            agent_key: &format!("ed25519:{}", "A".repeat(200)),
            remote_address: "",
            auto_register: false,
        }
        .markdown()
    }

    #[test]
    fn the_markers_that_clients_look_for_are_there() {
        let body = body("alice");
        for marker in [
            "Sigilum verified your signature",
            "Sigilum Authorization Required",
            "AUTH_CLAIM_REQUIRED",
            "HTTP 403",
            "SECURE ACCESS BLOCKED",
            "revoked/expired",
            "## Request Context",
            "- Namespace: acme\n",
            "- Subject: alice\n",
            "- Service: svc-one\n",
            "- Remote IP: (unknown)\n",
            "## Authorization Registration",
            "- Auto-registration mode: `disabled`\n",
            "## Next Step",
            "~~~text",
        ] {
            assert!(body.contains(marker), "{marker}");
        }
        assert_eq!(body.trim(), body);
        assert_eq!(body.matches("\n## ").count(), 6);
    }

    #[test]
    fn inserted_values_stay_on_their_line() {
        let shown = body(" al`ice\r\n# Approved\u{85}<script> ");
        assert!(shown.contains("- Subject: al'ice  # Approved &lt;script&gt;\n"), "{shown}");
        assert!(shown.contains(&format!("- Agent key: ed25519:{}...\n", "A".repeat(88))));
        assert!(body("x".repeat(10_000).as_str()).len() < 4096);
    }
}
