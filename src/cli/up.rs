//! `up`: the local stack in the foreground; with `--demo` something to try it on.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::Url;

use crate::app::api::ApiConfig;
use crate::app::up::DemoPorts;
use crate::app::up::StackConfig;
use crate::cli::args::Globals;
use crate::cli::gateway::launch;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::options::StartStyle;
use crate::cli::gateway::role;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::cli::stack;
use crate::config::Config;
use crate::config::api::ApiSettings;
use crate::config::parts::ClaimsSource;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::sys::local_http;
use crate::sys::random;
use crate::sys::supervision;

/// The demo's namespace where none is set.
const DEMO_NAMESPACE: &str = "demo";
/// The namespace of a local stack where none is set.
pub(crate) const LOCAL_NAMESPACE: &str = "johndee";
/// How long requests to the local API may take once told to stop; change streams end at once.
const GRACE: Duration = Duration::from_secs(5);

/// Options of `up`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Without a namespace it is `johndee`, with --demo `demo`; later commands then use it too.\n\
    Variables: API_HOST, API_PORT and API_DATA_DIR of the local API; \
    ENABLE_TEST_SEED_ENDPOINT=true opens its test seed, with the token SIGILUM_TEST_SEED_TOKEN or one made for this run")]
pub struct UpArgs {
    /// Add two demo services, a connection to one of them, and an agent that may use both
    #[arg(long)]
    pub demo: bool,
    /// Run the gateway without the local API, for another one (--api-url, SIGILUM_API_URL)
    #[arg(long, conflicts_with = "demo")]
    pub no_api: bool,
    /// Log at debug, and copy every line of the logs to standard error as well
    #[arg(long)]
    pub verbose: bool,
    /// How that looks.
    #[command(flatten)]
    pub style: StartStyle,
    /// A supervisor holds our standard input
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

impl UpArgs {
    /// `up --demo`, everything else as it is set.
    pub(crate) fn demo() -> Self {
        Self {
            demo: true,
            no_api: false,
            verbose: false,
            style: StartStyle::default(),
            supervised: false,
            settings: SettingsArgs::default(),
        }
    }
}

/// Runs control plane and gateway; with `--demo`, or where no namespace was set, its namespace becomes the default of
/// later commands.
pub(crate) async fn run(args: &UpArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    // The master key passes through this process.
    role::harden()?;
    let settings = args.style.settings(&args.settings)?;
    let handed = if args.supervised {
        supervision::supervised_secrets().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?
    } else {
        Vec::new()
    };
    let (mut config, text) = settings.load_text(globals, &handed)?;
    launch::check_local(&config)?;
    let found = config.namespace.clone().or_else(stack::plugin_namespace);
    let namespace = match &found {
        // With another API the namespace is somebody's: it is asked for.
        None if !args.no_api => Namespace::parse(if args.demo { DEMO_NAMESPACE } else { LOCAL_NAMESPACE })
            .map_err(|invalid| CliError::new(Outcome::Failed, format!("the default namespace {invalid}")))?,
        Some(namespace) => namespace.clone(),
        None => launch::namespace(&config, printer)?,
    };
    let remembered = args.demo || found.is_none();
    let mut api = stack::api_settings(globals, &handed)?;
    if !args.no_api {
        check_api_url(&config, globals)?;
        let address = api.addresses.first().copied().map(local_http::reachable);
        config.api_url = address.map(|address| format!("http://{address}")).unwrap_or_default();
    }
    if args.demo && config.claims.source == ClaimsSource::Off {
        let message = "claims.source is off, but the demo's agent is approved through the local API";
        return Err(CliError::new(Outcome::Config, message).hint("set claims.source (GATEWAY_CLAIMS_SOURCE) to api"));
    }
    let prepared = launch::prepare(&config, &namespace)?;
    launch::announce(&config, &namespace, &prepared, printer)?;
    let mut typed = settings.typed(globals);
    // The stack's own address stands in admin's environment.
    if !args.no_api
        && let Some(at) = typed.iter().position(|option| option == "--api-url")
    {
        typed.drain(at..at + 2);
    }
    let duplicates = handed.iter().map(|(name, secret)| (name.clone(), secret.duplicate())).collect();
    let mut loader = launch::loader(settings.clone(), globals.clone(), duplicates, namespace.clone(), typed.clone());
    if args.no_api {
        let mut config = launch::gateway_config(config, text, &namespace, typed);
        if args.verbose {
            launch::speak_up(&mut config, &mut loader);
        }
        return launch::foreground(config, loader, None, args.supervised, printer).await;
    }
    let home = config.paths.home.clone();
    let seed_file = seed(&mut api)?;
    if api.seed_enabled {
        printer.note("warning: the test seed is open: whoever knows its token can approve agents");
    }
    let stack = StackConfig {
        api: ApiConfig::new(api, GRACE),
        log_level: if args.verbose { "debug".to_owned() } else { config.log_level.clone() },
        identity: prepared.identity,
        home: home.clone(),
        seed_file,
        demo: args.demo.then_some(DemoPorts { native: config.native_port, upstream: config.upstream_port }),
    };
    if remembered {
        let home = std::path::absolute(&home).unwrap_or(home);
        let home = home.display().to_string();
        settings::save(&[("SIGILUM_NAMESPACE", namespace.as_str()), ("GATEWAY_SIGILUM_HOME", &home)])?;
    }
    let mut config = launch::gateway_config(config, text, &namespace, typed);
    if args.verbose {
        launch::speak_up(&mut config, &mut loader);
    }
    launch::foreground(config, loader, Some(stack), args.supervised, printer).await
}

/// Makes a token for the test seed where it is wanted and has none: for this run, with the file it is kept in.
fn seed(settings: &mut ApiSettings) -> Result<Option<(PathBuf, Secret)>, CliError> {
    if !settings.seed_enabled || settings.seed_token.is_some() {
        return Ok(None);
    }
    let made = random::hex::<24>().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    let token = Secret::new(format!("seed_{made}"));
    settings.seed_token = Some(token.duplicate());
    Ok(Some((stack::seed_token_file(), token)))
}

/// Somebody who named another API means that one, which this command does not run.
fn check_api_url(config: &Config, globals: &Globals) -> Result<(), CliError> {
    if !config.api_url_set {
        return Ok(());
    }
    let named = &config.api_url;
    let port = Url::parse(named).ok().and_then(|url| url.port_or_known_default());
    if owner::is_loopback(named) && port == Some(stack::api_port(globals)) {
        return Ok(());
    }
    let message = format!("the API is set to {named}, but `up` runs its own on port {}", stack::api_port(globals));
    Err(CliError::new(Outcome::Config, message)
        .hint("add --no-api to use that one, or unset SIGILUM_API_URL and --api-url"))
}
