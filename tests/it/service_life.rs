//! Signals before anything runs, what is kept of a crash, and what a part says that nobody supervises.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;

use rustix::process::Signal;
use serde_json::Value;
use sigilum::app::gateway::crash::list;

use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::parts;
use crate::support::process::signal;
use crate::support::process::wait_until;

#[test]
fn a_restart_by_signal_does_not_end_a_gateway_that_is_starting() {
    let setup = Setup::new();
    setup.write_yaml();
    let (asked, envoy) = (setup.root.path().join("asked"), setup.root.path().join("envoy"));
    // It is being asked for its version, and takes its time.
    fs::write(&envoy, format!("#!/bin/sh\n: > {}\nexec sleep 600\n", asked.display())).unwrap();
    fs::set_permissions(&envoy, fs::Permissions::from_mode(0o700)).unwrap();
    let mut running = Running::spawn(setup.command(&["gateway", "start", "--envoy-bin", &envoy.display().to_string()]));
    wait_until("Envoy is looked for", LIMIT, || asked.exists());
    running.signal(Signal::USR2);
    running.signal(Signal::TERM);
    let status = running.wait(LIMIT);
    assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", running.said());
}

#[test]
fn a_crash_is_kept_named_and_exported() {
    let gateway = Gateway::start();
    let authz = gateway.role("authz");
    signal(authz, Signal::ABORT);
    gateway.wait_replaced("authz", authz);
    let folder = gateway.setup.data().join("crashes");
    wait_until("it is kept", LIMIT, || !list(&folder).is_empty());
    let path = list(&folder).remove(0);
    let name = path.file_name().unwrap().to_str().unwrap();
    let crash: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&crash["role"], &crash["signal"], &crash["pid"]), (&"authz".into(), &6.into(), &authz.into()));
    assert!(!crash["lines"].as_array().unwrap().is_empty(), "{crash}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    wait_until("it is named", LIMIT, || gateway.said().contains(&path.display().to_string()));
    let archive = gateway.setup.root.path().join("archive.tar.gz");
    let arguments = ["gateway", "diagnostics", "export", "--output", archive.to_str().unwrap()];
    let output = gateway.setup.command(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let unpacked = flate2::read::GzDecoder::new(fs::File::open(&archive).unwrap());
    let mut unpacked = tar::Archive::new(unpacked);
    let names: Vec<_> =
        unpacked.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.iter().any(|found| found.ends_with(&format!("/crashes/{name}"))), "{names:?}");
}

#[test]
fn the_canary_of_readiness_is_in_no_log() {
    let gateway = Gateway::start();
    gateway.wait_ready(LIMIT);
    // Ready means that one was refused. What comes later is there, so what came before would be.
    let marked = "/proxy/sigilum-canary/marked";
    let request = Request::new("GET", &gateway.authority(), marked);
    let refused = gateway.send(&request);
    assert_eq!(refused.status, 403);
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    let access = || read(gateway.setup.run_dir().join("access.log"));
    let decisions = || read(gateway.setup.data().join("logs/decision.jsonl"));
    for log in [&access as &dyn Fn() -> String, &decisions] {
        wait_until("what came later is there", LIMIT, || log().contains(marked));
        let lines = log();
        assert!(!lines.contains("\"/proxy/sigilum-canary/\""), "{lines}");
    }
}

#[test]
fn what_a_part_says_that_nobody_supervises_is_cleaned() {
    let gateway = parts::shared();
    let key = "ghp_canary0123456789abcdef";
    let refused = gateway.send(&Request::new("GET", &gateway.authority(), &format!("/proxy/nowhere/{key}")));
    assert_eq!(refused.status, 403);
    wait_until("the refusal is told", LIMIT, || gateway.authz.said().contains("/proxy/nowhere/"));
    assert!(!gateway.authz.said().contains(key), "{}", gateway.authz.said());
}
