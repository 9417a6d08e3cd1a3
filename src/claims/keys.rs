//! Service keys: which key the control plane is asked with about one service.
//!
//! Searched anew at every use, because people write key files while the gateway runs: the variable of the service,
//! its file in each folder, the variable for all services. The first that is not blank counts, without the blanks
//! around it.

use std::path::Path;
use std::path::PathBuf;

use crate::config::profile;
use crate::domain::ids::ConnectionId;
use crate::domain::secret::Secret;
use crate::sys::files;
use crate::wire::service_key::KeySource;

/// Holds the key of every service that has none of its own. With `_` and the service's name in upper case, every
/// run of other characters than letters and digits as one `_`, it names that service's own.
pub const VARIABLE: &str = "SIGILUM_SERVICE_API_KEY";
/// Before the service's name: its key file.
const FILE_PREFIX: &str = "service-api-key-";
/// Largest key file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// Whether a variable of this name holds a service key.
pub fn is_variable(name: &str) -> bool {
    name.strip_prefix(VARIABLE).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// The variable that holds the key of one service, e.g. `SIGILUM_SERVICE_API_KEY_DEMO_SERVICE`.
pub fn variable(service: &str) -> String {
    let words = service.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let suffix = words.map(str::to_ascii_uppercase).collect::<Vec<_>>().join("_");
    format!("{VARIABLE}_{}", if suffix.is_empty() { "DEFAULT" } else { &suffix })
}

/// Where keys are looked for.
#[derive(Debug, Default)]
pub struct KeyPlaces {
    variables: Vec<(String, Secret)>,
    folders: Vec<PathBuf>,
}

impl KeyPlaces {
    /// Takes the variables that hold service keys, others are passed over, and the folders of the key files,
    /// strongest first.
    pub fn new(variables: impl IntoIterator<Item = (String, Secret)>, folders: Vec<PathBuf>) -> Self {
        let variables = variables.into_iter().filter(|(name, _)| is_variable(name)).collect();
        Self { variables, folders }
    }

    /// The folders every tool of this family looks into: the gateway's home, `SIGILUM_HOME`, and those of the user. A profile
    /// has nothing to do with the last: they hold the keys of the gateway that is none.
    pub fn folders(home: &Path, lookup: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
        let user = lookup("HOME").filter(|_| profile::suffix(&lookup).is_empty()).map(PathBuf::from);
        let of_user = |rest: &str| user.as_ref().map(|user| user.join(rest));
        let all = [
            Some(home.to_owned()),
            lookup("SIGILUM_HOME").map(PathBuf::from),
            of_user(".sigilum"),
            of_user(".openclaw/workspace/.sigilum"),
            of_user(".openclaw/.sigilum"),
        ];
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in all.into_iter().flatten() {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders
    }

    /// The file a person would put the key of this service into.
    pub fn file(&self, service: &str) -> Option<PathBuf> {
        self.folders.first().map(|folder| file_in(folder, service))
    }

    fn variable(&self, wanted: &str) -> Option<Secret> {
        self.variables.iter().filter(|(name, _)| name == wanted).find_map(|(_, secret)| filled(secret.expose()))
    }
}

/// The key of one service. Reads files, so not on a thread that serves.
pub fn service_key(service: &str, places: &KeyPlaces) -> Option<Secret> {
    find(service, places).map(|(key, _)| key)
}

/// The key of one service, and whose it is. Reads files.
pub fn find(service: &str, places: &KeyPlaces) -> Option<(Secret, KeySource)> {
    let own = places.variable(&variable(service)).or_else(|| from_files(service, places));
    let shared = || places.variable(VARIABLE).map(|key| (key, KeySource::Shared));
    own.map(|key| (key, KeySource::Service)).or_else(shared)
}

/// A name that is no slug could lead out of the folder.
fn from_files(service: &str, places: &KeyPlaces) -> Option<Secret> {
    let service = ConnectionId::parse(service).ok()?;
    places.folders.iter().find_map(|folder| {
        let path = file_in(folder, service.as_str());
        match files::read_text(&path, MAX_FILE_BYTES) {
            Ok(text) => filled(Secret::new(text).expose()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a service key file cannot be read");
                None
            }
        }
    })
}

fn file_in(folder: &Path, service: &str) -> PathBuf {
    folder.join(format!("{FILE_PREFIX}{service}"))
}

fn filled(text: &str) -> Option<Secret> {
    let text = text.trim();
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic and write")]

    use super::*;

    fn places(variables: &[(&str, &str)], folders: &[&Path]) -> KeyPlaces {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned())));
        KeyPlaces::new(variables, folders.iter().map(|folder| (*folder).to_owned()).collect())
    }

    fn key(service: &str, places: &KeyPlaces) -> Option<String> {
        service_key(service, places).map(|key| key.expose().to_owned())
    }

    #[test]
    fn a_variable_is_the_name_in_upper_case_with_single_underscores() {
        for (service, suffix) in [
            ("linear", "LINEAR"),
            ("demo-service-native", "DEMO_SERVICE_NATIVE"),
            ("a--b", "A_B"),
            ("-a.b-", "A_B"),
            ("---", "DEFAULT"),
            ("", "DEFAULT"),
            ("ü1", "1"),
        ] {
            assert_eq!(variable(service), format!("{VARIABLE}_{suffix}"), "{service}");
        }
        assert!(is_variable(VARIABLE) && is_variable("SIGILUM_SERVICE_API_KEY_A"));
        assert!(!is_variable("SIGILUM_SERVICE_API_KEYS") && !is_variable("SIGILUM_SERVICE_API"));
    }

    #[test]
    fn the_own_variable_wins_then_the_files_in_order_then_the_variable_for_all() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [first.path(), second.path()];
        std::fs::write(first.path().join("service-api-key-linear"), " \n").unwrap();
        std::fs::write(second.path().join("service-api-key-linear"), " from-file\n").unwrap();
        let all = places(&[(VARIABLE, "for-all"), ("SIGILUM_SERVICE_API_KEY_LINEAR", " own ")], &folders);
        assert_eq!(key("linear", &all).as_deref(), Some("own"));
        let blank = places(&[(VARIABLE, "for-all"), ("SIGILUM_SERVICE_API_KEY_LINEAR", "  ")], &folders);
        assert_eq!(key("linear", &blank).as_deref(), Some("from-file"), "a blank one does not count");
        assert_eq!(key("github", &blank).as_deref(), Some("for-all"));
        let source = |service| find(service, &blank).map(|(_, source)| source);
        assert_eq!((source("linear"), source("github")), (Some(KeySource::Service), Some(KeySource::Shared)));
        assert_eq!(key("github", &places(&[], &folders)), None);
        // Read anew every time.
        std::fs::write(first.path().join("service-api-key-linear"), "nearer").unwrap();
        assert_eq!(key("linear", &blank).as_deref(), Some("nearer"));
    }

    #[test]
    fn a_name_that_is_no_slug_reaches_no_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("service-api-key-x")).unwrap();
        std::fs::write(folder.path().join("stolen"), "stolen").unwrap();
        std::fs::write(folder.path().join("service-api-key-AB-C"), "upper").unwrap();
        let places = places(&[(VARIABLE, "for-all")], &[folder.path()]);
        for service in ["x/../stolen", "AB-C", "", "ab"] {
            assert_eq!(key(service, &places).as_deref(), Some("for-all"), "{service}");
        }
    }

    #[test]
    fn what_is_too_large_to_be_a_key_is_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("service-api-key-big"), "x".repeat(20_000)).unwrap();
        assert_eq!(key("big", &places(&[], &[folder.path()])), None);
    }

    #[test]
    fn the_folders_are_the_gateways_and_the_users_each_once() {
        let lookup = |name: &str| match name {
            "HOME" => Some("/u".to_owned()),
            "SIGILUM_HOME" => Some("/g".to_owned()),
            _ => None,
        };
        let folders = KeyPlaces::folders(Path::new("/g"), lookup);
        let wanted = ["/g", "/u/.sigilum", "/u/.openclaw/workspace/.sigilum", "/u/.openclaw/.sigilum"];
        assert_eq!(folders, wanted.map(PathBuf::from));
    }
}
