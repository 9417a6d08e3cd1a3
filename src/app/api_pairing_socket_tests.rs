//! The socket of a bridge once it has joined, on real sockets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code may panic")]

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::pairing_support::Bridge;
use super::pairing_support::Paired;
use super::pairing_support::echo;
use super::support::ControlPlane;
use super::support::local_token;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::pairing::SHUTDOWN;

fn now_ms() -> i64 {
    i64::try_from(SystemClock.now().wall.0).unwrap()
}

/// Sends one command and has the bridge answer it.
async fn relay(api: &ControlPlane, paired: &Paired, bridge: &mut Bridge) {
    let asked = api.command(paired, json!({"method": "POST", "body": "x"}));
    let answered = async {
        let command = bridge.command().await;
        bridge.echo(&command).await;
    };
    let (answer, ()) = tokio::join!(asked.send(), answered);
    assert_eq!(answer.expect(200)["body"], "x");
}

#[tokio::test]
async fn beats_are_answered_in_both_directions() {
    let api = ControlPlane::start_with(|config| {
        config.limits.pairing.heartbeat = Duration::from_millis(100);
        config.limits.pairing.silence = Duration::from_secs(20);
    })
    .await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    bridge.say(r#"{"type":"ping","ts":1}"#).await;
    let frames = [bridge.frame().await, bridge.frame().await];
    for kind in ["pong", "ping"] {
        let frame = frames.iter().find(|frame| frame["type"] == kind).unwrap_or_else(|| panic!("{frames:?}"));
        let off = now_ms() - frame["ts"].as_i64().unwrap();
        assert!((0..10_000).contains(&off), "{frame}");
    }
    api.stop().await;
}

#[tokio::test]
async fn a_bridge_that_says_nothing_is_dropped() {
    let api = ControlPlane::start_with(|config| {
        config.limits.pairing.heartbeat = Duration::from_millis(100);
        config.limits.pairing.silence = Duration::from_millis(300);
    })
    .await;
    let (silent, alive) = (api.paired("acme").await, api.paired("acme").await);
    let working = Bridge::join(&api, &alive).await.work();
    // Its socket stays open, as it does where a cable is cut.
    let _held = Bridge::join(&api, &silent).await;
    api.wait_connected(&silent, false).await;
    assert_eq!(api.status(&alive).await["connected"], true);
    api.stop().await;
    assert_eq!(working.await.unwrap().0, 1001);
}

#[tokio::test]
async fn what_is_no_frame_is_passed_over() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    for text in ["", "nonsense", "[]", "7", "{}", r#"{"type":"response"}"#, r#"{"type":"shutdown"}"#, r#"{"type":1}"#] {
        bridge.say(text).await;
    }
    bridge.say(r#"{"type":"response","request_id":"b2f5ff47","status":200,"body":"for nobody"}"#).await;
    bridge.send(Message::Binary(vec![0, 159, 146, 150].into())).await;
    bridge.send(Message::Ping(vec![1].into())).await;
    assert_eq!(bridge.next().await, Message::Pong(vec![1].into()));
    relay(&api, &paired, &mut bridge).await;
    api.stop().await;
}

#[tokio::test]
async fn a_bridge_that_leaves_is_answered() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    bridge.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: SHUTDOWN.into() }))).await;
    assert_eq!(bridge.ended().await.0, 1000);
    api.wait_connected(&paired, false).await;
    api.stop().await;
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    let asks = (0..8).map(|number| api.command(&paired, json!({"path": format!("/{number}")})).send());
    let bridged = async {
        let mut commands = Vec::new();
        for _ in 0..8 {
            commands.push(bridge.command().await);
        }
        for command in commands.iter().rev() {
            bridge.echo(command).await;
            bridge.echo(command).await;
        }
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(asks), bridged);
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.expect(200)["headers"]["x-path"], json!(format!("/{number}")));
    }
    api.stop().await;
}

#[tokio::test]
async fn a_live_bridge_keeps_its_place() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let working = Bridge::join(&api, &paired).await.work();
    api.refused(&paired).await.refused(409, "GATEWAY_ALREADY_CONNECTED");
    api.command(&paired, json!({})).send().await.expect(200);
    api.stop().await;
    assert_eq!(working.await.unwrap(), (1001, "the API stops".to_owned()));
}

#[tokio::test]
async fn a_refusal_that_passes_is_held_back_from_bridges_that_see_no_status() {
    let api = ControlPlane::start_with(|config| config.limits.pairing.held = Duration::from_millis(500)).await;
    let paired = api.paired("acme").await;
    let working = Bridge::join(&api, &paired).await.work();
    let begun = SystemClock.now().monotonic;
    api.refused(&paired).await.refused(409, "GATEWAY_ALREADY_CONNECTED");
    let held_ms = SystemClock.now().monotonic.since(begun);
    assert!(held_ms >= 500, "{held_ms}");
    api.stop().await;
    working.await.unwrap();
    // One that is not held comes in the test's own time.
    let api = ControlPlane::start_with(|config| config.limits.pairing.held = Duration::from_secs(3600)).await;
    let paired = api.paired("acme").await;
    let working = Bridge::join(&api, &paired).await.work();
    let target = paired.target().split("&code=").next().unwrap().to_owned();
    let asked = api.ask("GET", &target).header("x-sigilum-pair-code", &paired.code).upgrade();
    asked.send().await.refused(409, "GATEWAY_ALREADY_CONNECTED");
    api.refused(&paired.with_code("WRONG234")).await.refused(403, "INVALID_PAIR_CODE");
    api.stop().await;
    working.await.unwrap();
}

#[tokio::test]
async fn a_dead_bridge_is_replaced_and_its_end_touches_nothing_of_the_new_one() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut dead = Bridge::join(&api, &paired).await;
    let waiting = api.command(&paired, json!({"timeout_ms": 30_000}));
    let replaced = async {
        let never_answered = dead.command().await;
        let mut new = Bridge::shake(&api, &paired.target(), &[]).await;
        (new.command().await, new, never_answered)
    };
    let later = async {
        // The old one's command ends with it; the next goes to the new one.
        waiting.send().await.refused(504, "GATEWAY_RELAY_FAILED");
        api.command(&paired, json!({"path": "/new"})).send().await
    };
    let ((command, mut new, never_answered), answer) = tokio::join!(
        async {
            let (command, mut new, old) = replaced.await;
            // An answer to the dead one's command is nobody's here.
            new.say(echo(&old)).await;
            new.echo(&command).await;
            (command, new, old)
        },
        later
    );
    assert_eq!(answer.expect(200)["headers"]["x-path"], "/new");
    assert_ne!(command["request_id"], never_answered["request_id"]);
    assert_eq!(dead.ended().await, (1000, "replaced".to_owned()));
    drop(dead);
    relay(&api, &paired, &mut new).await;
    assert_eq!(api.status(&paired).await["connected"], true);
    api.stop().await;
}

#[tokio::test]
async fn a_lease_lives_as_long_as_its_bridge() {
    let api = ControlPlane::start().await;
    let start = api.owner("acme", "POST", "/v1/gateway/pairing/start").json(&json!({"ttl_seconds": 100}));
    let made = start.send().await.expect(200);
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let paired = Paired { id: text("session_id"), namespace: text("namespace"), code: text("pair_code") };
    let left = async || api.status(&paired).await["expires_at"].as_i64().unwrap() - now_ms();
    let mut bridge = Bridge::join(&api, &paired).await;
    assert!(left().await <= 100_000, "joining alone does not extend it");
    bridge.say(r#"{"type":"pong","ts":1}"#).await;
    bridge.say(r#"{"type":"ping","ts":1}"#).await;
    assert_eq!(bridge.frame().await["type"], "pong");
    let extended = tokio::time::timeout(Duration::from_secs(20), async { while left().await <= 100_000 {} }).await;
    extended.unwrap();
    assert!((7_190_000..=7_200_000).contains(&left().await));
    api.stop().await;
}

#[tokio::test]
async fn no_lease_lives_longer_than_the_longest_and_its_socket_ends_with_it() {
    let api = ControlPlane::start_with(|config| config.limits.pairing.max_life = Duration::from_millis(1500)).await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::shake(&api, &paired.target(), &[]).await;
    bridge.say(r#"{"type":"ping","ts":1}"#).await;
    assert_eq!(bridge.ended().await, (1000, "Pair session expired".to_owned()));
    let status = api.status(&paired).await;
    assert_eq!((&status["connected"], &status["ended"]), (&json!(false), &json!("expired")));
    api.refused(&paired).await.refused(410, "PAIR_SESSION_EXPIRED");
    api.command(&paired, json!({})).send().await.refused(410, "GATEWAY_RELAY_FAILED");
    api.stop().await;
}

#[tokio::test]
async fn the_bridge_of_an_owner_who_leaves_is_told_to_go_at_once() {
    let api = ControlPlane::start().await;
    let (left, kept) = (api.paired("acme").await, api.paired("other").await);
    let mut bridge = Bridge::join(&api, &left).await;
    let mut neighbour = Bridge::join(&api, &kept).await;
    let (asked, ()) = tokio::join!(api.command(&left, json!({})).send(), async {
        bridge.command().await;
        api.owner("acme", "DELETE", "/v1/auth/account").send().await.expect(200);
        // The upkeep looks 20 s after the start at the earliest.
        let ended = tokio::time::timeout(Duration::from_secs(10), bridge.ended()).await;
        assert_eq!(ended.unwrap(), (1000, "Pair session not found".to_owned()));
    });
    asked.refused(504, "GATEWAY_RELAY_FAILED");
    api.refused(&left).await.refused(404, "NOT_FOUND");
    relay(&api, &kept, &mut neighbour).await;
    api.stop().await;
}

#[tokio::test]
async fn an_answer_of_eight_megabytes_passes_and_one_of_fifty_is_refused() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    let answer = |command: &Value, bytes: usize| {
        let body = "\"".repeat(bytes);
        json!({"type": "response", "request_id": command["request_id"], "status": 200, "body": body}).to_string()
    };
    let asked = api.command(&paired, json!({})).send();
    let answered = async {
        let command = bridge.command().await;
        bridge.say(answer(&command, 8 << 20)).await;
    };
    let (relayed, ()) = tokio::join!(asked, answered);
    assert_eq!(relayed.expect(200)["body"].as_str().unwrap().len(), 8 << 20);

    // Two wait: neither can be told from the other, and both are told.
    let asked = (0..2).map(|_| api.command(&paired, json!({"timeout_ms": 60_000})).send());
    let answered = async {
        let command = bridge.command().await;
        bridge.command().await;
        // The socket may be gone before all of it was taken.
        let _ = tokio::time::timeout(Duration::from_secs(60), bridge.try_say(answer(&command, 50 << 20))).await;
    };
    let (refused, ()) = tokio::join!(futures_util::future::join_all(asked), answered);
    for refused in refused {
        refused.refused(502, "GATEWAY_RELAY_FAILED");
    }
    api.wait_connected(&paired, false).await;
    let mut again = Bridge::join(&api, &paired).await;
    relay(&api, &paired, &mut again).await;
    api.stop().await;
}

#[tokio::test]
async fn a_restart_of_the_api_does_not_end_a_pairing() {
    let folder = tempfile::tempdir().unwrap();
    let start = || ControlPlane::start_with(|config| config.data_dir = folder.path().to_owned());
    let api = start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    let asked = api.command(&paired, json!({"timeout_ms": 30_000}));
    let stopped = async {
        bridge.command().await;
        // Before the stop: what waits for an answer is not held against it.
        tokio::join!(api.stop_ref(), bridge.ended()).1
    };
    let (waiting, ended) = tokio::join!(asked.send(), stopped);
    waiting.refused(504, "GATEWAY_RELAY_FAILED");
    assert_eq!(ended, (1001, "the API stops".to_owned()));
    api.stop().await;

    let api = start().await;
    assert_eq!(api.status(&paired).await["connected"], false);
    let mut bridge = Bridge::join(&api, &paired).await;
    relay(&api, &paired, &mut bridge).await;
    api.stop().await;
}

/// Commands that are sent in all.
const COMMANDS: usize = 10_000;

/// A client that keeps its connection and sends the next command that nobody has sent, until there is none.
async fn ask_again_and_again(address: std::net::SocketAddr, paired: Paired, next: Arc<AtomicUsize>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut buffer = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= COMMANDS {
            return;
        }
        let token = local_token(&paired.namespace);
        let path = format!("/{number}");
        let body = json!({"session_id": paired.id, "method": "POST", "path": path, "body": format!("body of {number}"),
            "timeout_ms": 60_000})
        .to_string();
        let head = format!(
            "POST /v1/gateway/pairing/command HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        buffer.clear();
        let answer = loop {
            assert_ne!(stream.read_buf(&mut buffer).await.unwrap(), 0);
            let text = std::str::from_utf8(&buffer).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                break serde_json::from_str::<Value>(body).unwrap();
            }
        };
        assert_eq!(
            (&answer["headers"]["x-path"], &answer["body"]),
            (&json!(path), &json!(format!("body of {number}")))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_are_answered_each_with_its_own_answer() {
    let api = ControlPlane::start().await;
    let paired = api.paired("acme").await;
    let mut bridge = Bridge::join(&api, &paired).await;
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..32 {
        clients.spawn(ask_again_and_again(api.address, paired.clone(), Arc::clone(&next)));
    }
    let mut held = Vec::new();
    for number in 0..COMMANDS {
        held.push(bridge.command().await);
        // In another order than they came. While more than a hundred are to come all 32 clients have one on its way.
        let last = number >= COMMANDS - 100;
        if held.len() >= 24 || last {
            held.reverse();
            let kept = if last { 0 } else { held.len() / 2 };
            for command in held.split_off(kept) {
                bridge.echo(&command).await;
            }
        }
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    api.stop().await;
}
