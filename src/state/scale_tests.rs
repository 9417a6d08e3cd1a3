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
use crate::state::tenure::Floors;
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
    fill(ClaimList::new(), MANY, namespaces)
}

fn fill(mut list: ClaimList, count: u32, namespaces: u32) -> ClaimList {
    for number in 0..count {
        assert!(list.push(&format!("some-namespace-{:06}", number % namespaces), key(number), None));
    }
    assert_eq!(list.len(), usize::try_from(count).unwrap());
    list
}

/// A list as it is begun for what is published.
fn again(published: &Published) -> ClaimList {
    ClaimList::begun(Some((published.grants(), "svc".to_owned())), now())
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
fn tens_of_thousands_of_claims_come_over_and_go_again() {
    // More than is published singly, and more than a delta holds.
    const COUNT: u32 = 30_000;
    let (mut published, lists) = (empty(), [(); 2].map(|()| fill(ClaimList::new(), COUNT, 1000)));
    let (mut cursor, mut replica) = connected(&published);
    let [first, second] = lists;
    published.apply(2, load("svc", first), now());
    follow(&published, &mut cursor, &mut replica);
    let held = replica.snapshot().unwrap();
    assert_eq!(held.approvals.len(), 30_000);
    let at = Now { wall: UnixMillis(0), monotonic: now() };
    assert_eq!(held.approvals.judge(&key(5), "some-namespace-000005", "svc", at, 60_000), Approval::Approved);
    // Read again, nothing is different; fewer, that many are removed; none, all are gone at once.
    assert_eq!(second.difference("svc", &published.grants()).len(), 0);
    assert_eq!(fill(again(&published), COUNT, 1000).difference("svc", &published.grants()).len(), 0);
    let fewer = [ClaimList::new(), again(&published)].map(|list| fill(list, COUNT - 3000, 1000));
    let [changes, same] = fewer.map(|list| list.difference("svc", &published.grants()));
    assert_eq!((changes.len(), same.len()), (2, 2));
    for (change, version) in changes.into_iter().zip(3..) {
        assert!(matches!(&change, Change::RemoveApprovals(list) if list.len() <= 2000));
        published.apply(version, change, now());
    }
    follow(&published, &mut cursor, &mut replica);
    assert_eq!(replica.snapshot().unwrap().approvals.len(), 27_000);
    let changes = ClaimList::new().difference("svc", &published.grants());
    assert_eq!(changes.len(), 1);
    published.apply(5, changes.into_iter().next().unwrap(), now());
    follow(&published, &mut cursor, &mut replica);
    let held = replica.snapshot().unwrap();
    assert!(held.approvals.is_empty());
    assert!(matches!(held.approvals.freshness("svc"), Some(Freshness::ConfirmedAt(_))));
}

#[test]
fn a_list_says_what_is_new_gone_and_different() {
    let mut published = empty();
    let mut first = ClaimList::new();
    for number in 0..4 {
        first.push("abc", key(number), Some(100));
    }
    published.apply(2, load("svc", first), now());
    for mut list in [ClaimList::new(), again(&published)] {
        // As it was; with another expiry; with another and then as it was; as it was and then with another.
        list.push("abc", key(0), Some(100));
        list.push("abc", key(1), None);
        list.push("abc", key(2), None);
        list.push("abc", key(2), Some(100));
        list.push("abc", key(4), Some(1));
        list.push("abc", key(4), Some(2));
        assert!(!list.push("No Namespace", key(5), None));
        assert_eq!(list.len(), 4);
        let mut changes = list.clone().difference("svc", &published.grants()).into_iter();
        let Some(Change::RemoveApprovals(removed)) = changes.next() else { unreachable!("nothing is removed") };
        let Some(Change::AddApprovals(mut added)) = changes.next() else { unreachable!("nothing is added") };
        assert!(changes.next().is_none());
        let keys = |list: &[proto::Approval]| -> Vec<_> {
            list.iter().map(|one| one.grant.clone().unwrap()).map(|one| (one.public_key, one.expires_at)).collect()
        };
        assert_eq!(keys(&removed), [(key(3).as_bytes().to_vec(), Some(100))]);
        added.sort_by_key(|one| one.grant.as_ref().unwrap().expires_at);
        assert_eq!(keys(&added), [(key(1).as_bytes().to_vec(), None), (key(4).as_bytes().to_vec(), Some(2))]);
        // Loaded whole, beside what is declared, it leads to the same.
        let mut whole = empty();
        let mut declared = one(9);
        declared[0].source = 1;
        whole.apply(2, Change::AddApprovals(declared), now());
        whole.apply(3, load("svc", list), now());
        assert_eq!(whole.claims_ages(now()).first().unwrap().2, 4);
        assert_eq!(whole.grants().len(), 5);
        let grants = whole.grants();
        let held = |number, expires_at: Option<u64>| {
            let expires_at = expires_at.map(crate::domain::time::UnixSeconds);
            let source = crate::domain::approval::Source::Claims;
            grants.holds(
                &key(number),
                &crate::domain::approval::Grant { service: "svc", namespace: "abc", source, expires_at },
            )
        };
        assert!(held(0, Some(100)) && held(1, None) && held(2, Some(100)) && held(4, Some(2)));
    }
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
        readers.push(published.full((&crate::state::scope::Scope::Everything, &Floors::default()), now()));
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

/// Resident memory of this process that is no file's, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
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
    let again = fill(again(&published), MANY, namespaces).difference("svc", &published.grants()).len();
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
