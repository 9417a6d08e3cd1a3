//! What a hundred thousand approvals cost: memory, and the time of small things beside them.

use std::time::Duration;
use std::time::Instant;

use crate::domain::approval::Approval;
use crate::domain::approval::Freshness;
use crate::domain::ids::PublicKey;
use crate::domain::snapshot::Settings;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::Now;
use crate::domain::time::UnixMillis;
use crate::state::Change;
use crate::state::ClaimList;
use crate::state::PublishedState;
use crate::state::Replica;
use crate::state::cursor::Cursor;
use crate::state::published::Published;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::state;
use crate::wire::state::proto;

const MANY: u32 = 100_000;

fn now() -> MonotonicMillis {
    SystemClock.now().monotonic
}

fn key(number: u32) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    PublicKey::new(bytes)
}

fn list(namespaces: u32) -> ClaimList {
    let mut list = ClaimList::new();
    for number in 0..MANY {
        assert!(list.push(&format!("some-namespace-{:06}", number % namespaces), key(number), None));
    }
    list
}

fn empty() -> Published {
    let settings = state::encode_settings(&Settings::default());
    Published::new(PublishedState { epoch: "e".to_owned(), version: 1, settings, ..PublishedState::default() }, now())
}

fn load(service: &str, list: ClaimList) -> Change {
    list.load(service).remove(0)
}

/// Brings a replica to where the publisher is.
fn follow(published: &Published, cursor: &mut Cursor, replica: &mut Replica) {
    while let Some(message) = cursor.step(published, now()) {
        // Through bytes, as on the wire.
        let bytes = prost::Message::encode_to_vec(&message);
        drop(message);
        replica.apply(state::decode_response(&bytes).unwrap(), now()).unwrap();
    }
}

fn connected(published: &Published) -> (Cursor, Replica) {
    let mut cursor = Cursor::default();
    cursor.hello(proto::StateVersion::default(), published);
    (cursor, Replica::default())
}

fn one(number: u32) -> Vec<proto::Approval> {
    let grant = proto::Grant {
        namespace: "some-new-namespace".to_owned(),
        public_key: key(number).as_bytes().to_vec(),
        expires_at: None,
    };
    vec![proto::Approval { service: "svc".to_owned(), source: 2, grant: Some(grant) }]
}

#[test]
fn a_hundred_thousand_claims_come_over_and_go_again() {
    let (mut published, lists) = (empty(), [list(1000), list(1000)]);
    let (mut cursor, mut replica) = connected(&published);
    let [first, second] = lists;
    published.apply(2, load("svc", first), now());
    follow(&published, &mut cursor, &mut replica);
    let held = replica.snapshot().unwrap();
    assert_eq!(held.approvals.len(), 100_000);
    let at = Now { wall: UnixMillis(0), monotonic: now() };
    assert_eq!(held.approvals.judge(&key(5), "some-namespace-000005", "svc", at, 60_000), Approval::Approved);
    // Read again, nothing is different; fewer, that many are removed; none, all are gone at once.
    assert_eq!(second.difference("svc", &published.grants()).len(), 0);
    let mut fewer = ClaimList::new();
    for number in 0..MANY - 3000 {
        fewer.push(&format!("some-namespace-{:06}", number % 1000), key(number), None);
    }
    let changes = fewer.difference("svc", &published.grants());
    assert_eq!(changes.len(), 2);
    for (change, version) in changes.into_iter().zip(3..) {
        assert!(matches!(&change, Change::RemoveApprovals(list) if list.len() <= 2000));
        published.apply(version, change, now());
    }
    follow(&published, &mut cursor, &mut replica);
    assert_eq!(replica.snapshot().unwrap().approvals.len(), 97_000);
    let changes = ClaimList::new().difference("svc", &published.grants());
    assert_eq!(changes.len(), 1);
    published.apply(5, changes.into_iter().next().unwrap(), now());
    follow(&published, &mut cursor, &mut replica);
    let held = replica.snapshot().unwrap();
    assert!(held.approvals.is_empty());
    assert!(matches!(held.approvals.freshness("svc"), Some(Freshness::ConfirmedAt(_))));
}

/// The fastest of several tries: what else runs on this machine is not to be measured.
fn fastest(mut work: impl FnMut(u32)) -> Duration {
    (0..50).map(|number| timed(|| work(number))).min().unwrap()
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

#[test]
fn a_small_change_beside_many_approvals_is_quick() {
    let mut published = empty();
    for number in 0..1000 {
        let list = proto::ServiceApprovals { service: format!("service-{number}"), source: 2, ..Default::default() };
        published.apply(
            2 + number,
            Change::ReplaceApprovals(proto::ServiceApprovals { age_ms: Some(0), ..list }),
            now(),
        );
    }
    published.apply(1002, load("svc", list(1000)), now());
    let (mut cursor, mut replica) = connected(&published);
    follow(&published, &mut cursor, &mut replica);
    // Somebody decides with the last state, and another authz is being sent the full one: both share its parts.
    let mut readers = Vec::new();
    let mut version = 1002;
    let in_admin = fastest(|number| {
        readers.push(published.full(now()));
        version += 1;
        published.apply(version, Change::AddApprovals(one(MANY + number)), now());
        readers.clear();
    });
    follow(&published, &mut cursor, &mut replica);
    let in_authz = fastest(|number| {
        version += 1;
        published.apply(version, Change::AddApprovals(one(2 * MANY + number)), now());
        let reader = replica.snapshot().cloned();
        let message = cursor.step(&published, now()).unwrap();
        replica.apply(message, now()).unwrap();
        drop(reader);
    });
    let services = (0..1000).map(|number| proto::ServiceAge { service: format!("service-{number}"), age_ms: 5 });
    let confirmed: Vec<_> = services.collect();
    let confirmation = fastest(|_| {
        published.confirm(confirmed.clone(), now());
        let reader = replica.snapshot().cloned();
        let message = cursor.step(&published, now()).unwrap();
        replica.apply(message, now()).unwrap();
        drop(reader);
    });
    println!(
        "one key: {in_admin:?} in admin, {in_authz:?} to and in authz; 1,000 services confirmed: {confirmation:?}"
    );
    // Ten times what is promised, and this is not even an optimised build.
    assert!(in_admin < Duration::from_millis(10), "{in_admin:?}");
    assert!(in_authz < Duration::from_millis(10), "{in_authz:?}");
    assert!(confirmation < Duration::from_millis(20), "{confirmation:?}");
    assert_eq!(replica.snapshot().unwrap().approvals.len(), 100_100);
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Prints what both ends take of this process's memory.
fn measure_memory(namespaces: u32) {
    let each = |before: usize| resident().saturating_sub(before) / usize::try_from(MANY).unwrap();
    let mut published = empty();
    let before = resident();
    published.apply(2, load("svc", list(namespaces)), now());
    let admin = each(before);
    let before = resident();
    let (mut cursor, mut replica) = connected(&published);
    follow(&published, &mut cursor, &mut replica);
    let authz = each(before);
    let before = resident();
    let again = list(namespaces).difference("svc", &published.grants()).len();
    let refreshed = each(before);
    let before = resident();
    let (mut cursor, _) = connected(&published);
    replica.reconnect();
    follow(&published, &mut cursor, &mut replica);
    let full_again = each(before);
    println!(
        "{namespaces} namespaces: {admin} bytes each in admin, {authz} in authz; \
         {refreshed} more after a refresh ({again} changes), {full_again} more after another full state"
    );
}

/// `cargo test --lib -- --ignored --exact --nocapture state::scale_tests::memory_with_few_namespaces`
#[test]
#[ignore = "prints what it measures; alone in its process"]
fn memory_with_few_namespaces() {
    measure_memory(10);
}

/// `cargo test --lib -- --ignored --exact --nocapture state::scale_tests::memory_with_a_namespace_each`
#[test]
#[ignore = "prints what it measures; alone in its process"]
fn memory_with_a_namespace_each() {
    measure_memory(MANY);
}

/// `cargo test --release --lib -- --ignored --exact --nocapture state::scale_tests::time_of_a_judgement`
#[test]
#[ignore = "prints what it measures"]
fn time_of_a_judgement() {
    let mut published = empty();
    published.apply(2, load("svc", list(1000)), now());
    let (mut cursor, mut replica) = connected(&published);
    follow(&published, &mut cursor, &mut replica);
    let held = replica.snapshot().unwrap();
    let at = Now { wall: UnixMillis(0), monotonic: now() };
    let namespaces: Vec<_> = (0..1000).map(|number| format!("some-namespace-{number:06}")).collect();
    let took = fastest(|_| {
        for number in (0..MANY).step_by(7) {
            let namespace = &namespaces[usize::try_from(number % 1000).unwrap()];
            assert_eq!(held.approvals.judge(&key(number), namespace, "svc", at, u64::MAX), Approval::Approved);
        }
    });
    println!("one judgement: {:?}", took / (MANY / 7));
}
