//! What `gateway status` says of a gateway that is opened otherwise than by a token, and what it listens on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::client;
use crate::support::client::Body;
use crate::support::client::Request;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;

/// A start with these options, once it is ready.
fn started(setup: &Setup, options: &[&str]) -> Running {
    setup.begin_journal();
    setup.write_yaml();
    let mut command = setup.command(&[&["gateway", "start"], options].concat());
    // The bind mode says where.
    command.env("GATEWAY_ADDR", format!(":{}", setup.admin.port()));
    let running = Running::spawn_in(command, Some(setup.root.path()));
    wait_until("the gateway to be ready", LIMIT, || running.said().contains("ready:"));
    running
}

/// What a command of the same installation says.
fn said(setup: &Setup, options: &[&str]) -> String {
    let output = setup.command(&[&["gateway", "status"], options].concat()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_gateway_with_a_password_asks_for_that_and_nobody_is_sent_for_a_token() {
    let setup = Setup::new();
    let file = setup.root.path().join("password");
    fs::write(&file, "the first passphrase\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let path = file.display().to_string();
    let access = ["--auth", "password", "--password-file", &path];
    let _running = started(&setup, &access);
    let well = said(&setup, &access);
    assert!(well.contains("Capability:          admin_capable\n") && !well.contains("token"), "{well}");
    // Nothing says so to a command that is told nothing.
    let told = said(&setup, &[]);
    assert!(told.contains("but it asks for the password"), "{told}");
    assert!(told.contains("next: sigilum gateway status --auth password --password-file FILE"), "{told}");
    let other = setup.root.path().join("other");
    fs::write(&other, "another passphrase\n").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let wrong = said(&setup, &["--auth", "password", "--password-file", &other.display().to_string()]);
    assert!(wrong.contains("but the password is refused") && !wrong.contains("token"), "{wrong}");
    fs::remove_file(&other).unwrap();
    let missing = said(&setup, &["--auth", "password", "--password-file", &other.display().to_string()]);
    assert!(missing.contains(&format!("there is no password: {} is not there", other.display())), "{missing}");
    assert!(!missing.contains("token"), "{missing}");
}

#[test]
fn the_mode_it_is_bound_by_is_told_whether_or_not_it_runs() {
    for mode in ["auto", "loopback"] {
        let setup = Setup::new();
        let bound = || {
            let mut command = setup.command(&["gateway", "status", "--json", "--bind", mode]);
            command.env("GATEWAY_ADDR", format!(":{}", setup.admin.port()));
            let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
            (report["gateway"]["bindMode"].as_str().unwrap().to_owned(), report["rpc"]["ok"] == true)
        };
        assert_eq!(bound(), (mode.to_owned(), false));
        let _running = started(&setup, &["--bind", mode]);
        assert_eq!(bound(), (mode.to_owned(), true));
    }
}

#[test]
fn web_pages_of_the_port_it_really_has_are_let_in_and_those_of_the_default_one_are_not() {
    let setup = Setup::new();
    let port = crate::support::gateway::free_port();
    let _running = started(&setup, &["--port", &port.to_string()]);
    let admin = (setup.admin.ip(), port).into();
    let token = fs::read_to_string(setup.data().join("admin-token")).unwrap();
    let asked = |origin: String| {
        let request = Request::new("GET", &format!("localhost:{port}"), "/api/admin/connections");
        let request = request.header("origin", &origin).header("authorization", &format!("Bearer {}", token.trim()));
        let answer = client::send(admin, &request);
        (answer.status, answer.header("access-control-allow-origin").map(str::to_owned))
    };
    let changed = |origin: String| {
        let request = Request::new("POST", &format!("localhost:{port}"), "/api/admin/config/reload");
        let request = request.header("origin", &origin).header("authorization", &format!("Bearer {}", token.trim()));
        let answer = client::send(
            admin,
            &request.header("content-type", "application/json").with_body(Body::Sized(b"{}".to_vec())),
        );
        (answer.status, answer.text().contains("ADMIN_ORIGIN_REFUSED"))
    };
    for host in ["localhost", "127.0.0.1"] {
        let own = format!("http://{host}:{port}");
        assert_eq!(asked(own.clone()), (200, Some(own.clone())));
        assert_eq!(changed(own.clone()), (200, false));
        for foreign in [38100, 3000, setup.admin.port()] {
            let foreign = format!("http://{host}:{foreign}");
            assert_eq!(asked(foreign.clone()).1, None, "{foreign}");
            assert_eq!(changed(foreign.clone()), (403, true), "{foreign}");
        }
    }
}

#[test]
fn a_token_that_this_command_was_given_is_not_called_the_gateways() {
    let setup = Setup::new();
    let _running = started(&setup, &[]);
    let mut command = setup.command(&["gateway", "status"]);
    command.env("GATEWAY_ADMIN_TOKEN", "another-0123456789abcdef");
    let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(told.contains("but the token is refused") && told.contains("next: unset GATEWAY_ADMIN_TOKEN, "), "{told}");
}
