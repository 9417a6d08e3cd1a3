//! Connections come, change and go while Envoy runs, and nobody else notices.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::support::client::Broken;
use crate::support::client::Exchange;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

/// Keeps `work` busy beside a steady stream of requests on another connection, and returns how many
/// of those were answered. One that fails fails the test.
fn beside_traffic(gateway: &Gateway, target: &str, work: impl FnOnce()) -> usize {
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let traffic: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut exchange = Exchange::open(gateway.setup.ingress).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        let request = gateway.agent().get(&gateway.authority(), target);
                        let response = exchange.send(&request).unwrap_or_else(|Broken(why)| panic!("{why}"));
                        assert_eq!(response.status, 200, "{}", response.text());
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        // The traffic must end also where the work fails.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        for thread in traffic {
            thread.join().unwrap();
        }
        if let Err(failure) = outcome {
            std::panic::resume_unwind(failure);
        }
    });
    sent.into_inner()
}

#[test]
fn changes_of_one_connection_fail_no_request_on_another() {
    let gateway = Gateway::start();
    let (steady, first, second) = (Upstream::start(), Upstream::start(), Upstream::start());
    let other = gateway.connect(&steady, json!({}));
    let sent = beside_traffic(&gateway, &other.at("/v1"), || {
        for round in 0..5 {
            let connection = gateway.connect(&first, json!({}));
            let path = format!("/connections/{}", connection.id);
            let target = connection.at(&format!("/round-{round}"));

            // Added.
            assert_eq!(gateway.get(&target).status, 200);
            let seen = first.seen().pop().unwrap();
            assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", connection.secret).as_str()));

            // Changed: another provider.
            let before = second.count();
            let patch = json!({ "base_url": second.base_url() });
            let patched = gateway.admin("PATCH", &path, Some(&patch));
            assert_eq!(patched.status, 200, "{}", patched.text());
            wait_until("requests go to the new provider", LIMIT, || {
                assert_eq!(gateway.get(&target).status, 200);
                second.count() > before
            });

            // Rotated: another credential.
            let secret = format!("rotated-{round}");
            let rotate = json!({ "secrets": { "api_key": secret } });
            let rotated = gateway.admin("POST", &format!("{path}/rotate"), Some(&rotate));
            assert_eq!(rotated.status, 200, "{}", rotated.text());
            wait_until("the new credential is injected", LIMIT, || {
                assert_eq!(gateway.get(&target).status, 200);
                second.seen().pop().unwrap().header("authorization") == Some(format!("Bearer {secret}").as_str())
            });

            // Disabled.
            let patch = json!({ "status": "disabled" });
            assert_eq!(gateway.admin("PATCH", &path, Some(&patch)).status, 200);
            wait_until("it is disabled", LIMIT, || gateway.probe(&connection.id).status == 400);
            let before = second.count();
            assert_eq!(gateway.get(&target).status, 400);
            assert_eq!(second.count(), before);

            // Deleted.
            assert_eq!(gateway.admin("DELETE", &path, None).status, 204);
            wait_until("it is gone", LIMIT, || gateway.probe(&connection.id).status == 404);
            assert_eq!(gateway.get(&target).status, 404);
            assert_eq!(second.count(), before);
        }
    });
    assert!(sent > 50, "only {sent} requests in the meantime: nothing was shown");
    assert_eq!(steady.count(), sent);
}

#[test]
fn a_connection_outlives_a_restart() {
    let (gateway, upstream) = (Gateway::start(), Upstream::start());
    let connection = gateway.connect(&upstream, json!({ "auth_mode": "header_key", "auth_header_name": "x-key" }));
    gateway.running().signal(rustix::process::Signal::TERM);
    gateway.running().wait(LIMIT);
    gateway.restart();
    assert_eq!(gateway.get(&connection.at("/v1")).status, 200);
    assert_eq!(upstream.only().header("x-key"), Some(connection.secret.as_str()));
}

#[test]
fn the_admin_api_wants_its_token() {
    let gateway = crate::support::gateway::shared();
    let ask = |name: &str, value: &str| {
        let request =
            crate::support::client::Request::new("GET", &gateway.setup.admin.to_string(), "/api/admin/connections");
        crate::support::client::send(gateway.setup.admin, &request.header(name, value))
    };
    assert_eq!(ask("authorization", &format!("Bearer {}", gateway.token())).status, 200);
    assert_eq!(ask("x-sigilum-admin-token", &gateway.token()).status, 200);
    for refused in [ask("x-other", "1"), ask("authorization", "Bearer guess"), ask("x-sigilum-admin-token", "")] {
        assert_eq!((refused.status, refused.code().as_str()), (403, "ADMIN_TOKEN_REQUIRED"), "{}", refused.text());
    }
}
