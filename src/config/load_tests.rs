//! Tests of the loader: precedence, bounds, every mistake with its place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code may panic"
)]

use proptest::prelude::*;

use super::*;
use crate::config::Machine;
use crate::config::parts::AccessMode;

const KEY: &str = "ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=";

fn from(pairs: &[(&str, &str)], file: Option<&str>, flags: &Flags) -> Result<Config, Mistakes> {
    let lookup = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let sources = Sources { flags, env: &lookup, saved: &|_| None, machine: &Machine::default };
    load(sources, file.map(|text| (Path::new("gateway.yaml"), text)))
}

fn env(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
    from(pairs, None, &Flags::default())
}

fn yaml(text: &str) -> Result<Config, Mistakes> {
    from(&[], Some(text), &Flags::default())
}

fn lines(result: Result<Config, Mistakes>) -> Vec<String> {
    result.unwrap_err().to_string().lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn variables_that_set_nothing_are_told() {
    let config = env(&[("GATEWAY_PROXY_TIMEOUT_SECONDS", "120"), ("GATEWAY_TRUSTED_PROXY_CIDRS", " ")]).unwrap();
    let told: Vec<_> = config.warnings.iter().map(|warning| warning.line(None)).collect();
    let expected = "GATEWAY_PROXY_TIMEOUT_SECONDS: sets nothing here: each connection has response_timeout_ms and max_stream_seconds";
    assert_eq!(told, [expected]);
    let read: Vec<_> = keys::environment().collect();
    assert!(keys::UNREAD.iter().all(|(name, _)| !read.contains(name)));
}

#[test]
fn nothing_set_is_the_documented_default() {
    let config = env(&[("HOME", "/h")]).unwrap();
    let settings = Settings { allow_loopback: true, log_level: "info".to_owned(), ..Settings::default() };
    assert_eq!(config.settings, settings);
    assert_eq!(config.paths.home, Path::new("/h/.sigilum-workspace"));
    assert_eq!(config.paths.data_dir, Path::new("/h/.local/share/sigilum-gateway"));
    assert_eq!(config.paths.run_dir, Path::new("/h/.local/share/sigilum-gateway/run"));
    let shown: Vec<_> = config.listen.admin.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["127.0.0.1:38100", "[::1]:38100"]);
    assert_eq!((config.replay_capacity, config.drain.as_secs(), config.upstream_port), (2_000_000, 15, 11_100));
    assert_eq!(config.admin.mode, AccessMode::Token);
    assert!(config.namespace.is_none() && config.master_key.is_none() && config.approvals.is_empty());
}

#[test]
fn option_beats_environment_beats_file_beats_default() {
    let file = "gateway: {addr: ':1001', namespace: from-file}\nlimits: {max_age_seconds: 100}\n";
    let mut flags = Flags::default();
    flags.set(&keys::ADMIN_ADDR, Some(":1003"));
    let config = from(&[("GATEWAY_ADDR", ":1002"), ("SIGILUM_NAMESPACE", "from-env")], Some(file), &flags).unwrap();
    assert_eq!(config.listen.admin[0].port(), 1003);
    assert_eq!(config.namespace.unwrap().as_str(), "from-env");
    assert_eq!(config.settings.max_age.as_secs(), 100);
    assert_eq!(config.settings.max_body_bytes, 2_097_152);
    let config = from(&[("GATEWAY_ADDR", ":1002")], Some(file), &Flags::default()).unwrap();
    assert_eq!(config.listen.admin[0].port(), 1002);
    assert_eq!(yaml(file).unwrap().listen.admin[0].port(), 1001);
}

#[test]
fn saved_defaults_are_weaker_than_the_file() {
    let saved = |name: &str| (name == "GATEWAY_SIGILUM_NAMESPACE").then(|| "saved".to_owned());
    let flags = Flags::default();
    let namespace = |file: Option<&str>| {
        let sources = Sources { flags: &flags, env: &|_| None, saved: &saved, machine: &Machine::default };
        load(sources, file.map(|text| (Path::new("g"), text))).unwrap().namespace.unwrap().to_string()
    };
    assert_eq!(namespace(None), "saved");
    assert_eq!(namespace(Some("gateway: {namespace: filed}")), "filed");
}

#[test]
fn the_first_name_of_a_variable_wins_and_blank_is_unset() {
    let config = env(&[("SIGILUM_NAMESPACE", "one"), ("GATEWAY_SIGILUM_NAMESPACE", "two")]).unwrap();
    assert_eq!(config.namespace.unwrap().as_str(), "one");
    let config = env(&[("SIGILUM_NAMESPACE", "  "), ("GATEWAY_SIGILUM_NAMESPACE", "two")]).unwrap();
    assert_eq!(config.namespace.unwrap().as_str(), "two");
}

#[test]
fn three_mistakes_of_a_file_are_three_lines_with_their_places() {
    let text = "gateway:\n  adr: ':38100'\nlimits:\n  max_body_bytes: lots\napprovals:\n  - namespace: Demo\n    public_key: x\n    service: demo-service\n";
    let found = lines(yaml(text));
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with("gateway.yaml:2:3: unknown key \"adr\"; gateway knows"), "{}", found[0]);
    assert!(found[1].starts_with("gateway.yaml:4:19: limits.max_body_bytes must be a whole number, found text"));
    assert!(found[2].starts_with("gateway.yaml:6:16: namespace may contain only"), "{}", found[2]);
    assert!(found[3].starts_with("gateway.yaml:7:17: public_key must be 'ed25519:'"), "{}", found[3]);
}

#[test]
fn mistakes_of_every_source_are_reported_together() {
    let mut flags = Flags::default();
    flags.set(&keys::INGRESS_ADDR, Some("example.com:1"));
    let found = lines(from(
        &[("GATEWAY_ROTATION_ENFORCEMENT", "maybe"), ("GATEWAY_ALLOW_PRIVATE", "perhaps")],
        Some("limits: {stranger_rate_per_second: 0}"),
        &flags,
    ));
    assert_eq!(
        found,
        [
            "gateway.yaml:1:36: limits.stranger_rate_per_second must be a whole number from 1 to 100000",
            "GATEWAY_ALLOW_PRIVATE: must be true or false",
            "GATEWAY_ROTATION_ENFORCEMENT: must be off, warn or block",
            "--ingress-addr: must be :PORT, IP:PORT, [IPv6]:PORT or localhost:PORT",
        ]
    );
}

#[test]
fn the_settings_that_would_open_the_gate_stop_the_start() {
    for (name, value) in [("GATEWAY_ALLOW_UNSIGNED_PROXY", "true"), ("GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS", "off")] {
        let found = lines(env(&[(name, value)]));
        assert!(found.len() == 1 && found[0].starts_with(name), "{found:?}");
    }
    env(&[("GATEWAY_ALLOW_UNSIGNED_PROXY", "false"), ("GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS", "1")]).unwrap();
    assert!(env(&[("GATEWAY_ALLOW_UNSIGNED_PROXY", "perhaps")]).is_err());
}

#[test]
fn every_bound_holds_at_its_edge() {
    let edges = [
        ("GATEWAY_MAX_REQUEST_BODY_BYTES", "1", "67108864", "0", "67108865"),
        ("SIGILUM_TIMESTAMP_TOLERANCE_SECONDS", "1", "600", "0", "3601"),
        ("SIGILUM_NONCE_TTL_SECONDS", "300", "86400", "299", "86401"),
        ("GATEWAY_REPLAY_CAPACITY", "1000", "100000000", "999", "100000001"),
        ("GATEWAY_STRANGER_RATE_PER_SECOND", "1", "100000", "0", "100001"),
        ("GATEWAY_ROTATION_GRACE_DAYS", "0", "3650", "-1", "3651"),
        ("GATEWAY_SHUTDOWN_TIMEOUT_SECONDS", "1", "3600", "0", "3601"),
        ("GATEWAY_CLAIMS_GRACE_SECONDS", "0", "86400", "-1", "86401"),
        ("GATEWAY_CLAIMS_CACHE_TTL_SECONDS", "1", "86400", "0", "86401"),
        ("GATEWAY_CLAIMS_CACHE_REFRESH_SECONDS", "1", "3600", "0", "3601"),
        ("GATEWAY_CLAIMS_CACHE_MAX_APPROVED", "1", "10000000", "0", "10000001"),
        ("GATEWAY_CLAIM_REGISTRATION_RATE_LIMIT_PER_MINUTE", "0", "100000", "-1", "100001"),
        ("GATEWAY_TRUSTED_HOPS", "0", "16", "1 ", "17"),
        ("GATEWAY_ENVOY_CONCURRENCY", "0", "512", "0x1", "513"),
        ("NATIVE_PORT", "1", "65535", "0", "65536"),
        ("UPSTREAM_PORT", "1", "65535", "0", "65536"),
    ];
    for (name, least, most, below, above) in edges {
        for good in [least, most] {
            assert!(env(&[(name, good)]).is_ok(), "{name}={good}");
        }
        for bad in [below, above, "99999999999999999999999", "x"] {
            assert!(env(&[(name, bad)]).is_err(), "{name}={bad}");
        }
    }
}

#[test]
fn a_nonce_may_not_be_forgotten_before_its_signature_expires() {
    let found = lines(env(&[("SIGILUM_TIMESTAMP_TOLERANCE_SECONDS", "601")]));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("must not be below the age of a signature (601 s)"), "{found:?}");
}

#[test]
fn a_bare_port_is_bound_on_the_bind_address() {
    let config = env(&[("GATEWAY_BIND", "0.0.0.0")]).unwrap();
    assert_eq!(config.listen.ingress, ["0.0.0.0:38000".parse().unwrap()]);
    assert!(!config.settings.allow_loopback, "only a gateway of this machine alone may reach this machine");
    // The read-only face of Envoy stays where nobody else can see it.
    assert!(address::all_loopback(&config.listen.envoy_admin));
    assert!(env(&[("GATEWAY_ENVOY_ADMIN_ADDR", "0.0.0.0:1")]).is_err());
    for (name, text) in [("GATEWAY_PORT", "40000"), ("GATEWAY_ADDR", "localhost:40000")] {
        assert_eq!(env(&[(name, text)]).unwrap().listen.admin, Bind::Loopback.at(40000));
    }
    // The ports of the original stack, by the names it gave them.
    let ports = env(&[("ENVOY_INGRESS_PORT", "40001"), ("ENVOY_ADMIN_PORT", "40002")]).unwrap().listen;
    assert_eq!((ports.ingress, ports.envoy_admin), (Bind::Loopback.at(40001), Bind::Loopback.at(40002)));
    for bad in ["0", "65536", "host:1", "127.0.0.1", "127.0.0.1:0", ":0", ":65536", "[::1]", ":", ","] {
        assert!(env(&[("GATEWAY_ADDR", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn two_listeners_do_not_share_a_port() {
    let found = lines(env(&[("GATEWAY_ADDR", ":38000")]));
    assert_eq!(found, ["GATEWAY_ADDR: port 38000 is also the port of gateway.ingress_addr"]);
    assert!(env(&[("GATEWAY_ADDR", "0.0.0.0:38000")]).is_err());
    assert!(env(&[("GATEWAY_ADDR", "127.0.0.1:38100,127.0.0.1:38100")]).unwrap().listen.admin.len() == 1);
}

#[test]
fn an_unguarded_admin_api_stays_on_loopback() {
    let found = lines(env(&[("GATEWAY_ADMIN_ACCESS_MODE", "loopback"), ("GATEWAY_ADDR", "10.0.0.1:1")]));
    assert!(
        found.len() == 1 && found[0].starts_with("refusing to bind gateway to 10.0.0.1:1 without auth"),
        "{found:?}"
    );
    env(&[("GATEWAY_ADMIN_ACCESS_MODE", "hybrid"), ("GATEWAY_ADDR", "10.0.0.1:1")]).unwrap();
}

#[test]
fn secrets_come_from_the_environment_and_are_never_repeated() {
    let config = env(&[("GATEWAY_MASTER_KEY", "k3y"), ("GATEWAY_ADMIN_TOKEN", "0123456789abcdef")]).unwrap();
    assert_eq!(config.master_key.as_ref().unwrap().expose(), "k3y");
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    let failed = env(&[("GATEWAY_ADMIN_TOKEN", "canary token"), ("GATEWAY_MASTER_KEY", "canary")]).unwrap_err();
    assert!(!failed.to_string().contains("canary"), "{failed}");
    assert!(yaml("gateway: {master_key: x}").is_err(), "the file cannot hold it");
}

#[test]
fn approvals_are_read_with_their_end() {
    let text = format!(
        "approvals:\n  - namespace: demo\n    public_key: {KEY}\n    service: demo-service\n  - namespace: demo\n    public_key: '{KEY}'\n    service: other-service\n    expires_at: 2027-01-31T12:00:00Z\n"
    );
    let approvals = yaml(&text).unwrap().approvals;
    assert_eq!(approvals.len(), 2);
    assert_eq!(approvals[0].expires_at, None);
    assert_eq!(approvals[1].expires_at.unwrap().rfc3339(), "2027-01-31T12:00:00Z");
    assert_eq!(approvals[1].public_key.text(), KEY);
}

#[test]
fn ten_thousand_approvals_are_read() {
    let list: String = (0..10_000)
        .map(|number| format!("- {{namespace: demo-{number}, public_key: '{KEY}', service: demo-service}}\n"))
        .collect();
    assert_eq!(yaml(&format!("approvals:\n{list}")).unwrap().approvals.len(), 10_000);
}

#[test]
fn what_is_wrong_with_an_approval_is_said_where_it_is() {
    let text = format!(
        "approvals:\n- {{namespace: demo, public_key: '{KEY}', service: abc}}\n- {{namespace: demo, public_key: '{KEY}', service: abc, expires_at: null}}\n- {{namespace: demo, service: x, extra: 1}}\n- word\n- {{namespace: 123, public_key: '{KEY}', service: abc, expires_at: soon}}\n"
    );
    let found = lines(yaml(&text));
    assert_eq!(
        found,
        [
            "gateway.yaml:3:3: the same approval stands in line 2 already",
            "gateway.yaml:4:3: the approval has no public_key",
            "gateway.yaml:4:30: service must have 3 to 64 characters",
            "gateway.yaml:4:33: unknown key \"extra\"; an approval knows namespace, public_key, service, expires_at",
            "gateway.yaml:5:3: an approval must be a mapping with namespace, public_key and service, found text",
            "gateway.yaml:6:15: namespace must be text, found a number: put it in quotes",
            "gateway.yaml:6:114: expires_at must be a time such as 2027-01-31T12:00:00Z",
        ]
    );
}

#[test]
fn the_form_of_the_file_is_judged_too() {
    let cases = [
        ("- a\n", "gateway.yaml:1:1: the file must be a mapping, found a list"),
        ("a: b\na: c\n", "gateway.yaml:1:1: unknown key \"a\""),
        ("gateway: {bind: loopback}\ngateway: {}\n", "gateway.yaml:2:1: gateway stands here twice, first in line 1"),
        ("gateway: [1\n", "gateway.yaml:2:1: not valid YAML"),
        ("gateway: &x {bind: loopback}\nlimits: *x\n", "gateway.yaml:2:9: aliases"),
        ("gateway: !secret {bind: loopback}\n", "gateway.yaml:1:10: tags"),
        ("gateway: {}\n---\ngateway: {}\n", "gateway.yaml:2:1: only one YAML document"),
        ("? [a]\n: b\n", "gateway.yaml:1:3: a key must be a plain word"),
        ("limits: 5\n", "gateway.yaml:1:9: limits must be a mapping, found a number"),
        ("connections: {}\n", "gateway.yaml:1:14: connections must be a list, found a mapping"),
        ("approvals: {}\n", "gateway.yaml:1:12: approvals must be a list, found a mapping"),
        (
            "limits: {max_age_seconds: '5'}\n",
            "gateway.yaml:1:27: limits.max_age_seconds must be a whole number, found text",
        ),
        ("limits: {max_age_seconds: 1.5}\n", "gateway.yaml:1:27: limits.max_age_seconds must be a whole number from"),
        (
            "gateway: {allow_private: 1}\n",
            "gateway.yaml:1:26: gateway.allow_private must be true or false, found a number",
        ),
        ("gateway: {authorities: [a, [b]]}\n", "gateway.yaml:1:28: gateway.authorities must be text, found a list"),
    ];
    for (text, expected) in cases {
        let found = lines(yaml(text));
        assert!(found.iter().any(|line| line.starts_with(expected)), "{text:?}: {found:#?}");
    }
}

#[test]
fn an_empty_file_and_empty_sections_say_nothing() {
    for text in [
        "",
        "\n# only a comment\n",
        "---\n",
        "gateway:\nlimits: ~\napprovals:\n",
        "gateway:\n  namespace:\n",
        "\u{feff}gateway: {}\n",
    ] {
        let config = yaml(text).unwrap_or_else(|mistakes| panic!("{text:?}: {mistakes}"));
        assert_eq!(config.settings.max_age.as_secs(), 300);
    }
}

#[test]
fn deep_nesting_and_aliases_cost_nothing() {
    let deep = format!("gateway: {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(
        lines(yaml(&deep)).iter().any(|line| line.contains("nested too deeply") || line.contains("not valid YAML"))
    );
    let laughs = (1..30).fold("a0: &a0 [x]\n".to_owned(), |text, level: u32| {
        format!("{text}a{level}: &a{level} [*a{0},*a{0},*a{0}]\n", level - 1)
    });
    assert!(lines(yaml(&laughs)).iter().any(|line| line.contains("aliases")));
}

#[test]
fn authorities_are_hosts_with_or_without_port() {
    let config =
        yaml("gateway:\n  authorities: [Gateway.Example.com, 'gw:8443', '[2001:db8::1]:443', gw:8443]\n").unwrap();
    assert_eq!(config.settings.authorities, ["gateway.example.com", "gw:8443", "[2001:db8::1]:443"]);
    let config = env(&[("GATEWAY_AUTHORITIES", "a.example, b.example")]).unwrap();
    assert_eq!(config.settings.authorities, ["a.example", "b.example"]);
    for bad in ["https://a", "a/b", "u@a", "a:0", "a:x", "a b", "é.example", "[::1", "[x]:1", ":80", "a:1:2"] {
        assert!(env(&[("GATEWAY_AUTHORITIES", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn claims_come_from_the_api_unless_they_are_switched_off() {
    let config = env(&[]).unwrap();
    assert_eq!((config.claims.source, config.api_url_set), (ClaimsSource::Api, false));
    assert_eq!((config.claims.refresh.as_secs(), config.claims.ttl.as_secs()), (10, 30));
    assert_eq!((config.claims.max_approvals, config.claims.registrations_per_minute), (1_000_000, 30));
    assert!(!config.settings.auto_register, "there is no namespace");
    let named = [("SIGILUM_NAMESPACE", "acme"), ("SIGILUM_REGISTRY_URL", "http://127.0.0.1:8787/")];
    let config = env(&named).unwrap();
    assert!(config.settings.auto_register && config.api_url_set);
    assert_eq!(config.settings.gateway_namespace, "acme");
    let off = "gateway: {namespace: acme, api_url: 'https://a.example', claims_grace: 5}\n\
               claims: {source: off, ttl_seconds: 4, refresh_seconds: 9, max_approvals: 7}\n";
    let config = yaml(off).unwrap();
    assert_eq!((config.claims.source, config.api_url_set), (ClaimsSource::Off, true));
    assert!(!config.settings.auto_register);
    assert_eq!(config.claims.refresh.as_secs(), 4, "never longer than they hold");
    assert_eq!((config.settings.claims_hold.as_secs(), config.claims.max_approvals), (9, 7));
    let quiet =
        yaml("gateway: {namespace: acme}\nclaims: {auto_register: false, registrations_per_minute: 0}").unwrap();
    assert!(!quiet.settings.auto_register && quiet.claims.registrations_per_minute == 0);
    assert!(yaml("claims: {source: somewhere}").is_err() && env(&[("GATEWAY_CLAIMS_SOURCE", "no")]).is_err());
}

#[test]
fn log_words_are_words_also_where_yaml_sees_truth_values() {
    for (text, level, decisions) in [
        ("logging: {level: off, decisions: false}", "off", DecisionLog::Off),
        ("logging: {level: 'debug', decisions: true}", "debug", DecisionLog::All),
        ("logging: {decisions: denied}", "info", DecisionLog::Denied),
    ] {
        let config = yaml(text).unwrap();
        assert_eq!((config.log_level.as_str(), config.decisions), (level, decisions));
    }
    assert!(env(&[("SIGILUM_LOG", "loud")]).is_err() && yaml("logging: {decisions: 5}").is_err());
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    assert_eq!(env(&[]).unwrap().admin.allowed_origins, None);
    let origins = |text: &str| env(&[("GATEWAY_ALLOWED_ORIGINS", text)]).map(|config| config.admin.allowed_origins);
    let wanted = ["https://a.example", "http://localhost:3000", "http://[::1]:1"].map(str::to_owned);
    let found = origins("https://A.example:443, http://localhost:3000,http://[::1]:1").unwrap();
    assert_eq!(found.as_deref(), Some(&wanted[..]));
    assert_eq!(yaml("admin: {allowed_origins: []}").unwrap().admin.allowed_origins.as_deref(), Some(&[][..]));
    for bad in ["*", "https://a/", "ftp://a", "https://u@a", "https://a?b", "a.example"] {
        assert!(origins(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_file_is_found_by_home_or_by_name() {
    let place = |pairs: &[(&str, &str)]| {
        let lookup = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        locate(Sources { flags: &Flags::default(), env: &lookup, saved: &|_| None, machine: &Machine::default })
    };
    let home = place(&[("HOME", "/h")]);
    assert_eq!((home.path.to_str(), home.required), (Some("/h/.sigilum-workspace/gateway.yaml"), false));
    // Where the person keeps identities, there the gateway keeps its own, unless it is told otherwise.
    let person = [("HOME", "/h"), ("SIGILUM_HOME", "/p")];
    assert_eq!(place(&person).path, Path::new("/p/gateway.yaml"));
    let both = [person.as_slice(), &[("GATEWAY_SIGILUM_HOME", "/g")]].concat();
    assert_eq!(place(&both).path, Path::new("/g/gateway.yaml"));
    let named = place(&[("HOME", "/h"), ("GATEWAY_CONFIG_FILE", "~/g.yaml")]);
    assert_eq!((named.path.to_str(), named.required), (Some("/h/g.yaml"), true));
}

#[test]
fn every_key_is_declared_once_and_its_default_can_be_read() {
    let unique = |names: Vec<&str>| {
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), names.len(), "{names:?}");
    };
    unique(keys::ALL.iter().filter_map(|key| key.yaml).collect());
    unique(keys::environment().collect());
    unique(keys::ALL.iter().filter_map(|key| key.flag).collect());
    assert!(keys::ALL.iter().all(|key| !key.meaning.is_empty() && (key.yaml.is_some() || !key.env.is_empty())));
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "\\PC{0,400}") {
        let _ = yaml(&text);
    }

    #[test]
    fn no_yaml_like_text_makes_the_loader_panic(
        text in "(gateway|limits|approvals|addr|service|authorities|[\\[\\]{}:,&*!|>?'\"~# \n-]|\\PC){0,60}"
    ) {
        if let Err(mistakes) = yaml(&text) {
            let count = text.lines().count().max(1) + 1;
            for mistake in mistakes.list() {
                if let Place::File { line, .. } = mistake.place {
                    prop_assert!(line >= 1 && line <= count, "{} of {}", line, count);
                }
            }
        }
    }

    #[test]
    fn no_environment_makes_the_loader_panic(value in "\\PC{0,80}") {
        for name in keys::environment() {
            let _ = env(&[(name, &value)]);
        }
    }
}

#[test]
fn the_port_is_that_of_the_strongest_source_that_names_one() {
    let file = "gateway: {addr: ':4', ingress_addr: ':14'}";
    for case in 0..16_u8 {
        let has = |bit: u8| case & (1 << bit) != 0;
        let mut flags = Flags::default();
        flags.set(&keys::ADMIN_ADDR, has(0).then_some(":1"));
        flags.set(&keys::INGRESS_ADDR, has(0).then_some(":11"));
        let mut pairs = Vec::new();
        if has(1) {
            pairs.extend([("SIGILUM_GATEWAY_PORT", "2"), ("SIGILUM_LISTEN_PORT", "12")]);
        }
        if has(2) {
            pairs.extend([("GATEWAY_ADDR", "0.0.0.0:3"), ("GATEWAY_INGRESS_ADDR", ":13")]);
        }
        let config = from(&pairs, has(3).then_some(file), &flags).unwrap();
        let strongest = (0..4).find(|bit| has(*bit));
        let (admin, ingress) = match strongest {
            Some(bit) => (u16::from(bit) + 1, u16::from(bit) + 11),
            None => (38_100, 38_000),
        };
        assert_eq!((config.listen.admin[0].port(), config.listen.ingress[0].port()), (admin, ingress), "{case:04b}");
        // A bare port is one of the bind address, whatever a weaker source has for an address.
        let open = config.listen.admin.iter().any(|address| !address.ip().is_loopback());
        assert_eq!(open, strongest == Some(2), "{case:04b}");
    }
}

#[test]
fn a_profile_changes_folders_and_nothing_that_is_named() {
    let config = env(&[("HOME", "/h"), ("SIGILUM_PROFILE", "staging")]).unwrap();
    assert_eq!(config.paths.home, Path::new("/h/.sigilum-workspace-staging"));
    assert_eq!(config.paths.data_dir, Path::new("/h/.local/share/sigilum-gateway-staging"));
    assert_eq!(config.paths.run_dir, Path::new("/h/.local/share/sigilum-gateway-staging/run"));
    let named = [("HOME", "/h"), ("SIGILUM_PROFILE", "staging"), ("SIGILUM_HOME", "/s"), ("GATEWAY_DATA_DIR", "/d")];
    let config = env(&named).unwrap();
    assert_eq!((config.paths.home.as_path(), config.paths.data_dir.as_path()), (Path::new("/s"), Path::new("/d")));
    let config = env(&[("HOME", "/h"), ("SIGILUM_PROFILE", "default")]).unwrap();
    assert_eq!(config.paths.home, Path::new("/h/.sigilum-workspace"));
    assert_eq!(lines(env(&[("SIGILUM_PROFILE", "../x")])).len(), 1);
}
