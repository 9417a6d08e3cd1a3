//! `gateway restart`: what it leaves, what it answers, how it ends.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use serde_json::json;

use crate::support::client::Exchange;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::parts;
use crate::support::upstream::Upstream;

/// Runs `gateway restart` to its end: exit code and what it printed on standard output.
fn restart(setup: &Setup, options: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&["gateway", "restart"], options].concat();
    let output = setup.command(&arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_restart_leaves_new_processes_and_a_healthy_gateway() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let before = ["admin", "authz", "envoy"].map(|role| gateway.role(role));
    let (code, out, err) = restart(&gateway.setup, &["--json"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((report["result"].as_str(), report["mode"].as_str()), (Some("healthy"), Some("standard")));
    assert_eq!(report["pid"], gateway.pid());
    let now = ["admin", "authz", "envoy"].map(|role| gateway.role(role));
    assert!(now.iter().zip(before).all(|(now, before)| *now != before), "{before:?} {now:?}");
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    let log = std::fs::read_to_string(gateway.setup.data().join("logs/gateway-restart.log")).unwrap();
    assert!(log.contains("\"outcome\":\"healthy\""), "{log}");
}

#[test]
fn a_request_in_flight_ends_before_a_safe_restart() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let held = upstream.feed();
    let mut exchange = Exchange::open(gateway.setup.ingress).unwrap();
    assert!(exchange.write(&gateway.agent().get(&gateway.authority(), &connection.at("/stream")).bytes()));
    crate::support::process::wait_until("it has arrived", LIMIT, || upstream.count() == 1);
    let running = Running::spawn(gateway.setup.command(&["gateway", "restart", "--safe"]));
    crate::support::process::wait_until("it drains", LIMIT, || running.said().contains("have up to 300 s"));
    let envoy = gateway.role("envoy");
    held.blocking_send("the end".into()).unwrap();
    drop(held);
    let answer = exchange.read_answer("GET").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "the end"));
    let mut running = running;
    let status = running.wait(LIMIT);
    assert_eq!(status.code(), Some(0), "{}", running.said());
    assert_ne!(gateway.role("envoy"), envoy);
}

#[test]
fn a_gateway_that_does_not_come_up_again_is_told() {
    let gateway = Gateway::start();
    let store = rusqlite::Connection::open(gateway.setup.data().join("gateway.db")).unwrap();
    store.pragma_update(None, "user_version", 9999).unwrap();
    store.close().unwrap();
    let (code, out, err) = restart(&gateway.setup, &["--force", "--json"]);
    assert_eq!(code, Some(1), "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["result"], "restart-health-failed", "{report}");
    assert!(err.contains("restart-health-failed"), "{err}");
    assert_eq!(gateway.running().wait(LIMIT).code(), Some(78), "starting again does not help");
}

#[test]
fn nothing_that_runs_is_told() {
    let setup = Setup::new();
    let (code, _, err) = restart(&setup, &[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("no gateway of this installation runs") && err.contains("gateway start"), "{err}");
}

#[test]
fn a_start_that_takes_too_long_is_no_failure_yet() {
    let gateway = Gateway::start();
    let (code, out, err) = restart(&gateway.setup, &["--force", "--json", "--start-timeout", "0"]);
    assert_eq!(code, Some(2), "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["result"], "still-starting");
    // It goes on, whoever waits.
    gateway.wait_ready(LIMIT);
}

#[test]
fn a_restart_after_which_nothing_runs_says_so() {
    let setup = Setup::new();
    let (script, broken) = (setup.root.path().join("envoy"), setup.root.path().join("broken"));
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *--version*|*validate*) exec {envoy} \"$@\";; esac\n[ -e {broken} ] && exit 7\nexec {envoy} \"$@\"\n",
        envoy = parts::envoy_binary().display(),
        broken = broken.display(),
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let gateway = setup.env("ENVOY_BIN", script.to_str().unwrap()).start();
    std::fs::write(&broken, "").unwrap();
    let (code, _, err) = restart(&gateway.setup, &[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("the gateway has ended") && !err.contains("goes on"), "{err}");
    assert_eq!(gateway.running().wait(LIMIT).code(), Some(1), "{}", gateway.said());
    assert!(!gateway.said().contains("goes on"), "{}", gateway.said());
}
