//! Public keys as text, and 32 + 64 raw bytes as key and signature over the rest: no panic, one spelling per
//! key, and no forgery.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::ids::PublicKey;
use sigilum::domain::signature::verify;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(key) = PublicKey::parse(text) {
            assert_eq!(key.text(), text);
        }
    }
    let Some((key, rest)) = data.split_first_chunk::<32>() else { return };
    let Some((signature, message)) = rest.split_first_chunk::<64>() else { return };
    // The committed seed is a genuine signature over "seed"; nobody can make another.
    assert!(verify(&PublicKey::new(*key), message, signature).is_err() || message == b"seed");
});
