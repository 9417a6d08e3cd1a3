//! A control plane that says what a test wants, on a real socket.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "test code may panic, and its tasks end with the test"
)]

use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::claims::client::ApiClient;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::time::UnixSeconds;
use crate::identity::Identity;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    pub(crate) fn number(&self, name: &str) -> usize {
        self.query(name).unwrap().parse().unwrap()
    }
}

/// What comes back.
pub(crate) enum Reply {
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// A head, then whatever the channel gives, until it closes.
    Stream(Vec<u8>, mpsc::UnboundedReceiver<String>),
    /// Nothing; the connection stays.
    Silence,
}

/// A whole answer.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Raw(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes())
}

/// A whole answer in JSON.
pub(crate) fn json(status: &str, headers: &str, body: &str) -> Reply {
    answer(status, &format!("content-type: application/json\r\n{headers}"), body)
}

/// The head of a change stream.
pub(crate) fn stream(events: mpsc::UnboundedReceiver<String>) -> Reply {
    Reply::Stream(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_vec(), events)
}

type Handler = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// The API; ends with the test's runtime.
pub(crate) struct FakeApi {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeApi {
    pub(crate) async fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (handler, log): (Handler, _) = (Arc::new(handler), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handler), Arc::clone(&log)));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn client(&self) -> ApiClient {
        client(&self.address)
    }
}

pub(crate) fn client(address: &str) -> ApiClient {
    let namespace = Namespace::parse("acme").unwrap();
    let identity = Identity::from_seed(namespace, &[7; 32], UnixSeconds(1_700_000_000));
    ApiClient::new(address, Arc::new(identity)).unwrap()
}

async fn serve(mut stream: TcpStream, handler: Handler, log: Arc<Mutex<Vec<Asked>>>) {
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => head.extend_from_slice(&chunk[..length]),
        }
    }
    let end = head.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut body = head.split_off(end);
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.lines();
    let target = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut asked = Asked { target, headers, body: Vec::new() };
    let length: usize = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => body.extend_from_slice(&chunk[..length]),
        }
    }
    asked.body = body;
    // Whether it is there at all, which readiness asks beside everything else.
    if asked.target == "/health" {
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").await;
        let _ = stream.shutdown().await;
        return;
    }
    log.lock().unwrap().push(asked.clone());
    match handler(&asked) {
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Reply::Stream(head, mut events) => {
            let _ = stream.write_all(&head).await;
            while let Some(event) = events.recv().await {
                if stream.write_all(event.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
        Reply::Silence => {
            let _ = stream.read(&mut chunk).await;
        }
    }
}

/// A row of the feed.
pub(crate) fn row(number: u32) -> String {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    let key = PublicKey::new(bytes).text();
    format!(r#"{{"claim_id":"cl_{number}","namespace":"team-{}","public_key":"{key}","service":"linear"}}"#, number % 7)
}

/// A page of these rows, cut as the request asks.
pub(crate) fn page(asked: &Asked, rows: &[u32], cap: usize) -> String {
    let (offset, limit) = (asked.number("offset"), asked.number("limit").min(cap));
    let shown: Vec<_> = rows.iter().skip(offset).take(limit).map(|number| row(*number)).collect();
    let (total, more) = (rows.len(), offset + shown.len() < rows.len());
    format!(
        r#"{{"claims":[{}],"pagination":{{"limit":{limit},"offset":{offset},"total":{total},"has_more":{more}}}}}"#,
        shown.join(",")
    )
}
