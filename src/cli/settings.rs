//! Options, environment, `config.env` and `gateway.yaml`, gathered and judged.

use std::path::Path;
use std::path::PathBuf;

use sha2::Digest as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::config;
use crate::config::Config;
use crate::config::Flags;
use crate::config::Sources;
use crate::config::defaults;
use crate::config::keys;
use crate::domain::hex;
use crate::domain::secret::Secret;
use crate::reload::Loaded;
use crate::reload::Unusable;
use crate::sys::env;
use crate::sys::files;

/// Names under which a namespace is found, strongest first.
const NAMESPACE_NAMES: &[&str] = &["SIGILUM_NAMESPACE", "GATEWAY_SIGILUM_NAMESPACE"];
/// The same in `config.env`, where the gateway's own name is the stronger one.
const SAVED_NAMESPACE_NAMES: &[&str] = &["GATEWAY_SIGILUM_NAMESPACE", "SIGILUM_NAMESPACE"];
/// Names under which the folder of the identities is found, strongest first.
const HOME_NAMES: &[&str] = &["SIGILUM_HOME", "GATEWAY_SIGILUM_HOME"];

/// `config.env`: `$SIGILUM_CONFIG_FILE`, else in `$SIGILUM_CONFIG_HOME`, else in `~/.sigilum`.
pub(crate) fn saved_file() -> PathBuf {
    if let Some(file) = env::lookup("SIGILUM_CONFIG_FILE") {
        return PathBuf::from(file);
    }
    match env::lookup("SIGILUM_CONFIG_HOME") {
        Some(folder) => PathBuf::from(folder).join("config.env"),
        None => default_home().join("config.env"),
    }
}

/// Writes `pairs` into `config.env`, keeping every other line; the file is replaced whole, mode 0600.
pub(crate) fn save(pairs: &[(&str, &str)]) -> Result<PathBuf, CliError> {
    let path = saved_file();
    let failed = |what: String| CliError::new(Outcome::Config, format!("{}: {what}", path.display()));
    let old = match files::read_text(&path, defaults::MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error.to_string())),
    };
    let new = defaults::update(&old, pairs)
        .ok_or_else(|| failed("a value with line breaks or quotes cannot be written there".to_owned()))?;
    if new != old {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            files::private_folder(folder).map_err(|error| failed(error.to_string()))?;
        }
        files::write_private(&path, new.as_bytes()).map_err(|error| failed(error.to_string()))?;
    }
    Ok(path)
}

/// `~/.sigilum`, or `.sigilum` where there is no home folder.
fn default_home() -> PathBuf {
    env::lookup("HOME").map_or_else(|| PathBuf::from(".sigilum"), |home| PathBuf::from(home).join(".sigilum"))
}

/// The text of `config.env`; empty where there is none.
fn saved_text() -> Result<String, CliError> {
    let path = saved_file();
    match files::read_text(&path, defaults::MAX_BYTES) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(CliError::new(Outcome::Config, format!("{}: {error}", path.display()))),
    }
}

/// The value of the first of these names that `config.env` has.
pub(crate) fn saved(names: &[&str]) -> Result<Option<String>, CliError> {
    let text = saved_text()?;
    Ok(names.iter().find_map(|name| defaults::find(&text, name)))
}

/// Where the identities of this person are, and which one is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPlace {
    /// The folder that holds `identities/`.
    pub home: PathBuf,
    /// The namespace as typed; `None`: the only one there is.
    pub namespace: Option<String>,
}

impl IdentityPlace {
    /// Option, environment, `config.env`, `~/.sigilum`.
    pub fn find(globals: &Globals) -> Result<Self, CliError> {
        let saved = saved_text()?;
        let first = |names: &[&str], find: &dyn Fn(&str) -> Option<String>| names.iter().find_map(|name| find(name));
        let typed = globals.home.clone().or_else(|| first(HOME_NAMES, &env::lookup).map(PathBuf::from));
        let from_saved = |names| first(names, &|name| defaults::find(&saved, name));
        let named = globals.namespace.clone().or_else(|| first(NAMESPACE_NAMES, &env::lookup));
        // What is saved belongs together: its namespace says nothing about another folder.
        let saved_home = from_saved(HOME_NAMES).map(PathBuf::from);
        let elsewhere = typed.is_some() && typed.as_deref().map(absolute) != saved_home.as_deref().map(absolute);
        let namespace = named.or_else(|| if elsewhere { None } else { from_saved(SAVED_NAMESPACE_NAMES) });
        let home = typed.or(saved_home).unwrap_or_else(default_home);
        Ok(Self { home, namespace })
    }
}

/// The path from the root on; itself where the working folder is gone.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Loads the whole configuration: what the roles of the gateway run with. `handed` are secrets that came
/// through a supervisor's pipe; they stand in for the variables of their names.
pub(crate) fn load(flags: &Flags, handed: &[(String, Secret)]) -> Result<Config, CliError> {
    load_text(flags, handed).map(|(config, _)| config)
}

/// The same with the text of the settings file.
pub(crate) fn load_text(flags: &Flags, handed: &[(String, Secret)]) -> Result<(Config, Option<Secret>), CliError> {
    let read = read(flags, handed, None).map_err(|unusable| CliError::new(Outcome::Config, unusable.message))?;
    Ok((read.loaded.config, read.text))
}

/// The configuration, and the file it was looked for in.
pub(crate) struct Read {
    /// What it is.
    pub(crate) loaded: Loaded,
    /// The file, whether or not it is there.
    pub(crate) file: PathBuf,
    /// What stands in it.
    pub(crate) text: Option<Secret>,
}

/// The same, for whoever reads it again later. `kept` is read in place of the settings file, and still called by its
/// name.
pub(crate) fn read(flags: &Flags, handed: &[(String, Secret)], kept: Option<&Path>) -> Result<Read, Unusable> {
    let unusable = |message: String| Unusable { hash: String::new(), message };
    let saved = saved_text().map_err(|error| unusable(error.to_string()))?;
    let find = |name: &str| {
        if NAMESPACE_NAMES.contains(&name) {
            return SAVED_NAMESPACE_NAMES.iter().find_map(|name| defaults::find(&saved, name));
        }
        defaults::find(&saved, name)
    };
    let given =
        |name: &str| handed.iter().find(|(known, _)| known == name).map(|(_, secret)| secret.expose().to_owned());
    let lookup = |name: &str| given(name).or_else(|| env::lookup(name)).or_else(|| blank_token(name));
    let sources = Sources { flags, env: &lookup, saved: &find };
    let place = config::locate(sources);
    let file = kept.unwrap_or(&place.path);
    let text = match files::read_text(file, config::MAX_FILE_BYTES).map(Zeroizing::new) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !place.required => None,
        Err(error) => return Err(unusable(format!("{}: {error}", file.display()))),
    };
    let read = text.as_ref().map(|text| text.as_str());
    let hash = hex::text(&Sha256::digest(read.unwrap_or_default()));
    match config::load(sources, read.map(|text| (place.path.as_path(), text))) {
        Ok(config) => {
            let text = text.map(|mut text| Secret::new(std::mem::take(&mut *text)));
            Ok(Read { loaded: Loaded { config, hash }, file: place.path, text })
        }
        Err(mistakes) => Err(Unusable { hash, message: mistakes.to_string() }),
    }
}

/// A token that was meant and is not there must show, where a listener would count on it.
fn blank_token(name: &str) -> Option<String> {
    (keys::ADMIN_TOKEN.env.contains(&name) && env::is_blank(name)).then(String::new)
}

/// Settings of a process that must do without files: options, environment, defaults.
pub(crate) fn load_without_files(flags: &Flags) -> Result<Config, CliError> {
    let sources = Sources { flags, env: &env::lookup, saved: &|_| None };
    config::load(sources, None).map_err(|mistakes| CliError::new(Outcome::Config, mistakes.to_string()))
}
