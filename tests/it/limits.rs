//! Sizes and memory: what is too large is said to be, and what is not signed is not kept.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use crate::support::agent::Agent;
use crate::support::client::Body;
use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::gateway::shared;
use crate::support::process::memory_kib;
use crate::support::process::reset_peak;
use crate::support::upstream::Upstream;
use crate::support::upstream::pattern;
use crate::support::upstream::runtime;

/// The default limit of a request body.
const BODY_LIMIT: usize = 2 * 1024 * 1024;

#[test]
fn a_body_announced_too_large_is_refused() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let response = gateway.post(&connection.at("/v1"), &pattern(BODY_LIMIT + 1));
    assert_eq!((response.status, response.code().as_str()), (413, "REQUEST_BODY_TOO_LARGE"), "{}", response.text());
    assert!(upstream.untouched());
}

#[test]
fn a_chunked_body_that_grows_too_large_is_refused() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let body = pattern(BODY_LIMIT + 1);
    let request = gateway.agent().post(&gateway.authority(), &connection.at("/v1"), &body);
    let request = request.with_body(Body::Chunked(body.chunks(65_536).map(<[u8]>::to_vec).collect()));
    let response = gateway.send(&request);
    assert_eq!((response.status, response.code().as_str()), (413, "REQUEST_BODY_TOO_LARGE"), "{}", response.text());
    assert!(upstream.untouched());
}

#[test]
fn a_get_may_carry_a_small_body() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let draft = gateway.agent().prepare("GET", &gateway.authority(), &connection.at("/v1/search")).body(b"{\"q\":1}");
    let response = gateway.send(&draft.sign());
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(upstream.only().body, b"{\"q\":1}");
}

#[test]
fn a_get_may_not_carry_a_large_body() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let draft = gateway.agent().prepare("GET", &gateway.authority(), &connection.at("/v1")).body(&pattern(200_000));
    let response = gateway.send(&draft.sign());
    assert_eq!((response.status, response.code().as_str()), (413, "REQUEST_BODY_TOO_LARGE"), "{}", response.text());
    assert!(upstream.untouched());
}

#[test]
fn a_body_shorter_than_announced_never_arrives() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let body = b"{\"amount\":1}".to_vec();
    let request = gateway.agent().post(&gateway.authority(), &connection.at("/v1"), &body);
    let request = request.with_body(Body::Short { announced: body.len() + 100, sent: body });
    // Whoever hangs up in the middle of a request may get no answer at all; never a good one.
    if let Ok(response) = crate::support::client::try_send(gateway.setup.ingress, &request) {
        assert!((400..500).contains(&response.status), "{response:?}");
    }
    assert_eq!(gateway.get(&connection.at("/after")).status, 200);
    let seen = upstream.seen();
    assert!(seen.iter().all(|request| request.target == "/after"), "{seen:?}");
}

#[test]
fn a_header_of_a_megabyte_is_refused() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let request =
        gateway.agent().get(&gateway.authority(), &connection.at("/v1")).header("x-big", &"a".repeat(1 << 20));
    let response = gateway.send(&request);
    assert_eq!(response.status, 431, "{}", response.text());
    assert!(upstream.untouched());
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
}

#[test]
fn too_many_headers_are_refused() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let mut request = gateway.agent().get(&gateway.authority(), &connection.at("/v1"));
    for number in 0..200 {
        request = request.header(&format!("x-{number}"), "1");
    }
    let response = gateway.send(&request);
    assert_eq!(response.status, 431, "{}", response.text());
    assert!(upstream.untouched());
}

#[test]
fn an_unknown_transfer_coding_is_the_clients_mistake() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let request =
        gateway.agent().get(&gateway.authority(), &connection.at("/v1")).header("transfer-encoding", "gzip, chunked");
    let response = gateway.send(&request);
    assert_eq!((response.status, response.code().as_str()), (501, ""), "{}", response.text());
    assert!(upstream.untouched());
}

/// How many uploads at once, of how many bytes, and what they may cost together.
const UPLOADS: usize = 400;
const UPLOAD_BYTES: usize = 2_000_000;
const UPLOADS_MAY_COST_KIB: u64 = 64 * 1024;

/// All uploads are connected before the first byte is sent. Returns the answers that were read.
async fn upload_all(gateway: &Gateway, requests: Vec<Vec<u8>>) -> Vec<String> {
    let ready = std::sync::Arc::new(Barrier::new(requests.len()));
    let address = gateway.setup.ingress;
    let mut uploads = tokio::task::JoinSet::new();
    let body: std::sync::Arc<[u8]> = vec![b'x'; UPLOAD_BYTES].into();
    for head in requests {
        let (ready, body) = (std::sync::Arc::clone(&ready), std::sync::Arc::clone(&body));
        uploads.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            ready.wait().await;
            let (mut reader, mut writer) = stream.split();
            let write = async {
                // The gateway may answer and close before everything is written.
                let _ = writer.write_all(&head).await;
                let _ = writer.write_all(&body).await;
            };
            let read = async {
                let mut answer = [0_u8; 12];
                let read = tokio::time::timeout(Duration::from_secs(60), reader.read_exact(&mut answer)).await;
                read.is_ok_and(|read| read.is_ok()).then(|| String::from_utf8_lossy(&answer).into_owned())
            };
            tokio::pin!(write, read);
            tokio::select! {
                answer = &mut read => answer,
                () = &mut write => read.await,
            }
        });
    }
    let mut answers = Vec::new();
    while let Some(done) = uploads.join_next().await {
        answers.extend(done.unwrap());
    }
    answers
}

/// Uploads at once must be refused, arrive nowhere, and leave Envoy as small as it was.
fn uploads_cost_little(gateway: &Gateway, upstream: &Upstream, requests: Vec<Vec<u8>>) {
    let envoy = gateway.role("envoy");
    let before = memory_kib(envoy, "VmRSS");
    reset_peak(envoy);
    let answers = runtime().block_on(upload_all(gateway, requests));
    let cost = memory_kib(envoy, "VmHWM").saturating_sub(before);
    assert!(upstream.untouched());
    assert!(cost < UPLOADS_MAY_COST_KIB, "{UPLOADS} uploads cost {cost} KiB");
    // Envoy closes under an upload it has answered: how many have read the answer by then is up to this machine, and so is
    // whether the decision comes in time for all of them. What they have read is a refusal.
    let refusals = ["HTTP/1.1 403", "HTTP/1.1 503"];
    let other: Vec<_> = answers.iter().filter(|answer| !refusals.contains(&answer.as_str())).collect();
    assert!(other.is_empty(), "{other:?}");
    assert!(answers.iter().any(|answer| answer == refusals[0]), "no decision was read from {UPLOADS} uploads");
}

#[test]
fn unsigned_uploads_do_not_cost_memory() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let head = Request::new("POST", &gateway.authority(), &connection.at("/v1"))
        .header("content-length", &UPLOAD_BYTES.to_string())
        .bytes();
    uploads_cost_little(&gateway, &upstream, vec![head; UPLOADS]);
}

#[test]
fn uploads_of_strangers_do_not_cost_memory() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    // Half of them within the budget of strangers, the others beyond it: 403 or 429, nothing is kept.
    let stranger = Agent::new("bob");
    let heads = (0..UPLOADS).map(|_| {
        let request = stranger.post(&gateway.authority(), &connection.at("/v1"), b"{}").with_body(Body::None);
        request.header("content-length", &UPLOAD_BYTES.to_string()).bytes()
    });
    let envoy = gateway.role("envoy");
    let before = memory_kib(envoy, "VmRSS");
    reset_peak(envoy);
    runtime().block_on(upload_all(&gateway, heads.collect()));
    let cost = memory_kib(envoy, "VmHWM").saturating_sub(before);
    assert!(upstream.untouched());
    assert!(cost < UPLOADS_MAY_COST_KIB, "{UPLOADS} uploads cost {cost} KiB");
}
