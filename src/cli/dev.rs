//! `--dev --reset`: what the profile `dev` has made is removed, and nothing else.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::app::gateway::instance::Instance;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::settings;
use crate::config;
use crate::config::api;
use crate::config::profile;
use crate::sys::env;

/// What commands in the background leave in the run folder, before the profile's name.
const LEFT: &[&str] = &["gateway-start", "gateway-pair-bridge", "pair-session"];

/// Removes the profile's folders and files, where its gateway does not run. Folders that options name are somebody's own.
pub(super) fn reset(printer: &mut Printer) -> Result<(), CliError> {
    let data = config::default_data_dir(&env::lookup);
    let running = Instance::read(&data.join("run")).filter(|found| found.supervisor.is_alive());
    if let Some(found) = running {
        let message = format!("the gateway of --dev runs (pid {}), nothing was removed", found.supervisor.pid);
        return Err(CliError::new(Outcome::Config, message).hint("`sigilum --dev down` stops it"));
    }
    let home = settings::profile_home(&profile::suffix(&env::lookup));
    for folder in [home, data, api::data_dir(&env::lookup)] {
        remove(&folder, |folder| fs::remove_dir_all(folder), printer)?;
    }
    let mut left = vec![settings::saved_file()];
    left.extend(background());
    for file in left {
        remove(&file, |file| fs::remove_file(file), printer)?;
    }
    Ok(())
}

fn remove(path: &Path, how: impl Fn(&Path) -> io::Result<()>, printer: &mut Printer) -> Result<(), CliError> {
    match how(path) {
        Ok(()) => {
            printer.note(&format!("removed {}", path.display()));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CliError::new(Outcome::Failed, format!("{}: {error}", path.display()))),
    }
}

/// The profile's files in the run folder, where other gateways have theirs too.
fn background() -> Vec<PathBuf> {
    let suffix = profile::suffix(&env::lookup);
    let beginnings: Vec<_> = LEFT.iter().map(|name| format!("{name}{suffix}.")).collect();
    let entries = fs::read_dir(settings::background_folder()).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            beginnings.iter().any(|beginning| name.to_string_lossy().starts_with(beginning.as_str()))
        })
        .map(|entry| entry.path())
        .collect()
}
