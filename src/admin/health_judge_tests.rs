#![allow(clippy::unwrap_used, reason = "test code may panic")]

use super::*;
use crate::wire::health::DetailsBody;

/// Everything is as it should be.
fn well() -> Facts {
    Facts {
        locked: true,
        store: StoreFact::Well,
        key: Some(KeyStanding::Opens),
        secrets: SecretsFact { active: 2, generation: 1, ..SecretsFact::default() },
        envoy: EnvoyFact::Answers { state: "LIVE".to_owned(), version: "1.40.0".to_owned() },
        authz: AuthzFact {
            connected: 1,
            current: 1,
            ready: 1,
            reported: true,
            ever_current: true,
            ..AuthzFact::default()
        },
        canary: CanaryFact::Refused(3),
        draining: None,
        data_plane: vec![Condition { kind: IN_SYNC, holds: true, reason: "InSync", message: "m".to_owned() }],
        claims: Some(overview::Condition { fresh: true, reason: "Confirmed", message: "m".to_owned() }),
        nothing_holds: false,
        api: Some(ApiFact::Answers(Some(0))),
        free_bytes: Some(LOW_BYTES),
        bridge: BridgeFact::Connected,
    }
}

/// What fails, what is to be known, and the reasons of what is not as it was.
fn changed(change: impl FnOnce(&mut Facts)) -> (Vec<String>, Vec<String>, Vec<String>) {
    let mut facts = well();
    change(&mut facts);
    let (before, after) = (judge(&well()), judge(&facts));
    let reasons =
        before.iter().zip(&after).filter(|(one, other)| one.status != other.status || one.reason != other.reason);
    let reasons = reasons.map(|(_, now)| format!("{}: {}", now.kind, now.reason)).collect();
    let details = DetailsBody::of(after, String::new(), 0);
    (details.failures, details.advisories, reasons)
}

#[test]
fn a_well_gateway_is_ready_and_has_nothing_to_say() {
    assert_eq!(changed(|_| {}), (vec![], vec![], vec![]));
    let kinds: Vec<_> = judge(&well()).into_iter().map(|one| one.kind).collect();
    // Told of authz and of Envoy; and the last three only where agents, or authz processes of other hosts, come over TLS.
    let mut expected: Vec<_> = ConditionKind::ALL.iter().map(|kind| kind.name()).collect();
    expected.insert(5, "XdsInSync");
    expected.truncate(expected.len() - 3);
    assert_eq!(kinds, expected);
}

#[test]
fn a_drain_is_said_once_with_its_end_and_what_ends_it() {
    let held = |facts: &mut Facts| facts.draining = Some("2026-01-01T00:00:00Z".to_owned());
    let failing = (vec!["AuthzReachable".to_owned()], vec![], vec!["AuthzReachable: Draining".to_owned()]);
    assert_eq!(changed(held), failing);
    let (failures, _, _) = changed(|facts| {
        held(facts);
        facts.envoy = EnvoyFact::Answers { state: "DRAINING".to_owned(), version: "1.40.0".to_owned() };
        facts.canary = CanaryFact::NoEnvoy;
    });
    assert_eq!(failures, ["AuthzReachable"]);
    let (failures, advisories, _) = changed(|facts| {
        held(facts);
        (facts.envoy, facts.canary) = (EnvoyFact::Elsewhere, CanaryFact::Elsewhere);
    });
    assert_eq!((failures, advisories), (vec![], vec!["AuthzReachable".to_owned()]), "admin serves its authz");
    let open = changed(|facts| {
        held(facts);
        facts.canary = CanaryFact::LetThrough("200".to_owned());
    });
    assert_eq!(open.2, ["AuthzReachable: FailedOpen"]);
    let mut facts = well();
    held(&mut facts);
    let said = judge(&facts).into_iter().find(|one| one.reason == DRAINING).unwrap().message;
    assert!(said.contains("2026-01-01T00:00:00Z") && said.contains("sigilum gateway undrain --all"), "{said}");
}

#[test]
fn each_cause_turns_its_own_condition_and_no_other() {
    type Break = fn(&mut Facts);
    let required: [(&str, Break); 20] = [
        ("ClaimsFresh: ClaimsStale", |facts| {
            let message = "m".to_owned();
            facts.claims = Some(overview::Condition { fresh: false, reason: overview::STALE, message });
            facts.nothing_holds = true;
        }),
        ("StateLock: LockHeldElsewhere", |facts| facts.locked = false),
        ("Store: StoreUnavailable", |facts| facts.store = StoreFact::Silent("m".to_owned())),
        ("MasterKey: KeyMismatch", |facts| facts.key = Some(KeyStanding::Mismatch)),
        ("EnvoyLive: NotStarted", |facts| facts.envoy = EnvoyFact::Down { was_live: false, why: "m".to_owned() }),
        ("EnvoyLive: Crashed", |facts| facts.envoy = EnvoyFact::Down { was_live: true, why: "m".to_owned() }),
        ("EnvoyLive: Draining", |facts| {
            facts.envoy = EnvoyFact::Answers { state: "DRAINING".to_owned(), version: String::new() };
        }),
        ("EnvoyLive: NotStarted", |facts| {
            facts.envoy = EnvoyFact::Answers { state: "INITIALIZING".to_owned(), version: String::new() };
        }),
        ("XdsInSync: AckTimeout", |facts| {
            (facts.authz.current, facts.authz.ready, facts.authz.behind_for) = (0, 0, APPLY_PATIENCE);
        }),
        ("XdsInSync: Nack", |facts| {
            (facts.authz.current, facts.authz.refused) = (0, Some("m".to_owned()));
        }),
        ("XdsInSync: NotApplied", |facts| {
            (facts.authz.current, facts.authz.ready, facts.authz.ever_current) = (0, 0, false);
        }),
        ("XdsInSync: NotReady", |facts| facts.authz.ready = 0),
        ("AuthzReachable: Unreachable", |facts| facts.canary = CanaryFact::Undecided("m".to_owned())),
        ("AuthzReachable: FailedOpen", |facts| facts.canary = CanaryFact::LetThrough("m".to_owned())),
        ("NonceStore: ReadOnly", |facts| (facts.authz.failing, facts.authz.ready) = (Some("a".to_owned()), 0)),
        ("NonceStore: VolumeFull", |facts| {
            (facts.authz.failing, facts.authz.volume_full, facts.authz.ready) = (Some("a".to_owned()), true, 0);
        }),
        ("NonceStore: StoreUnreachable", |facts| facts.authz.store_failing = true),
        ("NonceStore: Full", |facts| facts.authz.full = true),
        ("NonceStore: Starting", |facts| (facts.authz.starting, facts.authz.ready) = (true, 0)),
        ("ClockSane: Skewed", |facts| facts.api = Some(ApiFact::Answers(Some(-301)))),
    ];
    for (reason, change) in required {
        let kind = reason.split(':').next().unwrap().to_owned();
        assert_eq!(changed(change), (vec![kind], vec![], vec![reason.to_owned()]));
    }
    let advisory: [(&str, Break); 15] = [
        ("NonceStore: ReadOnly", |facts| facts.authz.failing = Some("one of two".to_owned())),
        ("Store: DiskFull", |facts| facts.store = StoreFact::Unwritable(Hindrance::Full)),
        ("Store: ReadOnly", |facts| facts.store = StoreFact::Unwritable(Hindrance::Other)),
        ("MasterKey: KeyMissing", |facts| facts.key = Some(KeyStanding::FileMissing)),
        ("SecretsSnapshot: TooStale", |facts| (facts.secrets.degraded, facts.secrets.too_old) = (true, true)),
        ("XdsInSync: Nack", |facts| {
            facts.data_plane = vec![Condition { kind: IN_SYNC, holds: false, reason: "Nack", message: String::new() }];
        }),
        ("ClaimsFresh: ClaimsStale", |facts| {
            facts.claims = Some(overview::Condition { fresh: false, reason: overview::STALE, message: String::new() });
        }),
        ("ClockSane: Skewed", |facts| facts.api = Some(ApiFact::Answers(Some(61)))),
        ("ClockSane: Skewed", |facts| facts.api = Some(ApiFact::Answers(Some(-300)))),
        ("ReplayShared: SeveralWindows", |facts| facts.authz.window_conflict = Some("m".to_owned())),
        ("DiskSpace: Low", |facts| facts.free_bytes = Some(LOW_BYTES - 1)),
        ("PairBridge: Connecting", |facts| facts.bridge = BridgeFact::Connecting),
        ("PairBridge: Connecting", |facts| facts.bridge = BridgeFact::Gone),
        ("PairBridge: Terminal", |facts| facts.bridge = BridgeFact::Terminal),
        ("ClaimsFresh: NoServiceKey", |facts| {
            let reason = overview::NO_SERVICE_KEY;
            facts.claims = Some(overview::Condition { fresh: false, reason, message: String::new() });
        }),
    ];
    for (reason, change) in advisory {
        let kind = reason.split(':').next().unwrap().to_owned();
        assert_eq!(changed(change), (vec![], vec![kind], vec![reason.to_owned()]));
    }
    // A clock nobody can compare is not called wrong.
    for (reason, api) in [
        ("Unreachable", ApiFact::Unreachable(String::new())),
        ("TlsError", ApiFact::Tls(String::new())),
        ("HtmlInsteadOfApi", ApiFact::NotTheApi(String::new())),
    ] {
        let (failures, advisories, reasons) = changed(|facts| facts.api = Some(api));
        assert_eq!((failures, advisories), (vec![], vec!["ApiReachable".to_owned()]));
        assert_eq!(reasons, [format!("ApiReachable: {reason}"), "ClockSane: NotMeasured".to_owned()]);
    }
}

#[test]
fn what_cannot_be_asked_keeps_nobody_from_anything() {
    let alone = changed(|facts| {
        facts.envoy = EnvoyFact::Elsewhere;
        facts.canary = CanaryFact::Elsewhere;
        facts.claims = None;
        facts.api = None;
        facts.free_bytes = None;
        facts.bridge = BridgeFact::Off;
        facts.authz.reported = false;
        facts.secrets = SecretsFact::default();
    });
    assert_eq!((alone.0, alone.1), (vec![], vec![]));
    // Where Envoy is dead nobody says that authz is too, and where the store is, nobody says that the key is.
    let dead = changed(|facts| {
        facts.envoy = EnvoyFact::Down { was_live: true, why: String::new() };
        facts.canary = CanaryFact::NoEnvoy;
    });
    assert_eq!(dead.0, ["EnvoyLive"]);
    let shut = changed(|facts| (facts.store, facts.key) = (StoreFact::Silent(String::new()), None));
    assert_eq!(shut.0, ["Store"]);
}

#[test]
fn secrets_that_serve_on_are_told_and_hold() {
    let (failures, advisories, reasons) =
        changed(|facts| (facts.secrets.degraded, facts.secrets.unresolved) = (true, 1));
    assert_eq!((failures, advisories), (vec![], vec![]));
    assert_eq!(reasons, ["SecretsSnapshot: Degraded"]);
}

#[test]
fn one_version_behind_is_no_failure_for_a_moment() {
    let (failures, ..) = changed(|facts| {
        (facts.authz.current, facts.authz.ready, facts.authz.behind_for) = (0, 0, Duration::from_millis(4999));
    });
    assert!(failures.is_empty(), "{failures:?}");
    let (failures, _, reasons) = changed(|facts| facts.authz = AuthzFact::default());
    assert_eq!(failures, ["XdsInSync"]);
    assert_eq!(reasons, ["XdsInSync: NotConnected", "NonceStore: NotReported"]);
}

#[test]
fn the_certificates_of_authz_processes_elsewhere_are_told_of_before_their_end_and_after() {
    let ending = |node: &str, said: &str, cut_off| Ending { node: node.to_owned(), said: said.to_owned(), cut_off };
    let told = |endings: Vec<Ending>| {
        let mut facts = well();
        (facts.authz.certified, facts.authz.endings) = (true, endings);
        let details = DetailsBody::of(judge(&facts), String::new(), 0);
        let found = details.conditions.iter().find(|one| one.kind == "StateCertificates").unwrap().clone();
        (details.is_ready(), found.is_advisory(), found.reason, found.message)
    };
    let (ready, advisory, reason, _) = told(Vec::new());
    assert_eq!((ready, advisory, reason.as_str()), (true, false, "Valid"));
    let (soon, gone) = (ending("one", "ends in 5 days", false), ending("two", "ended at noon", true));
    let (ready, advisory, reason, message) = told(vec![soon.clone()]);
    assert_eq!((ready, advisory, reason.as_str()), (true, true, "EndsSoon"));
    assert_eq!(message, "the certificate of one ends in 5 days");
    let (ready, advisory, reason, message) = told(vec![soon, gone]);
    assert_eq!((ready, advisory, reason.as_str()), (true, true, "Ended"));
    assert!(
        message.contains("one ends in 5 days; the certificate of two ended at noon: it is without admin"),
        "{message}"
    );
}

#[test]
fn what_authz_processes_of_other_hosts_say_of_themselves_is_named_and_makes_nobody_unready() {
    let told = |troubles: Vec<Trouble>| {
        let mut facts = well();
        (facts.authz.remote, facts.authz.troubles) = (20, troubles);
        let details = DetailsBody::of(judge(&facts), String::new(), 0);
        let found = details.conditions.iter().find(|one| one.kind == "RemoteAuthz").unwrap().clone();
        assert!(details.is_ready() && details.advisories.len() == usize::from(found.is_advisory()));
        (found.is_advisory(), found.reason, found.message)
    };
    let trouble = |number: usize| Trouble { node: format!("n{number}"), reason: "Full", said: "is full".to_owned() };
    assert!(!told(Vec::new()).0);
    assert_eq!(told(vec![trouble(1)]), (true, "Full".to_owned(), "n1 is full".to_owned()));
    let (.., message) = told((0..20).map(trouble).collect());
    assert!(message.contains("n7 is full; and 12 more") && !message.contains("n8"), "{message}");
}
