//! Where a test may go: every address a name resolves to is judged, and a judged one is connected to.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::domain::address::AddressPolicy;
use crate::domain::address::check_host;
use crate::domain::connection::Upstream;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
/// How long one address may take to answer where there are others.
const CONNECT_PATIENCE: Duration = Duration::from_secs(4);

/// The addresses of the provider that may be connected to; the reason where there is none.
pub(super) async fn resolve(upstream: &Upstream, policy: &AddressPolicy) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = (upstream.host(), upstream.port());
    check_host(host, port, policy).map_err(|refused| format!("{host} {refused}"))?;
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|_| format!("the name {host} cannot be resolved"))?;
    let mut refusal = None;
    let mut allowed = Vec::new();
    for address in found {
        match check_host(&address.ip().to_string(), port, policy) {
            Ok(()) => allowed.push(address),
            Err(refused) => refusal = Some(format!("{host} resolves to {}, which {refused}", address.ip())),
        }
    }
    if allowed.is_empty() {
        return Err(refusal.unwrap_or_else(|| format!("the name {host} has no address")));
    }
    allowed.truncate(MAX_ADDRESSES);
    Ok(allowed)
}

/// A connection to the first of the addresses that answers.
pub(super) async fn connect(addresses: &[SocketAddr], policy: &AddressPolicy) -> Result<TcpStream, String> {
    let mut reason = String::new();
    for address in addresses {
        match tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) if is_own_listener(&stream, policy) => {
                reason = format!("{address} is this gateway's own port");
            }
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => reason = format!("{address} cannot be reached: {}", error.kind()),
            Err(_) => reason = format!("{address} does not answer"),
        }
    }
    Err(reason)
}

/// Whether both ends are this machine and the other is a port of ours: a listener need not be on loopback. Nothing was
/// sent yet.
fn is_own_listener(stream: &TcpStream, policy: &AddressPolicy) -> bool {
    let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) else { return true };
    let bare = |ip: IpAddr| ip.to_canonical();
    let same = bare(here.ip()) == bare(there.ip()) || bare(there.ip()).is_loopback();
    same && policy.own_ports.contains(&there.port())
}
