//! What a bare port is bound on: names for the usual cases, or an address.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use crate::config::address::Bind;

/// What is known of the machine; only some modes ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its addresses, each with the name of its interface.
    pub addresses: Vec<(String, IpAddr)>,
    /// Whether this is a container: nobody outside of one reaches its loopback.
    pub container: bool,
    /// Who asks: the id of this user.
    pub user: u32,
}

/// The setting as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindMode {
    /// This machine alone.
    Loopback,
    /// Every IPv4 address.
    Lan,
    /// The machine's address in its tailnet and `127.0.0.1`; without one, loopback.
    Tailnet,
    /// In a container as `lan`, elsewhere as `loopback`.
    Auto,
    /// The address of another setting, and `127.0.0.1`.
    Custom,
    /// This address.
    Address(IpAddr),
}

impl BindMode {
    /// Reads the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "loopback" | "localhost" => Ok(Self::Loopback),
            "lan" => Ok(Self::Lan),
            "tailnet" => Ok(Self::Tailnet),
            "auto" => Ok(Self::Auto),
            "custom" => Ok(Self::Custom),
            _ => parse_ip(text)
                .map(Self::Address)
                .map_err(|_| "must be loopback, lan, tailnet, auto, custom or an IP address".to_owned()),
        }
    }

    /// What it means on a machine; with `custom` = the address of that mode, where there is one. `None`: that one is
    /// missing.
    pub fn on(self, machine: &dyn Fn() -> Machine, custom: Option<IpAddr>) -> Option<Bind> {
        match self {
            Self::Loopback => Some(Bind::Loopback),
            Self::Lan => Some(Bind::Address(Ipv4Addr::UNSPECIFIED.into())),
            Self::Tailnet => Some(tailnet(&machine().addresses).map_or(Bind::Loopback, Bind::WithLoopback)),
            Self::Auto if machine().container => Some(Bind::Address(Ipv4Addr::UNSPECIFIED.into())),
            Self::Auto => Some(Bind::Loopback),
            // One on all addresses answers on loopback as well.
            Self::Custom => custom.map(|address| {
                let reaches = address.is_unspecified() || address == IpAddr::V4(Ipv4Addr::LOCALHOST);
                if reaches { Bind::Address(address) } else { Bind::WithLoopback(address) }
            }),
            Self::Address(address) => Some(Bind::Address(address)),
        }
    }
}

impl BindMode {
    /// The name used in the configuration; an address has none.
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Loopback => Some("loopback"),
            Self::Lan => Some("lan"),
            Self::Tailnet => Some("tailnet"),
            Self::Auto => Some("auto"),
            Self::Custom => Some("custom"),
            Self::Address(_) => None,
        }
    }
}

/// How the addresses of a listener are told: by the mode as configured where they follow from it, else by what they are:
/// `loopback`, `lan` (every address of the machine) or `custom`.
pub(super) fn told(mode: Option<BindMode>, bind: Option<Bind>, addresses: &[SocketAddr]) -> &'static str {
    let port = addresses.first().map(SocketAddr::port).unwrap_or_default();
    let expected = bind.map(|bind| bind.at(port)).unwrap_or_default();
    let follows = expected.len() == addresses.len() && expected.iter().all(|address| addresses.contains(address));
    if let Some(name) = mode.and_then(BindMode::name).filter(|_| follows) {
        return name;
    }
    if addresses.iter().all(|address| address.ip().is_loopback()) {
        "loopback"
    } else if addresses.iter().any(|address| address.ip().is_unspecified()) {
        "lan"
    } else {
        "custom"
    }
}

/// Reads an IP address, with or without the brackets of URLs.
pub(super) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "must be an IP address".to_owned())
}

/// How Tailscale names its interface on Linux, with a number behind.
const TAILSCALE: &str = "tailscale";

/// The address of a machine in its tailnet, IPv4 before IPv6: Tailscale gives them out of 100.64.0.0/10 (shared
/// address space, RFC 6598) and fd7a:115c:a1e0::/48. Providers number their customers out of the first one too, so such
/// an address counts only on an interface that has Tailscale's name or an address of the second.
fn tailnet(addresses: &[(String, IpAddr)]) -> Option<IpAddr> {
    let is_v4 = |address: &IpAddr| matches!(address, IpAddr::V4(ip) if ip.to_bits() >> 22 == 0x6440_0000 >> 22);
    let is_v6 = |address: &IpAddr| matches!(address, IpAddr::V6(ip) if ip.to_bits() >> 80 == 0xfd7a_115c_a1e0);
    let is_tailscale = |interface: &str| {
        let has_v6 = |(other, address): &(String, IpAddr)| other == interface && is_v6(address);
        interface.starts_with(TAILSCALE) || addresses.iter().any(has_v6)
    };
    let v4 = addresses.iter().find(|(interface, address)| is_v4(address) && is_tailscale(interface));
    v4.or_else(|| addresses.iter().find(|(_, address)| is_v6(address))).map(|(_, address)| *address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    /// Each address as `interface address`, those without a name on `eth0`.
    fn machine(addresses: &[&str]) -> Machine {
        let read = |text: &&str| {
            let (interface, address) = text.split_once(' ').unwrap_or(("eth0", text));
            (interface.to_owned(), address.parse().unwrap())
        };
        Machine { addresses: addresses.iter().map(read).collect(), container: false, user: 0 }
    }

    fn bound(mode: &str, machine: &Machine, custom: Option<&str>) -> Option<Vec<String>> {
        let mode = BindMode::parse(mode).unwrap();
        let bind = mode.on(&|| machine.clone(), custom.map(|text| text.parse().unwrap()))?;
        Some(bind.at(9).iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_mode_names_its_addresses() {
        let plain = machine(&["127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"]);
        let both = machine(&["127.0.0.1", "fd7a:115c:a1e0::7", "100.101.102.103"]);
        let six = machine(&["fd7a:115c:a1e0:1::7"]);
        let inside = Machine { container: true, ..plain.clone() };
        for (mode, machine, custom, expected) in [
            ("loopback", &plain, None, &["127.0.0.1:9", "[::1]:9"][..]),
            ("lan", &plain, None, &["0.0.0.0:9"]),
            ("tailnet", &both, None, &["127.0.0.1:9", "100.101.102.103:9"]),
            ("tailnet", &six, None, &["127.0.0.1:9", "[fd7a:115c:a1e0:1::7]:9"]),
            ("tailnet", &plain, None, &["127.0.0.1:9", "[::1]:9"]),
            ("auto", &plain, None, &["127.0.0.1:9", "[::1]:9"]),
            ("auto", &inside, None, &["0.0.0.0:9"]),
            ("custom", &plain, Some("192.0.2.1"), &["127.0.0.1:9", "192.0.2.1:9"]),
            ("custom", &plain, Some("127.0.0.1"), &["127.0.0.1:9"]),
            ("custom", &plain, Some("0.0.0.0"), &["0.0.0.0:9"]),
            ("custom", &plain, Some("::"), &["[::]:9"]),
            ("192.0.2.1", &plain, None, &["192.0.2.1:9"]),
            ("[::1]", &plain, None, &["[::1]:9"]),
        ] {
            assert_eq!(bound(mode, machine, custom).unwrap(), expected, "{mode} {custom:?}");
        }
        assert_eq!(bound("custom", &plain, None), None);
        assert!(BindMode::parse("everywhere").is_err() && BindMode::parse("").is_err());
    }

    #[test]
    fn a_listener_is_told_by_the_mode_it_follows_from_and_else_by_what_it_is() {
        let both = machine(&["127.0.0.1", "100.101.102.103"]);
        let tailnet = machine(&["tailscale0 100.101.102.103"]);
        let inside = Machine { container: true, ..both.clone() };
        for (mode, machine, custom, listed, expected) in [
            ("tailnet", &tailnet, None, &["127.0.0.1:9", "100.101.102.103:9"][..], "tailnet"),
            ("tailnet", &both, None, &["127.0.0.1:9", "[::1]:9"], "tailnet"),
            ("lan", &both, None, &["0.0.0.0:9"], "lan"),
            ("auto", &inside, None, &["0.0.0.0:9"], "auto"),
            ("auto", &both, None, &["127.0.0.1:9", "[::1]:9"], "auto"),
            ("custom", &both, Some("192.0.2.1"), &["127.0.0.1:9", "192.0.2.1:9"], "custom"),
            ("0.0.0.0", &both, None, &["0.0.0.0:9"], "lan"),
            ("127.0.0.1", &both, None, &["127.0.0.1:9"], "loopback"),
            // Somebody named addresses, which the mode says nothing about.
            ("tailnet", &tailnet, None, &["127.0.0.1:9"], "loopback"),
            ("loopback", &both, None, &["127.0.0.1:9", "192.0.2.1:9"], "custom"),
            ("loopback", &both, None, &["127.0.0.1:9"], "loopback"),
            ("lan", &both, None, &["[::]:9"], "lan"),
        ] {
            let mode = BindMode::parse(mode).unwrap();
            let bind = mode.on(&|| machine.clone(), custom.map(|text| text.parse().unwrap()));
            let addresses: Vec<SocketAddr> = listed.iter().map(|one| one.parse().unwrap()).collect();
            assert_eq!(told(Some(mode), bind, &addresses), expected, "{mode:?} {listed:?}");
        }
    }

    #[test]
    fn an_address_of_a_provider_s_network_is_no_tailnet() {
        let of = |addresses: &[&str]| tailnet(&machine(addresses).addresses).map(|found| found.to_string());
        assert_eq!(of(&["wwan0 100.64.0.9", "wwan0 2001:db8::1"]), None);
        assert_eq!(of(&["tailscale1 100.64.0.9"]).as_deref(), Some("100.64.0.9"));
        assert_eq!(of(&["utun4 100.64.0.9", "utun4 fd7a:115c:a1e0::9"]).as_deref(), Some("100.64.0.9"));
        // That of the tailnet, where the machine has both.
        let both = ["wwan0 100.64.0.8", "utun4 fd7a:115c:a1e0::9", "utun4 100.64.0.9"];
        assert_eq!(of(&both).as_deref(), Some("100.64.0.9"));
        let beside = ["wwan0 100.64.0.8", "utun4 fd7a:115c:a1e0::9"];
        assert_eq!(of(&beside).as_deref(), Some("fd7a:115c:a1e0::9"));
    }

    #[test]
    fn only_the_blocks_of_a_tailnet_are_one() {
        let of = |text: &str| tailnet(&machine(&[&format!("tailscale0 {text}")]).addresses).is_some();
        for inside in ["100.64.0.0", "100.127.255.255", "fd7a:115c:a1e0::", "fd7a:115c:a1e0:ffff::1"] {
            assert!(of(inside), "{inside}");
        }
        for outside in ["100.63.255.255", "100.128.0.0", "10.64.0.1", "fd7a:115c:a1e1::", "fd7a:115c:a1df::1"] {
            assert!(!of(outside), "{outside}");
        }
    }
}
