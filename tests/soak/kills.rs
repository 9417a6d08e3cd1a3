//! Each process is killed in turn under load, again and again: the gateway is back each time, and what may not pass does not.
//! 20 seconds under `cargo test`, SIGILUM_KILL_SECONDS in long runs.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::client::Exchange;
use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::process::StopAtEnd;
use crate::support::process::signal;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// What is killed, in this order; the supervisor is started again as a service manager would.
const VICTIMS: [&str; 4] = ["authz", "admin", "envoy", "supervisor"];
/// Senders that may, and each one's pause.
const SENDERS: usize = 2;
const PAUSE: Duration = Duration::from_millis(10);
/// Requests that pass between two kills.
const PASSED: usize = 20;

fn length() -> Duration {
    let seconds = std::env::var("SIGILUM_KILL_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// One connection that is opened again where it breaks.
struct Line<'a> {
    gateway: &'a Gateway,
    exchange: Option<Exchange>,
}

impl Line<'_> {
    /// The status and code; `None` where there is no answer.
    fn send(&mut self, request: &Request) -> Option<(u16, String)> {
        if self.exchange.is_none() {
            self.exchange = Exchange::open(self.gateway.setup.ingress).ok();
        }
        let answer = self.exchange.as_mut()?.send(request).ok();
        if answer.is_none() {
            self.exchange = None;
        }
        answer.map(|answer| (answer.status, answer.code()))
    }
}

#[test]
fn what_may_not_pass_does_not_while_each_process_is_killed_in_turn() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let stranger = Agent::new("mallory");
    let (stop, passed, numbers) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (mut kills, mut slowest) = (HashMap::<&str, usize>::new(), Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                let mut line = Line { gateway: &gateway, exchange: None };
                let mut admitted: Option<Request> = None;
                while !stop.load(Ordering::Acquire) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let request = gateway.agent().get(&gateway.authority(), &connection.at(&format!("/may/{number}")));
                    match line.send(&request) {
                        Some((200, _)) => {
                            passed.fetch_add(1, Ordering::AcqRel);
                            admitted = Some(request);
                        }
                        // Nobody decides, or nobody is there.
                        Some((503 | 502, _)) | None => {}
                        Some(other) => panic!("an approved agent is answered {other:?}"),
                    }
                    // One that has passed is sent again, whoever decides now.
                    if let Some(again) = admitted.as_ref().filter(|_| number.is_multiple_of(5)) {
                        let answer = line.send(again);
                        assert!(!matches!(answer, Some((200, _))), "a replay has passed");
                    }
                    thread::sleep(PAUSE);
                }
            });
        }
        scope.spawn(|| {
            let mut line = Line { gateway: &gateway, exchange: None };
            while !stop.load(Ordering::Acquire) {
                let target = connection.at("/must-not");
                let unsigned = Request::new("GET", &gateway.authority(), &target);
                let unapproved = stranger.get(&gateway.authority(), &target);
                let forged = gateway.agent().get(&gateway.authority(), &target);
                let forged = forged.replace("sigilum-subject", |_| "mallory".into());
                for request in [unsigned, unapproved, forged] {
                    let answer = line.send(&request);
                    assert!(answer.as_ref().is_none_or(|(status, _)| *status >= 400), "{answer:?}");
                }
                thread::sleep(PAUSE);
            }
        });
        let _stop = StopAtEnd(&stop);
        let start = Instant::now();
        for victim in VICTIMS.iter().cycle() {
            let before = passed.load(Ordering::Acquire);
            wait_until("requests pass", LIMIT, || passed.load(Ordering::Acquire) > before + PASSED);
            // All four at the least.
            if start.elapsed() > length() && kills.len() == VICTIMS.len() {
                break;
            }
            let at = Instant::now();
            if *victim == "supervisor" {
                gateway.running().signal(Signal::KILL);
                gateway.running().wait(LIMIT);
                gateway.restart();
            } else {
                let pid = gateway.role(victim);
                signal(pid, Signal::KILL);
                gateway.wait_replaced(victim, pid);
                gateway.wait_ready(LIMIT);
            }
            slowest = slowest.max(at.elapsed());
            *kills.entry(victim).or_default() += 1;
        }
    });
    let seen = upstream.seen();
    let mut counts = HashMap::<&str, usize>::new();
    for request in &seen {
        *counts.entry(&request.target).or_default() += 1;
    }
    println!(
        "{} requests arrived, {} passed; kills {kills:?}; back within {slowest:?}",
        seen.len(),
        passed.into_inner()
    );
    assert!(!counts.keys().any(|target| target.contains("must-not")), "an unauthenticated request has arrived");
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "these arrived more than once: {twice:?}");
}
