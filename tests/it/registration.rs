//! Agents nobody has approved yet are submitted to the control plane: once, within limits, and holding up nobody.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::support::agent::Agent;
use crate::support::api::Api;
use crate::support::client::Response;
use crate::support::fake_api::FakeApi;
use crate::support::fake_api::forward;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::plane;
use crate::support::plane::OWN;
use crate::support::plane::SERVICE;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// What the API was asked to write down.
fn submissions(proxy: &FakeApi) -> usize {
    proxy.asked().iter().filter(|line| *line == "POST /v1/claims").count()
}

/// A proxy that lets everything through but claims, which stream.
fn proxy(api: &Api) -> FakeApi {
    let to = api.address;
    FakeApi::start(move |asked| forward(to, asked))
}

/// A request of an agent that says whom it acts for and which agent it is.
fn ask(gateway: &Gateway, agent: &Agent) -> Response {
    let draft = agent.prepare("GET", &gateway.authority(), &format!("/proxy/{SERVICE}/v1"));
    let draft = draft.with(|draft| (draft.subject, draft.agent_id) = ("customer-1".into(), Some("agent-7".into())));
    gateway.send(&draft.sign())
}

#[test]
fn a_decision_is_told_to_the_agent_at_once() {
    // Far below what an answer of the API is remembered for otherwise.
    const SOON: Duration = Duration::from_secs(10);
    let (api, upstream) = (Api::start(), Upstream::start());
    let service = api.service(OWN, SERVICE);
    let gateway = plane::setup(&api.url(), &service).start();
    gateway.connect(&upstream, json!({}));
    plane::until_read(&gateway, SERVICE);
    let agent = Agent::new(OWN);
    let pending = || {
        let claims = api.claims(OWN);
        let found = claims.iter().find(|claim| claim["status"] == "pending");
        found.map(|claim| claim["claim_id"].as_str().unwrap().to_owned())
    };
    let told = |id: &str| ask(&gateway, &agent).text().contains(id);
    let named = || {
        let mut id = None;
        wait_until("the refusal names the pending claim", LIMIT, || {
            let refused = ask(&gateway, &agent).text();
            id = pending().filter(|id| refused.contains(id));
            id.is_some()
        });
        id.unwrap()
    };
    let rejected = named();
    api.decide(OWN, &rejected, "reject");
    wait_until("no refusal names the rejected claim", SOON, || !told(&rejected));
    let revoked = named();
    assert_ne!(revoked, rejected);
    api.decide(OWN, &revoked, "approve");
    plane::until(&gateway, &agent, "OK");
    // At once: the answer to the submission is still a young one.
    api.decide(OWN, &revoked, "revoke");
    plane::until(&gateway, &agent, "AUTH_CLAIM_REQUIRED");
    assert!(!told(&revoked), "the revoked claim is said to wait");
}

#[test]
fn a_stranger_of_the_gateways_namespace_waits_for_its_owner_and_is_then_let_in() {
    let (api, upstream) = (Api::start(), Upstream::start());
    let service = api.service(OWN, SERVICE);
    let proxy = proxy(&api);
    let gateway = plane::pace(plane::setup(&proxy.url(), &service), 1, 60).start();
    gateway.connect(&upstream, json!({}));
    plane::until_read(&gateway, SERVICE);
    let agent = Agent::new(OWN);
    // Many at once, as a program that begins with a burst.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(ask(&gateway, &agent).code(), "AUTH_CLAIM_REQUIRED"));
        }
    });
    let mut text = String::new();
    wait_until("the answer names the claim", LIMIT, || {
        let refused = ask(&gateway, &agent);
        assert_eq!((refused.status, refused.code().as_str()), (403, "AUTH_CLAIM_REQUIRED"));
        assert_eq!(refused.header("content-type"), Some("text/markdown; charset=utf-8"));
        text = refused.text();
        text.contains("Claim ID")
    });
    let claims = api.claims(OWN);
    assert_eq!(claims.len(), 1, "{claims:?}");
    let claim = &claims[0];
    let id = claim["claim_id"].as_str().unwrap();
    assert!(text.contains(&format!("Claim ID: `{id}`")) && text.contains("Claim state: `pending`"), "{text}");
    assert!(text.contains("Claim submit result: `recorded`"), "{text}");
    assert_eq!((&claim["status"], &claim["public_key"]), (&json!("pending"), &json!(agent.public_key)));
    assert_eq!((&claim["subject"], &claim["agent_id"]), (&json!("customer-1"), &json!("agent-7")));
    assert_eq!((&claim["agent_ip"], &claim["service"]), (&json!("127.0.0.1"), &json!(SERVICE)));
    for _ in 0..20 {
        assert_eq!(ask(&gateway, &agent).code(), "AUTH_CLAIM_REQUIRED");
    }
    assert_eq!(submissions(&proxy), 1, "one is pending, and that is known");
    assert!(upstream.untouched());

    api.decide(OWN, id, "approve");
    plane::until(&gateway, &agent, "OK");
    assert_eq!(ask(&gateway, &agent).status, 200);
}

#[test]
fn registrations_have_a_limit_and_are_for_the_own_namespace() {
    const LIMIT_PER_MINUTE: usize = 3;
    let (api, upstream) = (Api::start(), Upstream::start());
    let service = api.service(OWN, SERVICE);
    let proxy = proxy(&api);
    let setup = plane::setup(&proxy.url(), &service)
        .env("GATEWAY_CLAIM_REGISTRATION_RATE_LIMIT_PER_MINUTE", &LIMIT_PER_MINUTE.to_string());
    let gateway = setup.start();
    let connection = gateway.connect(&upstream, json!({}));
    plane::until_read(&gateway, SERVICE);
    let foreign = ask(&gateway, &Agent::new("acme"));
    assert_eq!(foreign.code(), "AUTH_CLAIM_REQUIRED");
    assert!(foreign.text().contains("own namespace") && !foreign.text().contains("Claim ID"), "{}", foreign.text());
    // No connection, no registration: a stranger chooses no names.
    let unknown = Agent::new(OWN).get(&gateway.authority(), "/proxy/not-there/v1");
    assert_eq!(gateway.send(&unknown).code(), "AUTH_CLAIM_REQUIRED");
    assert_eq!(submissions(&proxy), 0);

    let begun = Instant::now();
    for number in 1..=LIMIT_PER_MINUTE {
        let agent = Agent::new(OWN);
        assert_eq!(ask(&gateway, &agent).code(), "AUTH_CLAIM_REQUIRED");
        wait_until("the claim is written down", LIMIT, || api.claims(OWN).len() == number);
    }
    let late = Agent::new(OWN);
    let mut last = ask(&gateway, &late);
    wait_until("one too many is told so", LIMIT, || {
        if last.code() == "AUTH_CLAIM_REQUIRED" {
            last = ask(&gateway, &late);
        }
        last.code() != "AUTH_CLAIM_REQUIRED"
    });
    assert!(begun.elapsed() < Duration::from_secs(60), "the minute is over, this says nothing");
    assert_eq!((last.status, last.code().as_str()), (429, "AUTH_CLAIM_SUBMIT_RATE_LIMITED"), "{}", last.text());
    assert_eq!((api.claims(OWN).len(), submissions(&proxy)), (LIMIT_PER_MINUTE, LIMIT_PER_MINUTE));
    assert!(upstream.untouched());
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200, "who is approved does not notice");
}

#[test]
fn a_slow_api_delays_no_refusal_for_long() {
    let (api, upstream) = (Api::start(), Upstream::start());
    let service = api.service(OWN, SERVICE);
    let proxy = proxy(&api);
    let gateway = plane::setup(&proxy.url(), &service).start();
    let connection = gateway.connect(&upstream, json!({}));
    plane::until_read(&gateway, SERVICE);
    let (to, open) = (api.address, Arc::new(AtomicBool::new(false)));
    let gate = Arc::clone(&open);
    proxy.set(move |asked| {
        let begun = Instant::now();
        while !gate.load(Ordering::Acquire) && begun.elapsed() < Duration::from_secs(30) {
            thread::sleep(Duration::from_millis(20));
        }
        forward(to, asked)
    });
    let agent = Agent::new(OWN);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let begun = Instant::now();
                let refused = ask(&gateway, &agent);
                let took = begun.elapsed();
                assert_eq!(refused.code(), "AUTH_CLAIM_REQUIRED");
                assert!(!refused.text().contains("Claim ID"), "nothing can be known yet: {}", refused.text());
                assert!(took < Duration::from_secs(3), "{took:?}");
            });
        }
        assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    });
    assert!(api.claims(OWN).is_empty(), "the API has not been reached yet");
    // The answer that came too late for those is known to the next.
    open.store(true, Ordering::Release);
    wait_until("the claim is told", LIMIT, || ask(&gateway, &agent).text().contains("Claim state: `pending`"));
    assert_eq!(submissions(&proxy), 1);
}
