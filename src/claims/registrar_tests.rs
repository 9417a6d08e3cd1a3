#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code may panic, and its tasks end with the test"
)]

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::claims::fake_api;
use crate::claims::fake_api::Asked;
use crate::claims::fake_api::FakeApi;
use crate::claims::fake_api::Reply;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::stop_pair;

struct Rig {
    _folder: TempDir,
    api: FakeApi,
    metrics: Arc<Metrics>,
    queue: mpsc::Sender<Registration>,
    poked: mpsc::Receiver<String>,
    stop: StopHandle,
    task: JoinHandle<()>,
}

/// A pace that does not change.
fn pace(registrations_per_minute: u32) -> watch::Receiver<ClaimsPace> {
    let pace = ClaimsPace { refresh: Duration::from_secs(10), max_approvals: 1000, registrations_per_minute };
    watch::channel(pace).1
}

impl Rig {
    async fn start(per_minute: u32, handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let api = FakeApi::start(handler).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("service-api-key-linear"), "key-1").unwrap();
        std::fs::write(folder.path().join("service-api-key-github"), "key-2").unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (poke, poked) = mpsc::channel(4);
        let (queue, registrations) = mpsc::channel(64);
        let (stop, stopped) = stop_pair();
        let config = RegistrarConfig {
            client: Arc::new(api.client()),
            keys: Arc::new(KeyPlaces::new([], vec![folder.path().to_owned()])),
            pace: pace(per_minute),
            poke,
            metrics: Arc::clone(&metrics),
        };
        let task = tokio::spawn(run(config, registrations, stopped));
        Self { _folder: folder, api, metrics, queue, poked, stop, task }
    }

    /// Hands one in; the answer comes later.
    async fn hand_in(&self, register: proto::Register) -> oneshot::Receiver<proto::Registered> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Registration { register, answer }).await.unwrap();
        answered
    }

    async fn ask(&self, register: proto::Register) -> proto::Registered {
        let answered = self.hand_in(register).await;
        tokio::time::timeout(Duration::from_secs(20), answered).await.unwrap().unwrap()
    }
}

fn caller(key: u8, service: &str) -> proto::Register {
    proto::Register {
        id: 7,
        service: service.to_owned(),
        namespace: "acme".to_owned(),
        public_key: vec![key; 32],
        subject: "alice".to_owned(),
        agent_id: String::new(),
        remote_address: String::new(),
    }
}

fn pending(asked: &Asked) -> Reply {
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    let said = json!({"claim_id": "cl_1", "status": "pending", "service": body["service"], "message": "wait\nfor it"});
    fake_api::json("201 Created", "", &said.to_string())
}

#[tokio::test]
async fn a_claim_is_submitted_as_the_api_wants_it() {
    let rig = Rig::start(0, pending).await;
    let mut register = caller(9, "linear");
    register.agent_id = "bot".to_owned();
    register.remote_address = "192.0.2.7".to_owned();
    let answer = rig.ask(register).await;
    assert_eq!((answer.result(), answer.http_status), (RegisterResult::Recorded, 201));
    assert_eq!((answer.claim_id.as_str(), answer.claim_status.as_str()), ("cl_1", "pending"));
    assert_eq!((answer.message.as_str(), answer.error.as_str()), ("wait for it", ""));
    let asked = rig.api.asked().remove(0);
    assert_eq!(asked.target, "/v1/claims");
    for (name, value) in [
        ("authorization", "Bearer key-1"),
        ("content-type", "application/json"),
        ("x-sigilum-claim-binding", "namespace-only"),
        ("sigilum-namespace", "acme"),
        ("sigilum-subject", "alice"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    assert!(asked.header("content-digest").is_some());
    let text = String::from_utf8(asked.body).unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    let nonce = body["nonce"].as_str().unwrap();
    assert_eq!(nonce.len(), 36);
    let key = PublicKey::new([9; 32]).text();
    let expected = format!(
        r#"{{"agent_id":"bot","agent_ip":"192.0.2.7","namespace":"acme","nonce":"{nonce}","public_key":"{key}","service":"linear","subject":"alice"}}"#
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn what_is_not_known_is_left_out_and_the_address_is_the_machine() {
    let rig = Rig::start(0, pending).await;
    rig.ask(proto::Register { subject: " ".to_owned(), ..caller(9, "linear") }).await;
    let asked = rig.api.asked().remove(0);
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["agent_ip", "namespace", "nonce", "public_key", "service"]);
    assert_eq!((body["agent_ip"].as_str(), asked.header("sigilum-subject")), (Some("0.0.0.0"), Some("acme")));
}

#[tokio::test]
async fn every_kind_of_answer_is_told_as_what_it_is() {
    let long = "x".repeat(70_000);
    let rig = Rig::start(0, move |asked| {
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let key = PublicKey::parse(body["public_key"].as_str().unwrap()).unwrap();
        match key.as_bytes()[0] {
            1 => fake_api::json("403 Forbidden", "", r#"{"error":"not yours","code":"SIGNATURE_NAMESPACE_MISMATCH"}"#),
            2 => fake_api::json("409 Conflict", "", r#"{"error":"seen","code":"NONCE_REPLAY"}"#),
            3 => fake_api::answer("200 OK", "content-type: text/plain\r\n", " thank you\r\n"),
            4 => fake_api::answer("503 Service Unavailable", "", "upstream connect error"),
            5 => fake_api::answer("302 Found", "location: http://127.0.0.1:1/\r\n", ""),
            6 => Reply::Raw(Vec::new()),
            7 => fake_api::json("200 OK", "", &long),
            _ => fake_api::json(
                "201 Created",
                "",
                r#"{"claim_id":"cl_2","status":"rejected","service":"linear","message":"full"}"#,
            ),
        }
    })
    .await;
    for (key, result, status) in [
        (1, RegisterResult::ApiRejected, 403),
        (2, RegisterResult::ApiRejected, 409),
        (3, RegisterResult::Recorded, 200),
        (4, RegisterResult::ApiRejected, 503),
        (5, RegisterResult::ApiRejected, 302),
        (6, RegisterResult::NoResponse, 0),
        (7, RegisterResult::NoResponse, 0),
        (8, RegisterResult::Recorded, 201),
    ] {
        let answer = rig.ask(caller(key, "linear")).await;
        assert_eq!((answer.result(), answer.http_status), (result, status), "{key}: {answer:?}");
        let (code, message) = (answer.code.as_str(), answer.message.as_str());
        match key {
            1 => assert_eq!((code, message), ("SIGNATURE_NAMESPACE_MISMATCH", "not yours")),
            3 => assert_eq!((code, message), ("", "thank you")),
            8 => assert_eq!((answer.claim_status.as_str(), message), ("rejected", "full")),
            _ => {}
        }
    }
    let text = rig.metrics.render().unwrap();
    for series in ["{result=\"recorded\"} 2", "{result=\"api_rejected\"} 4", "{result=\"no_response\"} 2"] {
        assert!(text.contains(&format!("sigilum_gateway_claim_submit_total{series}")), "{text}");
    }
}

#[tokio::test]
async fn a_bad_answer_is_told_like_a_good_one() {
    const ANSWERS: [(&str, &str, &str); 8] = [
        ("403 Forbidden", "application/json", r#"{"message":"MSG","code":"CODE"}"#),
        ("403 Forbidden", "application/json", r#"{"message":"MSG","error":"ERR"}"#),
        ("409 Conflict", "application/json", r#"{"claim_id":"cl_9","status":"pending","error":"seen\r\nbefore"}"#),
        ("500 Internal Server Error", "text/plain", "plain\r\ntext"),
        ("400 Bad Request", "text/plain", " plain 400\n"),
        ("400 Bad Request", "text/plain", ""),
        ("404 Not Found", "text/html; charset=utf-8", "<p>nothing here</p>"),
        ("422 Unprocessable Content", "application/json", "[1]"),
    ];
    let rig = Rig::start(0, |asked| {
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let key = PublicKey::parse(body["public_key"].as_str().unwrap()).unwrap();
        let (status, kind, body) = ANSWERS[usize::from(key.as_bytes()[0])];
        fake_api::answer(status, &format!("content-type: {kind}\r\n"), body)
    })
    .await;
    let unread = "the answer 400 is not the API's JSON but text/plain; check SIGILUM_API_URL";
    let page = "the answer 404 is not the API's JSON but a web page (text/html); check SIGILUM_API_URL";
    for (key, status, claim, code, message) in [
        (0, 403, ("", ""), "CODE", "MSG"),
        (1, 403, ("", ""), "", "MSG"),
        (2, 409, ("cl_9", "pending"), "", "seen  before"),
        (3, 500, ("", ""), "", "plain  text"),
        (4, 400, ("", ""), "", "plain 400"),
        (5, 400, ("", ""), "", unread),
        (6, 404, ("", ""), "", page),
        (7, 422, ("", ""), "", "[1]"),
    ] {
        let answer = rig.ask(caller(key, "linear")).await;
        assert_eq!((answer.result(), answer.http_status), (RegisterResult::ApiRejected, status), "{key}");
        assert_eq!((answer.claim_id.as_str(), answer.claim_status.as_str()), claim, "{key}");
        assert_eq!((answer.code.as_str(), answer.message.as_str()), (code, message), "{key}");
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_not_sent() {
    let rig = Rig::start(0, pending).await;
    for (register, word) in [
        (caller(1, "gitlab"), "SIGILUM_SERVICE_API_KEY_GITLAB"),
        (caller(1, "../linear"), "connection id"),
        (proto::Register { namespace: "other".to_owned(), ..caller(1, "linear") }, "own namespace"),
        (proto::Register { public_key: vec![1; 31], ..caller(1, "linear") }, "32 bytes"),
        (proto::Register { subject: "a\nb".to_owned(), ..caller(1, "linear") }, "control characters"),
    ] {
        let answer = rig.ask(register).await;
        assert_eq!(answer.result(), RegisterResult::FailedBeforeResponse);
        assert!(answer.error.contains(word), "{}", answer.error);
    }
    assert!(rig.api.asked().is_empty());
}

#[tokio::test]
async fn the_limit_holds_for_all_keys_together() {
    let rig = Rig::start(3, pending).await;
    let mut results = Vec::new();
    for key in 0..5 {
        results.push(rig.ask(caller(key, if key % 2 == 0 { "linear" } else { "github" })).await.result());
    }
    let (recorded, limited) = (RegisterResult::Recorded, RegisterResult::RateLimited);
    assert_eq!(results, [recorded, recorded, recorded, limited, limited]);
    assert_eq!(rig.api.asked().len(), 3);
}

#[test]
fn any_minute_has_its_limit_and_no_other_clock_than_the_one_that_never_steps_back() {
    let mut limit = Limit::default();
    let at = |millis| MonotonicMillis(millis);
    assert!(limit.admits(2, at(59_000)) && limit.admits(2, at(59_500)));
    // The wall clock's next minute begins in between; ours does not.
    assert!(!limit.admits(2, at(60_500)) && !limit.admits(2, at(118_999)));
    assert!(limit.admits(2, at(119_000)));
    assert!(!limit.admits(2, at(119_400)));
    assert!(limit.admits(2, at(119_500)));
    let mut none = Limit::default();
    assert!((0..1000).all(|_| none.admits(0, at(0))) && none.recent.is_empty());
}

#[tokio::test]
async fn one_submission_serves_all_who_ask_for_the_same_meanwhile() {
    // All three are in the queue before the test's one thread gets to the first answer.
    let rig = Rig::start(0, pending).await;
    let first = rig.hand_in(caller(1, "linear")).await;
    let second = rig.hand_in(caller(1, "linear")).await;
    let other = rig.hand_in(caller(1, "github")).await;
    for answered in [first, second, other] {
        let answer = tokio::time::timeout(Duration::from_secs(20), answered).await.unwrap().unwrap();
        assert_eq!(answer.result(), RegisterResult::Recorded);
    }
    let services: Vec<_> =
        rig.api.asked().iter().map(|asked| asked.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(services.len(), 2);
    assert_eq!(services.into_iter().collect::<BTreeSet<_>>().len(), 2);
}

#[tokio::test]
async fn an_approved_claim_has_its_service_read_at_once() {
    let mut rig = Rig::start(0, |_| {
        fake_api::json("200 OK", "", r#"{"claim_id":"cl_1","status":"approved","service":"linear","message":""}"#)
    })
    .await;
    assert_eq!(rig.ask(caller(1, "linear")).await.claim_status, "approved");
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(10), rig.poked.recv()).await.unwrap().as_deref(),
        Some("linear")
    );
}

#[tokio::test]
async fn an_api_that_says_nothing_stops_nobody() {
    let rig = Rig::start(0, |asked| match asked.header("authorization") {
        Some("Bearer key-1") => Reply::Silence,
        _ => pending(asked),
    })
    .await;
    let silent = rig.hand_in(caller(1, "linear")).await;
    assert_eq!(rig.ask(caller(1, "github")).await.result(), RegisterResult::Recorded);
    rig.stop.stop();
    tokio::time::timeout(Duration::from_secs(10), rig.task).await.unwrap().unwrap();
    assert!(silent.await.is_err(), "whoever waits is told by the drop");
}
