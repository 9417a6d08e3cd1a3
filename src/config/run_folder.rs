//! The run folder. The path of a Unix socket is short (`sun_path` in unix(7)), and homes can be deep: where the folder in the
//! data folder is too deep for sockets, it goes by a second name that is not.

use std::path::Path;
use std::path::PathBuf;

use sha2::Digest as _;
use sha2::Sha256;

use crate::config::keys;
use crate::config::loader::Loader;
use crate::domain::hex;

/// Longest path a Unix socket can have, in bytes: `sun_path` holds 108, one of them the ending NUL.
pub const MAX_SOCKET_PATH: usize = 107;
/// Bytes of the longest path below the folder at which a socket is made: `/control.sock.made`.
pub const LONGEST_SOCKET: usize = 18;
/// Where the short names are: short on every system, and the same for every command, whatever its environment.
const SHORT: &str = "/tmp";
/// Characters of the data folder's digest in a short name: nobody meets another by chance.
const DIGEST: usize = 16;

/// The folder as sockets are made in it, and the one behind that name, where it is a short name of another.
pub(super) fn read(loader: &mut Loader<'_>, data_dir: &Path) -> (PathBuf, Option<PathBuf>) {
    let own = data_dir.join("run");
    if loader.is_set(&keys::RUN_DIR) || fits(&own) {
        let named = loader.folder(&keys::RUN_DIR, |_| own.clone());
        if !fits(&named) {
            let most = MAX_SOCKET_PATH.saturating_sub(LONGEST_SOCKET);
            let length = named.as_os_str().len();
            let why = "the path of a Unix socket holds no more than 107 bytes";
            loader.blame(&keys::RUN_DIR, format!("has {length} bytes, and may have at most {most}: {why}"));
        }
        return (named, None);
    }
    let user = (loader.sources.machine)().user;
    let name = loader.folder(&keys::RUN_DIR, |_| short_name(user, data_dir));
    (name, Some(own))
}

fn fits(folder: &Path) -> bool {
    folder.as_os_str().len().saturating_add(LONGEST_SOCKET) <= MAX_SOCKET_PATH
}

/// The short name of the run folder in a user's data folder.
fn short_name(user: u32, data_dir: &Path) -> PathBuf {
    let digest = hex::text(&Sha256::digest(data_dir.as_os_str().as_encoded_bytes()));
    let digest = digest.get(..DIGEST).unwrap_or(&digest);
    Path::new(SHORT).join(format!("sigilum-{user}-{digest}")).join("run")
}
