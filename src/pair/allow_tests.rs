#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

#[path = "allow_oracle.rs"]
mod oracle;

const VERBS: [Verb; 5] = [Verb::Get, Verb::Post, Verb::Put, Verb::Patch, Verb::Delete];

/// Every path of the list with the methods it takes.
const LIST: &[(&str, &[Verb])] = &[
    ("/health", &[Verb::Get]),
    ("/api/admin/connections", &[Verb::Get, Verb::Post]),
    ("/api/admin/connections/A.b_c-1", &[Verb::Get, Verb::Patch, Verb::Delete]),
    ("/api/admin/connections/slack/rotate", &[Verb::Post]),
    ("/api/admin/connections/slack/test", &[Verb::Post]),
    ("/api/admin/connections/slack/discover", &[Verb::Post]),
    ("/api/admin/connections/slack/agents", &[Verb::Get]),
    ("/api/admin/credential-variables", &[Verb::Get, Verb::Post]),
    ("/api/admin/credential-variables/OPENAI_KEY", &[Verb::Delete]),
    ("/api/admin/openclaw/legacy-keys", &[Verb::Get]),
    ("/api/admin/openclaw/legacy-keys/import", &[Verb::Post]),
    ("/api/admin/openclaw/legacy-keys/purge", &[Verb::Post]),
    ("/api/admin/service-catalog", &[Verb::Get, Verb::Put]),
    ("/api/admin/service-api-keys/my-service-1", &[Verb::Get, Verb::Put]),
    ("/api/admin/sealing-key", &[Verb::Get]),
    ("/api/admin/refusals", &[Verb::Get]),
];

#[test]
fn each_path_takes_its_methods_and_no_other() {
    for (path, verbs) in LIST {
        for verb in VERBS {
            let judged = Allowed::judge(verb.name(), path);
            assert_eq!(judged.is_some(), verbs.contains(&verb), "{} {path}", verb.name());
            if let Some(allowed) = judged {
                assert_eq!((allowed.verb(), allowed.path()), (verb, *path));
            }
        }
    }
}

#[test]
fn a_method_may_be_written_small_and_must_be_one() {
    assert_eq!(Allowed::judge("get", "/health").unwrap().verb(), Verb::Get);
    for method in ["", "HEAD", "OPTIONS", "CONNECT", "TRACE", "GET ", "GET\r\n", "G\u{212a}T"] {
        assert_eq!(Allowed::judge(method, "/health"), None, "{method:?}");
    }
}

#[test]
fn what_means_another_path_is_refused() {
    for path in [
        "",
        "health",
        "/",
        "//health",
        "/health/",
        "/health?x=1",
        "/health#x",
        "/HEALTH",
        "/health\r\nx: y",
        "/health HTTP/1.1\r\n\r\nGET /api/admin/store/backup",
        "http://127.0.0.1:38100/health",
        "//evil.example/health",
        "/api/admin/../../health",
        "/api/admin/connections/.",
        "/api/admin/connections/..",
        "/api/admin/connections/../store/backup",
        "/api/admin/connections/a/../../store/backup",
        "/api/admin/connections/%2e%2e",
        "/api/admin/connections/a%2Frotate",
        "/api/admin/connections/a%00",
        "/api/admin/connections/a;b",
        "/api/admin/connections/a\\..\\b",
        "/api/admin/connections/",
        "/api/admin/connections//rotate",
        "/api/admin/connections/a/rotate/",
        "/api/admin/connections/a/rotate/x",
        "/api/admin/connections/a/secrets",
        "/api/admin/connections/a@b",
        "/api/admin/connections/\u{e4}",
        "/api/admin/connections/\u{ff0e}\u{ff0e}",
        "/api/admin/service-api-keys/My_Service",
        "/api/admin/service-api-keys/",
        "/api/admin/secrets/reload",
        "/api/admin/store/backup",
        "/api/admin/audit",
        "/api/admin",
        "/proxy/slack/auth.test",
        "/metrics",
    ] {
        for verb in VERBS {
            assert_eq!(Allowed::judge(verb.name(), path), None, "{} {path}", verb.name());
        }
    }
}

#[test]
fn a_path_has_a_longest_length() {
    let of = |length: usize| format!("/api/admin/connections/{}", "a".repeat(length - 23));
    assert!(Allowed::judge("GET", &of(MAX_PATH_BYTES)).is_some());
    assert_eq!(Allowed::judge("GET", &of(MAX_PATH_BYTES + 1)), None);
}

/// It is on the list; and what a URL parser makes of the path is what was judged: there is no second meaning.
fn assert_plain(method: &str, path: &str) {
    assert!(oracle::is_relayed(method, path), "{method} {path}");
    let url = reqwest::Url::parse(&format!("http://127.0.0.1:1{path}")).unwrap();
    assert_eq!((url.path(), url.query(), url.fragment()), (path, None, None));
    assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)), "{path}");
}

proptest! {
    #[test]
    fn whatever_is_let_through_has_one_meaning(
        method in prop_oneof!["GET|POST|PUT|PATCH|DELETE", "\\PC{0,8}"],
        parts in prop::collection::vec(
            prop_oneof![
                Just("health".to_owned()), Just("api".to_owned()), Just("admin".to_owned()),
                Just("connections".to_owned()), Just("credential-variables".to_owned()), Just("openclaw".to_owned()),
                Just("legacy-keys".to_owned()), Just("service-api-keys".to_owned()), Just("rotate".to_owned()),
                Just("..".to_owned()), Just(".".to_owned()), Just(String::new()), Just("%2e%2e".to_owned()),
                Just("a;b".to_owned()), Just("a\\b".to_owned()), Just("a?b".to_owned()), Just("a\r\nb".to_owned()),
                "[ -~]{0,12}", "\\PC{0,6}",
            ],
            0..7,
        ),
        lead in prop_oneof![Just("/"), Just(""), Just("//"), Just("http://h/"), Just("\\")],
    ) {
        let path = format!("{lead}{}", parts.join("/"));
        match Allowed::judge(&method, &path) {
            Some(allowed) => {
                prop_assert_eq!(allowed.path(), &path);
                prop_assert_eq!(allowed.verb().name(), method.to_ascii_uppercase());
                assert_plain(&method, &path);
            }
            None => prop_assert!(path.len() > MAX_PATH_BYTES || !oracle::is_relayed(&method, &path)),
        }
    }

    #[test]
    fn what_is_listed_is_let_through_and_its_neighbours_are_not(
        row in 0..oracle::RELAYED.len(), name in "[A-Za-z0-9._-]{1,12}", slug in "[a-z0-9-]{1,12}",
        tail in prop_oneof![3 => Just(String::new()), 1 => "[ -~]{1,6}"],
    ) {
        let (_, pattern) = oracle::RELAYED[row];
        let path = pattern.replace('*', &name).replace('+', &slug) + &tail;
        for verb in VERBS {
            let judged = Allowed::judge(verb.name(), &path).is_some();
            prop_assert_eq!(judged, oracle::is_relayed(verb.name(), &path), "{} {}", verb.name(), path);
        }
    }

    #[test]
    fn no_byte_more_may_be_in_a_listed_path(at in 0_usize..60, index in 0..LIST.len(), byte in any::<char>()) {
        let (listed, verbs) = LIST[index];
        let mut path = listed.to_owned();
        path.insert(at.min(listed.len()), byte);
        for verb in verbs {
            if let Some(allowed) = Allowed::judge(verb.name(), &path) {
                assert_plain(verb.name(), allowed.path());
            }
        }
    }
}

#[test]
fn only_what_says_nothing_of_the_sender_is_passed_on_as_it_is() {
    let given: BTreeMap<_, _> = [
        ("Accept", " application/json "),
        ("Content-Type", "text/plain"),
        ("X-Request-Id", "r-1"),
        ("Authorization", "Bearer x"),
        ("X-Sigilum-Admin-Token", "x"),
        ("x-sigilum-relay", "another"),
        ("host", "evil.example"),
        ("x-forwarded-for", "127.0.0.1"),
        ("cookie", "a=b"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let passed = [("accept", "application/json"), ("content-type", "text/plain"), ("x-request-id", "r-1")];
    let passed: Vec<_> = passed.map(|(name, value)| (name, value.to_owned())).into();
    assert_eq!(headers(&given, true), passed);
    assert_eq!(headers(&given, false), [passed[0].clone(), passed[2].clone()]);
}

#[test]
fn tokens_of_a_command_are_passed_on_apart() {
    let tokens = |pairs: &[(&str, &str)]| {
        let given = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        super::tokens(&given).into_iter().map(|(name, token)| (name, token.expose().to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(
        tokens(&[("Authorization", " Bearer x "), ("X-Sigilum-Admin-Token", "\ty "), ("cookie", "a=b")]),
        [("authorization", "Bearer x".to_owned()), ("x-sigilum-admin-token", "y".to_owned())]
    );
    for broken in ["", "  ", "a\r\nx: y", "a\0", "\u{e4}", &"a".repeat(MAX_TOKEN_BYTES + 1)] {
        assert_eq!(tokens(&[("authorization", broken)]), [], "{broken:?}");
    }
    // Nothing that is kept of a request shows one.
    let shown = format!("{:?}", super::tokens(&[("authorization".to_owned(), "canary".to_owned())].into()));
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn a_body_is_json_where_nobody_says_and_a_broken_header_is_none() {
    let given = |value: &str| BTreeMap::from([("content-type".to_owned(), value.to_owned())]);
    for broken in ["", "  ", "a\r\nx: y", "a\0", "\u{e4}", &"a".repeat(MAX_HEADER_BYTES + 1)] {
        assert_eq!(headers(&given(broken), true), [("content-type", JSON.to_owned())], "{broken:?}");
    }
}
