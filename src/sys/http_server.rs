//! Serving an axum router over HTTP/1.1 with bounds: connections, time for a head, a graceful end.
//!
//! A connection that a handler upgrades (a WebSocket) leaves these bounds, but for the patience with whoever does not
//! read: it gives its place back, and whoever took it over counts it and ends it at the stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::sys::patient::Patient;
use crate::sys::room::Place;
use crate::sys::room::Room;
use crate::sys::tasks::Stop;
use crate::sys::tls::serving::Serving;

/// How long a connection that makes room may take to finish the request in flight.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection may take to send a request's head, and how long it may idle between requests.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may take for its TLS handshake.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may take nothing of an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request's head that are held.
const HEAD_BYTES: usize = 64 * 1024;
/// How long to wait after the system refused to accept, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The other end of the TCP connection a request came on; every request carries it as an extension.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Our own end of that connection; likewise on every request.
#[derive(Debug, Clone, Copy)]
pub struct Local(pub SocketAddr);

/// The name of the list that the client's certificate carries; on requests whose connection proved one.
#[derive(Debug, Clone)]
pub struct ClientName(pub Arc<str>);

/// Why an address could not be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// No address was given.
    #[error("no address was given to listen on")]
    None,
    /// The system refused.
    #[error("{address}: {source}")]
    Io {
        /// Which address.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
}

/// Binds every address. `::1` is passed over on machines without IPv6, as long as another is there; any other was meant.
pub async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_ipv6_loopback(address) && addresses.len() > 1 && is_absent(&error) => {
                tracing::info!(%address, "this machine has no such address; passed over");
            }
            Err(source) => return Err(BindError::Io { address: *address, source }),
        }
    }
    if listeners.is_empty() { Err(BindError::None) } else { Ok(listeners) }
}

fn is_ipv6_loopback(address: &SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_loopback()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Serves one listener until told to stop; requests in flight are then finished, for as long as the caller waits.
pub async fn serve(listener: TcpListener, router: Router, room: Arc<Room>, stop: Stop) {
    serve_with(listener, None, router, room, stop).await;
}

/// The same over TLS, where there is a certificate.
pub async fn serve_with(listener: TcpListener, tls: Option<Serving>, router: Router, room: Arc<Room>, mut stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.wait() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let work = connection(stream, peer, place, tls.clone(), router.clone(), stop.clone());
                connections.spawn(work);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener, room: &Arc<Room>) -> io::Result<(TcpStream, SocketAddr, Place)> {
    // Room first: a connection that cannot be served is better left in the backlog.
    let place = room.take().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// Serves one connection until it ends, or has to make room.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    tls: Option<Serving>,
    router: Router,
    stop: Stop,
) {
    let left = async {
        place.told_to_leave().await;
        tokio::time::sleep(LEAVE_PATIENCE).await;
    };
    tokio::select! {
        () = greet(stream, peer, &place, tls, router, stop) => {}
        () = left => tracing::debug!(%peer, "a connection made room for others"),
    }
}

async fn greet(stream: TcpStream, peer: SocketAddr, place: &Place, tls: Option<Serving>, router: Router, stop: Stop) {
    // A connection that is gone already has no end here; it will not be read either.
    let Ok(local) = stream.local_addr() else { return };
    let Some(tls) = tls else { return talk(stream, Ends { peer, local, name: None }, place, router, stop).await };
    match tokio::time::timeout(HANDSHAKE_PATIENCE, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates();
            let name = tls.client_name(shown);
            let chain: Vec<_> = shown.unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect();
            tokio::select! {
                () = talk(stream, Ends { peer, local, name }, place, router, stop) => {}
                // Not gracefully: whoever is not trusted any more gets nothing more.
                () = tls.withdrawn(&chain) => {
                    tracing::warn!(%peer, "a connection was ended: its certificate is not accepted any more");
                }
            }
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

/// What is known of a connection.
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
    name: Option<Arc<str>>,
}

async fn talk<S>(stream: S, ends: Ends, place: &Place, router: Router, mut stop: Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ends { peer, local, name } = ends;
    let (service, admission) = (TowerToHyperService::new(router), place.admission());
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(Local(local));
        request.extensions_mut().insert(admission.clone());
        if let Some(name) = &name {
            request.extensions_mut().insert(ClientName(Arc::clone(name)));
        }
        service.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, WRITE_PATIENCE)), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.wait() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        () = place.told_to_leave() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection broke off");
    }
}
