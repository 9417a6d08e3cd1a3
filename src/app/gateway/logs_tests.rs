#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "test code may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::config::parts::LogBounds;
use crate::domain::secret::Secret;
use crate::sys::files::PRIVATE_FILE;

const ROTATE_AT: u64 = 200_000;

fn log(folder: &TempDir, decisions: bool, redactor: LogRedactor) -> Log {
    let open = |name: &str| {
        let bounds = LogBounds { max_bytes: ROTATE_AT, keep: 3 };
        Arc::new(LogFile::open(&folder.path().join(name), bounds).unwrap())
    };
    Log {
        file: open("own.jsonl"),
        decisions: decisions.then(|| open("decision.jsonl")),
        redactor: Arc::new(redactor),
        stream: LogStream::Authz,
        style: None,
        verbose: false,
    }
}

fn lines(folder: &TempDir, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.path().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn follow(log: &Log, role: Role, text: &str) -> Vec<Progress> {
    let (progress, mut reader) = mpsc::channel(64);
    log.clone().follow(role, text.as_bytes(), progress).await;
    let mut seen = Vec::new();
    while let Some(event) = reader.recv().await {
        seen.push(event);
    }
    seen
}

fn note(role: Role, line: &str) -> Option<String> {
    notable(role, &understood(role, line.as_bytes(), false)?)
}

#[test]
fn what_matters_is_shown() {
    let warn = r#"{"timestamp":"t","level":"WARN","message":"store is slow","ms":900,"target":"x"}"#;
    assert_eq!(note(Role::Admin, warn).unwrap(), "admin: warn: store is slow ms=900");
    let flat = r#"{"timestamp":"t","level":"ERROR","message":"no journal","path":"/run/x"}"#;
    assert_eq!(note(Role::Authz, flat).unwrap(), "authz: error: no journal path=\"/run/x\"");
    assert_eq!(note(Role::Authz, r#"{"timestamp":"t","level":"INFO","message":"decision"}"#), None);
    assert_eq!(note(Role::Authz, "thread 'main' panicked").unwrap(), "authz: thread 'main' panicked");
    let envoy = |level| note(Role::Envoy, &format!("[2026-11-20 15:00:00.000][7][{level}][main] [a.cc:1] x"));
    assert_eq!((envoy("info"), envoy("warning")), (None, None));
    assert_eq!(envoy("critical").unwrap(), "envoy: error: x");
    assert_eq!(note(Role::Admin, "\u{1b}[31mred").unwrap(), "admin: [31mred");
    assert_eq!(note(Role::Admin, "  "), None);
}

#[tokio::test]
async fn lines_of_envoy_become_objects() {
    let folder = tempfile::tempdir().unwrap();
    follow(
        &log(&folder, false, LogRedactor::default()),
        Role::Envoy,
        "[2026-11-20 15:00:00.000][7][warning][main] [source/server.cc:12] there is [a] thing\nno line of Envoy's\n",
    )
    .await;
    let lines = lines(&folder, "own.jsonl");
    let told =
        |line: &Value| ["level", "component", "message"].map(|name| line[name].as_str().unwrap_or("").to_owned());
    assert_eq!(told(&lines[0]), ["WARN", "main", "there is [a] thing"]);
    assert_eq!(told(&lines[1]), ["INFO", "", "no line of Envoy's"]);
    assert!(log_line::nanos(lines[1].as_object().unwrap()).is_some());
}

#[tokio::test]
async fn decisions_have_a_file_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let said = "{\"timestamp\":\"t\",\"level\":\"WARN\",\"kind\":\"decision\",\"decision_id\":\"d\"}\n\
                {\"timestamp\":\"t\",\"level\":\"INFO\",\"message\":\"ready\"}\n";
    follow(&log(&folder, true, LogRedactor::default()), Role::Authz, said).await;
    assert_eq!(lines(&folder, "decision.jsonl")[0]["decision_id"], "d");
    assert_eq!(lines(&folder, "own.jsonl")[0]["message"], "ready");
}

#[tokio::test]
async fn a_decision_is_kept_as_it_came_unless_it_must_be_cleaned() {
    let folder = tempfile::tempdir().unwrap();
    let event = |path: &str| {
        format!(
            "{{\"timestamp\":\"t\",\"level\":\"INFO\",\"kind\":\"decision\",\"method\":\"GET\",\"path\":\"{path}\", \"n\":1}}"
        )
    };
    let said = format!("{}\n{}\n", event("/v1"), event("/v1/sk-live-0123456789"));
    assert!(follow(&log(&folder, true, LogRedactor::default()), Role::Authz, &said).await.is_empty());
    let kept = fs::read_to_string(folder.path().join("decision.jsonl")).unwrap();
    let kept: Vec<_> = kept.lines().collect();
    assert_eq!(kept[0], event("/v1"));
    assert!(kept[1].contains("\"path\":\"/v1/[redacted]\""), "{}", kept[1]);
}

#[tokio::test]
async fn a_secret_is_neither_stored_nor_shown() {
    let folder = tempfile::tempdir().unwrap();
    let secret = Secret::new("canary-of-the-master".to_owned());
    let log = Log { verbose: true, ..log(&folder, false, LogRedactor::knowing(Redactor::new([&secret]))) };
    let said = "{\"timestamp\":\"t\",\"level\":\"WARN\",\"message\":\"saw canary-of-the-master\",\"api_key\":\"k1\"}\n\
                panicked at Bearer 0123456789canary\n";
    let seen = format!("{:?}", follow(&log, Role::Admin, said).await);
    let stored = fs::read_to_string(folder.path().join("own.jsonl")).unwrap();
    for text in [&seen, &stored] {
        assert!(!text.contains("canary") && !text.contains("k1") && text.contains("[redacted]"), "{text}");
    }
    assert_eq!(seen.matches("Log(").count(), 2);
}

#[test]
fn an_event_of_this_process_is_kept_and_shown_where_it_matters() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(&folder, false, LogRedactor::default());
    let (progress, mut reader) = mpsc::channel(4);
    log.event("api", b"{\"timestamp\":\"t\",\"level\":\"INFO\",\"message\":\"served\"}\n", &progress);
    log.event("api", b"{\"timestamp\":\"t\",\"level\":\"WARN\",\"message\":\"slow disk\"}\n", &progress);
    assert_eq!(lines(&folder, "own.jsonl").len(), 2);
    assert_eq!(reader.try_recv().unwrap(), Progress::Note("api: warn: slow disk".to_owned()));
    assert!(reader.try_recv().is_err());
}

#[tokio::test]
async fn lines_are_cut_and_files_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let said = format!("{}\n", "x y ".repeat(MAX_LINE)).repeat(13);
    follow(&log(&folder, false, LogRedactor::default()), Role::Admin, &said).await;
    let (aside, now) = (lines(&folder, "own.jsonl.1"), lines(&folder, "own.jsonl"));
    assert_eq!(aside.len() + now.len(), 13);
    for line in aside.iter().chain(&now) {
        assert_eq!((line["truncated"].as_bool(), line["message"].as_str().unwrap().len()), (Some(true), MAX_LINE));
    }
    let found = fs::metadata(folder.path().join("own.jsonl")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, PRIVATE_FILE);
}

#[tokio::test]
async fn a_line_with_a_style_is_told_once_and_only_where_it_matters_or_all_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let said = "{\"timestamp\":\"t\",\"level\":\"INFO\",\"message\":\"served\"}\n\
                {\"timestamp\":\"t\",\"level\":\"WARN\",\"message\":\"slow\"}\n";
    for (verbose, expected) in [(false, &["slow"][..]), (true, &["served", "slow"])] {
        let style = Some(LogStyle::Compact);
        let log = Log { verbose, style, stream: LogStream::Admin, ..log(&folder, false, LogRedactor::default()) };
        let told: Vec<_> = follow(&log, Role::Admin, said).await;
        let messages: Vec<_> = told
            .iter()
            .map(|event| {
                let Progress::Log(logged) = event else { panic!("{event:?}") };
                assert_eq!((logged.stream, logged.style), (LogStream::Admin, style));
                let members: Value = serde_json::from_str(&logged.line).unwrap();
                members["message"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(messages, expected);
    }
}
