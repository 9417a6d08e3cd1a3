//! `agent-simulator`: six requests that show whether the running stack holds.

use std::path::PathBuf;

use clap::Args;
use reqwest::Url;

use crate::app::simulator;
use crate::app::simulator::SimulatorConfig;
use crate::app::simulator::SimulatorError;
use crate::app::simulator::Verdict;
use crate::app::up;
use crate::cli::args::Globals;
use crate::cli::gateway::options::SettingsArgs;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::stack;
use crate::config::Config;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::local_http;

/// The token of those who set none.
const SEED_TOKEN: &str = "sigilum-local-seed-token";

/// Options of `agent-simulator`; what is asked is set by `SIM_*` variables.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Variables: SIM_API_URL, SIM_NATIVE_URL, SIM_GATEWAY_URL, SIM_GATEWAY_CONNECTION_ID, \
    SIM_GATEWAY_UPSTREAM_URL, SIM_SEED_ENDPOINT, SIM_SEED_TOKEN, SIM_NATIVE_SERVICE_SLUG, \
    SIM_GATEWAY_SERVICE_SLUG, SIM_APPROVED_NAMESPACE, SIM_UNAPPROVED_NAMESPACE, SIM_IDENTITIES_HOME. The stack \
    must allow the test seed: ENABLE_TEST_SEED_ENDPOINT=true sigilum up --demo")]
pub struct AgentSimulatorArgs {
    /// Settings: they say where the stack listens.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Tries the six cases. Exit 1 where one of them is not answered as it must be.
pub(crate) async fn run(
    args: &AgentSimulatorArgs,
    globals: &Globals,
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    let config = simulator_config(&args.settings.load(globals)?, globals, None)?;
    let verdicts = simulator::run(&config).await.map_err(|error| failed(&error))?;
    show(&verdicts, printer)
}

/// What is tried, by `SIM_*` variables, else where the settings say that the stack listens. `seed_token`
/// stands above them.
pub(crate) fn simulator_config(
    config: &Config,
    globals: &Globals,
    seed_token: Option<Secret>,
) -> Result<SimulatorConfig, CliError> {
    let loopback = |port: u16| format!("http://127.0.0.1:{port}");
    let api_url = url("SIM_API_URL", globals.api_port, || loopback(stack::api_port(globals)))?;
    let seed = || format!("{}/v1/test/seed", api_url.as_str().trim_end_matches('/'));
    let ingress = || {
        let address = config.listen.ingress.first().copied().map(local_http::reachable);
        address.map_or_else(|| loopback(38_000), |address| format!("http://{address}"))
    };
    Ok(SimulatorConfig {
        native_url: url("SIM_NATIVE_URL", globals.native_port, || loopback(config.native_port))?,
        gateway_url: url("SIM_GATEWAY_URL", None, ingress)?,
        connection: text("SIM_GATEWAY_CONNECTION_ID", up::CONNECTION),
        upstream_url: url("SIM_GATEWAY_UPSTREAM_URL", globals.upstream_port, || loopback(config.upstream_port))?,
        seed_endpoint: url("SIM_SEED_ENDPOINT", None, seed)?,
        seed_token: match seed_token.or_else(|| env::lookup("SIM_SEED_TOKEN").map(Secret::new)) {
            Some(token) => token,
            None => stack::kept_seed_token()?.unwrap_or_else(|| Secret::new(SEED_TOKEN.to_owned())),
        },
        native_slug: text("SIM_NATIVE_SERVICE_SLUG", "demo-service-native"),
        gateway_slug: text("SIM_GATEWAY_SERVICE_SLUG", up::CONNECTION),
        approved: namespace("SIM_APPROVED_NAMESPACE", "agent-sim-approved")?,
        unapproved: namespace("SIM_UNAPPROVED_NAMESPACE", "agent-sim-unapproved")?,
        home: env::lookup("SIM_IDENTITIES_HOME")
            .map_or_else(|| config.paths.home.join("agent-simulator"), PathBuf::from),
    })
}

/// One line per case, and how many passed.
pub(crate) fn show(verdicts: &[Verdict], printer: &mut Printer) -> Result<Outcome, CliError> {
    for verdict in verdicts {
        let word = if verdict.passed { "PASS" } else { "FAIL" };
        printer.line(&format!("{word}  {} ({})", verdict.name, verdict.detail))?;
    }
    let passed = verdicts.iter().filter(|verdict| verdict.passed).count();
    let failed = verdicts.len().saturating_sub(passed);
    printer.line(&format!("Summary: {passed} passed, {failed} failed"))?;
    Ok(if failed == 0 { Outcome::Done } else { Outcome::Failed })
}

/// A stack on which nothing can be tried.
pub(crate) fn failed(error: &SimulatorError) -> CliError {
    let shown = CliError::new(Outcome::Failed, error.to_string());
    match error {
        SimulatorError::Preflight { .. } => {
            shown.hint("start the stack with ENABLE_TEST_SEED_ENDPOINT=true sigilum up --demo")
        }
        SimulatorError::Seed { .. } => shown.hint(
            "the stack must be started with ENABLE_TEST_SEED_ENDPOINT=true, and SIM_SEED_TOKEN must be its \
             SIGILUM_TEST_SEED_TOKEN where that is set",
        ),
        SimulatorError::Identity(_) | SimulatorError::Sign(_) | SimulatorError::Random(_) | SimulatorError::Http(_) => {
            shown
        }
    }
}

fn text(name: &str, default: &str) -> String {
    env::lookup(name).map_or_else(|| default.to_owned(), |value| value.trim().to_owned())
}

/// An address: the port a person typed, the variable, else the default.
fn url(name: &str, typed: Option<u16>, default: impl FnOnce() -> String) -> Result<Url, CliError> {
    let typed = typed.map(|port| format!("http://127.0.0.1:{port}"));
    let text = typed.or_else(|| env::lookup(name)).unwrap_or_else(default);
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| {
        CliError::new(Outcome::Config, format!("{name} must be an address that begins with http:// or https://"))
    })
}

fn namespace(name: &str, default: &str) -> Result<Namespace, CliError> {
    Namespace::parse(&text(name, default))
        .map_err(|invalid| CliError::new(Outcome::Config, format!("{name} {invalid}")))
}
