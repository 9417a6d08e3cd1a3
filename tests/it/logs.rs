//! What is logged, and `sigilum logs`: one story from several files, over rotations, with and without a gateway.

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use serde_json::Value;
use sigilum::config::parts::LogBounds;
use sigilum::telemetry::log_file::LogFile;

use crate::support::agent::Agent;
use crate::support::agent::random_hex;
use crate::support::client::Request;
use crate::support::client::send;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::gateway::free_port;
use crate::support::gateway::shared;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// What a command prints: objects, one to a line.
fn objects(mut command: Command) -> Vec<Value> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A log of a gateway that never ran, as one would write it.
fn written(setup: &Setup, stream: &str, bounds: LogBounds) -> LogFile {
    let folder = setup.data().join("logs");
    fs::create_dir_all(&folder).unwrap();
    LogFile::open(&folder.join(format!("{stream}.jsonl")), bounds).unwrap()
}

fn line(number: usize) -> String {
    format!("{{\"timestamp\":\"2026-01-01T00:00:00Z\",\"level\":\"INFO\",\"message\":\"said\",\"n\":{number}}}")
}

fn logs(gateway: &Gateway, query: &str) -> crate::support::client::Response {
    let request = Request::new("GET", &gateway.setup.admin.to_string(), &format!("/api/v1/logs{query}"))
        .header("authorization", &format!("Bearer {}", gateway.token()));
    send(gateway.setup.admin, &request)
}

#[test]
fn either_id_of_a_refused_request_leads_to_its_access_line_and_its_decision() {
    let (gateway, upstream) = (shared(), Upstream::start());
    let connection = gateway.connect(&upstream, serde_json::json!({}));
    let refused = gateway.send(&Agent::new("bob").get(&gateway.authority(), &connection.at("/v1")));
    assert_eq!(refused.status, 403, "{}", refused.text());
    let id = refused.header("x-request-id").unwrap().to_owned();
    let story = |id: &str| {
        let lines = objects(gateway.setup.command(&["logs", "--request-id", id, "--json"]));
        let told =
            |line: &Value| ["stream", "request_id", "decision_id"].map(|name| line[name].as_str().unwrap().to_owned());
        lines.iter().map(told).collect::<Vec<_>>()
    };
    // Envoy writes its log in steps of a second.
    let mut lines = Vec::new();
    wait_until("both lines are written", LIMIT, || {
        lines = story(&id);
        lines.len() == 2
    });
    let mut streams: Vec<_> = lines.iter().map(|[stream, ..]| stream.as_str()).collect();
    streams.sort_unstable();
    assert_eq!(streams, ["access", "decision"]);
    let decision = lines[0][2].clone();
    assert!(lines.iter().all(|[_, request, of]| *request == id && *of == decision), "{lines:?}");
    assert_eq!(story(&decision), lines);
}

#[test]
fn logs_are_private_and_are_read_while_the_gateway_is_down() {
    let gateway = Gateway::start();
    gateway.running().signal(rustix::process::Signal::TERM);
    gateway.running().wait(LIMIT);
    for entry in fs::read_dir(gateway.setup.data().join("logs")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
    }
    let lines = objects(gateway.setup.command(&["logs", "--stream", "admin", "--json"]));
    assert!(lines.iter().any(|line| line["message"] == "the admin API is served"), "{lines:?}");
}

#[test]
fn where_nothing_ever_ran_that_is_said() {
    let setup = Setup::new();
    let output = setup.command(&["logs"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("hint: start it with `sigilum gateway start`"), "{said}");
}

#[test]
fn a_log_that_rotates_while_it_is_followed_is_shown_whole_once_and_in_order() {
    const LINES: usize = 1200;
    let setup = Setup::new();
    // Three lines to a file. What is put aside stays, so that nothing but following could lose a line.
    let log = written(&setup, "authz", LogBounds { max_bytes: 260, keep: 1_000_000 });
    log.append(line(0).as_bytes()).unwrap();
    let arguments = ["logs", "--follow", "--stream", "authz", "--json", "--interval", "10", "--limit", "1"];
    let mut child = setup.command(&arguments).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        usize::try_from(line["n"].as_u64().unwrap_or_else(|| panic!("{line}"))).unwrap()
    });
    // From here on it follows.
    assert_eq!(shown.next(), Some(0));
    let writing = thread::spawn(move || (1..LINES).for_each(|number| log.append(line(number).as_bytes()).unwrap()));
    let seen: Vec<_> = shown.take(LINES - 1).collect();
    assert_eq!(seen, (1..LINES).collect::<Vec<_>>());
    writing.join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_truncated_log_is_read_anew_and_said() {
    let setup = Setup::new();
    let log = written(&setup, "authz", LogBounds::default());
    log.append(line(1).as_bytes()).unwrap();
    let arguments = ["logs", "--follow", "--stream", "authz", "--json", "--interval", "10"];
    let mut child = setup.command(&arguments).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&shown.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["n"], 1);
    // Another one in its place, at once: half a change is no place to look.
    fs::write(log.path().with_extension("new"), format!("{}\n", line(2))).unwrap();
    fs::rename(log.path().with_extension("new"), log.path()).unwrap();
    assert_eq!(next()["reset"], true);
    assert_eq!(next()["n"], 2);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn whoever_has_seen_enough_may_leave() {
    let setup = Setup::new();
    let log = written(&setup, "authz", LogBounds::default());
    // Far more than a pipe holds.
    (0..5000).for_each(|number| log.append(line(number).as_bytes()).unwrap());
    let mut child =
        setup.command(&["logs", "--stream", "authz", "--limit", "5000", "--max-bytes", "1000000"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    assert!(first.contains("said n=0"), "{first}");
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn several_streams_are_one_story_by_time() {
    let setup = Setup::new();
    for (stream, seconds) in [("admin", [1, 4]), ("envoy", [2, 3])] {
        let log = written(&setup, stream, LogBounds::default());
        for second in seconds {
            let line = format!(
                "{{\"timestamp\":\"2026-01-01T00:00:0{second}Z\",\"level\":\"WARN\",\"message\":\"m{second}\"}}"
            );
            log.append(line.as_bytes()).unwrap();
        }
    }
    let output = setup.command(&["logs", "--since", "2026-01-01T00:00:02Z"]).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(),
        [
            "2026-01-01T00:00:02.000Z WARN  envoy    m2",
            "2026-01-01T00:00:03.000Z WARN  envoy    m3",
            "2026-01-01T00:00:04.000Z WARN  admin    m4",
        ]
    );
}

#[test]
fn the_admin_api_gives_each_line_once_by_its_cursor() {
    let gateway = shared();
    let (mut seen, mut cursor) = (Vec::new(), "oldest".to_owned());
    loop {
        let answer = logs(gateway, &format!("?stream=admin&limit=1&cursor={cursor}")).json();
        cursor = answer["cursor"].as_str().unwrap().to_owned();
        seen.extend(answer["lines"].as_array().unwrap().iter().cloned());
        if answer["more"] != true {
            break;
        }
    }
    let whole = logs(gateway, "?stream=admin&limit=5000&max_bytes=1000000&cursor=oldest").json();
    assert!(whole["file"].as_str().unwrap().ends_with("/logs/admin.jsonl"));
    // Others make this gateway log meanwhile.
    assert_eq!(whole["lines"].as_array().unwrap()[..seen.len()], seen[..]);
}

#[test]
fn a_cursor_of_elsewhere_is_refused() {
    let answer = logs(shared(), "?cursor=/etc/passwd");
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[test]
fn nobody_reads_logs_without_the_token() {
    let gateway = shared();
    let answer = send(gateway.setup.admin, &Request::new("GET", &gateway.setup.admin.to_string(), "/api/v1/logs"));
    assert_eq!((answer.status, answer.code().as_str()), (403, "ADMIN_TOKEN_REQUIRED"));
}

#[test]
fn a_pairing_reads_no_logs() {
    let gateway = shared();
    let request = Request::new("GET", &gateway.setup.admin.to_string(), "/api/v1/logs")
        .header("authorization", &format!("Bearer {}", gateway.token()))
        .header("x-sigilum-relay", "s1");
    let answer = send(gateway.setup.admin, &request);
    assert_eq!((answer.status, answer.code().as_str()), (403, "RELAY_FORBIDDEN"));
}

#[test]
fn a_gateway_elsewhere_is_asked_and_files_stand_in_for_none() {
    let gateway = shared();
    let url = format!("http://{}", gateway.setup.admin);
    let asked = ["logs", "--url", &url, "--stream", "admin", "--json", "--limit", "5000"];
    // What is stored here is not for whoever a URL names.
    let output = gateway.setup.command(&asked).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0), "{output:?}");
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, gateway.token()).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let lines = objects(gateway.setup.command(&[&asked[..], &["--token-file", token.to_str().unwrap()]].concat()));
    assert!(lines.iter().any(|line| line["message"] == "the admin API is served"), "{lines:?}");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let output = gateway.setup.command(&["logs", "--url", &nobody, "--stream", "admin"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(5), 0));
}

#[test]
fn a_verbose_start_copies_its_logs_at_debug_and_no_credential() {
    let setup = Setup::new();
    setup.begin_journal();
    setup.write_yaml();
    let running = Running::spawn_in(setup.command(&["gateway", "start", "--verbose"]), Some(setup.root.path()));
    let (gateway, upstream) = (Gateway::of(setup, running), Upstream::start());
    gateway.wait_ready(LIMIT);
    let connection = gateway.connect(&upstream, serde_json::json!({}));
    let canary = format!("canary-{}", random_hex(12));
    let target = connection.at(&format!("/v1?api_key={canary}"));
    let request = gateway.agent().get(&gateway.authority(), &target).header("x-note", &canary);
    assert_eq!(gateway.send(&request.clone().header("authorization", &format!("Bearer {canary}"))).status, 200);
    assert_eq!(gateway.send(&request).code(), "AUTH_REPLAY_DETECTED");
    let wrong = Request::new("GET", &gateway.setup.admin.to_string(), "/api/v1/logs")
        .header("authorization", &format!("Bearer {canary}"));
    assert_eq!(send(gateway.setup.admin, &wrong).status, 403);
    let said = |text: &str| wait_until(text, LIMIT, || gateway.said().contains(text));
    // At debug, of admin and of authz, on standard error and in the file.
    said("\"message\":\"admin request\"");
    said("\"reason_code\":");
    wait_until("Envoy has written its log", LIMIT, || {
        fs::read_to_string(gateway.setup.run_dir().join("access.log"))
            .is_ok_and(|log| log.contains("AUTH_REPLAY_DETECTED"))
    });
    let logs = gateway.setup.data().join("logs");
    let mut texts = vec![gateway.said()];
    for entry in fs::read_dir(&logs).unwrap() {
        texts.push(fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    texts.push(fs::read_to_string(gateway.setup.run_dir().join("access.log")).unwrap());
    let token = gateway.token();
    for text in &texts {
        for secret in [&canary, &connection.secret, &token] {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
    }
    let admin = fs::read_to_string(logs.join("admin.jsonl")).unwrap();
    assert!(admin.contains("\"level\":\"DEBUG\""), "{admin}");
}
