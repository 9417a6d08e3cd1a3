//! Short HTTP/1.1 exchanges with our own processes: health, Envoy's admin interface, the admin API.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use crate::sys::tls::trust::ServerTrust;

/// Largest answer read; Envoy's list of statistics is the longest that is asked for.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Where a process of ours answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address of this machine.
    Tcp(SocketAddr),
    /// The same with TLS, and whom to believe there.
    Tls(SocketAddr, ServerTrust),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// What stands in `Host`.
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// Where we reach a listener of our own: one on all addresses answers on loopback.
pub fn reachable(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(match listener.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    listener
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nobody is there.
    #[error("cannot be reached: {0}")]
    Connect(#[source] io::Error),
    /// The conversation broke off.
    #[error("the exchange failed: {0}")]
    Broken(String),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
}

/// Sends one request on a connection of its own and reads the whole answer, within `deadline`. `Host` is the endpoint's.
pub async fn exchange(
    endpoint: &Endpoint,
    request: http::request::Builder,
    body: Bytes,
    deadline: Duration,
) -> Result<Answer, ExchangeError> {
    let request = request
        .header(http::header::HOST, endpoint.authority())
        .header(http::header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| ExchangeError::Broken(error.to_string()))?;
    let work = async {
        match endpoint {
            Endpoint::Tcp(address) => {
                talk(TcpStream::connect(address).await.map_err(ExchangeError::Connect)?, request).await
            }
            Endpoint::Tls(address, trust) => {
                let config = trust.client_config().map_err(|error| ExchangeError::Broken(error.to_string()))?;
                let stream = TcpStream::connect(address).await.map_err(ExchangeError::Connect)?;
                let connector = TlsConnector::from(Arc::new(config));
                let stream = connector.connect(ServerName::from(address.ip()), stream).await;
                talk(stream.map_err(ExchangeError::Connect)?, request).await
            }
            Endpoint::Unix(path) => {
                talk(UnixStream::connect(path).await.map_err(ExchangeError::Connect)?, request).await
            }
        }
    };
    tokio::time::timeout(deadline, work).await.map_err(|_| ExchangeError::Late(deadline))?
}

async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: &dyn std::fmt::Display| ExchangeError::Broken(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let ask = async move {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER);
        let body = body.collect().await.map_err(|error| broken(&error))?.to_bytes();
        Ok(Answer { status, body })
    };
    // Driven beside the question; how the connection itself ends says nothing the answer does not.
    let (answer, _) = tokio::join!(ask, connection);
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn one_request_one_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 4096];
            let length = stream.read(&mut seen).await.unwrap();
            stream.write_all(b"HTTP/1.1 503 x\r\ncontent-length: 3\r\n\r\nno\n").await.unwrap();
            String::from_utf8_lossy(&seen[..length]).into_owned()
        };
        let ask = exchange(&endpoint, Request::get("/health"), Bytes::new(), SOON);
        let (seen, answer) = tokio::join!(server, ask);
        assert!(seen.starts_with("GET /health HTTP/1.1\r\n") && seen.contains("host: 127.0.0.1:"), "{seen}");
        assert_eq!(answer.unwrap(), Answer { status: 503, body: Bytes::from_static(b"no\n") });
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline_and_nobody_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        let late = exchange(&endpoint, Request::get("/"), Bytes::new(), Duration::from_millis(30)).await;
        assert!(matches!(late, Err(ExchangeError::Late(_))), "{late:?}");
        // A port that is held without listening: one that was let go another test could take.
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = Endpoint::Tcp(held.local_addr().unwrap());
        let nobody = exchange(&endpoint, Request::get("/"), Bytes::new(), SOON).await;
        assert!(matches!(nobody, Err(ExchangeError::Connect(_))), "{nobody:?}");
    }
}
