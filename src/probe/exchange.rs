//! One request and its answer on a connection of its own: TLS where the address says so, no redirect, bounded.

use std::sync::Arc;
use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use http::Uri;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::domain::connection::Upstream;
use crate::domain::secret::Secret;
use crate::sys::http::chain;
use crate::sys::tls::trust;

/// Bytes of a failed answer that are read.
const MAX_PREVIEW_BYTES: usize = 64 * 1024;
/// Bytes of an answer's head that are held.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The authorities this machine trusts, read at the first test; where that fails, at the next one again.
#[derive(Debug, Default)]
pub(super) struct Roots(OnceLock<Arc<ClientConfig>>);

impl Roots {
    fn config(&self, load: impl FnOnce() -> Result<Arc<ClientConfig>, String>) -> Result<Arc<ClientConfig>, String> {
        match self.0.get() {
            Some(config) => Ok(Arc::clone(config)),
            None => {
                let config = load()?;
                Ok(Arc::clone(self.0.get_or_init(|| config)))
            }
        }
    }

    /// One authority alone.
    #[cfg(test)]
    pub(super) fn of(certificate: &rustls::pki_types::CertificateDer<'static>) -> Self {
        let mut store = rustls::RootCertStore::empty();
        let config = store.add(certificate.clone()).and_then(|()| {
            let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
            let builder = builder.with_safe_default_protocol_versions()?;
            Ok(Arc::new(builder.with_root_certificates(store).with_no_client_auth()))
        });
        Self(OnceLock::from(config.unwrap()))
    }
}

fn load() -> Result<Arc<ClientConfig>, String> {
    trust::system().map(Arc::new).map_err(|error| error.to_string())
}

/// An answer whose body was not read yet. Holds the connection.
#[derive(Debug)]
pub(super) struct Received {
    response: Response<Incoming>,
    /// The task that drives the connection; ends with this.
    _driver: JoinSet<()>,
}

impl Received {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The beginning of the body as text; what is no text, or does not come in time, is left out.
    pub(super) async fn preview(self, deadline: tokio::time::Instant) -> String {
        let Self { response, _driver } = self;
        // What is compressed could hold the credential where nobody sees it, and says nothing to people either.
        if response.headers().contains_key(header::CONTENT_ENCODING) {
            return String::new();
        }
        let mut body = response.into_body();
        let mut read = Vec::new();
        while read.len() < MAX_PREVIEW_BYTES {
            match tokio::time::timeout_at(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    let room = MAX_PREVIEW_BYTES.saturating_sub(read.len());
                    read.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                }
                Ok(None | Some(Err(_))) | Err(_) => break,
            }
        }
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// Sends one request on this connection and waits for the head of the answer.
pub(super) async fn send(
    stream: TcpStream,
    upstream: &Upstream,
    roots: &Roots,
    method: Method,
    target: &Secret,
    headers: HeaderMap,
    body: Vec<u8>,
) -> Result<Received, String> {
    let uri =
        Uri::try_from(target.expose()).map_err(|_| "the path holds a character no request can carry".to_owned())?;
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    if !upstream.tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(upstream.host().to_owned())
        .map_err(|_| format!("{} is no name a certificate can carry", upstream.host()))?;
    let connector = TlsConnector::from(roots.config(load)?);
    let secured = connector.connect(name, stream).await;
    exchange(secured.map_err(|error| format!("TLS: {}", chain(&error)))?, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Received, String> {
    // The client's own words may quote what was received, never what was sent; the caller takes the credential out.
    let broken = |error: hyper::Error| format!("the exchange failed: {}", chain(&error));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What goes wrong is told to whoever waits for the answer.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok(Received { response, _driver: driver })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn authorities_that_could_not_be_read_are_read_again() {
        let roots = Roots::default();
        assert_eq!(roots.config(|| Err("not now".to_owned())).unwrap_err(), "not now");
        let read = roots.config(load).unwrap();
        let kept = roots.config(|| Err("never asked".to_owned())).unwrap();
        assert!(Arc::ptr_eq(&read, &kept));
    }
}
