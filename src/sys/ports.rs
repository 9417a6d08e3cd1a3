//! Ports of listeners, taken exclusively, so that a foreign listener is found before anything of ours starts.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;

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

/// Takes the addresses of one listener. A port 0 becomes a real one, the same for all its addresses; `::1` is left out
/// where the machine has no IPv6 and the listener has another address.
pub fn take(wanted: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), PortError> {
    let mut held = Vec::new();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in wanted {
        let mut address = *address;
        if let (0, Some(first)) = (address.port(), addresses.first()) {
            address.set_port(first.port());
        }
        if let Some((listener, bound)) = take_one(address, wanted.len() > 1)? {
            held.push(listener);
            addresses.push(bound);
        }
    }
    if addresses.is_empty() {
        return Err(PortError::NoAddress);
    }
    Ok((held, addresses))
}

/// Takes one address. `None`: it is `::1` on a machine without IPv6, and the listener has `others`.
pub fn take_one(address: SocketAddr, others: bool) -> Result<Option<(TcpListener, SocketAddr)>, PortError> {
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

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    // The standard library sets SO_REUSEADDR, never SO_REUSEPORT: old connections do not matter, listeners do.
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

fn no_such_family(error: &io::Error, host: IpAddr) -> bool {
    let absent = error.kind() == io::ErrorKind::AddrNotAvailable || error.kind() == io::ErrorKind::Unsupported;
    let no_family = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    host.is_ipv6() && host.is_loopback() && (absent || no_family)
}
