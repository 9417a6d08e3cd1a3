//! The long run of approvals: for `SIGILUM_SOAK_SECONDS` (a few seconds under plain `cargo test`) claims come and go
//! and the control plane is killed again and again, while an approved agent sends all the time.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::support::agent::Agent;
use crate::support::api::Api;
use crate::support::plane;
use crate::support::plane::OWN;
use crate::support::plane::SERVICE;
use crate::support::process::StopAtEnd;
use crate::support::process::memory_kib;
use crate::support::upstream::Upstream;

/// Time between two kills of the control plane.
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
fn claims_come_and_go_and_the_control_plane_dies_and_nothing_grows() {
    let (api, upstream) = (Api::start(), Upstream::start());
    let service = api.service(OWN, SERVICE);
    let gateway = plane::pace(plane::setup(&api.url(), &service), 1, 300).start();
    gateway.connect(&upstream, json!({}));
    let steady = Agent::new("acme");
    api.approve(&steady, &service);
    plane::until(&gateway, &steady, "OK");

    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let memory = || (memory_kib(gateway.role("admin"), "VmRSS"), memory_kib(gateway.role("authz"), "VmRSS"));
    let (mut warm, mut rounds, mut kills) = (None, 0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                assert_eq!(plane::outcome(&gateway, &steady), "OK");
                sent.fetch_add(1, Ordering::AcqRel);
            }
        });
        let _stop = StopAtEnd(&stop);
        let (start, mut killed) = (Instant::now(), Instant::now());
        while start.elapsed() < length() || kills == 0 {
            let agent = Agent::new("acme");
            let claim = api.approve(&agent, &service);
            plane::until(&gateway, &agent, "OK");
            if killed.elapsed() > KILL_EVERY.min(length() / 4) {
                // Whatever is decided next is decided by the next one.
                api.kill();
                api.go();
                (killed, kills) = (Instant::now(), kills + 1);
            }
            api.decide("acme", &claim, "revoke");
            plane::until(&gateway, &agent, "AUTH_CLAIM_REQUIRED");
            rounds += 1;
            if warm.is_none() && start.elapsed() > length() / 4 {
                warm = Some((memory(), sent.load(Ordering::Acquire)));
            }
        }
    });
    plane::until_fresh(&gateway, true);
    assert_eq!(plane::metric(&gateway, "claims_approvals"), Some(1.0), "only the steady agent is left");
    let ((admin, authz), before) = warm.expect("the run lasted for one round");
    let (admin_now, authz_now) = memory();
    let sent = sent.into_inner();
    println!(
        "{rounds} rounds, {kills} kills, {sent} requests; admin {admin} -> {admin_now} KiB, authz {authz} -> {authz_now} KiB"
    );
    let nonces_kib = NONCE_BYTES * (sent - before) as u64 / 1024;
    assert!(admin_now <= admin + GROWTH_KIB, "admin grew from {admin} to {admin_now} KiB");
    assert!(authz_now <= authz + GROWTH_KIB + nonces_kib, "authz grew from {authz} to {authz_now} KiB");
}
