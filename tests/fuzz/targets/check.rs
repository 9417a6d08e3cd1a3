//! A hostile `CheckRequest` through decoding, the gate and the answer: no panic, and never an allowed request.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sigilum::domain::approval::Approvals;
use sigilum::domain::decision::Verdict;
use sigilum::domain::registration::Registering;
use sigilum::domain::request::Stage;
use sigilum::domain::snapshot::Settings;
use sigilum::domain::snapshot::Snapshot;
use sigilum::domain::snapshot::StateVersion;
use sigilum::domain::time::MonotonicMillis;
use sigilum::domain::time::Now;
use sigilum::domain::time::UnixMillis;
use sigilum::gate::Gate;
use sigilum::gate::Scratch;
use sigilum::wire::answer::Answering;
use sigilum::wire::envoy;
use sigilum::wire::envoy::Check;

static GATE: LazyLock<(Gate, Snapshot)> = LazyLock::new(|| {
    let snapshot = Snapshot {
        version: StateVersion { epoch: "e".to_owned(), version: 1, ..StateVersion::default() },
        settings: Settings::default().into(),
        connections: Default::default(),
        approvals: Approvals::default(),
        given: Default::default(),
    };
    (Gate::new([7; 16]), snapshot)
});

fuzz_target!(|data: &[u8]| {
    let Ok(message) = envoy::decode(data) else { return };
    let Ok(check) = Check::read(&message) else { return };
    let (gate, snapshot) = &*GATE;
    let now = Now { wall: UnixMillis(1_700_000_000_000), monotonic: MonotonicMillis(1 << 40) };
    for stage in [Stage::Head, Stage::Body] {
        // Nothing is approved, so nothing may pass either stage.
        let Verdict::Deny(denial) = gate.decide(stage, &check, snapshot, now, &mut Scratch::default()) else {
            panic!("let through");
        };
        let answering = Answering { check: Some(&check), decision_id: "d", at: now.wall };
        assert_eq!(answering.deny(&denial, Registering::Untold).status.map(|status| status.code), Some(7));
    }
});
