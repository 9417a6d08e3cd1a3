//! Answers that Envoy gives itself, without authz and without a provider.

use serde_json::json;

use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::gateway::Gateway;
use crate::support::gateway::shared;
use crate::support::upstream::Upstream;

fn send(gateway: &Gateway, method: &str, target: &str) -> Response {
    gateway.send(&Request::new(method, &gateway.authority(), target))
}

#[test]
fn none_of_them_is_kept_by_a_cache() {
    let gateway = shared();
    let silent = Upstream::start();
    let unreachable = gateway.connect(&silent, json!({}));
    drop(silent);
    let large = Request::new("POST", &gateway.authority(), "/proxy/x/v1").header("content-length", "9000000");
    let malformed = Request::new("GET", &gateway.authority(), "/proxy/x/v1").header("transfer-encoding", "gzip");
    let sized = Request::new("GET", &gateway.authority(), "/proxy/x/v1").header("x-big", &"a".repeat(1 << 20));
    for (response, status) in [
        (send(gateway, "GET", "/nowhere"), 404),
        (send(gateway, "TRACE", "/proxy/x"), 405),
        (send(gateway, "GET", "/health"), 200),
        (gateway.send(&large), 413),
        (gateway.send(&sized), 431),
        (gateway.send(&malformed), 501),
        (gateway.get(&unreachable.at("/v1")), 502),
    ] {
        assert_eq!(response.status, status, "{}", response.text());
        let values: Vec<_> = response.headers.iter().filter(|(name, _)| name == "cache-control").collect();
        assert!(matches!(values[..], [(_, value)] if value == "no-store"), "{status}: {values:?}");
    }
}

#[test]
fn a_provider_says_itself_what_may_be_kept() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    for target in ["/v1", "/status/404", "/status/503"] {
        let response = gateway.get(&connection.at(target));
        assert_eq!(response.header("cache-control"), None, "{target}");
    }
}
