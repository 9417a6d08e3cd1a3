//! `gateway restart --handoff`: authz and admin are replaced, and nobody notices.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Exchange;
use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::process::StopAtEnd;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Requests per second, all senders together.
const RATE: usize = 200;
/// Connections that send.
const SENDERS: usize = 4;
/// Every so many requests of a sender are sent again at the end.
const REPLAY_EVERY: usize = 10;
/// Between two pieces of the stream.
const PIECE_EVERY: Duration = Duration::from_millis(25);

/// Sends at a steady rate until told to stop; requests that were answered 200 go to `kept` now and then, everything
/// else to `failed`.
struct Load<'a> {
    gateway: &'a Gateway,
    path: &'a str,
    stop: &'a AtomicBool,
    sent: &'a AtomicUsize,
    kept: &'a Mutex<Vec<Request>>,
    failed: &'a Mutex<Vec<String>>,
    slowest: &'a Mutex<Duration>,
}

impl Load<'_> {
    fn send(&self) {
        let mut line = Exchange::open(self.gateway.setup.ingress).unwrap();
        let begun = Instant::now();
        for number in 1_u32.. {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let due = Duration::from_secs(1) * number * u32::try_from(SENDERS).unwrap() / u32::try_from(RATE).unwrap();
            thread::sleep(due.saturating_sub(begun.elapsed()));
            let request = self.gateway.agent().get(&self.gateway.authority(), self.path);
            let at = Instant::now();
            match line.send(&request) {
                Ok(answer) if answer.status == 200 => {
                    if (number as usize).is_multiple_of(REPLAY_EVERY) {
                        self.kept.lock().unwrap().push(request);
                    }
                }
                Ok(answer) => self.failed.lock().unwrap().push(format!("{} {}", answer.status, answer.text())),
                Err(broken) => {
                    self.failed.lock().unwrap().push(broken.0);
                    line = Exchange::open(self.gateway.setup.ingress).unwrap();
                }
            }
            let mut slowest = self.slowest.lock().unwrap();
            *slowest = slowest.max(at.elapsed());
            drop(slowest);
            self.sent.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn hand_off(gateway: &Gateway) -> Value {
    let output = gateway.setup.command(&["gateway", "restart", "--handoff", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", gateway.logs());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn no_request_fails_no_stream_breaks_and_no_nonce_passes_twice() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let path = connection.at("/v1/load");
    let before = ["admin", "authz", "envoy"].map(|role| gateway.role(role));
    let admitted = gateway.agent().get(&gateway.authority(), &path);
    assert_eq!(gateway.send(&admitted).status, 200);

    // An answer that takes longer than the hand-off.
    let feed = upstream.feed();
    let mut stream = Exchange::open(gateway.setup.ingress).unwrap();
    assert!(stream.write(&gateway.agent().get(&gateway.authority(), &connection.at("/stream")).bytes()));
    assert_eq!(stream.read_head("GET").unwrap().status, 200);

    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (kept, failed, slowest) = (Mutex::default(), Mutex::default(), Mutex::default());
    let load = Load {
        gateway: &gateway,
        path: &path,
        stop: &stop,
        sent: &sent,
        kept: &kept,
        failed: &failed,
        slowest: &slowest,
    };
    let (pieces, streamed) = thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let feeder = scope.spawn(|| {
            let mut pieces = Vec::new();
            while !stop.load(Ordering::Acquire) {
                let piece = format!("piece {}\n", pieces.len());
                feed.blocking_send(piece.clone().into()).expect("somebody reads the stream");
                pieces.push(piece);
                thread::sleep(PIECE_EVERY);
            }
            drop(feed);
            pieces.concat()
        });
        let reader = scope.spawn(|| {
            let mut read = Vec::new();
            while let Some(piece) = stream.read_piece().expect("the stream is whole") {
                read.extend(piece);
            }
            String::from_utf8(read).unwrap()
        });
        for _ in 0..SENDERS {
            scope.spawn(|| load.send());
        }
        let watcher = scope.spawn(|| {
            let request = Request::new("GET", &gateway.setup.admin.to_string(), "/readyz?fresh")
                .header("authorization", &format!("Bearer {}", gateway.token()));
            let mut said = Vec::new();
            while !stop.load(Ordering::Acquire) {
                // While admin itself is replaced nobody answers.
                if let Ok(answer) = client::try_send(gateway.setup.admin, &request) {
                    said.push((answer.status, answer.text()));
                }
            }
            said
        });
        wait_until("there is traffic", LIMIT, || sent.load(Ordering::Acquire) > RATE / 2);
        let report = hand_off(&gateway);
        assert_eq!(report["result"], "healthy", "{report}");
        let at = sent.load(Ordering::Acquire);
        wait_until("traffic goes on", LIMIT, || sent.load(Ordering::Acquire) > at + RATE / 2);
        stop.store(true, Ordering::Release);
        let looks = watcher.join().unwrap();
        assert!(looks.iter().any(|(status, _)| *status == 200), "{looks:?}");
        for (status, text) in looks {
            let told: Value = serde_json::from_str(&text).unwrap_or_default();
            let failures = told["failures"].as_array().cloned().unwrap_or_default();
            assert!(!failures.contains(&"NonceStore".into()), "{status} {text}");
        }
        (feeder.join().unwrap(), reader.join().unwrap())
    });

    let failed = failed.into_inner().unwrap();
    let sent = sent.into_inner();
    println!("{sent} requests, the slowest {:?}", slowest.into_inner().unwrap());
    assert!(failed.is_empty(), "{} of {sent} failed: {failed:#?}\n{}", failed.len(), gateway.logs());
    assert_eq!(streamed, pieces);
    // What was admitted by either is refused, whoever is asked.
    for request in kept.into_inner().unwrap().iter().chain([&admitted]) {
        let answer = gateway.send(request);
        assert_eq!((answer.status, answer.code().as_str()), (403, "AUTH_REPLAY_DETECTED"));
    }
    let now = ["admin", "authz", "envoy"].map(|role| gateway.role(role));
    assert!(now[0] != before[0] && now[1] != before[1] && now[2] == before[2], "{before:?} {now:?}");
    assert_eq!(upstream.count(), sent + 2, "each arrived once");
}

#[test]
fn a_second_hand_off_works_as_the_first() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let mut seen = vec![gateway.role("authz")];
    for round in 0..3 {
        hand_off(&gateway);
        let authz = gateway.role("authz");
        assert!(!seen.contains(&authz), "{seen:?} {authz}");
        seen.push(authz);
        assert_eq!(gateway.get(&connection.at(&format!("/v1/{round}"))).status, 200);
    }
    // And a crash afterwards is like any other.
    crate::support::process::signal(gateway.role("authz"), rustix::process::Signal::KILL);
    gateway.wait_replaced("authz", seen[3]);
    gateway.wait_ready(LIMIT);
    assert_eq!(gateway.get(&connection.at("/v1/after")).status, 200);
}
