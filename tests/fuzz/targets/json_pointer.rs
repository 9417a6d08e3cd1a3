//! A secret file and a pointer into it: no panic, and where there is something it is what serde_json finds there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::secrets::json::Json;

fuzz_target!(|input: (&str, &str)| {
    let (text, pointer) = input;
    let Ok(json) = Json::parse(text.as_bytes()) else { return };
    let Some(found) = json.at(pointer) else { return };
    let theirs: serde_json::Value = serde_json::from_str(text).expect("we read it");
    let theirs = theirs.pointer(pointer).expect("it leads somewhere");
    assert_eq!(found.text(), theirs.as_str());
});
