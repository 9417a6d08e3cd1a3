//! What agents did is counted once each, whatever stops and starts meanwhile.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use rustix::process::Signal;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::api::Api;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::plane;
use crate::support::plane::OWN;
use crate::support::plane::SERVICE;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Requests of each phase.
const EACH: u64 = 30;

/// Sends the requests of a phase, each with the same id of the client's.
fn send(gateway: &Gateway, agent: &Agent) {
    for _ in 0..EACH {
        let request = agent.get(&gateway.authority(), &format!("/proxy/{SERVICE}/v1?token=canary"));
        let answer = gateway.send(&request.header("x-request-id", "the-same-for-all"));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn until(api: &Api, count: u64) {
    wait_until(&format!("{count} are counted"), LIMIT, || {
        let found = api.usage(OWN);
        assert!(found <= count, "{found} are counted, and {count} were sent");
        found == count
    });
}

#[test]
fn usage_is_counted_once_across_an_outage_and_restarts() {
    let (api, upstream) = (Api::start(), Upstream::start());
    let service = api.service(OWN, SERVICE);
    // Declared, so that it is served without the API, too.
    let agent = Agent::new(OWN);
    let gateway = plane::setup(&api.url(), &service).approve(&agent, SERVICE).start();
    let connection = gateway.connect(&upstream, json!({}));

    send(&gateway, &agent);
    until(&api, EACH);
    api.kill();
    send(&gateway, &agent);
    let admin = gateway.role("admin");
    signal(admin, Signal::KILL);
    gateway.wait_replaced("admin", admin);
    gateway.wait_ready(LIMIT);
    gateway.running().signal(Signal::TERM);
    assert!(gateway.running().wait(LIMIT).success());
    gateway.restart();
    gateway.wait_in_force(SERVICE);
    send(&gateway, &agent);
    api.go();
    until(&api, 3 * EACH);
    send(&gateway, &agent);
    // A stop that leaves no time to report.
    gateway.running().signal(Signal::TERM);
    assert!(gateway.running().wait(LIMIT).success());
    gateway.restart();
    gateway.wait_in_force(SERVICE);
    until(&api, 4 * EACH);

    // Not counted: refusals, and agents of other namespaces. Whatever is still under way would show up here.
    plane::until(&gateway, &Agent::new(OWN), "AUTH_CLAIM_REQUIRED");
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    assert_eq!(gateway.send(&agent.get(&gateway.authority(), &format!("/proxy/{SERVICE}/status/503"))).status, 503);
    until(&api, 4 * EACH + 1);

    let usage = api.owner(OWN, "GET", &format!("/v1/namespaces/{OWN}/usage"), None);
    let (row, all) = (&usage["rows"][0], &usage["summary"]);
    assert_eq!(usage["rows"].as_array().unwrap().len(), 1, "{usage}");
    assert_eq!((&row["provider"], &row["public_key"]), (&json!(SERVICE), &json!(agent.public_key)));
    assert_eq!((&all["successful_events"], &all["failed_events"]), (&json!(4 * EACH), &json!(1)));
    assert_eq!(upstream.count() as u64, 4 * EACH + 2);
}

#[test]
fn usage_is_counted_once_while_the_api_and_admin_die_in_the_middle_of_it() {
    let (api, upstream) = (Api::start(), Upstream::start());
    let service = api.service(OWN, SERVICE);
    let agent = Agent::new(OWN);
    let gateway = plane::setup(&api.url(), &service).approve(&agent, SERVICE).start();
    gateway.connect(&upstream, json!({}));
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let senders = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut sent = 0;
                while !stop.load(Ordering::Acquire) {
                    send(&gateway, &agent);
                    sent += EACH;
                }
                sent
            })
        });
        // Each time when events have just been taken, or are about to be.
        for round in 0..6 {
            let before = api.usage(OWN);
            wait_until("more is counted", LIMIT, || api.usage(OWN) > before);
            if round % 3 == 2 {
                let admin = gateway.role("admin");
                signal(admin, Signal::KILL);
                gateway.wait_replaced("admin", admin);
            } else {
                api.kill();
                api.go();
            }
        }
        stop.store(true, Ordering::Release);
        senders.map(|sender| sender.join().unwrap()).iter().sum::<u64>()
    });
    println!("{sent} requests");
    assert_eq!(upstream.count() as u64, sent);
    until(&api, sent);
    // Nothing comes twice later on.
    send(&gateway, &agent);
    until(&api, sent + EACH);
}
