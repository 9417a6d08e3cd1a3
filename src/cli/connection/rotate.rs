//! `connection rotate`: new secrets for a connection; the running gateway uses them with the next request.

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::args::Globals;
use crate::cli::connection::ACTOR;
use crate::cli::connection::find;
use crate::cli::connection::id;
use crate::cli::connection::missing;
use crate::cli::connection::open;
use crate::cli::connection::secrets;
use crate::cli::connection::secrets::SecretOptions;
use crate::cli::connection::text;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::secret_source;
use crate::cli::table;
use crate::domain::secret::Secret;

/// Options of `connection rotate`.
#[derive(Debug, Clone, Args)]
pub(super) struct RotateArgs {
    /// Which connection
    #[arg(value_name = "ID")]
    id: String,
    /// Taken so that it can be refused without being repeated.
    #[arg(value_name = "SECRET", hide = true)]
    literal: Vec<String>,
    /// Where the new secrets come from; on a terminal without any of these the secret is asked for.
    #[command(flatten)]
    secrets: SecretOptions,
    /// Why, for the gateway's record
    #[arg(long, value_name = "TEXT", default_value = "manual")]
    reason: String,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Rotates; a secret that is in place already is no error.
pub(super) async fn run(args: &RotateArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let id = id(&args.id)?;
    if !args.literal.is_empty() {
        return Err(secret_source::on_argv(secrets::OPTIONS));
    }
    args.secrets.check()?;
    let api = open(globals, printer)?;
    let found = find(&api, &id).await?;
    let injected = match text(&found, "auth_secret_key") {
        "" => "access_token".to_owned(),
        name => name.to_owned(),
    };
    let read = secrets::or_typed(args.secrets.read(printer)?, &injected, printer)?;
    let named: Vec<(&str, &Secret)> =
        read.iter().map(|secret| (secret.name.as_deref().unwrap_or(&injected), &secret.value)).collect();
    let names = named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let (rotated, changed) = match api.rotate(id.as_str(), &named, ACTOR, &args.reason).await {
        Ok(rotated) => (rotated, true),
        Err(error) if error.code() == "SECRET_UNCHANGED" => (found, false),
        Err(error) if error.status() == 404 => return Err(missing(&id)),
        Err(error) => return Err(gateway_api::failed(&error)),
    };
    if args.json {
        let secrets: Vec<_> = named.iter().map(|(name, _)| *name).collect();
        printer.json(&json!({ "id": id.as_str(), "changed": changed, "secrets": secrets, "connection": rotated }))?;
        return Ok(Outcome::Done);
    }
    if changed {
        printer.ok(&format!("Connection {id} rotated: {names}."))?;
    } else {
        printer.ok(&format!("Connection {id} has this secret already: {names}. Nothing was changed."))?;
    }
    let version = rotated.get("secret_version").and_then(Value::as_u64).map_or_else(String::new, |it| it.to_string());
    let all = [
        ("secret version", version.as_str()),
        ("last rotated at", text(&rotated, "last_rotated_at")),
        ("next rotation due at", text(&rotated, "next_rotation_due_at")),
    ];
    let known: Vec<_> = all.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    printer.lines(&table::pairs(0, &known))?;
    if read.iter().any(|secret| secret.origin.starts_with("file ")) && changed {
        printer.note("The gateway keeps a sealed copy: the file is not needed any more.");
    }
    Ok(Outcome::Done)
}
