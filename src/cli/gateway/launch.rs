//! What `gateway start` and `up` have in common: identity and master key made where missing, the block
//! that is printed, the run in the foreground.

use std::collections::BTreeSet;
use std::io;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc;

use crate::app::gateway;
use crate::app::gateway::Stops;
use crate::app::gateway::config::ADMIN_PASSWORD;
use crate::app::gateway::config::ADMIN_TOKEN;
use crate::app::gateway::config::GatewayConfig;
use crate::app::gateway::config::Loader;
use crate::app::gateway::config::METRICS_TOKEN;
use crate::app::gateway::error::Class;
use crate::app::gateway::error::GatewayError;
use crate::app::gateway::instance::Instance;
use crate::app::gateway::progress::Addresses;
use crate::app::gateway::progress::Progress;
use crate::app::gateway::progress::Role;
use crate::app::gateway::restart::Patience;
use crate::app::up;
use crate::app::up::StackConfig;
use crate::app::up::UpError;
use crate::cli::args::Globals;
use crate::cli::gateway::console;
use crate::cli::gateway::console::Weight;
use crate::cli::gateway::master_key;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway_api;
use crate::cli::gateway_api::Credential;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::cli::progress::Spinner;
use crate::cli::stack;
use crate::config::Config;
use crate::config::declaration::ProviderConfig;
use crate::config::declaration::SecretSource;
use crate::config::fleet::SharedReplay;
use crate::config::guard::Unguarded;
use crate::config::keys;
use crate::config::parts::AccessMode;
use crate::config::parts::ClaimsSource;
use crate::config::parts::GivenSecret;
use crate::config::parts::Mode;
use crate::config::telemetry_keys::OTLP_HEADERS;
use crate::domain::ids::Namespace;
use crate::domain::record::MAX_SECRET_BYTES;
use crate::domain::reference::SourceKind;
use crate::domain::secret::Secret;
use crate::envoy::binary::Search;
use crate::identity::Home;
use crate::identity::Identity;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::env;
use crate::sys::files;
use crate::sys::signal::Hangups;
use crate::sys::signal::StopSignals;
use crate::sys::supervision;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::Tasks;

/// What authz and admin may take to end: Envoy has finished its requests by then, and the supervisor
/// waits no longer than twice that.
pub(crate) const CHILD_DRAIN: Duration = Duration::from_secs(5);
/// Service keys of the environment that are taken; more services have their keys in files.
const MAX_SERVICE_KEYS: usize = 1000;
/// A longer value is no key, and would not fit through the pipe.
const MAX_SERVICE_KEY_BYTES: usize = 16 * 1024;
/// The same for a variable that the configuration refers to: no secret of a connection may be longer.
const MAX_HANDED_BYTES: usize = MAX_SECRET_BYTES;
/// Variables the configuration may refer to: what the pipe takes, without the service keys and our own secrets.
const MAX_REFERENCED: usize = supervision::MAX_SECRETS - MAX_SERVICE_KEYS - 16;
/// Lines that may wait to be shown; more are only in the log files.
const PROGRESS: usize = 256;
/// Where admin finds `config.env`, so that it reads the same defaults, and the files of OpenClaw.
const PLACES: &[&str] = &[
    "HOME",
    "XDG_DATA_HOME",
    "SIGILUM_CONFIG_FILE",
    "SIGILUM_CONFIG_HOME",
    "OPENCLAW_HOME",
    "OPENCLAW_CONFIG_PATH",
    "OPENCLAW_LEGACY_RUNTIME_REPORT_PATH",
];

/// The gateway's identity, and what was made on the way.
pub(crate) struct Prepared {
    /// The gateway's own identity.
    pub(crate) identity: Identity,
    /// For the person: what was made.
    made: Vec<String>,
    /// For the person: what should be changed.
    warnings: Vec<String>,
}

impl Prepared {
    /// For the person: what was made.
    pub(crate) fn made(&self) -> &[String] {
        &self.made
    }
}

/// The namespace of the settings, else what a person answers, else an error that says where to set it.
pub(crate) fn namespace(config: &Config, printer: &mut Printer) -> Result<Namespace, CliError> {
    if let Some(namespace) = &config.namespace {
        return Ok(namespace.clone());
    }
    let missing = || {
        CliError::new(Outcome::Config, "the gateway has no namespace")
            .hint("give --namespace NAME, or set SIGILUM_NAMESPACE")
    };
    if !io::stdin().is_terminal() {
        return Err(missing());
    }
    printer.note("Namespace of this gateway (3 to 64 of a-z, 0-9 and '-'):");
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|_| missing())?;
    if line.trim().is_empty() {
        return Err(missing());
    }
    Namespace::normalise(&line)
        .map_err(|invalid| CliError::new(Outcome::Config, format!("the namespace {:?} {invalid}", line.trim())))
}

/// Refuses where the settings say that the gateway runs elsewhere.
pub(crate) fn check_local(config: &Config) -> Result<(), CliError> {
    match config.mode {
        Mode::Local => Ok(()),
        Mode::Remote => Err(CliError::new(
            Outcome::Config,
            "Gateway start blocked: set gateway.mode=local (it is `remote`: the gateway of these settings runs elsewhere)",
        )
        .hint("commands reach it at gateway.remote.url; --allow-unconfigured starts one without connections here")),
    }
}

/// Makes the home folder, the identity and the master key where they are missing.
pub(crate) fn prepare(config: &Config, namespace: &Namespace) -> Result<Prepared, CliError> {
    let home = &config.paths.home;
    files::private_folder(home).map_err(|error| at(home, &error))?;
    let opened = Home::new(home)
        .create(namespace, SystemClock.now().seconds())
        .map_err(|error| CliError::new(Outcome::Config, error.to_string()))?;
    if config.shared_replay.as_ref().is_some_and(|shared| shared.password.is_some()) {
        let text = "GATEWAY_REPLAY_PASSWORD is for `gateway authz` on its own: a secret is handed to no process by its environment";
        return Err(CliError::new(Outcome::Config, text)
            .hint("put it into a file, and name that as replay.shared.password_file"));
    }
    let mut made = Vec::new();
    let mut warnings: Vec<_> = opened.warnings.iter().map(ToString::to_string).collect();
    if opened.created {
        made.push(format!("created the identity of {namespace}: {}", opened.path.display()));
    }
    if let Some(file) = master_key::make_if_missing(config)? {
        made.push(format!("generated the master key: {}", file.display()));
    }
    if same_owner(&opened.path, &master_key::file(config), config.master_key.is_some()) {
        warnings.push(format!(
            "the identities in {} and the master key belong to the same user: an agent that runs as this user \
             can read the provider keys. Run the gateway as a user of its own where agents are not trusted.",
            home.display()
        ));
    }
    Ok(Prepared { identity: opened.identity, made, warnings })
}

/// Makes the identity that the Sigilum API knows the gateway by, where it is missing and needed. Where that cannot be done,
/// as in a home that is mounted read-only, declared approvals still count.
pub(crate) fn make_identity(config: &Config, printer: &mut Printer) {
    let Some(namespace) = config.namespace.as_ref().filter(|_| config.claims.source == ClaimsSource::Api) else {
        return;
    };
    // The folder is there where the master key was made in it; else making the identity makes it.
    match Home::new(&config.paths.home).create(namespace, SystemClock.now().seconds()) {
        Ok(opened) if opened.created => {
            printer.note(&format!("created the identity of {namespace}: {}", opened.path.display()));
        }
        Ok(_) => {}
        Err(error) => printer.warn(&format!("the gateway has no identity for the Sigilum API: {error}")),
    }
}

/// Whether the agent's key and the master key are in the hands of one user. A key from the environment
/// is in ours.
pub(crate) fn same_owner(identity: &Path, key_file: &Path, from_environment: bool) -> bool {
    let owner = |path: &Path| path.metadata().ok().map(|found| found.uid());
    let ours = Some(rustix::process::geteuid().as_raw());
    owner(identity) == if from_environment { ours } else { owner(key_file) }
}

/// The block that users of the gateway know, and what was made or should be changed.
pub(crate) fn announce(
    config: &Config,
    namespace: &Namespace,
    prepared: &Prepared,
    printer: &mut Printer,
) -> Result<(), CliError> {
    printer.line("Starting Sigilum gateway.")?;
    printer.line(&format!("namespace: {namespace}"))?;
    printer.line(&format!("api:       {}", config.api_url))?;
    let addresses: Vec<_> = config.listen.admin.iter().map(ToString::to_string).collect();
    printer.line(&format!("addr:      {}", addresses.join(", ")))?;
    printer.line(&format!("home:      {}", config.paths.home.display()))?;
    let mut tell = |weight, text: &str| console::say(config.log_style, weight, text, printer);
    for line in &prepared.made {
        tell(Weight::Info, line);
    }
    let open = config.listen.admin.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), None) = (open, &config.admin.tls) {
        let text = format!(
            "the admin API is open to a network at {address} in plain HTTP: whoever can listen there reads the \
             admin token and the secrets that are set. Give it a certificate (admin.tls.cert_file), or put TLS in front."
        );
        tell(Weight::Warning, &text);
    }
    let open = config.listen.ingress.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), None) = (open, &config.envoy.tls) {
        let text = format!(
            "note: agents reach {address} over a network in plain HTTP: what they send and get can be read on the way. \
             Signatures still say who they are. Give it a certificate (gateway.tls.cert_file), or put TLS in front."
        );
        tell(Weight::Info, &text);
    }
    for warning in &config.warnings {
        let file = config.paths.config_file.as_deref().map(|file| file.display().to_string());
        tell(Weight::Warning, &warning.line(file.as_deref()));
    }
    for line in &prepared.warnings {
        tell(Weight::Warning, line);
    }
    Ok(())
}

/// Reads the settings again and makes what is missing for them. `namespace` is the gateway's where nobody sets one;
/// `handed` are secrets that came through a supervisor's pipe, and `typed` what of the options admin is to see.
pub(crate) fn loader(
    settings: SettingsArgs,
    globals: Globals,
    handed: Vec<(String, Secret)>,
    namespace: Namespace,
    typed: Vec<String>,
) -> Loader {
    Loader::new(move || {
        let (config, text) = settings.load_text(&globals, &handed).map_err(|error| error.to_string())?;
        check_local(&config).map_err(|error| error.message)?;
        let namespace = config.namespace.clone().unwrap_or_else(|| namespace.clone());
        prepare(&config, &namespace).map_err(|error| error.to_string())?;
        Ok(gateway_config(config, text, &namespace, typed.clone()))
    })
}

/// Has every process log at debug and every line told, now and after a start anew.
pub(crate) fn speak_up(config: &mut GatewayConfig, loader: &mut Loader) {
    config.speak_up();
    loader.amend(GatewayConfig::speak_up);
}

/// The settings as the supervisor takes them; `text` is what stood in their file, `typed` are those that were typed as
/// options.
pub(crate) fn gateway_config(
    config: Config,
    text: Option<Secret>,
    namespace: &Namespace,
    typed: Vec<String>,
) -> GatewayConfig {
    let kept = |name: &&str| !keys::SECRET_ENVIRONMENT.contains(name);
    let names = keys::environment().filter(kept).chain(PLACES.iter().copied());
    let own = |name: &str, value: String| (name.to_owned(), value);
    let mut admin_environment: Vec<_> =
        names.filter_map(|name| env::lookup(name).map(|value| own(name, value))).collect();
    // Answered by a person, or a default of ours: admin would not find it where it looks.
    if config.namespace.as_ref() != Some(namespace) {
        admin_environment.push(own("SIGILUM_NAMESPACE", namespace.to_string()));
    }
    let referenced = referenced(&config);
    let shared_replay = config.shared_replay.as_ref().map_or_else(Vec::new, shared_replay);
    let secret = |name: &str, secret: Option<Secret>| secret.map(|secret| (name.to_owned(), secret));
    let credential = gateway_api::credential(&config);
    let mut admin_secrets = service_keys();
    admin_secrets.extend(referenced);
    // Another way than as it was written, which counts for admin just as well.
    admin_secrets.extend(
        OTLP_HEADERS
            .env
            .iter()
            .filter_map(|name| env::lookup(name).map(|value| ((*name).to_owned(), Secret::new(value)))),
    );
    admin_secrets.extend(secret("GATEWAY_MASTER_KEY", config.master_key));
    let metrics = config.admin.metrics.as_ref().and_then(GivenSecret::given).map(Secret::duplicate);
    admin_secrets.extend(secret(METRICS_TOKEN, metrics));
    // What the mode goes by and nothing else: admin need not know a secret that counts for nothing.
    let mut admin_secret_file = config.paths.data_dir.join("admin-token");
    match credential {
        Credential::Given(given) => {
            let name = match config.admin.mode {
                AccessMode::Password | AccessMode::TrustedProxy => ADMIN_PASSWORD,
                AccessMode::Token | AccessMode::Hybrid | AccessMode::None | AccessMode::Mtls => ADMIN_TOKEN,
            };
            admin_secrets.push((name.to_owned(), given));
        }
        Credential::File(file) => admin_secret_file = file,
        Credential::Nothing => {}
    }
    GatewayConfig {
        admin_trust: config.admin.tls.is_some().then(|| gateway_api::trust(&config.admin.trust)),
        admin_secret_file,
        admin_unguarded: (config.admin.mode == AccessMode::None).then_some(Unguarded::NoneMode),
        admin: config.listen.admin,
        ingress: config.listen.ingress,
        envoy_admin: config.listen.envoy_admin,
        data_dir: config.paths.data_dir,
        run_dir: config.paths.run_dir,
        run_behind: config.paths.run_behind,
        home: config.paths.home,
        config_file: config.paths.config_file,
        file_text: text,
        held_back: None,
        envoy: Search::standard(config.envoy.binary),
        concurrency: config.envoy.concurrency,
        max_body_bytes: config.settings.max_body_bytes,
        trusted_hops: config.envoy.trusted_hops,
        tls: config.envoy.tls,
        traces: config.traces,
        drain: config.drain,
        patience: Patience::default(),
        logs: config.logs,
        log_style: config.log_style,
        verbose: false,
        program: None,
        typed,
        admin_environment,
        admin_secrets,
        beside: Vec::new(),
        environment: shared_replay
            .into_iter()
            .chain([
                own("SIGILUM_LOG", config.log_level),
                own("GATEWAY_REPLAY_CAPACITY", config.replay_capacity.to_string()),
                own("GATEWAY_MAX_REQUEST_BODY_BYTES", config.settings.max_body_bytes.to_string()),
                own("GATEWAY_SHUTDOWN_TIMEOUT_SECONDS", config.drain.min(CHILD_DRAIN).as_secs().to_string()),
                own("GATEWAY_LOG_PROXY_REQUESTS", config.decisions.name().to_owned()),
            ])
            .collect(),
    }
}

/// The shared replay window as authz is told of it.
fn shared_replay(shared: &SharedReplay) -> Vec<(String, String)> {
    let file = |name: &str, path: &Option<PathBuf>| {
        path.as_ref().map(|path| (name.to_owned(), path.to_string_lossy().into_owned()))
    };
    let mut all = vec![
        ("GATEWAY_REPLAY_URL".to_owned(), shared.url()),
        ("GATEWAY_REPLAY_TIMEOUT_MS".to_owned(), shared.timeout.as_millis().to_string()),
    ];
    all.extend(file("GATEWAY_REPLAY_CA_FILE", &shared.ca_file));
    all.extend(file("GATEWAY_REPLAY_PASSWORD_FILE", &shared.password_file));
    all
}

/// The variables that `gateway.yaml` refers to, and those it passes to programs that know secrets: admin gets these and
/// no others, through its pipe.
fn referenced(config: &Config) -> Vec<(String, Secret)> {
    let sources = config.connections.iter().flat_map(|connection| connection.secrets.values());
    let sources = sources.chain(config.variables.iter().map(|variable| &variable.source));
    let named = sources.filter_map(|source| match source {
        SecretSource::Reference(reference) if reference.source() == SourceKind::Env => Some(reference.id()),
        SecretSource::Reference(_) | SecretSource::File { .. } | SecretSource::Literal(_) => None,
    });
    let passed = config.secrets.providers.values().flat_map(|provider| match provider {
        ProviderConfig::Exec(program) => program.pass_env.as_slice(),
        ProviderConfig::Env { .. } | ProviderConfig::File { .. } => &[],
    });
    let names: BTreeSet<_> =
        named.chain(passed.map(String::as_str)).filter(|name| !keys::is_own_secret(name)).collect();
    let values = names.into_iter().filter_map(|name| env::lookup(name).map(|value| (name.to_owned(), value)));
    values.take(MAX_REFERENCED).map(|(name, value)| (name, as_handed(value))).collect()
}

/// The variables that `gateway.yaml` refers to, by name.
pub(crate) fn referenced_names(config: &Config) -> Vec<String> {
    let sources = config.connections.iter().flat_map(|connection| connection.secrets.values());
    let sources = sources.chain(config.variables.iter().map(|variable| &variable.source));
    let named = sources.filter_map(|source| match source {
        SecretSource::Reference(reference) if reference.source() == SourceKind::Env => Some(reference.id().to_owned()),
        SecretSource::Reference(_) | SecretSource::File { .. } | SecretSource::Literal(_) => None,
    });
    named.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A value as it is handed over. One that is too long does not fit through the pipe: something as useless goes in its
/// place, so that admin says that it is too long and not that it is missing.
fn as_handed(value: String) -> Secret {
    let value = Secret::new(value);
    if value.expose().len() <= MAX_HANDED_BYTES {
        return value;
    }
    Secret::new("-".repeat(MAX_HANDED_BYTES.saturating_add(1)))
}

/// The service keys of the environment, by variable: one for all, and those of single services.
pub(crate) fn service_keys() -> Vec<(String, Secret)> {
    let names = env::names_with(&[keys::SERVICE_KEY_PREFIX]).into_iter();
    let names = names.chain(keys::SERVICE_API_KEY.env.iter().map(|name| (*name).to_owned()));
    let values = names.filter_map(|name| env::lookup(&name).map(|value| (name, value)));
    values
        .filter(|(_, value)| value.len() <= MAX_SERVICE_KEY_BYTES)
        .take(MAX_SERVICE_KEYS)
        .map(|(name, value)| (name, Secret::new(value)))
        .collect()
}

/// Runs the gateway, with `stack` what stands beside it, until a signal comes or it cannot go on; a second
/// signal does not wait for requests in flight. `supervised`: ends as well when standard input does.
pub(crate) async fn foreground(
    config: GatewayConfig,
    loader: Loader,
    stack: Option<StackConfig>,
    supervised: bool,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let failed = |error: io::Error| CliError::new(Outcome::Failed, error.to_string());
    let (run_dir, style) = (config.run_dir.clone(), config.log_style);
    let signals = StopSignals::install().map_err(failed)?;
    let tasks = Tasks::default();
    if supervised {
        // Nobody connects to us; what matters is that the one who started us lives.
        let _ = supervision::supervised_peers(tasks.stop_handle());
    }
    let stops = Stops::new(signals, tasks.stop_signal());
    let (sender, mut progress) = mpsc::channel(PROGRESS);
    let run = async {
        match stack {
            Some(stack) => up::run(config, loader, stack, stops, tasks.stop_handle(), sender).await,
            None => gateway::run(config, loader, stops, sender).await.map_err(UpError::from),
        }
    };
    let show = async {
        let mut spinner = Spinner::begin("starting the gateway");
        while let Some(event) = progress.recv().await {
            match &event {
                Progress::Note(text) => spinner.doing(text),
                Progress::Restarting { .. } | Progress::Log(_) => {}
                Progress::Ready(_)
                | Progress::StackReady { .. }
                | Progress::Draining
                | Progress::Anew
                | Progress::Again
                | Progress::HandingOff
                | Progress::HandedOff(_)
                | Progress::HeldBack(_) => spinner.end(),
            }
            // Whoever closed the output may still want the gateway.
            let _ = spinner.aside(|| console::show(&event, style, printer));
        }
    };
    let (hangups, stop) = (Hangups::install().map_err(failed)?, tasks.stop_handle());
    let both = async { tokio::join!(run, show) };
    let (ended, ()) = tokio::select! {
        ended = both => ended,
        // Never ends.
        () = pass_on(hangups, &run_dir, &stop) => return Err(CliError::new(Outcome::Failed, "SIGHUP is not heard")),
    };
    ended.map(|()| Outcome::Done).map_err(|error| match error {
        UpError::Gateway(ref error) => gateway_error(error),
        UpError::Api(ref error) => stack::api_error(error),
        UpError::ApiEnded(_) | UpError::Setup(_) | UpError::Demo(_) | UpError::Log(_) => {
            CliError::new(Outcome::Failed, error.to_string())
        }
    })
}

/// SIGHUP means "read your configuration again", which is admin's. From a terminal that was closed it means what it
/// always meant.
async fn pass_on(mut hangups: Hangups, run_dir: &Path, stop: &StopHandle) {
    let had_terminal = io::stderr().is_terminal();
    loop {
        hangups.next().await;
        if had_terminal && !io::stderr().is_terminal() {
            stop.stop();
            continue;
        }
        let admin = Instance::read(run_dir)
            .and_then(|instance| instance.children.into_iter().find(|child| child.role == Role::Admin));
        if let Some(admin) = admin {
            // One that is starting reads the newest file anyway.
            let _ = admin.process.signal(Signal::HUP);
        }
    }
}

/// An error of the gateway with its exit code.
pub(crate) fn gateway_error(error: &GatewayError) -> CliError {
    let outcome = match error.class() {
        Class::Config => Outcome::Config,
        Class::Unavailable => Outcome::Unavailable,
        Class::Temporary => Outcome::Temporary,
        Class::Failed => Outcome::Failed,
    };
    let shown = CliError::new(outcome, error.to_string());
    match error.hint() {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

/// Where agents connect, for people.
pub(crate) fn ingress_url(addresses: &Addresses) -> String {
    format!("{}://{}", if addresses.ingress_tls { "https" } else { "http" }, first(&addresses.ingress))
}

/// Where the admin API is, for people.
pub(crate) fn admin_url(addresses: &Addresses) -> String {
    format!("{}://{}", if addresses.admin_tls { "https" } else { "http" }, first(&addresses.admin))
}

pub(crate) fn first(addresses: &[std::net::SocketAddr]) -> String {
    addresses.first().map(ToString::to_string).unwrap_or_default()
}

/// How this program is typed: by name where it is on `PATH`, through cargo where this is the checkout it was built in,
/// else by its place; with the profile where there is one.
pub(crate) fn command() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("sigilum"));
    let path = env::lookup("PATH").unwrap_or_default();
    let installed = path.split(':').any(|folder| Path::new(folder).join("sigilum") == program);
    let built = program.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let typed = match built {
        _ if installed => "sigilum".to_owned(),
        Some("release" | "debug") if is_built_here(&program) => "cargo run --release --".to_owned(),
        Some(_) | None => program.display().to_string(),
    };
    match profile::current() {
        Some(profile) if profile.is_dev() => format!("{typed} --dev"),
        Some(profile) => format!("{typed} --profile {}", profile.name()),
        None => typed,
    }
}

/// Whether the working folder is the checkout whose `target` holds the program.
fn is_built_here(program: &Path) -> bool {
    std::env::current_dir()
        .is_ok_and(|folder| program.starts_with(folder.join("target")) && folder.join("Cargo.toml").is_file())
}

fn at(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Outcome::Config, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_too_long_to_be_handed_over_is_not_taken_for_one_that_is_missing() {
        for length in [1, MAX_HANDED_BYTES, MAX_HANDED_BYTES + 1, 1024 * 1024] {
            let handed = as_handed("c".repeat(length));
            let whole = length <= MAX_HANDED_BYTES;
            assert_eq!(handed.expose().contains('c'), whole, "{length}");
            assert_eq!(handed.expose().len(), length.min(MAX_HANDED_BYTES + 1), "{length}");
        }
    }
}
