#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;
use crate::domain::time::UnixMillis;

fn draft() -> Draft {
    Draft {
        id: "linear".to_owned(),
        base_url: "https://api.linear.app/".to_owned(),
        auth_secret_key: "api_key".to_owned(),
        ..Draft::default()
    }
}

fn check(draft: Draft) -> Result<CheckedDraft, String> {
    draft.check(&AddressPolicy::default()).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_those_of_the_admin_api() {
    let checked = check(draft()).unwrap();
    let settings = checked.settings;
    assert_eq!((settings.name.as_str(), settings.protocol), ("linear", Protocol::Http));
    assert_eq!(settings.upstream.base_url(), "https://api.linear.app");
    assert_eq!((settings.auth_mode, settings.auth_target.as_str()), (AuthMode::Bearer, "Authorization"));
    assert_eq!((settings.auth_prefix.as_str(), settings.path_prefix.as_str()), ("Bearer ", ""));
    assert!(settings.active && checked.mcp.is_none());
    let query = check(Draft { auth_mode: "query_param".to_owned(), ..draft() }).unwrap().settings;
    assert_eq!((query.auth_target.as_str(), query.auth_prefix.as_str()), ("api_key", ""));
    let basic = check(Draft { auth_mode: "basic".to_owned(), ..draft() }).unwrap().settings;
    assert_eq!((basic.auth_target.as_str(), basic.auth_prefix.as_str()), ("Authorization", "Basic "));
}

#[test]
fn a_missing_id_is_made_from_the_name() {
    let named = Draft { id: " ".to_owned(), name: "  Demo Service (Gateway)! ".to_owned(), ..draft() };
    let settings = check(named).unwrap().settings;
    assert_eq!((settings.id.as_str(), settings.name.as_str()), ("demo-service-gateway", "Demo Service (Gateway)!"));
    assert!(check(Draft { id: String::new(), name: String::new(), ..draft() }).unwrap_err().starts_with("id: "));
}

/// One wrong field.
type Spoil = fn(&mut Draft);

#[test]
fn each_wrong_field_is_named() {
    let cases: &[(&str, Spoil)] = &[
        ("id", |draft| draft.id = "weird id/../x".to_owned()),
        ("id", |draft| draft.id = "a/secret/1".to_owned()),
        ("name", |draft| draft.name = "a\u{1}b".to_owned()),
        ("name", |draft| draft.name = "x".repeat(300)),
        ("protocol", |draft| draft.protocol = "ftp".to_owned()),
        ("base_url", |draft| draft.base_url = String::new()),
        ("base_url", |draft| draft.base_url = "/x".to_owned()),
        ("base_url", |draft| draft.base_url = "file:///etc/passwd".to_owned()),
        ("base_url", |draft| draft.base_url = "https://u:p@example.com".to_owned()),
        ("base_url", |draft| draft.base_url = "https://example.com/?a=b".to_owned()),
        ("base_url", |draft| draft.base_url = "https://example.com/#a".to_owned()),
        ("base_url", |draft| draft.base_url = "https://example.com/a/%2e%2e/b".to_owned()),
        ("base_url", |draft| draft.base_url = "http://169.254.169.254/latest".to_owned()),
        ("base_url", |draft| draft.base_url = "http://10.0.0.1".to_owned()),
        ("base_url", |draft| draft.base_url = "http://127.0.0.1:38100".to_owned()),
        ("base_url", |draft| draft.base_url = "http://[::ffff:10.0.0.1]".to_owned()),
        ("base_url", |draft| draft.base_url = "http://0x7f.1".to_owned()),
        ("base_url", |draft| draft.base_url = "https://example.com:0".to_owned()),
        ("base_url", |draft| draft.base_url = "https://example.com:65536".to_owned()),
        ("path_prefix", |draft| draft.path_prefix = "/a/../b".to_owned()),
        ("path_prefix", |draft| draft.path_prefix = "/a/%2E%2e/b".to_owned()),
        ("path_prefix", |draft| draft.path_prefix = "/a?b".to_owned()),
        ("path_prefix", |draft| draft.path_prefix = "/a/..;x/b".to_owned()),
        ("auth_mode", |draft| draft.auth_mode = "Bearer".to_owned()),
        ("auth_header_name", |draft| draft.auth_header_name = Some("a b".to_owned())),
        ("auth_header_name", |draft| draft.auth_header_name = Some("Connection".to_owned())),
        ("auth_header_name", |draft| draft.auth_header_name = Some("Host".to_owned())),
        ("auth_header_name", |draft| draft.auth_header_name = Some("x-envoy-original-path".to_owned())),
        ("auth_header_name", |draft| draft.auth_header_name = Some(":path".to_owned())),
        ("auth_prefix", |draft| draft.auth_prefix = Some("a\r\nb".to_owned())),
        ("auth_secret_key", |draft| draft.auth_secret_key = " ".to_owned()),
        ("allowed_methods", |draft| draft.allowed_methods = vec!["GE T".to_owned()]),
        ("allowed_methods", |draft| draft.allowed_methods = vec!["connect".to_owned()]),
        ("allowed_methods", |draft| draft.allowed_methods = vec!["GET".to_owned(); 65]),
        ("allowed_paths", |draft| draft.allowed_paths = vec!["v1".to_owned()]),
        ("allowed_paths", |draft| draft.allowed_paths = vec!["/v1/../v2".to_owned()]),
        ("upgrades", |draft| draft.upgrades = vec!["h2c".to_owned()]),
        ("response_timeout_ms", |draft| draft.response_timeout_ms = Some(0)),
        ("response_timeout_ms", |draft| draft.response_timeout_ms = Some(u64::MAX)),
        ("max_stream_seconds", |draft| draft.max_stream_seconds = Some(u64::MAX)),
        ("rotation_interval_days", |draft| draft.rotation_interval_days = -1),
        ("rotation_interval_days", |draft| draft.rotation_interval_days = i64::MAX),
        ("extra_headers", |draft| drop(draft.extra_headers.insert("a b".to_owned(), "x".to_owned()))),
        ("extra_headers", |draft| drop(draft.extra_headers.insert("x-a".to_owned(), "a\r\nb".to_owned()))),
        ("extra_headers", |draft| drop(draft.extra_headers.insert("Authorization".to_owned(), "x".to_owned()))),
        ("extra_headers", |draft| drop(draft.extra_headers.insert("X-Forwarded-For".to_owned(), "x".to_owned()))),
        ("mcp_*", |draft| draft.mcp_endpoint = "/mcp".to_owned()),
    ];
    for (field, spoil) in cases {
        let mut spoilt = draft();
        spoil(&mut spoilt);
        let error = check(spoilt.clone()).unwrap_err();
        assert!(error.starts_with(field), "{field}: {error} for {spoilt:?}");
    }
}

#[test]
fn private_upstreams_need_the_connections_own_leave() {
    let private = Draft { base_url: "http://10.0.0.1".to_owned(), allow_private: true, ..draft() };
    assert!(check(private).is_ok());
    let metadata = Draft { base_url: "http://169.254.169.254".to_owned(), allow_private: true, ..draft() };
    assert!(check(metadata).is_err());
}

#[test]
fn an_mcp_endpoint_is_a_url_or_a_path_and_keeps_its_query() {
    let endpoint = |given: &str| {
        let draft = Draft { protocol: "mcp".to_owned(), mcp_endpoint: given.to_owned(), ..draft() };
        check(draft).map(|checked| checked.mcp.unwrap().endpoint)
    };
    for (given, kept) in [
        ("", "/"),
        ("mcp/", "/mcp"),
        (" //a/b// ", "/a/b"),
        ("/mcp?x=/y/", "/mcp?x=/y/"),
        ("https://mcp.example.com/mcp/", "https://mcp.example.com/mcp"),
        ("https://mcp.example.com/mcp?KEY={{__KEY__}}", "https://mcp.example.com/mcp?KEY={{__KEY__}}"),
    ] {
        assert_eq!(endpoint(given).unwrap(), kept, "{given}");
    }
    for bad in ["ftp://x.example/y", "https://u:p@x.example", "https://169.254.169.254/x", "/../x", "/a#b", "/a?b c"] {
        let refused = endpoint(bad).unwrap_err();
        assert!(refused.starts_with("mcp_endpoint"), "{bad}: {refused}");
    }
}

#[test]
fn mcp_lists_are_trimmed_sorted_and_free_of_doubles() {
    let policy =
        ToolPolicy { allow: [" b ", "a", "b", ""].map(str::to_owned).to_vec(), deny: Vec::new(), max_tools: Some(3) };
    let mcp = Draft {
        protocol: "MCP".to_owned(),
        auth_secret_key: String::new(),
        mcp_policy: policy.clone(),
        mcp_subjects: [(" alice ".to_owned(), policy)].into(),
        ..draft()
    };
    let checked = check(mcp).unwrap().mcp.unwrap();
    assert_eq!(checked.endpoint, "/");
    assert_eq!(checked.policy.allow, ["a", "b"]);
    assert_eq!(checked.subjects.get("alice").unwrap().allow, ["a", "b"]);
}

proptest! {
    /// A patch that changes nothing changes nothing: a record's draft checks to the same settings.
    #[test]
    fn what_was_checked_checks_again_to_the_same(
        prefix in "(/[a-z0-9]{1,4}){0,3}/?",
        base in "https?://[a-z]{1,8}\\.example(:[1-9][0-9]{0,3})?(/[a-z]{1,4}){0,2}/?",
        mode in prop::sample::select(vec!["bearer", "header_key", "query_param", "basic", ""]),
        disabled in any::<bool>(),
        days in 0_i64..400,
    ) {
        let first = Draft {
            path_prefix: prefix,
            base_url: base,
            auth_mode: mode.to_owned(),
            disabled,
            rotation_interval_days: days,
            ..draft()
        };
        let checked = first.check(&AddressPolicy::default()).unwrap();
        let record = ConnectionRecord {
            settings: checked.settings.clone(),
            auth_secret_key: checked.auth_secret_key.clone(),
            credential_keys: vec!["api_key".to_owned()],
            rotation_interval_days: checked.rotation_interval_days,
            mcp: checked.mcp.clone(),
            created_at: UnixMillis(0),
            updated_at: UnixMillis(0),
            last_rotated_at: None,
            secrets_lost: false,
        };
        prop_assert_eq!(Draft::from_record(&record).check(&AddressPolicy::default()).unwrap(), checked);
    }

    /// No text whatsoever panics.
    #[test]
    fn any_text_is_judged(id in any::<String>(), base in any::<String>(), prefix in any::<String>(), name in any::<String>()) {
        let odd = Draft { id, name, base_url: base, path_prefix: prefix.clone(), auth_header_name: Some(prefix), ..draft() };
        let _ = odd.check(&AddressPolicy::default());
    }
}
