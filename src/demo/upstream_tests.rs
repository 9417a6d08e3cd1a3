//! Tests of the demo upstream over real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::TcpStream;

use super::*;
use crate::sys::tasks::Ended;
use crate::sys::tasks::Tasks;

const KEY: &str = "gw_demo_0123";

async fn start() -> (SocketAddr, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = Tasks::default();
    tasks.spawn("demo", |stop| async move { run(listener, Secret::new(KEY.to_owned()), stop).await.unwrap() });
    (address, tasks)
}

/// Sends one request on a connection of its own and reads everything that comes back.
async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn with_key(address: SocketAddr, method: &str, target: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: demo\r\nX-Demo-Service-Gateway-Key: {KEY}\r\n");
    ask(address, &format!("{head}X-Two: 1\r\nX-Two: 2\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"))
        .await
}

#[tokio::test]
async fn only_the_right_key_gets_in() {
    let (address, _tasks) = start().await;
    let health = ask(address, "GET /health HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").await;
    assert_eq!(health, (200, "{\"status\":\"ok\"}".to_owned()));
    for keys in [
        "",
        "X-Demo-Service-Gateway-Key: wrong\r\n",
        "X-Demo-Service-Gateway-Key: gw_demo_0123\r\nX-Demo-Service-Gateway-Key: gw_demo_0123\r\n",
    ] {
        for target in ["/v1/ping", "/v1/echo", "/v1/nothing", "/v1/status/200"] {
            let request =
                format!("POST {target} HTTP/1.1\r\nHost: demo\r\n{keys}Content-Length: 0\r\nConnection: close\r\n\r\n");
            assert_eq!(
                ask(address, &request).await,
                (401, "{\"error\":\"Unauthorized\"}".to_owned()),
                "{keys}{target}"
            );
        }
    }
}

#[tokio::test]
async fn every_route_answers() {
    let (address, _tasks) = start().await;
    assert_eq!(with_key(address, "POST", "/v1/ping", "\"ping\"").await, (200, "\"pong\"".to_owned()));
    assert_eq!(with_key(address, "GET", "/v1/ping", "").await.0, 405);
    assert!(with_key(address, "GET", "/v1/balance", "").await.1.contains("\"balance\":1000"));
    let accepted = with_key(address, "POST", "/v1/transfer", "{\"amount\":5}").await;
    assert_eq!(accepted, (200, "{\"amount\":5,\"status\":\"accepted\"}".to_owned()));
    assert_eq!(with_key(address, "POST", "/v1/transfer", "5").await.0, 400);
    assert_eq!(with_key(address, "GET", "/v1/echo/", "").await.0, 200);
    for (code, expected) in [("204", 204), ("418", 418), ("599", 599), ("199", 400), ("600", 400), ("x", 400)] {
        assert_eq!(with_key(address, "PUT", &format!("/v1/status/{code}"), "").await.0, expected, "{code}");
    }
    assert_eq!(with_key(address, "GET", "/v2", "").await.0, 404);
}

#[tokio::test]
async fn the_echo_says_what_arrived() {
    let (address, _tasks) = start().await;
    let (status, body) = with_key(address, "PATCH", "/v1/echo/a%2Fb?x=1&x=%20", "hello").await;
    assert_eq!(status, 200);
    let seen: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(seen["method"], "PATCH");
    assert_eq!((&seen["path"], &seen["query"]), (&json!("/v1/echo/a%2Fb"), &json!("x=1&x=%20")));
    assert_eq!(seen["body"], "hello");
    let headers = seen["headers"].as_array().unwrap();
    let two: Vec<_> = headers.iter().filter(|pair| pair[0] == "x-two").map(|pair| pair[1].clone()).collect();
    assert_eq!(two, ["1", "2"]);
    assert!(headers.contains(&json!(["x-demo-service-gateway-key", KEY])));
}

#[tokio::test]
async fn events_come_one_by_one_and_end_with_the_process() {
    let (address, tasks) = start().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /v1/stream?count=10000 HTTP/1.1\r\nHost: demo\r\n{KEY_HEADER}: {KEY}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut seen = 0;
    while seen < 2 {
        let line = lines.next_line().await.unwrap().unwrap();
        if line.starts_with("data: ") {
            assert_eq!(line, format!("data: {{\"sequence\":{seen}}}"));
            seen += 1;
        }
    }
    tasks.stop_handle().stop();
    assert_eq!(tasks.supervise(Duration::from_secs(10)).await, Ended::Stopped);
}

#[tokio::test]
async fn a_large_body_is_read_before_the_answer() {
    let (address, _tasks) = start().await;
    let body = "x".repeat(2 * 1024 * 1024);
    for target in ["/v1/ping", "/v1/status/200"] {
        for _ in 0..8 {
            assert_eq!(with_key(address, "POST", target, &body).await.0, 200, "{target}");
        }
    }
}
