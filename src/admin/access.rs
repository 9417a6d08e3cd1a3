//! Who may use the admin API: the token or a password, a client certificate, the user a trusted proxy names, or in two
//! modes a direct client of this machine. Whoever reads nothing but the metrics has a token for them.

use std::net::IpAddr;
use std::net::SocketAddr;

use http::HeaderMap;
use http::Uri;
use http::header::AUTHORIZATION;
use http::header::ORIGIN;

use crate::admin::origin::is_loopback;
use crate::admin::origin::named_host;
use crate::admin::proxy;
use crate::admin::proxy::ProxyRefused;
use crate::admin::token::AdminSecret;
use crate::config::parts::AccessMode;
use crate::config::parts::ProxyRule;
use crate::domain::audit;

/// Header that carries the token; `Authorization: Bearer` does too.
pub const TOKEN_HEADER: &str = "x-sigilum-admin-token";

/// Headers by which a proxy says that it stands between: then the peer is the proxy and not the client.
const FORWARDING_HEADERS: [&str; 20] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "x-remote-ip",
    "x-original-forwarded-for",
    "x-original-host",
    "x-proxyuser-ip",
    "x-envoy-external-address",
    "x-envoy-original-path",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-nf-client-connection-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "cdn-loop",
];
/// What more of them begin with, whatever follows.
const FORWARDING_PREFIXES: [&str; 2] = ["x-forwarded", "cf-"];

/// What the token of the metrics opens, and nothing else.
pub const METRICS_PATH: &str = "/metrics";

/// Longest token that is compared, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// The rule in force.
#[derive(Debug)]
pub struct AccessRule {
    /// What counts.
    pub mode: AccessMode,
    /// The token, or in modes `password` and `trusted-proxy` the password. `None`: mode `trusted-proxy` without one.
    pub secret: Option<AdminSecret>,
    /// What opens [`METRICS_PATH`] alone, whatever the mode; `None`: nothing does.
    pub metrics: Option<AdminSecret>,
    /// Whose word counts in mode `trusted-proxy`.
    pub proxy: Option<ProxyRule>,
    /// Whether a client certificate of the list is wanted besides what the mode wants.
    pub certificates: bool,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Our end of it.
    pub local: IpAddr,
    /// Whether it proved a name of the list with a certificate.
    pub certified: bool,
    /// What it asked for.
    pub uri: &'a Uri,
    /// What it said.
    pub headers: &'a HeaderMap,
}

/// What let a request in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// The token.
    Token,
    /// A direct client of this machine.
    Loopback,
    /// A client certificate.
    Certificate,
    /// The password.
    Password,
    /// A trusted proxy, which names this user.
    Proxy(String),
    /// The token of the metrics.
    Metrics,
}

impl Via {
    /// The same as the audit tells it.
    pub const fn audited(&self) -> audit::Via {
        match self {
            Self::Token => audit::Via::Token,
            Self::Loopback => audit::Via::Loopback,
            Self::Certificate => audit::Via::Certificate,
            Self::Password => audit::Via::Password,
            Self::Proxy(_) => audit::Via::Proxy,
            Self::Metrics => audit::Via::Metrics,
        }
    }
}

/// Why a request was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessDenied {
    /// Mode `token`: none, or a wrong one.
    TokenRequired,
    /// Mode `password`: none, or a wrong one.
    PasswordRequired,
    /// Mode `trusted-proxy`: no word of a proxy that counts; why is for the log. Beside it, whether a password was compared.
    ProxyRequired(ProxyRefused, bool),
    /// Mode `none`: not a direct client of this machine.
    LoopbackRequired,
    /// Mode `hybrid`: neither.
    TokenOrLoopbackRequired,
    /// No client certificate with a name of the list.
    CertificateRequired,
}

impl AccessDenied {
    /// Code and sentence; the status is 403 throughout.
    pub const fn wire(&self) -> (&'static str, &'static str) {
        match self {
            Self::TokenRequired => ("ADMIN_TOKEN_REQUIRED", "the admin token is required"),
            Self::PasswordRequired => ("ADMIN_PASSWORD_REQUIRED", "the password is required"),
            Self::ProxyRequired(..) => {
                ("ADMIN_TRUSTED_PROXY_REQUIRED", "only what a trusted proxy vouches for is let in")
            }
            Self::LoopbackRequired => ("ADMIN_LOOPBACK_REQUIRED", "only direct clients of this machine are let in"),
            Self::TokenOrLoopbackRequired => {
                ("ADMIN_TOKEN_OR_LOOPBACK_REQUIRED", "the admin token or a direct client of this machine is required")
            }
            Self::CertificateRequired => {
                ("ADMIN_CERTIFICATE_REQUIRED", "a client certificate with a name of the list is required")
            }
        }
    }

    /// Whether a password is wanted: a person made it up, so it may be found by guessing, and a token may not.
    pub const fn was_password(&self) -> bool {
        match self {
            Self::PasswordRequired | Self::ProxyRequired(_, true) => true,
            Self::ProxyRequired(_, false)
            | Self::TokenRequired
            | Self::TokenOrLoopbackRequired
            | Self::LoopbackRequired
            | Self::CertificateRequired => false,
        }
    }
}

impl AccessRule {
    /// Judges a request. `compare` is false where the client has failed too often and the secret could be guessed: then it is not
    /// even looked at. The token of the metrics cannot be.
    pub fn check(&self, caller: Caller<'_>, compare: bool) -> Result<Via, AccessDenied> {
        if self.opens_metrics(caller) {
            return Ok(Via::Metrics);
        }
        if (self.certificates || self.mode == AccessMode::Mtls) && !caller.certified {
            return Err(AccessDenied::CertificateRequired);
        }
        let shown = || compare && matches(self.secret.as_ref(), caller.headers);
        match self.mode {
            AccessMode::Mtls => Ok(Via::Certificate),
            AccessMode::Token if shown() => Ok(Via::Token),
            AccessMode::Token => Err(AccessDenied::TokenRequired),
            AccessMode::Password if shown() => Ok(Via::Password),
            AccessMode::Password => Err(AccessDenied::PasswordRequired),
            AccessMode::TrustedProxy => self.check_proxy(caller, compare),
            AccessMode::Hybrid if shown() => Ok(Via::Token),
            AccessMode::Hybrid if caller.is_direct_loopback() => Ok(Via::Loopback),
            AccessMode::Hybrid => Err(AccessDenied::TokenOrLoopbackRequired),
            AccessMode::None if caller.is_direct_loopback() => Ok(Via::Loopback),
            AccessMode::None => Err(AccessDenied::LoopbackRequired),
        }
    }

    /// Whether the metrics are asked for with their token. In mode `mtls` it stands for the certificate, as the token does elsewhere;
    /// where a certificate is wanted besides, it is wanted here too.
    fn opens_metrics(&self, caller: Caller<'_>) -> bool {
        let certified = caller.certified || !self.certificates || self.mode == AccessMode::Mtls;
        let asked = self.metrics.is_some() && caller.uri.path() == METRICS_PATH;
        asked && certified && matches(self.metrics.as_ref(), caller.headers)
    }

    /// A proxy's word; the way in for whoever sits at the machine itself, while the proxy is down, is the password.
    fn check_proxy(&self, caller: Caller<'_>, compare: bool) -> Result<Via, AccessDenied> {
        let judged = self.proxy.as_ref().map(|rule| proxy::user(rule, caller.peer, caller.local, caller.headers));
        let refused = match judged {
            Some(Ok(user)) => return Ok(Via::Proxy(user)),
            Some(Err(refused)) => refused,
            None => ProxyRefused::UntrustedSource,
        };
        let compared = compare && self.secret.is_some() && caller.is_direct_loopback();
        if compared && matches(self.secret.as_ref(), caller.headers) {
            return Ok(Via::Password);
        }
        Err(AccessDenied::ProxyRequired(refused, compared))
    }

    /// Whether what is asked for is compared however often somebody was wrong.
    pub fn is_unguessable(&self) -> bool {
        self.secret.as_ref().is_none_or(AdminSecret::is_unguessable)
    }

    /// The client a request comes from: the peer, or whom a trusted proxy speaks for.
    pub fn client(&self, caller: Caller<'_>) -> IpAddr {
        match &self.proxy {
            Some(rule) if self.mode == AccessMode::TrustedProxy => {
                proxy::client(rule, caller.peer, caller.local, caller.headers)
            }
            Some(_) | None => caller.peer,
        }
    }

    /// Whether a refusal came of a token or password that was shown and is wrong.
    pub fn was_guess(&self, denied: &AccessDenied, caller: Caller<'_>) -> bool {
        let of_metrics = self.metrics.is_some() && caller.uri.path() == METRICS_PATH;
        let asked = of_metrics
            || match denied {
                AccessDenied::TokenRequired
                | AccessDenied::TokenOrLoopbackRequired
                | AccessDenied::PasswordRequired => true,
                AccessDenied::ProxyRequired(_, compared) => *compared,
                AccessDenied::LoopbackRequired | AccessDenied::CertificateRequired => false,
            };
        asked && presented(caller.headers).is_some()
    }
}

fn matches(secret: Option<&AdminSecret>, headers: &HeaderMap) -> bool {
    let secret = secret.zip(presented(headers));
    secret.is_some_and(|(secret, shown)| secret.matches(shown.as_bytes()))
}

/// The token or password a request shows, if any; the admin header comes first. Two of one kind are none: which one counts would
/// depend on who reads.
pub fn presented(headers: &HeaderMap) -> Option<&str> {
    let only = |name: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())?.to_str().ok().map(str::trim)
    };
    let bearer = || {
        let (scheme, token) = only(AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    let token = if headers.contains_key(TOKEN_HEADER) { only(TOKEN_HEADER) } else { bearer() };
    token.filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN_BYTES)
}

impl Caller<'_> {
    /// Whether the client itself is on this machine: by its address, by the host it asked for (a web page of
    /// somewhere else can point its own name at 127.0.0.1), and with no proxy in between.
    fn is_direct_loopback(&self) -> bool {
        self.is_from_here() && named_host(self.uri, self.headers).is_some_and(|host| is_loopback(&host))
    }

    /// Whether it is a program of this machine: no page, and nobody a proxy speaks for. Such a one is never locked
    /// out: a guesser here must not keep the operator out, who could read the token's file anyway.
    pub fn is_local_program(&self) -> bool {
        self.is_from_here() && !self.headers.contains_key(ORIGIN)
    }

    fn is_from_here(&self) -> bool {
        self.peer.to_canonical().is_loopback() && !self.headers.keys().any(|name| is_forwarding(name.as_str()))
    }
}

/// Whether a header of this name, in small letters, says that somebody stands between.
fn is_forwarding(name: &str) -> bool {
    FORWARDING_HEADERS.contains(&name) || FORWARDING_PREFIXES.iter().any(|begin| name.starts_with(begin))
}

/// A token in clear on a network can be read there, and what it opens with it.
pub fn warn_of_clear(addresses: &[SocketAddr], tls: bool) {
    if let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback() && !tls) {
        tracing::warn!(
            %address,
            "the admin API is open to a network in plain HTTP: whoever can listen there reads the admin token and the \
             secrets that are set; give it a certificate (admin.tls), or put TLS in front and close the network off"
        );
    }
}

/// An open door of the machine is told at every start.
pub fn warn_of_mode(mode: AccessMode) {
    match mode {
        AccessMode::Token | AccessMode::Mtls | AccessMode::Password => {}
        AccessMode::TrustedProxy => tracing::warn!(
            mode = mode.name(),
            "whoever can send from the address of a trusted proxy administers this gateway under any name; close its \
             network off, and have the proxy remove the user's header from what clients send"
        ),
        AccessMode::Hybrid | AccessMode::None => tracing::warn!(
            mode = mode.name(),
            "every process of this machine, agents included, can administer this gateway without a token"
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use std::net::Ipv4Addr;
    use std::net::Ipv6Addr;
    use std::sync::LazyLock;

    use http::HeaderName;
    use http::HeaderValue;

    use super::*;
    use crate::config::parts::GivenSecret;
    use crate::domain::network::Network;
    use crate::domain::secret::Secret;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn rule(mode: AccessMode) -> AccessRule {
        let secret = AdminSecret::given(&Secret::new("right-token".to_owned())).unwrap();
        AccessRule { mode, secret: Some(secret), metrics: None, proxy: None, certificates: false }
    }

    fn caller(peer: IpAddr, headers: &HeaderMap) -> Caller<'_> {
        static SOMEWHERE: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("/x"));
        Caller { peer, local: LOCAL, certified: false, uri: &SOMEWHERE, headers }
    }

    fn check(rule: &AccessRule, peer: IpAddr, headers: &HeaderMap, compare: bool) -> Result<Via, AccessDenied> {
        rule.check(caller(peer, headers), compare)
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_token_counts_in_either_header_and_only_the_right_one() {
        let rule = rule(AccessMode::Token);
        for good in [
            &[("x-sigilum-admin-token", " right-token ")][..],
            &[("authorization", "Bearer right-token")],
            &[("authorization", "bEaReR  right-token")],
        ] {
            assert_eq!(check(&rule, REMOTE, &headers(good), true), Ok(Via::Token), "{good:?}");
            assert_eq!(check(&rule, REMOTE, &headers(good), false), Err(AccessDenied::TokenRequired));
        }
        for bad in [
            &[][..],
            &[("x-sigilum-admin-token", "")],
            &[("x-sigilum-admin-token", "right-toke")],
            &[("x-sigilum-admin-token", "right-tokenx")],
            &[("x-sigilum-admin-token", "wrong"), ("authorization", "Bearer right-token")],
            &[("x-sigilum-admin-token", "right-token"), ("x-sigilum-admin-token", "right-token")],
            &[("authorization", "Bearer right-token"), ("authorization", "Bearer right-token")],
            &[("authorization", "Basic right-token")],
            &[("authorization", "right-token")],
            &[("host", "localhost")],
        ] {
            assert_eq!(check(&rule, LOCAL, &headers(bad), true), Err(AccessDenied::TokenRequired), "{bad:?}");
        }
    }

    #[test]
    fn loopback_is_a_direct_client_that_asked_for_this_machine() {
        let rule = rule(AccessMode::Hybrid);
        for host in ["localhost", "LOCALHOST:38100", "127.0.0.1:38100", "[::1]:38100", "127.8.8.8"] {
            assert_eq!(check(&rule, LOCAL, &headers(&[("host", host)]), true), Ok(Via::Loopback), "{host}");
        }
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        assert_eq!(check(&rule, mapped, &headers(&[("host", "localhost")]), true), Ok(Via::Loopback));
        assert_eq!(
            check(&rule, IpAddr::V6(Ipv6Addr::LOCALHOST), &headers(&[("host", "[::1]")]), true),
            Ok(Via::Loopback)
        );
        let denied = Err(AccessDenied::TokenOrLoopbackRequired);
        assert_eq!(check(&rule, REMOTE, &headers(&[("host", "localhost")]), true), denied);
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
            assert_eq!(check(&rule, LOCAL, &headers(bad), true), denied, "{bad:?}");
        }
    }

    #[test]
    fn whatever_a_proxy_says_of_itself_makes_its_client_no_direct_one() {
        let rule = rule(AccessMode::None);
        for name in [
            "CF-Connecting-IP",
            "CF-Ray",
            "True-Client-IP",
            "X-Cluster-Client-IP",
            "X-Forwarded",
            "X-Forwarded-Port",
            "X-Forwarded-Server",
            "X-Forwarded-Of-Tomorrow",
            "CDN-Loop",
            "Fastly-Client-IP",
            "X-Envoy-External-Address",
        ] {
            let asked = headers(&[("host", "localhost"), (name, "127.0.0.1")]);
            assert_eq!(check(&rule, LOCAL, &asked, true), Err(AccessDenied::LoopbackRequired), "{name}");
        }
        // What programs of this machine say of themselves.
        for name in ["accept", "user-agent", "x-request-id", "x-real-time", "cookie", "traceparent"] {
            let asked = headers(&[("host", "localhost"), (name, "a")]);
            assert_eq!(check(&rule, LOCAL, &asked, true), Ok(Via::Loopback), "{name}");
        }
    }

    #[test]
    fn mode_none_ignores_the_token() {
        let rule = rule(AccessMode::None);
        let token = headers(&[("x-sigilum-admin-token", "right-token"), ("host", "localhost")]);
        assert_eq!(check(&rule, REMOTE, &token, true), Err(AccessDenied::LoopbackRequired));
        assert_eq!(check(&rule, LOCAL, &headers(&[("host", "localhost")]), true), Ok(Via::Loopback));
    }

    #[test]
    fn an_empty_token_lets_nobody_in() {
        let rule =
            AccessRule { secret: AdminSecret::given(&Secret::new(String::new())).ok(), ..rule(AccessMode::Token) };
        assert!(check(&rule, LOCAL, &headers(&[("x-sigilum-admin-token", "")]), true).is_err());
    }

    #[test]
    fn a_certificate_is_the_operator_or_comes_besides() {
        let uri = Uri::from_static("/x");
        let token = headers(&[("x-sigilum-admin-token", "right-token"), ("host", "localhost")]);
        let none = headers(&[("host", "localhost")]);
        let ask = |rule: &AccessRule, certified, headers| {
            rule.check(Caller { peer: LOCAL, local: LOCAL, certified, uri: &uri, headers }, true)
        };
        let mtls = rule(AccessMode::Mtls);
        assert_eq!(ask(&mtls, true, &none), Ok(Via::Certificate));
        assert_eq!(ask(&mtls, false, &token), Err(AccessDenied::CertificateRequired));
        for mode in [AccessMode::Token, AccessMode::Hybrid, AccessMode::None] {
            let both = AccessRule { certificates: true, ..rule(mode) };
            assert_eq!(ask(&both, false, &token), Err(AccessDenied::CertificateRequired), "{mode:?}");
            assert!(ask(&both, true, &token).is_ok(), "{mode:?}");
            assert_eq!(ask(&both, true, &none).is_ok(), mode != AccessMode::Token, "{mode:?}");
        }
    }

    #[test]
    fn only_programs_of_this_machine_are_never_locked_out() {
        let uri = Uri::from_static("/x");
        let local = |peer, headers: &HeaderMap| {
            Caller { peer, local: LOCAL, certified: false, uri: &uri, headers }.is_local_program()
        };
        assert!(local(LOCAL, &headers(&[("host", "gateway.example")])));
        assert!(!local(LOCAL, &headers(&[("origin", "http://localhost:38100")])));
        assert!(!local(LOCAL, &headers(&[("x-forwarded-for", "127.0.0.1")])));
        assert!(!local(REMOTE, &headers(&[("x-forwarded-for", "127.0.0.1")])));
        assert!(!local(REMOTE, &headers(&[])));
    }

    #[test]
    fn the_password_counts_in_either_header() {
        let password = GivenSecret::Given(Secret::new("a good passphrase".to_owned()));
        let secret = AdminSecret::password(&password).ok();
        let rule = AccessRule { secret, ..rule(AccessMode::Password) };
        for good in [("x-sigilum-admin-token", "a good passphrase"), ("authorization", "Bearer a good passphrase")] {
            assert_eq!(check(&rule, REMOTE, &headers(&[good]), true), Ok(Via::Password), "{good:?}");
        }
        let wrong = headers(&[("authorization", "Bearer right-token")]);
        let denied = check(&rule, REMOTE, &wrong, true).unwrap_err();
        assert_eq!(denied, AccessDenied::PasswordRequired);
        assert!(rule.was_guess(&denied, caller(REMOTE, &wrong)));
        assert!(!rule.was_guess(&denied, caller(REMOTE, &headers(&[]))));
    }

    #[test]
    fn a_proxy_names_the_user_and_the_password_is_for_the_machine_itself() {
        let proxies = vec![Network::parse("192.0.2.1").unwrap()];
        let (user_header, required_headers, allow_users) = ("x-user".to_owned(), Vec::new(), Vec::new());
        let proxy = Some(ProxyRule { proxies, user_header, required_headers, allow_users, allow_loopback: false });
        let secret = || AdminSecret::password(&GivenSecret::Given(Secret::new("a good passphrase".to_owned()))).ok();
        let both = AccessRule { secret: secret(), proxy: proxy.clone(), ..rule(AccessMode::TrustedProxy) };
        let alone = AccessRule { secret: None, proxy, ..rule(AccessMode::TrustedProxy) };
        let named = headers(&[("x-user", "alice")]);
        assert_eq!(check(&alone, REMOTE, &named, true), Ok(Via::Proxy("alice".to_owned())));
        let elsewhere = AccessDenied::ProxyRequired(ProxyRefused::UntrustedSource, false);
        assert_eq!(check(&both, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), &named, true), Err(elsewhere.clone()));
        let password = headers(&[("host", "localhost"), ("x-sigilum-admin-token", "a good passphrase")]);
        assert_eq!(check(&both, LOCAL, &password, true), Ok(Via::Password));
        assert_eq!(check(&alone, LOCAL, &password, true), Err(elsewhere));
        // Of the proxy the password is none, nor of anybody it might be relayed for.
        let missing = AccessDenied::ProxyRequired(ProxyRefused::UserMissing, false);
        assert_eq!(check(&both, REMOTE, &password, true), Err(missing));
        let relayed = headers(&[
            ("host", "localhost"),
            ("x-sigilum-admin-token", "a good passphrase"),
            ("x-forwarded-for", "127.0.0.1"),
        ]);
        assert!(check(&both, LOCAL, &relayed, true).is_err());
    }
}
