//! Speaking gRPC to somebody whose address is a setting: TLS by whom the system believes, or plain.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;
use tonic::transport::Channel;
use tonic::transport::Endpoint;

use crate::sys::tls::TlsError;
use crate::sys::tls::trust;

/// How long connecting may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is asked this often whether it lives, and has this long to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// The port where the address names none: that of OTLP over gRPC.
const DEFAULT_PORT: u16 = 4317;

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address.
    #[error("{0} is no address")]
    Address(String),
    /// The system's certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A channel to `http://host[:port]` or `https://host[:port]`. Connects with the first request, and again after it broke.
pub fn lazy(address: &str) -> Result<Channel, ClientError> {
    let wrong = || ClientError::Address(address.to_owned());
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let host = uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']')).ok_or_else(wrong)?.to_owned();
    let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
    let tls = match uri.scheme_str() {
        Some("https") => {
            let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
            Some((TlsConnector::from(Arc::new(trust::system_for(b"h2")?)), name))
        }
        Some("http") => None,
        Some(_) | None => return Err(wrong()),
    };
    let (interval, timeout) = KEEP_ALIVE;
    // The name is never resolved: the connector knows where to go, and whether in TLS.
    let endpoint = Endpoint::from_static("http://collector.invalid")
        .origin(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(timeout);
    Ok(endpoint.connect_with_connector_lazy(Connector { host, port, tls }))
}

#[derive(Clone)]
struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection, in TLS or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { host, port, tls } = self.clone();
        Box::pin(async move {
            let connecting = async {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                Ok::<Box<dyn Stream>, io::Error>(match tls {
                    Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
                    None => Box::new(stream),
                })
            };
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            Ok(TokioIo::new(connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??))
        })
    }
}
