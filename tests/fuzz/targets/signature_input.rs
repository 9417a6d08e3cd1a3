//! `Signature-Input`: no panic, and what parses is written back so that it parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::signature::SignatureParams;
use sigilum::domain::signature::SignedHeaders;
use sigilum::domain::signature::write_params;

const SIGNATURE: &str =
    "sig1=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==:";

fuzz_target!(|input: &str| {
    let headers =
        SignedHeaders { signature_input: Some(input), signature: Some(SIGNATURE), ..SignedHeaders::default() };
    let Ok(params) = SignatureParams::parse(&headers) else { return };
    let mut written = b"sig1=".to_vec();
    write_params(&mut written, &params);
    let written = std::str::from_utf8(&written).unwrap();
    let again = SignedHeaders { signature_input: Some(written), ..headers };
    assert_eq!(SignatureParams::parse(&again), Ok(params));
});
