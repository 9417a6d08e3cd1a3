//! An API in a process of its own that has nothing but the approved feed, held in memory, as a hosted one looks to a
//! gateway: pages and an `ETag`, no stream of changes. It checks no signature. The bench tells it what to list.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::load::find;
use crate::roles::whole_request;

/// Service of all rows.
pub const SERVICE: &str = "conn-000";
/// Most rows of a page, as our API grants them.
const PAGE: usize = 2000;
/// Approvals that end, and as many that begin, with each change of the list.
pub const CHANGED: usize = 100;

/// What is listed.
#[derive(Default)]
struct List {
    rows: Vec<Vec<u8>>,
    namespaces: usize,
    version: usize,
    /// Somebody has the first page of this list and not yet its end.
    reading: bool,
    /// How often the list was read from its first page on.
    reads: usize,
}

impl List {
    /// The approval at a place in a version of the list. Newest first: what changes stands at the top.
    fn row(&self, at: usize) -> Vec<u8> {
        let version = if at < CHANGED { self.version } else { 0 };
        let hash = Sha256::digest(format!("{at} {version}"));
        let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        self.describe(&format!("team-{:06}", at % self.namespaces), &STANDARD.encode(hash), &hex)
    }

    fn describe(&self, namespace: &str, key: &str, hex: &str) -> Vec<u8> {
        format!(
            r#"{{"claim_id":"cl_{hex}","namespace":"{namespace}","public_key":"ed25519:{key}","service":"{SERVICE}","subject":"customer-12345","agent_id":"agent-{hex}","agent_name":null,"approved_at":"2026-02-20T18:04:26.123Z"}}"#
        )
        .into_bytes()
    }

    /// Lists `count` approvals in `namespaces` namespaces, the last of which is `probe` of `alice`.
    fn fill(&mut self, count: usize, namespaces: usize, probe: &str) {
        (self.namespaces, self.version) = (namespaces, self.version + 1);
        self.rows = (1..count).map(|at| self.row(at - 1)).collect();
        if count > 0 {
            self.rows.push(self.describe("alice", probe, "000000000000000000000000"));
        }
    }

    fn change(&mut self) {
        self.version += 1;
        for at in 0..CHANGED.min(self.rows.len().saturating_sub(1)) {
            self.rows[at] = self.row(at);
        }
    }

    /// Answers a page. `known`: the condition it was asked with.
    fn page(&mut self, limit: usize, offset: usize, known: Option<&str>) -> Vec<u8> {
        let tag = format!("\"{}\"", self.version);
        if offset == 0 && known == Some(&tag) {
            self.reading = false;
            return format!("HTTP/1.1 304 Not Modified\r\netag: {tag}\r\n\r\n").into_bytes();
        }
        let limit = limit.min(PAGE);
        let (from, to) = (offset.min(self.rows.len()), (offset + limit).min(self.rows.len()));
        if offset == 0 {
            (self.reads, self.reading) = (self.reads + 1, true);
        }
        let more = to < self.rows.len();
        if !more && offset == 0 {
            self.reading = false;
        }
        let mut body = b"{\"claims\":[".to_vec();
        body.extend_from_slice(&self.rows[from..to].join(&b","[..]));
        let total = self.rows.len();
        body.extend_from_slice(
            format!(r#"],"pagination":{{"limit":{limit},"offset":{offset},"total":{total},"has_more":{more}}}}}"#)
                .as_bytes(),
        );
        answer(&body, &format!("etag: {tag}\r\n"))
    }
}

fn answer(body: &[u8], headers: &str) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A parameter of a query.
fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    target.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn number(target: &str, name: &str) -> usize {
    parameter(target, name).map_or(0, |text| text.parse().unwrap())
}

/// Serves for ever. What the bench says: `/bench/fill?count=&namespaces=&probe=`, `/bench/change`, `/bench/state`,
/// each answered with `{"reading", "reads"}`.
pub async fn serve(address: SocketAddr) {
    let list = Arc::new(Mutex::new(List { namespaces: 1, ..List::default() }));
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let list = Arc::clone(&list);
        tokio::spawn(async move {
            let mut buffer = vec![0_u8; 64 * 1024];
            let mut filled = 0;
            loop {
                while let Some(end) = whole_request(&buffer[..filled]) {
                    let answer = respond(&buffer[..end], &mut list.lock().unwrap());
                    buffer.copy_within(end..filled, 0);
                    filled -= end;
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
                match stream.read(&mut buffer[filled..]).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => filled += read,
                }
            }
        });
    }
}

fn respond(request: &[u8], list: &mut List) -> Vec<u8> {
    let head = String::from_utf8_lossy(&request[..find(request, b"\r\n\r\n").unwrap_or(request.len())]).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default();
    match target.split('?').next().unwrap_or_default() {
        "/v1/namespaces/claims" => {
            let known = head.lines().find_map(|line| line.strip_prefix("if-none-match: "));
            return list.page(number(target, "limit"), number(target, "offset"), known);
        }
        "/bench/fill" => {
            let probe = parameter(target, "probe").unwrap_or_default();
            list.fill(number(target, "count"), number(target, "namespaces"), probe);
        }
        "/bench/change" => list.change(),
        "/bench/state" => {}
        _ => return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
    }
    answer(format!(r#"{{"reading":{},"reads":{}}}"#, list.reading, list.reads).as_bytes(), "")
}
