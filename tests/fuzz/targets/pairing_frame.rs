//! Messages of either side of a pairing: no panic, and a response that was read says the same when it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::time::UnixMillis;
use sigilum::wire::pairing::FromBridge;
use sigilum::wire::pairing::ToBridge;

fuzz_target!(|text: &str| {
    let now = UnixMillis(0);
    if let Some(frame) = FromBridge::read(text) {
        assert_eq!(FromBridge::read(&frame.write(now)), Some(frame));
    }
    if let Some(frame) = ToBridge::read(text) {
        assert!(ToBridge::read(frame.write(now).expose()) == Some(frame));
    }
});
