//! `gateway stop` of a gateway that runs: only where somebody says yes, through the manager that runs it where one does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;

use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;

/// A systemd that runs one process: it says so, keeps what it is told, and ends it where it is told to.
fn systemd(gateway: &Gateway) -> String {
    let folder = gateway.setup.root.path().join("bin");
    fs::create_dir(&folder).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> '{0}/calls'\ncase \"$1 $2\" in\n'--user show') echo ActiveState=active; echo MainPID={1}; echo UnitFileState=enabled;;\n\
         '--user stop') kill -TERM {1}; while kill -0 {1} 2>/dev/null; do sleep 0.1; done;;\nesac\nexit 0\n",
        folder.display(),
        gateway.pid()
    );
    let path = folder.join("systemctl");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display())
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_gateway_is_stopped_where_somebody_says_yes_and_twice_is_once() {
    let gateway = Gateway::start();
    let (code, _, err) = run(gateway.setup.command(&["gateway", "stop"]));
    assert_eq!(code, Some(64), "{err}");
    assert!(err.contains("--yes") && gateway.healthy(), "{err}");
    // The test's process collects it, without which it would seem to be there still.
    let stopped = std::thread::scope(|scope| {
        let ended = scope.spawn(|| gateway.running().wait(LIMIT));
        let (code, out, err) = run(gateway.setup.command(&["gateway", "stop", "--yes", "--json"]));
        assert_eq!(code, Some(0), "{err}");
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((report["result"].as_str(), report.get("unit")), (Some("stopped"), None), "{report}");
        ended.join().unwrap()
    });
    assert!(stopped.success(), "it drained: {stopped}");
    let (code, out, _) = run(gateway.setup.command(&["gateway", "stop", "--json"]));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["result"].as_str()), (Some(0), Some("not-running")));
}

#[test]
fn what_a_manager_runs_is_stopped_through_it() {
    for (arguments, disabled) in [
        (&["gateway", "stop", "--yes"][..], false),
        (&["gateway", "stop", "--disable", "--yes"], true),
        (&["down"], true),
    ] {
        let gateway = Gateway::start();
        let path = systemd(&gateway);
        let unit = std::thread::scope(|scope| {
            let ended = scope.spawn(|| gateway.running().wait(LIMIT));
            let mut command = gateway.setup.command(arguments);
            command.env("PATH", path);
            let (code, out, err) = run(command);
            assert_eq!(code, Some(0), "{err}");
            let unit = out.split("(unit ").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
            assert!(unit.starts_with("sigilum-gateway-") && unit.ends_with(".service"), "{out}");
            assert!(ended.join().unwrap().success());
            unit.to_owned()
        });
        let calls = fs::read_to_string(gateway.setup.root.path().join("bin/calls")).unwrap();
        assert!(calls.contains(&format!("--user stop {unit}")), "{calls}");
        assert_eq!(calls.contains(&format!("--user disable {unit}")), disabled, "{calls}");
    }
}
