//! Records of every SDK's shape load; each wrong member is refused by name; no error quotes the seed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

use serde_json::Value;
use serde_json::json;

use super::*;

const SEED: &str = "ZMLKzZSCxP8QXOO1vlmejAvdFaesd3QC6JC9iCt8FfA=";
const NOW: UnixSeconds = UnixSeconds(1_771_610_666);

fn namespace() -> Namespace {
    Namespace::parse("fixture-alice").unwrap()
}

/// The golden record, with the extra members of the shared fixture.
fn golden() -> Value {
    json!({
        "version": 1,
        "issuedBy": "someone",
        "namespace": "fixture-alice",
        "did": "did:sigilum:fixture-alice",
        "keyId": "did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a",
        "publicKey": "ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=",
        "privateKey": SEED,
        "certificate": {
            "version": 1,
            "namespace": "fixture-alice",
            "did": "did:sigilum:fixture-alice",
            "keyId": "did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a",
            "publicKey": "ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=",
            "issuedAt": "2026-02-20T18:04:26Z",
            "expiresAt": null,
            "proof": {
                "alg": "ed25519",
                "sig": "vGp-WLmSr0BWNci2lBhcJORg39ot-3Uu1aaVG2wGEKLItK_964hFaRrVd7DHf_2e3ykGpIacoM9Q5gs_tPy6Dw"
            }
        },
        "migrationHint": {"from": [1, 2]},
        "createdAt": "2026-02-20T18:04:26.123Z",
        "updatedAt": "2026-02-20T18:04:26.123456789Z"
    })
}

fn load(record: &Value) -> Result<Identity, IdentityError> {
    Identity::parse(&record.to_string(), Path::new("identity.json"), &namespace(), NOW)
}

fn problem(record: &Value) -> &'static str {
    match load(record) {
        Err(IdentityError::Invalid { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_golden_record_loads() {
    let identity = load(&golden()).unwrap();
    assert_eq!(identity.key_id(), "did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a");
    assert_eq!(identity.created_at(), "2026-02-20T18:04:26.123Z");
}

#[test]
fn what_is_written_is_what_the_go_sdk_writes() {
    let seed = STANDARD.decode(SEED).unwrap().try_into().unwrap();
    let identity = Identity::from_seed(namespace(), &seed, NOW);
    let written = String::from_utf8(encode(&identity).unwrap().to_vec()).unwrap();
    let expected = "{\n  \"version\": 1,\n  \"namespace\": \"fixture-alice\",\n  \"did\": \
                    \"did:sigilum:fixture-alice\",\n  \"keyId\": \
                    \"did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a\",\n  \"publicKey\": \
                    \"ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=\",\n  \"privateKey\": \
                    \"ZMLKzZSCxP8QXOO1vlmejAvdFaesd3QC6JC9iCt8FfA=\",\n  \"certificate\": {\n    \"version\": 1,\n";
    assert!(written.starts_with(expected), "{written}");
    assert!(
        written.ends_with("  \"createdAt\": \"2026-02-20T18:04:26Z\",\n  \"updatedAt\": \"2026-02-20T18:04:26Z\"\n}\n")
    );
    Identity::parse(&written, Path::new("identity.json"), &namespace(), NOW).unwrap();
}

#[test]
fn pkcs8_around_the_seed_is_read() {
    let mut record = golden();
    let der = [PKCS8_PREFIX.to_vec(), STANDARD.decode(SEED).unwrap()].concat();
    assert!(STANDARD.encode(&der).starts_with("MC4CAQAwBQYDK2VwBCIEI"));
    record["privateKey"] = json!(STANDARD.encode(&der));
    assert!(load(&record).is_ok());
    record["privateKey"] = json!(STANDARD.encode(&der[..47]));
    assert!(problem(&record).starts_with("privateKey"));
}

#[test]
fn each_wrong_member_is_named() {
    let other = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let cases = [
        ("/version", json!(2), "version"),
        ("/namespace", json!("fixture-bob"), "namespace"),
        ("/did", json!("did:sigilum:fixture-bob"), "did"),
        ("/did", json!(""), "did"),
        ("/keyId", json!("did:sigilum:fixture-alice#ed25519-0000000000000000"), "keyId"),
        ("/publicKey", json!(other), "publicKey"),
        ("/privateKey", json!(STANDARD.encode([7; 32])), "publicKey, privateKey"),
        ("/privateKey", json!(STANDARD.encode([7; 64])), "privateKey"),
        ("/privateKey", json!(""), "privateKey"),
        ("/privateKey", json!("???"), "privateKey"),
        ("/certificate/version", json!(2), "certificate contradicts itself"),
        ("/certificate/publicKey", json!(other), "certificate contradicts itself"),
        ("/certificate/issuedAt", json!("2026-02-20T18:04:27Z"), "the certificate's signature"),
        ("/certificate/expiresAt", json!("2099-01-01T00:00:00Z"), "the certificate's signature"),
    ];
    for (pointer, value, expected) in cases {
        let mut record = golden();
        *record.pointer_mut(pointer).unwrap() = value;
        assert!(problem(&record).starts_with(expected), "{pointer}: {}", problem(&record));
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    use ed25519_dalek::Signer as _;

    let mut record = golden();
    record["certificate"]["expiresAt"] = json!("2026-02-20T18:04:25Z");
    let mut body: CertificateBody = serde_json::from_value(record["certificate"].clone()).unwrap();
    let seed: [u8; 32] = STANDARD.decode(SEED).unwrap().try_into().unwrap();
    let proof = SigningKey::from_bytes(&seed).sign(body.payload().as_bytes());
    body.proof.sig = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(proof.to_bytes());
    record["certificate"] = serde_json::to_value(&body).unwrap();
    assert_eq!(problem(&record), "the certificate has expired");
    let earlier = UnixSeconds(NOW.0 - 1);
    assert!(Identity::parse(&record.to_string(), Path::new("x"), &namespace(), earlier).is_ok());
}

#[test]
fn malformed_files_are_placed_and_never_quoted() {
    let text = golden().to_string();
    let broken = [
        text.replace("\"version\":1,\"issuedBy\"", &format!("\"version\":\"{SEED}\",\"issuedBy\"")),
        text.replace("\"privateKey\":", "\"privateKey\":[").replace(&format!("\"{SEED}\""), &format!("\"{SEED}\"]")),
        text.replace("\"did\":", "\"did\":\"x\",\"did\":"),
        text.replace("\"privateKey\"", "\"privatekey\""),
        text[..text.len() / 2].to_owned(),
        format!("{text}{SEED}"),
        String::new(),
        "[]".to_owned(),
    ];
    for json in broken {
        match Identity::parse(&json, Path::new("identity.json"), &namespace(), NOW) {
            Err(error @ IdentityError::Malformed { .. }) => {
                assert!(!format!("{error} {error:?}").contains(&SEED[..8]), "{error}");
            }
            other => panic!("{other:?} for {json}"),
        }
    }
}
