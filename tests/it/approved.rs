//! The main job: what an approved agent signs reaches the provider with the credential and without the proof.

use std::io::Read as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::client::Body;
use crate::support::client::Exchange;
use crate::support::gateway::LIMIT;
use crate::support::gateway::shared;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;
use crate::support::upstream::pattern;

/// The eight headers of the proof.
const PROOF: [&str; 8] = [
    "signature-input",
    "signature",
    "content-digest",
    "sigilum-namespace",
    "sigilum-subject",
    "sigilum-agent-id",
    "sigilum-agent-key",
    "sigilum-agent-cert",
];

#[test]
fn an_approved_request_reaches_the_provider_with_the_credential() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let response = gateway.post(&connection.at("/v1/ping"), b"\"ping\"");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json(), json!({ "ok": true }));
    let seen = upstream.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/ping"));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", connection.secret).as_str()));
    assert_eq!(seen.header("host"), Some(upstream.address.to_string().as_str()));
    assert_eq!(seen.body, b"\"ping\"");
}

#[test]
fn none_of_the_proof_reaches_the_provider() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let request = gateway
        .agent()
        .prepare("POST", &gateway.authority(), &connection.at("/v1"))
        .body(b"{}")
        .with(|draft| draft.agent_id = Some("agent-7".into()))
        .sign()
        .header("cookie", "session=agent")
        .header("authorization", "Bearer of-the-agent")
        .header("x-sigilum-admin-token", "guess")
        .header("x-sigilum-cluster", "authz")
        .header("x-envoy-original-path", "/admin")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-forwarded-host", "evil.example")
        .header("forwarded", "for=1.2.3.4")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!(gateway.send(&request).status, 200);
    let seen = upstream.only();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", connection.secret).as_str()));
    for name in seen.names() {
        assert!(!PROOF.contains(&name), "{name} reached the provider");
        let hidden =
            ["x-sigilum-", "x-envoy-", "x-forwarded-", "sigilum-"].iter().any(|prefix| name.starts_with(prefix));
        let named = ["cookie", "forwarded", "x-request-id", "traceparent"].contains(&name);
        assert!(!hidden && !named, "{name} reached the provider");
    }
}

#[test]
fn headers_of_the_agent_that_are_not_ours_reach_the_provider() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1")).header("x-version", "2026-01-01");
    assert_eq!(gateway.send(&request).status, 200);
    assert_eq!(upstream.only().header("x-version"), Some("2026-01-01"));
}

#[test]
fn every_component_set_of_the_profile_is_accepted() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    for (method, body, id) in
        [("GET", "", None), ("POST", "{}", None), ("DELETE", "", Some("agent-7")), ("PUT", "{}", Some("agent-7"))]
    {
        let draft = gateway.agent().prepare(method, &gateway.authority(), &connection.at("/v1")).body(body.as_bytes());
        let request = draft.with(|draft| draft.agent_id = id.map(str::to_owned)).sign();
        let response = gateway.send(&request);
        assert_eq!(response.status, 200, "{method} {id:?}: {}", response.text());
    }
    assert_eq!(upstream.count(), 4);
}

#[test]
fn a_header_key_connection_injects_its_own_header() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let fields = json!({ "auth_mode": "header_key", "auth_header_name": "X-Api-Key" });
    let connection = gateway.connect(&upstream, fields);
    let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1")).header("x-api-key", "of-the-agent");
    assert_eq!(gateway.send(&request).status, 200);
    let seen = upstream.only();
    let keys: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "x-api-key").map(|(_, value)| value).collect();
    assert_eq!(keys, [&connection.secret]);
    assert_eq!(seen.header("authorization"), None);
}

#[test]
fn a_basic_connection_injects_user_and_password() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let id = gateway.next_id();
    let created = gateway.create(&id, &upstream.base_url(), "user:pass word", json!({ "auth_mode": "basic" }));
    assert_eq!(created.status, 201, "{}", created.text());
    gateway.wait_in_force(&id);
    assert_eq!(gateway.get(&format!("/proxy/{id}/v1")).status, 200);
    let expected = format!("Basic {}", STANDARD.encode("user:pass word"));
    assert_eq!(upstream.only().header("authorization"), Some(expected.as_str()));
}

#[test]
fn a_query_connection_replaces_every_parameter_of_that_name() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({ "auth_mode": "query_param", "auth_header_name": "api_key" }));
    let response = gateway.get(&connection.at("/v1?b=2&api_key=mine&a=1&%61pi%5Fkey=mine&flag"));
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = upstream.only();
    assert_eq!(seen.target, format!("/v1?b=2&a=1&flag&api_key={}", connection.secret));
    assert_eq!(seen.header("authorization"), None);
}

#[test]
fn a_prefix_written_into_the_secret_is_not_doubled() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let id = gateway.next_id();
    assert_eq!(gateway.create(&id, &upstream.base_url(), "bearer abc123", json!({})).status, 201);
    gateway.wait_in_force(&id);
    assert_eq!(gateway.get(&format!("/proxy/{id}/v1")).status, 200);
    assert_eq!(upstream.only().header("authorization"), Some("Bearer abc123"));
}

#[test]
fn path_and_query_arrive_as_sent() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let rest = "/a%2Fb/c%20d//e/?z=1&a=%2F&b=+x;y&flag&z=2";
    let response = gateway.get(&connection.at(rest));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(upstream.only().target, rest);
}

#[test]
fn base_path_and_prefix_stand_before_the_rest() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let id = gateway.next_id();
    let base = format!("{}/base/", upstream.base_url());
    assert_eq!(gateway.create(&id, &base, "s3cret", json!({ "path_prefix": "/v2/" })).status, 201);
    gateway.wait_in_force(&id);
    assert_eq!(gateway.get(&format!("/proxy/{id}/things/7")).status, 200);
    assert_eq!(upstream.only().target, "/base/v2/things/7");
}

#[test]
fn slack_is_the_alias_of_slack_proxy() {
    let (gateway, upstream) = (shared(), Upstream::start());
    assert_eq!(gateway.create("slack-proxy", &upstream.base_url(), "xoxb-1", json!({})).status, 201);
    gateway.wait_in_force("slack-proxy");
    assert_eq!(gateway.get("/slack/auth.test").status, 200);
    assert_eq!(upstream.only().target, "/auth.test");
}

#[test]
fn a_header_named_in_connection_does_not_strip_the_credential() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let request = gateway
        .agent()
        .get(&gateway.authority(), &connection.at("/v1"))
        .header("connection", "authorization, x-sigilum-cluster");
    let response = gateway.send(&request);
    // Either way is safe, as long as nothing arrives without the credential.
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(upstream.only().header("authorization"), Some(format!("Bearer {}", connection.secret).as_str()));
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let feed = upstream.feed();
    let mut exchange = Exchange::open(gateway.setup.ingress).unwrap();
    exchange.write(&gateway.agent().get(&gateway.authority(), &connection.at("/stream")).bytes());
    for number in 0..5 {
        // The next event is not made before this one has been read.
        let event = format!("data: {number}\n\n");
        feed.blocking_send(event.clone().into()).unwrap();
        if number == 0 {
            let head = exchange.read_head("GET").unwrap();
            assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        }
        assert_eq!(exchange.read_piece().unwrap(), Some(event.into_bytes()));
    }
    drop(feed);
    assert_eq!(exchange.read_piece().unwrap(), None);
}

#[test]
fn ten_mebibytes_come_back_intact() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let response = gateway.get(&connection.at("/bytes/10485760"));
    assert_eq!(response.status, 200);
    assert!(response.body == pattern(10 * 1024 * 1024), "{} bytes came back changed", response.body.len());
}

#[test]
fn a_chunked_body_is_checked_and_forwarded() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let body = pattern(300_000);
    let request = gateway.agent().post(&gateway.authority(), &connection.at("/v1"), &body);
    let request = request.with_body(Body::Chunked(body.chunks(10_000).map(<[u8]>::to_vec).collect()));
    let response = gateway.send(&request);
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(upstream.only().body == body, "the body arrived changed");
}

#[test]
fn the_largest_body_passes() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let body = pattern(2 * 1024 * 1024);
    let response = gateway.post(&connection.at("/v1"), &body);
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(upstream.only().body == body, "the body arrived changed");
}

#[test]
fn what_a_provider_must_not_set_is_removed() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let response = gateway.get(&connection.at("/cookies"));
    assert_eq!(response.header("x-provider"), Some("kept"));
    for name in
        ["set-cookie", "alt-svc", "strict-transport-security", "clear-site-data", "x-envoy-upstream-service-time"]
    {
        assert_eq!(response.header(name), None, "{name}");
    }
}

#[test]
fn cookies_come_back_where_the_connection_allows_them() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({ "allow_set_cookie": true }));
    let response = gateway.get(&connection.at("/cookies"));
    assert_eq!(response.header("set-cookie"), Some("session=provider"));
}

#[test]
fn a_redirect_is_passed_on_and_not_followed() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let response = gateway.get(&connection.at("/redirect"));
    assert_eq!(response.status, 302);
    assert_eq!(response.header("location"), Some("http://elsewhere.example/redirect"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_redirect_of_a_query_connection_loses_the_credential() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({ "auth_mode": "query_param", "auth_header_name": "key" }));
    let response = gateway.get(&connection.at("/redirect?page=2"));
    assert_eq!(response.status, 302);
    assert!(upstream.only().target.contains(&connection.secret), "the credential was not injected");
    let everything = format!("{:?}{}", response.headers, response.text());
    assert!(!everything.contains(&connection.secret), "{everything}");
    assert_eq!(response.header("location"), Some("http://elsewhere.example/redirect?page=2"));
}

#[test]
fn extra_headers_are_added_and_traces_forwarded_where_the_connection_says_so() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection =
        gateway.connect(&upstream, json!({ "extra_headers": { "x-team": "payments" }, "forward_trace": true }));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1")).header("traceparent", trace);
    assert_eq!(gateway.send(&request).status, 200);
    let seen = upstream.only();
    assert_eq!(seen.header("x-team"), Some("payments"));
    assert_eq!(seen.header("traceparent"), Some(trace));
}

#[test]
fn every_answer_carries_a_request_id_of_ours() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let request = gateway.agent().get(&gateway.authority(), &connection.at("/v1")).header("x-request-id", "mine");
    let allowed = gateway.send(&request);
    let id = allowed.header("x-request-id").unwrap();
    assert!(id != "mine" && id.len() >= 16, "{id}");
    let refused = gateway.send(&request);
    assert_eq!(refused.code(), "AUTH_REPLAY_DETECTED");
    assert_eq!(refused.json()["request_id"].as_str(), refused.header("x-request-id"));
    assert_ne!(refused.header("x-request-id"), Some("mine"));
}

#[test]
fn a_provider_that_does_not_answer_is_an_upstream_error() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let address = upstream.address;
    drop(upstream);
    wait_until("the port is closed", LIMIT, || std::net::TcpStream::connect(address).is_err());
    let response = gateway.get(&connection.at("/v1"));
    assert_eq!((response.status, response.code().as_str()), (502, "UPSTREAM_ERROR"), "{}", response.text());
    assert!(!response.text().contains(&address.to_string()), "{}", response.text());
}

#[test]
fn statuses_of_the_provider_pass_unchanged() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    for status in [201, 404, 429, 500, 503] {
        let response = gateway.get(&connection.at(&format!("/status/{status}")));
        assert_eq!((response.status, response.text().as_str()), (status, "status"));
    }
}

#[test]
fn a_websocket_passes_where_the_connection_lists_it() {
    let gateway = shared();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let provider = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0_u8];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .unwrap();
        // From here on both sides may speak whenever they like.
        stream.write_all(b"welcome").unwrap();
        let mut said = [0_u8; 5];
        stream.read_exact(&mut said).unwrap();
        (String::from_utf8(head).unwrap().to_lowercase(), said)
    });
    let id = gateway.next_id();
    let fields = json!({ "upgrades": ["websocket"], "allowed_methods": ["GET"] });
    let created = gateway.create(&id, &base_url, "canary-websocket", fields);
    assert_eq!(created.status, 201, "{}", created.text());
    wait_until("the connection is in force", LIMIT, || {
        gateway.post(&format!("/proxy/{id}/probe"), b"{}").code() == "METHOD_OR_PATH_FORBIDDEN"
    });

    let request = gateway.agent().get(&gateway.authority(), &format!("/proxy/{id}/socket"));
    let request = request.header("connection", "Upgrade").header("upgrade", "websocket");
    let mut exchange = Exchange::open(gateway.setup.ingress).unwrap();
    exchange.write(&request.bytes());
    let head = exchange.read_head("GET").unwrap();
    assert_eq!((head.status, head.header("upgrade")), (101, Some("websocket")));
    assert_eq!(exchange.read_piece().unwrap(), Some(b"welcome".to_vec()));
    exchange.write(b"hello");
    let (head, said) = provider.join().unwrap();
    assert_eq!(&said, b"hello");
    assert!(
        head.starts_with("get /socket http/1.1") && head.contains("authorization: bearer canary-websocket"),
        "{head}"
    );
    assert!(PROOF.iter().all(|name| !head.contains(&format!("\n{name}:"))), "{head}");
}
