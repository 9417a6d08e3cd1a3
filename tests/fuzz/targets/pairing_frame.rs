//! Messages of either side of a pairing: no panic, and a response that was read says the same when it is written. The same
//! bytes as a reconnect secret: taken whole or not at all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::time::UnixMillis;
use sigilum::wire::pairing::FromBridge;
use sigilum::wire::pairing::ToBridge;
use sigilum::wire::pairing::reconnect_secret;

fuzz_target!(|text: &str| {
    let now = UnixMillis(0);
    if let Some(secret) = reconnect_secret(text.as_bytes()) {
        assert_eq!(secret.expose(), text);
    }
    if let Some(frame) = FromBridge::read(text) {
        assert_eq!(FromBridge::read(&frame.write(now)), Some(frame));
    }
    if let Some(frame) = ToBridge::read(text) {
        assert!(ToBridge::read(frame.write(now).expose()) == Some(frame));
    }
});
