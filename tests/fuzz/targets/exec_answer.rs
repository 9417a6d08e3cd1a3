//! What a provider program prints: no panic, one answer per id, and no message that repeats what was printed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::secrets::answer;

fuzz_target!(|input: (Vec<u8>, bool, bool)| {
    let (output, json_only, many) = input;
    let ids: &[&str] = if many { &["a", "b/c#d"] } else { &["a"] };
    match answer::read(&output, ids, json_only) {
        Ok(list) => {
            assert_eq!(list.len(), ids.len());
            for secret in list.into_iter().flatten() {
                assert!(!secret.is_empty());
            }
        }
        Err(reason) => assert!(reason.len() < 400),
    }
});
