//! One gateway per installation: who holds what is named, who is not ours is left alone, and the dead hold nothing.

use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::free_port;
use crate::support::gateway::refused;
use crate::support::process::alive;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Configuration, bind or lock conflict.
const CONFIG: Option<i32> = Some(78);

#[test]
fn a_start_right_after_a_kill_succeeds() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    for round in 0..3 {
        gateway.running().signal(Signal::KILL);
        let status = gateway.running().wait(LIMIT);
        assert!(!status.success());
        gateway.restart();
        assert_eq!(gateway.get(&connection.at(&format!("/v1/{round}"))).status, 200);
    }
}

#[test]
fn a_second_gateway_on_the_same_data_is_told_who_has_it() {
    let gateway = Gateway::start();
    let port = || format!("127.0.0.1:{}", free_port());
    let mut command = gateway.setup.command(&["gateway", "start"]);
    // Other ports and another run folder: it is the data that is shared.
    command.env("GATEWAY_ADDR", port()).env("GATEWAY_INGRESS_ADDR", port()).env("GATEWAY_ENVOY_ADMIN_ADDR", port());
    command.env("GATEWAY_RUN_DIR", gateway.setup.root.path().join("r2"));
    let second = refused(command);
    assert_eq!(second.code, CONFIG, "{}", second.said);
    for word in
        ["another gateway instance is already listening", &format!("pid {}", gateway.pid()), &gateway.authority()]
    {
        assert!(second.said.contains(word), "{word} in {}", second.said);
    }
    assert!(gateway.healthy() && gateway.admin_ready());
}

#[test]
fn force_replaces_our_own_gateway_where_somebody_says_yes() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let unasked = refused(gateway.setup.command(&["gateway", "start", "--force"]));
    assert_eq!(unasked.code, CONFIG, "{}", unasked.said);
    assert!(unasked.said.contains("--yes") && gateway.healthy(), "{}", unasked.said);
    let next = Running::spawn(gateway.setup.command(&["gateway", "start", "--force", "--yes"]));
    let first = gateway.running().wait(LIMIT);
    assert!(first.success(), "it ended in order: {first}");
    wait_until("the next one is ready", LIMIT, || next.said().lines().any(|line| line.starts_with("ready:")));
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    drop(next);
}

#[test]
fn force_names_a_stranger_and_leaves_it_alone() {
    let setup = Setup::new();
    setup.write_yaml();
    let mut stranger = std::process::Command::new("python3")
        .args(["-c", "import socket,sys\ns=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); print('up', flush=True); sys.stdin.read()"])
        .arg(setup.admin.port().to_string())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stranger.stdout.take().unwrap()), &mut line).unwrap();
    let refused = refused(setup.command(&["gateway", "start", "--force", "--yes"]));
    assert_eq!(refused.code, CONFIG, "{}", refused.said);
    for word in [&format!("process {}", stranger.id()), "python3", &setup.admin.port().to_string()] {
        assert!(refused.said.contains(word), "{word} in {}", refused.said);
    }
    assert!(alive(i32::try_from(stranger.id()).unwrap()));
    drop(stranger.stdin.take());
    stranger.wait().unwrap();
    assert!(TcpListener::bind(setup.admin).is_ok());
}

#[test]
fn force_does_not_end_what_a_service_manager_starts_again() {
    let setup = Setup::new();
    let socket = setup.root.path().join("notify.sock");
    let _manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    let gateway = setup.env("NOTIFY_SOCKET", &socket.display().to_string()).start();
    let mut command = gateway.setup.command(&["gateway", "start", "--force", "--yes"]);
    command.env_remove("NOTIFY_SOCKET");
    let refused = refused(command);
    assert_eq!(refused.code, CONFIG, "{}", refused.said);
    assert!(refused.said.contains("service manager") && refused.said.contains("gateway restart"), "{}", refused.said);
    assert!(gateway.healthy());
}
