//! How large the header section of a request may be: what a client may send is decided, whatever the decision adds to it,
//! and what it may not send is refused with its nonce unused.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::client::Body;
use crate::support::client::Request;
use crate::support::gateway::Connection;
use crate::support::gateway::Gateway;
use crate::support::gateway::shared;
use crate::support::upstream::Upstream;
use crate::support::upstream::runtime;

/// What a client may send.
const FIELDS: usize = 100;
const BYTES: usize = 64 * 1024;
const TOO_LARGE: &str = "REQUEST_HEADERS_TOO_LARGE";

/// A connection and its provider.
struct Scene {
    gateway: &'static Gateway,
    upstream: Upstream,
    connection: Connection,
}

impl Scene {
    fn new(fields: Value) -> Self {
        let (gateway, upstream) = (shared(), Upstream::start());
        let connection = gateway.connect(&upstream, fields);
        Self { gateway, upstream, connection }
    }

    fn get(&self) -> Request {
        self.gateway.agent().get(&self.gateway.authority(), &self.connection.at("/v1"))
    }

    fn post(&self) -> Request {
        self.gateway.agent().post(&self.gateway.authority(), &self.connection.at("/v1"), b"{\"amount\":1}")
    }

    /// Status and code of the answer over HTTP/1.1.
    fn answer(&self, request: &Request) -> (u16, String) {
        let response = self.gateway.send(request);
        (response.status, response.code())
    }

    /// The same over HTTP/2.
    fn answer_of_http2(&self, request: &Request) -> (u16, String) {
        runtime().block_on(send_http2(self.gateway.setup.ingress, &self.gateway.authority(), request))
    }
}

async fn send_http2(address: SocketAddr, authority: &str, request: &Request) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut wanted =
        http::Request::builder().method(request.method.as_str()).uri(format!("http://{authority}{}", request.target));
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "host") {
        wanted = wanted.header(name, value);
    }
    let body = match &request.body {
        Body::Sized(body) => Bytes::from(body.clone()),
        Body::None | Body::Chunked(_) | Body::Short { .. } => Bytes::new(),
    };
    let answer = sender.send_request(wanted.body(Full::new(body)).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    (status, json["code"].as_str().unwrap_or_default().to_owned())
}

/// How many fields go onto the wire.
fn fields(request: &Request) -> usize {
    request.headers.len() + usize::from(!matches!(request.body, Body::None))
}

/// How many bytes their names and values have; `host` counts as `:authority`, which Envoy makes of it.
fn bytes(request: &Request) -> usize {
    let held = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let length = match &request.body {
        Body::Sized(body) => "content-length".len() + body.len().to_string().len(),
        Body::None | Body::Chunked(_) | Body::Short { .. } => 0,
    };
    held + length + ":authority".len() - "host".len()
}

/// With as many more fields as make `count` of them.
fn of_fields(mut request: Request, count: usize) -> Request {
    for number in fields(&request)..count {
        request = request.header(&format!("x-f{number}"), "1");
    }
    request
}

/// With one field more that makes `count` bytes.
fn of_bytes(request: Request, count: usize) -> Request {
    let filler = "a".repeat(count - bytes(&request) - "x-big".len());
    request.header("x-big", &filler)
}

fn allowed() -> (u16, String) {
    (200, String::new())
}

fn refused() -> (u16, String) {
    (431, TOO_LARGE.to_owned())
}

/// 64 headers of the connection's own.
fn extra_headers(value: &str) -> Value {
    Value::Object((0..64).map(|number| (format!("x-extra-{number}"), json!(value))).collect::<Map<_, _>>())
}

#[test]
fn every_count_of_fields_is_decided_or_refused_with_its_nonce_unused() {
    let scene = Scene::new(json!({}));
    for (number, request) in [scene.get(), scene.post()].into_iter().enumerate() {
        for count in [FIELDS - 20, FIELDS - 12, FIELDS - 9, FIELDS - 1, FIELDS] {
            let request = if number == 0 { scene.get() } else { scene.post() };
            assert_eq!(scene.answer(&of_fields(request, count)), allowed(), "{count} fields");
        }
        for count in [FIELDS + 1, FIELDS + 40, FIELDS + 90, 250] {
            assert_eq!(scene.answer(&of_fields(request.clone(), count)), refused(), "{count} fields");
        }
        assert_eq!(scene.answer(&request), allowed(), "the same signature with fewer fields");
    }
}

#[test]
fn the_count_is_the_same_over_http2() {
    let scene = Scene::new(json!({}));
    for make in [Scene::get, Scene::post] {
        for count in [FIELDS - 9, FIELDS - 1, FIELDS] {
            assert_eq!(scene.answer_of_http2(&of_fields(make(&scene), count)), allowed(), "{count} fields");
        }
        let request = make(&scene);
        for count in [FIELDS + 2, FIELDS + 60] {
            assert_eq!(scene.answer_of_http2(&of_fields(request.clone(), count)), refused(), "{count} fields");
        }
        assert_eq!(scene.answer_of_http2(&request), allowed(), "the same signature with fewer fields");
    }
}

#[test]
fn every_size_is_decided_or_refused_with_its_nonce_unused() {
    let scene = Scene::new(json!({}));
    for make in [Scene::get, Scene::post] {
        for size in [BYTES - 2000, BYTES - 1000, BYTES - 1, BYTES] {
            assert_eq!(scene.answer(&of_bytes(make(&scene), size)), allowed(), "{size} bytes");
        }
        let request = make(&scene);
        for size in [BYTES + 1, BYTES + 50_000, BYTES + 90_000, BYTES + 110_000] {
            assert_eq!(scene.answer(&of_bytes(request.clone(), size)), refused(), "{size} bytes");
        }
        assert_eq!(scene.answer(&request), allowed(), "the same signature with less");
    }
    assert_eq!(scene.answer_of_http2(&of_bytes(scene.get(), BYTES)), allowed());
    assert_eq!(scene.answer_of_http2(&of_bytes(scene.get(), BYTES + 1)), refused());
}

#[test]
fn what_a_decision_adds_has_room_beside_all_a_client_may_send() {
    // The longest secret there is, and as many headers of the connection's own as it may have.
    let secret = "s".repeat(16 * 1024 - 8);
    let fields = json!({ "secrets": { "api_key": secret }, "extra_headers": extra_headers("1") });
    let scene = Scene::new(fields);
    for make in [Scene::get, Scene::post] {
        let request = of_bytes(of_fields(make(&scene), FIELDS - 1), BYTES);
        assert_eq!(fields_and_bytes(&request), (FIELDS, BYTES));
        assert_eq!(scene.answer(&request), allowed());
        assert_eq!(scene.answer_of_http2(&of_bytes(of_fields(make(&scene), FIELDS - 1), BYTES)), allowed());
    }
    let seen = scene.upstream.seen();
    assert!(seen.iter().all(|one| one.header("authorization") == Some(&format!("Bearer {secret}"))));
    assert!(seen.iter().all(|one| one.header("x-extra-63") == Some("1") && one.header("x-big").is_some()));
}

fn fields_and_bytes(request: &Request) -> (usize, usize) {
    (fields(request), bytes(request))
}

#[test]
fn a_long_query_credential_has_room_too() {
    // Each character takes three in a query.
    let secret = "/".repeat(16 * 1024 - 8);
    let fields = json!({ "secrets": { "api_key": secret }, "auth_mode": "query_param", "auth_header_name": "key" });
    let scene = Scene::new(fields);
    let target = format!("{}?{}", scene.connection.at("/v1"), "q".repeat(15_000));
    let request = scene.gateway.agent().get(&scene.gateway.authority(), &target);
    let request = of_bytes(of_fields(request, FIELDS - 1), BYTES);
    assert_eq!(scene.answer(&request), allowed());
    assert!(scene.upstream.only().target.ends_with(&format!("&key={}", "%2F".repeat(secret.len()))));
}

#[test]
fn a_plan_that_cannot_fit_is_refused_with_its_nonce_unused() {
    let scene = Scene::new(json!({ "extra_headers": extra_headers(&"e".repeat(2000)) }));
    let request = scene.get();
    assert_eq!(scene.answer(&of_bytes(request.clone(), BYTES)), refused());
    assert!(scene.upstream.untouched());
    assert_eq!(scene.answer(&request), allowed(), "the same signature with less");
    assert_eq!(scene.upstream.only().header("x-extra-63").map(str::len), Some(2000));
}
