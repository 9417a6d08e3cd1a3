//! Where identities live, and which one is meant.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::domain::ids::Namespace;
use crate::identity::error::IdentityError;

/// Names the home folder.
const HOME_VARIABLE: &str = "SIGILUM_HOME";
/// Names the namespace.
const NAMESPACE_VARIABLE: &str = "SIGILUM_NAMESPACE";
/// The record within the folder of a namespace.
const RECORD: &str = "identity.json";

/// The folder that holds `identities/`; usually `~/.sigilum`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// Takes a folder as it is; it need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The explicit folder, else `SIGILUM_HOME` unless blank, else `$HOME/.sigilum`, else `.sigilum`
    /// in the working directory.
    pub fn resolve(explicit: Option<&Path>, lookup: impl Fn(&str) -> Option<String>) -> Self {
        let filled = |name| lookup(name).filter(|value| !value.trim().is_empty());
        if let Some(path) = explicit.filter(|path| !path.as_os_str().is_empty()) {
            return Self::new(path);
        }
        if let Some(path) = filled(HOME_VARIABLE) {
            return Self::new(path);
        }
        Self(filled("HOME").map(PathBuf::from).unwrap_or_default().join(".sigilum"))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `<home>/identities/<namespace>/identity.json`.
    pub fn record_path(&self, namespace: &Namespace) -> PathBuf {
        self.identities().join(namespace.as_str()).join(RECORD)
    }

    /// The namespaces that have a record, sorted. Folders whose names are no namespaces are none of ours.
    pub fn list(&self) -> Result<Vec<Namespace>, IdentityError> {
        let folder = self.identities();
        let failed = |source| IdentityError::Io { path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let namespace = entry.file_name().to_str().and_then(|name| Namespace::parse(name).ok());
            if let Some(namespace) = namespace.filter(|_| entry.path().join(RECORD).is_file()) {
                found.push(namespace);
            }
        }
        found.sort();
        Ok(found)
    }

    /// The explicit namespace, else `SIGILUM_NAMESPACE` unless blank, else the only one on disk.
    /// `None` or `Several` where the disk does not settle it.
    pub fn namespace(
        &self,
        explicit: Option<&str>,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Namespace, IdentityError> {
        let given = explicit.map(str::to_owned).filter(|given| !given.trim().is_empty());
        let given = given.or_else(|| lookup(NAMESPACE_VARIABLE).filter(|value| !value.trim().is_empty()));
        if let Some(given) = given {
            return Namespace::normalise(&given).map_err(|source| IdentityError::Namespace { given, source });
        }
        let mut found = self.list()?;
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(IdentityError::None { home: self.0.clone() }),
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                found.push(last);
                let names = found.iter().map(|namespace| namespace.as_str().to_owned()).collect();
                Err(IdentityError::Several { home: self.0.clone(), names })
            }
        }
    }

    fn identities(&self) -> PathBuf {
        self.0.join("identities")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

    use super::*;

    fn environment(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_home_is_explicit_then_from_the_environment_then_the_default() {
        let both = environment(&[("SIGILUM_HOME", "/env"), ("HOME", "/user")]);
        assert_eq!(Home::resolve(Some(Path::new("/flag")), &both).path(), Path::new("/flag"));
        assert_eq!(Home::resolve(None, &both).path(), Path::new("/env"));
        let blank = environment(&[("SIGILUM_HOME", "  "), ("HOME", "/user")]);
        assert_eq!(Home::resolve(None, blank).path(), Path::new("/user/.sigilum"));
        assert_eq!(Home::resolve(None, environment(&[])).path(), Path::new(".sigilum"));
    }

    #[test]
    fn the_namespace_is_explicit_then_from_the_environment_then_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let set = environment(&[("SIGILUM_NAMESPACE", "from-env")]);
        assert_eq!(home.namespace(Some(" Explicit "), &set).unwrap().as_str(), "explicit");
        assert_eq!(home.namespace(Some(" "), &set).unwrap().as_str(), "from-env");
        assert!(matches!(home.namespace(Some("../x"), &set), Err(IdentityError::Namespace { .. })));
        let unset = environment(&[("SIGILUM_NAMESPACE", "")]);
        assert!(matches!(home.namespace(None, &unset), Err(IdentityError::None { .. })));
        for (name, file) in [("alice", RECORD), ("empty", "other.json"), ("NO", RECORD)] {
            fs::create_dir_all(folder.path().join("identities").join(name)).unwrap();
            fs::File::create(folder.path().join("identities").join(name).join(file)).unwrap();
        }
        assert_eq!(home.namespace(None, &unset).unwrap().as_str(), "alice");
        fs::create_dir_all(folder.path().join("identities/aaron")).unwrap();
        fs::File::create(folder.path().join("identities/aaron").join(RECORD)).unwrap();
        match home.namespace(None, &unset) {
            Err(IdentityError::Several { names, .. }) => assert_eq!(names, ["aaron", "alice"]),
            other => panic!("{other:?}"),
        }
    }
}
