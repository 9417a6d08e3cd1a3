//! `sigilum connection …`: the admin API of the running gateway as commands. No store is opened here, and no secret
//! comes from an argument or goes to the screen.

mod add;
mod change;
mod fields;
mod import;
mod list;
mod remove;
mod rotate;
mod secrets;
mod show;
mod status;
mod template;
mod test;

use clap::Args;
use clap::Subcommand;
use serde_json::Value;

use crate::app::connections_api::ConnectionsApi;
use crate::cli::args::Globals;
use crate::cli::connection::add::AddArgs;
use crate::cli::connection::change::SetArgs;
use crate::cli::connection::change::SwitchArgs;
use crate::cli::connection::import::ImportArgs;
use crate::cli::connection::list::ListArgs;
use crate::cli::connection::remove::RemoveArgs;
use crate::cli::connection::rotate::RotateArgs;
use crate::cli::connection::show::ShowArgs;
use crate::cli::connection::status::StatusArgs;
use crate::cli::connection::test::TestArgs;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::domain::ids::ConnectionId;

/// Who changed a secret, for the gateway's record.
const ACTOR: &str = "sigilum-connection-cli";

/// `connection` and what to do.
#[derive(Debug, Args)]
pub struct ConnectionArgs {
    #[command(subcommand)]
    command: ConnectionCommand,
}

#[derive(Debug, Subcommand)]
enum ConnectionCommand {
    /// List the connections of the gateway
    List(ListArgs),
    /// How it stands with each connection: its secret, its agents, whether its provider answers
    Status(StatusArgs),
    /// Show one connection whole; never its secrets
    Show(ShowArgs),
    /// Add a connection, by its fields or from the service catalog
    Add(Box<AddArgs>),
    /// Change fields of a connection; FIELD= or FIELD=null brings the default back where there is one
    Set(Box<SetArgs>),
    /// Put new secrets in place of a connection's old ones; the next request uses them
    Rotate(RotateArgs),
    /// Let the gateway try a connection against its provider
    Test(TestArgs),
    /// Refuse every request of a connection until it is enabled again
    Disable(SwitchArgs),
    /// Let requests through again
    Enable(SwitchArgs),
    /// Remove a connection with every version of its secrets; one that is gone already is no error
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Offer a connection for every provider key in a .env file, and say how to delete the key there
    Import(ImportArgs),
}

/// Runs one of them.
pub(crate) async fn run(args: &ConnectionArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    match &args.command {
        ConnectionCommand::List(args) => list::run(args, globals, printer).await,
        ConnectionCommand::Status(args) => status::run(args, globals, printer).await,
        ConnectionCommand::Show(args) => show::run(args, globals, printer).await,
        ConnectionCommand::Add(args) => add::run(args, globals, printer).await,
        ConnectionCommand::Set(args) => change::set(args, globals, printer).await,
        ConnectionCommand::Rotate(args) => rotate::run(args, globals, printer).await,
        ConnectionCommand::Test(args) => test::run(args, globals, printer).await,
        ConnectionCommand::Disable(args) => change::switch(args, "disabled", globals, printer).await,
        ConnectionCommand::Enable(args) => change::switch(args, "active", globals, printer).await,
        ConnectionCommand::Rm(args) => remove::run(args, globals, printer).await,
        ConnectionCommand::Import(args) => import::run(args, globals, printer).await,
    }
}

/// The admin API of the gateway the settings mean.
fn open(globals: &Globals, printer: &mut Printer) -> Result<ConnectionsApi, CliError> {
    gateway_api::open(&settings::load(&globals.flags(), &[])?, printer)
}

/// The id of a connection as typed.
fn id(typed: &str) -> Result<ConnectionId, CliError> {
    gateway_api::slug("id", typed)
}

/// The connection, which must be there.
async fn find(api: &ConnectionsApi, id: &ConnectionId) -> Result<Value, CliError> {
    let found = api.find(id.as_str()).await.map_err(|error| gateway_api::failed(&error))?;
    found.ok_or_else(|| missing(id))
}

fn missing(id: &ConnectionId) -> CliError {
    CliError::new(Outcome::Failed, format!("the gateway has no connection {id}"))
        .hint("sigilum connection list, or sigilum connection add")
}

/// A text member; empty where there is none.
fn text<'a>(connection: &'a Value, member: &str) -> &'a str {
    connection.get(member).and_then(Value::as_str).unwrap_or_default()
}
