//! `connection …`, against the real admin process of a gateway, and against one that answers what a test says.

use serde_json::json;

use super::fake_admin::Admin;
use super::gateway::Gateway;
use super::gateway::holders;
use super::*;

const CANARY: &str = "canary-5d21c3aa-provider-secret";

/// A command to the gateway at this address, with the secret in two variables.
fn command(person: &Person, url: &str, arguments: &[&str]) -> Command {
    let mut command = person.command(&[&["--gateway-admin-url", url], arguments].concat());
    command.env("KEY", CANARY).env("OTHER", "another-provider-secret").env("GATEWAY_ADMIN_TOKEN", "");
    command
}

/// Exit code, stdout and stderr without the line that announces the command. The secret is in neither.
fn run(person: &Person, url: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = command(person, url, arguments).output().unwrap();
    let (stdout, stderr) = (text_of(&output.stdout), text_of(&output.stderr));
    assert!(!stdout.contains(CANARY) && !stderr.contains(CANARY), "{arguments:?}: {stdout}{stderr}");
    let said: Vec<_> = stderr.lines().filter(|line| !line.starts_with("[i] sigilum ")).collect();
    (output.status.code().unwrap(), stdout, said.join("\n"))
}

/// The stdout of a command that must succeed, with what differs from run to run masked.
fn done(person: &Person, url: &str, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(person, url, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    let masked = stdout.lines().map(|line| match line.split_once(": ") {
        Some((name, time)) if name.ends_with(" at") => {
            format!("{name}: {}", time.replace(|letter: char| letter.is_ascii_digit(), "").replace("--T::", "TIME"))
        }
        _ => line.to_owned(),
    });
    let masked = masked.map(|line| line.replace("TIME.Z", "TIME").replace("TIMEZ", "TIME"));
    masked.map(|line| format!("{line}\n")).collect()
}

fn json_of(person: &Person, url: &str, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(person, url, &[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn a_connection_lives_from_add_to_rm_and_its_secret_stands_nowhere() {
    let person = Person::new();
    let gateway = Gateway::start(&person);
    let url = gateway.url();
    assert_eq!(done(&person, &url, &["connection", "list"]), "No connections.\n");
    let add = ["connection", "add", "my-api", "--base-url", "https://api.example.com/v1", "--auth-mode", "header_key"];
    let add = [&add[..], &["--auth-header-name", "x-key", "--secret-env", "api_key=KEY"]].concat();
    let dry = done(&person, &url, &[&add[..], &["--dry-run"]].concat());
    assert!(
        dry.starts_with("Would add:\n") && dry.contains("secrets:          api_key: **** from variable KEY\n"),
        "{dry}"
    );
    let added = done(&person, &url, &add);
    let expected = "[ok] Connection my-api added.
id:               my-api
name:             my-api
status:           active
protocol:         http
base url:         https://api.example.com/v1
auth mode:        header_key
auth header name: x-key
auth secret key:  api_key
credential keys:  api_key
secret version:   1
last rotated at:  TIME
created at:       TIME
updated at:       TIME
";
    assert_eq!(added, expected);
    let (code, _, stderr) = run(&person, &url, &add);
    assert_eq!(code, 1);
    assert!(stderr.contains("hint: change it with `sigilum connection set`"), "{stderr}");
    let (code, _, stderr) = run(&person, &url, &[&add[..], &["--dry-run"]].concat());
    assert_eq!((code, stderr.contains("already")), (1, true), "{stderr}");

    let changed =
        done(&person, &url, &["connection", "set", "my-api", "allowed_methods=GET,POST", "rotation_interval_days=30"]);
    assert!(
        changed.starts_with("[ok] Connection my-api changed: allowed_methods, rotation_interval_days.\n"),
        "{changed}"
    );
    let again = done(&person, &url, &["connection", "set", "my-api", "--allowed-methods", "GET,POST"]);
    assert!(again.starts_with("[ok] Connection my-api is so already.\n"), "{again}");
    done(&person, &url, &["connection", "set", "my-api", "allowed_methods=", "rotation_interval_days=null"]);
    let shown = json_of(&person, &url, &["connection", "show", "my-api"]);
    assert_eq!((shown.get("allowed_methods"), shown.get("rotation_interval_days")), (None, None), "{shown}");

    let rotate = ["connection", "rotate", "my-api", "--reason", "leaked", "--secret-env"];
    let rotated = done(&person, &url, &[&rotate[..], &["OTHER"]].concat());
    assert_eq!(rotated, "[ok] Connection my-api rotated: api_key.\nsecret version:  2\nlast rotated at: TIME\n");
    let (code, stdout, _) = run(&person, &url, &[&rotate[..], &["OTHER"]].concat());
    assert!(code == 0 && stdout.contains("has this secret already"), "{stdout}");
    let back = json_of(&person, &url, &[&rotate[..], &["api_key=KEY"]].concat());
    assert_eq!((&back["changed"], &back["secrets"]), (&json!(true), &json!(["api_key"])));

    let off = done(&person, &url, &["connection", "disable", "my-api"]);
    assert!(
        off.starts_with("[ok] Connection my-api is disabled.\n") && off.contains("status:           disabled"),
        "{off}"
    );
    assert!(done(&person, &url, &["connection", "disable", "my-api"]).contains("is disabled already"));
    let list = done(&person, &url, &["connections", "list"]);
    let row: Vec<_> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["my-api", "disabled", "http", "https://api.example.com/v1", "header", "x-key"], "{list}");
    assert!(done(&person, &url, &["connection", "enable", "my-api"]).contains("is active."));
    assert_eq!(json_of(&person, &url, &["connection", "list"])[0]["id"], "my-api");
    assert_eq!(holders(person.home(), CANARY.as_bytes()), Vec::<String>::new());

    let (code, _, stderr) = run(&person, &url, &["connection", "rm", "my-api"]);
    assert_eq!((code, stderr.contains("--yes")), (64, true), "{stderr}");
    let gone = done(&person, &url, &["connection", "rm", "my-api", "--yes"]);
    assert_eq!(gone, "[ok] Connection my-api removed with its secrets.\n");
    assert_eq!(
        done(&person, &url, &["connection", "rm", "my-api", "--yes"]),
        "[ok] There is no connection my-api; nothing was removed.\n"
    );
    assert_eq!(
        json_of(&person, &url, &["connection", "rm", "my-api", "--yes"]),
        json!({"deleted": false, "id": "my-api"})
    );
    for missing in [&["show", "my-api"][..], &["set", "my-api", "name=x"], &["enable", "my-api"], &["rotate", "my-api"]]
    {
        let (code, stdout, stderr) = run(&person, &url, &[&["connection"], missing].concat());
        assert_eq!((code, stdout.as_str()), (1, ""), "{missing:?}: {stderr}");
        assert!(stderr.contains("the gateway has no connection my-api"), "{stderr}");
    }
}

#[test]
fn a_secret_comes_from_files_standard_input_and_other_variables_too() {
    let person = Person::new();
    let gateway = Gateway::start(&person);
    let url = gateway.url();
    let file = person.file("folder=x/key", &format!("{CANARY}\r\n"));
    let add = ["connection", "add", "--name", "My API", "--base-url", "https://h.example", "--secret-file", &file];
    assert!(done(&person, &url, &add).starts_with("[ok] Connection my-api added.\n"));
    let shown = json_of(&person, &url, &["connection", "show", "my-api"]);
    assert_eq!(shown["credential_keys"], json!(["access_token"]));
    let mut rotate = command(&person, &url, &["connection", "rotate", "my-api", "--secret-stdin"]);
    let mut child = rotate.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from-standard-input\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text_of(&output.stdout).starts_with("[ok] Connection my-api rotated: access_token.\n"), "{output:?}");
    let two = ["connection", "rotate", "my-api", "--secret-env", "a=KEY", "--secret-env", "b=OTHER"];
    assert!(done(&person, &url, &two).starts_with("[ok] Connection my-api rotated: a, b.\n"));
}

#[test]
fn bad_input_is_named_before_anybody_is_asked_and_never_repeats_a_secret() {
    let person = Person::new();
    let admin = Admin::start(Vec::new());
    let base = ["--base-url", "https://h.example"];
    for (arguments, code, said) in [
        (&["add", "My_Api", "--base-url", "https://h.example"][..], 1, "perhaps my-api"),
        (&["add", "my-api"], 64, "--from-catalog"),
        (&["add", "my-api", CANARY], 64, "every process can read arguments"),
        (&["add", "my-api", base[0], base[1]], 64, "--secret-env"),
        (&["add", "my-api", base[0], base[1], "--secret", CANARY], 64, "--secret-env"),
        (&["add", "my-api", base[0], base[1], "--secret-env", CANARY], 64, "not its value"),
        (&["add", "my-api", base[0], base[1], "--secret-env", "k=NOT_SET"], 1, "NOT_SET is not set"),
        (&["add", "my-api", base[0], base[1], "--secret-file", "/nowhere"], 1, "/nowhere"),
        (&["add", "my-api", base[0], base[1], "--secret-variable", "a b"], 64, "credential variable"),
        (&["add", "my-api", base[0], base[1], "--secret-env", "KEY", "--secret-stdin"], 64, "two places"),
        (&["add", "my-api", base[0], base[1], "--max-stream-seconds", "soon"], 64, "whole number"),
        (&["set", "my-api"], 64, "nothing is to be changed"),
        (&["set", "my-api", CANARY], 64, "FIELD=VALUE"),
        (&["set", "my-api", &format!("api_secret={CANARY}")], 64, "sigilum connection rotate"),
        (&["set", "my-api", "nonsense=1"], 64, "fields: name,"),
        (&["rotate", "my-api", CANARY], 64, "every process can read arguments"),
        (&["rotate", "my-api", &format!("--secret=api_key={CANARY}")], 64, "--secret-env"),
        (&["test", "my-api", "--header", "x"], 64, "Name: value"),
        (&["rm", "x"], 1, "3 to 64"),
        (&["nonsense"], 64, "unrecognized subcommand"),
    ] {
        let (exit, stdout, stderr) = run(&person, &admin.url, &[&["connection"], arguments].concat());
        assert_eq!((exit, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
    assert_eq!(admin.asked(), Vec::new());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    assert_eq!(run(&person, &url, &["connection", "list"]).0, 5);
}

#[test]
fn what_the_gateway_refuses_has_its_exit_code_and_a_hint() {
    let person = Person::new();
    let refused = json!({"error": "the admin token is required", "code": "ADMIN_TOKEN_REQUIRED"});
    let declared =
        json!({"error": "the connection my-api is declared at /etc/gateway.yaml:12", "code": "CONNECTION_DECLARED"});
    let found = json!({"id": "my-api", "status": "active", "auth_secret_key": "api_key", "declared": true});
    let admin = Admin::start(vec![
        ("GET /connections", 403, refused),
        ("GET /connections/my-api", 200, found),
        ("PATCH /connections/my-api", 409, declared.clone()),
        ("DELETE /connections/my-api", 409, declared.clone()),
        ("POST /connections/my-api/rotate", 409, declared.clone()),
        ("POST /connections", 409, declared),
    ]);
    let (code, _, stderr) = run(&person, &admin.url, &["connection", "list"]);
    assert_eq!((code, stderr.contains("GATEWAY_ADMIN_TOKEN")), (4, true), "{stderr}");
    for arguments in [
        &["set", "my-api", "name=x"][..],
        &["disable", "my-api"],
        &["rm", "my-api", "--yes"],
        &["rotate", "my-api", "--secret-env", "KEY"],
        &["add", "my-api", "--base-url", "https://h.example", "--secret-env", "KEY"],
    ] {
        let (code, stdout, stderr) = run(&person, &admin.url, &[&["connection"], arguments].concat());
        assert_eq!((code, stdout.as_str()), (1, ""), "{arguments:?}");
        assert!(stderr.contains("/etc/gateway.yaml:12") && stderr.contains("hint: change it in that file"), "{stderr}");
    }
}

#[test]
fn a_test_says_how_it_ended_by_its_exit_code() {
    let person = Person::new();
    let admin = Admin::start(vec![
        ("POST /connections/good/test", 200, json!({"status": "pass", "http_status": 204})),
        (
            "POST /connections/bad/test",
            200,
            json!({"status": "fail", "http_status": 401, "error": "http 401: no\u{1b}[m"}),
        ),
        (
            "POST /connections/down/test",
            502,
            json!({"status": "fail", "http_status": 0, "error": "connection refused"}),
        ),
        ("POST /connections/odd/test", 502, json!({"error": "some proxy"})),
    ]);
    let test =
        ["connection", "test", "good", "--path", "/v1/me", "--method", "post", "--header", "X-One: 1", "--body", "{}"];
    assert_eq!(done(&person, &admin.url, &test), "[ok] Connection good works: HTTP 204.\n");
    let body = json!({"test_path": "/v1/me", "method": "POST", "headers": {"X-One": "1"}, "body": "{}"});
    assert_eq!(admin.asked(), [("POST /connections/good/test".to_owned(), body)]);
    for (id, said, hint) in [
        ("bad", "does not work: http 401: no\u{fffd}[m", "sigilum connection rotate bad"),
        ("down", "connection refused", "sigilum connection show down"),
        ("odd", "some proxy (HTTP 502)", ""),
        ("none", "the gateway has no connection none", "sigilum connection list"),
    ] {
        let (code, stdout, stderr) = run(&person, &admin.url, &["connection", "test", id]);
        assert_eq!((code, stdout.as_str()), (1, ""), "{id}");
        assert!(stderr.contains(said) && stderr.contains(hint), "{id}: {stderr}");
    }
    let (code, stdout, _) = run(&person, &admin.url, &["connection", "test", "down", "--json"]);
    let expected = json!({"status": "fail", "http_status": 0, "error": "connection refused"});
    assert_eq!((code, serde_json::from_str::<Value>(&stdout).unwrap()), (1, expected));
}

#[test]
fn the_catalog_fills_what_nobody_gives() {
    let person = Person::new();
    let catalog = json!({"version": "v1", "services": [{
        "key": "pay", "label": "Pay", "connection_id": "pay-proxy", "protocol": "http", "base_url": "https://api.pay.example",
        "auth_mode": "header_key", "auth_header_name": "x-pay", "auth_secret_key": "pay_key", "default_test_path": "/me",
        "credential_fields": [
            {"key": "pay_key", "label": "Key", "env_var": "PAY_KEY", "required": true, "secret": true},
            {"key": "app", "label": "App", "env_var": "PAY_APP", "required": false},
        ],
    }]});
    let admin = Admin::start(vec![
        ("GET /service-catalog", 200, catalog),
        ("POST /connections", 201, json!({"id": "pay-proxy", "status": "active"})),
    ]);
    let add = ["connection", "add", "--from-catalog", "pay", "--name", "Ours", "--secret-env", "KEY"];
    let (code, stdout, stderr) = run(&person, &admin.url, &add);
    assert_eq!(
        (code, stdout.as_str()),
        (0, "[ok] Connection pay-proxy added.\nid:     pay-proxy\nstatus: active\n"),
        "{stderr}"
    );
    assert!(stderr.contains("`sigilum connection test pay-proxy --path '/me'`"), "{stderr}");
    let expected = json!({
        "id": "pay-proxy", "name": "Ours", "protocol": "http", "base_url": "https://api.pay.example",
        "auth_mode": "header_key", "auth_header_name": "x-pay", "auth_secret_key": "pay_key", "secrets": {"pay_key": CANARY},
    });
    assert_eq!(admin.asked().pop().unwrap(), ("POST /connections".to_owned(), expected));
    // Nobody is there to be asked: the variable the catalog names, or a refusal that names it.
    let (code, _, stderr) = run(&person, &admin.url, &["connection", "add", "our-pay", "--from-catalog", "pay"]);
    assert_eq!((code, stderr.contains("--secret-env pay_key=PAY_KEY")), (64, true), "{stderr}");
    let mut add = command(&person, &admin.url, &["connection", "add", "our-pay", "--from-catalog", "pay"]);
    assert_eq!(add.env("PAY_KEY", CANARY).output().unwrap().status.code(), Some(0));
    let (_, body) = admin.asked().pop().unwrap();
    assert_eq!((&body["id"], &body["secrets"]), (&json!("our-pay"), &json!({"pay_key": CANARY})));
    let (code, _, stderr) = run(&person, &admin.url, &["connection", "add", "--from-catalog", "nonsense"]);
    assert_eq!((code, stderr.contains("it has: pay")), (1, true), "{stderr}");
}

#[test]
fn variables_are_listed_set_and_removed() {
    let person = Person::new();
    let users = json!({"variables": [
        {"key": "SLACK", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2099-01-01T00:00:00Z",
         "created_by_subject": "alice", "used_by": 2},
        {"key": "in.file", "declared": true, "used_by": 0, "error": "the variable X is not set"},
    ]});
    let used = json!({"error": "SLACK is used by chat-one, chat-two", "code": "VARIABLE_IN_USE"});
    let admin = Admin::start(vec![
        ("GET /credential-variables", 200, users),
        ("POST /credential-variables", 200, json!({"key": "SLACK"})),
        ("DELETE /credential-variables/OTHER", 200, json!({"deleted": true, "key": "OTHER"})),
        ("DELETE /credential-variables/SLACK", 409, used),
        ("DELETE /credential-variables/SLACK?force=true", 200, json!({"deleted": true, "unusable": ["chat-one"]})),
    ]);
    let url = &admin.url;
    let expected = "VARIABLE  CHANGED  BY     USED BY  DECLARED  VALUE
SLACK     0s       alice  2        -         ok
in.file   -        -      -        yes       the variable X is not set
";
    assert_eq!(done(&person, url, &["variable", "list"]), expected);
    assert_eq!(json_of(&person, url, &["variables", "list"])[0]["used_by"], 2);
    admin.asked();
    let set = done(&person, url, &["variable", "set", "SLACK", "--value-env", "KEY"]);
    assert_eq!(set, "[ok] Variable SLACK set. Secrets of connections use it as {{SLACK}}.\n");
    let body = json!({"key": "SLACK", "value": CANARY});
    assert_eq!(admin.asked(), [("POST /credential-variables".to_owned(), body)]);
    assert_eq!(done(&person, url, &["variable", "rm", "OTHER", "--yes"]), "[ok] Variable OTHER removed.\n");
    assert!(done(&person, url, &["variable", "rm", "GONE", "--yes"]).contains("nothing was removed"));
    let (code, stdout, stderr) = run(&person, url, &["variable", "rm", "SLACK", "--yes", "--force"]);
    assert_eq!((code, stdout.as_str()), (0, "[ok] Variable SLACK removed.\n"));
    assert!(stderr.contains("without a secret now: chat-one"), "{stderr}");
    for (arguments, code, said) in [
        (&["rm", "SLACK", "--yes"][..], 1, "is used by chat-one, chat-two (HTTP 409, VARIABLE_IN_USE)"),
        (&["rm", "SLACK"], 64, "--yes"),
        (&["set", "SLACK"], 64, "--value-env"),
        (&["set", "SLACK", CANARY], 64, "every process can read arguments"),
        (&["set", "SLACK", "--value", CANARY], 64, "--value-stdin"),
        (&["set", &format!("SLACK={CANARY}")], 64, "no name of a credential variable"),
        (&["set", "SLACK", "--value-env", "NOT_SET"], 1, "NOT_SET is not set"),
    ] {
        let (exit, stdout, stderr) = run(&person, url, &[&["variable"], arguments].concat());
        assert_eq!((exit, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_admin_token_is_for_eyes_and_another_one_counts_at_once() {
    let person = Person::new();
    let show = ["gateway", "auth-token", "--show"];
    let none = person.run(&["gateway", "auth-token", "--rotate"]);
    assert_eq!((none.status.code(), text_of(&none.stderr).contains("there is no admin token")), (Some(1), true));
    let gateway = Gateway::start(&person);
    let url = gateway.url();
    let file = person.home().join(".local/share/sigilum-gateway/admin-token");
    let before = fs::read_to_string(&file).unwrap();
    let piped = person.run(&show);
    assert_eq!((piped.status.code(), piped.stdout.len()), (Some(64), 0), "{}", text_of(&piped.stderr));
    assert!(super::terminal::typing(&person, &show, &[]).contains(before.trim()));

    let (code, stdout, stderr) = run(&person, &url, &["gateway", "auth-token", "--rotate"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains("goes by it; the old one counts no longer"), "{stderr}");
    let after = fs::read_to_string(&file).unwrap();
    assert!(after != before && after.len() == 65 && !stderr.contains(after.trim()), "{stderr}");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(done(&person, &url, &["connection", "list"]), "No connections.\n");
    let list = ["--gateway-admin-url", &url, "connection", "list"];
    let old = person.command(&list).env("GATEWAY_ADMIN_TOKEN", before.trim()).output().unwrap();
    assert_eq!(old.status.code(), Some(4));

    // One that was given by the environment is not replaced by a file.
    let given =
        person.command(&["gateway", "auth-token", "--rotate"]).env("GATEWAY_ADMIN_TOKEN", before.trim()).output();
    assert_eq!(given.unwrap().status.code(), Some(78));
    assert_eq!(fs::read_to_string(&file).unwrap(), after);
    drop(gateway);
    let (code, _, stderr) = run(&person, &url, &["gateway", "auth-token", "--rotate"]);
    assert!(code == 0 && stderr.contains("no gateway answers"), "{stderr}");
    assert_eq!(person.run(&["gateway", "auth-token"]).status.code(), Some(64));
}
