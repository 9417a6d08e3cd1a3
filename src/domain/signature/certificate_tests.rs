//! Certificates of every SDK's shape are read; contradictory ones are not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE as PADDED;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;

use super::*;

// The golden identity.
const SEED: &str = "ZMLKzZSCxP8QXOO1vlmejAvdFaesd3QC6JC9iCt8FfA=";
const SIGNATURE: &str = "vGp-WLmSr0BWNci2lBhcJORg39ot-3Uu1aaVG2wGEKLItK_964hFaRrVd7DHf_2e3ykGpIacoM9Q5gs_tPy6Dw";
const HEADER: &str = "eyJ2ZXJzaW9uIjoxLCJuYW1lc3BhY2UiOiJmaXh0dXJlLWFsaWNlIiwiZGlkIjoiZGlkOnNpZ2lsdW06Zml4dHVyZS1hbGljZSIsImtleUlkIjoiZGlkOnNpZ2lsdW06Zml4dHVyZS1hbGljZSNlZDI1NTE5LTk5ZmIwMGRjMTZlZTU1NWEiLCJwdWJsaWNLZXkiOiJlZDI1NTE5OkowN2RqL2NvNGRpQ21RWVRUUUdxNGFkaG5NS1llakhhekNZVVE3ZUJoMGs9IiwiaXNzdWVkQXQiOiIyMDI2LTAyLTIwVDE4OjA0OjI2WiIsImV4cGlyZXNBdCI6bnVsbCwicHJvb2YiOnsiYWxnIjoiZWQyNTUxOSIsInNpZyI6InZHcC1XTG1TcjBCV05jaTJsQmhjSk9SZzM5b3QtM1V1MWFhVkcyd0dFS0xJdEtfOTY0aEZhUnJWZDdESGZfMmUzeWtHcElhY29NOVE1Z3NfdFB5NkR3In19";

fn golden() -> CertificateBody {
    CertificateBody {
        version: 1,
        namespace: "fixture-alice".to_owned(),
        did: "did:sigilum:fixture-alice".to_owned(),
        key_id: "did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a".to_owned(),
        public_key: "ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=".to_owned(),
        issued_at: "2026-02-20T18:04:26Z".to_owned(),
        expires_at: None,
        proof: ProofBody { alg: "ed25519".to_owned(), sig: SIGNATURE.to_owned() },
    }
}

/// The golden certificate, changed, and signed anew with the golden key.
fn signed(change: impl FnOnce(&mut CertificateBody)) -> CertificateBody {
    let mut body = golden();
    change(&mut body);
    let seed: [u8; 32] = STANDARD.decode(SEED).unwrap().try_into().unwrap();
    body.proof.sig = URL_SAFE_NO_PAD.encode(SigningKey::from_bytes(&seed).sign(body.payload().as_bytes()).to_bytes());
    body
}

fn fault(json: &str) -> SignatureFault {
    Certificate::decode(&URL_SAFE_NO_PAD.encode(json)).and_then(Certificate::verify).unwrap_err()
}

#[test]
fn the_golden_certificate_is_written_and_read() {
    assert_eq!(golden().header(), HEADER);
    assert_eq!(signed(|_| {}), golden());
    let verified = Certificate::decode(HEADER).unwrap().verify().unwrap();
    assert_eq!(verified.namespace().as_str(), "fixture-alice");
    assert_eq!(verified.key_id(), golden().key_id);
    assert_eq!(verified.key().text(), golden().public_key);
    assert_eq!(verified.expires_at(), None);
}

#[test]
fn shapes_of_other_sdks_are_read() {
    let compact = serde_json::to_string(&golden()).unwrap();
    let spaced = compact.replace("\":", "\": ").replace(",\"", ", \"");
    let unknown = compact.replacen('{', "{\"issuedBy\":{\"a\":[1]},\"migrationHint\":\"x\",", 1);
    let alphabetical = {
        let value: serde_json::Value = serde_json::from_str(&compact).unwrap();
        let sorted: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_value(value).unwrap();
        serde_json::to_string(&sorted).unwrap()
    };
    let without_expiry = compact.replace("\"expiresAt\":null,", "");
    for json in [spaced, unknown, alphabetical, without_expiry] {
        Certificate::decode(&URL_SAFE_NO_PAD.encode(&json)).unwrap().verify().unwrap();
        // Java's encoder may pad.
        Certificate::decode(&PADDED.encode(&json)).unwrap().verify().unwrap();
    }
}

#[test]
fn an_expiry_is_honoured_to_the_second() {
    let body = signed(|body| body.expires_at = Some("2026-03-01T00:00:00Z".to_owned()));
    let verified = Certificate::decode(&body.header()).unwrap().verify().unwrap();
    let end = UnixSeconds::parse_rfc3339("2026-03-01T00:00:00Z").unwrap();
    assert_eq!(verified.expires_at(), Some(end));
    assert_eq!(verified.check_time(end), Ok(()));
    assert_eq!(verified.check_time(UnixSeconds(end.0 + 1)), Err(SignatureFault::CertExpired));
}

#[test]
fn contradictions_are_refused_although_signed() {
    let changes: [fn(&mut CertificateBody); 11] = [
        |body| body.version = 2,
        |body| body.namespace = "fixture-bob".to_owned(),
        |body| body.namespace = "Fixture-Alice".to_owned(),
        |body| body.did = "did:sigilum:fixture-bob".to_owned(),
        |body| body.key_id = "did:sigilum:fixture-alice#ed25519-99fb00dc16ee555b".to_owned(),
        |body| body.public_key = body.public_key.replace("ed25519:", "x25519:"),
        |body| body.issued_at = String::new(),
        |body| body.issued_at = "2026\nexpires-at:".to_owned(),
        |body| body.expires_at = Some("tomorrow".to_owned()),
        |body| body.proof.alg = "Ed25519".to_owned(),
        |body| body.public_key = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let body = signed(change);
        assert_eq!(Certificate::decode(&body.header()).unwrap_err(), SignatureFault::CertInvalid, "change {index}");
    }
}

#[test]
fn every_signed_member_is_signed() {
    let changes: [fn(&mut CertificateBody); 4] = [
        |body| body.issued_at = "2026-02-20T18:04:27Z".to_owned(),
        |body| body.expires_at = Some("2099-01-01T00:00:00Z".to_owned()),
        |body| body.proof.sig.replace_range(0..1, "w"),
        |body| {
            body.namespace = "fixture-bob".to_owned();
            body.did = "did:sigilum:fixture-bob".to_owned();
            body.key_id = "did:sigilum:fixture-bob#ed25519-99fb00dc16ee555a".to_owned();
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut body = golden();
        change(&mut body);
        let verified = Certificate::from_body(&body).unwrap().verify();
        assert_eq!(verified.unwrap_err(), SignatureFault::CertInvalid, "change {index}");
    }
}

#[test]
fn a_key_of_small_order_makes_no_certificate() {
    // The identity point: R = identity, S = 0 satisfies the plain equation for every message.
    let mut identity = [0_u8; 32];
    identity[0] = 1;
    let key = PublicKey::new(identity);
    let namespace = Namespace::parse("fixture-alice").unwrap();
    let mut signature = [0_u8; 64];
    signature[0] = 1;
    let body = CertificateBody {
        key_id: key.key_id(&namespace),
        public_key: key.text(),
        proof: ProofBody { alg: "ed25519".to_owned(), sig: URL_SAFE_NO_PAD.encode(signature) },
        ..golden()
    };
    assert_eq!(Certificate::from_body(&body).unwrap().verify().unwrap_err(), SignatureFault::CertInvalid);
}

#[test]
fn malformed_headers_are_refused() {
    let compact = serde_json::to_string(&golden()).unwrap();
    for json in [
        "",
        "null",
        "[]",
        "{}",
        &compact.replace("\"version\":1", "\"version\":1.5"),
        &compact.replace("\"version\":1", "\"version\":1,\"version\":1"),
        &compact.replace("\"version\":1", "\"version\":1,\"extra\":1,\"extra\":1"),
        &compact.replace("\"alg\"", "\"alg\":\"ed25519\",\"alg\""),
        &compact.replace("\"issuedAt\"", "\"issuedat\""),
        &compact.replace("\"expiresAt\":null", "\"expiresAt\":7"),
        &format!("{compact} x"),
    ] {
        assert_eq!(fault(json), SignatureFault::CertHeaderInvalid, "{json}");
    }
    let long = URL_SAFE_NO_PAD.encode(compact.replacen('{', &format!("{{\"x\":\"{}\",", "y".repeat(16_384)), 1));
    for header in ["%%%", "ey J2", "eyJ+", &long] {
        assert_eq!(Certificate::decode(header).unwrap_err(), SignatureFault::CertHeaderInvalid, "{header:.20}");
    }
    for sig in ["", "AAAA", &format!("{SIGNATURE}AA"), "not base64"] {
        let mut body = golden();
        sig.clone_into(&mut body.proof.sig);
        assert_eq!(Certificate::from_body(&body).unwrap_err(), SignatureFault::CertInvalid, "{sig}");
    }
}
