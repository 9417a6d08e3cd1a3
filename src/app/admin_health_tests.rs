//! Health over HTTP: who is told what, and what a look costs.

use super::*;

#[tokio::test]
async fn every_name_of_health_answers_get_and_head_and_nothing_else() {
    let gateway = Gateway::start().await;
    let authz = gateway.authz();
    wait_until(async || gateway.send("GET", "/readyz", &[], "").await.status == 200).await;
    for (path, check) in [
        ("/health", "health"),
        ("/healthz", "health"),
        ("/health/live", "liveness"),
        ("/health/startup", "startup"),
        ("/health/ready", "readiness"),
        ("/ready", "readiness"),
        ("/readyz", "readiness"),
    ] {
        let got = gateway.send("GET", path, &[], "").await;
        assert_eq!((got.status, &got.json()["check"]), (200, &check.into()), "{path}");
        assert_eq!((&got.json()["ok"], &got.json()["status"]), (&true.into(), &"ok".into()), "{path}");
        assert_eq!(got.json().get("ready").is_some(), check == "readiness", "{path}");
        assert_eq!(got.header("cache-control"), Some("no-store"), "{path}");
        let head = gateway.send("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        for method in ["POST", "DELETE"] {
            let refused = gateway.send(method, path, &[], "").await;
            assert_eq!((refused.status, refused.header("allow")), (405, Some("GET,HEAD")), "{method} {path}");
        }
    }
    authz.end().await;
}

#[tokio::test]
async fn details_are_for_those_who_have_the_token() {
    let gateway = Gateway::start().await;
    let authz = gateway.authz();
    wait_until(async || gateway.send("GET", "/readyz", &[], "").await.status == 200).await;
    let told = gateway.ready().await;
    assert_eq!((told.status, &told.json()["contractVersion"]), (200, &1.into()));
    assert_eq!(condition(&told.json(), "Store")["status"], "True");
    for (mine, headers) in [
        (false, vec![]),
        (false, vec![("x-sigilum-admin-token", "wrong-token-0123456789")]),
        (false, vec![("x-sigilum-admin-token", TOKEN), ("x-sigilum-relay", "session-1")]),
        (true, vec![("x-sigilum-admin-token", TOKEN)]),
    ] {
        let answer = gateway.send("GET", "/health/ready", &headers, "").await;
        assert_eq!(answer.status, 200, "{headers:?}");
        assert_eq!(answer.json().get("conditions").is_some(), mine, "{headers:?}: {}", answer.body);
    }
    authz.end().await;
    wait_until(async || gateway.send("GET", "/readyz", &[], "").await.status == 503).await;
    let stranger = gateway.send("GET", "/readyz", &[], "").await;
    let mut members: Vec<_> = stranger.json().as_object().unwrap().keys().cloned().collect();
    members.sort_unstable();
    assert_eq!(members, ["code", "docs_url", "error", "ok", "ready", "request_id", "timestamp"]);
    assert!(!stranger.body.contains("authz"), "{}", stranger.body);
    assert_eq!(gateway.ready().await.json()["failures"], serde_json::json!(["XdsInSync"]));
}

#[tokio::test]
async fn a_wrong_token_is_a_guess_here_too() {
    let gateway = Gateway::start().await;
    // From elsewhere: a program of this machine is never locked out.
    let guess = |token| [("x-sigilum-admin-token", token), ("x-forwarded-for", "192.0.2.1")];
    wait_until(async || gateway.ready().await.json().get("conditions").is_some()).await;
    for _ in 0..10 {
        gateway.send("GET", "/readyz", &guess("wrong-token-0123456789"), "").await;
    }
    let locked = gateway.send("GET", CONNECTIONS, &guess("wrong-token-0123456789"), "").await;
    assert_eq!((locked.status, locked.code().as_str()), (429, "AUTH_RATE_LIMITED"));
    let right = gateway.send("GET", "/readyz", &guess(TOKEN), "").await;
    assert!(right.json().get("conditions").is_some(), "whoever has the right one is told: {}", right.body);
}

#[tokio::test]
async fn a_fresh_look_is_made_for_those_who_have_the_token_alone() {
    let gateway = Gateway::start().await;
    let authz = gateway.authz();
    wait_until(async || gateway.ready().await.status == 200).await;
    let at = |answer: Answer| answer.json()["uptimeMs"].as_u64().unwrap();
    let before = at(gateway.ready().await);
    let fresh = at(gateway.ask("GET", "/health/ready?fresh", "").await);
    assert!(fresh > before, "{fresh} after {before}");
    authz.end().await;
    let stopped = gateway.ask("GET", "/health/ready?fresh=true", "").await;
    assert_eq!(stopped.status, 503, "a fresh look sees at once what is so now: {}", stopped.body);
}

#[tokio::test]
async fn each_part_of_the_store_turns_its_own_condition() {
    let gateway = Gateway::start().await;
    let authz = gateway.authz();
    wait_until(async || gateway.ready().await.status == 200).await;
    let data = gateway.folder.path().join("data");
    let store = rusqlite::Connection::open(data.join("gateway.db")).unwrap();
    let meta = |name: &str| -> Vec<u8> {
        store.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).unwrap()
    };
    let write = |name: &str, value: &[u8]| {
        store.execute("UPDATE meta SET value = ?2 WHERE name = ?1", rusqlite::params![name, value]).unwrap();
    };
    let failures = async || gateway.ask("GET", "/health/ready?fresh", "").await.json()["failures"].clone();

    let sentinel = meta("sentinel");
    write("sentinel", &meta("salt"));
    assert_eq!(failures().await, serde_json::json!(["MasterKey"]));
    let told = gateway.ready().await.json();
    assert_eq!(condition(&told, "MasterKey")["reason"], "KeyMismatch");
    write("sentinel", &sentinel);
    assert_eq!(gateway.ask("GET", "/health/ready?fresh", "").await.status, 200);

    let version = meta("version");
    store.execute("DELETE FROM meta WHERE name = 'version'", []).unwrap();
    assert_eq!(failures().await, serde_json::json!(["Store"]));
    assert_eq!(condition(&gateway.ready().await.json(), "Store")["reason"], "StoreUnavailable");
    store.execute("INSERT INTO meta (name, value) VALUES ('version', ?1)", [version]).unwrap();
    assert_eq!(gateway.ask("GET", "/health/ready?fresh", "").await.status, 200);

    std::fs::remove_file(data.join("gateway.lock")).unwrap();
    assert_eq!(failures().await, serde_json::json!(["StateLock"]));
    assert_eq!(condition(&gateway.ready().await.json(), "StateLock")["reason"], "LockHeldElsewhere");
    authz.end().await;
}

#[tokio::test]
async fn the_status_says_what_the_gateway_knows_to_those_who_have_the_token() {
    let gateway = Gateway::start().await;
    let stranger = gateway.send("GET", "/api/v1/status", &[], "").await;
    assert_eq!((stranger.status, stranger.code().as_str()), (403, "ADMIN_TOKEN_REQUIRED"));
    gateway.ask("POST", CONNECTIONS, &connection("linear")).await;
    gateway.ask("POST", CONNECTIONS, &connection("github")).await;
    gateway.ask("PATCH", "/api/admin/connections/github", r#"{"status":"disabled"}"#).await;
    let authz = gateway.authz();
    wait_until(async || gateway.ready().await.status == 200).await;
    let answer = gateway.ask("GET", "/api/v1/status", "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = answer.json();
    assert_eq!(
        (&told["schemaVersion"], &told["ok"], &told["readiness"]["ready"]),
        (&1.into(), &true.into(), &true.into())
    );
    assert_eq!(told["connections"], serde_json::json!({"active": 1, "disabled": 1, "degraded": 0, "rotationDue": 0}));
    // Declared in the settings of the test.
    assert_eq!(told["claims"], serde_json::json!({"state": "fresh", "source": "off", "ageSeconds": 0, "approved": 1}));
    assert_eq!(told["authz"]["decisions"], serde_json::json!({"allow": 1, "deny": 2, "error": 0}));
    assert_eq!((&told["authz"]["reachable"], &told["authz"]["failClosed"]), (&true.into(), &true.into()));
    assert_eq!((&told["envoy"]["managed"], &told["envoy"]["state"]), (&false.into(), &"UNKNOWN".into()));
    assert_eq!(told["envoy"]["xds"]["cds"]["acked"], true);
    assert_eq!(told["gateway"]["control"]["port"], gateway.address.port());
    assert_eq!((&told["gateway"]["bindMode"], &told["gateway"]["authMode"]), (&"loopback".into(), &"token".into()));
    assert!(!answer.body.contains(CANARY) && !answer.body.contains(TOKEN));
    authz.end().await;
}

#[tokio::test]
async fn envoy_is_told_until_it_hears_it_that_nobody_drains() {
    let gateway = Gateway::start().await;
    // It was not there when admin started, and not at the first looks.
    let (asked, serving) = envoy_admin(&gateway.folder.path().join("run"), "");
    let said = |path: &str| asked.lock().unwrap().iter().filter(|line| line.contains(path)).count();
    wait_until(async || said("POST /healthcheck/ok") == 1).await;
    let begun = gateway.ask("POST", "/api/v1/drain", r#"{"leaseSeconds":600}"#).await;
    assert_eq!(begun.status, 201, "{begun:?}");
    wait_until(async || said("POST /healthcheck/fail") > 1).await;
    assert_eq!(said("POST /healthcheck/ok"), 1, "what was heard is not said again");
    assert_eq!(gateway.ask("DELETE", "/api/v1/drain", "").await.status, 204);
    assert_eq!(said("POST /healthcheck/ok"), 2);
    assert_eq!(gateway.ask("GET", "/api/v1/drain", "").await.json()["leases"], 0);
    serving.abort();
}

#[tokio::test]
async fn a_drain_that_is_answered_with_an_error_holds_nothing() {
    let gateway = Gateway::start().await;
    let data = gateway.folder.path().join("data");
    let store = rusqlite::Connection::open(data.join("gateway.db")).unwrap();
    for change in ["UPDATE", "INSERT"] {
        let text = format!("CREATE TRIGGER no_{change} BEFORE {change} ON meta BEGIN SELECT RAISE(ABORT, 'no'); END");
        store.execute_batch(&text).unwrap();
    }
    let refused = gateway.ask("POST", "/api/v1/drain", "{}").await;
    assert!(refused.status >= 500, "{refused:?}");
    let told = gateway.ask("GET", "/api/v1/drain", "").await.json();
    assert_eq!((&told["draining"], &told["leases"]), (&false.into(), &0.into()));
}
