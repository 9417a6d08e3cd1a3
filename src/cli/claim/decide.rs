//! `claim show | approve | reject | revoke`.

use clap::Args;

use crate::app::owner_api::ApiError;
use crate::app::owner_api::Claim;
use crate::app::owner_api::ClaimState;
use crate::app::owner_api::Expiry;
use crate::cli::args::Globals;
use crate::cli::claim::details;
use crate::cli::claim::find::Which;
use crate::cli::duration;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::Owner;
use crate::cli::owner::OwnerArgs;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::domain::time::UnixSeconds;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;

/// Options of `claim show`, `claim reject` and `claim revoke`.
#[derive(Debug, Clone, Args)]
pub(super) struct DecideArgs {
    /// Which claim.
    #[command(flatten)]
    which: Which,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Whose claim.
    #[command(flatten)]
    owner: OwnerArgs,
}

/// Options of `claim approve`.
#[derive(Debug, Clone, Args)]
pub(super) struct ApproveArgs {
    /// Which claim, and how to say it.
    #[command(flatten)]
    decide: DecideArgs,
    /// The approval ends after this time, e.g. 30m, 24h, 7d
    #[arg(long, value_name = "TIME", conflicts_with = "expires_at")]
    expires_in: Option<String>,
    /// The approval ends then (RFC 3339), e.g. 2027-01-31T18:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
}

/// Shows one claim.
pub(super) async fn show(args: &DecideArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let owner = open(args, globals, printer)?;
    let claim = args.which.find(&owner, None).await?;
    if args.json {
        printer.json(&claim)?
    } else {
        printer.lines(&details(&claim))?
    }
    Ok(Outcome::Done)
}

/// Approves a pending claim.
pub(super) async fn approve(args: &ApproveArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let expiry = expiry(args, SystemClock.now().seconds())?;
    let owner = open(&args.decide, globals, printer)?;
    let claim = args.decide.which.find(&owner, Some("pending")).await?;
    let state = owner.api.approve(&claim.claim_id, expiry).await.map_err(|error| refused(&error, &claim, "pending"))?;
    let mut outcome = Outcome::Done;
    let mut claim = Claim { status: state.status.clone(), expires_at: state.expires_at.clone(), ..claim };
    if expiry.is_some() && claim.expires_at.is_none() {
        // An API that does not know expiries says nothing about them; one that does has it in the claim.
        claim = owner.api.claim(&claim.claim_id).await.map_err(|error| owner::failed(&error))?;
        if claim.expires_at.is_none() {
            printer.warn(&format!(
                "this API knows no expiry: the approval has no end; take it back with `sigilum claim revoke {}`",
                claim.claim_id
            ));
            outcome = Outcome::Failed;
        }
    }
    told(&args.decide, &claim, "approved", printer)?;
    Ok(outcome)
}

/// Rejects a pending claim.
pub(super) async fn reject(args: &DecideArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let owner = open(args, globals, printer)?;
    let claim = args.which.find(&owner, Some("pending")).await?;
    let answer = owner.api.reject(&claim.claim_id).await;
    end(args, claim, answer, ("pending", "rejected"), printer)
}

/// Revokes an approved claim.
pub(super) async fn revoke(args: &DecideArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let owner = open(args, globals, printer)?;
    let claim = args.which.find(&owner, Some("approved")).await?;
    let answer = owner.api.revoke(&claim.claim_id).await;
    end(args, claim, answer, ("approved", "revoked"), printer)
}

fn open(args: &DecideArgs, globals: &Globals, printer: &mut Printer) -> Result<Owner, CliError> {
    let config = settings::load(&globals.flags(), &[])?;
    owner::open(&args.owner, &config, globals, printer)
}

fn end(
    args: &DecideArgs,
    claim: Claim,
    answer: Result<ClaimState, ApiError>,
    (from, to): (&str, &str),
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let state = answer.map_err(|error| refused(&error, &claim, from))?;
    told(args, &Claim { status: state.status, ..claim }, to, printer)?;
    Ok(Outcome::Done)
}

fn told(args: &DecideArgs, claim: &Claim, done: &str, printer: &mut Printer) -> Result<(), CliError> {
    if args.json {
        return printer.json(claim);
    }
    printer.ok(&format!("Claim {} {done}.", crate::app::owner_api::readable(&claim.claim_id)))?;
    printer.lines(&details(claim))
}

/// A refusal; where the claim is simply in another state than it would have to be, that is what is said.
fn refused(error: &ApiError, claim: &Claim, needed: &str) -> CliError {
    let limit = matches!(error.code(), "SERVICE_LIMIT_REACHED" | "AGENT_LIMIT_REACHED");
    if !limit && matches!(error.status(), 400 | 404 | 409) && claim.status != needed {
        let message = format!("the claim {} is {}, not {needed}", claim.claim_id, claim.status);
        return CliError::new(Outcome::Failed, message).hint(match needed {
            "pending" => "the agent asks again with its next request; then there is a pending claim",
            _ => "sigilum claim list --status approved",
        });
    }
    owner::failed(error)
}

fn expiry(args: &ApproveArgs, now: UnixSeconds) -> Result<Option<Expiry>, CliError> {
    let failed = |message: String| CliError::new(Outcome::Failed, message);
    if let Some(text) = &args.expires_in {
        let seconds = seconds(text.trim()).ok_or_else(|| {
            failed(format!("--expires-in {text:?} is no time: a number and s, m, h, d or w, at most ten years"))
        })?;
        return Ok(Some(Expiry::In(seconds)));
    }
    let Some(text) = &args.expires_at else { return Ok(None) };
    let at = UnixSeconds::parse_rfc3339(text.trim())
        .ok_or_else(|| failed(format!("--expires-at {text:?} is no time such as {}", now.rfc3339())))?;
    if at <= now {
        return Err(failed(format!("--expires-at {} is over already", at.rfc3339())));
    }
    if at.0.saturating_sub(now.0) > duration::LONGEST {
        return Err(failed("--expires-at is more than ten years away".to_owned()));
    }
    Ok(Some(Expiry::At(at)))
}

/// At least a second.
fn seconds(text: &str) -> Option<u64> {
    duration::seconds(text).filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        for (text, length) in [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600)] {
            assert_eq!(seconds(text), Some(length), "{text}");
        }
        for bad in ["", "0s", "h", "24", "-1h", "+1h", "1.5h", "1y", "9999999d", "99999999999999999999s", "1ö"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
