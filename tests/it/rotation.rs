//! What becomes of a secret that should have been replaced long ago: `off`, `warn` and `block`, with days of grace.

use std::fs;

use serde_json::Value;
use serde_json::json;

use crate::support::gateway::Connection;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

const WARNING: &str = "x-sigilum-rotation-warning";

/// A connection that was rotated last in November 2023 and should have been again a day later.
fn overdue(gateway: &Gateway, upstream: &Upstream) -> Connection {
    let connection = gateway.connect(upstream, json!({ "rotation_interval_days": 1 }));
    let response = gateway.get(&connection.at("/v1"));
    assert_eq!((response.status, response.header(WARNING)), (200, None), "not due yet");
    gateway.make_overdue(&connection.id);
    connection
}

/// The events of authz by this name.
fn events(gateway: &Gateway, name: &str) -> Vec<Value> {
    let logs = fs::read_dir(gateway.setup.data().join("logs")).unwrap().flatten();
    let texts = logs.map(|entry| String::from_utf8_lossy(&fs::read(entry.path()).unwrap_or_default()).into_owned());
    let all: String = texts.chain([gateway.said()]).collect();
    let parsed = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|event| event["event"] == name).collect()
}

#[test]
fn an_overdue_secret_is_said_where_the_policy_warns_until_it_is_rotated() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = overdue(&gateway, &upstream);
    let response = gateway.get(&connection.at("/v1"));
    assert_eq!(response.status, 200);
    let warning = response.header(WARNING).unwrap();
    assert!(warning.contains(&connection.id) && warning.contains("2023-11-15T22:13:20Z"), "{warning}");
    wait_until("the warning is in the log", LIMIT, || !events(&gateway, "rotation_warning").is_empty());
    let event = events(&gateway, "rotation_warning").remove(0);
    assert_eq!((&event["kind"], &event["connection"]), (&json!("decision"), &json!(connection.id)));
    assert_eq!(event["next_rotation_due_at"], "2023-11-15T22:13:20Z");

    let rotated = gateway.admin(
        "POST",
        &format!("/connections/{}/rotate", connection.id),
        Some(&json!({ "secrets": { "api_key": "another-secret" }, "rotation_reason": "overdue" })),
    );
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    wait_until("the warning ends", LIMIT, || gateway.get(&connection.at("/v1")).header(WARNING).is_none());
}

#[test]
fn an_overdue_secret_is_refused_where_the_policy_blocks() {
    let gateway = Setup::new().env("GATEWAY_ROTATION_ENFORCEMENT", "block").start();
    let upstream = Upstream::start();
    let connection = overdue(&gateway, &upstream);
    let response = gateway.get(&connection.at("/v1"));
    assert_eq!((response.status, response.code().as_str()), (403, "ROTATION_REQUIRED"), "{}", response.text());
    assert_eq!(upstream.count(), 1);
    let rotated = gateway.admin(
        "POST",
        &format!("/connections/{}/rotate", connection.id),
        Some(&json!({ "secrets": { "api_key": "another-secret" } })),
    );
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    wait_until("the rotated secret is used", LIMIT, || gateway.get(&connection.at("/v1")).status == 200);
}

#[test]
fn days_of_grace_come_before_both() {
    let gateway = Setup::new()
        .env("GATEWAY_ROTATION_ENFORCEMENT", "block")
        // Ten years: the longest grace, which ends in November 2033.
        .env("GATEWAY_ROTATION_GRACE_DAYS", "3650")
        .start();
    let upstream = Upstream::start();
    let connection = overdue(&gateway, &upstream);
    let response = gateway.get(&connection.at("/v1"));
    assert_eq!((response.status, response.header(WARNING)), (200, None));
}

#[test]
fn an_overdue_secret_is_nobodys_business_where_the_policy_is_off() {
    let gateway = Setup::new().env("GATEWAY_ROTATION_ENFORCEMENT", "off").start();
    let upstream = Upstream::start();
    let connection = overdue(&gateway, &upstream);
    let response = gateway.get(&connection.at("/v1"));
    assert_eq!((response.status, response.header(WARNING)), (200, None));
    assert_eq!(events(&gateway, "rotation_warning"), Vec::<Value>::new());
}
