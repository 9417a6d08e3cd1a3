#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code may panic, and its tasks end with the test"
)]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::claims::fake_api::Asked;
use crate::claims::fake_api::FakeApi;
use crate::claims::fake_api::Reply;
use crate::claims::fake_api::json as reply;
use crate::domain::ids::PublicKey;
use crate::sys::tasks::StopHandle;
use crate::wire::control_plane::MAX_BATCH;
use crate::wire::control_plane::USAGE_BATCH_PATH;
use crate::wire::control_plane::USAGE_PATH;

const PACE: Pace = Pace {
    poll: Duration::from_millis(10),
    first: Duration::from_millis(5),
    longest: Duration::from_millis(20),
    patience: Duration::from_secs(600),
    flush: Duration::from_secs(5),
};

/// A control plane's table of usage events, with the bad days of a control plane.
#[derive(Default)]
struct Ledger {
    stored: BTreeSet<String>,
    /// Answers before a good one.
    trouble: Vec<Trouble>,
    /// What every request gets, once `trouble` is used up.
    mood: Mood,
}

#[derive(Clone, Copy)]
enum Trouble {
    /// Status, code, headers.
    Status(&'static str, &'static str, &'static str),
    /// Stores, and then the connection breaks.
    StoresAndBreaks,
    /// A web page with status 200.
    Page,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Mood {
    #[default]
    Good,
    /// Nothing is answered.
    Down,
    /// Batches are unknown.
    Hosted,
    /// Batches are unknown, and the gateway may not report for other keys.
    HostedStrict,
    /// A key of service `github` is refused.
    KeyRefused,
    /// A key of service `github` is that of another one.
    KeyForeign,
    /// The whole batch is refused where an event is called `poison`.
    Strict,
    /// The same, by a proxy with a web page of its own.
    Guarded,
}

impl Ledger {
    fn answer(&mut self, asked: &Asked) -> Reply {
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let batch = asked.target == USAGE_BATCH_PATH;
        let events = body["events"].as_array().cloned().unwrap_or_else(|| vec![body.clone()]);
        if !self.trouble.is_empty() {
            return match self.trouble.remove(0) {
                Trouble::Status(status, code, headers) => error(status, code, headers),
                Trouble::StoresAndBreaks => {
                    self.store(&events);
                    Reply::Raw(Vec::new())
                }
                Trouble::Page => crate::claims::fake_api::answer("200 OK", "content-type: text/html\r\n", "<html>"),
            };
        }
        let has = |name: &str, value: &str| events.iter().any(|event| event[name] == value);
        match self.mood {
            Mood::Down => return Reply::Raw(Vec::new()),
            Mood::Hosted | Mood::HostedStrict if batch => return error("404 Not Found", "NOT_FOUND", ""),
            Mood::HostedStrict => return error("403 Forbidden", "SIGNATURE_KEY_MISMATCH", ""),
            Mood::KeyRefused if has("service", "github") => {
                if asked.header("authorization") != Some("Bearer new-key") {
                    return error("401 Unauthorized", "UNAUTHORIZED", "");
                }
            }
            Mood::KeyForeign if has("service", "github") => return error("403 Forbidden", "FORBIDDEN", ""),
            Mood::Strict if has("event_id", "poison") => return error("400 Bad Request", "VALIDATION_ERROR", ""),
            Mood::Guarded if has("event_id", "poison") => {
                return crate::claims::fake_api::answer("403 Forbidden", "content-type: text/html\r\n", "<html>");
            }
            Mood::Good | Mood::Hosted | Mood::KeyRefused | Mood::KeyForeign | Mood::Strict | Mood::Guarded => {}
        }
        let (refused, good): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event["event_id"] == "never");
        let refused: Vec<_> =
            refused.iter().map(|event| json!({"event_id": event["event_id"], "code": "UNKNOWN_KEY"})).collect();
        let accepted = self.store(&good);
        let duplicate = good.len() - accepted;
        if batch {
            let said = json!({"accepted": accepted, "duplicate": duplicate, "refused": refused});
            reply("200 OK", "", &said.to_string())
        } else {
            reply("201 Created", "", &json!({"accepted": true, "duplicate": duplicate == 1}).to_string())
        }
    }

    fn store(&mut self, events: &[Value]) -> usize {
        events.iter().filter(|event| self.stored.insert(event["event_id"].as_str().unwrap().to_owned())).count()
    }
}

fn error(status: &str, code: &str, headers: &str) -> Reply {
    reply(status, headers, &json!({"error": "no", "code": code}).to_string())
}

struct Rig {
    folder: TempDir,
    api: FakeApi,
    ledger: Arc<Mutex<Ledger>>,
    metrics: Arc<Metrics>,
    pace: Pace,
    max_backlog_bytes: u64,
}

struct Running {
    stop: StopHandle,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.stop();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap();
    }

    /// As a crash does.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Rig {
    async fn start() -> Self {
        let ledger: Arc<Mutex<Ledger>> = Arc::default();
        let answers = Arc::clone(&ledger);
        let api = FakeApi::start(move |asked| answers.lock().unwrap().answer(asked)).await;
        let folder = tempfile::tempdir().unwrap();
        let rig = Self {
            folder,
            api,
            ledger,
            metrics: Arc::new(Metrics::new().unwrap()),
            pace: PACE,
            max_backlog_bytes: u64::MAX,
        };
        rig.key("linear", "key-1");
        rig.key("github", "key-2");
        rig
    }

    fn key(&self, service: &str, key: &str) {
        std::fs::write(self.folder.path().join(format!("service-api-key-{service}")), key).unwrap();
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    fn usage(&self) -> Usage {
        Usage::build(UsageConfig {
            log: self.log(),
            position: position_file(self.folder.path()),
            max_backlog_bytes: self.max_backlog_bytes,
            client: Arc::new(self.api.client()),
            keys: Arc::new(KeyPlaces::new([], vec![self.folder.path().to_owned()])),
            metrics: Arc::clone(&self.metrics),
            pace: self.pace,
        })
        .unwrap()
    }

    fn run(&self) -> Running {
        let (handle, stop) = stop_pair();
        Running { stop: handle, task: tokio::spawn(self.usage().run(stop)) }
    }

    fn write(&self, lines: impl IntoIterator<Item = String>) {
        let text: String = lines.into_iter().map(|line| line + "\n").collect();
        OpenOptions::new().create(true).append(true).open(self.log()).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn put_aside(&self) {
        segments::put_aside(&self.log(), &[position_file(self.folder.path())]).unwrap();
    }

    fn mood(&self, mood: Mood) {
        self.ledger.lock().unwrap().mood = mood;
    }

    fn stored(&self) -> BTreeSet<String> {
        self.ledger.lock().unwrap().stored.clone()
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("sigilum_gateway_{name} ")));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    fn behind(&self) -> u64 {
        let position = Position::load(&position_file(self.folder.path())).unwrap();
        segments::bytes_behind(&self.log(), &position).unwrap()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: {} stored\n{}",
                self.stored().len(),
                self.metrics.render().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_stored(&self, ids: &BTreeSet<String>) {
        self.until("all are stored", |rig| rig.stored() == *ids && rig.behind() == 0).await;
    }
}

const BEGAN: &str = "2026-01-01T00:00:00.000Z";

fn entry(id: &str, service: &str) -> Value {
    json!({
        "decision_id": id, "connection": service, "path": "/x", "namespace": "acme", "subject": "alice",
        "public_key": PublicKey::new([7; 32]).text(), "method": "GET", "status": 200, "duration_ms": 3,
        "bytes_sent": 10, "client_address": "192.0.2.7", "timestamp": BEGAN,
    })
}

fn line(id: &str, service: &str) -> String {
    entry(id, service).to_string()
}

fn ids(range: std::ops::Range<usize>) -> BTreeSet<String> {
    range.map(|number| format!("event-{number:05}")).collect()
}

fn lines(range: std::ops::Range<usize>) -> Vec<String> {
    let service = |number: usize| if number.is_multiple_of(3) { "github" } else { "linear" };
    range.map(|number| line(&format!("event-{number:05}"), service(number))).collect()
}

#[tokio::test]
async fn every_event_is_sent_once_in_batches_of_one_service() {
    let rig = Rig::start().await;
    let running = rig.run();
    let mut foreign = entry("foreign", "linear");
    foreign["namespace"] = "other".into();
    let mut denied = entry("denied", "linear");
    denied["reason"] = "AUTH_CLAIM_REQUIRED".into();
    rig.write(lines(0..1800));
    rig.write([foreign.to_string(), denied.to_string(), line("keyless", "gitlab"), "not json".to_owned()]);
    rig.write(lines(1800..3000));
    rig.until_stored(&ids(0..3000)).await;
    running.stop().await;
    assert_eq!((rig.metric("usage_sent_total"), rig.metric("usage_duplicate_total")), (3000, 0));
    assert_eq!((rig.metric("usage_pending"), rig.metric("usage_lag_bytes")), (0, 0));
    for (reason, count) in [("foreign_namespace", 1), ("no_key", 1), ("incomplete", 0)] {
        assert_eq!(rig.metric(&format!("usage_skipped_total{{reason=\"{reason}\"}}")), count, "{reason}");
    }
    for asked in rig.api.asked() {
        assert_eq!(asked.target, USAGE_BATCH_PATH);
        assert_eq!(asked.header("sigilum-subject"), Some("acme"));
        assert_eq!(asked.header("x-sigilum-claim-binding"), Some("namespace-only"));
        let events = serde_json::from_slice::<Value>(&asked.body).unwrap()["events"].as_array().unwrap().clone();
        let service = events[0]["service"].as_str().unwrap();
        assert!(events.iter().all(|event| event["occurred_at"] == BEGAN), "{events:?}");
        assert!(events.len() <= MAX_BATCH && events.iter().all(|event| event["service"] == service));
        let key = if service == "linear" { "Bearer key-1" } else { "Bearer key-2" };
        assert_eq!(asked.header("authorization"), Some(key));
    }
}

#[tokio::test]
async fn an_outage_loses_nothing_and_reads_nothing_ahead() {
    let rig = Rig::start().await;
    let running = rig.run();
    rig.write(lines(0..10));
    rig.until_stored(&ids(0..10)).await;
    rig.mood(Mood::Down);
    rig.write(lines(10..WINDOW_EVENTS + 500));
    let behind = rig.behind();
    rig.until("it tries", |rig| rig.metric("usage_retries_total") >= 10).await;
    rig.until("it shows", |rig| rig.metric("usage_pending") == WINDOW_EVENTS as u64).await;
    assert_eq!((rig.behind(), rig.metric("usage_lag_bytes")), (behind, behind), "the position stays");
    assert_eq!(rig.stored(), ids(0..10));
    rig.mood(Mood::Good);
    rig.until_stored(&ids(0..WINDOW_EVENTS + 500)).await;
    running.stop().await;
    assert_eq!((rig.metric("usage_duplicate_total"), rig.metric("usage_dropped_total")), (0, 0));
}

#[tokio::test]
async fn what_is_no_yes_is_tried_again() {
    let rig = Rig::start().await;
    rig.ledger.lock().unwrap().trouble = vec![
        Trouble::Status("500 Internal Server Error", "INTERNAL_ERROR", ""),
        Trouble::Status("408 Request Timeout", "", ""),
        Trouble::Status("401 Unauthorized", "SIGNATURE_EXPIRED", ""),
        Trouble::Status("401 Unauthorized", "UNAUTHORIZED", ""),
        Trouble::Status("409 Conflict", "SIGNATURE_NONCE_REPLAY", ""),
        Trouble::Status("307 Temporary Redirect", "", "location: http://127.0.0.1:1/\r\n"),
        Trouble::Page,
        Trouble::StoresAndBreaks,
    ];
    let running = rig.run();
    rig.write([line("event-00001", "linear")]);
    rig.until_stored(&ids(1..2)).await;
    running.stop().await;
    assert_eq!((rig.metric("usage_retries_total"), rig.metric("usage_duplicate_total")), (8, 1));
    let nonces: BTreeSet<_> =
        rig.api.asked().iter().map(|asked| asked.header("signature-input").unwrap().to_owned()).collect();
    assert_eq!(nonces.len(), 9, "each attempt is signed anew");
}

#[tokio::test]
async fn a_pause_that_the_api_asks_for_is_kept() {
    let rig = Rig::start().await;
    rig.ledger.lock().unwrap().trouble =
        vec![Trouble::Status("429 Too Many Requests", "RATE_LIMITED", "retry-after: 1\r\n")];
    let running = rig.run();
    rig.write([line("event-00001", "linear")]);
    rig.until("the first attempt", |rig| rig.api.asked().len() == 1).await;
    let begun = Instant::now();
    rig.until_stored(&ids(1..2)).await;
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn a_crash_behind_the_acceptance_counts_nothing_twice() {
    let rig = Rig::start().await;
    // Stored there, and nobody here hears of it.
    rig.ledger.lock().unwrap().trouble = vec![Trouble::StoresAndBreaks; 2];
    rig.mood(Mood::Down);
    let running = rig.run();
    rig.write(lines(0..300));
    rig.until("it is stored", |rig| rig.stored() == ids(0..300)).await;
    running.kill().await;
    assert_eq!(rig.metric("usage_sent_total"), 0);
    rig.mood(Mood::Good);
    let running = rig.run();
    rig.until_stored(&ids(0..300)).await;
    running.stop().await;
    assert_eq!((rig.metric("usage_sent_total"), rig.metric("usage_duplicate_total")), (300, 300));
}

#[tokio::test]
async fn crashes_and_rotations_in_the_middle_lose_nothing() {
    let rig = Rig::start().await;
    let positions = [position_file(rig.folder.path())];
    drop(rig.usage());
    let (mut written, mut accepted) = (0, 0);
    for round in 0..25 {
        rig.write(lines(written..written + 97));
        written += 97;
        if round % 4 == 1 {
            rig.put_aside();
            rig.write(lines(written..written + 11));
            written += 11;
        }
        rig.mood(if round % 5 == 3 { Mood::Down } else { Mood::Good });
        let running = rig.run();
        // Killed at the first sign of life, wherever that leaves it.
        let asked = rig.api.asked().len();
        rig.until("it asks", |rig| rig.api.asked().len() > asked).await;
        running.kill().await;
        segments::remove_read(&rig.log(), &positions).unwrap();
        assert!(rig.stored().len() >= accepted);
        accepted = rig.stored().len();
    }
    rig.mood(Mood::Good);
    let running = rig.run();
    rig.until_stored(&ids(0..written)).await;
    running.stop().await;
    segments::remove_read(&rig.log(), &positions).unwrap();
    assert_eq!(segments::list(&rig.log()).unwrap().len(), 2, "the log, and the newest of those put aside");
}

#[tokio::test]
async fn what_will_never_be_taken_is_counted_and_stops_nothing() {
    let rig = Rig::start().await;
    rig.mood(Mood::Strict);
    let running = rig.run();
    rig.write(lines(0..40));
    rig.write([line("poison", "linear"), line("never", "linear")]);
    rig.write(lines(40..80));
    rig.until_stored(&ids(0..80)).await;
    running.stop().await;
    assert_eq!(rig.metric("usage_refused_total{code=\"validation_error\"}"), 1);
    assert_eq!(rig.metric("usage_refused_total{code=\"unknown_key\"}"), 1);
    assert_eq!(rig.metric("usage_sent_total"), 80);
}

#[tokio::test]
async fn what_a_proxy_does_not_let_through_stops_the_others_for_a_while_only() {
    let mut rig = Rig::start().await;
    rig.pace.patience = Duration::from_millis(100);
    rig.mood(Mood::Guarded);
    let running = rig.run();
    rig.write(lines(0..20));
    rig.write([line("poison", "linear")]);
    rig.write(lines(20..40));
    rig.until_stored(&ids(0..40)).await;
    running.stop().await;
    assert_eq!(rig.metric("usage_refused_total{code=\"not_json_403\"}"), 1);
}

#[tokio::test]
async fn an_api_without_batches_gets_events_one_by_one_signed_for_their_subject() {
    let rig = Rig::start().await;
    rig.mood(Mood::Hosted);
    let running = rig.run();
    rig.write(lines(0..60));
    rig.until_stored(&ids(0..60)).await;
    rig.write(lines(60..80));
    rig.until_stored(&ids(0..80)).await;
    running.stop().await;
    let asked = rig.api.asked();
    let batches = asked.iter().filter(|asked| asked.target == USAGE_BATCH_PATH).count();
    assert!(batches <= 2, "it is remembered: {batches}");
    for single in asked.iter().filter(|asked| asked.target == USAGE_PATH) {
        assert_eq!(single.header("sigilum-subject"), Some("alice"));
        assert_eq!(single.header("x-sigilum-claim-binding"), Some("namespace-only"));
        let event: Value = serde_json::from_slice(&single.body).unwrap();
        assert_eq!(event.get("occurred_at"), None, "who takes no batches may not know it");
    }
    assert_eq!(rig.metric("usage_sent_total"), 80);
}

#[tokio::test]
async fn an_api_that_takes_no_reports_for_other_keys_does_not_stop_the_queue() {
    let rig = Rig::start().await;
    rig.mood(Mood::HostedStrict);
    let running = rig.run();
    rig.write(lines(0..20));
    rig.until("all are refused", |rig| rig.metric("usage_refused_total{code=\"signature_key_mismatch\"}") == 20).await;
    rig.until("it moves on", |rig| rig.behind() == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn a_refused_key_holds_the_others_up_for_a_while_only() {
    let mut rig = Rig::start().await;
    rig.pace.patience = Duration::from_millis(200);
    rig.mood(Mood::KeyRefused);
    let running = rig.run();
    rig.write([line("event-00001", "linear"), line("lost", "github")]);
    rig.until("given up", |rig| rig.metric("usage_skipped_total{reason=\"unauthorized\"}") == 1).await;
    rig.until_stored(&ids(1..2)).await;
    // From now on one attempt each.
    rig.write([line("lost too", "github"), line("event-00002", "linear")]);
    rig.until("given up", |rig| rig.metric("usage_skipped_total{reason=\"unauthorized\"}") == 2).await;
    rig.until_stored(&ids(1..3)).await;
    // A new key is found and used, and then there is patience again.
    rig.key("github", "new-key");
    rig.write([line("event-00003", "github")]);
    rig.until_stored(&ids(1..4)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_refused_key_holds_up_its_own_service_alone_and_loses_nothing() {
    // With all the patience there is.
    let rig = Rig::start().await;
    rig.mood(Mood::KeyRefused);
    let running = rig.run();
    rig.write([line("event-00000", "github"), line("event-00001", "linear")]);
    rig.until("the other is stored", |rig| rig.stored() == ids(1..2)).await;
    rig.write([line("event-00002", "linear"), line("event-00003", "github"), line("event-00004", "linear")]);
    rig.until("those behind too", |rig| [1, 2, 4].iter().all(|id| rig.stored().is_superset(&ids(*id..*id + 1)))).await;
    assert_eq!(rig.metric("usage_skipped_total{reason=\"unauthorized\"}"), 0);
    // A crash finds those that wait where they were.
    running.kill().await;
    let running = rig.run();
    rig.until("it tries", |rig| rig.metric("usage_pending") == 2).await;
    rig.key("github", "new-key");
    rig.until_stored(&ids(0..5)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_key_of_another_service_holds_nobody_up() {
    // With all the patience there is.
    let rig = Rig::start().await;
    rig.mood(Mood::KeyForeign);
    let running = rig.run();
    rig.write([line("event-00001", "linear"), line("lost", "github")]);
    rig.until("left out", |rig| rig.metric("usage_skipped_total{reason=\"unauthorized\"}") == 1).await;
    rig.write([line("event-00002", "linear")]);
    rig.until_stored(&ids(1..3)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_stop_settles_what_is_under_way_and_sends_what_is_left() {
    let mut rig = Rig::start().await;
    rig.pace.poll = Duration::from_secs(3600);
    let running = rig.run();
    rig.write(lines(0..700));
    running.stop().await;
    assert_eq!((rig.stored(), rig.behind()), (ids(0..700), 0));
}

#[tokio::test]
async fn a_stop_during_an_outage_ends_and_keeps_the_rest() {
    let rig = Rig::start().await;
    rig.mood(Mood::KeyRefused);
    let running = rig.run();
    rig.write([line("event-00000", "linear"), line("event-00001", "github"), line("event-00002", "linear")]);
    rig.until("it tries", |rig| rig.metric("usage_retries_total") >= 2 && rig.stored().len() == 2).await;
    running.stop().await;
    assert_eq!(rig.behind(), 2 * (line("event-00001", "github").len() as u64 + 1), "up to the one that is not settled");
    rig.mood(Mood::Good);
    let running = rig.run();
    rig.until_stored(&ids(0..3)).await;
    running.stop().await;
}

#[tokio::test]
async fn beyond_its_bound_the_oldest_file_is_given_up_and_counted() {
    let mut rig = Rig::start().await;
    // Room for two files of a hundred.
    rig.max_backlog_bytes = lines(0..250).iter().map(|line| line.len() as u64 + 1).sum();
    rig.mood(Mood::Down);
    let running = rig.run();
    rig.write(lines(0..100));
    rig.until("it tries", |rig| rig.metric("usage_retries_total") >= 2).await;
    for start in [100, 200, 300] {
        rig.put_aside();
        rig.write(lines(start..start + 100));
    }
    rig.until("it lets go", |rig| rig.metric("usage_dropped_total") >= 200).await;
    rig.until("it stays within", |rig| rig.behind() <= rig.max_backlog_bytes).await;
    rig.mood(Mood::Good);
    rig.until_stored(&ids(200..400)).await;
    running.stop().await;
    assert_eq!(rig.metric("usage_dropped_total"), 200);
    assert_eq!(rig.metric("usage_sent_total"), 200);
}

#[tokio::test]
async fn what_is_in_the_log_when_usage_is_switched_on_is_not_reported() {
    let rig = Rig::start().await;
    rig.write(lines(0..5));
    let running = rig.run();
    rig.write(lines(5..7));
    rig.until_stored(&ids(5..7)).await;
    running.stop().await;
    forget(rig.folder.path()).unwrap();
    forget(rig.folder.path()).unwrap();
    rig.write(lines(7..9));
    let running = rig.run();
    rig.write(lines(9..11));
    rig.until("only what came since", |rig| rig.stored() == &ids(5..7) | &ids(9..11)).await;
    running.stop().await;
}
