#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use super::*;

/// Answers one request with these bytes and hands back what came.
fn serve(answer: &str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let answer = answer.to_owned();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = vec![0; 16 * 1024];
        let length = stream.read(&mut seen).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&seen[..length]).into_owned()
    });
    (base, server)
}

async fn ask(answer: &str) -> (Result<Value, ApiError>, String) {
    let (base, server) = serve(answer);
    let api = JsonApi::new(&base).unwrap();
    let result = api.call(Method::GET, api.url(&["v1", "claims", "../a b/c"]), None).await;
    (result, server.join().unwrap())
}

fn page(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn an_answer_is_json_and_segments_are_escaped() {
    let (result, seen) = ask(&page("200 OK", "application/json", r#"{"a":1}"#)).await;
    assert_eq!(result.unwrap()["a"], 1);
    assert!(seen.starts_with("GET /v1/claims/..%2Fa%20b%2Fc HTTP/1.1\r\n"), "{seen}");
    let (result, _) = ask("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(result.unwrap(), Value::Null);
}

#[tokio::test]
async fn a_refusal_has_its_code_and_nothing_that_moves_a_terminal() {
    let body = r#"{"error":"No\u001b[2J more.\u202e","code":"KEY_LIMIT_REACHED","details":{"limit":2}}"#;
    let (result, _) = ask(&page("400 Bad Request", "application/json", body)).await;
    let error = result.unwrap_err();
    assert_eq!((error.status(), error.code()), (400, "KEY_LIMIT_REACHED"));
    let text = error.to_string();
    assert!(text.ends_with("(HTTP 400, KEY_LIMIT_REACHED)") && text.starts_with("No\u{fffd}[2J more."), "{text}");
    assert!(!text.chars().any(|letter| letter.is_control() || letter == '\u{202e}'), "{text:?}");
}

#[tokio::test]
async fn what_is_no_api_is_said_to_be_none() {
    let html = "<!doctype html><h1>hello</h1>";
    for answer in [
        page("200 OK", "text/html", html),
        page("502 Bad Gateway", "text/html", html),
        page("200 OK", "application/json", r#"{"claims":["#),
    ] {
        let (result, _) = ask(&answer).await;
        assert!(matches!(result, Err(ApiError::Unexpected { .. })), "{result:?}");
    }
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 0\r\n\r\n";
    let (result, _) = ask(moved).await;
    assert!(result.unwrap_err().to_string().contains("redirect (302) to http://elsewhere.example/"));
    let (result, _) = ask("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await;
    assert!(matches!(result, Err(ApiError::Unreachable { .. })), "{result:?}");
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_is_said_to_be_the_reason() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap();
        // Ends with the client's alert.
        while tls.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {}
    });
    let api = JsonApi::new(&base).unwrap();
    let error = api.call(Method::GET, api.url(&[]), None).await.unwrap_err();
    assert!(matches!(error, ApiError::Certificate { .. }), "{error}");
    drop(api);
    server.join().unwrap();
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let body = format!("\"{}\"", "a".repeat(MAX_ANSWER));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = [0; 4096];
        let _ = stream.read(&mut seen);
        // The other side hangs up in the middle.
        let _ = stream.write_all(page("200 OK", "application/json", &body).as_bytes());
    });
    let api = JsonApi::new(&base).unwrap();
    let error = api.call(Method::GET, api.url(&[]), None).await.unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    drop(api);
    server.join().unwrap();
}

#[test]
fn addresses_without_a_host_or_with_a_password_are_refused() {
    for bad in ["", "localhost:8787", "ftp://h", "http://user:pass@h", "http://h/?x", "http://h/#x", "unix:/a"] {
        assert!(matches!(JsonApi::new(bad), Err(ApiError::Address { .. })), "{bad}");
    }
    let api = JsonApi::new("http://h:1/base/").unwrap();
    assert_eq!(api.url(&["v1", "x"]).as_str(), "http://h:1/base/v1/x");
}

#[test]
fn a_token_cannot_smuggle_a_header() {
    let api = JsonApi::new("http://h").unwrap();
    let token = Secret::new("a\r\nx: y".to_owned());
    assert!(matches!(api.with_secret(HeaderName::from_static("x-t"), &token), Err(ApiError::Token)));
}
