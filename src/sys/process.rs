//! Other processes: who they are beyond their number, whether they live, who listens on a port.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::process::Pid;
use rustix::process::Signal;

use crate::domain::time::UnixSeconds;

/// Units of times in `/proc`, the same on every Linux (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessIdentity {
    /// The process id.
    pub pid: i32,
    /// When it was started, in a form that is only compared: boot id and clock ticks on Linux, a date elsewhere.
    pub started: String,
}

/// Somebody who listens on a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// The process id.
    pub pid: i32,
    /// The program's name without its arguments, which may hold secrets of others.
    pub name: String,
}

impl ProcessIdentity {
    /// The identity of a living process. `None` where there is none of that number, or only its remains.
    pub fn of(pid: i32) -> Option<Self> {
        started(pid).map(|started| Self { pid, started })
    }

    /// Our own.
    pub fn own() -> Option<Self> {
        i32::try_from(std::process::id()).ok().and_then(Self::of)
    }

    /// Whether exactly this process still runs.
    pub fn is_alive(&self) -> bool {
        started(self.pid).is_some_and(|found| found == self.started)
    }

    /// Sends a signal if exactly this process still runs; `false` where it does not.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_alive()) else { return Ok(false) };
        match rustix::process::kill_process(pid, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// A child of ours, held from its start: a signal reaches it and never a later process of its number, also where `/proc` does not
/// show us our own (`hidepid`, pidfd_open(2)).
#[derive(Debug)]
pub struct HeldChild(
    #[cfg(target_os = "linux")] std::os::fd::OwnedFd,
    #[cfg(not(target_os = "linux"))] ProcessIdentity,
);

impl HeldChild {
    /// Holds a child that was not waited for yet.
    pub fn of(pid: i32) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        {
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
            Ok(Self(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))
        }
        #[cfg(not(target_os = "linux"))]
        ProcessIdentity::of(pid).map(Self).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Sends it a signal; `false` where it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            match rustix::process::pidfd_send_signal(&self.0, signal) {
                Ok(()) => Ok(true),
                Err(rustix::io::Errno::SRCH) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
        #[cfg(not(target_os = "linux"))]
        self.0.signal(signal)
    }
}

/// The arguments a process was started with, its own name first; `None` where there is no such process, or no `/proc`.
pub fn arguments_of(pid: i32) -> Option<Vec<OsString>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = line.strip_suffix(b"\0")?;
    Some(line.split(|byte| *byte == 0).map(|argument| OsString::from_vec(argument.to_vec())).collect())
}

/// `/proc/<pid>/stat` fields 3 (state), 20 (threads) and 22 (start time in ticks since boot), made unique across boots by the boot id.
#[cfg(target_os = "linux")]
fn started(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may itself hold any of these characters.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    let (state, threads, ticks) = (fields.first()?, fields.get(17)?, fields.get(19)?);
    // A zombie answers signals and does nothing; X is on its way out. One whose first thread ended before
    // the others still holds its files: ports and locks.
    if matches!(*state, "Z" | "X") && threads.parse().is_ok_and(|threads: u32| threads <= 1) {
        return None;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(format!("{}/{ticks}", boot.trim()))
}

#[cfg(not(target_os = "linux"))]
fn started(pid: i32) -> Option<String> {
    let output =
        std::process::Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (state, date) = text.trim().split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| date.trim().to_owned())
}

/// When a process was started, to the second; `None` where the system does not say.
pub fn started_at(pid: i32) -> Option<UnixSeconds> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = machine.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    Some(UnixSeconds(boot.saturating_add(ticks / TICKS_PER_SECOND)))
}

/// This very program. Where its file was replaced since we started, the one that still runs.
pub fn own_program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Lets other processes go first where processors are scarce: this process gets the niceness `nice` (1 to 19), unless it
/// is nicer already. Holds for all threads it has, and for those they start.
pub fn step_back(nice: i32) -> io::Result<()> {
    let step = |thread: Option<Pid>| -> io::Result<()> {
        if rustix::process::getpriority_process(thread)? < nice {
            rustix::process::setpriority_process(thread, nice)?;
        }
        Ok(())
    };
    // On Linux niceness is a thread's own.
    #[cfg(target_os = "linux")]
    for task in fs::read_dir("/proc/self/task")?.flatten() {
        let thread = task.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if thread.is_some() {
            step(thread)?;
        }
    }
    step(None)
}

/// Who listens on a TCP port of this machine, where the system tells: not on macOS, and not for processes
/// of other users.
pub fn port_holder(port: u16) -> Option<PortHolder> {
    port_holder_near(port, &[])
}

/// The same where it is probably one of `near`: those are looked at first, and a whole machine takes a while.
pub fn port_holder_near(port: u16, near: &[i32]) -> Option<PortHolder> {
    socket_holder(&tables().iter().flat_map(|table| listening(table, port)).collect::<Vec<_>>(), near)
}

/// The outgoing connections of this machine that have a port for their own end, where nobody listens there: the holder of
/// one, where the system tells that too. `None`: there is none, or somebody listens. Linux takes such ports from a range in
/// which those of a listener may lie (`ip_local_port_range` in ip(7)), and gives them back when the connection ends.
pub fn connection_from(port: u16) -> Option<Option<PortHolder>> {
    let tables = tables();
    let of_port = |listens: bool| {
        let all = tables.iter().flat_map(|table| sockets_on(table, port));
        all.filter(|fields| fields.get(3).is_some_and(|state| (*state == LISTENS) == listens)).collect::<Vec<_>>()
    };
    let connected = of_port(false);
    if connected.is_empty() || !of_port(true).is_empty() {
        return None;
    }
    Some(socket_holder(&connected.iter().filter_map(|fields| link(fields)).collect::<Vec<_>>(), &[]))
}

fn tables() -> Vec<String> {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|table| fs::read_to_string(table).ok()).collect()
}

/// A process that holds one of these sockets; `near` are looked at first.
fn socket_holder(inodes: &[String], near: &[i32]) -> Option<PortHolder> {
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in near.iter().copied().chain(pids) {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let holds = descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()));
        if holds {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some(PortHolder { pid, name: name.trim().to_owned() });
        }
    }
    None
}

/// Whether this system says who listens: macOS does not.
pub fn tells_listeners() -> bool {
    fs::exists("/proc/net/tcp").unwrap_or(false)
}

/// A socket that listens on a TCP port of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortListener {
    /// Where.
    pub address: SocketAddr,
    /// Whose socket it is; `None`: a process we may not look into, of another user or one that leaves no core dump, as
    /// those of the gateway do not.
    pub holder: Option<PortHolder>,
    /// The user it belongs to.
    pub user: u32,
}

impl PortListener {
    /// Whether it is a socket of one of these living processes, which are of these users. Where the system does not tell us
    /// the process, the user decides, and there must be some process that could hold it.
    pub fn belongs_to(&self, pids: &[i32], users: &[u32]) -> bool {
        let named = self.holder.as_ref().is_none_or(|holder| pids.contains(&holder.pid));
        named && !pids.is_empty() && users.contains(&self.user)
    }
}

/// A socket that listens, as the tables of the system name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListeningSocket {
    /// Where.
    pub address: SocketAddr,
    /// The user it belongs to.
    pub user: u32,
    /// What a descriptor of it links to.
    link: String,
}

impl ListeningSocket {
    /// Whether this process holds it; `false` also where we may not look.
    pub fn is_held_by(&self, pid: i32) -> bool {
        descriptors(pid).any(|target| target.as_os_str() == self.link.as_str())
    }
}

/// The sockets that listen on one of these ports; nothing where the system does not tell, as on macOS. Whose they are takes
/// longer: see [`holders`].
pub fn listening_sockets(ports: &[u16]) -> Vec<ListeningSocket> {
    let tables = tables();
    let mut sockets = Vec::new();
    for (table, port) in tables.iter().flat_map(|table| ports.iter().map(move |port| (table, *port))) {
        for fields in listeners(table, port) {
            let address = fields.get(1).and_then(|local| listening_address(local, port));
            let user = fields.get(7).and_then(|user| user.parse().ok());
            if let (Some(address), Some(user), Some(inode)) = (address, user, fields.get(9)) {
                sockets.push(ListeningSocket { address, user, link: format!("socket:[{inode}]") });
            }
        }
    }
    sockets
}

/// All sockets that listen on one of these ports, also where several share a port; nothing where the system does not tell,
/// as on macOS. A socket that several processes hold is told once for each.
pub fn port_listeners(ports: &[u16]) -> Vec<PortListener> {
    holders(&listening_sockets(ports))
}

/// The processes that hold them, by looking at every process of the machine. A socket that several hold is told once for
/// each, and one of processes that we may not look into without any.
pub fn holders(sockets: &[ListeningSocket]) -> Vec<PortListener> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut told = vec![false; sockets.len()];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let held: Vec<_> = descriptors(pid).collect();
        for (socket, told) in sockets.iter().zip(&mut told) {
            if held.iter().any(|target| target.as_os_str() == socket.link.as_str()) {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned();
                *told = true;
                let holder = Some(PortHolder { pid, name });
                found.push(PortListener { address: socket.address, holder, user: socket.user });
            }
        }
    }
    let unknown = sockets.iter().zip(&told).filter(|(_, told)| !**told).map(|(socket, _)| socket);
    found.extend(unknown.map(|socket| PortListener { address: socket.address, holder: None, user: socket.user }));
    found
}

/// What the descriptors of a process link to; nothing where we may not look.
fn descriptors(pid: i32) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
}

/// An address as `/proc/net/tcp` writes it: 32-bit words in the order of this machine's bytes, in hex.
fn listening_address(local: &str, port: u16) -> Option<SocketAddr> {
    let (host, _) = local.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(host.get(at..at.checked_add(8)?)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match host.len() {
        8 => word(0)?.into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
            bytes.into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// A user (its id) of this machine who listens on a TCP port and is neither us nor root nor `friend`; `None` also
/// where the system does not tell, as on macOS. Whoever is about to hand a secret to a port of this machine asks this:
/// any user can listen there while the program that should is not running.
pub fn foreign_listener(port: u16, friend: Option<u32>) -> Option<u32> {
    let us = rustix::process::geteuid().as_raw();
    let tables = tables();
    let mut users = tables.iter().flat_map(|table| listening_users(table, port));
    users.find(|user| ![us, 0].contains(user) && Some(*user) != friend)
}

/// The state LISTEN in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// The sockets of `/proc/net/tcp` in that state on a port, as the links in `/proc/<pid>/fd` name them.
fn listening(table: &str, port: u16) -> Vec<String> {
    listeners(table, port).filter_map(|fields| link(&fields)).collect()
}

/// The socket of a line, as the links in `/proc/<pid>/fd` name it.
fn link(fields: &[&str]) -> Option<String> {
    fields.get(9).map(|inode| format!("socket:[{inode}]"))
}

/// The users these sockets belong to.
fn listening_users(table: &str, port: u16) -> Vec<u32> {
    listeners(table, port).filter_map(|fields| fields.get(7)?.parse().ok()).collect()
}

/// The lines of `/proc/net/tcp` of sockets that listen on a port, in fields.
fn listeners(table: &str, port: u16) -> impl Iterator<Item = Vec<&str>> {
    sockets_on(table, port).filter(|fields| fields.get(3).is_some_and(|state| *state == LISTENS))
}

/// The lines of all sockets whose own end has a port.
fn sockets_on(table: &str, port: u16) -> impl Iterator<Item = Vec<&str>> {
    let wanted = format!(":{port:04X}");
    // Most lines of a busy machine are of connections that are over, and need not be taken apart.
    let mentioned = wanted.clone();
    let lines = table.lines().filter(move |line| line.contains(&mentioned));
    let fields = lines.map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    fields.filter(move |fields| fields.get(1).is_some_and(|local| local.ends_with(&wanted)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let own = ProcessIdentity::own().unwrap();
        assert!(own.is_alive());
        let impostor = ProcessIdentity { started: "another time".to_owned(), ..own };
        assert!(!impostor.is_alive());
        // Not sent: the test lives on.
        assert!(!impostor.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn the_dead_are_told_from_the_living() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let identity = ProcessIdentity::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(identity.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
        assert!(!identity.is_alive());
        assert!(!identity.signal(Signal::TERM).unwrap());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_is_asked_whether_a_socket_is_its_own() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = listening_sockets(&[address.port()]);
        let own = i32::try_from(std::process::id()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let other = i32::try_from(child.id()).unwrap();
        assert!(matches!(&sockets[..], [socket] if socket.address == address && socket.is_held_by(own)), "{sockets:?}");
        assert!(sockets.iter().all(|socket| !socket.is_held_by(other) && !socket.is_held_by(0)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            holders(&sockets).first().and_then(|found| found.holder.as_ref()).map(|holder| holder.pid),
            Some(own)
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = port_holder(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(holder.pid, i32::try_from(std::process::id()).unwrap());
        assert!(!holder.name.is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn sockets_are_told_with_address_and_holder() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = std::net::TcpListener::bind(host) else { continue };
            let address = listener.local_addr().unwrap();
            let found = port_listeners(&[address.port()]);
            let ours = found.iter().find(|found| found.address == address).unwrap();
            assert_eq!(ours.holder.as_ref().map(|holder| holder.pid), i32::try_from(std::process::id()).ok());
        }
        assert_eq!(listening_address("0100007F:9470", 38000), Some("127.0.0.1:38000".parse().unwrap()));
        assert_eq!(listening_address("01007F:9470", 38000), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn all_threads_step_back() {
        let own = || {
            let link = fs::read_link("/proc/thread-self").unwrap();
            Pid::from_raw(link.file_name().unwrap().to_str().unwrap().parse().unwrap()).unwrap()
        };
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (name, named) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            name.send(own()).unwrap();
            wait.recv().unwrap_err();
        });
        let threads = [named.recv().unwrap(), own()];
        let niceness = || threads.map(|thread| rustix::process::getpriority_process(Some(thread)).unwrap());
        step_back(3).unwrap();
        assert!(niceness().iter().all(|nice| *nice >= 3), "{:?}", niceness());
        // Never back: that is for the privileged.
        let before = niceness();
        step_back(1).unwrap();
        assert_eq!(niceness(), before);
        drop(done);
        other.join().unwrap();
    }

    #[test]
    fn only_listeners_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:94D4 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 111 1 0 100 0 0 10 0\n\
             1: 0100007F:94D4 0100007F:0050 01 00000000:00000000 00:00000000 00000000 0 0 222 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 38100), ["socket:[111]"]);
        assert!(listening(table, 38101).is_empty());
        assert_eq!(listening_users(&table.replace(" 0 0 111", " 1001 0 111"), 38100), [1001]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn we_are_no_strangers_to_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(foreign_listener(listener.local_addr().unwrap().port(), None), None);
    }
}
