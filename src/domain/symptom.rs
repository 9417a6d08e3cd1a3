//! What a gateway says when something is wrong with it, by the words that name it: they stay the same from version to version, so
//! that people find them, and alarms can wait for them.

/// One thing that can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symptom {
    /// Words, or a code, that one line on standard error, in a log or in an answer holds.
    pub token: &'static str,
    /// What is behind it, for the README: a cell of a Markdown table.
    pub cause: &'static str,
    /// How the command ends that says it; `None`: nothing ends.
    pub exit: Option<u8>,
    /// What to type first.
    pub first: &'static str,
}

const fn ends(exit: u8, token: &'static str, cause: &'static str, first: &'static str) -> Symptom {
    Symptom { token, cause, exit: Some(exit), first }
}

const fn goes_on(token: &'static str, cause: &'static str, first: &'static str) -> Symptom {
    Symptom { token, cause, exit: None, first }
}

/// All of them: those that keep a gateway from starting, those of a running one, those of commands.
pub const ALL: [Symptom; 22] = [
    ends(
        78,
        "refusing to bind gateway",
        "a listener would be open to a network without anybody being asked who comes; the line says what to set",
        "sigilum doctor --lint --only gateway/bind-auth",
    ),
    ends(
        78,
        "another gateway instance is already listening",
        "a gateway runs on this data folder; the line names its process",
        "sigilum gateway status --deep",
    ),
    ends(
        78,
        "port in use by foreign process",
        "somebody else listens on that port; nothing of theirs is stopped",
        "sigilum gateway status --deep",
    ),
    ends(
        78,
        "invalid config",
        "`gateway.yaml`, an option or a variable; each mistake is listed",
        "sigilum gateway config check",
    ),
    ends(
        78,
        "secret reference unresolved",
        "a secret of the file leads nowhere at the start: its provider is down, its variable not set",
        "sigilum secrets audit --allow-exec",
    ),
    ends(
        78,
        "master key mismatch",
        "the store was sealed with another key than the one that was given",
        "sigilum doctor --lint --only store/master-key",
    ),
    ends(
        1,
        "crash loop",
        "a process ended several times in a row (Envoy: its binary, memory, a port); the line names it and its log",
        "sigilum logs --stream envoy",
    ),
    goes_on(
        "config reload skipped",
        "the changed file cannot be used; the gateway goes on with what it had",
        "sigilum gateway config check",
    ),
    goes_on(
        "SECRETS_RELOADER_DEGRADED",
        "a provider of secrets is down; the last good secrets stay in use for a while",
        "sigilum secrets reload --json",
    ),
    goes_on(
        "xds rejected",
        "Envoy refused a change of its listeners, which was taken back",
        "sigilum health --verbose",
    ),
    goes_on(
        "secrets snapshot degraded",
        "the same, as the log says it: the line has the code and the reason",
        "sigilum secrets reload --json",
    ),
    goes_on("envoy exited", "Envoy ended by itself and is started again", "sigilum logs --stream envoy"),
    goes_on(
        "claims stale",
        "the Sigilum API has not confirmed approvals; they hold for `claims.ttl_seconds` + `gateway.claims_grace`",
        "sigilum health --verbose",
    ),
    goes_on("envoy not live", "Envoy does not run, or not any more", "sigilum gateway status --deep"),
    goes_on(
        "authz unreachable (failing closed)",
        "no request can be decided, so each is refused with 503 `AUTHZ_UNAVAILABLE`",
        "sigilum health --verbose",
    ),
    goes_on("authz failing closed", "the same, as the log says it", "sigilum health --verbose"),
    goes_on(
        "clock skew",
        "this machine's clock is off; signatures and approvals depend on it",
        "sigilum health --verbose",
    ),
    goes_on(
        "AUTH_CLAIM_REQUIRED",
        "an agent asks for a service it is not approved for",
        "sigilum connection status --json",
    ),
    ends(
        4,
        "unauthorized",
        "the gateway refuses the admin token, or there is none; the line has the code",
        "sigilum gateway probe --json",
    ),
    ends(
        42,
        "PAIR_SESSION_TERMINAL",
        "the pairing is over: start another in the dashboard and run its command",
        "sigilum gateway connect",
    ),
    ends(
        2,
        "still-starting",
        "`gateway restart` stopped waiting while the gateway went on starting",
        "sigilum gateway status --deep",
    ),
    ends(1, "restart-health-failed", "the gateway did not come up again", "sigilum logs --limit 500"),
];

/// The rows as a Markdown table, ending with a line feed.
pub fn table() -> String {
    let mut table = "| it says | cause | exit | first |\n| --- | --- | --- | --- |\n".to_owned();
    for Symptom { token, cause, exit, first } in ALL {
        let exit = exit.map_or_else(|| "–".to_owned(), |code| code.to_string());
        table.push_str(&format!("| `{token}` | {cause} | {exit} | `{first}` |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_part_of_another() {
        for (at, one) in ALL.iter().enumerate() {
            let others = ALL.iter().enumerate().filter(|(other, _)| *other != at);
            assert!(others.map(|(_, other)| other.token).all(|token| !token.contains(one.token)), "{}", one.token);
        }
    }
}
