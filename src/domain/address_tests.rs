#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::*;

use super::*;

fn policy(allow_loopback: bool, allow_private: bool) -> AddressPolicy {
    AddressPolicy { allow_loopback, allow_private, own_ports: vec![38000, 38100] }
}

const OPEN: fn() -> AddressPolicy = || policy(true, true);

#[test]
fn ordinary_hosts_are_accepted() {
    for host in [
        "api.example.com",
        "api.example.com.",
        "API.Example.COM",
        "93.184.216.34",
        "a_b.example",
        "[2606:2800::1]",
        "2606:2800::1",
        "xn--bcher-kva.example",
        "1password.com",
        "0xyz.example",
    ] {
        assert_eq!(check_host(host, 443, &policy(false, false)), Ok(()), "{host}");
    }
}

#[test]
fn never_allowed_addresses_are_refused_under_the_most_open_policy() {
    use AddressRefused::*;
    for (host, reason) in [
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("[::]", Unspecified),
        ("169.254.169.254", Metadata),
        ("169.254.169.254.", Metadata),
        ("100.100.100.200", Metadata),
        ("168.63.129.16", Metadata),
        ("192.0.0.192", Metadata),
        ("[fd00:ec2::254]", Metadata),
        ("metadata.google.internal", Metadata),
        ("METADATA.google.internal.", Metadata),
        ("metadata", Metadata),
        ("169.254.1.1", LinkLocal),
        ("[fe80::1]", LinkLocal),
        ("[febf::1]", LinkLocal),
        ("224.0.0.1", Multicast),
        ("[ff02::1]", Multicast),
        ("255.255.255.255", Reserved),
        ("240.0.0.1", Reserved),
        ("192.0.0.1", Reserved),
        ("[::ffff:127.0.0.1]", Embedded),
        ("[::ffff:7f00:1]", Embedded),
        ("[::127.0.0.1]", Embedded),
        ("[::ffff:0:127.0.0.1]", Embedded),
        ("[64:ff9b::7f00:1]", Embedded),
        ("[64:ff9b:1::a00:1]", Embedded),
        ("[2002:7f00:1::]", Embedded),
        ("[2001:0:7f00:1::]", Embedded),
        ("[2606:2800::5efe:a00:1]", Embedded),
        ("127.1", Ambiguous),
        ("127.0.1", Ambiguous),
        ("0177.0.0.1", Ambiguous),
        ("0x7f.0.0.1", Ambiguous),
        ("0x7f000001", Ambiguous),
        ("0x", Ambiguous),
        ("2130706433", Ambiguous),
        ("1.2.3.4.5", Ambiguous),
        ("256.1.1.1", Ambiguous),
        ("010.0.0.1", Ambiguous),
        ("example.1", Ambiguous),
        ("", Malformed),
        (".", Malformed),
        ("a..b", Malformed),
        ("-a.example", Malformed),
        ("a b", Malformed),
        ("exämple.com", Malformed),
        ("127.0.0.1%00.example.com", Malformed),
        ("[fe80::1%25eth0]", Malformed),
        ("[127.0.0.1]", Malformed),
        ("[::1", Malformed),
    ] {
        assert_eq!(check_host(host, 80, &OPEN()), Err(reason), "{host}");
    }
}

#[test]
fn loopback_needs_leave_and_is_never_our_own_port() {
    for host in ["127.0.0.1", "127.255.0.9", "localhost", "LOCALHOST.", "a.localhost", "[::1]", "ip6-localhost"] {
        assert_eq!(check_host(host, 11100, &policy(true, false)), Ok(()), "{host}");
        assert_eq!(check_host(host, 11100, &policy(false, true)), Err(AddressRefused::Loopback), "{host}");
        assert_eq!(check_host(host, 38000, &OPEN()), Err(AddressRefused::OwnPort), "{host}");
    }
}

#[test]
fn private_ranges_need_leave() {
    for host in [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.0.1",
        "[fc00::1]",
        "[fdff::1]",
        "[fec0::1]",
    ] {
        assert_eq!(check_host(host, 80, &policy(false, true)), Ok(()), "{host}");
        assert_eq!(check_host(host, 80, &policy(true, false)), Err(AddressRefused::Private), "{host}");
    }
    for host in ["172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "11.0.0.1"] {
        assert_eq!(check_host(host, 80, &policy(false, false)), Ok(()), "{host}");
    }
}

proptest! {
    /// Whatever an IPv4 address is, no IPv6 form that embeds it is accepted.
    #[test]
    fn no_embedding_of_an_ipv4_address_is_accepted(raw in any::<u32>(), tail in any::<u16>()) {
        let v4 = Ipv4Addr::from(raw);
        let (high, low) = ((raw >> 16) as u16, raw as u16);
        let forms = [
            format!("[{}]", v4.to_ipv6_mapped()),
            format!("[64:ff9b::{high:x}:{low:x}]"),
            format!("[64:ff9b:1:{tail:x}::{high:x}:{low:x}]"),
            format!("[2002:{high:x}:{low:x}::{tail:x}]"),
            format!("[2001:0:{tail:x}::{high:x}:{low:x}]"),
        ];
        for form in forms {
            prop_assert_eq!(check_host(&form, 443, &OPEN()), Err(AddressRefused::Embedded), "{}", form);
        }
    }

    /// The only accepted spelling of an IPv4 address is the plain one: what is accepted parses to itself.
    #[test]
    fn what_is_accepted_as_digits_is_an_address(text in "[0-9a-fx.]{1,20}") {
        if check_host(&text, 443, &policy(false, false)).is_ok() {
            let bare = text.strip_suffix('.').unwrap_or(&text);
            let numeric = bare.rsplit('.').next().unwrap().bytes().all(|byte| byte.is_ascii_digit());
            prop_assert!(!numeric || bare.parse::<Ipv4Addr>().is_ok(), "{}", text);
        }
    }

    /// Any two spellings of the same IPv6 address are judged alike.
    #[test]
    fn spelling_does_not_matter(segments in any::<[u16; 8]>()) {
        let address = Ipv6Addr::from(segments);
        let long = segments.map(|segment| format!("{segment:04X}")).join(":");
        prop_assert_eq!(check_host(&format!("[{address}]"), 443, &OPEN()), check_host(&long, 443, &OPEN()));
    }

    /// No text whatsoever panics.
    #[test]
    fn any_text_is_judged(text in any::<String>(), port in any::<u16>()) {
        let _ = check_host(&text, port, &OPEN());
    }
}
