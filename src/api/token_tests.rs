#![allow(clippy::unwrap_used, reason = "test code may panic")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

fn key() -> Secret {
    Secret::new("0123456789abcdef0123456789abcdef".to_owned())
}

fn owner() -> Owner {
    Owner::local(Namespace::parse("johndee").unwrap(), None)
}

fn issued() -> Secret {
    issue(&key(), &owner(), Duration::from_secs(60), NOW).unwrap()
}

/// Any header and claims under any key: HMAC by `ring`, not by what is tested.
fn forged(secret: &[u8], header: &Value, claims: &Value) -> String {
    let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

fn good_claims() -> Value {
    json!({"sub": "u1", "email": "a@b", "namespace": "acme", "iss": "sigilum-api", "aud": "sigilum-dashboard",
        "iat": NOW.0, "exp": NOW.0 + 60})
}

fn judged(claims: &Value) -> Result<VerifiedToken, TokenError> {
    let token = forged(key().expose().as_bytes(), &json!({"alg": "HS256", "typ": "JWT"}), claims);
    verify(&key(), &token, NOW)
}

#[test]
fn what_is_issued_is_accepted_and_says_the_same() {
    let token = verify(&key(), issued().expose(), NOW).unwrap();
    assert_eq!(token.owner(), &owner());
    assert!(token.owner().is_local());
    assert_eq!(token.owner().email, "johndee@local.sigilum");
    assert_eq!((token.issued_at(), token.expires_at()), (NOW, UnixSeconds(NOW.0 + 60)));
}

#[test]
fn header_and_claims_are_those_of_the_contract() {
    let token = issued();
    let parts: Vec<Value> = token
        .expose()
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    assert_eq!(parts.first().unwrap(), &json!({"typ": "JWT", "alg": "HS256"}));
    let expected = json!({"sub": "user_local_johndee", "email": "johndee@local.sigilum", "namespace": "johndee",
        "iss": "sigilum-api", "aud": "sigilum-dashboard", "iat": NOW.0, "exp": NOW.0 + 60});
    assert_eq!(parts.last().unwrap(), &expected);
}

#[test]
fn a_token_of_another_maker_with_the_same_key_is_accepted() {
    let token = judged(&good_claims()).unwrap();
    assert_eq!(token.owner().sub, "u1");
    assert!(!token.owner().is_local());
    let mut without_iat = good_claims();
    without_iat.as_object_mut().unwrap().remove("iat");
    assert_eq!(judged(&without_iat).unwrap().issued_at(), UnixSeconds(0));
}

#[test]
fn a_token_ends_with_its_time_and_five_seconds() {
    let token = issued();
    assert!(verify(&key(), token.expose(), UnixSeconds(NOW.0 + 64)).is_ok());
    assert_eq!(verify(&key(), token.expose(), UnixSeconds(NOW.0 + 65)), Err(TokenError::Expired));
}

#[test]
fn every_wrong_claim_is_refused() {
    for (name, wrong) in [
        ("sub", json!("")),
        ("sub", json!("  ")),
        ("sub", json!(7)),
        ("sub", json!("u".repeat(129))),
        ("sub", json!("a\nb")),
        ("email", json!("")),
        ("email", Value::Null),
        ("namespace", json!("")),
        ("namespace", json!("Acme")),
        ("namespace", json!("ab")),
        ("iss", json!("somebody")),
        ("iss", json!(["sigilum-api"])),
        ("aud", json!("sigilum")),
        ("aud", json!(["sigilum"])),
        ("aud", json!([])),
        ("aud", json!([7])),
        ("aud", Value::Null),
        ("iat", json!(NOW.0 + 6)),
        ("exp", json!("soon")),
        ("exp", json!(-1)),
        ("exp", Value::Null),
    ] {
        let mut claims = good_claims();
        claims.as_object_mut().unwrap().insert(name.to_owned(), wrong.clone());
        assert_eq!(judged(&claims), Err(TokenError::Invalid), "{name} {wrong}");
    }
    for name in ["sub", "email", "namespace", "iss", "aud", "exp"] {
        let mut claims = good_claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(judged(&claims), Err(TokenError::Invalid), "without {name}");
    }
}

#[test]
fn one_of_several_audiences_is_enough() {
    for audience in [json!(["sigilum-dashboard"]), json!(["x", "sigilum-dashboard"])] {
        let mut claims = good_claims();
        claims["aud"] = audience.clone();
        assert_eq!(judged(&claims).unwrap().owner().sub, "u1", "{audience}");
    }
}

#[test]
fn another_algorithm_or_key_is_refused() {
    for header in [json!({"alg": "none"}), json!({"alg": "HS512"}), json!({"alg": "hs256"}), json!({"typ": "JWT"})] {
        let token = forged(key().expose().as_bytes(), &header, &good_claims());
        assert_eq!(verify(&key(), &token, NOW), Err(TokenError::Invalid), "{header}");
    }
    let header = json!({"alg": "HS256"});
    for secret in [&b""[..], b"0123456789abcdef0123456789abcdeg"] {
        assert_eq!(verify(&key(), &forged(secret, &header, &good_claims()), NOW), Err(TokenError::Invalid));
    }
    // Nothing is signed or accepted with no key at all.
    let nothing = Secret::new(String::new());
    assert_eq!(verify(&nothing, &forged(b"", &header, &good_claims()), NOW), Err(TokenError::Invalid));
    assert!(issue(&nothing, &owner(), Duration::from_secs(60), NOW).is_err());
}

#[test]
fn a_token_has_one_spelling() {
    let token = issued();
    let text = token.expose();
    let last = text.chars().last().unwrap();
    for other in ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_', '=']).filter(|c| *c != last) {
        let changed = format!("{}{other}", &text[..text.len() - 1]);
        assert_eq!(verify(&key(), &changed, NOW), Err(TokenError::Invalid));
    }
    for changed in [format!("{text}="), format!(" {text}"), format!("{text}\n"), format!("{text}.x")] {
        assert_eq!(verify(&key(), &changed, NOW), Err(TokenError::Invalid));
    }
}

#[test]
fn no_life_no_token() {
    for ttl in [0, u64::MAX] {
        assert_eq!(issue(&key(), &owner(), Duration::from_secs(ttl), NOW), Err(TokenError::Unissuable));
    }
    let nameless = Owner { email: String::new(), ..owner() };
    assert_eq!(issue(&key(), &nameless, Duration::from_secs(60), NOW), Err(TokenError::Unissuable));
}

proptest! {
    #[test]
    fn no_text_is_a_token(text in "\\PC{0,200}") {
        prop_assert_eq!(verify(&key(), &text, NOW), Err(TokenError::Invalid));
    }

    #[test]
    fn no_changed_token_is_a_token(at in 0_usize..300, with in proptest::char::range('-', 'z')) {
        let token = issued();
        let mut changed: Vec<char> = token.expose().chars().collect();
        let at = at % changed.len();
        prop_assume!(changed.get(at) != Some(&with));
        *changed.get_mut(at).unwrap() = with;
        let changed: String = changed.into_iter().collect();
        prop_assert_eq!(verify(&key(), &changed, NOW), Err(TokenError::Invalid));
    }
}
