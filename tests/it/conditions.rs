//! Readiness of the whole gateway: each part broken on its own turns its own condition, and no other.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::reload::declared;
use crate::reload::put;
use crate::support::api::Service;
use crate::support::client;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::fake_api::FakeApi;
use crate::support::fake_api::elsewhere;
use crate::support::fake_api::json as json_answer;
use crate::support::fake_api::page;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::plane;
use crate::support::process::freeze;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// A path of the admin API with the token.
fn ask(gateway: &Gateway, path: &str) -> Response {
    let request = Request::new("GET", &gateway.setup.admin.to_string(), path)
        .header("authorization", &format!("Bearer {}", gateway.token()));
    client::send(gateway.setup.admin, &request)
}

fn ready(gateway: &Gateway) -> Response {
    ask(gateway, "/health/ready")
}

fn failures(gateway: &Gateway) -> Value {
    ready(gateway).json()["failures"].clone()
}

fn reason(gateway: &Gateway, kind: &str) -> String {
    let told = ready(gateway).json();
    let found = told["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == kind)).cloned();
    found.unwrap_or_default()["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_well_gateway_holds_every_condition() {
    let gateway = Gateway::start();
    let told = ready(&gateway).json();
    let mut stated: Vec<(String, String)> = Vec::new();
    for condition in told["conditions"].as_array().unwrap() {
        let text = |member: &str| condition[member].as_str().unwrap().to_owned();
        stated.push((text("type"), text("status")));
    }
    for kind in
        ["StateLock", "Store", "MasterKey", "EnvoyLive", "XdsInSync", "AuthzReachable", "NonceStore", "DiskSpace"]
    {
        assert!(stated.contains(&(kind.to_owned(), "True".to_owned())), "{kind}: {told}");
    }
    assert_eq!((&told["failures"], &told["ready"]), (&json!([]), &json!(true)), "{told}");
}

#[test]
fn without_envoy_the_gateway_is_alive_and_not_ready_within_two_seconds() {
    let gateway = Gateway::start();
    let envoy = gateway.role("envoy");
    // Old enough for the next one to be told from it by its age, which Envoy gives in whole seconds.
    wait_until("Envoy has run for some seconds", LIMIT, || {
        let info =
            client::send(gateway.setup.face, &Request::new("GET", &gateway.setup.face.to_string(), "/server_info"))
                .json();
        let uptime = info["uptime_current_epoch"].as_str().and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
        uptime.is_some_and(|seconds| seconds > 2)
    });
    // Its supervisor sleeps, so that it is not started again before anybody has looked.
    freeze(gateway.pid());
    let killed = Instant::now();
    signal(envoy, Signal::KILL);
    wait_until("not ready", LIMIT, || !gateway.admin_found_ready());
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    let alive = client::send(gateway.setup.admin, &Request::new("GET", &gateway.setup.admin.to_string(), "/healthz"));
    assert_eq!(alive.status, 200);
    assert_eq!(failures(&gateway), json!(["EnvoyLive"]));
    assert_eq!(reason(&gateway, "EnvoyLive"), "Crashed");
    signal(gateway.pid(), Signal::CONT);
    gateway.wait_replaced("envoy", envoy);
    gateway.wait_ready(LIMIT);
    assert_eq!(ask(&gateway, "/api/v1/status").json()["envoy"]["restarts"], 1);
}

#[test]
fn an_envoy_that_hangs_turns_its_own_condition() {
    let gateway = Gateway::start();
    let envoy = gateway.role("envoy");
    freeze(envoy);
    wait_until("EnvoyLive fails", LIMIT, || failures(&gateway) == json!(["EnvoyLive"]));
    assert_eq!(reason(&gateway, "EnvoyLive"), "Crashed");
    assert_eq!(reason(&gateway, "AuthzReachable"), "NoEnvoy");
    signal(envoy, Signal::CONT);
    gateway.wait_ready(LIMIT);
}

#[test]
fn an_authz_that_hangs_fails_closed_and_says_so() {
    let gateway = Gateway::start();
    let authz = gateway.role("authz");
    freeze(authz);
    wait_until("AuthzReachable fails", LIMIT, || failures(&gateway) == json!(["AuthzReachable"]));
    assert_eq!(reason(&gateway, "AuthzReachable"), "Unreachable");
    signal(authz, Signal::CONT);
    gateway.wait_ready(LIMIT);
}

#[test]
fn a_replay_journal_that_cannot_be_written_to_turns_its_own_condition() {
    let gateway = Gateway::start();
    let run = gateway.setup.run_dir();
    let journals = || {
        let names = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let numbers =
            names.filter_map(|name| name.strip_prefix("replay-")?.strip_suffix(".journal")?.parse::<u64>().ok());
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        numbers
    };
    let (all, next) = (journals(), journals().last().unwrap() + 1);
    let blocked = run.join(format!("replay-{next}.journal"));
    fs::create_dir(&blocked).unwrap();
    for number in all {
        fs::remove_file(run.join(format!("replay-{number}.journal"))).unwrap();
    }
    wait_until("NonceStore fails", LIMIT, || failures(&gateway) == json!(["NonceStore"]));
    assert_eq!(reason(&gateway, "NonceStore"), "ReadOnly");
    // It mends itself as soon as it can.
    fs::remove_dir(&blocked).unwrap();
    gateway.wait_ready(LIMIT);
    assert_eq!(journals(), [next]);
}

#[test]
fn a_lock_that_somebody_removed_turns_its_own_condition() {
    let gateway = Gateway::start();
    fs::remove_file(gateway.setup.data().join("gateway.lock")).unwrap();
    wait_until("StateLock fails", LIMIT, || failures(&gateway) == json!(["StateLock"]));
}

#[test]
fn a_key_file_that_is_gone_is_told_and_keeps_nobody_from_anything() {
    let gateway = Gateway::start();
    fs::remove_file(gateway.setup.home().join("gateway-master-key")).unwrap();
    wait_until("MasterKey is told", LIMIT, || {
        ready(&gateway).json()["advisories"].as_array().is_some_and(|all| all.contains(&json!("MasterKey")))
    });
    let told = ready(&gateway);
    assert_eq!((told.status, &told.json()["failures"]), (200, &json!([])));
    assert_eq!(reason(&gateway, "MasterKey"), "KeyMissing");
}

#[test]
fn the_gateways_own_question_counts_as_no_request_of_an_agent() {
    let gateway = Gateway::start();
    // What a stranger sends is counted, which says that the log was read up to there.
    assert_eq!(gateway.send(&Request::new("GET", &gateway.authority(), "/proxy/stranger/x")).status, 403);
    wait_until("the log is read", LIMIT, || gateway.admin("GET", "/refusals", None).json()["total"] == json!(1));
    let log = fs::read_to_string(gateway.setup.run_dir().join("access.log")).unwrap();
    assert_eq!(log.lines().count(), 1, "the question that readiness asked before stands in the log: {log}");
}

#[test]
fn the_ingress_answers_under_the_other_name_too() {
    let gateway = Gateway::start();
    let answer = gateway.send(&Request::new("GET", &gateway.authority(), "/healthz"));
    assert_eq!((answer.status, &answer.json()["check"]), (200, &json!("health")), "{}", answer.text());
    let other = gateway.send(&Request::new("GET", &gateway.authority(), "/healthzz"));
    assert_eq!(other.status, 404);
}

#[test]
fn an_api_that_is_no_api_and_a_clock_that_is_off_are_told() {
    let api = FakeApi::start(|_| elsewhere());
    let answer = |headers: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n{headers}\r\n");
    api.set_health(&answer("content-type: text/html\r\n"));
    let gateway = Setup::new().env("SIGILUM_API_URL", &api.url()).start();
    let fresh = || ask(&gateway, "/health/ready?fresh");
    assert_eq!(fresh().status, 200, "an API that is away keeps nobody from being ready");
    assert_eq!(reason(&gateway, "ApiReachable"), "HtmlInsteadOfApi");
    assert!(ready(&gateway).json()["advisories"].as_array().unwrap().contains(&json!("ApiReachable")));

    api.set_health(&answer("content-type: application/json\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
    let skewed = fresh();
    assert_eq!((skewed.status, &skewed.json()["failures"]), (503, &json!(["ClockSane"])), "{}", skewed.text());
    assert_eq!(reason(&gateway, "ClockSane"), "Skewed");
    assert_eq!(reason(&gateway, "ApiReachable"), "Answers");

    api.set_health(&answer("content-type: application/json\r\n"));
    assert_eq!(fresh().status, 200);
    assert_eq!(reason(&gateway, "ClockSane"), "NotMeasured");
}

#[test]
fn a_bridge_that_is_gone_is_told() {
    let gateway = Setup::new().yaml("claims: {source: 'off'}\n").start();
    let note = gateway.setup.run_dir().join("pair-bridge.json");
    let text =
        |state: &str| json!({"pid": 1, "started": "never", "state": state, "since": crate::support::agent::now()});
    fs::write(&note, text("connected").to_string()).unwrap();
    wait_until("the bridge is told", LIMIT, || ready(&gateway).json()["advisories"] == json!(["PairBridge"]));
    fs::write(&note, text("terminal").to_string()).unwrap();
    wait_until("its session is over", LIMIT, || reason(&gateway, "PairBridge") == "Terminal");
    assert_eq!(ask(&gateway, "/api/v1/status").json()["pairing"]["bridge"], "terminal");
    fs::remove_file(&note).unwrap();
    wait_until("none is in use", LIMIT, || reason(&gateway, "PairBridge") == "Off");
}

#[test]
fn secrets_that_are_too_old_turn_their_own_condition() {
    let (setup, upstream) = (Setup::new(), Upstream::start());
    let key = setup.root.path().join("key");
    put(&key, "old", 0o600);
    let one = declared(0, &upstream, &format!("{{file: {}}}", key.display()));
    let gateway = setup
        .yaml(&format!("claims: {{source: 'off'}}\nsecrets: {{max_stale_seconds: 1}}\nconnections:\n{one}"))
        .start();
    assert_eq!(ready(&gateway).json()["advisories"], json!([]));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    wait_until("they are too old", LIMIT, || reason(&gateway, "SecretsSnapshot") == "TooStale");
    let told = ready(&gateway);
    assert_eq!((told.status, &told.json()["advisories"]), (200, &json!(["SecretsSnapshot"])), "{}", told.text());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    wait_until("they count again", LIMIT, || ready(&gateway).json()["advisories"] == json!([]));
}

#[test]
fn approvals_that_are_not_confirmed_any_more_turn_their_own_condition() {
    let nobody: [String; 0] = [];
    let feed = move |asked: &_| page(asked, &nobody);
    let api = FakeApi::start(feed.clone());
    let service = Service { id: "svc".to_owned(), slug: plane::SERVICE.to_owned(), key: "sk_live_any".to_owned() };
    let (gateway, upstream) = (plane::pace(plane::setup(&api.url(), &service), 1, 4).start(), Upstream::start());
    gateway.connect(&upstream, json!({}));
    plane::until_fresh(&gateway, true);
    assert_eq!(ready(&gateway).json()["advisories"], json!([]));
    // It is there, says that it is well, and hands nothing out.
    api.set(|_| json_answer("500 Internal Server Error", r#"{"error":"no","code":"INTERNAL_ERROR"}"#));
    plane::until_fresh(&gateway, false);
    let told = ready(&gateway);
    assert_eq!((told.status, &told.json()["advisories"]), (200, &json!(["ClaimsFresh"])), "{}", told.text());
    api.set(feed);
    plane::until_fresh(&gateway, true);
}

#[test]
fn settings_that_envoy_cannot_have_turn_their_own_condition() {
    let gateway = Setup::new().yaml("claims: {source: 'off'}\n").start();
    let tls = "claims: {source: 'off'}\ngateway:\n  tls:\n    cert_file: /nowhere.crt\n    key_file: /nowhere.key\n";
    put(&gateway.setup.home().join("gateway.yaml"), &gateway.setup.yaml_of(tls), 0o600);
    wait_until("the refusal is told", LIMIT, || ready(&gateway).json()["advisories"] == json!(["XdsInSync"]));
    assert_eq!(reason_of_false(&gateway), ["XdsInSync: InvalidSettings"]);
    gateway.setup.write_yaml();
    wait_until("it is well again", LIMIT, || ready(&gateway).json()["advisories"] == json!([]));
}

/// All conditions that do not hold, with their reasons.
fn reason_of_false(gateway: &Gateway) -> Vec<String> {
    let told = ready(gateway).json();
    let found = told["conditions"].as_array().into_iter().flatten().filter(|one| one["status"] == "False");
    let text = |one: &Value, member: &str| one[member].as_str().unwrap_or_default().to_owned();
    found.map(|one| format!("{}: {}", text(one, "type"), text(one, "reason"))).collect()
}
