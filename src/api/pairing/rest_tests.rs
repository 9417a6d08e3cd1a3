//! Whatever is sent as a command is one within its bounds, or refused.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "/[a-z/]{0,12}".prop_map(Value::from),
        prop_oneof![Just("GET"), Just("PUT"), Just("get"), Just("CONNECT")].prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_command() -> impl Strategy<Value = Map<String, Value>> {
    let names = prop_oneof![
        Just("session_id".to_owned()),
        Just("method".to_owned()),
        Just("path".to_owned()),
        Just("headers".to_owned()),
        Just("body".to_owned()),
        Just("timeout_ms".to_owned()),
        "[a-z]{1,6}",
    ];
    let right = json!({"session_id": "s", "method": "POST", "path": "/api/admin/connections", "body": "{}"});
    prop::collection::vec((names, any_value()), 0..4).prop_map(move |changes| {
        let mut object = right.as_object().cloned().unwrap_or_default();
        object.extend(changes);
        object
    })
}

proptest! {
    #[test]
    fn a_command_is_within_its_bounds_or_refused(object in any_command()) {
        match order(object.clone()) {
            Ok(order) => {
                prop_assert!(METHODS.contains(&order.method.as_str()));
                prop_assert!(order.path.starts_with('/') && order.path.chars().count() <= MAX_PATH);
                prop_assert!((1..=MAX_ID).contains(&order.session_id.chars().count()));
                prop_assert!(order.headers.len() <= MAX_HEADERS);
                prop_assert!((Duration::from_secs(1)..=MAX_TIMEOUT).contains(&order.timeout));
                let body = object.get("body").and_then(Value::as_str);
                prop_assert_eq!(order.body.as_ref().map(Secret::expose), body);
            }
            Err(problem) => prop_assert_eq!(problem.code(), "VALIDATION_ERROR"),
        }
    }
}

#[test]
fn what_is_shown_of_a_command_holds_no_secret() {
    let command = json!({"session_id": "s", "method": "POST", "path": "/x", "body": "canary-body",
        "headers": {"x": "canary-header"}});
    let order = order(command.as_object().unwrap().clone()).unwrap();
    let shown = format!("{order:?}");
    assert!(shown.contains("/x") && !shown.contains("canary"), "{shown}");
}
