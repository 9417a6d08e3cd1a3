//! Tests of who may reach the gateway, as configured.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use std::path::Path;

use crate::config::Config;
use crate::config::Flags;
use crate::config::Machine;
use crate::config::Mistakes;
use crate::config::Sources;
use crate::config::load;

fn from(pairs: &[(&str, &str)], file: &str) -> Result<Config, Mistakes> {
    let lookup = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let flags = Flags::default();
    load(
        Sources { flags: &flags, env: &lookup, saved: &|_| None, machine: &Machine::default },
        Some((Path::new("gateway.yaml"), file)),
    )
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
    for (bind, open) in
        [("loopback", None), ("127.0.0.1", None), ("::1", None), ("0.0.0.0", Some("0.0.0.0")), ("::", Some("[::]"))]
    {
        for mode in ["token", "hybrid", "loopback"] {
            for (kind, token) in tokens {
                let mut pairs = vec![("GATEWAY_BIND", bind), ("GATEWAY_ADMIN_ACCESS_MODE", mode)];
                pairs.extend(token.map(|token| ("GATEWAY_ADMIN_TOKEN", token)));
                let found = lines(from(&pairs, ""));
                let case = format!("{bind} {mode} {kind}: {found:?}");
                let without =
                    mode == "loopback" || matches!(kind, "empty" | "blank" | "placeholder" | "short placeholder");
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
