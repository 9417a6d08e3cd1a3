//! `doctor` beside a gateway that runs: well, with a part that is gone, with a token that is refused, and after its supervisor
//! was killed.

use std::collections::BTreeSet;
use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process::freeze;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Ten times what is promised on a machine at rest.
const DOCTOR_LIMIT: Duration = Duration::from_secs(20);

/// A gateway in folders as `gateway start` makes them.
fn start() -> Gateway {
    let setup = Setup::new().yaml("claims: {source: 'off'}\n");
    fs::set_permissions(setup.home(), Permissions::from_mode(0o700)).unwrap();
    setup.start()
}

fn report(setup: &Setup, more: &[&str]) -> Value {
    let output = setup.command(&[&["doctor", "--json"], more].concat()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// What is found: check and severity.
fn found(report: &Value) -> BTreeSet<(&str, &str)> {
    let all = report["findings"].as_array().unwrap();
    all.iter().map(|one| (one["checkId"].as_str().unwrap(), one["severity"].as_str().unwrap())).collect()
}

#[test]
fn a_well_gateway_has_no_finding_but_its_owner_and_is_looked_at_quickly() {
    let (gateway, upstream) = (start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let began = Instant::now();
    let told = report(&gateway.setup, &[]);
    let took = began.elapsed();
    assert_eq!(found(&told), BTreeSet::from([("identity/same-owner", "info")]), "{told:#}");
    assert_eq!((&told["status"], &told["ok"]), (&json!("ok"), &json!(true)));
    assert!(took < DOCTOR_LIMIT, "{took:?}");
    println!("doctor: {took:?}");
    // Everything that needs a gateway was asked.
    for title in ["Envoy state", "Gate is closed", "Replay window", "Store", "Master key", "Core dumps", "Ports"] {
        let check = told["checks"].as_array().unwrap().iter().find(|check| check["label"] == title).unwrap();
        assert_eq!(check["status"], "ok", "{check}");
    }
    assert!(!told.to_string().contains(&connection.secret) && !told.to_string().contains(&gateway.token()));
    let code =
        |more: &[&str]| gateway.setup.command(&[&["doctor", "--lint"], more].concat()).output().unwrap().status.code();
    assert_eq!((code(&[]), code(&["--severity-min", "info"])), (Some(0), Some(1)));
    let deep = report(&gateway.setup, &["--deep", "--fix", "--yes"]);
    assert_eq!((found(&deep), &deep["applied_fixes"]), (found(&told), &json!([])));
}

#[test]
fn without_envoy_that_is_found() {
    let gateway = start();
    freeze(gateway.pid());
    signal(gateway.role("envoy"), Signal::KILL);
    wait_until("not ready", LIMIT, || !gateway.admin_found_ready());
    let told = report(&gateway.setup, &[]);
    let found = found(&told);
    assert!(found.contains(&("envoy/live", "error")), "{told:#}");
    assert!(found.contains(&("authz/fail-closed", "error")), "{told:#}");
    assert!(!found.iter().any(|(id, _)| id.starts_with("store/") || id.starts_with("gateway/")), "{told:#}");
    signal(gateway.pid(), Signal::CONT);
}

#[test]
fn a_token_that_the_gateway_refuses_is_found() {
    let gateway = start();
    let mut command = gateway.setup.command(&["doctor", "--json", "--only", "gateway"]);
    let output = command.env("GATEWAY_ADMIN_TOKEN", "0123456789abcdef0123456789abcdef").output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found(&told), BTreeSet::from([("gateway/auth-present", "error")]), "{told:#}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_a_killed_supervisor_leaves_is_removed_and_the_gateway_starts_again() {
    let gateway = start();
    signal(gateway.pid(), Signal::KILL);
    gateway.running().wait(LIMIT);
    // Its children notice by themselves, and removal is not offered before.
    let lock = || report(&gateway.setup, &["--only", "gateway/lock"]);
    wait_until("nothing lives any more", LIMIT, || lock()["findings"][0]["fixHint"].is_null());
    let told = lock();
    assert_eq!(found(&told), BTreeSet::from([("gateway/lock", "warning")]), "{told:#}");
    let fixed = report(&gateway.setup, &["--only", "gateway/lock", "--fix"]);
    assert_eq!(found(&fixed), BTreeSet::new(), "{fixed:#}");
    assert!(fixed["applied_fixes"][0].as_str().unwrap().contains("instance.json"), "{fixed:#}");
    assert!(!gateway.setup.run_dir().join("instance.json").exists());
    gateway.restart();
}
