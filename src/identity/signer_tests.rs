//! The signer against the golden headers of the Go SDK, and what it refuses.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use super::*;
use crate::domain::ids::Namespace;

const SEED: &str = "ZMLKzZSCxP8QXOO1vlmejAvdFaesd3QC6JC9iCt8FfA=";

fn golden() -> Identity {
    let seed = STANDARD.decode(SEED).unwrap().try_into().unwrap();
    // 2026-02-20T18:04:26Z
    Identity::from_seed(Namespace::parse("fixture-alice").unwrap(), &seed, UnixSeconds(1_771_610_666))
}

fn get() -> Outgoing<'static> {
    Outgoing {
        method: "GET",
        url: "https://api.sigilum.local/v1/namespaces/alice/claims?status=approved",
        body: b"",
        subject: None,
        agent_id: None,
        created: UnixSeconds(1_700_000_000),
        nonce: "123e4567-e89b-12d3-a456-426614174000",
    }
}

fn value(headers: &[(&'static str, String)], name: &str) -> String {
    headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

#[test]
fn golden_requests_get_golden_headers() {
    let identity = golden();
    assert_eq!(identity.key_id(), "did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a");
    assert_eq!(identity.certificate().issued_at, "2026-02-20T18:04:26Z");
    let proof = "vGp-WLmSr0BWNci2lBhcJORg39ot-3Uu1aaVG2wGEKLItK_964hFaRrVd7DHf_2e3ykGpIacoM9Q5gs_tPy6Dw";
    assert_eq!(identity.certificate().proof.sig, proof);
    let signed = identity.signer().sign(&get()).unwrap();
    assert_eq!(
        value(&signed, "signature"),
        "sig1=:jaRXaGq5rhmHNHZ1fNtBzIjIR3Sj7djYr+boo0F9W6FXHsZ8+xCr0+zNj+Snh9eUS47bu0Iq7AmCa2Zy0CGwBA==:"
    );
    assert_eq!(value(&signed, "sigilum-subject"), "fixture-alice");
    let post = Outgoing {
        method: "POST",
        url: "https://api.sigilum.local/v1/namespaces/alice/claims#part",
        body: br#"{"action":"approve"}"#,
        subject: Some(" customer-12345 "),
        ..get()
    };
    let signed = identity.signer().sign(&post).unwrap();
    assert_eq!(
        value(&signed, "signature"),
        "sig1=:K/V1jiAKCLeivPNz690xNDtf8pfzK1QeeQr7W3a6QwwzgdmHFeQBpJNhT2IvjEKGkYIkUl4YOZUcDYm8u0/TBQ==:"
    );
    assert_eq!(value(&signed, "content-digest"), "sha-256=:5toCTO6LRikiTvJ0Ha+F6ucUxaTs3wMsnaImDBR0NZg=:");
    assert_eq!(
        value(&signed, "signature-input"),
        "sig1=(\"@method\" \"@target-uri\" \"content-digest\" \"sigilum-namespace\" \"sigilum-subject\" \
         \"sigilum-agent-key\" \"sigilum-agent-cert\");created=1700000000;\
         keyid=\"did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a\";alg=\"ed25519\";\
         nonce=\"123e4567-e89b-12d3-a456-426614174000\""
    );
}

#[test]
fn an_agent_id_is_signed_and_a_blank_one_is_not_sent() {
    let identity = golden();
    let signed = identity.signer().sign(&Outgoing { agent_id: Some(" bot "), ..get() }).unwrap();
    assert_eq!(value(&signed, "sigilum-agent-id"), "bot");
    assert!(value(&signed, "signature-input").contains("\"sigilum-subject\" \"sigilum-agent-id\" "));
    let signed = identity.signer().sign(&Outgoing { agent_id: Some(" "), subject: Some(""), ..get() }).unwrap();
    assert_eq!(signed.len(), 6);
    assert_eq!(value(&signed, "sigilum-subject"), "fixture-alice");
}

#[test]
fn what_nobody_could_verify_is_not_signed() {
    let identity = golden();
    let cases = [
        (Outgoing { method: "", ..get() }, SignError::Method),
        (Outgoing { method: "GE T", ..get() }, SignError::Method),
        (Outgoing { url: "/proxy/x", ..get() }, SignError::Url),
        (Outgoing { url: "http://", ..get() }, SignError::Url),
        (Outgoing { url: "http://h/a b", ..get() }, SignError::Url),
        (Outgoing { url: "http://h/é", ..get() }, SignError::Url),
        (Outgoing { subject: Some("a\nb"), ..get() }, SignError::Identity),
        (Outgoing { agent_id: Some("a\u{7f}b"), ..get() }, SignError::Identity),
        (Outgoing { nonce: " ", ..get() }, SignError::Nonce),
        (Outgoing { nonce: "a\"b", ..get() }, SignError::Nonce),
    ];
    for (request, expected) in cases {
        assert_eq!(identity.signer().sign(&request).unwrap_err(), expected, "{request:?}");
    }
}

#[test]
fn nothing_printable_holds_the_seed() {
    let shown = format!("{:?}", golden());
    assert_eq!(shown, "Identity(\"did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a\")");
}
