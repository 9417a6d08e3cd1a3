//! Tests of the simulator's judgement, and of its way through a stack that is played by one router.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use std::sync::Arc;
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use serde_json::Value;

use super::*;
use crate::sys::http_server;
use crate::sys::room::Room;
use crate::sys::tasks::Tasks;

/// Whom the played stack believes to be approved.
#[derive(Default)]
struct Stack {
    approved: Vec<String>,
    deleted: Vec<String>,
    /// Requests of approved agents that are still turned away, as before a seed is enforced.
    lag: u32,
    /// Lets everybody in.
    open: bool,
}

type Shared = Arc<Mutex<Stack>>;

async fn seed(State(stack): State<Shared>, headers: HeaderMap, body: String) -> StatusCode {
    if headers.get(SEED_HEADER).is_none_or(|token| token != "seed-token") {
        return StatusCode::UNAUTHORIZED;
    }
    let body: Value = serde_json::from_str(&body).unwrap();
    let keys = |list: &str| {
        let rows = body[list].as_array().unwrap().iter();
        rows.map(|row| row["public_key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut stack = stack.lock().unwrap();
    (stack.approved, stack.deleted) = (keys("upserts"), keys("deletes"));
    StatusCode::OK
}

fn ping(stack: &Shared, headers: &HeaderMap, gateway: bool) -> Response {
    let mut stack = stack.lock().unwrap();
    let key = headers.get("sigilum-agent-key").map(|key| key.to_str().unwrap().to_owned());
    let approved = key.as_ref().is_some_and(|key| stack.approved.contains(key));
    if stack.open || approved && stack.lag == 0 {
        return "\"pong\"".into_response();
    }
    stack.lag = stack.lag.saturating_sub(u32::from(approved));
    match (gateway, key) {
        (false, _) => (StatusCode::UNAUTHORIZED, "{\"error\":\"Unauthorized\"}").into_response(),
        (true, None) => (StatusCode::FORBIDDEN, "{\"code\":\"AUTH_SIGNATURE_INVALID\"}").into_response(),
        (true, Some(_)) => {
            (StatusCode::FORBIDDEN, [("content-type", "text/markdown; charset=utf-8")], MARKERS.join("\n"))
                .into_response()
        }
    }
}

async fn play(stack: Stack) -> (SimulatorConfig, Shared, tempfile::TempDir, Tasks) {
    let stack: Shared = Arc::new(Mutex::new(stack));
    let router = Router::new()
        .route("/", get(|| async { "" }))
        .route("/health", get(|| async { "" }))
        .route("/v1/test/seed", post(seed))
        .route(
            "/v1/ping",
            post(|State(stack): State<Shared>, headers: HeaderMap| async move { ping(&stack, &headers, false) }),
        )
        .route(
            "/proxy/demo/v1/ping",
            post(|State(stack): State<Shared>, headers: HeaderMap| async move { ping(&stack, &headers, true) }),
        )
        .with_state(Arc::clone(&stack));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let mut tasks = Tasks::default();
    tasks.spawn("stack", |stop| http_server::serve(listener, router, Room::new(16), stop));
    let folder = tempfile::tempdir().unwrap();
    let config = SimulatorConfig {
        native_url: url.clone(),
        gateway_url: url.clone(),
        connection: "demo".to_owned(),
        upstream_url: url.clone(),
        seed_endpoint: below(&url, "/v1/test/seed"),
        seed_token: Secret::new("seed-token".to_owned()),
        native_slug: "native".to_owned(),
        gateway_slug: "demo".to_owned(),
        approved: Namespace::parse("agent-sim-approved").unwrap(),
        unapproved: Namespace::parse("agent-sim-unapproved").unwrap(),
        home: folder.path().join("agents"),
    };
    (config, stack, folder, tasks)
}

fn passed(verdicts: &[Verdict]) -> Vec<bool> {
    verdicts.iter().map(|verdict| verdict.passed).collect()
}

#[tokio::test]
async fn a_stack_that_holds_passes_all_six_also_when_the_seed_takes_a_moment() {
    let (config, stack, _folder, _tasks) = play(Stack { lag: 2, ..Stack::default() }).await;
    let verdicts = run(&config).await.unwrap();
    assert_eq!(passed(&verdicts), [true; 6], "{verdicts:#?}");
    let stack = stack.lock().unwrap();
    assert_eq!((stack.approved.len(), stack.deleted.len()), (2, 2));
    assert_ne!(stack.approved[0], stack.deleted[0]);
}

#[tokio::test]
async fn an_open_stack_is_found_out() {
    let (config, _stack, _folder, _tasks) = play(Stack { open: true, ..Stack::default() }).await;
    let simulator = Simulator::new(&config).unwrap();
    for case in &CASES {
        let verdict = judge(case, &simulator.try_case(case).await.unwrap());
        assert_eq!(verdict.passed, case.wanted == Wanted::Pong, "{verdict:?}");
    }
}

#[tokio::test]
async fn a_wrong_token_and_a_missing_part_are_said() {
    let (config, _stack, _folder, _tasks) = play(Stack::default()).await;
    let wrong = SimulatorConfig { seed_token: Secret::new("other".to_owned()), ..config };
    let error = run(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("/v1/test/seed answers 401"), "{error}");
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = SimulatorConfig { upstream_url: Url::parse(&format!("http://{nowhere}")).unwrap(), ..wrong };
    let error = run(&gone).await.unwrap_err().to_string();
    assert!(error.starts_with("the upstream at ") && error.contains("does not answer"), "{error}");
}

#[test]
fn only_the_markdown_counts_as_the_answer_for_the_unapproved() {
    let case = &CASES[4];
    let page = |status, kind: &'static str, text: &str| {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        judge(case, &Ok(Page { status, headers, text: text.to_owned() })).passed
    };
    let all = MARKERS.join("\n");
    assert!(page(403, "text/markdown; charset=utf-8", &all));
    assert!(!page(403, "application/json", &all));
    assert!(!page(403, "text/markdown", MARKERS[0]));
    assert!(!page(429, "text/markdown", &all));
}

#[test]
fn an_answer_is_shown_in_one_line() {
    assert_eq!(one_line(" a\nb\u{1b}c "), "a b c");
    assert_eq!(one_line(&"x".repeat(200)).len(), SHOWN + 3);
    let url = |base: &str| below(&Url::parse(base).unwrap(), "/v1/ping").to_string();
    assert_eq!(url("http://h:1"), "http://h:1/v1/ping");
    assert_eq!(url("http://h:1/base/?q#f"), "http://h:1/base/v1/ping");
}
