//! A hostile state message: no panic; refused or not, what is held is whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::time::MonotonicMillis;
use sigilum::state::Applied;
use sigilum::state::Replica;
use sigilum::wire::state;

fuzz_target!(|data: &[u8]| {
    let mut replica = Replica::default();
    // Several messages in a row: each behind its length in two bytes.
    let mut rest = data;
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(tail.len());
        let (message, after) = tail.split_at(length);
        rest = after;
        let Ok(message) = state::decode_response(message) else { continue };
        let before = replica.snapshot().cloned();
        match replica.apply(message, MonotonicMillis(1 << 40)) {
            Ok(Applied::Version { version, .. }) => {
                assert_eq!(replica.snapshot().map(|held| &held.version), Some(&version));
            }
            Ok(Applied::Confirmed) => {}
            Ok(Applied::Part | Applied::Ignored) | Err(_) => {
                assert_eq!(before.map(|held| held.version.clone()), replica.snapshot().map(|held| held.version.clone()));
            }
        }
    }
});
