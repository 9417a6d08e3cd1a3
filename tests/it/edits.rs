//! Edits of `gateway.yaml` at their edges: a file that goes, secrets that come late, what is told and written down of them.

use std::fs;

use serde_json::Value;

use crate::reload::admin_pid;
use crate::reload::config_status;
use crate::reload::declared;
use crate::reload::edit;
use crate::reload::key_sent;
use crate::reload::log_of;
use crate::reload::put;
use crate::reload::wait_for_file;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// SHA-256 of nothing.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn a_file_that_is_emptied_or_gone_withdraws_nothing() {
    let upstream = Upstream::start();
    // A setting that takes a restart stands there too: without it the gateway would start anew.
    let good =
        format!("limits: {{replay_capacity: 5000}}\nconnections:\n{}", declared(0, &upstream, "$SIGILUM_TEST_A"));
    let gateway = Setup::new().env("SIGILUM_TEST_A", "good").yaml(&good).start();
    let (pid, path) = (admin_pid(&gateway), gateway.setup.home().join("gateway.yaml"));
    let stays = |status: &Value, said: &str| {
        assert_eq!((&status["ok"], &status["lastError"]["kind"]), (&false.into(), &"invalid".into()), "{status}");
        let message = status["lastError"]["message"].as_str().unwrap();
        assert!(message.contains(said) && message.contains("{}") && message.contains("gateway.yaml"), "{status}");
        assert_eq!(key_sent(&gateway, &upstream, 0), "good");
        assert_eq!(admin_pid(&gateway), pid);
    };
    put(&path, " \n\t\n", 0o600);
    stays(&wait_for_file(&gateway, &path), "empty");
    fs::remove_file(&path).unwrap();
    wait_until("the gateway has seen that the file is gone", LIMIT, || {
        config_status(&gateway)["lastError"]["message"].as_str().is_some_and(|message| message.contains("gone"))
    });
    stays(&config_status(&gateway), "gone");
    fs::write(&path, "").unwrap();
    wait_until("the gateway has seen the empty file", LIMIT, || {
        let status = config_status(&gateway);
        status["fileConfigHash"] == NOTHING
            && status["lastError"]["message"].as_str().is_some_and(|message| message.contains("empty"))
    });
    // Asked for it says the same.
    let asked = gateway.admin("POST", "/config/reload", None).json();
    stays(&asked, "empty");
    assert!(log_of(&gateway).contains("config reload skipped (invalid config)"));
    let status = edit(&gateway, &good);
    assert_eq!((&status["ok"], &status["lastError"]), (&true.into(), &Value::Null), "{status}");

    // A word is a will: here the restart that the setting takes.
    put(&path, "{}", 0o600);
    wait_until("another admin", LIMIT, || process::children(gateway.pid()).iter().all(|child| child.pid != pid));
    gateway.wait_ready(LIMIT);
    assert_eq!(config_status(&gateway)["ok"], true);
    assert_eq!(gateway.admin("GET", "/connections", None).json()["connections"], Value::Array(Vec::new()));
}
