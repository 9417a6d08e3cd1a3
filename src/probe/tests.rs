#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code may panic, and its tasks end with the test"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::domain::connection::AuthMode;
use crate::domain::connection::ConnectionSettings;
use crate::domain::draft::Draft;
use crate::domain::probe::TestDraft;
use crate::domain::secret::Secret;

const SECRET: &str = "canary-9c1e77f2a0+/ x";

/// Answers every connection with what `answer` makes of the request, and keeps the requests.
struct Provider {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Provider {
    async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                let text = answer(&request);
                kept.lock().unwrap().push(request);
                let _ = stream.write_all(&text).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { address, seen, task }
    }

    async fn saying(status: &'static str, body: &'static str) -> Self {
        Self::start(move |_| answer(status, body)).await
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn only(&self) -> String {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        seen[0].clone()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let mut part = [0_u8; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return text;
            }
        }
        match stream.read(&mut part).await {
            Ok(read @ 1..) => bytes.extend_from_slice(&part[..read]),
            _ => return text,
        }
    }
}

fn policy() -> AddressPolicy {
    AddressPolicy { allow_loopback: true, ..AddressPolicy::default() }
}

fn settings(base_url: &str, change: impl FnOnce(&mut Draft)) -> ConnectionSettings {
    let mut draft = Draft {
        id: "demo".to_owned(),
        base_url: base_url.to_owned(),
        auth_secret_key: "key".to_owned(),
        ..Draft::default()
    };
    change(&mut draft);
    let anywhere = AddressPolicy { allow_private: true, ..policy() };
    draft.check(&anywhere).unwrap().settings
}

async fn run_with(prober: &Prober, settings: ConnectionSettings, secret: &str, draft: TestDraft) -> TestOutcome {
    let request = draft.check(&settings).unwrap();
    let connection = Connection::new(settings, Ok(&Secret::new(secret.to_owned())));
    let credential = connection.credential.as_ref().unwrap();
    prober.test(&connection, credential, request, &policy(), None).await.unwrap()
}

async fn run(settings: ConnectionSettings, draft: TestDraft) -> TestOutcome {
    run_with(&Prober::new(Duration::from_secs(10)), settings, SECRET, draft).await
}

fn path(path: &str) -> TestDraft {
    TestDraft { path: Some(path.to_owned()), ..TestDraft::default() }
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[tokio::test]
async fn without_a_path_the_connections_own_address_is_asked() {
    for (base, prefix, path, line) in [
        ("", "", None, "GET / "),
        ("/base", "", None, "GET /base "),
        ("/base", "/p", None, "GET /base/p "),
        ("/base", "/p", Some("  "), "GET /base/p "),
        ("/base", "/p", Some("/"), "GET /base/p/ "),
        ("/base", "/p", Some("?q=1"), "GET /base/p/?q=1 "),
    ] {
        let provider = Provider::saying("200 OK", "fine").await;
        let settings = settings(&format!("{}{base}", provider.url()), |draft| draft.path_prefix = prefix.to_owned());
        let draft = TestDraft { path: path.map(str::to_owned), ..TestDraft::default() };
        assert!(run(settings, draft).await.passed);
        let request = provider.only();
        assert!(request.starts_with(line), "{base}{prefix} {path:?}: {request}");
    }
}

#[tokio::test]
async fn an_answer_passes_and_the_request_is_that_of_an_agent() {
    let provider = Provider::saying("200 OK", "fine").await;
    let settings = settings(&format!("{}/base", provider.url()), |draft| {
        draft.path_prefix = "/v1".to_owned();
        draft.extra_headers = [("x-extra".to_owned(), "one".to_owned())].into();
    });
    let draft = TestDraft {
        method: Some("post".to_owned()),
        path: Some("a%2Fb//c/?q=%20&flag".to_owned()),
        headers: BTreeMap::from([("X-Mine".to_owned(), " two ".to_owned())]),
        body: b"{\"a\":1}".to_vec(),
    };
    let outcome = run(settings, draft).await;
    assert_eq!(outcome, TestOutcome { passed: true, http_status: 200, error: String::new() });
    let request = provider.only();
    assert!(request.starts_with("POST /base/v1/a%2Fb//c/?q=%20&flag HTTP/1.1\r\n"), "{request}");
    let host = provider.address.to_string();
    for (name, value) in [
        ("host", host.as_str()),
        ("x-extra", "one"),
        ("x-mine", "two"),
        ("content-type", "application/json"),
        ("authorization", &format!("Bearer {SECRET}")),
        ("user-agent", USER_AGENT),
    ] {
        assert_eq!(header(&request, name), Some(value), "{request}");
    }
    assert!(request.ends_with("{\"a\":1}") && !request.to_lowercase().contains("\nsigilum-"), "{request}");
}

#[tokio::test]
async fn every_kind_of_credential_is_applied() {
    let provider = Provider::saying("204 No Content", "").await;
    let pair = STANDARD.encode(format!("user:{SECRET}"));
    for (mode, target, secret, line) in [
        ("bearer", None, SECRET, format!("authorization: Bearer {SECRET}")),
        ("header_key", Some("X-Key"), SECRET, format!("x-key: {SECRET}")),
        ("basic", None, &format!("user:{SECRET}"), format!("authorization: Basic {pair}")),
        ("query_param", None, SECRET, "GET /x?a=1&b&api_key=canary-9c1e77f2a0%2B%2F%20x HTTP/1.1".to_owned()),
    ] {
        provider.seen.lock().unwrap().clear();
        let settings = settings(&provider.url(), |draft| {
            draft.auth_mode = mode.to_owned();
            draft.auth_header_name = target.map(str::to_owned);
        });
        let draft = path("/x?a=1&api_key=theirs&b");
        let outcome = run_with(&Prober::default(), settings, secret, draft).await;
        assert_eq!((outcome.passed, outcome.http_status), (true, 204), "{mode}: {outcome:?}");
        let request = provider.only();
        assert!(request.lines().any(|found| found == line), "{mode}: {request}");
    }
}

#[tokio::test]
async fn a_redirect_passes_and_is_not_followed() {
    let elsewhere = Provider::saying("200 OK", "").await;
    let location = elsewhere.url();
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = location.clone();
        let provider = Provider::start(move |_| {
            format!("HTTP/1.1 {status}\r\nlocation: {location}/steal\r\ncontent-length: 0\r\n\r\n").into_bytes()
        })
        .await;
        let outcome = run(settings(&provider.url(), |_| {}), TestDraft::default()).await;
        assert!(outcome.passed && status.starts_with(&outcome.http_status.to_string()), "{outcome:?}");
    }
    assert!(elsewhere.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_refusal_fails_with_the_beginning_of_what_was_said() {
    let provider = Provider::saying("401 Unauthorized", " {\n\t\"error\":   \"bad\u{0} key\" }\r\n").await;
    let outcome = run(settings(&provider.url(), |_| {}), TestDraft::default()).await;
    assert_eq!((outcome.passed, outcome.http_status), (false, 401));
    assert_eq!(outcome.error, "http 401: { \"error\": \"bad key\" }");
    let provider = Provider::saying("500 Oh No", "").await;
    let outcome = run(settings(&provider.url(), |_| {}), TestDraft::default()).await;
    assert_eq!((outcome.http_status, outcome.error.as_str()), (500, "http 500"));
}

#[tokio::test]
async fn what_a_provider_echoes_holds_no_credential() {
    type Echo = fn(&str) -> String;
    let forms: [(&str, Echo); 7] = [
        ("as it came", str::to_owned),
        ("base64", |request| STANDARD.encode(request)),
        ("JSON", |request| serde_json::to_string(request).unwrap()),
        ("upper case", str::to_uppercase),
        ("percent", |request| request.replace('+', "%2B").replace('/', "%2F").replace(' ', "%20")),
        ("UTF-16", |request| request.chars().flat_map(|letter| ['\0', letter]).collect()),
        ("blanks", |request| format!("{}{}", " ".repeat(60_000), request.repeat(40))),
    ];
    for (mode, secret) in [
        ("bearer", SECRET.to_owned()),
        ("header_key", SECRET.to_owned()),
        ("query_param", SECRET.to_owned()),
        ("basic", format!("user:{SECRET}")),
    ] {
        for (form, echo) in forms {
            // Only the line with the credential, so that it stands in what is shown.
            let provider = Provider::start(move |request| {
                let line = request.lines().find(|line| {
                    let line = line.to_lowercase();
                    ["authorization", "x-key", "get "].iter().any(|name| line.starts_with(name))
                        && line.len() > 20
                        && (line.contains("canary") || line.contains("basic"))
                });
                answer("403 Forbidden", &echo(line.unwrap()))
            })
            .await;
            let settings = settings(&provider.url(), |draft| {
                draft.auth_mode = mode.to_owned();
                draft.auth_header_name = (mode == "header_key").then(|| "X-Key".to_owned());
            });
            let outcome = run_with(&Prober::default(), settings, &secret, TestDraft::default()).await;
            assert_eq!(outcome.http_status, 403);
            let shown = outcome.error.to_lowercase();
            assert!(shown.contains("[redacted]"), "{mode} {form}: {shown}");
            assert!(!shown.contains("canary") && !shown.contains("9c1e77f2a0"), "{mode} {form}: {shown}");
            for word in outcome.error.split(|letter: char| !letter.is_ascii_alphanumeric() && !"+/=".contains(letter)) {
                for from in 0..4.min(word.len()) {
                    let whole = word[from..].len() / 4 * 4;
                    let decoded = STANDARD.decode(&word[from..][..whole]).unwrap_or_default();
                    let decoded = String::from_utf8_lossy(&decoded).into_owned();
                    assert!(!decoded.contains("canary-9c1e"), "{mode} {form}: {shown}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_huge_answer_is_read_in_part() {
    let provider = Provider::start(|_| answer("400 Bad", &"x".repeat(8 * 1024 * 1024))).await;
    let outcome = run(settings(&provider.url(), |_| {}), TestDraft::default()).await;
    assert_eq!((outcome.http_status, outcome.error.chars().count()), (400, MAX_ERROR_CHARS));
    let endless = Provider::start(|_| format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(300_000)).into_bytes()).await;
    let outcome = run(settings(&endless.url(), |_| {}), TestDraft::default()).await;
    assert_eq!((outcome.passed, outcome.http_status), (false, 0), "{outcome:?}");
}

#[tokio::test]
async fn a_provider_that_never_answers_is_waited_for_so_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let prober = Prober::new(Duration::from_millis(300));
    let begun = std::time::Instant::now();
    let outcome = run_with(&prober, settings(&url, |_| {}), SECRET, TestDraft::default()).await;
    assert_eq!((outcome.http_status, outcome.error.as_str()), (0, "no answer within 0.3 s"));
    assert!(begun.elapsed() < Duration::from_secs(3));
    // Whoever waits for less is told in time.
    let connection = Connection::new(settings(&url, |_| {}), Ok(&Secret::new(SECRET.to_owned())));
    let request = TestDraft::default().check(&connection.settings).unwrap();
    let credential = connection.credential.as_ref().unwrap();
    let within = Some(Duration::from_millis(200));
    let outcome = Prober::default().test(&connection, credential, request, &policy(), within).await.unwrap();
    assert_eq!(outcome.error, "no answer within 0.2 s");
    // One that begins to answer and stops there still has said its status.
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", stuck.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = stuck.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 418 Teapot\r\ncontent-length: 99\r\n\r\nshort").await.unwrap();
        std::future::pending::<()>().await;
    });
    let outcome = run_with(&prober, settings(&url, |_| {}), SECRET, TestDraft::default()).await;
    assert_eq!((outcome.http_status, outcome.error.as_str()), (418, "http 418: short"));
    task.abort();
}

#[tokio::test]
async fn what_breaks_off_is_a_failure_without_the_query_and_the_credential() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let closing = Provider::start(|_| Vec::new()).await;
    let garbage = Provider::start(|request| format!("no HTTP: {request}").into_bytes()).await;
    for (url, said) in [
        (format!("http://{gone}"), "connection refused"),
        (closing.url(), "the exchange failed"),
        (garbage.url(), "the exchange failed"),
        ("http://no-such-name.invalid".to_owned(), "cannot be resolved"),
    ] {
        let settings = settings(&url, |draft| draft.auth_mode = "query_param".to_owned());
        let outcome = run(settings, path("/p?private=query")).await;
        assert_eq!((outcome.passed, outcome.http_status), (false, 0), "{outcome:?}");
        assert!(outcome.error.contains(said), "{outcome:?}");
        assert!(!outcome.error.contains("canary") && !outcome.error.contains("private"), "{outcome:?}");
    }
}

#[tokio::test]
async fn addresses_are_judged_when_the_test_runs() {
    for (url, said) in [
        ("http://10.1.2.3", "private"),
        ("http://192.168.0.1:8080", "private"),
        ("http://127.0.0.1:38000", "own port"),
        ("http://localhost:38000", "own port"),
    ] {
        let mut settings = settings(url, |_| {});
        settings.allow_private = false;
        let request = TestDraft::default().check(&settings).unwrap();
        let connection = Connection::new(settings, Ok(&Secret::new(SECRET.to_owned())));
        let policy = AddressPolicy { own_ports: vec![38_000], ..policy() };
        let credential = connection.credential.as_ref().unwrap();
        let outcome = Prober::default().test(&connection, credential, request, &policy, None).await.unwrap();
        assert_eq!((outcome.passed, outcome.http_status), (false, 0), "{url}");
        assert!(outcome.error.contains(said), "{url}: {outcome:?}");
    }
    // A record that was written before the rules: what no rule allows is refused at use all the same.
    let provider = Provider::saying("200 OK", "").await;
    let mut stored = settings(&provider.url(), |_| {});
    for authority in
        ["169.254.169.254", "[fe80::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "[64:ff9b::7f00:1]"]
    {
        stored.upstream.authority = format!("{authority}:{}", provider.address.port());
        let outcome = run(stored.clone(), TestDraft::default()).await;
        assert_eq!((outcome.passed, outcome.http_status), (false, 0), "{authority}: {outcome:?}");
    }
    let nobody = AddressPolicy::default();
    let connection = Connection::new(settings(&provider.url(), |_| {}), Ok(&Secret::new(SECRET.to_owned())));
    let request = TestDraft::default().check(&connection.settings).unwrap();
    let credential = connection.credential.as_ref().unwrap();
    let outcome = Prober::default().test(&connection, credential, request, &nobody, None).await.unwrap();
    assert!(!outcome.passed && outcome.error.contains("loopback"), "{outcome:?}");
    assert!(provider.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_listener_of_ours_on_another_address_is_not_talked_to() {
    let provider = Provider::saying("200 OK", "").await;
    let policy = AddressPolicy { own_ports: vec![provider.address.port()], ..policy() };
    // As if the name had resolved to an address that is ours and not loopback.
    let refused = address::connect(&[provider.address], &policy).await.unwrap_err();
    assert!(refused.contains("own port"), "{refused}");
    assert!(provider.seen.lock().unwrap().iter().all(String::is_empty));
}

#[tokio::test]
async fn tls_wants_the_name_and_an_authority_this_machine_trusts() {
    for (named, trusted, passes) in
        [("localhost", true, true), ("other.example", true, false), ("localhost", false, false)]
    {
        let signed = rcgen::generate_simple_self_signed(vec![named.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return String::new() };
            let request = read_request(&mut stream).await;
            stream.write_all(&answer("200 OK", "")).await.unwrap();
            stream.shutdown().await.unwrap();
            request
        });
        let mut prober = Prober::new(Duration::from_secs(10));
        if trusted {
            prober.roots = Roots::of(signed.cert.der());
        }
        let settings = settings(&format!("https://localhost:{port}"), |_| {});
        assert_eq!(settings.auth_mode, AuthMode::Bearer);
        let outcome = run_with(&prober, settings, SECRET, TestDraft::default()).await;
        assert_eq!(outcome.passed, passes, "{outcome:?}");
        let received = task.await.unwrap();
        assert_eq!(received.contains(SECRET), passes, "{received}");
        assert!(passes || outcome.error.starts_with("TLS: "), "{outcome:?}");
    }
}

#[tokio::test]
async fn so_many_tests_run_at_a_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let prober = Prober::new(Duration::from_millis(500));
    let connection = Connection::new(settings(&url, |_| {}), Ok(&Secret::new(SECRET.to_owned())));
    let credential = connection.credential.as_ref().unwrap();
    let policy = policy();
    let one = || {
        prober.test(&connection, credential, TestDraft::default().check(&connection.settings).unwrap(), &policy, None)
    };
    let mut running = Box::pin(async { tokio::join!(one(), one(), one(), one(), one(), one(), one(), one()) });
    tokio::select! {
        biased;
        _ = &mut running => unreachable!("nobody answers"),
        _ = std::future::ready(()) => {}
    }
    assert_eq!(one().await, Err(Busy));
    assert!(running.await.0.is_ok());
    assert!(one().await.is_ok());
}

#[test]
fn what_the_caller_may_not_say_is_refused() {
    let settings = settings("https://api.example.com", |draft| {
        draft.auth_mode = "header_key".to_owned();
        draft.auth_header_name = Some("X-Api-Key".to_owned());
    });
    for name in [
        "Host",
        "connection",
        "Content-Length",
        "transfer-encoding",
        "Signature",
        "signature-input",
        "content-digest",
        "sigilum-namespace",
        "X-Sigilum-Admin-Token",
        "x-forwarded-for",
        "authorization",
        "Proxy-Authorization",
        "Cookie",
        "x-api-key",
        "a b",
        "",
        "x:y",
    ] {
        let headers = BTreeMap::from([(name.to_owned(), "v".to_owned())]);
        let draft = TestDraft { headers, ..TestDraft::default() };
        assert!(draft.check(&settings).is_err(), "{name}");
    }
    for value in ["a\r\nb: c", "\u{0}", &"x".repeat(5000)] {
        let headers = BTreeMap::from([("x-a".to_owned(), value.to_owned())]);
        assert!(TestDraft { headers, ..TestDraft::default() }.check(&settings).is_err(), "{value}");
    }
    let twice = ["x-a", "X-A"].map(|name| (name.to_owned(), String::new()));
    assert!(TestDraft { headers: twice.into(), ..TestDraft::default() }.check(&settings).is_err());
    for bad in ["/../x", "/%2e%2e/x", "/a#b", "/a b", "/a\\b", "/%00"] {
        assert!(path(bad).check(&settings).is_err(), "{bad}");
    }
    for bad in ["CONNECT", "trace", "GE T", "G\u{e9}T"] {
        let draft = TestDraft { method: Some(bad.to_owned()), ..TestDraft::default() };
        assert!(draft.check(&settings).is_err(), "{bad}");
    }
}
