//! The real bridge between the real control plane and a real gateway: what comes of commands when either of them, or
//! the bridge, ends and begins again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::support::api::Api;
use crate::support::client;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::shared;
use crate::support::pair_bridge::Paired;
use crate::support::process;
use crate::support::process::wait_until;

const COMMAND: &str = "/v1/gateway/pairing/command";
/// Whose gateways these are.
const OWNER: &str = "operator";

/// `gateway pair` for a session, with its code in the environment.
fn pair(setup: &Setup, api: &Api, paired: &Paired) -> Command {
    let mut command = setup.command(&["gateway", "pair", "--session-id", &paired.id, "--reconnect-ms", "100"]);
    command.env("SIGILUM_API_URL", api.url()).env("SIGILUM_PAIR_CODE", &paired.code);
    command
}

fn bridge(setup: &Setup, api: &Api, paired: &Paired) -> Running {
    let running = Running::spawn(pair(setup, api, paired));
    wait_until("the bridge is connected", LIMIT, || {
        assert!(!running.said().contains("TERMINAL"), "{}", running.said());
        running.said().contains("success: pairing bridge ready")
    });
    // The handshake is over a moment before the API has the socket.
    wait_until("the API has the bridge", LIMIT, || paired.is_connected(api));
    running
}

fn ask(api: &Api, paired: &Paired, method: &str, path: &str, body: Option<Value>) -> Response {
    let body = body.map(|body| body.to_string());
    let command = json!({"session_id": paired.id, "method": method, "path": path, "body": body, "timeout_ms": 30_000});
    api.ask(&api.token(OWNER), "POST", COMMAND, Some(&command))
}

/// What the gateway answered: status and body.
fn relayed(api: &Api, paired: &Paired, method: &str, path: &str, body: Option<Value>) -> (u64, Value) {
    let answer = ask(api, paired, method, path, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let body = answer["body"].as_str().map(|body| serde_json::from_str(body).unwrap()).unwrap_or_default();
    (answer["status"].as_u64().unwrap(), body)
}

#[test]
fn a_dashboard_manages_connections_and_the_audit_knows_it() {
    let (api, gateway) = (Api::start(), shared());
    let paired = Paired::start(&api, OWNER);
    let running = bridge(&gateway.setup, &api, &paired);
    let id = gateway.next_id();
    let input = json!({"id": id, "name": "By pairing", "protocol": "http", "base_url": "https://api.example.com",
        "auth_mode": "bearer", "auth_header_name": "Authorization", "auth_prefix": "Bearer ",
        "auth_secret_key": "token", "secrets": {"token": "canary-of-a-page"}});
    let (status, made) = relayed(&api, &paired, "POST", "/api/admin/connections", Some(input));
    assert_eq!(status, 201, "{made}");
    let (status, found) = relayed(&api, &paired, "GET", &format!("/api/admin/connections/{id}"), None);
    assert_eq!((status, &found["id"]), (200, &json!(id)));
    let audit = gateway.admin("GET", &format!("/audit?connection={id}"), None).json();
    let entry = &audit["entries"][0];
    assert_eq!(
        (&entry["detail"]["relayed"], &entry["detail"]["secret"]),
        (&json!(paired.id), &json!("plain")),
        "{audit}"
    );
    let deleted = relayed(&api, &paired, "DELETE", &format!("/api/admin/connections/{id}"), None);
    assert!((200..300).contains(&deleted.0), "{deleted:?}");
    let said = running.said();
    for secret in [gateway.token().as_str(), &paired.code, "canary-of-a-page"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn a_command_may_bring_its_token_which_opens_nothing_more_and_stands_in_no_log() {
    let (api, gateway) = (Api::start(), Gateway::start());
    let paired = Paired::start(&api, OWNER);
    let running = bridge(&gateway.setup, &api, &paired);
    let id = gateway.next_id();
    let path = format!("/api/admin/connections/{id}");
    let input = json!({"id": id, "base_url": "https://api.example.com", "auth_secret_key": "token",
        "secrets": {"token": "canary-of-a-page"}});
    assert_eq!(relayed(&api, &paired, "POST", "/api/admin/connections", Some(input)).0, 201);
    let (own, other) = (gateway.token(), "another-token-of-somebody");
    let send = |headers: &Value, method: &str, body: Option<Value>| {
        let body = body.map(|body| body.to_string());
        let command = json!({"session_id": paired.id, "method": method, "path": path, "headers": headers, "body": body,
            "timeout_ms": 30_000});
        let answer = api.ask(&api.token(OWNER), "POST", COMMAND, Some(&command)).json();
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        (answer["status"].as_u64().unwrap(), body["code"].as_str().unwrap_or_default().to_owned())
    };
    for (name, right, wrong) in [
        ("X-Sigilum-Admin-Token", own.clone(), other.to_owned()),
        ("Authorization", format!("Bearer {own}"), format!("Bearer {other}")),
    ] {
        let (right, wrong) = (json!({ name: right }), json!({ name: wrong }));
        assert_eq!(send(&right, "GET", None).0, 200, "{name}");
        assert_eq!(send(&wrong, "GET", None), (403, "ADMIN_TOKEN_REQUIRED".to_owned()), "{name}: its own stays away");
        let moved = send(&right, "PATCH", Some(json!({"base_url": "https://evil.example"})));
        assert_eq!(moved, (403, "RELAY_FORBIDDEN".to_owned()), "{name}");
    }
    let mut logs = running.said() + &api.said();
    for entry in fs::read_dir(gateway.setup.data().join("logs")).unwrap() {
        logs += &String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap_or_default());
    }
    assert!(logs.contains(&paired.id), "the mark is in the audit");
    assert!(!logs.contains(&own) && !logs.contains(other), "{logs}");
}

#[test]
fn the_fingerprint_that_is_printed_is_that_of_the_gateway() {
    let (api, gateway) = (Api::start(), shared());
    let running = bridge(&gateway.setup, &api, &Paired::start(&api, OWNER));
    let shown = gateway.admin("GET", "/sealing-key", None).json();
    let line = format!("[sigilum] sealing key fingerprint: {}\n", shown["fingerprint"].as_str().unwrap());
    assert!(running.said().contains(&line), "{line} in {}", running.said());
}

#[test]
fn what_is_not_on_the_list_is_refused_by_the_bridge() {
    let (api, gateway) = (Api::start(), shared());
    let paired = Paired::start(&api, OWNER);
    let _running = bridge(&gateway.setup, &api, &paired);
    for path in ["/api/admin/store/backup", "/api/admin/audit", "/metrics", "/api/admin/connections/../audit"] {
        let answer = ask(&api, &paired, "GET", path, None).json();
        let refused = (&answer["status"], &answer["error"]);
        assert_eq!(refused, (&json!(400), &json!("Unsupported relay path or method")), "{path}");
    }
}

#[test]
fn a_bridge_that_is_started_again_comes_back_past_whoever_tries_codes() {
    let (api, gateway) = (Api::start(), shared());
    let paired = Paired::start(&api, OWNER);
    let folder = tempfile::tempdir().unwrap();
    // As `--daemon` leaves it for the unit.
    let file = folder.path().join("pair-session.json");
    let session = json!({"session_id": paired.id, "namespace": OWNER, "api_url": api.url(), "pair_code": paired.code});
    fs::write(&file, session.to_string()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let run = || {
        let arguments = ["gateway", "pair", "--session-file", file.to_str().unwrap(), "--reconnect-ms", "100"];
        let running = Running::spawn(gateway.setup.command(&arguments));
        wait_until("the API has the bridge", LIMIT, || paired.is_connected(&api));
        assert!(!running.said().contains("429"), "it had to wait: {}", running.said());
        running
    };
    let stop = |mut running: Running| {
        running.signal(Signal::TERM);
        assert_eq!(running.wait(LIMIT).code(), Some(0));
        wait_until("the API has lost the bridge", LIMIT, || !paired.is_connected(&api));
    };
    stop(run());
    let status_of = |code: &str| {
        let target = format!("/v1/gateway/pairing/connect?session_id={}&namespace={OWNER}&code={code}", paired.id);
        let ask = Request::new("GET", &api.address.to_string(), &target);
        let ask =
            ask.header("connection", "upgrade").header("upgrade", "websocket").header("sec-websocket-version", "13");
        client::send(api.address, &ask.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")).status
    };
    // From the bridge's own address, until the code itself is looked at no more.
    let tried: Vec<_> = (0..5).map(|_| status_of("AAAAAAAA")).collect();
    assert_eq!((tried, status_of(&paired.code)), (vec![403; 5], 429));
    stop(run());
}

#[test]
fn ten_thousand_commands_come_back_to_who_sent_them() {
    const COMMANDS: usize = 10_000;
    const SENDERS: usize = 16;
    let (api, gateway) = (Api::start(), shared());
    let paired = Paired::start(&api, OWNER);
    let _running = bridge(&gateway.setup, &api, &paired);
    let next = AtomicUsize::new(0);
    let token = api.token(OWNER);
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= COMMANDS {
                        break;
                    }
                    let id = format!("service-{number}");
                    let path = format!("/api/admin/service-api-keys/{id}");
                    let command = json!({"session_id": paired.id, "method": "GET", "path": path, "timeout_ms": 60_000});
                    let answer = api.ask(&token, "POST", COMMAND, Some(&command));
                    assert_eq!(answer.status, 200, "{number}: {}", answer.text());
                    let answer = answer.json();
                    assert_eq!(answer["status"], 200, "{number}: {answer}");
                    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
                    assert_eq!(body["connection_id"], id);
                }
            });
        }
    });
}

#[test]
fn a_bridge_finds_its_control_plane_again() {
    let (api, gateway) = (Api::start(), shared());
    let paired = Paired::start(&api, OWNER);
    let running = bridge(&gateway.setup, &api, &paired);
    for round in 1..=2 {
        api.kill();
        wait_until("the bridge notices", LIMIT, || running.said().matches("websocket closed (1006)").count() == round);
        api.go();
        wait_until("the bridge is back", LIMIT, || paired.is_connected(&api));
        assert_eq!(relayed(&api, &paired, "GET", "/health", None).0, 200);
    }
    assert_eq!(running.said().matches("success: pairing bridge ready").count(), 1);
}

#[test]
fn a_bridge_outlives_its_gateway() {
    let (api, gateway) = (Api::start(), Gateway::start());
    let paired = Paired::start(&api, OWNER);
    let _running = bridge(&gateway.setup, &api, &paired);
    gateway.running().signal(Signal::TERM);
    gateway.running().wait(LIMIT);
    let answer = ask(&api, &paired, "GET", "/api/admin/connections", None).json();
    assert_eq!(answer["status"], 502, "{answer}");
    assert!(answer["error"].as_str().unwrap().starts_with("the gateway cannot be reached"), "{answer}");
    // The dashboard says it once, in words of its own, and not that all is well.
    let token = api.token(OWNER);
    let target = format!("/gateway?session={}", paired.id);
    let page = api.ask(&token, "GET", &target, None).text();
    assert_eq!(page.matches("the gateway behind it does not answer").count(), 1, "{page}");
    assert!(page.contains("class=\"state warn\"") && !page.contains("class=\"state good\""), "{page}");
    assert!(!page.contains("cannot be reached") && page.contains("sigilum gateway start"), "{page}");
    let one = api.ask(&token, "GET", &format!("/gateway/connections/any?session={}", paired.id), None);
    assert_eq!(one.status, 502);
    assert!(one.text().contains("GATEWAY_NOT_RUNNING"), "{}", one.text());
    gateway.restart();
    assert_eq!(relayed(&api, &paired, "GET", "/api/admin/connections", None).0, 200);
    let page = api.ask(&token, "GET", &target, None).text();
    assert!(page.contains("class=\"state good\"") && !page.contains("does not answer"), "{page}");
}

#[test]
fn another_admin_token_counts_at_once() {
    let (api, gateway) = (Api::start(), Gateway::start());
    let paired = Paired::start(&api, OWNER);
    let _running = bridge(&gateway.setup, &api, &paired);
    assert_eq!(relayed(&api, &paired, "GET", "/api/admin/connections", None).0, 200);
    let rotated = gateway.setup.command(&["gateway", "auth-token", "--rotate"]).output().unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    assert_eq!(relayed(&api, &paired, "GET", "/api/admin/connections", None).0, 200);
}

#[test]
fn wrong_codes_foreign_and_unknown_sessions_end_a_bridge() {
    let (api, gateway) = (Api::start(), shared());
    let mine = Paired::start(&api, OWNER);
    let foreign = Paired::start(&api, "stranger");
    let wrong = Paired { code: "AAAAAAAA".to_owned(), ..mine.clone() };
    let unknown = Paired { id: "00000000-0000-4000-8000-000000000000".to_owned(), ..mine };
    for (paired, text) in
        [(wrong, "Invalid pair code"), (foreign, "Namespace mismatch"), (unknown, "Pair session not found")]
    {
        let mut running = Running::spawn(pair(&gateway.setup, &api, &paired));
        assert_eq!(running.wait(LIMIT).code(), Some(42), "{}", running.said());
        let marker = format!("[sigilum] PAIR_SESSION_TERMINAL: {text} ");
        assert!(running.said().contains(&marker), "{marker} in {}", running.said());
    }
}

#[test]
fn a_session_that_its_owner_ends_ends_its_bridge() {
    let (api, gateway) = (Api::start(), shared());
    let paired = Paired::start(&api, OWNER);
    let mut running = bridge(&gateway.setup, &api, &paired);
    api.owner(OWNER, "POST", "/v1/gateway/pairing/end", Some(&json!({"session_id": paired.id})));
    assert_eq!(running.wait(LIMIT).code(), Some(42), "{}", running.said());
}

#[test]
fn of_two_bridges_the_second_waits_until_the_first_is_gone() {
    let (api, gateway) = (Api::start(), shared());
    let paired = Paired::start(&api, OWNER);
    let mut first = bridge(&gateway.setup, &api, &paired);
    // On another machine: here the lock of the session would refuse it at once.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = pair(&gateway.setup, &api, &paired);
    command.env("SIGILUM_CONFIG_HOME", elsewhere.path());
    let second = Running::spawn(command);
    wait_until("the second says why it waits", LIMIT, || {
        second.said().contains("another bridge of this session is connected already")
    });
    assert_eq!(relayed(&api, &paired, "GET", "/health", None).0, 200);
    assert!(!first.said().contains("websocket closed"), "{}", first.said());
    first.signal(Signal::TERM);
    assert_eq!(first.wait(LIMIT).code(), Some(0));
    wait_until("the second takes over", LIMIT, || second.said().contains("success: pairing bridge ready"));
    assert_eq!(relayed(&api, &paired, "GET", "/health", None).0, 200);
}

#[test]
fn one_command_starts_a_gateway_and_pairs_it() {
    let api = Api::start();
    let paired = Paired::start(&api, OWNER);
    let setup = Setup::new();
    setup.begin_journal();
    setup.write_yaml();
    let connect = || {
        let arguments = ["gateway", "connect", "--session-id", &paired.id, "--gateway-start-timeout-seconds", "120"];
        let mut command = setup.command(&arguments);
        command.args(["--api-url", &api.url(), "--lifecycle-mode", "compat"]).env("SIGILUM_PAIR_CODE", &paired.code);
        command.output().unwrap()
    };
    let _end = Ended(&setup);
    let output = connect();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&format!("Gateway is healthy at http://{}\n", setup.admin)), "{said}");
    assert!(said.contains("Connect complete.\n"), "{said}");
    assert_eq!(relayed(&api, &paired, "GET", "/api/admin/connections", None).0, 200);
    let health = client::send(setup.admin, &Request::new("GET", &setup.admin.to_string(), "/health"));
    assert_eq!(health.status, 200);
    // A hash of the data folder, which is not the default one, stands in the names.
    let pid = |name: &str| {
        let files = fs::read_dir(setup.root.path().join(".sigilum/run")).unwrap().map(|entry| entry.unwrap().path());
        let named = |file: &std::path::PathBuf| {
            let file = file.file_name().unwrap().to_string_lossy();
            file.starts_with(&format!("{name}-")) && file.ends_with(".pid")
        };
        fs::read_to_string(files.into_iter().find(named).unwrap())
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .parse::<i32>()
            .unwrap()
    };
    let (gateway, bridge) = (pid("gateway-start"), pid("gateway-pair-bridge"));
    // Once more: the gateway stays, the bridge is another.
    assert_eq!(connect().status.code(), Some(0));
    assert_eq!(pid("gateway-start"), gateway);
    assert_ne!(pid("gateway-pair-bridge"), bridge);
    assert!(process::alive(gateway) && !process::alive(bridge));
}

/// Ends what a `connect` left in the background.
struct Ended<'a>(&'a Setup);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        for arguments in [&["gateway", "pair", "--stop"][..], &["down"]] {
            let _ = self.0.command(arguments).output();
        }
    }
}
