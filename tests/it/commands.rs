//! `sigilum connection …` on a gateway that serves: what a command changed is what the next request meets.

use std::fs;
use std::io::Write as _;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::support::agent::random_hex;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Runs a command that must succeed; what it printed on both streams.
fn done(gateway: &Gateway, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = gateway.setup.command(arguments);
    let Output { status, stdout, stderr } = command.envs(environment.iter().copied()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{arguments:?}: {said}");
    said
}

/// Whether the next request reaches the provider with this credential.
fn uses(gateway: &Gateway, upstream: &Upstream, path: &str, secret: &str) -> bool {
    let before = upstream.count();
    gateway.get(path).status == 200
        && upstream.count() > before
        && format!("{:?}", upstream.seen().pop()).contains(secret)
}

#[test]
fn each_command_is_in_force_with_a_following_request() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let (id, base) = (gateway.next_id(), upstream.base_url());
    let (first, second) = (format!("canary-{}", random_hex(12)), format!("canary-{}", random_hex(12)));
    let path = format!("/proxy/{id}/v1");
    let mut said = String::new();
    let mut run = |arguments: &[&str]| {
        let printed = done(&gateway, &[&["connection"], arguments].concat(), &[("ONE", &first), ("TWO", &second)]);
        said.push_str(&printed);
        printed
    };
    run(&["add", &id, "--base-url", &base, "--secret-env", "api_key=ONE"]);
    wait_until("the connection is used", LIMIT, || uses(&gateway, &upstream, &path, &first));
    run(&["rotate", &id, "--secret-env", "TWO", "--reason", "leaked"]);
    wait_until("the new secret is used", LIMIT, || uses(&gateway, &upstream, &path, &second));
    run(&["set", &id, "allowed_methods=POST"]);
    wait_until("GET is refused", LIMIT, || gateway.get(&path).code() == "METHOD_OR_PATH_FORBIDDEN");
    run(&["set", &id, "allowed_methods=null"]);
    wait_until("GET is let through", LIMIT, || gateway.get(&path).status == 200);
    run(&["disable", &id]);
    wait_until("everything is refused", LIMIT, || gateway.get(&path).status != 200);
    run(&["enable", &id]);
    wait_until("requests are let through", LIMIT, || gateway.get(&path).status == 200);
    let row = run(&["list"]);
    assert!(row.contains(&id) && row.contains("active"), "{row}");
    let tested = run(&["test", &id, "--path", "/v1"]);
    assert!(tested.contains("works: HTTP 200"), "{tested}");
    assert!(format!("{:?}", upstream.seen().pop()).contains(&second));
    run(&["rm", &id, "--yes"]);
    wait_until("it is gone", LIMIT, || gateway.get(&path).status == 404);
    assert!(!said.contains(&first) && !said.contains(&second), "{said}");
}

#[test]
fn a_template_of_the_catalog_becomes_a_connection() {
    let (gateway, key) = (Gateway::start(), format!("canary-{}", random_hex(12)));
    let add = ["connection", "add", "my-linear", "--from-catalog", "linear", "--secret-env", "KEY", "--json"];
    let said = done(&gateway, &add, &[("KEY", &key)]);
    // What is for people follows on the other stream.
    let made = serde_json::Deserializer::from_str(&said).into_iter::<Value>().next().unwrap().unwrap();
    assert_eq!(
        (&made["id"], &made["base_url"], &made["auth_mode"]),
        (&json!("my-linear"), &json!("https://api.linear.app"), &json!("header_key"))
    );
    assert!(!said.contains(&key), "{said}");
}

#[test]
fn a_key_of_a_file_is_used_by_the_gateway_and_leaves_the_file() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let key = format!("sk-proj-canary-{}", random_hex(12));
    // The provider of the test stands where OpenAI would: the connection is there before its key is.
    let connection = gateway.connect(&upstream, json!({}));
    let file = gateway.setup.root.path().join(".env");
    fs::write(&file, format!("PORT=1\nOPENAI_API_KEY={key}\n")).unwrap();
    let name = file.to_str().unwrap();
    let only = format!("OPENAI_API_KEY={}", connection.id);
    // A key goes to its provider and nowhere else: this connection is none of OpenAI.
    let said = done(&gateway, &["connection", "import", name, "--yes", "--remove", "--only", &only], &[]);
    assert!(said.contains("goes to") && !said.contains(&key), "{said}");
    assert!(fs::read_to_string(&file).unwrap().contains(&key));

    let said = done(&gateway, &["connection", "import", name, "--yes", "--remove", "--json"], &[]);
    let report: Value = serde_json::from_str(&said[said.find('{').unwrap()..=said.rfind('}').unwrap()]).unwrap();
    let made = report["connections"][0]["connection"].as_str().unwrap();
    assert_eq!((&report["removed"], &report["connections"][0]["result"]), (&json!(true), &json!("created")), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "PORT=1\n");
    let shown = gateway.admin("GET", &format!("/connections/{made}"), None).json();
    assert_eq!(shown["base_url"], "https://api.openai.com");
    assert!(!said.contains(&key), "{said}");
}

#[test]
fn a_secret_on_standard_input_is_in_no_list_of_processes() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let secret = format!("canary-{}", random_hex(12));
    let mut command = gateway.setup.command(&["connection", "rotate", &connection.id, "--secret-stdin"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(secret.as_bytes()).unwrap();
    // It waits for the end of its input and holds the secret meanwhile.
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for part in ["cmdline", "environ"] {
            let shown = fs::read(entry.path().join(part)).unwrap_or_default();
            let found = shown.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{}", entry.path().join(part).display());
        }
    }
    drop(input);
    assert!(child.wait_with_output().unwrap().status.success());
    wait_until("the new secret is used", LIMIT, || uses(&gateway, &upstream, &connection.at("/v1"), &secret));
}

#[test]
fn connections_follow_the_variable_they_share() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let (id, base) = (gateway.next_id(), upstream.base_url());
    let (first, second) = (format!("canary-{}", random_hex(12)), format!("canary-{}", random_hex(12)));
    let path = format!("/proxy/{id}/v1");
    let mut said = String::new();
    let mut run = |arguments: &[&str]| {
        let printed = done(&gateway, arguments, &[("ONE", &first), ("TWO", &second)]);
        said.push_str(&printed);
        printed
    };
    run(&["variable", "set", "SHARED_KEY", "--value-env", "ONE"]);
    run(&["connection", "add", &id, "--base-url", &base, "--secret-variable", "SHARED_KEY"]);
    wait_until("its value is used", LIMIT, || uses(&gateway, &upstream, &path, &first));
    run(&["variable", "set", "SHARED_KEY", "--value-env", "TWO"]);
    wait_until("the new value is used", LIMIT, || uses(&gateway, &upstream, &path, &second));
    let listed = run(&["variable", "list"]);
    let row: Vec<_> = listed.lines().find(|line| line.starts_with("SHARED_KEY")).unwrap().split_whitespace().collect();
    assert_eq!((row[3], row[5]), ("1", "ok"), "{listed}");

    let kept = gateway.setup.command(&["variable", "rm", "SHARED_KEY", "--yes"]).output().unwrap();
    let refusal = String::from_utf8_lossy(&kept.stderr).into_owned();
    assert_eq!(kept.status.code(), Some(1), "{refusal}");
    assert!(refusal.contains("VARIABLE_IN_USE") && refusal.contains("--force"), "{refusal}");
    run(&["connection", "rm", &id, "--yes"]);
    assert!(run(&["variable", "rm", "SHARED_KEY", "--yes"]).contains("Variable SHARED_KEY removed."));
    assert!(run(&["variable", "rm", "SHARED_KEY", "--yes"]).contains("nothing was removed"));
    assert!(!said.contains(&first) && !said.contains(&second), "{said}");
}
