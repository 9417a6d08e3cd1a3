//! What a relayed request may change of a connection, member by member.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::address::AddressPolicy;
use crate::domain::draft::Draft;
use crate::domain::record::ToolPolicy;
use crate::domain::time::UnixMillis;

fn draft() -> Draft {
    Draft {
        id: "linear".to_owned(),
        base_url: "https://api.linear.app".to_owned(),
        path_prefix: "/v1".to_owned(),
        auth_secret_key: "key".to_owned(),
        ..Draft::default()
    }
}

fn tools() -> Draft {
    Draft { protocol: "mcp".to_owned(), auth_secret_key: String::new(), mcp_endpoint: "/mcp".to_owned(), ..draft() }
}

fn checked(draft: Draft) -> CheckedDraft {
    draft.check(&AddressPolicy::default()).unwrap()
}

fn record(draft: Draft) -> ConnectionRecord {
    let CheckedDraft { settings, auth_secret_key, rotation_interval_days, mcp } = checked(draft);
    ConnectionRecord {
        settings,
        auth_secret_key,
        credential_keys: vec!["key".to_owned()],
        rotation_interval_days,
        mcp,
        created_at: UnixMillis(0),
        updated_at: UnixMillis(0),
        last_rotated_at: None,
        secrets_lost: false,
    }
}

#[test]
fn nothing_that_says_where_or_how_a_secret_is_sent_may_change() {
    for (member, changed) in [
        ("base_url", Draft { base_url: "https://evil.example".to_owned(), ..draft() }),
        ("base_url", Draft { base_url: "http://api.linear.app".to_owned(), ..draft() }),
        ("base_url", Draft { base_url: "https://api.linear.app:8443".to_owned(), ..draft() }),
        ("path_prefix", Draft { path_prefix: "/v2".to_owned(), ..draft() }),
        ("auth_mode", Draft { auth_mode: "query_param".to_owned(), ..draft() }),
        ("auth_header_name", Draft { auth_header_name: Some("x-request-tag".to_owned()), ..draft() }),
        ("auth_prefix", Draft { auth_prefix: Some("Token ".to_owned()), ..draft() }),
        ("auth_secret_key", Draft { auth_secret_key: "signing".to_owned(), ..draft() }),
        (
            "extra_headers",
            Draft { extra_headers: BTreeMap::from([("x-tenant".to_owned(), "evil".to_owned())]), ..draft() },
        ),
        ("allow_set_cookie", Draft { allow_set_cookie: true, ..draft() }),
    ] {
        let refused = check_change(&record(draft()), &checked(changed));
        assert_eq!(refused, Err(RelayRefused::Redirection(member)), "{member}");
    }
    let private = check_change(&record(draft()), &checked(Draft { allow_private: true, ..draft() }));
    assert_eq!(private, Err(RelayRefused::Private));
    for endpoint in ["/other", "https://evil.example/mcp"] {
        let changed = checked(Draft { mcp_endpoint: endpoint.to_owned(), ..tools() });
        assert_eq!(check_change(&record(tools()), &changed), Err(RelayRefused::Redirection("mcp_endpoint")));
    }
}

#[test]
fn everything_else_may_change_and_what_was_wide_may_become_narrow() {
    let narrow = [
        draft(),
        Draft { name: "Other".to_owned(), ..draft() },
        Draft { disabled: true, ..draft() },
        Draft { allowed_methods: vec!["GET".to_owned()], ..draft() },
        Draft { allowed_paths: vec!["/graphql".to_owned()], ..draft() },
        Draft { rotation_interval_days: 30, ..draft() },
        Draft { response_timeout_ms: Some(1000), max_stream_seconds: Some(10), ..draft() },
    ];
    for changed in narrow {
        assert_eq!(check_change(&record(draft()), &checked(changed)), Ok(()));
    }
    let wide = Draft { allow_private: true, allow_set_cookie: true, ..draft() };
    assert_eq!(check_change(&record(wide), &checked(draft())), Ok(()));
    let policy = ToolPolicy { deny: vec!["delete".to_owned()], ..ToolPolicy::default() };
    assert_eq!(check_change(&record(tools()), &checked(Draft { mcp_policy: policy, ..tools() })), Ok(()));
}

#[test]
fn a_new_connection_leads_where_its_secrets_were_sealed_for() {
    assert_eq!(check_new(&checked(draft())), Ok(()));
    assert_eq!(check_new(&checked(tools())), Ok(()));
    let private = Draft { allow_private: true, base_url: "http://10.0.0.1".to_owned(), ..draft() };
    assert_eq!(check_new(&checked(private)), Err(RelayRefused::Private));
    let elsewhere = Draft { mcp_endpoint: "https://evil.example/mcp".to_owned(), ..tools() };
    assert_eq!(check_new(&checked(elsewhere)), Err(RelayRefused::Redirection("mcp_endpoint")));
}

proptest! {
    #[test]
    fn a_session_is_short_and_clean_or_none(text in "\\PC{0,80}|[A-Za-z0-9._-]{0,70}") {
        let clean = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let expected = clean && !text.is_empty() && text.len() <= 64;
        prop_assert_eq!(RelaySession::parse(&text).map(|session| session.as_str().to_owned()), expected.then_some(text));
    }
}
