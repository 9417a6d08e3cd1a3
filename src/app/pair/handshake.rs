//! The handshake with the control plane (RFC 6455 section 4.1), done over an HTTP client of ours: a refusal's status
//! and whole body decide whether to go on, and a WebSocket client shows at most their beginning.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header::CONNECTION;
use http::header::HOST;
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::header::SEC_WEBSOCKET_KEY;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::header::SEC_WEBSOCKET_VERSION;
use http::header::UPGRADE;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::app::pair::PairConfig;
use crate::app::web::below;
use crate::domain::secret::Secret;
use crate::pair::frames;
use crate::pair::session::Form;
use crate::sys::http::chain;
use crate::sys::random;
use crate::sys::tls::TlsError;
use crate::sys::tls::trust;

/// Largest message that is taken: the admin API reads bodies of 2 MiB, and JSON may need several bytes for one.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Most of a refusal's body that is read.
const MAX_REFUSAL: usize = 64 * 1024;

/// An open socket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What a handshake that was answered as we hoped has brought.
pub(super) struct Opened {
    pub(super) socket: Socket,
    /// What to come back with from now on; `None`: nothing new.
    pub(super) reconnect: Option<Secret>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum NoSocket {
    /// It was answered otherwise.
    Refused { status: u16, body: String },
    /// Nobody answered, or not as HTTP has it.
    Failed(String),
}

/// Where the session is.
#[derive(Clone)]
pub(super) struct ControlPlane {
    url: Url,
    code: Arc<Secret>,
    reconnect: Option<Arc<Secret>>,
    tls: Option<TlsConnector>,
}

impl ControlPlane {
    pub(super) fn new(config: &PairConfig) -> Result<Self, TlsError> {
        let mut url = below(&config.api_url, frames::CONNECT_PATH);
        url.query_pairs_mut()
            .append_pair("session_id", config.session.as_str())
            .append_pair("namespace", config.namespace.as_str());
        let tls = (url.scheme() == "https").then(trust::system).transpose()?;
        let tls = tls.map(|config| TlsConnector::from(Arc::new(config)));
        let reconnect = config.reconnect.as_ref().map(|secret| Arc::new(secret.duplicate()));
        Ok(Self { url, code: Arc::new(config.code.duplicate()), reconnect, tls })
    }

    /// Shows this secret from now on.
    pub(super) fn come_back_with(&mut self, secret: Secret) {
        self.reconnect = Some(Arc::new(secret));
    }

    /// Connects and shakes hands.
    pub(super) async fn connect(self, form: Form) -> Result<Opened, NoSocket> {
        let host = self.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_or_known_default().unwrap_or_default();
        let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &self.tls {
            None => self.upgrade(stream, form).await,
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned()).map_err(failed)?;
                let stream = tls.connect(name, stream).await.map_err(failed)?;
                self.upgrade(stream, form).await
            }
        }
    }

    async fn upgrade<S>(&self, stream: S, form: Form) -> Result<Opened, NoSocket>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let key = STANDARD.encode(random::bytes::<16>().map_err(failed)?);
        let request = self.request(&key, form)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let ask = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            let status = answer.status();
            if status != StatusCode::SWITCHING_PROTOCOLS {
                let body = Limited::new(answer.into_body(), MAX_REFUSAL).collect().await;
                // Who says more than that is none of ours.
                let body = body.map(|body| body.to_bytes()).unwrap_or_default();
                let body = String::from_utf8_lossy(&body).into_owned();
                return Err(NoSocket::Refused { status: status.as_u16(), body });
            }
            check(answer.headers(), &key).map_err(|what| failed(io::Error::other(what)))?;
            let reconnect = answer.headers().get(frames::RECONNECT_HEADER);
            let reconnect = reconnect.and_then(|value| frames::reconnect_secret(value.as_bytes()));
            Ok((hyper::upgrade::on(answer).await.map_err(failed)?, reconnect))
        };
        let mut connection = std::pin::pin!(connection.with_upgrades());
        let mut ask = std::pin::pin!(ask);
        let mut ended = false;
        // The connection does the work that the question waits for, and may end before the answer was read.
        let (upgraded, reconnect) = loop {
            tokio::select! {
                answer = &mut ask => break answer?,
                _ = &mut connection, if !ended => ended = true,
            }
        };
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
        Ok(Opened { socket, reconnect })
    }

    fn request(&self, key: &str, form: Form) -> Result<Request<Empty<Bytes>>, NoSocket> {
        let mut url = self.url.clone();
        if form == Form::Query {
            url.query_pairs_mut().append_pair("code", self.code.expose());
        }
        let host = url.host_str().unwrap_or_default();
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let mut request = Request::get(target)
            .header(HOST, authority)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, key);
        // Who takes the code in the address alone has given no secret, or was another.
        if form == Form::Header {
            request = request.header(frames::CODE_HEADER, unseen(&self.code)?);
            if let Some(secret) = &self.reconnect {
                request = request.header(frames::RECONNECT_HEADER, unseen(secret)?);
            }
        }
        request.body(Empty::new()).map_err(failed)
    }
}

fn unseen(secret: &Secret) -> Result<HeaderValue, NoSocket> {
    let mut value = HeaderValue::from_str(secret.expose()).map_err(failed)?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a client must look at (RFC 6455 section 4.1, the server's response). We asked for neither extension nor
/// sub-protocol.
fn check(headers: &HeaderMap, key: &str) -> Result<(), &'static str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !text(UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err("the answer switches to another protocol than WebSocket");
    }
    if !text(CONNECTION).split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")) {
        return Err("the answer switches protocols without saying so");
    }
    if text(SEC_WEBSOCKET_ACCEPT) != derive_accept_key(key.as_bytes()) {
        return Err("the answer is to another handshake");
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) || headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Err("the answer names an extension or protocol that was not asked for");
    }
    Ok(())
}

/// In words that hold neither the address, in which the code may stand, nor a header.
fn failed(error: impl std::error::Error + 'static) -> NoSocket {
    NoSocket::Failed(chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_our_handshake_opens_a_socket() {
        // The example of RFC 6455 section 1.3.
        let (key, accept) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).parse(), HeaderValue::from_static(value)))
                .filter_map(|(name, value)| Some((name.ok()?, value)))
                .collect::<HeaderMap>()
        };
        let good = [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade"), ("sec-websocket-accept", accept)];
        assert_eq!(check(&headers(&good), key), Ok(()));
        for (at, value) in [(0, "h2c"), (1, "close"), (2, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")] {
            let mut bad = good;
            bad[at].1 = value;
            assert!(check(&headers(&bad), key).is_err(), "{value}");
        }
        for more in ["sec-websocket-protocol", "sec-websocket-extensions"] {
            let bad = [good[0], good[1], good[2], (more, "x")];
            assert!(check(&headers(&bad), key).is_err(), "{more}");
        }
    }
}
