//! A bridge as it looks from the control plane: a WebSocket client that does what the test says.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

use std::time::Duration;

use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::support::Answer;
use super::support::Ask;
use super::support::ControlPlane;
use crate::wire::pairing::RECONNECT_HEADER;

const PATIENCE: Duration = Duration::from_secs(30);

/// A session that was started.
#[derive(Debug, Clone)]
pub(super) struct Paired {
    pub(super) id: String,
    pub(super) namespace: String,
    pub(super) code: String,
}

impl Paired {
    /// The target of the handshake as the original bridge writes it, the code in the query.
    pub(super) fn target(&self) -> String {
        let Self { id, namespace, code } = self;
        format!("/v1/gateway/pairing/connect?session_id={id}&namespace={namespace}&code={code}")
    }

    pub(super) fn with_code(&self, code: &str) -> Self {
        Self { code: code.to_owned(), ..self.clone() }
    }
}

impl ControlPlane {
    /// Starts a session of an owner.
    pub(super) async fn paired(&self, namespace: &str) -> Paired {
        let made = self.owner(namespace, "POST", "/v1/gateway/pairing/start").send().await.expect(200);
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Paired { id: text("session_id"), namespace: text("namespace"), code: text("pair_code") }
    }

    pub(super) async fn status(&self, paired: &Paired) -> Value {
        let target = format!("/v1/gateway/pairing/status?session_id={}", paired.id);
        self.owner(&paired.namespace, "GET", &target).send().await.expect(200)
    }

    pub(super) async fn wait_connected(&self, paired: &Paired, connected: bool) {
        let reached = async {
            while self.status(paired).await["connected"] != connected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    }

    pub(super) fn command(&self, paired: &Paired, change: Value) -> Ask {
        let mut body = json!({"session_id": paired.id, "method": "GET", "path": "/health"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self.owner(&paired.namespace, "POST", "/v1/gateway/pairing/command").json(&body)
    }

    /// A handshake that is expected to be refused.
    pub(super) async fn refused(&self, paired: &Paired) -> Answer {
        self.ask("GET", &paired.target()).upgrade().send().await
    }
}

/// A bridge that has joined.
#[derive(Debug)]
pub(super) struct Bridge(WebSocketStream<TcpStream>);

impl Bridge {
    /// Joins and waits until the control plane says so.
    pub(super) async fn join(api: &ControlPlane, paired: &Paired) -> Self {
        let bridge = Self::shake(api, &paired.target(), &[]).await;
        api.wait_connected(paired, true).await;
        bridge
    }

    pub(super) async fn shake(api: &ControlPlane, target: &str, headers: &[(&'static str, &str)]) -> Self {
        Self::shake_for_secret(api, target, headers).await.0
    }

    /// The same, with the reconnect secret of the answer.
    pub(super) async fn shake_for_secret(
        api: &ControlPlane,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> (Self, Option<String>) {
        let stream = TcpStream::connect(api.address).await.unwrap();
        let mut request = format!("ws://{}{target}", api.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let secret = answer.headers().get(RECONNECT_HEADER).map(|secret| secret.to_str().unwrap().to_owned());
        (Self(socket), secret)
    }

    pub(super) async fn say(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    /// The same, where the socket may end meanwhile.
    pub(super) async fn try_say(&mut self, text: String) -> Result<(), tungstenite::Error> {
        self.0.send(Message::text(text)).await
    }

    pub(super) async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap().unwrap().unwrap()
    }

    /// The next frame.
    pub(super) async fn frame(&mut self) -> Value {
        let message = self.next().await;
        let text = message.to_text().unwrap();
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {message:?}"))
    }

    /// The next frame, where it is a command.
    pub(super) async fn command(&mut self) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame["type"], "command", "{frame}");
        frame
    }

    /// Answers a command with its own path and body.
    pub(super) async fn echo(&mut self, command: &Value) {
        self.say(echo(command)).await;
    }

    /// How the socket ends: code and reason.
    pub(super) async fn ended(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(Some(frame)) = self.next().await {
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    /// Answers whatever comes until the socket ends.
    pub(super) fn work(mut self) -> JoinHandle<(u16, String)> {
        let work = async move {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).unwrap();
                        match frame["type"].as_str().unwrap() {
                            "ping" => self.say(json!({"type": "pong", "ts": 1}).to_string()).await,
                            "command" => self.echo(&frame).await,
                            _ => {}
                        }
                    }
                    Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return (1006, String::new()),
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the test is its owner")]
        tokio::spawn(work)
    }
}

/// The answer to a command that says what was asked.
pub(super) fn echo(command: &Value) -> String {
    json!({"type": "response", "request_id": command["request_id"], "status": 200, "headers": {"x-path": command["path"]},
        "body": command["body"], "error": null})
    .to_string()
}
