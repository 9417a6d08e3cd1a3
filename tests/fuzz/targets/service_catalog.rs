//! The service catalog: no panic, and what is accepted and can be laid out is accepted again unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::wire::admin::decode;
use sigilum::wire::catalog::Catalog;

fuzz_target!(|data: &[u8]| {
    let Some(catalog) = decode::<Catalog>(data).ok().and_then(|catalog| catalog.check().ok()) else { return };
    let Ok(text) = catalog.text() else { return };
    let again = decode::<Catalog>(text.as_bytes()).unwrap().check().unwrap();
    assert!(again == catalog);
});
