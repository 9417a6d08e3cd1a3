use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn key(number: u32) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PublicKey::new(bytes)
}

fn grant<'a>(service: &'a str, namespace: &'a str, source: Source) -> Grant<'a> {
    Grant { service, namespace, source, expires_at: None }
}

#[derive(Debug, Clone)]
enum Step {
    Add(u32, u8, u8, bool, Option<u64>),
    Remove(u32, u8, u8, bool),
    Clear(u8, bool),
}

fn steps() -> impl Strategy<Value = Step> {
    // Few of each, so that steps meet; the ends of the range of expiries, because they are packed.
    let expiry = || prop::option::of(prop_oneof![0..3_u64, Just(u64::MAX >> 1), Just((u64::MAX >> 1) - 1)]);
    prop_oneof![
        6 => (0..40_u32, 0..3_u8, 0..4_u8, any::<bool>(), expiry())
            .prop_map(|(key, service, namespace, claims, end)| Step::Add(key, service, namespace, claims, end)),
        5 => (0..40_u32, 0..3_u8, 0..4_u8, any::<bool>())
            .prop_map(|(key, service, namespace, claims)| Step::Remove(key, service, namespace, claims)),
        1 => (0..3_u8, any::<bool>()).prop_map(|(service, claims)| Step::Clear(service, claims)),
    ]
}

fn source(claims: bool) -> Source {
    if claims { Source::Claims } else { Source::Declared }
}

type Model = BTreeMap<(PublicKey, String, String, Source), Option<u64>>;

fn content(table: &GrantTable) -> Model {
    let mut found = Model::new();
    for (_, key, grant) in table.walk(Position::default()) {
        let place = (*key, grant.service.to_owned(), grant.namespace.to_owned(), grant.source);
        assert!(found.insert(place, grant.expires_at.map(|end| end.0)).is_none(), "{grant:?} is held twice");
    }
    found
}

/// Everything the table can be asked, against the model.
fn check(table: &GrantTable, model: &Model) {
    assert_eq!(&content(table), model);
    assert_eq!(table.len(), model.len());
    for number in 0..40 {
        let key = key(number);
        assert_eq!(table.knows(&key), model.keys().any(|(held, ..)| *held == key));
    }
    for service in ["service-0", "service-1", "service-2"] {
        for source in [Source::Declared, Source::Claims] {
            let expected = model.keys().filter(|(_, held, _, from)| held == service && *from == source).count();
            assert_eq!(table.count(service, source), expected);
        }
    }
    for ((key, service, namespace, source), end) in model {
        let held = Grant { service, namespace, source: *source, expires_at: end.map(UnixSeconds) };
        assert!(table.has(key, &held) && table.holds(key, &held));
        assert!(!table.holds(key, &Grant { expires_at: Some(UnixSeconds(99)), ..held }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The table is what a plain map would be, and clones of it stay what they were.
    #[test]
    fn it_is_a_map(steps in prop::collection::vec(steps(), 0..200)) {
        let (mut table, mut model) = (GrantTable::default(), Model::new());
        let mut clones = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Add(number, service, namespace, claims, end) => {
                    let (service, namespace) = (format!("service-{service}"), format!("namespace-{namespace}"));
                    let source = source(claims);
                    let expires_at = end.map(UnixSeconds);
                    let kept = end.map(|end| end.min((u64::MAX >> 1) - 1));
                    let grant = Grant { service: &service, namespace: &namespace, source, expires_at };
                    let changed = table.add(&key(number), &grant);
                    let before = model.insert((key(number), service, namespace, source), kept);
                    prop_assert_eq!(changed, before != Some(kept));
                }
                Step::Remove(number, service, namespace, claims) => {
                    let (service, namespace) = (format!("service-{service}"), format!("namespace-{namespace}"));
                    let source = source(claims);
                    let removed = table.remove(&key(number), &grant(&service, &namespace, source));
                    let before = model.remove(&(key(number), service, namespace, source));
                    prop_assert_eq!(removed, before.is_some());
                }
                Step::Clear(service, claims) => {
                    let service = format!("service-{service}");
                    table.clear(&service, source(claims));
                    model.retain(|(_, held, _, from), _| !(*held == service && *from == source(claims)));
                }
            }
            if number % 40 == 0 {
                clones.push((table.clone(), model.clone()));
            }
        }
        check(&table, &model);
        for (clone, model) in clones {
            check(&clone, &model);
        }
        let mut handed = Model::new();
        table.consume(|key, grant| {
            let place = (*key, grant.service.to_owned(), grant.namespace.to_owned(), grant.source);
            handed.insert(place, grant.expires_at.map(|end| end.0));
        });
        prop_assert_eq!(handed, model);
    }
}

#[test]
fn a_walk_goes_on_where_it_stopped() {
    let mut table = GrantTable::default();
    for number in 0..1000 {
        table.add(&key(number), &grant("svc", "abc", Source::Claims));
    }
    let whole: Vec<_> = table.walk(Position::default()).map(|(_, key, _)| *key).collect();
    let (mut pieces, mut position) = (Vec::new(), Position::default());
    while let Some((next, _, _)) = table.walk(position).take(7).last() {
        pieces.extend(table.walk(position).take(7).map(|(_, key, _)| *key));
        position = next;
    }
    assert_eq!(pieces, whole);
    assert_eq!(pieces.len(), 1000);
}

#[test]
fn a_key_with_many_grants_costs_no_more_than_many_keys() {
    // A list that were searched by key alone would take hundreds of millions of comparisons here.
    let mut table = GrantTable::default();
    let one = key(1);
    let names: Vec<_> = (0..20_000).map(|number| format!("namespace-{number}")).collect();
    for name in &names {
        table.add(&one, &grant("svc", name, Source::Claims));
    }
    assert_eq!(table.len(), 20_000);
    assert!(names.iter().all(|name| table.has(&one, &grant("svc", name, Source::Claims))));
}

/// Bytes one of a hundred thousand approvals takes, with so many different namespaces.
fn bytes_each(namespaces: u32) -> usize {
    let mut table = GrantTable::default();
    for number in 0..100_000 {
        let namespace = format!("some-namespace-{:06}", number % namespaces);
        table.add(&key(number), &grant("svc", &namespace, Source::Claims));
    }
    assert_eq!(table.len(), 100_000);
    table.bytes() / 100_000
}

#[test]
fn an_approval_takes_few_bytes() {
    assert_eq!(size_of::<Record>(), 48);
    let (few, many) = (bytes_each(3), bytes_each(100_000));
    println!("an approval takes {few} bytes with few namespaces, {many} with one each");
    assert!(few <= 80, "{few} bytes with few namespaces");
    assert!(many <= 130, "{many} bytes with a namespace each");
}
