//! A control plane that does what a test says, raw bytes included: one thread and one answer per connection. Also a
//! proxy in front of a real one, which may change what comes back.

use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// Nobody takes longer than that for a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET /path?query`.
    pub line: String,
    /// Head and body as they came.
    pub bytes: Vec<u8>,
}

impl Asked {
    /// A parameter of the query.
    pub fn number(&self, name: &str) -> usize {
        let query = self.line.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// Whether it asks for the approved feed.
    pub fn is_feed(&self) -> bool {
        self.line.starts_with("GET /v1/namespaces/claims?")
    }
}

type Handler = dyn Fn(&Asked) -> Vec<u8> + Send + Sync;

/// Listens until the test process ends; answers with what the handler of the moment makes.
pub struct FakeApi {
    pub address: SocketAddr,
    handler: Arc<Mutex<Arc<Handler>>>,
    health: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeApi {
    /// Starts on a port of its own.
    pub fn start(handler: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let handler: Arc<Mutex<Arc<Handler>>> = Arc::new(Mutex::new(Arc::new(handler)));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let well =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        let health = Arc::new(Mutex::new(well.to_vec()));
        let (current, lines, well) = (Arc::clone(&handler), Arc::clone(&asked), Arc::clone(&health));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (current, lines, well) = (Arc::clone(&current), Arc::clone(&lines), Arc::clone(&well));
                thread::spawn(move || {
                    let Some(asked) = read(&mut stream) else { return };
                    // Readiness asks beside everything else.
                    if asked.line == "GET /health" {
                        let answer = well.lock().unwrap().clone();
                        let _ = stream.write_all(&answer);
                        return;
                    }
                    lines.lock().unwrap().push(asked.line.clone());
                    let handler = Arc::clone(&current.lock().unwrap());
                    // Whoever asked may have left.
                    let _ = stream.write_all(&handler(&asked));
                });
            }
        });
        Self { address, handler, health, asked }
    }

    /// From now on answers otherwise.
    pub fn set(&self, handler: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) {
        *self.handler.lock().unwrap() = Arc::new(handler);
    }

    /// From now on answers `GET /health` with these bytes.
    pub fn set_health(&self, answer: &str) {
        *self.health.lock().unwrap() = answer.as_bytes().to_vec();
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Request lines so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request: its head, and its body by its announced length.
fn read(stream: &mut TcpStream) -> Option<Asked> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    let wanted = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            break at + 4 + length.unwrap_or(0_usize);
        }
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    };
    while bytes.len() < wanted {
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
    let head = String::from_utf8_lossy(&bytes);
    let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some(Asked { line, bytes })
}

/// A whole answer.
pub fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{head}\r\n{body}").into_bytes()
}

/// A whole answer in JSON.
pub fn json(status: &str, body: &str) -> Vec<u8> {
    answer(status, &[("content-type", "application/json")], body)
}

/// A page of the approved feed as the hosted API has it: at most 500 rows, no cursor, no `ETag`. `rows` are written
/// objects, newest first.
pub fn page(asked: &Asked, rows: &[impl AsRef<str>]) -> Vec<u8> {
    let (limit, offset) = (asked.number("limit").clamp(1, 500), asked.number("offset"));
    let end = offset.saturating_add(limit).min(rows.len());
    let part: Vec<&str> = rows.get(offset..end).unwrap_or_default().iter().map(AsRef::as_ref).collect();
    json(
        "200 OK",
        &format!(
            r#"{{"claims":[{}],"pagination":{{"limit":{limit},"offset":{offset},"total":{},"has_more":{}}}}}"#,
            part.join(","),
            rows.len(),
            end < rows.len()
        ),
    )
}

/// A row of the feed.
pub fn row(namespace: &str, public_key: &str, service: &str, number: usize) -> String {
    format!(
        r#"{{"claim_id":"cl_{number:024x}","namespace":"{namespace}","public_key":"{public_key}","service":"{service}","subject":null,"agent_id":null,"agent_name":null,"approved_at":"2026-01-01T00:00:00.000Z"}}"#
    )
}

/// What the rest of a control plane says where a test is about the feed.
pub fn elsewhere() -> Vec<u8> {
    json("404 Not Found", r#"{"error":"not here","code":"NOT_FOUND"}"#)
}

/// Sends a request on to a real API and returns its whole answer, which must end with its connection. Nothing where
/// nobody is there.
pub fn forward(to: SocketAddr, asked: &Asked) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(to) else { return Vec::new() };
    let text = String::from_utf8_lossy(&asked.bytes).into_owned();
    let (line, rest) = text.split_once("\r\n").unwrap();
    stream.write_all(format!("{line}\r\nconnection: close\r\n{rest}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The same answer without one header.
pub fn without_header(answer: &[u8], name: &str) -> Vec<u8> {
    let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return answer.to_vec() };
    let head = String::from_utf8_lossy(&answer[..at]).into_owned();
    let prefix = format!("{name}:");
    let kept: Vec<_> = head.split("\r\n").filter(|line| !line.to_lowercase().starts_with(&prefix)).collect();
    let mut out = kept.join("\r\n").into_bytes();
    out.extend_from_slice(&answer[at..]);
    out
}
