//! The mark of a replay window that replicas share, as the store gives it back: no panic, nothing that cannot be is
//! believed, what is read is written as it is read again, and a memory told to remember for longer knows no more of what
//! was signed before.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::replay::MAX_AGE_SECONDS;
use sigilum::domain::replay::mark::Mark;
use sigilum::domain::time::UnixSeconds;

const NOW: UnixSeconds = UnixSeconds(1_000_000);
/// Around the moments of a mark, and the two ends of time.
const MOMENTS: [u64; 8] = [0, 1, 999_700, 999_990, 1_000_000, 1_000_011, 1_000_400, u64::MAX];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Nothing is later than this.
    if let Some(mark) = Mark::read(text, UnixSeconds(u64::MAX)) {
        for moment in MOMENTS.map(UnixSeconds) {
            let _ = mark.knows(moment, moment);
            let _ = mark.expires_at(moment);
            let _ = mark.raise(moment, moment.0).floor();
        }
    }
    let Some(mark) = Mark::read(text, NOW) else { return };
    assert!(mark.kept() <= MAX_AGE_SECONDS && mark.floor() <= NOW.0 + 15);
    assert!(mark.is_of(text, NOW));
    assert_eq!(Mark::read(&mark.to_string(), NOW).as_ref(), Some(&mark));
    for kept in [0, mark.kept(), 300, 600, u64::MAX] {
        let raised = mark.raise(NOW, kept);
        assert!(raised.kept() >= mark.kept() && raised.kept() <= MAX_AGE_SECONDS);
        assert!(mark.is_of(&raised.to_string(), NOW));
        assert_eq!(Mark::read(&raised.to_string(), NOW).as_ref(), Some(&raised));
        for created in MOMENTS.into_iter().filter(|created| *created <= NOW.0 + 10).map(UnixSeconds) {
            for now in MOMENTS.map(UnixSeconds) {
                assert!(
                    !raised.knows(created, now) || mark.knows(created, now),
                    "{mark} raised to {kept}: {created:?}"
                );
            }
        }
    }
});
