//! Ports of listeners, taken exclusively, so that a foreign listener is found before anything of ours starts.
//!
//! A port that is held refuses connections: whoever waits for a port takes one that accepts for a program that answers.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;

use rustix::net::Shutdown;
use rustix::net::sockopt;

use crate::sys::process;
use crate::sys::process::PortHolder;

/// Why a port is not had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody listens there.
    #[error("port {} ({address}) is in use{}", .address.port(), by(.holder.as_ref()))]
    InUse {
        /// The address.
        address: SocketAddr,
        /// Who listens there, where the system tells.
        holder: Option<PortHolder>,
    },
    /// Nobody listens there: a connection of a program of this machine to somewhere has it for its own end.
    #[error("port {} ({address}) is that of an outgoing connection{}", .address.port(), of(.holder.as_ref()))]
    Connection {
        /// The address.
        address: SocketAddr,
        /// Whose connection it is, where the system tells.
        holder: Option<PortHolder>,
    },
    /// It cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No address was asked for, or none is there on this machine.
    #[error("there is no address to listen on")]
    NoAddress,
}

/// ` by process 42 (nginx)`, or nothing.
pub fn by(holder: Option<&PortHolder>) -> String {
    holder.map(|holder| format!(" by process {} ({})", holder.pid, holder.name)).unwrap_or_default()
}

/// ` of process 42 (curl)`, or nothing.
pub fn of(holder: Option<&PortHolder>) -> String {
    holder.map(|holder| format!(" of process {} ({})", holder.pid, holder.name)).unwrap_or_default()
}

/// How many connections may wait to be accepted; the system's own bound is below or at it.
const BACKLOG: i32 = 4096;

/// An address nobody else can bind. Connections to it are refused, where the system can hold a port without listening on it
/// (Linux), until its owner listens; elsewhere they wait.
#[derive(Debug)]
pub struct Held {
    socket: TcpListener,
    address: SocketAddr,
}

impl Held {
    /// Which address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens on it. Fails only with what the system says.
    pub fn listen(self) -> io::Result<TcpListener> {
        // As every other listener: what is left of its connections must not keep the next one away.
        sockopt::set_socket_reuseaddr(&self.socket, true)?;
        rustix::net::listen(&self.socket, BACKLOG)?;
        Ok(self.socket)
    }
}

/// Takes the addresses of one listener. A port 0 becomes a real one, the same for all its addresses; `::1` is left out
/// where the machine has no IPv6 and the listener has another address.
pub fn take(wanted: &[SocketAddr]) -> Result<Vec<Held>, PortError> {
    let mut held: Vec<Held> = Vec::new();
    for address in wanted {
        let mut address = *address;
        if let (0, Some(first)) = (address.port(), held.first()) {
            address.set_port(first.address.port());
        }
        held.extend(take_one(address, wanted.len() > 1)?);
    }
    if held.is_empty() {
        return Err(PortError::NoAddress);
    }
    Ok(held)
}

/// Takes one address. `None`: it is `::1` on a machine without IPv6, and the listener has `others`.
pub fn take_one(address: SocketAddr, others: bool) -> Result<Option<Held>, PortError> {
    match bind(address) {
        Ok(taken) => Ok(Some(taken)),
        Err(error) if no_such_family(&error, address.ip()) && others => Ok(None),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
            Err(match process::connection_from(address.port()) {
                Some(holder) => PortError::Connection { address, holder },
                None => PortError::InUse { address, holder: process::port_holder(address.port()) },
            })
        }
        Err(source) => Err(PortError::Bind { address, source }),
    }
}

fn bind(address: SocketAddr) -> io::Result<Held> {
    // Nearly always nobody had the port lately. Then it is held without a moment of listening, in which somebody could be let in
    // whom nobody answers.
    #[cfg(target_os = "linux")]
    match bind_alone(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound,
    }
    // The standard library sets SO_REUSEADDR, never SO_REUSEPORT: old connections do not matter, listeners do.
    let socket = TcpListener::bind(address)?;
    let bound = socket.local_addr()?;
    if rustix::net::shutdown(&socket, Shutdown::Read).is_err() {
        // This system has no way back from listening.
        return Ok(Held { socket, address: bound });
    }
    if address.port() == 0 {
        // A port the system chose goes with the listening; one that is named stays.
        rustix::net::bind(&socket, &bound)?;
        rustix::net::listen(&socket, BACKLOG)?;
        rustix::net::shutdown(&socket, Shutdown::Read)?;
    }
    // Only while it listens, a socket that has the option keeps others that have it from the port.
    sockopt::set_socket_reuseaddr(&socket, false)?;
    Ok(Held { socket, address: bound })
}

/// Binds an address that nothing has, not even what is left of a connection.
#[cfg(target_os = "linux")]
fn bind_alone(address: SocketAddr) -> io::Result<Held> {
    use rustix::net::AddressFamily;
    use rustix::net::SocketFlags;
    use rustix::net::SocketType;

    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &address)?;
    let socket = TcpListener::from(socket);
    let address = socket.local_addr()?;
    Ok(Held { socket, address })
}

fn no_such_family(error: &io::Error, host: IpAddr) -> bool {
    let absent = error.kind() == io::ErrorKind::AddrNotAvailable || error.kind() == io::ErrorKind::Unsupported;
    let no_family = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    host.is_ipv6() && host.is_loopback() && (absent || no_family)
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
