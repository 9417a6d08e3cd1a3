//! Access mode `trusted-proxy`: a proxy of the operator's has found out who the user is, and says so in a header.
//!
//! What it says is believed of its address alone, so whatever is wrong with a request is told in the log and not to who
//! sent it.

use std::fmt;
use std::net::IpAddr;

use http::HeaderMap;

use crate::config::parts::ProxyRule;
use crate::sys::machine;

/// Header in which proxies note whom they speak for, each at the right end.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Entries of it that are looked at.
const MAX_HOPS: usize = 32;
/// Longest name of a user, in bytes.
const MAX_USER: usize = 256;

/// Why a proxy's word was not taken. The text is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyRefused {
    /// It does not come from a trusted proxy.
    UntrustedSource,
    /// No user is named, or several, or none that can be one.
    UserMissing,
    /// This header is not there.
    MissingHeader(String),
    /// The user is none of those who may.
    UserNotAllowed,
}

impl fmt::Display for ProxyRefused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UntrustedSource => formatter.write_str("trusted_proxy_untrusted_source"),
            Self::UserMissing => formatter.write_str("trusted_proxy_user_missing"),
            Self::MissingHeader(name) => write!(formatter, "trusted_proxy_missing_header_{name}"),
            Self::UserNotAllowed => formatter.write_str("trusted_proxy_user_not_allowed"),
        }
    }
}

/// Whether a peer is a proxy that is believed. One on this machine must be allowed besides. `local`: our end of the
/// connection.
fn is_trusted(rule: &ProxyRule, peer: IpAddr, local: IpAddr) -> bool {
    let listed = rule.proxies.iter().any(|network| network.contains(peer));
    listed && (rule.allow_loopback || !is_here(peer, local))
}

/// Whether an address is this machine: a program here can send from each that the machine has, and not from loopback only.
fn is_here(address: IpAddr, local: IpAddr) -> bool {
    let address = address.to_canonical();
    let own = |other: IpAddr| other.to_canonical() == address;
    address.is_loopback() || own(local) || machine::addresses().into_iter().any(own)
}

/// The user a request comes from. `local`: our end of the connection.
pub fn user(rule: &ProxyRule, peer: IpAddr, local: IpAddr, headers: &HeaderMap) -> Result<String, ProxyRefused> {
    if !is_trusted(rule, peer, local) {
        return Err(ProxyRefused::UntrustedSource);
    }
    for name in &rule.required_headers {
        let there = headers.get(name).is_some_and(|value| !value.as_bytes().trim_ascii().is_empty());
        if !there {
            return Err(ProxyRefused::MissingHeader(name.clone()));
        }
    }
    let mut named = headers.get_all(&rule.user_header).iter();
    let (Some(name), None) = (named.next(), named.next()) else { return Err(ProxyRefused::UserMissing) };
    let name = str::from_utf8(name.as_bytes()).unwrap_or_default().trim();
    if name.is_empty() || name.len() > MAX_USER || name.chars().any(char::is_control) {
        return Err(ProxyRefused::UserMissing);
    }
    let allowed = rule.allow_users.is_empty() || rule.allow_users.iter().any(|known| known == name);
    if allowed { Ok(name.to_owned()) } else { Err(ProxyRefused::UserNotAllowed) }
}

/// The client a proxy speaks for, counted from the right: behind trusted proxies the first that is none of them. What
/// stands further left was written by who knows whom. The peer itself where it is no trusted proxy, and the last
/// proxy where what it wrote is no address. `local`: our end of the connection.
pub fn client(rule: &ProxyRule, peer: IpAddr, local: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut client = peer;
    let values = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut hops = values.flat_map(|value| value.to_str().unwrap_or("?").rsplit(',')).take(MAX_HOPS);
    while is_trusted(rule, client, local) {
        let Some(Ok(hop)) = hops.next().map(|text| text.trim().parse::<IpAddr>()) else { break };
        client = hop;
    }
    client
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use http::HeaderName;
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::network::Network;

    /// Where requests arrive.
    const OURS: &str = "192.0.2.14";

    fn rule() -> ProxyRule {
        ProxyRule {
            proxies: ["192.0.2.0/28", "127.0.0.1"].iter().map(|text| Network::parse(text).unwrap()).collect(),
            user_header: "x-forwarded-user".to_owned(),
            required_headers: vec!["x-verified".to_owned()],
            allow_users: vec!["alice@example.com".to_owned()],
            allow_loopback: false,
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let good = [("x-forwarded-user", "alice@example.com"), ("x-verified", "1")];
        assert_eq!(user(&rule(), at("192.0.2.3"), at(OURS), &headers(&good)).unwrap(), "alice@example.com");
        assert_eq!(user(&rule(), at("::ffff:192.0.2.3"), at(OURS), &headers(&good)).unwrap(), "alice@example.com");
        for (peer, said, reason) in [
            ("192.0.2.16", &good[..], "trusted_proxy_untrusted_source"),
            ("127.0.0.1", &good, "trusted_proxy_untrusted_source"),
            ("192.0.2.3", &[("x-verified", "1")], "trusted_proxy_user_missing"),
            ("192.0.2.3", &[("x-verified", "1"), ("x-forwarded-user", "  ")], "trusted_proxy_user_missing"),
            ("192.0.2.3", &[good[0], good[0], good[1]], "trusted_proxy_user_missing"),
            ("192.0.2.3", &[("x-forwarded-user", "alice@example.com")], "trusted_proxy_missing_header_x-verified"),
            ("192.0.2.3", &[good[0], ("x-verified", "")], "trusted_proxy_missing_header_x-verified"),
            ("192.0.2.3", &[("x-forwarded-user", "mallory"), good[1]], "trusted_proxy_user_not_allowed"),
            ("192.0.2.3", &[("x-forwarded-user", "Alice@example.com"), good[1]], "trusted_proxy_user_not_allowed"),
        ] {
            let found = user(&rule(), at(peer), at(OURS), &headers(said)).unwrap_err().to_string();
            assert_eq!(found, reason, "{peer} {said:?}");
        }
        let here = ProxyRule { allow_loopback: true, ..rule() };
        assert!(user(&here, at("127.0.0.1"), at(OURS), &headers(&good)).is_ok());
        let all = ProxyRule { allow_users: Vec::new(), ..rule() };
        let other = headers(&[("x-forwarded-user", "bob"), good[1]]);
        assert_eq!(user(&all, at("192.0.2.3"), at(OURS), &other).unwrap(), "bob");
    }

    #[test]
    fn whoever_comes_from_an_address_of_this_machine_is_on_it() {
        let good = headers(&[("x-forwarded-user", "alice@example.com"), ("x-verified", "1")]);
        let everywhere = ProxyRule { proxies: vec![Network::parse("0.0.0.0/0").unwrap()], ..rule() };
        let here = ProxyRule { allow_loopback: true, ..everywhere.clone() };
        let elsewhere = at("198.51.100.7");
        assert!(user(&everywhere, elsewhere, at(OURS), &good).is_ok());
        let own = machine::addresses().into_iter().filter(IpAddr::is_ipv4);
        for (peer, local) in own.map(|address| (address, at(OURS))).chain([
            (elsewhere, elsewhere),
            (at("::ffff:198.51.100.7"), elsewhere),
            (elsewhere, at("::ffff:198.51.100.7")),
        ]) {
            let refused = user(&everywhere, peer, local, &good);
            assert_eq!(refused, Err(ProxyRefused::UntrustedSource), "{peer} at {local}");
            assert_eq!(client(&everywhere, peer, local, &headers(&[(FORWARDED_FOR, "203.0.113.5")])), peer);
            assert!(user(&here, peer, local, &good).is_ok(), "{peer} at {local}");
        }
    }

    #[test]
    fn the_client_is_counted_from_the_right() {
        for (peer, said, expected) in [
            ("198.51.100.9", &["127.0.0.1"][..], "198.51.100.9"),
            ("192.0.2.3", &[], "192.0.2.3"),
            ("192.0.2.3", &["203.0.113.5"], "203.0.113.5"),
            ("192.0.2.3", &["127.0.0.1, 203.0.113.5"], "203.0.113.5"),
            ("192.0.2.3", &["10.0.0.1, 203.0.113.5, 192.0.2.4"], "203.0.113.5"),
            ("192.0.2.3", &["10.0.0.1", "203.0.113.5", "192.0.2.4"], "203.0.113.5"),
            ("192.0.2.3", &["203.0.113.5, nonsense"], "192.0.2.3"),
            ("192.0.2.3", &["192.0.2.4, 192.0.2.5"], "192.0.2.4"),
        ] {
            let pairs: Vec<_> = said.iter().map(|value| (FORWARDED_FOR, *value)).collect();
            assert_eq!(client(&rule(), at(peer), at(OURS), &headers(&pairs)), at(expected), "{peer} {said:?}");
        }
    }

    proptest! {
        #[test]
        fn who_is_no_proxy_is_believed_in_nothing(said in "[ -~]{0,60}", forwarded in "[0-9a-f:., ]{0,60}") {
            let pairs = headers(&[("x-forwarded-user", &said), ("x-verified", "1"), (FORWARDED_FOR, &forwarded)]);
            let elsewhere = at("198.51.100.9");
            prop_assert_eq!(user(&rule(), elsewhere, at(OURS), &pairs), Err(ProxyRefused::UntrustedSource));
            prop_assert_eq!(client(&rule(), elsewhere, at(OURS), &pairs), elsewhere);
        }

        #[test]
        fn what_a_client_writes_to_the_left_changes_nothing(left in "[ -~]{0,60}") {
            let pairs = headers(&[(FORWARDED_FOR, &format!("{left},203.0.113.5, 192.0.2.4"))]);
            prop_assert_eq!(client(&rule(), at("192.0.2.3"), at(OURS), &pairs), at("203.0.113.5"));
        }
    }
}
