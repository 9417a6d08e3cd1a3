//! `gateway start`: admin, authz and Envoy as one life in the foreground.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Globals;
use crate::cli::gateway::launch;
use crate::cli::gateway::options;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::options::StartStyle;
use crate::cli::gateway::replace;
use crate::cli::gateway::role;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::config::keys;
use crate::domain::secret::Secret;
use crate::sys::files;

/// Folder and namespace of a gateway that starts without its configuration.
const UNCONFIGURED: &str = "unconfigured";

/// Options of `gateway start`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StartArgs {
    /// Read the admin token from this file [default: GATEWAY_ADMIN_TOKEN, else <data-dir>/admin-token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Taken so that it can be refused with a reason: arguments are visible to every process.
    #[arg(long, hide = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Start without the configuration file, where that says `remote` or is damaged: no connections, and no file outside of
    /// the data folder is written
    #[arg(long)]
    allow_unconfigured: bool,
    /// Log at debug, and copy every line of the logs to standard error as well
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    pub(super) style: StartStyle,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Stop the gateway of this installation that runs, and take its place
    #[arg(long)]
    force: bool,
    /// Do not ask (with --force)
    #[arg(long, requires = "force")]
    yes: bool,
}

/// Prepares what is missing, says what is started, runs it.
pub(crate) async fn run(args: &StartArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    // The master key passes through this process.
    role::harden()?;
    if args.token.is_some() {
        return Err(options::refused("token", "give --token-file FILE, or set GATEWAY_ADMIN_TOKEN"));
    }
    let settings = args.style.settings(&args.settings)?;
    let handed = handed(args.token_file.as_deref())?;
    let mut bare = None;
    if args.allow_unconfigured {
        bare = unconfigured(&settings, globals, &handed, printer)?;
    }
    let (settings, globals) = bare.as_ref().map_or((&settings, globals), |(settings, globals)| (settings, globals));
    let (config, text) = settings.load_text(globals, &handed).map_err(|error| blocked(error, settings, globals))?;
    launch::check_local(&config)?;
    if args.force {
        replace::running(&config, args.yes, printer).await?;
    }
    let namespace = launch::namespace(&config, printer)?;
    let prepared = launch::prepare(&config, &namespace)?;
    launch::announce(&config, &namespace, &prepared, printer)?;
    let typed = settings.typed(globals);
    let mut loader = launch::loader(settings.clone(), globals.clone(), handed, namespace.clone(), typed.clone());
    let mut config = launch::gateway_config(config, text, &namespace, typed);
    if args.verbose {
        launch::speak_up(&mut config, &mut loader);
    }
    launch::foreground(config, loader, None, false, printer).await
}

/// The admin token of a file, which stands in for the variable. A file without one would leave the gateway with another token
/// than whoever named it means.
fn handed(file: Option<&Path>) -> Result<Vec<(String, Secret)>, CliError> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let token = gateway_api::stored_token(file)?
        .ok_or_else(|| CliError::new(Outcome::Config, format!("{}: there is no token", file.display())))?;
    Ok(keys::ADMIN_TOKEN.env.iter().map(|name| ((*name).to_owned(), token.duplicate())).collect())
}

/// What a start says of a configuration that cannot be used: its file may have said that the gateway runs elsewhere.
fn blocked(error: CliError, settings: &SettingsArgs, globals: &Globals) -> CliError {
    let flags = settings.flags(globals);
    if !settings::is_damaged(&flags) {
        return error;
    }
    let file = settings::look(&flags).map(|looked| format!(" {}", looked.file.display())).unwrap_or_default();
    error.hint(format!(
        "sigilum gateway config check{file} lists what is wrong. Gateway start blocked: set gateway.mode=local once the file is whole; \
         --allow-unconfigured starts one without connections"
    ))
}

/// Settings and folders of a gateway without connections, where the configured one cannot start here: an empty file, and
/// identity, master key and store of its own below the data folder. `None`: the configured one can.
fn unconfigured(
    settings: &SettingsArgs,
    globals: &Globals,
    handed: &[(String, Secret)],
    printer: &mut Printer,
) -> Result<Option<(SettingsArgs, Globals)>, CliError> {
    let loaded = settings.load_with(globals, handed);
    if loaded.is_ok_and(|config| launch::check_local(&config).is_ok()) {
        return Ok(None);
    }
    let plain = settings::load_without_files(&globals.flags())?;
    let data = plain.paths.data_dir;
    let data = std::path::absolute(&data).unwrap_or(data).join(UNCONFIGURED);
    let failed =
        |path: &Path, error: std::io::Error| CliError::new(Outcome::Config, format!("{}: {error}", path.display()));
    files::private_folder(&data).map_err(|error| failed(&data, error))?;
    let file = data.join("gateway.yaml");
    files::write_private(&file, b"# gateway start --allow-unconfigured\n").map_err(|error| failed(&file, error))?;
    printer.warn(&format!(
        "the configuration is left alone: this gateway has no connections, and what it makes is in {}",
        data.display()
    ));
    let mut own = globals.clone();
    own.home = Some(data.join("home"));
    own.gateway_data_dir = Some(data.clone());
    own.namespace = Some(plain.namespace.map_or_else(|| UNCONFIGURED.to_owned(), |namespace| namespace.to_string()));
    Ok(Some((settings.with_file(file), own)))
}
