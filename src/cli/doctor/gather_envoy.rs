//! Envoy's binary, and what it says of the configuration it would be given.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::cli::doctor::facts::EnvoyFacts;
use crate::cli::doctor::facts::Unusable;
use crate::cli::gateway::envoy_config;
use crate::cli::gateway::manager;
use crate::config::Config;
use crate::envoy::binary;
use crate::envoy::binary::EnvoyBinary;
use crate::envoy::binary::Search;
use crate::envoy::render;
use crate::sys::files;
use crate::sys::random;

/// How long Envoy may take to say its version; the file is large and the disk may be cold.
const VERSION_PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to judge its configuration.
const VALIDATE_PATIENCE: Duration = Duration::from_secs(15);
/// Most of what it says that is repeated, in characters.
const MAX_WORDS: usize = 300;

/// Looks for it; `usable`: whether the settings are what a gateway would start with.
pub(super) async fn envoy(config: &Config, usable: bool) -> EnvoyFacts {
    let search = Search::standard(config.envoy.binary.clone());
    let installable = !binary::on_path(search.path.as_deref(), "python3").is_empty();
    let found = match tokio::time::timeout(VERSION_PATIENCE, binary::examine(&search)).await {
        Ok(found) => found.map_err(|error| Unusable { message: error.to_string(), hint: error.hint() }),
        Err(_) => {
            let message = format!("Envoy did not say its version within {} s", VERSION_PATIENCE.as_secs());
            Err(Unusable { message, hint: "is this machine under load? try again".to_owned() })
        }
    };
    let validated = match &found {
        Ok(Some(envoy)) if usable => validate(envoy, config).await,
        Ok(_) | Err(_) => None,
    };
    EnvoyFacts { binary: found, installable, outside: manager::is_external(), validated }
}

/// Has Envoy read the configuration in a folder of its own, where it leaves nothing. `None`: it could not be asked.
async fn validate(envoy: &EnvoyBinary, config: &Config) -> Option<Result<(), String>> {
    let text = match render::render(&envoy_config::rendering(config)) {
        Ok(text) => text,
        Err(error) => return Some(Err(error.to_string())),
    };
    let folder = std::env::temp_dir().join(format!("sigilum-doctor-{}", random::hex::<8>().ok()?));
    files::private_folder(&folder).ok()?;
    let said = run(&envoy.path, &text, &folder).await;
    // A leftover is empty but for a log that nobody wrote to.
    let _ = std::fs::remove_dir_all(&folder);
    said
}

async fn run(envoy: &Path, text: &str, folder: &Path) -> Option<Result<(), String>> {
    let file = folder.join("envoy.yaml");
    files::write_private(&file, text.as_bytes()).ok()?;
    let mut command = Command::new(envoy);
    command
        .args(["--mode", "validate", "--disable-hot-restart", "--log-level", "error", "--config-path"])
        .arg(&file)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    match tokio::time::timeout(VALIDATE_PATIENCE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Some(Ok(())),
        Ok(Ok(output)) => Some(Err(reason(&String::from_utf8_lossy(&output.stderr)))),
        Ok(Err(error)) => Some(Err(error.to_string())),
        Err(_) => Some(Err(format!("no answer within {} s", VALIDATE_PATIENCE.as_secs()))),
    }
}

/// What Envoy says that is wrong: the line of the error, else its last one.
fn reason(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.contains("error initializing")).or_else(|| lines().next_back());
    line.unwrap_or("it does not say why").chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_why_is_told() {
        let said = "[1][warning] x\n[2][critical] error initializing config '': no such cluster\nexiting\n";
        assert_eq!(reason(said), "[2][critical] error initializing config '': no such cluster");
        assert_eq!((reason("a\nb\n\n").as_str(), reason("").as_str()), ("b", "it does not say why"));
    }
}
