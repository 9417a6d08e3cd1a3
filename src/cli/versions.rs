//! `sigilum versions`: what of the family is here, one padded row each.

use std::time::Duration;

use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::envoy::binary;
use crate::envoy::binary::Search;

/// What this program is.
pub(crate) const OWN: &str = env!("CARGO_PKG_VERSION");
/// What is not here.
const MISSING: &str = "missing";
/// How long the search for Envoy may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Parts of this program.
const INSIDE: &[&str] = &["sigilum", "api", "gateway", "demo-native", "demo-gateway"];
/// Parts of the family that come separately.
const ELSEWHERE: &[&str] = &[
    "root",
    "apps",
    "dashboard",
    "sdks",
    "sdk-ts",
    "sdk-go",
    "sdk-java",
    "sdk-python",
    "openclaw",
    "contracts",
    "config",
];

/// Prints the rows. Nothing is installed for it.
pub(crate) async fn run(globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    let named = settings::load(&globals.flags(), &[]).ok().and_then(|config| config.envoy.binary);
    let found = tokio::time::timeout(DEADLINE, binary::present(&Search::standard(named))).await;
    let envoy = match found {
        Ok(Some(envoy)) => format!("{} ({})", envoy.version, envoy.path.display()),
        Ok(None) | Err(_) => MISSING.to_owned(),
    };
    let rows = INSIDE.iter().map(|name| (*name, OWN)).chain([("envoy", envoy.as_str())]);
    for (name, version) in rows.chain(ELSEWHERE.iter().map(|name| (*name, MISSING))) {
        printer.line(&format!("{name:<14}{version}"))?;
    }
    Ok(Outcome::Done)
}
