//! A request is good once, also across a restart of the process that remembers.

use rustix::process::Signal;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::client::Exchange;
use crate::support::client::Response;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::gateway::shared;
use crate::support::upstream::Upstream;

fn assert_replayed(response: &Response) {
    assert_eq!((response.status, response.code().as_str()), (403, "AUTH_REPLAY_DETECTED"), "{}", response.text());
}

#[test]
fn the_same_request_passes_once() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let request = gateway.agent().post(&gateway.authority(), &connection.at("/v1"), b"{}");
    assert_eq!(gateway.send(&request).status, 200);
    assert_replayed(&gateway.send(&request));
    assert_replayed(&gateway.send(&request));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn the_same_nonce_in_another_request_is_refused() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let draft = |rest: &str| {
        let draft = gateway.agent().prepare("GET", &gateway.authority(), &connection.at(rest));
        draft.with(|draft| draft.nonce = "one-nonce-for-two".into()).sign()
    };
    assert_eq!(gateway.send(&draft("/first")).status, 200);
    assert_replayed(&gateway.send(&draft("/second")));
    assert_eq!(upstream.only().target, "/first");
}

#[test]
fn a_request_sent_twice_at_once_passes_once() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    for round in 0..20 {
        let request = gateway.agent().get(&gateway.authority(), &connection.at(&format!("/{round}")));
        let answers: Vec<_> = std::thread::scope(|scope| {
            let sent: Vec<_> = (0..4).map(|_| scope.spawn(|| gateway.send(&request).status)).collect();
            sent.into_iter().map(|answer| answer.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
        assert_eq!(upstream.count(), round + 1);
    }
}

#[test]
fn a_forger_does_not_burn_the_nonce_of_somebody_else() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let genuine = gateway.agent().get(&gateway.authority(), &connection.at("/v1"));
    let forged = genuine.clone().replace("sigilum-subject", |_| "mallory".into());
    assert_eq!(gateway.send(&forged).code(), "AUTH_SIGNATURE_INVALID");
    assert_eq!(gateway.send(&genuine).status, 200);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_replay_is_refused_after_authz_was_killed() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1"));
    assert_eq!(gateway.send(&request).status, 200);

    let authz = gateway.role("authz");
    crate::support::process::signal(authz, Signal::KILL);
    gateway.wait_replaced("authz", authz);
    gateway.wait_ready(LIMIT);

    assert_replayed(&gateway.send(&request));
    assert_eq!(upstream.count(), 1);
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200, "a fresh request passes at once");
}

#[test]
fn a_replay_is_refused_after_the_whole_gateway_was_restarted() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1"));
    assert_eq!(gateway.send(&request).status, 200);

    gateway.running().signal(Signal::TERM);
    let status = gateway.running().wait(LIMIT);
    assert!(status.success(), "{status}: {}", gateway.said());
    gateway.restart();

    assert_replayed(&gateway.send(&request));
    assert_eq!(upstream.count(), 1);
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200, "the connection was kept");
}

#[test]
fn a_full_window_refuses_and_forgets_nothing() {
    // One key may hold a quarter of the window.
    let carol = Agent::new("carol");
    let gateway = Setup::new().env("GATEWAY_REPLAY_CAPACITY", "1000").approve(&carol, "conn-000").start();
    let upstream = Upstream::start();
    let connection = gateway.connect(&upstream, json!({}));
    assert_eq!(connection.id, "conn-000");
    let target = connection.at("/v1");
    let mut exchange = Exchange::open(gateway.setup.ingress).unwrap();
    let requests: Vec<_> = (0..260).map(|_| gateway.agent().get(&gateway.authority(), &target)).collect();
    let answers: Vec<_> = requests.iter().map(|request| exchange.send(request).unwrap()).collect();
    let passed = answers.iter().take_while(|answer| answer.status == 200).count();
    assert_eq!(passed, 250);
    for answer in &answers[passed..] {
        assert_eq!((answer.status, answer.code().as_str()), (503, "REPLAY_WINDOW_FULL"));
        assert!(answer.header("retry-after").is_some());
    }
    // The first nonce is still known, and others still have room.
    assert_replayed(&gateway.send(&requests[0]));
    assert_eq!(gateway.send(&carol.get(&gateway.authority(), &target)).status, 200);
    assert_eq!(upstream.count(), 251);
}

#[test]
fn a_gateway_without_a_past_refuses_what_was_signed_before_it() {
    let gateway = Setup::new().start_anew();
    let upstream = Upstream::start();
    let connection = gateway.connect(&upstream, json!({}));
    let draft = gateway.agent().prepare("GET", &gateway.authority(), &connection.at("/v1"));
    let response = gateway.send(&draft.with(|draft| draft.created -= 120).sign());
    assert_eq!((response.status, response.code().as_str()), (503, "REPLAY_WINDOW_STARTING"), "{}", response.text());
    assert!(response.header("retry-after").is_some());
    assert!(upstream.untouched());
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200, "ready means that a request signed now is decided");
}
