//! Web pages: which may call, under which names, and what they are told (the Fetch standard's CORS).
//!
//! A page can point a name of its own at us (DNS rebinding); then its requests come from "the same origin". So the
//! host a request names is judged as well as the page it comes from.

use std::net::IpAddr;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::header;
use http::uri::Authority;

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS");
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Authorization, X-Sigilum-Admin-Token, X-Request-Id, Signature-Input, Signature, Content-Digest, \
     Sigilum-Namespace, Sigilum-Subject, Sigilum-Agent-Id, Sigilum-Agent-Key, Sigilum-Agent-Cert",
);
const VARY: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// Which pages may call, under which names.
#[derive(Debug)]
pub struct Pages {
    origins: Vec<String>,
    hosts: Vec<String>,
    scheme: &'static str,
    port: u16,
}

/// Why a request was turned away before anything of it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// No host, several, or none that could be one (RFC 9112 section 3.2).
    NoHost,
    /// A name that is none of ours.
    ForeignHost,
    /// A page of elsewhere.
    ForeignOrigin,
}

impl Turned {
    /// Status, code and sentence.
    pub const fn wire(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoHost => {
                (StatusCode::BAD_REQUEST, "ADMIN_HOST_REFUSED", "one Host header that names this gateway is required")
            }
            Self::ForeignHost => (
                StatusCode::FORBIDDEN,
                "ADMIN_HOST_REFUSED",
                "this gateway is not known under that host; admin.allowed_hosts names further ones",
            ),
            Self::ForeignOrigin => {
                (StatusCode::FORBIDDEN, "ADMIN_ORIGIN_REFUSED", "this web page may not change anything here")
            }
        }
    }
}

impl Pages {
    /// Takes origins as browsers write them, e.g. `https://sigilum.id`, and hosts as `host` or `host:port` in lower
    /// case. Without origins those of this machine are meant, with the port that is really listened on.
    pub fn new(origins: Option<Vec<String>>, hosts: Vec<String>, tls: bool, port: u16) -> Self {
        let scheme = if tls { "https" } else { "http" };
        let own = || ["localhost", "127.0.0.1"].map(|host| format!("{scheme}://{host}:{port}")).to_vec();
        Self { origins: origins.unwrap_or_else(own), hosts, scheme, port }
    }

    /// The same listener under other settings.
    #[must_use]
    pub fn under(&self, origins: Option<Vec<String>>, hosts: Vec<String>) -> Self {
        Self::new(origins, hosts, self.scheme == "https", self.port)
    }

    /// Whether a request may go on. One that only reads is answered without the headers that would let a page see
    /// the answer; anything else, and whatever wants to leave HTTP, must name one of our hosts, and where a page
    /// sends it, come from an allowed origin or from the very host it is sent to. `local`: the address it came to.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> Result<(), Turned> {
        let upgrades = wants_upgrade(headers);
        if matches!(*method, Method::GET | Method::HEAD) && !upgrades {
            return Ok(());
        }
        let host = named_host(uri, headers).ok_or(Turned::NoHost)?;
        if !self.is_ours(&host, local) {
            return Err(Turned::ForeignHost);
        }
        // Preflight: the answer's headers say what its page may do.
        if *method == Method::OPTIONS && !upgrades {
            return Ok(());
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) if self.allows(origin) || self.is_same_origin(origin, &host) => Ok(()),
            (Some(_), _) => Err(Turned::ForeignOrigin),
        }
    }

    /// Adds what a browser needs to hand the answer to an allowed page.
    pub fn decorate(&self, origin: &HeaderValue, response: &mut HeaderMap) {
        response.insert(header::VARY, VARY);
        if !self.allows(origin) {
            return;
        }
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        response.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.origins.iter().any(|allowed| allowed == origin))
    }

    /// A loopback name or address, the address the request came to, or a name of the settings. An address cannot be
    /// rebound; only ours counts all the same, since nobody else's has any business here.
    fn is_ours(&self, host: &Authority, local: IpAddr) -> bool {
        let bare = bare(host);
        let ours = |ip: IpAddr| ip.to_canonical().is_loopback() || ip.to_canonical() == local.to_canonical();
        bare.eq_ignore_ascii_case("localhost")
            || bare.parse().is_ok_and(ours)
            || self
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(host.as_str()) || known.eq_ignore_ascii_case(host.host()))
    }

    /// Whether the page comes from where the request goes, with our own scheme: a page that was read in clear may be
    /// anybody's.
    fn is_same_origin(&self, origin: &HeaderValue, host: &Authority) -> bool {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(scheme, authority)| scheme == self.scheme && authority.eq_ignore_ascii_case(host.as_str()))
    }
}

/// The host without the brackets of an IPv6 address.
fn bare(host: &Authority) -> &str {
    host.host().trim_start_matches('[').trim_end_matches(']')
}

/// The one host a request names. An address in its first line must be the same.
pub fn named_host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    let host = host.to_str().ok()?.parse::<Authority>().ok()?;
    if host.host().is_empty() || !is_port(host.as_str().strip_prefix(host.host())?) {
        return None;
    }
    let same = uri.authority().is_none_or(|named| named.as_str().eq_ignore_ascii_case(host.as_str()));
    same.then_some(host)
}

/// Whether what follows a host is nothing or `:` and a port (RFC 3986 section 3.2.3): the parser lets more through.
fn is_port(rest: &str) -> bool {
    let port = match rest.strip_prefix(':') {
        Some(port) => port,
        None => return rest.is_empty(),
    };
    port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Whether a host is this machine by name or address.
pub fn is_loopback(host: &Authority) -> bool {
    let host = bare(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a request wants to go on with something else than HTTP (RFC 9110 section 7.8), e.g. a WebSocket.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    headers.contains_key(header::UPGRADE)
        || headers.contains_key(header::SEC_WEBSOCKET_KEY)
        || connection.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::net::Ipv4Addr;

    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const LAN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn check(
        pages: &Pages,
        method: &Method,
        pairs: &[(&'static str, &'static str)],
        local: IpAddr,
    ) -> Result<(), Turned> {
        pages.check(method, &Uri::from_static("/api/admin/connections"), &headers(pairs), local)
    }

    #[test]
    fn a_page_of_elsewhere_changes_nothing() {
        let pages = Pages::new(Some(vec!["https://sigilum.id".to_owned()]), vec![], false, 38100);
        let (foreign_page, foreign_host) = (Err(Turned::ForeignOrigin), Err(Turned::ForeignHost));
        for (origin, host, expected) in [
            ("https://sigilum.id", "127.0.0.1:38100", Ok(())),
            ("http://127.0.0.1:38100", "127.0.0.1:38100", Ok(())),
            ("http://localhost:38100", "localhost:38100", Ok(())),
            ("http://[::1]:38100", "[::1]:38100", Ok(())),
            ("http://192.0.2.1:38100", "192.0.2.1:38100", Ok(())),
            ("https://127.0.0.1:38100", "127.0.0.1:38100", foreign_page),
            ("http://localhost:38100", "127.0.0.1:38100", foreign_page),
            ("http://localhost:3001", "localhost:38100", foreign_page),
            ("https://evil.example", "127.0.0.1:38100", foreign_page),
            ("null", "127.0.0.1:38100", foreign_page),
            ("", "127.0.0.1:38100", foreign_page),
            ("https://sigilum.id.evil.example", "127.0.0.1:38100", foreign_page),
            ("http://sigilum.id", "127.0.0.1:38100", foreign_page),
            // A name of the attacker's that points at us (DNS rebinding), and an address that is not ours.
            ("http://evil.example:38100", "evil.example:38100", foreign_host),
            ("http://192.0.2.9:38100", "192.0.2.9:38100", foreign_host),
        ] {
            let pairs = [("origin", origin), ("host", host)];
            for method in [Method::POST, Method::PATCH, Method::DELETE, Method::PUT] {
                assert_eq!(check(&pages, &method, &pairs, LAN), expected, "{method} {origin} {host}");
            }
            assert_eq!(check(&pages, &Method::GET, &pairs, LAN), Ok(()));
            let upgrade =
                [("origin", origin), ("host", host), ("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
            assert_eq!(check(&pages, &Method::GET, &upgrade, LAN), expected, "upgrade {origin} {host}");
        }
    }

    #[test]
    fn the_host_counts_without_any_page() {
        let pages = Pages::new(None, vec!["gateway.example".to_owned(), "other.example:8443".to_owned()], false, 38100);
        for (host, expected) in [
            ("127.0.0.1:38100", Ok(())),
            ("LOCALHOST", Ok(())),
            ("127.8.8.8:1", Ok(())),
            ("[::1]:38100", Ok(())),
            ("Gateway.Example:38100", Ok(())),
            ("gateway.example", Ok(())),
            ("other.example:8443", Ok(())),
            ("other.example", Err(Turned::ForeignHost)),
            ("other.example:1", Err(Turned::ForeignHost)),
            ("127.0.0.1:", Ok(())),
            ("127.0.0.1:381+0", Err(Turned::NoHost)),
            ("127.0.0.1:65536", Err(Turned::NoHost)),
            ("user@127.0.0.1:38100", Err(Turned::NoHost)),
            ("attacker.test", Err(Turned::ForeignHost)),
            ("localhost.attacker.test", Err(Turned::ForeignHost)),
            ("192.0.2.1:38100", Err(Turned::ForeignHost)),
            ("0.0.0.0", Err(Turned::ForeignHost)),
            ("user@localhost", Err(Turned::NoHost)),
            ("localhost, attacker.test", Err(Turned::NoHost)),
            ("", Err(Turned::NoHost)),
        ] {
            for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
                assert_eq!(check(&pages, &method, &[("host", host)], HERE), expected, "{method} {host}");
            }
            assert_eq!(check(&pages, &Method::GET, &[("host", host)], HERE), Ok(()));
        }
        assert_eq!(check(&pages, &Method::POST, &[], HERE), Err(Turned::NoHost));
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(check(&pages, &Method::POST, &twice, HERE), Err(Turned::NoHost));
        let two_pages =
            [("host", "localhost:38100"), ("origin", "http://localhost:38100"), ("origin", "http://localhost:38100")];
        assert_eq!(check(&pages, &Method::POST, &two_pages, HERE), Err(Turned::ForeignOrigin));
        let elsewhere = Uri::from_static("http://attacker.test/api/admin/connections");
        let local = headers(&[("host", "localhost:38100")]);
        assert_eq!(pages.check(&Method::POST, &elsewhere, &local, HERE), Err(Turned::NoHost));
    }

    #[test]
    fn without_settings_only_this_machine_s_own_pages_may_call() {
        let plain = Pages::new(None, vec![], false, 3000);
        let tls = Pages::new(None, vec![], true, 38100);
        for (origin, pages, may) in [
            ("http://localhost:3000", &plain, true),
            ("http://127.0.0.1:3000", &plain, true),
            ("http://localhost:38100", &plain, false),
            ("http://localhost:5000", &plain, false),
            ("https://sigilum.id", &plain, false),
            ("https://localhost:38100", &tls, true),
            ("https://127.0.0.1:38100", &tls, true),
            ("http://localhost:38100", &tls, false),
            ("http://127.0.0.1:38100", &tls, false),
        ] {
            let pairs = [("origin", origin), ("host", "127.0.0.1:38100")];
            assert_eq!(check(pages, &Method::POST, &pairs, HERE).is_ok(), may, "{origin}");
        }
    }

    #[test]
    fn other_settings_leave_scheme_and_port() {
        let pages = Pages::new(Some(vec!["https://a.example".to_owned()]), vec![], true, 8443);
        let back = pages.under(None, vec!["gateway.example".to_owned()]);
        let pairs = [("origin", "https://localhost:8443"), ("host", "gateway.example")];
        assert_eq!(check(&pages, &Method::POST, &pairs, HERE), Err(Turned::ForeignHost));
        assert_eq!(check(&back, &Method::POST, &pairs, HERE), Ok(()));
    }

    #[test]
    fn a_preflight_is_answered_for_any_page() {
        let pages = Pages::new(None, vec![], false, 38100);
        let asks = [("origin", "https://evil.example"), ("host", "localhost:38100")];
        assert_eq!(check(&pages, &Method::OPTIONS, &asks, HERE), Ok(()));
    }

    #[test]
    fn only_allowed_origins_are_told_that_they_are() {
        let pages = Pages::new(Some(vec!["https://sigilum.id".to_owned()]), vec![], false, 38100);
        let mut allowed = HeaderMap::new();
        pages.decorate(&HeaderValue::from_static("https://sigilum.id"), &mut allowed);
        assert_eq!(allowed.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "https://sigilum.id");
        assert_eq!(allowed.len(), 6);
        let mut other = HeaderMap::new();
        pages.decorate(&HeaderValue::from_static("https://evil.example"), &mut other);
        assert_eq!(other.len(), 1);
    }

    proptest! {
        /// Whatever a stranger writes as host: only ours are taken, and nothing breaks.
        #[test]
        fn no_host_of_a_stranger_is_ours(host in "[ -~]{0,60}", origin in "[ -~]{0,60}") {
            let pages = Pages::new(None, vec!["gateway.example".to_owned()], false, 38100);
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(&host).unwrap());
            headers.insert(header::ORIGIN, HeaderValue::from_str(&origin).unwrap());
            let taken = pages.check(&Method::POST, &Uri::from_static("/"), &headers, HERE).is_ok();
            if taken {
                let lower = host.to_ascii_lowercase();
                let known = ["localhost", "127.", "[::1]", "[::ffff:", "[0", "gateway.example"];
                prop_assert!(known.iter().any(|known| lower.starts_with(known)), "{}", host);
                prop_assert!(origin.to_ascii_lowercase().starts_with("http://"), "{}", origin);
            }
        }
    }
}
