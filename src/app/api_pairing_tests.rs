//! Pairing over REST, and the handshake of a bridge, on real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::pairing_support::Bridge;
use super::pairing_support::Paired;
use super::support::ControlPlane;
use crate::api::text::instant;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::pairing::RECONNECT_HEADER;

const START: &str = "/v1/gateway/pairing/start";
const COMMAND: &str = "/v1/gateway/pairing/command";
const END: &str = "/v1/gateway/pairing/end";

fn now_ms() -> i64 {
    i64::try_from(SystemClock.now().wall.0).unwrap()
}

fn code_of(paired: &Paired) -> String {
    let wrong = if paired.code.starts_with('A') { 'B' } else { 'A' };
    format!("{wrong}{}", &paired.code[1..])
}

#[tokio::test]
async fn a_start_tells_what_a_bridge_needs() {
    let api = ControlPlane::start().await;
    let start = |body: &[u8]| api.owner("acme", "POST", START).raw(body).send();
    for (body, seconds) in [
        (&b""[..], 600),
        (b"nonsense", 600),
        (b"[1]", 600),
        (b"{}", 600),
        (br#"{"namespace": "acme", "ttl_seconds": 30, "more": 1}"#, 30),
        (br#"{"namespace": null, "ttl_seconds": 3600}"#, 3600),
    ] {
        let made = start(body).await.expect(200);
        let id = made["session_id"].as_str().unwrap();
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{id}");
        assert_eq!(made["namespace"], "acme");
        let code = made["pair_code"].as_str().unwrap();
        assert!(code.len() == 8 && code.bytes().all(|byte| b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789".contains(&byte)));
        let expires = made["expires_at"].as_str().unwrap();
        let off = instant(expires).unwrap() - now_ms() - seconds * 1000;
        assert!(expires.len() == 24 && (-10_000..=0).contains(&off), "{expires}");
        let url = format!("ws://{}/v1/gateway/pairing/connect?session_id={id}&namespace=acme", api.address);
        assert_eq!(made["ws_url"], json!(url), "without the code");
    }
    let secure = api.owner("acme", "POST", START).host("api.example.com").send().await.expect(200);
    assert!(secure["ws_url"].as_str().unwrap().starts_with("wss://api.example.com/v1/"));
    api.stop().await;
}

#[tokio::test]
async fn a_start_is_refused_for_what_is_wrong_with_it() {
    let api = ControlPlane::start().await;
    let start = |body: Value| api.owner("acme", "POST", START).json(&body).send();
    for ttl in [json!(29), json!(3601), json!("600"), json!(30.5), json!(-1), json!([])] {
        assert_eq!(start(json!({"ttl_seconds": ttl})).await.invalid(), ["ttl_seconds"]);
    }
    assert_eq!(start(json!({"namespace": 7, "ttl_seconds": 1})).await.invalid(), ["namespace", "ttl_seconds"]);
    start(json!({"namespace": "other"})).await.refused(403, "FORBIDDEN");
    api.ask("POST", START).send().await.refused(401, "UNAUTHORIZED");
    api.stop().await;
}

#[tokio::test]
async fn an_owner_has_room_for_sixty_four_live_sessions() {
    let api = ControlPlane::start().await;
    for _ in 0..64 {
        api.paired("acme").await;
    }
    let details = api.owner("acme", "POST", START).send().await.refused(403, "PAIRING_LIMIT_REACHED");
    assert_eq!(details, json!({"pairing_limit": 64, "pairings": 64}));
    api.paired("other").await;
    api.sql(|db| db.execute("UPDATE pairing_sessions SET expires_at_ms = 1 WHERE namespace = 'acme'", []));
    api.paired("acme").await;
    api.stop().await;
}

#[tokio::test]
async fn a_status_counts_in_numbers() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let before = api.status(&paired).await;
    let expires = before["expires_at"].as_i64().unwrap();
    assert!((590_000..=600_000).contains(&(expires - now_ms())), "{before}");
    let expected = json!({"connected": false, "namespace": "acme", "expires_at": expires, "last_connected_at": null,
        "ended": null});
    assert_eq!(before, expected);
    let mut bridge = Bridge::join(&api, &paired).await;
    let during = api.status(&paired).await;
    let connected = during["last_connected_at"].as_i64().unwrap();
    assert!(during["connected"] == true && (0..10_000).contains(&(now_ms() - connected)), "{during}");
    bridge.send(Message::Close(None)).await;
    api.wait_connected(&paired, false).await;
    assert_eq!(api.status(&paired).await["last_connected_at"], json!(connected));
    api.stop().await;
}

#[tokio::test]
async fn a_session_is_its_owners() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let status = format!("/v1/gateway/pairing/status?session_id={}", paired.id);
    let command = json!({"session_id": paired.id, "method": "GET", "path": "/health"});
    let end = json!({"session_id": paired.id});
    api.owner("other", "GET", &status).send().await.refused(403, "FORBIDDEN");
    api.owner("other", "POST", COMMAND).json(&command).send().await.refused(403, "FORBIDDEN");
    api.owner("other", "POST", END).json(&end).send().await.refused(403, "FORBIDDEN");
    let unknown = Paired { id: "b2f5ff47-4366-4d9c-8b28-5e0fd1a4c1a9".to_owned(), ..paired.clone() };
    let target = format!("/v1/gateway/pairing/status?session_id={}", unknown.id);
    api.owner("acme", "GET", &target).send().await.refused(404, "NOT_FOUND");
    api.command(&unknown, json!({})).send().await.refused(404, "NOT_FOUND");
    let end = json!({"session_id": unknown.id});
    api.owner("acme", "POST", END).json(&end).send().await.refused(404, "NOT_FOUND");
    for (method, target) in [("GET", status.as_str()), ("POST", COMMAND), ("POST", END)] {
        api.ask(method, target).send().await.refused(401, "UNAUTHORIZED");
    }
    assert_eq!(api.status(&paired).await["ended"], Value::Null);
    api.stop().await;
}

#[tokio::test]
async fn every_mistake_in_a_command_is_told_at_once() {
    let api = ControlPlane::start().await;
    let post = |body: &[u8]| api.owner("acme", "POST", COMMAND).raw(body).send();
    assert_eq!(post(b"{}").await.invalid(), ["session_id", "method", "path"]);
    post(b"[]").await.refused(400, "INVALID_JSON");
    post(b"").await.refused(400, "INVALID_JSON");
    let paired = api.paired("acme").await;
    for (field, wrong) in [
        ("method", json!("get")),
        ("method", json!("CONNECT")),
        ("path", json!("health")),
        ("path", json!(format!("/{}", "x".repeat(2048)))),
        ("path", json!("/a\0b")),
        ("headers", json!([])),
        ("headers", json!({"accept": 7})),
        ("body", json!({"secret": "x"})),
        ("timeout_ms", json!(999)),
        ("timeout_ms", json!(60_001)),
        ("timeout_ms", json!("15000")),
        ("session_id", json!(7)),
    ] {
        assert_eq!(api.command(&paired, json!({field: wrong})).send().await.invalid(), [field]);
    }
    assert_eq!(api.owner("acme", "GET", "/v1/gateway/pairing/status").send().await.invalid(), ["session_id"]);
    assert_eq!(api.owner("acme", "POST", END).raw(b"{}").send().await.invalid(), ["session_id"]);
    api.stop().await;
}

#[tokio::test]
async fn a_command_reaches_the_gateway_and_its_answer_who_asked() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    let asked = api.command(
        &paired,
        json!({"method": "PATCH", "path": "/api/admin/connections/x?y", "headers": {"accept": "application/json"},
            "body": "{\"name\":\"ä\"}"}),
    );
    let answered = async {
        let command = bridge.command().await;
        let id = command["request_id"].as_str().unwrap().to_owned();
        let expected = json!({"type": "command", "request_id": id, "method": "PATCH",
            "path": "/api/admin/connections/x?y", "headers": {"accept": "application/json"},
            "body": "{\"name\":\"ä\"}"});
        assert_eq!(command, expected);
        let answer = json!({"type": "response", "request_id": id, "status": 404, "headers": {"x": "y"},
            "body": "no such connection", "error": null});
        bridge.say(answer.to_string()).await;
        id
    };
    let (answer, id) = tokio::join!(asked.send(), answered);
    let expected = json!({"request_id": id, "status": 404, "headers": {"x": "y"}, "body": "no such connection",
        "error": null});
    assert_eq!(answer.expect(200), expected);

    let asked = api.command(&paired, json!({"body": null, "headers": null}));
    let answered = async {
        let command = bridge.command().await;
        assert_eq!((&command["body"], &command["headers"]), (&Value::Null, &json!({})));
        bridge.say(json!({"type": "response", "request_id": command["request_id"]}).to_string()).await;
    };
    let (answer, ()) = tokio::join!(asked.send(), answered);
    let answer = answer.expect(200);
    assert_eq!((&answer["status"], &answer["headers"]), (&json!(500), &json!({})), "what a bridge leaves out");
    assert!(answer["body"].is_null() && answer["error"].is_null());
    api.stop().await;
}

#[tokio::test]
async fn a_command_that_nobody_can_answer_is_refused() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let ask = || api.command(&paired, json!({"timeout_ms": 1000})).send();
    ask().await.refused(503, "GATEWAY_NOT_CONNECTED");
    let mut bridge = Bridge::join(&api, &paired).await;
    ask().await.refused(504, "GATEWAY_RELAY_FAILED");
    let late = bridge.command().await;
    bridge.echo(&late).await;
    // It leaves without an answer.
    let asked = api.command(&paired, json!({"timeout_ms": 30_000}));
    let leaves = async {
        bridge.command().await;
        bridge.send(Message::Close(None)).await;
    };
    let (answer, ()) = tokio::join!(asked.send(), leaves);
    answer.refused(504, "GATEWAY_RELAY_FAILED");
    api.wait_connected(&paired, false).await;
    ask().await.refused(503, "GATEWAY_NOT_CONNECTED");
    api.sql(|db| db.execute("UPDATE pairing_sessions SET expires_at_ms = 1", []));
    ask().await.refused(410, "GATEWAY_RELAY_FAILED");
    api.stop().await;
}

#[tokio::test]
async fn a_command_may_wait_longer_than_other_requests() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    let asked = api.command(&paired, json!({"timeout_ms": 60_000}));
    let answered = async {
        let command = bridge.command().await;
        // What is tried is a wait in real time: one second more than others get.
        tokio::time::sleep(Duration::from_secs(21)).await;
        bridge.echo(&command).await;
    };
    let (answer, ()) = tokio::join!(asked.send(), answered);
    answer.expect(200);
    api.stop().await;
}

#[tokio::test]
async fn commands_of_a_session_wait_in_bounded_number() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    let asked = futures_util::future::join_all((0..32).map(|_| api.command(&paired, json!({})).send()));
    let bridged = async {
        let mut commands = Vec::new();
        for _ in 0..32 {
            commands.push(bridge.command().await);
        }
        let more = api.command(&paired, json!({})).send().await;
        more.refused(429, "RATE_LIMITED");
        for command in commands {
            bridge.echo(&command).await;
        }
    };
    let (answers, ()) = tokio::join!(asked, bridged);
    assert!(answers.iter().all(|answer| answer.status == 200));
    api.stop().await;
}

#[tokio::test]
async fn an_owner_ends_a_session_and_its_bridge() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    let end = || api.owner("acme", "POST", END).json(&json!({"session_id": paired.id})).send();
    assert_eq!(end().await.expect(200), json!({"success": true}));
    // Bridges that know only of expired sessions find their words in it.
    assert_eq!(bridge.ended().await, (1000, "Pair session expired: its owner has ended it".to_owned()));
    let status = api.status(&paired).await;
    assert_eq!((&status["connected"], &status["ended"]), (&json!(false), &json!("by_owner")));
    assert_eq!(api.refused(&paired).await.refused(410, "PAIR_SESSION_ENDED"), Value::Null);
    end().await.expect(200);
    assert_eq!(api.status(&paired).await, status);
    api.stop().await;
}

#[tokio::test]
async fn a_handshake_is_judged_in_order() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let path = "/v1/gateway/pairing/connect";
    let healthy = api.ask("GET", path).send().await;
    assert_eq!(healthy.invalid(), ["session_id", "namespace", "code"], "what a bridge looks for before it begins");
    let part = format!("{path}?session_id={}&namespace=acme", paired.id);
    assert_eq!(api.ask("GET", &part).upgrade().send().await.invalid(), ["code"]);
    api.ask("GET", &paired.target()).send().await.refused(426, "UPGRADE_REQUIRED");
    let odd = format!("{}&code=x", paired.target());
    assert_eq!(api.ask("GET", &odd).upgrade().send().await.invalid(), ["code"]);

    let says = |answer: super::support::Answer, status, text: &str| {
        assert_eq!(answer.expect(status)["error"], text);
    };
    let unknown = Paired { id: "b2f5ff47-4366-4d9c-8b28-5e0fd1a4c1a9".to_owned(), ..paired.clone() };
    says(api.refused(&unknown).await, 404, "Pair session not found");
    let elsewhere = Paired { namespace: "other".to_owned(), ..paired.with_code(&code_of(&paired)) };
    says(api.refused(&elsewhere).await, 403, "Namespace mismatch");
    says(api.refused(&paired.with_code(&code_of(&paired))).await, 403, "Invalid pair code");
    api.sql(|db| db.execute("UPDATE pairing_sessions SET expires_at_ms = 1", []));
    says(api.refused(&elsewhere).await, 410, "Pair session expired");
    says(api.refused(&paired).await, 410, "Pair session expired");
    assert_eq!(api.status(&paired).await["ended"], "expired");
    api.stop().await;
}

#[tokio::test]
async fn a_code_in_the_header_is_read_before_that_in_the_query() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let (wrong, name) = (code_of(&paired), "x-sigilum-pair-code");
    let refused = api.ask("GET", &paired.target()).header(name, &wrong).upgrade().send().await;
    refused.refused(403, "INVALID_PAIR_CODE");
    let bare = format!("/v1/gateway/pairing/connect?session_id={}&namespace=acme", paired.id);
    let _bridge = Bridge::shake(&api, &bare, &[(name, &paired.code)]).await;
    api.wait_connected(&paired, true).await;
    api.stop().await;
}

#[tokio::test]
async fn five_wrong_codes_end_a_session_that_no_bridge_has_joined() {
    let api = ControlPlane::start().await;
    let (paired, other) = (api.paired("acme").await, api.paired("acme").await);
    for _ in 0..5 {
        assert_eq!(api.status(&paired).await["ended"], Value::Null);
        api.refused(&paired.with_code(&code_of(&paired))).await.refused(403, "INVALID_PAIR_CODE");
    }
    assert_eq!(api.status(&paired).await["ended"], "wrong_codes");
    api.refused(&paired).await.refused(403, "INVALID_PAIR_CODE");
    api.command(&paired, json!({})).send().await.refused(410, "GATEWAY_RELAY_FAILED");
    Bridge::join(&api, &other).await;
    api.stop().await;
}

#[tokio::test]
async fn wrong_codes_do_not_cut_a_gateway_off() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let working = Bridge::join(&api, &paired).await.work();
    for _ in 0..5 {
        api.refused(&paired.with_code(&code_of(&paired))).await.refused(403, "INVALID_PAIR_CODE");
    }
    // Beyond that no code is looked at, neither a wrong one nor the right one.
    api.refused(&paired.with_code(&code_of(&paired))).await.refused(429, "RATE_LIMITED");
    let waits = api.refused(&paired).await;
    waits.refused(429, "RATE_LIMITED");
    assert_eq!(waits.header("retry-after"), Some("30"));
    let status = api.status(&paired).await;
    assert_eq!((&status["connected"], &status["ended"]), (&json!(true), &Value::Null));
    api.command(&paired, json!({})).send().await.expect(200);
    api.stop().await;
    assert_eq!(working.await.unwrap().0, 1001);
}

/// Joins with the code and leaves again: the reconnect secret that it was given.
async fn secret_of(api: &ControlPlane, paired: &Paired) -> String {
    let (mut bridge, secret) = Bridge::shake_for_secret(api, &paired.target(), &[]).await;
    api.wait_connected(paired, true).await;
    bridge.send(Message::Close(None)).await;
    api.wait_connected(paired, false).await;
    secret.unwrap()
}

/// Tries wrong codes until none is looked at any more; from here, where the bridge is as well.
async fn exhaust_codes(api: &ControlPlane, paired: &Paired) {
    for _ in 0..5 {
        api.refused(&paired.with_code(&code_of(paired))).await.refused(403, "INVALID_PAIR_CODE");
    }
    api.refused(paired).await.refused(429, "RATE_LIMITED");
}

#[tokio::test]
async fn whoever_holds_the_reconnect_secret_comes_back_whatever_others_tried() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let secret = secret_of(&api, &paired).await;
    exhaust_codes(&api, &paired).await;
    for _ in 0..3 {
        let shown = [(RECONNECT_HEADER, secret.as_str())];
        let (mut bridge, another) = Bridge::shake_for_secret(&api, &paired.target(), &shown).await;
        assert_eq!(another, None, "it has one");
        api.wait_connected(&paired, true).await;
        bridge.send(Message::Close(None)).await;
        api.wait_connected(&paired, false).await;
    }
    assert_eq!(api.status(&paired).await["ended"], Value::Null);
    api.stop().await;
}

#[tokio::test]
async fn a_reconnect_secret_opens_its_own_session_alone() {
    let api = ControlPlane::start().await;
    let (paired, other) = (api.paired("acme").await, api.paired("acme").await);
    let secret = secret_of(&api, &other).await;
    let with = async |secret: &str, paired: &Paired| {
        api.ask("GET", &paired.target()).header(RECONNECT_HEADER, secret).upgrade().send().await
    };
    // Before any bridge: no more than the wrong code beside it, which counts.
    let wrong = paired.with_code(&code_of(&paired));
    with(&secret, &wrong).await.refused(403, "INVALID_PAIR_CODE");
    secret_of(&api, &paired).await;
    with(&secret, &wrong).await.refused(403, "INVALID_PAIR_CODE");
    with("nonsense", &wrong).await.refused(403, "INVALID_PAIR_CODE");
    let elsewhere = Paired { namespace: "other".to_owned(), ..other.clone() };
    with(&secret, &elsewhere).await.refused(403, "NAMESPACE_MISMATCH");
    api.sql(|db| db.execute("UPDATE pairing_sessions SET expires_at_ms = 1", []));
    with(&secret, &other).await.refused(410, "PAIR_SESSION_EXPIRED");
    api.stop().await;
}

#[tokio::test]
async fn a_reconnect_secret_counts_until_the_code_opens_the_session_again() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let (first, second) = (secret_of(&api, &paired).await, secret_of(&api, &paired).await);
    assert_ne!(first, second);
    exhaust_codes(&api, &paired).await;
    let ask = api.ask("GET", &paired.target()).header(RECONNECT_HEADER, &first).upgrade();
    ask.send().await.refused(429, "RATE_LIMITED");
    Bridge::shake(&api, &paired.target(), &[(RECONNECT_HEADER, &second)]).await;
    api.stop().await;
}

#[tokio::test]
async fn the_database_holds_no_reconnect_secret() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let secret = secret_of(&api, &paired).await;
    let held: Vec<u8> = api.sql(|db| {
        db.query_row("SELECT reconnect_hash FROM pairing_sessions WHERE id = ?1", [&paired.id], |row| row.get(0))
    });
    assert_eq!(held.len(), 32);
    for (name, bytes) in api.files() {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "in {name}");
    }
    api.stop().await;
}

#[tokio::test]
async fn strangers_are_bounded_and_known_bridges_served_all_the_same() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    bridge.send(Message::Close(None)).await;
    api.wait_connected(&paired, false).await;
    assert_eq!(exhaust_strangers(&api, &paired).await, [404, 429]);
    Bridge::join(&api, &paired).await;
    api.stop().await;
}

/// Tries an id of no session until nobody looks it up any more; the statuses that were answered.
async fn exhaust_strangers(api: &ControlPlane, paired: &Paired) -> Vec<u16> {
    let stranger = Paired { id: "b2f5ff47-4366-4d9c-8b28-5e0fd1a4c1a9".to_owned(), ..paired.clone() };
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let answers = futures_util::future::join_all((0..16).map(|_| api.refused(&stranger))).await;
        statuses.extend(answers.iter().map(|answer| answer.status));
        if statuses.contains(&429) {
            break;
        }
    }
    statuses.into_iter().collect()
}

#[tokio::test]
async fn strangers_do_not_keep_the_bridge_of_a_new_session_out() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    assert_eq!(exhaust_strangers(&api, &paired).await, [404, 429]);
    Bridge::join(&api, &paired).await;
    api.stop().await;
}

#[tokio::test]
async fn a_foreign_page_opens_no_socket() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    for foreign in ["https://evil.example", "null", "http://localhost:3001"] {
        let ask = api.ask("GET", &paired.target()).header("origin", foreign).upgrade();
        ask.send().await.refused(403, "FORBIDDEN");
    }
    assert_eq!(api.status(&paired).await["ended"], Value::Null);
    Bridge::shake(&api, &paired.target(), &[("origin", "http://localhost:3000")]).await;
    api.stop().await;
}
