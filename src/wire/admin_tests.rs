#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::wire::patch::PatchBody;

fn record(body: &str) -> ConnectionRecord {
    let (draft, secrets) = decode::<CreateBody>(body.as_bytes()).unwrap().into_draft().unwrap();
    let checked = draft.check(&AddressPolicy::default()).unwrap();
    let mut record = ConnectionRecord {
        settings: checked.settings,
        auth_secret_key: checked.auth_secret_key,
        credential_keys: secrets.keys().cloned().collect(),
        rotation_interval_days: checked.rotation_interval_days,
        mcp: checked.mcp,
        created_at: UnixMillis(1_771_610_666_123),
        updated_at: UnixMillis(1_771_610_666_123),
        last_rotated_at: Some(UnixMillis(1_771_610_666_123)),
        secrets_lost: false,
    };
    record.settings.next_rotation_due_at = record.rotation_due();
    record
}

fn json(record: ConnectionRecord) -> String {
    serde_json::to_string(&ConnectionBody::encode(record)).unwrap()
}

fn patched(record: &ConnectionRecord, patch: &str) -> ConnectionRecord {
    let patch = decode::<PatchBody>(patch.as_bytes()).unwrap();
    let draft = patch.apply(Draft::from_record(record));
    let checked = draft.check(&AddressPolicy::default()).unwrap();
    let mut changed = ConnectionRecord {
        settings: checked.settings,
        auth_secret_key: checked.auth_secret_key,
        rotation_interval_days: checked.rotation_interval_days,
        mcp: checked.mcp,
        ..record.clone()
    };
    changed.settings.next_rotation_due_at = changed.rotation_due();
    changed
}

const PLAIN: &str =
    r#"{"id":"linear","base_url":"https://api.linear.app/","auth_secret_key":"k","secrets":{"k":"s3cret"}}"#;

#[test]
fn a_plain_connection_has_the_seeds_members_and_no_others() {
    assert_eq!(
        json(record(PLAIN)),
        r#"{"id":"linear","name":"linear","protocol":"http","base_url":"https://api.linear.app","auth_mode":"bearer","auth_header_name":"Authorization","auth_prefix":"Bearer ","auth_secret_key":"k","credential_keys":["k"],"mcp_tool_policy":{},"mcp_discovery":{},"status":"active","created_at":"2026-02-20T18:04:26.123Z","updated_at":"2026-02-20T18:04:26.123Z","last_rotated_at":"2026-02-20T18:04:26.123Z","secret_version":1}"#
    );
}

#[test]
fn members_beyond_the_seed_appear_once_they_are_set() {
    let text = json(record(
        r#"{"id":"linear","base_url":"https://a.example","auth_secret_key":"k","secrets":{"k":"s"},"unknown":[1],
            "allow_private":true,"allowed_methods":["get"],"allowed_paths":["/v1"],"upgrades":["websocket"],
            "response_timeout_ms":5,"max_stream_seconds":6,"extra_headers":{"X-A":"b"},"allow_set_cookie":true,
            "forward_trace":true,"rotation_interval_days":1,"path_prefix":"v2/"}"#,
    ));
    assert!(text.contains(r#""path_prefix":"/v2""#) && text.contains(r#""rotation_interval_days":1"#), "{text}");
    assert!(text.contains(r#""next_rotation_due_at":"2026-02-21T18:04:26Z""#), "{text}");
    assert!(
        text.ends_with(
            r#""allow_private":true,"allowed_methods":["GET"],"allowed_paths":["/v1"],"upgrades":["websocket"],"response_timeout_ms":5,"max_stream_seconds":6,"extra_headers":{"x-a":"b"},"allow_set_cookie":true,"forward_trace":true}"#
        ),
        "{text}"
    );
}

#[test]
fn a_patch_changes_what_it_names_and_null_clears_what_is_ours() {
    let first = record(
        r#"{"id":"linear","name":"Linear","base_url":"https://a.example","path_prefix":"/v1","auth_secret_key":"k",
            "secrets":{"k":"s"},"allowed_methods":["GET"],"rotation_interval_days":7,"extra_headers":{"x-a":"b"}}"#,
    );
    for unchanged in [
        "{}",
        r#"{"name":"","path_prefix":"","rotation_interval_days":0,"status":"","secrets":{"k":"x"}}"#,
        r#"{"name":null,"base_url":null,"path_prefix":null,"auth_mode":null,"auth_header_name":null,"auth_prefix":null,
                "auth_secret_key":null,"rotation_interval_days":null,"status":null,"mcp_endpoint":null,"mcp_transport":null,
                "mcp_tool_allowlist":null,"mcp_tool_denylist":null,"mcp_max_tools_exposed":null,
                "mcp_subject_tool_policies":null}"#,
    ] {
        assert_eq!(json(patched(&first, unchanged)), json(first.clone()), "{unchanged}");
    }
    let moved = patched(&first, r#"{"base_url":"https://b.example:8443/x/","status":"disabled","allowed_methods":[]}"#);
    assert_eq!(moved.settings.upstream.base_url(), "https://b.example:8443/x");
    assert!(!moved.settings.active && moved.settings.allowed_methods.is_empty());
    assert_eq!(moved.settings.path_prefix, "/v1");
    let cleared = patched(
        &first,
        r#"{"name":"linear","path_prefix":"/","allowed_methods":null,"rotation_interval_days":-1,"extra_headers":null}"#,
    );
    assert_eq!(json(cleared), json(record(&PLAIN.replace("api.linear.app/", "a.example"))));
}

#[test]
fn another_mode_brings_its_own_defaults_unless_they_are_given() {
    let first = record(PLAIN);
    let query = patched(&first, r#"{"auth_mode":"query_param"}"#).settings;
    assert_eq!((query.auth_target.as_str(), query.auth_prefix.as_str()), ("api_key", ""));
    let header =
        patched(&first, r#"{"auth_mode":"header_key","auth_header_name":"X-Key","auth_prefix":"Key "}"#).settings;
    assert_eq!((header.auth_target.as_str(), header.auth_prefix.as_str()), ("X-Key", "Key "));
}

#[test]
fn a_header_keeps_its_name_in_another_mode_and_a_parameters_name_is_never_a_headers() {
    let first = record(&PLAIN.replace(r#""id":"linear","#, r#""id":"linear","auth_header_name":"X-Key","#));
    let header = patched(&first, r#"{"auth_mode":"header_key"}"#);
    assert_eq!((header.settings.auth_target.as_str(), header.settings.auth_prefix.as_str()), ("X-Key", ""));
    let bearer = patched(&header, r#"{"auth_mode":"bearer"}"#);
    assert_eq!((bearer.settings.auth_target.as_str(), bearer.settings.auth_prefix.as_str()), ("X-Key", "Bearer "));
    let query = patched(&first, r#"{"auth_mode":"query_param"}"#);
    assert_eq!(query.settings.auth_target, "api_key");
    assert_eq!(patched(&query, r#"{"auth_mode":"header_key"}"#).settings.auth_target, "Authorization");
    // What a client of the seed sends for "as it is" moves the credential nowhere.
    let same = patched(&header, r#"{"auth_mode":null,"auth_header_name":null,"auth_prefix":null}"#);
    assert_eq!(same.settings, header.settings);
}

#[test]
fn mcp_members_come_back() {
    let first = record(
        r#"{"id":"tools","protocol":"mcp","base_url":"https://a.example","mcp_endpoint":"mcp/","mcp_tool_allowlist":["b","a"],
            "mcp_max_tools_exposed":3,"mcp_subject_tool_policies":{"alice":{"denylist":["x"]}}}"#,
    );
    let text = json(first.clone());
    assert!(
        text.contains(
            r#""mcp_transport":"streamable_http","mcp_endpoint":"/mcp","mcp_tool_policy":{"allowlist":["a","b"],"max_tools_exposed":3},"mcp_subject_tool_policies":{"alice":{"denylist":["x"]}}"#
        ),
        "{text}"
    );
    let untouched = r#"{"mcp_tool_allowlist":null,"mcp_tool_denylist":null,"mcp_max_tools_exposed":null,"mcp_subject_tool_policies":null,"mcp_endpoint":null}"#;
    assert_eq!(json(patched(&first, untouched)), text);
    let bare = patched(&first, r#"{"mcp_tool_allowlist":[],"mcp_max_tools_exposed":0,"mcp_subject_tool_policies":{}}"#);
    assert!(json(bare).contains(r#""mcp_tool_policy":{},"mcp_discovery":{}"#));
}

#[test]
fn what_is_not_the_expected_json_is_placed_and_never_quoted() {
    assert_eq!(decode::<CreateBody>(b" \n").unwrap_err(), InvalidBody::Empty);
    for bad in [
        &br#"{"secrets":{"k":12345}}"#[..],
        br#"{"id":"canary-77"#,
        b"[]",
        br#""canary-77""#,
        b"{\"id\":1,\"id\":2}",
        b"\xff",
    ] {
        let error = decode::<CreateBody>(bad).unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("canary") && !error.contains("12345"), "{error}");
    }
    let deep = "[".repeat(100_000);
    assert!(decode::<CreateBody>(format!("{{\"unknown\":{deep}").as_bytes()).is_err());
}

#[test]
fn a_status_is_active_or_disabled() {
    assert!(decode::<CreateBody>(br#"{"status":"paused"}"#).unwrap().into_draft().is_none());
    assert!(!decode::<PatchBody>(br#"{"status":"paused"}"#).unwrap().has_valid_status());
    for good in [&br#"{}"#[..], br#"{"status":null}"#, br#"{"status":""}"#, br#"{"status":"disabled"}"#] {
        assert!(decode::<PatchBody>(good).unwrap().has_valid_status());
    }
}

#[test]
fn policies_take_null_and_no_limit_is_zero() {
    let body =
        br#"{"mcp_max_tools_exposed":0,"mcp_subject_tool_policies":{"bob":{"allowlist":null,"max_tools_exposed":0}}}"#;
    let (draft, _) = decode::<CreateBody>(body).unwrap().into_draft().unwrap();
    assert_eq!(draft.mcp_policy, ToolPolicy::default());
    assert_eq!(draft.mcp_subjects["bob"], ToolPolicy::default());
}

proptest! {
    #[test]
    fn any_bytes_are_judged(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<CreateBody>(&body);
        let _ = decode::<PatchBody>(&body);
        let _ = decode::<RotateBody>(&body);
    }
}
