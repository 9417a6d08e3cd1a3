//! A replica of one workload: the filter of the whole, whatever happens, and no byte of another workload.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message as _;

use super::*;
use crate::config::fleet::Reach;
use crate::config::fleet::Workload;
use crate::domain::ids::ConnectionId;
use crate::state::scope::Scope;

/// Everything that can be in a scope or outside of it.
const NAMES: [&str; 7] = ["con-0", "con-1", "con-2", "con-3", "service-0", "service-1", "service-2"];

#[derive(Debug, Clone)]
enum Turn {
    Event(Event),
    /// The workloads have changed.
    Move(Vec<bool>),
}

fn turns() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => events().prop_map(Turn::Event),
        1 => prop::collection::vec(any::<bool>(), NAMES.len()).prop_map(Turn::Move),
    ]
}

fn scope(chosen: &[bool]) -> Scope {
    let names = NAMES.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|(name, _)| (*name).to_owned());
    Scope::Only(Arc::new(names.collect()))
}

/// The same change with a secret that can be looked for.
fn marked(mut change: Change) -> Change {
    if let Change::Upsert(connection) = &mut change {
        connection.secret = format!("canary-of-{}", connection.id);
    }
    change
}

/// Holds that nothing outside of the scope is in the bytes.
fn holds_nothing_else(message: &proto::StateResponse, scope: &Scope) -> Result<(), TestCaseError> {
    let bytes = message.encode_to_vec();
    for name in NAMES.iter().filter(|name| !scope.covers(name)) {
        let found = bytes.windows(name.len()).any(|window| window == name.as_bytes());
        prop_assert!(!found, "{} is in {:?}", name, message);
    }
    Ok(())
}

fn connect(replica: &mut Replica, cursor: &mut Cursor, scope: &Scope, published: &Published) {
    replica.reconnect();
    *cursor = Cursor::default();
    cursor.confine(scope.clone());
    let held = replica.snapshot().map(|held| state::encode_version(&held.version)).unwrap_or_default();
    assert!(!cursor.hello(held, published), "what it was sent before may have been another workload's");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_workload_holds_its_part_of_the_whole_and_is_sent_nothing_else(
        first in prop::collection::vec(any::<bool>(), NAMES.len()),
        turns in prop::collection::vec(turns(), 0..60),
    ) {
        let mut published = start(7);
        let mut version = 7;
        let mut scope = scope(&first);
        let (mut replica, mut cursor) = (Replica::default(), Cursor::default());
        connect(&mut replica, &mut cursor, &scope, &published);
        for turn in turns {
            match turn {
                Turn::Move(chosen) => {
                    scope = super::scoped::scope(&chosen);
                    cursor.confine(scope.clone());
                }
                Turn::Event(Event::Change(change)) => {
                    version += 1;
                    published.apply(version, marked(change), START);
                }
                Turn::Event(Event::Confirm(service)) => {
                    let service = format!("service-{service}");
                    published.confirm(vec![proto::ServiceAge { service, age_ms: 0 }], START);
                }
                Turn::Event(Event::Reconnect) => connect(&mut replica, &mut cursor, &scope, &published),
                Turn::Event(Event::Deliver | Event::Twice) => {
                    if let Some(message) = cursor.step(&published, START) {
                        holds_nothing_else(&message, &scope)?;
                        if replica.apply(message, START).is_err() {
                            connect(&mut replica, &mut cursor, &scope, &published);
                        }
                    }
                }
                Turn::Event(Event::Lose) => {
                    if let Some(message) = cursor.step(&published, START) {
                        holds_nothing_else(&message, &scope)?;
                        connect(&mut replica, &mut cursor, &scope, &published);
                    }
                }
            }
        }
        while let Some(message) = cursor.step(&published, START) {
            holds_nothing_else(&message, &scope)?;
            replica.apply(message, START).unwrap();
        }
        let (whole, part) = (view(&fresh(&published)), view(&replica));
        let connections: BTreeMap<_, _> = whole.connections.into_iter().filter(|(id, _)| scope.covers(id)).collect();
        prop_assert_eq!(part.connections, connections);
        let covered = |service: u8| scope.covers(&format!("service-{service}"));
        let approvals: BTreeSet<_> = whole.approvals.into_iter().filter(|(service, ..)| covered(*service)).collect();
        prop_assert_eq!(part.approvals, approvals);
        prop_assert_eq!(part.version, whole.version);
    }
}

/// What an authz answers.
enum Answer {
    Applied,
    Refused(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // Messages and answers are on their way for a while, and some messages are spoiled.
    #[test]
    fn nobody_is_believed_to_decide_for_less_than_it_does(
        first in prop::collection::vec(any::<bool>(), NAMES.len()),
        turns in prop::collection::vec(turns(), 0..120),
    ) {
        let mut published = start(7);
        let mut version = 7;
        let mut now = scope(&first);
        let mut may = now.clone();
        let (mut replica, mut cursor) = (Replica::default(), Cursor::default());
        let (mut messages, mut answers) = (VecDeque::new(), VecDeque::new());
        let mut has_refused = false;
        connect(&mut replica, &mut cursor, &now, &published);
        // At the end everything arrives.
        let rest = std::iter::repeat_n([Event::Deliver, Event::Twice, Event::Reconnect].map(Turn::Event), 300);
        for turn in turns.into_iter().chain(rest.flatten()) {
            match turn {
                Turn::Move(chosen) => {
                    now = super::scoped::scope(&chosen);
                    cursor.confine(now.clone());
                    may = may.with(&now);
                }
                Turn::Event(Event::Change(change)) => {
                    version += 1;
                    published.apply(version, change, START);
                }
                Turn::Event(Event::Confirm(service)) => {
                    let service = format!("service-{service}");
                    published.confirm(vec![proto::ServiceAge { service, age_ms: 0 }], START);
                }
                Turn::Event(Event::Deliver) => messages.extend(cursor.step(&published, START)),
                Turn::Event(end @ (Event::Twice | Event::Lose)) => {
                    let Some(mut message) = messages.pop_front() else { continue };
                    if matches!(end, Event::Lose) {
                        message.message = None;
                    }
                    match replica.apply(message, START) {
                        Ok(Applied::Version { .. }) => answers.push_back(Answer::Applied),
                        Ok(Applied::Confirmed | Applied::Part | Applied::Ignored) => {}
                        Err(refused) => answers.push_back(Answer::Refused(refused.version.version)),
                    }
                }
                Turn::Event(Event::Reconnect) => match answers.pop_front() {
                    Some(Answer::Applied) => may = cursor.applied().unwrap_or(may),
                    Some(Answer::Refused(version)) if cursor.refused(version).is_err() => return Ok(()),
                    Some(Answer::Refused(_)) => has_refused = true,
                    None => {}
                },
            }
            for one in replica.snapshot().iter().flat_map(|held| held.connections.values()) {
                let id = one.settings.id.as_str();
                prop_assert!(may.covers(id), "{id} is held, and not in {may:?}");
            }
        }
        // Of whoever has refused something nothing is believed.
        prop_assert!(has_refused || may == now, "{may:?} {now:?}");
    }
}

#[test]
fn a_name_is_sent_what_any_of_its_workloads_is() {
    let workload = |san: &str, reach| Workload { name: san.to_owned(), sans: vec![san.to_owned()], reach };
    let only = |id: &str| Reach::Only([ConnectionId::parse(id).unwrap()].into());
    let workloads = [
        workload("a.test", only("con-a")),
        workload("b.test", only("con-b")),
        workload("all.test", Reach::Everything),
        workload("none.test", Reach::Only([].into())),
    ];
    let of = |names: &[&str]| Scope::of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &workloads);
    let only = |ids: &[&str]| Some(Scope::Only(Arc::new(ids.iter().map(|id| (*id).to_owned()).collect())));
    assert_eq!(of(&["a.test"]), only(&["con-a"]));
    assert_eq!(of(&["b.test", "a.test"]), only(&["con-a", "con-b"]));
    assert_eq!(of(&["all.test"]), Some(Scope::Everything));
    assert_eq!(of(&["none.test"]), only(&[]), "a workload without connections is a workload");
    assert!(of(&["x.test"]).is_none() && of(&[]).is_none());
}

#[test]
fn many_approvals_of_others_are_passed_over() {
    let mut published = start(1);
    for version in 2..=300_u64 {
        let grants = (0..1000_u64).map(|number| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key[8..16].copy_from_slice(&version.to_le_bytes());
            proto::Grant { namespace: "abc".to_owned(), public_key: key.to_vec(), expires_at: None }
        });
        let service = format!("other-{version}");
        let list = proto::ServiceApprovals { service, source: 1, grants: grants.collect(), age_ms: None };
        published.apply(version, Change::ReplaceApprovals(list), START);
    }
    let scope = Scope::Only(Arc::new(["service-0".to_owned()].into()));
    let (mut cursor, mut replica) = (Cursor::default(), Replica::default());
    connect(&mut replica, &mut cursor, &scope, &published);
    let mut parts = 0;
    while let Some(message) = cursor.step(&published, START) {
        parts += 1;
        replica.apply(message, START).unwrap();
    }
    assert!(parts > 1, "they are not looked at in one go");
    assert_eq!(view(&replica).count, 2);
}
