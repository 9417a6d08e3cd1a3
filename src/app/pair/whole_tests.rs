//! The bridge between a control plane that does what a test tells it, over real sockets, and a small gateway that
//! repeats what it was asked.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code may panic"
)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use axum::response::Response;
use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::pair::frames::Terminal;
use crate::pair::session::MAX_RELAYS;
use crate::pair::session::Trouble;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::stop_pair;

const CODE: &str = "CANARYCD";
const TOKEN: &str = "canary-admin-token";
/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A control plane: well to the preflight, and everything else as the test says.
struct Peer {
    address: SocketAddr,
    handshakes: mpsc::Receiver<Handshake>,
    server: JoinHandle<()>,
}

/// A request for a socket that is not answered yet.
struct Handshake {
    head: String,
    stream: TcpStream,
}

/// The control plane's end of a socket.
struct Socket(WebSocketStream<TcpStream>);

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

fn plain(status: u16, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

impl Peer {
    async fn start() -> Self {
        Self::start_with(|head| {
            let is_route = head.contains(pairing_path());
            if is_route { plain(400, "application/json", "{}") } else { plain(200, "application/json", "{}") }
        })
        .await
    }

    /// `page` answers what asks for no socket.
    async fn start_with(page: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, handshakes) = mpsc::channel(64);
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = head(&mut stream).await;
                if head.to_ascii_lowercase().contains("\r\nupgrade: websocket") {
                    let _ = sender.send(Handshake { head, stream }).await;
                } else {
                    let _ = stream.write_all(page(&head).as_bytes()).await;
                }
            }
        });
        Self { address, handshakes, server }
    }

    async fn handshake(&mut self) -> Handshake {
        tokio::time::timeout(LIMIT, self.handshakes.recv()).await.unwrap().unwrap()
    }

    async fn open(&mut self) -> Socket {
        self.handshake().await.accept().await
    }
}

fn pairing_path() -> &'static str {
    crate::pair::frames::CONNECT_PATH
}

impl Handshake {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    async fn accept(self) -> Socket {
        self.accept_with("").await
    }

    /// The same, with more lines in the head.
    async fn accept_with(mut self, more: &str) -> Socket {
        let accept = derive_accept_key(self.header("sec-websocket-key").unwrap().as_bytes());
        let answer = format!(
            "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n{more}\r\n"
        );
        self.stream.write_all(answer.as_bytes()).await.unwrap();
        Socket(WebSocketStream::from_raw_socket(self.stream, Role::Server, None).await)
    }

    /// Head and body in two pieces, as networks deliver them.
    async fn refuse(mut self, status: u16, body: &str) {
        let answer = plain(status, "application/json", body);
        let (head, body) = answer.split_at(answer.len() - body.len());
        self.stream.set_nodelay(true).unwrap();
        self.stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.stream.write_all(body.as_bytes()).await.unwrap();
    }
}

impl Socket {
    async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text.to_owned())).await.unwrap();
    }

    async fn command(&mut self, id: &str, method: &str, path: &str, body: Option<&str>) {
        self.command_with(json!({"x-request-id": "r-1"}), id, method, path, body).await;
    }

    /// The same with these headers, and with one that would pose as the bridge.
    async fn command_with(&mut self, mut headers: Value, id: &str, method: &str, path: &str, body: Option<&str>) {
        headers["x-sigilum-relay"] = json!("another");
        let frame = json!({"type": "command", "request_id": id, "method": method, "path": path, "headers": headers,
            "body": body});
        self.send(&frame.to_string()).await;
    }

    /// The next message that is no heartbeat.
    async fn message(&mut self) -> Message {
        loop {
            let message = tokio::time::timeout(LIMIT, self.0.next()).await.unwrap().unwrap().unwrap();
            if !message.to_text().is_ok_and(|text| text.contains(r#""type":"ping""#)) {
                return message;
            }
        }
    }

    async fn frame(&mut self) -> Value {
        serde_json::from_str(self.message().await.to_text().unwrap()).unwrap()
    }

    /// Nothing was lost and nothing is stuck.
    async fn assert_alive(&mut self) {
        self.send(r#"{"type":"ping"}"#).await;
        assert_eq!(self.frame().await["type"], "pong");
    }

    async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.0.send(Message::Close(Some(frame))).await.unwrap();
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

/// An admin API that repeats what it was asked, or does not.
struct Gateway {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Gateway {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| answer(request, Arc::clone(&shared)));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, asked, server }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn answer(request: Request, asked: Arc<Mutex<Vec<String>>>) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    asked.lock().unwrap().push(line.clone());
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    match head.uri.path() {
        "/api/admin/sealing-key" => {
            return json!({"fingerprint": "ab12-cd34", "public_key": "x"}).to_string().into_response();
        }
        "/api/admin/connections/never" => std::future::pending().await,
        "/api/admin/connections/big" => {
            let piece = bytes::Bytes::from(vec![b'x'; 1024 * 1024]);
            let pieces = (0..50).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
            return Body::from_stream(futures_util::stream::iter(pieces)).into_response();
        }
        "/api/admin/connections/grows" => return "\u{1}".repeat(4 * 1024 * 1024).into_response(),
        "/api/admin/connections/empty" => return (http::StatusCode::NO_CONTENT, [("x-a", "1")]).into_response(),
        _ => {}
    }
    let headers: BTreeMap<_, _> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let said = json!({"line": line, "headers": headers, "body": body}).to_string();
    ([("x-b", "2")], said).into_response()
}

/// A running bridge.
struct Bridge {
    stop: StopHandle,
    progress: mpsc::UnboundedReceiver<Progress>,
    task: JoinHandle<Result<End, PairError>>,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const PACE: Pace = Pace {
    reconnect: Duration::from_millis(10),
    connect_timeout: LIMIT,
    heartbeat: Duration::from_secs(30),
    relay_timeout: LIMIT,
};

fn config(api: SocketAddr, admin: SocketAddr, pace: Pace) -> PairConfig {
    PairConfig {
        session: RelaySession::parse("0b5c2a4e-7f57-4a3c-9c7e-0d3a8f6f2b11").unwrap(),
        namespace: Namespace::parse("acme").unwrap(),
        code: Secret::new(CODE.to_owned()),
        reconnect: None,
        keep_reconnect: None,
        api_url: Url::parse(&format!("http://{api}")).unwrap(),
        admin_url: Url::parse(&format!("http://{admin}")).unwrap(),
        admin_trust: ServerTrust::default(),
        admin_token: Arc::new(|| Ok(Some(Secret::new(TOKEN.to_owned())))),
        pace,
    }
}

impl Bridge {
    fn start(api: SocketAddr, admin: SocketAddr, pace: Pace) -> Self {
        Self::start_as(config(api, admin, pace))
    }

    fn start_as(config: PairConfig) -> Self {
        let (stop, stopped) = stop_pair();
        let (sender, progress) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut say = move |progress| drop(sender.send(progress));
            run(config, stopped, &mut say).await
        });
        Self { stop, progress, task }
    }

    async fn end(&mut self) -> Result<End, PairError> {
        tokio::time::timeout(LIMIT, &mut self.task).await.unwrap().unwrap()
    }

    /// Waits for a notice.
    async fn says(&mut self, is: impl Fn(&Notice) -> bool) -> Notice {
        loop {
            match tokio::time::timeout(LIMIT, self.progress.recv()).await.unwrap().unwrap() {
                Progress::Session(notice) if is(&notice) => return notice,
                Progress::Session(_) | Progress::Preflight(_) | Progress::SecretNotKept(_) => {}
            }
        }
    }
}

/// A bridge with both of its ends, connected.
async fn connected(pace: Pace) -> (Peer, Gateway, Bridge, Socket) {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let bridge = Bridge::start(peer.address, gateway.address, pace);
    let socket = peer.open().await;
    (peer, gateway, bridge, socket)
}

#[tokio::test]
async fn the_code_goes_in_a_header_and_stands_in_no_address() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let _bridge = Bridge::start(peer.address, gateway.address, PACE);
    let handshake = peer.handshake().await;
    let target = handshake.head.lines().next().unwrap();
    let wanted =
        "GET /v1/gateway/pairing/connect?session_id=0b5c2a4e-7f57-4a3c-9c7e-0d3a8f6f2b11&namespace=acme HTTP/1.1";
    assert_eq!(target, wanted);
    assert_eq!(handshake.header("x-sigilum-pair-code"), Some(CODE));
    assert_eq!(handshake.header("host"), Some(peer.address.to_string().as_str()));
    assert!(!handshake.head.contains(TOKEN));
}

#[tokio::test]
async fn a_control_plane_that_wants_it_in_the_address_gets_it_there() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let _bridge = Bridge::start(peer.address, gateway.address, PACE);
    peer.handshake().await.refuse(400, r#"{"error":"session_id, namespace and code are required"}"#).await;
    let handshake = peer.handshake().await;
    assert!(handshake.head.lines().next().unwrap().ends_with("&code=CANARYCD HTTP/1.1"), "{}", handshake.head);
    handshake.accept().await.assert_alive().await;
}

#[tokio::test]
async fn a_ping_is_answered_with_the_time() {
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    socket.send(r#"{"type":"ping","ts":1}"#).await;
    let pong = socket.frame().await;
    assert_eq!(pong["type"], "pong");
    assert!(pong["ts"].as_u64().unwrap() > 1_600_000_000_000, "{pong}");
}

#[tokio::test]
async fn a_ping_is_sent_at_each_heartbeat() {
    let pace = Pace { heartbeat: Duration::from_millis(30), ..PACE };
    let (_peer, _gateway, _bridge, mut socket) = connected(pace).await;
    for _ in 0..3 {
        let message = tokio::time::timeout(LIMIT, socket.0.next()).await.unwrap().unwrap().unwrap();
        let ping: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(ping["type"], "ping");
        socket.send(r#"{"type":"pong"}"#).await;
    }
}

#[tokio::test]
async fn a_ping_of_the_protocol_is_answered_too() {
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    socket.0.send(Message::Ping("x".into())).await.unwrap();
    assert_eq!(socket.message().await, Message::Pong("x".into()));
}

#[tokio::test]
async fn what_is_no_frame_is_passed_over() {
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    for text in ["", "{", "null", "[]", "\"x\"", "{}", r#"{"type":"nonsense"}"#, r#"{"type":"command"}"#, "\u{0}"] {
        socket.send(text).await;
    }
    socket.0.send(Message::Binary(vec![0xff, 0x00].into())).await.unwrap();
    socket.assert_alive().await;
}

#[tokio::test]
async fn a_command_reaches_the_gateway_with_the_token_of_this_machine_and_no_other() {
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    socket.command("a", "post", "/api/admin/connections/slack/rotate", Some(r#"{"x":1}"#)).await;
    let response = socket.frame().await;
    assert_eq!((&response["type"], &response["request_id"]), (&json!("response"), &json!("a")));
    assert_eq!((&response["status"], &response["error"]), (&json!(200), &Value::Null));
    assert_eq!(response["headers"]["x-b"], "2");
    let asked: Value = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&asked["line"], &asked["body"]),
        (&json!("POST /api/admin/connections/slack/rotate"), &json!(r#"{"x":1}"#))
    );
    let headers = &asked["headers"];
    assert_eq!(headers["x-sigilum-admin-token"], TOKEN);
    assert_eq!(headers["x-sigilum-relay"], "0b5c2a4e-7f57-4a3c-9c7e-0d3a8f6f2b11");
    assert_eq!((&headers["content-type"], &headers["x-request-id"]), (&json!("application/json"), &json!("r-1")));
    assert_eq!(headers["authorization"], Value::Null);
}

#[tokio::test]
async fn a_token_that_a_command_brings_stands_for_the_bridges_own_and_takes_no_mark_away() {
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    let (bearer, token) = ("Bearer of-the-page", "of-the-page");
    for (given, authorization, admin_token) in [
        (
            json!({"Authorization": "  Bearer of-the-page ", "X-Sigilum-Admin-Token": " of-the-page"}),
            json!(bearer),
            json!(token),
        ),
        (json!({"authorization": bearer}), json!(bearer), Value::Null),
        (json!({"x-sigilum-admin-token": token}), Value::Null, json!(token)),
        (json!({"authorization": "  ", "x-sigilum-admin-token": ""}), Value::Null, json!(TOKEN)),
    ] {
        socket.command_with(given.clone(), "a", "GET", "/api/admin/connections", None).await;
        let response = socket.frame().await;
        let asked: Value = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
        let headers = &asked["headers"];
        assert_eq!(
            (&headers["authorization"], &headers["x-sigilum-admin-token"]),
            (&authorization, &admin_token),
            "{given}"
        );
        assert_eq!(headers["x-sigilum-relay"], "0b5c2a4e-7f57-4a3c-9c7e-0d3a8f6f2b11", "{given}");
    }
}

#[tokio::test]
async fn an_answer_without_a_body_has_none() {
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    socket.command("a", "DELETE", "/api/admin/connections/empty", None).await;
    let response = socket.frame().await;
    assert_eq!((&response["status"], &response["body"]), (&json!(204), &Value::Null));
    assert_eq!(response["headers"]["x-a"], "1");
}

#[tokio::test]
async fn what_is_not_on_the_list_never_reaches_the_gateway() {
    let (_peer, gateway, _bridge, mut socket) = connected(PACE).await;
    gateway.asked();
    for path in ["/api/admin/store/backup", "/api/admin/connections/../store/backup", "/metrics", "//h/health"] {
        socket.command(path, "GET", path, None).await;
        let response = socket.frame().await;
        assert_eq!((&response["status"], &response["request_id"]), (&json!(400), &json!(path)));
        assert_eq!(response["error"], "Unsupported relay path or method");
    }
    assert_eq!(gateway.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_of_fifty_megabytes_is_refused_and_the_bridge_lives_on() {
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    socket.command("a", "GET", "/api/admin/connections/big", None).await;
    let response = socket.frame().await;
    assert_eq!((&response["status"], &response["body"]), (&json!(502), &Value::Null));
    assert_eq!(response["error"], "the gateway's answer is larger than 8 MiB");
    socket.assert_alive().await;
}

#[tokio::test]
async fn an_answer_that_grows_beyond_what_the_other_side_takes_is_refused() {
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    // 4 MiB of a control character: six bytes each in JSON.
    socket.command("a", "GET", "/api/admin/connections/grows", None).await;
    let response = socket.frame().await;
    assert_eq!((&response["request_id"], &response["status"]), (&json!("a"), &json!(502)));
    assert_eq!(response["error"], "the gateway's answer is larger than 16 MiB as a frame");
    socket.assert_alive().await;
}

#[tokio::test]
async fn a_command_that_is_never_answered_ends_and_holds_up_no_other() {
    let pace = Pace { relay_timeout: Duration::from_millis(300), ..PACE };
    let (_peer, _gateway, _bridge, mut socket) = connected(pace).await;
    socket.command("slow", "GET", "/api/admin/connections/never", None).await;
    socket.command("fast", "GET", "/health", None).await;
    assert_eq!(socket.frame().await["request_id"], "fast");
    let response = socket.frame().await;
    assert_eq!((&response["request_id"], &response["status"]), (&json!("slow"), &json!(502)));
}

#[tokio::test]
async fn more_commands_than_the_bound_are_busy_at_once() {
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    for number in 0..MAX_RELAYS {
        socket.command(&number.to_string(), "GET", "/api/admin/connections/never", None).await;
    }
    socket.command("more", "GET", "/health", None).await;
    let response = socket.frame().await;
    assert_eq!((&response["request_id"], &response["status"]), (&json!("more"), &json!(503)));
}

#[tokio::test]
async fn a_gateway_that_is_gone_is_said_and_one_that_is_back_is_found() {
    let (_peer, gateway, _bridge, mut socket) = connected(PACE).await;
    let address = gateway.address;
    gateway.server.abort();
    drop(gateway);
    // The listener goes with its task, a moment later.
    loop {
        socket.command("a", "GET", "/health", None).await;
        let response = socket.frame().await;
        if response["status"] == 502 {
            let error = response["error"].as_str().unwrap();
            assert!(error.starts_with("the gateway cannot be reached: "), "{error}");
            break;
        }
    }
    let listener = TcpListener::bind(address).await.unwrap();
    let router = Router::new().fallback(|| async { "back" });
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    socket.command("b", "GET", "/health", None).await;
    assert_eq!(socket.frame().await["body"], "back");
    server.abort();
}

#[tokio::test]
async fn ten_thousand_commands_are_answered_each_with_its_own_answer() {
    const COMMANDS: usize = 10_000;
    let (_peer, _gateway, _bridge, mut socket) = connected(PACE).await;
    let (mut sent, mut open) = (0, BTreeSet::new());
    let mut answered = 0;
    while answered < COMMANDS {
        while sent < COMMANDS && open.len() < MAX_RELAYS {
            let id = format!("r-{sent}");
            socket.command(&id, "PATCH", &format!("/api/admin/connections/c-{sent}"), Some(&format!("b-{sent}"))).await;
            open.insert(id);
            sent += 1;
        }
        let response = socket.frame().await;
        let id = response["request_id"].as_str().unwrap();
        assert!(open.remove(id), "{id} was answered before, or never asked");
        assert_eq!(response["status"], 200, "{response}");
        let number = id.trim_start_matches("r-");
        let asked: Value = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
        assert_eq!(asked["line"], format!("PATCH /api/admin/connections/c-{number}"));
        assert_eq!(asked["body"], format!("b-{number}"));
        answered += 1;
    }
    assert_eq!((open.len(), sent), (0, COMMANDS));
}

#[tokio::test]
async fn a_control_plane_that_does_not_read_loses_nothing() {
    let (_peer, _gateway, _bridge, socket) = connected(PACE).await;
    let (mut sink, mut stream) = socket.0.split();
    // Each refusal is far longer than its command: both directions fill up.
    let id = "x".repeat(60_000);
    let asking = async {
        for number in 0..300 {
            let frame =
                json!({"type": "command", "request_id": format!("{number}-{id}"), "method": "GET", "path": "/no"});
            sink.send(Message::text(frame.to_string())).await.unwrap();
        }
    };
    let hold = tokio::time::timeout(Duration::from_millis(500), asking);
    assert!(hold.await.is_err(), "it must stop reading at some time");
    // What was taken in is answered, in order.
    for number in 0..20 {
        let message = tokio::time::timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap();
        let response: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(response["request_id"], format!("{number}-{id}"));
    }
}

#[tokio::test]
async fn a_reconnect_secret_is_kept_and_shown_from_then_on() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (of, own) = (Arc::clone(&kept), config(peer.address, gateway.address, PACE));
    let keep: SecretKeeper = Arc::new(move |secret| {
        of.lock().unwrap().push(secret.expose().to_owned());
        Err(std::io::Error::other("full"))
    });
    let mut bridge = Bridge::start_as(PairConfig { keep_reconnect: Some(keep), ..own });
    let [one, other, none] = ["A".repeat(43), "B".repeat(43), "no secret".to_owned()];
    // What the answer holds, and what the handshake has shown before it.
    for (given, shown) in
        [(Some(&one), None), (None, Some(&one)), (Some(&none), Some(&one)), (Some(&other), Some(&one))]
    {
        let handshake = peer.handshake().await;
        assert_eq!(handshake.header("x-sigilum-reconnect-secret"), shown.map(String::as_str));
        assert_eq!(handshake.header("x-sigilum-pair-code"), Some(CODE), "the code stays beside it");
        let line = given.map(|secret| format!("x-sigilum-reconnect-secret: {secret}\r\n")).unwrap_or_default();
        handshake.accept_with(&line).await.close(1001, "the API stops").await;
    }
    assert_eq!(peer.handshake().await.header("x-sigilum-reconnect-secret"), Some(other.as_str()));
    assert_eq!(*kept.lock().unwrap(), [one, other]);
    let said = std::iter::from_fn(|| bridge.progress.try_recv().ok());
    let not_kept = said.filter(|progress| *progress == Progress::SecretNotKept("full".to_owned())).count();
    assert_eq!(not_kept, 2);
}

#[tokio::test]
async fn a_bridge_that_is_started_again_shows_what_it_kept() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let secret = "C".repeat(43);
    let own = config(peer.address, gateway.address, PACE);
    let _bridge = Bridge::start_as(PairConfig { reconnect: Some(Secret::new(secret.clone())), ..own });
    let handshake = peer.handshake().await;
    assert_eq!(handshake.header("x-sigilum-reconnect-secret"), Some(secret.as_str()));
    // An API that takes the code in the address alone is shown no secret.
    handshake.refuse(400, "{}").await;
    let handshake = peer.handshake().await;
    assert!(handshake.head.contains(&format!("code={CODE}")) && !handshake.head.contains(&secret));
}

#[tokio::test]
async fn each_terminal_refusal_ends_the_bridge() {
    for terminal in Terminal::ALL {
        let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
        let mut bridge = Bridge::start(peer.address, gateway.address, PACE);
        let (status, text) = terminal.wire();
        peer.handshake().await.refuse(status, &json!({ "error": text }).to_string()).await;
        assert_eq!(bridge.end().await.unwrap(), End::Terminal(terminal));
    }
}

#[tokio::test]
async fn refusals_of_others_are_retried() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let mut bridge = Bridge::start(peer.address, gateway.address, PACE);
    for (status, body) in [(429, "Invalid pair code"), (502, "{}"), (200, "{}")] {
        peer.handshake().await.refuse(status, body).await;
        bridge.says(|notice| matches!(notice, Notice::Trouble(Trouble::Refused(said), _) if *said == status)).await;
    }
    peer.open().await.assert_alive().await;
}

#[tokio::test]
async fn a_refusal_in_other_words_ends_the_bridge_where_both_ends_are_well() {
    for (status, body) in [
        (401, r#"{"error":"Unauthorized"}"#),
        (410, ""),
        (404, r#"{"error":"no such pairing"}"#),
        (403, "<html>sign in</html>"),
    ] {
        let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
        let mut bridge = Bridge::start(peer.address, gateway.address, PACE);
        peer.handshake().await.refuse(status, body).await;
        assert_eq!(bridge.end().await.unwrap(), End::Refused(status), "{body}");
    }
}

#[tokio::test]
async fn a_refusal_in_other_words_passes_where_an_end_is_not_well() {
    let down = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let shared = Arc::clone(&down);
    let mut peer = Peer::start_with(move |head| match (shared.load(std::sync::atomic::Ordering::SeqCst), head) {
        (true, _) => plain(503, "text/html", "<html>upstream is down</html>"),
        (false, head) if head.contains(pairing_path()) => plain(400, "application/json", "{}"),
        (false, _) => plain(200, "application/json", "{}"),
    })
    .await;
    let gateway = Gateway::start().await;
    let mut bridge = Bridge::start(peer.address, gateway.address, PACE);
    // A proxy answers in the place of an API that is down.
    let handshake = peer.handshake().await;
    down.store(true, std::sync::atomic::Ordering::SeqCst);
    handshake.refuse(403, "<html>Forbidden</html>").await;
    bridge.says(|notice| matches!(notice, Notice::Trouble(Trouble::Refused(403), _))).await;
    peer.handshake().await.refuse(410, "").await;
    bridge.says(|notice| matches!(notice, Notice::Trouble(Trouble::Refused(410), _))).await;
    // The API is back, and the gateway is gone.
    let handshake = peer.handshake().await;
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    gateway.server.abort();
    let address = gateway.address;
    while TcpStream::connect(address).await.is_ok() {}
    handshake.refuse(404, "").await;
    bridge.says(|notice| matches!(notice, Notice::Trouble(Trouble::Refused(404), _))).await;
    peer.open().await.assert_alive().await;
}

#[tokio::test]
async fn a_session_that_another_bridge_holds_is_waited_for_and_said() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let mut bridge = Bridge::start(peer.address, gateway.address, PACE);
    peer.handshake().await.refuse(409, r#"{"error":"Another bridge is connected"}"#).await;
    bridge.says(|notice| matches!(notice, Notice::Trouble(Trouble::Occupied, _))).await;
    peer.open().await.assert_alive().await;
}

#[tokio::test]
async fn an_answer_that_is_to_no_handshake_opens_nothing() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let mut bridge = Bridge::start(peer.address, gateway.address, PACE);
    let mut handshake = peer.handshake().await;
    let answer = "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: x\r\n\r\n";
    handshake.stream.write_all(answer.as_bytes()).await.unwrap();
    bridge.says(|notice| matches!(notice, Notice::Trouble(Trouble::Unreachable(_), _))).await;
    peer.open().await.assert_alive().await;
}

#[tokio::test]
async fn a_handshake_that_is_never_answered_is_given_up() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let pace = Pace { connect_timeout: Duration::from_millis(100), ..PACE };
    let mut bridge = Bridge::start(peer.address, gateway.address, pace);
    let held = peer.handshake().await;
    bridge.says(|notice| matches!(notice, Notice::Trouble(Trouble::Late(_), _))).await;
    peer.handshake().await;
    drop(held);
}

#[tokio::test]
async fn each_close_but_replaced_is_followed_by_another_attempt() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let mut bridge = Bridge::start(peer.address, gateway.address, PACE);
    for (code, reason) in [(1000, "bye"), (1001, "going away"), (1011, "error"), (1012, "restart"), (4000, "x")] {
        peer.open().await.close(code, reason).await;
        let closed = bridge.says(|notice| matches!(notice, Notice::Closed { .. })).await;
        assert_eq!(closed, Notice::Closed { code, reason: reason.to_owned() });
    }
    peer.open().await.close(1000, "replaced").await;
    assert_eq!(bridge.end().await.unwrap(), End::Replaced);
}

#[tokio::test]
async fn a_close_reason_is_tamed() {
    let (_peer, _gateway, mut bridge, socket) = connected(PACE).await;
    socket.close(1008, "a\u{1b}[2Jb\nc").await;
    let closed = bridge.says(|notice| matches!(notice, Notice::Closed { .. })).await;
    assert_eq!(closed, Notice::Closed { code: 1008, reason: "a\u{fffd}[2Jb\u{fffd}c".to_owned() });
}

#[tokio::test]
async fn a_network_that_is_cut_is_found_again() {
    let (mut peer, _gateway, mut bridge, socket) = connected(PACE).await;
    bridge.says(|notice| *notice == Notice::Open { first: true }).await;
    drop(socket);
    bridge.says(|notice| matches!(notice, Notice::Closed { code: 1006, .. })).await;
    let mut socket = peer.open().await;
    bridge.says(|notice| *notice == Notice::Open { first: false }).await;
    socket.command("a", "GET", "/health", None).await;
    assert_eq!(socket.frame().await["status"], 200);
}

#[tokio::test]
async fn answers_of_a_lost_connection_do_not_come_by_the_next() {
    let pace = Pace { relay_timeout: Duration::from_millis(400), ..PACE };
    let (mut peer, _gateway, mut bridge, mut socket) = connected(pace).await;
    socket.command("lost", "GET", "/api/admin/connections/never", None).await;
    socket.assert_alive().await;
    drop(socket);
    let mut socket = peer.open().await;
    bridge.says(|notice| *notice == Notice::Open { first: false }).await;
    socket.command("next", "GET", "/api/admin/connections/never", None).await;
    assert_eq!(socket.frame().await["request_id"], "next");
}

#[tokio::test]
async fn a_peer_that_gives_no_sign_of_life_is_dropped() {
    let pace = Pace { heartbeat: Duration::from_millis(100), ..PACE };
    let (mut peer, _gateway, mut bridge, silent) = connected(pace).await;
    let closed = bridge.says(|notice| matches!(notice, Notice::Closed { .. })).await;
    let Notice::Closed { code: 1006, reason } = closed else { panic!("{closed:?}") };
    assert!(reason.starts_with("no sign of life for "), "{reason}");
    peer.open().await.assert_alive().await;
    drop(silent);
}

#[tokio::test]
async fn a_message_that_is_too_large_costs_the_connection_and_not_the_bridge() {
    let (mut peer, _gateway, mut bridge, mut socket) = connected(PACE).await;
    let _ = socket.0.send(Message::text("x".repeat(9 * 1024 * 1024))).await;
    bridge.says(|notice| matches!(notice, Notice::Closed { code: 1006, .. })).await;
    peer.open().await.assert_alive().await;
}

#[tokio::test]
async fn a_stop_says_shutdown() {
    let (_peer, _gateway, mut bridge, mut socket) = connected(PACE).await;
    socket.assert_alive().await;
    bridge.stop.stop();
    let Message::Close(Some(frame)) = socket.message().await else { panic!("no close frame") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1000, "shutdown"));
    while let Some(Ok(_)) = socket.0.next().await {}
    assert_eq!(bridge.end().await.unwrap(), End::Stopped);
}

#[tokio::test]
async fn a_stop_ends_a_pause_between_attempts() {
    let (mut peer, gateway) = (Peer::start().await, Gateway::start().await);
    let mut bridge = Bridge::start(peer.address, gateway.address, Pace { reconnect: LIMIT * 60, ..PACE });
    peer.handshake().await.refuse(503, "").await;
    bridge.says(|notice| matches!(notice, Notice::Trouble(..))).await;
    bridge.stop.stop();
    assert_eq!(bridge.end().await.unwrap(), End::Stopped);
}

#[tokio::test]
async fn the_key_for_sealed_secrets_is_shown_first() {
    let (_peer, _gateway, mut bridge, _socket) = connected(PACE).await;
    let first = bridge.progress.recv().await.unwrap();
    assert_eq!(first, Progress::Preflight(Sealing::Fingerprint("ab12-cd34".to_owned())));
}

async fn refused_by(page: fn(&str) -> String) -> PreflightError {
    let (peer, gateway) = (Peer::start_with(page).await, Gateway::start().await);
    match Bridge::start(peer.address, gateway.address, PACE).end().await {
        Err(PairError::Preflight(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_web_page_in_place_of_the_api_is_recognised() {
    for page in [
        (|_: &str| plain(200, "text/html; charset=utf-8", "<p>hi")) as fn(&str) -> String,
        |_| plain(404, "text/plain", "\n<!DOCTYPE html><html>"),
        |_| plain(200, "text/plain", "<html></html>"),
        |head| {
            let is_route = head.contains(pairing_path());
            if is_route { plain(200, "text/html", "<html>") } else { plain(200, "application/json", "{}") }
        },
    ] {
        let error = refused_by(page).await;
        assert!(matches!(error, PreflightError::Page { side: Side::Api, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_api_without_pairing_and_one_that_is_ill_are_told_apart() {
    let missing = refused_by(|head| {
        let is_route = head.contains(pairing_path());
        if is_route { plain(404, "application/json", "{}") } else { plain(200, "application/json", "{}") }
    });
    assert!(matches!(missing.await, PreflightError::NoRoute { .. }));
    let ill = refused_by(|_| plain(503, "application/json", "{}")).await;
    assert!(matches!(ill, PreflightError::Status { side: Side::Api, status: 503, .. }), "{ill:?}");
}

#[tokio::test]
async fn a_gateway_that_does_not_run_is_said_before_anything_else_is_tried() {
    let (mut peer, gateway) = (Peer::start().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = gateway.local_addr().unwrap();
    drop(gateway);
    let error = Bridge::start(peer.address, address, PACE).end().await.unwrap_err();
    let PairError::Preflight(PreflightError::Unreachable { side: Side::Gateway, .. }) = error else {
        panic!("{error:?}")
    };
    assert!(peer.handshakes.try_recv().is_err());
}
