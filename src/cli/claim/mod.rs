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
    fn a_key_is_named_by_its_fingerprint() {
        assert_eq!(fingerprint("ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k="), "99fb00dc16ee555a");
        assert_eq!(fingerprint("odd"), "odd");
    }
}
