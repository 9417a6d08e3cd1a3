//! Tests of who may reach the gateway, as configured.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use std::net::Ipv4Addr;
use std::path::Path;

use crate::config::Config;
use crate::config::Flags;
use crate::config::Machine;
use crate::config::Mistakes;
use crate::config::Sources;
use crate::config::load;
use crate::config::parts::GivenSecret;

fn from(pairs: &[(&str, &str)], file: &str) -> Result<Config, Mistakes> {
    let lookup = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let flags = Flags::default();
    load(
        Sources { flags: &flags, env: &lookup, saved: &|_| None, machine: &in_a_tailnet },
        Some((Path::new("gateway.yaml"), file)),
    )
}

fn in_a_tailnet() -> Machine {
    let addresses = [("lo", Ipv4Addr::LOCALHOST), ("tailscale0", Ipv4Addr::new(100, 64, 0, 9))];
    Machine { addresses: addresses.map(|(name, ip)| (name.to_owned(), ip.into())).to_vec(), container: false, user: 0 }
}

fn lines(result: Result<Config, Mistakes>) -> Vec<String> {
    let text = result.map(drop).map_err(|mistakes| mistakes.to_string()).err().unwrap_or_default();
    text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

const TLS: &str = "admin:\n  tls:\n    cert_file: /etc/sigilum/tls.crt\n    key_file: /etc/sigilum/tls.key\n";

#[test]
fn the_bind_matrix() {
    let tokens = [
        ("unset", None),
        ("good", Some("0123456789abcdef0123")),
        ("empty", Some("")),
        ("blank", Some("  \t ")),
        ("placeholder", Some("<your-admin-token>")),
        ("short placeholder", Some("changeme")),
    ];
    for (bind, open) in [
        ("loopback", None),
        ("127.0.0.1", None),
        ("::1", None),
        ("auto", None),
        ("0.0.0.0", Some("0.0.0.0")),
        ("lan", Some("0.0.0.0")),
        ("tailnet", Some("100.64.0.9")),
        ("::", Some("[::]")),
    ] {
        for mode in ["token", "hybrid", "none", "loopback"] {
            for (kind, token) in tokens {
                let mut pairs = vec![("GATEWAY_BIND", bind), ("GATEWAY_ADMIN_ACCESS_MODE", mode)];
                pairs.extend(token.map(|token| ("GATEWAY_ADMIN_TOKEN", token)));
                let found = lines(from(&pairs, ""));
                let case = format!("{bind} {mode} {kind}: {found:?}");
                let without = matches!(mode, "none" | "loopback")
                    || matches!(kind, "empty" | "blank" | "placeholder" | "short placeholder");
                let refused =
                    open.filter(|_| without).map(|ip| format!("refusing to bind gateway to {ip}:38100 without auth"));
                let says_so = |line: &String| line.starts_with("refusing to bind gateway to");
                assert_eq!(found.iter().filter(|line| says_so(line)).count(), usize::from(refused.is_some()), "{case}");
                if let Some(refused) = refused {
                    assert!(found.iter().any(|line| line.starts_with(&refused)), "{case}");
                }
                // A token everybody knows is none, wherever the gateway listens.
                let known = found.iter().any(|line| line.starts_with("GATEWAY_ADMIN_TOKEN: is a placeholder"));
                assert_eq!(known, kind.contains("placeholder"), "{case}");
            }
        }
    }
}

#[test]
fn the_bind_matrix_of_passwords_and_proxies() {
    let passwords = [
        ("unset", None, false),
        ("good", Some("a good passphrase"), true),
        ("blank", Some(" "), false),
        ("placeholder", Some("changeme-changeme"), false),
        ("short", Some("a short one"), true),
    ];
    for (bind, open) in [("loopback", None), ("lan", Some("0.0.0.0")), ("192.0.2.7", Some("192.0.2.7"))] {
        for (kind, password, asks) in passwords {
            let mut pairs = vec![("GATEWAY_BIND", bind), ("GATEWAY_ADMIN_ACCESS_MODE", "password")];
            pairs.extend(password.map(|password| ("SIGILUM_GATEWAY_PASSWORD", password)));
            let found = lines(from(&pairs, ""));
            let refused =
                open.filter(|_| !asks).map(|ip| format!("refusing to bind gateway to {ip}:38100 without auth"));
            let said: Vec<_> = found.iter().filter(|line| line.starts_with("refusing to bind")).collect();
            assert_eq!(said.len(), usize::from(refused.is_some()), "{bind} {kind}: {found:?}");
            assert!(refused.is_none_or(|refused| said[0].starts_with(&refused)), "{bind} {kind}: {found:?}");
            assert_eq!(found.is_empty(), kind == "good", "{bind} {kind}: {found:?}");
        }
        let rules =
            "admin: {access_mode: trusted-proxy, trusted_proxies: 192.0.2.1, trusted_proxy: {user_header: x-user}}";
        let bare = [("GATEWAY_BIND", bind), ("GATEWAY_ADMIN_ACCESS_MODE", "trusted-proxy")];
        assert!(from(&[("GATEWAY_BIND", bind)], rules).is_ok());
        let found = lines(from(&bare, ""));
        assert_eq!(found.iter().any(|line| line.starts_with("refusing to bind")), open.is_some(), "{bind}: {found:?}");
        assert_eq!(
            found.iter().filter(|line| line.starts_with("GATEWAY_ADMIN_ACCESS_MODE: trusted-proxy wants")).count(),
            2,
            "{found:?}"
        );
    }
    // A password that was meant and is blank leaves an open listener without the auth somebody wanted.
    let meant = lines(from(&[("GATEWAY_BIND", "lan"), ("SIGILUM_GATEWAY_PASSWORD", "")], ""));
    assert!(meant.len() == 1 && meant[0].contains("SIGILUM_GATEWAY_PASSWORD is set but blank"), "{meant:?}");
}

#[test]
fn a_short_token_is_for_this_machine_alone() {
    for name in ["GATEWAY_ADMIN_TOKEN", "SIGILUM_GATEWAY_TOKEN"] {
        let config = from(&[(name, "0123456789abcde")], "").unwrap();
        assert_eq!(config.admin.token.unwrap().expose(), "0123456789abcde");
        let told = config.warnings.iter().filter(|found| found.message.contains("less than 16 characters")).count();
        assert_eq!(told, 1, "{:?}", config.warnings);
        assert!(from(&[(name, "0123456789abcdef")], "").unwrap().warnings.is_empty());
        for bind in ["lan", "10.0.0.1"] {
            let found = lines(from(&[(name, "0123456789abcde"), ("GATEWAY_BIND", bind)], ""));
            assert!(found.len() == 1 && found[0].contains("at least 16 visible ASCII"), "{bind}: {found:?}");
        }
        // Short or not: what everybody knows, and what no header carries.
        for bad in ["changeme", "a b", "\u{e4}"] {
            assert_eq!(lines(from(&[(name, bad)], "")).len(), 1, "{bad}");
        }
    }
}

#[test]
fn the_mode_follows_from_what_is_given_unless_both_are() {
    const TOKEN: (&str, &str) = ("SIGILUM_GATEWAY_TOKEN", "0123456789abcdef0123");
    const OLD_TOKEN: (&str, &str) = ("GATEWAY_ADMIN_TOKEN", "0123456789abcdef0123");
    const PASSWORD: (&str, &str) = ("SIGILUM_GATEWAY_PASSWORD", "a good passphrase");
    let file = "admin: {password_file: /run/secrets/password}";
    for (pairs, text, mode) in [
        (&[][..], "", "token"),
        (&[TOKEN], "", "token"),
        (&[PASSWORD], "", "password"),
        (&[], file, "password"),
        (&[PASSWORD], file, "password"),
        (&[PASSWORD, TOKEN, ("GATEWAY_ADMIN_ACCESS_MODE", "token")], "", "token"),
        (&[PASSWORD, TOKEN, ("GATEWAY_ADMIN_ACCESS_MODE", "password")], "", "password"),
        (&[("GATEWAY_ADMIN_ACCESS_MODE", "loopback")], "", "none"),
    ] {
        let config = from(pairs, text).unwrap();
        assert_eq!(config.admin.mode.name(), mode, "{pairs:?} {text}");
        assert_eq!(config.admin.token.is_some(), pairs.contains(&TOKEN));
        // The environment goes before the file.
        let given = matches!(config.admin.password, Some(GivenSecret::Given(_)));
        assert_eq!(given, pairs.contains(&PASSWORD), "{pairs:?} {text}");
    }
    for (pairs, text) in [(&[PASSWORD, TOKEN][..], ""), (&[PASSWORD, OLD_TOKEN], ""), (&[TOKEN], file)] {
        let found = lines(from(pairs, text));
        assert!(found.len() == 1 && found[0].contains("a token and a password are given"), "{found:?}");
    }
    let proxy =
        "admin: {access_mode: trusted-proxy, trusted_proxies: [192.0.2.1], trusted_proxy: {user_header: X-User}}";
    assert_eq!(from(&[PASSWORD], proxy).unwrap().admin.proxy.unwrap().user_header, "x-user");
    let both = lines(from(&[TOKEN], proxy));
    assert!(both.len() == 1 && both[0].contains("exclude each other"), "{both:?}");
    for (text, word) in [
        ("admin: {trusted_proxies: [0.0.0.0/0]}", "everybody"),
        ("admin: {trusted_proxies: [proxy.example]}", "an address or a network"),
        ("admin: {trusted_proxy: {user_header: 'x user'}}", "the name of a header"),
        ("admin: {password_file: secrets/password}", "an absolute path"),
    ] {
        let found = lines(from(&[], text));
        assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
    }
}

#[test]
fn bind_modes_name_addresses_and_say_when_there_is_none() {
    let at = |pairs: &[(&str, &str)]| {
        let config = from(pairs, "").unwrap();
        let warned = config.warnings.iter().any(|found| found.path == "gateway.bind");
        (config.listen.admin.iter().map(ToString::to_string).collect::<Vec<_>>(), config.admin_url, warned)
    };
    let here = "http://127.0.0.1:38100".to_owned();
    let loopback = ["127.0.0.1:38100", "100.64.0.9:38100"].map(str::to_owned).to_vec();
    assert_eq!(at(&[("GATEWAY_BIND", "tailnet")]), (loopback, here.clone(), false));
    let custom = ["127.0.0.1:38100", "192.0.2.7:38100"].map(str::to_owned).to_vec();
    let pairs = [("GATEWAY_BIND", "custom"), ("GATEWAY_CUSTOM_BIND_HOST", "192.0.2.7")];
    assert_eq!(at(&pairs), (custom, here, false));
    // Where the machine is in none, it says so and serves this machine.
    let flags = Flags::default();
    let env = |name: &str| (name == "GATEWAY_BIND").then(|| "tailnet".to_owned());
    let sources = Sources { flags: &flags, env: &env, saved: &|_| None, machine: &Machine::default };
    let config = load(sources, None).unwrap();
    assert!(config.listen.admin.iter().all(|address| address.ip().is_loopback()));
    assert!(config.warnings.iter().any(|found| found.message.contains("no tailnet address")), "{:?}", config.warnings);
    for (pairs, word) in [
        (&[("GATEWAY_BIND", "custom")][..], "wants gateway.custom_bind_host as well"),
        (&[("GATEWAY_CUSTOM_BIND_HOST", "192.0.2.7")], "counts with gateway.bind custom only"),
        (&[("GATEWAY_BIND", "custom"), ("GATEWAY_CUSTOM_BIND_HOST", "gw.example")], "must be an IP address"),
    ] {
        let found = lines(from(pairs, ""));
        assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
    }
}

#[test]
fn what_would_open_a_listener_names_it() {
    let open = [("GATEWAY_BIND", "192.0.2.7"), ("GATEWAY_ALLOW_UNSIGNED_PROXY", "true")];
    let found = lines(from(&open, ""));
    assert!(
        found.iter().any(|line| line.starts_with("refusing to bind gateway to 192.0.2.7:38000 without auth")),
        "{found:?}"
    );
    let off = [("GATEWAY_ADDR", "192.0.2.7:38100"), ("GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS", "false")];
    let found = lines(from(&off, ""));
    assert!(
        found.iter().any(|line| line.starts_with("refusing to bind gateway to 192.0.2.7:38100 without auth")),
        "{found:?}"
    );
    for (name, value) in [("GATEWAY_ALLOW_UNSIGNED_PROXY", "yes"), ("GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS", "0")] {
        let found = lines(from(&[(name, value)], ""));
        assert!(found.len() == 1 && found[0].starts_with(&format!("{name}: ")), "{found:?}");
    }
}

#[test]
fn certificates_come_whole_and_with_absolute_paths() {
    let config = from(&[], TLS).unwrap();
    let tls = config.admin.tls.unwrap();
    assert_eq!((tls.cert_file.to_str(), tls.clients), (Some("/etc/sigilum/tls.crt"), None));
    assert_eq!(config.admin_url, "https://127.0.0.1:38100");
    assert_eq!(config.admin.trust.own_cert_file.as_deref(), Some(Path::new("/etc/sigilum/tls.crt")));
    let elsewhere = from(&[("GATEWAY_ADMIN_URL", "https://gateway.example")], TLS).unwrap();
    assert_eq!(elsewhere.admin.trust.own_cert_file, None);

    let mtls = format!(
        "{TLS}    client_ca_file: /ca.pem\n    client_names: [ops.example, 'spiffe://x/ops']\n  access_mode: mtls\n"
    );
    let clients = from(&[], &mtls).unwrap().admin.tls.unwrap().clients.unwrap();
    assert_eq!(clients.names, ["ops.example", "spiffe://x/ops"]);
    // Open to a network: the certificate is asked for.
    assert!(from(&[("GATEWAY_BIND", "0.0.0.0")], &mtls).is_ok());

    for (file, word) in [
        ("admin: {tls: {cert_file: /a}}", "wants admin.tls.key_file as well"),
        ("admin: {tls: {key_file: /a}}", "wants admin.tls.cert_file as well"),
        ("admin: {tls: {cert_file: a.pem, key_file: /b}}", "admin.tls.cert_file must be an absolute path"),
        ("admin: {tls: {client_ca_file: /ca, client_names: [x]}}", "wants admin.tls.cert_file as well"),
        ("admin: {tls: {cert_file: /a, key_file: /b, client_ca_file: /ca}}", "wants admin.tls.client_names as well"),
        ("admin: {tls: {cert_file: /a, key_file: /b, client_names: [x]}}", "wants admin.tls.client_ca_file as well"),
        ("admin: {tls: {operator_cert_file: /a}}", "wants admin.tls.operator_key_file as well"),
        ("admin: {access_mode: mtls}", "mtls wants"),
        ("admin: {access_mode: mtls, tls: {cert_file: /a, key_file: /b}}", "mtls wants"),
        ("admin: {tls: {cert: /a}}", "unknown key \"cert\"; admin.tls knows cert_file"),
        ("admin: {tls: yes}", "admin.tls must be a mapping"),
    ] {
        let found = lines(from(&[], file));
        assert!(
            found.len() == 1 && found[0].contains(word) && found[0].starts_with("gateway.yaml:1:"),
            "{file}: {found:?}"
        );
    }
}

#[test]
fn commands_reach_the_admin_api_where_it_listens() {
    let url = |pairs: &[(&str, &str)]| from(pairs, "").unwrap().admin_url;
    assert_eq!(url(&[]), "http://127.0.0.1:38100");
    assert_eq!(url(&[("GATEWAY_BIND", "0.0.0.0")]), "http://127.0.0.1:38100");
    assert_eq!(url(&[("GATEWAY_BIND", "::")]), "http://[::1]:38100");
    assert_eq!(url(&[("GATEWAY_ADDR", "192.0.2.1:1")]), "http://192.0.2.1:1");
}

/// With options as well.
fn typed(
    options: &[(&crate::config::keys::Key, &str)],
    pairs: &[(&str, &str)],
    file: &str,
) -> Result<Config, Mistakes> {
    let lookup = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let mut flags = Flags::default();
    for (key, value) in options {
        flags.set(key, Some(*value));
    }
    load(
        Sources { flags: &flags, env: &lookup, saved: &|_| None, machine: &in_a_tailnet },
        Some((Path::new("gateway.yaml"), file)),
    )
}

#[test]
fn options_of_the_access_go_before_environment_and_file() {
    use crate::config::keys::ADMIN_ACCESS_MODE as MODE;
    use crate::config::keys::PASSWORD_FILE as FILE;
    let environment = [("GATEWAY_ADMIN_ACCESS_MODE", "token"), ("SIGILUM_GATEWAY_PASSWORD", "a long password of old")];
    let file = "admin: {access_mode: hybrid, password_file: /etc/other}\n";
    let config = typed(&[(&MODE, "password"), (&FILE, "/run/password")], &environment, file).unwrap();
    assert_eq!(config.admin.mode.name(), "password");
    let Some(GivenSecret::File(named)) = &config.admin.password else { panic!("{:?}", config.admin.password) };
    assert_eq!(named, Path::new("/run/password"));
    // One that does not count need not be a good one either.
    let poor = [("SIGILUM_GATEWAY_PASSWORD", "short")];
    assert_eq!(lines(typed(&[(&MODE, "password"), (&FILE, "/run/password")], &poor, "")), Vec::<String>::new());
    // The other way round as well.
    let config = typed(&[(&MODE, "token")], &[("SIGILUM_GATEWAY_PASSWORD", "a long password of old")], "").unwrap();
    assert_eq!(config.admin.mode.name(), "token");
    // Somebody who names a password means that it counts.
    let idle = lines(typed(&[(&FILE, "/run/password")], &[("GATEWAY_ADMIN_ACCESS_MODE", "token")], ""));
    assert_eq!(idle, ["--password-file: counts for nothing in mode token: add --auth password"]);
}
