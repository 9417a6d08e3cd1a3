//! Which upstream hosts a connection may name: judged when it is saved. Names are judged again, by the
//! addresses they resolve to, when Envoy connects.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// Longest host name (RFC 1035 section 2.3.4), without the final dot.
const MAX_NAME_BYTES: usize = 253;
/// Longest label of a host name (RFC 1035 section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// IPv4 addresses of cloud metadata services that do not lie in a range refused anyway: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];

/// IPv6 addresses of the metadata services of AWS and Google; they lie in `fc00::/7` and stay refused where private
/// ranges are allowed.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254)];

/// Names by which clouds call their metadata service.
const METADATA_NAMES: [&str; 4] =
    ["metadata", "metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"];

/// Names that every resolver answers with a loopback address.
const LOOPBACK_NAMES: [&str; 4] = ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"];

/// What is allowed besides public addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Loopback addresses, except on the gateway's own ports.
    pub allow_loopback: bool,
    /// RFC 1918, RFC 4193 and RFC 6598 addresses.
    pub allow_private: bool,
    /// Ports this gateway listens on.
    pub own_ports: Vec<u16>,
}

/// Why a host is not accepted as an upstream. The texts are for the connection's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefused {
    /// Not a host name (RFC 1123 section 2.1) and not an address.
    #[error("is not a host name or IP address")]
    Malformed,
    /// Octal, hexadecimal, shortened or one-number IPv4: readers disagree on what they mean.
    #[error("is an IPv4 address in an ambiguous form; write it as four decimal numbers")]
    Ambiguous,
    /// An IPv6 form that carries an IPv4 address: mapped, compatible, translated, NAT64, 6to4, Teredo.
    #[error("is an IPv6 address that embeds an IPv4 address")]
    Embedded,
    /// `0.0.0.0/8`, `::`.
    #[error("is the unspecified address")]
    Unspecified,
    /// `169.254.0.0/16`, `fe80::/10`.
    #[error("is a link-local address")]
    LinkLocal,
    /// A cloud metadata service.
    #[error("is the address of a metadata service")]
    Metadata,
    /// `224.0.0.0/4`, `ff00::/8`.
    #[error("is a multicast address")]
    Multicast,
    /// `240.0.0.0/4` with the broadcast address, `192.0.0.0/24`.
    #[error("is a broadcast or reserved address")]
    Reserved,
    /// Loopback, and the gateway is not one for this machine only.
    #[error("is a loopback address, which this gateway does not forward to")]
    Loopback,
    /// The gateway itself.
    #[error("is this gateway's own port")]
    OwnPort,
    /// A private range without leave.
    #[error("is a private address; set allow_private on the connection to forward to it")]
    Private,
}

/// Kinds of address that a policy may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Public,
    Private,
    Loopback,
}

/// Judges `host` (a name, an IPv4 address, or an IPv6 address with or without brackets) and `port`.
pub fn check_host(host: &str, port: u16, policy: &AddressPolicy) -> Result<(), AddressRefused> {
    match classify(host)? {
        Reach::Public => Ok(()),
        Reach::Private if policy.allow_private => Ok(()),
        Reach::Private => Err(AddressRefused::Private),
        Reach::Loopback if policy.own_ports.contains(&port) => Err(AddressRefused::OwnPort),
        Reach::Loopback if policy.allow_loopback => Ok(()),
        Reach::Loopback => Err(AddressRefused::Loopback),
    }
}

fn classify(host: &str) -> Result<Reach, AddressRefused> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse().map_err(|_| AddressRefused::Malformed).and_then(classify_v6);
    }
    if host.contains(':') {
        return host.parse().map_err(|_| AddressRefused::Malformed).and_then(classify_v6);
    }
    // One final dot marks a name as complete and changes nothing else.
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    check_name(&name)?;
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return classify_v4(address);
    }
    // A name whose last label is a number is read as an address by inet_aton(3) and by the URL
    // standard, each in its own way: `127.1`, `0x7f000001`, `2130706433`, `0177.0.0.1`.
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressRefused::Ambiguous);
    }
    if METADATA_NAMES.contains(&name.as_str()) {
        return Err(AddressRefused::Metadata);
    }
    if LOOPBACK_NAMES.contains(&name.as_str()) || name.ends_with(".localhost") {
        return Ok(Reach::Loopback);
    }
    Ok(Reach::Public)
}

fn check_name(name: &str) -> Result<(), AddressRefused> {
    let label_is_clean = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > MAX_NAME_BYTES || !name.split('.').all(label_is_clean) {
        return Err(AddressRefused::Malformed);
    }
    Ok(())
}

fn classify_v4(address: Ipv4Addr) -> Result<Reach, AddressRefused> {
    if METADATA_V4.contains(&address) || address == Ipv4Addr::new(169, 254, 169, 254) {
        return Err(AddressRefused::Metadata);
    }
    match address.octets() {
        [0, ..] => Err(AddressRefused::Unspecified),
        [127, ..] => Ok(Reach::Loopback),
        [169, 254, ..] => Err(AddressRefused::LinkLocal),
        [192, 0, 0, _] => Err(AddressRefused::Reserved),
        [224..=239, ..] => Err(AddressRefused::Multicast),
        [240..=255, ..] => Err(AddressRefused::Reserved),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Ok(Reach::Private),
        // Benchmarks (RFC 2544): nothing public lives there.
        [198, 18..=19, ..] => Ok(Reach::Private),
        _ => Ok(Reach::Public),
    }
}

fn classify_v6(address: Ipv6Addr) -> Result<Reach, AddressRefused> {
    if METADATA_V6.contains(&address) {
        return Err(AddressRefused::Metadata);
    }
    if address.is_unspecified() {
        return Err(AddressRefused::Unspecified);
    }
    if address.is_loopback() {
        return Ok(Reach::Loopback);
    }
    match address.segments() {
        // ::/96 compatible, ::ffff:0:0/96 mapped, ::ffff:0:0:0/96 translated (RFC 4291, RFC 2765)
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => {
            Err(AddressRefused::Embedded)
        }
        // NAT64: RFC 6052 and RFC 8215
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Err(AddressRefused::Embedded),
        // 6to4 (RFC 3056), Teredo (RFC 4380)
        [0x2002, ..] | [0x2001, 0, ..] => Err(AddressRefused::Embedded),
        // ISATAP (RFC 5214): the interface identifier ends in an IPv4 address
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Err(AddressRefused::Embedded),
        [0xfe80..=0xfebf, ..] => Err(AddressRefused::LinkLocal),
        [0xff00..=0xffff, ..] => Err(AddressRefused::Multicast),
        // fc00::/7 unique local; fec0::/10 site-local, its predecessor (RFC 3879)
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Ok(Reach::Private),
        _ => Ok(Reach::Public),
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
