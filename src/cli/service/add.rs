//! `service add`: a service in the API, its key in a file, in gateway mode its connection in the gateway.

use std::io;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::app::owner_api;
use crate::app::owner_api::NewService;
use crate::app::owner_api::Service;
use crate::cli::args::Globals;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::Owner;
use crate::cli::owner::OwnerArgs;
use crate::cli::printer::Printer;
use crate::cli::service::connection;
use crate::cli::service::connection::AuthMode;
use crate::cli::service::connection::Done;
use crate::cli::service::connection::Wanted;
use crate::cli::service::key_variable;
use crate::cli::service::slug;
use crate::cli::service::source::SecretSource;
use crate::cli::settings;
use crate::cli::table;
use crate::cli::token;
use crate::config::Config;
use crate::domain::ids::ConnectionId;
use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::files;
use crate::sys::random;

/// Longest secret name, as the admin API has it.
const MAX_NAME: usize = 100;

/// Options of `service add`.
#[derive(Debug, Clone, Args)]
pub(super) struct AddArgs {
    /// What approvals, paths and connections call it: 3 to 64 of a-z, 0-9 and '-'
    #[arg(long, value_name = "SLUG")]
    service_slug: String,
    /// Name for people [default: the slug]
    #[arg(long, value_name = "NAME")]
    service_name: Option<String>,
    /// A sentence about it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Where it lives
    #[arg(long, value_name = "DOMAIN", default_value = "localhost")]
    domain: String,
    /// native: it checks requests itself; gateway: the gateway does, and holds its secret
    #[arg(long, value_name = "MODE", default_value = "native")]
    mode: ServiceMode,
    /// Where the provider is, e.g. https://api.example.com
    #[arg(long, value_name = "URL", required_if_eq("mode", "gateway"))]
    upstream_base_url: Option<String>,
    /// How the secret travels to the provider
    #[arg(long, value_name = "MODE", default_value = "bearer")]
    auth_mode: AuthMode,
    /// Header or query parameter of the secret [default: Authorization, X-<slug>-Key or api_key, by mode]
    #[arg(long, value_name = "NAME")]
    upstream_header: Option<String>,
    /// What stands before the secret [default: 'Bearer ' for bearer, else nothing]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    auth_prefix: Option<String>,
    /// Name of the secret in the connection [default: access_token, upstream_key or api_key, by mode]
    #[arg(long, value_name = "NAME")]
    upstream_secret_key: Option<String>,
    /// Let the connection reach private addresses
    #[arg(long)]
    allow_private: bool,
    /// Where the provider's secret comes from.
    #[command(flatten)]
    source: SecretSource,
    /// Show secrets whole
    #[arg(long, visible_alias = "reveal")]
    reveal_secrets: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Whose service it is.
    #[command(flatten)]
    owner: OwnerArgs,
}

/// Who checks the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ServiceMode {
    /// The service.
    Native,
    /// The gateway.
    Gateway,
}

/// What was made of it.
#[derive(Debug, Serialize)]
struct Added<'a> {
    namespace: &'a str,
    service_slug: &'a str,
    service_name: &'a str,
    service_id: &'a str,
    created: bool,
    mode: &'a str,
    api: &'a str,
    service_key: &'a str,
    service_key_file: &'a str,
    gateway_env: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<AddedConnection<'a>>,
}

#[derive(Debug, Serialize)]
struct AddedConnection<'a> {
    id: &'a str,
    state: &'static str,
    base_url: &'a str,
    auth_mode: &'static str,
    auth_header_name: &'a str,
    auth_secret_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// Registers the service. Everything is judged and everybody asked before anything is made.
pub(super) async fn run(args: &AddArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let slug = slug(&args.service_slug)?;
    let name = args.service_name.as_deref().map(str::trim).filter(|name| !name.is_empty()).unwrap_or(slug.as_str());
    for (what, text, most) in [
        ("--service-name", name, 100),
        ("--domain", &args.domain, 255),
        ("--upstream-secret-key", secret_key(args), MAX_NAME),
    ] {
        if text.trim().is_empty() || text.chars().count() > most {
            return Err(CliError::new(Outcome::Failed, format!("{what} must have 1 to {most} characters")));
        }
    }
    let is_gateway = args.mode == ServiceMode::Gateway;
    if !is_gateway && (args.source.is_named() || args.upstream_base_url.is_some()) {
        let message = "a native service has no upstream: its secret and its address stay with it";
        return Err(CliError::new(Outcome::Usage, message).hint("for the gateway to call it, add --mode gateway"));
    }
    let config = settings::load(&globals.flags(), &[])?;
    let given = args.source.read(printer)?;
    let owner = owner::open_for_service(&args.owner, &config, globals, printer)?;
    let connections = if is_gateway { Some(gateway_api::open(&config, printer)?) } else { None };
    let found = match &connections {
        Some(api) => api.find(slug.as_str()).await.map_err(|error| gateway_api::failed(&error))?,
        None => None,
    };

    let description = args.description.clone().unwrap_or_else(|| format!("{name} ({slug})"));
    let wanted = NewService { name, slug: slug.as_str(), domain: args.domain.trim(), description: &description };
    let (service, created) = owner.api.ensure_service(&wanted).await.map_err(|error| owner::failed(&error))?;
    let (key, key_file) = ensure_key(&owner, &service, &slug, &config).await?;

    let header = args.upstream_header.clone().unwrap_or_else(|| args.auth_mode.header(&slug));
    let mut connected = None;
    let mut secret = given;
    if let (Some(api), Some(base_url)) = (&connections, &args.upstream_base_url) {
        if secret.is_none() && found.is_none() {
            let made = random::hex::<24>().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
            secret = Some(Secret::new(format!("gw_{made}")));
            printer.warn(
                "no secret was given, so one was made; the provider has to know it: \
                 show it with --reveal-secrets at this first call, or set yours with `sigilum service secret set`",
            );
        }
        let wanted = Wanted {
            id: &slug,
            name,
            base_url,
            mode: args.auth_mode,
            header: &header,
            prefix: args.auth_prefix.as_deref().unwrap_or_else(|| args.auth_mode.prefix()),
            secret_key: secret_key(args),
            allow_private: args.allow_private,
        };
        let done = connection::bring(api, &wanted, found.as_ref(), secret.as_ref()).await?;
        connected = Some((done, base_url));
    }

    let added = Added {
        namespace: owner.namespace.as_str(),
        service_slug: slug.as_str(),
        service_name: &service.name,
        service_id: &service.id,
        created,
        mode: if is_gateway { "gateway" } else { "native" },
        api: &owner.base,
        service_key: &gateway_api::masked(&key, args.reveal_secrets),
        service_key_file: &key_file.display().to_string(),
        gateway_env: &key_variable(&slug),
        connection: connected.map(|(done, base_url): (Done, &String)| AddedConnection {
            id: slug.as_str(),
            state: done.name(),
            base_url,
            auth_mode: args.auth_mode.name(),
            auth_header_name: &header,
            auth_secret_key: secret_key(args),
            secret: secret.as_ref().map(|secret| gateway_api::masked(secret, args.reveal_secrets)),
        }),
    };
    if args.json {
        printer.json(&added)?
    } else {
        show(&added, printer)?
    }
    Ok(Outcome::Done)
}

fn secret_key(args: &AddArgs) -> &str {
    args.upstream_secret_key.as_deref().map_or_else(|| args.auth_mode.secret_key(), str::trim)
}

/// The service's key: `SERVICE_API_KEY`, else its file, else a new one; known to the API and in its file at the end.
async fn ensure_key(
    owner: &Owner,
    service: &Service,
    slug: &ConnectionId,
    config: &Config,
) -> Result<(Secret, PathBuf), CliError> {
    let file = config.paths.home.join(format!("service-api-key-{slug}"));
    let at = |error: io::Error| CliError::new(Outcome::Failed, format!("{}: {error}", file.display()));
    let stored = match files::read_text(&file, token::MAX_BYTES).map(Zeroizing::new) {
        Ok(text) => token::tidy(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(at(error)),
    };
    files::private_folder(&config.paths.home).map_err(at)?;
    let keep = |key: &Secret| {
        let line = Zeroizing::new(format!("{}\n", key.expose()));
        files::write_private(&file, line.as_bytes()).map_err(at)
    };
    let key = match (env::lookup("SERVICE_API_KEY"), &stored) {
        (Some(named), _) => Secret::new(named.trim().to_owned()),
        (None, Some(stored)) => stored.duplicate(),
        (None, None) => {
            let minted =
                owner_api::mint_service_key().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
            // First kept, then made known: a key that only the API knows would be lost and count all the same.
            keep(&minted)?;
            minted
        }
    };
    let imported = owner.api.import_key(service, "sigilum service add", &key).await;
    let valid = imported.map_err(|error| match error.code() {
        // Revoked, or another service's.
        "CONFLICT" => {
            owner::failed(&error).hint(format!("remove {} (and unset SERVICE_API_KEY) for a new key", file.display()))
        }
        _ => owner::failed(&error),
    })?;
    if stored.as_ref() != Some(&valid) {
        keep(&valid)?;
    }
    Ok((valid, file))
}

fn show(added: &Added<'_>, printer: &mut Printer) -> Result<(), CliError> {
    printer.ok(if added.created { "Service registered." } else { "Service is registered already." })?;
    printer.line("service:")?;
    printer.lines(&table::pairs(
        2,
        &[
            ("slug", added.service_slug),
            ("name", added.service_name),
            ("id", added.service_id),
            ("namespace", added.namespace),
            ("mode", added.mode),
            ("api", added.api),
        ],
    ))?;
    printer.line("service key:")?;
    printer.lines(&table::pairs(
        2,
        &[("key", added.service_key), ("file", added.service_key_file), ("gateway env", added.gateway_env)],
    ))?;
    if let Some(connection) = &added.connection {
        printer.line("connection:")?;
        let secret = connection.secret.as_deref().unwrap_or("(kept)");
        printer.lines(&table::pairs(
            2,
            &[
                ("id", connection.id),
                ("state", connection.state),
                ("base url", connection.base_url),
                ("auth mode", connection.auth_mode),
                ("header", connection.auth_header_name),
                ("secret key", connection.auth_secret_key),
                ("secret", secret),
            ],
        ))?;
    } else {
        printer.line("Give the service its key:")?;
        printer.line(&format!("  SIGILUM_API_KEY=$(cat {})", added.service_key_file))?;
    }
    Ok(())
}
