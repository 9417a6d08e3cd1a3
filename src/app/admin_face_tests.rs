//! Tests of connections, the service catalog, service API keys, and what strange bodies do to all endpoints.

use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestRng;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::*;

/// Answers each request with its own first line and `Authorization`, by a status that the path names.
pub(super) async fn provider() -> (SocketAddr, Arc<Mutex<Vec<String>>>, Task<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let mut part = [0_u8; 4096];
            while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
                let read = stream.read(&mut part).await.unwrap_or(0);
                if read == 0 {
                    break;
                }
                bytes.extend_from_slice(&part[..read]);
            }
            let request = String::from_utf8_lossy(&bytes).into_owned();
            kept.lock().unwrap().push(request.clone());
            let path = request.split(' ').nth(1).unwrap_or_default();
            let status = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or("200");
            let echo = request.lines().find(|line| line.starts_with("authorization")).unwrap_or_default();
            let said = format!("no entry: {path} {echo}");
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{said}", said.len());
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (address, seen, task)
}

fn to(id: &str, base_url: &str) -> String {
    connection(id).replace("https://api.example.com/v1", base_url)
}

async fn audited(gateway: &Gateway, action: &str) -> Value {
    gateway.ask("GET", &format!("/api/admin/audit?action={action}"), "").await.json()["entries"].clone()
}

#[tokio::test]
async fn a_test_is_told_kept_and_audited() {
    let gateway = Gateway::start().await;
    let (address, seen, task) = provider().await;
    assert_eq!(gateway.ask("POST", CONNECTIONS, &to("demo", &format!("http://{address}"))).await.status, 201);
    let path = "/api/admin/connections/demo/test";
    let fresh = gateway.ask("GET", "/api/admin/connections/demo", "").await.json();
    assert!(fresh.get("last_tested_at").is_none() && fresh.get("last_test_status").is_none());

    let passed = gateway.ask("POST", path, r#"{"test_path":"/204"}"#).await;
    assert_eq!((passed.status, passed.json()), (200, json!({"status": "pass", "http_status": 204})));
    let kept = gateway.ask("GET", "/api/admin/connections/demo", "").await.json();
    assert_eq!((&kept["last_test_status"], &kept["last_test_http_status"]), (&json!("pass"), &json!(204)));
    assert!(kept["last_tested_at"].as_str().unwrap().ends_with('Z') && kept.get("last_test_error").is_none());
    assert_eq!(kept["updated_at"], fresh["updated_at"]);

    let failed = gateway.ask("POST", &format!("{path}/what/follows?counts=not"), r#"{"test_path":"/403/x"}"#).await;
    let said = json!({"status": "fail", "http_status": 403,
        "error": "http 403: no entry: /403/x authorization: Bearer [redacted]"});
    assert_eq!((failed.status, failed.json()), (200, said.clone()));
    let listed = gateway.ask("GET", CONNECTIONS, "").await.json()["connections"][0].clone();
    assert_eq!((&listed["last_test_status"], &listed["last_test_error"]), (&json!("fail"), &said["error"]));
    let changed = gateway.ask("PATCH", "/api/admin/connections/demo", r#"{"name":"x"}"#).await.json();
    assert_eq!(changed["last_test_http_status"], 403);

    task.abort();
    assert!(task.await.is_err());
    let unanswered = gateway.ask("POST", path, "").await;
    assert_eq!((unanswered.status, &unanswered.json()["http_status"]), (502, &json!(0)));
    assert!(unanswered.json()["error"].as_str().unwrap().contains("connection refused"), "{unanswered:?}");
    let kept = gateway.ask("GET", "/api/admin/connections/demo", "").await.json();
    assert!(kept["last_test_status"] == "fail" && kept.get("last_test_http_status").is_none(), "{kept}");
    assert!(seen.lock().unwrap().iter().all(|request| request.contains(CANARY)));

    let entries = audited(&gateway, "connection.test").await;
    let results: Vec<_> =
        entries.as_array().unwrap().iter().map(|entry| entry["detail"]["http_status"].clone()).collect();
    assert_eq!(results, [json!(0), json!(403), json!(204)]);
    assert_eq!((&entries[0]["target"], &entries[0]["via"]), (&json!("demo"), &json!("token")));
    // What is gone is forgotten, and a namesake was never tested.
    assert_eq!(gateway.ask("DELETE", "/api/admin/connections/demo", "").await.status, 204);
    assert_eq!(gateway.ask("POST", CONNECTIONS, &to("demo", "https://api.example.com")).await.status, 201);
    let again = gateway.ask("GET", "/api/admin/connections/demo", "").await.json();
    assert!(again.get("last_tested_at").is_none(), "{again}");
}

#[tokio::test]
async fn a_test_whose_client_has_left_is_kept_and_audited() {
    let gateway = Gateway::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    assert_eq!(gateway.ask("POST", CONNECTIONS, &to("demo", &base_url)).await.status, 201);
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let asked = format!(
        "POST /api/admin/connections/demo/test HTTP/1.1\r\nhost: {}\r\nx-sigilum-admin-token: {TOKEN}\r\n\r\n",
        gateway.address
    );
    client.write_all(asked.as_bytes()).await.unwrap();
    let (mut provider, _) = listener.accept().await.unwrap();
    let mut part = [0_u8; 4096];
    assert!(provider.read(&mut part).await.unwrap() > 0);
    // The credential is there, and its sender is gone, which would end the exchange at once if anybody minded.
    drop(client);
    let ended = tokio::time::timeout(Duration::from_millis(300), provider.read(&mut part)).await;
    assert!(ended.is_err(), "{ended:?}");
    provider.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.unwrap();
    wait_until(async || !audited(&gateway, "connection.test").await.as_array().unwrap().is_empty()).await;
    let kept = gateway.ask("GET", "/api/admin/connections/demo", "").await.json();
    assert_eq!((&kept["last_test_status"], &kept["last_test_http_status"]), (&json!("pass"), &json!(204)));
}

#[tokio::test]
async fn what_cannot_be_tested_says_why() {
    let gateway = Gateway::start().await;
    let (address, seen, task) = provider().await;
    let mcp = format!(r#"{{"id":"tools","protocol":"mcp","base_url":"http://{address}"}}"#);
    for body in [to("demo", &format!("http://{address}")), mcp] {
        assert_eq!(gateway.ask("POST", CONNECTIONS, &body).await.status, 201);
    }
    for (id, body, status, said) in [
        ("none", "", 404, "connection not found"),
        ("tools", "", 501, "MCP"),
        ("demo", "[]", 400, "JSON"),
        ("demo", "{", 400, "JSON"),
        ("demo", r#"{"method":"TRACE"}"#, 400, "method"),
        ("demo", r#"{"test_path":"/../x"}"#, 400, "test_path"),
        ("demo", r#"{"headers":{"Host":"x"}}"#, 400, "host"),
        ("demo", r#"{"headers":{"Authorization":"Bearer x"}}"#, 400, "authorization"),
        ("demo", r#"{"headers":{"Sigilum-Subject":"x"}}"#, 400, "sigilum-subject"),
    ] {
        let answer = gateway.ask("POST", &format!("/api/admin/connections/{id}/test"), body).await;
        assert_eq!(answer.status, status, "{id} {body}: {answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains(said), "{answer:?}");
        assert!(answer.json()["request_id"].is_string(), "{answer:?}");
    }
    for (path, status, code) in [
        ("none/discover", 404, ""),
        ("demo/discover", 400, ""),
        ("tools/discover?refresh=maybe", 400, "INVALID_REFRESH_MODE"),
        ("tools/discover?refresh=force", 501, ""),
        ("tools/discover", 501, ""),
        ("tools/discover/more", 501, ""),
    ] {
        let answer = gateway.ask("POST", &format!("/api/admin/connections/{path}"), "").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}: {answer:?}");
    }
    assert!(seen.lock().unwrap().is_empty());
    task.abort();
}

#[tokio::test]
async fn the_catalog_is_made_read_anew_and_replaced_whole() {
    let gateway = Gateway::start().await;
    let file = gateway.folder.path().join("data/service-catalog.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let path = "/api/admin/service-catalog";
    let made = gateway.ask("GET", path, "").await;
    assert_eq!((made.status, made.body.as_str()), (200, text.as_str()));
    assert_eq!(made.json()["services"].as_array().unwrap().len(), 16);

    let one = json!({"services": [{"key": "mine", "connection_id": "mine-proxy", "base_url": "https://mine.example",
        "credential_fields": [{"key": "token"}], "unknown": 1}]});
    let put = gateway.ask("PUT", path, &one.to_string()).await;
    assert_eq!((put.status, put.json()["services"][0]["label"].as_str()), (200, Some("mine")));
    assert_eq!(gateway.ask("GET", path, "").await.body, put.body);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), put.body);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // Somebody edits it.
    std::fs::write(&file, put.body.replace("\"mine\"", "\"ours\"")).unwrap();
    assert_eq!(gateway.ask("GET", path, "").await.json()["services"][0]["key"], "ours");

    let refused = gateway.ask("PUT", path, r#"{"services":[{"key":"x"}]}"#).await;
    assert_eq!(refused.status, 400);
    assert!(refused.json()["error"].as_str().unwrap().starts_with("services[0].connection_id"), "{refused:?}");
    for bad in ["", "[]", "{"] {
        assert_eq!(gateway.ask("PUT", path, bad).await.status, 400, "{bad}");
    }
    assert_eq!(gateway.ask("GET", path, "").await.json()["services"][0]["key"], "ours");

    for broken in ["{ not json", "[]", "", r#"{"services":[{"key":"x"}]}"#, "\u{0}"] {
        std::fs::write(&file, broken).unwrap();
        let answer = gateway.ask("GET", path, "").await;
        assert_eq!(answer.status, 500, "{broken}");
        assert!(answer.json()["error"].as_str().unwrap().contains("service catalog"), "{answer:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), broken, "nobody but its owner puts it right");
    }
    assert_eq!(gateway.ask("PUT", path, &one.to_string()).await.status, 200);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(gateway.ask("GET", path, "").await.body, text);
    assert!(file.exists());
    assert_eq!(audited(&gateway, "catalog.replace").await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_catalog_as_long_as_a_body_may_be_is_taken_and_read_again() {
    let gateway = Gateway::start().await;
    let services: Vec<_> = (0..500)
        .map(|number| {
            json!({"key": format!("k{number}"), "connection_id": format!("c{number}"), "base_url": "https://x.example",
                "description": "d".repeat(3500), "credential_fields": [{"key": "token"}]})
        })
        .collect();
    let body = json!({ "services": services }).to_string();
    assert!(body.len() < crate::admin::input::MAX_BODY_BYTES && body.len() > 1_800_000);
    assert_eq!(gateway.ask("PUT", "/api/admin/service-catalog", &body).await.status, 200);
    let read = gateway.ask("GET", "/api/admin/service-catalog", "").await;
    assert_eq!((read.status, read.json()["services"].as_array().unwrap().len()), (200, 500));
}

/// Else one that is taken could not be read again: neither by us nor by a page.
#[tokio::test]
async fn a_catalog_that_grows_beyond_its_bound_when_it_is_laid_out_is_refused() {
    let gateway = Gateway::start().await;
    let path = "/api/admin/service-catalog";
    let before = gateway.ask("GET", path, "").await.body;
    let nested = (0..100).fold(json!([]), |inner, _| json!([inner]));
    let body = json!({"services": [{"key": "k", "connection_id": "c", "base_url": "https://x.example",
        "default_test_body": vec![nested; 1000], "credential_fields": [{"key": "token"}]}]});
    assert!(body.to_string().len() < 300_000);
    let refused = gateway.ask("PUT", path, &body.to_string()).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.body.contains("services: more than 4194304 bytes"), "{refused:?}");
    assert_eq!(gateway.ask("GET", path, "").await.body, before);
}

#[tokio::test]
async fn a_service_key_is_written_and_told_by_its_beginning() {
    let gateway = Gateway::start().await;
    let home = gateway.folder.path().join("home");
    let path = "/api/admin/service-api-keys/demo-service";
    let none = gateway.ask("GET", path, "").await;
    let expected =
        json!({"connection_id": "demo-service", "has_key": false, "key_prefix": "", "api_standing": "unknown"});
    assert_eq!((none.status, none.json()), (200, expected));
    let put = gateway.ask("PUT", path, &format!(r#"{{"key":" sk_live_{CANARY} "}}"#)).await;
    assert_eq!((put.status, put.json()), (200, json!({"connection_id": "demo-service", "written": true})));
    let file = home.join("service-api-key-demo-service");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("sk_live_{CANARY}\n"));
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&home).unwrap().mode() & 0o777, 0o700);
    let there = gateway.ask("GET", path, "").await;
    assert_eq!((&there.json()["has_key"], &there.json()["key_prefix"]), (&json!(true), &json!("sk_live_...")));
    assert_eq!(there.json()["key_source"], "service");
    assert!(!there.body.contains(CANARY));
    assert_eq!(gateway.ask("PUT", path, r#"{"key":"short"}"#).await.status, 200);
    assert_eq!(gateway.ask("GET", path, "").await.json()["key_prefix"], "sh...");

    for (path, body) in [
        (path, ""),
        (path, "{}"),
        (path, r#"{"key":null}"#),
        (path, r#"{"key":" "}"#),
        (path, r#"{"key":7}"#),
        (path, r#"{"key":"two\nlines"}"#),
        (path, r#"{"key":"\u00e9"}"#),
        ("/api/admin/service-api-keys/No", r#"{"key":"k"}"#),
        ("/api/admin/service-api-keys/ab", r#"{"key":"k"}"#),
        ("/api/admin/service-api-keys/-ab", r#"{"key":"k"}"#),
        ("/api/admin/service-api-keys/a%2F..%2Fb", r#"{"key":"k"}"#),
        ("/api/admin/service-api-keys/%ff%ff%ff", r#"{"key":"k"}"#),
    ] {
        let answer = gateway.ask("PUT", path, body).await;
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
    }
    assert_eq!(gateway.ask("GET", "/api/admin/service-api-keys/ab", "").await.status, 400);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "short\n");
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 1);
    let entries = audited(&gateway, "service_key.set").await;
    assert_eq!((entries.as_array().unwrap().len(), &entries[0]["target"]), (2, &json!("demo-service")));
    let gone = Gateway::start_with(|config| config.keys = Arc::new(KeyPlaces::default())).await;
    assert_eq!(gone.ask("PUT", path, r#"{"key":"k"}"#).await.status, 500);
}

/// Values of every kind, below names the API knows.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[a-z0-9-]{1,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "http",
            "mcp",
            "bearer",
            "query_param",
            "basic",
            "header_key",
            "active",
            "disabled",
            "{{KEY}}",
            "https://x.example",
            "http://127.0.0.1:9",
            "http://169.254.169.254",
            "api_key",
            "Authorization",
            "/a/../b",
            "demo",
            "",
            " ",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..6).prop_map(object),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    let known = vec![
        "id",
        "name",
        "protocol",
        "base_url",
        "path_prefix",
        "auth_mode",
        "auth_header_name",
        "auth_prefix",
        "auth_secret_key",
        "secrets",
        "rotation_interval_days",
        "status",
        "mcp_transport",
        "mcp_endpoint",
        "mcp_tool_allowlist",
        "mcp_tool_denylist",
        "mcp_max_tools_exposed",
        "mcp_subject_tool_policies",
        "allow_private",
        "allowed_methods",
        "allowed_paths",
        "upgrades",
        "response_timeout_ms",
        "max_stream_seconds",
        "extra_headers",
        "allow_set_cookie",
        "forward_trace",
        "rotated_by",
        "rotation_reason",
        "method",
        "test_path",
        "headers",
        "body",
        "key",
        "value",
        "created_by_subject",
        "version",
        "services",
        "connection_id",
        "credential_fields",
        "label",
        "api_key",
    ];
    prop_oneof![4 => prop::sample::select(known).prop_map(str::to_owned), 1 => "\\PC{0,8}"]
}

fn object(members: Vec<(String, Value)>) -> Value {
    Value::Object(members.into_iter().collect())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec((name(), value()), 0..10).prop_map(|members| object(members).to_string().into_bytes()),
        1 => value().prop_map(|value| value.to_string().into_bytes()),
        1 => (value(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(value, at, byte)| {
            let mut text = value.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            text
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (1..200_usize, "[\\[{\"]").prop_map(|(count, text)| text.repeat(count * 100).into_bytes()),
    ]
}

/// How many bodies are sent; `SIGILUM_RANDOM_BODIES` asks for more, e.g. the ten thousand per endpoint of a long run.
fn cases() -> u32 {
    std::env::var("SIGILUM_RANDOM_BODIES").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// Sends random bodies to all methods of a path, of a gateway of its own: what one has made the next meets, and no store grows
/// with what others were sent.
fn disturb(runtime: &Handle, gateway: &Gateway, path: &str, methods: Vec<String>) {
    let count = u32::try_from(methods.len()).unwrap();
    let config = Config { cases: cases() * count, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let id = prop::sample::select(vec!["demo", "other", "%2e%2e", "%00", "A"]);
    let method = prop::sample::select(methods);
    let outcome = runner.run(&(method, id, body(), any::<bool>()), |(method, id, body, typed)| {
        let path = path.replace("{id}", id).replace("{key}", id);
        let length = body.len().to_string();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nx-sigilum-admin-token: {TOKEN}\r\n\
             content-length: {length}\r\n",
            gateway.address
        );
        if typed || !body.is_empty() {
            request.push_str("content-type: application/json\r\n");
        }
        request.push_str("\r\n");
        let request = [request.into_bytes(), body].concat();
        let answer = runtime.block_on(gateway.raw(&request));
        // A test that reaches nobody is 502, what is not there yet 501, not ready 503.
        prop_assert!(answer.status < 500 || matches!(answer.status, 501..=503), "{} {}: {:?}", method, path, answer);
        prop_assert!(answer.status < 400 || answer.status == 502 || answer.json()["request_id"].is_string());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{path}: {error}");
    }
}

/// A gateway is alive after that, and everything that was made can be read.
fn survives(runtime: &Handle, path: &str, methods: Vec<String>) {
    let gateway = runtime.block_on(Gateway::start());
    let ask = |method, path: &str, body| runtime.block_on(gateway.ask(method, path, body));
    let demo = to("demo", "http://127.0.0.1:9");
    assert_eq!(ask("POST", CONNECTIONS, &demo).status, 201);
    disturb(runtime, &gateway, path, methods);
    let list = ask("GET", CONNECTIONS, "");
    assert_eq!(list.status, 200, "{path}");
    assert_eq!(ask("GET", "/health", "").status, 200, "{path}");
    for one in list.json()["connections"].as_array().unwrap() {
        let id = one["id"].as_str().unwrap();
        assert_eq!(ask("GET", &format!("/api/admin/connections/{id}"), "").json()["id"], id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_is_our_fault() {
    let described = Gateway::start().await.send("GET", "/openapi.json", &[], "").await.json();
    let paths = described["paths"].as_object().unwrap();
    let operations = |item: &Value| item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
    let paths: Vec<(String, Vec<String>)> = paths.iter().map(|(path, item)| (path.clone(), operations(item))).collect();
    assert!(paths.iter().map(|(_, methods)| methods.len()).sum::<usize>() > 15);
    let (paths, runtime) = (std::sync::Mutex::new(paths.into_iter()), Handle::current());
    let next = || paths.lock().unwrap().next();
    let work = || {
        while let Some((path, methods)) = next() {
            survives(&runtime, &path, methods);
        }
    };
    // As many at once as these machines have cores.
    tokio::task::block_in_place(|| {
        std::thread::scope(|threads| {
            threads.spawn(work);
            threads.spawn(work);
        });
    });
}
