//! The long run: traffic for `SIGILUM_SOAK_SECONDS` (a few seconds under plain `cargo test`) while the
//! store changes and the admin process is killed again and again.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::support::client::Exchange;
use crate::support::gateway::Gateway;
use crate::support::process::StopAtEnd;
use crate::support::process::memory_kib;
use crate::support::process::signal;
use crate::support::upstream::Upstream;

/// Connections that send all the time.
const SENDERS: usize = 4;
/// Every so many requests of a sender are sent a second time.
const REPLAY_EVERY: usize = 25;
/// Time between two kills of the admin process.
const KILL_EVERY: Duration = Duration::from_secs(10);
/// What a process may grow once it is warm, in KiB: buffers and caches fill up, nothing else.
const GROWTH_KIB: u64 = 48 * 1024;
/// Of authz besides, per admitted nonce, in bytes.
const NONCE_BYTES: u64 = 32;

fn length() -> Duration {
    let seconds = std::env::var("SIGILUM_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

#[test]
fn traffic_arrives_exactly_once_while_the_store_changes_and_admin_dies() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({}));
    let path = connection.at("/v1/soak");
    assert_eq!(gateway.get(&path).status, 200);

    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let memory = |role: &str| memory_kib(gateway.role(role), "VmRSS");
    let mut warm = None;
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                let mut line = Exchange::open(gateway.setup.ingress).unwrap();
                for number in 1.. {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    let body = format!("{{\"number\":{number}}}");
                    let request = gateway.agent().post(&gateway.authority(), &path, body.as_bytes());
                    let response = line.send(&request).unwrap();
                    assert_eq!(response.status, 200, "{}", response.text());
                    sent.fetch_add(1, Ordering::AcqRel);
                    if number % REPLAY_EVERY == 0 {
                        let again = line.send(&request).unwrap();
                        assert_eq!((again.status, again.code().as_str()), (403, "AUTH_REPLAY_DETECTED"));
                    }
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        let (start, mut killed) = (Instant::now(), Instant::now());
        while start.elapsed() < length() {
            // Each round changes the store, which must not touch traffic on another connection.
            gateway.wait_ready(Duration::from_secs(60));
            let id = "soak-churn";
            assert_eq!(gateway.create(id, &upstream.base_url(), "soak", json!({})).status, 201);
            assert_eq!(gateway.admin("DELETE", &format!("/connections/{id}"), None).status, 204);
            if warm.is_none() && start.elapsed() > length() / 4 {
                warm = Some((memory("authz"), memory("envoy"), sent.load(Ordering::Acquire)));
            }
            if killed.elapsed() > KILL_EVERY {
                let admin = gateway.role("admin");
                signal(admin, Signal::KILL);
                gateway.wait_replaced("admin", admin);
                killed = Instant::now();
            }
        }
    });

    let sent = sent.into_inner();
    assert_eq!(upstream.count(), sent + 1, "what was answered 200 arrived once, replays never");
    let (authz, envoy, before) = warm.expect("the run lasted for one round");
    let nonces_kib = NONCE_BYTES * (sent - before) as u64 / 1024;
    let (authz_now, envoy_now) = (memory("authz"), memory("envoy"));
    println!("{sent} requests; authz {authz} -> {authz_now} KiB, Envoy {envoy} -> {envoy_now} KiB");
    assert!(authz_now <= authz + GROWTH_KIB + nonces_kib, "authz grew from {authz} to {authz_now} KiB");
    assert!(envoy_now <= envoy + GROWTH_KIB, "Envoy grew from {envoy} to {envoy_now} KiB");
}
