//! The store as a whole, as its operator handles it: another master key, backups, what is lost. The gateway runs meanwhile
//! wherever it may.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::support::agent::random_hex;
use crate::support::client;
use crate::support::client::Request;
use crate::support::fake_api;
use crate::support::fake_api::FakeApi;
use crate::support::gateway::Connection;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Runs a command of the gateway's installation; `input` goes to standard input.
fn run_with(setup: &Setup, environment: &[(&str, &str)], arguments: &[&str], input: &str) -> Output {
    let mut command = setup.command(arguments);
    command.env("GATEWAY_ADMIN_URL", format!("http://{}", setup.admin)).envs(environment.iter().copied());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn run(setup: &Setup, arguments: &[&str]) -> Output {
    run_with(setup, &[], arguments, "")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn stop(gateway: &Gateway) {
    gateway.running().signal(Signal::TERM);
    let status = gateway.running().wait(LIMIT);
    assert!(status.success(), "{status}: {}", gateway.said());
}

fn key_file(setup: &Setup) -> std::path::PathBuf {
    setup.home().join("gateway-master-key")
}

/// Waits until the connection injects this secret.
fn wait_injected(gateway: &Gateway, upstream: &Upstream, connection: &Connection, secret: &str) {
    wait_until("the secret is injected", LIMIT, || {
        gateway.get(&connection.at("/v1")).status == 200
            && upstream
                .seen()
                .pop()
                .is_some_and(|seen| seen.header("authorization") == Some(&format!("Bearer {secret}")))
    });
}

/// Sends from several clients until told to stop: how many requests, and every answer that was not 200.
fn under_load<T>(gateway: &Gateway, connection: &Connection, work: impl FnOnce() -> T) -> (T, usize, Vec<String>) {
    let (done, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let answer = gateway.get(&connection.at("/v1"));
                        sent.fetch_add(1, Ordering::Relaxed);
                        if answer.status != 200 {
                            failed.push(format!("{} {}", answer.status, answer.text()));
                        }
                    }
                    failed
                })
            })
            .collect();
        let value = work();
        done.store(true, Ordering::Relaxed);
        let failed = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (value, sent.load(Ordering::Relaxed), failed)
    })
}

#[test]
fn a_running_gateway_changes_its_key_and_drops_no_request() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let first = fs::read_to_string(key_file(&gateway.setup)).unwrap();
    let start = Instant::now();
    let (outputs, sent, failed) = under_load(&gateway, &connection, || {
        let mut outputs = Vec::new();
        while outputs.len() < 5 || start.elapsed() < Duration::from_secs(4) {
            outputs.push(run(&gateway.setup, &["gateway", "rekey"]));
        }
        outputs
    });
    for output in &outputs {
        assert_ends(output, 0, &["the master key is another"]);
    }
    let rate = sent as f64 / start.elapsed().as_secs_f64();
    println!("{sent} requests ({rate:.0}/s) while the key was changed {} times", outputs.len());
    assert!(failed.is_empty(), "{} of {sent} failed: {:?}", failed.len(), failed.first());
    assert!(sent > 200, "{sent} requests are no load");
    let last = fs::read_to_string(key_file(&gateway.setup)).unwrap();
    assert_ne!(first, last);
    assert_eq!(fs::metadata(key_file(&gateway.setup)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_ends(&run(&gateway.setup, &["gateway", "rekey", "--check"]), 0, &["everything opens"]);
    let audit = gateway.admin("GET", "/audit?action=store.rekey", None).text();
    assert!(
        audit.contains("\"via\":\"token\"") && audit.matches("\"store.rekey\"").count() == outputs.len(),
        "{audit}"
    );
    // A process that begins now has the new key from the file.
    let admin = gateway.role("admin");
    process::signal(admin, Signal::KILL);
    gateway.wait_replaced("admin", admin);
    gateway.wait_ready(LIMIT);
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    stop(&gateway);
    let old = run_with(&gateway.setup, &[("GATEWAY_MASTER_KEY", first.trim())], &["gateway", "rekey", "--check"], "");
    assert_ends(&old, 78, &["master key does not open"]);
    // And with nothing running.
    assert_ends(&run(&gateway.setup, &["gateway", "rekey"]), 0, &["the master key is another"]);
    assert_ends(&run(&gateway.setup, &["gateway", "rekey", "--check"]), 0, &["everything opens"]);
    gateway.restart();
    wait_injected(&gateway, &upstream, &connection, &connection.secret);
}

#[test]
fn a_key_of_the_environment_is_changed_by_its_operator_and_either_one_starts_meanwhile() {
    let (old, new) = (random_hex(32), "a passphrase of several words".to_owned());
    let upstream = Upstream::start();
    let mut gateway = Setup::new().env("GATEWAY_MASTER_KEY", &old).start();
    let connection = gateway.connect(&upstream, json!({}));
    assert_ends(&run(&gateway.setup, &["gateway", "rekey"]), 1, &["--new-key-file", "NEXT_MASTER_KEY_REQUIRED"]);
    let done = run_with(&gateway.setup, &[], &["gateway", "rekey", "--new-key-stdin"], &format!("{new}\n"));
    assert_ends(&done, 0, &["GATEWAY_MASTER_KEY still names the old key", "gateway-master-key.next"]);
    assert!(!said(&done).contains(&new) && !said(&done).contains(&old), "{}", said(&done));
    let next = gateway.setup.home().join("gateway-master-key.next");
    assert_eq!(fs::metadata(&next).unwrap().permissions().mode() & 0o777, 0o600);
    assert_ends(&run(&gateway.setup, &["gateway", "rekey"]), 1, &["MASTER_KEY_PENDING"]);
    // The supervisor still hands the old key over.
    let admin = gateway.role("admin");
    process::signal(admin, Signal::KILL);
    gateway.wait_replaced("admin", admin);
    gateway.wait_ready(LIMIT);
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    stop(&gateway);
    gateway.restart();
    assert!(next.exists());
    stop(&gateway);
    gateway.setup.environment = vec![("GATEWAY_MASTER_KEY".to_owned(), new.clone())];
    gateway.restart();
    assert!(!next.exists(), "the new key was seen, so it lies in no file any more");
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    stop(&gateway);
    gateway.setup.environment = vec![("GATEWAY_MASTER_KEY".to_owned(), old)];
    let refused = gateway.setup.start_refused();
    assert_eq!(refused.code, Some(78), "{}", refused.said);
}

#[test]
fn a_new_key_stays_unless_the_answer_says_that_it_was_not_used() {
    let gateway = Gateway::start();
    let next = gateway.setup.home().join("gateway-master-key.next");
    let api = FakeApi::start(|_| Vec::new());
    let url = api.url();
    let rekey = |new: &str| {
        let environment = [("GATEWAY_ADMIN_URL", url.as_str())];
        run_with(&gateway.setup, &environment, &["gateway", "rekey", "--new-key-stdin"], new)
    };
    for (status, code, stays) in [
        ("503 Service Unavailable", "", true),
        ("500 Internal Server Error", "", true),
        ("502 Bad Gateway", "", true),
        ("409 Conflict", "SOMETHING_ELSE", true),
        ("409 Conflict", "SEALED_UNREADABLE", false),
        ("403 Forbidden", "AUTH_FORBIDDEN", false),
        ("429 Too Many Requests", "AUTH_RATE_LIMITED", false),
    ] {
        api.set(move |_| fake_api::json(status, &format!(r#"{{"error":"no","code":"{code}"}}"#)));
        let output = rekey("a passphrase of several words\n");
        assert_eq!(next.exists(), stays, "{status} {code}: {}", said(&output));
        assert_eq!(said(&output).contains("is not known"), stays, "{}", said(&output));
        let _ = fs::remove_file(&next);
    }
    // Nobody answers to the end.
    api.set(|_| Vec::new());
    assert!(!rekey("a passphrase of several words\n").status.success());
    assert!(next.exists());
    // What another change left there is not this one's to remove.
    api.set(|_| fake_api::json("403 Forbidden", r#"{"error":"no","code":"AUTH_FORBIDDEN"}"#));
    rekey("a passphrase of several words\n");
    assert!(next.exists());
    // The gateway's own start finds a key that was never used, and the one in use.
    stop(&gateway);
    gateway.restart();
    assert!(!next.exists());
}

#[test]
fn a_backup_of_a_running_gateway_comes_back() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let gone = gateway.connect(&upstream, json!({}));
    let epoch = "SELECT value FROM meta WHERE name = 'epoch'";
    assert_eq!(gateway.admin("DELETE", &format!("/connections/{}", gone.id), None).status, 204);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (online, offline) = (file("online.db"), file("offline.db"));
    let (output, _, failed) =
        under_load(&gateway, &connection, || run(&gateway.setup, &["gateway", "backup", "--output", &online]));
    assert!(failed.is_empty(), "{failed:?}");
    assert_ends(&output, 0, &["the gateway opened every secret", "not in it: the master key"]);
    // Twice is once more, and a folder is no file.
    assert_ends(&run(&gateway.setup, &["gateway", "backup", "--output", &online]), 0, &[]);
    assert_ends(&run(&gateway.setup, &["gateway", "backup", "--output", &file("")]), 64, &["folder"]);
    assert_ends(&run(&gateway.setup, &["gateway", "backup", "--output", &file("no/such")]), 1, &["no/such"]);
    let refused = run(&gateway.setup, &["gateway", "restore", &online]);
    assert_ends(&refused, 78, &["locked by pid", "nothing was changed", "sigilum down"]);
    let later = gateway.connect(&upstream, json!({}));
    stop(&gateway);
    assert_ends(&run(&gateway.setup, &["gateway", "backup", "-o", &offline]), 0, &["all 2 sets of secrets open"]);
    for (name, connections) in [(&online, 1), (&offline, 2)] {
        assert_eq!(fs::metadata(name).unwrap().permissions().mode() & 0o777, 0o600);
        let copy = rusqlite::Connection::open(name).unwrap();
        let count: i64 = copy.query_row("SELECT count(*) FROM connections", [], |row| row.get(0)).unwrap();
        assert_eq!(count, connections);
        // Its name stands in the audit; nothing that was sealed for it is left.
        let sealed = "SELECT count(*) FROM secrets WHERE connection = ?1";
        let left: i64 = copy.query_row(sealed, [&gone.id], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
    }
    let torn = file("torn.db");
    let whole = fs::read(&online).unwrap();
    fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    assert_ends(&run(&gateway.setup, &["gateway", "restore", &torn]), 78, &["torn.db is damaged"]);
    fs::write(&torn, b"#!/bin/sh\necho no database\n").unwrap();
    assert_ends(&run(&gateway.setup, &["gateway", "restore", &torn]), 78, &["is not a database of this program"]);
    assert_ends(&run(&gateway.setup, &["gateway", "restore", &online]), 0, &["is the store now: 1 connections"]);
    let epoch_of = |file: &Path| -> Vec<u8> {
        rusqlite::Connection::open(file).unwrap().query_row(epoch, [], |row| row.get(0)).unwrap()
    };
    assert_ne!(epoch_of(&gateway.setup.data().join("gateway.db")), epoch_of(Path::new(&online)));
    gateway.restart();
    wait_injected(&gateway, &upstream, &connection, &connection.secret);
    assert_eq!(gateway.admin("GET", &format!("/connections/{}", later.id), None).status, 404);
    let audit = gateway.admin("GET", "/audit?action=store.restore", None).text();
    assert!(audit.contains("\"via\":\"command\"") && audit.contains("online.db"), "{audit}");
    // The one that was deleted before the backup is nowhere in it, and no secret is in clear anywhere.
    let key = fs::read_to_string(key_file(&gateway.setup)).unwrap();
    let token = gateway.token();
    for path in files_below(folder.path()).into_iter().chain(files_below(&gateway.setup.data())) {
        let bytes = fs::read(&path).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!holds(&connection.secret) && !holds(&gone.secret) && !holds(key.trim()), "{path:?}");
        assert!(path.ends_with("admin-token") || !holds(&token), "{path:?}");
    }
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn with_a_lost_key_the_settings_stay_and_the_secrets_are_given_again() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let lost = ["gateway", "rekey", "--lost-master-key", "--yes"];
    assert_ends(&run(&gateway.setup, &lost), 78, &["locked by pid", "not lost"]);
    stop(&gateway);
    assert_ends(&run(&gateway.setup, &lost), 78, &["is not lost"]);
    fs::remove_file(key_file(&gateway.setup)).unwrap();
    let refused = gateway.setup.start_refused();
    assert_eq!(refused.code, Some(78));
    assert!(refused.said.contains("--lost-master-key"), "{}", refused.said);
    assert_ends(&run(&gateway.setup, &lost[..3]), 64, &["--yes"]);
    assert!(!key_file(&gateway.setup).exists());
    let output = run(&gateway.setup, &lost);
    let wanted = format!("sigilum connection rotate {}", connection.id);
    assert_ends(
        &output,
        0,
        &[&wanted, "the key for sealed secrets is lost as well", "sigilum gateway sealing-key show"],
    );
    gateway.restart();
    let refused = gateway.get(&connection.at("/v1"));
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("lost with the gateway's master key"), "{}", refused.text());
    let path = format!("/connections/{}", connection.id);
    let shown: serde_json::Value = serde_json::from_str(&gateway.admin("GET", &path, None).text()).unwrap();
    assert_eq!(shown["secret_status"], "lost");
    let part = json!({ "secrets": { "other": "x" } });
    let answer = gateway.admin("POST", &format!("{path}/rotate"), Some(&part));
    assert_eq!((answer.status, answer.code().as_str()), (400, "SECRETS_LOST"), "{}", answer.text());
    let whole = json!({ "secrets": { "api_key": "given-again" } });
    assert_eq!(gateway.admin("POST", &format!("{path}/rotate"), Some(&whole)).status, 200);
    wait_injected(&gateway, &upstream, &connection, "given-again");
    let shown: serde_json::Value = serde_json::from_str(&gateway.admin("GET", &path, None).text()).unwrap();
    assert!(shown.get("secret_status").is_none());
}

#[test]
fn a_new_admin_token_is_taken_at_once_and_shown_on_a_terminal_only() {
    let gateway = Gateway::start();
    let old = gateway.token();
    let piped = run(&gateway.setup, &["gateway", "auth-token", "--show"]);
    assert_ends(&piped, 64, &["terminal"]);
    assert!(piped.stdout.is_empty());
    let rotated = run(&gateway.setup, &["gateway", "auth-token", "--rotate"]);
    assert_ends(&rotated, 0, &["the old one counts no longer"]);
    let new = gateway.token();
    assert!(old != new && !said(&rotated).contains(&new) && !said(&rotated).contains(&old));
    let status = |token: &str| {
        let request = Request::new("GET", &gateway.setup.admin.to_string(), "/api/admin/connections");
        client::send(gateway.setup.admin, &request.header("authorization", &format!("Bearer {token}"))).status
    };
    assert_eq!((status(&old), status(&new)), (403, 200));
    // On a terminal (`script` of util-linux) it is the token and nothing else.
    let line = format!("'{}' gateway auth-token --show", crate::support::gateway::binary());
    let mut command = gateway.setup.command(&[]);
    let environment: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    command = std::process::Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).env_clear().stdin(Stdio::null());
    for (name, value) in environment {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let shown = command.output().expect("this test needs `script` of util-linux");
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), new);
    // Lost: whoever owns the data folder makes another.
    fs::remove_file(gateway.setup.data().join("admin-token")).unwrap();
    assert_ends(&run(&gateway.setup, &["gateway", "auth-token", "--rotate"]), 0, &["goes by it"]);
    assert_eq!((status(&new), status(&gateway.token())), (403, 200));
    let fixed = [("GATEWAY_ADMIN_TOKEN", "a-token-of-the-environment")];
    let refused = run_with(&gateway.setup, &fixed, &["gateway", "auth-token", "--rotate"], "");
    assert_ends(&refused, 78, &["GATEWAY_ADMIN_TOKEN", "set the variable"]);
}
