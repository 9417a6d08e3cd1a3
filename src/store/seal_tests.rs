#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

const SALT: [u8; SALT_BYTES] = [7; SALT_BYTES];
const PLACE: Place<'static> = Place { kind: "connection", record: "linear", field: "secrets", version: 3 };

fn key(text: &str) -> MasterKey {
    MasterKey::derive(&Secret::new(text.to_owned()), &SALT).unwrap()
}

fn hex_key() -> MasterKey {
    key(&"0a".repeat(32))
}

#[test]
fn a_value_opens_only_where_it_was_sealed() {
    let master = hex_key();
    let sealed = master.seal(PLACE, b"value").unwrap();
    assert_eq!(master.open(PLACE, &sealed).unwrap().as_slice(), b"value");
    let elsewhere = [
        Place { kind: "variable", ..PLACE },
        Place { record: "linear2", ..PLACE },
        Place { field: "secret", ..PLACE },
        Place { version: 4, ..PLACE },
        // The same letters, cut differently.
        Place { kind: "connectionl", record: "inear", ..PLACE },
        Place { record: "linears", field: "ecrets", ..PLACE },
    ];
    for place in elsewhere {
        assert!(matches!(master.open(place, &sealed), Err(SealError::Broken)), "{place:?}");
    }
}

#[test]
fn another_key_or_salt_is_told_from_damage() {
    let sealed = hex_key().seal(PLACE, b"value").unwrap();
    assert!(matches!(key("another").open(PLACE, &sealed), Err(SealError::OtherKey)));
    let salted = MasterKey::derive(&Secret::new("0a".repeat(32)), &[8; SALT_BYTES]).unwrap();
    assert!(matches!(salted.open(PLACE, &sealed), Err(SealError::OtherKey)));
}

#[test]
fn any_text_but_a_blank_one_is_a_key() {
    for text in ["x", "correct horse battery staple", "sclé", &"g".repeat(64)] {
        let sealed = key(text).seal(PLACE, b"value").unwrap();
        assert_eq!(key(&format!("  {text}\n")).open(PLACE, &sealed).unwrap().as_slice(), b"value");
    }
    assert!(matches!(MasterKey::derive(&Secret::new(" \n".to_owned()), &SALT), Err(SealError::BlankKey)));
    // Hex digits are read as bytes, whatever their case.
    let sealed = key(&"ab".repeat(32)).seal(PLACE, b"value").unwrap();
    assert!(key(&"AB".repeat(32)).open(PLACE, &sealed).is_ok());
}

#[test]
fn sealing_twice_gives_nothing_in_common() {
    let master = hex_key();
    let (one, two) = (master.seal(PLACE, b"value").unwrap(), master.seal(PLACE, b"value").unwrap());
    assert_eq!(one[..9], two[..9]);
    assert!(one.windows(8).skip(9).all(|window| !two.windows(8).any(|other| other == window)));
}

proptest! {
    #[test]
    fn what_is_sealed_opens_and_nothing_flipped_does(
        plaintext in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let master = hex_key();
        let mut sealed = master.seal(PLACE, &plaintext).unwrap();
        let opened = master.open(PLACE, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), plaintext.as_slice());
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(master.open(PLACE, &sealed).is_err());
    }

    #[test]
    fn whatever_is_handed_in_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(hex_key().open(PLACE, &bytes).is_err());
    }
}
