use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::approval::Approval;
use crate::domain::ids::PublicKey;
use crate::domain::time::Now;
use crate::domain::time::UnixMillis;
use crate::domain::time::UnixSeconds;
use crate::state::change::Change;
use crate::state::cursor::Cursor;
use crate::state::published::Published;
use crate::state::published::PublishedState;
use crate::state::scope::Scope;
use crate::state::tenure::Floors;

const START: MonotonicMillis = MonotonicMillis(1 << 40);

fn settings() -> proto::Settings {
    state::encode_settings(&Settings::default())
}

fn connection(id: &str, name: &str) -> proto::Connection {
    proto::Connection {
        id: id.to_owned(),
        name: name.to_owned(),
        protocol: "http".to_owned(),
        base_url: "https://api.example.com".to_owned(),
        auth_mode: proto::AuthMode::Bearer.into(),
        secret: "s".to_owned(),
        active: true,
        ..proto::Connection::default()
    }
}

fn single(service: u8, source: i32, key: u8) -> proto::Approval {
    proto::Approval {
        service: format!("service-{service}"),
        source,
        grant: Some(proto::Grant { namespace: "abc".to_owned(), public_key: vec![key; 32], expires_at: None }),
    }
}

fn list(service: u8, source: i32, keys: &[u8]) -> proto::ServiceApprovals {
    let grants = keys.iter().filter_map(|key| single(service, source, *key).grant).collect();
    let age_ms = (source == 2).then_some(0);
    proto::ServiceApprovals { service: format!("service-{service}"), source, grants, age_ms }
}

fn start(version: u64) -> Published {
    let state = PublishedState {
        epoch: "epoch-1".to_owned(),
        version,
        settings: settings(),
        connections: vec![connection("con-0", "zero")],
        approvals: vec![list(0, 1, &[1, 2]), list(1, 2, &[3])],
        ..PublishedState::default()
    };
    Published::new(state, START)
}

/// What a state says, in a form that can be compared.
#[derive(Debug, PartialEq)]
struct View {
    version: StateVersion,
    connections: BTreeMap<String, String>,
    approvals: BTreeSet<(u8, u8, bool)>,
    count: usize,
}

fn view(replica: &Replica) -> View {
    let held = replica.snapshot().unwrap();
    let now = Now { wall: UnixMillis(0), monotonic: START };
    let mut approvals = BTreeSet::new();
    for service in 0..3_u8 {
        for key in 0..8_u8 {
            let public = PublicKey::new([key; 32]);
            let service_name = format!("service-{service}");
            // With a hold of 0 ms nothing of a claims source is fresh a moment later: both answers
            // together tell the sources apart.
            let later = Now { monotonic: MonotonicMillis(START.0 + 1_000_000), ..now };
            if held.approvals.judge(&public, "abc", &service_name, later, 0) == Approval::Approved {
                approvals.insert((service, key, true));
            }
            if held.approvals.judge(&public, "abc", &service_name, now, u64::MAX) == Approval::Approved {
                approvals.insert((service, key, false));
            }
        }
    }
    View {
        version: held.version.clone(),
        connections: held
            .connections
            .values()
            .map(|one| (one.settings.id.as_str().to_owned(), one.settings.name.clone()))
            .collect(),
        approvals,
        count: held.approvals.len(),
    }
}

/// A replica that was never connected before and loses nothing.
fn fresh(published: &Published) -> Replica {
    let (mut cursor, mut replica) = (Cursor::default(), Replica::default());
    cursor.hello(proto::StateVersion::default(), published);
    while let Some(message) = cursor.step(published, START) {
        replica.apply(message, START).unwrap();
    }
    replica
}

#[derive(Debug, Clone)]
enum Event {
    Change(Change),
    Confirm(u8),
    /// Sends one message and delivers it.
    Deliver,
    /// Sends one message and loses it.
    Lose,
    /// Sends one message and delivers it twice.
    Twice,
    Reconnect,
}

fn changes() -> impl Strategy<Value = Change> {
    let keys = || prop::collection::vec(0..8_u8, 0..4);
    prop_oneof![
        Just(Change::Settings(settings())),
        (0..4_u8, "[a-z]{3}").prop_map(|(id, name)| Change::Upsert(Box::new(connection(&format!("con-{id}"), &name)))),
        (0..4_u8).prop_map(|id| Change::Delete(format!("con-{id}"))),
        (0..3_u8, 1..3_i32, keys())
            .prop_map(|(service, source, keys)| { Change::ReplaceApprovals(list(service, source, &keys)) }),
        (0..3_u8, 1..3_i32, keys()).prop_map(|(service, source, keys)| {
            Change::AddApprovals(keys.iter().map(|key| single(service, source, *key)).collect())
        }),
        (0..3_u8, 1..3_i32, keys()).prop_map(|(service, source, keys)| {
            Change::RemoveApprovals(keys.iter().map(|key| single(service, source, *key)).collect())
        }),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => changes().prop_map(Event::Change),
        1 => (0..3_u8).prop_map(Event::Confirm),
        4 => Just(Event::Deliver),
        1 => Just(Event::Lose),
        1 => Just(Event::Twice),
        1 => Just(Event::Reconnect),
    ]
}

/// Lets a replica answer as the subscriber does; a stream that is given up is opened again.
fn deliver(replica: &mut Replica, cursor: &mut Cursor, published: &Published, message: proto::StateResponse) {
    match replica.apply(message, START) {
        Ok(Applied::Version { .. }) => drop(cursor.applied()),
        Ok(Applied::Confirmed | Applied::Part | Applied::Ignored) => {}
        Err(refused) => {
            if cursor.refused(refused.version.version).is_err() {
                reconnect(replica, cursor, published);
            }
        }
    }
}

fn reconnect(replica: &mut Replica, cursor: &mut Cursor, published: &Published) {
    replica.reconnect();
    *cursor = Cursor::default();
    let held = replica.snapshot().map(|held| state::encode_version(&held.version)).unwrap_or_default();
    cursor.hello(held, published);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is lost, repeated or interrupted: the replica ends where the publisher is.
    #[test]
    fn any_history_ends_where_the_publisher_is(events in prop::collection::vec(events(), 0..60)) {
        let mut published = start(7);
        let mut version = 7;
        let (mut replica, mut cursor) = (Replica::default(), Cursor::default());
        reconnect(&mut replica, &mut cursor, &published);
        for event in events {
            match event {
                Event::Change(change) => {
                    version += 1;
                    prop_assert!(published.apply(version, change, START));
                }
                Event::Confirm(service) => {
                    let service = format!("service-{service}");
                    published.confirm(vec![proto::ServiceAge { service, age_ms: 0 }], START);
                }
                Event::Deliver => {
                    if let Some(message) = cursor.step(&published, START) {
                        deliver(&mut replica, &mut cursor, &published, message);
                    }
                }
                Event::Lose => drop(cursor.step(&published, START)),
                Event::Twice => {
                    if let Some(message) = cursor.step(&published, START) {
                        deliver(&mut replica, &mut cursor, &published, message.clone());
                        deliver(&mut replica, &mut cursor, &published, message);
                    }
                }
                Event::Reconnect => reconnect(&mut replica, &mut cursor, &published),
            }
            if let Some(held) = replica.snapshot() {
                prop_assert!(held.version.version <= version);
            }
        }
        // One more change shows a loss that nothing has shown yet, and sources are confirmed every few seconds.
        let services = (0..3).map(|service| proto::ServiceAge { service: format!("service-{service}"), age_ms: 0 });
        published.confirm(services.collect(), START);
        version += 1;
        published.apply(version, Change::Settings(settings()), START);
        while let Some(message) = cursor.step(&published, START) {
            deliver(&mut replica, &mut cursor, &published, message);
        }
        prop_assert_eq!(view(&replica), view(&fresh(&published)));
    }

    /// Whatever bytes claim to be a message: no panic, and what was held is held still.
    #[test]
    fn stray_bytes_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut replica = fresh(&start(7));
        let before = view(&replica);
        if let Ok(message) = state::decode_response(&bytes) {
            let _ = replica.apply(message, START);
        }
        prop_assert_eq!(before, view(&replica));
    }
}

fn message(version: u64, message: Message) -> proto::StateResponse {
    let version = proto::StateVersion { epoch: "epoch-1".to_owned(), version, ..proto::StateVersion::default() };
    proto::StateResponse { version: Some(version), message: Some(message) }
}

#[path = "restart_tests.rs"]
mod restarts;

#[test]
fn whoever_refuses_what_it_was_never_sent_is_given_up_all_the_same() {
    let published = start(7);
    let mut cursor = Cursor::default();
    cursor.hello(proto::StateVersion::default(), &published);
    let sent = |cursor: &mut Cursor| std::iter::from_fn(|| cursor.step(&published, START)).count();
    for _ in 0..2 {
        assert_eq!(sent(&mut cursor), 1, "the full state");
        // As often as it likes: it is on its way.
        assert!((0..10).all(|_| cursor.refused(u64::MAX).is_ok()));
    }
    assert_eq!(sent(&mut cursor), 1);
    assert!(cursor.refused(u64::MAX).is_err());
}

#[test]
fn when_a_connection_was_given_is_kept_and_what_is_not_known_counts_for_whoever_does_not_hold_it() {
    let record = |ago, unless_held| proto::Connection {
        given_ms_ago: ago,
        given_unless_held: unless_held,
        ..connection("con-0", "zero")
    };
    let full = |version, record| {
        let (settings, connections) = (Some(settings()), vec![record]);
        message(version, Message::Full(proto::Full { last: true, settings, connections, ..proto::Full::default() }))
    };
    let given = |replica: &Replica| replica.snapshot().unwrap().given.values().next().copied();
    let ago = |ms| Some(MonotonicMillis(START.0 - ms));
    let mut fresh = Replica::default();
    fresh.apply(full(7, record(Some(900), true)), START).unwrap();
    assert_eq!(given(&fresh), ago(900));
    let mut replica = Replica::default();
    replica.apply(full(7, record(None, false)), START).unwrap();
    replica.apply(full(8, record(Some(900), true)), START).unwrap();
    assert_eq!(given(&replica), None, "it decided itself");
    replica.apply(full(9, record(Some(800), false)), START).unwrap();
    assert_eq!(given(&replica), ago(800), "another did as well");
    // A later admin knows nothing of that, and a change of the connection says nothing of it.
    replica.apply(full(10, record(Some(5), true)), START).unwrap();
    let upsert_connections = vec![connection("con-0", "other")];
    let delta = proto::Delta { follows: 10, upsert_connections, ..proto::Delta::default() };
    replica.apply(message(11, Message::Delta(delta)), START).unwrap();
    assert_eq!(given(&replica), ago(800));
    let delta =
        proto::Delta { follows: 11, upsert_connections: vec![record(Some(700), false)], ..proto::Delta::default() };
    replica.apply(message(12, Message::Delta(delta)), START).unwrap();
    assert_eq!(given(&replica), ago(700));
    let held = replica.snapshot().unwrap();
    let now = |since| Now { wall: UnixMillis(1_000_000_000 + since), monotonic: MonotonicMillis(START.0 + since) };
    let floor = Some(UnixSeconds(999_999 + 10));
    assert_eq!((held.floor("con-0", now(0)), held.floor("con-0", now(60_000))), (floor, floor));
    assert!(held.is_starting(now(9_000)) && !held.is_starting(now(10_000)));
    assert_eq!(held.floor("con-1", now(0)), None);
}

#[test]
fn an_older_full_state_of_the_same_epoch_is_refused() {
    let mut replica = fresh(&start(7));
    let full = |part, last| proto::Full { part, last, settings: Some(settings()), ..proto::Full::default() };
    let before = view(&replica);
    replica.apply(message(6, Message::Full(full(0, true))), START).unwrap_err();
    assert_eq!(view(&replica), before);
    let mut other = message(1, Message::Full(full(0, true)));
    other.version.as_mut().unwrap().epoch = "epoch-2".to_owned();
    replica.apply(other, START).unwrap();
    assert_eq!(replica.snapshot().unwrap().version.epoch, "epoch-2");
    assert!(replica.snapshot().unwrap().connections.is_empty());
}

#[test]
fn an_older_state_of_another_run_of_admin_is_taken_and_one_of_the_same_run_is_not() {
    let run = |incarnation: &str, version| PublishedState {
        epoch: "epoch-1".to_owned(),
        incarnation: incarnation.to_owned(),
        version,
        settings: settings(),
        ..PublishedState::default()
    };
    let full = |published: &Published| published.full((&Scope::Everything, &Floors::default()), START).next().unwrap();
    let first =
        Published::new(PublishedState { connections: vec![connection("con-0", "zero")], ..run("one", 17) }, START);
    let mut rolled_back = Published::new(run("two", 9), START);
    let mut replica = fresh(&first);
    replica.apply(full(&Published::new(run("one", 9), START)), START).unwrap_err();
    assert!(rolled_back.is_rolled_back(&state::encode_version(&replica.snapshot().unwrap().version)));
    replica.apply(full(&rolled_back), START).unwrap();
    let held = replica.snapshot().unwrap();
    assert_eq!((held.version.version, held.connections.len()), (9, 0));
    assert!(!rolled_back.is_rolled_back(&state::encode_version(&held.version)));
    // Changes take its version beyond that of before, and still nothing builds upon that.
    let before = proto::StateVersion { version: 17, ..first.version() };
    assert!((10..=23).all(|version| rolled_back.apply(version, Change::Delete(format!("con-{version}")), START)));
    assert!(
        !rolled_back.may_resume(&before)
            && rolled_back.may_resume(&proto::StateVersion { version: 17, ..rolled_back.version() })
    );
}

#[test]
fn a_delta_and_a_confirmation_of_another_run_of_admin_are_not_built_upon() {
    let mut replica = fresh(&start(7));
    let before = view(&replica);
    let of_another = |message: proto::StateResponse| {
        let version = message.version.map(|version| proto::StateVersion { incarnation: "two".to_owned(), ..version });
        proto::StateResponse { version, ..message }
    };
    let delta = proto::Delta { follows: 7, delete_connections: vec!["con-0".to_owned()], ..proto::Delta::default() };
    replica.apply(of_another(message(8, Message::Delta(delta))), START).unwrap_err();
    let confirm = of_another(message(7, Message::Confirm(proto::Confirm::default())));
    assert_eq!(replica.apply(confirm, START), Ok(Applied::Ignored));
    assert_eq!(view(&replica), before);
}

#[test]
fn a_full_state_counts_when_its_last_part_has_come() {
    let mut replica = fresh(&start(7));
    let before = view(&replica);
    let part = |part, last, id: &str| proto::Full {
        part,
        last,
        settings: (part == 0).then(settings),
        connections: vec![connection(id, "x")],
        approvals: Vec::new(),
    };
    assert_eq!(replica.apply(message(9, Message::Full(part(0, false, "one-1"))), START), Ok(Applied::Part));
    assert_eq!(view(&replica), before);
    replica.apply(message(9, Message::Full(part(2, true, "two-2"))), START).unwrap_err();
    assert_eq!(view(&replica), before);
    replica.apply(message(9, Message::Full(part(0, false, "one-1"))), START).unwrap();
    replica.apply(message(9, Message::Full(part(1, true, "two-2"))), START).unwrap();
    assert_eq!(replica.snapshot().unwrap().connections.len(), 2);
}

#[test]
fn a_delta_that_does_not_follow_is_refused() {
    let mut replica = fresh(&start(7));
    let delta =
        |follows| proto::Delta { follows, delete_connections: vec!["con-0".to_owned()], ..proto::Delta::default() };
    replica.apply(message(10, Message::Delta(delta(9))), START).unwrap_err();
    replica.apply(message(11, Message::Delta(delta(10))), START).unwrap_err();
    let mut elsewhere = message(8, Message::Delta(delta(7)));
    elsewhere.version.as_mut().unwrap().epoch = "epoch-2".to_owned();
    replica.apply(elsewhere, START).unwrap_err();
    assert_eq!(replica.snapshot().unwrap().connections.len(), 1);
}

#[test]
fn undecodable_records_do_not_hold_up_the_others() {
    let mut published = start(7);
    let bad = proto::Connection { protocol: "smtp".to_owned(), ..connection("con-1", "bad") };
    let nameless = proto::Connection { id: "NOT A SLUG".to_owned(), ..connection("con-2", "bad") };
    published.apply(8, Change::Upsert(Box::new(bad)), START);
    published.apply(9, Change::Upsert(Box::new(nameless)), START);
    let replica = fresh(&published);
    let held = replica.snapshot().unwrap();
    assert_eq!(held.version.version, 9);
    assert!(held.connection("con-0").unwrap().credential.is_ok());
    assert!(held.connection("con-1").unwrap().credential.is_err());
    assert_eq!(held.connections.len(), 2);
}

#[test]
fn confirmations_refresh_claims_and_only_of_the_version_held() {
    let replica_at = |published: &Published| fresh(published);
    let published = start(7);
    let mut replica = replica_at(&published);
    let later = MonotonicMillis(START.0 + 60_000);
    let judged = |replica: &Replica, at| {
        let now = Now { wall: UnixMillis(0), monotonic: at };
        replica.snapshot().unwrap().approvals.judge(&PublicKey::new([3; 32]), "abc", "service-1", now, 30_000)
    };
    assert_eq!(judged(&replica, START), Approval::Approved);
    assert_eq!(judged(&replica, later), Approval::Stale);
    let confirm = |version| {
        let service = proto::ServiceAge { service: "service-1".to_owned(), age_ms: 10_000 };
        message(version, Message::Confirm(proto::Confirm { services: vec![service] }))
    };
    assert_eq!(replica.apply(confirm(8), later), Ok(Applied::Ignored));
    assert_eq!(judged(&replica, later), Approval::Stale);
    assert_eq!(replica.apply(confirm(7), later), Ok(Applied::Confirmed));
    assert_eq!(judged(&replica, later), Approval::Approved);
    assert_eq!(judged(&replica, MonotonicMillis(later.0 + 20_001)), Approval::Stale);
}

#[test]
fn what_an_earlier_admin_published_is_replaced_even_at_the_same_version() {
    // The declared approvals and the settings may differ although the store did not change.
    let mut replica = fresh(&start(7));
    let state =
        PublishedState { epoch: "epoch-1".to_owned(), version: 7, settings: settings(), ..PublishedState::default() };
    let published = Published::new(state, START);
    let mut cursor = Cursor::default();
    reconnect(&mut replica, &mut cursor, &published);
    while let Some(message) = cursor.step(&published, START) {
        deliver(&mut replica, &mut cursor, &published, message);
    }
    assert_eq!(replica.snapshot().unwrap().approvals.len(), 0);
}

#[test]
fn a_large_state_comes_in_parts_of_bounded_size() {
    let mut state =
        PublishedState { epoch: "e".to_owned(), version: 1, settings: settings(), ..PublishedState::default() };
    state.connections = (0..3000).map(|id| connection(&format!("con-{id}"), &"x".repeat(900))).collect();
    let grants = (0..40_000_u32).map(|key| {
        let mut public_key = vec![0; 32];
        public_key[..4].copy_from_slice(&key.to_be_bytes());
        proto::Grant { namespace: "abc".to_owned(), public_key, expires_at: None }
    });
    state.approvals =
        vec![proto::ServiceApprovals { service: "svc".to_owned(), source: 1, grants: grants.collect(), age_ms: None }];
    let published = Published::new(state, START);
    let (mut cursor, mut replica) = (Cursor::default(), Replica::default());
    cursor.hello(proto::StateVersion::default(), &published);
    let mut parts = 0;
    while let Some(message) = cursor.step(&published, START) {
        assert!(prost::Message::encoded_len(&message) < 3 << 20);
        replica.apply(message, START).unwrap();
        parts += 1;
    }
    assert!(parts > 3, "{parts}");
    let held = replica.snapshot().unwrap();
    assert_eq!((held.connections.len(), held.approvals.len()), (3000, 40_000));
}

#[path = "scope_tests.rs"]
mod scoped;
