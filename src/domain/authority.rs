//! Step 1 of a decision: is the request addressed to us? A request signed for another host must not verify here.
//!
//! Reads `Host` or `:authority` as sent (RFC 9110 section 7.2, RFC 3986 section 3.2). Anything
//! that two readers could read in two ways is refused, not interpreted.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::domain::decision::DenyReason;

/// Longest authority that is looked at, in bytes: a DNS name has at most 253, a port 6 more.
pub const MAX_AUTHORITY_BYTES: usize = 320;

/// Accepts what `accepted` lists and, with `loopback_names`, loopback names and addresses on any port.
///
/// Those names mean another machine to each who says them: two gateways that accept them accept each other's requests.
///
/// An entry of `accepted` is lower case; `host` stands for that host on any port, `host:port` for
/// that port alone (where the request names none, the entry with a port does not match: the
/// default port belongs to the scheme, and guessing it would be a second reading).
///
/// # Errors
/// [`DenyReason::HeadersInvalid`] where it is no plain `host[:port]` (user information, empty host,
/// a comma from two joined Host headers, blanks, control bytes), [`DenyReason::AuthorityNotAccepted`]
/// where it is somebody else's.
pub fn check(authority: &[u8], accepted: &[String], loopback_names: bool) -> Result<(), DenyReason> {
    let (host, whole) = split(authority).ok_or(DenyReason::HeadersInvalid)?;
    let ours = (loopback_names && is_loopback(host))
        || accepted.iter().any(|entry| entry.eq_ignore_ascii_case(host) || entry.eq_ignore_ascii_case(whole));
    if ours { Ok(()) } else { Err(DenyReason::AuthorityNotAccepted) }
}

/// Host (an IPv6 literal with its brackets) and the whole text; `None` where it is malformed.
fn split(authority: &[u8]) -> Option<(&str, &str)> {
    if authority.is_empty() || authority.len() > MAX_AUTHORITY_BYTES {
        return None;
    }
    let whole = std::str::from_utf8(authority).ok()?;
    let (host, port) = if whole.starts_with('[') {
        let end = whole.find(']')?;
        let (host, rest) = whole.split_at_checked(end.checked_add(1)?)?;
        let literal = host.get(1..end)?;
        // A zone id (`%eth0`) does not parse: it means something on one machine only.
        literal.parse::<Ipv6Addr>().ok()?;
        match rest {
            "" => (host, None),
            _ => (host, Some(rest.strip_prefix(':')?)),
        }
    } else {
        match whole.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (whole, None),
        }
    };
    let name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if host.is_empty() || !(name || host.starts_with('[')) {
        return None;
    }
    match port {
        None => Some((host, whole)),
        // Digits first: `u16::from_str` would take a plus sign.
        Some(port)
            if port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            Some((host, whole))
        }
        Some(_) => None,
    }
}

/// `localhost`, 127.0.0.0/8 in its one canonical spelling, `[::1]`.
///
/// Names below `.localhost` (RFC 6761) are not: whether they reach this machine is up to the
/// client's resolver. Who uses one lists it in `gateway.authorities`.
fn is_loopback(host: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return literal.parse() == Ok(Ipv6Addr::LOCALHOST);
    }
    // The standard parser refuses octal and short forms, which resolvers read differently.
    host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use proptest::prelude::*;

    use super::*;

    fn check(authority: &[u8], accepted: &[String]) -> Result<(), DenyReason> {
        super::check(authority, accepted, true)
    }

    #[test]
    fn loopback_is_not_ours_where_it_is_not_to_be_but_where_it_is_listed() {
        for name in ["localhost", "localhost:38000", "127.0.0.1:38000", "[::1]"] {
            let refused = super::check(name.as_bytes(), &accepted(), false);
            assert_eq!(refused, Err(DenyReason::AuthorityNotAccepted), "{name}");
            assert_eq!(super::check(name.as_bytes(), &[name.to_owned()], false), Ok(()), "{name}");
        }
        assert_eq!(super::check(b"gateway.example.com", &accepted(), false), Ok(()));
    }

    fn accepted() -> Vec<String> {
        vec!["gateway.example.com".to_owned(), "other.example.com:8443".to_owned(), "[2001:db8::1]".to_owned()]
    }

    #[test]
    fn loopback_is_ours_on_any_port() {
        for good in [
            "localhost",
            "LocalHost:1",
            "127.0.0.1",
            "127.0.0.1:38000",
            "127.9.8.7:65535",
            "[::1]",
            "[::1]:38000",
            "[0:0:0:0:0:0:0:1]:1",
        ] {
            assert_eq!(check(good.as_bytes(), &[]), Ok(()), "{good}");
        }
    }

    #[test]
    fn listed_hosts_are_ours() {
        for good in [
            "gateway.example.com",
            "GATEWAY.example.COM",
            "gateway.example.com:443",
            "gateway.example.com:1",
            "other.example.com:8443",
            "[2001:db8::1]",
            "[2001:DB8::1]:38000",
        ] {
            assert_eq!(check(good.as_bytes(), &accepted()), Ok(()), "{good}");
        }
    }

    #[test]
    fn other_hosts_are_not() {
        for bad in [
            "example.com",
            "gateway.example.com.",
            "gateway.example.com.evil.com",
            "xgateway.example.com",
            "other.example.com",
            "other.example.com:443",
            "localhost.",
            "a.localhost",
            "localhost.evil.com",
            "128.0.0.1",
            "127.1",
            "0177.0.0.1",
            "127.0.0.1.nip.io",
            "0.0.0.0",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[2001:db8::2]",
        ] {
            assert_eq!(check(bad.as_bytes(), &accepted()), Err(DenyReason::AuthorityNotAccepted), "{bad}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_malformed() {
        for bad in [
            &b""[..],
            b":38000",
            b"user@localhost",
            b"localhost@evil.com",
            b"localhost,evil.com",
            b"localhost, localhost",
            b" localhost",
            b"localhost ",
            b"local\thost",
            b"localhost\0",
            b"localhost\r\n",
            b"localhost:",
            b"localhost:0",
            b"localhost:65536",
            b"localhost:+80",
            b"localhost:80:80",
            b"localhost:8o",
            b"localhost/",
            b"localhost?x",
            b"localhost#x",
            b"localhost\\x",
            b"local%68ost",
            b"::1",
            b"[::1",
            b"[::1]x",
            b"[::1]:",
            b"[::1%25lo]",
            b"[localhost]",
            b"[]",
            b"l\xc3\xb6calhost",
            b"\xff",
        ] {
            assert_eq!(check(bad, &accepted()), Err(DenyReason::HeadersInvalid), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(check(&[b'a'; MAX_AUTHORITY_BYTES + 1], &[]), Err(DenyReason::HeadersInvalid));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_judged_without_panic(authority in proptest::collection::vec(any::<u8>(), 0..64)) {
            // Nothing random is ours by luck: what passes is one of the loopback spellings.
            if check(&authority, &[]).is_ok() {
                let text = String::from_utf8(authority).unwrap().to_lowercase();
                prop_assert!(text.starts_with("localhost") || text.starts_with("127.") || text.starts_with('['));
            }
        }
    }
}
