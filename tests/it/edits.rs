//! Edits of `gateway.yaml` at their edges: a file that goes, secrets that come late, what is told and written down of them.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::reload::admin_pid;
use crate::reload::config_status;
use crate::reload::declared;
use crate::reload::edit;
use crate::reload::key_sent;
use crate::reload::log_of;
use crate::reload::put;
use crate::reload::script;
use crate::reload::secrets_status;
use crate::reload::wait_for_file;
use crate::support::gateway::Gateway;
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

/// The newest entries of the audit about reloads of the file.
fn audited(gateway: &Gateway) -> Vec<Value> {
    let answer = gateway.admin("GET", "/audit?action=config.reload", None).json();
    answer["entries"].as_array().unwrap().clone()
}

#[test]
fn every_edit_that_counts_is_written_down_with_the_names_of_what_it_changed() {
    let upstream = Upstream::start();
    // A variable of the environment must be named at the start.
    let base =
        format!("variables: {{KEPT: $SIGILUM_TEST_B}}\nconnections:\n{}", declared(0, &upstream, "$SIGILUM_TEST_A"));
    let gateway = Setup::new().env("SIGILUM_TEST_A", "canary-a").env("SIGILUM_TEST_B", "canary-b").yaml(&base).start();
    for (text, names) in [
        (
            "admin: {allowed_origins: ['https://ops.example'], allowed_hosts: [gw.example]}",
            &["admin.allowed_hosts", "admin.allowed_origins"][..],
        ),
        (
            "claims: {refresh_seconds: 7, max_approvals: 99}",
            &["admin.allowed_hosts", "admin.allowed_origins", "claims.max_approvals", "claims.refresh_seconds"],
        ),
        ("reload: {mode: hot}", &["claims.max_approvals", "claims.refresh_seconds", "reload.mode"]),
        ("gateway: {trusted_hops: 1}\nreload: {mode: hot}", &["gateway.trusted_hops"]),
    ] {
        let before = audited(&gateway).len();
        let status = edit(&gateway, &format!("{text}\n{base}"));
        assert_eq!(status["ok"], true, "{status}");
        let entries = audited(&gateway);
        assert_eq!(entries.len(), before + 1, "{text}: {entries:?}");
        assert_eq!(entries[0]["detail"]["keys"], json!(names), "{text}: {}", entries[0]);
        assert_eq!(entries[0]["via"], "config");
        let all = entries[0].to_string();
        assert!(!all.contains("ops.example") && !all.contains("gw.example"), "{all}");
    }
    // Of a connection that changed its members; of what waits for a restart nothing.
    let other = base.replace("_A", "_B").replace("x-key", "x-other");
    let status = edit(&gateway, &format!("limits: {{replay_capacity: 5000}}\nreload: {{mode: hot}}\n{other}"));
    assert_eq!(status["pendingChanges"][0]["path"], "limits.replay_capacity", "{status}");
    let entries = audited(&gateway);
    let keys = json!(["gateway.trusted_hops", "connections.conn-000.auth_header_name", "connections.conn-000.secrets"]);
    assert_eq!(entries[0]["detail"]["keys"], keys, "{}", entries[0]);
    assert!(!entries[0].to_string().contains("canary"), "{}", entries[0]);
    // What means the same is no event.
    let before = entries.len();
    let text = format!("# moved\nlimits: {{replay_capacity: 5000}}\nreload: {{mode: hot}}\n{other}");
    edit(&gateway, &text.replace("replay_capacity: 5000", "replay_capacity: 2000000"));
    assert_eq!(audited(&gateway).len(), before);
}

#[test]
fn a_value_that_cannot_be_sent_is_refused_also_where_a_variable_leads_to_it() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let file = setup.root.path().join("tok");
    put(&file, "first", 0o600);
    let yaml = format!(
        "variables: {{TOK: {{file: {}}}, ALIAS: '{{{{TOK}}}}'}}\nconnections:\n{}",
        file.display(),
        declared(0, &upstream, "'{{ALIAS}}'")
    );
    let gateway = setup.yaml(&yaml).start();
    let fields = json!({ "auth_mode": "header_key", "auth_header_name": "x-key" });
    let stored = gateway.create("conn-001", &upstream.base_url(), "{{TOK}}", fields);
    assert_eq!(stored.status, 201, "{}", stored.text());
    gateway.wait_in_force("conn-001");
    put(&file, "canary\nsecond", 0o600);
    wait_until("the gateway has read the secret", LIMIT, || secrets_status(&gateway)["degraded"] == true);
    let status = secrets_status(&gateway);
    let unresolved = status["unresolved"].as_array().unwrap();
    assert_eq!(unresolved.len(), 2, "{status}");
    for (told, id) in unresolved.iter().zip(["conn-000", "conn-001"]) {
        assert_eq!(told["path"], "variables.TOK", "{status}");
        assert_eq!(told["reference"], format!("file:{}", file.display()), "{status}");
        assert!(told["message"].as_str().unwrap().contains(&format!("connection {id} cannot inject it")), "{status}");
    }
    assert!(!status.to_string().contains("canary"), "{status}");
    for at in [0, 1] {
        assert_eq!(key_sent(&gateway, &upstream, at), "first");
    }
    let asked = gateway.admin("POST", "/secrets/reload?dry_run=true", None).json();
    assert_eq!((&asked["ok"], &asked["refs"]["unresolved"]), (&false.into(), &2.into()), "{asked}");
    put(&file, "third", 0o600);
    wait_until("the gateway is well again", LIMIT, || secrets_status(&gateway)["degraded"] == false);
    for at in [0, 1] {
        assert_eq!(key_sent(&gateway, &upstream, at), "third");
    }
}

#[test]
fn an_edit_whose_secret_comes_later_counts_when_it_has_come() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let late = setup.root.path().join("late");
    let yaml = |secret: &str| format!("connections:\n{}", declared(0, &upstream, secret));
    let gateway = setup.env("SIGILUM_TEST_A", "first").yaml(&yaml("$SIGILUM_TEST_A")).start();
    let status = edit(&gateway, &yaml(&format!("{{file: {}}}", late.display())));
    assert_eq!(status["lastError"]["kind"], "unresolved", "{status}");
    assert_eq!(key_sent(&gateway, &upstream, 0), "first");
    put(&late, "second", 0o600);
    // Sooner than it is tried again by itself, which is 15 s after the edit at the earliest.
    wait_until("the secret is noticed", Duration::from_secs(12), || config_status(&gateway)["ok"] == true);
    assert_eq!(key_sent(&gateway, &upstream, 0), "second");

    // What nobody tells of is looked for now and then.
    let status = edit(&gateway, &yaml("'{{LATE}}'"));
    assert_eq!(status["lastError"]["kind"], "unresolved", "{status}");
    let set = gateway.admin("POST", "/credential-variables", Some(&json!({ "key": "LATE", "value": "third" })));
    assert!(matches!(set.status, 200 | 201), "{}", set.text());
    wait_until("it is tried again", LIMIT, || config_status(&gateway)["ok"] == true);
    assert_eq!(key_sent(&gateway, &upstream, 0), "third");
}

#[test]
fn an_edit_that_would_not_start_is_refused_before_anything_is_drained() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let bad = setup.root.path().join("bad");
    put(&bad, "canary\nbad", 0o600);
    let yaml = |more: &str, secret: &str| format!("{more}connections:\n{}", declared(0, &upstream, secret));
    let gateway = setup.env("SIGILUM_TEST_A", "good").yaml(&yaml("", "$SIGILUM_TEST_A")).start();
    let pid = admin_pid(&gateway);
    let direct = format!("{{file: {}}}", bad.display());
    let restart = "limits: {replay_capacity: 5000}\n";
    let variable = format!("{restart}variables: {{TOK: {direct}}}\n");
    for (more, secret, said) in [
        (restart, "'{{NOPE}}'", "there is no credential variable NOPE"),
        (restart, direct.as_str(), "connections[0].secrets.api_key"),
        (variable.as_str(), "'{{TOK}}'", "connection conn-000 cannot inject it"),
    ] {
        let status = edit(&gateway, &yaml(more, secret));
        assert_eq!((&status["ok"], &status["lastError"]["kind"]), (&false.into(), &"unresolved".into()), "{status}");
        let message = status["lastError"]["message"].as_str().unwrap();
        assert!(message.contains(said) && !message.contains("canary"), "{status}");
        assert_eq!(admin_pid(&gateway), pid);
        assert_eq!(key_sent(&gateway, &upstream, 0), "good");
    }
    assert!(!gateway.said().contains("starting anew"), "{}", gateway.said());
}

#[test]
fn a_secret_file_that_changes_while_it_is_new_is_read_again() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let root = setup.root.path().to_owned();
    put(&root.join("key"), "first", 0o600);
    // While this one is asked, which takes a while, the file has been read and is not watched yet.
    let command = script(
        &root,
        &format!(
            "cd {} || exit 1; if mkdir once 2>/dev/null; then sleep 1; umask 077; printf second > key.new; \
             mv key.new key; fi; printf value",
            root.display()
        ),
    );
    let base = format!(
        "secrets: {{providers: {{slow: {{source: exec, command: {}, pass_env: [PATH], json_only: false, \
         timeout_ms: 60000}}}}}}\nconnections:\n",
        command.display()
    );
    let before = base.clone() + &declared(1, &upstream, "$SIGILUM_TEST_A");
    let after = base
        + &declared(0, &upstream, &format!("{{file: {}/key}}", root.display()))
        + &declared(1, &upstream, "{source: exec, provider: slow, id: a}");
    let gateway = setup.env("SIGILUM_TEST_A", "a").yaml(&before).start();
    let status = edit(&gateway, &after);
    assert_eq!(status["ok"], true, "{status}");
    wait_until("the file is read again", LIMIT, || key_sent(&gateway, &upstream, 0) == "second");
}

#[test]
fn a_variable_that_is_too_long_is_told_as_that() {
    let upstream = Upstream::start();
    let yaml = format!("connections:\n{}", declared(0, &upstream, "$SIGILUM_TEST_LONG"));
    let setup = Setup::new().env("SIGILUM_TEST_LONG", &"c".repeat(16 * 1024 + 1)).yaml(&yaml);
    setup.write_yaml();
    let refused = setup.start_refused();
    let log = fs::read_to_string(setup.data().join("logs/admin.jsonl")).unwrap_or_default();
    let all = format!("{}\n{log}", refused.said);
    assert_eq!(refused.code, Some(78), "{all}");
    let wanted = "the variable SIGILUM_TEST_LONG has more than 16384 bytes";
    assert!(all.contains("connections[0].secrets.api_key (") && all.contains(wanted), "{all}");
    assert!(!all.contains("not set"), "{all}");
}
