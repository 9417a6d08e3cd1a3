//! What is told of refusals, and what never is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_771_610_700);

fn entry(reason: &str, at: UnixSeconds) -> AccessEntry {
    AccessEntry {
        timestamp: at.rfc3339(),
        decision_id: "d".to_owned(),
        connection: "linear".to_owned(),
        namespace: "acme-corp".to_owned(),
        agent_key: "0011223344556677".to_owned(),
        reason: reason.to_owned(),
        code: reason.to_owned(),
        status: 403,
        ..AccessEntry::default()
    }
}

fn shown(refusals: &Refusals) -> serde_json::Value {
    serde_json::to_value(refusals.body(NOW)).unwrap()
}

#[test]
fn refusals_are_counted_by_reason_and_the_last_ones_told() {
    let refusals = Refusals::new(UnixMillis(1000));
    refusals.note(&entry("AUTH_REPLAY_DETECTED", UnixSeconds(NOW.0 - 10)));
    refusals.note(&entry("AUTH_CLAIM_REQUIRED", UnixSeconds(NOW.0 - 5)));
    refusals.note(&AccessEntry {
        connection: String::new(),
        namespace: String::new(),
        agent_key: String::new(),
        ..entry("AUTH_CLAIM_REQUIRED", NOW)
    });
    let shown = shown(&refusals);
    assert_eq!((&shown["since"], &shown["total"]), (&"1970-01-01T00:00:01Z".into(), &3.into()));
    let reasons = serde_json::json!([
        {"code": "AUTH_CLAIM_REQUIRED", "count": 2, "last_24h": 2, "last_at": NOW.rfc3339()},
        {"code": "AUTH_REPLAY_DETECTED", "count": 1, "last_24h": 1, "last_at": UnixSeconds(NOW.0 - 10).rfc3339()},
    ]);
    assert_eq!(shown["reasons"], reasons);
    assert_eq!(
        shown["recent"][0],
        serde_json::json!({"at": NOW.rfc3339(), "code": "AUTH_CLAIM_REQUIRED", "status": 403})
    );
    let expected = serde_json::json!({"at": UnixSeconds(NOW.0 - 5).rfc3339(), "code": "AUTH_CLAIM_REQUIRED", "status": 403,
        "connection": "linear", "namespace": decisions::fingerprint("acme-corp"), "agent_key": "0011223344556677"});
    assert_eq!(shown["recent"][1], expected);
}

#[test]
fn what_was_let_through_or_failed_at_the_provider_is_none() {
    let refusals = Refusals::new(UnixMillis(0));
    refusals.note(&entry("", NOW));
    refusals.note(&AccessEntry { code: "UPSTREAM_ERROR".to_owned(), status: 502, ..entry("", NOW) });
    assert_eq!(shown(&refusals)["total"], 0);
    // Envoy's own refusals have a code and no reason.
    refusals.note(&AccessEntry { code: "REQUEST_BODY_TOO_LARGE".to_owned(), status: 413, ..entry("", NOW) });
    assert_eq!(shown(&refusals)["reasons"][0]["code"], "REQUEST_BODY_TOO_LARGE");
}

#[test]
fn a_day_ends_and_what_is_kept_has_bounds() {
    let refusals = Refusals::new(UnixMillis(0));
    for hour in 0..100 {
        refusals.note(&entry("AUTH_CLAIM_REQUIRED", UnixSeconds(NOW.0 - (99 - hour) * HOUR_SECONDS)));
    }
    let told = shown(&refusals);
    assert_eq!((&told["reasons"][0]["count"], &told["reasons"][0]["last_24h"]), (&100.into(), &24.into()));
    for number in 0..1000 {
        refusals.note(&entry(&format!("REASON_{number}"), NOW));
    }
    let told = shown(&refusals);
    assert_eq!(told["recent"].as_array().unwrap().len(), RECENT);
    assert_eq!(told["reasons"].as_array().unwrap().len(), MAX_REASONS + 1);
    assert_eq!(told["reasons"][0]["code"], OTHER);
    assert_eq!(told["total"], 1100);
}

proptest! {
    #[test]
    fn nothing_unredacted_stands_in_what_is_told(
        word in "[a-z]{3,10}",
        text in "\\PC{0,80}",
        field in 0_usize..12,
    ) {
        let canary = format!("canary-{word}{text}");
        let slug = format!("canary-{word}");
        let mut entry = AccessEntry { subject: slug.clone(), namespace: slug.clone(), path: slug.clone(), agent_id: slug.clone(), client_address: slug, ..entry("AUTH_CLAIM_REQUIRED", NOW) };
        let fields = [
            &mut entry.decision_id, &mut entry.connection, &mut entry.path, &mut entry.namespace, &mut entry.subject,
            &mut entry.agent_key, &mut entry.public_key, &mut entry.agent_id, &mut entry.method, &mut entry.reason,
            &mut entry.code, &mut entry.client_address,
        ];
        if let Some(field) = fields.into_iter().nth(field) {
            // Something no slug, key or code holds.
            *field = format!("{canary} ");
        }
        let refusals = Refusals::new(UnixMillis(0));
        refusals.note(&entry);
        let told = shown(&refusals);
        prop_assert_eq!(&told["total"], 1);
        prop_assert!(!told.to_string().contains("canary"), "{}", told);
    }
}
