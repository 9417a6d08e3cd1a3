//! The base against the golden signatures of the Go SDK, and the spellings of the target URI.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::domain::signature::certificate::Certificate;
use crate::domain::time::UnixSeconds;

const CERTIFICATE: &str = "eyJ2ZXJzaW9uIjoxLCJuYW1lc3BhY2UiOiJmaXh0dXJlLWFsaWNlIiwiZGlkIjoiZGlkOnNpZ2lsdW06Zml4dHVyZS1hbGljZSIsImtleUlkIjoiZGlkOnNpZ2lsdW06Zml4dHVyZS1hbGljZSNlZDI1NTE5LTk5ZmIwMGRjMTZlZTU1NWEiLCJwdWJsaWNLZXkiOiJlZDI1NTE5OkowN2RqL2NvNGRpQ21RWVRUUUdxNGFkaG5NS1llakhhekNZVVE3ZUJoMGs9IiwiaXNzdWVkQXQiOiIyMDI2LTAyLTIwVDE4OjA0OjI2WiIsImV4cGlyZXNBdCI6bnVsbCwicHJvb2YiOnsiYWxnIjoiZWQyNTUxOSIsInNpZyI6InZHcC1XTG1TcjBCV05jaTJsQmhjSk9SZzM5b3QtM1V1MWFhVkcyd0dFS0xJdEtfOTY0aEZhUnJWZDdESGZfMmUzeWtHcElhY29NOVE1Z3NfdFB5NkR3In19";
const KEY: &str = "ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=";
const KEY_ID: &str = "did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a";

fn headers(subject: &'static str, digest: Option<&'static str>) -> SignedHeaders<'static> {
    SignedHeaders {
        namespace: Some("fixture-alice"),
        subject: Some(subject),
        agent_key: Some(KEY),
        agent_cert: Some(CERTIFICATE),
        content_digest: digest,
        ..SignedHeaders::default()
    }
}

fn params(components: ComponentSet) -> SignatureParams<'static> {
    SignatureParams {
        components,
        created: UnixSeconds(1_700_000_000),
        key_id: KEY_ID,
        nonce: "123e4567-e89b-12d3-a456-426614174000",
        signature: [0; 64],
    }
}

fn golden(method: &str, url: &str, headers: &SignedHeaders<'_>, set: ComponentSet, signature: &str) {
    let mut base = Vec::new();
    write_base(&mut base, method.as_bytes(), &TargetUri::whole(url.as_bytes()), headers, &params(set)).unwrap();
    let signature = base64::Engine::decode(&STANDARD, signature).unwrap();
    let certificate = Certificate::decode(CERTIFICATE).unwrap().verify().unwrap();
    certificate.verify_signature(&base, &signature.try_into().unwrap()).unwrap();
}

#[test]
fn golden_signatures_verify() {
    golden(
        "GET",
        "https://api.sigilum.local/v1/namespaces/alice/claims?status=approved",
        &headers("fixture-alice", None),
        ComponentSet::A,
        "jaRXaGq5rhmHNHZ1fNtBzIjIR3Sj7djYr+boo0F9W6FXHsZ8+xCr0+zNj+Snh9eUS47bu0Iq7AmCa2Zy0CGwBA==",
    );
    golden(
        "POST",
        "https://api.sigilum.local/v1/namespaces/alice/claims",
        &headers("customer-12345", Some("sha-256=:5toCTO6LRikiTvJ0Ha+F6ucUxaTs3wMsnaImDBR0NZg=:")),
        ComponentSet::B,
        "K/V1jiAKCLeivPNz690xNDtf8pfzK1QeeQr7W3a6QwwzgdmHFeQBpJNhT2IvjEKGkYIkUl4YOZUcDYm8u0/TBQ==",
    );
}

#[test]
fn the_base_is_one_line_per_component_and_no_line_feed_at_the_end() {
    let mut base = vec![1, 2, 3];
    let headers = SignedHeaders { agent_id: Some("agent 7"), agent_cert: Some("CERT"), ..headers("bob", Some("D")) };
    let uri = TargetUri::whole(b"http://h/p");
    write_base(&mut base, b"PoSt", &uri, &headers, &params(ComponentSet::D)).unwrap();
    let expected = format!(
        "\"@method\": post\n\"@target-uri\": http://h/p\n\"content-digest\": D\n\"sigilum-namespace\": fixture-alice\n\
         \"sigilum-subject\": bob\n\"sigilum-agent-id\": agent 7\n\"sigilum-agent-key\": {KEY}\n\
         \"sigilum-agent-cert\": CERT\n\"@signature-params\": (\"@method\" \"@target-uri\" \"content-digest\" \
         \"sigilum-namespace\" \"sigilum-subject\" \"sigilum-agent-id\" \"sigilum-agent-key\" \"sigilum-agent-cert\")\
         ;created=1700000000;keyid=\"{KEY_ID}\";alg=\"ed25519\";nonce=\"123e4567-e89b-12d3-a456-426614174000\""
    );
    assert_eq!(String::from_utf8(base).unwrap(), expected);
}

#[test]
fn a_covered_header_that_is_missing_or_a_control_byte_leaves_no_base() {
    let invalid = Err(DenyReason::SignatureInvalid(SignatureFault::SigningBaseInvalid));
    let mut base = Vec::new();
    let uri = TargetUri::whole(b"http://h/p");
    let whole = headers("bob", None);
    for (headers, set) in [
        (whole, ComponentSet::B),
        (whole, ComponentSet::C),
        (SignedHeaders { subject: None, ..whole }, ComponentSet::A),
        (SignedHeaders { namespace: None, ..whole }, ComponentSet::A),
        (SignedHeaders { agent_key: None, ..whole }, ComponentSet::A),
        (SignedHeaders { agent_cert: None, ..whole }, ComponentSet::A),
    ] {
        assert_eq!(write_base(&mut base, b"GET", &uri, &headers, &params(set)), invalid);
    }
    for (method, uri) in [("", "http://h/"), ("GET\n", "http://h/"), ("GET", "http://h/\n\"x\": y"), ("GET", "h\x7f")] {
        let uri = TargetUri::whole(uri.as_bytes());
        assert_eq!(write_base(&mut base, method.as_bytes(), &uri, &whole, &params(ComponentSet::A)), invalid);
    }
}

fn spellings(scheme: &str, authority: &str, target: &str) -> Vec<String> {
    target_uris(scheme.as_bytes(), authority.as_bytes(), target.as_bytes())
        .map(|uri| {
            let mut out = Vec::new();
            uri.write(&mut out);
            String::from_utf8(out).unwrap()
        })
        .collect()
}

#[test]
fn the_raw_target_is_tried_first_and_never_more_than_three() {
    assert_eq!(spellings("http", "h:38000", "/a%2Fb?x=|"), ["http://h:38000/a%2Fb?x=|"]);
    assert_eq!(spellings("https", "h", "/a"), ["https://h/a", "https://h:443/a"]);
    assert_eq!(spellings("http", "[::1]", "/a"), ["http://[::1]/a", "http://[::1]:80/a"]);
    assert_eq!(spellings("http", "[::1]:1", "/"), ["http://[::1]:1/", "http://[::1]:1"]);
    assert_eq!(spellings("http", "h", "/"), ["http://h/", "http://h", "http://h:80/"]);
    assert_eq!(spellings("ws", "h", "/"), ["ws://h/", "ws://h"]);
}
