//! Long lists of a gateway on the pages of its connections: the beginning is shown, and the page says how many there are besides.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use serde_json::json;

use super::*;
use crate::api::namespace_claims::ClaimCounts;

fn layout() -> Layout {
    let (section, namespace) = (Section::Gateway, "acme".to_owned());
    Layout { version: "v", section, namespace, counts: ClaimCounts::default(), notice: None }
}

fn catalog(entries: usize) -> String {
    let offers: Listed<Offer> =
        serde_json::from_value(json!(vec![json!({"key": "k", "label": "L"}); entries])).unwrap();
    let offers = offers.map(|offer| (escaped(&offer.key), offer));
    CatalogPage { layout: layout(), session: "s".to_owned(), offers }.render().unwrap()
}

fn new(fields: usize) -> String {
    let template = json!({"key": "k", "credential_fields": vec![json!({"key": "f"}); fields]});
    let mut offer: Offer = serde_json::from_value(template).unwrap();
    let fields = std::mem::take(&mut offer.credential_fields);
    let (typed, sealing_key) = (Typed::of(&offer), String::new());
    let page = NewPage { layout: layout(), session: "s".to_owned(), offer, fields, custom: false, typed, sealing_key };
    page.render().unwrap()
}

fn one(secrets: usize, agents: usize) -> String {
    let connection: Connection =
        serde_json::from_value(json!({"id": "a-b", "credential_keys": vec!["secret"; secrets]})).unwrap();
    let agents: Listed<Agent> = serde_json::from_value(json!(vec![json!({}); agents])).unwrap();
    let agent = |agent| AgentRow { agent, fingerprint: String::new(), last_used: When::at(0, 0) };
    let page = ConnectionPage {
        layout: layout(),
        session: "s".to_owned(),
        fields: connection.credential_keys.clone().map(|key| (key.clone(), key)),
        test_path: test_path(None).to_owned(),
        bound: bound(&connection),
        row: ConnectionRow::of(connection, 0),
        agents: Ok(agents.map(agent)),
        sealing_key: String::new(),
        asking: Ok(Asking::of(&ServiceKey::default(), false)),
    };
    page.render().unwrap()
}

const SECRET: &str = "data-secret=";
const AGENT: &str = "data-label=\"Acted for\"";

#[test]
fn of_a_long_catalog_the_beginning_is_offered() {
    let page = catalog(1500);
    assert_eq!(page.matches("template=k").count(), 1000);
    assert!(page.contains("and 500 more"));
}

#[test]
fn of_many_fields_of_a_template_the_first_are_asked_for() {
    let page = new(70);
    assert_eq!(page.matches(SECRET).count(), 64);
    assert!(page.contains("and 6 more"));
}

#[test]
fn of_many_secrets_of_a_connection_the_first_can_be_replaced() {
    let page = one(1003, 0);
    assert_eq!(page.matches(SECRET).count(), 1000);
    assert!(page.contains("and 3 more"));
}

#[test]
fn of_many_agents_the_last_ones_are_shown() {
    let page = one(1, 1004);
    assert_eq!(page.matches(AGENT).count(), 1000);
    assert!(page.contains("and 4 more"));
}

#[test]
fn of_lists_that_fit_nothing_is_said_to_be_missing() {
    for (page, shown, count) in [
        (catalog(1000), "template=k", 1000),
        (new(64), SECRET, 64),
        (one(1000, 1), SECRET, 1000),
        (one(1, 1000), AGENT, 1000),
    ] {
        assert_eq!(page.matches(shown).count(), count);
        assert!(!page.contains(" more</p>"), "{shown}");
    }
}

#[test]
fn a_key_helps_only_where_the_api_takes_it_for_this_service() {
    let key = |source: Option<&str>, standing: Option<&str>| ServiceKey {
        has_key: true,
        key_prefix: "sk_live_...".to_owned(),
        key_source: source.map(str::to_owned),
        api_standing: standing.map(str::to_owned),
    };
    let works = |key: &ServiceKey, registered| Asking::of(key, registered).works.is_some();
    for (source, standing, registered, wanted) in [
        (Some("shared"), Some("refused"), false, false),
        (Some("shared"), Some("refused"), true, false),
        (Some("shared"), Some("unknown"), true, false),
        (Some("shared"), Some("confirmed"), true, true),
        (Some("service"), Some("confirmed"), true, true),
        (Some("service"), Some("unknown"), true, true),
        (Some("service"), Some("failed"), true, true),
        (Some("service"), Some("unknown"), false, false),
        (Some("service"), Some("refused"), true, false),
        // An older gateway does not say.
        (None, None, true, true),
        (None, None, false, false),
    ] {
        assert_eq!(works(&key(source, standing), registered), wanted, "{source:?} {standing:?} {registered}");
    }
    assert!(!works(&ServiceKey { has_key: false, ..key(None, None) }, true));
}

#[test]
fn a_test_asks_for_the_path_that_is_named() {
    let template = json!({"key": "k", "default_test_method": "POST", "default_test_path": "/me"});
    let offer: Offer = serde_json::from_value(template).unwrap();
    let asked = |offer, path| serde_json::from_str::<serde_json::Value>(trial(offer, path).body().expose()).unwrap();
    let whole = json!({"method": "POST", "test_path": "/me"});
    assert_eq!(asked(Some(&offer), None), whole);
    assert_eq!(asked(Some(&offer), Some("/me")), whole);
    assert_eq!(asked(Some(&offer), Some("/v1")), json!({"test_path": "/v1"}));
    assert_eq!(asked(None, Some("/v1")), json!({"test_path": "/v1"}));
    assert_eq!(asked(None, None), json!({}));
    assert_eq!((test_path(Some(&offer)), test_path(None)), ("/me", "/"));
}

#[test]
fn a_test_of_a_secret_that_was_replaced_says_nothing_of_the_new_one() {
    let row = |tested: &str, rotated: &str| {
        let connection = json!({"id": "a-b", "last_test_status": "fail", "last_tested_at": tested,
            "last_rotated_at": rotated});
        ConnectionRow::of(serde_json::from_value(connection).unwrap(), 0)
    };
    let before = row("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    assert_eq!((before.passed(), before.is_outdated()), (None, true));
    let since = row("2026-01-02T00:00:01Z", "2026-01-02T00:00:00Z");
    assert_eq!((since.passed(), since.is_outdated()), (Some(false), false));
}
