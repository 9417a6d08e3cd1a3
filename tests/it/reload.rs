//! `gateway.yaml` and the secrets it refers to change while the gateway runs: what is hot counts at once, what cannot be
//! used changes nothing, and no request notices.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::agent::random_hex;
use crate::support::client::Broken;
use crate::support::client::Exchange;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::gateway::free_port;
use crate::support::process;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Writes as a program that knows what it does: a temporary file, renamed.
pub fn put(path: &Path, text: &str, mode: u32) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(temporary, path).unwrap();
}

fn canary(name: &str) -> String {
    format!("canary-{name}-{}", random_hex(12))
}

/// A declared connection with one secret.
pub fn declared(at: usize, upstream: &Upstream, secret: &str) -> String {
    let (id, base) = (Setup::connection_id(at), upstream.base_url());
    format!(
        "  - {{id: {id}, base_url: '{base}', auth_mode: header_key, auth_header_name: x-key, secrets: {{api_key: {secret}}}}}\n"
    )
}

pub fn config_status(gateway: &Gateway) -> Value {
    gateway.admin("GET", "/config/status", None).json()
}

pub fn secrets_status(gateway: &Gateway) -> Value {
    gateway.admin("GET", "/secrets/status", None).json()
}

/// What the provider is sent on a connection.
pub fn key_sent(gateway: &Gateway, upstream: &Upstream, at: usize) -> String {
    let path = format!("/proxy/{}/{}", Setup::connection_id(at), random_hex(8));
    let response = gateway.get(&path);
    assert_eq!(response.status, 200, "{}", response.text());
    let target = path.rsplit('/').next().unwrap().to_owned();
    let seen = upstream.seen().into_iter().find(|seen| seen.target.ends_with(&target)).unwrap();
    seen.header("x-key").unwrap_or_default().to_owned()
}

/// Rewrites `gateway.yaml` and waits until the gateway has looked at it.
pub fn edit(gateway: &Gateway, settings: &str) -> Value {
    let text = gateway.setup.yaml_of(settings);
    let path = gateway.setup.home().join("gateway.yaml");
    put(&path, &text, 0o600);
    wait_for_file(gateway, &path)
}

pub fn wait_for_file(gateway: &Gateway, path: &Path) -> Value {
    use sha2::Digest as _;
    let hash: String = sha2::Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut status = Value::Null;
    wait_until("the gateway has read its file", LIMIT, || {
        status = config_status(gateway);
        status["fileConfigHash"] == hash.as_str()
    });
    status
}

/// Environment of every process of a gateway but its supervisor's, which is the user's own.
fn environments(gateway: &Gateway) -> Vec<(i32, Vec<u8>)> {
    let children = process::children(gateway.pid());
    children.into_iter().map(|child| (child.pid, process::environment(child.pid))).collect()
}

fn holds(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

pub fn script(folder: &Path, body: &str) -> PathBuf {
    let path = folder.join("provider.sh");
    put(&path, &format!("#!/bin/sh\n{body}\n"), 0o755);
    path
}

#[test]
fn secrets_come_from_everywhere_and_lie_nowhere() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let root = setup.root.path().to_owned();
    let secrets: Vec<_> = ["env", "file", "json", "exec", "variable"].map(canary).to_vec();
    put(&root.join("whole"), &format!("{}\n", secrets[1]), 0o600);
    put(&root.join("keys.json"), &format!("{{\"slack\":{{\"token\":\"{}\"}}}}", secrets[2]), 0o600);
    put(&root.join("told"), &secrets[3], 0o600);
    let command = script(
        &root,
        &format!("read -r line; printf '{{\"values\":{{\"team/key\":\"%s\"}}}}' \"$(cat {}/told)\"", root.display()),
    );
    let yaml = format!(
        "secrets:\n  providers:\n    keys: {{source: file, path: {0}/keys.json}}\n    vault: {{source: exec, command: {1}, \
         pass_env: [PATH]}}\nvariables:\n  SHARED: $SIGILUM_TEST_SHARED\nconnections:\n",
        root.display(),
        command.display()
    );
    let yaml = yaml
        + &declared(0, &upstream, "$SIGILUM_TEST_ENV")
        + &declared(1, &upstream, &format!("{{file: {}/whole}}", root.display()))
        + &declared(2, &upstream, "{source: file, provider: keys, id: /slack/token}")
        + &declared(3, &upstream, "{source: exec, provider: vault, id: team/key}")
        + &declared(4, &upstream, "'{{SHARED}}'");
    let setup = setup.env("SIGILUM_TEST_ENV", &secrets[0]).env("SIGILUM_TEST_SHARED", &secrets[4]).yaml(&yaml);
    let gateway = setup.start();
    for (at, secret) in secrets.iter().enumerate() {
        assert_eq!(&key_sent(&gateway, &upstream, at), secret, "{at}");
    }

    let status = secrets_status(&gateway);
    assert_eq!((&status["ok"], &status["refs"]["active"]), (&Value::from(true), &Value::from(6)), "{status}");
    let listed = gateway.admin("GET", "/connections", None);
    assert_eq!(listed.json()["connections"][0]["declared"], true);
    let metrics = crate::support::client::send(
        gateway.setup.admin,
        &crate::support::client::Request::new("GET", &gateway.setup.admin.to_string(), "/metrics")
            .header("authorization", &format!("Bearer {}", gateway.token())),
    );
    assert!(metrics.text().contains("sigilum_gateway_secrets_generation 1"), "{}", metrics.text());
    let logs = fs::read_dir(gateway.setup.data().join("logs")).unwrap().flatten();
    let logs: Vec<_> = logs.map(|entry| fs::read(entry.path()).unwrap_or_default()).collect();
    let answers = [status.to_string(), listed.text(), metrics.text(), gateway.said()];
    for secret in &secrets {
        for (pid, environment) in environments(&gateway) {
            assert!(!holds(&environment, secret), "environment of {pid}: {}", process::arguments(pid));
            assert!(!process::arguments(pid).contains(secret.as_str()), "arguments of {pid}");
        }
        assert!(logs.iter().all(|log| !holds(log, secret)), "a log holds {secret}");
        assert!(answers.iter().all(|answer| !answer.contains(secret.as_str())), "an answer holds {secret}");
    }
}

#[test]
fn an_unresolved_reference_stops_the_start_and_names_the_key() {
    let upstream = Upstream::start();
    for (secret, mode, said) in [
        ("$SIGILUM_TEST_NOWHERE", 0o600, "the variable SIGILUM_TEST_NOWHERE is not set"),
        ("{file: ROOT/secret}", 0o644, "chmod 600 "),
        ("{file: ROOT/none}", 0o600, "does not exist"),
        ("{file: ROOT/secret, pointer: /a}", 0o600, "is no JSON"),
        ("'{{NOWHERE}}'", 0o600, "there is no credential variable NOWHERE"),
    ] {
        let setup = Setup::new();
        let root = setup.root.path().display().to_string();
        put(&setup.root.path().join("secret"), "canary-secret", mode);
        let yaml = format!("connections:\n{}", declared(0, &upstream, &secret.replace("ROOT", &root)));
        let setup = setup.yaml(&yaml);
        setup.write_yaml();
        let refused = setup.start_refused();
        let log = fs::read_to_string(setup.data().join("logs/admin.log")).unwrap_or_default();
        let all = format!("{}\n{log}", refused.said);
        assert_eq!(refused.code, Some(78), "{secret}: {all}");
        assert!(all.contains("secret reference unresolved: connections[0].secrets.api_key ("), "{secret}: {all}");
        assert!(all.contains(said) && !all.contains("canary-secret"), "{secret}: {all}");
    }
}

#[test]
fn every_way_of_writing_the_file_counts() {
    let upstream = Upstream::start();
    let gateway = Setup::new().env("SIGILUM_TEST_A", "value-a").env("SIGILUM_TEST_B", "value-b").yaml(&format!(
        "variables: {{KEY_A: $SIGILUM_TEST_A, KEY_B: $SIGILUM_TEST_B}}\nconnections:\n{}",
        declared(0, &upstream, "'{{KEY_A}}'")
    ));
    let gateway = gateway.start();
    let path = gateway.setup.home().join("gateway.yaml");
    let text = |variable: &str| {
        let yaml = format!(
            "variables: {{KEY_A: $SIGILUM_TEST_A, KEY_B: $SIGILUM_TEST_B}}\nconnections:\n{}",
            declared(0, &upstream, &format!("'{{{{KEY_{variable}}}}}'"))
        );
        gateway.setup.yaml_of(&yaml)
    };
    let counts = |variable: &str, how: &str| {
        let value = format!("value-{}", variable.to_lowercase());
        wait_until(how, LIMIT, || key_sent(&gateway, &upstream, 0) == value);
    };
    counts("A", "the start");
    fs::write(&path, text("B")).unwrap();
    counts("B", "in place");
    put(&path, &text("A"), 0o644);
    counts("A", "temporary file and rename");
    // Emptied, left for a moment that is long, and written.
    fs::write(&path, "").unwrap();
    let whole = text("B");
    let (first, second) = whole.split_at(whole.len() / 2);
    fs::write(&path, first).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    fs::write(&path, format!("{first}{second}")).unwrap();
    counts("B", "in pieces");
    // As Kubernetes mounts a ConfigMap.
    let home = gateway.setup.home();
    for (version, variable) in [("..1", "A"), ("..2", "B")] {
        fs::create_dir(home.join(version)).unwrap();
        fs::write(home.join(version).join("gateway.yaml"), text(variable)).unwrap();
        symlink(version, home.join("..data_tmp")).unwrap();
        fs::rename(home.join("..data_tmp"), home.join("..data")).unwrap();
        if version == "..1" {
            symlink("..data/gateway.yaml", home.join("link")).unwrap();
            fs::rename(home.join("link"), &path).unwrap();
        }
        counts(variable, "a turned link");
    }
}

#[test]
fn an_edit_that_cannot_be_used_changes_nothing() {
    let upstream = Upstream::start();
    let good = format!("connections:\n{}", declared(0, &upstream, "$SIGILUM_TEST_A"));
    let gateway = Setup::new().env("SIGILUM_TEST_A", "good").yaml(&good).start();
    let bomb = format!("x: &a [{0}]\ny: [*a, *a]\n", "lol,".repeat(10));
    for (bad, kind, said) in [
        (format!("{good}connections_: []\nlogging: {{level: loud}}\n"), "invalid", "logging.level"),
        (bomb, "invalid", "aliases"),
        (good.replace("$SIGILUM_TEST_A", "$SIGILUM_TEST_LATER"), "unresolved", "restart the gateway"),
        (good.replace("$SIGILUM_TEST_A", "{file: /nonexistent/secret}"), "unresolved", "does not exist"),
        (good.replace("http://127", "http://user:pass@127"), "invalid", "connections[0].base_url"),
        (good.replace("http://127.0.0.1", "http://169.254.169.254"), "invalid", "connections[0].base_url"),
    ] {
        let before = config_status(&gateway)["appliedConfigHash"].clone();
        let status = edit(&gateway, &bad);
        assert_eq!((&status["ok"], &status["lastError"]["kind"]), (&false.into(), &kind.into()), "{status}");
        assert!(status["lastError"]["message"].as_str().unwrap().contains(said), "{said}: {status}");
        assert_eq!(status["appliedConfigHash"], before);
        assert_eq!(key_sent(&gateway, &upstream, 0), "good");
    }
    assert!(log_of(&gateway).contains("config reload skipped (invalid config)"));
    let status = edit(&gateway, &good);
    assert_eq!((&status["ok"], &status["lastError"]), (&true.into(), &Value::Null), "{status}");
    assert_eq!(status["appliedConfigHash"], status["fileConfigHash"]);
}

pub fn log_of(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.setup.data().join("logs/admin.log")).unwrap_or_default()
}

/// The admin process.
pub fn admin_pid(gateway: &Gateway) -> i32 {
    let children = process::children(gateway.pid());
    children
        .into_iter()
        .find(|child| {
            process::arguments(child.pid).contains("gateway\0admin")
                || process::arguments(child.pid).contains("gateway admin")
        })
        .map(|child| child.pid)
        .unwrap()
}

/// What an edit came to.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// In force, same process.
    Applied,
    /// Told and not in force.
    Pending,
    /// In force, another process.
    Restarted,
    /// Nothing to do.
    Same,
    /// Refused.
    Refused,
}

#[test]
fn each_mode_does_with_each_class_of_change_what_it_says() {
    let upstream = Upstream::start();
    for mode in ["off", "hot", "restart", "hybrid"] {
        let base = |more: &str, secret: &str| {
            format!("reload: {{mode: {mode}}}\n{more}connections:\n{}", declared(0, &upstream, secret))
        };
        let gateway =
            Setup::new().env("SIGILUM_TEST_A", "a").env("SIGILUM_TEST_B", "b").yaml(&base("", "$SIGILUM_TEST_A"));
        let gateway = gateway.start();
        for (class, more, secret, expected) in [
            ("no-op", "# a remark\n", "$SIGILUM_TEST_A", Came::Same),
            ("invalid", "logging: {level: loud}\n", "$SIGILUM_TEST_A", Came::Refused),
            (
                "hot",
                "gateway: {authorities: [gw.example]}\n",
                "$SIGILUM_TEST_A",
                match mode {
                    "off" => Came::Pending,
                    "restart" => Came::Restarted,
                    _ => Came::Applied,
                },
            ),
            (
                "hot-envoy",
                "gateway: {authorities: [gw.example]}\nlimits: {max_body_bytes: 4096}\n",
                "$SIGILUM_TEST_A",
                match mode {
                    "off" => Came::Pending,
                    "restart" => Came::Restarted,
                    _ => Came::Applied,
                },
            ),
            (
                "restart",
                "gateway: {authorities: [gw.example]}\nlimits: {max_body_bytes: 4096, replay_capacity: 5000}\n",
                "$SIGILUM_TEST_A",
                match mode {
                    "off" | "hot" => Came::Pending,
                    _ => Came::Restarted,
                },
            ),
        ] {
            let (pid, hash) = (admin_pid(&gateway), config_status(&gateway)["appliedConfigHash"].clone());
            let text = gateway.setup.yaml_of(&base(more, secret));
            let path = gateway.setup.home().join("gateway.yaml");
            put(&path, &text, 0o600);
            if expected == Came::Restarted {
                wait_until(&format!("{mode}/{class}: another admin"), LIMIT, || {
                    process::children(gateway.pid()).iter().all(|child| child.pid != pid)
                });
                gateway.wait_ready(LIMIT);
            }
            let status = wait_for_file(&gateway, &path);
            let same = expected != Came::Restarted && admin_pid(&gateway) == pid;
            let came = match (status["ok"] == true, same, status["lastError"].is_null()) {
                (true, false, _) => Came::Restarted,
                (true, true, _) if matches!(expected, Came::Same) => Came::Same,
                (true, true, _) => Came::Applied,
                (false, _, true) => Came::Pending,
                (false, _, false) => Came::Refused,
            };
            assert_eq!(came, expected, "{mode}/{class}: {status}");
            if expected == Came::Pending {
                assert_eq!(status["appliedConfigHash"], hash, "{mode}/{class}");
                let needs = status["restartRequired"].as_array().unwrap().len();
                assert_eq!(needs > 0, class == "restart", "{mode}/{class}: {status}");
            }
            // What is told is so.
            let mut request = gateway.agent().get("gw.example", &format!("/proxy/{}/x", Setup::connection_id(0)));
            request = request.header("x-class", class);
            let accepted = gateway.send(&request).status == 200;
            let hot_in_force = more.contains("gw.example") && mode != "off";
            assert_eq!(accepted, hot_in_force, "{mode}/{class}");
            let large = gateway.post(&format!("/proxy/{}/y", Setup::connection_id(0)), &[b'x'; 8192]).status;
            let limited = more.contains("4096") && mode != "off";
            assert_eq!(large, if limited { 413 } else { 200 }, "{mode}/{class}");
        }
    }
}

#[test]
fn secrets_rotate_under_load_without_a_failure_and_never_in_part() {
    let (one, other) = (Upstream::start(), Upstream::start());
    let setup = Setup::new();
    let keys = setup.root.path().join("keys.json");
    let pair = |round: usize| format!("{{\"one\":\"one-{round}\",\"other\":\"other-{round}\"}}");
    put(&keys, &pair(0), 0o600);
    let yaml = format!(
        "secrets: {{providers: {{keys: {{source: file, path: {}}}}}}}\nconnections:\n{}{}",
        keys.display(),
        declared(0, &one, "{source: file, provider: keys, id: /one}"),
        declared(1, &other, "{source: file, provider: keys, id: /other}"),
    );
    let gateway = setup.yaml(&yaml).start();
    let rounds = 10;
    let (stop, sent, tag) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut exchange = Exchange::open(gateway.setup.ingress).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    // One after the other: what the first has seen, the second must not be behind.
                    let number = tag.fetch_add(1, Ordering::Relaxed);
                    for at in [0, 1] {
                        let target = format!("/proxy/{}/{number}", Setup::connection_id(at));
                        let request = gateway.agent().get(&gateway.authority(), &target);
                        let response = exchange.send(&request).unwrap_or_else(|Broken(why)| panic!("{why}"));
                        assert_eq!(response.status, 200, "{}", response.text());
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    // About 500 a second in all.
                    std::thread::sleep(Duration::from_millis(14));
                }
            });
        }
        let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 1..=rounds {
                put(&keys, &pair(round), 0o600);
                if round % 2 == 0 {
                    let body = gateway.admin("POST", "/secrets/reload", None).json();
                    assert_eq!(body["ok"], true, "{body}");
                }
                wait_until("the rotation counts", LIMIT, || {
                    let last = other.seen().last().and_then(|seen| seen.header("x-key").map(str::to_owned));
                    last.as_deref() == Some(format!("other-{round}").as_str())
                });
            }
        }));
        stop.store(true, Ordering::Relaxed);
        work.unwrap();
    });
    let rate = sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} requests a second, {rounds} rotations");
    let number = |seen: &crate::support::upstream::Seen| {
        let tag: usize = seen.target.trim_start_matches('/').parse().unwrap();
        let round: usize = seen.header("x-key").unwrap().rsplit('-').next().unwrap().parse().unwrap();
        (tag, round)
    };
    let first: std::collections::HashMap<_, _> = one.seen().iter().map(number).collect();
    for (tag, round) in other.seen().iter().map(number) {
        assert!(first[&tag] <= round, "request {tag}: {} and then {round}", first[&tag]);
    }
}

#[test]
fn one_broken_reference_keeps_all_secrets_and_is_told_once() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let root = setup.root.path().to_owned();
    for name in ["a", "b", "c"] {
        put(&root.join(name), &format!("old-{name}"), 0o600);
    }
    let command = script(&root, &format!("cat {}/c", root.display()));
    let yaml = format!(
        "secrets: {{providers: {{vault: {{source: exec, command: {}, pass_env: [PATH], timeout_ms: 1000, json_only: false}}}}}}\n\
         connections:\n{}{}{}",
        command.display(),
        declared(0, &upstream, &format!("{{file: {}/a}}", root.display())),
        declared(1, &upstream, &format!("{{file: {}/b}}", root.display())),
        declared(2, &upstream, "{source: exec, provider: vault, id: c}"),
    );
    let gateway = setup.yaml(&yaml).start();
    let generation = secrets_status(&gateway)["generation"].clone();
    // It hangs from now on, and what it started hangs with it.
    script(&root, "sleep 600 & wait");
    for name in ["a", "b", "c"] {
        put(&root.join(name), &format!("new-{name}"), 0o600);
    }
    let begun = Instant::now();
    let told = gateway.admin("POST", "/secrets/reload", None).json();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!((&told["ok"], &told["refs"]["unresolved"]), (&false.into(), &1.into()), "{told}");
    assert_eq!(told["unresolved"][0]["path"], "connections[2].secrets.api_key");
    assert!(told["unresolved"][0]["message"].as_str().unwrap().contains("within 1000 ms"), "{told}");
    gateway.admin("POST", "/secrets/reload", None);
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        assert_eq!(key_sent(&gateway, &upstream, at), format!("old-{name}"));
    }
    let status = secrets_status(&gateway);
    assert_eq!((&status["degraded"], &status["generation"]), (&true.into(), &generation), "{status}");
    let ready = crate::support::client::send(
        gateway.setup.admin,
        &crate::support::client::Request::new("GET", &gateway.setup.admin.to_string(), "/health/ready")
            .header("authorization", &format!("Bearer {}", gateway.token())),
    );
    assert_eq!(ready.status, 200);
    let conditions = ready.json()["conditions"].clone();
    let found = conditions.as_array().unwrap().iter().find(|found| found["type"] == "SecretsSnapshot").unwrap().clone();
    assert_eq!((&found["status"], &found["reason"]), (&"True".into(), &"Degraded".into()), "{found}");

    script(&root, &format!("cat {}/c", root.display()));
    let told = gateway.admin("POST", "/secrets/reload", None).json();
    assert_eq!(told["ok"], true, "{told}");
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        wait_until("the new secrets count", LIMIT, || key_sent(&gateway, &upstream, at) == format!("new-{name}"));
    }
    // Nobody watches what a program answers, and while all is well nobody asks it by himself.
    script(&root, "echo newer-c");
    let told = gateway.admin("POST", "/secrets/reload?dry_run=true", None).json();
    assert_eq!((&told["ok"], &told["refs"]["changed"]), (&true.into(), &1.into()), "{told}");
    assert_eq!(key_sent(&gateway, &upstream, 2), "new-c", "a dry run activates nothing");
    let told = gateway.admin("POST", "/secrets/reload", None).json();
    assert_eq!(told["ok"], true, "{told}");
    wait_until("the newer secret counts", LIMIT, || key_sent(&gateway, &upstream, 2) == "newer-c");
    let log = log_of(&gateway);
    assert_eq!(log.matches("SECRETS_RELOADER_DEGRADED").count(), 1, "{log}");
    assert_eq!(log.matches("SECRETS_RELOADER_RECOVERED").count(), 1, "{log}");
    let hanging = process::children(admin_pid(&gateway));
    assert!(hanging.is_empty(), "{:?}", hanging.iter().map(|child| process::arguments(child.pid)).collect::<Vec<_>>());
}

#[test]
fn secrets_that_are_too_old_close_their_connection_and_no_other() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let root = setup.root.path().to_owned();
    put(&root.join("a"), "a", 0o600);
    put(&root.join("b"), "b", 0o600);
    let yaml = format!(
        "secrets: {{max_stale_seconds: 2}}\nconnections:\n{}{}",
        declared(0, &upstream, &format!("{{file: {}/a}}", root.display())),
        declared(1, &upstream, &format!("{{file: {}/b}}", root.display())),
    );
    let gateway = setup.yaml(&yaml).start();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o644)).unwrap();
    let path = |at| format!("/proxy/{}/x", Setup::connection_id(at));
    wait_until("the secret is too old", LIMIT, || gateway.get(&path(0)).status != 200);
    assert_eq!(key_sent(&gateway, &upstream, 1), "b");
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    wait_until("it counts again", LIMIT, || gateway.get(&path(0)).status == 200);
    assert_eq!(key_sent(&gateway, &upstream, 0), "a");
}

#[test]
fn a_hangup_reloads_the_file_and_the_secrets() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let key = setup.root.path().join("key");
    put(&key, "one", 0o600);
    // Nothing is told of the secret: the mode is off.
    let yaml = format!(
        "reload: {{mode: off}}\nconnections:\n{}",
        declared(0, &upstream, &format!("{{file: {}}}", key.display()))
    );
    let gateway = setup.yaml(&yaml).start();
    put(&key, "two", 0o600);
    process::signal(gateway.pid(), Signal::HUP);
    wait_until("the hangup reached admin", LIMIT, || key_sent(&gateway, &upstream, 0) == "two");
    assert_eq!(gateway.get(&format!("/proxy/{}/x", Setup::connection_id(0))).status, 200);
}

#[test]
fn the_ingress_moves_to_another_port_while_requests_flow() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let yaml = |port: u16| {
        let ingress =
            if port == 0 { String::new() } else { format!("gateway: {{ingress_addr: '127.0.0.1:{port}'}}\n") };
        format!("{ingress}connections:\n{}", declared(0, &upstream, "$SIGILUM_TEST_A"))
    };
    let first = setup.ingress.port();
    let mut setup = setup.env("SIGILUM_TEST_A", "a").yaml(&yaml(first));
    setup.environment.push(("GATEWAY_INGRESS_ADDR".to_owned(), String::new()));
    let gateway = setup.start();
    let next = free_port();
    let status = edit(&gateway, &yaml(next));
    assert_eq!(status["ok"], true, "{status}");
    assert_eq!(status["envoy"]["status"], "True", "{status}");
    let moved = std::net::SocketAddr::from(([127, 0, 0, 1], next));
    let request = gateway.agent().get(&moved.to_string(), &format!("/proxy/{}/x", Setup::connection_id(0)));
    assert_eq!(crate::support::client::send(moved, &request).status, 200);
    // One that somebody else has is refused, and nothing changes.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let status = edit(&gateway, &yaml(taken.local_addr().unwrap().port()));
    assert_eq!((&status["ok"], &status["lastError"]["kind"]), (&false.into(), &"envoy".into()), "{status}");
    let request = gateway.agent().get(&moved.to_string(), &format!("/proxy/{}/y", Setup::connection_id(0)));
    assert_eq!(crate::support::client::send(moved, &request).status, 200);
}

#[test]
fn a_provider_program_inherits_nothing_and_ends_with_admin() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let root = setup.root.path().to_owned();
    // What it has: files, limits, environment; as one word.
    let command = script(
        &root,
        "printf '%s' \"$(ls /proc/self/fd | tr '\\n' ,)$(ulimit -c),$(env | sort | cut -d= -f1 | tr '\\n' ,)\"",
    );
    let yaml = format!(
        "secrets: {{providers: {{vault: {{source: exec, command: {}, pass_env: [PATH], json_only: false, timeout_ms: 60000}}}}}}\n\
         connections:\n{}",
        command.display(),
        declared(0, &upstream, "{source: exec, provider: vault, id: a}"),
    );
    let gateway = setup.env("SIGILUM_TEST_CANARY", "canary").yaml(&yaml).start();
    // ls has its folder open; dash holds its script with a number of its own.
    let said = key_sent(&gateway, &upstream, 0);
    assert!(said.starts_with("0,1,10,2,3,0,") || said.starts_with("0,1,2,3,0,"), "{said}");
    assert!(said.ends_with("0,PATH,PWD,") || said.ends_with("0,PATH,PWD,_,"), "{said}");

    let marker = root.join("pid");
    script(&root, &format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", marker.display()));
    let admin = admin_pid(&gateway);
    std::thread::scope(|scope| {
        // Whoever asks is cut off with admin.
        scope.spawn(|| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gateway.admin("POST", "/secrets/reload", None)))
        });
        wait_until("the program runs", LIMIT, || marker.exists());
        process::signal(admin, Signal::KILL);
    });
    let program: i32 = fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
    wait_until("the program ended with admin", LIMIT, || !process::alive(program));
}

/// Runs a command against a gateway: exit code and standard output.
fn run(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let output = gateway.setup.command(arguments).current_dir(gateway.setup.root.path()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_commands_say_how_it_stands_by_exit_code() {
    let upstream = Upstream::start();
    let setup = Setup::new();
    let root = setup.root.path().to_owned();
    put(&root.join("key"), "canary-first", 0o600);
    let yaml = format!("connections:\n{}", declared(0, &upstream, &format!("{{file: {}/key}}", root.display())));
    let gateway = setup.yaml(&yaml).start();

    let (code, told) = run(&gateway, &["secrets", "reload", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["ok"], &told["refs"]["active"]), (Some(0), &true.into(), &1.into()), "{told}");
    let (code, told) = run(&gateway, &["secrets", "status"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("connections[0].secrets.api_key") && !told.contains("canary"), "{told}");
    assert_eq!(run(&gateway, &["secrets", "audit", "--check"]), (Some(0), "clean: 0 findings\n".to_owned()));

    fs::set_permissions(root.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, told) = run(&gateway, &["secrets", "reload", "--json", "--dry-run"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["refs"]["unresolved"]), (Some(2), &1.into()), "{told}");
    wait_until("the gateway has noticed", LIMIT, || run(&gateway, &["secrets", "status", "--json"]).0 == Some(2));
    let (code, told) = run(&gateway, &["secrets", "audit", "--json", "--check"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["status"]), (Some(2), &"unresolved".into()), "{told}");
    fs::set_permissions(root.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    wait_until("it is well again", LIMIT, || run(&gateway, &["secrets", "status"]).0 == Some(0));

    // What lies about in clear is found, and not shown.
    put(&gateway.setup.home().join("gateway-connection-secret-old"), "canary-legacy", 0o600);
    put(&gateway.setup.home().join("gateway.yaml.bak"), "api_key: canary-backup\n", 0o600);
    put(&gateway.setup.home().join("service-api-key-linear"), "canary-service", 0o644);
    put(&root.join(".env"), "OPENAI_API_KEY=sk-canary-1234\n", 0o600);
    let (code, told) = run(&gateway, &["secrets", "audit", "--json", "--check"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(!told.contains("canary"), "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let codes: Vec<_> =
        told["findings"].as_array().unwrap().iter().map(|found| found["code"].as_str().unwrap()).collect();
    assert_eq!(codes.iter().filter(|code| **code == "LEGACY_RESIDUE").count(), 2, "{told}");
    assert_eq!(codes.iter().filter(|code| **code == "PLAINTEXT_FOUND").count(), 2, "{told}");
    assert_eq!(run(&gateway, &["secrets", "audit"]).0, Some(0), "without --check it tells and does not judge");

    gateway.running().signal(Signal::TERM);
    gateway.running().wait(LIMIT);
    assert_eq!(run(&gateway, &["secrets", "reload"]).0, Some(5));
}

#[test]
fn what_is_hot_counts_in_every_process_at_once() {
    let upstream = Upstream::start();
    let base = format!("connections:\n{}", declared(0, &upstream, "$SIGILUM_TEST_A"));
    let gateway = Setup::new().env("SIGILUM_TEST_A", "a").yaml(&format!("logging: {{level: error}}\n{base}")).start();
    let pid = admin_pid(&gateway);
    let admin = gateway.setup.admin;
    let delete_from = |origin: &str| {
        let request = crate::support::client::Request::new("DELETE", &admin.to_string(), "/api/admin/connections/none")
            .header("authorization", &format!("Bearer {}", gateway.token()))
            .header("origin", origin);
        crate::support::client::send(admin, &request).status
    };
    assert_eq!(delete_from("https://ops.example"), 403);
    let hot = "logging: {level: info}\nadmin: {allowed_origins: ['https://ops.example']}\n";
    let status = edit(&gateway, &format!("{hot}{base}"));
    assert_eq!(status["ok"], true, "{status}");
    assert_eq!(delete_from("https://ops.example"), 404);
    let log = |role: &str| fs::read_to_string(gateway.setup.data().join(format!("logs/{role}.log"))).unwrap();
    // But for the question the gateway asks itself every ten seconds, whenever that comes.
    let informed = |line: &str| line.contains("\"level\":\"INFO\"") && !line.contains("sigilum-canary");
    assert!(!log("authz").lines().any(informed), "{}", log("authz"));
    wait_until("admin logs more", LIMIT, || log("admin").contains("\"level\":\"INFO\""));
    assert_eq!(admin_pid(&gateway), pid);
    // authz looks at its level now and then; that it has admin back is worth a line of that level.
    let logged = (0..4).any(|_| {
        process::signal(admin_pid(&gateway), Signal::KILL);
        wait_until("authz lost admin", LIMIT, || !gateway.admin_ready());
        gateway.wait_ready(LIMIT);
        log("authz").contains("state applied")
    });
    assert!(logged, "{}", log("authz"));
}
