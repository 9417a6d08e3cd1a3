//! Keys that setting the stack up needs: made once, kept 0600 in the home folder, never made anew.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::app::owner_api;
use crate::app::up::error::SetupError;
use crate::domain::secret::Secret;
use crate::sys::files;
use crate::sys::random;
use crate::sys::random::RandomError;

/// Longest key file, in bytes.
const MAX_KEY: u64 = 4096;

/// The key of a service, `<home>/service-api-key-<slug>`.
pub(super) fn service_key(home: &Path, slug: &str) -> Result<Secret, SetupError> {
    kept(&home.join(format!("service-api-key-{slug}")), owner_api::mint_service_key)
}

/// The key the demo upstream wants, `<home>/demo-upstream-key`: the provider's side of it, which no gateway would have
/// in a file. Older programs had it in a file that was called after the connection.
pub(super) fn upstream_key(home: &Path) -> Result<Secret, SetupError> {
    let (file, older) = (home.join("demo-upstream-key"), home.join("gateway-connection-secret-demo-service-gateway"));
    if read(&file)?.is_none() && read(&older)?.is_some() {
        fs::rename(&older, &file).map_err(at(&older))?;
    }
    kept(&file, || Ok(Secret::new(format!("gw_demo_{}", random::hex::<24>()?))))
}

/// What the file holds; where there is none, or an empty one, what `mint` makes.
fn kept(file: &Path, mint: impl FnOnce() -> Result<Secret, RandomError>) -> Result<Secret, SetupError> {
    if let Some(key) = read(file)? {
        return Ok(key);
    }
    if let Some(folder) = file.parent() {
        files::private_folder(folder).map_err(at(folder))?;
    }
    let minted = mint()?;
    let line = Zeroizing::new(format!("{}\n", minted.expose()));
    match files::create_private(file, line.as_bytes()) {
        Ok(()) => Ok(minted),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read(file)? {
            // Somebody was faster.
            Some(key) => Ok(key),
            None => files::write_private(file, line.as_bytes()).map_err(at(file)).map(|()| minted),
        },
        Err(error) => Err(at(file)(error)),
    }
}

/// A secret that is in a file; `None` where there is no file, or nothing in it.
pub(super) fn read(file: &Path) -> Result<Option<Secret>, SetupError> {
    match files::read_text(file, MAX_KEY).map(Zeroizing::new) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(Secret::new(text.trim().to_owned()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(file)(error)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SetupError {
    let path: PathBuf = path.to_owned();
    move |source| SetupError::Io { path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        let first = service_key(&home, "svc").unwrap();
        let tail = first.expose().strip_prefix("sk_live_").unwrap();
        assert!(tail.len() == 48 && tail.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", first.expose());
        let file = home.join("service-api-key-svc");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(service_key(&home, "svc").unwrap(), first);
        assert_ne!(service_key(&home, "other").unwrap(), first);
        assert!(upstream_key(&home).unwrap().expose().starts_with("gw_demo_"));
    }

    #[test]
    fn the_upstream_key_of_an_older_program_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let older = folder.path().join("gateway-connection-secret-demo-service-gateway");
        std::fs::write(&older, "gw_demo_old\n").unwrap();
        assert_eq!(upstream_key(folder.path()).unwrap(), Secret::new("gw_demo_old".to_owned()));
        assert!(!older.exists(), "it is not in two files");

        std::fs::write(&older, "gw_demo_other\n").unwrap();
        assert_eq!(upstream_key(folder.path()).unwrap(), Secret::new("gw_demo_old".to_owned()));
    }

    #[test]
    fn a_key_of_the_owner_stays_and_an_empty_file_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("service-api-key-svc");
        std::fs::write(&file, " own-key \n").unwrap();
        assert_eq!(service_key(folder.path(), "svc").unwrap(), Secret::new("own-key".to_owned()));
        std::fs::write(&file, "\n").unwrap();
        let made = service_key(folder.path(), "svc").unwrap();
        assert_eq!(service_key(folder.path(), "svc").unwrap(), made);
    }
}
