//! `sigilum claim list | show | approve | reject | revoke`: who may use which service of the namespace.

mod decide;
mod find;
mod list;

use clap::Args;
use clap::Subcommand;

use crate::app::owner_api::Claim;
use crate::cli::args::Globals;
use crate::cli::claim::decide::ApproveArgs;
use crate::cli::claim::decide::DecideArgs;
use crate::cli::claim::list::ListArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::table;
use crate::cli::table::Tone;
use crate::domain::ids::PublicKey;
use crate::domain::time::UnixSeconds;

/// `claim` and what to do.
#[derive(Debug, Args)]
pub struct ClaimArgs {
    #[command(subcommand)]
    command: ClaimCommand,
}

#[derive(Debug, Subcommand)]
enum ClaimCommand {
    /// List the claims of the namespace
    List(ListArgs),
    /// Show one claim whole
    Show(DecideArgs),
    /// Approve a pending claim: its key may use the service from now on
    Approve(ApproveArgs),
    /// Reject a pending claim
    Reject(DecideArgs),
    /// Revoke an approved claim: its key may not use the service any more
    Revoke(DecideArgs),
}

/// Runs one of them.
pub(crate) async fn run(args: &ClaimArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    match &args.command {
        ClaimCommand::List(args) => list::run(args, globals, printer).await,
        ClaimCommand::Show(args) => decide::show(args, globals, printer).await,
        ClaimCommand::Approve(args) => decide::approve(args, globals, printer).await,
        ClaimCommand::Reject(args) => decide::reject(args, globals, printer).await,
        ClaimCommand::Revoke(args) => decide::revoke(args, globals, printer).await,
    }
}

/// How a status looks.
fn tone(status: &str) -> Tone {
    match status {
        "approved" => Tone::Good,
        "pending" => Tone::Attention,
        "rejected" | "revoked" => Tone::Bad,
        "expired" => Tone::Faint,
        _ => Tone::Plain,
    }
}

/// How long ago, in its largest unit.
fn age(since: Option<&str>, now: UnixSeconds) -> String {
    since.and_then(UnixSeconds::parse_rfc3339).map_or_else(String::new, |at| span(now.0.saturating_sub(at.0)))
}

/// How long still; `ended` where it is over.
fn left(until: Option<&str>, now: UnixSeconds) -> String {
    let Some(at) = until.and_then(UnixSeconds::parse_rfc3339) else { return String::new() };
    if at <= now { "ended".to_owned() } else { format!("in {}", span(at.0.saturating_sub(now.0))) }
}

fn span(seconds: u64) -> String {
    const UNITS: &[(u64, &str)] = &[(86_400, "d"), (3600, "h"), (60, "m")];
    let largest = UNITS.iter().find(|(length, _)| seconds >= *length);
    largest.map_or_else(|| format!("{seconds}s"), |(length, name)| format!("{}{name}", seconds / length))
}

/// The short name of a key; the text itself where it is no key.
fn fingerprint(key: &str) -> String {
    PublicKey::parse(key).map_or_else(|_| key.to_owned(), |key| key.fingerprint())
}

/// All that is known about a claim, for people.
fn details(claim: &Claim) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let fingerprint = fingerprint(&claim.public_key);
    let all = [
        ("claim", claim.claim_id.clone()),
        ("status", claim.status.clone()),
        ("namespace", claim.namespace.clone()),
        ("service", claim.service_shown()),
        ("public key", claim.public_key.clone()),
        ("fingerprint", fingerprint),
        ("agent id", text(&claim.agent_id)),
        ("agent name", text(&claim.agent_name)),
        ("subject", text(&claim.subject)),
        ("agent address", claim.agent_ip.clone()),
        ("created", text(&claim.created_at)),
        ("approved", text(&claim.approved_at)),
        ("revoked", text(&claim.revoked_at)),
        ("expires", text(&claim.expires_at)),
    ];
    let known: Vec<_> =
        all.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, value.as_str())).collect();
    table::pairs(0, &known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        let now = UnixSeconds(1_700_000_000);
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(age(Some(&UnixSeconds(now.0 - seconds).rfc3339()), now), text);
        }
        assert_eq!(age(None, now), "");
        assert_eq!(left(Some(&UnixSeconds(now.0 + 90).rfc3339()), now), "in 1m");
        assert_eq!(left(Some(&now.rfc3339()), now), "ended");
    }

    #[test]
    fn a_key_is_named_by_its_fingerprint() {
        assert_eq!(fingerprint("ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k="), "99fb00dc16ee555a");
        assert_eq!(fingerprint("odd"), "odd");
    }
}
