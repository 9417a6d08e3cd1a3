//! What is refused, and by which code. Nothing of it reaches the provider.

use serde_json::Value;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::agent::CertificateParts;
use crate::support::agent::digest;
use crate::support::agent::now;
use crate::support::client::Body;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::gateway::Connection;
use crate::support::gateway::Gateway;
use crate::support::gateway::Setup;
use crate::support::gateway::shared;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// A connection and its provider, which is to see nothing.
struct Scene {
    gateway: &'static Gateway,
    upstream: Upstream,
    connection: Connection,
}

impl Scene {
    fn new() -> Self {
        Self::with(json!({}))
    }

    fn with(fields: Value) -> Self {
        let (gateway, upstream) = (shared(), Upstream::start());
        let connection = gateway.connect(&upstream, fields);
        Self { gateway, upstream, connection }
    }

    fn agent(&self) -> &Agent {
        self.gateway.agent()
    }

    fn authority(&self) -> String {
        self.gateway.authority()
    }

    /// A genuine GET of `/v1`.
    fn get(&self) -> Request {
        self.agent().get(&self.authority(), &self.connection.at("/v1"))
    }

    /// A genuine POST to `/v1`.
    fn post(&self) -> Request {
        self.agent().post(&self.authority(), &self.connection.at("/v1"), b"{\"amount\":1}")
    }

    /// Sends what must be refused with this status and code, and never arrive.
    fn refuses(&self, request: &Request, status: u16, code: &str) -> Response {
        let response = self.gateway.send(request);
        assert_eq!((response.status, response.code().as_str()), (status, code), "{}", response.text());
        assert!(self.upstream.untouched(), "reached the provider: {:?}", self.upstream.seen());
        response
    }
}

#[test]
fn an_unsigned_request_is_refused() {
    let scene = Scene::new();
    let target = scene.connection.at("/v1");
    let response = scene.refuses(&Request::new("GET", &scene.authority(), &target), 403, "AUTH_SIGNATURE_INVALID");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let body = response.json();
    let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["error", "code", "request_id", "timestamp", "docs_url"]);
    assert!(response.text().ends_with("}\n"));
    assert!(body["docs_url"].as_str().unwrap().ends_with("GATEWAY_ERROR_CODES.md#auth-errors"));
}

#[test]
fn an_unsigned_body_is_refused() {
    let scene = Scene::new();
    let request = Request::new("POST", &scene.authority(), &scene.connection.at("/v1"));
    scene.refuses(&request.with_body(Body::Sized(b"{}".to_vec())), 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_changed_method_is_refused() {
    let scene = Scene::new();
    let mut request = scene.get();
    request.method = "DELETE".into();
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_changed_path_is_refused() {
    let scene = Scene::new();
    let mut request = scene.get();
    request.target = scene.connection.at("/v2");
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_request_signed_for_another_connection_is_refused() {
    let scene = Scene::new();
    let other = Scene::new();
    let mut request = scene.get();
    request.target = other.connection.at("/v1");
    other.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_changed_query_is_refused() {
    let scene = Scene::new();
    let mut request = scene.agent().get(&scene.authority(), &scene.connection.at("/v1?amount=1"));
    request.target = scene.connection.at("/v1?amount=2");
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_query_added_is_refused() {
    let scene = Scene::new();
    let mut request = scene.get();
    request.target.push_str("?x=1");
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_changed_body_is_refused() {
    let scene = Scene::new();
    let request = scene.post().with_body(Body::Sized(b"{\"amount\":9}".to_vec()));
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_changed_body_with_its_own_digest_is_refused() {
    let scene = Scene::new();
    let body = b"{\"amount\":9}";
    let request = scene.post().with_body(Body::Sized(body.to_vec())).replace("content-digest", |_| digest(body));
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_body_that_no_digest_covers_is_refused() {
    let scene = Scene::new();
    let mut request = scene.agent().prepare("POST", &scene.authority(), &scene.connection.at("/v1")).sign();
    request.body = Body::Sized(b"{}".to_vec());
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_removed_body_is_refused() {
    let scene = Scene::new();
    scene.refuses(&scene.post().with_body(Body::Sized(Vec::new())), 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_changed_subject_is_refused() {
    let scene = Scene::new();
    scene.refuses(&scene.get().replace("sigilum-subject", |_| "root".into()), 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_changed_namespace_is_refused() {
    let scene = Scene::new();
    scene.refuses(&scene.get().replace("sigilum-namespace", |_| "mallory".into()), 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn another_key_in_the_key_header_is_refused() {
    let scene = Scene::new();
    let other = Agent::new("alice");
    let request = scene.get().replace("sigilum-agent-key", |_| other.public_key.clone());
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn the_certificate_of_another_key_is_refused() {
    let scene = Scene::new();
    let other = Agent::new("alice");
    let request = scene.get().replace("sigilum-agent-cert", |_| other.certificate.clone());
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_flipped_bit_of_the_signature_is_refused() {
    let scene = Scene::new();
    let request = scene.get().replace("signature", |value| {
        let at = 20;
        let flipped = if &value[at..=at] == "A" { "B" } else { "A" };
        format!("{}{flipped}{}", &value[..at], &value[at + 1..])
    });
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn another_nonce_than_the_signed_one_is_refused() {
    let scene = Scene::new();
    let request = scene.get().replace("signature-input", |value| value.replace("nonce=\"", "nonce=\"0"));
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_signature_of_the_wrong_label_is_refused() {
    let scene = Scene::new();
    let request = scene.get().replace("signature", |value| value.replace("sig1", "sig2"));
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_malformed_signature_input_is_refused() {
    let scene = Scene::new();
    let request = scene.get().replace("signature-input", |value| value.replace(";created=", ";created=x"));
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn another_algorithm_is_refused() {
    let scene = Scene::new();
    let request =
        scene.get().replace("signature-input", |value| value.replace("ed25519\";nonce", "hmac-sha256\";nonce"));
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn fewer_components_than_the_profile_asks_for_are_refused() {
    let scene = Scene::new();
    let components = ["@method", "@target-uri", "sigilum-namespace", "sigilum-subject", "sigilum-agent-key"];
    let request = scene
        .agent()
        .prepare("GET", &scene.authority(), &scene.connection.at("/v1"))
        .with(|draft| draft.components = Some(components.map(str::to_owned).to_vec()))
        .sign();
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_request_signed_too_long_ago_is_refused() {
    let scene = Scene::new();
    let draft = scene.agent().prepare("GET", &scene.authority(), &scene.connection.at("/v1"));
    scene.refuses(&draft.with(|draft| draft.created = now() - 310).sign(), 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_request_signed_in_the_future_is_refused() {
    let scene = Scene::new();
    let draft = scene.agent().prepare("GET", &scene.authority(), &scene.connection.at("/v1"));
    scene.refuses(&draft.with(|draft| draft.created = now() + 60).sign(), 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_request_to_another_host_is_refused() {
    let scene = Scene::new();
    let request = scene.agent().get("api.example.com", &scene.connection.at("/v1"));
    scene.refuses(&request, 403, "AUTH_AUTHORITY_NOT_ACCEPTED");
}

#[test]
fn a_request_to_a_declared_authority_is_accepted() {
    let gateway = Setup::new().yaml("gateway:\n  authorities: [\"gateway.example.com\"]\n").start();
    let upstream = Upstream::start();
    let connection = gateway.connect(&upstream, json!({}));
    assert_eq!(gateway.send(&gateway.agent().get("gateway.example.com", &connection.at("/v1"))).status, 200);
    assert_eq!(upstream.count(), 1);
    let other = gateway.send(&gateway.agent().get("gateway.example.org", &connection.at("/v1")));
    assert_eq!(other.code(), "AUTH_AUTHORITY_NOT_ACCEPTED");
}

#[test]
fn a_request_signed_for_another_host_is_refused_here() {
    let scene = Scene::new();
    let target = scene.connection.at("/v1");
    let request = scene
        .agent()
        .prepare("GET", &scene.authority(), &target)
        .with(|draft| draft.signed_uri = Some(format!("http://api.example.com{target}")))
        .sign();
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_request_signed_for_another_port_is_refused_here() {
    let scene = Scene::new();
    let target = scene.connection.at("/v1");
    let request = scene
        .agent()
        .prepare("GET", &scene.authority(), &target)
        .with(|draft| draft.signed_uri = Some(format!("http://127.0.0.1:1{target}")))
        .sign();
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_request_signed_for_another_scheme_is_refused_here() {
    let scene = Scene::new();
    let target = scene.connection.at("/v1");
    let request = scene
        .agent()
        .prepare("GET", &scene.authority(), &target)
        .with(|draft| draft.signed_uri = Some(format!("https://{}{target}", draft.authority)))
        .sign()
        .header("x-forwarded-proto", "https");
    scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn user_information_in_the_host_is_refused() {
    let scene = Scene::new();
    let host = format!("alice@{}", scene.authority());
    let response = scene.gateway.send(&scene.agent().get(&host, &scene.connection.at("/v1")));
    // Envoy's codec may refuse such a host before we are asked.
    let expected = [(403, "AUTH_HEADERS_INVALID"), (400, "")];
    assert!(expected.contains(&(response.status, response.code().as_str())), "{}", response.text());
    assert!(scene.upstream.untouched());
}

#[test]
fn two_hosts_are_refused() {
    let scene = Scene::new();
    let response = scene.gateway.send(&scene.get().header("host", "api.example.com"));
    let expected = [(403, "AUTH_HEADERS_INVALID"), (400, "")];
    assert!(expected.contains(&(response.status, response.code().as_str())), "{}", response.text());
    assert!(scene.upstream.untouched());
}

#[test]
fn each_repeated_header_of_the_proof_is_refused() {
    let scene = Scene::new();
    for name in [
        "signature-input",
        "signature",
        "content-digest",
        "sigilum-namespace",
        "sigilum-subject",
        "sigilum-agent-key",
        "sigilum-agent-cert",
    ] {
        let response = scene.refuses(&scene.post().repeat(name), 403, "AUTH_HEADERS_INVALID");
        assert_eq!(response.header("x-sigilum-code"), Some("AUTH_HEADERS_INVALID"), "{name}");
    }
}

#[test]
fn repeated_values_joined_by_a_comma_are_refused() {
    let scene = Scene::new();
    let request = scene.get().replace("sigilum-namespace", |value| format!("{value}, {value}"));
    scene.refuses(&request, 403, "AUTH_HEADERS_INVALID");
}

#[test]
fn a_missing_certificate_is_refused() {
    let scene = Scene::new();
    scene.refuses(&scene.get().without("sigilum-agent-cert"), 403, "AUTH_SIGNATURE_INVALID");
}

#[test]
fn a_missing_namespace_is_refused() {
    let scene = Scene::new();
    let response = scene.gateway.send(&scene.get().without("sigilum-namespace"));
    assert_eq!(response.status, 403);
    assert!(["AUTH_SIGNATURE_INVALID", "AUTH_IDENTITY_INVALID"].contains(&response.code().as_str()));
    assert!(scene.upstream.untouched());
}

#[test]
fn an_agent_id_that_is_not_covered_is_refused() {
    let scene = Scene::new();
    scene.refuses(&scene.get().header("sigilum-agent-id", "agent-7"), 403, "AUTH_IDENTITY_INVALID");
}

#[test]
fn a_blank_nonce_is_refused() {
    let scene = Scene::new();
    let draft = scene.agent().prepare("GET", &scene.authority(), &scene.connection.at("/v1"));
    scene.refuses(&draft.with(|draft| draft.nonce = "   ".into()).sign(), 403, "AUTH_NONCE_INVALID");
}

#[test]
fn certificates_that_do_not_hold_are_refused() {
    let scene = Scene::new();
    let good = scene.agent().certificate_parts();
    let changed = |change: fn(&mut CertificateParts)| {
        let mut parts = good.clone();
        change(&mut parts);
        parts.header(&scene.agent().key)
    };
    let short = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";
    assert_eq!(short.len(), "ed25519:".len() + 44, "31 bytes take as many characters as 32");
    for (name, certificate) in [
        ("empty object", "e30".to_owned()),
        ("not base64", "%%%".to_owned()),
        ("cut short", scene.agent().certificate[..40].to_owned()),
        ("too long", "A".repeat(20_000)),
        ("version 2", changed(|parts| parts.version = 2)),
        ("key of 31 bytes", {
            let mut parts = good.clone();
            parts.public_key = short.into();
            parts.header(&scene.agent().key)
        }),
        ("did of another namespace", changed(|parts| parts.did = "did:sigilum:bob".into())),
        ("another algorithm", changed(|parts| parts.alg = "rsa".into())),
        ("expired", changed(|parts| parts.expires_at = Some("2026-03-01T00:00:00Z".into()))),
        ("signed by another key", good.header(&Agent::new("alice").key)),
    ] {
        let draft = scene.agent().prepare("GET", &scene.authority(), &scene.connection.at("/v1"));
        // The request signature covers the bad certificate, so that the certificate alone is wrong.
        let request = draft.with(|draft| draft.agent.certificate = certificate).sign();
        let response = scene.gateway.send(&request);
        assert_eq!((response.status, response.code().as_str()), (403, "AUTH_SIGNATURE_INVALID"), "{name}");
    }
    assert!(scene.upstream.untouched());
}

#[test]
fn a_genuine_key_without_approval_is_asked_to_get_one() {
    let scene = Scene::new();
    let stranger = Agent::new("bob");
    let target = scene.connection.at("/v1");
    let response = scene.refuses(&stranger.get(&scene.authority(), &target), 403, "AUTH_CLAIM_REQUIRED");
    assert_eq!(response.header("content-type"), Some("text/markdown; charset=utf-8"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let text = response.text();
    assert!(text.starts_with("# "), "{text}");
    for marker in [
        "HTTP 403 AUTH_CLAIM_REQUIRED",
        "Sigilum Authorization Required",
        "SECURE ACCESS BLOCKED",
        "Sigilum verified your signature",
        "revoked/expired",
        "## Request Context",
        "- Namespace: bob",
        "- Subject: bob",
        &format!("- Service: {}", scene.connection.id),
        &format!("- Agent key: {}", stranger.public_key),
        "- Remote IP: 127.0.0.1",
        "## Authorization Registration",
        "## Next Step",
    ] {
        assert!(text.contains(marker), "{marker} is missing in:\n{text}");
    }
}

#[test]
fn an_approved_key_of_another_namespace_is_not_approved() {
    let scene = Scene::new();
    let mut agent = Agent::from_seed("mallory", &scene.agent().key.to_bytes());
    agent.namespace = "mallory".into();
    let target = scene.connection.at("/v1");
    scene.refuses(&agent.get(&scene.authority(), &target), 403, "AUTH_CLAIM_REQUIRED");
}

#[test]
fn an_approval_for_one_service_is_none_for_another() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let id = format!("unapproved-{}", crate::support::agent::random_hex(4));
    assert_eq!(gateway.create(&id, &upstream.base_url(), "s3cret", json!({})).status, 201);
    wait_until("the connection is known", crate::support::gateway::LIMIT, || {
        gateway.admin("GET", &format!("/connections/{id}"), None).status == 200
    });
    let response = gateway.get(&format!("/proxy/{id}/v1"));
    assert_eq!((response.status, response.code().as_str()), (403, "AUTH_CLAIM_REQUIRED"));
    assert!(upstream.untouched());
}

#[test]
fn an_unknown_connection_is_named_only_to_a_key_approved_for_it() {
    let gateway = shared();
    let id = gateway.next_id();
    let approved = gateway.get(&format!("/proxy/{id}/v1"));
    assert_eq!((approved.status, approved.code().as_str()), (404, ""), "{}", approved.text());
    let stranger = Agent::new("bob").get(&gateway.authority(), &format!("/proxy/{id}/v1"));
    let response = gateway.send(&stranger);
    assert_eq!((response.status, response.code().as_str()), (403, "AUTH_CLAIM_REQUIRED"));
}

#[test]
fn paths_with_dot_segments_are_refused() {
    let scene = Scene::new();
    let id = &scene.connection.id;
    for rest in [
        "/../other",
        "/a/../b",
        "/./a",
        "/a/..",
        "/%2e%2e/b",
        "/%2E./b",
        "/a%2F..%2Fb",
        "/..;x/b",
        "/a/..;x=1/b",
        "/a\\b",
        "/a%5cb",
        "/a%5C..%5Cb",
        "/a%00b",
    ] {
        let target = format!("/proxy/{id}{rest}");
        let response = scene.gateway.send(&scene.agent().get(&scene.authority(), &target));
        assert_eq!(response.status, 400, "{target}: {}", response.text());
        assert!(scene.upstream.untouched(), "{target} reached the provider");
    }
}

#[test]
fn a_disabled_connection_is_refused() {
    let scene = Scene::new();
    let id = &scene.connection.id;
    let patched = scene.gateway.admin("PATCH", &format!("/connections/{id}"), Some(&json!({ "status": "disabled" })));
    assert_eq!(patched.status, 200, "{}", patched.text());
    wait_until("it is disabled", crate::support::gateway::LIMIT, || scene.gateway.probe(id).status == 400);
    scene.refuses(&scene.get(), 400, "");
}

#[test]
fn a_method_the_connection_does_not_allow_is_refused() {
    let scene = Scene::with(json!({ "allowed_methods": ["GET"] }));
    scene.refuses(&scene.post(), 403, "METHOD_OR_PATH_FORBIDDEN");
}

#[test]
fn a_path_the_connection_does_not_allow_is_refused() {
    let scene = Scene::with(json!({ "allowed_paths": ["/v1/balance"] }));
    for rest in ["/v1", "/v1/balances", "/v1/transfer", "/v1/%62alance"] {
        let target = scene.connection.at(rest);
        let response = scene.gateway.send(&scene.agent().get(&scene.authority(), &target));
        assert_eq!((response.status, response.code().as_str()), (403, "METHOD_OR_PATH_FORBIDDEN"), "{rest}");
    }
    assert!(scene.upstream.untouched());
    assert_eq!(scene.gateway.get(&scene.connection.at("/v1/balance/eur")).status, 200);
}

#[test]
fn an_upgrade_the_connection_does_not_allow_is_refused() {
    let scene = Scene::new();
    let request = scene.get().header("connection", "upgrade").header("upgrade", "websocket");
    scene.refuses(&request, 403, "METHOD_OR_PATH_FORBIDDEN");
}

#[test]
fn an_mcp_connection_is_not_a_proxy() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let id = gateway.next_id();
    let created = gateway.create(&id, &upstream.base_url(), "s3cret", json!({ "protocol": "mcp" }));
    assert_eq!(created.status, 201, "{}", created.text());
    wait_until("it is in force", crate::support::gateway::LIMIT, || gateway.probe(&id).status != 404);
    let response = gateway.get(&format!("/proxy/{id}/v1"));
    assert_eq!((response.status, response.code().as_str()), (400, ""), "{}", response.text());
    assert!(upstream.untouched());
}

#[test]
fn connect_and_trace_are_refused() {
    let scene = Scene::new();
    let target = scene.connection.at("/v1");
    for request in [
        scene.agent().get(&scene.authority(), &target).with_body(Body::None),
        Request::new("TRACE", &scene.authority(), &target),
        Request::new("CONNECT", &scene.authority(), &scene.authority()),
        Request::new("OPTIONS", &scene.authority(), "*"),
    ] {
        if request.method == "GET" {
            // A signed TRACE is a TRACE.
            let signed = scene.agent().prepare("TRACE", &scene.authority(), &target).sign();
            assert_eq!(scene.gateway.send(&signed).status, 405);
            continue;
        }
        let response = scene.gateway.send(&request);
        assert_eq!((response.status, response.code().as_str()), (405, "METHOD_NOT_ALLOWED"), "{}", request.method);
    }
    assert!(scene.upstream.untouched());
}

#[test]
fn other_paths_do_not_exist() {
    let gateway = shared();
    for target in ["/", "/proxy", "/api/admin/connections", "/metrics", "/mcp/x/tools", "/healthzz", "/slackx"] {
        let response = gateway.get(target);
        assert_eq!((response.status, response.code().as_str()), (404, "NOT_FOUND"), "{target}: {}", response.text());
    }
}

#[test]
fn a_client_does_not_choose_the_route() {
    let scene = Scene::new();
    for cluster in ["authz", "envoy_admin", "upstream_http"] {
        let request = Request::new("GET", &scene.authority(), &scene.connection.at("/v1"))
            .header("x-sigilum-cluster", cluster)
            .header("x-envoy-original-dst-host", &scene.upstream.address.to_string());
        scene.refuses(&request, 403, "AUTH_SIGNATURE_INVALID");
    }
}

#[test]
fn a_header_name_with_an_underscore_is_refused() {
    let scene = Scene::new();
    let response = scene.gateway.send(&scene.get().header("sigilum_namespace", "root"));
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(scene.upstream.untouched());
}

#[test]
fn health_is_answered_without_a_signature() {
    let gateway = shared();
    for (path, check) in [("/health", "health"), ("/health/live", "liveness"), ("/health/ready", "readiness")] {
        let response = gateway.send(&Request::new("GET", &gateway.authority(), path));
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.json(), json!({ "check": check, "status": "ok" }));
    }
}

#[test]
fn strangers_have_a_budget() {
    // Small, so that a slow machine exceeds it, too.
    let gateway = Setup::new().env("GATEWAY_STRANGER_RATE_PER_SECOND", "20").start();
    let upstream = Upstream::start();
    let connection = gateway.connect(&upstream, json!({}));
    let stranger = Agent::new("bob");
    let mut exchange = crate::support::client::Exchange::open(gateway.setup.ingress).unwrap();
    let mut limited = None;
    let requests: Vec<_> = (0..2000).map(|_| stranger.get(&gateway.authority(), &connection.at("/v1"))).collect();
    for request in &requests {
        let response = exchange.send(request).unwrap();
        if response.code() == "AUTH_RATE_LIMITED" {
            limited = Some(response);
            break;
        }
        assert_eq!(response.code(), "AUTH_CLAIM_REQUIRED");
    }
    let limited = limited.expect("2000 requests of a stranger in a row were all verified");
    assert_eq!(limited.status, 429);
    assert!(limited.header("retry-after").is_some());
    // Whoever is approved notices nothing.
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
}
