//! The grammar of 2.4, the order of its faults, and duplicate headers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

use std::net::IpAddr;

use super::*;
use crate::domain::request::BodyView;

struct Headers(Vec<(&'static str, Vec<u8>)>);

impl RequestView for Headers {
    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn scheme(&self) -> &[u8] {
        b"http"
    }

    fn authority(&self) -> &[u8] {
        b"h"
    }

    fn target(&self) -> &[u8] {
        b"/"
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (*name, value.as_slice()))
    }

    fn body(&self) -> BodyView<'_> {
        BodyView::Whole(b"")
    }

    fn client_address(&self) -> Option<IpAddr> {
        None
    }
}

const NAMES: [&str; 8] = [
    "signature-input",
    "signature",
    "sigilum-namespace",
    "sigilum-subject",
    "sigilum-agent-id",
    "sigilum-agent-key",
    "sigilum-agent-cert",
    "content-digest",
];

const INPUT: &str = "sig1=(\"@method\" \"@target-uri\" \"sigilum-namespace\" \"sigilum-subject\" \"sigilum-agent-key\" \
                     \"sigilum-agent-cert\");created=1700000000;keyid=\"k\";alg=\"ed25519\";nonce=\"n\"";

fn signature() -> String {
    format!("sig1=:{}:", STANDARD.encode([7_u8; 64]))
}

fn parse<'a>(input: &'a str, signature: &'a str) -> Result<SignatureParams<'a>, DenyReason> {
    SignatureParams::parse(&SignedHeaders {
        signature_input: Some(input),
        signature: Some(signature),
        ..SignedHeaders::default()
    })
}

fn fault(input: &str) -> SignatureFault {
    match parse(input, &signature()) {
        Err(DenyReason::SignatureInvalid(fault)) => fault,
        other => panic!("{other:?} for {input}"),
    }
}

#[test]
fn every_header_lands_in_its_field_whatever_its_case() {
    let request = Headers(NAMES.iter().map(|name| (*name, format!(" \t{name} ").into_bytes())).collect());
    let found = SignedHeaders::collect(&request).unwrap();
    let values = [
        found.signature_input,
        found.signature,
        found.namespace,
        found.subject,
        found.agent_id,
        found.agent_key,
        found.agent_cert,
        found.content_digest,
    ];
    assert_eq!(values, NAMES.map(Some));
    let upper = Headers(vec![("SIGILUM-AGENT-ID", b"x".to_vec()), ("Signature-Input", b"y".to_vec())]);
    let found = SignedHeaders::collect(&upper).unwrap();
    assert_eq!((found.agent_id, found.signature_input), (Some("x"), Some("y")));
}

#[test]
fn other_headers_repeat_as_they_like_and_empty_ones_are_absent() {
    let request = Headers(vec![
        ("cookie", b"a".to_vec()),
        ("cookie", b"\xff".to_vec()),
        ("x-sigilum-subjects", b"".to_vec()),
        ("content-lengthxx", b"".to_vec()),
        ("sigilum-agent-id", b"  ".to_vec()),
    ]);
    assert_eq!(SignedHeaders::collect(&request), Ok(SignedHeaders::default()));
}

#[test]
fn a_repeated_header_is_refused_also_when_one_is_empty() {
    for name in NAMES {
        for (first, second) in [("a", "a"), ("a", "b"), ("", "a"), ("a", "")] {
            let request = Headers(vec![(name, first.into()), ("x", b"".to_vec()), (name, second.into())]);
            assert_eq!(SignedHeaders::collect(&request), Err(DenyReason::HeadersInvalid), "{name}");
        }
    }
}

#[test]
fn joined_headers_and_strange_bytes_are_refused() {
    for name in ["sigilum-namespace", "sigilum-agent-key", "sigilum-agent-cert"] {
        let request = Headers(vec![(name, b"a, b".to_vec())]);
        assert_eq!(SignedHeaders::collect(&request), Err(DenyReason::HeadersInvalid), "{name}");
    }
    let request = Headers(vec![("sigilum-subject", "Doe, Jané".into())]);
    assert_eq!(SignedHeaders::collect(&request).unwrap().subject, Some("Doe, Jané"));
    for value in [&b"a\nb"[..], b"a\0b", b"a\x7fb", b"\xff", b"a\r"] {
        let request = Headers(vec![("sigilum-subject", value.to_vec())]);
        assert_eq!(SignedHeaders::collect(&request), Err(DenyReason::HeadersInvalid), "{value:?}");
    }
}

#[test]
fn a_signature_or_digest_of_another_form_is_no_duplicate() {
    for value in [&b"sha-256=:AAAA:, sha-512=:AAAA:"[..], b"a\0b", b"\xff", b"sig1=:AAAA:, sig2=:AAAA:"] {
        let request = Headers(vec![("content-digest", value.to_vec()), ("signature", value.to_vec())]);
        let found = SignedHeaders::collect(&request).unwrap();
        let shown = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0')).unwrap_or(UNREADABLE);
        assert_eq!((found.content_digest, found.signature), (Some(shown), Some(shown)));
        let invalid = DenyReason::SignatureInvalid(SignatureFault::SignatureHeaderInvalid);
        let found = SignedHeaders { signature_input: Some(INPUT), ..found };
        assert_eq!(SignatureParams::parse(&found), Err(invalid), "{shown}");
    }
}

#[test]
fn the_honest_form_is_read() {
    let signature = signature();
    let params = parse(INPUT, &signature).unwrap();
    assert_eq!(params.components, ComponentSet::A);
    assert_eq!(params.created, UnixSeconds(1_700_000_000));
    assert_eq!((params.key_id, params.nonce, params.signature), ("k", "n", [7; 64]));
    for set in [ComponentSet::A, ComponentSet::B, ComponentSet::C, ComponentSet::D] {
        let names: Vec<_> = set.names().iter().map(|name| format!("\"{name}\"")).collect();
        let input = format!("sig1=({});created=1;keyid=\"k\";alg=\"ed25519\";nonce=\"n\"", names.join(" "));
        assert_eq!(parse(&input, &signature).unwrap().components, set);
        assert_eq!(ComponentSet::of(set.covers_digest(), set.covers_agent_id()), set);
    }
}

#[test]
fn what_the_profile_tolerates_is_tolerated() {
    let signature = signature();
    for (from, to) in [
        ("alg=\"ed25519\"", "alg=\"ED25519\""),
        ("\" \"", "\"  \t\""),
        ("(\"", "( \""),
        ("\")", "\" )"),
        ("created=1700000000", "created=0001700000000"),
        ("nonce=\"n\"", "nonce=\" a, b;c=\u{e9} \""),
        ("keyid=\"k\"", "keyid=\"a;alg=(x)\""),
    ] {
        let input = INPUT.replace(from, to);
        assert!(parse(&input, &signature).is_ok(), "{input}");
    }
}

#[test]
fn everything_else_is_no_signature_input() {
    for (from, to) in [
        ("sig1=(", "sig2=("),
        ("sig1=(", "sig1= ("),
        ("sig1=(", "SIG1=("),
        (");created", ") ;created"),
        (");created", "));created"),
        ("created=1700000000", "created="),
        ("created=1700000000", "created=-1"),
        ("created=1700000000", "created=1.5"),
        ("created=1700000000", "created=1 "),
        ("created=1700000000", "created=\"1\""),
        ("keyid=\"k\"", "keyid=\"\""),
        ("keyid=\"k\"", "keyid=k"),
        (";keyid=\"k\"", ""),
        ("alg=\"ed25519\"", "alg=\"\""),
        (";alg=\"ed25519\"", ""),
        ("nonce=\"n\"", "nonce=\"\""),
        ("nonce=\"n\"", "nonce=\"a\"b\""),
        ("nonce=\"n\"", "nonce=\"n\";expires=1"),
        ("nonce=\"n\"", "nonce=\"n"),
        (";nonce=\"n\"", ""),
        (";keyid=\"k\";alg=\"ed25519\"", ";alg=\"ed25519\";keyid=\"k\""),
        ("\"@method\"", "@method"),
        ("\"@method\"", "\"@method"),
        ("\"@method\"", "\""),
        ("nonce=\"n\"", &format!("nonce=\"{}\"", "n".repeat(MAX_SIGNATURE_INPUT_BYTES))),
    ] {
        let input = INPUT.replacen(from, to, 1);
        assert_ne!(input, INPUT, "the change {from} -> {to:.40} changes something");
        assert_eq!(fault(&input), SignatureFault::SignatureInputInvalid, "{input:.300}");
    }
    assert_eq!(fault(&format!("{INPUT}, {INPUT}")), SignatureFault::SignatureInputInvalid);
}

#[test]
fn faults_come_in_the_sdks_order() {
    let broken = "sig1=:x:";
    let order = [
        (INPUT.replace("ed25519", "rsa"), SignatureFault::AlgorithmUnsupported),
        (INPUT.replace("1700000000", "0"), SignatureFault::CreatedInvalid),
        (INPUT.replace("1700000000", "9223372036854775808"), SignatureFault::CreatedInvalid),
        (INPUT.replace("\"sigilum-subject\" ", ""), SignatureFault::SubjectComponentMissing),
        (INPUT.replace("(", "(\"date\" "), SignatureFault::SignedComponentsInvalid),
        (
            INPUT.replace("\"@method\" \"@target-uri\"", "\"@target-uri\" \"@method\""),
            SignatureFault::SignedComponentsInvalid,
        ),
        (INPUT.replace("\"@method\" ", ""), SignatureFault::SignedComponentsInvalid),
        (INPUT.replace(" \"sigilum-agent-cert\"", ""), SignatureFault::SignedComponentsInvalid),
        (INPUT.replace("\"@method\"", "\"@method\" \"@method\""), SignatureFault::SignedComponentsInvalid),
        (INPUT.replace("\"@method\"", "\"@METHOD\""), SignatureFault::SignedComponentsInvalid),
    ];
    for (input, expected) in &order {
        assert_eq!(fault(input), *expected, "{input}");
    }
    let header = Err(DenyReason::SignatureInvalid(SignatureFault::SignatureHeaderInvalid));
    assert_eq!(parse(&order[3].0, broken), header, "the signature header is read before the component list");
    let algorithm = Err(DenyReason::SignatureInvalid(SignatureFault::AlgorithmUnsupported));
    assert_eq!(parse(&order[0].0.replace("1700000000", "0"), broken), algorithm);
    assert_eq!(parse(&INPUT.replace("\"n\"", "\" \""), &signature()), Err(DenyReason::NonceInvalid));
    let missing = Err(DenyReason::SignatureInvalid(SignatureFault::MissingSignatureHeaders));
    assert_eq!(SignatureParams::parse(&SignedHeaders::default()), missing);
    let half = SignedHeaders { signature_input: Some(INPUT), ..SignedHeaders::default() };
    assert_eq!(SignatureParams::parse(&half), missing);
}

#[test]
fn a_signature_has_one_spelling() {
    let good = signature();
    let encoded = STANDARD.encode([7_u8; 64]);
    for bad in [
        encoded.clone(),
        format!("sig1=:{encoded}"),
        format!("sig1={encoded}:"),
        format!("sig2=:{encoded}:"),
        format!("sig1=::{encoded}:"),
        format!("sig1=:{encoded}:, sig1=:{encoded}:"),
        format!("sig1=:{}:", encoded.trim_end_matches('=')),
        format!("sig1=:{}:", STANDARD.encode([7_u8; 63])),
        format!("sig1=:{}:", STANDARD.encode([7_u8; 65])),
        // The last character before the padding carries four bits that must be zero.
        good.replace("Bw==", "Bx=="),
        good.replace("Bw==", "B-=="),
    ] {
        assert_ne!(bad, good);
        let expected = Err(DenyReason::SignatureInvalid(SignatureFault::SignatureHeaderInvalid));
        assert_eq!(parse(INPUT, &bad), expected, "{bad}");
    }
}

#[test]
fn age_has_two_inclusive_ends() {
    let now = UnixSeconds(1_700_000_000);
    let max = Duration::from_secs(300);
    for created in [now.0 - 300, now.0, now.0 + 5] {
        assert_eq!(check_age(UnixSeconds(created), now, max), Ok(()));
    }
    for created in [0, now.0 - 301, now.0 + 6, u64::MAX] {
        let expected = Err(DenyReason::SignatureInvalid(SignatureFault::TimestampOutOfRange));
        assert_eq!(check_age(UnixSeconds(created), now, max), expected);
    }
}
