//! Options, environment, `config.env` and `gateway.yaml`, gathered and judged.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use sha2::Digest as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::app::systemd;
use crate::cli::args::Globals;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::config;
use crate::config::Config;
use crate::config::Flags;
use crate::config::Machine;
use crate::config::Mistakes;
use crate::config::Sources;
use crate::config::defaults;
use crate::config::explain::Explained;
use crate::config::keys;
use crate::config::mistake::Place;
use crate::config::parts::Paths;
use crate::config::profile;
use crate::domain::hex;
use crate::domain::secret::Secret;
use crate::reload::Content;
use crate::reload::Loaded;
use crate::reload::Unusable;
use crate::sys::env;
use crate::sys::files;
use crate::sys::machine;
use crate::sys::ownership;
use crate::sys::ownership::Access;
use crate::sys::ownership::Us;
use crate::sys::short_name;

/// Names under which a namespace is found, strongest first.
const NAMESPACE_NAMES: &[&str] = &["SIGILUM_NAMESPACE", "GATEWAY_SIGILUM_NAMESPACE"];
/// The same in `config.env`, where the gateway's own name is the stronger one.
const SAVED_NAMESPACE_NAMES: &[&str] = &["GATEWAY_SIGILUM_NAMESPACE", "SIGILUM_NAMESPACE"];
/// Names under which the folder of the identities is found, strongest first.
const HOME_NAMES: &[&str] = &["SIGILUM_HOME", "GATEWAY_SIGILUM_HOME"];

/// Where a service manager leaves the credentials of a service (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Longest file with a master key, in bytes.
const MAX_CREDENTIAL: u64 = 16 * 1024;

/// `$SIGILUM_CONFIG_HOME`, else `~/.sigilum`.
pub(crate) fn config_folder() -> PathBuf {
    env::lookup("SIGILUM_CONFIG_HOME").map_or_else(default_home, PathBuf::from)
}

/// Where commands that go on in the background keep their logs and process ids: `run` in `$SIGILUM_CONFIG_HOME`, else in
/// `~/.sigilum`.
pub(crate) fn background_folder() -> PathBuf {
    config_folder().join("run")
}

/// `config.env`: `$SIGILUM_CONFIG_FILE`, else in `$SIGILUM_CONFIG_HOME`, else in `~/.sigilum`. That of a profile has its name
/// in its own.
pub(crate) fn saved_file() -> PathBuf {
    if let Some(file) = env::lookup("SIGILUM_CONFIG_FILE") {
        return PathBuf::from(file);
    }
    config_folder().join(format!("config{}.env", profile::suffix(&env::lookup)))
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
    user_home().join(".sigilum")
}

/// The home of a profile's gateway, by what the names of the profile end with.
pub(crate) fn profile_home(suffix: &str) -> PathBuf {
    user_home().join(format!(".sigilum-workspace{suffix}"))
}

/// The user's home folder; without one names count from where we are.
fn user_home() -> PathBuf {
    env::lookup("HOME").map(PathBuf::from).unwrap_or_default()
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
    /// Option, environment, `config.env`, `~/.sigilum`; with a profile the home of its gateway in place of the last.
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
        let home = typed.or(saved_home).unwrap_or_else(|| match profile::suffix(&env::lookup).as_str() {
            "" => default_home(),
            suffix => profile_home(suffix),
        });
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
    judge(flags, handed).map_err(CliError::from)
}

/// The same with the text of the settings file.
pub(crate) fn load_text(flags: &Flags, handed: &[(String, Secret)]) -> Result<(Config, Option<Secret>), CliError> {
    let read = with_file(flags, handed, None, |sources, file| {
        let text = file.map(|(_, text)| Secret::new(text.to_owned()));
        Ok((judged(sources, file, None)?, text))
    });
    read.map_err(CliError::from)
}

/// The configuration and the file it was looked for in, whether or not that is there: for whoever reads it again later.
/// `kept` is read in place of the settings file, and still called by its name.
pub(crate) fn read(
    flags: &Flags,
    handed: &[(String, Secret)],
    kept: Option<&Path>,
) -> Result<(Loaded, PathBuf), Unusable> {
    let (mut hash, mut content) = (String::new(), Content::Missing);
    let read = with_file(flags, handed, kept, |sources, file| {
        let text = file.map(|(_, text)| text);
        hash = hex::text(&Sha256::digest(text.unwrap_or_default()));
        content = Content::of(text);
        Ok((judged(sources, file, kept)?, config::locate(sources).path))
    });
    match read {
        Ok((config, file)) => Ok((Loaded { config, hash, content }, file)),
        Err(refused) => {
            let missing = matches!(refused, Refused::Missing(..));
            Err(Unusable { hash, missing, message: CliError::from(refused).message })
        }
    }
}

/// Why a configuration does not count.
pub(crate) enum Refused {
    /// What stands in it is wrong.
    Mistakes(Mistakes),
    /// The file cannot be read, or others can: its name, and why.
    File(String, String),
    /// The file that somebody named is not there: the same.
    Missing(String, String),
    /// `config.env` cannot be read.
    Saved(String),
}

impl From<Refused> for CliError {
    fn from(refused: Refused) -> Self {
        match refused {
            // What was typed is for whoever typed it to mend, all else for whoever wrote it.
            Refused::Mistakes(mistakes) if mistakes.are_typed() => Self::new(Outcome::Usage, mistakes.to_string()),
            Refused::Mistakes(mistakes) => Self::new(Outcome::Config, format!("invalid config: {mistakes}")),
            Refused::File(path, message) | Refused::Missing(path, message) => {
                Self::new(Outcome::Config, format!("{path}: {message}"))
            }
            Refused::Saved(message) => Self::new(Outcome::Config, message),
        }
    }
}

/// The same as [`load`], with the mistakes one by one.
pub(crate) fn judge(flags: &Flags, handed: &[(String, Secret)]) -> Result<Config, Refused> {
    with_file(flags, handed, None, |sources, file| judged(sources, file, None))
}

/// Whether something that stands in the file is wrong.
pub(crate) fn is_damaged(flags: &Flags) -> bool {
    match judge(flags, &[]) {
        Err(Refused::Mistakes(found)) => found.list().iter().any(|mistake| matches!(mistake.place, Place::File { .. })),
        Ok(_) | Err(Refused::File(..) | Refused::Missing(..) | Refused::Saved(_)) => false,
    }
}

/// The configuration, where nobody else can write it or read the secrets in its file. `kept` is what was read in that
/// file's place.
fn judged(sources: Sources<'_>, file: Option<(&Path, &str)>, kept: Option<&Path>) -> Result<Config, Refused> {
    if let Some((path, _)) = file {
        refuse_writable(kept.unwrap_or(path))?;
    }
    let config = config::load(sources, file)?;
    check_run_name(&config.paths)?;
    match kept.or(config.paths.config_file.as_deref()) {
        Some(path) if config.holds_literals() => refuse_readable(path)?,
        Some(_) | None => {}
    }
    Ok(config)
}

/// What the configuration says and where each value comes from, and the file.
pub(crate) fn explain(flags: &Flags, effective: bool) -> Result<(Explained, Option<String>), CliError> {
    let explained = with_file(flags, &[], None, |sources, file| {
        let explained = config::explain(sources, file, effective)?;
        Ok((explained, file.map(|(path, _)| path.display().to_string())))
    });
    explained.map_err(CliError::from)
}

/// Where the ports of the admin API and of agents come from: `option`, `environment`, `file`, `default`.
pub(crate) fn port_sources(flags: &Flags) -> [&'static str; 2] {
    let rows = explain(flags, true).map(|(explained, _)| explained.rows).unwrap_or_default();
    [&keys::ADMIN_ADDR, &keys::INGRESS_ADDR].map(|key| {
        let row = rows.iter().find(|row| Some(row.path.as_str()) == key.yaml || row.path == key.name());
        match row.map(|row| &row.place) {
            Some(Place::File { .. }) => "file",
            Some(Place::Environment(_) | Place::Saved(_)) => "environment",
            Some(Place::Flag(_)) => "option",
            Some(Place::Whole) | None => "default",
        }
    })
}

impl From<Mistakes> for Refused {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mistakes(mistakes)
    }
}

/// Whoever writes the file has us run programs and send secrets where they like.
fn refuse_writable(path: &Path) -> Result<(), Refused> {
    let mode = mode_of(path)?;
    if mode & 0o002 == 0 {
        return Ok(());
    }
    let name = path.display().to_string();
    let message = format!("every user of this machine can change it (mode {mode:04o}). chmod o-w {name}");
    Err(Refused::File(name, message))
}

fn mode_of(path: &Path) -> Result<u32, Refused> {
    match path.metadata() {
        Ok(found) => Ok(found.permissions().mode() & 0o777),
        Err(error) => Err(Refused::File(path.display().to_string(), error.to_string())),
    }
}

/// A file that holds secrets is its owner's alone.
fn refuse_readable(path: &Path) -> Result<(), Refused> {
    let mode = mode_of(path)?;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let name = path.display().to_string();
    let message = format!("holds secrets and has mode {mode:04o}: others can read it. chmod 600 {name}");
    Err(Refused::File(name, message))
}

/// The configuration as far as it can be made out, for commands that must tell what is wrong with it.
pub(crate) struct Looked {
    /// What is configured. Where the file cannot be used it is what options, environment and defaults say.
    pub(crate) config: Config,
    /// The file, whether or not it is there.
    pub(crate) file: PathBuf,
    /// Whether it is there.
    pub(crate) exists: bool,
    /// What is wrong: which value, and in words. Nothing where the configuration can be used.
    pub(crate) issues: Vec<(String, String)>,
}

/// Looks at the configuration without taking its mistakes for an end.
pub(crate) fn look(flags: &Flags) -> Result<Looked, CliError> {
    let judged = judge(flags, &[]);
    let place = |sources: Sources<'_>| Ok::<_, Refused>(config::locate(sources).path);
    let bare = Sources { flags, env: &env::lookup, saved: &|_| None, machine: &machine_facts };
    let file = with_sources(flags, &[], place).or_else(|_| place(bare)).map_err(CliError::from)?;
    let exists = file.exists();
    let refused = match judged {
        Ok(config) => return Ok(Looked { config, file, exists, issues: Vec::new() }),
        Err(refused) => refused,
    };
    let issues = match &refused {
        Refused::Mistakes(found) => {
            let list = found.list().iter().take(config::mistake::MAX_LISTED);
            list.map(|mistake| (mistake.path.clone(), mistake.line(found.file()))).collect()
        }
        Refused::File(path, message) | Refused::Missing(path, message) => {
            vec![(String::new(), format!("{path}: {message}"))]
        }
        Refused::Saved(message) => vec![(String::new(), message.clone())],
    };
    // A variable with a mistake says nothing about the others, nor about the file.
    let wrong = variables(&refused);
    let hidden = |sources: Sources<'_>, file: Option<(&Path, &str)>| {
        let env = |name: &str| (sources.env)(name).filter(|_| !wrong.contains(&name));
        Ok(config::load(Sources { env: &env, ..sources }, file)?)
    };
    let config = with_file(flags, &[], None, hidden);
    let config = config.or_else(|_| with_sources(flags, &[], |sources| Ok(config::load(sources, None)?)));
    let config = config.or_else(|_| with_sources(flags, &[], |sources| hidden(sources, None)));
    let config = config.or_else(|_| Ok::<_, Refused>(config::load(bare, None)?));
    let nothing = Sources { flags, env: &|_| None, saved: &|_| None, machine: &machine_facts };
    let config = config.or_else(|_| Ok::<_, Refused>(config::load(nothing, None)?)).map_err(|_| refused)?;
    let mut config = config;
    if check_run_name(&config.paths).is_err()
        && let Some(behind) = config.paths.run_behind.take()
    {
        // What a stranger left under our name is not looked into.
        config.paths.run_dir = behind;
    }
    Ok(Looked { config, file, exists, issues })
}

/// A short name of the run folder is ours alone. One that is missing where there is a folder is made again: what cleans
/// `/tmp` must not hide a gateway that runs.
fn check_run_name(paths: &Paths) -> Result<(), Refused> {
    let Some(behind) = &paths.run_behind else { return Ok(()) };
    let checked =
        if behind.is_dir() { short_name::make(&paths.run_dir, behind) } else { short_name::check(&paths.run_dir) };
    checked.map_err(|error| Refused::File(paths.run_dir.display().to_string(), error.to_string()))
}

/// Makes the run folder, where it goes by a short name, and that name: for roles that are started one by one.
pub(crate) fn make_run_folder(paths: &Paths) -> Result<(), CliError> {
    let Some(behind) = &paths.run_behind else { return Ok(()) };
    let made = files::own_folder(behind).and_then(|()| short_name::make(&paths.run_dir, behind));
    made.map_err(|error| CliError::new(Outcome::Config, format!("{}: {error}", paths.run_dir.display())))
}

/// Environment variables of the settings that are wrong.
fn variables(refused: &Refused) -> Vec<&'static str> {
    let Refused::Mistakes(found) = refused else { return Vec::new() };
    let wrong = |key: &&keys::Key| found.list().iter().any(|mistake| mistake.path == key.name());
    keys::ALL.iter().filter(wrong).flat_map(|key| key.env.iter().copied()).collect()
}

/// What bind modes ask of the machine.
fn machine_facts() -> Machine {
    let user = rustix::process::geteuid().as_raw();
    Machine { addresses: machine::interfaces(), container: machine::is_container(), user }
}

/// Gathers where values come from and reads the file.
fn with_file<T>(
    flags: &Flags,
    handed: &[(String, Secret)],
    kept: Option<&Path>,
    with: impl FnOnce(Sources<'_>, Option<(&Path, &str)>) -> Result<T, Refused>,
) -> Result<T, Refused> {
    with_sources(flags, handed, |sources| {
        let place = config::locate(sources);
        let read = kept.unwrap_or(&place.path);
        // It may hold secrets, where that is allowed.
        let text = match files::read_text(read, config::MAX_FILE_BYTES).map(Zeroizing::new) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !place.required => None,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Refused::Missing(read.display().to_string(), error.to_string()));
            }
            Err(error) => return Err(Refused::File(read.display().to_string(), error.to_string())),
        };
        with(sources, text.as_deref().map(|text| (place.path.as_path(), text.as_str())))
    })
}

/// Gathers where values come from.
fn with_sources<T>(
    flags: &Flags,
    handed: &[(String, Secret)],
    with: impl FnOnce(Sources<'_>) -> Result<T, Refused>,
) -> Result<T, Refused> {
    let saved = saved_text().map_err(|error| Refused::Saved(error.message))?;
    let find = |name: &str| {
        if NAMESPACE_NAMES.contains(&name) {
            return SAVED_NAMESPACE_NAMES.iter().find_map(|name| defaults::find(&saved, name));
        }
        defaults::find(&saved, name)
    };
    let given =
        |name: &str| handed.iter().find(|(known, _)| known == name).map(|(_, secret)| secret.expose().to_owned());
    let master_key = keys::MASTER_KEY.env.first().map_or(Ok(None), |name| secret_of_file(name))?;
    let in_file = |name: &str| {
        master_key.as_ref().filter(|_| keys::MASTER_KEY.env.contains(&name)).map(|key| key.expose().to_owned())
    };
    let found = |name: &str| given(name).or_else(|| env::lookup(name)).or_else(|| in_file(name));
    let lookup = |name: &str| found(name).or_else(|| credential(name)).or_else(|| blank_token(name));
    with(Sources { flags, env: &lookup, saved: &find, machine: &machine_facts })
}

/// The secret of a variable that is not set itself, from the file that `<name>_FILE` names, as containers are given secrets:
/// a file that is named must be there, hold something (another secret would be made in its place) and be closed to others.
pub(crate) fn secret_of_file(name: &str) -> Result<Option<Secret>, Refused> {
    if env::lookup(name).is_some() {
        return Ok(None);
    }
    let variable = format!("{name}_FILE");
    let Some(file) = env::lookup(&variable) else { return Ok(None) };
    let refused = |why: String| Refused::File(file.clone(), format!("{why} ({variable} names it)"));
    let io = |error: std::io::Error| refused(error.to_string());
    let opened = files::open_ordinary(Path::new(&file)).map_err(io)?;
    // Of the file that is read, whatever has its name by now.
    let found = opened.metadata().map_err(io)?;
    ownership::check_own(&Access::of(&found), &Us::now()).map_err(|why| refused(why.said(Path::new(&file))))?;
    let text = files::text_of(opened, MAX_CREDENTIAL).map(Zeroizing::new).map_err(io)?;
    let secret = Secret::new(text.trim().to_owned());
    if secret.expose().is_empty() { Err(refused("holds nothing".to_owned())) } else { Ok(Some(secret)) }
}

/// The master key as a service manager hands it over: a file in the folder of its credentials, which only this service
/// can read. It counts as one of the environment.
fn credential(name: &str) -> Option<String> {
    if !keys::MASTER_KEY.env.contains(&name) {
        return None;
    }
    let folder = env::lookup(CREDENTIALS)?;
    let file = PathBuf::from(folder).join(systemd::MASTER_KEY);
    let text = files::read_text(&file, MAX_CREDENTIAL).map(Zeroizing::new).ok()?;
    Some(text.trim().to_owned()).filter(|key| !key.is_empty())
}

/// A token or password that was meant and is not there must show, where a listener would count on it.
fn blank_token(name: &str) -> Option<String> {
    let meant = keys::ADMIN_TOKEN.env.contains(&name) || keys::ADMIN_PASSWORD.env.contains(&name);
    (meant && env::is_blank(name)).then(String::new)
}

/// Settings of a process that must do without files: options, environment, defaults.
pub(crate) fn load_without_files(flags: &Flags) -> Result<Config, CliError> {
    let sources = Sources { flags, env: &env::lookup, saved: &|_| None, machine: &machine_facts };
    config::load(sources, None).map_err(|mistakes| CliError::from(Refused::Mistakes(mistakes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use std::fs;

    use super::*;

    /// What a start says of a file, and what a reload does.
    fn refusals(flags: &Flags) -> [Option<String>; 2] {
        [
            load(flags, &[]).err().map(|error| error.message),
            read(flags, &[], None).err().map(|unusable| unusable.message),
        ]
    }

    #[test]
    fn a_file_that_everybody_may_change_counts_neither_at_the_start_nor_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        fs::write(&path, "log: {level: info}\n").unwrap();
        let mut flags = Flags::default();
        flags.set(&keys::CONFIG_FILE, Some(path.display().to_string()));
        let words = format!("chmod o-w {}", path.display());
        for mode in [0o646, 0o602, 0o666, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for said in refusals(&flags) {
                let said = said.unwrap();
                assert!(said.contains(&words) && said.contains(&format!("mode {mode:04o}")), "{said}");
            }
            let outcome = load(&flags, &[]).unwrap_err().outcome;
            assert_eq!(outcome, Outcome::Config);
        }
        // A group may share it, as a repository does.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        for said in refusals(&flags).into_iter().flatten() {
            assert!(!said.contains("chmod"), "{said}");
        }
    }

    #[test]
    fn what_is_read_in_the_place_of_the_file_is_judged_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (path, kept) = (folder.path().join("gateway.yaml"), folder.path().join("kept"));
        for (file, mode) in [(&path, 0o666), (&kept, 0o600)] {
            fs::write(file, "log: {level: info}\n").unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut flags = Flags::default();
        flags.set(&keys::CONFIG_FILE, Some(path.display().to_string()));
        let said =
            |kept: &Path| read(&flags, &[], Some(kept)).err().map(|unusable| unusable.message).unwrap_or_default();
        assert!(!said(&kept).contains("chmod"), "{}", said(&kept));
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o602)).unwrap();
        assert!(said(&kept).contains("chmod o-w"), "{}", said(&kept));
    }
}
