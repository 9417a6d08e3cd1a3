//! Who may reach a gateway is judged before it starts: by exit code, message, and sockets that were never opened.

use std::net::SocketAddr;
use std::net::TcpListener;

use super::Person;
use super::text_of;

/// A port that is taken on every address: whoever tried to bind it would say so instead.
fn held() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn an_open_bind_without_auth_is_refused_before_a_socket_is_opened() {
    let (_held, open) = held();
    let refused = format!("refusing to bind gateway to {open} without auth");
    let admin = [("GATEWAY_ADDR", open.to_string()), ("GATEWAY_INGRESS_ADDR", "127.0.0.1:1".to_owned())];
    let ingress = [("GATEWAY_INGRESS_ADDR", open.to_string()), ("GATEWAY_ADDR", "127.0.0.1:1".to_owned())];
    for (addresses, name, value) in [
        (&admin, "GATEWAY_ADMIN_ACCESS_MODE", "loopback"),
        (&admin, "GATEWAY_ADMIN_ACCESS_MODE", "none"),
        (&admin, "GATEWAY_ADMIN_ACCESS_MODE", "password"),
        (&admin, "GATEWAY_ADMIN_ACCESS_MODE", "trusted-proxy"),
        (&admin, "SIGILUM_GATEWAY_PASSWORD", ""),
        (&admin, "SIGILUM_GATEWAY_TOKEN", " "),
        (&admin, "SIGILUM_GATEWAY_TOKEN", "changeme"),
        (&admin, "GATEWAY_ADMIN_TOKEN", ""),
        (&admin, "GATEWAY_ADMIN_TOKEN", " \t "),
        (&admin, "GATEWAY_ADMIN_TOKEN", "changeme"),
        (&admin, "GATEWAY_ADMIN_TOKEN", "<your-admin-token>"),
        (&admin, "GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS", "false"),
        (&ingress, "GATEWAY_ALLOW_UNSIGNED_PROXY", "true"),
    ] {
        for arguments in [&["gateway", "start"][..], &["gateway", "admin"], &["up", "--no-api"]] {
            let person = Person::new();
            let mut command = person.command(arguments);
            command.env("SIGILUM_NAMESPACE", "demo").env(name, value);
            command.envs(addresses.iter().map(|(name, value)| (*name, value.as_str())));
            let output = command.output().unwrap();
            let said = text_of(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{arguments:?} {name}={value}: {said}");
            assert!(said.contains(&refused), "{arguments:?} {name}={value}: {said}");
            assert!(!said.contains("in use"), "{said}");
            let left: Vec<_> = std::fs::read_dir(person.home()).unwrap().collect();
            assert!(left.is_empty(), "{arguments:?} left {left:?}");
        }
    }
}

#[test]
fn a_short_token_is_taken_on_loopback_alone() {
    let (_held, open) = held();
    for (address, code) in [("127.0.0.1:1".to_owned(), 0), (open.to_string(), 78)] {
        let person = Person::new();
        let mut command = person.command(&["gateway", "config", "check"]);
        command.env("GATEWAY_ADDR", address).env("GATEWAY_ADMIN_TOKEN", "hunter2");
        let output = command.output().unwrap();
        let said = text_of(&output.stdout) + &text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("16") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_blank_token_on_loopback_counts_as_unset() {
    let person = Person::new();
    let mut command = person.command(&["gateway", "envoy-config"]);
    assert!(command.env("GATEWAY_ADMIN_TOKEN", " ").output().unwrap().status.success());
}

#[test]
fn checks_that_are_switched_off_stop_everything_that_starts_something() {
    let authz = ["gateway", "authz", "--listen", "unix:/tmp/none/a.sock", "--state", "unix:/tmp/none/s.sock"];
    for arguments in [
        &["gateway", "start"][..],
        &["gateway", "admin"],
        &authz,
        &["gateway", "envoy-config"],
        &["up"],
        &["up", "--demo"],
        &["up", "--no-api"],
        &["e2e-tests"],
    ] {
        for value in ["false", "0", "off", "No"] {
            let person = Person::new();
            let mut command = person.command(arguments);
            let output = command.env("GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS", value).output().unwrap();
            let said = text_of(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{arguments:?} {value}: {said}");
            assert!(said.contains("GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS"), "{said}");
        }
    }
}

#[test]
fn a_token_and_a_password_without_a_mode_start_and_install_nothing() {
    for arguments in [&["gateway", "start"][..], &["gateway", "admin"], &["gateway", "install", "--dry-run"]] {
        let person = Person::new();
        let mut command = person.command(arguments);
        command
            .env("SIGILUM_GATEWAY_TOKEN", "0123456789abcdef0123")
            .env("SIGILUM_GATEWAY_PASSWORD", "a good passphrase");
        let output = command.env("SIGILUM_NAMESPACE", "demo").output().unwrap();
        let said = text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {said}");
        assert!(said.contains("a token and a password are given"), "{said}");
        assert!(!said.contains("0123456789abcdef") && !said.contains("passphrase"), "{said}");
    }
}

#[test]
fn a_service_that_would_have_no_password_is_not_installed() {
    let person = Person::new();
    let mut command = person.command(&["gateway", "install", "--dry-run"]);
    command.env("SIGILUM_GATEWAY_PASSWORD", "a good passphrase").env("SIGILUM_NAMESPACE", "demo");
    let output = command.output().unwrap();
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("admin.password_file") && !said.contains("passphrase"), "{said}");
}
