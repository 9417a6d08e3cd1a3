//! Headers of the proof that nobody signs, or that have a form of their own, and what is made of them.

use serde_json::Value;
use serde_json::json;

use crate::support::agent::Draft;
use crate::support::agent::random_hex;
use crate::support::client::Exchange;
use crate::support::client::Request;
use crate::support::client::Response;
use crate::support::gateway::Connection;
use crate::support::gateway::Gateway;
use crate::support::gateway::shared;
use crate::support::upstream::Upstream;

struct Scene {
    gateway: &'static Gateway,
    upstream: Upstream,
    connection: Connection,
}

impl Scene {
    fn with(fields: Value) -> Self {
        let (gateway, upstream) = (shared(), Upstream::start());
        let connection = gateway.connect(&upstream, fields);
        Self { gateway, upstream, connection }
    }

    fn new() -> Self {
        Self::with(json!({}))
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
