//! Parts of the gateway die. Nothing gets through meanwhile that would not otherwise, and they come back.

use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::support::client::try_send;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::parts;
use crate::support::process::alive;
use crate::support::process::children;
use crate::support::process::freeze;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

#[test]
fn without_authz_requests_are_refused_and_nothing_arrives() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    // A stopped process answers nobody and is not replaced: as dead as can be, for as long as we look.
    let authz = gateway.role("authz");
    freeze(authz);
    for method in ["GET", "POST"] {
        let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
        let draft = gateway.agent().prepare(method, &gateway.authority(), &connection.at("/v1")).body(body);
        let start = Instant::now();
        let response = gateway.send(&draft.sign());
        assert_eq!((response.status, response.code().as_str()), (503, "AUTHZ_UNAVAILABLE"), "{}", response.text());
        assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    }
    assert!(upstream.untouched());
    wait_until("health says so", LIMIT, || !gateway.healthy());

    signal(authz, Signal::KILL);
    gateway.wait_replaced("authz", authz);
    gateway.wait_ready(LIMIT);
    assert!(upstream.untouched());
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn while_authz_is_replaced_every_answer_is_right_or_a_refusal() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let authz = gateway.role("authz");
    signal(authz, Signal::KILL);
    let (mut allowed, mut refused, mut last) = (0, 0, 0);
    let start = Instant::now();
    while last < 20 {
        assert!(start.elapsed() < LIMIT, "no recovery: {allowed} allowed, {refused} refused");
        let response = gateway.get(&connection.at("/v1"));
        match (response.status, response.code().as_str()) {
            (200, _) => (allowed, last) = (allowed + 1, last + 1),
            (503, "AUTHZ_UNAVAILABLE" | "NOT_READY") => (refused, last) = (refused + 1, 0),
            other => panic!("{other:?}: {}", response.text()),
        }
    }
    assert!(refused > 0, "the outage was not seen");
    assert_eq!(upstream.count(), allowed);
}

#[test]
fn without_admin_declared_approvals_hold() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let admin = gateway.role("admin");
    freeze(admin);
    for _ in 0..20 {
        assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    }
    signal(admin, Signal::KILL);
    let mut sent = 20;
    wait_until("another admin", LIMIT, || {
        assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
        sent += 1;
        gateway.child("admin").is_some_and(|pid| pid != admin) && gateway.admin_ready()
    });
    assert_eq!(upstream.count(), sent);
    // It works again, too: a new connection comes into force.
    let another = gateway.connect(&upstream, json!({}));
    assert_eq!(gateway.get(&another.at("/v1")).status, 200);
}

#[test]
fn a_killed_envoy_comes_back() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let envoy = gateway.role("envoy");
    signal(envoy, Signal::KILL);
    gateway.wait_replaced("envoy", envoy);
    gateway.wait_ready(LIMIT);
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_request_under_way_outlives_an_orderly_stop() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let feed = upstream.feed();
    let mut exchange = crate::support::client::Exchange::open(gateway.setup.ingress).unwrap();
    exchange.write(&gateway.agent().get(&gateway.authority(), &connection.at("/stream")).bytes());
    feed.blocking_send("first".into()).unwrap();
    assert_eq!(exchange.read_head("GET").unwrap().status, 200);
    assert_eq!(exchange.read_piece().unwrap(), Some(b"first".to_vec()));
    gateway.running().signal(Signal::TERM);
    wait_until("the gateway is about to stop", LIMIT, || !gateway.healthy());
    feed.blocking_send("last".into()).unwrap();
    assert_eq!(exchange.read_piece().unwrap(), Some(b"last".to_vec()));
    drop(feed);
    assert_eq!(exchange.read_piece().unwrap(), None);
    let status = gateway.running().wait(LIMIT);
    assert!(status.success(), "{status}");
}

#[test]
fn an_orderly_stop_leaves_nothing_behind() {
    let gateway = Gateway::start();
    let all = children(gateway.pid());
    assert!(all.len() >= 3, "{all:?}");
    gateway.running().signal(Signal::TERM);
    let status = gateway.running().wait(LIMIT);
    assert!(status.success(), "{status}: {}", gateway.said());
    for child in all {
        assert!(!alive(child.pid), "{child:?} is left");
    }
    let request = crate::support::client::Request::new("GET", &gateway.authority(), "/health");
    assert!(try_send(gateway.setup.ingress, &request).is_err(), "somebody still answers");
}

#[test]
fn a_killed_supervisor_leaves_nothing_behind() {
    let gateway = Gateway::start();
    let all = children(gateway.pid());
    assert!(all.len() >= 3, "{all:?}");
    gateway.running().signal(Signal::KILL);
    gateway.running().wait(LIMIT);
    for child in all {
        wait_until(&format!("{child:?} has ended"), LIMIT, || !alive(child.pid));
    }
    // And the next start finds everything free.
    gateway.restart();
    assert!(gateway.healthy());
}

#[test]
fn children_do_not_inherit_the_environment() {
    let gateway = Setup::new().env("SOMETHING_PRIVATE", "canary-environment").start();
    for child in children(gateway.pid()) {
        let environment = crate::support::process::environment(child.pid);
        let text = String::from_utf8_lossy(&environment);
        assert!(!text.contains("canary-environment"), "{}: {text}", child.arguments);
    }
}

#[test]
fn without_any_state_nothing_is_decided() {
    // Envoy and authz without an admin: nobody has ever said who is approved.
    let setup = Setup::new();
    setup.begin_journal();
    let authz = parts::start_authz(&setup);
    let envoy = parts::start_envoy(&setup, &parts::Names::start());
    let gateway = Gateway::of(setup, authz);
    let request = || gateway.agent().get(&gateway.authority(), "/proxy/conn-000/v1");
    wait_until("authz says that it is not ready", LIMIT, || {
        match try_send(gateway.setup.ingress, &request()) {
            Ok(response) => {
                assert_eq!(response.status, 503, "{}", response.text());
                response.code() == "NOT_READY"
            }
            // Envoy is not there yet.
            Err(_) => false,
        }
    });
    assert!(!gateway.healthy());
    drop(envoy);
}
