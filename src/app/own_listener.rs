//! Whether who listens where our admin API should be is the gateway of this data folder.
//!
//! While the gateway does not run, every user of the machine can listen on its port, and would be handed the token by the
//! next command. So a command asks this before a token it read from the data folder goes to an address that it computed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::api::db;
use crate::app::gateway::instance::Instance;
use crate::store::worker;
use crate::sys::files;
use crate::sys::local_http;
use crate::sys::process;
use crate::sys::process::ListeningSocket;
use crate::sys::process::PortHolder;
use crate::sys::process::PortListener;
use crate::sys::process::ProcessIdentity;

/// What a lock file says of its holder is one short line.
const MAX_LINE: u64 = 256;
/// The user who may look at everything anyway.
const ROOT: u32 = 0;

/// Somebody who listens there and is not the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// The port.
    pub port: u16,
    /// The process, where the system tells.
    pub holder: Option<PortHolder>,
    /// Its user; `None` where the system does not tell who listens.
    pub user: Option<u32>,
}

impl fmt::Display for Stranger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match (&self.holder, self.user) {
            (Some(PortHolder { pid, name }), _) => write!(formatter, "port {port} is held by process {pid} ({name})")?,
            (None, Some(user)) => write!(formatter, "port {port} is held by a process of user {user}")?,
            (None, None) => write!(formatter, "no gateway of this data folder runs that could hold port {port}")?,
        }
        formatter.write_str(", which is not the gateway of this data folder")
    }
}

/// Whether a token of `data_dir` may go to `address` of this machine. Also where nobody listens: there it goes nowhere.
pub fn check(data_dir: &Path, run_dir: &Path, address: SocketAddr) -> Result<(), Stranger> {
    let port = address.port();
    let known = processes(data_dir, run_dir);
    if !process::tells_listeners() {
        return if known.is_empty() { Err(Stranger { port, holder: None, user: None }) } else { Ok(()) };
    }
    let address = local_http::reachable(address);
    let mut sockets = process::listening_sockets(&[port]);
    sockets.retain(|socket| takes(socket.address, address));
    let (known, users) = (Vec::from_iter(known), users(data_dir));
    // Those we know are asked first: a whole machine takes a while.
    let is_held = |socket: &ListeningSocket| known.iter().any(|pid| socket.is_held_by(*pid));
    if sockets.iter().any(|socket| users.contains(&socket.user) && is_held(socket)) {
        return Ok(());
    }
    judge(&process::holders(&sockets), &known, &users)
}

/// Users whose processes the gateway of this data folder can be: we, root, and the folder's owner.
pub fn users(data_dir: &Path) -> Vec<u32> {
    let owner = std::fs::metadata(data_dir).ok().map(|found| found.uid());
    let us = rustix::process::geteuid().as_raw();
    [Some(us), Some(ROOT), owner].into_iter().flatten().collect()
}

/// Processes that serve this data folder: those a supervisor wrote down, and the one that holds the store.
fn processes(data_dir: &Path, run_dir: &Path) -> BTreeSet<i32> {
    let mut known = BTreeSet::new();
    if let Some(instance) = Instance::read(run_dir) {
        let children = instance.children.iter().map(|child| &child.process);
        let living = children.chain([&instance.supervisor]).filter(|process| process.is_alive());
        known.extend(living.map(|process| process.pid));
    }
    // An admin process that nobody supervises. The line outlives its writer, so another process may have the number since:
    // whose it is decides then.
    known.extend(holder(&data_dir.join(worker::LOCK_FILE)));
    known
}

/// Whether a process lives that serves the API of a data folder, by its lock.
pub fn api_runs(data_dir: &Path) -> bool {
    api_process(data_dir).is_some()
}

/// That process.
pub fn api_process(data_dir: &Path) -> Option<i32> {
    holder(&data_dir.join(db::LOCK_FILE))
}

/// The process a lock file names, where there is one with that number.
fn holder(lock: &Path) -> Option<i32> {
    let line = files::read_text(lock, MAX_LINE).ok()?;
    let holder = line.strip_prefix("pid ")?.split(' ').next()?.parse().ok()?;
    ProcessIdentity::of(holder).map(|_| holder)
}

/// Whether a connection to `address` ends at this socket.
fn takes(socket: SocketAddr, address: SocketAddr) -> bool {
    let (bound, wanted) = (socket.ip().to_canonical(), address.ip().to_canonical());
    bound.is_unspecified() || bound == wanted
}

/// Of one address there is one socket, which several processes may hold.
fn judge(sockets: &[PortListener], known: &[i32], users: &[u32]) -> Result<(), Stranger> {
    let Some(first) = sockets.first() else { return Ok(()) };
    if sockets.iter().any(|socket| socket.belongs_to(known, users)) {
        return Ok(());
    }
    Err(Stranger { port: first.address.port(), holder: first.holder.clone(), user: Some(first.user) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic, and writes its files")]

    use super::*;

    fn socket(pid: Option<i32>, user: u32) -> PortListener {
        let holder = pid.map(|pid| PortHolder { pid, name: "x".to_owned() });
        PortListener { address: "127.0.0.1:1".parse().unwrap(), holder, user }
    }

    #[test]
    fn a_socket_is_ours_by_its_process_and_its_user() {
        let known = [7];
        let ours = |sockets: &[PortListener]| judge(sockets, &known, &[1000, 0]).is_ok();
        assert!(ours(&[]), "nobody is there");
        assert!(ours(&[socket(Some(7), 1000)]) && ours(&[socket(None, 1000)]));
        assert!(ours(&[socket(Some(8), 1000), socket(Some(7), 1000)]), "inherited by a child");
        assert!(!ours(&[socket(Some(8), 1000)]), "another program of the same user");
        assert!(!ours(&[socket(Some(7), 1001)]), "the number is another user's now");
        assert!(!ours(&[socket(None, 1001)]));
        assert!(judge(&[socket(None, 1000)], &[], &[1000]).is_err(), "nothing of ours lives");
    }

    #[test]
    fn addresses_that_take_the_connection_count() {
        let at = |one: &str, other: &str| takes(one.parse().unwrap(), other.parse().unwrap());
        assert!(
            at("0.0.0.0:1", "127.0.0.1:1") && at("[::]:1", "127.0.0.1:1") && at("[::ffff:127.0.0.1]:1", "127.0.0.1:1")
        );
        assert!(!at("127.0.0.2:1", "127.0.0.1:1"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn whoever_holds_the_store_is_the_gateway_and_a_stranger_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let look = || check(folder.path(), folder.path(), address);
        let refused = look().unwrap_err();
        let own = std::process::id();
        assert!(refused.to_string().starts_with(&format!("port {} is held by process {own} (", address.port())));
        let _lock = worker::lock(folder.path(), &format!("pid {own} (admin)")).unwrap();
        assert_eq!(look(), Ok(()));
    }
}
