//! `api`: the local control plane in the foreground.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::app::api;
use crate::app::api::ApiConfig;
use crate::app::api::ApiError;
use crate::cli::args::Globals;
use crate::cli::gateway::role;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::cli::stack;
use crate::config::api as settings;
use crate::config::api::ApiFlags;
use crate::config::api::ApiSettings;
use crate::sys::env;
use crate::sys::signal::StopSignals;
use crate::telemetry::log;

/// How long requests in flight may take once told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Options of `api`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "All other settings are environment variables; the README lists them.")]
pub struct ApiArgs {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on; 0 = one the system chooses [default: 8787]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Folder of the database and the token secret [default: ~/.local/share/sigilum-api]
    #[arg(long, value_name = "PATH")]
    api_data_dir: Option<PathBuf>,
}

impl ApiArgs {
    /// The settings these options, the environment and the file of a secret lead to.
    pub(crate) fn settings(&self, globals: &Globals) -> Result<ApiSettings, CliError> {
        let port = self.port.or_else(|| stack::api_port_option(globals));
        let flags = ApiFlags { host: self.host.clone(), port, data_dir: self.api_data_dir.clone() };
        let secret = owner::jwt_secret_in_file()?;
        let lookup = |name: &str| {
            let secret = secret.as_ref().filter(|_| name == owner::JWT_SECRET);
            env::lookup(name).or_else(|| secret.map(|secret| secret.expose().to_owned()))
        };
        settings::load(&flags, &lookup).map_err(|mistakes| CliError::new(Outcome::Config, mistakes.to_string()))
    }
}

/// Runs until told to stop.
pub(crate) async fn run(args: &ApiArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    role::harden()?;
    let settings = args.settings(globals)?;
    let level = env::lookup(log::LEVEL_VARIABLE).unwrap_or_else(|| "info".to_owned());
    role::begin_log(&level, Some(role::cleaner(std::iter::empty())))?;
    if settings.seed_enabled && settings.seed_token.is_none() {
        printer.note("[warn] the test seed stays closed: SIGILUM_TEST_SEED_TOKEN is not set");
    }
    let mut signals = StopSignals::install().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    let bound = api::build(ApiConfig::new(settings, GRACE)).await.map_err(|error| not_built(&error))?;
    for address in bound.addresses() {
        printer.line(&format!("[ok] API listening on http://{address}"))?;
    }
    let stop = bound.stop_handle();
    role::run_until_told(bound.run(), &stop, &mut signals).await
}

fn not_built(error: &ApiError) -> CliError {
    let failed = CliError::new(Outcome::Config, error.to_string());
    if matches!(error, ApiError::Bind(_)) {
        return failed.hint(format!(
            "name another port with --port or API_PORT, or stop what is there: `{}` ends a stack of yours",
            profile::command("down")
        ));
    }
    failed
}
