//! Where two processes of ours meet: `unix:PATH`, or `tcp:HOST:PORT` with mutual TLS.

use std::path::PathBuf;

/// One end as written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// Host (a name, an address, an IPv6 address in brackets) and port.
    Tcp(String),
}

impl Endpoint {
    /// Reads one; for clap.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "must be unix:PATH or tcp:HOST:PORT".to_owned();
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(PathBuf::from(path))) };
        }
        let address = text.strip_prefix("tcp:").ok_or_else(wrong)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let bare_six = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        let numbered = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
        if host.is_empty() || bare_six || !numbered {
            return Err(wrong());
        }
        Ok(Self::Tcp(address.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    #[test]
    fn sockets_and_addresses_are_told_apart() {
        assert_eq!(Endpoint::parse("unix:/run/a.sock").unwrap(), Endpoint::Unix(PathBuf::from("/run/a.sock")));
        for address in ["127.0.0.1:1", "[::1]:9001", "admin.internal:65535"] {
            assert_eq!(Endpoint::parse(&format!("tcp:{address}")).unwrap(), Endpoint::Tcp(address.to_owned()));
        }
        for bad in
            ["", "unix:", "/run/a.sock", "tcp:", "tcp:1", "tcp:h:", "tcp:h:0", "tcp:h:65536", "tcp:::1:1", "tcp:h:+1"]
        {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
