//! Tables give `verify_strict`'s verdict on every input tried, edge cases of the curve included.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use curve25519_dalek::constants::EIGHT_TORSION;
use ed25519_dalek::Signature;
use ed25519_dalek::Signer as _;
use ed25519_dalek::SigningKey;
use ed25519_dalek::VerifyingKey;
use proptest::prelude::*;

use super::*;
use crate::domain::ids::Namespace;
use crate::domain::signature::certificate::Certificate;
use crate::domain::signature::certificate::CertificateBody;
use crate::domain::signature::certificate::ProofBody;

/// The order of the base point, little-endian: the smallest S that is not reduced.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The table's verdict and the library's; a key that gets no table is one the library refuses.
fn verdicts(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> (bool, bool) {
    let ours = KeyTable::new(&PublicKey::new(*key)).is_some_and(|table| table.verify(message, signature).is_ok());
    let theirs = VerifyingKey::from_bytes(key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok());
    (ours, theirs)
}

fn join(commitment: &[u8], scalar: &[u8]) -> [u8; 64] {
    [commitment, scalar].concat().try_into().unwrap()
}

fn challenge(commitment: &[u8], key: &[u8], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(commitment).chain_update(key).chain_update(message);
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

fn certificate(signing: &SigningKey) -> VerifiedCertificate {
    let namespace = Namespace::parse("alice").unwrap();
    let key = PublicKey::new(signing.verifying_key().to_bytes());
    let mut body = CertificateBody {
        version: 1,
        namespace: "alice".to_owned(),
        did: namespace.did(),
        key_id: key.key_id(&namespace),
        public_key: key.text(),
        issued_at: "2026-02-20T18:04:26Z".to_owned(),
        expires_at: None,
        proof: ProofBody { alg: "ed25519".to_owned(), sig: String::new() },
    };
    let proof = signing.sign(body.payload().as_bytes()).to_bytes();
    body.proof.sig = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, proof);
    Certificate::from_body(&body).unwrap().verify().unwrap()
}

#[test]
fn a_scalar_that_is_not_reduced_is_refused() {
    let signing = SigningKey::from_bytes(&[7; 32]);
    let key = signing.verifying_key().to_bytes();
    let signature = signing.sign(b"m").to_bytes();
    assert_eq!(verdicts(&key, b"m", &signature), (true, true));
    // S + L solves the same equation.
    let mut raised = signature;
    let mut carry = 0_u16;
    for (byte, order) in raised[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert_eq!(verdicts(&key, b"m", &raised), (false, false));
}

#[test]
fn keys_of_small_order_are_refused_in_every_spelling() {
    let mut keys: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|point| point.compress().to_bytes()).collect();
    // Non-canonical spellings: y + p for y = 0 and 1, and the sign bit where x is 0.
    for (first, last) in [(0xed, 0x7f), (0xee, 0x7f), (0xed, 0xff), (0xee, 0xff)] {
        let mut key = [0xff; 32];
        (key[0], key[31]) = (first, last);
        keys.push(key);
    }
    let mut negative_zero = [0_u8; 32];
    (negative_zero[0], negative_zero[31]) = (1, 0x80);
    keys.push(negative_zero);
    for key in &keys {
        for commitment in &keys {
            // With A of small order, S = 0 and R = -kA solves the equation for one message in eight.
            for message in [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i", b"j", b"k", b"l"] {
                assert_eq!(verdicts(key, message, &join(commitment, &[0; 32])), (false, false));
            }
        }
    }
}

#[test]
fn a_commitment_of_small_order_is_refused() {
    let signing = SigningKey::from_bytes(&[9; 32]);
    let key = signing.verifying_key().to_bytes();
    let secret = signing.to_scalar();
    for point in EIGHT_TORSION {
        let commitment = point.compress().to_bytes();
        // S = k·a makes SB − kA the identity: only R = identity would match, and it is of small order.
        let scalar = challenge(&commitment, &key, b"m") * secret;
        assert_eq!(verdicts(&key, b"m", &join(&commitment, scalar.as_bytes())), (false, false));
    }
}

#[test]
fn a_key_with_a_torsion_part_gets_the_cofactorless_verdict() {
    let signing = SigningKey::from_bytes(&[11; 32]);
    let secret = signing.to_scalar();
    let nonce = Scalar::from(123_456_789_u64);
    let mut accepted = 0;
    for torsion in EIGHT_TORSION {
        let key = (EdwardsPoint::mul_base(&secret) + torsion).compress().to_bytes();
        let commitment = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
        for message in 0_u8..32 {
            let scalar = nonce + challenge(&commitment, &key, &[message]) * secret;
            let (ours, theirs) = verdicts(&key, &[message], &join(&commitment, scalar.as_bytes()));
            assert_eq!(ours, theirs);
            accepted += usize::from(ours);
        }
    }
    // Torsion parts verify only where k happens to be a multiple of their order: some do, most do not.
    assert!(accepted > 32 && accepted < 8 * 32, "{accepted}");
}

#[test]
fn a_key_in_use_gets_a_table_and_the_verdicts_stay() {
    let hot = HotKeys::new();
    let signing = SigningKey::from_bytes(&[13; 32]);
    let certificate = certificate(&signing);
    let good = signing.sign(b"base").to_bytes();
    for round in 1..40 {
        assert_eq!(hot.verify(&certificate, b"base", &good), Ok(()), "round {round}");
        let expected = if round >= USES_BEFORE_TABLE { Comb::<4>::BYTES } else { 0 };
        assert_eq!(hot.verify(&certificate, b"bass", &good), Err(SignatureFault::VerificationFailed));
        assert_eq!(hot.memory_bytes(), expected, "round {round}");
    }
    assert_eq!(Comb::<4>::BYTES, 81_920);
}

#[test]
fn forgeries_under_a_key_make_no_table() {
    let hot = HotKeys::new();
    let certificate = certificate(&SigningKey::from_bytes(&[13; 32]));
    for _ in 0..200 {
        assert_eq!(hot.verify(&certificate, b"base", &[1; 64]), Err(SignatureFault::VerificationFailed));
    }
    assert_eq!(hot.memory_bytes(), 0);
}

#[test]
fn one_key_per_slot_and_the_busier_one_has_it() {
    let hot = HotKeys::new();
    let keys = (0_u64..).map(|number| {
        let mut seed = [3; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        SigningKey::from_bytes(&seed)
    });
    let mut same = keys.filter(|key| key.verifying_key().to_bytes()[0] % 64 == 5).map(|key| certificate(&key));
    let (busy, rare) = (same.next().unwrap(), same.next().unwrap());
    for _ in 0..200 {
        hot.count(busy.key());
    }
    assert!(hot.held(busy.key()).is_some() && hot.held(rare.key()).is_none());
    hot.count(rare.key());
    assert!(hot.held(busy.key()).is_some(), "one use of another key does not displace it");
    for _ in 0..200 {
        hot.count(rare.key());
    }
    assert!(hot.held(rare.key()).is_some(), "a key that stopped coming gives way");
    assert_eq!(hot.memory_bytes(), Comb::<4>::BYTES);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_is_the_librarys(seed: [u8; 32], message: Vec<u8>, at in 0_usize..64, flip: u8) {
        let signing = SigningKey::from_bytes(&seed);
        let key = signing.verifying_key().to_bytes();
        let mut signature = signing.sign(&message).to_bytes();
        signature[at] ^= flip;
        prop_assert_eq!(verdicts(&key, &message, &signature), (flip == 0, flip == 0));
    }

    #[test]
    fn arbitrary_bytes_are_judged_alike(key: [u8; 32], commitment: [u8; 32], scalar: [u8; 32]) {
        let (ours, theirs) = verdicts(&key, b"", &join(&commitment, &scalar));
        prop_assert_eq!(ours, theirs);
    }
}
