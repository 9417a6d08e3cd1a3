//! Step 11: the upstream `:path`.

use zeroize::Zeroizing;

use crate::domain::connection::ConnectionSettings;
use crate::domain::route::Route;
use crate::domain::upstream_path;
use crate::gate::policy::Allowed;

/// Base path, prefix and remainder in a row, then the query with the credential where it is a parameter.
///
/// `allowed` is the proof that the connection may be used for this request. `assigned`: a foreign front chose the connection and keeps its path, so only the query may change.
pub(super) fn upstream_path(
    connection: &ConnectionSettings,
    allowed: &Allowed<'_>,
    route: &Route<'_>,
    assigned: bool,
) -> Zeroizing<Vec<u8>> {
    let (base, prefix) =
        if assigned { ("", "") } else { (connection.upstream.base_path.as_str(), connection.path_prefix.as_str()) };
    upstream_path::join(base, prefix, route.remainder, route.query, allowed.credential())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;
    use crate::domain::connection::AuthMode;
    use crate::domain::connection::Connection;
    use crate::domain::connection::Upstream;
    use crate::domain::route;
    use crate::domain::secret::Secret;
    use crate::gate::signer_tests::settings;

    fn path(base_url: &str, prefix: &str, mode: AuthMode, parameter: &str, target: &str) -> String {
        let mut settings = settings("demo");
        settings.upstream = Upstream::parse(base_url).unwrap();
        prefix.clone_into(&mut settings.path_prefix);
        settings.auth_mode = mode;
        parameter.clone_into(&mut settings.auth_target);
        settings.auth_prefix = String::new();
        let connection = Connection::new(settings, Ok(&Secret::new("s3 cret".to_owned())));
        let route = route::parse(b"GET", target.as_bytes()).unwrap();
        let path = upstream_path(&connection.settings, &Allowed::unjudged(&connection), &route, false);
        String::from_utf8(path.to_vec()).unwrap()
    }

    #[test]
    fn pieces_are_joined_as_they_are() {
        let cases = [
            ("https://x.example", "", "/proxy/demo", "/"),
            ("https://x.example", "", "/proxy/demo/", "/"),
            ("https://x.example/", "", "/proxy/demo/a", "/a"),
            ("https://x.example/base", "", "/proxy/demo", "/base"),
            ("https://x.example/base", "", "/proxy/demo/", "/base/"),
            ("https://x.example/base", "/v1", "/proxy/demo/a%2Fb/", "/base/v1/a%2Fb/"),
            ("https://x.example/base", "/v1", "/proxy/demo//a//", "/base/v1//a//"),
            ("https://x.example/base", "/v1", "/proxy/demo?", "/base/v1?"),
            ("https://x.example", "/v1", "/proxy/demo/a?b=%20&a;c&flag&b=1+2&%zz", "/v1/a?b=%20&a;c&flag&b=1+2&%zz"),
            ("https://slack.example/api", "", "/slack/auth.test?x", "/api/auth.test?x"),
        ];
        for (base, prefix, target, expected) in cases {
            assert_eq!(path(base, prefix, AuthMode::HeaderKey, "X-Key", target), expected, "{target}");
        }
    }

    #[test]
    fn a_query_credential_replaces_every_parameter_of_its_name() {
        let cases = [
            ("", "?api_key=s3%20cret"),
            ("?", "?api_key=s3%20cret"),
            ("?a=1&b=2", "?a=1&b=2&api_key=s3%20cret"),
            ("?api_key=mine", "?api_key=s3%20cret"),
            ("?api_key", "?api_key=s3%20cret"),
            ("?api_key=1&a=2&api_key=3", "?a=2&api_key=s3%20cret"),
            ("?a=2&%61pi%5Fkey=3;b", "?a=2;b&api_key=s3%20cret"),
            ("?a;api_key=1;b&api_key=2", "?a;b&api_key=s3%20cret"),
            ("?api_key=1;b", "?b&api_key=s3%20cret"),
            ("?&&api_key=1&", "?&&&api_key=s3%20cret"),
            (
                "?api_keys=1&xapi_key=2&API_KEY=3&api_key[]=4",
                "?api_keys=1&xapi_key=2&API_KEY=3&api_key[]=4&api_key=s3%20cret",
            ),
            ("?a=api_key=1", "?a=api_key=1&api_key=s3%20cret"),
            ("?%2561pi_key=1", "?%2561pi_key=1&api_key=s3%20cret"),
        ];
        for (query, expected) in cases {
            let target = format!("/proxy/demo/x{query}");
            let expected = format!("/x{expected}");
            assert_eq!(path("https://x.example", "", AuthMode::QueryParam, "api_key", &target), expected, "{query}");
        }
        let blank =
            path("https://x.example", "", AuthMode::QueryParam, "my key", "/proxy/demo?my+key=1&my%20key=2&my%2Bkey=3");
        assert_eq!(blank, "/?my%2Bkey=3&my%20key=s3%20cret");
        let plus = path("https://x.example", "", AuthMode::QueryParam, "a+b", "/proxy/demo?a+b=1&a%2Bb=2&a%20b=3");
        assert_eq!(plus, "/?a%20b=3&a%2Bb=s3%20cret");
    }

    #[test]
    fn a_foreign_front_keeps_its_path() {
        let mut settings = settings("demo");
        settings.upstream = Upstream::parse("https://x.example/base").unwrap();
        settings.path_prefix = "/v1".to_owned();
        let connection = Connection::new(settings, Ok(&Secret::new("s".to_owned())));
        let route = route::parse_assigned(b"GET", b"/kept/as%2Fis/?q", "demo").unwrap();
        let path = upstream_path(&connection.settings, &Allowed::unjudged(&connection), &route, true);
        assert_eq!(path.as_slice(), b"/kept/as%2Fis/?q");
    }

    proptest! {
        #[test]
        fn the_path_never_leaves_base_and_prefix(rest in "[a/.%252eEfF5cC;?=&\\\\]{0,32}") {
            let target = format!("/proxy/demo/{rest}");
            if route::parse(b"GET", target.as_bytes()).is_ok() {
                let planned = path("https://x.example/base", "/v1", AuthMode::HeaderKey, "X-Key", &target);
                prop_assert!(planned.starts_with("/base/v1/"));
                let mut reading = planned.split('?').next().unwrap().as_bytes().to_vec();
                for _ in 0..3 {
                    let mut resolved: Vec<&[u8]> = Vec::new();
                    for segment in reading.split(|byte| matches!(byte, b'/' | b'\\')) {
                        match segment.split(|byte| *byte == b';').next().unwrap() {
                            b"" | b"." => {}
                            b".." => prop_assert!(resolved.pop().is_some() && resolved.len() >= 2, "{planned}"),
                            other => resolved.push(other),
                        }
                    }
                    prop_assert!(resolved.starts_with(&[b"base", b"v1"]), "{planned}");
                    let mut next = Vec::new();
                    route::decode(&reading, &mut next);
                    reading = next;
                }
            }
        }
    }
}
