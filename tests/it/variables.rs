//! A credential that several connections share, and who used them, with the real Envoy.

use serde_json::json;

use crate::support::client::Broken;
use crate::support::client::Exchange;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

#[test]
fn another_value_of_a_variable_fails_no_request_and_never_comes_back() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let set = |value: &str| {
        let answer = gateway.admin("POST", "/credential-variables", Some(&json!({ "key": "SHARED", "value": value })));
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    set("value-0");
    let ids: Vec<_> = (0..3).map(|_| gateway.next_id()).collect();
    for id in &ids {
        assert_eq!(gateway.create(id, &upstream.base_url(), "{{SHARED}}", json!({})).status, 201);
        gateway.wait_in_force(id);
    }
    let mut exchange = Exchange::open(gateway.setup.ingress).unwrap();
    let mut used = |id: &str| -> u32 {
        let request = gateway.agent().get(&gateway.authority(), &format!("/proxy/{id}/v1"));
        let answer = exchange.send(&request).unwrap_or_else(|Broken(why)| panic!("{why}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = upstream.seen().pop().unwrap();
        let value = seen.header("authorization").unwrap().strip_prefix("Bearer value-").unwrap();
        value.parse().unwrap()
    };
    let mut last = 0;
    for round in 1..=10 {
        set(&format!("value-{round}"));
        // One request after the other: once one connection has the new value, all of them have.
        wait_until("the new value is injected", LIMIT, || {
            for id in &ids {
                let now = used(id);
                assert!(now >= last && now <= round, "{now} after {last}");
                last = now;
            }
            last == round
        });
    }
}

#[test]
fn who_used_a_connection_is_shown() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    let path = format!("/connections/{}/agents", connection.id);
    wait_until("the use is written down", LIMIT, || {
        let shown = gateway.admin("GET", &path, None).json();
        shown["agents"].as_array().is_some_and(|agents| agents.len() == 1 && agents[0]["status"] == 200)
    });
    let read = gateway.admin("GET", &format!("/connections/{}", connection.id), None).json();
    assert!(read["last_used_at"].is_string(), "{read}");
}
