//! `gateway drain`: no new requests while a lease is held, what is in flight goes on, and the lease ends in one way or another.

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::support::client::Exchange;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Runs a command of this gateway: exit code, standard output and standard error.
fn run(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String, String) {
    let url = format!("http://{}", gateway.setup.admin);
    let arguments = [&["--gateway-admin-url", url.as_str()], arguments].concat();
    let output = gateway.setup.command(&arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Begins a drain and answers with its lease.
fn drain(gateway: &Gateway, lease: &str) -> String {
    let (code, out, err) = run(gateway, &["gateway", "drain", "--lease", lease, "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let body: Value = serde_json::from_str(&out).unwrap();
    body["leaseId"].as_str().unwrap().to_owned()
}

/// Waits until authz refuses what is new.
fn wait_drained(gateway: &Gateway, target: &str) {
    wait_until("new requests are refused", LIMIT, || gateway.get(target).code() == "GATEWAY_DRAINING");
}

#[test]
fn new_requests_are_refused_and_the_one_in_flight_ends_as_it_should() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let feed = upstream.feed();
    let mut stream = Exchange::open(gateway.setup.ingress).unwrap();
    assert!(stream.write(&gateway.agent().get(&gateway.authority(), &connection.at("/stream")).bytes()));
    assert_eq!(stream.read_head("GET").unwrap().status, 200);

    let lease = drain(&gateway, "10m");
    wait_drained(&gateway, &connection.at("/v1"));
    let refused = gateway.get(&connection.at("/v1"));
    assert_eq!((refused.status, refused.code().as_str()), (503, "GATEWAY_DRAINING"));
    assert!(refused.header("retry-after").is_some());
    wait_until("whoever balances is told", LIMIT, || !gateway.healthy());
    let (code, out, _) = run(&gateway, &["gateway", "drain", "--wait", "1s", "--lease", "1s", "--json"]);
    let body: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, body["inFlight"].as_u64()), (Some(1), Some(1)), "one is still in flight: {out}");
    feed.blocking_send("whole".into()).unwrap();
    drop(feed);
    assert_eq!(stream.read_piece().unwrap().unwrap(), b"whole");
    assert!(stream.read_piece().unwrap().is_none());

    let (code, _, err) = run(&gateway, &["gateway", "undrain", "drain-of-somebody-else"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("DRAIN_LEASE_UNKNOWN"), "{err}");
    assert_eq!(gateway.get(&connection.at("/v1")).status, 503, "it goes on");
    assert_eq!(run(&gateway, &["gateway", "undrain", &lease]).0, Some(0));
    wait_until("requests pass again", LIMIT, || gateway.get(&connection.at("/v1")).status == 200);
    wait_until("whoever balances is told", LIMIT, || gateway.healthy());
}

#[test]
fn a_lease_of_a_client_that_left_before_it_was_told_ends() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let _feed = upstream.feed();
    let mut stream = Exchange::open(gateway.setup.ingress).unwrap();
    assert!(stream.write(&gateway.agent().get(&gateway.authority(), &connection.at("/stream")).bytes()));
    assert_eq!(stream.read_head("GET").unwrap().status, 200);
    let mut asks = Exchange::open(gateway.setup.admin).unwrap();
    let body = r#"{"waitSeconds":15,"leaseSeconds":600}"#;
    let head = format!(
        "POST /api/v1/drain HTTP/1.1\r\nhost: {}\r\nx-sigilum-admin-token: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        gateway.setup.admin,
        gateway.token(),
        body.len()
    );
    assert!(asks.write(head.as_bytes()));
    wait_drained(&gateway, &connection.at("/v1"));
    drop(asks);
    wait_until("requests pass again", LIMIT, || gateway.get(&connection.at("/v1")).status == 200);
}

#[test]
fn a_lease_ends_by_itself() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let lease = drain(&gateway, "3s");
    wait_drained(&gateway, &connection.at("/v1"));
    wait_until("requests pass again", LIMIT, || gateway.get(&connection.at("/v1")).status == 200);
    wait_until("whoever balances is told", LIMIT, || gateway.healthy());
    let (code, _, err) = run(&gateway, &["gateway", "undrain", &lease]);
    assert!(code == Some(1) && err.contains("DRAIN_LEASE_UNKNOWN"), "{err}");
}

#[test]
fn a_lease_outlives_admin_and_the_whole_gateway() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let lease = drain(&gateway, "10m");
    wait_drained(&gateway, &connection.at("/v1"));
    let admin = gateway.role("admin");
    signal(admin, Signal::KILL);
    gateway.wait_replaced("admin", admin);
    wait_until("admin is back", LIMIT, || gateway.admin_started());
    assert_eq!(gateway.get(&connection.at("/v1")).code(), "GATEWAY_DRAINING");
    // Nor does a start wait for a health that somebody took away.
    let (code, _, err) = run(&gateway, &["gateway", "restart", "--force"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(gateway.get(&connection.at("/v1")).code(), "GATEWAY_DRAINING");
    assert_eq!(run(&gateway, &["gateway", "undrain", &lease]).0, Some(0));
    wait_until("requests pass again", LIMIT, || gateway.get(&connection.at("/v1")).status == 200);
}

#[test]
fn health_and_status_say_until_when_and_what_ends_it() {
    let gateway = Gateway::start();
    gateway.wait_ready(LIMIT);
    drain(&gateway, "10m");
    wait_until("health says that it drains", LIMIT, || {
        let (code, out, _) = run(&gateway, &["health"]);
        code == Some(1) && out.contains("draining until 2") && out.contains("next: sigilum gateway undrain --all")
    });
    let (_, out, _) = run(&gateway, &["gateway", "status"]);
    assert!(out.contains("draining until 2") && out.contains("sigilum gateway undrain --all"), "{out}");
    let (code, _, err) = run(&gateway, &["gateway", "undrain", "--all"]);
    assert_eq!(code, Some(0), "{err}");
    wait_until("health says that it is ready", LIMIT, || run(&gateway, &["health"]).0 == Some(0));
}
