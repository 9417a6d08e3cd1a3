//! `service rm`.

use clap::Args;
use serde_json::json;

use crate::cli::args::Globals;
use crate::cli::confirm;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::OwnerArgs;
use crate::cli::printer::Printer;
use crate::cli::service::slug;
use crate::cli::settings;

/// Options of `service rm`.
#[derive(Debug, Clone, Args)]
pub(super) struct RemoveArgs {
    /// Which service
    #[arg(value_name = "SLUG")]
    slug: String,
    /// Do not ask; needed where nobody is at a terminal
    #[arg(short, long)]
    yes: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Whose service.
    #[command(flatten)]
    owner: OwnerArgs,
}

/// Removes it. That it is gone already is what was wanted, so it is no error.
pub(super) async fn run(args: &RemoveArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let slug = slug(&args.slug)?;
    if !args.yes {
        confirm::check_attended()?;
    }
    let config = settings::load(&globals.flags(), &[])?;
    let owner = owner::open_for_service(&args.owner, &config, globals, printer)?;
    let found = owner.api.service(slug.as_str()).await.map_err(|error| owner::failed(&error))?;
    if let Some(found) = &found {
        let question = format!("Remove service {slug} of {} with its keys and every approval?", owner.namespace);
        if !args.yes && !confirm::ask(&question, printer)? {
            return Err(CliError::new(Outcome::Failed, format!("service {slug} was not removed")));
        }
        owner.api.remove_service(&found.id).await.map_err(|error| owner::failed(&error))?;
    }
    if args.json {
        printer.json(&json!({ "deleted": found.is_some(), "slug": slug.as_str() }))?;
        return Ok(Outcome::Done);
    }
    match found {
        Some(_) => {
            printer.ok(&format!("Service {slug} removed: its keys and approvals are worth nothing now."))?;
            let kept = config.paths.home.join(format!("service-api-key-{slug}"));
            if kept.exists() {
                printer.note(&format!("its key file stays and can be deleted: {}", kept.display()));
            }
            printer.note(&format!("a connection of that name stays; see `sigilum connection rm {slug}`"));
        }
        None => printer.ok(&format!("{} has no service {slug}; nothing was removed.", owner.namespace))?,
    }
    Ok(Outcome::Done)
}
