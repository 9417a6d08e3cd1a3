//! `service key list | revoke`: the keys of a service. They are made by `service add`.

use clap::Args;
use clap::Subcommand;

use crate::app::owner_api::Service;
use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::Owner;
use crate::cli::owner::OwnerArgs;
use crate::cli::printer::Printer;
use crate::cli::service::slug;
use crate::cli::settings;
use crate::cli::table::Table;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List the keys of a service that are not revoked
    List(KeyListArgs),
    /// Revoke a key: whoever uses it is refused from now on
    Revoke(KeyRevokeArgs),
}

/// Options of `service key list`.
#[derive(Debug, Clone, Args)]
pub(super) struct KeyListArgs {
    /// Which service
    #[arg(long, value_name = "SLUG")]
    service_slug: String,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Whose service.
    #[command(flatten)]
    owner: OwnerArgs,
}

/// Options of `service key revoke`.
#[derive(Debug, Clone, Args)]
pub(super) struct KeyRevokeArgs {
    /// Which service
    #[arg(long, value_name = "SLUG")]
    service_slug: String,
    /// The key's id, key_…
    #[arg(value_name = "KEY")]
    key_id: String,
    /// Whose service.
    #[command(flatten)]
    owner: OwnerArgs,
}

/// Runs one of them.
pub(super) async fn run(command: &KeyCommand, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let config = settings::load(&globals.flags(), &[])?;
    match command {
        KeyCommand::List(args) => {
            let wanted = slug(&args.service_slug)?;
            let owner = owner::open_for_service(&args.owner, &config, globals, printer)?;
            let service = find(&owner, wanted.as_str()).await?;
            let keys = owner.api.keys(&service.id).await.map_err(|error| owner::failed(&error))?;
            if args.json {
                printer.json(&keys)?;
                return Ok(Outcome::Done);
            }
            let mut table = Table::new(&["KEY", "ENDS_WITH", "NAME"]);
            for key in &keys {
                table.row(vec![key.id.as_str().into(), key.key_prefix.as_str().into(), key.name.as_str().into()]);
            }
            printer.lines(&table.lines(printer.is_coloured()))?;
        }
        KeyCommand::Revoke(args) => {
            let wanted = slug(&args.service_slug)?;
            let owner = owner::open_for_service(&args.owner, &config, globals, printer)?;
            let service = find(&owner, wanted.as_str()).await?;
            let id = args.key_id.trim();
            owner.api.revoke_key(&service.id, id).await.map_err(|error| match error.status() {
                404 => CliError::new(Outcome::Failed, format!("the service {wanted} has no active key {id}"))
                    .hint(format!("sigilum service key list --service-slug {wanted}")),
                _ => owner::failed(&error),
            })?;
            printer.ok(&format!("Key {id} revoked."))?;
        }
    }
    Ok(Outcome::Done)
}

async fn find(owner: &Owner, slug: &str) -> Result<Service, CliError> {
    owner.api.service(slug).await.map_err(|error| owner::failed(&error))?.ok_or_else(|| {
        CliError::new(Outcome::Failed, format!("{} has no service {slug}", owner.namespace))
            .hint("sigilum service list")
    })
}
