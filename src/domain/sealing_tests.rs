//! Sealed values as another implementation makes them, and everything that is none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// Made by tests/vectors/sealed.py.
#[derive(Deserialize)]
struct Vectors {
    private_key: String,
    public_key: String,
    fingerprint: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    purpose: String,
    id: String,
    field: String,
    destination: String,
    plaintext: String,
    sealed: String,
}

impl Case {
    fn target(&self) -> Target<'_> {
        let all = [Purpose::Connection, Purpose::Variable, Purpose::ServiceApiKey];
        let purpose = all.into_iter().find(|purpose| purpose.name() == self.purpose).unwrap();
        Target { purpose, id: &self.id, field: &self.field, destination: &self.destination }
    }
}

fn vectors() -> (Vectors, SealingKey) {
    let vectors: Vectors = serde_json::from_str(include_str!("../../tests/vectors/sealed.json")).unwrap();
    let key = SealingKey::new(&URL_SAFE_NO_PAD.decode(&vectors.private_key).unwrap()).unwrap();
    (vectors, key)
}

const TARGET: Target<'static> =
    Target { purpose: Purpose::Connection, id: "linear", field: "key", destination: "https://api.linear.app" };

#[test]
fn what_another_implementation_sealed_opens() {
    let (vectors, key) = vectors();
    assert_eq!(key.public().text(), vectors.public_key);
    assert_eq!(key.public().fingerprint(), vectors.fingerprint);
    assert!(vectors.cases.len() >= 4);
    for case in &vectors.cases {
        assert_eq!(key.open(&case.sealed, &case.target()).unwrap().expose(), case.plaintext);
        assert_eq!(SealedSecret::parse(&case.sealed).unwrap().text(), case.sealed);
    }
}

#[test]
fn a_value_opens_nowhere_but_where_it_was_sealed_for() {
    let (vectors, key) = vectors();
    let other = SealingKey::new(&[7; KEY_BYTES]).unwrap();
    for case in &vectors.cases {
        let target = case.target();
        for moved in [
            Target { id: "another", ..target },
            Target { field: "another", ..target },
            Target { destination: "https://evil.example", ..target },
            Target {
                purpose: if target.purpose == Purpose::Variable { Purpose::Connection } else { Purpose::Variable },
                ..target
            },
        ] {
            assert_eq!(key.open(&case.sealed, &moved), Err(InvalidSealed), "{moved:?}");
        }
        assert_eq!(other.open(&case.sealed, &target), Err(InvalidSealed));
    }
}

#[test]
fn no_two_targets_read_the_same() {
    let key = SealingKey::new(&[7; KEY_BYTES]).unwrap();
    let sealed = seal(&key.public(), &Target { id: "a", field: "b", destination: "c\nd", ..TARGET }, b"x").unwrap();
    assert!(key.open(&sealed, &Target { id: "a", field: "b", destination: "c\nd", ..TARGET }).is_ok());
    for moved in [
        Target { id: "a", field: "b\nc", destination: "d", ..TARGET },
        Target { id: "a\nb", field: "c", destination: "d", ..TARGET },
    ] {
        assert_eq!(key.open(&sealed, &moved), Err(InvalidSealed));
    }
}

#[test]
fn texts_that_are_no_sealed_value_are_refused() {
    let (vectors, key) = vectors();
    let good = &vectors.cases[0].sealed;
    let (head, tail) = good.rsplit_once('.').unwrap();
    let zero = URL_SAFE_NO_PAD.encode([0_u8; KEY_BYTES]);
    for bad in [
        "",
        "sealed:",
        "sealed:v1:",
        "sealed:v1:.",
        "plain",
        &good.replace("v1", "v2"),
        &good.replace("sealed", "Sealed"),
        &format!("{good}="),
        &format!("{good}A"),
        &format!("{good}.{tail}"),
        &format!("{head}.{}", URL_SAFE_NO_PAD.encode([0_u8; TAG_BYTES - 1])),
        &format!("{head}."),
        // An encapsulated key of small order: the shared secret would be known to everybody.
        &format!("sealed:v1:{zero}.{tail}"),
        &format!("sealed:v1:{}.{tail}", &zero[1..]),
        &format!("{head}.{}", "A".repeat(2 * MAX_CIPHERTEXT_BYTES + 1)),
    ] {
        assert_eq!(key.open(bad, &vectors.cases[0].target()), Err(InvalidSealed), "{bad:.80}");
    }
    assert!(key.open(&format!(" {good}\n"), &vectors.cases[0].target()).is_ok());
}

#[test]
fn a_value_of_any_version_is_known_as_sealed() {
    for sealed in ["sealed:", " sealed:v1:x", "\tsealed:v9:y", "sealed:anything"] {
        assert!(is_sealed(sealed), "{sealed}");
    }
    for plain in ["", "seal", "Sealed:v1:x", "a sealed:v1:x", "sk_sealed:"] {
        assert!(!is_sealed(plain), "{plain}");
    }
}

#[test]
fn what_was_sealed_twice_or_is_no_text_does_not_open() {
    let key = SealingKey::new(&[7; KEY_BYTES]).unwrap();
    let once = seal(&key.public(), &TARGET, b"x").unwrap();
    for plaintext in [once.as_bytes(), b" sealed:v2:x", b"\xff\xfe"] {
        let sealed = seal(&key.public(), &TARGET, plaintext).unwrap();
        assert_eq!(key.open(&sealed, &TARGET), Err(InvalidSealed));
    }
}

#[test]
fn a_private_key_has_32_bytes_and_is_never_shown() {
    for length in [0, 31, 33, 64] {
        assert!(SealingKey::new(&vec![1; length]).is_none());
    }
    let (vectors, key) = vectors();
    let shown = format!("{key:?}");
    assert!(shown.contains(&vectors.fingerprint) && !shown.contains(&vectors.private_key), "{shown}");
}

proptest! {
    #[test]
    fn whatever_was_sealed_opens_to_itself(plaintext in "\\PC{0,200}", id in "\\PC{0,20}", field in "\\PC{0,20}", destination in "\\PC{0,20}") {
        prop_assume!(!is_sealed(&plaintext));
        let key = SealingKey::new(&[9; KEY_BYTES]).unwrap();
        let target = Target { purpose: Purpose::Connection, id: &id, field: &field, destination: &destination };
        let sealed = seal(&key.public(), &target, plaintext.as_bytes()).unwrap();
        let opened = key.open(&sealed, &target).unwrap();
        prop_assert_eq!(opened.expose(), plaintext);
    }

    #[test]
    fn a_changed_bit_opens_nothing(at in 0_usize..500, bit in 0_u8..8) {
        let (vectors, key) = vectors();
        let case = &vectors.cases[at % vectors.cases.len()];
        let mut sealed = SealedSecret::parse(&case.sealed).unwrap();
        let index = at % (KEY_BYTES + sealed.ciphertext.len());
        match index.checked_sub(KEY_BYTES) {
            // The top bit of an X25519 key counts for nothing (RFC 7748 section 5), but the whole key is part of the context.
            None => sealed.encapsulated[index] ^= 1 << bit,
            Some(index) => sealed.ciphertext[index] ^= 1 << bit,
        }
        prop_assert_eq!(key.open(&sealed.text(), &case.target()), Err(InvalidSealed));
    }

    #[test]
    fn any_text_is_read_as_itself_or_refused(text in "\\PC{0,120}|sealed:v1:[A-Za-z0-9_-]{43}\\.[A-Za-z0-9_-]{0,80}") {
        if let Ok(sealed) = SealedSecret::parse(&text) {
            prop_assert_eq!(sealed.text(), text.trim());
        }
    }
}
