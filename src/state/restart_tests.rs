//! Claims across restarts of admin: what an authz holds of a service is what some admin read of it, and
//! never passes for fresher than that.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::approval::Freshness;
use crate::state::claims::ClaimList;

const SERVICES: [&str; 3] = ["service-0", "service-1", "service-2"];

/// What one version of the published state says of a service's claims.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    NoSource,
    Unread,
    Keys(BTreeSet<u8>),
}

#[derive(Debug, Clone)]
enum Event {
    /// Service and the keys its source lists now.
    Read(u8, BTreeSet<u8>),
    /// As a change stream tells it.
    Approved(u8, u8),
    Revoked(u8, u8),
    Confirm(u8),
    Begin(u8),
    End(u8),
    /// So many other changes: the log forgets what was before.
    Others(u16),
    Pass(u64),
    Deliver,
    Lose,
    Reconnect,
    /// Admin ends and begins again; which services have a source then, and by how many versions its store was put back.
    Restart(BTreeSet<u8>, u8),
}

fn events() -> impl Strategy<Value = Event> {
    let keys = || prop::collection::btree_set(0..6_u8, 0..5);
    prop_oneof![
        4 => (0..3_u8, keys()).prop_map(|(service, keys)| Event::Read(service, keys)),
        2 => (0..3_u8, 0..6_u8).prop_map(|(service, key)| Event::Approved(service, key)),
        2 => (0..3_u8, 0..6_u8).prop_map(|(service, key)| Event::Revoked(service, key)),
        3 => (0..3_u8).prop_map(Event::Confirm),
        2 => (0..3_u8).prop_map(Event::Begin),
        1 => (0..3_u8).prop_map(Event::End),
        1 => (1..1100_u16).prop_map(Event::Others),
        4 => (1..20_000_u64).prop_map(Event::Pass),
        8 => Just(Event::Deliver),
        1 => Just(Event::Lose),
        1 => Just(Event::Reconnect),
        2 => (prop::collection::btree_set(0..3_u8, 0..4), prop_oneof![2 => Just(0), 1 => 1..9_u8])
            .prop_map(|(sources, back)| Event::Restart(sources, back)),
    ]
}

/// One admin after the other, and one authz.
struct World {
    published: Published,
    replica: Replica,
    cursor: Cursor,
    now: MonotonicMillis,
    /// How often admin has begun.
    runs: u32,
    /// What each version said of each service.
    history: BTreeMap<u64, [Said; 3]>,
    /// The last moment a source was asked and agreed with what was published, over all restarts.
    confirmed: [Option<MonotonicMillis>; 3],
    /// What the replica should hold: keys and freshness of each service with a source.
    expected: [Option<(BTreeSet<u8>, Freshness)>; 3],
}

fn index(service: u8) -> usize {
    usize::from(service)
}

fn start_with(run: u32, version: u64, sources: &BTreeSet<u8>, now: MonotonicMillis) -> Published {
    let unread = |service: &u8| proto::ServiceApprovals { age_ms: None, ..list(*service, 2, &[]) };
    let approvals = sources.iter().map(unread).chain([list(0, 1, &[7])]).collect();
    let state = PublishedState {
        epoch: "epoch-1".to_owned(),
        incarnation: format!("run-{run}"),
        version,
        settings: settings(),
        connections: Vec::new(),
        approvals,
    };
    Published::new(state, now)
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            published: start_with(1, 1, &BTreeSet::new(), START),
            runs: 1,
            replica: Replica::default(),
            cursor: Cursor::default(),
            now: START,
            history: BTreeMap::from([(1, [Said::NoSource, Said::NoSource, Said::NoSource])]),
            confirmed: [None; 3],
            expected: [None, None, None],
        };
        world.reconnect();
        world
    }

    fn version(&self) -> u64 {
        self.published.version().version
    }

    fn said(&self) -> [Said; 3] {
        self.history[&self.version()].clone()
    }

    /// Publishes one change and notes what the new version says.
    fn publish(&mut self, change: Change, said: [Said; 3]) {
        let version = self.version() + 1;
        assert!(self.published.apply(version, change, self.now));
        self.history.insert(version, said);
    }

    fn read(&mut self, service: u8, keys: BTreeSet<u8>) {
        let name = SERVICES[index(service)];
        let read = self.published.claims_source(name) == Some(true);
        // Both kinds of lists must lead to the same.
        let base = (read && keys.len().is_multiple_of(2)).then(|| (self.published.grants(), name.to_owned()));
        let mut found = ClaimList::begun(base, self.now);
        for key in &keys {
            assert!(found.push("abc", PublicKey::new([*key; 32]), None));
        }
        assert_eq!(found.len(), keys.len());
        let changes = match self.published.claims_source(name) {
            Some(true) => found.difference(name, &self.published.grants()),
            Some(false) | None => found.load(name),
        };
        for change in changes {
            let mut said = self.said();
            let at = &mut said[index(service)];
            // Nothing is published that the list does not say; in between it is told in part.
            match (&change, &*at) {
                (Change::AddApprovals(_), Said::Keys(before)) => {
                    *at = Said::Keys(before.union(&keys).copied().collect())
                }
                (Change::RemoveApprovals(_), Said::Keys(before)) => {
                    *at = Said::Keys(before.intersection(&keys).copied().collect());
                }
                _ => *at = Said::Keys(keys.clone()),
            }
            self.publish(change, said);
        }
        assert_eq!(self.said()[index(service)], Said::Keys(keys));
        self.confirm(service);
    }

    fn confirm(&mut self, service: u8) {
        let service_name = SERVICES[index(service)].to_owned();
        self.published.confirm(vec![proto::ServiceAge { service: service_name, age_ms: 0 }], self.now);
        if matches!(self.said()[index(service)], Said::Keys(_)) {
            self.confirmed[index(service)] = Some(self.now);
        }
    }

    /// A change stream's word; `present`: whether the key is approved from now on.
    fn stream(&mut self, service: u8, key: u8, present: bool) {
        let approvals = vec![single(service, 2, key)];
        let mut said = self.said();
        if let Said::Keys(keys) = &mut said[index(service)] {
            if present {
                keys.insert(key)
            } else {
                keys.remove(&key)
            };
        }
        let change = if present { Change::AddApprovals(approvals) } else { Change::RemoveApprovals(approvals) };
        self.publish(change, said);
    }

    fn begin(&mut self, service: u8) {
        let mut said = self.said();
        if said[index(service)] == Said::NoSource {
            said[index(service)] = Said::Unread;
        }
        let unread = proto::ServiceApprovals { age_ms: None, ..list(service, 2, &[]) };
        self.publish(Change::ReplaceApprovals(unread), said);
    }

    fn end(&mut self, service: u8) {
        let mut said = self.said();
        said[index(service)] = Said::NoSource;
        self.publish(Change::EndClaims(SERVICES[index(service)].to_owned()), said);
        self.confirmed[index(service)] = None;
    }

    fn restart(&mut self, sources: &BTreeSet<u8>, back: u8) {
        // The store's version goes on, whether or not the last change was told to anybody; or an earlier copy is in its place.
        let version = (self.version() + 1).saturating_sub(u64::from(back)).max(1);
        self.runs += 1;
        self.published = start_with(self.runs, version, sources, self.now);
        self.history.retain(|earlier, _| *earlier < version);
        let said = [0, 1, 2].map(|service| if sources.contains(&service) { Said::Unread } else { Said::NoSource });
        self.history.insert(version, said);
        self.reconnect();
    }

    fn reconnect(&mut self) {
        reconnect(&mut self.replica, &mut self.cursor, &self.published);
    }

    fn deliver(&mut self) {
        let Some(message) = self.cursor.step(&self.published, self.now) else { return };
        let before = self.replica.snapshot().map(|held| held.version.version);
        let is_delta = matches!(message.message, Some(Message::Delta(_)));
        match self.replica.apply(message, self.now) {
            Ok(Applied::Version { version, .. }) => {
                self.cursor.applied();
                self.expect(before.filter(|_| is_delta), version.version);
            }
            Ok(Applied::Confirmed) => {
                let said = self.said();
                for ((expected, said), confirmed) in self.expected.iter_mut().zip(said).zip(self.confirmed) {
                    if let (Some((_, freshness)), Said::Keys(_), Some(at)) = (expected, said, confirmed) {
                        *freshness = Freshness::ConfirmedAt(at);
                    }
                }
            }
            Ok(Applied::Part | Applied::Ignored) => {}
            Err(refused) => {
                if self.cursor.refused(refused.version.version).is_err() {
                    self.reconnect();
                }
            }
        }
        self.check();
    }

    /// What the replica must hold at `version`, by delta from a version or by a full state.
    fn expect(&mut self, from: Option<u64>, version: u64) {
        for service in 0..3 {
            let ended_on_the_way = from.is_some_and(|from| {
                self.history.range(from + 1..=version).any(|(_, said)| said[service] == Said::NoSource)
            });
            let held = self.expected[service].take().filter(|_| !ended_on_the_way);
            self.expected[service] = match &self.history[&version][service] {
                Said::NoSource => None,
                Said::Unread => Some(held.unwrap_or((BTreeSet::new(), Freshness::Never))),
                Said::Keys(keys) => {
                    // A delta of single changes leaves the age alone, a list carries its own: which of the two it
                    // was, the replica must say, within what is true.
                    let name = SERVICES[service];
                    let freshness = self.replica.snapshot().unwrap().approvals.freshness(name).unwrap();
                    let known = self.confirmed[service].unwrap();
                    let as_before = held.map(|(_, freshness)| freshness);
                    assert!(
                        as_before == Some(freshness) || freshness == Freshness::ConfirmedAt(known),
                        "{name}: {freshness:?}, held before {as_before:?}, known {known:?}"
                    );
                    Some((keys.clone(), freshness))
                }
            };
        }
    }

    fn check(&self) {
        let Some(held) = self.replica.snapshot() else { return };
        for (name, expected) in SERVICES.into_iter().zip(&self.expected) {
            let grants = held.approvals.grants().walk(crate::domain::grants::Position::default());
            let keys: BTreeSet<_> = grants
                .filter(|(_, _, grant)| {
                    grant.service == name && grant.source == crate::domain::approval::Source::Claims
                })
                .map(|(_, key, _)| key.as_bytes()[0])
                .collect();
            let found = held.approvals.freshness(name).map(|freshness| (keys.clone(), freshness));
            assert_eq!(&found, expected, "{name} at {:?}", held.version);
            assert!(found.is_some() || keys.is_empty(), "{name}: claims without a source");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_restart_loses_claims_or_makes_them_fresher(events in prop::collection::vec(events(), 0..80)) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Read(service, keys) => world.read(service, keys),
                Event::Approved(service, key) => world.stream(service, key, true),
                Event::Revoked(service, key) => world.stream(service, key, false),
                Event::Confirm(service) => world.confirm(service),
                Event::Begin(service) => world.begin(service),
                Event::End(service) => world.end(service),
                Event::Others(count) => {
                    for _ in 0..count {
                        let said = world.said();
                        world.publish(Change::Delete("none".to_owned()), said);
                    }
                }
                Event::Pass(ms) => world.now = MonotonicMillis(world.now.0 + ms),
                Event::Deliver => world.deliver(),
                Event::Lose => {
                    // The stream is a TCP connection or a socket: with a message the rest is lost too.
                    drop(world.cursor.step(&world.published, world.now));
                    world.reconnect();
                }
                Event::Reconnect => world.reconnect(),
                Event::Restart(sources, back) => world.restart(&sources, back),
            }
        }
        for service in 0..3 {
            world.read(service, BTreeSet::from([service]));
        }
        for _ in 0..50 {
            world.deliver();
        }
        prop_assert_eq!(view(&world.replica), view(&fresh(&world.published)));
    }
}

#[test]
fn what_another_store_said_is_not_kept() {
    let mut world = World::new();
    world.read(1, BTreeSet::from([3]));
    (0..5).for_each(|_| world.deliver());
    assert_eq!(world.expected[1].as_ref().map(|(keys, _)| keys.len()), Some(1));
    let unread = proto::ServiceApprovals { age_ms: None, ..list(1, 2, &[]) };
    let state = PublishedState {
        epoch: "epoch-2".to_owned(),
        version: 1,
        settings: settings(),
        approvals: vec![unread],
        ..PublishedState::default()
    };
    let restored = Published::new(state, START);
    reconnect(&mut world.replica, &mut world.cursor, &restored);
    while let Some(message) = world.cursor.step(&restored, START) {
        world.replica.apply(message, START).unwrap();
    }
    let held = world.replica.snapshot().unwrap();
    assert_eq!((held.approvals.len(), held.approvals.freshness("service-1")), (0, Some(Freshness::Never)));
}

#[test]
fn a_source_that_was_not_read_cannot_be_confirmed_or_added_to() {
    let mut published = start_with(1, 7, &BTreeSet::from([1]), START);
    published.confirm(vec![proto::ServiceAge { service: "service-1".to_owned(), age_ms: 0 }], START);
    published.apply(8, Change::AddApprovals(vec![single(1, 2, 3), single(2, 2, 3), single(2, 1, 4)]), START);
    let ages = published.claims_ages(START);
    assert_eq!(ages, [("service-1".to_owned(), None, 0)]);
    let replica = fresh(&published);
    let held = replica.snapshot().unwrap();
    assert_eq!(held.approvals.freshness("service-1"), Some(Freshness::Never));
    assert_eq!(held.approvals.freshness("service-2"), None);
    // The declared one counts, beside the one the state began with.
    assert_eq!(held.approvals.len(), 2);
}
