//! Step 2 of a decision: which connection a raw request target names, and what is left for the provider.
//!
//! The target is read once, from the bytes as sent, and nothing is rewritten: what was judged here
//! is what is signed and what goes upstream. What a provider could read as a way out of its base
//! path is refused, also where it would have to decode once or twice to see it.

use crate::domain::decision::DenyReason;

/// Longest request target, in bytes. Envoy limits all headers together to 60 KiB by default.
pub const MAX_TARGET_BYTES: usize = 16 * 1024;

/// What readiness asks for without a signature, and what must be refused. No connection needs to be called that: a request
/// without a signature is refused before anybody looks.
pub const CANARY_PATH: &str = "/proxy/sigilum-canary/";

/// Connection behind the alias `/slack`.
pub const SLACK_CONNECTION: &str = "slack-proxy";

/// A request target taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// The first path segment behind `/proxy/`, as sent: not checked to be a slug, so it may be a
    /// name no connection can have.
    pub connection: &'a str,
    /// What follows it: empty, or beginning with `/`. Visible ASCII without `\` and `#`.
    pub remainder: &'a str,
    /// What follows the first `?`, as sent; `None` where there is no `?`. No blanks, no control bytes.
    pub query: Option<&'a str>,
}

/// Reads `/proxy/{id}`, `/proxy/{id}/…`, `/slack`, `/slack/…`, each with or without a query.
///
/// # Errors
/// - [`DenyReason::MethodNotAllowed`]: the method is CONNECT or TRACE or no token, or the target is `*`.
/// - [`DenyReason::PathInvalid`]: no connection id, bytes a request line cannot carry, a backslash, NUL,
///   overlong UTF-8 or dot segment (also after one or two decodings, where a reader cuts at `;`, and where
///   it drops blanks and control bytes).
/// - [`DenyReason::NotFound`]: any other path.
pub fn parse<'a>(method: &[u8], target: &'a [u8]) -> Result<Route<'a>, DenyReason> {
    check_method(method, target)?;
    let (path, query) = split(target)?;
    let (connection, remainder) = if let Some(rest) = strip_segment(path, "/proxy") {
        // `/proxy` and `/proxy/` name nobody, `/proxy//x` names the empty string.
        let rest = rest.strip_prefix('/').ok_or(DenyReason::PathInvalid)?;
        let (id, remainder) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
        if id.is_empty() {
            return Err(DenyReason::PathInvalid);
        }
        (id, remainder)
    } else if let Some(rest) = strip_segment(path, "/slack") {
        (SLACK_CONNECTION, rest)
    } else {
        return Err(DenyReason::NotFound);
    };
    Ok(Route { connection, remainder, query })
}

/// The same judgement where a foreign front chose the connection: the whole path is the remainder.
///
/// # Errors
/// As [`parse`], without `NotFound`.
pub fn parse_assigned<'a>(method: &[u8], target: &'a [u8], connection: &'a str) -> Result<Route<'a>, DenyReason> {
    check_method(method, target)?;
    let (remainder, query) = split(target)?;
    Ok(Route { connection, remainder, query })
}

/// Decodes every well-formed `%XX` once into `out`, which is cleared first; the rest stays as it is.
pub fn decode(text: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, escaped(tail)) {
            (b'%', Some((decoded, after))) => {
                out.push(decoded);
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
}

/// The byte two hexadecimal digits stand for, and what follows them.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], rest) = text.split_first_chunk::<2>()?;
    let value = char::from(high).to_digit(16)?.checked_mul(16)?.checked_add(char::from(low).to_digit(16)?)?;
    Some((u8::try_from(value).ok()?, rest))
}

fn check_method(method: &[u8], target: &[u8]) -> Result<(), DenyReason> {
    // RFC 9110 section 5.6.2: a method is a token. Ours are letters, digits and `-`, `_`.
    let token = !method.is_empty()
        && method.len() <= 32
        && method.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !token || method.eq_ignore_ascii_case(b"CONNECT") || method.eq_ignore_ascii_case(b"TRACE") || target == b"*" {
        return Err(DenyReason::MethodNotAllowed);
    }
    Ok(())
}

/// Path and query. The absolute form (`http://host/path`) is refused: our Envoy turns it into the
/// origin form, and elsewhere it would hold a second authority that nobody signed.
fn split(target: &[u8]) -> Result<(&str, Option<&str>), DenyReason> {
    if target.len() > MAX_TARGET_BYTES || !target.starts_with(b"/") {
        return Err(DenyReason::PathInvalid);
    }
    // UTF-8 because the answer to Envoy is text; `#` because some readers cut there and some do not.
    let text = std::str::from_utf8(target).map_err(|_| DenyReason::PathInvalid)?;
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
        return Err(DenyReason::PathInvalid);
    }
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    if !path.is_ascii() || path.contains('\\') {
        return Err(DenyReason::PathInvalid);
    }
    check_segments(path)?;
    Ok((path, query))
}

/// What follows `prefix`, where the prefix ends with its segment.
fn strip_segment<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Refuses dot segments, backslashes and NUL in the path as sent, decoded once and decoded twice.
///
/// Twice, because a provider may itself stand behind a proxy that decodes.
fn check_segments(path: &str) -> Result<(), DenyReason> {
    check_form(path.as_bytes())?;
    if !path.contains('%') {
        return Ok(());
    }
    let mut once = Vec::with_capacity(path.len());
    decode(path.as_bytes(), &mut once);
    check_form(&once)?;
    if once.contains(&b'%') {
        let mut twice = Vec::with_capacity(once.len());
        decode(&once, &mut twice);
        check_form(&twice)?;
    }
    Ok(())
}

fn check_form(path: &[u8]) -> Result<(), DenyReason> {
    if path.iter().any(|byte| matches!(byte, b'\\' | 0)) || has_overlong(path) {
        return Err(DenyReason::PathInvalid);
    }
    for segment in path.split(|byte| *byte == b'/') {
        // Path parameters: some readers take `..;x` for `..` (RFC 3986 section 3.3). Others drop blanks (Windows)
        // or tabs and line ends (the URL standard), wherever they stand.
        let name = segment.split(|byte| *byte == b';').next().unwrap_or(segment);
        let mut kept = name.iter().filter(|byte| **byte > b' ' && **byte != 0x7f);
        if let (Some(b'.'), None | Some(b'.'), None) = (kept.next(), kept.next(), kept.next()) {
            return Err(DenyReason::PathInvalid);
        }
    }
    Ok(())
}

/// Whether it holds UTF-8 that is longer than it need be (RFC 3629 section 3): `C0 AE` is a dot to old decoders.
fn has_overlong(path: &[u8]) -> bool {
    let pair = |pair: &[u8]| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]);
    path.windows(2).any(pair)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    fn get(target: &str) -> Result<Route<'_>, DenyReason> {
        parse(b"GET", target.as_bytes())
    }

    #[test]
    fn a_target_is_taken_apart_without_rewriting() {
        let cases = [
            ("/proxy/demo", "demo", "", None),
            ("/proxy/demo/", "demo", "/", None),
            ("/proxy/demo?", "demo", "", Some("")),
            ("/proxy/demo/v1/a%2Fb/?x=1&y=%20", "demo", "/v1/a%2Fb/", Some("x=1&y=%20")),
            ("/proxy/demo//a//b", "demo", "//a//b", None),
            ("/proxy/demo/a?b?c=/../d", "demo", "/a", Some("b?c=/../d")),
            ("/proxy/demo/a?q=\u{e9}", "demo", "/a", Some("q=\u{e9}")),
            ("/proxy/demo/...", "demo", "/...", None),
            ("/proxy/demo/.well-known/a..b/c.;x", "demo", "/.well-known/a..b/c.;x", None),
            ("/slack", "slack-proxy", "", None),
            ("/slack/auth.test", "slack-proxy", "/auth.test", None),
            ("/slack/?a", "slack-proxy", "/", Some("a")),
            ("/proxy/No%20Slug/x", "No%20Slug", "/x", None),
            ("/proxy/demo/%C3%A0%20.a/%20/b%0A.", "demo", "/%C3%A0%20.a/%20/b%0A.", None),
            ("/proxy/demo/%C0/%E0%A0%80", "demo", "/%C0/%E0%A0%80", None),
        ];
        for (target, connection, remainder, query) in cases {
            assert_eq!(get(target), Ok(Route { connection, remainder, query }), "{target}");
        }
    }

    #[test]
    fn ways_out_of_the_base_path_are_refused() {
        for way in [
            ".",
            "..",
            "../x",
            "a/..",
            "a/../b",
            "./a",
            "%2e",
            "%2E%2e",
            ".%2e/x",
            "%2e./x",
            "a%2f..%2fb",
            "a%2F.%2Fb",
            "..%2f",
            "..;",
            "..;x=1/a",
            "%2e%2e;x",
            "..%3bx",
            "..%3Bx/a",
            ".;",
            "%252e%252e",
            "%252e.",
            "a%252f..%252fb",
            "..%252f",
            "..%253bx",
            "%25%32%65.",
            "a\\b",
            "a%5cb",
            "a%5Cb",
            "a%255cb",
            "..\\",
            "..%5c",
            "a%00b",
            "%00",
            "a%2500",
            "a%25%30%30",
            "..%20",
            "%20../x",
            ".%20.",
            ".%09./x",
            "..%0a/x",
            "..%0d%0a",
            "..%7f",
            ".%2509.",
            "..%20;x",
            "%c0%ae%c0%ae/x",
            "..%c0%af",
            "..%C1%9Cx",
            "%25c0%25ae",
            "%e0%80%ae",
            "%f0%80%80%ae",
        ] {
            let target = format!("/proxy/demo/{way}");
            assert_eq!(get(&target), Err(DenyReason::PathInvalid), "{target}");
            let target = format!("/slack/{way}?x=1");
            assert_eq!(get(&target), Err(DenyReason::PathInvalid), "{target}");
            assert_eq!(parse_assigned(b"GET", target.as_bytes(), "demo"), Err(DenyReason::PathInvalid), "{target}");
        }
    }

    #[test]
    fn bytes_a_request_line_cannot_carry_are_refused() {
        for bad in [
            &b"/proxy/demo/a b"[..],
            b"/proxy/demo/a\tb",
            b"/proxy/demo/a\r\nb",
            b"/proxy/demo/a\0",
            b"/proxy/demo/a\x7f",
            b"/proxy/demo/\xc3\xa9",
            b"/proxy/demo/\xff",
            b"/proxy/demo/a?\xff",
            b"/proxy/demo/a?b c",
            b"/proxy/demo/a?b\nc",
            b"/proxy/demo/a#b",
            b"/proxy/demo?a#b",
            b"",
            b"proxy/demo",
            b"http://localhost/proxy/demo",
            b"?x",
            b"/proxy",
            b"/proxy/",
            b"/proxy//demo",
            b"/proxy?x=/demo",
            b"/proxy/../demo",
            b"/proxy/%2e%2e;x/demo",
            b"/proxy/./demo",
            b"/proxy/de%00mo",
            b"/x/../proxy/demo",
        ] {
            assert_eq!(parse(b"GET", bad), Err(DenyReason::PathInvalid), "{:?}", String::from_utf8_lossy(bad));
        }
        let long = format!("/proxy/demo/{}", "a".repeat(MAX_TARGET_BYTES));
        assert_eq!(get(&long), Err(DenyReason::PathInvalid));
    }

    #[test]
    fn other_paths_are_not_found() {
        for other in [
            "/",
            "/x",
            "/health",
            "/proxyx/demo",
            "/Proxy/demo",
            "/pro%78y/demo",
            "//proxy/demo",
            "/slacker",
            "/mcp/demo/tools",
            "/api/admin",
        ] {
            assert_eq!(get(other), Err(DenyReason::NotFound), "{other}");
        }
    }

    #[test]
    fn tunnels_and_echoes_are_not_methods_of_ours() {
        for method in [&b"CONNECT"[..], b"connect", b"TRACE", b"Trace", b"", b"GE T", b"GET\n", b"G\xc3\x89T"] {
            assert_eq!(parse(method, b"/proxy/demo/x"), Err(DenyReason::MethodNotAllowed));
            assert_eq!(parse_assigned(method, b"/x", "demo"), Err(DenyReason::MethodNotAllowed));
        }
        assert_eq!(parse(b"OPTIONS", b"*"), Err(DenyReason::MethodNotAllowed));
        assert!(parse(b"PROPFIND", b"/proxy/demo/x").is_ok());
    }

    #[test]
    fn a_foreign_front_names_the_connection_and_keeps_its_path() {
        let route = parse_assigned(b"GET", b"/anything/at%2Fall/?q", "demo").unwrap();
        assert_eq!(route, Route { connection: "demo", remainder: "/anything/at%2Fall/", query: Some("q") });
    }

    /// An upstream's reading: decode `times` times, take `\` for `/`, cut parameters, resolve.
    /// `None` where that leaves the folder it started in.
    fn depth_after(path: &str, times: usize) -> Option<usize> {
        let mut bytes = path.as_bytes().to_vec();
        for _ in 0..times {
            let mut next = Vec::new();
            decode(&bytes, &mut next);
            bytes = next;
        }
        let mut depth = 0_usize;
        for segment in bytes.split(|byte| matches!(byte, b'/' | b'\\')) {
            match segment.split(|byte| *byte == b';').next().unwrap() {
                b"" | b"." => {}
                b".." => depth = depth.checked_sub(1)?,
                _ => depth += 1,
            }
        }
        Some(depth)
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(method in proptest::collection::vec(any::<u8>(), 0..8), target in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = parse(&method, &target);
            let _ = parse_assigned(&method, &target, "demo");
        }

        #[test]
        fn an_accepted_target_is_made_of_its_parts(rest in "[a-z/.%25cCeEfF;?&=0-9\\\\]{0,40}") {
            let target = format!("/proxy/demo{rest}");
            if let Ok(route) = get(&target) {
                let query = route.query.map(|query| format!("?{query}")).unwrap_or_default();
                prop_assert_eq!(format!("/proxy/{}{}{}", route.connection, route.remainder, query), target.as_str());
                for times in 0..=2 {
                    prop_assert!(depth_after(route.remainder, times).is_some(), "{} escapes after {times} decodings", route.remainder);
                }
            }
        }
    }
}
