//! Pair sessions of the real control plane, as a process: what it leaves behind, and what its death does to them.

use std::fs;
use std::process::Command;
use std::process::Stdio;

use serde_json::json;

use crate::support::api::Api;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::free_port;
use crate::support::pair_bridge::Paired;
use crate::support::pair_bridge::answer;
use crate::support::pair_bridge::join;
use crate::support::process::wait_until;
use crate::support::upstream::runtime;

const COMMAND: &str = "/v1/gateway/pairing/command";

fn connected(api: &Api, paired: &Paired, connected: bool) {
    wait_until("the session is as it should be", LIMIT, || paired.is_connected(api) == connected);
}

fn has(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

#[test]
fn what_is_relayed_and_the_pair_code_are_in_no_file_and_no_log() {
    let api = Api::start_with(&[("SIGILUM_LOG", "trace")]);
    let paired = Paired::start(&api, "acme");
    let bridge = runtime().spawn({
        let (address, paired) = (api.address, paired.clone());
        async move { answer(join(address, &paired).await).await }
    });
    connected(&api, &paired, true);
    let canaries = ["canary-of-the-body", "canary-of-a-header", "canary-to-nobody"];
    let mut command = paired.command("/api/admin/connections", canaries[0]);
    command["headers"] = json!({"x-sigilum-admin-token": canaries[1]});
    let answered = api.owner("acme", "POST", COMMAND, Some(&command));
    assert_eq!(answered["body"], canaries[0], "it was relayed, there and back");
    bridge.abort();
    connected(&api, &paired, false);
    let refused = api.ask(&api.token("acme"), "POST", COMMAND, Some(&paired.command("/x", canaries[2])));
    assert_eq!((refused.status, refused.code().as_str()), (503, "GATEWAY_NOT_CONNECTED"));

    let log = api.said();
    assert!(log.contains("a bridge has joined") && log.contains(COMMAND), "the log says what happens: {log}");
    let mut files = 0;
    for entry in fs::read_dir(api.folder().join("data")).unwrap().flatten() {
        let bytes = fs::read(entry.path()).unwrap();
        files += usize::from(has(&bytes, &paired.id));
        for word in canaries.iter().copied().chain([paired.code.as_str()]) {
            assert!(!has(&bytes, word), "{word} in {}", entry.path().display());
        }
    }
    assert!(files > 0, "the session is in a file");
    for word in canaries.iter().copied().chain([paired.code.as_str()]) {
        assert!(!log.contains(word), "{word} was logged");
    }
}

#[test]
fn a_shells_limit_of_files_does_not_bound_the_gateways() {
    let api = Api::start();
    let inner = api.command(&["api"]);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -Sn 256 && exec \"$0\" api"])
        .arg(inner.get_program())
        .env_clear()
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("API_DATA_DIR", api.folder().join("other"))
        .env("API_PORT", free_port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let limited = Running::spawn(limited);
    wait_until("it is served", LIMIT, || limited.said().contains("the API is served"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", limited.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("8192"), "{line}");
}

#[test]
fn a_pairing_outlives_the_death_of_the_control_plane() {
    let api = Api::start();
    let paired = Paired::start(&api, "acme");
    let first = runtime().spawn({
        let (address, paired) = (api.address, paired.clone());
        async move { answer(join(address, &paired).await).await }
    });
    connected(&api, &paired, true);
    api.kill();
    assert_eq!(runtime().block_on(first).unwrap(), (1006, String::new()));
    api.go();
    assert!(!paired.is_connected(&api));
    let second = runtime().spawn({
        let (address, paired) = (api.address, paired.clone());
        async move { answer(join(address, &paired).await).await }
    });
    connected(&api, &paired, true);
    let answered = api.owner("acme", "POST", COMMAND, Some(&paired.command("/again", "x")));
    assert_eq!(answered["headers"]["x-path"], "/again");
    second.abort();
}
