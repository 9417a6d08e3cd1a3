//! The signature base from a hostile method, authority and target (separated by NUL): no panic, and never
//! a line more than there are components.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::signature::ComponentSet;
use sigilum::domain::signature::SignatureParams;
use sigilum::domain::signature::SignedHeaders;
use sigilum::domain::signature::target_uris;
use sigilum::domain::signature::write_base;
use sigilum::domain::time::UnixSeconds;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (method, authority, target) = (next(), next(), next());
    let headers = SignedHeaders {
        namespace: Some("n"),
        subject: Some("s"),
        agent_key: Some("k"),
        agent_cert: Some("c"),
        ..SignedHeaders::default()
    };
    let params = SignatureParams {
        components: ComponentSet::A,
        created: UnixSeconds(1),
        key_id: "k",
        nonce: "n",
        signature: [0; 64],
    };
    let mut base = Vec::new();
    let mut tried = 0;
    for uri in target_uris(b"https", authority, target) {
        tried += 1;
        if write_base(&mut base, method, &uri, &headers, &params).is_ok() {
            assert_eq!(base.iter().filter(|byte| **byte == b'\n').count(), 6);
            assert!(base.starts_with(b"\"@method\": "));
        }
    }
    assert!((1..=3).contains(&tried));
});
