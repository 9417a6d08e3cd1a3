//! Where to listen: `:38100` or `38100`, `127.0.0.1:38100`, `[::1]:38100`, `localhost:38100`.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use crate::config::bind::parse_ip;

/// Which addresses a bare port means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// `127.0.0.1` and `::1`.
    Loopback,
    /// One address.
    Address(IpAddr),
    /// `127.0.0.1` and one other; both or none.
    WithLoopback(IpAddr),
}

impl Bind {
    /// Reads `loopback` or an IP address.
    pub fn parse(text: &str) -> Result<Self, String> {
        if matches!(text, "loopback" | "localhost") {
            return Ok(Self::Loopback);
        }
        parse_ip(text).map(Self::Address).map_err(|_| "must be loopback or an IP address".to_owned())
    }

    /// The socket addresses of `port` on this bind address.
    pub fn at(self, port: u16) -> Vec<SocketAddr> {
        match self {
            Self::Loopback => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
            Self::Address(address) => vec![(address, port).into()],
            // Commands reach the first.
            Self::WithLoopback(address) => vec![(Ipv4Addr::LOCALHOST, port).into(), (address, port).into()],
        }
    }
}

/// One listen address as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// `:PORT` or `PORT`: on the configured bind address.
    Port(u16),
    /// `localhost:PORT`: both loopback addresses.
    Loopback(u16),
    /// `IP:PORT`.
    Exact(SocketAddr),
}

impl Listen {
    /// Reads one address. Names other than `localhost` are refused, since what they mean would depend on
    /// a resolver; port 0 is, since nobody could be told where to connect.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "must be :PORT, IP:PORT, [IPv6]:PORT or localhost:PORT".to_owned();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err("the port must be 1 to 65535".to_owned())
            } else {
                Ok(Self::Exact(address))
            };
        }
        // A bare number is a port too: `GATEWAY_PORT` carries one.
        let number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (host, port) = if number { ("", text) } else { text.rsplit_once(':').ok_or_else(wrong)? };
        let port = parse_port(port)?;
        match host {
            "" => Ok(Self::Port(port)),
            "localhost" => Ok(Self::Loopback(port)),
            _ => Err(wrong()),
        }
    }

    /// The socket addresses it stands for.
    pub fn resolve(self, bind: Bind) -> Vec<SocketAddr> {
        match self {
            Self::Port(port) => bind.at(port),
            Self::Loopback(port) => Bind::Loopback.at(port),
            Self::Exact(address) => vec![address],
        }
    }
}

/// Reads a port, 1 to 65535, decimal digits only.
pub fn parse_port(text: &str) -> Result<u16, String> {
    let port = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
    port.filter(|port| *port > 0).ok_or_else(|| "the port must be 1 to 65535".to_owned())
}

/// Reads an authority the gateway is to answer for: `host` or `host:port`, lower-cased.
pub fn parse_authority(text: &str) -> Result<String, String> {
    let wrong = || "must be a host name or address, with or without a port (no scheme, user or path)".to_owned();
    if text.is_empty() || text.len() > 255 || !text.is_ascii() {
        return Err(wrong());
    }
    let lower = text.to_ascii_lowercase();
    let (host, port) = match lower.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
            address.parse::<Ipv6Addr>().map_err(|_| wrong())?;
            ("", port)
        }
        None => match lower.find(':') {
            Some(colon) => lower.split_at_checked(colon).ok_or_else(wrong)?,
            None => (lower.as_str(), ""),
        },
    };
    let named = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if !named || (host.is_empty() && !lower.starts_with('[')) {
        return Err(wrong());
    }
    match port.strip_prefix(':') {
        Some(port) => parse_port(port).map(|_| ())?,
        None if port.is_empty() => {}
        None => return Err(wrong()),
    }
    Ok(lower)
}

/// Whether every address is loopback.
pub fn all_loopback(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| address.ip().is_loopback())
}
