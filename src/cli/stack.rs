//! What commands know of the local stack: its control plane's port, the token of the test seed, what to show.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::app::api::ApiConfig;
use crate::app::api::ApiError;
use crate::app::api::Limits;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Beside;
use crate::cli::args::Globals;
use crate::cli::gateway::launch;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::files;

/// Port of the local control plane where nobody sets it.
const API_PORT: u16 = 8787;
/// Web pages that may call it where nobody says.
const ORIGINS: &str =
    "http://localhost:3000,http://127.0.0.1:3000,http://localhost:5000,http://127.0.0.1:5000";
/// How long its requests may take once told to stop; change streams end at once.
const GRACE: Duration = Duration::from_secs(5);
/// Longest token file, in bytes.
const MAX_TOKEN: u64 = 4096;
/// The file's name.
const SEED_TOKEN_FILE: &str = "test-seed-token";

/// Port of the local control plane: option, environment, default.
pub(crate) fn api_port(globals: &Globals) -> u16 {
    globals.api_port.or_else(|| env::lookup("API_PORT")?.trim().parse().ok()).unwrap_or(API_PORT)
}

/// How the local control plane is run: `API_HOST`, `API_PORT`, `API_DATA_DIR`, `ALLOWED_ORIGINS`, `JWT_SECRET`.
pub(crate) fn api_config(globals: &Globals, seed: Option<Secret>) -> Result<ApiConfig, CliError> {
    let host = env::lookup("API_HOST").unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string());
    let host: IpAddr = match host.trim() {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .map_err(|_| CliError::new(Outcome::Config, "API_HOST must be localhost or an IP address"))?,
    };
    let origins = env::lookup("ALLOWED_ORIGINS").unwrap_or_else(|| ORIGINS.to_owned());
    let file = owner::jwt_secret_file();
    Ok(ApiConfig {
        addresses: vec![SocketAddr::from((host, api_port(globals)))],
        data_dir: file.parent().map(Path::to_owned).unwrap_or_default(),
        allowed_origins: origins.split(',').map(|origin| origin.trim().to_owned()).collect(),
        public_urls: Vec::new(),
        allow_remote: false,
        jwt_secret: env::lookup("JWT_SECRET").map(Secret::new),
        environment: "local".to_owned(),
        seed,
        limits: Limits::default(),
        grace: GRACE,
    })
}

/// Where the token of a test seed is kept that was made for one run: beside the secret of the owners' tokens.
pub(crate) fn seed_token_file() -> PathBuf {
    owner::jwt_secret_file().with_file_name(SEED_TOKEN_FILE)
}

/// Whether the environment asks for the test seed.
pub(crate) fn seed_wanted() -> bool {
    env::lookup("ENABLE_TEST_SEED_ENDPOINT")
        .is_some_and(|text| matches!(text.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
}

/// The token of the stack that runs, where it was made for it.
pub(crate) fn kept_seed_token() -> Result<Option<Secret>, CliError> {
    let file = seed_token_file();
    match files::read_text(&file, MAX_TOKEN).map(Zeroizing::new) {
        Ok(text) => Ok(Some(Secret::new(text.trim().to_owned())).filter(|token| !token.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::new(Outcome::Config, format!("{}: {error}", file.display()))),
    }
}

/// What was started and what to try, in aligned lines.
pub(crate) fn show_ready(
    gateway: &Addresses,
    beside: &[Beside],
    demo: Option<&str>,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let ingress = launch::first(&gateway.ingress);
    let place = |name: &str| beside.iter().find(|beside| beside.name == name).map(|beside| beside.address.to_string());
    let lines = [
        ("api", place("api"), "approvals: the local control plane"),
        ("gateway", Some(ingress.clone()), "signed requests of agents"),
        ("admin", Some(launch::first(&gateway.admin)), "connections and their secrets; wants the admin token"),
        ("native", place("native"), "a demo service that verifies its callers itself"),
        ("upstream", place("upstream"), "a demo API that wants a key no agent has"),
    ];
    printer.line("")?;
    printer.line(if demo.is_some() { "The demo is up." } else { "The local stack is up." })?;
    for (name, address, meaning) in lines {
        if let Some(address) = address {
            let name = format!("{name}:");
            printer.line(&format!("  {name:<10}http://{address:<16} ({meaning})"))?;
        }
    }
    let command = launch::command();
    printer.line(if demo.is_some() { "Try it in another shell:" } else { "Next, in another shell:" })?;
    match demo {
        Some(connection) => {
            let url = format!("http://{ingress}/proxy/{connection}/v1/ping");
            printer.line(&format!("  {command} request POST {url} -d '\"ping\"'"))?;
        }
        None => printer.line(&format!("  {command} service add --help"))?,
    }
    printer.line(&format!("  {command} claim list"))
}

/// Why the control plane of the stack does not start.
pub(crate) fn api_error(error: &ApiError) -> CliError {
    CliError::new(Outcome::Config, format!("the local API does not start: {error}"))
        .hint("`sigilum down` stops the stack of this installation; --api-port or API_PORT name another port")
}
