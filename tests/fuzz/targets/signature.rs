//! `Signature`: no panic, and one spelling per signature.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use sigilum::domain::signature::SignatureParams;
use sigilum::domain::signature::SignedHeaders;

const INPUT: &str = "sig1=(\"@method\" \"@target-uri\" \"sigilum-namespace\" \"sigilum-subject\" \"sigilum-agent-key\" \
                     \"sigilum-agent-cert\");created=1700000000;keyid=\"k\";alg=\"ed25519\";nonce=\"n\"";

fuzz_target!(|signature: &str| {
    let headers =
        SignedHeaders { signature_input: Some(INPUT), signature: Some(signature), ..SignedHeaders::default() };
    if let Ok(params) = SignatureParams::parse(&headers) {
        assert_eq!(format!("sig1=:{}:", STANDARD.encode(params.signature)), signature);
    }
});
