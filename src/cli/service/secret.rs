//! `service secret set`: another provider secret for a connection; the running gateway uses it with the next request.

use clap::Args;
use serde_json::Value;

use crate::cli::args::Globals;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::service::connection;
use crate::cli::service::slug;
use crate::cli::service::source::SecretSource;
use crate::cli::settings;
use crate::cli::table;

/// Options of `service secret set`.
#[derive(Debug, Clone, Args)]
pub(super) struct SetArgs {
    /// Which service
    #[arg(long, value_name = "SLUG")]
    service_slug: String,
    /// Name of the secret [default: the connection's, else access_token]
    #[arg(long, value_name = "NAME")]
    upstream_secret_key: Option<String>,
    /// Where the secret comes from.
    #[command(flatten)]
    source: SecretSource,
    /// Show the secret whole
    #[arg(long, visible_alias = "reveal")]
    reveal_secrets: bool,
}

/// Sets it.
pub(super) async fn run(args: &SetArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let slug = slug(&args.service_slug)?;
    if !args.source.is_named() {
        return Err(CliError::new(Outcome::Usage, "no secret is named")
            .hint("give one of --upstream-secret-env, --upstream-secret-file, --upstream-secret-stdin"));
    }
    let config = settings::load(&globals.flags(), &[])?;
    let Some(secret) = args.source.read(printer)? else {
        return Err(CliError::new(Outcome::Failed, "there is no secret"));
    };
    let api = gateway_api::open(&config, printer)?;
    let Some(found) = api.find(slug.as_str()).await.map_err(|error| gateway_api::failed(&error))? else {
        return Err(CliError::new(Outcome::Failed, format!("the gateway has no connection {slug}"))
            .hint(format!("sigilum service add --service-slug {slug} --mode gateway --upstream-base-url URL …")));
    };
    let of_connection = found.get("auth_secret_key").and_then(Value::as_str).unwrap_or("access_token");
    let name = args.upstream_secret_key.as_deref().map_or(of_connection, str::trim);
    let changed = connection::rotate(&api, slug.as_str(), (name, &secret), "manual-secret-set").await?;
    printer.ok(if changed { "Upstream secret set." } else { "Upstream secret is this one already." })?;
    printer.lines(&table::pairs(
        0,
        &[
            ("connection", slug.as_str()),
            ("secret key", name),
            ("secret", &gateway_api::masked(&secret, args.reveal_secrets)),
        ],
    ))?;
    Ok(Outcome::Done)
}
