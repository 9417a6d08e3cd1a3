//! Making and loading identity files.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::domain::ids::Namespace;
use crate::domain::time::UnixSeconds;
use crate::identity::error::IdentityError;
use crate::identity::key::Identity;
use crate::identity::place::Home;
use crate::identity::record;
use crate::sys::files;
use crate::sys::ownership;
use crate::sys::ownership::Access;
use crate::sys::ownership::Refusal;
use crate::sys::ownership::Us;

/// Largest record that is read, in bytes. Ours have about 1,100.
const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// An identity and how it was come by.
#[derive(Debug)]
pub struct Opened {
    /// The identity.
    pub identity: Identity,
    /// Its file.
    pub path: PathBuf,
    /// Whether it was made just now.
    pub created: bool,
    /// What its owner should know.
    pub warnings: Vec<IdentityWarning>,
}

/// Something that is not right and does not stop us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityWarning {
    /// Others than we and root may read the key, or change it. What root gives to a group of ours to read is not among that: a
    /// platform mounts secrets so, where nobody can change the mode.
    #[error("{path} {}", .why.said(.path))]
    FileTooOpen {
        /// The record.
        path: PathBuf,
        /// Who may.
        why: Refusal,
    },
    /// Others than the owner may put a key of theirs in its place. Whoever may only look into the folder finds closed files.
    #[error("{path} has mode {mode:04o}: others can replace the key; chmod 700 it")]
    FolderTooOpen {
        /// The folder of the namespace.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl Home {
    /// Loads and validates the identity of a namespace; a certificate that has expired by `now` is refused.
    pub fn load(&self, namespace: &Namespace, now: UnixSeconds) -> Result<Opened, IdentityError> {
        let path = self.record_path(namespace);
        let json = files::read_text(&path, MAX_RECORD_BYTES).map(Zeroizing::new).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                return IdentityError::NotFound { path: path.clone() };
            }
            IdentityError::Io { path: path.clone(), source }
        })?;
        let identity = Identity::parse(&json, &path, namespace, now)?;
        let warnings = warnings(&path);
        Ok(Opened { identity, path, created: false, warnings })
    }

    /// Makes an identity, or loads the one that is there: running it twice changes nothing. Two that
    /// run at once end with one key, the same for both.
    pub fn create(&self, namespace: &Namespace, now: UnixSeconds) -> Result<Opened, IdentityError> {
        match self.load(namespace, now) {
            Err(IdentityError::NotFound { .. }) => {}
            found => return found,
        }
        let (identity, path, content) = self.fresh(namespace, now)?;
        match files::create_private(&path, &content) {
            Ok(()) => Ok(Opened { identity, warnings: warnings(&path), path, created: true }),
            // Somebody was faster; theirs is the key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.load(namespace, now),
            Err(source) => Err(IdentityError::Io { path, source }),
        }
    }

    /// Makes a new key in place of whatever is there. What was approved for the old key is lost with it.
    pub fn replace(&self, namespace: &Namespace, now: UnixSeconds) -> Result<Opened, IdentityError> {
        let (identity, path, content) = self.fresh(namespace, now)?;
        match files::write_private(&path, &content) {
            Ok(()) => Ok(Opened { identity, warnings: warnings(&path), path, created: true }),
            Err(source) => Err(IdentityError::Io { path, source }),
        }
    }

    /// A new identity, its path, whose folder exists, and the content of its file.
    fn fresh(
        &self,
        namespace: &Namespace,
        now: UnixSeconds,
    ) -> Result<(Identity, PathBuf, Zeroizing<Vec<u8>>), IdentityError> {
        let path = self.record_path(namespace);
        let failed = |source| IdentityError::Io { path: path.clone(), source };
        if let Some(folder) = path.parent() {
            files::private_folder(folder).map_err(failed)?;
        }
        let identity = Identity::generate(namespace.clone(), now)?;
        let content = record::encode(&identity).map_err(|error| failed(error.into()))?;
        Ok((identity, path, content))
    }
}

/// Permissions of the record and of its folder. A file system that cannot say gives no warning.
fn warnings(record: &Path) -> Vec<IdentityWarning> {
    let file = fs::metadata(record).ok().and_then(|found| {
        let why = ownership::check_own(&Access::of(&found), &Us::now()).err()?;
        Some(IdentityWarning::FileTooOpen { path: record.to_owned(), why })
    });
    let folder = record.parent().and_then(|folder| {
        let mode = fs::metadata(folder).ok()?.permissions().mode() & 0o777;
        (mode & 0o022 != 0).then(|| IdentityWarning::FolderTooOpen { path: folder.to_owned(), mode })
    });
    file.into_iter().chain(folder).collect()
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
