//! `identity.json`: no panic, no seed in an error, and what loads can sign.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sigilum::domain::ids::Namespace;
use sigilum::domain::time::UnixSeconds;
use sigilum::identity::Identity;
use sigilum::identity::Outgoing;

const SEED: &str = "ZMLKzZSCxP8QXOO1vlmejAvdFaesd3QC6JC9iCt8FfA=";

fuzz_target!(|json: &str| {
    let namespace = Namespace::parse("fixture-alice").unwrap();
    let now = UnixSeconds(1_771_610_666);
    match Identity::parse(json, Path::new("identity.json"), &namespace, now) {
        Ok(identity) => {
            let request = Outgoing {
                method: "GET",
                url: "http://h/",
                body: b"",
                subject: None,
                agent_id: None,
                created: now,
                nonce: "n",
            };
            identity.signer().sign(&request).unwrap();
        }
        Err(error) => assert!(!format!("{error} {error:?}").contains(SEED)),
    }
});
