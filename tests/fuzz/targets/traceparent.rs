//! The context of a trace as clients send it: no panic, and what is read is what stands there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::hex;
use sigilum::domain::trace::TraceContext;

fuzz_target!(|data: &[u8]| {
    let Some(context) = TraceContext::parse(data) else { return };
    assert!(context.trace_id != [0; 16] && context.parent != [0; 8]);
    let ids = format!("-{}-{}-", hex::text(&context.trace_id), hex::text(&context.parent));
    assert_eq!(data.get(2..53), Some(ids.as_bytes()));
});
