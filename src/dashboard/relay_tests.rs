//! What a gateway says is text, whatever it is.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

fn refusal(status: u16, text: &str) -> Problem {
    refused::<()>(status, text).unwrap_err()
}

#[test]
fn a_refusal_repeats_the_gateways_sentence_and_code() {
    let problem = refusal(409, r#"{"error":"a connection of this id exists","code":"CONNECTION_EXISTS"}"#);
    assert_eq!((problem.status(), problem.code()), (StatusCode::CONFLICT, "GATEWAY_REFUSED"));
    assert_eq!(problem.sentence(), "the gateway says: a connection of this id exists (CONNECTION_EXISTS)");
}

#[test]
fn what_says_nothing_is_named_by_its_status() {
    for text in ["", "<html>", "[]", "{}", r#"{"error":7}"#] {
        let problem = refusal(500, text);
        assert_eq!((problem.status(), problem.code()), (StatusCode::BAD_GATEWAY, "GATEWAY_REFUSED"));
        assert_eq!(problem.sentence(), "the gateway answered with HTTP 500", "{text}");
    }
}

#[test]
fn an_older_gateways_connection_can_be_read() {
    let text = r#"{"connections":[{"id":"a","mcp_tool_policy":{},"last_tested_at":"0001-01-01T00:00:00Z"}]}"#;
    let read: Connections = serde_json::from_str(text).unwrap();
    assert_eq!(read.connections.shown.first().map(|one| one.id.as_str()), Some("a"));
}

#[test]
fn a_thousand_connections_are_read_and_no_more_than_so_many_bytes() {
    let long = "x".repeat(500);
    let one = serde_json::json!({"id": "a", "name": long, "base_url": long, "path_prefix": long, "status": "active",
        "credential_keys": ["a", "b"], "last_test_error": long, "secret_error": long, "more": long});
    let text = |entries: usize| serde_json::json!({"connections": vec![&one; entries]}).to_string();
    let read: Connections = answer(&text(1001), MAX_CONNECTIONS).unwrap();
    assert_eq!((read.connections.shown.len(), read.connections.more), (1000, 1));
    let refused = answer::<Connections>(&text(1500), MAX_CONNECTIONS).err().unwrap();
    assert_eq!((refused.status(), refused.code()), (StatusCode::BAD_GATEWAY, "GATEWAY_ANSWER_UNREADABLE"));
    assert_eq!(refused.sentence(), "the gateway answered with more than this page reads");
}

#[test]
fn the_largest_catalog_a_gateway_answers_with_is_read() {
    let template = |size: usize| crate::wire::catalog::Template {
        description: "x".repeat(size),
        credential_fields: vec![crate::wire::catalog::CredentialField::default()],
        ..crate::wire::catalog::Template::default()
    };
    let text = |size: usize| {
        let mut services = vec![template(8 * 1024); 480];
        services.push(template(size));
        crate::wire::catalog::Catalog { version: "v1".to_owned(), services }.text()
    };
    // An empty description would be left out.
    let room = 1 + MAX_CATALOG - text(1).unwrap().len();
    assert!(text(room + 1).is_err(), "a gateway refuses what is larger");
    let largest = text(room).unwrap();
    assert_eq!(largest.len(), MAX_CATALOG);
    let offers = answer::<Offers>(&largest, MAX_CATALOG).unwrap().services.unwrap();
    assert_eq!((offers.shown.len(), offers.more), (481, 0));
    let refused = answer::<Offers>(&format!("{largest} "), MAX_CATALOG).err().unwrap();
    assert_eq!(refused.code(), "GATEWAY_ANSWER_UNREADABLE");
}

#[test]
fn of_a_long_refusal_nothing_is_read() {
    let text = serde_json::json!({"error": "x", "more": "y".repeat(MAX_ANSWER)}).to_string();
    assert_eq!(refusal(500, &text).sentence(), "the gateway answered with HTTP 500");
}

#[test]
fn an_id_is_one_segment_of_a_path() {
    assert_eq!(connection("a/../b?c", "/test"), "/api/admin/connections/a%2F..%2Fb%3Fc/test");
}

proptest! {
    #[test]
    fn any_refusal_is_a_short_sentence(status in 100_u16..600, text in ".{0,2000}") {
        let quoted = serde_json::json!({"error": text, "code": text}).to_string();
        for body in [text.clone(), quoted] {
            let problem = refusal(status, &body);
            prop_assert!(problem.sentence().chars().count() < 2 * MAX_SAID + 40);
            prop_assert!(!problem.sentence().chars().any(char::is_control));
        }
    }
}
