//! Certificates, as the header text and as the JSON inside it: no panic, and what is read is consistent.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use sigilum::domain::signature::Certificate;

fn read(header: &str) {
    let Ok(certificate) = Certificate::decode(header) else { return };
    if let Ok(verified) = certificate.verify() {
        assert_eq!(verified.key_id(), verified.key().key_id(verified.namespace()));
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
    read(&URL_SAFE_NO_PAD.encode(data));
});
