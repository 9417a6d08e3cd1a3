//! The machine's unit takes system calls away. The gateway, Envoy included, works without them: it is run under the very lines
//! of that unit, set by libseccomp as systemd would.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::upstream::Upstream;

/// The lines of the unit that take something away which a test can take away as well.
fn taken(setup: &Setup) -> Vec<String> {
    let output = setup.command(&["gateway", "install", "--system", "--dry-run"]).output().unwrap();
    let unit = String::from_utf8(output.stdout).unwrap();
    let lines = unit
        .lines()
        .filter(|line| ["SystemCallFilter=", "RestrictAddressFamilies="].iter().any(|key| line.starts_with(key)));
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    assert!(lines.len() >= 3, "{unit}");
    lines
}

/// The same command under these lines.
fn under(lines: &[String], script: &std::path::Path, inner: &Command) -> Command {
    let mut command = Command::new("python3");
    command.arg(script).args(lines).arg("--").arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    command
}

#[test]
fn the_gateway_works_under_the_system_call_filter_of_its_unit() {
    let setup = Setup::new();
    setup.begin_journal();
    setup.write_yaml();
    let script = setup.root.path().join("sandboxed.py");
    fs::write(&script, include_str!("support/sandboxed.py")).unwrap();
    let lines = taken(&setup);
    // The filter is one: what no gateway does is refused.
    let probe = Command::new("/bin/chown");
    let mut refused = under(&lines, &script, &probe);
    let output = refused.arg("1").arg(&script).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("Operation not permitted"), "{output:?}");

    let running =
        Running::spawn_in(under(&lines, &script, &setup.command(&["gateway", "start"])), Some(setup.root.path()));
    let gateway = Gateway::of(setup, running);
    gateway.wait_ready(LIMIT);
    let upstream = Upstream::start();
    let connection = gateway.connect(&upstream, json!({}));
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200, "{}", gateway.logs());
    for mode in ["--handoff", "--force"] {
        let output = gateway.setup.command(&["gateway", "restart", mode]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", gateway.logs());
        assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    }
    assert!(!gateway.logs().contains("not permitted"), "{}", gateway.logs());
}
