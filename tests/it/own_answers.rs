//! Answers that Envoy gives itself, without authz and without a provider.

use serde_json::json;

use crate::support::client::Body;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::gateway::Gateway;
use crate::support::gateway::shared;
use crate::support::upstream::Upstream;

/// Where health is asked.
const HEALTH: [&str; 4] = ["/health", "/healthz", "/health/live", "/health/ready"];

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
        (send(gateway, "POST", "/health"), 405),
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

#[test]
fn health_is_read_and_nothing_else() {
    let gateway = shared();
    for target in HEALTH {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let response = send(gateway, method, target);
            assert_eq!((response.status, response.code().as_str()), (405, "METHOD_NOT_ALLOWED"), "{method} {target}");
            assert_eq!(response.header("allow"), Some("GET, HEAD, OPTIONS"), "{method} {target}");
        }
        let with_query = send(gateway, "DELETE", &format!("{target}?x"));
        assert_eq!((with_query.status, with_query.header("allow")), (405, Some("GET, HEAD, OPTIONS")), "{target}");
        let response = send(gateway, "OPTIONS", target);
        assert_eq!((response.status, response.body.len()), (204, 0), "{target}");
        assert_eq!(response.header("allow"), Some("GET, HEAD, OPTIONS"), "{target}");
        assert_eq!((response.header("content-type"), response.header("x-sigilum-code")), (None, None), "{target}");
        for method in ["GET", "HEAD"] {
            assert_eq!(send(gateway, method, target).status, 200, "{method} {target}");
        }
    }
    for target in ["/health/", "/healthy", "/health/live/x"] {
        for method in ["POST", "OPTIONS", "GET"] {
            let response = send(gateway, method, target);
            assert_eq!((response.status, response.header("allow")), (404, None), "{method} {target}");
        }
    }
}

#[test]
fn an_upgrade_to_a_protocol_nobody_offers_is_refused_by_its_code() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    for protocol in ["foo", "TLS/1.2"] {
        let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1"));
        let request = request.header("connection", "Upgrade").header("upgrade", protocol).with_body(Body::None);
        let response = gateway.send(&request);
        let found = (response.status, response.code());
        assert_eq!(found, (403, "METHOD_OR_PATH_FORBIDDEN".to_owned()), "{protocol}: {}", response.text());
        assert_eq!(response.header("x-sigilum-code"), Some("METHOD_OR_PATH_FORBIDDEN"), "{protocol}");
        assert_eq!(response.json()["error"], "This gateway does not offer this upgrade.", "Envoy's own answer");
    }
    assert!(upstream.untouched());
}
