//! `e2e-tests`: starts a stack of its own, or takes the one that runs, and tries it from outside.

use std::path::PathBuf;

use clap::Args;
use reqwest::Url;

use crate::app::down;
use crate::app::down::Stopped;
use crate::app::e2e;
use crate::app::e2e::E2eError;
use crate::app::e2e::Folders;
use crate::app::e2e::Places;
use crate::app::e2e::Stack;
use crate::app::simulator;
use crate::app::up;
use crate::cli::agent_simulator;
use crate::cli::args::Globals;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::profile;
use crate::cli::stack;
use crate::config::Config;
use crate::config::keys;
use crate::domain::secret::Secret;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::env;
use crate::sys::files;
use crate::sys::local_http;
use crate::sys::random;
use crate::sys::signal::StopSignals;

/// Variables a stack of one's own gets from ours besides the settings: where programs are, and how Envoy
/// is downloaded.
const PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "XDG_DATA_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PIP_INDEX_URL",
    "PIP_CONFIG_FILE",
    "PIP_CERT",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "API_HOST",
];
/// Settings of the person's own installation, which this stack does not share.
const OWN: &[&str] = &[
    "SIGILUM_PROFILE",
    "GATEWAY_SIGILUM_HOME",
    "SIGILUM_HOME",
    "GATEWAY_CONFIG_FILE",
    "GATEWAY_DATA_DIR",
    "GATEWAY_RUN_DIR",
    "SIGILUM_NAMESPACE",
    "GATEWAY_SIGILUM_NAMESPACE",
    "SIGILUM_API_URL",
    "SIGILUM_REGISTRY_URL",
];
/// Longest token file, in bytes.
const MAX_TOKEN: u64 = 4096;

/// Options of `e2e-tests`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "SIGILUM_E2E_CLEAN_START=false tries the stack that runs instead of stopping it first; it \
    must have been started with ENABLE_TEST_SEED_ENDPOINT=true sigilum up --demo. What this installation did not \
    start is never stopped.")]
pub struct E2eTestsArgs {
    /// Settings: they say on which ports the stack listens.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Runs all of it; what it started ends with it.
pub(crate) async fn run(args: &E2eTestsArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let config = args.settings.load(globals)?;
    let failed = |error: std::io::Error| CliError::new(Outcome::Failed, error.to_string());
    let mut signals = StopSignals::install().map_err(failed)?;
    let places = places(&config, globals)?;
    if clean_start()? {
        let stopped = down::run(&config.paths.run_dir, config.drain).await;
        let stopped = stopped.map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
        if stopped != Stopped::NothingRan {
            printer.note("[i] the stack that ran was stopped; SIGILUM_E2E_CLEAN_START=false tries it instead");
        }
    }
    if e2e::is_running(&places).await.map_err(|error| shown(&error))? {
        printer.note("[i] trying the stack that runs");
        let token = gateway_api::token(&config)?.ok_or_else(|| {
            CliError::new(
                Outcome::Failed,
                "the stack that runs is not this installation's: its admin token is not known here",
            )
        })?;
        return tokio::select! {
            done = attempt(&config, globals, &places, &token, None, printer) => done,
            signal = signals.next() => Err(interrupted(signal)),
        };
    }
    let folders = folders()?;
    printer.note(&format!("[i] starting a stack of its own; logs: {}", folders.root.display()));
    let seed = seed_token()?;
    let started = start(&config, globals, &folders, &seed).await;
    let mut stack = match started {
        Ok(stack) => stack,
        Err(error) => {
            folders.tidy();
            return Err(error);
        }
    };
    let token = || kept_token(folders.data.join("admin-token"));
    let work = async {
        stack.ready(&places, token).await.map_err(|error| shown(&error))?;
        let token = token().unwrap_or_else(|| Secret::new(String::new()));
        attempt(&config, globals, &places, &token, Some((&seed, &folders)), printer).await
    };
    let done = tokio::select! {
        done = work => done,
        signal = signals.next() => Err(interrupted(signal)),
    };
    tokio::select! {
        () = stack.end() => {}
        // Whoever asks twice does not want to wait: the stack notices that we are gone.
        _ = signals.next() => {}
    }
    folders.tidy();
    done
}

/// The probes, then the simulator.
async fn attempt(
    config: &Config,
    globals: &Globals,
    places: &Places,
    token: &Secret,
    own: Option<(&Secret, &Folders)>,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    e2e::probe(places, token).await.map_err(|error| shown(&error))?;
    printer.line("[ok] the connection is there; unsigned requests are refused by both services")?;
    let seed = own.map(|(seed, _)| seed.duplicate());
    let mut config = agent_simulator::simulator_config(config, globals, seed)?;
    if let (Some((_, folders)), None) = (own, env::lookup("SIM_IDENTITIES_HOME")) {
        config.home = folders.home.join("agent-simulator");
    }
    let verdicts = simulator::run(&config).await.map_err(|error| agent_simulator::failed(&error))?;
    let outcome = agent_simulator::show(&verdicts, printer)?;
    if outcome == Outcome::Done {
        printer.line("E2E simulator passed.")?;
    }
    Ok(outcome)
}

fn places(config: &Config, globals: &Globals) -> Result<Places, CliError> {
    let at = |address: Option<&std::net::SocketAddr>| {
        let address = address.copied().map(local_http::reachable);
        let url = address.and_then(|address| Url::parse(&format!("http://{address}")).ok());
        url.ok_or_else(|| CliError::new(Outcome::Config, "a listener has no address"))
    };
    let mut admin = at(config.listen.admin.first())?;
    if config.admin.tls.is_some() {
        // Both are schemes of the web: it can be set.
        let _ = admin.set_scheme("https");
    }
    let port = |port: u16| at(Some(&std::net::SocketAddr::from(([127, 0, 0, 1], port))));
    Ok(Places {
        api: port(stack::api_port(globals))?,
        admin,
        admin_trust: gateway_api::trust(&config.admin.trust),
        gateway: at(config.listen.ingress.first())?,
        native: port(config.native_port)?,
        upstream: port(config.upstream_port)?,
        connection: up::CONNECTION.to_owned(),
    })
}

fn clean_start() -> Result<bool, CliError> {
    let Some(text) = env::lookup("SIGILUM_E2E_CLEAN_START") else { return Ok(true) };
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(CliError::new(Outcome::Config, "SIGILUM_E2E_CLEAN_START must be true or false")),
    }
}

fn folders() -> Result<Folders, CliError> {
    let parent = env::lookup("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let now = SystemClock.now().seconds().rfc3339();
    let digits: String = now.chars().filter(char::is_ascii_alphanumeric).collect();
    Folders::create(&parent, &format!("sigilum-demo-e2e-{digits}")).map_err(|error| shown(&error))
}

fn seed_token() -> Result<Secret, CliError> {
    if let Some(token) = env::lookup("SIGILUM_TEST_SEED_TOKEN") {
        return Ok(Secret::new(token));
    }
    let made = random::hex::<24>().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    Ok(Secret::new(format!("seed_{made}")))
}

async fn start(config: &Config, globals: &Globals, folders: &Folders, seed: &Secret) -> Result<Stack, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::new(Outcome::Failed, format!("this program cannot be found: {error}")))?;
    let arguments = ["up", "--demo", "--supervised"].map(str::to_owned);
    let secrets = [("SIGILUM_TEST_SEED_TOKEN".to_owned(), seed.duplicate())];
    Stack::start(&program, &arguments, environment(config, globals, folders), &secrets, folders)
        .await
        .map_err(|error| shown(&error))
}

/// How the admin API of the stack speaks, and we with it, wherever that was set.
fn tls(config: &Config) -> Vec<(&'static str, String)> {
    let (mut pairs, trust) = (Vec::new(), &config.admin.trust);
    let mut tell = |key: &keys::Key, path: Option<&PathBuf>| {
        pairs.extend(key.env.first().copied().zip(path.map(|path| path.display().to_string())));
    };
    let (tls, operator) = (config.admin.tls.as_ref(), trust.operator.as_ref());
    let clients = tls.and_then(|tls| tls.clients.as_ref());
    tell(&keys::TLS_CERT_FILE, tls.map(|tls| &tls.cert_file));
    tell(&keys::TLS_KEY_FILE, tls.map(|tls| &tls.key_file));
    tell(&keys::TLS_CLIENT_CA_FILE, clients.map(|rule| &rule.ca_file));
    tell(&keys::TLS_CA_FILE, trust.ca_file.as_ref());
    tell(&keys::OPERATOR_CERT_FILE, operator.map(|(certificate, _)| certificate));
    tell(&keys::OPERATOR_KEY_FILE, operator.map(|(_, key)| key));
    let names = clients.map(|rule| rule.names.join(","));
    pairs.extend(keys::TLS_CLIENT_NAMES.env.first().copied().zip(names));
    pairs
}

/// What the stack is told: our settings and ports, folders of its own.
fn environment(config: &Config, globals: &Globals, folders: &Folders) -> Vec<(String, String)> {
    let kept = |name: &&str| !keys::SECRET_ENVIRONMENT.contains(name) && !OWN.contains(name);
    let names = keys::environment().filter(kept).chain(PASSED.iter().copied());
    let mut pairs: Vec<_> = names.filter_map(|name| env::lookup(name).map(|value| (name.to_owned(), value))).collect();
    let listed = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut given = vec![
        ("GATEWAY_ADDR", listed(&config.listen.admin)),
        ("GATEWAY_INGRESS_ADDR", listed(&config.listen.ingress)),
        ("GATEWAY_ENVOY_ADMIN_ADDR", listed(&config.listen.envoy_admin)),
        ("NATIVE_PORT", config.native_port.to_string()),
        ("UPSTREAM_PORT", config.upstream_port.to_string()),
        ("API_PORT", stack::api_port(globals).to_string()),
        ("ENABLE_TEST_SEED_ENDPOINT", "true".to_owned()),
    ];
    given.extend(tls(config));
    given.extend(config.envoy.binary.as_ref().map(|file| ("ENVOY_BIN", file.display().to_string())));
    let folders = [
        ("GATEWAY_SIGILUM_HOME", &folders.home),
        ("GATEWAY_DATA_DIR", &folders.data),
        ("API_DATA_DIR", &folders.api),
        ("SIGILUM_CONFIG_FILE", &folders.config_file),
    ];
    given.extend(folders.map(|(name, path)| (name, path.display().to_string())));
    for (name, value) in given {
        pairs.retain(|(known, _)| known != name);
        pairs.push((name.to_owned(), value));
    }
    pairs
}

fn kept_token(file: PathBuf) -> Option<Secret> {
    let text = files::read_text(&file, MAX_TOKEN).ok()?;
    Some(Secret::new(text.trim().to_owned())).filter(|token| !token.is_empty())
}

fn interrupted(signal: &str) -> CliError {
    CliError::new(Outcome::Failed, format!("{signal}: broken off before everything was tried"))
}

fn shown(error: &E2eError) -> CliError {
    let shown = CliError::new(Outcome::Failed, error.to_string());
    match error {
        E2eError::Half { .. } => {
            shown.hint(format!("`{}` stops what this installation started", profile::command("down")))
        }
        E2eError::NoDemo(_) => shown.hint("start it with ENABLE_TEST_SEED_ENDPOINT=true sigilum up --demo"),
        E2eError::Io { .. }
        | E2eError::Spawn(_)
        | E2eError::Ended { .. }
        | E2eError::Late { .. }
        | E2eError::Probe { .. }
        | E2eError::Http(_) => shown,
    }
}
