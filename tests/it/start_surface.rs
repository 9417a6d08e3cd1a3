//! What a start may be told, and when it is blocked.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client;
use crate::support::client::Request;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::refused;
use crate::support::process::wait_until;

/// Configuration, bind or lock conflict.
const CONFIG: Option<i32> = Some(78);
/// Wrong arguments.
const USAGE: Option<i32> = Some(64);
/// What a start says that is not to be.
const BLOCKED: &str = "Gateway start blocked: set gateway.mode=local";

/// A line of admin's log that each start writes.
const SERVED: &str = "the admin API is served";

/// The file's states: name, text, and whether a start goes by it.
const FILES: [(&str, Option<&str>, bool); 5] = [
    ("no file", None, true),
    ("an empty mapping", Some("{}\n"), true),
    ("local", Some("gateway:\n  mode: local\n"), true),
    ("remote", Some("gateway:\n  mode: remote\n  remote: {url: 'https://gw.example:38100'}\n"), false),
    ("truncated", Some("gateway: {mode: loc"), false),
];

#[test]
fn a_start_is_blocked_where_the_file_says_remote_or_is_damaged_unless_it_is_told_to_do_without() {
    for (name, text, goes) in FILES {
        for flag in [false, true] {
            let setup = Setup::new();
            let file = setup.home().join("gateway.yaml");
            if let Some(text) = text {
                fs::write(&file, text).unwrap();
            }
            // A start that is not blocked finds its port taken.
            let _taken = TcpListener::bind(setup.ingress).unwrap();
            let mut command = setup.command(&["gateway", "start"]);
            if flag {
                command.arg("--allow-unconfigured");
            }
            let refused = refused(command);
            assert_eq!(refused.code, CONFIG, "{name} {flag}: {}", refused.said);
            let (passes, said) = (goes || flag, &refused.said);
            assert_eq!(said.contains(BLOCKED), !passes, "{name} {flag}: {said}");
            assert_eq!(said.contains("port in use by foreign process"), passes, "{name} {flag}: {said}");
            let first = format!("hint: sigilum gateway config check {}", file.display());
            assert_eq!(said.contains(&first), name == "truncated" && !flag, "{name} {flag}: {said}");
            assert_eq!(fs::read_to_string(&file).ok().as_deref(), text, "{name} {flag}");
        }
    }
}

#[test]
fn a_gateway_that_does_without_its_damaged_file_has_no_connections_and_writes_nothing_elsewhere() {
    let setup = Setup::new();
    let text = "connections:\n  - {id: abc, base_url: 'https://a.example'}\ngateway: {mode: loc";
    fs::write(setup.home().join("gateway.yaml"), text).unwrap();
    let mut running = Running::spawn(setup.command(&["gateway", "run", "--allow-unconfigured"]));
    wait_until("it is ready", LIMIT, || {
        let ended = running.ended();
        assert!(ended.is_none(), "it ended with {ended:?}:\n{}", running.said());
        running.said().lines().any(|line| line.starts_with("ready:"))
    });
    let token = fs::read_to_string(setup.data().join("unconfigured/admin-token")).unwrap();
    let list = Request::new("GET", &setup.admin.to_string(), "/api/admin/connections");
    let answer = client::send(setup.admin, &list.header("authorization", &format!("Bearer {}", token.trim())));
    assert_eq!((answer.status, &answer.json()["connections"]), (200, &Value::Array(Vec::new())), "{}", answer.text());
    running.signal(Signal::TERM);
    assert!(running.wait(LIMIT).success());
    let names = |folder| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect::<Vec<_>>()
    };
    assert_eq!(names(setup.home()), ["gateway.yaml"]);
    assert_eq!(names(setup.data()), ["unconfigured"]);
    assert_eq!(fs::read_to_string(setup.home().join("gateway.yaml")).unwrap(), text);
}

#[test]
fn a_token_among_the_arguments_is_refused_and_not_repeated() {
    let setup = Setup::new();
    let refused = refused(setup.command(&["gateway", "run", "--token", "canary-0123456789abcdef"]));
    assert_eq!(refused.code, USAGE, "{}", refused.said);
    assert!(refused.said.contains("--token-file") && !refused.said.contains("canary"), "{}", refused.said);
}

#[test]
fn a_password_among_the_arguments_is_refused_and_not_repeated() {
    for command in [&["gateway", "run"][..], &["gateway", "start"], &["up"]] {
        let setup = Setup::new();
        let refused =
            refused(setup.command(&[command, &["--auth", "password", "--password", "canary-012345"]].concat()));
        assert_eq!(refused.code, USAGE, "{command:?}: {}", refused.said);
        assert!(refused.said.contains("--password-file") && !refused.said.contains("canary"), "{}", refused.said);
    }
}

#[test]
fn the_options_of_a_start_say_how_to_come_in_whatever_environment_and_file_say() {
    let setup = Setup::new()
        .env("GATEWAY_ADMIN_ACCESS_MODE", "token")
        .env("SIGILUM_GATEWAY_PASSWORD", "of-the-environment-0123")
        .yaml("admin:\n  password_file: /nowhere/at/all\n");
    setup.write_yaml();
    setup.begin_journal();
    let file = setup.root.path().join("password");
    fs::write(&file, "of-the-named-file-0123\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // As somebody types it who is in that folder.
    let mut command = setup.command(&["gateway", "run", "--auth", "password", "--password-file", "password"]);
    command.current_dir(setup.root.path());
    let running = Running::spawn(command);
    wait_until("it is ready", LIMIT, || running.said().lines().any(|line| line.starts_with("ready:")));
    let status = |password: &str| {
        let request = Request::new("GET", &setup.admin.to_string(), "/api/v1/status");
        client::send(setup.admin, &request.header("authorization", &format!("Bearer {password}"))).status
    };
    assert_eq!([status("of-the-named-file-0123"), status("of-the-environment-0123")], [200, 403]);
    assert!(!setup.data().join("admin-token").exists(), "no token counts in this mode");
    let processes = crate::support::process::children(running.pid());
    assert!(processes.iter().all(|process| !process.arguments.contains("of-the-")), "{processes:?}");
}

#[test]
fn lines_of_the_logs_look_as_the_start_was_told() {
    let said = |style: &str| {
        // What it is told counts more.
        let setup = Setup::new().env("GATEWAY_LOG_STYLE", "pretty");
        setup.write_yaml();
        setup.begin_journal();
        let file = setup.root.path().join("errors");
        let mut command = setup.command(&["gateway", "start", "--verbose", "--log-style", style]);
        command.stderr(fs::File::create(&file).unwrap());
        let mut running = Running::spawn(command);
        let errors = || fs::read_to_string(&file).unwrap();
        wait_until("it is ready and has said so", LIMIT, || {
            errors().contains(SERVED) && running.said().lines().any(|line| line.starts_with("ready:"))
        });
        running.signal(Signal::TERM);
        assert!(running.wait(LIMIT).success());
        errors()
    };
    let line = |style: &str| said(style).lines().find(|line| line.contains(SERVED)).unwrap().to_owned();
    let compact = line("compact");
    assert!(compact.contains(&format!("Z INFO admin {SERVED}")), "{compact}");
    let pretty = line("pretty");
    assert!(pretty.contains(&format!("Z INFO  admin    {SERVED}")), "{pretty}");
    let errors = said("json");
    for line in errors.lines().filter(|line| !line.is_empty()) {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["message"].is_string() || value["event"].is_string(), "{line}");
    }
    assert!(errors.contains("stopping: requests in flight are finished"), "{errors}");
}

#[test]
fn the_token_of_a_file_opens_the_admin_api() {
    let setup = Setup::new();
    setup.write_yaml();
    setup.begin_journal();
    let file = setup.root.path().join("token");
    fs::write(&file, "from-a-file-0123456789abcdef\n").unwrap();
    let running = Running::spawn(setup.command(&["gateway", "run", "--token-file", &file.display().to_string()]));
    wait_until("it is ready", LIMIT, || running.said().lines().any(|line| line.starts_with("ready:")));
    let status = |token: &str| {
        let request = Request::new("GET", &setup.admin.to_string(), "/api/v1/status");
        client::send(setup.admin, &request.header("authorization", &format!("Bearer {token}"))).status
    };
    assert_eq!([status("from-a-file-0123456789abcdef"), status("another-0123456789abcdef")], [200, 403]);
    let processes = crate::support::process::children(running.pid());
    assert!(processes.iter().all(|process| !process.arguments.contains("from-a-file")), "{processes:?}");
}

#[test]
fn a_remote_gateway_gets_the_token_that_was_named_for_it_and_nobody_else_does() {
    let setup = Setup::new();
    let remote = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let token = setup.root.path().join("token");
    fs::write(&token, "named-for-the-remote-one-0123\n").unwrap();
    let text =
        format!("gateway: {{mode: remote, remote: {{url: '{}', token_file: '{}'}}}}\n", url(&remote), token.display());
    fs::write(setup.home().join("gateway.yaml"), text).unwrap();
    let asked = |listener: TcpListener, arguments: &[&str]| {
        let address = listener.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            use std::io::BufRead as _;
            use std::io::Write as _;
            let (mut stream, _) = listener.accept().unwrap();
            let lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<_> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let _ = stream.write_all(b"HTTP/1.1 500 \r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            head.join("\n")
        });
        let mut command = setup.command(arguments);
        command.env("GATEWAY_ADMIN_TOKEN", "the-local-one-0123456789abcdef").output().unwrap();
        // Where the command asked nobody, this is what was accepted.
        drop(std::net::TcpStream::connect(address));
        served.join().unwrap()
    };
    let at = url(&elsewhere);
    let head = asked(remote, &["connection", "list"]);
    assert!(head.contains(": named-for-the-remote-one-0123") && !head.contains("the-local-one"), "{head}");
    let head = asked(elsewhere, &["--gateway-admin-url", &at, "connection", "list"]);
    assert!(head.starts_with("GET /api/admin/connections") && !head.to_lowercase().contains("token"), "{head}");
}
