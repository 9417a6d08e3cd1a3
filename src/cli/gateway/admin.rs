//! `gateway admin`: the sealed store, the admin API and the state stream, as one process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::app::admin;
use crate::app::admin::AdminConfig;
use crate::app::admin::AdminError;
use crate::app::admin::ClaimsSetup;
use crate::app::admin::FileSetup;
use crate::app::admin::KeyPlaces;
use crate::app::admin::LegacyPlaces;
use crate::app::state_door::Fleet;
use crate::app::upkeep::MasterKeys;
use crate::app::upkeep::StoreError;
use crate::cli::args::Globals;
use crate::cli::gateway::endpoint::Endpoint;
use crate::cli::gateway::launch;
use crate::cli::gateway::master_key;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway::role;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::config::Config;
use crate::config::keys;
use crate::config::parts::ClaimsSource;
use crate::config::parts::GivenSecret;
use crate::config::parts::Listeners;
use crate::envoy::live;
use crate::envoy::render::Rendering;
use crate::reload;
use crate::reload::Loaded;
use crate::secrets::Environment;
use crate::sys::env;
use crate::sys::process;
use crate::sys::signal::StopSignals;
use crate::sys::supervision;
use crate::sys::tls::serving::ClientFiles;
use crate::sys::tls::serving::ServingFiles;

/// Niceness beside authz and Envoy: no request waits for admin, and reading a long list of approvals takes a processor
/// for some time. Where processors are scarce it still gets a tenth of what each of the others does.
const NICE: i32 = 10;

/// Options of `gateway admin`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// Settings.
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    /// Where authz finds the state: unix:PATH [default: state.sock in the run folder]
    #[arg(long, value_name = "ENDPOINT", value_parser = Endpoint::parse)]
    state_listen: Option<Endpoint>,
    /// A supervisor holds our standard input
    #[arg(long, hide = true)]
    supervised: bool,
    /// Read the settings from here, as what stood in the configuration file
    #[arg(long, hide = true, value_name = "FILE", requires = "held_back")]
    last_good: Option<PathBuf>,
    /// Why
    #[arg(long, hide = true, value_name = "REASON", requires = "last_good")]
    held_back: Option<String>,
}

/// Runs until told to stop.
pub(crate) async fn run(args: &AdminArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    role::harden()?;
    let handed = if args.supervised {
        supervision::supervised_secrets().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?
    } else {
        Vec::new()
    };
    let flags = args.settings.flags(globals);
    let read = settings::read(&flags, &handed, args.last_good.as_deref());
    let (Loaded { mut config, hash, content }, file) =
        read.map_err(|found| CliError::new(Outcome::Config, found.message))?;
    if !args.supervised {
        launch::check_local(&config)?;
    }
    // A supervisor hands over what stands in its own environment, and leaves ours without.
    let (service_keys, referenced): (Vec<_>, Vec<_>) =
        handed.into_iter().partition(|(name, _)| keys::is_own_secret(name));
    let service_keys: Vec<_> = service_keys.into_iter().chain(launch::service_keys()).collect();
    let cleaner = (!args.supervised).then(|| {
        let held = |secret: &Option<GivenSecret>| match secret {
            Some(GivenSecret::Given(secret)) => role::held(Some(secret), None),
            Some(GivenSecret::File(file)) => role::held(None, Some(file)),
            None => None,
        };
        let (password, metrics) = (held(&config.admin.password), held(&config.admin.metrics));
        let own = [&config.admin.token, &config.master_key, &password, &metrics].into_iter().flatten();
        let handed = service_keys.iter().chain(&referenced).map(|(_, secret)| secret);
        role::cleaner(own.chain(handed))
    });
    role::begin_log(&config.log_level, cleaner)?;
    let keys = KeyPlaces::new(service_keys, KeyPlaces::folders(&config.paths.home, env::lookup));
    // Elsewhere it has a machine, or a container with a share, of its own.
    if args.supervised
        && let Err(error) = process::step_back(NICE)
    {
        tracing::warn!(%error, "requests do not go before the work of admin");
    }
    if let Some(file) = master_key::make_if_missing(&config)? {
        printer.note(&format!("generated the master key: {}", file.display()));
    }
    if !args.supervised {
        launch::make_identity(&config, printer);
    }
    let master_key = master_key::keys(&mut config);
    let mut signals = StopSignals::install().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    if args.supervised {
        // The ports our supervisor took, which the settings may have left open, and what Envoy was given since.
        if let Some(settings) = live::settings_in(&config.paths.run_dir) {
            let Rendering { ingress, admin_face, admin, .. } = settings;
            config.listen = Listeners { ingress, admin, envoy_admin: admin_face };
        }
        config.drain = config.drain.min(launch::CHILD_DRAIN);
    }
    let port_sources = settings::port_sources(&flags);
    // Whoever reads it again needs no secret for it.
    let again = move || settings::read(&flags, &[], None).map(|(loaded, _)| loaded);
    let held_back = args.held_back.clone();
    settings::make_run_folder(&config.paths)?;
    let mut admin_config = admin_config(&mut config, master_key, keys, args.supervised);
    admin_config.port_sources = port_sources;
    admin_config.state_socket = state_socket(args.state_listen.as_ref())?;
    admin_config.file = Some(FileSetup {
        reload: reload::Setup { read: Arc::new(again), file, loaded: Loaded { config, hash, content }, held_back },
        environment: Environment::new(referenced, args.supervised),
        shim: Some(process::own_program()),
    });
    let bound = admin::build(admin_config).await.map_err(|error| failed(&error))?;
    let (stop, anew) = (bound.stop_handle(), bound.anew());
    let ended = role::run_until_told(bound.run(), &stop, &mut signals).await;
    // Also where a request did not end in time: whoever asked has seen that the settings can be read.
    if anew.is_some_and(|anew| anew.asked()) { Ok(Outcome::Anew) } else { ended }
}

fn state_socket(listen: Option<&Endpoint>) -> Result<Option<PathBuf>, CliError> {
    match listen {
        None => Ok(None),
        Some(Endpoint::Unix(path)) => Ok(Some(path.clone())),
        Some(Endpoint::Tcp(_)) => Err(CliError::new(Outcome::Usage, "--state-listen takes unix:PATH")),
    }
}

fn admin_config(config: &mut Config, master_key: MasterKeys, keys: KeyPlaces, supervised: bool) -> AdminConfig {
    let api = config.claims.source == ClaimsSource::Api;
    if api && config.namespace.is_none() {
        tracing::warn!("the gateway has no namespace: the Sigilum API is not asked, only declared approvals count");
    }
    let claims = config.namespace.clone().filter(|_| api).map(|namespace| ClaimsSetup {
        api_url: config.api_url.clone(),
        every_service: config.api_url_set,
        namespace,
        home: config.paths.home.clone(),
        refresh: config.claims.refresh,
        max_approvals: config.claims.max_approvals,
        registrations_per_minute: config.claims.registrations_per_minute,
        usage: config.usage,
    });
    let all = config.listen.ingress.iter().chain(&config.listen.envoy_admin);
    AdminConfig {
        kept_secret_versions: config.kept_secret_versions,
        own_ports: all.map(SocketAddr::port).collect(),
        ingress: config.listen.ingress.clone(),
        addresses: config.listen.admin.clone(),
        bind_mode: config.bind_mode,
        port_sources: ["default"; 2],
        data_dir: config.paths.data_dir.clone(),
        run_dir: config.paths.run_dir.clone(),
        state_socket: None,
        master_key,
        service_catalog: config.paths.service_catalog.clone(),
        keys: Arc::new(keys),
        legacy: LegacyPlaces::from_lookup(env::lookup),
        access_mode: config.admin.mode,
        token: config.admin.token.take(),
        password: config.admin.password.take(),
        metrics_token: config.admin.metrics.take(),
        proxy: config.admin.proxy.clone(),
        allowed_origins: config.admin.allowed_origins.clone(),
        allowed_hosts: config.admin.allowed_hosts.clone(),
        tls: config.admin.tls.clone().map(|tls| ServingFiles {
            certificate: tls.cert_file,
            key: tls.key_file,
            clients: tls.clients.map(|rule| ClientFiles { authorities: rule.ca_file, names: rule.names }),
        }),
        settings: config.settings.clone(),
        approvals: config.approvals.clone(),
        supervised,
        grace: config.drain,
        fleet: Fleet { listener: config.state_listener.clone(), workloads: config.workloads.clone() },
        claims,
        file: None,
    }
}

fn failed(error: &AdminError) -> CliError {
    let outcome = match error {
        AdminError::Metrics(_) | AdminError::Spawner(_) | AdminError::Random(_) => Outcome::Failed,
        AdminError::Store(_)
        | AdminError::Secrets(_)
        | AdminError::Token(_)
        | AdminError::Open(_)
        | AdminError::Tls(_)
        | AdminError::Bind(_)
        | AdminError::Door(_)
        | AdminError::Socket(_)
        | AdminError::Envoy(_)
        | AdminError::Folder { .. } => Outcome::Config,
    };
    let shown = CliError::new(outcome, error.to_string());
    if matches!(error, AdminError::Store(StoreError::WrongMasterKey { .. })) {
        return shown.hint(
            "put the key back it was sealed with; where that is lost for good: `sigilum gateway rekey --lost-master-key`",
        );
    }
    shown
}
