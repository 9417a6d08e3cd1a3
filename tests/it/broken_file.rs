//! A settings file that is broken while the gateway runs: the gateway is found, asked and stopped all the same.

use std::fs;
use std::process::Output;

use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;

/// Configuration, bind or lock conflict.
const CONFIG: i32 = 78;

/// Runs a command that learns of the listeners from nothing but the gateway itself.
fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = gateway.setup.command(arguments);
    for name in ["GATEWAY_ADDR", "GATEWAY_INGRESS_ADDR", "GATEWAY_ENVOY_ADMIN_ADDR"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

#[test]
fn a_gateway_whose_file_is_broken_meanwhile_is_found_by_its_folders() {
    let gateway = Gateway::start();
    fs::write(gateway.setup.home().join("gateway.yaml"), "no_such_setting: 1\n").unwrap();
    for arguments in [
        &["health"][..],
        &["gateway", "drain", "--lease", "1m"],
        &["gateway", "undrain", "--all"],
        &["logs", "--stream", "admin"],
    ] {
        let output = run(&gateway, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(said.contains("no_such_setting"), "{arguments:?} says what is wrong: {said}");
    }
    // A restart would need the settings.
    assert_eq!(run(&gateway, &["gateway", "restart"]).status.code(), Some(CONFIG));
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| gateway.running().wait(LIMIT));
        let output = run(&gateway, &["gateway", "stop", "--yes"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(ended.join().unwrap().success());
    });
    // Without a gateway nobody knows which folders were meant, nor whom to ask.
    for arguments in [&["health"][..], &["gateway", "stop"], &["down"]] {
        let output = run(&gateway, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(CONFIG), "{arguments:?}: {said}");
        assert!(said.contains("gateway.yaml:1"), "{arguments:?}: {said}");
    }
}
