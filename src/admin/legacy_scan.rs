//! Reads the files in which OpenClaw keeps keys in clear. What is read is wiped from memory, and shown nowhere.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::config::dotenv;
use crate::config::dotenv::Value;
use crate::domain::json_spans;
use crate::domain::json_spans::Text;
use crate::domain::legacy;
use crate::domain::legacy::Found;
use crate::domain::legacy::Known;
use crate::domain::legacy::SourceType;
use crate::domain::secret::Secret;
use crate::sys::files;

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Findings of one scan: a hundred times what people have.
const MAX_FINDINGS: usize = 1000;
/// Longest place of a finding, in bytes.
const MAX_LOCATION: usize = 512;
/// Texts of a manifest that are looked at together.
const MAX_TEXTS: usize = 10_000;
/// Where `openclaw.json` names the workspace, the stronger place first.
const WORKSPACES: [&[&str]; 2] = [&["agents", "defaults", "workspace"], &["defaults", "workspace"]];
/// What a manifest calls a value that is named beside it, or above it.
const VALUE: &str = "value";
/// Members of a manifest that say beside a `value` what it is the value of.
const NAMING: [&str; 6] = ["variable", "env_var", "env", "key", "name", "field"];

/// Where the files are.
#[derive(Debug, Clone, Default)]
pub struct LegacyPlaces {
    home: Option<PathBuf>,
    config: Option<PathBuf>,
    report: Option<PathBuf>,
    user: Option<PathBuf>,
}

impl LegacyPlaces {
    /// As the environment names them: `OPENCLAW_HOME`, else `~/.openclaw`; `OPENCLAW_CONFIG_PATH`;
    /// `OPENCLAW_LEGACY_RUNTIME_REPORT_PATH`.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let path = |name| lookup(name).map(PathBuf::from);
        let user = path("HOME");
        let home = path("OPENCLAW_HOME").or_else(|| user.as_ref().map(|user| user.join(".openclaw")));
        Self {
            config: path("OPENCLAW_CONFIG_PATH").or_else(|| home.as_ref().map(|home| home.join("openclaw.json"))),
            report: path("OPENCLAW_LEGACY_RUNTIME_REPORT_PATH")
                .or_else(|| home.as_ref().map(|home| home.join(".sigilum/legacy-runtime-credentials.json"))),
            home,
            user,
        }
    }

    /// The workspace that `openclaw.json` names, else the one in the home.
    fn workspace(&self, named: Option<&Secret>) -> Option<PathBuf> {
        let Some(named) = named.map(|named| named.expose().trim()).filter(|named| !named.is_empty()) else {
            return self.home.as_ref().map(|home| home.join("workspace"));
        };
        match (named.strip_prefix('~'), &self.user, &self.home) {
            (Some(rest), Some(user), _) if rest.is_empty() || rest.starts_with('/') => {
                Some(user.join(rest.trim_start_matches('/')))
            }
            (_, _, Some(home)) => Some(home.join(named)),
            (_, _, None) => Path::new(named).is_absolute().then(|| PathBuf::from(named)),
        }
    }
}

/// A file that was read.
pub struct ScannedFile {
    /// Where.
    pub path: PathBuf,
    /// What stands there.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl ScannedFile {
    /// Its path, for people and ids.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

impl fmt::Debug for ScannedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ScannedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The files, in the order they were read.
    pub files: Vec<ScannedFile>,
    /// The keys in them.
    pub found: Vec<Found>,
    /// What could not be read, and why. No value.
    pub warnings: Vec<String>,
}

/// Reads all of them. Files are slow: not on a thread that serves.
pub fn scan(places: &LegacyPlaces, known: &Known) -> Scan {
    let mut scan = Scan::default();
    let named = places.config.as_ref().and_then(|path| scan.json(path, SourceType::Config, known));
    let workspace = places.workspace(named.as_ref());
    for folder in places.home.iter().chain(&workspace) {
        for name in [".env", ".env.local"] {
            scan.dotenv(&folder.join(name), known);
        }
    }
    if let Some(path) = &places.report {
        scan.json(path, SourceType::Manifest, known);
    }
    scan.found = legacy::settle(std::mem::take(&mut scan.found));
    if scan.found.len() > MAX_FINDINGS {
        scan.warnings.push(format!("more than {MAX_FINDINGS} keys: only the first ones are listed"));
        scan.found.truncate(MAX_FINDINGS);
    }
    scan
}

impl Scan {
    /// Reads one; `None` where nothing is to be had of it.
    fn read(&mut self, path: &Path) -> Option<usize> {
        if self.files.iter().any(|file| file.path == path) {
            return None;
        }
        match files::read_bytes(path, MAX_FILE_BYTES).map(Zeroizing::new) {
            Ok(bytes) => {
                self.files.push(ScannedFile { path: path.to_owned(), bytes });
                Some(self.files.len().saturating_sub(1))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
            Err(error) => {
                self.warnings.push(format!("{} was not read: {}", path.display(), reason(&error)));
                None
            }
        }
    }

    fn dotenv(&mut self, path: &Path, known: &Known) {
        let Some(file) = self.read(path) else { return };
        let Some(read) = self.files.get(file) else { return };
        for assignment in dotenv::parse(&read.bytes) {
            // One more than is listed says that there are more.
            if self.found.len() > MAX_FINDINGS {
                break;
            }
            let Value::Text(value) = assignment.value else { continue };
            let Some(provider) = known.provider_of(&assignment.name) else { continue };
            let provider = provider.to_owned();
            if let Some(value) = key_in(&value) {
                let (source, field) = (SourceType::Dotenv, assignment.name.clone());
                let (location, spans) = (assignment.name, vec![assignment.span]);
                self.found.push(Found { provider, field, source, file, location, value, spans });
            }
        }
    }

    /// Reads JSON, and answers with the workspace it names.
    fn json(&mut self, path: &Path, source: SourceType, known: &Known) -> Option<Secret> {
        let file = self.read(path)?;
        let read = self.files.get(file)?;
        let mut found: Vec<(Found, Vec<String>)> = Vec::new();
        let mut workspaces = [None, None];
        let mut manifest = BTreeMap::new();
        let walked = json_spans::texts(&read.bytes, |text| {
            for (named, at) in workspaces.iter_mut().zip(WORKSPACES) {
                if *text.path == *at {
                    *named = Some(text.value.duplicate());
                }
            }
            if source == SourceType::Manifest && manifest.len() < MAX_TEXTS {
                manifest.insert(text.path.to_vec(), text.value.duplicate());
            }
            // One more than is listed says that there are more.
            if found.len() <= MAX_FINDINGS {
                let path = text.path.to_vec();
                found.extend(finding(text, source, file, known).map(|one| (one, path)));
            }
        });
        if let Err(error) = walked {
            self.warnings.push(format!("{}: {error}; no key in it is listed", path.display()));
            return None;
        }
        for (mut one, path) in found {
            if one.field != VALUE || rename(&mut one, &path, &manifest, known) {
                self.found.push(one);
            }
        }
        let [agents, defaults] = workspaces;
        agents.or(defaults)
    }
}

fn finding(text: Text<'_>, source: SourceType, file: usize, known: &Known) -> Option<Found> {
    let field = text.path.last()?;
    let is_named_elsewhere = source == SourceType::Manifest && field == VALUE;
    if !known.is_credential(field) && !is_named_elsewhere
        // What a hook of ours wrote down is none of ours.
        || source == SourceType::Config && legacy::is_own(text.path)
    {
        return None;
    }
    let location = text.path.join(".");
    if location.len() > MAX_LOCATION {
        return None;
    }
    let (provider, value) = (known.provider_at(text.path), key_in(&text.value)?);
    Some(Found { provider, field: field.clone(), source, file, location, value, spans: vec![text.span] })
}

/// Gives a `value` of a manifest the name that stands beside it or above it. Where none does it is no key.
fn rename(one: &mut Found, path: &[String], manifest: &BTreeMap<Vec<String>, Secret>, known: &Known) -> bool {
    let Some((_, parents)) = path.split_last() else { return false };
    let beside = |name: &str| {
        let place = [parents, &[name.to_owned()]].concat();
        manifest.get(&place).map(|text| text.expose().trim().to_owned())
    };
    let named = NAMING.iter().filter_map(|name| beside(name)).find(|name| known.is_credential(name));
    let above = || parents.last().filter(|name| known.is_credential(name)).cloned();
    let Some(field) = named.or_else(above) else { return false };
    let own = known.provider_of(&field).map(ToOwned::to_owned);
    let told = || beside("provider").map(|word| known.provider_called(&word).unwrap_or_else(|| legacy::slug(&word)));
    if let Some(provider) = own.or_else(told) {
        one.provider = provider;
    }
    one.field = field;
    true
}

/// Why a file cannot be used: in our words, or the sort of error it is for the operating system.
pub(super) fn reason(error: &io::Error) -> String {
    if error.raw_os_error().is_some() { error.kind().to_string() } else { error.to_string() }
}

/// The key a text is; `None` where it is blank, or says where the key is.
fn key_in(text: &Secret) -> Option<Secret> {
    let key = text.expose().trim();
    (!key.is_empty() && !legacy::is_elsewhere(key)).then(|| Secret::new(key.to_owned()))
}

#[cfg(test)]
#[path = "legacy_scan_tests.rs"]
mod tests;
