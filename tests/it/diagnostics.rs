//! What `gateway diagnostics export` writes about a running gateway, with a canary in every place a secret can be.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;
use serde_json::json;

use crate::canary::Artefacts;
use crate::canary::search;
use crate::support::agent::random_hex;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// The files of an archive by their names below its folder.
fn unpacked(packed: &[u8]) -> Artefacts {
    let mut archive = tar::Archive::new(GzDecoder::new(packed));
    let mut found = Artefacts::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let (folder, name) = path.split_once('/').unwrap();
        assert!(folder.starts_with("sigilum-diagnostics-"), "{path}");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(found.insert(name.to_owned(), content).is_none(), "{name} twice");
    }
    found
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Appends a line to a log as a part would that forgot to clean it.
fn say(log: &Path, text: &str) {
    let line =
        json!({"timestamp": "2026-01-01T00:00:00Z", "level": "INFO", "message": format!("it is {text}, I heard")});
    let mut file = fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    writeln!(file, "{line}").unwrap();
}

#[test]
fn no_secret_of_any_kind_is_in_an_archive_or_in_what_the_command_says() {
    let canary = |kind: &str| format!("canary-{kind}-{}", random_hex(12));
    let [literal, variable, header, service, other_service, owner, stored_owner, password, plain, unit, argument] = [
        "literal",
        "variable",
        "header",
        "service",
        "other-service",
        "owner",
        "stored-owner",
        "password",
        "plain",
        "unit",
        "argument",
    ]
    .map(canary);
    let code = random_hex(4);
    let settings = format!(
        "claims: {{source: 'off'}}\n\
         secrets: {{allow_literals: true, providers: {{vault: {{source: exec, command: /usr/bin/env, args: ['{argument}']}}}}}}\n\
         variables: {{LITERAL: {literal}}}\n\
         connections:\n  - {{id: conn-150, base_url: 'https://api.example.com', secrets: {{secret: {literal}-2}}, \
         extra_headers: {{x-team: {header}}}}}\n"
    );
    let setup = Setup::new().yaml(&settings);
    // The mode stays when it is written anew.
    write(&setup.home().join("gateway.yaml"), "");
    write(&setup.home().join("service-api-key-conn-001"), &other_service);
    write(&setup.root.path().join(".openclaw/.sigilum/owner-token-operator.jwt"), &stored_owner);
    let text = format!("[Service]\nEnvironment=\"A=b\" \\\n  PLAIN={unit}\nExecStart=/usr/bin/sigilum gateway start\n");
    write(&setup.root.path().join(".config/systemd/user/sigilum-gateway.service"), &text);
    let setup = setup
        .env("SIGILUM_SERVICE_API_KEY_CONN_000", &service)
        .env("SIGILUM_OWNER_TOKEN", &owner)
        .env("ADMIN_PASSWORD", &password)
        .env("SIGILUM_PAIR_CODE", &code)
        .env("SOMETHING_PLAIN", &plain);
    let (gateway, upstream) = (setup.start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let set = gateway.admin("POST", "/credential-variables", Some(&json!({"key": "CANARY", "value": variable})));
    assert!(matches!(set.status, 200 | 201), "{}", set.text());
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    let log = gateway.setup.data().join("logs/admin.jsonl");
    let (master, token) =
        (fs::read_to_string(gateway.setup.home().join("gateway-master-key")).unwrap(), gateway.token());
    for secret in [master.trim(), &token, &literal, &service, &other_service, &owner, &stored_owner, &password, &code] {
        say(&log, secret);
    }

    // The log itself holds them now.
    let raw = Artefacts::from([("log".to_owned(), fs::read(&log).unwrap())]);
    assert_eq!(search(&raw, &owner), ["log"]);

    let file = gateway.setup.root.path().join("out.tar.gz");
    let arguments = ["gateway", "diagnostics", "export", "--output", file.to_str().unwrap(), "--json"];
    let output = gateway.setup.command(&arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut found = unpacked(&fs::read(&file).unwrap());
    let names: BTreeSet<_> = found.keys().map(String::as_str).collect();
    let expected = [
        "config.redacted.yaml",
        "doctor.json",
        "envoy-config-dump.json",
        "health.json",
        "logs.redacted.jsonl",
        "manifest.json",
        "metrics.txt",
        "status.json",
        "units/user/sigilum-gateway.service",
    ];
    assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["missing"], json!([]));
    found.insert("what the command says".to_owned(), [output.stdout, output.stderr].concat());

    let secrets = [
        &literal,
        &variable,
        &header,
        &service,
        &other_service,
        &owner,
        &stored_owner,
        &password,
        &plain,
        &unit,
        &argument,
        &code,
        &connection.secret,
        &token,
    ];
    for secret in secrets.into_iter().map(String::as_str).chain([master.trim()]) {
        assert_eq!(search(&found, secret), Vec::<String>::new(), "{secret} was found");
    }
    // The search finds what is no secret: the lines that held some, and the connection.
    let text = |name: &str| String::from_utf8(found[name].clone()).unwrap();
    assert_eq!(text("logs.redacted.jsonl").matches("I heard").count(), 9);
    assert!(text("config.redacted.yaml").contains("conn-150") && text("metrics.txt").contains("# TYPE "));
    let status: Value = serde_json::from_slice(&found["status.json"]).unwrap();
    assert_eq!((&status["rpc"]["ok"], &status["config"]["cli"]["path"]), (&json!(true), &json!("~/home/gateway.yaml")));
    let health: Value = serde_json::from_slice(&found["health.json"]).unwrap();
    assert!(health["conditions"].as_array().is_some_and(|conditions| conditions.len() > 5), "{health}");
}

#[test]
fn the_lines_of_a_refusal_are_in_the_archive_after_the_gateway_has_gone() {
    let (gateway, upstream) = (Setup::new().start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let stranger = crate::support::agent::Agent::new("bob");
    assert_eq!(gateway.send(&stranger.get(&gateway.authority(), &connection.at("/v1"))).code(), "AUTH_CLAIM_REQUIRED");
    let log = gateway.setup.data().join("logs/decision.jsonl");
    let told = || fs::read_to_string(&log).is_ok_and(|text| text.contains("AUTH_CLAIM_REQUIRED"));
    wait_until("the refusal is logged", LIMIT, told);
    gateway.running().signal(rustix::process::Signal::TERM);
    gateway.running().wait(LIMIT);
    let output = gateway.setup.command(&["gateway", "diagnostics", "export", "--output", "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = unpacked(&output.stdout);
    let manifest: Value = serde_json::from_slice(&found["manifest.json"]).unwrap();
    let missing = manifest["missing"].as_array().unwrap();
    let missing: BTreeSet<_> = missing.iter().map(|missing| missing["file"].as_str().unwrap()).collect();
    assert_eq!(missing, BTreeSet::from(["envoy-config-dump.json", "health.json", "metrics.txt"]));
    let lines = String::from_utf8(found["logs.redacted.jsonl"].clone()).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let refused =
        lines.filter(|line| line["stream"] == "decision" && line["reason_code"] == "AUTH_CLAIM_REQUIRED").count();
    assert_eq!(refused, 1);
}

#[test]
fn metrics_come_from_the_gateway_that_took_the_token_and_the_token_goes_nowhere_else() {
    let gateway = Setup::new().start();
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (listen, url) = (stranger.local_addr().unwrap().to_string(), format!("http://{}", gateway.setup.admin));
    stranger.set_nonblocking(true).unwrap();
    let nobody = gateway.setup.root.path().join("nobody-runs-here");
    let mut command =
        gateway.setup.command(&["--gateway-admin-url", &url, "gateway", "diagnostics", "export", "--output", "-"]);
    let output = command.env("GATEWAY_RUN_DIR", nobody).env("GATEWAY_ADDR", listen).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = unpacked(&output.stdout);
    let metrics = found.get("metrics.txt").map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
    assert!(metrics.contains("# TYPE "), "{}", String::from_utf8_lossy(&found["manifest.json"]));
    // Whoever connected waits there still.
    let mut heard = String::new();
    while let Ok((mut stream, _)) = stranger.accept() {
        stream.set_nonblocking(false).unwrap();
        let _ = stream.read_to_string(&mut heard);
    }
    assert!(!heard.contains("x-sigilum-admin-token"), "{heard}");
}
