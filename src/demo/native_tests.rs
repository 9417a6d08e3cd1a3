//! Tests of the native demo service over real sockets, with signatures of real identities.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use http::header::HeaderName;

use super::*;
use crate::domain::ids::Namespace;
use crate::domain::time::UnixSeconds;
use crate::identity::Identity;
use crate::identity::Outgoing;
use crate::sys::local_http;
use crate::sys::local_http::Answer;
use crate::sys::local_http::Endpoint;
use crate::sys::tasks::Tasks;

const SOON: Duration = Duration::from_secs(20);

struct Service {
    at: SocketAddr,
    _tasks: Tasks,
}

fn agent(seed: u8) -> Identity {
    Identity::from_seed(Namespace::parse("alice").unwrap(), &[seed; 32], UnixSeconds(1_700_000_000))
}

/// A service that approves the agent of seed 1.
async fn start(floor: bool) -> Service {
    start_with(floor, Ok(())).await
}

async fn start_with(floor: bool, source: Result<(), &'static str>) -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut tasks = Tasks::default();
    let read = move || {
        let mut approved = Approved::default();
        approved.insert(Namespace::parse("alice").unwrap(), agent(1).public_key(), None);
        std::future::ready(source.map(|()| approved))
    };
    tasks.spawn("native", move |stop| async move { serve(listener, read, stop, PACE, floor).await.unwrap() });
    Service { at, _tasks: tasks }
}

/// What is signed.
struct Signed<'a> {
    method: &'a str,
    authority: String,
    target: &'a str,
    body: &'a str,
    created: UnixSeconds,
    nonce: &'a str,
}

impl Service {
    fn ping<'a>(&self, nonce: &'a str) -> Signed<'a> {
        let (authority, created) = (self.at.to_string(), SystemClock.now().seconds());
        Signed { method: "POST", authority, target: "/v1/ping", body: "\"ping\"", created, nonce }
    }

    /// Signs `signed`, sends it with `body` to `target`.
    async fn send(&self, identity: &Identity, signed: &Signed<'_>, target: &str, body: &str) -> Answer {
        let outgoing = Outgoing {
            method: signed.method,
            url: &format!("http://{}{}", signed.authority, signed.target),
            body: signed.body.as_bytes(),
            subject: None,
            agent_id: None,
            created: signed.created,
            nonce: signed.nonce,
        };
        let mut request = http::Request::builder().method(signed.method).uri(target);
        for (name, value) in identity.signer().sign(&outgoing).unwrap() {
            request = request.header(HeaderName::from_static(name), value);
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        local_http::exchange(&Endpoint::Tcp(self.at), request, body, SOON).await.unwrap()
    }

    async fn sent(&self, identity: &Identity, signed: &Signed<'_>) -> (u16, String) {
        let answer = self.send(identity, signed, signed.target, signed.body).await;
        (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
    }
}

fn unauthorized() -> (u16, String) {
    (401, "{\"error\":\"Unauthorized\"}".to_owned())
}

#[tokio::test]
async fn an_approved_agent_gets_in_once_per_nonce() {
    let service = start(false).await;
    let signed = service.ping("nonce-one");
    assert_eq!(service.sent(&agent(1), &signed).await, (200, "\"pong\"".to_owned()));
    assert_eq!(service.sent(&agent(1), &signed).await, unauthorized());
    assert_eq!(service.sent(&agent(2), &service.ping("nonce-two")).await, unauthorized());
    let balance = Signed { method: "GET", target: "/v1/balance?x=%2F", body: "", ..service.ping("nonce-three") };
    assert!(service.sent(&agent(1), &balance).await.1.contains("1000"));
}

#[tokio::test]
async fn nobody_gets_in_without_a_signature_of_this_very_request() {
    let service = start(false).await;
    let (now, port) = (SystemClock.now().seconds(), service.at.port());
    let plain = |request| async { local_http::exchange(&Endpoint::Tcp(service.at), request, Bytes::new(), SOON).await };
    assert_eq!(plain(http::Request::post("/v1/ping")).await.unwrap().status, 401);
    assert_eq!(plain(http::Request::get("/v1/nothing")).await.unwrap().status, 401);
    assert_eq!(plain(http::Request::get("/")).await.unwrap().status, 200);
    let others = [
        Signed { target: "/v1/transfer", ..service.ping("nonce-one") },
        Signed { body: "\"pong\"", ..service.ping("nonce-two") },
        Signed { method: "PUT", ..service.ping("nonce-three") },
        Signed { authority: format!("127.0.0.1:{}", port ^ 1), ..service.ping("nonce-four") },
        Signed { created: UnixSeconds(now.0 - 301), ..service.ping("nonce-five") },
        Signed { created: UnixSeconds(now.0 + 60), ..service.ping("nonce-six") },
    ];
    for signed in &others {
        let answer = service.send(&agent(1), signed, "/v1/ping", "\"ping\"").await;
        // The method is the one that was signed; it does not fit the route, which only the guard may say.
        assert_eq!(answer.status, if signed.method == "PUT" { 405 } else { 401 }, "{}", signed.nonce);
    }
}

#[tokio::test]
async fn a_request_for_another_port_is_not_for_us_whatever_its_host_says() {
    let service = start(false).await;
    let elsewhere = format!("127.0.0.1:{}", service.at.port() ^ 1);
    let signed = Signed { authority: elsewhere.clone(), ..service.ping("nonce-one") };
    let outgoing = Outgoing {
        method: "GET",
        url: &format!("http://{elsewhere}/v1/balance"),
        body: &[],
        subject: None,
        agent_id: None,
        created: signed.created,
        nonce: signed.nonce,
    };
    let mut head = format!("GET /v1/balance HTTP/1.1\r\nHost: {elsewhere}\r\nConnection: close\r\n");
    for (name, value) in agent(1).signer().sign(&outgoing).unwrap() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = tokio::net::TcpStream::connect(service.at).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn a_fresh_start_and_an_unreachable_control_plane_say_so() {
    let service = start(true).await;
    assert_eq!(service.sent(&agent(1), &service.ping("nonce-one")).await.0, 503);
    let service = start_with(false, Err("down")).await;
    assert_eq!(service.sent(&agent(1), &service.ping("nonce-two")).await.0, 503);
}
