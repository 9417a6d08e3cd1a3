//! Query strings of the control plane: no panic, and no parameter twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::api::input::Query;

fuzz_target!(|text: &str| {
    if let Ok(query) = Query::parse(text) {
        let found = query.find("session_id").map(str::to_owned);
        // What is decoded once is the same when it is read again with another parameter behind it.
        if let Ok(more) = Query::parse(&format!("{text}&zz-not-there=1")) {
            assert_eq!(more.find("session_id").map(str::to_owned), found);
        }
    }
});
