//! The change stream of the control plane: no panic, and cutting the bytes elsewhere gives the same events.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::claims::events::EventParser;

fuzz_target!(|data: &[u8]| {
    let (mut whole, mut events) = (EventParser::default(), Vec::new());
    let read = whole.read(data, &mut events);
    let (mut cut, mut same) = (EventParser::default(), Vec::new());
    let step = usize::from(data.first().copied().unwrap_or(1)).max(1);
    let again = data.chunks(step).try_for_each(|chunk| cut.read(chunk, &mut same));
    assert_eq!((read, events), (again, same));
});
