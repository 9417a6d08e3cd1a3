//! Headers of the proof that nobody signs, or that have a form of their own, and what is made of them.

use serde_json::json;

use crate::support::agent::Draft;
use crate::support::agent::random_hex;
use crate::support::client::Exchange;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::gateway::Connection;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::gateway::shared;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

struct Scene {
    gateway: &'static Gateway,
    upstream: Upstream,
    connection: Connection,
}

impl Scene {
    fn new() -> Self {
        let (gateway, upstream) = (shared(), Upstream::start());
        let connection = gateway.connect(&upstream, json!({}));
        Self { gateway, upstream, connection }
    }

    fn draft(&self, method: &str) -> Draft {
        self.gateway.agent().prepare(method, &self.gateway.authority(), &self.connection.at("/v1"))
    }

    fn post(&self) -> Request {
        self.draft("POST").body(b"{\"amount\":1}").sign()
    }

    fn refuses(&self, response: &Response, status: u16, code: &str) {
        assert_eq!((response.status, response.code().as_str()), (status, code), "{}", response.text());
        assert!(self.upstream.untouched());
    }
}

#[test]
fn a_digest_nobody_signed_counts_for_nothing() {
    let scene = Scene::new();
    for value in ["sha-256=:AAAA:, sha-512=:AAAA:", "x", "sha-256=:\u{e9}:"] {
        for method in ["GET", "POST"] {
            let request = scene.draft(method).sign().header("content-digest", value);
            let response = scene.gateway.send(&request);
            assert_eq!(response.status, 200, "{method} {value}: {}", response.text());
        }
    }
    assert!(scene.upstream.seen().iter().all(|one| one.header("content-digest").is_none()));
}

#[test]
fn a_digest_or_a_signature_of_several_members_does_not_verify() {
    let scene = Scene::new();
    for (name, more) in [("content-digest", "sha-512=:AAAA:"), ("signature", "sig2=:AAAA:")] {
        let request = scene.post().replace(name, |value| format!("{value}, {more}"));
        scene.refuses(&scene.gateway.send(&request), 403, "AUTH_SIGNATURE_INVALID");
    }
}

#[test]
fn a_digest_or_a_signature_that_is_no_text_does_not_verify() {
    let scene = Scene::new();
    for name in ["content-digest", "signature"] {
        let request = scene.post().replace(name, |value| format!("{value}~"));
        let mut bytes = request.bytes();
        let at = bytes.windows(3).position(|three| three == b":~\r").unwrap() + 1;
        bytes[at] = 0xe9;
        let mut exchange = Exchange::open(scene.gateway.setup.ingress).unwrap();
        assert!(exchange.write(&bytes));
        scene.refuses(&exchange.read_answer("POST").unwrap(), 403, "AUTH_SIGNATURE_INVALID");
    }
}

#[test]
fn blanks_around_a_nonce_do_not_make_another_one() {
    let scene = Scene::new();
    let nonce = random_hex(16);
    let with = |nonce: String| scene.gateway.send(&scene.draft("GET").with(|draft| draft.nonce = nonce).sign());
    assert_eq!(with(format!(" {nonce}")).status, 200);
    for again in [nonce.clone(), format!("{nonce} "), format!("  {nonce}\t")] {
        assert_eq!(with(again).code(), "AUTH_REPLAY_DETECTED");
    }
    assert_eq!(scene.upstream.count(), 1);
}

#[test]
fn a_request_with_a_digest_does_not_upgrade() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let id = gateway.next_id();
    let fields = json!({ "upgrades": ["websocket"], "allowed_methods": ["GET"] });
    assert_eq!(gateway.create(&id, &upstream.base_url(), "canary-digest", fields).status, 201);
    wait_until("the connection is in force", LIMIT, || {
        gateway.post(&format!("/proxy/{id}/probe"), b"{}").code() == "METHOD_OR_PATH_FORBIDDEN"
    });
    let upgrade = || {
        let request = gateway.agent().get(&gateway.authority(), &format!("/proxy/{id}/socket"));
        request.header("connection", "upgrade").header("upgrade", "websocket")
    };
    for value in ["x", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"] {
        let response = gateway.send(&upgrade().header("content-digest", value));
        assert_eq!((response.status, response.code().as_str()), (403, "METHOD_OR_PATH_FORBIDDEN"), "{value}");
    }
    assert!(upstream.untouched());
    // It is the digest: without one the provider is asked, which speaks no WebSocket.
    let mut exchange = Exchange::open(gateway.setup.ingress).unwrap();
    assert!(exchange.write(&upgrade().bytes()));
    exchange.read_head("GET").unwrap();
    assert_eq!(upstream.only().target, "/socket");
}

#[test]
fn behind_a_proxy_the_first_scheme_it_names_is_the_signed_one() {
    let (gateway, upstream) =
        (Setup::new().yaml("gateway: {trusted_hops: 1, authorities: [gw.example]}\n").start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    for (said, meant) in [
        ("https", "https"),
        ("HTTPS", "https"),
        ("https, http", "https"),
        (" Https ,http", "https"),
        ("http", "http"),
        ("http, https", "http"),
        ("ftp", "http"),
        ("ftp, https", "http"),
        (",https", "http"),
    ] {
        for scheme in ["http", "https"] {
            let target = connection.at("/v1");
            let draft = gateway.agent().prepare("GET", "gw.example", &target);
            let request = draft.with(|draft| draft.signed_uri = Some(format!("{scheme}://gw.example{target}"))).sign();
            let request = request.header("x-forwarded-for", "192.0.2.7").header("x-forwarded-proto", said);
            let expected = if scheme == meant { (200, "") } else { (403, "AUTH_SIGNATURE_INVALID") };
            let response = gateway.send(&request);
            assert_eq!((response.status, response.code().as_str()), expected, "{said:?} signed as {scheme}");
        }
    }
}
