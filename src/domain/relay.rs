//! Requests that a control plane relays for a page: which of them could send a secret where its owner never meant it to go.
//!
//! Whoever relays may write any request it likes, with the gateway's own token on it. It may know secrets that came through it
//! in clear; one that was sealed, set on this machine or found in a file it must never learn. So it can give secrets, take them
//! away and switch connections on and off, but not change where or how an existing one is sent, nor have one put into a
//! connection of its making.

use crate::domain::draft::CheckedDraft;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::McpSettings;

/// Header by which the bridge says that a request was relayed, and under which session.
pub const RELAY_HEADER: &str = "x-sigilum-relay";
/// Longest id of a session, in bytes. Ours and those of the hosted control plane are UUIDs.
const MAX_SESSION_BYTES: usize = 64;

/// The id of a pairing session, as the bridge says it: 1 to 64 of `A-Za-z0-9._-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySession(String);

impl RelaySession {
    /// Takes the exact form only.
    pub fn parse(text: &str) -> Option<Self> {
        let clean = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        (clean && (1..=MAX_SESSION_BYTES).contains(&text.len())).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a relayed request is refused. The text says what is to be done on the gateway's machine instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayRefused {
    /// It would change where or how a secret is sent.
    #[error(
        "{0}: says where or how a secret is sent, which no request through a pairing may change; do it on the gateway's machine \
         (`sigilum connection set`), or make a new connection with its own secrets"
    )]
    Redirection(&'static str),
    /// It would widen what addresses a connection may lead to.
    #[error(
        "allow_private: no request through a pairing may open private addresses; do it on the gateway's machine (`sigilum \
         connection add` or `set`)"
    )]
    Private,
    /// It would put a credential variable into a connection.
    #[error(
        "secrets: no request through a pairing may put a credential variable into a connection; do it on the gateway's machine \
         (`sigilum connection add` or `rotate`)"
    )]
    Variable,
    /// It would put a key of a file into a connection that is there already.
    #[error(
        "connection_id: no request through a pairing may put a key of this machine into a connection of its choice; leave it \
         out, or do it on the gateway's machine"
    )]
    Import,
    /// It would send a test of its own making with the credential.
    #[error(
        "a test through a pairing is a GET or HEAD without headers and body, or the one that the catalog of this version has \
         for that provider; send others on the gateway's machine (`sigilum connection test`)"
    )]
    Test,
    /// It would change where the connections lead that others make from a template.
    #[error(
        "services: no request through a pairing may take a template away or change where its connections lead; do it on the \
         gateway's machine"
    )]
    Template,
    /// It would have others read a variable of their machine into connections of a template of its making.
    #[error(
        "services: no request through a pairing may make or change a template that names a variable (env_var); leave it out, or \
         do it on the gateway's machine"
    )]
    TemplateVariable,
    /// What is asked for concerns the gateway as a whole.
    #[error("this is not done through a pairing; do it on the gateway's machine")]
    Operation,
}

/// Judges a connection that is to be made. Where and how its secret is sent is part of what a sealed one was sealed for
/// ([`Destination`](crate::domain::sealing::Destination)); what is refused here is not, or leads elsewhere.
pub fn check_new(draft: &CheckedDraft) -> Result<(), RelayRefused> {
    if draft.settings.allow_private {
        return Err(RelayRefused::Private);
    }
    if draft.mcp.as_ref().is_some_and(leads_elsewhere) {
        return Err(RelayRefused::Redirection("mcp_endpoint"));
    }
    if !draft.settings.extra_headers.is_empty() {
        return Err(RelayRefused::Redirection("extra_headers"));
    }
    if draft.settings.allow_set_cookie {
        return Err(RelayRefused::Redirection("allow_set_cookie"));
    }
    Ok(())
}

/// Whether requests go to another URL than the connection's own.
fn leads_elsewhere(mcp: &McpSettings) -> bool {
    mcp.endpoint.contains("://")
}

/// Judges a change of a connection by what would differ: pages send members they do not mean to change.
pub fn check_change(before: &ConnectionRecord, after: &CheckedDraft) -> Result<(), RelayRefused> {
    let (old, new) = (&before.settings, &after.settings);
    if new.allow_private && !old.allow_private {
        return Err(RelayRefused::Private);
    }
    let endpoint = |mcp: &Option<McpSettings>| mcp.as_ref().map(|mcp| mcp.endpoint.clone());
    let differing = [
        ("base_url", old.upstream != new.upstream),
        // Behind one address many may live, each under a path of its own.
        ("path_prefix", old.path_prefix != new.path_prefix),
        ("mcp_endpoint", endpoint(&before.mcp) != endpoint(&after.mcp)),
        // Another place in the request is one that logs, or that a provider repeats to the agent.
        ("auth_mode", old.auth_mode != new.auth_mode),
        ("auth_header_name", old.auth_target != new.auth_target),
        ("auth_prefix", old.auth_prefix != new.auth_prefix),
        // One that was never meant to be sent, e.g. what answers are signed with.
        ("auth_secret_key", before.auth_secret_key != after.auth_secret_key),
        // What proxies and providers route by.
        ("extra_headers", old.extra_headers != new.extra_headers),
        // The provider's own session, handed to agents.
        ("allow_set_cookie", new.allow_set_cookie && !old.allow_set_cookie),
    ];
    match differing.into_iter().find(|(_, differs)| *differs) {
        Some((member, _)) => Err(RelayRefused::Redirection(member)),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
