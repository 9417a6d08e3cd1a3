//! `claim list`.

use clap::Args;

use crate::app::owner_api::Claim;
use crate::app::owner_api::ClaimFilter;
use crate::cli::args::Globals;
use crate::cli::claim::fingerprint;
use crate::cli::claim::tone;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::OwnerArgs;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::cli::span::age;
use crate::cli::span::left;
use crate::cli::table::Cell;
use crate::cli::table::Table;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;

/// Options of `claim list`.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArgs {
    /// Only claims of this status
    #[arg(long, value_name = "STATUS", value_parser = ["pending", "approved", "rejected", "revoked", "expired"])]
    status: Option<String>,
    /// Only claims for this service
    #[arg(long, value_name = "SLUG")]
    service: Option<String>,
    /// Most claims to list, 1 to 10000
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Whose claims.
    #[command(flatten)]
    owner: OwnerArgs,
}

/// Lists them as the API orders them.
pub(super) async fn run(args: &ListArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let config = settings::load(&globals.flags(), &[])?;
    let owner = owner::open(&args.owner, &config, globals, printer)?;
    let filter = ClaimFilter { status: args.status.as_deref(), service: args.service.as_deref() };
    let listed = owner.api.claims(owner.namespace.as_str(), filter, usize::from(args.limit)).await;
    let (claims, more) = listed.map_err(|error| owner::failed(&error))?;
    if args.json {
        printer.json(&claims)?;
    } else if claims.is_empty() {
        printer.line(&format!("No claims for namespace \"{}\".", owner.namespace))?;
    } else {
        printer.lines(&table(&claims).lines(printer.is_coloured()))?;
    }
    if more {
        printer.warn(&format!("there are more than {}; see --limit, --status and --service", args.limit));
    }
    Ok(Outcome::Done)
}

fn table(claims: &[Claim]) -> Table {
    let now = SystemClock.now().seconds();
    let mut table = Table::new(&["CLAIM", "STATUS", "SERVICE", "AGENT", "KEY", "AGE", "EXPIRES"]);
    for claim in claims {
        let agent = [&claim.agent_name, &claim.agent_id, &claim.subject];
        let agent = agent.into_iter().flatten().find(|name| !name.is_empty());
        table.row(vec![
            claim.claim_id.as_str().into(),
            Cell::toned(&claim.status, tone(&claim.status)),
            claim.service_shown().as_str().into(),
            agent.map_or("", String::as_str).into(),
            fingerprint(&claim.public_key).as_str().into(),
            age(claim.created_at.as_deref(), now).as_str().into(),
            left(claim.expires_at.as_deref(), now).as_str().into(),
        ]);
    }
    table
}
