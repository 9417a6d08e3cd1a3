//! Who is let in: every route, method, mode and caller over the real router and sockets; TLS and its certificates.

use std::net::UdpSocket;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SanType;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::*;
use crate::admin::router::AuthClass;
use crate::domain::network::Network;
use crate::sys::files::write_private;
use crate::sys::tls::serving::ClientFiles;
use crate::sys::tls::serving::ServingFiles;
use crate::sys::tls::trust::ServerTrust;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"];

/// What is open to everybody, and nothing else is.
const OPEN: [(&str, &str); 8] = [
    ("get", "/health"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/health/startup"),
    ("get", "/healthz"),
    ("get", "/ready"),
    ("get", "/readyz"),
    ("get", "/openapi.json"),
];

/// Method, path and class of every route as the router has it, and whether its description says that it is open.
fn classes() -> Vec<(String, String, AuthClass, bool)> {
    let of = |class: AuthClass| {
        let described = serde_json::to_value(class.routes().into_openapi()).unwrap();
        let paths = described["paths"].as_object().unwrap().clone();
        let of_path = move |(path, item): (String, serde_json::Value)| {
            let operations = item.as_object().unwrap().clone().into_iter();
            let one = move |(method, operation): (String, serde_json::Value)| {
                (method, path.clone(), class, operation["security"].is_array())
            };
            operations.map(one).collect::<Vec<_>>()
        };
        paths.into_iter().flat_map(of_path).collect::<Vec<_>>()
    };
    AuthClass::ALL.into_iter().flat_map(of).collect()
}

#[test]
fn every_route_has_a_class_and_its_description_says_the_same() {
    let all = classes();
    for (method, path, class, described_open) in &all {
        assert_eq!(*described_open, *class == AuthClass::Open, "{method} {path}");
        assert_eq!(OPEN.contains(&(method.as_str(), path.as_str())), *class == AuthClass::Open, "{method} {path}");
    }
    assert_eq!(all.iter().filter(|(.., class, _)| *class == AuthClass::Open).count(), OPEN.len());
    // A path has one class, whatever the method.
    for (method, path, class, _) in &all {
        assert!(all.iter().all(|(_, other, known, _)| other != path || known == class), "{method} {path}");
    }
}

/// Method and path of every operation, with paths filled in, and whether it is open to everybody; from the table the
/// router itself is made of. Every other method of a path is in it too.
fn operations() -> Vec<(&'static str, String, bool)> {
    let (mut found, mut all) = (Vec::new(), classes());
    all.dedup_by(|one, other| one.1 == other.1);
    for (_, path, class, _) in all {
        let filled: Vec<_> =
            path.split('/').map(|part| if part.starts_with('{') { "nothing-there" } else { part }).collect();
        found.extend(METHODS.map(|method| (method, filled.join("/"), class == AuthClass::Open)));
    }
    let guarded = ["/api/admin", "/api/admin/nothing/there", "/api/admin/connections/nothing-there/nothing"];
    found.extend(guarded.iter().flat_map(|path| METHODS.map(|method| (method, (*path).to_owned(), false))));
    assert!(found.iter().filter(|(_, _, open)| !open).count() >= 6 * METHODS.len(), "{found:?}");
    found
}

/// Whether an answer came from behind the access rule: whatever it says there.
fn is_let_in(answer: &Answer) -> bool {
    let code = answer.header("x-sigilum-code").unwrap_or_default();
    !code.starts_with("ADMIN_") && !matches!(answer.status, 401 | 403 | 429)
}

#[tokio::test]
async fn every_route_and_method_asks_who_comes_in_every_mode() {
    type Caller<'a> = (&'a str, &'a [(&'a str, &'a str)], [bool; 3]);
    const TOKEN_PAIR: (&str, &str) = ("x-sigilum-admin-token", TOKEN);
    // What the caller says, and whether it is let in by mode: token, hybrid, loopback.
    let callers: [Caller<'_>; 9] = [
        ("nobody", &[], [false, true, true]),
        ("the token", &[TOKEN_PAIR], [true, true, true]),
        ("the token as bearer", &[("authorization", &format!("Bearer {TOKEN}"))], [true, true, true]),
        ("a wrong token", &[("x-sigilum-admin-token", "wrong-token-0123456789")], [false, true, true]),
        ("behind a proxy", &[("x-forwarded-for", "127.0.0.1")], [false, false, false]),
        ("behind two proxies", &[("x-forwarded-for", "127.0.0.1, 192.0.2.1")], [false, false, false]),
        ("behind a proxy that says so otherwise", &[("forwarded", "for=127.0.0.1")], [false, false, false]),
        ("behind a proxy with the token", &[("x-forwarded-for", "127.0.0.1"), TOKEN_PAIR], [true, true, false]),
        ("a real ip", &[("x-real-ip", "::1")], [false, false, false]),
    ];
    let modes = [
        (AccessMode::Token, "ADMIN_TOKEN_REQUIRED"),
        (AccessMode::Hybrid, "ADMIN_TOKEN_OR_LOOPBACK_REQUIRED"),
        (AccessMode::None, "ADMIN_LOOPBACK_REQUIRED"),
    ];
    for (place, (mode, code)) in modes.into_iter().enumerate() {
        let gateway = Gateway::start_with(|config| config.access_mode = mode).await;
        for (method, path, open) in operations() {
            for (caller, headers, may) in callers {
                let answer = gateway.send(method, &path, headers, "").await;
                let case = format!("{mode:?} {method} {path} {caller}: {answer:?}");
                if open || may[place] {
                    assert!(is_let_in(&answer), "{case}");
                } else {
                    assert_eq!((answer.status, answer.header("x-sigilum-code")), (403, Some(code)), "{case}");
                }
            }
        }
        gateway.end().await;
    }
}

/// An address of this machine that is not loopback, where it has one. Nothing is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[tokio::test]
async fn a_client_of_elsewhere_gains_nothing_by_what_it_says() {
    let Some(ip) = own_address() else { return };
    let open = |config: &mut AdminConfig| {
        config.access_mode = AccessMode::Hybrid;
        config.addresses = vec!["0.0.0.0:0".parse().unwrap()];
    };
    let mut gateway = Gateway::start_with(open).await;
    gateway.address.set_ip(ip);
    for said in [
        &[][..],
        &[("x-forwarded-for", "127.0.0.1")],
        &[("x-forwarded-for", "127.0.0.1, 10.0.0.1"), ("host", "localhost")],
        &[("forwarded", "for=127.0.0.1"), ("host", "127.0.0.1")],
        &[("x-real-ip", "127.0.0.1"), ("host", "localhost")],
        &[("host", "localhost")],
    ] {
        let answer = gateway.send("GET", CONNECTIONS, said, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "ADMIN_TOKEN_OR_LOOPBACK_REQUIRED"), "{said:?}");
    }
    // After ten wrong tokens more of them are too many. Others may share the address: the right one is let in.
    let wrong = [("x-sigilum-admin-token", "wrong")];
    for _ in 0..10 {
        assert_eq!(gateway.send("GET", CONNECTIONS, &wrong, "").await.status, 403);
    }
    for _ in 0..20 {
        let locked = gateway.send("GET", CONNECTIONS, &wrong, "").await;
        assert_eq!((locked.status, locked.code().as_str()), (429, "AUTH_RATE_LIMITED"));
        let seconds: u32 = locked.header("retry-after").unwrap().parse().unwrap();
        assert!((240..=300).contains(&seconds), "{seconds}");
        assert_eq!(gateway.ask("GET", CONNECTIONS, "").await.status, 200);
    }
    assert_eq!(gateway.send("GET", CONNECTIONS, &[], "").await.status, 403, "no token is no guess");
    gateway.address.set_ip("127.0.0.1".parse().unwrap());
    assert_eq!(gateway.ask("GET", CONNECTIONS, "").await.status, 200);
}

#[tokio::test]
async fn wrong_tokens_of_pages_of_this_machine_are_counted_and_those_of_its_programs_are_not() {
    let gateway = Gateway::start().await;
    let origin = format!("http://localhost:{}", gateway.address.port());
    let page = [("origin", origin.as_str()), ("x-sigilum-admin-token", "wrong")];
    for _ in 0..10 {
        assert_eq!(gateway.send("GET", CONNECTIONS, &page, "").await.status, 403);
    }
    let eleventh = gateway.send("GET", CONNECTIONS, &page, "").await;
    assert_eq!((eleventh.status, eleventh.code().as_str()), (429, "AUTH_RATE_LIMITED"));
    assert!(eleventh.header("retry-after").unwrap().parse::<u32>().unwrap() >= 240);
    let right = [("origin", origin.as_str()), ("x-sigilum-admin-token", TOKEN)];
    assert_eq!(gateway.send("GET", CONNECTIONS, &right, "").await.status, 200);
    for _ in 0..20 {
        let program = gateway.send("GET", CONNECTIONS, &[("x-sigilum-admin-token", "wrong")], "").await;
        assert_eq!((program.status, program.code().as_str()), (403, "ADMIN_TOKEN_REQUIRED"));
    }
    assert_eq!(gateway.ask("GET", CONNECTIONS, "").await.status, 200);
}

/// A gateway in mode `password`, its password in a file of its folder.
async fn with_password_file(text: &str) -> (Gateway, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    write_private(&file, text.as_bytes()).unwrap();
    let kept = file.clone();
    let change = move |config: &mut AdminConfig| {
        config.access_mode = AccessMode::Password;
        config.password = Some(GivenSecret::File(kept));
    };
    (Gateway::start_in(folder, change).await, file)
}

#[tokio::test]
async fn in_mode_password_every_route_wants_the_password_in_either_header() {
    let (gateway, _) = with_password_file("the first passphrase\n").await;
    for (method, path, open) in operations() {
        for (headers, may) in [
            (&[][..], false),
            (&[("x-sigilum-admin-token", "the first passphrase")], true),
            (&[("authorization", "Bearer the first passphrase")], true),
        ] {
            let answer = gateway.send(method, &path, headers, "").await;
            let found = (answer.status, answer.header("x-sigilum-code"));
            if open || may {
                assert!(is_let_in(&answer), "{method} {path} {headers:?}: {answer:?}");
            } else {
                assert_eq!(found, (403, Some("ADMIN_PASSWORD_REQUIRED")), "{method} {path} {headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn wrong_passwords_of_this_machine_wait_after_ten_and_the_right_one_does_not() {
    let (gateway, _) = with_password_file("the first passphrase").await;
    let ask = async |password: &str| {
        let answer = gateway.send("GET", CONNECTIONS, &[("x-sigilum-admin-token", password)], "").await;
        (answer.status, answer.code())
    };
    let began = Instant::now();
    for number in 0..10 {
        assert_eq!(ask(&format!("guess {number}")).await, (403, "ADMIN_PASSWORD_REQUIRED".to_owned()));
    }
    // Each has a second to itself, less what the first ten took.
    for number in 0..2 {
        assert_eq!(ask(&format!("more {number}")).await, (429, "AUTH_RATE_LIMITED".to_owned()));
        assert_eq!(ask("the first passphrase").await.0, 200);
    }
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
    // While they wait, health compares nothing either.
    let details = async |password: &str| {
        let answer = gateway.send("GET", "/health/ready", &[("x-sigilum-admin-token", password)], "").await;
        answer.body.contains("conditions")
    };
    assert_eq!(ask("again").await.0, 429);
    assert_eq!(ask("again").await.0, 429);
    let waiting = gateway.send("GET", CONNECTIONS, &[("x-sigilum-admin-token", "and again")], "");
    let (_, told) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        details("the first passphrase").await
    });
    assert!(!told);
}

#[tokio::test]
async fn wrong_guesses_at_a_short_token_wait_as_those_at_a_password_do() {
    let gateway = Gateway::start_with(|config| config.token = Some(Secret::new("abc".to_owned()))).await;
    let ask = async |token: &str| {
        let answer = gateway.send("GET", CONNECTIONS, &[("x-sigilum-admin-token", token)], "").await;
        (answer.status, answer.code())
    };
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(ask("abd").await, (403, "ADMIN_TOKEN_REQUIRED".to_owned()));
    }
    assert_eq!(ask("abd").await, (429, "AUTH_RATE_LIMITED".to_owned()));
    assert_eq!(ask("abc").await.0, 200);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn another_password_in_its_file_counts_with_the_next_request_and_is_in_the_audit() {
    let (gateway, file) = with_password_file("the first passphrase").await;
    let ask = async |password: &str| {
        let answer = gateway.send("GET", "/api/admin/audit", &[("x-sigilum-admin-token", password)], "").await;
        (answer.status, answer.body)
    };
    assert_eq!(ask("the first passphrase").await.0, 200);
    write_private(&file, b"the second passphrase").unwrap();
    assert_eq!(ask("the first passphrase").await.0, 403);
    let (status, audit) = ask("the second passphrase").await;
    assert_eq!(status, 200);
    assert!(audit.contains("admin_password.rotate") && !audit.contains("passphrase"), "{audit}");
}

#[tokio::test]
async fn a_short_password_is_compared_once_a_second_where_too_many_were_wrong() {
    let (gateway, _) = with_password_file("a passphrase").await;
    let origin = format!("http://localhost:{}", gateway.address.port());
    let page = |password: &'static str| [("origin", origin.clone()), ("authorization", format!("Bearer {password}"))];
    let ask = async |password: &'static str| {
        let said = page(password);
        let headers: Vec<_> = said.iter().map(|(name, value)| (*name, value.as_str())).collect();
        gateway.send("GET", CONNECTIONS, &headers, "").await
    };
    for _ in 0..10 {
        assert_eq!(ask("wrong").await.code(), "ADMIN_PASSWORD_REQUIRED");
    }
    // Guesses as fast as they come: of those of a second one is compared, and nobody is told which.
    let began = Instant::now();
    let mut let_in = 0_u64;
    while began.elapsed() < Duration::from_millis(2_500) {
        let right = ask("a passphrase").await;
        if right.status == 200 {
            let_in += 1;
            continue;
        }
        let wrong = ask("wrong").await;
        for refused in [right, wrong] {
            assert_eq!((refused.status, refused.code().as_str()), (429, "AUTH_RATE_LIMITED"));
            assert_eq!(refused.header("retry-after"), Some("1"));
        }
    }
    let seconds = began.elapsed().as_secs() + 1;
    assert!((1..=seconds).contains(&let_in), "{let_in} of {seconds} seconds");
}

#[tokio::test]
async fn a_long_password_is_let_in_whatever_others_of_its_address_try() {
    let long = "0f".repeat(12);
    let (gateway, file) = with_password_file(&long).await;
    let origin = format!("http://localhost:{}", gateway.address.port());
    let ask = async |password: &str| {
        let said = [("origin", origin.as_str()), ("x-sigilum-admin-token", password)];
        let answer = gateway.send("GET", CONNECTIONS, &said, "").await;
        (answer.status, answer.code())
    };
    for _ in 0..10 {
        assert_eq!(ask("wrong").await, (403, "ADMIN_PASSWORD_REQUIRED".to_owned()));
    }
    for _ in 0..5 {
        assert_eq!(ask("wrong").await, (429, "AUTH_RATE_LIMITED".to_owned()));
        assert_eq!(ask(&long).await.0, 200);
    }
    // A short one in its place is one that could be guessed.
    write_private(&file, b"a passphrase").unwrap();
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(ask("a passphrase").await.0);
    }
    assert_eq!((told[0], told.contains(&429)), (200, true), "{told:?}");
}

fn behind_a_proxy(allow_loopback: bool) -> impl FnOnce(&mut AdminConfig) {
    move |config| {
        config.access_mode = AccessMode::TrustedProxy;
        config.token = None;
        config.password = Some(GivenSecret::Given(Secret::new("the first passphrase".to_owned())));
        config.proxy = Some(ProxyRule {
            proxies: vec![Network::parse("127.0.0.0/8").unwrap()],
            user_header: "x-user".to_owned(),
            required_headers: vec!["x-verified".to_owned()],
            allow_users: vec!["alice".to_owned()],
            allow_loopback,
        });
    }
}

#[tokio::test]
async fn the_user_of_a_trusted_proxy_is_the_actor_and_the_client_is_counted_from_the_right() {
    let gateway = Gateway::start_with(behind_a_proxy(true)).await;
    let user = [
        ("x-user", "alice"),
        ("x-verified", "1"),
        ("sigilum-subject", "mallory"),
        ("x-forwarded-for", "192.0.2.1, 203.0.113.9"),
    ];
    let made = gateway.send("POST", CONNECTIONS, &user, &connection("linear")).await;
    assert_eq!(made.status, 201, "{made:?}");
    let audit = gateway.send("GET", "/api/admin/audit?action=connection.create", &user, "").await.json();
    let entry = &audit["entries"][0];
    assert_eq!(
        (&entry["actor"], &entry["via"], &entry["address"]),
        (&"alice".into(), &"trusted-proxy".into(), &"203.0.113.9".into())
    );
}

#[tokio::test]
async fn what_a_proxy_says_amiss_is_refused_without_a_reason_on_every_route() {
    let gateway = Gateway::start_with(behind_a_proxy(true)).await;
    let here_is_none = Gateway::start_with(behind_a_proxy(false)).await;
    let good = [("x-user", "alice"), ("x-verified", "1")];
    for (method, path, open) in operations().into_iter().filter(|(.., open)| !open) {
        assert!(!open && is_let_in(&gateway.send(method, &path, &good, "").await), "{method} {path}");
        for (asked, headers) in [
            (&gateway, &[][..]),
            (&gateway, &[("x-user", "alice")]),
            (&gateway, &[("x-verified", "1")]),
            (&gateway, &[("x-user", "mallory"), ("x-verified", "1")]),
            (&gateway, &[("x-user", "alice"), ("x-user", "alice"), ("x-verified", "1")]),
            (&here_is_none, &good),
        ] {
            let answer = asked.send(method, &path, headers, "").await;
            let found = (answer.status, answer.header("x-sigilum-code"));
            assert_eq!(found, (403, Some("ADMIN_TRUSTED_PROXY_REQUIRED")), "{method} {path} {headers:?}");
            assert!(!answer.body.contains("trusted_proxy_"), "{answer:?}");
        }
    }
    let token = [("x-sigilum-admin-token", TOKEN)];
    assert_eq!(gateway.send("GET", CONNECTIONS, &token, "").await.code(), "ADMIN_TRUSTED_PROXY_REQUIRED");
    // Whoever sits at the machine has the password; relayed for somebody it is none.
    let password = ("x-sigilum-admin-token", "the first passphrase");
    let local = here_is_none.send("GET", CONNECTIONS, &[password], "").await;
    assert_eq!(local.status, 200);
    let relayed = here_is_none.send("GET", CONNECTIONS, &[password, ("x-forwarded-for", "127.0.0.1")], "").await;
    assert_eq!(relayed.status, 403);
}

#[tokio::test]
async fn a_name_that_points_here_is_turned_away_on_every_route() {
    let hosts = |config: &mut AdminConfig| config.allowed_hosts = vec!["gateway.example".to_owned()];
    let gateway = Gateway::start_with(hosts).await;
    for (method, path, _) in operations() {
        if matches!(method, "GET" | "HEAD") {
            continue;
        }
        let rebound = [("host", "attacker.test:38100"), ("x-sigilum-admin-token", TOKEN)];
        let answer = gateway.send(method, &path, &rebound, "").await;
        let found = (answer.status, answer.header("x-sigilum-code"));
        assert_eq!(found, (403, Some("ADMIN_HOST_REFUSED")), "{method} {path}");
        let cross = [("origin", "https://evil.example"), ("x-sigilum-admin-token", TOKEN)];
        let answer = gateway.send(method, &path, &cross, "").await;
        let found = (answer.status, answer.header("x-sigilum-code"));
        assert_eq!(found, (403, Some("ADMIN_ORIGIN_REFUSED")), "{method} {path}");
        let known = [("host", "gateway.example"), ("x-sigilum-admin-token", TOKEN)];
        assert!(is_let_in(&gateway.send(method, &path, &known, "").await), "{method} {path}");
    }
    let twice = format!(
        "DELETE {CONNECTIONS}/linear HTTP/1.1\r\nhost: localhost\r\nhost: attacker.test\r\nconnection: close\r\nx-sigilum-admin-token: {TOKEN}\r\n\r\n"
    );
    let answer = gateway.raw(twice.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "ADMIN_HOST_REFUSED"));
    let none = format!("POST {CONNECTIONS} HTTP/1.0\r\nx-sigilum-admin-token: {TOKEN}\r\n\r\n");
    assert_eq!(gateway.raw(none.as_bytes()).await.status, 400);
}

#[tokio::test]
async fn an_upgrade_of_a_foreign_page_is_refused_before_it() {
    let gateway = Gateway::start().await;
    let own = format!("http://127.0.0.1:{}", gateway.address.port());
    for (origin, host, status) in [
        ("https://evil.example", None, 403),
        ("null", None, 403),
        (own.as_str(), Some("attacker.test"), 403),
        (own.as_str(), None, 404),
    ] {
        let mut headers = vec![
            ("origin", origin),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        headers.extend(host.map(|host| ("host", host)));
        let answer = gateway.send("GET", "/ws", &headers, "").await;
        assert_eq!(answer.status, status, "{origin} {host:?}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_turned_away_is_not_read() {
    let gateway = Gateway::start().await;
    // A body is announced and never sent: the answer comes all the same.
    let head = |extra: &str| {
        format!(
            "POST {CONNECTIONS} HTTP/1.1\r\nhost: {}\r\nx-sigilum-admin-token: {TOKEN}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\nconnection: close\r\n{extra}\r\n",
            gateway.address
        )
    };
    let started = std::time::Instant::now();
    assert_eq!(gateway.raw(head("origin: https://evil.example\r\n").as_bytes()).await.status, 403);
    let foreign = head("").replacen(&gateway.address.to_string(), "attacker.test", 1);
    assert_eq!(gateway.raw(foreign.as_bytes()).await.status, 403);
    // Its own patience for a body is 15 s.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_open_bind_without_auth_opens_no_socket() {
    // The port is held: whoever tried to bind it would fail otherwise than by refusing.
    let held = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let open = held.local_addr().unwrap();
    let weak = || Some(Secret::new("<your-admin-token>".to_owned()));
    for (mode, token, refused) in [
        (AccessMode::None, Some(Secret::new(TOKEN.to_owned())), true),
        (AccessMode::None, None, true),
        (AccessMode::Token, weak(), true),
        (AccessMode::Hybrid, weak(), true),
        (AccessMode::Token, Some(Secret::new(TOKEN.to_owned())), false),
        (AccessMode::Hybrid, Some(Secret::new(TOKEN.to_owned())), false),
        (AccessMode::Token, None, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        (config.access_mode, config.token, config.addresses) = (mode, token, vec![open]);
        let text = build(config).await.unwrap_err().to_string();
        let start = format!("refusing to bind gateway to {open} without auth");
        assert_eq!(text.starts_with(&start), refused, "{mode:?}: {text}");
        assert!(!refused || !folder.path().join("data").exists(), "nothing was opened either");
    }
    // A token file that holds what everybody knows.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let file = folder.path().join("data").join(token::TOKEN_FILE);
    crate::sys::files::create_private(&file, b"changeme-changeme\n").unwrap();
    let mut known = config(folder.path());
    (known.token, known.addresses) = (None, vec![open]);
    assert!(matches!(build(known).await, Err(AdminError::Token(TokenError::Placeholder { .. }))));
}

#[tokio::test]
async fn an_address_that_is_not_this_machine_s_is_not_passed_over() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Of the documentation (RFC 3849), and as bind mode `tailnet` has them.
    for absent in ["2001:db8::1", "fd7a:115c:a1e0::9", "192.0.2.1"] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.addresses = vec![free, (absent.parse::<std::net::IpAddr>().unwrap(), free.port()).into()];
        let failed = build(config).await.unwrap_err();
        assert!(matches!(failed, AdminError::Bind(_)), "{absent}: {failed}");
    }
}

/// A certificate authority of the test and what it signs.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pair(&self, names: Vec<SanType>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Writes `NAME.crt` and `NAME.key`, each as a whole.
    fn put(&self, name: &str, (certificate, key): &(String, String)) -> (PathBuf, PathBuf) {
        self.write(&format!("{name}.crt"), certificate);
        self.write(&format!("{name}.key"), key);
        (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")))
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A certificate for the address the tests listen on.
    fn server(&self) -> (String, String) {
        self.pair(vec![SanType::IpAddress("127.0.0.1".parse().unwrap())])
    }

    fn serving(&self, names: Option<&[&str]>) -> ServingFiles {
        let (certificate, key) = self.put("server", &self.server());
        let clients = names.map(|names| ClientFiles {
            authorities: self.path("ca.pem"),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        });
        ServingFiles { certificate, key, clients }
    }

    fn trust(&self, identity: Option<(PathBuf, PathBuf)>) -> ServerTrust {
        ServerTrust { authorities: Some(self.path("ca.pem")), own: None, fingerprint: None, identity }
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// One request over TLS; the bytes of the server's certificate come with the answer.
async fn over_tls(address: SocketAddr, trust: &ServerTrust, request: &str) -> std::io::Result<(String, Vec<u8>)> {
    let connector = TlsConnector::from(Arc::new(trust.client_config().unwrap()));
    let work = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = connector.connect(ServerName::from(address.ip()), stream).await?;
        stream.write_all(request.as_bytes()).await?;
        // A backup is no text.
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        Ok((text, shown))
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

fn head(address: SocketAddr, method: &str, path: &str, extra: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{extra}\r\n")
}

fn status_and_code(text: &str) -> (u16, String) {
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let code = text.lines().find_map(|line| line.strip_prefix("x-sigilum-code: ")).unwrap_or_default();
    (status, code.trim().to_owned())
}

#[tokio::test]
async fn every_route_and_method_wants_a_listed_certificate_under_mtls() {
    let authority = Authority::new();
    let operator = authority.put("operator", &authority.pair(vec![dns("ops.test")]));
    let spiffe = authority.put("spiffe", &authority.pair(vec![SanType::URI("spiffe://test/ops".try_into().unwrap())]));
    let other = authority.put("other", &authority.pair(vec![dns("other.test")]));
    let part = authority.put("part", &authority.pair(vec![dns("x.ops.test")]));
    let stranger = Authority::new();
    let foreign = stranger.put("operator", &stranger.pair(vec![dns("ops.test")]));

    let callers = [
        ("none", authority.trust(None), false),
        ("listed", authority.trust(Some(operator.clone())), true),
        ("listed by URI", authority.trust(Some(spiffe)), true),
        ("of another name", authority.trust(Some(other)), false),
        ("of a name below", authority.trust(Some(part)), false),
    ];
    let token = format!("x-sigilum-admin-token: {TOKEN}\r\n");
    for (mode, with_token) in [(AccessMode::Mtls, false), (AccessMode::Token, true), (AccessMode::Hybrid, false)] {
        let gateway = Gateway::start_with(|config| {
            config.access_mode = mode;
            config.tls = Some(authority.serving(Some(&["ops.test", "spiffe://test/ops"])));
        })
        .await;
        for (method, path, open) in operations() {
            for (caller, trust, listed) in &callers {
                let extra = if with_token || !listed { token.as_str() } else { "" };
                let request = head(gateway.address, method, &path, extra);
                let (text, _) = over_tls(gateway.address, trust, &request).await.unwrap();
                let (status, code) = status_and_code(&text);
                let case = format!("{mode:?} {method} {path} {caller}: {text}");
                if open || *listed {
                    assert!(!code.starts_with("ADMIN_") && status != 403, "{case}");
                } else {
                    assert_eq!((status, code.as_str()), (403, "ADMIN_CERTIFICATE_REQUIRED"), "{case}");
                }
            }
        }
        if mode == AccessMode::Token {
            let request = head(gateway.address, "GET", CONNECTIONS, "");
            let (text, _) = over_tls(gateway.address, &callers[1].1, &request).await.unwrap();
            assert_eq!(status_and_code(&text), (403, "ADMIN_TOKEN_REQUIRED".to_owned()), "both are wanted");
        }
        // Another authority's certificate does not even get a conversation.
        let request = head(gateway.address, "GET", "/health", "");
        assert!(over_tls(gateway.address, &authority.trust(Some(foreign.clone())), &request).await.is_err());
        // Nor does whoever speaks in clear.
        assert_eq!(gateway.raw_status(request.as_bytes()).await, None);
        gateway.end().await;
    }
}

#[tokio::test]
async fn commands_know_our_own_certificate_or_one_that_proves_its_name() {
    let authority = Authority::new();
    // Called otherwise than it is reached, as certificates for the world are.
    let pair = authority.pair(vec![dns("gateway.example")]);
    let (certificate, key) = authority.put("public", &pair);
    let files = ServingFiles { certificate: certificate.clone(), key, clients: None };
    let gateway = Gateway::start_with(|config| config.tls = Some(files)).await;
    let request = head(gateway.address, "GET", "/health", "");
    let own = ServerTrust { own: Some(certificate), ..ServerTrust::default() };
    assert!(over_tls(gateway.address, &own, &request).await.is_ok());
    // The authority is right and the name is not.
    assert!(over_tls(gateway.address, &authority.trust(None), &request).await.is_err());
    let (another, _) = authority.put("another", &authority.server());
    let wrong = ServerTrust { own: Some(another), ..ServerTrust::default() };
    assert!(over_tls(gateway.address, &wrong, &request).await.is_err());
}

#[tokio::test]
async fn an_operator_whose_authority_is_withdrawn_is_cut_and_one_without_certificate_is_not() {
    let authority = Authority::new();
    let operator = authority.put("operator", &authority.pair(vec![dns("ops.test")]));
    let gateway = Gateway::start_with(|config| {
        config.access_mode = AccessMode::Mtls;
        config.tls = Some(authority.serving(Some(&["ops.test"])));
    })
    .await;
    let open = async |identity| {
        let trust = authority.trust(identity);
        let connector = TlsConnector::from(Arc::new(trust.client_config().unwrap()));
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        connector.connect(ServerName::from(gateway.address.ip()), stream).await.unwrap()
    };
    // It stays open between requests: for less time than a connection may idle.
    let ask = async |stream: &mut tokio_rustls::client::TlsStream<TcpStream>| {
        let request = format!("GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", gateway.address);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await?;
        std::io::Result::Ok(read > 0)
    };
    let (mut operators, mut nobodys) = (open(Some(operator)).await, open(None).await);
    assert!(ask(&mut operators).await.unwrap() && ask(&mut nobodys).await.unwrap());
    // The same file with another authority in it.
    std::fs::copy(Authority::new().path("ca.pem"), authority.path("ca.pem")).unwrap();
    let cut = async {
        while ask(&mut operators).await.unwrap_or(false) {
            assert!(ask(&mut nobodys).await.unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cut).await.unwrap();
    assert!(ask(&mut nobodys).await.unwrap());
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_load_without_a_failed_handshake() {
    const CLIENTS: usize = 8;
    let authority = Arc::new(Authority::new());
    let gateway = Gateway::start_with(|config| config.tls = Some(authority.serving(None))).await;
    let address = gateway.address;
    let (over, done, failed) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let counters = Arc::new((over, done, failed));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (authority, counters) = (Arc::clone(&authority), Arc::clone(&counters));
            tokio::spawn(async move {
                let (trust, request) = (authority.trust(None), head(address, "GET", "/health", ""));
                while !counters.0.load(Ordering::SeqCst) {
                    match over_tls(address, &trust, &request).await {
                        Ok((text, _)) if text.starts_with("HTTP/1.1 200") => {
                            counters.1.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok((text, _)) => counters.2.lock().unwrap().push(text),
                        Err(error) => counters.2.lock().unwrap().push(error.to_string()),
                    }
                }
            })
        })
        .collect();
    let request = head(address, "GET", "/health", "");
    let served = async || over_tls(address, &authority.trust(None), &request).await.unwrap().1;
    let mut shown = vec![served().await];
    for number in 0..4 {
        let (certificate, key) = authority.server();
        // The worst order, and a half-written file in between.
        authority.write("server.key", &key);
        authority.write("server.crt", certificate.get(..certificate.len() / 2).unwrap());
        let before = counters.1.load(Ordering::SeqCst);
        wait_until(async || counters.1.load(Ordering::SeqCst) >= before + 50).await;
        assert_eq!(served().await, *shown.last().unwrap(), "half of a certificate was taken");
        authority.write("server.crt", &certificate);
        wait_until(async || served().await != *shown.last().unwrap()).await;
        shown.push(served().await);
        assert_eq!(shown.len(), number + 2);
    }
    counters.0.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    shown.sort();
    shown.dedup();
    let failures = std::mem::take(&mut *counters.2.lock().unwrap());
    assert_eq!((failures, shown.len()), (vec![], 5));
    assert_eq!(gateway.end().await.1, Ended::Stopped);
}

#[tokio::test]
async fn authorities_of_clients_are_replaced_too() {
    let (first, second) = (Authority::new(), Authority::new());
    let one = first.put("one", &first.pair(vec![dns("ops.test")]));
    let two = second.put("two", &second.pair(vec![dns("ops.test")]));
    let gateway = Gateway::start_with(|config| {
        config.access_mode = AccessMode::Mtls;
        let mut files = first.serving(Some(&["ops.test"]));
        std::fs::copy(first.path("ca.pem"), first.path("clients.pem")).unwrap();
        files.clients.as_mut().unwrap().authorities = first.path("clients.pem");
        config.tls = Some(files);
    })
    .await;
    let request = head(gateway.address, "GET", CONNECTIONS, "");
    let ask = async |identity: &(PathBuf, PathBuf)| {
        let answer = over_tls(gateway.address, &first.trust(Some(identity.clone())), &request).await;
        answer.is_ok_and(|(text, _)| text.starts_with("HTTP/1.1 200"))
    };
    assert!(ask(&one).await && !ask(&two).await);
    std::fs::copy(second.path("ca.pem"), first.path("clients.pem")).unwrap();
    wait_until(async || ask(&two).await).await;
    assert!(!ask(&one).await);
}

/// Of whoever collects metrics.
const METRICS_TOKEN: &str = "a-metrics-token-0123456789";

#[tokio::test]
async fn the_token_of_the_metrics_opens_them_and_nothing_else_in_every_mode() {
    type Change = Box<dyn FnOnce(&mut AdminConfig)>;
    let authority = Authority::new();
    let mtls = |files: ServingFiles| -> Change {
        Box::new(move |config| {
            config.access_mode = AccessMode::Mtls;
            config.tls = Some(files);
        })
    };
    let modes: [(Change, &str); 6] = [
        (Box::new(|_| ()), "ADMIN_TOKEN_REQUIRED"),
        (Box::new(|config| config.access_mode = AccessMode::Hybrid), "ADMIN_TOKEN_OR_LOOPBACK_REQUIRED"),
        (Box::new(|config| config.access_mode = AccessMode::None), "ADMIN_LOOPBACK_REQUIRED"),
        (
            Box::new(|config| {
                config.access_mode = AccessMode::Password;
                config.password = Some(GivenSecret::Given(Secret::new("the first passphrase".to_owned())));
            }),
            "ADMIN_PASSWORD_REQUIRED",
        ),
        (Box::new(behind_a_proxy(false)), "ADMIN_TRUSTED_PROXY_REQUIRED"),
        (mtls(authority.serving(Some(&["ops.test"]))), "ADMIN_CERTIFICATE_REQUIRED"),
    ];
    for (change, code) in modes {
        let with_token = |config: &mut AdminConfig| {
            change(config);
            config.metrics_token = Some(GivenSecret::Given(Secret::new(METRICS_TOKEN.to_owned())));
        };
        let gateway = Gateway::start_with(with_token).await;
        let ask = async |method: &str, path: &str, token: &str| {
            // Of somebody a proxy speaks for: no mode lets them in for where they come from. Each has an address of its own.
            let extra = format!("authorization: Bearer {token}\r\nx-forwarded-for: 192.0.2.9\r\n");
            let request = head(gateway.address, method, path, &extra);
            let text = if code == "ADMIN_CERTIFICATE_REQUIRED" {
                over_tls(gateway.address, &authority.trust(None), &request).await.unwrap().0
            } else {
                gateway.raw(request.as_bytes()).await.head
            };
            status_and_code(&text)
        };
        assert_eq!(ask("GET", "/metrics", METRICS_TOKEN).await.0, 200, "{code}");
        assert_eq!(ask("GET", "/metrics?name=x", METRICS_TOKEN).await.0, 200, "{code}");
        for path in [CONNECTIONS, "/api/admin/audit", "/api/v1/status", "/metrics/", "/metrics/x", "//metrics"] {
            let (status, found) = ask("GET", path, METRICS_TOKEN).await;
            let nothing_there = path.contains("metrics") && status == 404;
            assert!(nothing_there || (status, found.as_str()) == (403, code), "{code} {path}: {status} {found}");
        }
        assert_eq!(ask("GET", "/metrics", "another-token-0123456789").await, (403, code.to_owned()));
        gateway.end().await;
    }
}

#[tokio::test]
async fn where_a_certificate_is_wanted_besides_the_metrics_want_it_too() {
    let authority = Authority::new();
    let gateway = Gateway::start_with(|config| {
        config.tls = Some(authority.serving(Some(&["ops.test"])));
        config.metrics_token = Some(GivenSecret::Given(Secret::new(METRICS_TOKEN.to_owned())));
    })
    .await;
    let request = head(gateway.address, "GET", "/metrics", &format!("authorization: Bearer {METRICS_TOKEN}\r\n"));
    let ask = async |identity| {
        let (text, _) = over_tls(gateway.address, &authority.trust(identity), &request).await.unwrap();
        status_and_code(&text)
    };
    assert_eq!(ask(None).await, (403, "ADMIN_CERTIFICATE_REQUIRED".to_owned()));
    let shown = authority.put("ops", &authority.pair(vec![dns("ops.test")]));
    assert_eq!(ask(Some(shown)).await.0, 200);
}

#[tokio::test]
async fn guesses_at_the_metrics_lock_out_in_modes_that_ask_for_no_secret_otherwise() {
    let gateway = Gateway::start_with(|config| {
        config.access_mode = AccessMode::None;
        config.metrics_token = Some(GivenSecret::Given(Secret::new(METRICS_TOKEN.to_owned())));
    })
    .await;
    let ask = async |token: &str| {
        let said = [("x-sigilum-admin-token", token), ("x-forwarded-for", "192.0.2.9")];
        let answer = gateway.send("GET", "/metrics", &said, "").await;
        (answer.status, answer.header("x-sigilum-code").unwrap_or_default().to_owned())
    };
    for _ in 0..10 {
        assert_eq!(ask("another-token-0123456789").await, (403, "ADMIN_LOOPBACK_REQUIRED".to_owned()));
    }
    assert_eq!(ask("another-token-0123456789").await, (429, "AUTH_RATE_LIMITED".to_owned()));
    assert_eq!(ask(METRICS_TOKEN).await.0, 200, "whoever has the right one is not to wait for that");
}

#[tokio::test]
async fn another_token_of_the_metrics_in_its_file_counts_with_the_next_request_and_is_in_the_audit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics-token");
    write_private(&file, METRICS_TOKEN.as_bytes()).unwrap();
    let kept = file.clone();
    let gateway = Gateway::start_in(folder, move |config| config.metrics_token = Some(GivenSecret::File(kept))).await;
    let read = async |token: &str| gateway.send("GET", "/metrics", &[("x-sigilum-admin-token", token)], "").await;
    assert_eq!(read(METRICS_TOKEN).await.status, 200);
    write_private(&file, b"the-next-metrics-token").unwrap();
    assert_eq!(read(METRICS_TOKEN).await.code(), "ADMIN_TOKEN_REQUIRED");
    assert_eq!(read("the-next-metrics-token").await.status, 200);
    let audit = gateway.ask("GET", "/api/admin/audit", "").await.body;
    assert!(audit.contains("metrics_token.rotate") && !audit.contains("metrics-token"), "{audit}");
}

#[tokio::test]
async fn what_opens_everything_is_no_token_of_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.metrics_token = Some(GivenSecret::Given(Secret::new(TOKEN.to_owned())));
    let refused = build(config).await.unwrap_err().to_string();
    assert!(refused.contains("the metrics token opens the whole admin API") && !refused.contains(TOKEN), "{refused}");
}
