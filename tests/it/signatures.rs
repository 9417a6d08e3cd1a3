//! The rows of the table of failures that take a running gateway: one thing is broken, its words are said in one line, what
//! ends does so with the code of the row, and the first command of the row leads to the cause.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;
use sigilum::domain::symptom;
use sigilum::domain::symptom::Symptom;

use crate::reload::declared;
use crate::reload::put;
use crate::support::agent::Agent;
use crate::support::api::Api;
use crate::support::fake_api::FakeApi;
use crate::support::fake_api::elsewhere;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::gateway::refused;
use crate::support::gateway::shared;
use crate::support::pair_bridge::Paired;
use crate::support::parts;
use crate::support::process::freeze;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Twelve ends in a row, with up to ten seconds between them.
const GIVES_UP: Duration = Duration::from_secs(180);

fn row(token: &str) -> &'static Symptom {
    symptom::ALL.iter().find(|symptom| symptom.token == token).unwrap_or_else(|| panic!("{token} is not listed"))
}

/// How many lines hold these words.
fn lines(text: &str, token: &str) -> usize {
    text.lines().filter(|line| line.contains(token)).count()
}

/// Whether what ended did so as the row says, and said so in one line.
fn judge(row: &Symptom, code: Option<i32>, said: &str) {
    assert_eq!((code, lines(said, row.token)), (row.exit.map(i32::from), 1), "{said}");
}

/// Everything the admin process has logged.
fn log(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.setup.data().join("logs/admin.jsonl")).unwrap_or_default()
}

/// Waits until the log has the words, which stay the only ones of their kind.
fn logged(gateway: &Gateway, row: &Symptom) {
    wait_until(row.token, LIMIT, || log(gateway).contains(row.token));
    assert_eq!((lines(&log(gateway), row.token), row.exit), (1, None), "{}", log(gateway));
}

/// What the row says is to be typed first.
fn first(setup: &Setup, row: &Symptom) -> Command {
    let words: Vec<_> = row.first.split_whitespace().skip(1).collect();
    setup.command(&words)
}

/// What comes of it: exit code, and everything it says.
fn typed(setup: &Setup, row: &Symptom) -> (Option<i32>, String) {
    let output = first(setup, row).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), text.concat())
}

#[test]
fn an_envoy_that_ends_again_and_again() {
    let setup = Setup::new();
    let (script, broken) = (setup.root.path().join("envoy"), setup.root.path().join("broken"));
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *--version*|*validate*) exec {envoy} \"$@\";; esac\n\
         [ -e {broken} ] && {{ echo 'a part of it is gone' >&2; exit 7; }}\nexec {envoy} \"$@\"\n",
        envoy = parts::envoy_binary().display(),
        broken = broken.display(),
    );
    put(&script, &text, 0o755);
    let gateway = setup.env("ENVOY_BIN", script.to_str().unwrap()).start();
    fs::write(&broken, "").unwrap();
    signal(gateway.role("envoy"), Signal::KILL);
    let code = gateway.running().wait(GIVES_UP).code();
    let row = row("crash loop");
    judge(row, code, &gateway.said());
    let (code, said) = typed(&gateway.setup, row);
    assert!(code == Some(0) && said.contains("a part of it is gone"), "{said}");
}

#[test]
fn an_envoy_that_ends_once() {
    let (gateway, row) = (Gateway::start(), row("envoy exited"));
    signal(gateway.role("envoy"), Signal::KILL);
    wait_until(row.token, LIMIT, || gateway.said().contains(row.token));
    assert_eq!((lines(&gateway.said(), row.token), row.exit), (1, None), "{}", gateway.said());
}

#[test]
fn claims_that_nobody_confirms() {
    // Every request but those for its health is answered with 500.
    let api = FakeApi::start(|_| elsewhere());
    let (setup, upstream) = (Setup::new().env("SIGILUM_API_URL", &api.url()), Upstream::start());
    let setup = setup.env("SIGILUM_SERVICE_API_KEY", "sk_live_of_a_test");
    let (gateway, row) = (setup.start(), row("claims stale"));
    gateway.connect(&upstream, json!({}));
    logged(&gateway, row);
}

#[test]
fn a_changed_file_that_cannot_be_used() {
    let (gateway, row) = (Gateway::start(), row("config reload skipped"));
    put(&gateway.setup.home().join("gateway.yaml"), "bogus: 1\n", 0o600);
    logged(&gateway, row);
    let (code, said) = typed(&gateway.setup, row);
    assert!(code == Some(78) && said.contains("bogus"), "{code:?} {said}");
}

#[test]
fn a_secret_that_cannot_be_read_any_more() {
    let (setup, upstream) = (Setup::new(), Upstream::start());
    let key = setup.root.path().join("key");
    put(&key, "old", 0o600);
    let yaml = format!("connections:\n{}", declared(0, &upstream, &format!("{{file: {}}}", key.display())));
    let (gateway, words) = (setup.yaml(&yaml).start(), row("secrets snapshot degraded"));
    let row = row("SECRETS_RELOADER_DEGRADED");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    logged(&gateway, row);
    logged(&gateway, words);
    let (code, said) = typed(&gateway.setup, row);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("connections[0].secrets.api_key"), "{said}");
    // Asked for once more, it is still the one line.
    logged(&gateway, row);
}

#[test]
fn a_change_of_listeners_that_is_refused() {
    let (gateway, row) = (Gateway::start(), row("xds rejected"));
    let tls = "gateway:\n  tls:\n    cert_file: /nowhere.crt\n    key_file: /nowhere.key\n";
    put(&gateway.setup.home().join("gateway.yaml"), &gateway.setup.yaml_of(tls), 0o600);
    logged(&gateway, row);
    let (code, said) = typed(&gateway.setup, row);
    assert!(code == Some(0) && said.contains("/nowhere.crt"), "{code:?} {said}");
}

#[test]
fn an_envoy_that_does_not_answer() {
    let (gateway, row) = (Gateway::start(), row("envoy not live"));
    let envoy = gateway.role("envoy");
    freeze(envoy);
    logged(&gateway, row);
    let (code, said) = typed(&gateway.setup, row);
    assert!(code == Some(0) && lines(&said, row.token) == 1, "{code:?} {said}");
    signal(envoy, Signal::CONT);
}

#[test]
fn an_authz_that_does_not_answer() {
    let (gateway, row) = (Gateway::start(), row("authz unreachable (failing closed)"));
    let words = self::row("authz failing closed");
    let authz = gateway.role("authz");
    freeze(authz);
    logged(&gateway, row);
    logged(&gateway, words);
    let answer = gateway.get("/proxy/conn-000/v1");
    assert_eq!((answer.status, answer.code().as_str()), (503, "AUTHZ_UNAVAILABLE"));
    let (code, said) = typed(&gateway.setup, row);
    assert!(code == Some(1) && lines(&said, row.token) == 1, "{code:?} {said}");
    signal(authz, Signal::CONT);
}

#[test]
fn a_clock_that_is_off() {
    let api = FakeApi::start(|_| elsewhere());
    let (gateway, row) = (Setup::new().env("SIGILUM_API_URL", &api.url()).start(), row("clock skew"));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0\r\nconnection: close\r\n";
    api.set_health(&format!("{head}date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"));
    // The API is asked every now and then; whoever wants to know it now asks so.
    assert!(!gateway.admin_ready());
    logged(&gateway, row);
    let (code, said) = typed(&gateway.setup, row);
    assert!(code == Some(1) && lines(&said, row.token) == 1, "{code:?} {said}");
}

#[test]
fn an_agent_that_is_not_approved() {
    let (gateway, upstream, row) = (shared(), Upstream::start(), row("AUTH_CLAIM_REQUIRED"));
    let connection = gateway.connect(&upstream, json!({}));
    let answer = gateway.send(&Agent::new("mallory").get(&gateway.authority(), &connection.at("/v1")));
    assert_eq!((answer.status, answer.code().as_str(), row.exit), (403, row.token, None));
    let output = first(&gateway.setup, row).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = told["connections"].as_array().unwrap().iter().find(|one| one["id"] == connection.id.as_str());
    assert_eq!(found.unwrap()["approvedAgents"], 1, "only the gateway's own agent: {told}");
}

#[test]
fn a_pairing_that_is_over() {
    let (api, gateway, row) = (Api::start(), shared(), row("PAIR_SESSION_TERMINAL"));
    let paired = Paired::start(&api, "operator");
    api.owner("operator", "POST", "/v1/gateway/pairing/end", Some(&json!({"session_id": paired.id})));
    let mut command = gateway.setup.command(&["gateway", "pair", "--session-id", &paired.id, "--reconnect-ms", "100"]);
    command.env("SIGILUM_API_URL", api.url()).env("SIGILUM_PAIR_CODE", &paired.code);
    let ended = refused(command);
    judge(row, ended.code, &ended.said);
}

#[test]
fn a_restart_that_is_not_waited_for() {
    let (gateway, row) = (Gateway::start(), row("still-starting"));
    let ended = refused(gateway.setup.command(&["gateway", "restart", "--force", "--start-timeout", "0"]));
    judge(row, ended.code, &ended.said);
    let (code, said) = typed(&gateway.setup, row);
    assert!(code == Some(0) && said.contains(&format!("pid {}", gateway.pid())), "{code:?} {said}");
    gateway.wait_ready(LIMIT);
}

#[test]
fn a_restart_that_does_not_come_back() {
    let (gateway, row) = (Gateway::start(), row("restart-health-failed"));
    let store = rusqlite::Connection::open(gateway.setup.data().join("gateway.db")).unwrap();
    store.pragma_update(None, "user_version", 9999).unwrap();
    store.close().unwrap();
    let ended = refused(gateway.setup.command(&["gateway", "restart", "--force"]));
    judge(row, ended.code, &ended.said);
    gateway.running().wait(LIMIT);
    let (code, said) = typed(&gateway.setup, row);
    assert!(code == Some(0) && said.contains("9999"), "{code:?} {said}");
}
