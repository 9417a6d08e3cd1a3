#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

fn report(node: &str, started_at_ms: u64, denied: &[(&str, u64)]) -> AuthzCounters {
    AuthzCounters {
        node: node.to_owned(),
        started_at_ms,
        allowed: 10,
        denied: denied.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect(),
        replay_entries: 3,
        replay_capacity: 100,
        ready: true,
        ..AuthzCounters::default()
    }
}

fn has(metrics: &Metrics, line: &str) {
    let text = metrics.render().unwrap();
    assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
}

#[test]
fn counters_add_what_is_new_and_survive_a_restart_of_authz() {
    let metrics = Metrics::new().unwrap();
    metrics.record_authz(&[report("a", 1, &[("AUTH_REPLAY_DETECTED", 2), ("AUTH_SIGNATURE_INVALID", 1)])]);
    metrics.record_authz(&[report("a", 1, &[("AUTH_REPLAY_DETECTED", 5)])]);
    metrics.record_authz(&[]);
    // The same process again: nothing is counted twice. Then a new one, from zero.
    metrics.record_authz(&[report("a", 1, &[("AUTH_REPLAY_DETECTED", 5)])]);
    metrics.record_authz(&[report("a", 2, &[("AUTH_REPLAY_DETECTED", 1)]), report("b", 2, &[])]);
    has(&metrics, "sigilum_gateway_auth_reject_total{reason=\"auth_replay_detected\"} 6");
    has(&metrics, "sigilum_gateway_auth_reject_total{reason=\"auth_signature_invalid\"} 1");
    has(&metrics, "sigilum_gateway_replay_detected_total 6");
    has(&metrics, "sigilum_gateway_auth_allow_total 30");
    has(&metrics, "sigilum_gateway_replay_entries 6");
}

#[test]
fn every_name_shows_before_its_first_event() {
    let metrics = Metrics::new().unwrap();
    for line in [
        "sigilum_gateway_auth_reject_total{reason=\"auth_signature_invalid\"} 0",
        "sigilum_gateway_replay_detected_total 0",
        "sigilum_gateway_requests_in_flight 0",
        "sigilum_gateway_upstream_requests_total{outcome=\"success\",protocol=\"http\"} 0",
        "sigilum_gateway_upstream_latency_seconds_count{outcome=\"error\",protocol=\"http\"} 0",
        "sigilum_gateway_upstream_latency_seconds_sum{outcome=\"success\",protocol=\"http\"} 0",
        "sigilum_gateway_upstream_error_total{class=\"http_502\"} 0",
        "sigilum_gateway_shutdown_drain_total{outcome=\"forced\"} 0",
        "sigilum_gateway_shutdown_drain_seconds_count{outcome=\"clean\"} 0",
    ] {
        has(&metrics, line);
    }
}

#[test]
fn labels_are_clean_and_bounded() {
    let metrics = Metrics::new().unwrap();
    let codes: Vec<String> = (0..200).map(|number| format!("Odd \"code\"\n{number}")).collect();
    let denied: Vec<(&str, u64)> = codes.iter().map(|code| (code.as_str(), 1)).collect();
    metrics.record_authz(&[report("a", 1, &denied)]);
    let text = metrics.render().unwrap();
    let samples: Vec<_> = text.lines().filter(|line| line.starts_with("sigilum_gateway_auth_reject_total")).collect();
    assert_eq!(samples.len(), MAX_LABEL_VALUES + 1);
    // One of them is the reason that stands there from the beginning.
    has(&metrics, "sigilum_gateway_auth_reject_total{reason=\"other\"} 137");
}

#[test]
fn only_forwarded_requests_count_as_upstream_requests() {
    let metrics = Metrics::new().unwrap();
    let sent = AccessEntry {
        connection: "linear".to_owned(),
        decision_id: "1".to_owned(),
        status: 200,
        duration_ms: 1500,
        ..AccessEntry::default()
    };
    metrics.record_access(&sent);
    metrics.record_access(&AccessEntry { status: 404, ..sent.clone() });
    metrics.record_access(&AccessEntry { status: 502, ..sent.clone() });
    metrics.record_access(&AccessEntry { status: 403, code: "UPSTREAM_ADDRESS_REFUSED".to_owned(), ..sent.clone() });
    metrics.record_access(&AccessEntry { reason: "AUTH_SIGNATURE_INVALID".to_owned(), status: 403, ..sent });
    metrics.record_access(&AccessEntry { status: 404, ..AccessEntry::default() });
    has(&metrics, "sigilum_gateway_upstream_requests_total{outcome=\"success\",protocol=\"http\"} 2");
    has(&metrics, "sigilum_gateway_upstream_requests_total{outcome=\"error\",protocol=\"http\"} 2");
    has(&metrics, "sigilum_gateway_upstream_error_total{class=\"http_502\"} 1");
    has(&metrics, "sigilum_gateway_upstream_error_total{class=\"address_refused\"} 1");
    has(&metrics, "sigilum_gateway_upstream_latency_seconds_sum{outcome=\"success\",protocol=\"http\"} 3");
    has(&metrics, "sigilum_gateway_upstream_latency_seconds_count{outcome=\"success\",protocol=\"http\"} 2");
}

#[test]
fn state_drain_and_envoy_show() {
    let metrics = Metrics::new().unwrap();
    metrics.record_state(7, 3, 2, 1);
    metrics.record_drain(DrainOutcome::Clean, 0.5);
    metrics.record_in_flight(Some(4.0), true);
    for line in [
        "sigilum_gateway_state_version 7",
        "sigilum_gateway_state_connections 3",
        "sigilum_gateway_authz_connected 2",
        "sigilum_gateway_authz_ready 1",
        "sigilum_gateway_shutdown_drain_total{outcome=\"clean\"} 1",
        "sigilum_gateway_shutdown_drain_total{outcome=\"forced\"} 0",
        "sigilum_gateway_shutdown_drain_seconds_count{outcome=\"clean\"} 1",
        "sigilum_gateway_requests_in_flight 4",
        "sigilum_gateway_envoy_up 1",
    ] {
        has(&metrics, line);
    }
    metrics.record_in_flight(None, true);
    has(&metrics, "sigilum_gateway_envoy_up 0");
    metrics.record_in_flight(None, false);
    assert!(!metrics.render().unwrap().contains("sigilum_gateway_envoy_up"), "nobody knows of an Envoy elsewhere");
}

proptest! {
    #[test]
    fn any_label_becomes_a_clean_one(raw in any::<String>()) {
        let clean = clean_label(&raw);
        prop_assert!(!clean.is_empty() && clean.len() <= MAX_LABEL_BYTES);
        prop_assert!(clean.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
    }
}

#[test]
fn the_oldest_claims_are_shown_by_name_and_the_rest_together() {
    let metrics = Metrics::new().unwrap();
    let services: Vec<_> = (0..100_u64).map(|number| (format!("svc-{number:03}"), Some(number * 1000), 2)).collect();
    metrics.record_claims(&services, 7);
    let text = metrics.render().unwrap();
    let ages = text.lines().filter(|line| line.starts_with("sigilum_gateway_claims_age_seconds{")).count();
    assert_eq!(ages, MAX_LABEL_VALUES + 1);
    for line in [
        "sigilum_gateway_claims_age_seconds{service=\"svc-099\"} 99",
        "sigilum_gateway_claims_age_seconds{service=\"other\"} 35",
        "sigilum_gateway_claims_approvals 200",
        "sigilum_gateway_claims_streams 7",
        "sigilum_gateway_claims_refresh_total{result=\"no_key\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // A service that is gone has no age any more.
    metrics.record_claims(&[("github".to_owned(), None, 0)], 0);
    let text = metrics.render().unwrap();
    assert!(!text.contains("claims_age_seconds{") && text.contains("sigilum_gateway_claims_unconfirmed_services 1"));
}
