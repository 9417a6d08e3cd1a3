//! Which of several gateways of this user a command is for: `--profile NAME`, `--dev`, `SIGILUM_PROFILE`.
//!
//! The ports of a profile come from its place in a row that is written down once, in `profiles.json` beside `config.env`: the
//! same profile has the same ports each time.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::settings;
use crate::config::api;
use crate::config::keys;
use crate::config::profile;
use crate::config::profile::Ports;
use crate::config::profile::Profile;
use crate::sys::env;
use crate::sys::env::StandIns;
use crate::sys::files;
use crate::sys::files::FileLock;
use crate::sys::files::LockError;

/// Places by name.
const FILE: &str = "profiles.json";
/// The file holds a few kilobytes at most.
const MAX_BYTES: u64 = 64 * 1024;
/// How often a lock that another command holds is tried again, and how long between.
const TRIES: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);

/// Variables that count with `--dev` too: what they say is true of this machine, whichever gateway is meant.
const SHARED: &[&str] = &["ENVOY_BIN", "SIGILUM_LOG"];
/// Variables besides the settings that say whom a person deals with elsewhere.
const ELSEWHERE: &[&str] = &["SIGILUM_CONFIG_FILE", "SIGILUM_MODE", "SIGILUM_OWNER_TOKEN", "SIGILUM_OWNER_EMAIL"];

/// Settles the profile before anything is read. `keeps`: the command is one that makes a gateway, whose ports are then
/// written down; every other looks at what is written, or at what would be. `part`: it is a part of a gateway, whose
/// supervisor has chosen its environment.
pub(super) fn begin(globals: &mut Globals, keeps: bool, part: bool) -> Result<(), CliError> {
    let Some(profile) = named(globals)? else { return Ok(()) };
    let mut name = profile::DEFAULT.to_owned();
    if let Some(profile) = &profile {
        profile.name().clone_into(&mut name);
    }
    let dev = profile.as_ref().is_some_and(Profile::is_dev);
    let hides = if dev && (globals.dev || !part) { is_elsewhere } else { |_: &str| false };
    env::stand_in(StandIns { values: vec![(profile::VARIABLE, name)], hides });
    globals.settled = match &profile {
        Some(profile) => Some((ports(profile, keeps)?, profile.clone())),
        None => None,
    };
    Ok(())
}

/// What is named: outside nothing, inside the default.
fn named(globals: &Globals) -> Result<Option<Option<Profile>>, CliError> {
    let usage = |message: String| CliError::new(Outcome::Usage, message);
    let typed = globals.profile.as_deref().map(Profile::parse).transpose();
    let typed = typed.map_err(|message| usage(format!("--profile {message}")))?;
    if globals.dev {
        let dev = Profile::parse(profile::DEV).map_err(usage)?;
        return match typed {
            Some(other) if other != dev => Err(usage("--dev is a profile of its own: leave --profile away".to_owned())),
            Some(_) | None => Ok(Some(dev)),
        };
    }
    if typed.is_some() {
        return Ok(typed);
    }
    let wrong = |message| CliError::new(Outcome::Config, format!("{}: {message}", profile::VARIABLE));
    env::lookup(profile::VARIABLE).map(|name| Profile::parse(&name).map_err(wrong)).transpose()
}

/// The profile of this command, once it has begun.
pub(super) fn current() -> Option<Profile> {
    Profile::of(&env::lookup)
}

/// A command as it is typed for the gateway of this profile: `sigilum down`, `sigilum --profile other down`.
pub(super) fn command(rest: &str) -> String {
    format!("{} {rest}", profile::typed(&env::lookup))
}

/// A hint whose commands are typed for the gateway of this profile.
pub(super) fn in_hint(hint: &str) -> String {
    typed_in(hint, &profile::typed(&env::lookup))
}

/// Puts it where a command begins: at the start, or behind a blank or a quote, and not in a path.
fn typed_in(hint: &str, typed: &str) -> String {
    let mut parts = hint.split("sigilum ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let begins = text.is_empty() || text.ends_with([' ', '`', '(']);
        text.push_str(if begins { typed } else { "sigilum" });
        text.push(' ');
        text.push_str(part);
    }
    text
}

/// Whether a variable belongs to another gateway than that of `--dev`: a namespace, a folder or a key of production has no
/// place there.
fn is_elsewhere(name: &str) -> bool {
    if SHARED.contains(&name) || name == profile::VARIABLE {
        return false;
    }
    let api = || api::ALL.iter().flat_map(|key| key.env.iter().copied());
    ELSEWHERE.contains(&name)
        || keys::is_own_secret(name)
        || keys::environment().chain(api()).any(|known| known == name)
}

fn file() -> PathBuf {
    settings::config_folder().join(FILE)
}

/// The profiles that have a place, by name.
pub(super) fn known() -> Result<BTreeMap<String, u16>, CliError> {
    let file = file();
    let wrong = |what: String| CliError::new(Outcome::Config, format!("{}: {what}", file.display()));
    match files::read_text(&file, MAX_BYTES) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| wrong(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// The ports of a profile. With `keeps` its place is written down, where it has none.
fn ports(profile: &Profile, keeps: bool) -> Result<Ports, CliError> {
    if profile.is_dev() {
        return Ok(Ports::DEV);
    }
    let places = known()?;
    if let Some(place) = places.get(profile.name()) {
        return Ok(Ports::at(*place));
    }
    let place = if keeps { keep(profile)? } else { free(&places)? };
    Ok(Ports::at(place))
}

fn free(places: &BTreeMap<String, u16>) -> Result<u16, CliError> {
    let taken: Vec<_> = places.values().copied().collect();
    profile::free_place(&taken).ok_or_else(|| {
        let message = format!("{} profiles have ports of their own, there are none left", taken.len());
        CliError::new(Outcome::Config, message)
            .hint(format!("take a profile that is not used any more out of {}", file().display()))
    })
}

/// Writes the place of a new profile down; of two commands at once each sees what the other wrote.
fn keep(profile: &Profile) -> Result<u16, CliError> {
    let file = file();
    let failed = |error: io::Error| CliError::new(Outcome::Config, format!("{}: {error}", file.display()));
    files::private_folder(files::folder_of(&file)).map_err(failed)?;
    let _lock = lock(&files::beside(&file, ".lock"))?;
    let mut places = known()?;
    if let Some(place) = places.get(profile.name()) {
        return Ok(*place);
    }
    let place = free(&places)?;
    places.insert(profile.name().to_owned(), place);
    let mut text = serde_json::to_vec_pretty(&places).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    files::write_private(&file, &text).map_err(failed)?;
    Ok(place)
}

/// The lock of the row; a command holds it for a moment.
fn lock(path: &std::path::Path) -> Result<FileLock, CliError> {
    let holder = format!("pid {} (profiles)", std::process::id());
    let mut tries = 0;
    loop {
        match FileLock::take(path, &holder) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { .. }) if tries < TRIES => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            Err(error @ (LockError::Held { .. } | LockError::Io { .. })) => {
                return Err(CliError::new(Outcome::Config, error.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_a_hint_are_those_of_the_profile_and_paths_stay() {
        let typed = |hint: &str| typed_in(hint, "sigilum --dev");
        assert_eq!(typed("sigilum down"), "sigilum --dev down");
        assert_eq!(typed("or: sigilum a; `sigilum b`"), "or: sigilum --dev a; `sigilum --dev b`");
        assert_eq!(typed("chmod 600 /srv/sigilum data/x"), "chmod 600 /srv/sigilum data/x");
        assert_eq!(typed("the Sigilum API, sigilum-gateway"), "the Sigilum API, sigilum-gateway");
    }

    #[test]
    fn what_says_where_production_is_has_no_place_in_the_profile_of_dev() {
        for name in [
            "GATEWAY_SIGILUM_HOME",
            "SIGILUM_HOME",
            "GATEWAY_DATA_DIR",
            "GATEWAY_CONFIG_FILE",
            "GATEWAY_MASTER_KEY",
            "GATEWAY_ADMIN_TOKEN",
            "SIGILUM_SERVICE_API_KEY_BILLING",
            "SIGILUM_NAMESPACE",
            "SIGILUM_API_URL",
            "API_DATA_DIR",
            "API_PORT",
            "JWT_SECRET",
            "SIGILUM_CONFIG_FILE",
            "SIGILUM_OWNER_TOKEN",
        ] {
            assert!(is_elsewhere(name), "{name}");
        }
        for name in ["HOME", "PATH", "XDG_DATA_HOME", "ENVOY_BIN", "SIGILUM_CONFIG_HOME", "SIGILUM_PROFILE"] {
            assert!(!is_elsewhere(name), "{name}");
        }
    }
}
