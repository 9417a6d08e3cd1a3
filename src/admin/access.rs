//! Who may use the admin API: the token, or in two compatibility modes a direct client of this machine.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::header::HOST;
use http::uri::Authority;

use crate::admin::token::AdminToken;
use crate::config::parts::AccessMode;

/// Header that carries the token; `Authorization: Bearer` does too.
pub const TOKEN_HEADER: &str = "x-sigilum-admin-token";

/// Headers by which a proxy says that it stands between: then the peer is the proxy and not the client.
const FORWARDING_HEADERS: [&str; 7] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "x-client-ip", "via"];

/// Longest token that is compared, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// The rule in force.
#[derive(Debug)]
pub struct AccessRule {
    /// What counts.
    pub mode: AccessMode,
    /// The token; there always is one.
    pub token: AdminToken,
}

/// What let a request in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The token.
    Token,
    /// A direct client of this machine.
    Loopback,
}

/// Why a request was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessDenied {
    /// Mode `token`: none, or a wrong one.
    TokenRequired,
    /// Mode `loopback`: not a direct client of this machine.
    LoopbackRequired,
    /// Mode `hybrid`: neither.
    TokenOrLoopbackRequired,
}

impl AccessDenied {
    /// Code and sentence; the status is 403 throughout.
    pub const fn wire(self) -> (&'static str, &'static str) {
        match self {
            Self::TokenRequired => ("ADMIN_TOKEN_REQUIRED", "the admin token is required"),
            Self::LoopbackRequired => ("ADMIN_LOOPBACK_REQUIRED", "only direct clients of this machine are let in"),
            Self::TokenOrLoopbackRequired => {
                ("ADMIN_TOKEN_OR_LOOPBACK_REQUIRED", "the admin token or a direct client of this machine is required")
            }
        }
    }
}

impl AccessRule {
    /// Judges a request of `peer`. `compare` is false where the client has failed too often: then a token is not
    /// even looked at.
    pub fn check(&self, peer: IpAddr, headers: &HeaderMap, compare: bool) -> Result<Via, AccessDenied> {
        let token = || compare && self.token_matches(headers);
        match self.mode {
            AccessMode::Token if token() => Ok(Via::Token),
            AccessMode::Token => Err(AccessDenied::TokenRequired),
            AccessMode::Hybrid if token() => Ok(Via::Token),
            AccessMode::Hybrid if is_direct_loopback(peer, headers) => Ok(Via::Loopback),
            AccessMode::Hybrid => Err(AccessDenied::TokenOrLoopbackRequired),
            AccessMode::Loopback if is_direct_loopback(peer, headers) => Ok(Via::Loopback),
            AccessMode::Loopback => Err(AccessDenied::LoopbackRequired),
        }
    }

    fn token_matches(&self, headers: &HeaderMap) -> bool {
        presented(headers).is_some_and(|token| self.token.matches(token.as_bytes()))
    }
}

/// The token a request shows, if any; the admin header comes first.
pub fn presented(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(TOKEN_HEADER).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = || {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    header.or_else(bearer).filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN_BYTES)
}

/// Whether the client itself is on this machine: by its address, by the host it asked for (a web page of
/// somewhere else can point its own name at 127.0.0.1), and with no proxy in between.
fn is_direct_loopback(peer: IpAddr, headers: &HeaderMap) -> bool {
    peer.to_canonical().is_loopback()
        && !FORWARDING_HEADERS.iter().any(|name| headers.contains_key(*name))
        && has_loopback_host(headers)
}

/// Whether the one Host header names this machine.
pub fn has_loopback_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::net::Ipv4Addr;
    use std::net::Ipv6Addr;

    use http::HeaderName;
    use http::HeaderValue;

    use super::*;
    use crate::domain::secret::Secret;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn rule(mode: AccessMode) -> AccessRule {
        AccessRule { mode, token: AdminToken::given(&Secret::new("right-token".to_owned())) }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_token_counts_in_either_header_and_only_the_right_one() {
        let rule = rule(AccessMode::Token);
        for good in [
            &[("x-sigilum-admin-token", " right-token ")][..],
            &[("authorization", "Bearer right-token")],
            &[("authorization", "bEaReR  right-token")],
        ] {
            assert_eq!(rule.check(REMOTE, &headers(good), true), Ok(Via::Token), "{good:?}");
            assert_eq!(rule.check(REMOTE, &headers(good), false), Err(AccessDenied::TokenRequired));
        }
        for bad in [
            &[][..],
            &[("x-sigilum-admin-token", "")],
            &[("x-sigilum-admin-token", "right-toke")],
            &[("x-sigilum-admin-token", "right-tokenx")],
            &[("x-sigilum-admin-token", "wrong"), ("authorization", "Bearer right-token")],
            &[("authorization", "Basic right-token")],
            &[("authorization", "right-token")],
            &[("host", "localhost")],
        ] {
            assert_eq!(rule.check(LOCAL, &headers(bad), true), Err(AccessDenied::TokenRequired), "{bad:?}");
        }
    }

    #[test]
    fn loopback_is_a_direct_client_that_asked_for_this_machine() {
        let rule = rule(AccessMode::Hybrid);
        for host in ["localhost", "LOCALHOST:38100", "127.0.0.1:38100", "[::1]:38100", "127.8.8.8"] {
            assert_eq!(rule.check(LOCAL, &headers(&[("host", host)]), true), Ok(Via::Loopback), "{host}");
        }
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        assert_eq!(rule.check(mapped, &headers(&[("host", "localhost")]), true), Ok(Via::Loopback));
        assert_eq!(
            rule.check(IpAddr::V6(Ipv6Addr::LOCALHOST), &headers(&[("host", "[::1]")]), true),
            Ok(Via::Loopback)
        );
        let denied = Err(AccessDenied::TokenOrLoopbackRequired);
        assert_eq!(rule.check(REMOTE, &headers(&[("host", "localhost")]), true), denied);
        for bad in [
            &[][..],
            &[("host", "evil.example")],
            &[("host", "localhost.evil.example")],
            &[("host", "user@localhost")],
            &[("host", "0.0.0.0")],
            &[("host", "localhost, evil")],
            &[("host", "localhost"), ("x-forwarded-for", "127.0.0.1")],
            &[("host", "localhost"), ("x-forwarded-for", "")],
            &[("host", "localhost"), ("forwarded", "for=127.0.0.1")],
            &[("host", "localhost"), ("x-real-ip", "127.0.0.1")],
            &[("host", "localhost"), ("via", "1.1 proxy")],
        ] {
            assert_eq!(rule.check(LOCAL, &headers(bad), true), denied, "{bad:?}");
        }
    }

    #[test]
    fn mode_loopback_ignores_the_token() {
        let rule = rule(AccessMode::Loopback);
        let token = headers(&[("x-sigilum-admin-token", "right-token"), ("host", "localhost")]);
        assert_eq!(rule.check(REMOTE, &token, true), Err(AccessDenied::LoopbackRequired));
        assert_eq!(rule.check(LOCAL, &headers(&[("host", "localhost")]), true), Ok(Via::Loopback));
    }

    #[test]
    fn an_empty_token_lets_nobody_in() {
        let rule = AccessRule { mode: AccessMode::Token, token: AdminToken::given(&Secret::new(String::new())) };
        assert!(rule.check(LOCAL, &headers(&[("x-sigilum-admin-token", "")]), true).is_err());
    }
}
