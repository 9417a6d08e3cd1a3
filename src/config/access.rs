//! Judging the settings of who may reach the gateway: mode, token, hosts, origins, certificates, and whether the
//! listeners may face a network with them.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::address;
use crate::config::auth;
use crate::config::auth::Auth;
use crate::config::guard;
use crate::config::guard::Unguarded;
use crate::config::keys;
use crate::config::keys::Key;
use crate::config::load::parse_url;
use crate::config::loader::Loader;
use crate::config::loader::Shape;
use crate::config::loader::parse_boolean;
use crate::config::parts::AccessMode;
use crate::config::parts::AdminAccess;
use crate::config::parts::AdminTls;
use crate::config::parts::AdminTrust;
use crate::config::parts::ClientRule;
use crate::config::remote;

/// Longest name of a client certificate, in bytes (RFC 5280 leaves it open; a URI of an identity is far shorter).
const MAX_NAME: usize = 1024;

/// Reads the settings and judges the listeners by them; with the address at which commands reach the admin API, and why no token
/// may be sent there.
pub(super) fn read(
    loader: &mut Loader<'_>,
    ingress: Option<&[SocketAddr]>,
    admin: Option<&[SocketAddr]>,
    allow_insecure: bool,
) -> Option<(AdminAccess, String, Option<&'static str>)> {
    let unsigned = is(loader, &keys::ALLOW_UNSIGNED_PROXY, true);
    let checks_off = is(loader, &keys::REQUIRE_SIGNED_ADMIN_CHECKS, false);
    if unsigned {
        loader.blame(&keys::ALLOW_UNSIGNED_PROXY, Unguarded::Unsigned.reason().to_owned());
    }
    if checks_off {
        loader.blame(&keys::REQUIRE_SIGNED_ADMIN_CHECKS, Unguarded::ChecksOff.reason().to_owned());
    }
    let Auth { mode, token, password, metrics, proxy, unguarded } = auth::read(loader, admin, file);
    let unguarded = if checks_off { Some(Unguarded::ChecksOff) } else { unguarded };
    for (key, addresses, unguarded) in
        [(&keys::INGRESS_ADDR, ingress, unsigned.then_some(Unguarded::Unsigned)), (&keys::ADMIN_ADDR, admin, unguarded)]
    {
        if let Err(open) = guard::check(addresses.unwrap_or_default(), unguarded) {
            loader.whole(key, open.to_string());
        }
    }
    let set = loader.is_set(&keys::ALLOWED_ORIGINS);
    let allowed_origins = if set { loader.list(&keys::ALLOWED_ORIGINS, parse_origin).map(Some) } else { Some(None) };
    let allowed_hosts = loader.list(&keys::ALLOWED_HOSTS, address::parse_authority);
    let tls = tls(loader, mode);
    let trust = trust(loader);
    let url = loader.read(&keys::ADMIN_URL, Shape::Text, parse_url);
    // What is sent to an address of this machine does not leave it.
    let refused = url.as_deref().filter(|url| !loader.sources.flags.own_gateway && !is_own(url, admin));
    let refused = refused.and_then(|url| remote::check_guarded(url, allow_insecure).err());
    // What a shared environment says may be for another process; whoever sends a token judges it.
    if let Some(why) = refused.filter(|_| loader.is_typed(&keys::ADMIN_URL)) {
        loader.blame(&keys::ADMIN_URL, why.to_owned());
    }
    let (mode, allowed_hosts, allowed_origins) = (mode?, allowed_hosts?, allowed_origins?);
    let (tls, mut trust) = (tls?, trust?);
    let url = url.unwrap_or_else(|| {
        let scheme = if tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", reachable(admin.unwrap_or_default()))
    });
    // Whoever reads our file is on our machine; elsewhere a certificate must prove its name.
    trust.own_cert_file = tls.as_ref().map(|tls| tls.cert_file.clone()).filter(|_| is_own(&url, admin));
    Some((
        AdminAccess { mode, token, password, metrics, proxy, allowed_origins, allowed_hosts, tls, trust },
        url,
        refused,
    ))
}

/// Whether a truth value is this one.
fn is(loader: &mut Loader<'_>, key: &Key, wanted: bool) -> bool {
    loader.read(key, Shape::Boolean, parse_boolean) == Some(wanted)
}

/// Certificate and key together, and the clients' authorities only with both and with names. The outer `None` is a
/// mistake that was noted.
fn tls(loader: &mut Loader<'_>, mode: Option<AccessMode>) -> Option<Option<AdminTls>> {
    let cert_file = file(loader, &keys::TLS_CERT_FILE);
    let key_file = file(loader, &keys::TLS_KEY_FILE);
    let ca_file = file(loader, &keys::TLS_CLIENT_CA_FILE);
    let names = loader.list(&keys::TLS_CLIENT_NAMES, parse_name);
    let (cert_file, key_file, ca_file, names) = (cert_file?, key_file?, ca_file?, names?);
    let mut wants = |key: &Key, other: &Key, present: bool| {
        if !present {
            loader.blame(key, format!("wants {} as well", other.name()));
        }
        present.then_some(())
    };
    let clients = match ca_file {
        Some(ca_file) => {
            wants(&keys::TLS_CLIENT_CA_FILE, &keys::TLS_CLIENT_NAMES, !names.is_empty())?;
            wants(&keys::TLS_CLIENT_CA_FILE, &keys::TLS_CERT_FILE, cert_file.is_some())?;
            Some(ClientRule { ca_file, names })
        }
        None => {
            wants(&keys::TLS_CLIENT_NAMES, &keys::TLS_CLIENT_CA_FILE, names.is_empty())?;
            None
        }
    };
    if mode == Some(AccessMode::Mtls) && clients.is_none() {
        let wanted = "admin.tls.cert_file, key_file, client_ca_file and client_names";
        loader.blame(&keys::ADMIN_ACCESS_MODE, format!("mtls wants {wanted}"));
        return None;
    }
    match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(Some(AdminTls { cert_file, key_file, clients })),
        (None, None) => Some(None),
        (Some(_), None) => {
            loader.blame(&keys::TLS_CERT_FILE, "wants admin.tls.key_file as well".to_owned());
            None
        }
        (None, Some(_)) => {
            loader.blame(&keys::TLS_KEY_FILE, "wants admin.tls.cert_file as well".to_owned());
            None
        }
    }
}

fn trust(loader: &mut Loader<'_>) -> Option<AdminTrust> {
    let ca_file = file(loader, &keys::TLS_CA_FILE);
    let (certificate, key) = (file(loader, &keys::OPERATOR_CERT_FILE), file(loader, &keys::OPERATOR_KEY_FILE));
    let operator = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            loader.blame(&keys::OPERATOR_CERT_FILE, "wants admin.tls.operator_key_file as well".to_owned());
            return None;
        }
        (None, Some(_)) => {
            loader.blame(&keys::OPERATOR_KEY_FILE, "wants admin.tls.operator_cert_file as well".to_owned());
            return None;
        }
    };
    Some(AdminTrust { ca_file: ca_file?, own_cert_file: None, operator, fingerprint: None })
}

/// A file that two processes with working folders of their own must both find. The outer `None` is a mistake that
/// was noted.
pub(super) fn file(loader: &mut Loader<'_>, key: &Key) -> Option<Option<PathBuf>> {
    if !loader.is_set(key) {
        return Some(None);
    }
    let text = loader.read(key, Shape::Text, |text| Ok(text.to_owned()))?;
    let path = loader.path(&text);
    if path.is_absolute() {
        return Some(Some(path));
    }
    loader.blame(key, "must be an absolute path".to_owned());
    None
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let fits = text.len() <= MAX_NAME && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("must be a DNS name or a URI, as it stands in certificates".to_owned()) }
}

/// An origin as browsers write it: scheme, host, a port that is not the default, nothing else.
fn parse_origin(text: &str) -> Result<String, String> {
    let wrong = || "must be an origin such as https://example.com:8443".to_owned();
    let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
    if !matches!(scheme, "http" | "https") {
        return Err(wrong());
    }
    let authority = address::parse_authority(authority).map_err(|_| wrong())?;
    let default = if scheme == "http" { ":80" } else { ":443" };
    Ok(format!("{scheme}://{}", authority.strip_suffix(default).unwrap_or(&authority)))
}

/// Where this machine reaches the first of our listeners: one on all addresses answers on loopback.
fn reachable(addresses: &[SocketAddr]) -> SocketAddr {
    let Some(mut address) = addresses.first().copied() else { return (Ipv4Addr::LOCALHOST, 0).into() };
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

/// Whether a URL leads to this machine: by a loopback name, or by an address we listen on.
fn is_own(url: &str, admin: Option<&[SocketAddr]>) -> bool {
    let Some(host) = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)) else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let listened = |ip: IpAddr| admin.unwrap_or_default().iter().any(|address| address.ip() == ip);
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback() || listened(ip))
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
