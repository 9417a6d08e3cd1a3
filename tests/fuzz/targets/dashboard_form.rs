//! Forms of the dashboard: no panic, no field twice, and no blanks around what is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::dashboard::form::Form;

fuzz_target!(|body: &[u8]| {
    let Ok(form) = Form::parse(body) else { return };
    let names = ["name", "slug", "id", "session", "plain"];
    for name in names {
        assert!(form.text(name).is_none_or(|text| !text.is_empty() && text.trim() == text));
    }
    assert!(form.object(&names).len() <= names.len());
    for (_, secret) in form.secrets("secret.") {
        assert!(!secret.expose().is_empty());
    }
});
