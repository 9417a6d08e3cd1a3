//! `gateway status`, `gateway probe`, `health` and `connection status` as people and scripts use them: on a gateway that is well,
//! on one that is not, and on none.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use std::time::Instant;

use boon::Compiler;
use boon::Schemas;
use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::support::fake_api::FakeApi;
use crate::support::fake_api::elsewhere;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process::freeze;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Ten times what is promised of each on a machine at rest.
const STATUS_LIMIT: Duration = Duration::from_secs(3);
const PROBE_LIMIT: Duration = Duration::from_secs(10);

fn run(setup: &Setup, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = setup.command(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// What the report says to people, with everything masked that is another the next time: folders, numbers.
fn masked(setup: &Setup) -> Vec<String> {
    let (code, out, err) = run(setup, &["gateway", "status"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.lines().count() <= 24, "one screen: {out}");
    let out = out.replace(setup.root.path().to_str().unwrap(), "ROOT");
    out.lines().map(mask).collect()
}

/// Numbers as `N`, and a duration's unit with them.
fn mask(line: &str) -> String {
    let mut out = String::new();
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        if !letter.is_ascii_digit() {
            out.push(letter);
            continue;
        }
        while letters.next_if(|next| next.is_ascii_digit() || *next == '.').is_some() {}
        out.push('N');
    }
    out.replace("for Nm", "for N").replace("for Ns", "for N").replace("Ns old", "N old")
}

fn report(setup: &Setup, more: &[&str]) -> Value {
    let (code, out, err) = run(setup, &[&["gateway", "status", "--json"], more].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let report = serde_json::from_str(&out).unwrap();
    judge(&report);
    report
}

/// Whether a report is as its schema says.
fn judge(report: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../golden/status.schema.json")).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("status.json", schema).unwrap();
    let index = compiler.compile("status.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(report, index) {
        panic!("{error:#}\n{report:#}");
    }
}

const WELL: [&str; 10] = [
    "Runtime:             running (pid N, for N)",
    "Envoy:               live (N, pid N)",
    "Authz:               ok",
    "Connectivity probe:  ok (http://N:N and N:N, N ms)",
    "Capability:          admin_capable",
    "Secrets:             ok gen N (references: N)",
    "Claims:              off (approved in the file: N)",
    "Connections:         N active",
    "Config:              ROOT/home/gateway.yaml (valid)",
    "Log file:            ROOT/data/logs/admin.jsonl",
];

/// The lines of a well gateway with some of them replaced, and what follows.
fn like_well(changes: &[(usize, &str)], rest: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = WELL.iter().map(|line| (*line).to_owned()).collect();
    for (at, line) in changes {
        lines[*at] = (*line).to_owned();
    }
    lines.extend(rest.iter().map(|line| (*line).to_owned()));
    lines
}

fn declared_only() -> Setup {
    Setup::new().yaml("claims: {source: 'off'}\n")
}

#[test]
fn a_well_gateway_is_told_on_one_screen_and_as_the_schema_says() {
    let (gateway, upstream) = (declared_only().start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    assert_eq!(masked(&gateway.setup), WELL);
    let told = report(&gateway.setup, &[]);
    assert_eq!(
        (&told["ok"], &told["rpc"]["ok"], &told["readiness"]["ready"]),
        (&json!(true), &json!(true), &json!(true))
    );
    assert_eq!((&told["envoy"]["state"], &told["connections"]["active"]), (&json!("LIVE"), &json!(1)));
    assert_eq!(told["service"]["runtime"]["pid"], gateway.pid());
    assert_eq!(told["gateway"]["control"]["port"], gateway.setup.admin.port());
    assert!(!told.to_string().contains(&connection.secret) && !told.to_string().contains(&gateway.token()));
    for more in [&["--require-rpc"][..], &["--require-ready"], &["--require-rpc", "--require-ready"]] {
        assert_eq!(run(&gateway.setup, &[&["gateway", "status"], more].concat()).0, Some(0), "{more:?}");
    }
    let unasked = report(&gateway.setup, &["--no-probe"]);
    assert_eq!((&unasked["rpc"]["ok"], &unasked["service"]["runtime"]["status"]), (&Value::Null, &json!("running")));
    assert_eq!(run(&gateway.setup, &["gateway", "status", "--no-probe", "--require-rpc"]).0, Some(64));
}

#[test]
fn what_stands_in_the_report_was_looked_at() {
    let (gateway, upstream) = (declared_only().start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    let told = || report(&gateway.setup, &[]);
    wait_until("decisions are timed", LIMIT, || told()["authz"]["p99Ms"].as_f64() > Some(0.0));
    let first = told();
    assert!(first["authz"]["p50Ms"].as_f64() <= first["authz"]["p99Ms"].as_f64(), "{}", first["authz"]);
    assert_eq!((&first["authz"]["failClosed"], &first["gateway"]["startupPhase"]), (&json!(true), &Value::Null));
    let file = gateway.setup.home().join("gateway.yaml");
    let served = &first["config"]["service"];
    assert_eq!((&served["path"], &served["valid"]), (&json!(file.to_str().unwrap()), &json!(true)));
    assert_eq!((&first["config"]["mismatch"], &first["service"]["runtime"]["restarts"]), (&json!(false), &json!(0)));
    assert_eq!(first["service"]["manager"], "none");

    let authz = gateway.role("authz");
    signal(authz, Signal::KILL);
    gateway.wait_replaced("authz", authz);
    gateway.wait_ready(LIMIT);
    assert_eq!(told()["service"]["runtime"]["restarts"], 1);

    // Who counts Envoy's restarts is its supervisor, whatever becomes of admin.
    for role in ["envoy", "admin"] {
        let process = gateway.role(role);
        signal(process, Signal::KILL);
        gateway.wait_replaced(role, process);
        gateway.wait_ready(LIMIT);
        assert_eq!(told()["envoy"]["restarts"], 1, "{role}");
    }
    assert_eq!(told()["gateway"]["control"]["portSource"], "environment");

    let other = gateway.setup.root.path().join("other.yaml");
    fs::copy(&file, &other).unwrap();
    let elsewhere = report(&gateway.setup, &["--config", other.to_str().unwrap()]);
    assert_eq!(elsewhere["config"]["mismatch"], true, "another file with the same text is another file");

    let mut command = gateway.setup.command(&["gateway", "status", "--json"]);
    let output = command.env("SIGILUM_SUPERVISOR_MODE", "external").output().unwrap();
    let external: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(external["service"]["manager"], "external");

    // A supervisor that does not answer says nothing of restarts.
    freeze(gateway.pid());
    assert_eq!(told()["service"]["runtime"]["restarts"], 0);
    signal(gateway.pid(), Signal::CONT);
}

#[test]
fn without_envoy_the_report_says_so_and_what_to_type() {
    let gateway = declared_only().start();
    freeze(gateway.pid());
    signal(gateway.role("envoy"), Signal::KILL);
    wait_until("not ready", LIMIT, || !gateway.admin_found_ready());
    let expected = like_well(
        &[
            (1, "Envoy:               down"),
            (3, "Connectivity probe:  failed (http://N:N cannot be reached: Connection refused (os error N))"),
            (7, "Connections:         N active"),
        ],
        &[
            "",
            "- EnvoyLive: envoy not live: its admin interface cannot be reached: Connection refused (os error N); see the log of envoy",
            "",
            "next: sigilum health --verbose",
        ],
    );
    assert_eq!(masked(&gateway.setup), expected);
    assert_eq!(run(&gateway.setup, &["gateway", "status", "--require-ready"]).0, Some(1));
    assert_eq!(run(&gateway.setup, &["gateway", "status", "--require-rpc"]).0, Some(0));
    assert_eq!(run(&gateway.setup, &["health"]).0, Some(1));
    signal(gateway.pid(), Signal::CONT);
}

#[test]
fn without_authz_the_report_says_that_it_fails_closed() {
    let gateway = declared_only().start();
    let authz = gateway.role("authz");
    freeze(authz);
    wait_until("not ready", LIMIT, || !gateway.admin_found_ready());
    let told = masked(&gateway.setup);
    assert_eq!(told[1], WELL[1]);
    assert_eq!(told[2], "Authz:               unreachable (failing closed)");
    assert_eq!(told[3], "Connectivity probe:  failed (http://N:N/health answers N)");
    assert_eq!(told.last().unwrap(), "next: sigilum health --verbose");
    signal(authz, Signal::CONT);
}

#[test]
fn without_the_api_the_gateway_is_ready_and_the_report_says_what_is_stale() {
    let api = FakeApi::start(|_| elsewhere());
    api.set_health("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let gateway = Setup::new().env("SIGILUM_API_URL", &api.url()).start();
    let told = || report(&gateway.setup, &[]);
    wait_until("the API is told of", LIMIT, || told()["readiness"]["advisories"] == json!(["ApiReachable"]));
    assert_eq!((&told()["ok"], &told()["readiness"]["ready"]), (&json!(true), &json!(true)));
    assert!(masked(&gateway.setup).iter().any(|line| line.contains("ApiReachable: what answers is no Sigilum API")));
    assert_eq!(run(&gateway.setup, &["health"]).0, Some(0));
}

#[test]
fn where_nothing_runs_the_report_says_so_and_makes_nothing() {
    let setup = declared_only();
    setup.write_yaml();
    let before = listing(setup.root.path());
    let expected = like_well(
        &[
            (0, "Runtime:             stopped"),
            (1, "Envoy:               down"),
            (2, "Authz:               not known"),
            (4, "Capability:          unknown (the first start makes the admin token)"),
            (5, "Secrets:             not known"),
            (6, "Claims:              not known"),
            (7, "Connections:         not known"),
        ],
        &["", "next: sigilum gateway start"],
    );
    let told = masked(&setup);
    assert!(told[3].starts_with("Connectivity probe:  failed (http://N:N does not answer"), "{}", told[3]);
    let but_the_probe = |lines: &[String]| [&lines[..3], &lines[4..]].concat();
    assert_eq!(but_the_probe(&told), but_the_probe(&expected));
    let json = report(&setup, &["--deep"]);
    assert_eq!((&json["ok"], &json["service"]["runtime"]["status"]), (&json!(false), &json!("stopped")));
    for (arguments, code) in [
        (&["gateway", "status", "--require-rpc"][..], 5),
        (&["gateway", "status", "--require-ready"], 3),
        (&["health"], 5),
        (&["gateway", "probe"], 1),
    ] {
        assert_eq!(run(&setup, arguments).0, Some(code), "{arguments:?}");
    }
    assert_eq!(listing(setup.root.path()), before, "a look changes nothing");
}

/// Every file below a folder, with its length.
fn listing(folder: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            found.push((entry.path().display().to_string(), entry.metadata().unwrap().len()));
            if entry.metadata().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_broken_file_is_told_and_the_rest_of_the_report_with_it() {
    let gateway = declared_only().start();
    fs::write(gateway.setup.home().join("gateway.yaml"), "log: {level: loud}\nnonsense: 1\n").unwrap();
    let told = masked(&gateway.setup);
    assert_eq!(told[..8], WELL[..8]);
    assert_eq!(told[8], "Config:              ROOT/home/gateway.yaml (mistakes: N)");
    assert!(told.iter().any(|line| line.starts_with("- ROOT/home/gateway.yaml:N:N: ")), "{told:?}");
    assert!(told.contains(&"next: sigilum gateway config check ROOT/home/gateway.yaml".to_owned()), "{told:?}");
    let json = report(&gateway.setup, &[]);
    assert_eq!(
        (&json["config"]["cli"]["valid"], &json["ok"], &json["rpc"]["ok"]),
        (&json!(false), &json!(false), &json!(true))
    );
    assert_eq!(json["config"]["cli"]["issues"].as_array().unwrap().len(), 2);
}

#[test]
fn who_has_no_token_is_told_apart_from_who_finds_nobody() {
    let gateway = declared_only().start();
    let token = gateway.setup.data().join("admin-token");
    fs::rename(&token, gateway.setup.root.path().join("kept")).unwrap();
    for arguments in [&["gateway", "status", "--require-rpc"][..], &["health"]] {
        assert_eq!(run(&gateway.setup, arguments).0, Some(4), "{arguments:?}");
    }
    let told = report(&gateway.setup, &[]);
    assert_eq!(told["rpc"]["capability"], "connected_no_operator_scope");
    assert_eq!(told["readiness"]["ready"], true, "everybody is told that");
    let (code, out, _) = run(&gateway.setup, &["gateway", "probe", "--json"]);
    let probed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &probed["capability"]), (Some(0), &json!("connected_no_operator_scope")), "{out}");
    // A named address is told no token but one that is named with it.
    fs::rename(gateway.setup.root.path().join("kept"), &token).unwrap();
    let url = format!("http://{}", gateway.setup.admin);
    assert_eq!(run(&gateway.setup, &["gateway", "status", "--url", &url, "--require-rpc"]).0, Some(4));
    let with = ["gateway", "status", "--url", &url, "--token-file", token.to_str().unwrap(), "--require-rpc"];
    assert_eq!(run(&gateway.setup, &with).0, Some(0));
}

#[test]
fn a_probe_finds_one_gateway_closed_to_strangers() {
    let gateway = declared_only().start();
    let url = format!("http://localhost:{}", gateway.setup.admin.port());
    let token = gateway.setup.data().join("admin-token");
    let arguments = ["gateway", "probe", "--json", "--url", &url, "--token-file", token.to_str().unwrap()];
    let (code, out, err) = run(&gateway.setup, &arguments);
    let probed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &probed["ok"], &probed["degraded"]), (Some(0), &json!(true), &json!(false)), "{out}{err}");
    let kinds: Vec<_> = probed["targets"].as_array().unwrap().iter().map(|one| one["kind"].clone()).collect();
    assert_eq!(kinds, ["explicit", "loopback", "runtime"]);
    assert!(probed["targets"].as_array().unwrap().iter().all(|one| one["connect"]["ok"] == true), "{out}");
    let codes: Vec<_> = probed["warnings"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert!(!codes.contains(&json!("multiple_gateways")), "one gateway under two addresses: {out}");
}

#[test]
fn an_open_port_of_agents_is_found() {
    // Somebody answers there who asks for no signature.
    let open = FakeApi::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}".to_vec());
    let setup = Setup::new().env("GATEWAY_INGRESS_ADDR", &open.address.to_string());
    let (code, out, _) = run(&setup, &["gateway", "probe", "--json"]);
    let probed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &probed["ok"], &probed["warnings"][0]["code"]),
        (Some(1), &json!(false), &json!("runtime_open")),
        "{out}"
    );
}

#[test]
fn each_connection_is_told_and_tried() {
    let (gateway, upstream) = (declared_only().start(), Upstream::start());
    let well = gateway.connect(&upstream, json!({}));
    // Nobody listens on the discard port of this machine.
    let nowhere = gateway.next_id();
    assert_eq!(gateway.create(&nowhere, "http://127.0.0.1:9", "canary", json!({})).status, 201);
    let told = |arguments: &[&str]| {
        let (code, out, err) = run(&gateway.setup, arguments);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        assert_eq!(report["source"], "gateway");
        (code, report["connections"].clone())
    };
    let (code, untried) = told(&["connection", "status", "--json"]);
    assert_eq!((code, &untried[0]["lastProbe"]), (Some(0), &Value::Null));
    let (code, tried) = told(&["connections", "status", "--probe", "--json"]);
    let of = |id: &str| tried.as_array().unwrap().iter().find(|one| one["id"] == id).unwrap().clone();
    assert_eq!(
        (code, &of(&well.id)["lastProbe"]["ok"], &of(&nowhere)["lastProbe"]["ok"]),
        (Some(1), &json!(true), &json!(false))
    );
    assert_eq!((&of(&well.id)["secret"], &of(&well.id)["approvedAgents"]), (&json!("resolved"), &json!(1)));
    assert!(!tried.to_string().contains(&well.secret));
    let (code, out, _) = run(&gateway.setup, &["connection", "list", "--probe"]);
    assert!(code == Some(1) && out.contains("ok 200"), "{out}");
}

#[test]
fn without_a_gateway_connections_are_those_of_the_file_and_none_is_called_well() {
    let setup = Setup::new().yaml(
        "connections:\n  - id: conn-000\n    base_url: https://api.example.com\n    auth_secret_key: api_key\n    secrets: {api_key: {source: env, id: SOME_KEY}}\n",
    );
    setup.write_yaml();
    let (code, out, err) = run(&setup, &["connection", "status", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((code, &told["source"]), (Some(5), &json!("config")));
    assert_eq!(
        told["connections"],
        json!([{
            "id": "conn-000", "protocol": "http", "status": "active", "secret": null,
            "lastProbe": null, "approvedAgents": null,
        }])
    );
}

#[test]
fn a_look_at_a_well_gateway_takes_no_time() {
    let gateway = declared_only().start();
    for (arguments, limit) in
        [(&["gateway", "status"][..], STATUS_LIMIT), (&["gateway", "probe"], PROBE_LIMIT), (&["health"], STATUS_LIMIT)]
    {
        let began = Instant::now();
        let (code, out, err) = run(&gateway.setup, arguments);
        let took = began.elapsed();
        println!("{arguments:?}: {took:?}");
        assert!(code == Some(0) && took < limit, "{arguments:?} took {took:?}: {out}{err}");
    }
}

#[test]
fn units_of_others_are_named_and_change_nothing() {
    let gateway = declared_only().start();
    let units = gateway.setup.root.path().join(".config/systemd/user");
    fs::create_dir_all(&units).unwrap();
    fs::write(units.join("sigilum-other.service"), "[Service]\nExecStart=/opt/sigilum gateway start\n").unwrap();
    fs::write(units.join("sigilum-go.service"), "[Service]\nExecStart=/opt/sigilum-gateway\nKillMode=process\n")
        .unwrap();
    let told = report(&gateway.setup, &["--deep"]);
    let labels = |member: &str| {
        let all = told[member].as_array().unwrap().iter();
        all.map(|one| one["label"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(labels("extraServices").contains(&"sigilum-other.service".to_owned()), "{told:#}");
    assert!(labels("legacyServices").contains(&"sigilum-go.service".to_owned()), "{told:#}");
    assert_eq!(told["ok"], true);
    assert_eq!(report(&gateway.setup, &[])["extraServices"], json!([]));
}
