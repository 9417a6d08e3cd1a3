//! What commands know of the local stack: its control plane's port, the token of the test seed, what to show.

use std::io;
use std::path::PathBuf;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::app::api::ApiError;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Beside;
use crate::cli::args::Globals;
use crate::cli::gateway::launch;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::config::api;
use crate::config::api::ApiFlags;
use crate::config::api::ApiSettings;
use crate::config::profile::Ports;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::files;

/// Web pages that may call it where nobody says.
const ORIGINS: [&str; 4] =
    ["http://localhost:3000", "http://127.0.0.1:3000", "http://localhost:5000", "http://127.0.0.1:5000"];
/// Longest token file, in bytes.
const MAX_TOKEN: u64 = 4096;
/// Largest settings file of OpenClaw that is read.
const MAX_OPENCLAW: u64 = 4 * 1024 * 1024;
/// The file's name.
const SEED_TOKEN_FILE: &str = "test-seed-token";

/// Port of the local control plane: option, environment, that of the profile.
pub(crate) fn api_port(globals: &Globals) -> u16 {
    globals.api_port.or_else(|| env::lookup("API_PORT")?.trim().parse().ok()).unwrap_or_else(|| default_port(globals))
}

/// Its port where nobody sets it.
fn default_port(globals: &Globals) -> u16 {
    globals.settled.as_ref().map_or(Ports::DEFAULT, |(ports, _)| *ports).api
}

/// What counts as the option of its port: nothing where the environment has one.
pub(crate) fn api_port_option(globals: &Globals) -> Option<u16> {
    let ours = globals.settled.is_some() && env::lookup("API_PORT").is_none();
    globals.api_port.or_else(|| ours.then(|| default_port(globals)))
}

/// How the local control plane is run, by its own settings. `handed`: secrets a supervisor handed over.
pub(crate) fn api_settings(globals: &Globals, handed: &[(String, Secret)]) -> Result<ApiSettings, CliError> {
    let flags = ApiFlags { port: api_port_option(globals), ..ApiFlags::default() };
    let given =
        |name: &str| handed.iter().find(|(known, _)| known == name).map(|(_, secret)| secret.expose().to_owned());
    let lookup = |name: &str| given(name).or_else(|| env::lookup(name));
    let mut settings =
        api::load(&flags, &lookup).map_err(|mistakes| CliError::new(Outcome::Config, mistakes.to_string()))?;
    if lookup("ALLOWED_ORIGINS").is_none() {
        settings.allowed_origins = ORIGINS.map(str::to_owned).to_vec();
    }
    Ok(settings)
}

/// The namespace OpenClaw's plugin was set up with: `hooks.internal.entries["sigilum-plugin"].env.SIGILUM_NAMESPACE`
/// of `$OPENCLAW_CONFIG_PATH`, else of `openclaw.json` in its home. What cannot be read there says nothing.
pub(crate) fn plugin_namespace() -> Option<Namespace> {
    let file = env::lookup("OPENCLAW_CONFIG_PATH").map(PathBuf::from);
    let file = file.unwrap_or_else(|| owner::openclaw_home().join("openclaw.json"));
    let settings: Value = serde_json::from_str(&files::read_text(&file, MAX_OPENCLAW).ok()?).ok()?;
    let entry = settings.pointer("/hooks/internal/entries/sigilum-plugin/env/SIGILUM_NAMESPACE")?;
    Namespace::normalise(entry.as_str()?).ok()
}

/// Where the token of a test seed is kept that was made for one run: beside the secret of the owners' tokens.
pub(crate) fn seed_token_file() -> PathBuf {
    owner::jwt_secret_file().with_file_name(SEED_TOKEN_FILE)
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
    let ingress = launch::ingress_url(gateway);
    let place = |name: &str| beside.iter().find(|beside| beside.name == name).map(|beside| beside.address.to_string());
    let lines = [
        ("api", place("api"), "approvals: the local control plane"),
        ("gateway", Some(ingress.clone()), "signed requests of agents"),
        ("admin", Some(launch::admin_url(gateway)), "connections and their secrets; wants the admin token"),
        ("native", place("native"), "a demo service that verifies its callers itself"),
        ("upstream", place("upstream"), "a demo API that wants a key no agent has"),
    ];
    printer.line("")?;
    printer.line(if demo.is_some() { "The demo is up." } else { "The local stack is up." })?;
    for (name, address, meaning) in lines {
        if let Some(address) = address {
            let name = format!("{name}:");
            let url = if address.contains("://") { address } else { format!("http://{address}") };
            printer.line(&format!("  {name:<10}{url:<23} ({meaning})"))?;
        }
    }
    let command = launch::command();
    if let Some(address) = place("api") {
        printer.line(&format!(
            "Dashboard: http://{address}/ (sign in with what `{command} login --mode oss-local --token-only` prints)"
        ))?;
    }
    printer.line(if demo.is_some() { "Try it in another shell:" } else { "Next, in another shell:" })?;
    match demo {
        Some(connection) => {
            let url = format!("{ingress}/proxy/{connection}/v1/ping");
            printer.line(&format!("  {command} request POST {url} -d '\"ping\"'"))?;
        }
        None => printer.line(&format!("  {command} service add --help"))?,
    }
    printer.line(&format!("  {command} claim list"))
}

/// Why the control plane of the stack does not start.
pub(crate) fn api_error(error: &ApiError) -> CliError {
    CliError::new(Outcome::Config, format!("the local API does not start: {error}")).hint(format!(
        "`{}` stops the stack of this installation; --api-port or API_PORT name another port",
        profile::command("down")
    ))
}
