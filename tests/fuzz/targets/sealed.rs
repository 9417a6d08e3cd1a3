//! Texts of sealed values: no panic, and one that was read has one text alone; none opens that nobody sealed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::sealing::Purpose;
use sigilum::domain::sealing::SealedSecret;
use sigilum::domain::sealing::SealingKey;
use sigilum::domain::sealing::Target;

fuzz_target!(|text: &str| {
    if let Ok(sealed) = SealedSecret::parse(text) {
        assert_eq!(sealed.text(), text.trim());
    }
    let target = Target { purpose: Purpose::Variable, id: "KEY", field: "value", destination: "" };
    let key = SealingKey::new(&[7; 32]).unwrap();
    assert!(key.open(text, &target).is_err());
});
