//! A bridge that is none of ours: it joins a pair session as the protocol says, and answers each command with the
//! command's own path and body.

use std::net::SocketAddr;

use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::api::Api;

/// A pair session.
#[derive(Debug, Clone)]
pub struct Paired {
    pub id: String,
    pub namespace: String,
    pub code: String,
}

impl Paired {
    /// Starts one of the owner of a namespace.
    pub fn start(api: &Api, namespace: &str) -> Self {
        let made = api.owner(namespace, "POST", "/v1/gateway/pairing/start", Some(&json!({"ttl_seconds": 3600})));
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Self { id: text("session_id"), namespace: text("namespace"), code: text("pair_code") }
    }

    /// Whether the API says that a bridge is there.
    pub fn is_connected(&self, api: &Api) -> bool {
        let target = format!("/v1/gateway/pairing/status?session_id={}", self.id);
        api.owner(&self.namespace, "GET", &target, None)["connected"] == true
    }

    /// The body of a command for its gateway.
    pub fn command(&self, path: &str, body: &str) -> Value {
        json!({"session_id": self.id, "method": "POST", "path": path, "body": body, "timeout_ms": 60_000})
    }
}

/// A joined socket.
pub type Socket = WebSocketStream<TcpStream>;

/// Joins, with the code in the query as the original bridge has it.
pub async fn join(address: SocketAddr, paired: &Paired) -> Socket {
    let Paired { id, namespace, code } = paired;
    let url = format!("ws://{address}/v1/gateway/pairing/connect?session_id={id}&namespace={namespace}&code={code}");
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let config = WebSocketConfig::default().read_buffer_size(8 * 1024).write_buffer_size(0);
    let request = url.into_client_request().unwrap();
    tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await.unwrap().0
}

/// Answers until the socket ends: its closing code and reason.
pub async fn answer(mut socket: Socket) -> (u16, String) {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(Some(frame)) = message {
            return (frame.code.into(), frame.reason.to_string());
        }
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        let reply = match frame["type"].as_str().unwrap() {
            "ping" => json!({"type": "pong", "ts": 1}),
            "command" => json!({"type": "response", "request_id": frame["request_id"], "status": 200,
                "headers": {"x-path": frame["path"]}, "body": frame["body"], "error": null}),
            _ => continue,
        };
        if socket.send(Message::text(reply.to_string())).await.is_err() {
            break;
        }
    }
    (1006, String::new())
}
