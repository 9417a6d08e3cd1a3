//! Unix sockets that know who is at the other end.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use tokio::net::UnixListener;
use tokio::net::UnixStream;

use crate::sys::files;
use crate::sys::files::PRIVATE_FILE;

/// Longest path a Unix socket can have: `sun_path` holds 108 bytes, one of them the ending NUL.
pub const MAX_SOCKET_PATH: usize = 107;

/// Ends the name of a socket that is being made.
const DRAFT: &str = ".made";

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The operating system cannot take a path this long.
    #[error("the socket path {path} has {length} bytes; a Unix socket path may have at most {MAX_SOCKET_PATH}")]
    TooLong {
        /// The path.
        path: String,
        /// Its length in bytes.
        length: usize,
    },
    /// Somebody answers there.
    #[error("{0} is in use: another process answers on it")]
    InUse(String),
    /// Something else.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
}

/// Says whether `path` fits into a socket address.
pub fn check_socket_path(path: &Path) -> Result<(), SocketError> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(SocketError::TooLong { path: path.display().to_string(), length });
    }
    Ok(())
}

/// Binds a Unix socket with mode 0600. A socket that a dead process left behind is replaced, one that
/// somebody answers on is not, and anything that is not a socket stays.
pub async fn bind_private(path: &Path) -> Result<UnixListener, SocketError> {
    check_socket_path(path)?;
    let io = |source| SocketError::Io { path: path.display().to_string(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(SocketError::InUse(path.display().to_string()));
            }
            fs::remove_file(path).map_err(io)?;
        }
        Ok(_) => return Err(io(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is not a socket"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_FILE)).map_err(io)?;
    Ok(listener)
}

/// The name of a socket of ours, to be taken away when we leave in order.
#[derive(Debug)]
pub struct SocketName {
    path: PathBuf,
    /// Device and number of the socket; `None`: it could not be looked at, and stays.
    socket: Option<(u64, u64)>,
}

impl SocketName {
    /// The name a socket has just been given.
    pub fn of(path: &Path) -> Self {
        let found = fs::symlink_metadata(path).ok();
        Self { path: path.to_owned(), socket: found.map(|found| (found.dev(), found.ino())) }
    }

    /// Takes it away where it still is that of this socket: what somebody else has put there since stays.
    pub fn remove(&self) {
        let found = fs::symlink_metadata(&self.path).ok().map(|found| (found.dev(), found.ino()));
        if found.is_some() && found == self.socket {
            // What cannot be removed is replaced by whoever comes next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The same for a socket that somebody waits for: it gets its name when nothing is left to be done by that name, so that whoever
/// sees it may give it another.
pub async fn bind_private_at_once(path: &Path) -> Result<UnixListener, SocketError> {
    let draft = files::beside(path, DRAFT);
    let listener = bind_private(&draft).await?;
    fs::rename(&draft, path).map_err(|source| SocketError::Io { path: path.display().to_string(), source })?;
    Ok(listener)
}

/// Who may connect to a Unix socket of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRule {
    /// The user the peer must run as.
    pub uid: u32,
    /// The one process allowed, where it is known.
    pub pid: Option<i32>,
    /// The one that is about to take its place, and may come as well.
    pub successor: Option<i32>,
}

/// Why a peer was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// The operating system does not say who it is.
    #[error("the peer's credentials are not known")]
    Unknown,
    /// Another user.
    #[error("the peer runs as uid {0}")]
    Uid(u32),
    /// The right user, another process.
    #[error("the peer is process {0}, which is not the one that was started")]
    Pid(i32),
}

impl PeerRule {
    /// Our own user, any process.
    pub fn same_user() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), pid: None, successor: None }
    }

    /// Judges the other end of `stream` by what the kernel says (`SO_PEERCRED`).
    pub fn check(self, stream: &UnixStream) -> Result<(), PeerRefused> {
        let peer = stream.peer_cred().map_err(|_| PeerRefused::Unknown)?;
        if peer.uid() != self.uid {
            return Err(PeerRefused::Uid(peer.uid()));
        }
        match (self.pid, peer.pid()) {
            (None, _) => Ok(()),
            (Some(wanted), Some(found)) if wanted == found || self.successor == Some(found) => Ok(()),
            (Some(_), Some(found)) => Err(PeerRefused::Pid(found)),
            (Some(_), None) => Err(PeerRefused::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[tokio::test]
    async fn the_name_of_a_socket_is_taken_away_and_never_that_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let ours = bind_private(&path).await.unwrap();
        let name = SocketName::of(&path);
        fs::rename(&path, folder.path().join("aside")).unwrap();
        let _theirs = bind_private(&path).await.unwrap();
        name.remove();
        assert!(UnixStream::connect(&path).await.is_ok(), "another process answers there");
        fs::rename(folder.path().join("aside"), &path).unwrap();
        name.remove();
        assert!(!path.exists());
        name.remove();
        drop(ours);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_sees_a_socket_may_rename_it() {
        let folder = tempfile::tempdir().unwrap();
        let (next, place) = (folder.path().join("next"), folder.path().join("place"));
        for _ in 0..300 {
            let (seen, named) = (next.clone(), place.clone());
            let renames = std::thread::spawn(move || while fs::rename(&seen, &named).is_err() {});
            let _listener = bind_private_at_once(&next).await.unwrap();
            renames.join().unwrap();
            assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, PRIVATE_FILE);
            UnixStream::connect(&place).await.unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}
