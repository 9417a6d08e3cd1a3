//! A gateway behind a pair session that says what a test says: the bridge's side of the WebSocket, and no gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// One command as it arrived.
#[derive(Debug, Clone)]
pub struct Commanded {
    /// `POST /api/admin/connections`.
    pub line: String,
    /// Empty where there is none.
    pub body: String,
}

/// What it answers: status and body.
type Handler = dyn Fn(&Commanded) -> (u16, String) + Send + Sync;

/// A bridge that is there until it is dropped.
pub struct FakeBridge {
    commands: Arc<Mutex<Vec<Commanded>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl FakeBridge {
    /// Joins a session, and returns when it has.
    pub fn join(
        api: SocketAddr,
        (session, namespace, code): (&str, &str, &str),
        handler: impl Fn(&Commanded) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let url = format!("ws://{api}/v1/gateway/pairing/connect?session_id={session}&namespace={namespace}");
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("x-sigilum-pair-code", code.parse().unwrap());
        let commands: Arc<Mutex<Vec<Commanded>>> = Arc::default();
        let (noted, handler): (_, Arc<Handler>) = (Arc::clone(&commands), Arc::new(handler));
        let (stop, mut stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let stream = TcpStream::connect(api).await.unwrap();
                let (mut socket, _) = client_async(request, stream).await.unwrap();
                ready.send(()).unwrap();
                loop {
                    let message = tokio::select! {
                        _ = &mut stopped => break,
                        message = socket.next() => message,
                    };
                    let Some(Ok(message)) = message else { break };
                    let Message::Text(text) = message else { continue };
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    let answer = match frame["type"].as_str() {
                        Some("ping") => json!({ "type": "pong", "ts": 0 }),
                        Some("command") => {
                            let text = |name: &str| frame[name].as_str().unwrap_or_default();
                            let line = format!("{} {}", text("method"), text("path"));
                            let command = Commanded { line, body: text("body").to_owned() };
                            noted.lock().unwrap().push(command.clone());
                            let (status, body) = handler(&command);
                            json!({ "type": "response", "request_id": frame["request_id"], "status": status,
                                "headers": { "content-type": "application/json" }, "body": body, "error": null })
                        }
                        _ => continue,
                    };
                    if socket.send(Message::text(answer.to_string())).await.is_err() {
                        break;
                    }
                }
            });
        });
        is_ready.recv().unwrap();
        Self { commands, stop: Some(stop), thread: Some(thread) }
    }

    /// What it was asked so far.
    pub fn commands(&self) -> Vec<Commanded> {
        self.commands.lock().unwrap().clone()
    }

    /// The body of the last command that begins like this.
    pub fn body(&self, line: &str) -> Option<Value> {
        let commands = self.commands();
        let found = commands.iter().rev().find(|one| one.line.starts_with(line))?;
        serde_json::from_str(&found.body).ok()
    }
}

impl Drop for FakeBridge {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
