//! Files, folders and processes of this installation.

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::app::checkup::DATABASE_FILE;
use crate::app::gateway;
use crate::app::gateway::instance;
use crate::app::gateway::instance::Instance;
use crate::app::own_listener;
use crate::cli::auth::openclaw;
use crate::cli::doctor::facts::IdentityFact;
use crate::cli::doctor::facts::InstanceFacts;
use crate::cli::doctor::facts::ModeFact;
use crate::cli::doctor::facts::OpenclawFact;
use crate::cli::doctor::facts::Owner;
use crate::cli::doctor::facts::Privacy;
use crate::cli::doctor::managed::Integration;
use crate::cli::gateway::launch;
use crate::cli::gateway::master_key;
use crate::cli::owner;
use crate::cli::secrets::audit;
use crate::cli::settings;
use crate::config::Config;
use crate::config::parts::GivenSecret;
use crate::domain::ids::Namespace;
use crate::identity::Home;
use crate::identity::IdentityError;
use crate::secrets::residue::Finding as Residue;
use crate::secrets::residue::Fingerprints;
use crate::secrets::residue::Search;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::env;
use crate::sys::files;
use crate::sys::process::ProcessIdentity;

/// Largest lock file that is read, in bytes.
const MAX_LOCK: u64 = 256;
/// Largest `openclaw.json` that is read, in bytes.
const MAX_OPENCLAW: u64 = 8 * 1024 * 1024;
/// Entries of a folder that are looked at.
const MAX_ENTRIES: usize = 1000;
/// Our notifier in OpenClaw's configuration.
const NOTIFIER: &str = "/hooks/internal/entries/sigilum-authz-notify";

/// Our plugin in it.
const PLUGIN: &str = "/hooks/internal/entries/sigilum-plugin";
/// Our skill in it.
const SKILL: &str = "/skills/entries/sigilum";
/// How the file of a service key begins.
const SERVICE_KEY: &str = "service-api-key-";
/// The services of a local stack, as their key files are called in earlier reports.
const KEY_FILES: [(&str, &str); 3] = [
    ("Gateway key file", "sigilum-gateway"),
    ("Demo native key file", "demo-service-native"),
    ("Demo gateway key file", "demo-service-gateway"),
];

/// The processes that were written down, and what those that are gone left.
pub(super) fn instance(config: &Config, running: Option<&Instance>) -> InstanceFacts {
    let run = &config.paths.run_dir;
    let lock = config.paths.data_dir.join(gateway::LOCK_FILE);
    let supervisor = running.map(|found| found.supervisor.pid);
    let written = Instance::read(run);
    let children = written.iter().flat_map(|found| &found.children);
    let alive = children.filter(|child| child.process.is_alive()).map(|child| child.process.pid);
    let pids: Vec<i32> = supervisor.into_iter().chain(alive).collect();
    let mut stale = Vec::new();
    if supervisor.is_none() {
        stale.extend(written.map(|_| instance::path(run)));
        stale.extend(entries(run).into_iter().filter(|path| is_dead_socket(path)));
    }
    let stranger = holder(&lock).filter(|(pid, _)| Some(*pid) != supervisor).map(|(_, named)| named);
    let users = own_listener::users(&config.paths.data_dir);
    InstanceFacts { supervisor, pids, users, stale, lock, stranger }
}

/// Who is named in a lock that is held: pid, and in words.
fn holder(lock: &Path) -> Option<(i32, String)> {
    let text = files::read_text(lock, MAX_LOCK).ok()?;
    let pid: i32 = text.strip_prefix("pid ")?.split_whitespace().next()?.parse().ok()?;
    ProcessIdentity::of(pid)?;
    // A killed holder leaves its name; whether somebody has the lock only the kernel knows. It is let go at once, and who
    // wants it meanwhile tries again.
    let held = File::open(lock).is_ok_and(|file| file.try_lock_shared().is_err());
    held.then(|| (pid, text.trim().to_owned()))
}

/// Whether nobody listens on a socket any more.
pub(super) fn is_dead_socket(path: &Path) -> bool {
    let socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    socket && UnixStream::connect(path).err().is_some_and(refused)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Processes that could leave a core dump.
pub(super) fn cores(pids: &[i32]) -> Vec<(i32, String)> {
    let limit = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max core file size"))?;
        let soft = line.split_whitespace().next().filter(|soft| *soft != "0")?;
        Some((*pid, soft.to_owned()))
    };
    pids.iter().filter_map(limit).collect()
}

/// Who may use what of the gateway's is there.
pub(super) fn modes(config: &Config, settings_file: &Path) -> Vec<ModeFact> {
    let paths = &config.paths;
    let saved = settings::saved_file();
    let background = settings::background_folder();
    let logs = paths.data_dir.join("logs");
    let key = master_key::file(config);
    let mut wanted: Vec<(PathBuf, Privacy)> = Vec::new();
    let mut add = |path: PathBuf, privacy| wanted.push((path, privacy));
    for folder in [&paths.home, &paths.data_dir, &paths.run_dir, &logs, &background] {
        add(folder.clone(), Privacy::Own);
    }
    let identities = paths.home.join("identities");
    for folder in entries(&identities) {
        add(folder.join("identity.json"), Privacy::Secret);
        add(folder, Privacy::Own);
    }
    add(identities, Privacy::Own);
    add(files::beside(&key, ".next"), Privacy::Secret);
    add(key, Privacy::Secret);
    add(paths.data_dir.join("admin-token"), Privacy::Secret);
    if let Some(GivenSecret::File(file)) = &config.admin.password {
        add(file.clone(), Privacy::Shared);
    }
    add(background.join("pair-session.json"), Privacy::Secret);
    add(saved, Privacy::Secret);
    let literals = if config.holds_literals() { Privacy::Secret } else { Privacy::Readable };
    add(settings_file.to_owned(), literals);
    add(paths.data_dir.join(DATABASE_FILE), Privacy::Own);
    for entry in entries(&logs) {
        add(entry, Privacy::Own);
    }
    // Root looks with the eyes of the user whose gateway it is.
    let us = match rustix::process::geteuid() {
        root if root.is_root() => fs::metadata(&paths.data_dir).map_or(root.as_raw(), |found| found.uid()),
        us => us.as_raw(),
    };
    let mut seen = Vec::new();
    let mut facts = Vec::new();
    for (path, privacy) in wanted {
        if seen.contains(&path) {
            continue;
        }
        facts.extend(mode(&path, privacy, us));
        seen.push(path);
    }
    facts
}

/// `us`: the user of the gateway.
fn mode(path: &Path, privacy: Privacy, us: u32) -> Option<ModeFact> {
    let found = fs::metadata(path).ok()?;
    // A home folder, or a place of the whole machine, is not ours alone, whatever the settings put there.
    let home = env::lookup("HOME").map(PathBuf::from);
    let general = found.is_dir()
        && (path.parent().is_none_or(|parent| parent.parent().is_none()) || home.as_deref() == Some(path));
    let privacy = if general { Privacy::Readable } else { privacy };
    let owner = match found.uid() {
        user if user == us => Owner::Us,
        0 => Owner::Root,
        user => Owner::Other(user),
    };
    Some(ModeFact { path: path.to_owned(), privacy, folder: found.is_dir(), mode: found.mode() & 0o7777, owner })
}

/// Folders that should be there.
pub(super) fn missing(config: &Config) -> Vec<PathBuf> {
    let folders = [&config.paths.home, &config.paths.data_dir];
    folders.into_iter().filter(|folder| !folder.exists()).cloned().collect()
}

/// The gateway's identity, and its file where there is one.
pub(super) fn identity(config: &Config) -> (IdentityFact, Option<PathBuf>) {
    let home = Home::new(&config.paths.home);
    let namespace = match &config.namespace {
        Some(namespace) => Ok(namespace.clone()),
        None => home.namespace(None, |_| None),
    };
    let path = namespace.as_ref().ok().map(|namespace| home.record_path(namespace));
    let loaded = namespace.and_then(|namespace| home.load(&namespace, SystemClock.now().seconds()).map(|_| namespace));
    let file = path.clone().filter(|path| path.is_file());
    let place = || path.clone().unwrap_or_else(|| home.path().to_owned());
    let fact = match loaded {
        Ok(namespace) => IdentityFact::Valid(namespace.to_string(), place()),
        Err(
            error @ (IdentityError::None { .. }
            | IdentityError::NotFound { .. }
            | IdentityError::Several { .. }
            | IdentityError::Namespace { .. }
            | IdentityError::Random(_)),
        ) => IdentityFact::None(home.path().to_owned(), error.to_string()),
        Err(error @ (IdentityError::Io { .. } | IdentityError::Malformed { .. } | IdentityError::Invalid { .. })) => {
            IdentityFact::Wrong(place(), error.to_string())
        }
    };
    (fact, file)
}

/// Whether an identity and the master key are in one user's hands; `None` where there is no key yet.
pub(super) fn same_owner(record: &Path, config: &Config) -> Option<bool> {
    let key = master_key::file(config);
    let is_there = config.master_key.is_some() || key.exists();
    is_there.then(|| launch::same_owner(record, &key, config.master_key.is_some()))
}

/// OpenClaw's configuration, and what stands in it where it can be read.
pub(super) fn openclaw() -> (OpenclawFact, Option<Value>) {
    let home = owner::openclaw_home();
    let path = env::lookup("OPENCLAW_CONFIG_PATH").map_or_else(|| home.join("openclaw.json"), PathBuf::from);
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound && owner::is_openclaw_used(&home) => {
            return (OpenclawFact::Missing(path), None);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (OpenclawFact::Absent, None),
        Err(error) => return (OpenclawFact::Unreadable(path, error.to_string()), None),
    };
    let mode = found.mode() & 0o7777;
    // Tokens stand there.
    let text = match files::read_text(&path, MAX_OPENCLAW).map(Zeroizing::new) {
        Ok(text) => text,
        Err(error) => return (OpenclawFact::Unreadable(path, error.to_string()), None),
    };
    let value = match openclaw::read(&text) {
        Ok(value) => value,
        Err(wrong) => return (OpenclawFact::Broken(path, mode, wrong.to_string()), None),
    };
    let notifies = value.pointer(NOTIFIER).and_then(|entry| entry.get("enabled")).and_then(Value::as_bool);
    let token = said(&value, &format!("{NOTIFIER}/env/{}", owner::OWNER_TOKEN)).is_some();
    (OpenclawFact::Read { path, mode, notifies: notifies.unwrap_or(false), token }, Some(value))
}

/// A text of OpenClaw's configuration that is not blank.
fn said(value: &Value, pointer: &str) -> Option<String> {
    let text = value.pointer(pointer)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// How OpenClaw and this machine are tied to Sigilum: its configuration counts more than the environment.
pub(super) fn integration(config: &Config, openclaw: Option<&Value>) -> Integration {
    let environments = [PLUGIN, NOTIFIER, SKILL].map(|entry| format!("{entry}/env")).into_iter();
    let environments: Vec<_> = environments.chain(["/env/vars".to_owned()]).collect();
    let first = |name: &str| {
        let inside = |value| environments.iter().find_map(|place| said(value, &format!("{place}/{name}")));
        openclaw.and_then(inside).or_else(|| env::lookup(name).filter(|text| !text.trim().is_empty()))
    };
    let namespace = first("SIGILUM_NAMESPACE").or_else(|| config.namespace.as_ref().map(ToString::to_string));
    let stored = namespace.as_deref().and_then(|name| Namespace::parse(name).ok());
    let stored = stored.is_some_and(|namespace| owner::token_file(&owner::openclaw_home(), &namespace).exists());
    let home = first("SIGILUM_HOME").map(PathBuf::from);
    let key = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SERVICE_KEY));
    let in_home = home.as_deref().is_some_and(|home| entries(home).iter().any(key));
    let key_files = KEY_FILES.map(|(label, slug)| {
        let path = config.paths.home.join(format!("{SERVICE_KEY}{slug}"));
        let exists = path.exists();
        (label, path, exists)
    });
    Integration {
        mode: first("SIGILUM_MODE"),
        namespace,
        owner_token: stored || first(owner::OWNER_TOKEN).is_some(),
        home,
        service_key: in_home || first("SIGILUM_SERVICE_API_KEY").is_some(),
        key_files: key_files.to_vec(),
    }
}

/// Secrets in clear; none where there is no randomness to make fingerprints with.
pub(super) fn residue(config: &Config) -> Vec<Residue> {
    let Ok(fingerprints) = Fingerprints::new() else { return Vec::new() };
    let mut search = Search::new(&fingerprints);
    audit::at_rest(config, &mut search);
    search.findings
}
